"""Limit alarms: low_low, low, high, high_high with deadband, on-delay and off-delay.

Source: ISA-18.2 / IEC 62682 in the terms of DOMAIN section 5: the deadband holds an alarm until the value is clearly
back, the delays keep a value that only touches its limit from chattering.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from drivers.jit import kernel

N_LIMITS: Final = 4


@kernel("void(i8, i8, f8, f8[:, ::1], f8[::1], i8[::1], i8[::1], i8[:, ::1], u2[::1], f8[::1], f8[::1])", inner=True)
def judge_limits(
    i, now, value, limit, deadband, on_delay_ns, off_delay_ns, since_ns, standing, quiet_low, quiet_high
):  # fmt: skip
    """Advance the limits of tag i by one good value.

    limit     float64[n, 4], low_low, low, high, high_high; NaN never speaks
    since_ns  int64[n, 4] state: when the value crossed towards the other state, 0 while it has not
    standing  uint16[n] state, bits 0 to 3 are ours
    quiet_low, quiet_high  float64[n] state: a value between them changes nothing, so nobody needs to ask here
    """
    is_quiet = True
    for j in range(N_LIMITS):
        edge = limit[i, j]
        bit = np.uint16(1 << j)
        if edge != edge:
            standing[i] &= ~bit  # what the last run left of a limit that is gone
            continue
        is_on = (standing[i] & bit) != 0
        band = deadband[i] if is_on else 0.0
        beyond = value < edge + band if j < 2 else value > edge - band
        if beyond == is_on:
            since_ns[i, j] = 0
        else:
            if since_ns[i, j] == 0:
                since_ns[i, j] = now
            if now - since_ns[i, j] >= (off_delay_ns[i] if is_on else on_delay_ns[i]):
                standing[i] ^= bit
                since_ns[i, j] = 0
        if since_ns[i, j] != 0 or (standing[i] & bit) != 0:
            is_quiet = False
    low, high = -np.inf, np.inf
    for j in range(N_LIMITS):
        edge = limit[i, j]
        if edge == edge:
            if j < 2:
                low = max(low, edge)
            else:
                high = min(high, edge)
    quiet_low[i] = low if is_quiet else np.inf
    quiet_high[i] = high if is_quiet else -np.inf
