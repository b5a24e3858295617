"""A meter has to show that it is the model which its profile describes, before any of its values is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from drivers.blocks import Block
from drivers.encode import served_value
from drivers.errors import (
    DeviceException,
    DriverError,
    IllegalAddress,
    IllegalFunction,
    TargetAway,
    UnexpectedModel,
    Unidentified,
)
from drivers.link import Link
from drivers.points import Expected, Point
from drivers.quality import GOOD
from drivers.toml import shown
from gateway.acquire.plan import text_blocks
from gateway.acquire.space import spot_of
from gateway.model.clock import NS, Clock
from gateway.model.corridor import Device

NEVER: Final = -1  # no connection has this number
UNHEARD_NS: Final = 15 * NS  # nobody takes a meter off a bus, or from behind a gateway, and connects another in less
MAX_TOLD: Final = 4  # of another model: it may have a measured value where the right one has its number

Tell = Callable[[str, int, str], None]  # point, quality, text


@dataclass(frozen=True, slots=True)
class _Question:
    """What is read to know a model, and what its answer must be."""

    point: Point
    expected: Expected
    blocks: tuple[Block, ...]


class Proven:
    """The reads of one device, none answered before it has shown its model; a Reader.

    It shows it again on every new connection, after anything but an answer, and where it was not asked for a while:
    another meter may stand there by then.
    tell  is told once when another model is found, again when it says something else, and when the right one is back
    """

    def __init__(self, link: Link, device: Device, clock: Clock, tell: Tell) -> None:
        points = {point.name: point for point in device.points}
        self._link = link
        self._device = device
        self._clock = clock
        self._tell = tell
        self._questions = [_question(device, points[expected.point], expected) for expected in device.expect]
        self._connection = NEVER  # on which it was shown
        self._heard_ns = 0
        self._told: list[str] = []

    async def read(self, unit: int, block: Block) -> bytes:
        """Return the payload of `unit`, as a link does; raises a DriverError leaf."""
        link = self._link
        is_same = link.state == "up" and self._connection == link.counters.dials
        if not is_same or self._clock.monotonic_ns() - self._heard_ns > UNHEARD_NS:
            await self._prove(unit)
        try:
            payload = await link.read(unit, block)
        except DriverError:
            self._connection = NEVER
            raise
        self._heard_ns = self._clock.monotonic_ns()
        return payload

    async def _prove(self, unit: int) -> None:
        """Ask who is there; raises UnexpectedModel, and whatever keeps it from being known."""
        self._connection = NEVER
        for question in self._questions:
            if found := await self._unlike(unit, question):
                name, profile = self._device.name, self._device.profile
                wanted = f"wanted {question.expected}: not the meter that profile {profile} describes"
                text = f"{name}: {question.point.name} {found}, {wanted}"
                if text not in self._told and len(self._told) < MAX_TOLD:
                    self._told.append(text)
                    self._tell(question.point.name, UnexpectedModel.quality, text)
                raise UnexpectedModel(text)
        self._connection = self._link.counters.dials
        if self._told:
            self._told.clear()
            name, profile = self._device.name, self._device.profile
            self._tell(self._questions[0].point.name, GOOD, f"{name}: is the meter that profile {profile} describes")

    async def _unlike(self, unit: int, question: _Question) -> str:
        """Return what a point says that no meter of the model does, in words; "" where it says what it must."""
        try:
            raw = b"".join([await self._link.read(unit, block) for block in question.blocks])
        except (IllegalAddress, IllegalFunction) as error:
            return f"is refused with {error}"
        except TargetAway:
            raise
        except DeviceException as error:
            raise Unidentified(f"{self._device.name}: {question.point.name}: {error}") from None
        found = served_value(question.point, raw)
        if question.expected.admits(found):
            return ""
        if found is None:
            return f"says that it has no value (0x{raw.hex()})"
        return f"holds {shown(found) if isinstance(found, str) else f'{found:.12g}'}"


def _question(device: Device, point: Point, expected: Expected) -> _Question:
    spot = spot_of(device, point)
    blocks = text_blocks(point, device.max_registers) if point.is_text else (spot.block(spot.end),)
    return _Question(point, expected, blocks)
