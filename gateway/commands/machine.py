"""Commands about the machine they run on: bench, warm."""

from __future__ import annotations

import argparse
import signal
from typing import Final

from gateway.commands.terminal import DONE, refuse, say

SOAK: Final = "soak"  # the stage that takes as long as it is told


def bench(options: argparse.Namespace) -> int:
    """Measure."""
    if options.minutes is not None and options.stage != SOAK:
        options.misused(f"--minutes is for the stage {SOAK}, not for {options.stage}")
    try:
        from tests.benchmarks import main as benchmarks
    except ModuleNotFoundError:
        return refuse(["the benchmarks live in tests/benchmarks of a checkout: run `corridor bench` in its folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # benchmarks have servers to stop
    return int(benchmarks.run(options.stage, as_json=options.json, minutes=options.minutes))


def warm(options: argparse.Namespace) -> int:
    """Compile all kernels ahead."""
    from gateway.warm import NotKept, warm

    try:
        warm(say)
    except NotKept as error:
        return refuse([str(error)])
    return DONE
