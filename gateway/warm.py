"""Compile every kernel ahead, so that no first poll waits for a compiler."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

KERNELS: Final = (
    "drivers.decode",
    "gateway.totals",
    "gateway.estimate",
    "gateway.detect.limits",
    "gateway.detect.rate",
    "gateway.detect.frozen",
    "gateway.detect.ewma",
    "gateway.detect.bank",
    "gateway.wire.frame_lines",
    "gateway.spool.record",
)

Say = Callable[[str], None]


class NotKept(Exception):
    """Compiled kernels cannot be written to the folder that keeps them."""


def warm(say: Say) -> None:
    """Compile every kernel; what is in the cache already takes no time. Raises NotKept."""
    began = time.monotonic()
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for i, name in enumerate(KERNELS, 1):
            say(f"kernels {_part(i)}: {name}")
            _load(name)
    except OSError as error:
        wanted = "wanted a folder that can be written, as $CACHE_DIRECTORY says it"
        raise NotKept(f"{folder}: kernels cannot be kept: {error.strerror}; {wanted}") from None
    say(f"kernels ready in {time.monotonic() - began:.1f} s, kept in {folder}")


def compile_missing(say: Say) -> None:
    """Load every kernel; say of which modules some have to be compiled now, and nothing when all are kept."""
    from drivers.jit import on_compile

    for i, name in enumerate(KERNELS, 1):
        with on_compile(partial(say, f"compiling kernels, for this and later starts: {_part(i)}: {name}")):
            _load(name)


def _load(module: str) -> None:
    from drivers import jit

    importlib.import_module(module)
    jit.load(module)


def _part(i: int) -> str:
    return f"{i}/{len(KERNELS)}"


def _folder() -> Path:
    """Return the folder that the compiler uses."""
    import drivers.jit  # noqa: F401 - it chooses the folder, unless the user has

    return Path(os.environ["NUMBA_CACHE_DIR"])
