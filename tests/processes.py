"""The product's own processes, as a user starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 40.0


@contextlib.contextmanager
def corridor(*arguments: object, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `corridor ...` with its output in `log`; SIGTERM and at last SIGKILL end it."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", *map(str, arguments)],
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            process_group=0,  # a Ctrl-C is for us, who end it in its turn
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)  # 2 s on an idle machine
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise AssertionError(
                f"{arguments} did not end after SIGTERM; its log:\n{log.read_text()[-2000:]}"
            ) from None


def until(look: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Look again until something true comes back; fails with `what` at the deadline."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while time.monotonic() < end:
        if found := look():
            return found
        pause.wait(0.05)
    raise AssertionError(f"waited {deadline_s:g} s for {what}")
