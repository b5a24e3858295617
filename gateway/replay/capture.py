"""A capture as source: link and decode once more, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.modbus.replay import Replayed, replay
from gateway.capture.file import Capture
from gateway.model.clock import NS
from gateway.replay import virtual
from gateway.replay.values import Value, values_of


@dataclass(frozen=True, slots=True)
class Reading:
    """One read of a device and what its tags became."""

    time_ns: int
    device: str
    read: Replayed
    values: tuple[Value, ...]


def replay_capture(capture: Capture) -> list[Reading]:
    """Return every read of a capture; has a loop of its own, so none may be running."""
    devices = {device.unit: device for device in capture.devices}
    found: list[Replayed] = virtual.run(replay(capture.link, capture.traffic))
    return [
        Reading(
            capture.time_ns + round(read.asked_s * NS),
            devices[read.unit].name,
            read,
            tuple(values_of(devices[read.unit], read.block, read.now)),
        )
        for read in found
    ]


def first_difference(readings: Sequence[Reading]) -> str:
    """Return where a replay first differs from what was captured, in one line; "" when it does not."""
    for reading in readings:
        if difference := reading.read.difference:
            at, block = reading.read.asked_s, reading.read.block
            where = f"function {block.function}, {block.count} from {block.start}"
            return f"at {at:.3f} s, device '{reading.device}', {where}: {difference}"
    return ""
