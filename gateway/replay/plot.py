"""Plots of thinned columns over time, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gateway.model.clock import NS

LIMIT_NAMES: Final = ("low_low", "low", "high", "high_high")
WIDTH: Final = 1040  # pixels
LEFT, RIGHT = 64, 12  # of them, for the scale and the last label
AXIS_H: Final = 22
GAP: Final = 4.0  # usual steps between two buckets: a longer one is a gap, over which nothing is drawn
MAX_TICKS: Final = 8
STEPS_S: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200),
    *(86400 * days for days in (1, 2, 4, 7, 14, 28, 56, 91, 182, 365, 730, 1826, 3652, 7305, 36524)),
)  # fmt: skip


def moment(time_ns: int) -> str:
    """Return a time to the second, UTC."""
    return datetime.fromtimestamp(time_ns // NS, UTC).isoformat(" ", "seconds")[:19]


def day_of(day: int) -> str:
    """Return the date of a day since 1970."""
    return moment(day * 86_400 * NS)[:10]


def number(value: float) -> str:
    """Return a number as short as a reader needs it."""
    return f"{value:.5g}"


@dataclass(frozen=True, slots=True)
class Axis:
    """Where times are drawn: start to stop, Unix ns; where they go back, row by row: times int64[n] of the rows."""

    start_ns: int
    stop_ns: int
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of_rows(cls, times: NDArray[np.int64]) -> Self:
        """Return an axis on which every bucket has the same width."""
        return cls(0, max(times.size - 1, 1), times)

    @staticmethod
    def takes(times: NDArray[np.int64]) -> bool:
        """Return whether times can be drawn by their time: they never go back, and do not all stand still."""
        return bool((times[1:] >= times[:-1]).all()) and (times.size == 1 or bool(times[-1] > times[0]))

    def x(self, times: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pixels of a plot's times."""
        if self.rows.size:
            times = np.arange(times.size, dtype=np.int64)
        share = (times.astype(np.float64) - self.start_ns) / max(self.stop_ns - self.start_ns, 1)  # no overflow
        return np.asarray(LEFT + (WIDTH - LEFT - RIGHT) * share)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the pixels of round times, and what to write there."""
        if self.rows.size:
            x = self.x(self.rows)
            shown = sorted({self.rows.size * k // 4 for k in range(4)})
            return [(float(x[k]), moment(int(self.rows[k]))) for k in shown]
        span_s = (self.stop_ns - self.start_ns) / NS
        step = next((step for step in STEPS_S if span_s / step <= MAX_TICKS), STEPS_S[-1])
        first = -(-self.start_ns // (step * NS))
        at = [k * step * NS for k in range(first, self.stop_ns // (step * NS) + 1)][: 2 * MAX_TICKS]
        out: list[tuple[float, str]] = []
        for x, time_ns in zip(self.x(np.array(at, np.float64)).tolist(), at, strict=True):
            text = moment(time_ns)
            is_day = step >= 86400 or text.endswith("00:00:00") or not out
            short = text[11:] if step < 60 else text[11:16]
            out.append((x, text[:10] if step >= 86400 else f"{text[:10]} {short}" if is_day else short))
        return out


@dataclass(frozen=True, slots=True)
class Field:
    """A rectangle of a plot: values low to high over a height in pixels, its upper edge at y = top."""

    axis: Axis
    height: int
    low: float
    high: float
    top: int = 18

    @property
    def bottom(self) -> int:
        """Return the lower edge."""
        return self.top + self.height

    def x(self, count: int, unit_ns: int) -> float:
        """Return the pixel of a time."""
        return float(self.axis.x(np.array([float(count * unit_ns)]))[0])

    def y(self, value: float) -> float:
        """Return the pixel of a value."""
        span = 0.5 * self.high - 0.5 * self.low  # half of it: that of the largest floats is no float
        share = (0.5 * value - 0.5 * self.low) / span if span > 0.0 else 0.5
        return self.bottom - self.height * share

    def grid(self) -> str:
        """Return the lines and labels of the scale, and the lines of the times."""
        right = WIDTH - RIGHT
        parts = []
        for value in (self.low, self.high) if self.high > self.low else (self.low,):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="e" x="{LEFT - 6}" y="{y + 4:.1f}">{_scale(value, self.high - self.low)}</text>')
        for x, _ in self.axis.ticks():
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{self.bottom}"/>')
        return "".join(parts)

    def level(self, value: float, name: str, *, is_above: bool) -> str:
        """Return a dashed line at a value, with its name above or below."""
        y = self.y(value)
        return (
            f'<line class="edge" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="name" x="{LEFT + 4}" y="{y - 4 if is_above else y + 13:.1f}">{escape(name)}</text>'
        )

    def band(
        self, times: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64], good: NDArray[np.bool_]
    ) -> str:
        """Return the values as a band from lowest to highest; open where there is none."""
        x = self.axis.x(times)
        parts = []
        for first, last in runs(good, self._breaks(times)):
            there = " ".join(f"{x[k]:.1f},{self.y(high[k]):.1f}" for k in range(first, last))
            back = " ".join(f"{x[k]:.1f},{self.y(low[k]):.1f}" for k in range(last - 1, first - 1, -1))
            parts.append(f'<polygon class="band" points="{there} {back}"/>')
        return "".join(parts)

    def curve(self, times: NDArray[np.int64], score: NDArray[np.float32]) -> str:
        """Return a score as a curve; what lies on a straight line is left out."""
        x = self.axis.x(times)
        parts = []
        for first, last in runs(np.ones(times.size, np.bool_), self._breaks(times)):
            part = score[first:last]
            same = np.r_[False, (part[1:-1] == part[:-2]) & (part[1:-1] == part[2:]), False][: part.size]
            at = [first + int(k) for k in np.flatnonzero(~same)]
            points = " ".join(f"{x[k]:.1f},{self.y(min(float(score[k]), 1.0)):.1f}" for k in at)
            parts.append(f'<polyline class="score" points="{points}"/>')
        return "".join(parts)

    def lane(self, name: str, times: NDArray[np.int64], is_on: NDArray[np.bool_], y: int) -> str:
        """Return a lane below the plot: its name, and a bar wherever it is so."""
        x = self.axis.x(times)
        ends = np.r_[x[1:], x[-1:]]
        bars = "".join(
            f"M{x[a]:.1f} {y + 8}h{max(ends[b - 1] - x[a], 2):.1f}" for a, b in runs(is_on, self._breaks(times))
        )
        return f'<text class="e" x="{LEFT - 6}" y="{y + 12}">{escape(name)}</text><path class="flag" d="{bars}"/>'

    def svg(self, parts: Iterable[str], label: str, below: int) -> str:
        """Return the picture; below: pixels under this field that other parts take, before the times."""
        y = self.bottom + below
        ticks = self.axis.ticks()
        times = "".join(
            f'<text class="m" x="{min(max(x, LEFT + 30), WIDTH - 60):.1f}" y="{y + 16}">{text}</text>'
            for x, text in ticks
        )
        name = escape(label, quote=True)
        inner = "".join(parts)
        return (
            f'<svg viewBox="0 0 {WIDTH} {y + AXIS_H}" role="img" aria-label="{name}">{inner}'
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>{times}</svg>'
        )

    def _breaks(self, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each bucket whether a gap lies before it."""
        if self.axis.rows.size or times.size < 3:
            return np.zeros(times.size, np.bool_)
        steps = np.diff(times.astype(np.float64))
        return np.concatenate([[False], steps > GAP * max(float(np.median(steps)), 1.0)])


def runs(is_on: NDArray[np.bool_], breaks: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (first, behind the last) of every run of true, none of which goes on over a break."""
    out: list[tuple[int, int]] = []
    edges = np.flatnonzero(np.diff(np.r_[False, is_on, False].astype(np.int8)))
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        out += pairwise([first, *(np.flatnonzero(breaks[first + 1 : last]) + first + 1).tolist(), last])
    return out


def _scale(value: float, span: float) -> str:
    """Return an end of a scale with as many digits as its span asks for."""
    if value.is_integer() and span.is_integer() and abs(value) < 1e7:
        return f"{value:.0f}"
    if not 0.0 < span < 1e7 or not span > 1e-4 or abs(value) >= 1e7:
        return number(value)
    digits = max(2 - math.floor(math.log10(span)), 0)
    return f"{value:.{digits}f}"
