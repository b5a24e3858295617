"""A value as a meter profile describes it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

from drivers.blocks import Block

Function = Literal["coil", "discrete", "input", "holding"]
Order = Literal["big", "little"]
Kind = Literal["gauge", "counter", "state"]

READ_CODES: Final[dict[Function, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}

# type name -> registers; strings are string<N bytes>
REGISTERS: Final[dict[str, int]] = {
    "bool": 1,
    "int8_low": 1,
    "int8_high": 1,
    "uint8_low": 1,
    "uint8_high": 1,
    "int16": 1,
    "uint16": 1,
    "bitfield16": 1,
    "float16": 1,
    "int32": 2,
    "uint32": 2,
    "bitfield32": 2,
    "float32": 2,
    "int64": 4,
    "uint64": 4,
    "float64": 4,
}
_STRING: Final = re.compile(r"string([1-9][0-9]{0,2})")
MAX_STRING_BYTES: Final = 250  # 125 registers, one read


def registers_of(type_name: str) -> int:
    """Return how many 16-bit registers a value of this type takes; KeyError if there is no such type."""
    if match := _STRING.fullmatch(type_name):
        n_bytes = int(match.group(1))
        if n_bytes > MAX_STRING_BYTES:
            raise KeyError(type_name)
        return (n_bytes + 1) // 2
    return REGISTERS[type_name]


def raw_range(type_name: str) -> tuple[int, int]:
    """Return the smallest and largest raw value of a type: of a signed one also as the unsigned pattern."""
    n_bits = 8 if "8_" in type_name else 16 * registers_of(type_name)
    return -(1 << n_bits - 1) if type_name.startswith("int") else 0, (1 << n_bits) - 1


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a meter model: where it stands on the wire and what it means.

    address    as on the wire, counted from 0; a bit for coil and discrete, else a register
    scale, offset  value = raw * scale + offset, in `unit`
    sentinels  raw values that mean "not available"; for signed types the unsigned pattern also counts
    range      plausible values, in `unit`; outside it the quality is uncertain
    width, max_rate  of a counter: bits until it wraps, units per second
    rate, rate_s  of a float32 counter: the point that says how fast it rises, in units per rate_s seconds
    """

    name: str
    function: Function
    address: int
    type: str
    word_order: Order = "big"
    byte_order: Order = "big"
    bit: int | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    kind: Kind = "gauge"
    sentinels: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    width: int | None = None
    max_rate: float | None = None
    rate: str | None = None
    rate_s: float | None = None
    period_s: float | None = None
    description: str = ""

    @property
    def n_registers(self) -> int:
        """Registers (or, for coil and discrete, bits) that one read of this point spans."""
        return registers_of(self.type)

    @property
    def is_bit(self) -> bool:
        """Whether the point lives in the coil or discrete table."""
        return self.function in ("coil", "discrete")

    @property
    def is_text(self) -> bool:
        """Whether the point is a string: identity, read at start, never a row of a Frame."""
        return self.type.startswith("string")

    @property
    def read_code(self) -> int:
        """The Modbus function code that reads it."""
        return READ_CODES[self.function]


@dataclass(frozen=True, slots=True, order=True)
class Hole:
    """Registers (coils, discrete inputs) that a device does not let be read; start and count as in a request."""

    function: Function
    start: int
    count: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.count

    def touches(self, function: Function, start: int, end: int) -> bool:
        """Return whether any address in [start, end) lies in it."""
        return self.function == function and start < self.end and self.start < end

    def lies_in(self, block: Block) -> bool:
        """Return whether a read contains all of it."""
        return READ_CODES[self.function] == block.function and block.start <= self.start and self.end <= block.end


@dataclass(frozen=True, slots=True)
class ScanList:
    """Registers in which an installer lists others, and where the meter then shows these side by side.

    start, count   the list: entry k holds a wire address + `base`, 0 nothing
    values, step   the registers of entry k are shown from values + k * step on, at most `step` of them
    """

    function: Function
    start: int
    count: int
    values: int
    step: int
    base: int = 0

    def touches(self, function: Function, start: int, end: int) -> bool:
        """Return whether any address in [start, end) is part of the list or of what it shows."""
        areas = (self.start, self.start + self.count), (self.values, self.values + self.count * self.step)
        return self.function == function and any(start < b and a < end for a, b in areas)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a point says on every meter of a model, and on no other: a value, in its unit, or a text.

    texts  shell patterns; one of both is empty
    """

    point: str
    values: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()

    def admits(self, found: float | str | None) -> bool:
        """Return whether a meter that says this can be of the model."""
        if isinstance(found, str):
            return any(fnmatchcase(found, pattern) for pattern in self.texts)
        return found in self.values

    def __str__(self) -> str:
        """Return what is wanted, in words: `1648 to 1653`, `7 or 9`, `'PM51*'`."""
        first, n = (self.values or (0.0,))[0], len(self.values)
        if n > 2 and self.values == tuple(first + i for i in range(n)):
            return f"{first:.12g} to {self.values[-1]:.12g}"
        return " or ".join([f"{value:.12g}" for value in self.values] or map(repr, self.texts))


MAX_DECIMALS: Final = 15  # digits that a float64 always keeps


def decimals_of(scale: float) -> int | None:
    """Return k when scale is exactly 10**-k (0 <= k <= 15), else None."""
    if not 0 < scale <= 1:
        return None
    k = round(-math.log10(scale))
    return k if k <= MAX_DECIMALS and float(f"1e-{k}") == scale else None
