"""The first line of a capture: what the traffic means, checked as strictly as a configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from drivers.blocks import MAX_BITS, MAX_REGISTERS
from drivers.link import LinkSpec, SerialLine, Transport
from drivers.points import Point
from drivers.profile import PointModel, point_faults
from drivers.toml import Flag, Int, Name, Number, Table, Text
from gateway.model.corridor import Device, Tag

FORMAT: Final = 1
MAX_LINES: Final = 100_000  # of traffic; the recorder writes some hundred
MAX_TEXT: Final = 200  # characters of a reason; an error's text may quote a library's


class SerialModel(Table):
    """The characters of a bus."""

    baudrate: Int = Field(ge=300, le=4_000_000)
    parity: Literal["N", "E", "O"]
    stopbits: Int = Field(ge=1, le=2)


class LinkModel(Table):
    """How the devices were reached, without where."""

    name: Name
    transport: Transport
    timeout_s: Number = Field(gt=0, le=60)
    turnaround_s: Number = Field(ge=0, le=10)
    serial: SerialModel

    def spec(self) -> LinkSpec:
        """Return the link without an endpoint."""
        line = SerialLine(self.serial.baudrate, 8, self.serial.parity, self.serial.stopbits)
        return LinkSpec(
            self.name, self.transport, serial=line, timeout_s=self.timeout_s, turnaround_s=self.turnaround_s
        )


class DeviceModel(Table):
    """One device of the link; `period_s` of a point is that of its tag."""

    name: Name
    unit: Int = Field(ge=0, le=255)
    max_registers: Int = Field(MAX_REGISTERS, ge=1, le=MAX_REGISTERS)
    max_bits: Int = Field(MAX_BITS, ge=1, le=MAX_BITS)
    max_gap: Int = Field(0, ge=0, le=MAX_REGISTERS)
    enron: Flag = False
    points: list[PointModel] = []

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between the points."""
        if self.has("points"):
            yield from point_faults(self.points, enron=self.enron or not self.has("enron"))

    def device(self, link: str) -> Device:
        """Return the device, with default settings for all that replay does not look at."""
        points = [point.point() for point in self.points]
        return Device(
            name=self.name, link=link, unit=self.unit, profile="", measurement="", asset="", line="", kp_m=None,
            tags=tuple(_tag(point) for point in points if not point.is_text),
            strings=tuple(point for point in points if point.is_text),
            max_registers=self.max_registers, max_bits=self.max_bits, max_gap=self.max_gap, enron=self.enron,
        )  # fmt: skip


class HeaderModel(Table):
    """The first line."""

    capture: Int
    gateway: Name
    version: Text
    time: Int = Field(ge=0, lt=1 << 63)
    why: list[Annotated[Text, Field(max_length=MAX_TEXT)]]
    lines: Int = Field(ge=0, le=MAX_LINES)
    link: LinkModel
    devices: list[DeviceModel]

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between the devices."""
        if self.has("devices"):
            units = [device.unit for device in self.devices if device.has("unit")]
            for unit in sorted({unit for unit in units if units.count(unit) > 1}):
                yield f"devices: unit {unit} is given twice"


_DEFAULTS: Final[Mapping[str, Any]] = {field.name: field.default for field in fields(Point)}


def device_table(device: Device) -> dict[str, Any]:
    """Return a device as the header has it."""
    points = [replace(tag.point, period_s=tag.period_s) for tag in device.tags]
    return {
        "name": device.name,
        "unit": device.unit,
        "max_registers": device.max_registers,
        "max_bits": device.max_bits,
        "max_gap": device.max_gap,
        "enron": device.enron,
        "points": [_point(point) for point in (*points, *device.strings)],
    }


def _point(point: Point) -> dict[str, Any]:
    """Return what is not as usual about a point, but its description: no value follows from that."""
    known = {name: getattr(point, name) for name in _DEFAULTS if name != "description"}
    return {name: value for name, value in known.items() if value != _DEFAULTS[name]}


def _tag(point: Point) -> Tag:
    nan = math.nan
    return Tag(point, point.period_s or 0.0, (nan, nan, nan, nan), 0.0, 0.0, 0.0, 3, ())
