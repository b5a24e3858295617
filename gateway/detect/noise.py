"""Noise: a meter is noisier than it ever was, as a loose terminal, a wet plug or a failing converter makes it.

Measured by the mean step between two polls within five minutes, of which the least of three in a row counts: what an
operator does is over within one or two. After a week it is held against the largest that it has shown.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from drivers.jit import kernel

LOUDER: Final = 2.5  # times the largest so far; a fault of practice is five times and more
MIN_STEPS: Final = 20.0  # in a bucket: a mean of fewer says little
FORGET: Final = 0.005 / 288.0  # of the largest, a bucket: half in 139 days
KNOWN: Final = 2016.0  # buckets: a week

BEFORE, BEFORE_THAT, LOUDEST, BUCKETS = range(4)  # rows of float32[N_NOISE, n]
N_NOISE: Final = 4


@kernel("b1(i8, f8, f8, f4[:, ::1])", inner=True)
def judge_noise(i, rough, steps, s):
    """Take the sum of the steps of a bucket, and how many they were; return whether the tag is noisier than ever.

    s float32[N_NOISE, n] state: the mean step of the last bucket, of that before, the largest least of three, buckets
    """
    if steps < MIN_STEPS:
        return False
    mean = rough / steps
    least = min(mean, np.float64(min(s[BEFORE, i], s[BEFORE_THAT, i]))) if s[BUCKETS, i] >= 2.0 else 0.0
    loudest = np.float64(s[LOUDEST, i])
    is_louder = s[BUCKETS, i] >= KNOWN and loudest > 0.0 and least > LOUDER * loudest
    s[BEFORE_THAT, i] = s[BEFORE, i]
    s[BEFORE, i] = mean
    s[LOUDEST, i] = max((1.0 - FORGET) * loudest, least)
    s[BUCKETS, i] += 1.0
    return is_louder
