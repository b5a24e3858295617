"""Health index of an asset: do its meters still belong together, and which one does not? And: when did it change?

    1  Each meter is smoothed to e. Its level b and the variance v of e about b are means over all healthy rows so far,
       so v grows with everything healthy that the meter is seen to do.               r = (e - b)^2 / v
    2  After the learning week each meter is also held against the others, which a step of the load moves along the
       relation that was learnt: h = W (e - b), W from the inverse of the week's covariance.  r = h^2 / var h
    3  Evidence is what of r exceeds 3 sd, of the worst meter and half of the second. Raised after 3 rows above the
       limit, cleared after 40 rows below it and below a quarter of the alarm's peak; what is left of it then is
       accepted as spread. The limit grows with the logarithm of the rows, as records do, and for a while with alarms.
    4  A change point is where the smoothed values leave a slower mean of themselves by more than the healthy and the
       present spread explain.

A meter is blamed, by its flag, after the learning week, once its alarm is more than the asset has shown before, in the
second week several times that, and if it does not look as if it was operated: when a third of its meters have left
their levels, somebody stopped the pump. The index and its alarm know no such mercy.

A row of an asset is complete when each of its scans has brought a frame, or one comes for the second time: the fastest
scan sets the pace, slower ones stand meanwhile.

Source: Hotelling's T2 and its contributions as in MacGregor and Kourti, "Statistical process control of multivariate
processes", Control Engineering Practice 3 (1995), reduced to what 400 rows can teach; the regression of each variable
on the others as in Hawkins, "Multivariate quality control based on regression-adjusted variables", Technometrics 33
(1991). `docs/detectors.md` has the numbers on one half of SKAB.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.detector import Axis, Turn
from gateway.detect.flags import HEALTH
from gateway.detect.tags import KINDS, Tags
from gateway.model.frame import DETECT_BITS

S_PER_NS: Final = 1e-9
COMMISSION: Final = 400.0  # rows with wide limits only
SKIP: Final = 50.0  # rows: the start of the smoothing is left out of every variance
SMOOTH: Final = 0.1  # a row: memory of 10 rows, noise sd / 4.4, a step is seen in 3 to 10
EXCESS: Final = 9.0  # sd^2: below 3 sd a meter is no evidence, so that eight quiet meters add up to nothing
SECOND: Final = 0.5  # of the second meter's evidence counts; further ones may be copies of one another
WILD: Final = 6.0  # sd of a row about e: one row counts for no more, a real excursion doubles its step with every row
LIMIT: Final = 4.0  # sd^2 above EXCESS: one meter at 3.6 sd just after commissioning
GROSS: Final = 10.0  # limits, while it is commissioned
RAISE: Final = 3.0  # rows above the limit
CLEAR: Final = 40.0  # rows below it: four memories of the smoothing
CLEAR_SHARE: Final = 0.25  # of the alarm's peak: the excursion has fallen to half its size
PEAK: Final = 0.05  # a row: the peak is that of a 20-row mean, so that a burst does not set it
RECORD: Final = 2.5  # sd^2 the limit grows with ln(rows): the largest of n Gaussian scores grows as 2 ln n
GOVERN: Final = 1.25  # times the limit after every alarm,
MAX_GOVERN: Final = 4.0  # at most so much in all: 9.4 sd
GOVERN_S: Final = 5 * 604_800.0  # in which one such factor is forgotten: settles at 0.2 needless alarms a week
WEEK_S: Final = 604_800.0  # of learning
ACCEPT_S: Final = 3_600.0  # of alarm in that week until a state is taken for one of operation
ACCEPT_LATE_S: Final = 86_400.0  # and of one alarm later
LONG: Final = 4.0  # weeks of memory after it
LIVE: Final = (
    8.0  # values inside what it showed, until a meter counts as continuous: constants and switches never score
)
MAX_VALUE: Final = 1e100  # beyond it is no measurement
SLOW: Final = 0.04  # a row: the slower mean of the change points, 25 rows against 10
SPREAD: Final = 0.05  # a row: the present spread, 20 rows; a noisier meter needs a larger step
CHANGE: Final = 11.0  # sd^2 of a change point, 3.3 sd; grows as the limit does
REST: Final = 20.0  # rows between two of them
ENOUGH: Final = 2_000.0  # healthy rows in the week: fewer teach no covariance
RIDGE: Final = 1e-3  # of the correlation matrix: copies of a meter stay invertible
FLOOR: Final = 1e-4  # of a meter's variance: the others never explain it better than to 1 % of its spread
MAX_MEMBERS: Final = 32  # meters of an asset that are held against each other, in 2 KB a tag; a larger one goes without
MAX_PAUSE_S: Final = 3_600.0  # of time between two rows that counts
TYPICAL: Final = 8.0  # meters: of a larger asset the worst is worse by chance
TINY: Final = 1e-24  # of the level squared: what arithmetic leaves as variance
SETTLE_S: Final = 60.0  # of alarm until a meter is blamed: what an operator moves has all moved by then
MOVED_SHARE: Final = 1 / 3  # of the meters away at once is an operation,
MOVERS: Final = 3  # if there are so many
NOBODY: Final = -1  # is blamed yet
NOT_TOLD: Final = -2  # nobody will be
OPERATED: Final = -3  # nobody will be: an operation, which says nothing of how large an alarm of one meter is
WAITING: Final = -4  # for more than was seen before
MORE: Final = (
    1.5  # times the largest peak of its alarms so far, those of the learning week with it: else it was seen before
)
GRADE: Final = 3.0  # power of two weeks / age, times all that: what was learnt of one week knows that week best
FORGET: Final = 0.98  # of that peak, at each later alarm
ALARM: Final = 1.0  # limits at a score of 0.5

# Columns of float64[n, N_METER]: of each meter.
E, LOW, HIGH, INSIDE, SLOWER, U, U_ROWS, Q, Q_HEALTHY, LAST, B, V, ROWS, V_OTHERS = range(14)
N_METER: Final = 14
# Columns of float64[assets, N_ASSET].
BEGAN, TIME, IN_ALARM, ABOVE, BELOW, SMOOTHED, PEAK_AT, LASTED, RESTING, LIMITS, MOST_ROWS, WEEK_ROWS = range(12)
HEALTHY, KNOWS_OTHERS, ENDING, CAUSE, USUAL, RAISED, WAS_OPERATED = range(12, 19)
N_ASSET: Final = 19
NEVER: Final = -1.0  # of BEGAN
SILENT: Final = -1.0  # limits of a row without any value


@kernel("void(i8, i8, i4[::1], f8[:, ::1], f8[:, ::1], f8[:, ::1])", inner=True)
def learn_others(first, n, members, meter, matrix, scratch):
    """Turn the covariance of n meters into weights: row j times the departures is what meter j's others do not explain.

    matrix float64[all, >= n], row k of meter j: members[first + j]; scratch float64[>= n, >= n]; sets V_OTHERS, the
    variance of that. Once, O(n^3).
    """
    for i in range(n):
        own = matrix[members[first + i], i]
        for k in range(n):
            w = np.sqrt(own * matrix[members[first + k], k])
            scratch[i, k] = matrix[members[first + i], k] / w if w > 0.0 else 0.0
        scratch[i, i] = 1.0 + RIDGE
    for i in range(n):  # Gauss and Jordan in place; positive definite, so no pivots
        pivot = 1.0 / scratch[i, i]
        scratch[i, i] = 1.0
        for k in range(n):
            scratch[i, k] *= pivot
        for j in range(n):
            if j != i:
                f = scratch[j, i]
                scratch[j, i] = 0.0
                for k in range(n):
                    scratch[j, k] -= f * scratch[i, k]
    for j in range(n):
        q = scratch[j, j]
        for k in range(n):
            q -= RIDGE * scratch[j, k] * scratch[k, j]
        meter[members[first + j], V_OTHERS] = max(q / (scratch[j, j] * scratch[j, j]), FLOOR)
    for k in range(n):
        own = matrix[members[first + k], k]
        sd = np.sqrt(own) if own > 0.0 else 0.0
        for j in range(n):
            matrix[members[first + j], k] = scratch[j, k] / scratch[j, j] / sd if sd > 0.0 else 0.0


@kernel("UniTuple(f8, 2)(f8, f8, f8)", inner=True)
def _two_largest(z, worst, second):
    """Return the two largest of these, of which worst is not below second."""
    if z > worst:
        return z, worst
    return worst, max(z, second)


@kernel(
    "Tuple((f8, f8, f8, i8, b1, b1, f8))(i8, i8, i4[::1], f8[::1], f8[:, ::1], f8[::1], f8[::1], f8, b1)", inner=True
)
def look_at_each(first, n, members, value, meter, departure, asset, limit, is_learning):
    """Advance each meter by one row, and hold it against itself.

    Returns (evidence of the worst, of the second, r of the worst, its row or -1, whether one changed, whether all are
    there and commissioned, most rows that one has).  departure float64[all], set: e - b, NaN where there is no value
    """
    worst, second, best, cause, most = 0.0, 0.0, -1.0, -1, 0.0
    is_change, is_whole = False, True
    in_alarm = asset[IN_ALARM] > 0.0
    change = CHANGE + (limit / asset[LIMITS] - LIMIT)
    for j in range(n):
        i = members[first + j]
        y = value[i]
        departure[i] = np.nan
        if not abs(y) < MAX_VALUE:
            is_whole = False
            continue
        if meter[i, E] != meter[i, E]:
            meter[i, E] = meter[i, SLOWER] = meter[i, LOW] = meter[i, HIGH] = y
        if meter[i, INSIDE] < LIVE:
            low, high = meter[i, LOW], meter[i, HIGH]
            if low < y < high or ((y > high or y < low) and high > low):
                meter[i, INSIDE] += 1.0
            meter[i, LOW], meter[i, HIGH] = min(low, y), max(high, y)
        e = meter[i, E]
        w = y - e
        if meter[i, U_ROWS] > 2.0 * SKIP:
            most_w = WILD * np.sqrt(meter[i, Q_HEALTHY] + TINY * e * e) + 2.0 * abs(meter[i, LAST])
            w = max(min(w, most_w), -most_w)
        meter[i, LAST] = w
        e += SMOOTH * w
        meter[i, E] = e
        meter[i, SLOWER] += SLOW * (e - meter[i, SLOWER])
        if meter[i, INSIDE] < LIVE:
            departure[i] = 0.0
            continue
        rows, v = meter[i, ROWS] + 1.0, meter[i, V]
        d = e - meter[i, B]
        departure[i] = d
        is_whole = is_whole and rows > COMMISSION
        r = 0.0
        if rows > SKIP:
            r = d * d / (v + TINY * meter[i, B] * meter[i, B] + 1e-200)
            most = max(most, rows)
            if rows > 2.0 * SKIP:
                z = r - EXCESS - (0.0 if rows > COMMISSION else (GROSS - 1.0) * LIMIT)
                worst, second = _two_largest(z, worst, second)
                if r > best:
                    best, cause = r, i
        if rows <= COMMISSION or r < (EXCESS if in_alarm else EXCESS + limit):
            if not is_learning:
                rows = min(rows, asset[WEEK_ROWS] + COMMISSION)
            a = 1.0 / rows
            meter[i, ROWS] = rows
            meter[i, B] += a * (e - meter[i, B])
            if rows > SKIP:
                meter[i, V] += (d * d * (1.0 - a) - v) / (rows - SKIP)
        h = (e - meter[i, SLOWER]) ** 2
        rows = meter[i, U_ROWS] + 1.0
        q, u = meter[i, Q] + max(SPREAD, 1.0 / rows) * (w * w - meter[i, Q]), meter[i, U]
        meter[i, Q] = q
        healthy = meter[i, Q_HEALTHY]
        if rows > COMMISSION and h * h * healthy > change * change * u * u * max(q, healthy):
            is_change = True
        if rows <= COMMISSION or h < EXCESS * u:
            if not is_learning:
                rows = min(rows, asset[WEEK_ROWS] + COMMISSION)
            meter[i, U_ROWS] = rows
            if rows > SKIP:
                meter[i, U] += (h - u) / (rows - SKIP)
                meter[i, Q_HEALTHY] += (q - healthy) / (rows - SKIP)
    return worst, second, best, cause, is_change, is_whole, most


@kernel(
    "Tuple((f8, f8, i8))(i8, i8, i4[::1], f8[:, ::1], f8[::1], u1[::1], f8[::1], f8[:, ::1], f8, f8, f8, f8, i8)",
    inner=True,
)
def look_at_all(
    first, n, members, meter, departure, is_gone, asset, weights, limit, worst, second, best, cause
):  # fmt: skip
    """Hold each meter against the others; returns (evidence of the worst, of the second, row of the worst) with those.

    A meter without a value stands where the others expect it: it neither scores nor disturbs.
    """
    n_gone = 0
    for j in range(n):
        i = members[first + j]
        is_gone[i] = departure[i] != departure[i]
        n_gone += is_gone[i]
    if 2 * n_gone >= n:
        return worst, second, cause
    if n_gone:
        for j in range(n):
            if is_gone[members[first + j]]:
                departure[members[first + j]] = 0.0
        for _ in range(1 if n_gone == 1 else 3):
            for j in range(n):
                i = members[first + j]
                if is_gone[i] and weights[i, j] > 0.0:
                    h = 0.0
                    for k in range(n):
                        h += weights[i, k] * departure[members[first + k]]
                    departure[i] -= h / weights[i, j]
    asset[HEALTHY] = min(asset[HEALTHY] + 1.0, max(asset[WEEK_ROWS], asset[HEALTHY]))
    a = 1.0 / asset[HEALTHY]
    in_alarm = asset[IN_ALARM] > 0.0
    for j in range(n):
        i = members[first + j]
        if is_gone[i]:
            continue
        h = 0.0
        for k in range(n):
            h += weights[i, k] * departure[members[first + k]]
        h *= h
        r = h / meter[i, V_OTHERS]
        if r < (EXCESS if in_alarm else EXCESS + limit):
            meter[i, V_OTHERS] = max(meter[i, V_OTHERS] + a * (h - meter[i, V_OTHERS]), FLOOR)
        elif asset[ENDING] > 0.0:
            meter[i, V_OTHERS] += h
        z = r - EXCESS
        worst, second = _two_largest(z, worst, second)
        if r > best:
            best, cause = r, i
    return worst, second, cause


@kernel("f8(i8, f8[::1])", inner=True)
def _limit(n, asset):
    """Return the evidence that is the limit of an asset of n meters."""
    record = 0.0
    if asset[MOST_ROWS] > COMMISSION:
        record = RECORD * np.log(asset[MOST_ROWS] / COMMISSION * max(n, TYPICAL) / TYPICAL)
    return (LIMIT + record) * asset[LIMITS]


@kernel("void(f8[::1], f8, f8, f8, b1)", inner=True)
def _remember(asset, evidence, limit, dt, is_learning):
    """Raise or clear the alarm of an asset by the evidence of one row."""
    in_alarm = asset[IN_ALARM] > 0.0
    if in_alarm:
        asset[SMOOTHED] += PEAK * (evidence - asset[SMOOTHED])
        asset[PEAK_AT] = max(asset[PEAK_AT], asset[SMOOTHED])
        limit = max(limit, CLEAR_SHARE * asset[PEAK_AT])
    if evidence > limit:
        asset[ABOVE] += 1.0
        asset[BELOW] = 0.0
    else:
        asset[BELOW] += 1.0
        asset[ABOVE] = 0.0
    asset[ENDING] = 0.0
    if in_alarm:
        asset[LASTED] += dt
        is_accepted = asset[LASTED] > (ACCEPT_S if is_learning else ACCEPT_LATE_S)
        if asset[BELOW] >= CLEAR or is_accepted:
            asset[ENDING] = 1.0
            asset[IN_ALARM] = asset[ABOVE] = 0.0
            if asset[BELOW] < CLEAR or not is_learning:
                asset[LASTED] = 0.0
    elif asset[ABOVE] >= RAISE:
        asset[IN_ALARM] = 1.0
        asset[SMOOTHED] = asset[PEAK_AT] = evidence
        asset[LIMITS] = min(asset[LIMITS] * GOVERN, MAX_GOVERN)


@kernel(
    "Tuple((f8, b1))(f8, i8, i8, i4[::1], f8[::1], f8[:, ::1], f8[::1], u1[::1], f8[::1], f8[:, ::1], f8[:, ::1])",
    inner=True,
)
def advance(t, first, n, members, value, meter, departure, is_gone, asset, matrix, scratch):
    """Take one row of an asset at t seconds: value float64[all], NaN where it is bad; returns (limits, change point).

    members int32: rows first to first + n are its meters;  matrix float64[all, side] state, covariance, then weights;
    an asset of more than `side` meters goes without.  IN_ALARM and CAUSE of the asset are set
    """
    n_values = 0
    for j in range(n):
        n_values += abs(value[members[first + j]]) < MAX_VALUE
    if n_values == 0:
        return SILENT, False  # an asset without a value is neither well nor ill
    if asset[BEGAN] == NEVER:
        asset[BEGAN] = asset[TIME] = t
    dt = min(max(t - asset[TIME], 0.0), MAX_PAUSE_S)
    asset[TIME] = t
    is_learning = t - asset[BEGAN] < WEEK_S
    limit = _limit(n, asset)
    in_alarm = asset[IN_ALARM] > 0.0
    worst, second, best, cause, is_change, is_whole, most = look_at_each(
        first, n, members, value, meter, departure, asset, limit, is_learning
    )
    asset[LIMITS] = max(1.0, asset[LIMITS] * (1.0 - dt * (GOVERN - 1.0) / GOVERN_S))
    if n <= matrix.shape[1]:
        if asset[KNOWS_OTHERS] > 0.0:
            worst, second, cause = look_at_all(
                first, n, members, meter, departure, is_gone, asset, matrix, limit, worst, second, best, cause
            )
        elif is_learning:
            if is_whole and not in_alarm and worst < limit:
                asset[HEALTHY] += 1.0
                a = 1.0 / asset[HEALTHY]
                for j in range(n):
                    i = members[first + j]
                    d = departure[i]
                    for k in range(n):
                        matrix[i, k] += a * (d * departure[members[first + k]] - matrix[i, k])
        elif asset[HEALTHY] >= ENOUGH:
            learn_others(first, n, members, meter, matrix, scratch)
            asset[KNOWS_OTHERS] = 1.0
    evidence = worst + SECOND * second
    _remember(asset, evidence, limit, dt, is_learning)
    if asset[IN_ALARM] > 0.0 and not in_alarm:
        asset[RAISED] = t
    if asset[ENDING] > 0.0:
        for j in range(n):
            i = members[first + j]
            d = meter[i, E] - meter[i, B]
            if meter[i, ROWS] >= COMMISSION and d * d > EXCESS * meter[i, V]:
                meter[i, V] += d * d
    is_told = is_change and asset[RESTING] <= 0.0
    asset[RESTING] = REST if is_told else max(asset[RESTING] - 1.0, 0.0)
    if most > 0.0:
        asset[MOST_ROWS] = most
    if is_learning:
        asset[WEEK_ROWS] += LONG
    asset[CAUSE] = cause
    return evidence / limit, is_told


@kernel("b1(i8, i8, i4[::1], f8[::1], f8[::1], f8[:, ::1])", inner=True)
def _is_operation(first, n, members, value, departure, meter):
    """Return whether so many meters of an asset have left their levels that it is the asset that was moved."""
    n_live, n_away = 0, 0
    for j in range(n):
        i = members[first + j]
        if meter[i, INSIDE] >= LIVE and value[i] == value[i]:
            n_live += 1
            n_away += departure[i] * departure[i] > EXCESS * meter[i, V]
    return n_away >= MOVERS and n_away >= MOVED_SHARE * n_live


@kernel("i4(f8, i8, i8, i4[::1], f8[::1], f8[::1], f8[:, ::1], f8[::1], i4)", inner=True)
def _blame(t, first, n, members, value, departure, meter, asset, blamed):
    """Return who is to be blamed for the alarm of an asset: a row, NOBODY (yet), WAITING, NOT_TOLD, OPERATED."""
    if asset[IN_ALARM] <= 0.0:
        if blamed == WAITING:
            asset[USUAL] = max(asset[USUAL], asset[PEAK_AT])
        asset[WAS_OPERATED] = 0.0
        return NOBODY
    if blamed in (NOBODY, WAITING) and t - asset[RAISED] >= SETTLE_S:
        age = max(t - asset[BEGAN], 1.0)
        early = max(2.0 * WEEK_S / age, 1.0) ** GRADE
        usual = early * max(MORE * asset[USUAL], _limit(n, asset) if early > 1.0 else 0.0)
        if blamed == NOBODY:
            asset[USUAL] *= FORGET
        if asset[WAS_OPERATED] > 0.0 or _is_operation(first, n, members, value, departure, meter):
            asset[WAS_OPERATED] = 1.0  # also after a restart, when some have come back
            blamed = np.int32(OPERATED)
        elif age < WEEK_S:
            blamed = np.int32(NOT_TOLD)
        else:
            blamed = np.int32(WAITING) if asset[PEAK_AT] <= usual else np.int32(asset[CAUSE])
    if blamed >= 0 or blamed == NOT_TOLD:
        asset[USUAL] = max(asset[USUAL], asset[PEAK_AT])
    return blamed


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i4[::1], i4[::1], i4[::1], i4[::1], i4[::1], i8[:, ::1], f8[:, ::1], u4[:, ::1], "
    "f8[::1], u1[::1], i4[::1], f8[:, ::1], f8[::1], u1[::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], i8[::1], i4[::1], "
    "u2[:, ::1], f8[:, ::1], f8[:, ::1], u1[:, ::1], u1[:, ::1])"
)
def step(
    ready, start, stop, first_pair, asset_of, n_scans, members, first, time_ns, value, quality,
    latest, is_fresh, n_fresh, meter, departure, is_gone, asset, matrices, scratch, first_ns, blamed,
    flags, score, row_score, alarm, changepoint,
):  # fmt: skip
    """Advance every asset of the ready scans by each frame in turn; see `advance`.

    first_pair int32[scans + 1], asset_of int32[p]  the assets of scan s are asset_of[first_pair[s]:first_pair[s + 1]];
    n_scans int32[assets]; first int32[assets + 1], members int32[m]
    latest float64[n] state: last value of each meter;  is_fresh uint8[p], n_fresh int32[assets] state: what has
    come of the row at hand;  blamed int32[assets] state: the row of the cause of a standing alarm, NOBODY,
    WAITING, NOT_TOLD or OPERATED
    first_ns int64[assets] state: when its first frame was, from which seconds are counted
    row_score float64[frames, assets], alarm, changepoint uint8[frames, assets], set
    """
    for k in range(time_ns.shape[0]):
        for a in range(first.size - 1):
            row_score[k, a] = 0.0
            alarm[k, a] = asset[a, IN_ALARM] > 0.0
            changepoint[k, a] = 0
        for number in ready:
            for pair in range(first_pair[number], first_pair[number + 1]):
                a = asset_of[pair]
                n, begin = first[a + 1] - first[a], first[a]
                if first_ns[a] == 0:
                    first_ns[a] = time_ns[k, number]
                t = (time_ns[k, number] - first_ns[a]) * S_PER_NS
                for turn in range(2):  # a scan that comes again completes the row before, then begins its own
                    if turn == 0 and not is_fresh[pair]:
                        continue
                    if turn == 1:
                        for j in range(begin, begin + n):
                            i = members[j]
                            if start[number] <= i < stop[number]:
                                latest[i] = np.nan if quality[k, i] & BAD else value[k, i]
                        is_fresh[pair] = 1
                        n_fresh[a] += 1
                        if n_fresh[a] < n_scans[a]:
                            continue
                    limits, is_change = advance(
                        t, begin, n, members, latest, meter, departure, is_gone, asset[a], matrices, scratch
                    )
                    if limits != SILENT:
                        row_score[k, a] = max(row_score[k, a], limits / (limits + ALARM))
                        changepoint[k, a] = changepoint[k, a] or is_change
                        alarm[k, a] = asset[a, IN_ALARM] > 0.0
                        blamed[a] = _blame(t, begin, n, members, latest, departure, meter, asset[a], blamed[a])
                    n_fresh[a] = 0
                    for other in range(asset_of.size):
                        if asset_of[other] == a:
                            is_fresh[other] = 0
                i = blamed[a]
                if i >= 0 and start[number] <= i < stop[number] and quality[k, i] & BAD == 0:
                    flags[k, i] |= np.uint16(HEALTH)
                    score[k, i] = max(score[k, i], row_score[k, a])


class Health:
    """The health of the assets of a set of tags.

    score float64[frames, assets], alarm, changepoint uint8[frames, assets]  of the last turn
    """

    name: Final = "health"
    axes: Final[Mapping[str, Axis | None]] = MappingProxyType(
        {"is_fresh": None, "n_fresh": None, "asset": "asset", "first_ns": "asset", "blamed": None}
    )

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        watched = (tags.kind == KINDS.index("gauge")) & ((tags.detect & DETECT_BITS["health"]) != 0)
        members = [np.flatnonzero(watched & (tags.asset == a)) for a in range(tags.n_assets)]
        members = [rows if rows.size > 1 else rows[:0] for rows in members]  # one meter has no others
        sizes = np.array([rows.size for rows in members], np.int64)
        spans = list(zip(tags.scan_start, tags.scan_stop, strict=True))
        self._members = np.concatenate([*members, np.zeros(0, np.int64)]).astype(np.int32)
        self._first = np.cumsum([0, *sizes]).astype(np.int32)
        of_scan = [sorted({int(tags.asset[row]) for row in self._members if a <= row < b}) for a, b in spans]
        self._asset_of = np.array([asset for each in of_scan for asset in each], np.int32)
        self._first_pair = np.cumsum([0, *map(len, of_scan)]).astype(np.int32)
        self._n_scans = np.bincount(self._asset_of, minlength=tags.n_assets).astype(np.int32)
        sides = np.where(sizes <= MAX_MEMBERS, sizes, 0)
        side = int(sides.max(initial=0))
        self._scratch = np.zeros((side, side))
        self._departure, self._is_gone = np.zeros(tags.n), np.zeros(tags.n, np.uint8)
        meter, asset = np.zeros((tags.n, N_METER)), np.zeros((tags.n_assets, N_ASSET))
        meter[:, E] = np.nan
        asset[:, BEGAN], asset[:, LIMITS] = NEVER, 1.0
        self._state: dict[str, NDArray[Any]] = {
            "latest": np.full(tags.n, np.nan),
            "is_fresh": np.zeros(self._asset_of.size, np.uint8),
            "n_fresh": np.zeros(tags.n_assets, np.int32),
            "meter": meter,
            "asset": asset,
            "matrices": np.zeros((tags.n, side)),
            "first_ns": np.zeros(tags.n_assets, np.int64),
            "blamed": np.full(tags.n_assets, NOBODY, np.int32),
        }
        self._size(1)

    def _size(self, frames: int) -> None:
        shape = (frames, self._tags.n_assets)
        self.score, self.alarm, self.changepoint = np.zeros(shape), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)

    def update(self, turn: Turn) -> None:
        """Advance by the frames of a turn; see `step`."""
        if len(turn.value) > len(self.score):
            self._size(len(turn.value))
        if not self._members.size:
            return
        t, s = self._tags, self._state
        step(
            turn.ready, t.scan_start, t.scan_stop, self._first_pair, self._asset_of, self._n_scans, self._members,
            self._first, turn.time_ns, turn.value, turn.quality,
            s["latest"], s["is_fresh"], s["n_fresh"], s["meter"], self._departure, self._is_gone, s["asset"],
            s["matrices"], self._scratch, s["first_ns"], s["blamed"],
            turn.flags, turn.score, self.score, self.alarm, self.changepoint,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return self._state
