"""What a replay would have alarmed, and how often: counted and thinned as it goes, so that memory does not grow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from gateway.detect.flags import NAMES, names
from gateway.detect.tags import Tags
from gateway.replay.judge import Verdicts

WIDTH: Final = 1024  # buckets of a plot: as many as a screen has pixels for it; where they are full two become one
MAX_CELLS: Final = 1 << 22  # buckets of all plots, 14 bytes each; of more tags than 4,096 the plots are coarser
MAX_ALARMS: Final = 2_000  # that are listed; all are counted
LARGEST: Final = 3e38  # that a float32 holds
DAY_NS: Final = 86_400_000_000_000
N_BITS: Final = 16
APART: Final = 8  # buckets between two moments of a column: what is nearer is the same
MAX_OF_COLUMN: Final = 3  # moments of a column that are listed


@kernel(
    "UniTuple(i8, 2)(i8, i8, i8[::1], f8[:, ::1], b1[:, ::1], f8[:, ::1], u2[:, ::1], f8[::1], u1[::1], i8, i8, i8, "
    "i8[::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], u2[:, ::1], f4[:, ::1], u2[::1], i8[:, ::1])",
    nogil=True,
    noalias=True,
)
def thin(
    begin, end, time_ns, value, bad, score, flags, row_score, alarm, k, per, first,
    times, low, high, top, seen, whole, before, edges,
):  # fmt: skip
    """Take rows from `first` into the plots of columns begin to end until a plot or `edges` is full; return (next row,
    edges).

    k, per   the rows that the plot has, and how many go into one bucket
    times int64[w]; low, high, top float32[w, n], seen uint16[w, n]  values, highest score, flags of a bucket
    whole    float32[w, 2], highest score of the row, and whether it was in alarm
    before   uint16[n], flags of the last row;  edges int64[m, 3]  row, column, bit of every flag that rose
    """
    m = 0
    for r in range(first, time_ns.size):
        row = k + r - first
        bucket = row // per
        if bucket >= times.size or m + N_BITS * (end - begin) > edges.shape[0]:
            return r, m
        if row % per == 0:
            times[bucket] = time_ns[r]
        changed = np.uint16(0)
        for j in range(begin, end):
            i = np.uintp(j)  # an index that cannot be negative: else no vectors
            v = np.float32(min(max(value[r, i], -LARGEST), LARGEST))
            a, b, s = low[bucket, i], high[bucket, i], top[bucket, i]
            good = not bad[r, i]
            low[bucket, i] = v if good & (v < a) else a
            high[bucket, i] = v if good & (v > b) else b
            t = np.float32(score[r, i])
            top[bucket, i] = t if t > s else s
            seen[bucket, i] |= flags[r, i]
            changed |= flags[r, i] ^ before[i]
        whole[bucket, 0] = max(whole[bucket, 0], np.float32(row_score[r]))
        whole[bucket, 1] = max(whole[bucket, 1], np.float32(alarm[r]))
        if changed:
            for i in range(begin, end):
                rose = flags[r, i] & ~before[i]
                for bit in range(N_BITS):
                    if rose & np.uint16(1 << bit):
                        edges[m, 0], edges[m, 1], edges[m, 2] = r, i, bit
                        m += 1
                before[i] = flags[r, i]
    return time_ns.size, m


@dataclass(slots=True)
class Plot:
    """The rows of a scan, thinned: times int64[w], when each bucket begins; whole float32[w, 2], of the row."""

    times: NDArray[np.int64]
    whole: NDArray[np.float32]
    rows: int = 0
    per: int = 1

    @property
    def width(self) -> int:
        """How many buckets are in use."""
        return -(-self.rows // self.per)

    def halve(self) -> None:
        """Make two buckets one."""
        half = self.times.size // 2
        self.times[:half] = self.times[::2]
        self.whole[:half] = np.maximum(self.whole[::2], self.whole[1::2])
        self.whole[half:] = 0.0
        self.per *= 2


@dataclass(frozen=True, slots=True)
class Peak:
    """A moment at which a column was most unusual: the begin of its bucket, the highest score, the flags near it."""

    time_ns: int
    column: int
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A flag that rose: when, on which column, which."""

    time_ns: int
    column: int
    reason: str


class Summary:
    """Counts and plots of all verdicts of a replay.

    low, high, top float32[w, n], seen uint16[w, n]  values, highest score and flags of the buckets of each column
    counts     of flags that rose, by column and name: what an operator would have got
    anomalies  how often a row's asset went into alarm; its flag stands on the tag that it came from, and counts there
    """

    def __init__(self, names: tuple[str, ...], tags: Tags) -> None:
        self.names = names
        self.tags = tags
        n = tags.n
        width = min(WIDTH, 1 << max((MAX_CELLS // n).bit_length() - 1, 1))
        self.plots = [Plot(np.zeros(width, np.int64), np.zeros((width, 2), np.float32)) for _ in range(tags.n_scans)]
        self.low = np.full((width, n), np.inf, np.float32)
        self.high = np.full((width, n), -np.inf, np.float32)
        self.top = np.zeros((width, n), np.float32)
        self.seen = np.zeros((width, n), np.uint16)
        self.counts: Counter[tuple[int, str]] = Counter()
        self.by_day: Counter[int] = Counter()
        self.alarms: list[Alarm] = []
        self.values = self.rows = self.anomalies = self.changepoints = 0
        self.first_ns = self.last_ns = 0
        self._before = np.zeros(n, np.uint16)
        self._in_alarm = [False] * tags.n_assets
        self._edges = np.zeros((max(4096, 2 * N_BITS * n), 3), np.int64)

    @property
    def days(self) -> float:
        """How long the source is, days; at least one, so that a rate of a short one is not blown up."""
        return max((self.last_ns - self.first_ns) / DAY_NS, 1.0)

    def peaks(self, most: int) -> list[Peak]:
        """Return the most unusual moments, highest score first; of a column at most three, some buckets apart."""
        found: list[tuple[float, int, int, int]] = []
        starts, stops = self.tags.scan_start.tolist(), self.tags.scan_stop.tolist()
        for number, (begin, end) in enumerate(zip(starts, stops, strict=True)):
            top = self.top[: self.plots[number].width, begin:end].copy()
            columns = np.arange(end - begin)
            for _ in range(MAX_OF_COLUMN if len(top) else 0):
                rows = top.argmax(axis=0)
                score = top[rows, columns]
                of_most = np.argsort(-score, kind="stable")[:most]
                found += [(-float(score[c]), begin + int(c), int(rows[c]), number) for c in of_most if score[c] > 0.0]
                for away in range(-APART, APART + 1):
                    top[np.clip(rows + away, 0, len(top) - 1), columns] = 0.0
        return [self._peak(*one) for one in sorted(found)[:most]]

    def _peak(self, minus: float, column: int, row: int, number: int) -> Peak:
        near = self.seen[max(row - APART, 0) : min(row + APART + 1, self.plots[number].width), column]
        return Peak(int(self.plots[number].times[row]), column, -minus, tuple(names(int(np.bitwise_or.reduce(near)))))

    def add(
        self, scan: int, time_ns: NDArray[np.int64], value: NDArray[np.float64], bad: NDArray[np.bool_], found: Verdicts
    ) -> None:
        """Take rows of a scan and what became of them."""
        if not time_ns.size:
            return
        first, last = int(time_ns.min()), int(time_ns.max())
        self.first_ns = min(self.first_ns, first) if self.rows else first
        self.last_ns = max(self.last_ns, last) if self.rows else last
        begin, end = found.columns
        self.rows += time_ns.size
        self.values += time_ns.size * (end - begin)
        plot, at = self.plots[scan], 0
        while at < time_ns.size:
            after, m = thin(
                begin, end, time_ns, value, bad, found.score, found.flags, found.row_score, found.alarm,
                plot.rows, plot.per, at,
                plot.times, self.low, self.high, self.top, self.seen, plot.whole, self._before, self._edges,
            )  # fmt: skip
            for row, column, bit in self._edges[:m].tolist():
                self._alarm(int(time_ns[row]), column, NAMES[1 << bit])
            plot.rows += after - at
            if plot.rows >= plot.times.size * plot.per:
                self._halve(plot, begin, end)
            at = after
        self._count_rows(found)

    def _alarm(self, time_ns: int, column: int, reason: str) -> None:
        self.counts[column, reason] += 1
        self.by_day[time_ns // DAY_NS] += 1
        if len(self.alarms) < MAX_ALARMS:
            self.alarms.append(Alarm(time_ns, column, reason))

    def _count_rows(self, found: Verdicts) -> None:
        self.changepoints += int(np.count_nonzero(found.changepoint))
        alarm = found.alarm
        self.anomalies += bool(alarm[0]) and not self._in_alarm[found.asset]
        if alarm.size > 1:
            self.anomalies += int(np.count_nonzero(alarm[1:] > alarm[:-1]))
        self._in_alarm[found.asset] = bool(alarm[-1])

    def _halve(self, plot: Plot, begin: int, end: int) -> None:
        half = plot.times.size // 2
        for column, join, rest in (
            (self.low, np.minimum, np.inf), (self.high, np.maximum, -np.inf), (self.top, np.maximum, 0.0),
            (self.seen, np.bitwise_or, 0),
        ):  # fmt: skip
            rows = column[:, begin:end]
            rows[:half] = join(rows[::2], rows[1::2])
            rows[half:] = rest
        plot.halve()
