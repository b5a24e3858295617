"""Registers to values: one kernel for every type, word and byte order, scale, bit and sentinel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.points import Point, decimals_of
from drivers.quality import BAD, BAD_SENSOR_FAILURE, GOOD, UNCERTAIN_ENGINEERING_UNITS_EXCEEDED

UINT: Final = 0
INT: Final = 1
FLOAT16: Final = 2
FLOAT32: Final = 3
FLOAT64: Final = 4
BIT: Final = 5

WORDS_LITTLE: Final = 1
BYTES_LITTLE: Final = 2

SMALLEST_FLOAT32: Final = 1.1754943508222875e-38  # IEEE 754: smallest normal number; below it no meter has a value
SMALLEST_FLOAT64: Final = 2.2250738585072014e-308

_LAYOUT: Final[dict[str, tuple[int, int]]] = {
    "bool": (BIT, 2),
    "int8_low": (INT, 1),
    "int8_high": (INT, 1),
    "uint8_low": (UINT, 1),
    "uint8_high": (UINT, 1),
    "int16": (INT, 2),
    "uint16": (UINT, 2),
    "bitfield16": (UINT, 2),
    "int32": (INT, 4),
    "uint32": (UINT, 4),
    "bitfield32": (UINT, 4),
    "int64": (INT, 8),
    "uint64": (UINT, 8),
    "float16": (FLOAT16, 2),
    "float32": (FLOAT32, 4),
    "float64": (FLOAT64, 8),
}


@dataclass(frozen=True, slots=True)
class DecodeTable:
    """Where each row's value stands in the image and what it means; constant columns of n rows.

    at        int32[n], byte offset in the image
    code      uint8[n], UINT .. BIT;  size uint8[n], bytes
    order     uint8[n], WORDS_LITTLE | BYTES_LITTLE;  bit uint8[n]
    scale, divisor, offset  float64[n], value = raw * scale / divisor + offset; divisor is a power of ten, so that
              decimals stay decimal
    low, high float64[n], plausible range, NaN where there is none
    sentinel  uint64[m], raw patterns that mean "not available"; those of row i are [first[i]:first[i + 1]]
    """

    at: NDArray[np.int32]
    code: NDArray[np.uint8]
    size: NDArray[np.uint8]
    order: NDArray[np.uint8]
    bit: NDArray[np.uint8]
    scale: NDArray[np.float64]
    divisor: NDArray[np.float64]
    offset: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sentinel: NDArray[np.uint64]
    first: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Placed:
    """A point and the byte of the image where its first register, or its bit, stands; a bit has a byte of its own."""

    point: Point
    at: int


def build_table(rows: Sequence[Placed]) -> DecodeTable:
    """Return the columns for these rows, in this order."""
    n = len(rows)
    table = {name: np.zeros(n, dtype) for name, dtype in _DTYPES.items()}
    sentinels: list[int] = []
    first = np.zeros(n + 1, np.int32)
    for i, row in enumerate(rows):
        point = row.point
        code, size = _LAYOUT[point.type]
        power = decimals_of(point.scale)
        table["at"][i] = row.at + _byte_in_register(point)
        table["code"][i], table["size"][i] = code, 1 if point.is_bit else size
        little_bytes = point.byte_order == "little" and size > 1
        table["order"][i] = WORDS_LITTLE * (point.word_order == "little") + BYTES_LITTLE * little_bytes
        table["bit"][i] = point.bit or 0
        table["scale"][i] = point.scale if power is None else 1.0
        table["divisor"][i] = 1.0 if power is None else 10.0**power
        table["offset"][i] = point.offset
        table["low"][i], table["high"][i] = point.range or (math.nan, math.nan)
        sentinels += [value & (1 << 8 * size) - 1 for value in point.sentinels]
        first[i + 1] = len(sentinels)
    return DecodeTable(**table, sentinel=np.array(sentinels, np.uint64), first=first)


_DTYPES: Final = {
    "at": np.int32,
    "code": np.uint8,
    "size": np.uint8,
    "order": np.uint8,
    "bit": np.uint8,
    "scale": np.float64,
    "divisor": np.float64,
    "offset": np.float64,
    "low": np.float64,
    "high": np.float64,
}


def _byte_in_register(point: Point) -> int:
    return int("8_" in point.type and point.type.endswith("low") != (point.byte_order == "little"))


def spread(payload: bytes, count: int) -> bytes:
    """Return the first `count` bits of an answer as a byte each, 0 or 1: so bits too have a place by their address."""
    return np.unpackbits(np.frombuffer(payload, np.uint8), count=count, bitorder="little").tobytes()


def decode_text(point: Point, raw: bytes) -> str:
    """Return a string point's text: up to the first NUL, byte-swapped where the device does so, blanks cut."""
    size = int(point.type.removeprefix("string"))
    if point.byte_order == "little":
        swapped = bytearray(len(raw))
        swapped[0::2], swapped[1::2] = raw[1::2], raw[0::2]
        raw = bytes(swapped)
    return raw[:size].split(b"\0", 1)[0].decode("ascii", "replace").strip()


class Scratch:
    """Eight bytes seen as each type: how a kernel reads bits as a float."""

    __slots__ = ("f4", "f8", "i8", "u4", "u8")

    def __init__(self) -> None:
        self.u8 = np.zeros(1, np.uint64)
        self.i8, self.f8 = self.u8.view(np.int64), self.u8.view(np.float64)
        self.u4, self.f4 = self.u8.view(np.uint32), self.u8.view(np.float32)


@kernel(
    "void(i4[::1], i4[::1], i4[::1], u1[::1], u4[::1], "
    "i4[::1], u1[::1], u1[::1], u1[::1], u1[::1], "
    "f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], u8[::1], i4[::1], "
    "u8[::1], i8[::1], f8[::1], u4[::1], f4[::1], f8[::1], u4[::1])"
)
def decode(
    ready, start, stop, image, reason,
    at, code, size, order, bit,
    scale, divisor, offset, low, high, sentinel, first,
    bits, as_int, as_f8, bits4, as_f4, value, quality,
):  # fmt: skip
    """Turn the answers of the ready scans into values and quality.

    ready int32[r], scan numbers; start, stop int32[scans], their rows
    image uint8[], what every device last answered, by address
    reason uint32[n], 0 where the row was answered, else the quality that says why not
    at .. first  the columns of DecodeTable;  bits .. as_f4  one Scratch
    value float64[n], quality uint32[n]  written for the rows of the ready scans; value is NaN where quality is bad
    """
    for k in range(ready.size):
        for i in range(start[ready[k]], stop[ready[k]]):
            if reason[i]:
                value[i] = np.nan
                quality[i] = reason[i]
                continue
            n = np.int64(size[i])
            raw = np.uint64(0)
            for j in range(n):
                word, byte = j >> 1, j & 1
                if order[i] & WORDS_LITTLE:
                    word = (n >> 1) - 1 - word if n > 1 else word
                if order[i] & BYTES_LITTLE:
                    byte = 1 - byte
                raw = (raw << np.uint64(8)) | np.uint64(image[at[i] + 2 * word + byte])
            q = np.uint32(GOOD)
            for s in range(first[i], first[i + 1]):
                if sentinel[s] == raw:
                    q = np.uint32(BAD_SENSOR_FAILURE)
            bits[0] = raw
            kind = code[i]
            v = 0.0
            if kind == UINT:
                v = float(raw)
            elif kind == INT:
                bits[0] = raw << np.uint64(64 - 8 * n)
                v = float(as_int[0] >> (64 - 8 * n))
            elif kind == BIT:
                v = float((raw >> np.uint64(bit[i])) & np.uint64(1))
            elif kind == FLOAT32:
                bits4[0] = np.uint32(raw)
                v = float(as_f4[0])
                if v != 0.0 and abs(v) < SMALLEST_FLOAT32:
                    q = np.uint32(BAD_SENSOR_FAILURE)
            elif kind == FLOAT64:
                v = as_f8[0]
                if v != 0.0 and abs(v) < SMALLEST_FLOAT64:
                    q = np.uint32(BAD_SENSOR_FAILURE)
            else:
                exponent = np.int64((raw >> np.uint64(10)) & np.uint64(31))
                mantissa = float(raw & np.uint64(1023))
                if exponent == 31:
                    v = np.nan
                elif exponent == 0:
                    v = mantissa * 2.0**-24
                else:
                    v = (1.0 + mantissa / 1024.0) * 2.0 ** (exponent - 15)
                if raw >> np.uint64(15):
                    v = -v
            v = v * scale[i] / divisor[i] + offset[i]
            if not np.isfinite(v):
                q = np.uint32(BAD_SENSOR_FAILURE)
            if q & BAD:
                value[i] = np.nan
                quality[i] = q
                continue
            if v < low[i] or v > high[i]:
                q = np.uint32(UNCERTAIN_ENGINEERING_UNITS_EXCEEDED)
            value[i] = v
            quality[i] = q
