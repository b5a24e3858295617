"""The reads of one device, for whichever of its scans fall due together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import Final

import numpy as np

from drivers.link import LinkSpec
from gateway.acquire.cost import cost_of
from gateway.acquire.cover import Rules, cover, merged
from gateway.acquire.space import Shore, Space, Spot, limit_of, spot_of, width_of
from gateway.model.clock import NS
from gateway.model.corridor import Device
from gateway.model.frame import Read, Scan

MAX_EXACT: Final = 8  # periods of one device whose meetings are counted: 256 due-sets; one beyond counts as read alone
MAX_KEPT: Final = 256  # due-sets kept: more only happen to a device of many periods that is always late


@dataclass(frozen=True, slots=True)
class Due:
    """Scans of one device that fall due together, and how they are read: one optimal plan over all their points.

    reads    what is asked, in this order; those with side effects last
    refused  what would be refused: not asked, but its tags keep that quality
    bus_s    bus time of the reads
    """

    scans: tuple[Scan, ...]
    reads: tuple[Read, ...]
    refused: tuple[Read, ...]
    bus_s: float


class DevicePlan:
    """What one device is asked; a due-set is a bit mask over `scans`, and planned when it is first needed."""

    def __init__(
        self, number: int, device: Device, link: LinkSpec, scans: Sequence[Scan], spots: Sequence[Spot], shore: Shore
    ) -> None:
        self.number = number
        self.device = device
        self.link = link
        self.scans = tuple(scans)
        self.all_scans = (1 << len(scans)) - 1
        self._spots = sorted(spots, key=lambda s: (s.space, s.start, s.end))
        self._shore = shore
        self._once = {spot_of(device, point).place for point in device.side_effects}
        self._dues: dict[int, Due] = {}
        self._rules: dict[Space, Rules] = {}
        self._learn()

    def _learn(self) -> None:
        """Work out the rules of every space, and forget the plans made under other ones."""
        self._dues.clear()
        self.cost = cost_of(self.link)
        for space, members in groupby(self._spots, lambda s: s.space):
            closed = [span for of, span in self._once if of == space]
            defined = merged((s.start, s.end) for s in members)
            limit = limit_of(space, self.device.max_registers, self.device.max_bits)
            self._rules[space] = Rules(limit, self.device.max_gap, defined, merged(closed))

    def due(self, mask: int) -> Due:
        """Return the plan of the scans in a mask."""
        found = self._dues.get(mask)
        if found is None:
            if len(self._dues) >= MAX_KEPT:
                self._dues.clear()
            found = self._dues[mask] = self._plan(mask)
        return found

    def rates(self) -> dict[int, float]:
        """Return how often each due-set happens, 1/s; sets of scans with a period above 0 only.

        All scans meet at one moment, so a set S falls due together at 1 / lcm(S); what of that is due to larger sets is
        taken off. Beyond the MAX_EXACT fastest periods a scan counts as read alone, which is the most it can cost.
        """
        timed = [i for i, scan in enumerate(self.scans) if scan.period_s]
        exact = timed[:MAX_EXACT]
        masks = [sum(1 << i for k, i in enumerate(exact) if chosen >> k & 1) for chosen in range(1, 1 << len(exact))]
        left = {mask: Fraction(NS, math.lcm(*(p for p in self._periods_ns(mask)))) for mask in masks}
        for i in exact:
            for mask in masks:
                if not mask >> i & 1:
                    left[mask] -= left[mask | 1 << i]
        alone = {1 << i: 1 / self.scans[i].period_s for i in timed[MAX_EXACT:]}
        return {**{mask: float(rate) for mask, rate in left.items() if rate}, **alone}

    def _periods_ns(self, mask: int) -> Iterable[int]:
        return (round(scan.period_s * NS) for i, scan in enumerate(self.scans) if mask >> i & 1)

    def _plan(self, mask: int) -> Due:
        spots = [spot for spot in self._spots if mask >> spot.scan & 1]
        once = [spot for spot in spots if spot.place in self._once]
        reads: list[Read] = []
        refused: list[Read] = []
        for space, members in groupby(spots, lambda s: s.space):
            rules = self._rules[space]
            rest = [spot for spot in members if spot.place not in self._once]
            asked = [spot for spot in rest if rules.may_read(spot.start, spot.end)]
            reads += self._cheapest(space, asked, rules)
            refused += [self.read_of([spot]) for spot in rest if not rules.may_read(spot.start, spot.end)]
        for _, same in groupby(once, lambda s: s.place):
            reads.append(self.read_of(list(same), is_once=True))
        scans = tuple(scan for i, scan in enumerate(self.scans) if mask >> i & 1)
        return Due(scans, tuple(reads), tuple(refused), sum(self.cost.read_s(read.block) for read in reads))

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
        return Read(self.number, block, at, end, rows, is_once)
