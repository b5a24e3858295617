"""The reads of one device, for whichever of its scans fall due together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from drivers.blocks import Block
from drivers.link import LinkSpec
from drivers.points import READ_CODES, Hole
from gateway.acquire.cost import cost_of
from gateway.acquire.cover import Rules, cover, merged
from gateway.acquire.memory import Learnt, Memory
from gateway.acquire.space import Shore, Space, Spot, limit_of, spot_of, width_of
from gateway.model.clock import NS
from gateway.model.corridor import Device
from gateway.model.frame import Read, Scan

MAX_EXACT: Final = 8  # periods of one device whose meetings are counted: 256 due-sets; one beyond counts as read alone
MAX_KEPT: Final = 256  # due-sets kept: more only happen to a device of many periods that is always late


@dataclass(frozen=True, slots=True)
class Due:
    """Scans of one device that fall due together, and how they are read: one optimal plan over all their points.

    mask     which of the device's scans they are, a bit each
    reads    what is asked, in this order; those with side effects last
    refused  what would be refused: not asked, but its tags keep that quality
    bus_s    bus time of the reads
    """

    mask: int
    scans: tuple[Scan, ...]
    reads: tuple[Read, ...]
    refused: tuple[Read, ...]
    bus_s: float


def rates_of(periods_s: Sequence[float]) -> dict[int, float]:
    """Return how often each set of a device's scans falls due, 1/s, by their periods; one that never does is left out.

    All scans meet at one moment, so a set S falls due together at 1 / lcm(S); what of that is due to larger sets is
    taken off. Beyond the first MAX_EXACT a scan counts as read alone, which is the most it can cost. Flat-out scans,
    of period 0, are in no set.
    """
    timed = [i for i, period_s in enumerate(periods_s) if period_s]
    exact = timed[:MAX_EXACT]
    period_ns = {1 << i: round(periods_s[i] * NS) for i in exact}
    cycle_ns = math.lcm(*period_ns.values())
    lcm = {0: 1}
    for bit, each in period_ns.items():
        lcm |= {mask | bit: math.lcm(each, so_far) for mask, so_far in lcm.items()}
    times = {mask: cycle_ns // each for mask, each in lcm.items() if mask}  # in one cycle
    for bit in period_ns:
        for mask in times:
            if not mask & bit:
                times[mask] -= times[mask | bit]
    alone = {1 << i: 1 / periods_s[i] for i in timed[MAX_EXACT:]}
    return {**{mask: n * NS / cycle_ns for mask, n in times.items() if n}, **alone}


class DevicePlan:
    """What one device is asked; a due-set is a bit mask over `scans`, and planned when it is first needed.

    learnt  what the device has taught, as it stands in the memory; every plan heeds it
    """

    def __init__(
        self,
        number: int,
        device: Device,
        link: LinkSpec,
        scans: Sequence[Scan],
        spots: Sequence[Spot],
        shore: Shore,
        memory: Memory,
    ) -> None:
        self.number = number
        self.device = device
        self.link = link
        self._link_numbers_requests = link.transport in ("tcp", "tls")
        self.scans = tuple(scans)
        self.all_scans = (1 << len(scans)) - 1
        self._spots = sorted(spots, key=lambda s: (s.space, s.start, s.end))
        self._shore = shore
        self._memory = memory
        self._once = {spot_of(device, point).place for point in device.side_effects}
        self._dues: dict[int, Due] = {}
        self._renew()
        memory.on_change(device.name, self._renew)

    def _renew(self) -> None:
        """Take what is known of the device now, and forget the plans made without it."""
        self._dues.clear()
        self.learnt = self._memory.of(self.device.name)
        self.cost = cost_of(self.link, self.learnt.turnaround_s)
        self._rules = self._rules_for(self.learnt)

    def _rules_for(self, learnt: Learnt) -> dict[Space, Rules]:
        device, out = self.device, {}
        max_registers = min(device.max_registers, learnt.max_registers or device.max_registers)
        max_bits = min(device.max_bits, learnt.max_bits or device.max_bits)
        for space, members in groupby(self._spots, lambda s: s.space):
            closed = [span for of, span in self._once if of == space]
            closed += [(hole.start, hole.end) for hole in device.holes if READ_CODES[hole.function] == space[0]]
            refused = tuple((hole.start, hole.end) for hole in learnt.refused if READ_CODES[hole.function] == space[0])
            defined = merged((s.start, s.end) for s in members)
            limit = limit_of(space, max_registers, max_bits)
            out[space] = Rules(limit, device.max_gap, defined, merged(closed), refused)
        return out

    def adopt(self, memory: Memory) -> None:
        """Keep what the device teaches in this memory from now on."""
        self._memory = memory
        memory.on_change(self.device.name, self._renew)
        if memory.of(self.device.name) != self.learnt:
            self._renew()

    def learn(self, learnt: Learnt) -> None:
        """Keep what the device has taught; the next plan heeds it."""
        self._memory.keep(self.device.name, learnt)

    def holes(self) -> list[Hole]:
        """Return the registers that the device has refused, for its profile: those of tags that it answers are none."""
        good = {row for read in self.due(self.all_scans).reads for row in read.rows}
        spots = [spot for spot in self._spots if spot.row in good]
        out = []
        for hole in self.learnt.refused:
            mine = [s for s in spots if s.space[0] == READ_CODES[hole.function]]
            free = [a for a in range(hole.start, hole.end) if not any(s.start <= a < s.end for s in mine)]
            out += [Hole(hole.function, a, b - a) for a, b in merged((a, a + 1) for a in free)]
        return out

    def due(self, mask: int) -> Due:
        """Return the plan of the scans in a mask."""
        found = self._dues.get(mask)
        if found is None:
            if len(self._dues) >= MAX_KEPT:
                self._dues.clear()
            found = self._dues[mask] = self._plan(mask, self._rules)
        return found

    def due_without(self, mask: int, rows: frozenset[int]) -> Due:
        """Return the plan of the scans in a mask but for these rows."""
        return self._plan(mask, self._rules, rows)

    def due_with(self, learnt: Learnt) -> Due:
        """Return the plan of all scans together if only this were known."""
        return self._plan(self.all_scans, self._rules_for(learnt))

    def halves(self, read: Read) -> tuple[Read, ...]:
        """Return a read as two, each of half its tags; none where all its tags are of the same registers."""
        spots = self._spots_of(read)
        places = list(dict.fromkeys(spot.place for spot in spots))
        if len(places) < 2:
            return ()
        left = set(places[: len(places) // 2])
        return (
            self.read_of([spot for spot in spots if spot.place in left]),
            self.read_of([spot for spot in spots if spot.place not in left]),
        )

    def ends(self, read: Read) -> list[int]:
        """Return the addresses at which a tag of a read ends, ascending."""
        return sorted({spot.end for spot in self._spots_of(read)})

    def starts(self, read: Read) -> list[int]:
        """Return the addresses at which a tag of a read starts, ascending."""
        return sorted({spot.start for spot in self._spots_of(read)})

    def alone_at(self, mask: int, space: Space, start: int, most: int) -> list[Spot]:
        """Return the rows due of a mask that start at an address; they share no register with any other.

        None where they take more than `most` addresses, or change the device when they are read.
        """
        here = [spot for spot in self._spots if spot.space == space and spot.start == start]
        end = max((spot.end for spot in here), default=start)
        places = {spot.place for spot in self._spots if spot.space == space and spot.start < end and start < spot.end}
        if len(places) != 1 or end - start > most or not places.isdisjoint(self._once):
            return []
        return [spot for spot in here if mask >> spot.scan & 1]

    def may_ask(self, block: Block) -> bool:
        """Return whether a read is one that the device is known to let pass, as far as it is known."""
        rules = self._rules.get((block.function, block.item_bytes))
        return rules is not None and rules.reach(block.start) >= block.end

    def _spots_of(self, read: Read) -> list[Spot]:
        rows = set(read.rows.tolist())
        return [spot for spot in self._spots if spot.row in rows]

    def _plan(self, mask: int, all_rules: Mapping[Space, Rules], without: frozenset[int] = frozenset()) -> Due:
        spots = [spot for spot in self._spots if mask >> spot.scan & 1 and spot.row not in without]
        once = [spot for spot in spots if spot.place in self._once]
        reads: list[Read] = []
        refused: list[Read] = []
        for space, members in groupby(spots, lambda s: s.space):
            rules = all_rules[space]
            rest = [spot for spot in members if spot.place not in self._once]
            asked = [spot for spot in rest if rules.may_read(spot.start, spot.end)]
            reads += self._cheapest(space, asked, rules)
            refused += [self.read_of([spot]) for spot in rest if not rules.may_read(spot.start, spot.end)]
        if not self._link_numbers_requests:
            reads = _apart(reads)
        for _, same in groupby(once, lambda s: s.place):
            reads.append(self.read_of(list(same), is_once=True))
        scans = tuple(scan for i, scan in enumerate(self.scans) if mask >> i & 1)
        return Due(mask, scans, tuple(reads), tuple(refused), sum(self.cost.read_s(read.block) for read in reads))

    def _cheapest(self, space: Space, spots: Sequence[Spot], rules: Rules) -> list[Read]:
        if not spots:
            return []
        pairs = cover(tuple((spot.start, spot.end) for spot in spots), space, rules, self.cost)
        return [self.read_of(spots[i:j]) for i, j in pairs]

    def read_of(self, spots: Sequence[Spot], *, is_once: bool = False) -> Read:
        """Return the read that serves these rows, which are sorted by address, and nothing beyond them."""
        first = spots[0]
        block = first.block(max(spot.end for spot in spots))
        at = self._shore.at(first.space, first.start)
        end = at + block.count * width_of(first.space)
        rows = np.array([spot.row for spot in spots], np.int32)
        return Read(self.number, replace(block, is_once=is_once), at, end, rows)


def _apart(reads: Sequence[Read]) -> list[Read]:
    """Return the reads so that one does not follow another of the same shape where that can be helped.

    Without transaction ids the link puts a short read between two that a repeated answer could mix up.
    """
    out: list[Read] = []
    rest = list(reads)
    while rest:
        last = _shape(out[-1]) if out else None
        out.append(rest.pop(next((i for i, read in enumerate(rest) if _shape(read) != last), 0)))
    return out


def _shape(read: Read) -> tuple[int, int]:
    return read.block.function, read.block.n_bytes
