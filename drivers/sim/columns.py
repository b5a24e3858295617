"""Arithmetic for a time and for a column of times: what operators do not say, exact to the last bit in both.

A signal is written once, for a float. Called with a float64 column of times it gives the column of its values:
operators, these functions and those of signals.py do both. Where NumPy may round otherwise than the C library (cosine,
power, hypotenuse, arc tangent), a column goes through the same function as a float, value by value. Annotations say
float for both: whoever writes a signal need not think of columns.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
COLUMN: Final[Any] = np.ndarray  # Any: to the type checker a column passes for a float

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_LOW: Final = np.uint64(0xFFFF)
_ROOT3: Final = math.sqrt(3.0)


def _mixed(key: int, n: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return 64 random bits for each draw; the column of `signals._mix`."""
    x = n.astype(np.uint64) * _GOLDEN
    x += np.uint64(key & 0xFFFF_FFFF_FFFF_FFFF)
    x ^= x >> np.uint64(30)
    x *= _FIRST
    x ^= x >> np.uint64(27)
    x *= _SECOND
    x ^= x >> np.uint64(31)
    return x


def uniforms(key: int, n: Any) -> Any:
    """Return the draws n of `signals.uniform`, float64[n]; many draws of few numbers cost little."""
    if n.size and (n_cells := int(n.max()) - (first := int(n.min())) + 1) < n.size:
        return uniforms(key, np.arange(first, first + n_cells))[n - first]
    return (_mixed(key, n) >> np.uint64(11)) / 9007199254740992.0


def gausses(key: int, n: Any) -> Any:
    """Return the draws n of `signals.gauss`, float64[n]."""
    x = _mixed(key, n)
    total = (x & _LOW) + (x >> np.uint64(16) & _LOW) + (x >> np.uint64(32) & _LOW) + (x >> np.uint64(48))
    return (total / 65536.0 - 2.0) * _ROOT3


def smooths(key: int, period_s: float, t: Any) -> Any:
    """Return `signals.smooth` at each time, float64[n]."""
    x = t / period_s
    cell = np.floor(x)
    f = x - cell
    n = cell.astype(np.int64)
    if n.size and (n_cells := int(n.max()) - (first := int(n.min())) + 1) < n.size:
        levels = 2.0 * uniforms(key, np.arange(first, first + n_cells + 1)) - 1.0
        n -= first
        left, step = levels[:-1][n], np.diff(levels)[n]
    else:
        left = 2.0 * uniforms(key, n) - 1.0
        step = 2.0 * uniforms(key, n + 1) - 1.0 - left
    step *= f
    step *= f
    f *= 2.0
    np.subtract(3.0, f, out=f)
    step *= f
    step += left
    return step


def ramps(x: Any, rise: float) -> Any:
    """Return `signals.ramp` of each, float64[n]."""
    f = np.clip(x / rise, 0.0, 1.0)
    return f * f * (3.0 - 2.0 * f)


def whole(x: Any) -> int:
    """Return the whole part of numbers that are not negative: int, or int64[n]."""
    return x.astype(np.int64) if type(x) is COLUMN else int(x)


def least(a: float, b: float) -> float:
    """Return the smaller of two."""
    return np.minimum(a, b) if type(a) is COLUMN or type(b) is COLUMN else min(a, b)


def most(a: float, b: float) -> float:
    """Return the larger of two."""
    return np.maximum(a, b) if type(a) is COLUMN or type(b) is COLUMN else max(a, b)


def within(x: float, low: float, high: float) -> float:
    """Return x, but no less than low and no more than high."""
    return np.minimum(np.maximum(x, low), high) if type(x) is COLUMN else min(max(x, low), high)


def pick(is_so: bool, then: float, otherwise: float) -> float:
    """Return one or the other; both have been worked out."""
    if type(is_so) is COLUMN:
        picked: Any = np.where(is_so, then, otherwise)
        return picked
    return then if is_so else otherwise


def root(x: float) -> float:
    """Return the square root."""
    return np.sqrt(x) if type(x) is COLUMN else math.sqrt(x)


def cosine(x: float) -> float:
    """Return the cosine."""
    return _each(math.cos, x) if type(x) is COLUMN else math.cos(x)


def power(x: float, exponent: float) -> float:
    """Return x to the power."""
    return _each(lambda value: value**exponent, x) if type(x) is COLUMN else x**exponent


def hypotenuse(a: float, b: float) -> float:
    """Return the root of the sum of squares."""
    return _each(math.hypot, a, b) if type(a) is COLUMN or type(b) is COLUMN else math.hypot(a, b)


def angle(y: float, x: float) -> float:
    """Return the angle of a point, degrees."""
    if type(y) is COLUMN or type(x) is COLUMN:
        return _each(lambda y, x: math.degrees(math.atan2(y, x)), y, x)
    return math.degrees(math.atan2(y, x))


def _each(function: Any, *columns: Any) -> Any:
    """Return a function of floats at every row."""
    lists = [column.tolist() for column in np.broadcast_arrays(*columns)]
    return np.fromiter(map(function, *lists), np.float64, len(lists[0]))
