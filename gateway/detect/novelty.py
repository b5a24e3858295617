"""Novelty: has this meter ever been here, in this situation?

Four envelopes keep the lowest and highest value seen so far, each in another situation. A five-minute value scores by
how far it lies outside of one, measured against the meter's whole span and its own noise:

    LEVEL  the value                            for this hour of the day, and its neighbours
    DAY    the value less the mean of a day     for this hour of the day, and its neighbours
    STEP   the value                            after the value before: 16 cells of 0.45 sd
    TREND  the mean of half an hour             after the mean of three hours: 16 cells

    s = sum over the four of min(CAP, B / (SHARE * (R + B) + allowance)),  B outside the envelope, R its span
    s / (1 + GOVERN * A), A what this tag has told in the last weeks; told if above GROW x the last peak of REFRACTORY

The hour envelopes are kept twice: one learns at once; the neighbouring hours read a copy, renewed when the clock is
twelve hours away. Else an anomaly that creeps through the day teaches the next hour, and is forgiven.
Score first, then learn; what lies far out teaches no more than one span.

A score is told at once. An alarm waits until the value has stayed there for a quarter of an hour: a test, a visit, a
valve that is moved are over by then, and what jumps and returns is `spike`'s.

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
from gateway.detect.detector import Axis, Turn
from gateway.detect.flags import NOISE, NOVELTY, SHIFT
from gateway.detect.noise import N_NOISE, judge_noise
from gateway.detect.tags import Tags
from gateway.model.frame import DETECT_BITS

HOUR_NS: Final = 3_600_000_000_000
HOURS: Final = 24  # bins of a day: schedules run on the clock's hour
CELLS: Final = 16  # of what came before; the first and last are open
NEAR: Final = 2  # cells to each side that count as the same situation
MAX_VALUE: Final = 1e30  # beyond it is no measurement

SHARE: Final = 0.05  # of the span that was ever covered is one unit of novelty: an operator's dead band
SHARE_TREND: Final = 0.10  # the same for the half-hour mean, whose span is smaller
NOISES: Final = 2.4  # mean steps: a Gaussian's is 1.13 sd, so 2.7 sd; an hour holds few values, and noise sets records
STEPS: Final = 0.5  # smallest steps of the meter: one digit outside is no news
CAP: Final = 4.0  # units: one term alone never is more than four opinions
FAST: Final = 6.0  # ticks, half an hour
MIDDLE: Final = 36.0  # ticks, three hours
DAY: Final = 288.0  # ticks
WEEK: Final = 2016.0  # ticks: of the mean and sd that scale the cells
CELL_SD: Final = 0.45  # sd a cell: 16 of them are 3.6 sd to each side
FORGET: Final = 0.005  # of its width an envelope shrinks a day: half in 139 days, a season
WARM_UP_S: Final = 86_400.0  # nothing is told before a day was observed
MAX_STEP_S: Final = 7_200.0  # of observed time between two ticks: a gap teaches nothing
GAP_S: Final = 21_600.0  # after a longer one there is no "before": STEP and TREND pause for a tick
REFRACTORY: Final = 96.0  # ticks, eight hours: a shift between two alarms of one tag,
GROW: Final = 1.4  # unless it has grown by 40 %
GOVERN: Final = 0.04  # for each unit that it has told, a tag must cry 4 % louder
GOVERN_TICKS: Final = 10_000.0  # five weeks: memory of that
LEARN_S: Final = 604_800.0  # before a tag alarms it has shown a week: what comes on Mondays is no news then
STAYS: Final = 3.0  # ticks after the score until the alarm: a quarter of an hour
MONTH_S: Final = 28 * 86_400.0  # and four of them before the hour alone alarms, of a value that it has shown at another
ALARM: Final = 5.0  # units at a score of 0.5: noise, wander, duty cycles and drift stayed below it in 60 days
ALARM_SCORE: Final = 0.5  # of the tick with which it alarms, at least
SMALLEST: Final = 1e-6  # of the span: a smaller difference is arithmetic, no step of the meter
STEP_DRIFT: Final = 1.001  # a tick: how the smallest step seen is forgotten
RELATIVE: Final = 1e-9  # of the value: what arithmetic makes of it
NEVER: Final = 1e9  # ticks since an alarm, where there was none

NOTHING, LEVEL, BY_DAY, STEP, TREND = range(5)  # what has most of a score; from STEP on it is a shift
BIT_SHIFT: Final = DETECT_BITS["shift"]
BIT_NOVELTY: Final = DETECT_BITS["novelty"]

# Columns of float64[n, N_NUMBERS].
TICKS, ORIGIN, TIME, AGE, DAYS, HOUR, LAST, MEAN_FAST, MEAN_MIDDLE, MEAN_DAY, MEAN, VARIANCE, MEAN_STEP, SMALL = range(
    14
)
X_LOW, X_HIGH, P_LOW, P_HIGH, F_LOW, F_HIGH, TOLD, LIMIT, SINCE = range(14, 23)
WAIT, ABOUT, UPWARDS, EDGE = range(23, 27)  # of an alarm that waits: ticks, term, side, and beyond what it has to stay
KNOWN_LOW, KNOWN_HIGH, NEXT_LOW, NEXT_HIGH = range(
    27, 31
)  # the span of x a day or two ago, and that of the last day's end
N_NUMBERS: Final = 31

# Rows of float32[n, N_ENVELOPES, 2]: for both hour terms those of now and the copies, then the cells.
OF_LEVEL: Final = 0
OF_DAY: Final = 2 * HOURS
OF_STEP: Final = 4 * HOURS
OF_TREND: Final = 4 * HOURS + CELLS
N_ENVELOPES: Final = 4 * HOURS + 2 * CELLS


@kernel("void(f4[:, ::1], i8)", inner=True)
def _forget(w, row):
    """Let an envelope shrink by a day's share of its width."""
    low, high = w[row, 0], w[row, 1]
    if high > low:
        half = np.float32(0.5 * FORGET) * (high - low)
        w[row, 0] = low + half
        w[row, 1] = high - half


@kernel("void(f4[:, ::1], i8, f8)", inner=True)
def _teach(w, row, y):
    """Widen an envelope so that it holds y."""
    y4 = np.float32(y)
    w[row, 0] = min(w[row, 0], y4)
    w[row, 1] = max(w[row, 1], y4)


@kernel("f8(f4[:, ::1], i8, i8, f8)", inner=True)
def _of_hour(w, first, hour, y):
    """Return how far y lies outside the envelope of an hour and the copies of its neighbours; 0 where there is none."""
    left = first + HOURS + (hour - 1 if hour > 0 else HOURS - 1)
    right = first + HOURS + (hour + 1 if hour < HOURS - 1 else 0)
    low = min(w[first + hour, 0], min(w[left, 0], w[right, 0]))
    high = max(w[first + hour, 1], max(w[left, 1], w[right, 1]))
    return max(0.0, max(y - high, low - y)) if high >= low else 0.0


@kernel("i8(f8)", inner=True)
def _cell(z):
    """Return the cell of a value z cells from the mean; NaN is the first."""
    z = np.floor(z + 0.5) + CELLS // 2
    if z >= CELLS - 1:
        return CELLS - 1
    return int(z) if z >= 0.0 else 0


@kernel("f8(f4[:, ::1], i8, i8, f8, f8, f8)", inner=True)
def _of_cell(w, first, cell, y, low_ever, high_ever):
    """Return how far y lies outside the envelope of a cell and those beside it; of none: outside the whole span."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for row in range(first + max(0, cell - NEAR), first + min(CELLS, cell + NEAR + 1)):
        low = min(low, w[row, 0])
        high = max(high, w[row, 1])
    if high < low:
        return max(0.0, max(y - high_ever, low_ever - y))
    return max(0.0, max(y - np.float64(high), np.float64(low) - y))


@kernel("Tuple((f8, i8, i8))(f8[::1], f4[:, ::1], f8, i8, f8, f8)", inner=True)
def advance(s, w, t, hour, raw, resolution):
    """Take one tick of a tag: its value `raw` at t seconds, in this hour of the day.

    Returns (score in units, what has most of it, what an alarm that is due now is about).

    s float64[N_NUMBERS], w float32[N_ENVELOPES, 2]  state;  resolution  smallest step of the meter, 0 if unknown
    """
    if not abs(raw) < MAX_VALUE:
        return 0.0, NOTHING, NOTHING
    n = s[TICKS] + 1.0
    s[TICKS] = n
    young = 1.0 / n
    if n == 1.0:
        s[ORIGIN] = raw
        s[TIME] = t
    x = raw - s[ORIGIN]  # small numbers: float32 envelopes stay exact
    dt = t - s[TIME]
    s[TIME] = t
    age = s[AGE] + min(max(dt, 0.0), MAX_STEP_S)
    s[AGE] = age
    is_warm = age >= WARM_UP_S
    has_before = n > 1.0 and abs(dt) <= GAP_S
    if hour != s[HOUR]:
        opposite = hour + HOURS // 2 if hour < HOURS // 2 else hour - HOURS // 2
        for first in (OF_LEVEL, OF_DAY):
            now = first + opposite
            _forget(w, now)
            w[now + HOURS, 0] = w[now, 0]
            w[now + HOURS, 1] = w[now, 1]
        s[HOUR] = hour
    if age - s[DAYS] >= WARM_UP_S:
        s[DAYS] = age
        for row in range(OF_STEP, N_ENVELOPES):
            _forget(w, row)
        s[KNOWN_LOW], s[KNOWN_HIGH] = s[NEXT_LOW], s[NEXT_HIGH]
        s[NEXT_LOW], s[NEXT_HIGH] = s[X_LOW], s[X_HIGH]
        for low in (X_LOW, P_LOW, F_LOW):
            half = 0.5 * FORGET * (s[low + 1] - s[low])
            if half > 0.0:
                s[low] += half
                s[low + 1] -= half

    alarm = NOTHING
    if s[WAIT] > 0.0:
        has_stayed = (x - s[EDGE]) * s[UPWARDS] > 0.0
        s[WAIT] = s[WAIT] - 1.0 if has_stayed else 0.0
        if has_stayed and s[WAIT] == 0.0:
            alarm = np.int64(s[ABOUT])
    before = s[LAST]
    x_span = max(s[X_HIGH] - s[X_LOW], 0.0)
    p_span = max(s[P_HIGH] - s[P_LOW], 0.0)
    f_span = max(s[F_HIGH] - s[F_LOW], 0.0)
    y = x  # what it may teach
    if is_warm and x_span > 0.0:
        y = min(max(x, s[X_LOW] - x_span), s[X_HIGH] + x_span)
    p, p_taught = x - s[MEAN_DAY], y - s[MEAN_DAY]
    f = s[MEAN_FAST] + max(1.0 / FAST, young) * (y - s[MEAN_FAST])
    s[MEAN_FAST] = f
    width = np.sqrt(s[VARIANCE]) * CELL_SD
    per_cell = 1.0 / width if width > 0.0 else 0.0
    x_cell = _cell((s[LAST] - s[MEAN]) * per_cell)
    f_cell = _cell((s[MEAN_MIDDLE] - s[MEAN]) * per_cell)

    units, excused, best, term = 0.0, 0.0, 0.0, NOTHING
    if is_warm:
        floor = STEPS * max(s[SMALL], resolution) + RELATIVE * abs(raw)
        noise = NOISES * s[MEAN_STEP] + floor
        beyond = _of_hour(w, OF_LEVEL, hour, x)
        u = min(CAP, beyond / (SHARE * (x_span + beyond) + noise)) if beyond > 0.0 else 0.0
        units += u
        if u > best:
            best, term = u, LEVEL
        beyond = _of_hour(w, OF_DAY, hour, p)
        u = min(CAP, beyond / (SHARE * (p_span + beyond) + noise)) if beyond > 0.0 else 0.0
        units += u
        if u > best:
            best, term = u, BY_DAY
        if age < MONTH_S and s[KNOWN_LOW] <= x <= s[KNOWN_HIGH]:
            excused = units
        if has_before:
            beyond = _of_cell(w, OF_STEP, x_cell, x, s[X_LOW], s[X_HIGH])
            u = min(CAP, beyond / (SHARE * (x_span + beyond) + floor)) if beyond > 0.0 else 0.0
            units += u
            if u > best:
                best, term = u, STEP
            beyond = _of_cell(w, OF_TREND, f_cell, f, s[F_LOW], s[F_HIGH])
            u = min(CAP, beyond / (SHARE_TREND * (f_span + beyond) + floor)) if beyond > 0.0 else 0.0
            units += u
            if u > best:
                best, term = u, TREND

    _teach(w, OF_LEVEL + hour, y)
    _teach(w, OF_DAY + hour, p_taught)
    s[X_LOW], s[X_HIGH] = min(s[X_LOW], y), max(s[X_HIGH], y)
    s[P_LOW], s[P_HIGH] = min(s[P_LOW], p_taught), max(s[P_HIGH], p_taught)
    s[F_LOW], s[F_HIGH] = min(s[F_LOW], f), max(s[F_HIGH], f)
    if has_before:
        _teach(w, OF_STEP + x_cell, y)
        _teach(w, OF_TREND + f_cell, f)
        d = abs(y - s[LAST])
        s[MEAN_STEP] += max(1.0 / DAY, young) * (d - s[MEAN_STEP])
        if d > SMALLEST * x_span:
            s[SMALL] = min(d, STEP_DRIFT * s[SMALL]) if s[SMALL] > 0.0 else d
    s[LAST] = y
    s[MEAN_MIDDLE] += max(1.0 / MIDDLE, young) * (y - s[MEAN_MIDDLE])
    s[MEAN_DAY] += max(1.0 / DAY, young) * p_taught
    a, e = max(1.0 / WEEK, young), y - s[MEAN]
    s[MEAN] += a * e
    s[VARIANCE] += a * (e * (y - s[MEAN]) - s[VARIANCE])

    told, since = s[TOLD] * (1.0 - 1.0 / GOVERN_TICKS), s[SINCE] + 1.0
    if since > REFRACTORY:
        s[LIMIT] = 0.0
    units /= 1.0 + GOVERN * told
    excused /= 1.0 + GOVERN * told
    if units > s[LIMIT]:
        s[LIMIT] = units * GROW
        s[SINCE] = 0.0
        s[TOLD] = told + units
        if age >= LEARN_S and units - excused >= ALARM and s[WAIT] == 0.0:
            s[WAIT], s[ABOUT] = STAYS, term
            s[UPWARDS] = 1.0 if x > before else -1.0
            s[EDGE] = 0.5 * (x + before)
            if x > s[KNOWN_HIGH]:
                s[UPWARDS], s[EDGE] = 1.0, s[KNOWN_HIGH]
            elif x < s[KNOWN_LOW]:
                s[UPWARDS], s[EDGE] = -1.0, s[KNOWN_LOW]
        return units, term, alarm
    s[TOLD], s[SINCE] = told, since
    return 0.0, NOTHING, alarm


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
    "f8[:, ::1], f4[:, :, ::1], f8[:, ::1], u2[::1], u1[::1], f8[:, ::1], u2[:, ::1])"
)
def step(
    ready, start, stop, time_ns, stamp_ns, value, quality, detect, kind, resolution,
    first_ns, began_ns, before_ns, frames, every_s, total, count, rough, last, counter_value, counter_s,
    numbers, envelopes, noises, standing, busy, score, flags,
):  # fmt: skip
    """Advance every tag of the ready scans by each frame in turn; see `buckets` and `advance`.

    first_ns int64[scans] state: when its first frame was, from which seconds are counted
    standing uint16[n] state: the flag of the last tick;  busy uint8[scans] state: whether one of its tags has one
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
                hour = ((stamp_ns[k, number] - (now - end_ns)) // HOUR_NS) % HOURS
                n_frames = np.float64(frames[number])
                frames[number] = 0
                is_busy = False
                for i in range(a, b):
                    if quality[k, i] & BAD:
                        is_busy = is_busy or standing[i] != 0
                        continue  # a bad value tells nothing: what there was before goes into the next bucket
                    steps, rough_now = count[i] - 1.0, rough[i]
                    rough[i] = 0.0
                    x = _tick_of(i, t, kind, total, count, last, counter_value, counter_s, n_frames)
                    standing[i] = 0
                    if not is_judged or detect[i] & (BIT_SHIFT | BIT_NOVELTY) == 0:
                        continue
                    units, term, alarm = advance(numbers[i], envelopes[i], t, hour, x, resolution[i])
                    if units > 0.0 and detect[i] & (BIT_SHIFT if term >= STEP else BIT_NOVELTY):
                        score[k, i] = max(score[k, i], units / (units + ALARM))
                    if kind[i] == GAUGE and detect[i] & BIT_NOVELTY and judge_noise(rough_now, steps, noises[i]):
                        score[k, i] = max(score[k, i], ALARM_SCORE)
                        standing[i] = NOISE
                        is_busy = True
                    if alarm != NOTHING and detect[i] & (BIT_SHIFT if alarm >= STEP else BIT_NOVELTY):
                        score[k, i] = max(score[k, i], ALARM_SCORE)
                        standing[i] = SHIFT if alarm >= STEP else NOVELTY
                        is_busy = True
                busy[number] = is_busy
            if busy[number]:
                for i in range(a, b):
                    if quality[k, i] & BAD == 0:
                        flags[k, i] |= standing[i]


class Novelty:
    """What a tag has never done before, at this hour or after what it did just now."""

    name: Final = "novelty"
    axes: Final[Mapping[str, Axis | None]] = MappingProxyType(
        dict.fromkeys(("first_ns", "began_ns", "before_ns", "frames", "every_s", "busy"), "scan")
    )

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        n, n_scans = tags.n, tags.n_scans
        numbers = np.zeros((n, N_NUMBERS))
        numbers[:, HOUR] = -1.0
        numbers[:, [X_LOW, P_LOW, F_LOW, KNOWN_LOW, NEXT_LOW]] = np.inf
        numbers[:, [X_HIGH, P_HIGH, F_HIGH, KNOWN_HIGH, NEXT_HIGH]] = -np.inf
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
            "noises": np.zeros((n, N_NOISE)),
            "standing": np.zeros(n, np.uint16),
            "busy": np.zeros(n_scans, np.uint8),
        }

    def update(self, turn: Turn) -> None:
        """Advance by the frames of a turn; see `step`."""
        t, s = self._tags, self._state
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.time_ns, turn.stamp_ns, turn.value, turn.quality,
            t.detect, t.kind, t.resolution,
            s["first_ns"], s["began_ns"], s["before_ns"], s["frames"], s["every_s"], s["total"], s["count"], s["rough"],
            s["last"],
            s["counter_value"], s["counter_s"], s["numbers"], s["envelopes"], s["noises"], s["standing"], s["busy"],
            turn.score, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return self._state
