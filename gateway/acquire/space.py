"""Points on the line of addresses, and where the answers of a device lie in the image."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from drivers.blocks import Block
from drivers.points import Point
from drivers.profile import ENRON_TYPES
from gateway.model.corridor import Device

Space = tuple[int, int]  # function code, bytes that one address answers with (0: a bit)
Span = tuple[int, int]  # [start, end) in addresses
Place = tuple[Space, Span]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one point stands: [start, end) in the addresses of its space; `row` in the table, `scan` of its device."""

    space: Space
    start: int
    end: int
    row: int = -1
    scan: int = 0

    @property
    def place(self) -> Place:
        """What it takes of the device; points of one place are one read."""
        return self.space, (self.start, self.end)

    def block(self, end: int) -> Block:
        """Return the read from here to before `end`."""
        function, item = self.space
        return Block(function, self.start, end - self.start, item)


def spot_of(device: Device, point: Point, row: int = -1, scan: int = 0) -> Spot:
    """Return where a point of a device stands."""
    item = 0 if point.is_bit else 4 if device.enron and point.type in ENRON_TYPES else 2
    n = point.n_registers if item == 2 else 1
    return Spot((point.read_code, item), point.address, point.address + n, row, scan)


def limit_of(space: Space, max_registers: int, max_bits: int) -> int:
    """Return the addresses of the largest read in a space."""
    _, item = space
    return max_registers * 2 // item if item else max_bits


def width_of(space: Space) -> int:
    """Return the bytes of the image that one address takes; a bit has a byte of its own."""
    return space[1] or 1


@dataclass(frozen=True, slots=True)
class _Island:
    start: int
    end: int
    at: int


class Shore:
    """The image of one device: its points form islands, so that any answer fits in its place by its address.

    A new island begins where no legal read can span from one point to the next; so the image stays small. What the
    device has refused never moves it.
    """

    def __init__(self, device: Device, spots: Iterable[Spot], first_byte: int) -> None:
        self._islands: dict[Space, list[_Island]] = {}
        self.end = first_byte
        spaces: dict[Space, list[Spot]] = {}
        for spot in sorted(spots, key=lambda s: (s.start, s.end)):
            spaces.setdefault(spot.space, []).append(spot)
        for space, members in sorted(spaces.items()):
            limit = limit_of(space, device.max_registers, device.max_bits)
            reach = min(device.max_gap, limit - 2)  # a read has a point at each end
            self._islands[space] = self._raise(space, members, reach)

    def _raise(self, space: Space, spots: list[Spot], reach: int) -> list[_Island]:
        out: list[_Island] = []
        start, end = spots[0].start, spots[0].end
        for spot in [*spots[1:], None]:
            if spot is None or spot.start - end > reach:
                out.append(_Island(start, end, self.end))
                self.end += (end - start) * width_of(space)
                if spot is None:
                    return out
                start, end = spot.start, spot.end
            end = max(end, spot.end)
        return out

    def at(self, space: Space, address: int) -> int:
        """Return the byte of the image where an address stands; it lies on an island."""
        islands = self._islands[space]
        island = islands[bisect_right(islands, address, key=lambda found: found.start) - 1]
        return island.at + (address - island.start) * width_of(space)
