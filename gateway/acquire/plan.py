"""What is asked of whom, and when: pure functions from specification to plan; nothing connects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from drivers.blocks import Block
from drivers.decode import Placed, build_table
from drivers.link import LinkSpec
from drivers.points import Point, decimals_of
from gateway.acquire.device import DevicePlan
from gateway.acquire.memory import Memory
from gateway.acquire.repair import overloads
from gateway.acquire.space import Shore, Spot, spot_of
from gateway.model.clock import NS
from gateway.model.corridor import Device, GatewaySpec, Tag
from gateway.model.frame import DETECT_BITS, FLOAT32_TEXT, FLOAT64_TEXT, Scan, TagTable

MAX_TICKS: Final = 1000  # polls of one scan that are looked at between two commits; more leave no gap to find


@dataclass(frozen=True, slots=True)
class Plan:
    """What the gateway will do: the table, and for each device what it is asked; the memory goes on learning.

    layout  what the table was made of, for the next one: not to be changed
    """

    table: TagTable
    devices: tuple[DevicePlan, ...]
    memory: Memory
    errors: tuple[str, ...]
    layout: Layout

    @property
    def spec(self) -> GatewaySpec:
        """The specification that was planned."""
        return self.table.spec

    def of_link(self, name: str) -> list[DevicePlan]:
        """Return the plans of the devices on a link."""
        return [one for one in self.devices if one.link.name == name]


def plan(spec: GatewaySpec, memory: Memory | None = None) -> Plan:
    """Return the plan of a specification; what cannot work is told in `errors`, not raised.

    memory  of what the devices have taught, of this specification; without it nothing is known
    """
    memory = memory or Memory(spec)
    links = {link.name: link for link in spec.links}
    layout = Layout()
    devices = [
        layout.add(device, links[device.link], phases, memory)
        for device, phases in zip(spec.devices, phases_of(spec), strict=True)
    ]
    return Plan(layout.table(spec), tuple(devices), memory, tuple(_errors(spec, devices)), layout)


@dataclass(slots=True)
class Layout:
    """A table in the making: everything is appended, nothing ever moves; `image` is its size so far, bytes."""

    devices: list[Device] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    rows: list[Placed] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    image: int = 0

    def add(self, device: Device, link: LinkSpec, phases: Mapping[float, float], memory: Memory) -> DevicePlan:
        """Give a device its number, scans, rows and place in the image; returns how it is read.

        phases  of its periods, ascending, seconds
        """
        number = len(self.devices)
        shore = Shore(device, (spot_of(device, tag.point) for tag in device.tags), self.image)
        own: list[Scan] = []
        spots: list[Spot] = []
        for i, (period_s, phase_s) in enumerate(phases.items()):
            start = len(self.rows)
            for tag in sorted((t for t in device.tags if t.period_s == period_s), key=lambda t: _order(device, t)):
                spot = spot_of(device, tag.point, len(self.rows), i)
                self.rows.append(Placed(tag.point, shore.at(spot.space, spot.start)))
                spots.append(spot)
                self.tags.append(tag)
            own.append(Scan(len(self.scans) + i, number, period_s, phase_s, start, len(self.rows)))
        self.devices.append(device)
        self.scans += own
        self.image = shore.end
        return DevicePlan(number, device, link, own, spots, shore, memory)

    def table(self, spec: GatewaySpec, gone: frozenset[int] = frozenset()) -> TagTable:
        """Return the table as it is now."""
        tags, scans = self.tags, self.scans
        scan_of = np.zeros(len(tags), np.int32)
        for scan in scans:
            scan_of[scan.start : scan.stop] = scan.number
        device_of_scan = np.array([scan.device for scan in scans], np.int32)
        return TagTable(
            spec=spec,
            devices=tuple(self.devices),
            tags=tuple(tags),
            scans=tuple(scans),
            decode=build_table(self.rows),
            limit=np.array([tag.limits for tag in tags], np.float64).reshape(-1, 4),
            deadband=np.array([tag.deadband for tag in tags], np.float64),
            on_delay_ns=np.array([tag.on_delay_s * 1e9 for tag in tags], np.int64),
            off_delay_ns=np.array([tag.off_delay_s * 1e9 for tag in tags], np.int64),
            rate=np.array([tag.rate for tag in tags], np.float64),
            resolution=np.array([_resolution(tag.point) for tag in tags], np.float64),
            decimals=np.array([_decimals(tag.point) for tag in tags], np.int8),
            detect=np.array([sum(DETECT_BITS[name] for name in tag.detect) for tag in tags], np.uint8),
            scan_start=np.array([scan.start for scan in scans], np.int32),
            scan_stop=np.array([scan.stop for scan in scans], np.int32),
            scan_of=scan_of,
            device_of=device_of_scan[scan_of],
            image_bytes=self.image,
            gone=gone,
        )


def _order(device: Device, tag: Tag) -> tuple[object, ...]:
    spot = spot_of(device, tag.point)
    return spot.space, spot.start, spot.end


def phases_of(spec: GatewaySpec) -> list[dict[float, float]]:
    """Return for each device its periods, ascending, with the phase of each, seconds.

    Devices take turns within the fastest period that they have, those of one link as far apart as can be. All scans of
    a device meet at one moment, which lies a whole number of fast periods later from device to device: so slow scans
    fall on fast ones, are read with them, and those of many devices do not come in the same second.
    """
    nth: dict[str, int] = {}
    links = {link.name: i for i, link in enumerate(spec.links)}
    seats = []  # per device: which of its link it is, and which link that is
    for device in spec.devices:
        nth[device.link] = nth.get(device.link, -1) + 1
        seats.append((nth[device.link], links[device.link]))
    periods = [sorted({tag.period_s for tag in device.tags}) for device in spec.devices]
    fastest = [next((period_s for period_s in of if period_s), 0.0) for of in periods]
    turns: dict[float, list[tuple[int, int]]] = {}
    for seat, period_s in sorted(zip(seats, fastest, strict=True)):
        turns.setdefault(period_s, []).append(seat)
    turn = {seat: i / len(peers) for peers in turns.values() for i, seat in enumerate(peers)}
    out = []
    for seat, period_s, of in zip(seats, fastest, periods, strict=True):
        meeting_ns = round(period_s * NS * turn[seat]) + sum(seat) * round(period_s * NS)
        out.append({each: meeting_ns % round(each * NS) / NS if each else 0.0 for each in of})
    return out


def _resolution(point: Point) -> float:
    return 0.0 if point.type.startswith("float") else abs(point.scale)


def _decimals(point: Point) -> int:
    if point.type == "float32" and point.scale == 1.0 and point.offset == 0.0:
        return FLOAT32_TEXT
    power = decimals_of(point.scale)
    if point.type.startswith("float") or power is None or not float(point.offset).is_integer():
        return FLOAT64_TEXT
    return power


def too_wide(device: Device) -> list[str]:
    """Return one line per point that is to be read and that the device's largest read does not hold."""
    expected = {each.point for each in device.expect}
    points = {point.name: point for point in device.points if point.name in expected and not point.is_text}
    points |= {tag.name: tag.point for tag in device.tags}
    return [
        f"device '{device.name}': point '{point.name}' takes {point.n_registers} registers, "
        f"wanted at most max_registers = {device.max_registers}"
        for point in points.values()
        if not point.is_bit and point.n_registers > device.max_registers
    ]


def text_blocks(point: Point, max_registers: int) -> tuple[Block, ...]:
    """Return the reads that fetch a string: as many as it takes, for it is no number that two reads could tear."""
    return tuple(
        Block(point.read_code, point.address + at, min(max_registers, point.n_registers - at))
        for at in range(0, point.n_registers, max_registers)
    )


def commit_phase_s(table: TagTable, commit_s: float) -> float:
    """Return where in the commit period the plan's largest gap begins: a commit hurts the poll that it meets."""
    due = sorted({tick for scan in table.live if scan.period_s for tick in _ticks(scan, commit_s)}) or [0.0]
    gaps = [(after - before, before) for before, after in zip(due, [*due[1:], due[0] + commit_s], strict=True)]
    width, before = max(gaps)
    return (before + width / 2) % commit_s


def _ticks(scan: Scan, commit_s: float) -> list[float]:
    n = min(MAX_TICKS, max(1, round(commit_s / scan.period_s)))
    return [(scan.phase_s + k * scan.period_s) % commit_s for k in range(n)]


def _errors(spec: GatewaySpec, devices: Sequence[DevicePlan]) -> list[str]:
    """Return what cannot work, a line each."""
    lines = [line for device in spec.devices for line in (*too_wide(device), *_side_effects(device))]
    return [*lines, *(line for link in spec.links for line in overloads(link, devices))]


def _side_effects(device: Device) -> list[str]:
    """Return what keeps a point that changes the device from being read exactly once in each of its intervals."""
    lines: list[str] = []
    once = {point.name for point in device.side_effects}
    spots = {tag.name: spot_of(device, tag.point) for tag in device.tags}
    period_s = {tag.name: tag.period_s for tag in device.tags}
    for name in spots:
        if name in once and not period_s[name]:
            lines.append(
                f"device '{device.name}': point '{name}' changes the device when it is read, "
                "wanted period_s above 0, got 0"
            )
    for text in device.strings:
        for point in device.side_effects:
            one, two = spot_of(device, text), spot_of(device, point)
            if point != text and one.space == two.space and one.start < two.end and two.start < one.end:
                lines.append(
                    f"device '{device.name}': text '{text.name}' stands on registers of '{point.name}', "
                    "which change when they are read; wanted only one of them"
                )
    for a, b in combinations(spots if once else (), 2):
        one, two = spots[a], spots[b]
        if not {a, b} & once or one.space != two.space or one.end <= two.start or two.end <= one.start:
            continue
        if one.place != two.place or period_s[a] != period_s[b]:
            lines.append(
                f"device '{device.name}': points '{a}' and '{b}' share registers that change when they are read, "
                "wanted the same registers and period_s, or only one of them in 'tags'"
            )
    return lines
