"""detect: all detectors of the bank over one frame of every device."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.detect.bank import Bank
from tests.benchmarks import rig

SIZES = (100, 1_000, 10_000)
TAGS = 100  # of one device
FRAMES = 32


def measure(*, seconds: float = 0.4, n_rounds: int = 5) -> dict[str, Any]:
    """Return the time per value of the bank, by the number of tags in one call, and the bytes of state per tag."""
    found = rig.medians({str(n): _contest(n, seconds) for n in SIZES}, n_rounds)
    bank = Bank(rig.table(SIZES[0] // TAGS, TAGS, "uint16"))
    state = sum(column.nbytes for detector in bank.detectors for column in detector.state().values())
    return {
        "ns_per_value": found["1000"],
        "state_bytes_per_tag": state / SIZES[0],
        "scan": {n: {"ns_per_value": ns, "samples_per_s": 1e9 / ns} for n, ns in found.items()},
    }


def _contest(n: int, seconds: float) -> Any:
    table = rig.table(n // TAGS, TAGS, "uint16")
    bank, rng = Bank(table), np.random.default_rng(43)
    ready = np.arange(len(table.scans), dtype=np.int32)
    time_ns = np.full(len(table.scans), 1_764_000_000_000_000_000)
    frames = np.cumsum(rng.normal(0, 0.1, (FRAMES, n)), axis=0) + rng.uniform(100, 1000, n)
    quality = np.zeros(n, np.uint32)
    at = 0

    def once() -> None:
        nonlocal at, time_ns
        at = (at + 1) % FRAMES
        time_ns += 1_000_000_000
        bank.update(ready, time_ns, frames[at], quality)

    return lambda: rig.ns_per_call(once, seconds) / n
