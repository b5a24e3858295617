"""Limit alarms: low_low, low, high, high_high with deadband, on-delay and off-delay.

Source: ISA-18.2 / IEC 62682 in the terms of DOMAIN section 5: the deadband holds an alarm until the value is clearly
back, the delays keep a value that only touches its limit from chattering.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.detector import Turn
from gateway.model.frame import DETECT_BITS, TagTable

N_LIMITS: Final = 4
BIT: Final = DETECT_BITS["limits"]


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i8[::1], f8[::1], u4[::1], u1[::1], "
    "f8[:, ::1], f8[::1], i8[::1], i8[::1], i8[:, ::1], u2[::1])"
)
def step(
    ready, start, stop, time_ns, value, quality, detect,
    limit, deadband, on_delay_ns, off_delay_ns, since_ns, flags,
):  # fmt: skip
    """Advance the limits of every tag of the ready scans by one frame.

    limit     float64[n, 4], low_low, low, high, high_high; NaN never speaks
    since_ns  int64[n, 4] state: when the value crossed towards the other state, 0 while it has not
    flags     uint16[n], bits 0 to 3 are ours; a bad reading leaves them as they are
    """
    for k in range(ready.size):
        now = time_ns[ready[k]]
        for i in range(start[ready[k]], stop[ready[k]]):
            if quality[i] & BAD or not detect[i] & BIT:
                continue
            for j in range(N_LIMITS):
                edge = limit[i, j]
                if edge != edge:
                    continue
                bit = np.uint16(1 << j)
                is_on = (flags[i] & bit) != 0
                band = deadband[i] if is_on else 0.0
                beyond = value[i] < edge + band if j < 2 else value[i] > edge - band
                if beyond == is_on:
                    since_ns[i, j] = 0
                    continue
                if since_ns[i, j] == 0:
                    since_ns[i, j] = now
                if now - since_ns[i, j] >= (off_delay_ns[i] if is_on else on_delay_ns[i]):
                    flags[i] ^= bit
                    since_ns[i, j] = 0


class Limits:
    """Detector of values beyond the limits that the site has set."""

    name: Final = "limits"

    def __init__(self, table: TagTable) -> None:
        self._table = table
        self._since_ns = np.zeros((table.n, N_LIMITS), np.int64)

    def update(self, turn: Turn) -> None:
        """Advance by one frame of each ready scan; see `step`."""
        t = self._table
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.time_ns, turn.value, turn.quality, t.detect,
            t.limit, t.deadband, t.on_delay_ns, t.off_delay_ns, self._since_ns, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return {"since_ns": self._since_ns}
