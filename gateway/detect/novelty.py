"""Novelty: has this meter ever been here, in this situation?

Five envelopes keep the lowest and highest value seen so far, each in another situation. A five-minute value scores by
how far it lies outside of one, measured against the meter's whole span and its own noise:

    LEVEL  the value                            for this hour of the day, and its neighbours
    DAY    the value less the mean of a day     for this hour of the day, and its neighbours
    WEEK   the value                            for this half of this day of the week, after four weeks
    STEP   the value                            after the value before: 16 cells of 0.45 sd
    TREND  the mean of half an hour             after the mean of three hours: 16 cells

    s = sum over the five of min(CAP, B / (SHARE * (R + B) + allowance)),  B outside the envelope, R its span
    s / (1 + GOVERN * A), A what this tag has told in the last weeks; told if above GROW x the last peak of REFRACTORY

The hour envelopes are kept twice: one learns at once; the neighbouring hours read a copy, renewed when the clock is
twelve hours away. Else an anomaly that creeps through the day teaches the next hour, and is forgiven. A half of a day
of the week teaches when it is over. It has been seen only a few times: it speaks of what lies two of its own widths
outside and is usual in most others, as a pump that runs on a Sunday.
Score first, then learn; what lies far out teaches no more than one span.

A score is told at once. What becomes an alarm is decided in `cusum`; there the time alone is no evidence, of a value
that the tag has shown before, at whatever hour: where pumps change their duty it was wrong three times a week.

Source: our own; the structure was chosen on one half of the Numenta Anomaly Benchmark (Lavin and Ahmad, "Evaluating
Real-time Anomaly Detection Algorithms", ICMLA 2015), with cross-validation inside it; numbers in docs/detectors.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.buckets import BUCKET_S, COUNTER, FULL, GAUGE, S_PER_NS, add, interval, is_full, is_over
from gateway.detect.cusum import (
    ALLOWANCE,
    DRIFTED,
    FORGET_SUM,
    HAS_TOLD_DRIFT,
    HOME,
    HOUR_S,
    LARGEST,
    LARGEST_DRIFT,
    N_SUMS,
    SUM,
    WAIT,
    judge_burst,
    judge_drift,
)
from gateway.detect.detector import Axis, Turn
from gateway.detect.envelopes import (
    CELLS,
    EVER,
    EVER_OF_DAY,
    EVER_OF_TREND,
    HALF_HOURS,
    HALVES,
    HOURS,
    KNOWN,
    N_ENVELOPES,
    OF_DAY,
    OF_HALF_DAY,
    OF_LEVEL,
    OF_STEP,
    OF_TREND,
    OF_WEEK,
    is_usual_elsewhere,
    recall,
    span,
    teach,
    teach_cells,
    turn_day,
    turn_half,
    turn_hour,
)
from gateway.detect.flags import DRIFT, NOISE, NOVELTY, SHIFT
from gateway.detect.noise import MIN_STEPS, N_NOISE, judge_noise
from gateway.detect.spike import SLOWEST_S
from gateway.detect.tags import Tags
from gateway.model.frame import DETECT_BITS

HOUR_NS: Final = 3_600_000_000_000
MONDAY: Final = 3  # what the day of 1970-01-01, a Thursday, is after a Monday
MAX_VALUE: Final = 1e30  # beyond it is no measurement

SHARE: Final = 0.05  # of the span that was ever covered is one unit of novelty: an operator's dead band
SHARE_TREND: Final = 0.10  # the same for the half-hour mean, whose span is smaller
WIDTHS: Final = 2.0  # of its envelope a value must lie outside of a half of a day of the week: it was seen a few times
NOISES: Final = 2.4  # mean steps: a Gaussian's is 1.13 sd, so 2.7 sd; an hour holds few values, and noise sets records
STEPS: Final = 0.5  # smallest steps of the meter: one digit outside is no news
CAP: Final = 4.0  # units: one term alone never is more than four opinions
FAST: Final = 6.0  # ticks, half an hour
MIDDLE: Final = 36.0  # ticks, three hours
DAY: Final = 288.0  # ticks
WEEK: Final = 2016.0  # ticks: of the mean and sd that scale the cells
CELL_SD: Final = 0.45  # sd a cell: 16 of them are 3.6 sd to each side
WARM_UP_S: Final = 86_400.0  # nothing is told before a day was observed
MAX_STEP_S: Final = 7_200.0  # of observed time between two ticks: a gap teaches nothing
GAP_S: Final = 21_600.0  # after a longer one there is no "before": STEP and TREND pause for a tick
REFRACTORY: Final = 96.0  # ticks, eight hours: a shift between two alarms of one tag,
GROW: Final = 1.4  # unless it has grown by 40 %
GOVERN: Final = 0.04  # for each unit that it has told, a tag must cry 4 % louder
GOVERN_TICKS: Final = 10_000.0  # five weeks: memory of that
MONTH_S: Final = 28 * 86_400.0  # before WEEK speaks
HALF: Final = 5.0  # units at a score of 0.5
ALARM_SCORE: Final = 0.5  # of the tick with which it alarms, at least
SMALLEST: Final = 1e-6  # of the span: a smaller difference is arithmetic, no step of the meter
STEP_DRIFT: Final = 1.001  # a tick: how the smallest step seen is forgotten
RELATIVE: Final = 1e-9  # of the value: what arithmetic makes of it
NEVER: Final = 1e9  # ticks since an alarm, where there was none

NOTHING, LEVEL, BY_DAY, WEEK_DAY, STEP, TREND = range(6)  # what has most of a score; from STEP on it is a shift
BIT_SHIFT: Final = DETECT_BITS["shift"]
BIT_NOVELTY: Final = DETECT_BITS["novelty"]

# Rows of float64[N_NUMBERS, n].
TICKS, ORIGIN, TIME, AGE, DAYS_SEEN, HOUR, LAST = range(7)
MEAN_FAST, MEAN_MIDDLE, MEAN_DAY, MEAN, VARIANCE, MEAN_STEP, SMALL = range(7, 14)
TOLD, LIMIT, SINCE = range(14, 17)  # HOUR is that of the week, -1 before the first tick
N_NUMBERS: Final = 17

# Rows of float64[N_WORK, n], from pass to pass of a tick: the value, the sum of the steps in its bucket and their
# number; since when; the value less the first ever, what of it may teach, the mean of half an hour, what y is above the
# mean of a day; and how far x lies outside of what.
VALUE, ROUGH, N_STEPS, OBSERVED_S, X, Y, F, P = range(8)
BEYOND_LEVEL, BEYOND_DAY, BEYOND_WEEK, BEYOND_STEP, BEYOND_TREND, BEYOND_KNOWN = range(8, 14)
N_WORK: Final = 14
X_LOW, X_HIGH, F_LOW, F_HIGH = range(4)  # rows of float32[4, n]: what was seen after such values before
X_CELL, F_CELL = 0, 1  # rows of int32[2, n]

# Bits of uint8[n], what a tick is for a tag.
TICKS_NOW: Final = 1  # it has a value
HAS_BEFORE: Final = 2  # and one before
IS_WARM: Final = 4  # and is known for a day
NEW_HOUR: Final = 8
NEW_DAY: Final = 16  # of what was observed
NEW_HALF: Final = 32
HAS_NOISE: Final = 64  # its noise is to be judged
ASK: Final = 128  # it may have something to tell

_F8: Final = ", ".join(["f8[::1]"] * 8)
_BEYOND: Final = ", ".join(["f8[::1]"] * 6)


@kernel(
    "void(i8, i8, f8, f8, b1, u4[::1], u1[::1], u1[::1], f8[::1], f4[::1], f8[::1], f8[::1], f8[::1], f8[::1], "
    "f8[::1], f8[::1], f8[::1], u1[::1])",
    noalias=True,
    inner=True,
)
def _empty(
    a, b, t, frames, is_judged, quality, kind, detect, total, count, rough, last, counter_value, counter_s,
    value, roughness, steps, mask,
):  # fmt: skip
    """Empty the buckets that close at t seconds, of so many frames; set the value of each, its noise and its mask.

    A bad value tells nothing: what there was before goes into the next bucket.
    """
    for row in range(a, b):
        i = np.uintp(row)  # an index that cannot be negative: else no vectors
        good = (quality[i] & BAD) == 0
        n, sum_, r, k = np.float64(count[i]), total[i], rough[i], kind[i]
        is_enough = good & (n >= FULL * frames)
        roughness[i], steps[i] = r, n - 1.0
        total[i] = 0.0 if good else sum_
        count[i] = np.float32(0.0 if good else n)
        rough[i] = 0.0 if good else r
        now, was, was_s = last[i], counter_value[i], counter_s[i]
        rise, seconds = now - was, t - was_s
        rate = rise / seconds
        rate = rate if (seconds > 0.0) & (rise >= 0.0) else np.nan
        closes = is_enough & (k == COUNTER)
        counter_value[i] = now if closes else was
        counter_s[i] = t if closes else was_s
        v = rate if k == COUNTER else sum_
        v = sum_ / n if k == GAUGE else v
        value[i] = v
        is_watched = (detect[i] & (BIT_SHIFT | BIT_NOVELTY)) != 0
        m = TICKS_NOW if is_enough & is_judged & is_watched & (abs(v) < MAX_VALUE) else 0
        is_noisy = good & is_judged & (k == GAUGE) & ((detect[i] & BIT_NOVELTY) != 0) & (n - 1.0 >= MIN_STEPS)
        mask[i] = np.uint8(m | (HAS_NOISE if is_noisy else 0))


@kernel(f"u1(i8, i8, f8, f8, f8, f8[::1], {_F8}, f8[::1], u1[::1])", noalias=True, inner=True)
def _clock(
    a, b, t, hour, half, value, ticks, origin, time, age, days_seen, hour_of_week, since, limit, observed_s, mask,
):  # fmt: skip
    """Let time pass for the tags that tick at t seconds, in this hour of the day and this half of a day of the week.

    Completes the masks; returns all of them together.
    """
    found = 0
    for row in range(a, b):
        i = np.uintp(row)
        m = np.int64(mask[i])
        is_tick = (m & TICKS_NOW) != 0
        n, was_s, old = ticks[i] + 1.0, time[i], age[i]
        v, first, most = value[i], origin[i], limit[i]
        is_first = is_tick & (n == 1.0)
        origin[i] = v if is_first else first
        dt = 0.0 if is_first else t - was_s
        seen = min(max(dt, 0.0), MAX_STEP_S)
        new = old + seen
        observed_s[i] = seen
        ticks[i] = n if is_tick else ticks[i]
        time[i] = t if is_tick else was_s
        age[i] = new if is_tick else old
        m |= HAS_BEFORE if is_tick & (n > 1.0) & (abs(dt) <= GAP_S) else 0
        m |= IS_WARM if is_tick & (new >= WARM_UP_S) else 0
        was_hour = hour_of_week[i]
        m |= NEW_HOUR if is_tick & (was_hour - HOURS * np.floor(was_hour / HOURS) != hour) else 0
        m |= NEW_HALF if is_tick & (np.floor(was_hour / HALF_HOURS) != half) else 0
        is_day = is_tick & (new - days_seen[i] >= WARM_UP_S)
        days_seen[i] = new if is_day else days_seen[i]
        m |= NEW_DAY if is_day else 0
        ticks_since = since[i] + 1.0
        since[i] = ticks_since if is_tick else since[i]
        limit[i] = 0.0 if is_tick & (ticks_since > REFRACTORY) else most
        mask[i] = np.uint8(m)
        found |= m
    return np.uint8(found)


@kernel(
    f"void(i8, i8, {_F8}, f8[::1], f4[::1], f4[::1], u1[::1], f8[::1], f8[::1], f8[::1], i4[::1], i4[::1])",
    noalias=True,
    inner=True,
)
def _place(
    a, b, value, ticks, origin, mean_fast, mean_middle, mean, variance, last, told, ever_low, ever_high, mask,
    x, y, f, x_cell, f_cell,
):  # fmt: skip
    """Set x, y, f, and the cells of what came before. The origin goes off: of small numbers float32 is exact enough."""
    for row in range(a, b):
        i = np.uintp(row)
        is_tick, is_warm = (mask[i] & TICKS_NOW) != 0, (mask[i] & IS_WARM) != 0
        young = 1.0 / ticks[i]
        low, high = np.float64(ever_low[i]), np.float64(ever_high[i])
        width = max(high - low, 0.0)
        v = value[i] - origin[i]
        inside = min(max(v, low - width), high + width)
        u = inside if is_warm & (width > 0.0) else v
        was = mean_fast[i]
        g = was + max(1.0 / FAST, young) * (u - was)
        mean_fast[i] = g if is_tick else was
        x[i], y[i], f[i] = v, u, g
        told[i] = told[i] * (1.0 - 1.0 / GOVERN_TICKS) if is_tick else told[i]
        m, sd = mean[i], np.sqrt(variance[i]) * CELL_SD
        per_cell = 1.0 / sd
        per_cell = per_cell if sd > 0.0 else 0.0
        c = np.floor((last[i] - m) * per_cell + 0.5) + CELLS // 2
        c = c if c > 0.0 else 0.0
        x_cell[i] = np.int32(c if c < CELLS - 1.0 else CELLS - 1.0)
        c = np.floor((mean_middle[i] - m) * per_cell + 0.5) + CELLS // 2
        c = c if c > 0.0 else 0.0
        f_cell[i] = np.int32(c if c < CELLS - 1.0 else CELLS - 1.0)


@kernel("f8(f8, f8, f8)", inner=True)
def _outside(y, low, high):
    """Return how far y lies outside of this."""
    return max(0.0, max(y - high, low - y))


@kernel(
    "u1(i8, i8, i8, i8, f8[::1], f8[::1], f8[::1], f8[::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], "
    f"{_BEYOND}, u1[::1])",
    noalias=True,
    inner=True,
)
def _look(
    a, b, hour, half, age, mean_day, x, f, low, high, near, sums,
    beyond_level, beyond_day, beyond_week, beyond_step, beyond_trend, beyond_known, mask,
):  # fmt: skip
    """Set how far each tag lies outside of its envelopes, and in its mask whether somebody should ask it.

    Returns all masks together. near float32[4, n]: what `recall` found; sums float32[N_SUMS, n]
    """
    now, now_of_day = np.uintp(OF_LEVEL + hour), np.uintp(OF_DAY + hour)
    left = np.uintp(HOURS + (hour - 1 if hour > 0 else HOURS - 1))
    right = np.uintp(HOURS + (hour + 1 if hour < HOURS - 1 else 0))
    left_of_day, right_of_day = left + np.uintp(OF_DAY), right + np.uintp(OF_DAY)
    this_half = np.uintp(OF_WEEK + half)
    found = 0
    for row in range(a, b):
        i = np.uintp(row)
        m, v, g = np.int64(mask[i]), x[i], f[i]
        has_before = (m & HAS_BEFORE) != 0
        least = np.float64(min(low[now, i], min(low[left, i], low[right, i])))
        most = np.float64(max(high[now, i], max(high[left, i], high[right, i])))
        u1 = _outside(v, least, most)
        u1 = u1 if most >= least else 0.0
        least = np.float64(min(low[now_of_day, i], min(low[left_of_day, i], low[right_of_day, i])))
        most = np.float64(max(high[now_of_day, i], max(high[left_of_day, i], high[right_of_day, i])))
        u2 = _outside(v - mean_day[i], least, most)
        u2 = u2 if most >= least else 0.0
        least, most = np.float64(low[this_half, i]), np.float64(high[this_half, i])
        u3 = _outside(v, least, most)
        u3 = u3 if (age[i] >= MONTH_S) & (most >= least) & (u3 > WIDTHS * (most - least)) else 0.0
        ever_low, ever_high = np.float64(low[EVER, i]), np.float64(high[EVER, i])
        least, most = np.float64(near[X_LOW, i]), np.float64(near[X_HIGH, i])
        is_known = most >= least
        u4 = _outside(v, least if is_known else ever_low, most if is_known else ever_high)
        u4 = u4 if has_before else 0.0
        ever_low, ever_high = np.float64(low[EVER_OF_TREND, i]), np.float64(high[EVER_OF_TREND, i])
        least, most = np.float64(near[F_LOW, i]), np.float64(near[F_HIGH, i])
        is_known = most >= least
        u5 = _outside(g, least if is_known else ever_low, most if is_known else ever_high)
        u5 = u5 if has_before else 0.0
        v4, least4, most4 = np.float32(v), low[KNOWN, i], high[KNOWN, i]
        u6 = _outside(v, np.float64(least4), np.float64(most4))
        u6 = u6 if (most4 >= least4) & ((v4 < least4) | (v4 > most4)) else 0.0
        beyond_level[i], beyond_day[i], beyond_week[i], beyond_step[i] = u1, u2, u3, u4
        beyond_trend[i], beyond_known[i] = u5, u6
        is_new = ((m & IS_WARM) != 0) & (max(max(max(u1, u2), max(u3, u4)), max(u5, u6)) > 0.0)
        adds_up = (sums[SUM, i] > 0.0) | (sums[WAIT, i] > 0.0) | (sums[DRIFTED, i] > 0.0)
        m |= ASK if ((m & TICKS_NOW) != 0) & (is_new | adds_up) else 0
        mask[i] = np.uint8(m)
        found |= m
    return np.uint8(found)


@kernel("f8(f8, f8, f8, f8)", inner=True)
def _units(beyond, share, width, allowance):
    """Return the units of a value that far outside of what has this width."""
    return min(CAP, beyond / (share * (width + beyond) + allowance)) if beyond > 0.0 else 0.0


@kernel("f8(i8, f8[:, ::1], f8)", inner=True)
def _govern(i, s, units):
    """Return what is told of so many units: 0 unless they are more than what was told of late."""
    units /= 1.0 + GOVERN * s[TOLD, i]
    if units <= s[LIMIT, i]:
        return 0.0
    s[LIMIT, i] = units * GROW
    s[SINCE, i] = 0.0
    s[TOLD, i] += units
    return units


@kernel(
    "Tuple((f8, i8, i8, b1))(i8, f8[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f8[:, ::1], u1, f8, u1, b1)",
    inner=True,
)
def advance(i, s, low, high, sums, work, mask, resolution, detect, waits):
    """Take one tick of tag i, before it is learnt.

    Returns (score in units, what has most of it, what an alarm that is due now is about, whether it drifts).

    s float64[N_NUMBERS, n], low, high float32[N_ENVELOPES, n], sums float32[N_SUMS, n]  state
    work  float64[N_WORK, n], mask  of the tag, as the passes before have set them
    resolution  smallest step of the meter, 0 if unknown;  detect  its DETECT_BITS: of others there is no alarm
    waits  an alarm waits whether the value stays
    """
    x, age = work[X, i], s[AGE, i]
    units, best, term = 0.0, 0.0, NOTHING
    counts, most, about, drift = 0.0, 0.0, NOTHING, 0.0  # of that what counts for an alarm
    if mask & IS_WARM:
        width = span(i, low[EVER], high[EVER])
        floor = STEPS * max(s[SMALL, i], resolution) + RELATIVE * abs(work[VALUE, i])
        noise = NOISES * s[MEAN_STEP, i] + floor
        was_there = low[KNOWN, i] <= np.float32(x) <= high[KNOWN, i]
        is_news = not was_there and (detect & BIT_NOVELTY) != 0
        is_jump = (detect & BIT_SHIFT) != 0
        u = _units(work[BEYOND_LEVEL, i], SHARE, width, noise)
        units, best, term = u, u, LEVEL
        u = _units(work[BEYOND_DAY, i], SHARE, span(i, low[EVER_OF_DAY], high[EVER_OF_DAY]), noise)
        units += u
        if u > best:
            best, term = u, BY_DAY
        if is_news:
            counts, most, about = units, best, term
        if work[BEYOND_WEEK, i] > 0.0 and is_usual_elsewhere(i, np.float32(x), low, high):
            u = _units(work[BEYOND_WEEK, i], SHARE, width, noise)
            units += u
            if u > best:
                best, term = u, WEEK_DAY
        u = _units(work[BEYOND_STEP, i], SHARE, width, floor)
        v = _units(work[BEYOND_TREND, i], SHARE_TREND, span(i, low[EVER_OF_TREND], high[EVER_OF_TREND]), floor)
        units += u + v
        jump = TREND if v > u else STEP
        u_most = max(u, v)
        if u_most > best:
            best, term = u_most, jump
        if is_jump:
            counts += u + v
            if u_most > most:
                most, about = u_most, jump
        drift = _units(work[BEYOND_KNOWN, i], SHARE, span(i, low[KNOWN], high[KNOWN]), noise)

    hours = work[OBSERVED_S, i] / HOUR_S
    alarm, drifts = NOTHING, False
    if counts > ALLOWANCE or sums[SUM, i] > 0.0 or sums[WAIT, i] > 0.0:
        alarm = judge_burst(i, counts, about, x, hours, age, waits, sums)
    else:
        sums[HOME, i] = x
    if drift > ALLOWANCE or sums[DRIFTED, i] > 0.0:
        drifts = judge_drift(i, drift, hours, age, sums)
    if alarm != NOTHING:
        sums[HAS_TOLD_DRIFT, i] = 1.0  # it has been told that it is elsewhere
    units = _govern(i, s, units)
    return units, term if units > 0.0 else NOTHING, alarm, drifts


@kernel(f"void(i8, i8, {_F8}, f8[::1], f8[::1], f8[::1], f4[::1], f4[::1], f4[::1], u1[::1])", noalias=True, inner=True)
def _learn(
    a, b, ticks, mean_middle, mean_day, mean, variance, mean_step, small, last, x, y, p, home, ever_low, ever_high, mask
):  # fmt: skip
    """Let the means learn y, and set p: what y is above the mean of a day."""
    for row in range(a, b):
        i = np.uintp(row)
        m = np.int64(mask[i])
        is_tick, has_before = (m & TICKS_NOW) != 0, (m & HAS_BEFORE) != 0
        young, v = 1.0 / ticks[i], y[i]
        d = abs(v - last[i])
        noise, least = mean_step[i], small[i]
        mean_step[i] = noise + max(1.0 / DAY, young) * (d - noise) if has_before else noise
        width = max(np.float64(ever_high[i]) - np.float64(ever_low[i]), 0.0)
        smaller = STEP_DRIFT * least
        smaller = min(d, smaller) if least > 0.0 else d
        small[i] = smaller if has_before & (d > SMALLEST * width) else least
        last[i] = v if is_tick else last[i]
        was = mean_middle[i]
        mean_middle[i] = was + max(1.0 / MIDDLE, young) * (v - was) if is_tick else was
        was = mean_day[i]
        p[i] = v - was
        mean_day[i] = was + max(1.0 / DAY, young) * (v - was) if is_tick else was
        was, r = mean[i], variance[i]
        share, e = max(1.0 / WEEK, young), v - was
        new = was + share * e
        mean[i] = new if is_tick else was
        variance[i] = r + share * (e * (v - new) - r) if is_tick else r
        here, was_here = np.float32(x[i]), home[i]
        home[i] = here if is_tick & ((m & ASK) == 0) else was_here


@kernel("void(i8, i8, i8, f4[:, ::1], f4[:, ::1], f4[:, ::1], u1[::1], u1)", inner=True)
def _turn(a, b, hour, low, high, sums, mask, found):
    """Let what is over be over, an hour or a day, of the tags for which it is; found: all masks together."""
    if found & NEW_HOUR:
        turn_hour(a, b, hour, low, high, mask, NEW_HOUR)
    if found & NEW_DAY:
        turn_day(a, b, low, high, mask, NEW_DAY)
        for i in range(a, b):
            if mask[i] & NEW_DAY:
                for largest in (LARGEST, LARGEST_DRIFT):
                    sums[largest, i] = np.float64(sums[largest, i]) * (1.0 - FORGET_SUM)


@kernel(
    "void(i8, i8, i8, i8, f8[:, ::1], f4[:, ::1], f4[:, ::1], f4[::1], f8[:, ::1], i4[:, ::1], u1[::1], u1)", inner=True
)
def _teach_all(a, b, hour, half, s, low, high, home, work, cells, mask, found):
    """Take what a tick teaches."""
    if found & (NEW_HOUR | NEW_HALF):
        for i in range(a, b):
            if mask[i] & NEW_HALF:
                turn_half(i, int(s[HOUR, i]) // HALF_HOURS, low, high)
            if mask[i] & TICKS_NOW:
                s[HOUR, i] = HALF_HOURS * half + hour % HALF_HOURS
    _learn(
        a, b, s[TICKS], s[MEAN_MIDDLE], s[MEAN_DAY], s[MEAN], s[VARIANCE], s[MEAN_STEP], s[SMALL], s[LAST], work[X],
        work[Y], work[P], home, low[EVER], high[EVER], mask,
    )  # fmt: skip
    for row in (OF_LEVEL + hour, OF_HALF_DAY, EVER):
        teach(a, b, low[row], high[row], work[Y], mask, TICKS_NOW)
    for row in (OF_DAY + hour, EVER_OF_DAY):
        teach(a, b, low[row], high[row], work[P], mask, TICKS_NOW)
    teach(a, b, low[EVER_OF_TREND], high[EVER_OF_TREND], work[F], mask, TICKS_NOW)
    teach_cells(a, b, OF_STEP, low, high, cells[X_CELL], work[Y], mask, HAS_BEFORE)
    teach_cells(a, b, OF_TREND, low, high, cells[F_CELL], work[F], mask, HAS_BEFORE)


@kernel(
    "b1(i8, i8, f8, i8, b1, u1[::1], u1[::1], f8[::1], f8[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], "
    "f8[:, ::1], f4[:, ::1], i4[:, ::1], u1[::1], u2[::1], f8[::1])",
    inner=True,
)
def tick(
    a, b, t, hours, waits, kind, detect, resolution, s, low, high, sums, noises, work, near, cells, mask,
    standing, score,
):  # fmt: skip
    """Take a tick of rows a to b, of which `_empty` has set the values, at t seconds: so many hours since 1970, UTC.

    Raises the score, sets the standing flags; returns whether there are any.
    """
    hour = hours % HOURS
    half = (2 * (hours // HOURS + MONDAY) + hour // HALF_HOURS) % HALVES
    found = _clock(
        a, b, t, hour, half, work[VALUE], s[TICKS], s[ORIGIN], s[TIME], s[AGE], s[DAYS_SEEN], s[HOUR], s[SINCE],
        s[LIMIT], work[OBSERVED_S], mask,
    )  # fmt: skip
    if found & (NEW_HOUR | NEW_DAY):
        _turn(a, b, hour, low, high, sums, mask, found)
    _place(
        a, b, work[VALUE], s[TICKS], s[ORIGIN], s[MEAN_FAST], s[MEAN_MIDDLE], s[MEAN], s[VARIANCE], s[LAST], s[TOLD],
        low[EVER], high[EVER], mask, work[X], work[Y], work[F], cells[X_CELL], cells[F_CELL],
    )  # fmt: skip
    recall(a, b, OF_STEP, low, high, cells[X_CELL], near[X_LOW], near[X_HIGH])
    recall(a, b, OF_TREND, low, high, cells[F_CELL], near[F_LOW], near[F_HIGH])
    found = _look(
        a, b, hour, half, s[AGE], s[MEAN_DAY], work[X], work[F], low, high, near, sums,
        work[BEYOND_LEVEL], work[BEYOND_DAY], work[BEYOND_WEEK], work[BEYOND_STEP], work[BEYOND_TREND],
        work[BEYOND_KNOWN], mask,
    )  # fmt: skip
    is_busy = False
    if found & (ASK | HAS_NOISE):
        for i in range(a, b):
            if mask[i] & ASK:
                units, term, alarm, drifts = advance(
                    i, s, low, high, sums, work, mask[i], resolution[i], detect[i], waits or kind[i] != GAUGE
                )
                if units > 0.0 and detect[i] & (BIT_SHIFT if term >= STEP else BIT_NOVELTY):
                    score[i] = max(score[i], units / (units + HALF))
                if drifts and detect[i] & BIT_SHIFT:
                    standing[i] = DRIFT
                if alarm != NOTHING:
                    standing[i] = SHIFT if alarm >= STEP else NOVELTY
            if mask[i] & HAS_NOISE and judge_noise(i, work[ROUGH, i], work[N_STEPS, i], noises) and standing[i] == 0:
                standing[i] = NOISE
            if standing[i] != 0:
                score[i] = max(score[i], ALARM_SCORE)
                is_busy = True
    _teach_all(a, b, hour, half, s, low, high, sums[HOME], work, cells, mask, found)
    return is_busy


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i8[:, ::1], i8[:, ::1], f8[:, ::1], u4[:, ::1], u1[::1], u1[::1], f8[::1], "
    "i8[::1], i8[::1], i8[::1], i8[::1], f8[::1], f8[::1], f4[::1], f8[::1], f8[::1], f8[::1], f8[::1], "
    "f8[:, ::1], f4[:, :, ::1], f4[:, ::1], f4[:, ::1], u2[::1], u1[::1], f8[:, ::1], f4[:, ::1], i4[:, ::1], u1[::1], "
    "f8[:, ::1], u2[:, ::1])"
)
def step(
    ready, start, stop, time_ns, stamp_ns, value, quality, detect, kind, resolution,
    first_ns, began_ns, before_ns, frames, every_s, total, count, rough, last, counter_value, counter_s,
    numbers, envelopes, sums, noises, standing, busy, work, near, cells, mask, score, flags,
):  # fmt: skip
    """Advance every tag of the ready scans by each frame in turn; see `buckets`, `tick` and `noise`.

    first_ns int64[scans] state: when its first frame was, from which seconds are counted
    standing uint16[n] state: the flag of the last tick, until the next bucket ends
    busy     uint8[scans] state: whether one of its tags has one
    score    float64[frames, n] raised to units / (units + HALF), flags uint16[frames, n] set
    """
    low, high = envelopes[0], envelopes[1]
    for k in range(time_ns.shape[0]):
        for number in ready:
            a, b, now = start[number], stop[number], time_ns[k, number]
            if before_ns[number] == 0:
                first_ns[number] = now
            end_ns = before_ns[number]
            was_s = every_s[number]
            usual = interval(number, now, before_ns, every_s)
            for turn in range(2):  # a bucket that was over before this frame, then the frame's own
                if turn == 0:
                    if not is_over(number, now, began_ns, frames):
                        continue
                    is_judged = (end_ns - began_ns[number]) * S_PER_NS + was_s >= FULL * BUCKET_S
                else:
                    is_closed = is_full(number, now, usual, began_ns, frames)
                    add(a, b, value[k], quality[k], kind, total, count, rough, last)
                    if not is_closed:
                        continue
                    end_ns, is_judged = now, True
                t = (end_ns - first_ns[number]) * S_PER_NS
                hours = (stamp_ns[k, number] - (now - end_ns)) // HOUR_NS
                waits = every_s[number] < SLOWEST_S
                _empty(
                    a, b, t, np.float64(frames[number]), is_judged, quality[k], kind, detect,
                    total, count, rough, last, counter_value, counter_s, work[VALUE], work[ROUGH], work[N_STEPS], mask,
                )  # fmt: skip
                frames[number] = 0
                standing[a:b] = 0
                busy[number] = tick(
                    a, b, t, hours, waits, kind, detect, resolution, numbers, low, high, sums, noises,
                    work, near, cells, mask, standing, score[k],
                )  # fmt: skip
            if busy[number]:
                for i in range(a, b):
                    if quality[k, i] & BAD == 0:
                        flags[k, i] |= standing[i]


class Novelty:
    """What a tag has never done before, at this hour or after what it did just now, and where it never was."""

    name: Final = "novelty"
    axes: Final[Mapping[str, Axis | None]] = MappingProxyType(
        dict.fromkeys(("first_ns", "began_ns", "before_ns", "frames", "every_s", "busy"), "scan")
    )

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        n, n_scans = tags.n, tags.n_scans
        self._numbers = np.zeros((N_NUMBERS, n))
        self._numbers[HOUR] = -1.0
        self._numbers[SINCE] = NEVER
        self._envelopes = np.empty((2, N_ENVELOPES, n), np.float32)
        self._envelopes[0], self._envelopes[1] = np.inf, -np.inf
        self._sums, self._noises = np.zeros((N_SUMS, n), np.float32), np.zeros((N_NOISE, n), np.float32)
        self._work, self._near = np.zeros((N_WORK, n)), np.zeros((4, n), np.float32)
        self._cells, self._mask = np.zeros((2, n), np.int32), np.zeros(n, np.uint8)
        self._state: dict[str, NDArray[Any]] = {
            **{name: np.zeros(n_scans, np.int64) for name in ("first_ns", "began_ns", "before_ns", "frames")},
            "every_s": np.zeros(n_scans),
            "total": np.zeros(n),
            "count": np.zeros(n, np.float32),
            "rough": np.zeros(n),
            "last": np.full(n, np.nan),
            "counter_value": np.full(n, np.nan),
            "counter_s": np.zeros(n),
            "numbers": self._numbers.T,
            "envelopes": self._envelopes.T,
            "sums": self._sums.T,
            "noises": self._noises.T,
            "standing": np.zeros(n, np.uint16),
            "busy": np.zeros(n_scans, np.uint8),
        }

    def update(self, turn: Turn) -> None:
        """Advance by the frames of a turn; see `step`."""
        t, s = self._tags, self._state
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.time_ns, turn.stamp_ns, turn.value, turn.quality,
            t.detect, t.kind, t.resolution,
            s["first_ns"], s["began_ns"], s["before_ns"], s["frames"], s["every_s"],
            s["total"], s["count"], s["rough"], s["last"], s["counter_value"], s["counter_s"],
            self._numbers, self._envelopes, self._sums, self._noises, s["standing"], s["busy"],
            self._work, self._near, self._cells, self._mask,
            turn.score, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return self._state
