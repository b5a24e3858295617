"""Compile every kernel ahead, so that no first poll waits for a compiler."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Final

KERNELS: Final = (
    "drivers.decode",
    "gateway.detect.limits",
    "gateway.detect.rate",
    "gateway.detect.frozen",
    "gateway.detect.ewma",
    "gateway.detect.bank",
    "gateway.wire.frame_lines",
    "gateway.spool.record",
)


def warm(say: Callable[[str], None]) -> int:
    """Import every module that owns kernels; what is in the cache already takes no time. Returns 0."""
    from drivers.jit import cache_dir

    began = time.monotonic()
    for i, name in enumerate(KERNELS, 1):
        say(f"kernels {i}/{len(KERNELS)}: {name}")
        importlib.import_module(name)
    say(f"kernels ready in {time.monotonic() - began:.1f} s, kept in {cache_dir()}")
    return 0
