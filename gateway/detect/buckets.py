"""Buckets: what is read more often than every five minutes is judged by its five-minute values.

An hour of the day differs from another hour, not one second from the next. A gauge's bucket is the mean of its good
values, a counter's its rate, a state's the number of its changes. What is read less often passes value by value.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.tags import KINDS

BUCKET_S: Final = 300.0  # the period of most histories that people keep; 12 to the hour
S_PER_NS: Final = 1e-9
GAP: Final = 4.0  # usual intervals between frames: a longer one is a gap, and says nothing of the next
ALPHA: Final = 0.1  # of the usual interval: memory of 10 frames
FULL: Final = 0.5  # of a bucket must have been seen, and of its frames good, to judge a tag by it
GAUGE: Final = KINDS.index("gauge")
COUNTER: Final = KINDS.index("counter")


@kernel("f8(i8, i8, i8[::1], f8[::1])", inner=True)
def interval(number, now, before_ns, every_s):
    """Return how long after a frame at `now` the next of its scan is expected, seconds; 0 after the first.

    before_ns int64[scans], every_s float64[scans]  state: the last frame, and the usual interval
    """
    dt = max(now - before_ns[number], 0) * S_PER_NS if before_ns[number] != 0 else 0.0
    usual = min(dt, GAP * every_s[number]) if every_s[number] > 0.0 else dt
    every_s[number] += ALPHA * (usual - every_s[number]) if every_s[number] > 0.0 else usual
    before_ns[number] = max(now, before_ns[number])
    return usual


@kernel("b1(i8, i8, i8[::1], i8[::1])", inner=True)
def is_over(number, now, began_ns, frames):
    """Return whether the open bucket of a scan was over before a frame at `now`: there was a gap."""
    return frames[number] > 0 and now - began_ns[number] >= BUCKET_S / S_PER_NS


@kernel("b1(i8, i8, f8, i8[::1], i8[::1])", inner=True)
def is_full(number, now, usual, began_ns, frames):
    """Take a frame into the bucket of a scan; return whether it is the last that is expected in it.

    began_ns, frames int64[scans]  state: of the open bucket
    """
    if frames[number] == 0:
        began_ns[number] = now
    frames[number] += 1
    return usual > 0.0 and (now - began_ns[number]) * S_PER_NS + usual >= BUCKET_S


@kernel("void(i8, i8, f8[::1], u4[::1], u1[::1], f8[::1], f4[::1], f8[::1], f8[::1])", inner=True)
def add(a, b, value, quality, kind, total, count, rough, last):
    """Add a frame to the buckets of rows a to b.

    total, rough float64[n], count float32[n] state: sum of a gauge's values, changes of a state; sum of the steps
            between good values; how many these are
    last     float64[n] state: the last good value, NaN before the first
    """
    for row in range(a, b):
        i = np.uintp(row)
        good = (quality[i] & BAD) == 0
        v, t, n, x = value[i], total[i], count[i], last[i]
        more = v if kind[i] == GAUGE else (1.0 if (v != x) & (x == x) else 0.0)
        total[i] = t + more if good else t
        r = rough[i]
        further = r + abs(v - x) if x == x else r
        rough[i] = further if good else r
        count[i] = n + np.float32(1.0) if good else n
        last[i] = v if good else x
