"""Float32 totals beyond their resolution: between two steps of the register the value goes on by the total's rate.

A register that rounds to nearest says that the true total lies within half a step of it, and at the moment of a step
that it lies midway between both numbers. So a step fixes the total but for what came since the poll before, and from
there the integral of the rate carries it. Published is always a number that rounds to what the meter shows, and it
falls only where that falls. A meter that truncates cannot be told from one that rounds: its true total lies up to one
step above what it shows, and the estimate is half a step low throughout; its rises are right all the same.

Everything here is in units of the register, as the meter has them before scale and offset: there a counter only rises.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD, GOOD, UNCERTAIN_SENSOR_NOT_ACCURATE
from gateway.model.clock import NS
from gateway.model.frame import TagTable
from gateway.totals import STALLED

STATE: Final = (  # the columns that remember something
    *("_rate", "_rate_ns", "_is_lost", "_shown", "_area", "_before", "_total", "_published", "_is_stalled"),
)
S_PER_NS: Final = 1 / NS
FLOAT32_BITS: Final = 24  # IEEE 754 binary32: digits of the significand, the hidden one included
RESOLVED: Final = 2.0**FLOAT32_BITS  # below it a float32 tells one unit from the next
FINENESS: Final = 64.0  # parts of a step in which an estimate is told: finer ones are digits to store, and not known
STALLED_STEPS: Final = 2.0  # one step may be due in this moment, and one more the integral may be wrong
STALE_PERIODS: Final = 3.0  # as on the screens: a value that is older stands for nothing
MIN_PERIOD_S: Final = 1.0  # a scan with period 0 is read as fast as the device answers, at times not that fast
NEVER_NS: Final = -(2**62)  # older than any bound, and no interval to it overflows


@kernel("UniTuple(f8, 2)(f8)")
def rounding(x):
    """Return the numbers midway to the float32s below and above x, a float32: all between them rounds to x."""
    mantissa, exponent = math.frexp(abs(x))
    outward = math.ldexp(0.5, exponent - FLOAT32_BITS)
    inward = 0.5 * outward if mantissa == 0.5 else outward  # the float32s below a power of two are twice as dense
    return (x - inward, x + outward) if x >= 0.0 else (x - outward, x + inward)


@kernel(
    "i8(i4[::1], i4[::1], i4[::1], i4[::1], i4[::1], i4[::1], f8[::1], f8[::1], f8[::1], f8[::1], i8[::1], "
    "i8[::1], f8[::1], u4[::1], "
    "f8[::1], i8[::1], u1[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], u1[::1], i4[::1])"
)
def estimate(
    ready, first, rows, rate_first, rate_order, rate_rows, scale, divisor, offset, gain, stale_ns,
    time_ns, value, quality,
    rate, rate_ns, is_lost, shown, area, before, total, published, is_stalled, out,
):  # fmt: skip
    """Put estimates in place of the totals of the ready scans; returns how many rows of stalled ones are in `out`.

    ready int32[r]; first int32[scans + 1], rows int32[m]  totals first[s]:first[s + 1] of a scan and their table rows
    rate_first int32[scans + 1], rate_order int32[m]  totals whose rate stands in a scan; rate_rows int32[m], its row
    scale, divisor, offset  float64[n], as decode has them; gain float64[m], register units per second and unit of rate
    stale_ns int64[m]  how long a sample of the rate stands
    time_ns int64[scans], value float64[n], quality uint32[n]  the samples; a total that is not bad becomes uncertain
    rate float64[m], rate_ns int64[m] NEVER_NS, is_lost uint8[m]  state: last good sample, whether a bad one followed
    shown float64[m] NaN  state: what the register showed last; area, the integral of the rate since it stepped
    before float64[m] NaN  state: area at the last sample of the total; NaN where the rate since is not known
    total float64[m] NaN, published float64[m]; is_stalled uint8[m]  state: the estimate, and what was made of it
    """
    n = 0
    for k in range(ready.size):
        s = ready[k]
        now = time_ns[s]
        for p in range(rate_first[s], rate_first[s + 1]):
            j = rate_order[p]
            is_lost[j] = (quality[rate_rows[j]] & BAD) != 0
            if is_lost[j]:
                continue
            r = max(gain[j] * value[rate_rows[j]], 0.0)  # a counter does not fall: the other direction is not its own
            if now - rate_ns[j] <= stale_ns[j]:
                area[j] += 0.5 * (rate[j] + r) * ((now - rate_ns[j]) * S_PER_NS)
            else:
                before[j] = np.nan
            rate[j], rate_ns[j] = r, now
        for j in range(first[s], first[s + 1]):
            i = rows[j]
            if quality[i] & BAD:
                continue
            x = np.float64(np.float32((value[i] - offset[i]) / scale[i] * divisor[i]))
            low, high = rounding(x)
            since = rate[j] * ((now - rate_ns[j]) * S_PER_NS) if now - rate_ns[j] <= stale_ns[j] else np.nan
            reach = np.nan if is_lost[j] else area[j] + since
            if x != shown[j]:
                rise = reach - before[j]
                if not x > shown[j]:  # the first sample, a reset or a roll-over: no step was seen
                    total[j], published[j] = np.nan, -np.inf
                else:
                    total[j] = low + 0.5 * rise if np.isnan(total[j]) else total[j] + rise
                shown[j], is_stalled[j] = x, 0
                area[j] = 0.0 if np.isnan(since) else -since
                reach = before[j] = np.nan if is_lost[j] else area[j] + since
            elif not np.isnan(reach):
                total[j] += reach - before[j]
                before[j] = reach
            if total[j] < low:  # no min and max: they say nothing certain of NaN
                total[j] = low
            elif total[j] > high:
                total[j] = high
            if abs(x) < RESOLVED:
                published[j] = x
                continue
            step = 2.0 * max(high - x, x - low)
            told = np.rint(total[j] / step * FINENESS) / FINENESS * step
            published[j] = max(published[j], x if np.isnan(told) or np.isnan(reach) else told)
            value[i] = published[j] * scale[i] / divisor[i] + offset[i]
            if quality[i] == GOOD:
                quality[i] = UNCERTAIN_SENSOR_NOT_ACCURATE
            if reach > STALLED_STEPS * step and not is_stalled[j]:
                is_stalled[j] = 1
                out[n] = i
                n += 1
    return n


class Estimates:
    """The float32 totals of a gateway whose rate is read too."""

    def __init__(self, table: TagTable) -> None:
        row_of = {(int(table.device_of[i]), tag.name): i for i, tag in enumerate(table.tags)}
        pairs = [
            (i, rate)
            for i, tag in enumerate(table.tags)
            if tag.point.rate and (rate := row_of.get((int(table.device_of[i]), tag.point.rate))) is not None
        ]
        m, n_scans = len(pairs), len(table.scans)
        self._table = table
        self._rows = np.array([i for i, _ in pairs], np.int32)
        self._rate_rows = np.array([i for _, i in pairs], np.int32)
        rate_scan = table.scan_of[self._rate_rows]
        self._rate_order = np.argsort(rate_scan, kind="stable").astype(np.int32)
        self._first = np.searchsorted(table.scan_of[self._rows], np.arange(n_scans + 1)).astype(np.int32)
        self._rate_first = np.searchsorted(np.sort(rate_scan), np.arange(n_scans + 1)).astype(np.int32)
        points = [table.tags[i].point for i in self._rows]
        self._gain = np.array([1.0 / (p.scale * (p.rate_s or math.nan)) for p in points], np.float64)
        periods = [max(MIN_PERIOD_S, table.scans[number].period_s) for number in rate_scan]
        self._stale_ns = np.array([STALE_PERIODS * period_s * NS for period_s in periods], np.int64)
        self._rate, self._rate_ns, self._is_lost = np.zeros(m), np.full(m, NEVER_NS), np.zeros(m, np.uint8)
        self._shown, self._area, self._before = np.full(m, math.nan), np.zeros(m), np.full(m, math.nan)
        self._total, self._published = np.full(m, math.nan), np.zeros(m)
        self._is_stalled, self._out = np.zeros(m, np.uint8), np.zeros(m, np.int32)

    def take_over(self, before: Estimates) -> None:
        """Go on where those of a shorter table are, which this one begins with."""
        for name in STATE:
            column = getattr(before, name)
            getattr(self, name)[: len(column)] = column

    def update(
        self,
        ready: NDArray[np.int32],
        time_ns: NDArray[np.int64],
        value: NDArray[np.float64],
        quality: NDArray[np.uint32],
    ) -> list[tuple[int, int]]:
        """Put estimates in place of the ready scans' totals; returns (row, STALLED) of those that count no more."""
        if not self._rows.size:
            return []
        columns = self._table.decode
        n = estimate(
            ready, self._first, self._rows, self._rate_first, self._rate_order, self._rate_rows,
            columns.scale, columns.divisor, columns.offset, self._gain, self._stale_ns, time_ns, value, quality,
            self._rate, self._rate_ns, self._is_lost, self._shown, self._area, self._before, self._total,
            self._published, self._is_stalled, self._out,
        )  # fmt: skip
        return [(int(i), STALLED) for i in self._out[:n]]
