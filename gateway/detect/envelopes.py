"""Envelopes: the lowest and highest value that a tag has shown in one situation, for each of the situations.

They lie by row, the tags of a scan side by side: what a row is asked or taught, it is for all of them in one loop
without branches. Those of the cells differ from tag to tag, and are fetched one by one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from drivers.jit import kernel

HOURS: Final = 24  # bins of a day: schedules run on the clock's hour
HALF_HOURS: Final = HOURS // 2  # of half a day
HALVES: Final = 14  # of the days of a week: finer ones would be seen too seldom, and hold too much
CELLS: Final = 16  # of what came before; the first and last are open
NEAR: Final = 2  # cells to each side that count as the same situation
FORGET: Final = 0.001  # of its width an envelope shrinks a day: half in 693 days; winters are remembered

# Rows of float32[N_ENVELOPES, n]: for both hour terms those of now and the copies, then the cells, then the week.
OF_LEVEL: Final = 0
OF_DAY: Final = 2 * HOURS
OF_STEP: Final = 4 * HOURS
OF_TREND: Final = OF_STEP + CELLS
OF_WEEK: Final = OF_TREND + CELLS
# And all that ever was: of the value, of that less the mean of a day, of the mean of half an hour; the value's at the
# end of the day before yesterday, or yesterday, and of the last day; and of the half of a day that goes on.
EVER, EVER_OF_DAY, EVER_OF_TREND, KNOWN, NEXT, OF_HALF_DAY = range(OF_WEEK + HALVES, OF_WEEK + HALVES + 6)
N_ENVELOPES: Final = OF_WEEK + HALVES + 6


@kernel("void(i8, i8, f4[::1], f4[::1], f8[::1], u1[::1], u1)", noalias=True, inner=True)
def teach(a, b, low, high, y, mask, bit):
    """Widen a row of envelopes so that each holds y, of the tags whose mask has the bit."""
    for row in range(a, b):
        i = np.uintp(row)  # an index that cannot be negative: else no vectors
        is_taught = (mask[i] & bit) != 0
        y4, was_low, was_high = np.float32(y[i]), low[i], high[i]
        low[i] = y4 if is_taught & (y4 < was_low) else was_low
        high[i] = y4 if is_taught & (y4 > was_high) else was_high


@kernel("void(i8, i8, f4[::1], f4[::1], u1[::1], u1)", noalias=True, inner=True)
def _forget(a, b, low, high, mask, bit):
    """Let a row of envelopes shrink by a day's share of their width, of the tags whose mask has the bit."""
    for row in range(a, b):
        i = np.uintp(row)
        was_low, was_high = low[i], high[i]
        shrinks = ((mask[i] & bit) != 0) & (was_high > was_low)
        half = np.float32(0.5 * FORGET) * (was_high - was_low)
        low[i] = was_low + half if shrinks else was_low
        high[i] = was_high - half if shrinks else was_high


@kernel("void(i8, i8, f4[::1], f4[::1], f4[::1], f4[::1], u1[::1], u1)", noalias=True, inner=True)
def _copy(a, b, from_low, from_high, low, high, mask, bit):
    """Let a row of envelopes be like another one, of the tags whose mask has the bit."""
    for row in range(a, b):
        i = np.uintp(row)
        is_copied = (mask[i] & bit) != 0
        least, most, was_low, was_high = from_low[i], from_high[i], low[i], high[i]
        low[i] = least if is_copied else was_low
        high[i] = most if is_copied else was_high


@kernel("void(i8, i8, i8, f4[:, ::1], f4[:, ::1], u1[::1], u1)", inner=True)
def turn_hour(a, b, hour, low, high, mask, bit):
    """Let the copies of the hour twelve hours away be those of now."""
    opposite = hour + HALF_HOURS if hour < HALF_HOURS else hour - HALF_HOURS
    for first in (OF_LEVEL, OF_DAY):
        now = first + opposite
        _forget(a, b, low[now], high[now], mask, bit)
        _copy(a, b, low[now], high[now], low[now + HOURS], high[now + HOURS], mask, bit)


@kernel("void(i8, i8, f4[:, ::1], f4[:, ::1], u1[::1], u1)", inner=True)
def turn_day(a, b, low, high, mask, bit):
    """Let all that is not of an hour forget a day's share; what was known at the end of the day before is known."""
    _copy(a, b, low[NEXT], high[NEXT], low[KNOWN], high[KNOWN], mask, bit)
    _copy(a, b, low[EVER], high[EVER], low[NEXT], high[NEXT], mask, bit)
    for row in range(OF_STEP, KNOWN):
        _forget(a, b, low[row], high[row], mask, bit)


@kernel("void(i8, i8, f4[:, ::1], f4[:, ::1])", inner=True)
def turn_half(i, over, low, high):
    """Let the half of a day that is over, -1 for none, learn of tag i what was seen in it; another one begins."""
    if over >= 0:
        row = OF_WEEK + over
        low[row, i] = min(low[row, i], low[OF_HALF_DAY, i])
        high[row, i] = max(high[row, i], high[OF_HALF_DAY, i])
    low[OF_HALF_DAY, i], high[OF_HALF_DAY, i] = np.inf, -np.inf


@kernel("void(i8, i8, i8, f4[:, ::1], f4[:, ::1], i4[::1], f4[::1], f4[::1])", noalias=True, inner=True)
def recall(a, b, first, low, high, cell, near_low, near_high):
    """Set the envelope of each tag's cell and of those beside it together; first: row of the first cell."""
    for row in range(a, b):
        i, c = np.uintp(row), cell[np.uintp(row)]
        least, most = np.float32(np.inf), np.float32(-np.inf)
        for away in range(-NEAR, NEAR + 1):
            r = np.uintp(first + min(max(c + away, 0), CELLS - 1))
            least = min(least, low[r, i])
            most = max(most, high[r, i])
        near_low[i], near_high[i] = least, most


@kernel("void(i8, i8, i8, f4[:, ::1], f4[:, ::1], i4[::1], f8[::1], u1[::1], u1)", noalias=True, inner=True)
def teach_cells(a, b, first, low, high, cell, y, mask, bit):
    """Widen the envelope of each tag's cell so that it holds y, of the tags whose mask has the bit."""
    for row in range(a, b):
        i = np.uintp(row)
        if mask[i] & bit:
            r, y4 = np.uintp(first + cell[i]), np.float32(y[i])
            low[r, i] = min(low[r, i], y4)
            high[r, i] = max(high[r, i], y4)


@kernel("b1(i8, f4, f4[:, ::1], f4[:, ::1])", inner=True)
def is_usual_elsewhere(i, y, low, high):
    """Return whether at least half of the halves of a week have seen tag i at y."""
    n_know = 0
    for row in range(OF_WEEK, OF_WEEK + HALVES):
        n_know += low[row, i] <= y <= high[row, i]
    return 2 * n_know >= HALVES


@kernel("f8(i8, f4[::1], f4[::1])", inner=True)
def span(i, low, high):
    """Return how wide the envelope of a tag in a row is; 0 where there is none."""
    return max(np.float64(high[i]) - np.float64(low[i]), 0.0)
