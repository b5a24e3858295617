"""Tags that a meter shows side by side because an installer has put them into its scan list; nothing is written here.

    list unknown (at the start, after the meter was away)   the tags are read directly, then the list
    list known, and it saves bus time                       the entries used are read again, the values, the entries
        both as the plan was made for                       the values count
        other ones                                          the tags are read directly, then the whole list
    values or list refused, or not answered                 the tags are read directly for the rest of the run

The entries on both sides of the values prove what they are: whoever changes the list before or while they are read is
found out, also who puts it back later. So they are never one read, in which the meter could take the list before the
values; and a list that was just seen is not used before the next poll, by when the meter shows what it says. Who
changes it behind the first and puts it back before the last of three reads that follow each other is not found out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from drivers.blocks import Block
from drivers.errors import SILENCES, DriverError, IllegalAddress, IllegalFunction, NoAnswer
from drivers.link import Reader
from drivers.points import READ_CODES, ScanList
from gateway.acquire.device import DevicePlan, Due
from gateway.acquire.sink import Sink
from gateway.model.frame import Read

REGISTER_BYTES: Final = 2
MAX_ENTRY: Final = 0xFFFF
MAX_UNANSWERED: Final = 2  # reads of list or values in a row; one that is lost is noise
NO_ROWS: Final = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Shortcut:
    """How a due-set is read by way of the scan list.

    values  the read of what the list shows
    proof   the read of the entries that it shows, and what they must be
    listed  a read per tag, or tags of the same registers, as if it were asked directly, and its first byte in `values`
    rest    how everything else is read
    bus_s   bus time of all of it, both proofs included
    """

    values: Block
    proof: Block
    entries: tuple[int, ...]
    listed: tuple[tuple[Read, int], ...]
    rest: Due
    bus_s: float

    @property
    def n_reads(self) -> int:
        """How many reads it takes: of the values between two proofs, and of the rest."""
        return 3 + len(self.rest.reads)


def shortcut_of(plan: DevicePlan, area: ScanList, mask: int, entries: Sequence[int]) -> Shortcut | None:
    """Return how to read a due-set of a device whose list says this; None where that costs no less than without.

    entries  what the registers of the list hold
    """
    slots = {entry - area.base: k for k, entry in enumerate(entries) if entry}
    space = READ_CODES[area.function], REGISTER_BYTES
    found = {start: spots for start in slots if (spots := plan.alone_at(mask, space, start, area.step))}
    if not found:
        return None
    used = [slots[start] for start in found]
    first, end = min(used), max(used) + 1
    values = Block(space[0], area.values + first * area.step, (end - first) * area.step)
    if area.step == 1:  # two reads of one size, without ids, want a fence
        first, end = (first, end + 1) if end < area.count else (max(first - 1, 0), end)
    proof = Block(space[0], area.start + first, end - first)
    rest = plan.due_without(mask, frozenset(spot.row for spots in found.values() for spot in spots))
    bus_s = plan.cost.read_s(values) + 2 * plan.cost.read_s(proof) + rest.bus_s
    if not plan.may_ask(values) or bus_s >= plan.due(mask).bus_s:
        return None
    at = {start: (slots[start] - min(used)) * area.step * REGISTER_BYTES for start in found}
    listed = tuple((plan.read_of(spots), at[start]) for start, spots in found.items())
    return Shortcut(values, proof, tuple(entries[first:end]), listed, rest, bus_s)


def list_of(area: ScanList) -> Block:
    """Return the read of a scan list."""
    return Block(READ_CODES[area.function], area.start, area.count)


def advice(plan: DevicePlan, area: ScanList) -> tuple[tuple[int, ...], Shortcut] | None:
    """Return the entries that would save most when all scans are due, and how they would be read; None if none would.

    Tags that share their read with the fewest others come first.
    """
    mask, space = plan.all_scans, (READ_CODES[area.function], REGISTER_BYTES)
    if not plan.may_ask(list_of(area)):
        return None
    reads = [read for read in plan.due(mask).reads if (read.block.function, read.block.item_bytes) == space]
    starts = [start for read in sorted(reads, key=_loneliness) for start in plan.starts(read)]
    entries = [start + area.base for start in starts if plan.alone_at(mask, space, start, area.step)]
    entries = [entry for entry in entries if 0 < entry <= MAX_ENTRY][: area.count]
    tried = [(tuple(entries[:n]), shortcut_of(plan, area, mask, entries[:n])) for n in range(1, len(entries) + 1)]
    found = [(given, shortcut) for given, shortcut in tried if shortcut]
    return min(found, key=lambda one: one[1].bus_s, default=None)


def _loneliness(read: Read) -> tuple[int, int]:
    return len(read.rows), read.block.start


class Listed:
    """What one device shows by its scan list, as the list was when all of it was last read."""

    def __init__(self, plan: DevicePlan, area: ScanList, reader: Reader) -> None:
        self._plan = plan
        self._area = area
        self._reader = reader
        self._entries: tuple[int, ...] | None = None
        self._is_refused = not plan.may_ask(list_of(area))
        self._unanswered = 0  # since the list was last of use
        self._shortcuts: dict[int, Shortcut | None] = {}
        self._learnt = plan.learnt

    @property
    def is_wanted(self) -> bool:
        """Whether the list is to be read: it is not known, and the device has not refused it."""
        return self._entries is None and not self._is_refused

    def forget(self) -> None:
        """Take note that the device was away: what it lists now is not known."""
        self._entries = None

    async def look(self) -> None:
        """Read the list of a device that has just answered something else."""
        try:
            payload = await self._reader.read(self._plan.device.unit, list_of(self._area))
        except DriverError as error:
            self._fail(error)
        else:
            self._entries = _entries_in(payload)
            self._shortcuts.clear()

    async def bring(self, due: Due, sink: Sink, answered: list[Read]) -> tuple[Due, list[Read]]:
        """Bring what the list shows of a due-set; returns how the rest is read, and a read per place that was brought.

        What the device is known to refuse when it is asked directly has none: it cannot be read again.
        answered  is given what was really asked and answered, which serves no rows
        Raises one of SILENCES; whatever else fails leaves everything to be read directly.
        """
        shortcut = self._shortcut(due.mask)
        if shortcut is None:
            return due, []
        try:
            is_proven = await self._is_proven(shortcut)
            answered.append(self._answered(shortcut.proof))
            if not is_proven:
                return due, []
            values = await self._reader.read(self._plan.device.unit, shortcut.values)
            answered.append(self._answered(shortcut.values))
            is_proven = await self._is_proven(shortcut)
        except SILENCES as error:
            self._fail(error)
            raise
        except DriverError as error:
            self._fail(error)
            return due, []
        self._unanswered = 0
        if not is_proven:
            return due, []
        for read, at in shortcut.listed:
            sink.put(read, values[at : at + read.block.n_bytes])
        return shortcut.rest, [read for read, _ in shortcut.listed if self._plan.may_ask(read.block)]

    def _answered(self, block: Block) -> Read:
        return Read(self._plan.number, block, 0, 0, NO_ROWS)

    def _shortcut(self, mask: int) -> Shortcut | None:
        """Return how a due-set is read with the list as it is known."""
        if self._entries is None:
            return None
        if self._plan.learnt is not self._learnt:
            self._learnt = self._plan.learnt
            self._shortcuts.clear()
        if mask not in self._shortcuts:
            self._shortcuts[mask] = shortcut_of(self._plan, self._area, mask, self._entries)
        return self._shortcuts[mask]

    async def _is_proven(self, shortcut: Shortcut) -> bool:
        """Return whether the meter still lists what this was planned for; if not, the list is not known any more."""
        found = _entries_in(await self._reader.read(self._plan.device.unit, shortcut.proof))
        if found != shortcut.entries:
            self._entries = None
        return found == shortcut.entries

    def _fail(self, error: DriverError) -> None:
        """Do without the list from now on where the device refuses it, or answers everything but that."""
        self._unanswered += isinstance(error, NoAnswer)
        if isinstance(error, IllegalAddress | IllegalFunction) or self._unanswered >= MAX_UNANSWERED:
            self._is_refused, self._entries = True, None


def _entries_in(payload: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(payload) // REGISTER_BYTES}H", payload)
