"""Values to registers: the inverse of decoding, and the value that a reader will see after rounding."""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.points import Point, decimals_of, registers_of

_FLOATS: Final = {"float16": ">e", "float32": ">f", "float64": ">d"}
_LARGEST: Final = {"float16": 65504.0, "float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}
# A decoder takes anything smaller, except zero, for registers that are not a float at all.
_SMALLEST: Final = {"float16": 0.0, "float32": 1.1754943508222875e-38, "float64": 2.2250738585072014e-308}
_NAN: Final = {"float16": 0x7E00, "float32": 0x7FC0_0000, "float64": 0x7FF8_0000_0000_0000}
_EXACT: Final = 2.0**53  # every whole number below it is a float64
_BYTES: Final = {"int8_low": 1, "int8_high": 1, "uint8_low": 1, "uint8_high": 1}


def encode(point: Point, value: float | str | None) -> bytes:
    """Return the registers of a value, as on the wire; a coil or discrete input is one byte, 0 or 1.

    Numbers are rounded and clamped to the type and never hit a sentinel. A bool inside a register and an 8-bit value
    fill only their own bits, so that points which share a register can be merged with OR.
    None is the first sentinel, else NaN; raises ValueError for an integer that has no way to say so.
    """
    return codec(point).encode(value)


def served_value(point: Point, raw: bytes) -> float | str | None:
    """Return what a right reader makes of these registers; None where they mean "not available"."""
    return codec(point).served_value(raw)


def can_be_absent(point: Point) -> bool:
    """Return whether registers can say that this value is not available."""
    return point.is_text or point.type in _FLOATS or bool(point.sentinels)


@cache
def codec(point: Point) -> Codec:
    """Return the encoder of a point; one object per point, for callers that encode it again and again."""
    return Codec(point)


class Codec:
    """How one point stands in its registers, worked out once."""

    __slots__ = (
        "_big",
        "_divisor",
        "_high",
        "_low",
        "_mask",
        "_n_bytes",
        "_pack",
        "_scale",
        "_sentinels",
        "_size",
        "point",
    )

    def __init__(self, point: Point) -> None:
        self.point = point
        self._n_bytes = 2 * registers_of(point.type)
        self._size = _BYTES.get(point.type, self._n_bytes)
        self._mask = (1 << 8 * self._size) - 1
        self._sentinels = frozenset(value & self._mask for value in point.sentinels)
        power = decimals_of(point.scale)
        self._scale = point.scale if power is None else 1.0
        self._divisor = 1.0 if power is None else 10.0**power
        self._pack = struct.Struct(_FLOATS[point.type]) if point.type in _FLOATS else None
        signed = point.type.startswith("int")
        self._low = -(self._mask + 1) // 2 if signed else 0
        self._high = self._mask // 2 if signed else self._mask
        self._big = self._n_bytes == 2 or point.word_order == "big"

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and largest value, in the point's unit, that its registers can hold."""
        if self.point.type == "bool":
            return 0.0, 1.0
        if self._pack:
            largest = _LARGEST[self.point.type]
            return -largest, largest
        ends = sorted(self._value(float(raw)) for raw in (self._low, self._high))
        return ends[0], ends[1]

    def encode(self, value: float | str | None) -> bytes:
        """Return the registers; see `encode`."""
        point = self.point
        if point.is_text:
            return self._text("" if value is None else str(value))
        if isinstance(value, str):
            raise ValueError(f"point '{point.name}': got text {value!r}, wanted a number")
        if value is None or not math.isfinite(value):
            return self._place(self._absent())
        if point.is_bit:
            return b"\x01" if value else b"\x00"
        if point.type == "bool":
            return self._place(1 << (point.bit or 0) if value else 0)
        return self._place(self._raw((value - point.offset) * self._divisor / self._scale))

    def served_value(self, raw: bytes) -> float | str | None:
        """Return the value in these registers; see `served_value`."""
        point = self.point
        if point.is_text:
            size = int(point.type.removeprefix("string"))
            return self._ordered(raw)[:size].split(b"\0", 1)[0].decode("ascii", "replace").strip()
        if point.is_bit:
            return float(raw[0] & 1)
        pattern = self._pattern(raw)
        if point.type == "bool":
            return float(pattern >> (point.bit or 0) & 1)
        if pattern in self._sentinels:
            return None
        if self._pack:
            number = float(self._pack.unpack(pattern.to_bytes(self._size, "big"))[0])
            if not math.isfinite(number) or 0 < abs(number) < _SMALLEST[point.type]:
                return None
        else:
            number = float(pattern - self._mask - 1 if pattern > self._high else pattern)
        return self._value(number)

    def served_column(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `served_value` of `encode` of each value, float64[n]; NaN where that is "not available"."""
        point = self.point
        if point.type == "float16" or (self._pack and self._sentinels) or not np.isfinite(values).all():
            return self._each(values)
        if point.is_bit or point.type == "bool":
            return np.where(values != 0.0, 1.0, 0.0)
        number: NDArray[np.float64] = (values - point.offset) * self._divisor / self._scale
        if self._pack:
            largest = _LARGEST[point.type]
            number = np.clip(number, -largest, largest)
            number[np.abs(number) < _SMALLEST[point.type]] = 0.0
            number = number.astype(np.float32).astype(np.float64) if self._size == 4 else number
        elif self._size == 8 and (np.abs(number) >= _EXACT).any():
            return self._each(values)
        else:
            number = np.clip(np.rint(number), self._low, self._high)
        shown: NDArray[np.float64] = number * self._scale / self._divisor + point.offset
        if self._sentinels:
            taken = [float(raw - self._mask - 1 if raw > self._high else raw) for raw in self._sentinels]
            hit = np.isin(number, taken)
            shown[hit] = self._each(values[hit])
        return shown

    def _each(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        served = (self.served_value(self.encode(value)) for value in values.tolist())
        return np.array([math.nan if value is None else value for value in served], np.float64)

    def _value(self, raw: float) -> float:
        return raw * self._scale / self._divisor + self.point.offset

    def _absent(self) -> int:
        if self.point.sentinels:
            return self.point.sentinels[0] & self._mask
        if self._pack:
            return _NAN[self.point.type]
        raise ValueError(f"point '{self.point.name}': {self.point.type} without a sentinel cannot say 'not available'")

    def _raw(self, number: float) -> int:
        if self._pack:
            largest = _LARGEST[self.point.type]
            number = min(max(number, -largest), largest)
            if abs(number) < _SMALLEST[self.point.type]:
                number = 0.0
            return int.from_bytes(self._pack.pack(number), "big")
        raw = int(min(max(round(number), self._low), self._high))
        inward = -1 if raw > 0 else 1
        while raw & self._mask in self._sentinels and self._low <= raw + inward <= self._high:
            raw += inward
        return raw & self._mask

    def _place(self, pattern: int) -> bytes:
        """Return the pattern in its registers, in the device's order."""
        if self._size == 1:
            pattern <<= 8 * self.point.type.endswith("high")
        return self._ordered(pattern.to_bytes(self._n_bytes, "big"))

    def _pattern(self, raw: bytes) -> int:
        """Return the pattern that stands in these registers."""
        pattern = int.from_bytes(self._ordered(raw), "big")
        if self._size == 1:
            pattern = pattern >> 8 * self.point.type.endswith("high") & 0xFF
        return pattern

    def _ordered(self, raw: bytes) -> bytes:
        """Return the bytes in the device's order; applied twice it gives the first order back."""
        if not self._big and not self.point.is_text:
            raw = b"".join(raw[at : at + 2] for at in range(len(raw) - 2, -1, -2))
        if self.point.byte_order == "little":
            swapped = bytearray(len(raw))
            swapped[0::2], swapped[1::2] = raw[1::2], raw[0::2]
            raw = bytes(swapped)
        return raw

    def _text(self, text: str) -> bytes:
        size = int(self.point.type.removeprefix("string"))
        return self._ordered(text.encode("ascii", "replace")[:size].ljust(self._n_bytes, b"\0"))
