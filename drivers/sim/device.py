"""One simulated meter: which registers it has, and what it answers to a request."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from drivers.blocks import BITS_PER_BYTE, MAX_BITS, MAX_REGISTERS
from drivers.encode import Codec, codec
from drivers.link import LinkSpec
from drivers.points import READ_CODES, Expected, Hole, Point, ScanList
from drivers.profile import ENRON_TYPES

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3

MAX_LAYOUTS: Final = 512  # a gateway asks for the same few blocks; a scanner for all of them
N_ADDRESSES: Final = 0x1_0000


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """A meter to be simulated: how it is reached, what it holds, where it stands.

    points   numeric and string points
    max_gap  undefined registers that one read may cross; they read as 0
    holes    registers that it refuses, points or not
    expect   what it shows of the model that it is: the first that its profile wants
    scan_list  where it lists registers, and where it then shows them; empty at first
    """

    name: str
    link: LinkSpec
    unit: int
    profile: str
    points: tuple[Point, ...]
    enron: bool = False
    max_registers: int = MAX_REGISTERS
    asset: str = ""
    line: str = ""
    kp_m: int | None = None
    site: str = ""
    max_bits: int = MAX_BITS
    max_gap: int = 0
    holes: tuple[Hole, ...] = ()
    expect: tuple[Expected, ...] = ()
    scan_list: ScanList | None = None


Value = float | str | None
Snapshot = Callable[[Point], Value]  # a point's value at one moment; None: not available


@dataclass(frozen=True, slots=True)
class Answer:
    """What a meter says: the response PDU, and each numeric value that is whole in it, as the wire carries it."""

    pdu: bytes
    served: tuple[tuple[str, float | None], ...] = ()

    @property
    def is_exception(self) -> bool:
        """Whether the meter refused."""
        return bool(self.pdu[0] & 0x80)


def refusal(function: int, code: int) -> Answer:
    """Return a Modbus exception response."""
    return Answer(bytes((function & 0x7F | 0x80, code)))


@dataclass(frozen=True, slots=True)
class _Slot:
    """A point in one answer: its first byte (for bits: its bit number) and whether the answer holds all of it."""

    codec: Codec
    at: int
    whole: bool


@dataclass(frozen=True, slots=True)
class _Layout:
    n_bytes: int
    slots: tuple[_Slot, ...]


class Meter:
    """The register image of one device; holds no values, every read asks the snapshot.

    entries  its scan list, as the registers hold it
    """

    def __init__(self, spec: MeterSpec) -> None:
        self.spec = spec
        self.entries = [0] * (spec.scan_list.count if spec.scan_list else 0)
        self._layouts: dict[tuple[int, int, int], _Layout | int] = {}
        self._points: dict[int, list[Point]] = {code: [] for code in READ_CODES.values()}
        for point in sorted(spec.points, key=lambda point: point.address):
            self._points[point.read_code].append(point)

    def answer(self, request: bytes, snapshot: Snapshot) -> Answer:
        """Return the response to a request PDU; every value in it comes from the one snapshot."""
        function = request[0]
        if function not in self._points:
            return refusal(function, ILLEGAL_FUNCTION)
        if len(request) != 5:
            return refusal(function, ILLEGAL_VALUE)
        start, count = struct.unpack(">HH", request[1:])
        layout = self._layout(function, start, count)
        if isinstance(layout, int):
            return refusal(function, layout)
        payload = _merged(layout, snapshot, bits=function <= 2)
        self._show_listed(payload, function, start, snapshot)
        return Answer(bytes((function, len(payload))) + payload, _served(layout, payload, bits=function <= 2))

    def _show_listed(self, payload: bytearray, function: int, start: int, snapshot: Snapshot) -> None:
        """Put the scan list, and what it makes the meter show, where they stand in the answer."""
        area, end = self.spec.scan_list, start + len(payload) // 2
        if area is None or READ_CODES[area.function] != function or not area.touches(area.function, start, end):
            return
        registers = {area.start + k: struct.pack(">H", entry) for k, entry in enumerate(self.entries)}
        for k, entry in enumerate(self.entries):
            of_entry = [point for point in self._points[function] if entry and point.address == entry - area.base]
            shown = bytearray(2 * area.step)
            for point in of_entry:
                for i, byte in enumerate(codec(point).encode(snapshot(point))[: len(shown)]):
                    shown[i] |= byte
            at = area.values + k * area.step
            registers |= {at + i: bytes(shown[2 * i : 2 * i + 2]) for i in range(area.step)}
        for address in registers.keys() & range(start, end):
            payload[2 * (address - start) : 2 * (address - start) + 2] = registers[address]

    def _layout(self, function: int, start: int, count: int) -> _Layout | int:
        key = (function, start, count)
        if (layout := self._layouts.get(key)) is None:
            layout = self._plan(*key)
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = layout
        return layout

    def _plan(self, function: int, start: int, count: int) -> _Layout | int:
        """Return where each point stands in the answer to this request, or the exception that it earns."""
        spec, end = self.spec, start + count
        if function <= 2:
            if not 1 <= count <= min(spec.max_bits, MAX_BITS):
                return ILLEGAL_VALUE
            widths = {point.address: 1 for point in self._points[function]}
        else:
            if not 1 <= count <= min(spec.max_registers, MAX_REGISTERS):
                return ILLEGAL_VALUE
            widths = _widths(self._points[function], enron=spec.enron)
            if (area := spec.scan_list) and READ_CODES[area.function] == function:
                shown = range(area.values, area.values + area.count * area.step)
                widths |= dict.fromkeys((*range(area.start, area.start + area.count), *shown), 2)
        if end > N_ADDRESSES or not _is_defined(widths, start, end, spec.max_gap):
            return ILLEGAL_ADDRESS
        if any(READ_CODES[hole.function] == function and start < hole.end and hole.start < end for hole in spec.holes):
            return ILLEGAL_ADDRESS
        used = {widths[address] for address in range(start, end) if address in widths}
        if len(used) > 1:
            return ILLEGAL_ADDRESS  # Enron items and registers do not mix in one answer
        width = used.pop()
        if function > 2 and count * width // 2 > min(spec.max_registers, MAX_REGISTERS):
            return ILLEGAL_VALUE
        slots = []
        for point in self._points[function]:
            span = _span(point, enron=spec.enron)
            if point.address < end and point.address + span > start:
                whole = start <= point.address and point.address + span <= end
                slots.append(_Slot(codec(point), (point.address - start) * width, whole))
        n_bytes = -(-count // BITS_PER_BYTE) if function <= 2 else count * width
        return _Layout(n_bytes, tuple(slots))


def _span(point: Point, *, enron: bool) -> int:
    return 1 if enron and point.type in ENRON_TYPES else point.n_registers


def _widths(points: list[Point], *, enron: bool) -> dict[int, int]:
    """Return the bytes that each defined register address answers with."""
    widths = {}
    for point in points:
        width = 4 if enron and point.type in ENRON_TYPES else 2
        for address in range(point.address, point.address + _span(point, enron=enron)):
            widths[address] = width
    return widths


def _is_defined(widths: Mapping[int, int], start: int, end: int, max_gap: int) -> bool:
    """Return whether a read may touch these addresses: none undefined but gaps that the device lets pass."""
    if start not in widths or end - 1 not in widths:
        return False
    gap = 0
    for address in range(start, end):
        gap = 0 if address in widths else gap + 1
        if gap > max_gap:
            return False
    return True


def _merged(layout: _Layout, snapshot: Snapshot, *, bits: bool) -> bytearray:
    """Return the payload; points that share registers are merged."""
    payload = bytearray(layout.n_bytes)
    for slot in layout.slots:
        raw = slot.codec.encode(snapshot(slot.codec.point))
        if bits:
            payload[slot.at // BITS_PER_BYTE] |= raw[0] << slot.at % BITS_PER_BYTE
            continue
        for i, byte in enumerate(raw, slot.at):
            if 0 <= i < layout.n_bytes:
                payload[i] |= byte
    return payload


def _served(layout: _Layout, payload: bytearray, *, bits: bool) -> tuple[tuple[str, float | None], ...]:
    """Return the values in a payload."""
    served = []
    for slot in layout.slots:
        point = slot.codec.point
        if slot.whole and not point.is_text:
            value = slot.codec.served_value(_cut(payload, slot, bits=bits))
            served.append((point.name, value if isinstance(value, float) else None))
    return tuple(served)


def _cut(payload: bytearray, slot: _Slot, *, bits: bool) -> bytes:
    if bits:
        return bytes((payload[slot.at // BITS_PER_BYTE] >> slot.at % BITS_PER_BYTE & 1,))
    return bytes(payload[slot.at : slot.at + 2 * slot.codec.point.n_registers])
