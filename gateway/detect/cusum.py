"""CUSUM: how much novelty, one tick after the other, adds up to an alarm.

Two cumulative sums of a tag, each of which loses its allowance at every tick and alarms once, when it is above its
limit; from 0 on it may alarm again:

    burst  the units of `novelty` of a tick, less 1; limit 8. What is new keeps on being new where something is wrong,
           and what is less than 0.7 of what the tag has shown before is not. It waits for a quarter of an hour whether
           the value stays: a test, a visit, a valve that is moved are over by then, and what jumps and returns is
           `spike`'s. A tag that is read too seldom for `spike` does not wait.
    drift  how far the value lies beyond all that was known two days ago, in units an hour, less 1; limit 3, and as
           much as the largest so far. Each hour of a creeping meter excuses the next one, but not what was known.
           What has gone that way since its first week is the nature of the tag, as a total shown as a plain number.

The limit of the burst falls with what is known: eight times (week / age) cubed. The drift is silent for a week.

Source: Page, "Continuous inspection schemes", Biometrika 41 (1954). Allowances and limits: docs/detectors.md.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from drivers.jit import kernel

WEEK_S: Final = 604_800.0
HOUR_S: Final = 3_600.0
ALLOWANCE: Final = 1.0  # units: of a tick, and of an hour; the noise of a tag that does what it always did stays below
BURST: Final = 8.0  # units: two opinions of four, and again at the next tick
MOST: Final = 3.0 * BURST  # that a burst remembers: in two hours without news it is over
USUAL: Final = 0.7  # of the largest burst that the tag has shown is no news
GRADE: Final = 3.0  # power of week / age with which the first days ask for more
STAYS: Final = 3.0  # ticks after a burst until its alarm: a quarter of an hour
DRIFT: Final = 3.0  # units times hours
MOST_DRIFT: Final = 48.0  # that a drift remembers: 16 h at four units; after one like that the next is found later
MOST_HOURS: Final = 0.5  # that a tick counts for: no drift without two values, whatever lies between them
FORGET_SUM: Final = 0.0245  # of the largest so far, a day: half in four weeks, as of what is usual to `spike`

# Rows of float32[N_SUMS, n].
SUM, PEAK, LARGEST, HAS_TOLD = range(4)
HOME, WAIT, ABOUT, EDGE, UPWARDS = range(4, 9)
DRIFTED, FARTHEST, LARGEST_DRIFT, HAS_TOLD_DRIFT = range(9, 13)
N_SUMS: Final = 13


@kernel("i8(i8, f8, i8, f8, f8, f8, b1, f4[:, ::1])", inner=True)
def judge_burst(i, units, term, x, hours, age_s, waits, s):
    """Take the units of a tick of tag i, what has most of them, the value, and for how many hours.

    Returns what an alarm is about that is due, or 0. Where there is no sum, none waits and the units are less than the
    allowance, HOME is the value.

    s float32[N_SUMS, n] state
    """
    s[SUM, i] = max(0.0, min(np.float64(s[SUM, i]) + units - ALLOWANCE, MOST))
    due = 0
    if s[WAIT, i] > 0.0:
        if hours <= MOST_HOURS and (x - np.float64(s[EDGE, i])) * np.float64(s[UPWARDS, i]) > 0.0:
            s[WAIT, i] -= np.float32(1.0)
            if s[WAIT, i] == 0.0:
                due = int(s[ABOUT, i])
        else:
            s[WAIT, i] = s[SUM, i] = 0.0  # it is back, or nobody saw whether it stayed
    if s[SUM, i] == 0.0:
        s[LARGEST, i] = max(s[LARGEST, i], s[PEAK, i])
        s[PEAK, i] = s[HAS_TOLD, i] = 0.0
        s[HOME, i] = x
        return due
    s[PEAK, i] = max(s[PEAK, i], s[SUM, i])
    limit = BURST * max(1.0, WEEK_S / max(age_s, 1.0)) ** GRADE
    if np.float64(s[SUM, i]) < max(limit, USUAL * np.float64(s[LARGEST, i])) or s[HAS_TOLD, i] > 0.0:
        return due
    s[HAS_TOLD, i] = 1.0
    if not waits:
        return term
    s[WAIT, i], s[ABOUT, i] = STAYS, term
    home = np.float64(s[HOME, i])
    s[UPWARDS, i] = 1.0 if x > home else -1.0
    s[EDGE, i] = 0.5 * (home + x)
    return due


@kernel("b1(i8, f8, f8, f8, f4[:, ::1])", inner=True)
def judge_drift(i, units, hours, age_s, s):
    """Take by how many units tag i lies beyond what was known, and since how many hours; return whether it drifts.

    s float32[N_SUMS, n] state
    """
    begins = s[DRIFTED, i] == 0.0
    s[DRIFTED, i] = max(0.0, min(np.float64(s[DRIFTED, i]) + (units - ALLOWANCE) * min(hours, MOST_HOURS), MOST_DRIFT))
    if s[DRIFTED, i] == 0.0:
        s[LARGEST_DRIFT, i] = max(s[LARGEST_DRIFT, i], s[FARTHEST, i])
        s[FARTHEST, i] = s[HAS_TOLD_DRIFT, i] = 0.0
        return False
    if begins and age_s < WEEK_S:
        s[HAS_TOLD_DRIFT, i] = 1.0  # by nature, for all that is known
    s[FARTHEST, i] = max(s[FARTHEST, i], s[DRIFTED, i])
    is_enough = np.float64(s[DRIFTED, i]) >= max(DRIFT, np.float64(s[LARGEST_DRIFT, i]))
    if not is_enough or s[HAS_TOLD_DRIFT, i] > 0.0:
        return False
    s[HAS_TOLD_DRIFT, i] = 1.0
    return True
