"""Tables as text: CSV cells to columns and scores back to cells, in kernels, a chunk of lines at a time.

A replay reads and writes far more text than it computes: 5 million values a second leave 200 ns for each on its way in,
through the detectors and out. Numbers are read exactly (Eisel and Lemire); the few that need more than 128 bits are
left to `float`.
Source: Clinger, "How to read floating point numbers accurately", PLDI 1990, for short numbers; Lemire, "Number parsing
at a gigabyte per second", Software: Practice and Experience 51 (2021), section 5; Hinnant, "chrono-Compatible Low-Level
Date Algorithms" (days_from_civil).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel

COMMA, QUOTE, NEWLINE, RETURN = 44, 34, 10, 13
PLUS, MINUS, POINT, ZERO, NINE, SPACE, COLON = 43, 45, 46, 48, 57, 32, 58
LOWER_E, UPPER_E, LOWER_T, UPPER_T, LOWER_Z, UPPER_Z = 101, 69, 116, 84, 122, 90

MAX_DIGITS: Final = 19  # of a number that 64 bits hold
MIN_POWER: Final = -342  # of ten; below and above a float64 is 0 or infinite
MAX_POWER: Final = 308
N_POWERS: Final = MAX_POWER - MIN_POWER + 1

EXACT: Final = 1 << 53  # integers to here, and powers of ten to that one, are float64
MAX_EXACT_POWER: Final = 22
TENS: Final = np.array([10.0**k for k in range(MAX_EXACT_POWER + 1)])

OK: Final = 0  # what came of a chunk; else what is wrong at `line`, `cell` of it
FEW_CELLS: Final = 1
MANY_CELLS: Final = 2
NO_TIME: Final = 3

NUMBER: Final = 0  # what came of a cell
EMPTY: Final = 1
OTHER: Final = 2  # for `float` to say

NS_PER_S: Final = 1_000_000_000
MAX_STAMP_DIGITS: Final = 19  # of integer nanoseconds
FIRST_YEAR, LAST_YEAR = 1678, 2261  # that int64 nanoseconds hold whole, with any offset
TIMES: Final = f"ISO 8601 (2026-11-23T06:00:00Z, {FIRST_YEAR} to {LAST_YEAR}) or integer nanoseconds"
DAYS_OF_MONTH: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

DECIMALS: Final = 15  # of a score
SCALE: Final = 10.0**DECIMALS
SCORE_BYTES: Final = DECIMALS + 3  # of its text, comma included
OUT_BYTES: Final = 1 << 21  # of text at a time
MAX_FLAGS_BYTES: Final = 96  # of all names of flags joined


def _powers() -> NDArray[np.uint64]:
    """Return uint64[N_POWERS, 2]: the highest 128 bits of 5^q, high and low half, truncated (q < 0: rounded up)."""
    out = np.zeros((N_POWERS, 2), np.uint64)
    for k, q in enumerate(range(MIN_POWER, MAX_POWER + 1)):
        if q >= 0:
            power = 5**q
            shift = power.bit_length() - 128
            bits = power >> shift if shift >= 0 else power << -shift
        else:
            below = 5**-q
            bits = (1 << (below.bit_length() + 127)) // below + 1
            bits >>= bits.bit_length() - 128
        out[k] = bits >> 64, bits & 0xFFFF_FFFF_FFFF_FFFF
    return out


POWERS: Final = _powers()


@kernel("UniTuple(u8, 2)(u8, u8)", nogil=True)
def _multiply(a, b):
    """Return the product of two 64-bit numbers as (high, low)."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    low, mid1, mid2, high = a0 * b0, a1 * b0, a0 * b1, a1 * b1
    carry = (low >> half) + (mid1 & mask) + (mid2 & mask)
    return high + (mid1 >> half) + (mid2 >> half) + (carry >> half), (low & mask) | (carry << half)


@kernel("u8(u8, i8, u8[:, ::1])", nogil=True)
def _float_bits(w, q, powers):
    """Return the bits of the float64 nearest to w * 10^q, w not 0; all ones where 128 bits do not tell."""
    unsure = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    if w <= np.uint64(EXACT) and -MAX_EXACT_POWER <= q <= 0:
        return np.float64(np.float64(w) / TENS[-q]).view(np.uint64)  # of two exact numbers: rounded once
    if q < MIN_POWER or q > MAX_POWER:
        return unsure
    lz = np.int64(0)
    for step in (32, 16, 8, 4, 2, 1):
        if w >> np.uint64(64 - step) == 0:
            w <<= np.uint64(step)
            lz += step
    high, low = _multiply(w, powers[q - MIN_POWER, 0])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = _multiply(w, powers[q - MIN_POWER, 1])
        low += more
        if low < more:
            high += np.uint64(1)
        if low == unsure and (q < -27 or q > 55):
            return unsure
    upper = high >> np.uint64(63)
    shift = upper + np.uint64(9)
    m = high >> shift
    power = ((217706 * q) >> 16) + 63 + np.int64(upper) - lz + 1023
    if power <= 0 or power >= 2046:
        return unsure  # subnormal, or close to infinite
    if low <= np.uint64(1) and -4 <= q <= 23 and m & np.uint64(3) == np.uint64(1) and m << shift == high:
        m &= ~np.uint64(1)  # exactly between two: to the even one
    m += m & np.uint64(1)
    m >>= np.uint64(1)
    if m >= np.uint64(1) << np.uint64(53):
        m = np.uint64(1) << np.uint64(52)
        power += 1
    return (m & ~(np.uint64(1) << np.uint64(52))) | (np.uint64(power) << np.uint64(52))


@kernel("Tuple((i8, u8, b1))(u1[::1], i8, i8, u8[:, ::1])", nogil=True)
def _number(text, at, end, powers):
    """Return (NUMBER, EMPTY or OTHER, bits of the value, whether it is negative) of the cell text[at:end]."""
    none = np.uint64(0)
    while at < end and text[at] == SPACE:
        at += 1
    while at < end and text[end - 1] == SPACE:
        end -= 1
    if at == end:
        return EMPTY, none, False
    negative = text[at] == MINUS
    if negative or text[at] == PLUS:
        at += 1
    w, digits, q, seen = np.uint64(0), 0, 0, 0
    while at < end and ZERO <= text[at] <= NINE:
        w = w * np.uint64(10) + np.uint64(text[at] - ZERO)
        digits += 1 if digits > 0 or text[at] != ZERO else 0
        seen += 1
        at += 1
    if at < end and text[at] == POINT:
        at += 1
        while at < end and ZERO <= text[at] <= NINE:
            w = w * np.uint64(10) + np.uint64(text[at] - ZERO)
            digits += 1 if digits > 0 or text[at] != ZERO else 0
            seen += 1
            q -= 1
            at += 1
    if seen == 0 or digits > MAX_DIGITS:
        return OTHER, none, False
    if at < end and (text[at] == LOWER_E or text[at] == UPPER_E):
        at += 1
        minus = at < end and text[at] == MINUS
        if at < end and (text[at] == MINUS or text[at] == PLUS):
            at += 1
        e, n = 0, 0
        while at < end and ZERO <= text[at] <= NINE and n < 5:
            e = 10 * e + np.int64(text[at] - ZERO)
            n += 1
            at += 1
        if n == 0:
            return OTHER, none, False
        q += -e if minus else e
    if at != end:
        return OTHER, none, False
    if w == 0:
        return NUMBER, none, negative
    bits = _float_bits(w, q, powers)
    if bits == np.uint64(0xFFFF_FFFF_FFFF_FFFF):
        return OTHER, none, False
    return NUMBER, bits, negative


@kernel("Tuple((b1, u8, i8))(u1[::1], i8, u8[:, ::1])", nogil=True)
def _plain_number(text, at, powers):
    """Return (whether it is one, bits, position behind) of a cell [-]digits[.digits] of at most MAX_DIGITS.

    Something that is no digit stands behind it: the line's end, at the latest.
    """
    at = np.uintp(at)
    none, one, ten, zero = np.uint64(0), np.uintp(1), np.uint64(10), np.uint8(ZERO)
    sign = none
    if text[at] == MINUS:
        sign = np.uint64(1) << np.uint64(63)
        at += one
    first, w = at, none
    digit = np.uint8(text[at] - zero)
    while digit <= 9:
        w = w * ten + np.uint64(digit)
        at += one
        digit = np.uint8(text[at] - zero)
    n = np.int64(at - first)
    q = 0
    if text[at] == POINT:
        at += one
        first = at
        digit = np.uint8(text[at] - zero)
        while digit <= 9:
            w = w * ten + np.uint64(digit)
            at += one
            digit = np.uint8(text[at] - zero)
        q = -np.int64(at - first)
        n -= q
    behind = text[at]
    if n == 0 or n > MAX_DIGITS or (behind != COMMA and behind != NEWLINE and behind != RETURN):
        return False, none, np.int64(at)
    bits = _float_bits(w, q, powers) if w != none else none
    return bits != np.uint64(0xFFFF_FFFF_FFFF_FFFF), bits | sign, np.int64(at)


@kernel("UniTuple(i8, 2)(u1[::1], i8, i8, i8)", nogil=True)
def _digits(text, at, end, n):
    """Return (value, position behind) of exactly n digits; value -1 where there are none."""
    if at + n > end:
        return -1, at
    value = np.int64(0)
    for j in range(at, at + n):
        if not ZERO <= text[j] <= NINE:
            return -1, at
        value = 10 * value + np.int64(text[j] - ZERO)
    return value, at + n


@kernel("Tuple((b1, i8))(u1[::1], i8, i8)", nogil=True)
def _stamp(text, at, end):
    """Return (whether it is a time, Unix ns) of text[at:end]: integer ns, or ISO 8601, UTC without an offset."""
    while at < end and text[at] == SPACE:
        at += 1
    while at < end and text[end - 1] == SPACE:
        end -= 1
    begin = at + 1 if at < end and text[at] == MINUS else at
    j = begin
    while j < end and ZERO <= text[j] <= NINE:
        j += 1
    if j == end:
        if not 0 < end - begin <= MAX_STAMP_DIGITS:
            return False, 0
        value = np.int64(0)
        for k in range(begin, end):
            value = 10 * value + np.int64(text[k] - ZERO)
        return value >= 0, -value if begin > at else value  # 19 digits beyond int64 have become negative
    year, at = _digits(text, at, end, 4)
    if not FIRST_YEAR <= year <= LAST_YEAR or at >= end or text[at] != MINUS:
        return False, 0
    month, at = _digits(text, at + 1, end, 2)
    if not 1 <= month <= 12 or at >= end or text[at] != MINUS:
        return False, 0
    day, at = _digits(text, at + 1, end, 2)
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= day <= DAYS_OF_MONTH[month - 1] + (1 if is_leap and month == 2 else 0):
        return False, 0
    y = year - 1 if month <= 2 else year
    era = y // 400
    yoe = y - era * 400
    doy = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468
    ns = days * 86400 * NS_PER_S
    if at == end:
        return True, ns
    if text[at] != SPACE and text[at] != UPPER_T and text[at] != LOWER_T:
        return False, 0
    hour, at = _digits(text, at + 1, end, 2)
    if not 0 <= hour <= 23 or at >= end or text[at] != COLON:
        return False, 0
    minute, at = _digits(text, at + 1, end, 2)
    if not 0 <= minute <= 59:
        return False, 0
    ns += (hour * 3600 + minute * 60) * NS_PER_S
    if at < end and text[at] == COLON:
        second, at = _digits(text, at + 1, end, 2)
        if not 0 <= second <= 59:
            return False, 0
        ns += second * NS_PER_S
        if at < end and (text[at] == POINT or text[at] == COMMA):
            at += 1
            weight = NS_PER_S // 10
            first = at
            while at < end and ZERO <= text[at] <= NINE:
                ns += np.int64(text[at] - ZERO) * weight
                weight //= 10
                at += 1
            if at == first:
                return False, 0
    if at == end:
        return True, ns
    if text[at] == UPPER_Z or text[at] == LOWER_Z:
        return at + 1 == end, ns
    if text[at] != PLUS and text[at] != MINUS:
        return False, 0
    sign = -1 if text[at] == PLUS else 1
    hour, at = _digits(text, at + 1, end, 2)
    if not 0 <= hour <= 23:
        return False, 0
    minute = np.int64(0)
    if at < end:
        at = at + 1 if text[at] == COLON else at
        minute, at = _digits(text, at, end, 2)
        if not 0 <= minute <= 59:
            return False, 0
    return at == end, ns + sign * (hour * 3600 + minute * 60) * NS_PER_S


@kernel("i8(u1[::1], i8)", nogil=True)
def _line_end(text, at):
    """Return the position behind the newline at or after `at`."""
    while text[at] != NEWLINE:
        at += 1
    return at + 1


@kernel("i8(u1[::1], i8)", nogil=True)
def last_line_end(text, end):
    """Return the position behind the last newline of text[:end]; 0 where there is none."""
    while end > 0 and text[end - 1] != NEWLINE:
        end -= 1
    return end


@kernel(
    "UniTuple(i8, 6)(u1[::1], i8, i8, i8, i8, u8[:, ::1], i8[::1], i8[:, ::1], u8[:, ::1], u1[:, ::1], i8[:, ::1])",
    nogil=True,
)
def read_lines(text, at, end, n_cells, time_cell, powers, time_ns, stamp, bits, empty, other):
    """Read lines of text[at:end], every one whole with its newline, until there is no room; returns
    (rows, position behind them, lines, cells for `float`, OK or what is wrong, cell of it). What is wrong is in the
    last line before that position, which counts as none.

    time_ns  int64[r]; stamp int64[r, 2]  where the time's own text begins and ends, quotes and all
    bits     uint64[r, n], of the float64 of each cell; empty uint8[r, n], 1 where it has none
    other    int64[m, 4]  line, column, begin and end of cells for `float`; full: the chunk ends before that line
    Cells may stand in double quotes, which end on their line; a line of nothing is not a row.
    """
    n = np.int64(0)
    m = np.int64(0)
    lines = np.int64(0)
    cells_from = n_cells if n_cells > 1 else 1
    while at < end and n < time_ns.size and m + cells_from <= other.shape[0]:
        if text[at] == NEWLINE or (text[at] == RETURN and text[at + 1] == NEWLINE):
            at += 1 if text[at] == NEWLINE else 2
            lines += 1
            continue
        column = 0
        cell = 0
        is_last = False
        while not is_last:
            if cell != time_cell and cell < n_cells:
                is_plain, value, behind = _plain_number(text, at, powers)
                if is_plain and text[behind] != RETURN:
                    bits[n, column] = value
                    empty[n, column] = 0
                    column += 1
                    cell += 1
                    is_last = text[behind] == NEWLINE
                    at = behind + 1
                    continue
            first = at
            is_quoted = text[at] == QUOTE
            if is_quoted:
                at += 1
                while text[at] != QUOTE and text[at] != NEWLINE:
                    at += 1
                at += 1 if text[at] == QUOTE else 0
            while text[at] != COMMA and text[at] != NEWLINE:
                at += 1
            is_last = text[at] == NEWLINE
            last = at - 1 if is_last and at > first and text[at - 1] == RETURN else at
            begin, stop = first, last
            if is_quoted and last - first > 1 and text[last - 1] == QUOTE:
                begin, stop = first + 1, last - 1  # what is more than quotes around a cell is for `float` to refuse
            at += 1
            if cell >= n_cells:
                return n, _line_end(text, at - 1), lines, m, MANY_CELLS, cell
            if cell == time_cell:
                stamp[n, 0], stamp[n, 1] = first, last
                is_time, time_ns[n] = _stamp(text, begin, stop)
                if not is_time:
                    return n, _line_end(text, at - 1), lines, m, NO_TIME, cell
            else:
                kind, value, negative = _number(text, begin, stop, powers)
                bits[n, column] = value | (np.uint64(1) << np.uint64(63)) if negative else value
                empty[n, column] = kind != NUMBER
                if kind == OTHER:
                    other[m, 0], other[m, 1], other[m, 2], other[m, 3] = n, column, begin, stop
                    m += 1
                column += 1
            cell += 1
        if cell < n_cells:
            return n, at, lines, m, FEW_CELLS, cell
        n += 1
        lines += 1
    return n, at, lines, m, OK, 0


@kernel("i8(f8, u1[::1], i8)", nogil=True)
def _put_score(score, out, at):
    """Write a score of 0 to 1 with DECIMALS digits; return the position behind it."""
    r = np.uint64(np.rint(min(score, 1.0) * SCALE)) if score > 0.0 else np.uint64(0)
    if r == 0:
        out[at] = ZERO
        return at + 1
    whole = np.uint64(SCALE)
    out[at] = ZERO + (r // whole)
    out[at + 1] = POINT
    r %= whole
    end = at + 2 + DECIMALS
    for j in range(end - 1, at + 1, -1):
        tenth = r // np.uint64(10)
        out[j] = ZERO + (r - tenth * np.uint64(10))
        r = tenth
    return end


@kernel(
    "i8(i8, i8, i8, i8, u1[::1], i8[:, ::1], f8[:, ::1], u2[:, ::1], f8[::1], u1[::1], u1[::1], "
    "u1[:, ::1], i8[::1], u1[::1])",
    nogil=True,
)
def write_lines(
    first, last, begin, end, text, stamp, score, flags, row_score, alarm, changepoint, names, lengths, out
):  # fmt: skip
    """Write lines first to last: the time as it came, score and flags of each tag, then of the row; return the bytes.

    begin, end  the columns that the frame has; the cells of the others stay empty

    stamp  int64[r, 2] where in text;  score float64[r, n], flags uint16[r, n]; row_score float64[r], alarm and
    changepoint uint8[r];  names uint8[16, b], lengths int64[16]  of the flags' bits
    """
    at = np.int64(0)
    for k in range(first, last):
        for j in range(stamp[k, 0], stamp[k, 1]):
            out[at] = text[j]
            at += 1
        for i in range(score.shape[1]):
            if i < begin or i >= end:
                out[at], out[at + 1] = COMMA, COMMA
                at += 2
                continue
            out[at] = COMMA
            at = _put_score(score[k, i], out, at + 1)
            out[at] = COMMA
            at += 1
            rest = flags[k, i]
            if rest != 0:
                is_first = True
                for bit in range(16):
                    if rest & np.uint16(1 << bit):
                        if not is_first:
                            out[at] = 124  # |
                            at += 1
                        is_first = False
                        for j in range(lengths[bit]):
                            out[at] = names[bit, j]
                            at += 1
        out[at] = COMMA
        at = _put_score(row_score[k], out, at + 1)
        out[at] = COMMA
        out[at + 1] = ZERO + alarm[k]
        out[at + 2] = COMMA
        out[at + 3] = ZERO + changepoint[k]
        out[at + 4] = NEWLINE
        at += 5
    return at
