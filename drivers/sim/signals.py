"""Seeded signals as functions of time: the same seed and time give the same value, in whatever order they are asked.

All of them take a float64 column of times as well as a time, and then give the column of the same values, see
columns.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import numpy as np

from drivers.sim.columns import COLUMN, Column, cosine, gausses, ramps, smooths, uniforms, whole

Signal = Callable[[float], float]  # Unix seconds -> value; a column of them -> the column of their values
T = TypeVar("T")

DAY_S: Final = 86_400.0
MAX_CELLS: Final = 20_000  # of a grid at once, on the way to a late time
GAUSS_BOUND: Final = 3.47  # |gauss| never exceeds it: a healthy signal has no outliers

_MASK: Final = (1 << 64) - 1
_ROOT3: Final = math.sqrt(3.0)


def key_of(seed: int, *words: object) -> int:
    """Return a 64-bit key for a seed and a name; different names give unrelated signals."""
    text = "/".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _mix(key: int, n: int) -> int:
    """Return 64 random bits for draw n. Source: Steele, Lea, Flood: SplitMix64 (OOPSLA 2014), the finalizer."""
    x = (key + n * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def uniform(key: int, n: int) -> float:
    """Return draw n of a uniform variable, 0 <= u < 1."""
    if type(n) is COLUMN:
        return uniforms(key, n)
    return (_mix(key, n) >> 11) / 9007199254740992.0


def gauss(key: int, n: int) -> float:
    """Return draw n of a nearly normal variable: mean 0, sd 1, bounded by GAUSS_BOUND (a sum of four uniforms)."""
    x = _mix(key, n)
    return (((x & 0xFFFF) + (x >> 16 & 0xFFFF) + (x >> 32 & 0xFFFF) + (x >> 48)) / 65536.0 - 2.0) * _ROOT3


def constant(value: float) -> Signal:
    """Return a signal that stands still."""
    return lambda t: value


def white(key: int) -> Signal:
    """Return instrument noise of sd 1: a fresh draw every millisecond."""

    def at(t: float) -> float:
        if type(t) is COLUMN:
            return gausses(key, whole(t * 1000.0))
        return gauss(key, int(t * 1000.0))

    return at


def smooth(key: int, period_s: float) -> Signal:
    """Return a smooth random signal within -1..1 that finds a new level every period."""
    cell, left, step = -(1 << 62), 0.0, 0.0

    def at(t: float) -> float:
        nonlocal cell, left, step
        if type(t) is COLUMN:
            return smooths(key, period_s, t)
        x = t / period_s
        n = math.floor(x)
        if n != cell:
            left = 2.0 * uniform(key, n) - 1.0
            step = 2.0 * uniform(key, n + 1) - 1.0 - left
            cell = n
        f = x - n
        return left + step * f * f * (3.0 - 2.0 * f)

    return at


def wander(key: int, period_s: float) -> Signal:
    """Return process variation within -1..1: slow movement with faster, smaller movement on it."""
    slow, middle, fast = (smooth(key + i, period_s / divisor) for i, divisor in enumerate((1.0, 2.7, 7.3)))
    return lambda t: 0.6 * slow(t) + 0.28 * middle(t) + 0.12 * fast(t)


def daily(peak_h: float) -> Signal:
    """Return a cosine over the day (UTC), 1 at the peak hour."""
    return lambda t: cosine(math.tau * (t / DAY_S - peak_h / 24.0))


def cycles(key: int, period_s: float, jitter: float = 0.2) -> Callable[[float], tuple[int, float]]:
    """Return what tells a time's cycle number and the seconds since that cycle began.

    jitter  share of the period by which a beginning may be late
    """

    def at(t: float) -> tuple[int, float]:
        if type(t) is COLUMN:
            n: Any = np.floor(t / period_s).astype(np.int64)
            n -= t < (n + jitter * uniforms(key, n)) * period_s
            return n, t - (n + jitter * uniforms(key, n)) * period_s
        n = math.floor(t / period_s)
        begin = (n + jitter * uniform(key, n)) * period_s
        if t < begin:
            n -= 1
            begin = (n + jitter * uniform(key, n)) * period_s
        return n, t - begin

    return at


def ramp(x: float, rise: float) -> float:
    """Return 0 before 0, 1 after `rise`, and a smooth way between."""
    if type(x) is COLUMN:
        return ramps(x, rise)
    if x <= 0.0:
        return 0.0
    if x >= rise:
        return 1.0
    f = x / rise
    return f * f * (3.0 - 2.0 * f)


def duty(key: int, period_s: float, share: float, edge_s: float = 2.0) -> Signal:
    """Return a duty cycle: near 1 for about `share` of every period, else 0, with edges of `edge_s`."""
    cycle = cycles(key, period_s)

    def at(t: float) -> float:
        n, since = cycle(t)
        on_s = share * period_s * (0.8 + 0.4 * uniform(key ^ 1, n))
        return ramp(since, edge_s) - ramp(since - on_s, edge_s)

    return at


class Shared(Generic[T]):
    """A function of time whose last result is kept, so that all points of one read share one evaluation."""

    __slots__ = ("_function", "_t", "_value")

    def __init__(self, function: Callable[[float], T]) -> None:
        self._function = function
        self._t: Any = math.nan
        self._value: T | None = None

    def __call__(self, t: float) -> T:
        """Return the function's value at t."""
        if t is not self._t and (type(t) is COLUMN or type(self._t) is COLUMN or t != self._t):
            self._value = self._function(t)
            self._t = t
        return self._value  # type: ignore[return-value]


class _Grid:
    """What goes on from cell to cell of a fixed grid of time, and begins again for a time before the present cell."""

    __slots__ = ("_cell", "_origin_s", "_step_s")

    _cell: int
    _origin_s: float
    _step_s: float

    def _rewind(self) -> None:
        raise NotImplementedError

    def _walk(self, last: int) -> Any:
        raise NotImplementedError

    def _reach(self, t: Any) -> tuple[Any, Any, int]:
        """Go to the cell of the first of these times; return the cells from there on, the parts of them, the last."""
        x = np.maximum(0.0, (t - self._origin_s) / self._step_s)
        cell = x.astype(np.int64)
        first, last = int(cell.min()), int(cell.max())
        if self._cell > first:
            self._rewind()
        while self._cell + MAX_CELLS < first:
            self._walk(self._cell + MAX_CELLS)
        self._walk(first)
        return cell - first, x - cell, last


class Integral(_Grid):
    """The time integral of several rates since the origin, on a fixed grid: repeatable, and monotone for rates >= 0."""

    __slots__ = ("_rates", "_slope", "_total")

    def __init__(self, rates: Callable[[float], tuple[float, ...]], origin_s: float, step_s: float = 1.0) -> None:
        self._rates = rates
        self._origin_s = origin_s
        self._step_s = step_s
        self._rewind()

    def _rewind(self) -> None:
        self._cell = 0
        self._slope = self._rates(self._origin_s + 0.5 * self._step_s)
        self._total = [0.0] * len(self._slope)

    def __call__(self, t: float) -> tuple[float, ...]:
        """Return the integrals at t (unit of the rate times seconds); 0 before the origin."""
        if type(t) is COLUMN:
            return self._column(t)
        x = max(0.0, (t - self._origin_s) / self._step_s)
        cell = int(x)
        if cell < self._cell:
            self._rewind()
        while self._cell < cell:
            for i, rate in enumerate(self._slope):
                self._total[i] += rate * self._step_s
            self._cell += 1
            self._slope = self._rates(self._origin_s + (self._cell + 0.5) * self._step_s)
        part = (x - cell) * self._step_s
        return tuple(total + rate * part for total, rate in zip(self._total, self._slope, strict=True))

    def _column(self, t: Any) -> tuple[Any, ...]:
        """Return the integrals at each time: the same sums in the same order, from the cell of the first time on."""
        cell, parts, last = self._reach(t)
        parts *= self._step_s
        totals, slopes = self._walk(last)
        return tuple(total[cell] + slope[cell] * parts for total, slope in zip(totals, slopes, strict=True))

    def _walk(self, last: int) -> tuple[list[Column], list[Column]]:
        """Go on to a cell; return the totals and slopes of it and every cell passed, the present one first."""
        cells = np.arange(self._cell, last + 1)
        rates = self._rates(self._origin_s + (cells + 0.5) * self._step_s)  # type: ignore[arg-type]
        slopes = [np.broadcast_to(np.asarray(rate, np.float64), cells.shape) for rate in rates]
        totals = []
        for i, slope in enumerate(slopes):
            steps = slope * self._step_s
            totals.append(np.add.accumulate(np.concatenate(([self._total[i]], steps[:-1]))))
        self._cell, self._total = last, [float(total[-1]) for total in totals]
        self._slope = tuple(float(slope[-1]) for slope in slopes)
        return totals, slopes


class Lag(_Grid):
    """A first-order lag (thermal mass) behind a signal, on a fixed grid; in balance with `start` at the origin."""

    __slots__ = ("_alpha", "_next", "_signal", "_start", "_value")

    def __init__(self, signal: Signal, tau_s: float, origin_s: float, start: float, step_s: float = 10.0) -> None:
        self._signal = signal
        self._alpha = -math.expm1(-step_s / tau_s)
        self._origin_s = origin_s
        self._step_s = step_s
        self._start = start
        self._rewind()

    def _rewind(self) -> None:
        self._cell = 0
        self._value = self._start
        self._next = self._after(0, self._start)

    def _after(self, cell: int, value: float) -> float:
        return value + self._alpha * (self._signal(self._origin_s + (cell + 0.5) * self._step_s) - value)

    def __call__(self, t: float) -> float:
        """Return the lagged value at t."""
        if type(t) is COLUMN:
            return self._column(t)
        x = max(0.0, (t - self._origin_s) / self._step_s)
        cell = int(x)
        if cell < self._cell:
            self._rewind()
        while self._cell < cell:
            self._cell += 1
            self._value = self._next
            self._next = self._after(self._cell, self._value)
        return self._value + (self._next - self._value) * (x - cell)

    def _column(self, t: Any) -> Any:
        """Return the lagged value at each time: the same steps, from the cell of the first time on."""
        cell, parts, last = self._reach(t)
        values = np.array(self._walk(last))
        return values[cell] + (values[cell + 1] - values[cell]) * parts

    def _walk(self, last: int) -> list[float]:
        """Go on to a cell; return the value of the present one, of every cell passed and of the one after the last."""
        ahead = np.arange(self._cell + 1, last + 1)
        signal = self._signal(self._origin_s + (ahead + 0.5) * self._step_s)  # type: ignore[arg-type]
        values, value = [self._value, self._next], self._next
        for level in np.broadcast_to(np.asarray(signal, np.float64), ahead.shape).tolist():
            value += self._alpha * (level - value)
            values.append(value)
        self._cell = last
        self._value, self._next = values[-2:]
        return values
