"""Children that end with their parent, also when the parent is killed and cannot end them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
LIBC: Final = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing may be


def end_with_parent() -> Callable[[], None]:
    """Return what a child runs before its program, as `preexec_fn`: SIGTERM comes when this process is gone.

    To be called and used in the main thread: the kernel watches the thread that forks.
    """
    parent = os.getpid()

    def ask() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it was killed before the kernel was asked

    return ask
