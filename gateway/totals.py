"""Counters: what may be booked. A sample that no counter can show is read again at once, and counts if it was true.

One zero or one spike in a meter's register books energy that never was, for ever. So each sample of a counter is held
against the last one that counted. It may be higher by what the counter can rise in that time (`max_rate`; where nobody
has said one, far beyond any pace it ever had). Everything else is doubted: the poller reads the same registers again
before the frame is finished. A second sample that goes on from the last one that counted shows the first to have been a
glitch; one that goes on from the first confirms it: a roll-over, a reset or a jump, told by an event. One that does
neither is bad, and the next poll decides. What cannot be read again waits for it too; but no counter is bad for ever:
after some polls the meter is believed.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.points import Point
from drivers.quality import BAD, BAD_DATA_UNAVAILABLE
from gateway.model.clock import NS
from gateway.model.frame import Scan, TagTable

GLITCH: Final = 1  # the doubted sample was none: the value that counts goes on from the last one
ROLLOVER: Final = 2  # it passed its width and began at 0
RESET: Final = 3  # it fell, and stays there: another meter, or set back by hand
JUMP: Final = 4  # it rose faster than it can, and stays there
UNCONFIRMED: Final = 5  # two samples, and neither goes on from what counted before
STALLED: Final = 6  # it stands still although it is counted into, see estimate.py
REASONS: Final = {
    GLITCH: "CounterGlitch",
    ROLLOVER: "CounterRollover",
    RESET: "CounterReset",
    JUMP: "CounterJump",
    STALLED: "CounterStalled",
}

STATE: Final = ("_last", "_last_ns", "_doubted", "_pace", "_seen", "_misses")  # the columns that remember something
S_PER_NS: Final = 1 / NS
RATE_MARGIN: Final = 1.05  # stamps are the middle of a read: an interval is uncertain by a few per cent
PACE_SAMPLES: Final = 3  # intervals before the pace of a counter is known; guessed too low it costs a read
PACE_FACTOR: Final = 100.0  # a load may be that much higher than ever before; a wrong register is higher by far more
PACE_DECAY: Final = 0.999  # of the highest pace per sample: a thousand polls remember it
NEAR_END: Final = 0.9  # of its width: only from there a counter of unknown rate can have rolled over
MEANWHILE: Final = 0.25  # of what it rose since it last counted: more does not happen between two reads of one poll
MAX_MISSES: Final = 5  # polls in a row that go on from nothing: more are no glitch, the meter counts in another way
FLOAT32_STEP: Final = 2.0**-23  # relative: a float32 total shows no smaller rise


@kernel(
    "i8(i4[::1], i4[::1], i4[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], i8[::1], f8[::1], u4[::1], "
    "f8[::1], i8[::1], f8[::1], f8[::1], i4[::1], i4[::1], u1[::1], i4[::1], b1)"
)
def judge(
    ready, first, rows, sign, offset, wrap, max_rate, step, time_ns, value, quality,
    last, last_ns, doubted, pace, seen, misses, verdict, out, is_final,
):  # fmt: skip
    """Judge the counters of the ready scans; returns how many rows were written to `out`.

    ready int32[r]; first int32[scans + 1], rows int32[m]  counters first[s]:first[s + 1] of a scan and their table rows
    sign, offset  float64[m]  what is counted is sign * (value - offset): it begins at 0 and rises
    wrap, max_rate, step  float64[m], value units; wrap 0 where it never rolls over, max_rate NaN where unknown
    time_ns int64[scans]; value float64[n], quality uint32[n]  the samples; a bad one is not judged
    last float64[m] NaN, last_ns int64[m]; doubted float64[m] NaN; pace float64[m]; seen, misses int32[m]  state
    verdict uint8[m], out int32[m]  when final: counters with a verdict; else those that have to be read again
    """
    n = 0
    for k in range(ready.size):
        now = time_ns[ready[k]]
        for j in range(first[ready[k]], first[ready[k] + 1]):
            i = rows[j]
            if quality[i] & BAD:
                doubted[j] = np.nan
                continue
            v = sign[j] * (value[i] - offset[j])
            if np.isnan(last[j]):
                if is_final:
                    last[j], last_ns[j] = v, now
                continue
            rise = v - last[j]
            dt = (now - last_ns[j]) * S_PER_NS
            slack = step[j] + FLOAT32_STEP * abs(v)
            if max_rate[j] == max_rate[j]:
                most = max_rate[j] * dt * RATE_MARGIN + slack
            elif seen[j] >= PACE_SAMPLES:
                most = PACE_FACTOR * (pace[j] * dt + slack)
            else:
                most = np.inf
            kind = 0
            if rise < 0.0:
                beyond = rise + wrap[j]
                is_near = last[j] > NEAR_END * wrap[j] and v < (1.0 - NEAR_END) * wrap[j]
                rolled = beyond <= most if max_rate[j] == max_rate[j] else is_near
                kind = ROLLOVER if wrap[j] > 0.0 and rolled else RESET
            elif rise > most:
                kind = JUMP
            if not is_final:
                if kind:
                    out[n] = i
                    n += 1
                continue
            is_doubted = not np.isnan(doubted[j])
            said = 0
            if kind == JUMP and is_doubted and max_rate[j] != max_rate[j]:
                most = max(most, MEANWHILE * (doubted[j] - last[j]))
            if kind == 0:
                if is_doubted:
                    said = GLITCH
            elif is_doubted and v >= doubted[j] and v - doubted[j] <= most:
                said = kind if kind != JUMP or max_rate[j] == max_rate[j] else 0  # without a rate it was only a guess
            elif misses[j] + 1 >= MAX_MISSES:
                said = kind
            else:
                said = UNCONFIRMED
            if said:
                verdict[j] = said
                out[n] = j
                n += 1
            if said == UNCONFIRMED:
                doubted[j] = v
                misses[j] += 1
                value[i] = np.nan
                quality[i] = BAD_DATA_UNAVAILABLE
                continue
            if rise >= 0.0 and dt > 0.0:
                pace[j] = max(PACE_DECAY * pace[j], rise / dt)
                seen[j] = min(seen[j] + 1, PACE_SAMPLES)
            misses[j] = 0
            doubted[j] = np.nan
            last[j], last_ns[j] = v, now
    return n


class Totals:
    """The counters of a gateway."""

    def __init__(self, table: TagTable) -> None:
        members = [[i for i in range(s.start, s.stop) if table.tags[i].point.kind == "counter"] for s in table.scans]
        self._rows = np.array([i for rows in members for i in rows], np.int32)
        self._first = np.cumsum([0, *map(len, members)]).astype(np.int32)
        points = [table.tags[i].point for i in self._rows]
        m = len(points)
        self._sign = np.array([math.copysign(1.0, p.scale) for p in points], np.float64)
        self._offset = np.array([p.offset for p in points], np.float64)
        self._wrap = np.array([_wrap(point) for point in points], np.float64)
        self._max_rate = np.array([math.nan if p.max_rate is None else p.max_rate for p in points], np.float64)
        self._step = np.ascontiguousarray(table.resolution[self._rows])
        self._last = np.full(m, math.nan)
        self._last_ns = np.zeros(m, np.int64)
        self._doubted = np.full(m, math.nan)
        self._pace = np.zeros(m)
        self._seen = np.zeros(m, np.int32)
        self._misses = np.zeros(m, np.int32)
        self._verdict = np.zeros(m, np.uint8)
        self._out = np.zeros(m, np.int32)

    def take_over(self, before: Totals) -> None:
        """Go on where those of a shorter table are, which this one begins with."""
        for name in STATE:
            column = getattr(before, name)
            getattr(self, name)[: len(column)] = column

    def has(self, scan: Scan) -> bool:
        """Return whether a scan has counters."""
        return bool(self._first[scan.number] != self._first[scan.number + 1])

    def doubtful(
        self,
        ready: NDArray[np.int32],
        time_ns: NDArray[np.int64],
        value: NDArray[np.float64],
        quality: NDArray[np.uint32],
    ) -> NDArray[np.int32]:
        """Return the rows of the ready scans that have to be read again before their frame is finished."""
        n = self._judge(ready, time_ns, value, quality, is_final=False)
        return self._out[:n].copy()

    def doubt(self, rows: NDArray[np.int32], value: NDArray[np.float64]) -> None:
        """Keep the samples of these rows, which are read again: what comes is held against them."""
        for j in np.flatnonzero(np.isin(self._rows, rows)):
            self._doubted[j] = self._sign[j] * (value[self._rows[j]] - self._offset[j])

    def update(
        self,
        ready: NDArray[np.int32],
        time_ns: NDArray[np.int64],
        value: NDArray[np.float64],
        quality: NDArray[np.uint32],
    ) -> list[tuple[int, int]]:
        """Book the ready scans; returns (row, verdict) of what has to be told. What is not confirmed becomes bad."""
        if not self._rows.size:
            return []
        n = self._judge(ready, time_ns, value, quality, is_final=True)
        return [(int(self._rows[j]), int(self._verdict[j])) for j in self._out[:n]]

    def _judge(
        self,
        ready: NDArray[np.int32],
        time_ns: NDArray[np.int64],
        value: NDArray[np.float64],
        quality: NDArray[np.uint32],
        *,
        is_final: bool,
    ) -> int:
        n = judge(
            ready, self._first, self._rows, self._sign, self._offset, self._wrap, self._max_rate, self._step,
            time_ns, value, quality, self._last, self._last_ns, self._doubted, self._pace, self._seen, self._misses,
            self._verdict, self._out, is_final,
        )  # fmt: skip
        return int(n)


def _wrap(point: Point) -> float:
    """Return how far a counter rises before it begins at 0, in value units; 0 if it never does."""
    bits = point.width
    if bits is None and point.type.startswith("uint"):
        bits = 8 if "8_" in point.type else 16 * point.n_registers
    return 0.0 if bits is None else 2.0**bits * abs(point.scale)
