"""Rate of change: a value that moves faster than the process can."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.detector import Turn
from gateway.detect.flags import RATE
from gateway.model.frame import DETECT_BITS, TagTable

BIT: Final = DETECT_BITS["rate"]
S_PER_NS: Final = 1e-9


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i8[::1], f8[::1], u4[::1], u1[::1], f8[::1], f8[::1], i8[::1], f8[::1], u2[::1])"
)
def step(ready, start, stop, time_ns, value, quality, detect, rate, last, last_ns, score, flags):
    """Advance every tag of the ready scans by one frame; the flag is set while |dx/dt| is above the limit.

    rate  float64[n], units per second, NaN never speaks
    last float64[n], last_ns int64[n]  state: the last good value and when it was (0: none yet)
    """
    for k in range(ready.size):
        now = time_ns[ready[k]]
        for i in range(start[ready[k]], stop[ready[k]]):
            if not detect[i] & BIT or rate[i] != rate[i]:
                continue
            flags[i] &= np.uint16(0xFFFF ^ RATE)
            if quality[i] & BAD:
                continue
            if last_ns[i] != 0 and now > last_ns[i]:
                speed = abs(value[i] - last[i]) / ((now - last_ns[i]) * S_PER_NS)
                if speed > rate[i]:
                    flags[i] |= np.uint16(RATE)
                    score[i] = max(score[i], 1.0 - 0.5 * rate[i] / speed)
            last[i] = value[i]
            last_ns[i] = now


class Rate:
    """Detector of changes faster than the tag's `rate`."""

    name: Final = "rate"

    def __init__(self, table: TagTable) -> None:
        self._table = table
        self._last = np.zeros(table.n)
        self._last_ns = np.zeros(table.n, np.int64)

    def update(self, turn: Turn) -> None:
        """Advance by one frame of each ready scan; see `step`."""
        t = self._table
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.time_ns, turn.value, turn.quality, t.detect,
            t.rate, self._last, self._last_ns, turn.score, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return {"last": self._last, "last_ns": self._last_ns}
