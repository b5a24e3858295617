"""EWMA z-score: a value far from its own recent mean, in its own standard deviations.

Source: Roberts, "Control chart tests based on geometric moving averages", Technometrics 1 (1959); the variance is the
exponentially weighted one of West's update.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.detector import Turn
from gateway.detect.flags import EWMA
from gateway.model.frame import DETECT_BITS, TagTable

BIT: Final = DETECT_BITS["ewma"]
ALPHA: Final = 1 / 100  # memory of about 100 polls
WARM_UP: Final = 20  # polls before the first verdict; a variance from fewer is mostly luck
Z_ALARM: Final = 8.0  # a Gaussian tag passes this once in 10^15; heavy tails still leave it rare
FLOOR_RELATIVE: Final = 1e-3  # of the mean: meters are not better than 0.1 %, so less is never news


@kernel(
    "void(i4[::1], i4[::1], i4[::1], f8[::1], u4[::1], u1[::1], f8[::1], f8[::1], f8[::1], i4[::1], f8[::1], u2[::1])"
)
def step(ready, start, stop, value, quality, detect, resolution, mean, variance, seen, score, flags):
    """Advance every tag of the ready scans by one frame: score first, then learn.

    resolution  float64[n], the smallest step of the tag; the standard deviation is never taken to be less
    mean, variance float64[n], seen int32[n]  state; what is learnt from one value is clipped at Z_ALARM deviations
    score       float64[n], raised to |z| / (|z| + Z_ALARM): 0.5 at the alarm
    """
    for k in range(ready.size):
        for i in range(start[ready[k]], stop[ready[k]]):
            if not detect[i] & BIT:
                continue
            flags[i] &= np.uint16(0xFFFF ^ EWMA)
            if quality[i] & BAD:
                continue
            seen[i] = min(seen[i] + 1, 1_000_000)
            e = value[i] - mean[i]
            sd = max(np.sqrt(variance[i]), max(FLOOR_RELATIVE * abs(mean[i]), resolution[i]))
            if seen[i] > WARM_UP and sd > 0.0:
                z = abs(e) / sd
                score[i] = max(score[i], z / (z + Z_ALARM))
                if z > Z_ALARM:
                    flags[i] |= np.uint16(EWMA)
                    e = Z_ALARM * sd if e > 0.0 else -Z_ALARM * sd
            a = max(ALPHA, 1.0 / seen[i])
            mean[i] += a * e
            variance[i] = (1.0 - a) * (variance[i] + a * e * e)


class Ewma:
    """Detector of values far from their own recent mean."""

    name: Final = "ewma"

    def __init__(self, table: TagTable) -> None:
        self._table = table
        self._mean = np.zeros(table.n)
        self._variance = np.zeros(table.n)
        self._seen = np.zeros(table.n, np.int32)

    def update(self, turn: Turn) -> None:
        """Advance by one frame of each ready scan; see `step`."""
        t = self._table
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.value, turn.quality, t.detect, t.resolution,
            self._mean, self._variance, self._seen, turn.score, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return {"mean": self._mean, "variance": self._variance, "seen": self._seen}
