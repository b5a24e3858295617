"""Compile every kernel ahead, so that no first poll waits for a compiler."""

from __future__ import annotations

import importlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from gateway.model.frame import TagTable

KERNELS: Final = (
    "drivers.decode",
    "gateway.totals",
    "gateway.estimate",
    "gateway.detect.limits",
    "gateway.detect.spike",
    "gateway.detect.rules",
    "gateway.detect.chatter",
    "gateway.detect.buckets",
    "gateway.detect.noise",
    "gateway.detect.cusum",
    "gateway.detect.envelopes",
    "gateway.detect.novelty",
    "gateway.detect.health",
    "gateway.detect.governor",
    "gateway.detect.bank",
    "gateway.wire.frame_lines",
    "gateway.spool.record",
    "gateway.replay.sheet",
    "gateway.replay.summary",
)
OF_REPLAY: Final = ("gateway.replay.sheet", "gateway.replay.summary")
DETECT: Final = "gateway.detect."
REPLAY: Final = (*(name for name in KERNELS if name.startswith(DETECT)), *OF_REPLAY)

_LOADING: Final = threading.Lock()  # a reload may want kernels while those of the detectors are being loaded

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
            say(f"kernels {i}/{len(KERNELS)}: {name}")
            _load(name)
    except OSError as error:
        wanted = "wanted a folder that can be written, as $CACHE_DIRECTORY says it"
        raise NotKept(f"{folder}: kernels cannot be kept: {error.strerror}; {wanted}") from None
    say(f"kernels ready in {time.monotonic() - began:.1f} s, kept in {folder}")


def needed(table: TagTable) -> tuple[str, ...]:
    """Return the modules whose kernels a gateway with these tags ever calls."""
    points = [tag.point for tag in table.tags]
    is_idle = {
        "gateway.totals": not any(point.kind == "counter" for point in points),
        "gateway.estimate": not any(point.rate for point in points),
        "gateway.detect.chatter": not any(point.kind == "state" for point in points),
        **dict.fromkeys(OF_REPLAY, True),
    }
    return tuple(name for name in KERNELS if not is_idle.get(name))


def detectors(table: TagTable) -> tuple[str, ...]:
    """Return those of the detectors: the line does not wait for them."""
    return tuple(name for name in needed(table) if name.startswith(DETECT))


def of_line(table: TagTable) -> tuple[str, ...]:
    """Return those without which nothing is spooled or published."""
    return tuple(name for name in needed(table) if not name.startswith(DETECT))


def compile_missing(say: Say, modules: Sequence[str]) -> None:
    """Load the kernels of modules; say of which some have to be compiled now, and nothing when all are kept."""
    from drivers.jit import on_compile

    for i, name in enumerate(modules, 1):
        part = f"{i}/{len(modules)}: {name}"
        with _LOADING, on_compile(partial(say, f"compiling kernels, for this and later starts: {part}")):
            _load(name)


def _load(module: str) -> None:
    from drivers import jit

    importlib.import_module(module)
    jit.load(module)


def _folder() -> Path:
    """Return the folder that the compiler uses."""
    import drivers.jit  # noqa: F401 - it chooses the folder, unless the user has

    return Path(os.environ["NUMBA_CACHE_DIR"])
