"""Commands about the machine they run on: bench, warm."""

from __future__ import annotations

import argparse
import signal

from gateway.commands.terminal import DONE, refuse, say


def bench(options: argparse.Namespace) -> int:
    """Measure."""
    try:
        from tests.benchmarks import main as benchmarks
    except ModuleNotFoundError:
        return refuse(["the benchmarks live in tests/benchmarks of a checkout: run `corridor bench` in its folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # benchmarks have servers to stop
    return int(benchmarks.run(options.stage, as_json=options.json))


def warm(options: argparse.Namespace) -> int:
    """Compile all kernels ahead."""
    from gateway.warm import NotKept, warm

    try:
        warm(say)
    except NotKept as error:
        return refuse([str(error)])
    return DONE
