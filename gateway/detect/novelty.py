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
from gateway.detect.flags import DRIFT, NOISE, NOVELTY, SHIFT
from gateway.detect.noise import N_NOISE, judge_noise
from gateway.detect.spike import SLOWEST_S
from gateway.detect.tags import Tags
from gateway.model.frame import DETECT_BITS

HOUR_NS: Final = 3_600_000_000_000
HOURS: Final = 24  # bins of a day: schedules run on the clock's hour
HALVES: Final = 14  # of the days of a week: finer ones would be seen too seldom, and hold too much
MONDAY: Final = 3  # what the day of 1970-01-01, a Thursday, is after a Monday
CELLS: Final = 16  # of what came before; the first and last are open
NEAR: Final = 2  # cells to each side that count as the same situation
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
FORGET: Final = 0.001  # of its width an envelope shrinks a day: half in 693 days; winters are remembered
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

# Columns of float64[n, N_NUMBERS].
TICKS, ORIGIN, TIME, AGE, DAYS_SEEN, HOUR, LAST = range(7)
MEAN_FAST, MEAN_MIDDLE, MEAN_DAY, MEAN, VARIANCE, MEAN_STEP, SMALL = range(7, 14)
TOLD, LIMIT, SINCE, HALF_DAY = range(14, 18)  # HALF_DAY of the week, from 1 on
N_NUMBERS: Final = 18

# Rows of float32[n, N_ENVELOPES, 2]: for both hour terms those of now and the copies, then the cells, then the week.
OF_LEVEL: Final = 0
OF_DAY: Final = 2 * HOURS
OF_STEP: Final = 4 * HOURS
OF_TREND: Final = OF_STEP + CELLS
OF_WEEK: Final = OF_TREND + CELLS
# And all that ever was: of the value, of that less the mean of a day, of the mean of half an hour; the value's at the
# end of the day before yesterday, or yesterday, and of the last day; and of the half of a day that goes on.
EVER, EVER_OF_DAY, EVER_OF_TREND, KNOWN, NEXT, OF_HALF_DAY = range(OF_WEEK + HALVES, OF_WEEK + HALVES + 6)
N_ENVELOPES: Final = OF_WEEK + HALVES + 6


@kernel("void(f4[:, ::1], i8)", inline=True)
def _forget(w, row):
    """Let an envelope shrink by a day's share of its width."""
    low, high = w[row, 0], w[row, 1]
    if high > low:
        half = np.float32(0.5 * FORGET) * (high - low)
        w[row, 0] = low + half
        w[row, 1] = high - half


@kernel("void(f4[:, ::1], i8, f8)", inline=True)
def _teach(w, row, y):
    """Widen an envelope so that it holds y."""
    y4, r = np.float32(y), np.uintp(row)  # an index that cannot be negative needs no look
    w[r, 0] = min(w[r, 0], y4)
    w[r, 1] = max(w[r, 1], y4)


@kernel("f8(f4[:, ::1], i8, i8, f8)", inner=True)
def _of_hour(w, first, hour, y):
    """Return how far y lies outside the envelope of an hour and the copies of its neighbours; 0 where there is none."""
    now = np.uintp(first + hour)
    left = np.uintp(first + HOURS + (hour - 1 if hour > 0 else HOURS - 1))
    right = np.uintp(first + HOURS + (hour + 1 if hour < HOURS - 1 else 0))
    low = min(w[now, 0], min(w[left, 0], w[right, 0]))
    high = max(w[now, 1], max(w[left, 1], w[right, 1]))
    return max(0.0, max(y - high, low - y)) if high >= low else 0.0


@kernel("i8(f8)", inline=True)
def _cell(z):
    """Return the cell of a value z cells from the mean; NaN is the first."""
    z = np.floor(z + 0.5) + CELLS // 2
    if z >= CELLS - 1:
        return CELLS - 1
    return int(z) if z >= 0.0 else 0


@kernel("f8(f4[:, ::1], i8)", inline=True)
def _span(w, row):
    """Return how wide an envelope is; 0 where there is none."""
    return max(np.float64(w[row, 1]) - np.float64(w[row, 0]), 0.0)


@kernel("f8(f4[:, ::1], i8, f8)", inline=True)
def _beyond(w, row, y):
    """Return how far y lies outside an envelope."""
    return max(0.0, max(y - np.float64(w[row, 1]), np.float64(w[row, 0]) - y))


@kernel("f8(f4[:, ::1], i8, i8, f8, i8)", inner=True)
def _of_cell(w, first, cell, y, ever):
    """Return how far y lies outside the envelope of a cell and those beside it; of none: outside all that ever was."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for away in range(-NEAR, NEAR + 1):
        r = np.uintp(first + min(max(cell + away, 0), CELLS - 1))
        low = min(low, w[r, 0])
        high = max(high, w[r, 1])
    if high < low:
        return _beyond(w, ever, y)
    return max(0.0, max(y - np.float64(high), np.float64(low) - y))


@kernel("f8(f4[:, ::1], i8, f8)", inner=True)
def _of_half_day(w, half, y):
    """Return how far y lies outside what this half of a day of the week has shown, if most others have shown y."""
    row = OF_WEEK + half
    if w[row, 1] < w[row, 0]:
        return 0.0
    beyond = _beyond(w, row, y)
    if beyond <= WIDTHS * _span(w, row):
        return 0.0
    n_know = 0
    for other in range(OF_WEEK, OF_WEEK + HALVES):
        n_know += w[other, 0] <= np.float32(y) <= w[other, 1]
    return beyond if 2 * n_know >= HALVES else 0.0


@kernel("f8(f8, f8, f8, f8)", inline=True)
def _units(beyond, share, span, allowance):
    """Return the units of a value that far outside of what has this span."""
    return min(CAP, beyond / (share * (span + beyond) + allowance)) if beyond > 0.0 else 0.0


@kernel("void(f8[::1], f4[:, ::1], i8)", inner=True)
def _turn_hour(s, w, hour):
    """Let the copies of the hour twelve hours away be those of now."""
    opposite = hour + HOURS // 2 if hour < HOURS // 2 else hour - HOURS // 2
    for first in (OF_LEVEL, OF_DAY):
        now = first + opposite
        _forget(w, now)
        w[now + HOURS, 0] = w[now, 0]
        w[now + HOURS, 1] = w[now, 1]
    s[HOUR] = hour


@kernel("void(f4[:, ::1])", inner=True)
def _turn_day(w):
    """Let all that is not of an hour forget a day's share; what was known at the end of the day before is known."""
    for side in range(2):
        w[KNOWN, side] = w[NEXT, side]
        w[NEXT, side] = w[EVER, side]
    for row in range(OF_STEP, KNOWN):
        _forget(w, row)


@kernel("void(f8[::1], f4[:, ::1], i8, i8, i8, i8, f8, f8, b1, f8)", inline=True)
def _learn(s, w, hour, half, x_cell, f_cell, y, f, has_before, young):
    """Take what a tick teaches: y, and f, the mean of half an hour."""
    p, x_span = y - s[MEAN_DAY], _span(w, EVER)
    _teach(w, OF_LEVEL + hour, y)
    _teach(w, OF_DAY + hour, p)
    if s[HALF_DAY] != half + 1.0:
        if s[HALF_DAY] > 0.0:
            over = OF_WEEK + int(s[HALF_DAY]) - 1
            for side in range(2):
                _teach(w, over, np.float64(w[OF_HALF_DAY, side]))
        s[HALF_DAY] = half + 1.0
        w[OF_HALF_DAY, 0], w[OF_HALF_DAY, 1] = np.inf, -np.inf
    _teach(w, OF_HALF_DAY, y)
    _teach(w, EVER, y)
    _teach(w, EVER_OF_DAY, p)
    _teach(w, EVER_OF_TREND, f)
    if has_before:
        _teach(w, OF_STEP + x_cell, y)
        _teach(w, OF_TREND + f_cell, f)
        d = abs(y - s[LAST])
        s[MEAN_STEP] += max(1.0 / DAY, young) * (d - s[MEAN_STEP])
        if d > SMALLEST * x_span:
            s[SMALL] = min(d, STEP_DRIFT * s[SMALL]) if s[SMALL] > 0.0 else d
    s[LAST] = y
    s[MEAN_MIDDLE] += max(1.0 / MIDDLE, young) * (y - s[MEAN_MIDDLE])
    s[MEAN_DAY] += max(1.0 / DAY, young) * p
    a, e = max(1.0 / WEEK, young), y - s[MEAN]
    s[MEAN] += a * e
    s[VARIANCE] += a * (e * (y - s[MEAN]) - s[VARIANCE])


@kernel("f8(f8[::1], f8)", inline=True)
def _govern(s, units):
    """Return what is told of so many units: 0 unless they are more than what was told of late."""
    told, since = s[TOLD] * (1.0 - 1.0 / GOVERN_TICKS), s[SINCE] + 1.0
    if since > REFRACTORY:
        s[LIMIT] = 0.0
    units /= 1.0 + GOVERN * told
    if units <= s[LIMIT]:
        s[TOLD], s[SINCE] = told, since
        return 0.0
    s[LIMIT] = units * GROW
    s[SINCE] = 0.0
    s[TOLD] = told + units
    return units


@kernel("Tuple((f8, i8, i8, b1))(f8[::1], f4[:, ::1], f4[::1], f8, i8, i8, f8, f8, u1, b1)", inner=True)
def advance(s, w, sums, t, hour, half, raw, resolution, detect, waits):
    """Take one tick of a tag: its value `raw` at t seconds, in this hour of the day and this half of a day of the week.

    Returns (score in units, what has most of it, what an alarm that is due now is about, whether it drifts).

    s float64[N_NUMBERS], w float32[N_ENVELOPES, 2], sums float32[N_SUMS]  state
    resolution  smallest step of the meter, 0 if unknown;  detect  its DETECT_BITS: of others there is no alarm
    waits  an alarm waits whether the value stays
    """
    if not abs(raw) < MAX_VALUE:
        return 0.0, NOTHING, NOTHING, False
    n = s[TICKS] + 1.0
    s[TICKS] = n
    young = 1.0 / n
    if n == 1.0:
        s[ORIGIN] = raw
        s[TIME] = t
    x = raw - s[ORIGIN]  # small numbers: float32 envelopes stay exact
    dt = t - s[TIME]
    s[TIME] = t
    observed_s = min(max(dt, 0.0), MAX_STEP_S)
    age = s[AGE] + observed_s
    s[AGE] = age
    is_warm = age >= WARM_UP_S
    has_before = n > 1.0 and abs(dt) <= GAP_S
    if hour != s[HOUR]:
        _turn_hour(s, w, hour)
    if age - s[DAYS_SEEN] >= WARM_UP_S:
        s[DAYS_SEEN] = age
        _turn_day(w)
        for largest in (LARGEST, LARGEST_DRIFT):
            sums[largest] = np.float64(sums[largest]) * (1.0 - FORGET_SUM)

    x_span = _span(w, EVER)
    y = x  # what it may teach
    if is_warm and x_span > 0.0:
        y = min(max(x, np.float64(w[EVER, 0]) - x_span), np.float64(w[EVER, 1]) + x_span)
    f = s[MEAN_FAST] + max(1.0 / FAST, young) * (y - s[MEAN_FAST])
    s[MEAN_FAST] = f
    width = np.sqrt(s[VARIANCE]) * CELL_SD
    per_cell = 1.0 / width if width > 0.0 else 0.0
    x_cell = _cell((s[LAST] - s[MEAN]) * per_cell)
    f_cell = _cell((s[MEAN_MIDDLE] - s[MEAN]) * per_cell)

    units, best, term = 0.0, 0.0, NOTHING
    counts, most, about, drift = 0.0, 0.0, NOTHING, 0.0  # of that what counts for an alarm
    if is_warm:
        floor = STEPS * max(s[SMALL], resolution) + RELATIVE * abs(raw)
        noise = NOISES * s[MEAN_STEP] + floor
        was_there = w[KNOWN, 0] <= np.float32(x) <= w[KNOWN, 1]
        is_news = not was_there and (detect & BIT_NOVELTY) != 0
        is_jump = (detect & BIT_SHIFT) != 0
        u = _units(_of_hour(w, OF_LEVEL, hour, x), SHARE, x_span, noise)
        units, best, term = u, u, LEVEL
        u = _units(_of_hour(w, OF_DAY, hour, x - s[MEAN_DAY]), SHARE, _span(w, EVER_OF_DAY), noise)
        units += u
        if u > best:
            best, term = u, BY_DAY
        if is_news:
            counts, most, about = units, best, term
        if age >= MONTH_S:
            u = _units(_of_half_day(w, half, x), SHARE, x_span, noise)
            units += u
            if u > best:
                best, term = u, WEEK_DAY
        if has_before:
            u = _units(_of_cell(w, OF_STEP, x_cell, x, EVER), SHARE, x_span, floor)
            beyond = _of_cell(w, OF_TREND, f_cell, f, EVER_OF_TREND)
            v = _units(beyond, SHARE_TREND, _span(w, EVER_OF_TREND), floor)
            units += u + v
            jump = TREND if v > u else STEP
            u_most = max(u, v)
            if u_most > best:
                best, term = u_most, jump
            if is_jump:
                counts += u + v
                if u_most > most:
                    most, about = u_most, jump
        if not was_there and w[KNOWN, 1] >= w[KNOWN, 0]:
            drift = _units(_beyond(w, KNOWN, x), SHARE, _span(w, KNOWN), noise)
    _learn(s, w, hour, half, x_cell, f_cell, y, f, has_before, young)

    hours = observed_s / HOUR_S
    alarm, drifts = NOTHING, False
    if counts > ALLOWANCE or sums[SUM] > 0.0 or sums[WAIT] > 0.0:
        alarm = judge_burst(counts, about, x, hours, age, waits, sums)
    else:
        sums[HOME] = x
    if drift > ALLOWANCE or sums[DRIFTED] > 0.0:
        drifts = judge_drift(drift, hours, age, sums)
    if alarm != NOTHING:
        sums[HAS_TOLD_DRIFT] = 1.0  # it has been told that it is elsewhere
    units = _govern(s, units)
    return units, term if units > 0.0 else NOTHING, alarm, drifts


@kernel("f8(i8, f8, u1[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8)", inner=True)
def _tick_of(i, t, kind, total, count, last, counter_value, counter_s, frames):
    """Return the value of tag i for a bucket that closes at t seconds, and empty it; NaN where it says nothing."""
    n, sum_, value = count[i], total[i], np.nan
    total[i], count[i] = 0.0, 0.0
    if n < FULL * frames:
        return value
    if kind[i] == GAUGE:
        return sum_ / n
    if kind[i] != COUNTER:
        return sum_
    rise, seconds = last[i] - counter_value[i], t - counter_s[i]
    if seconds > 0.0 and rise >= 0.0:
        value = rise / seconds
    counter_value[i], counter_s[i] = last[i], t
    return value


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i8[:, ::1], i8[:, ::1], f8[:, ::1], u4[:, ::1], u1[::1], u1[::1], f8[::1], "
    "i8[::1], i8[::1], i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], "
    "f8[:, ::1], f4[:, :, ::1], f4[:, ::1], f4[:, ::1], u2[::1], u1[::1], f8[:, ::1], u2[:, ::1])"
)
def step(
    ready, start, stop, time_ns, stamp_ns, value, quality, detect, kind, resolution,
    first_ns, began_ns, before_ns, frames, every_s, total, count, rough, last, counter_value, counter_s,
    numbers, envelopes, sums, noises, standing, busy, score, flags,
):  # fmt: skip
    """Advance every tag of the ready scans by each frame in turn; see `buckets`, `advance` and `noise`.

    first_ns int64[scans] state: when its first frame was, from which seconds are counted
    standing uint16[n] state: the flag of the last tick, until the next bucket ends
    busy     uint8[scans] state: whether one of its tags has one
    score    float64[frames, n] raised to units / (units + ALARM), flags uint16[frames, n] set
    """
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
                hours = (stamp_ns[k, number] - (now - end_ns)) // HOUR_NS  # since 1970, UTC
                hour = hours % HOURS
                half = (2 * (hours // HOURS + MONDAY) + hour // (HOURS // 2)) % HALVES
                waits = every_s[number] < SLOWEST_S
                n_frames = np.float64(frames[number])
                frames[number] = 0
                is_busy = False
                for i in range(a, b):
                    standing[i] = 0
                    if quality[k, i] & BAD:
                        continue  # a bad value tells nothing: what there was before goes into the next bucket
                    steps, rough_now = count[i] - 1.0, rough[i]
                    rough[i] = 0.0
                    x = _tick_of(i, t, kind, total, count, last, counter_value, counter_s, n_frames)
                    if not is_judged or detect[i] & (BIT_SHIFT | BIT_NOVELTY) == 0:
                        continue
                    units, term, alarm, drifts = advance(
                        numbers[i],
                        envelopes[i],
                        sums[i],
                        t,
                        hour,
                        half,
                        x,
                        resolution[i],
                        detect[i],
                        waits or kind[i] != GAUGE,
                    )
                    if units > 0.0 and detect[i] & (BIT_SHIFT if term >= STEP else BIT_NOVELTY):
                        score[k, i] = max(score[k, i], units / (units + HALF))
                    if kind[i] == GAUGE and detect[i] & BIT_NOVELTY and judge_noise(rough_now, steps, noises[i]):
                        standing[i] = NOISE
                    if drifts and detect[i] & BIT_SHIFT:
                        standing[i] = DRIFT
                    if alarm != NOTHING:
                        standing[i] = SHIFT if alarm >= STEP else NOVELTY
                    if standing[i] != 0:
                        score[k, i] = max(score[k, i], ALARM_SCORE)
                        is_busy = True
                busy[number] = is_busy
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
        numbers = np.zeros((n, N_NUMBERS))
        numbers[:, HOUR] = -1.0
        numbers[:, SINCE] = NEVER
        envelopes = np.empty((n, N_ENVELOPES, 2), np.float32)
        envelopes[:, :, 0], envelopes[:, :, 1] = np.inf, -np.inf
        self._state: dict[str, NDArray[Any]] = {
            **{name: np.zeros(n_scans, np.int64) for name in ("first_ns", "began_ns", "before_ns", "frames")},
            "every_s": np.zeros(n_scans),
            "total": np.zeros(n),
            "count": np.zeros(n),
            "rough": np.zeros(n),
            "last": np.full(n, np.nan),
            "counter_value": np.full(n, np.nan),
            "counter_s": np.zeros(n),
            "numbers": numbers,
            "envelopes": envelopes,
            "sums": np.zeros((n, N_SUMS), np.float32),
            "noises": np.zeros((n, N_NOISE), np.float32),
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
            s["numbers"], s["envelopes"], s["sums"], s["noises"], s["standing"], s["busy"],
            turn.score, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return self._state
