"""When and how a learnt fact is put to the test again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.blocks import Block
from gateway.acquire.device import DevicePlan
from gateway.acquire.memory import Learnt
from gateway.model.clock import NS

PROBE_NS: Final = 600 * NS  # ten minutes from when a fact was learnt, from its last test, and from the start
NEVER_NS: Final = 2**63  # later than any clock


@dataclass(frozen=True, slots=True)
class Probe:
    """A test: the read to try, and what is known when it is answered."""

    block: Block
    without: Learnt


class Probes:
    """The tests of one device; at most one at a time, so that a poll is never late by more than one read."""

    def __init__(self, plan: DevicePlan, now_ns: int) -> None:
        self._plan = plan
        self._due_ns: dict[Learnt, int] = {}  # of a single fact each
        self._learnt: Learnt | None = None
        self._at_ns = 0
        self._renew(now_ns)

    def is_due(self, now_ns: int) -> bool:
        """Return whether a fact is to be tested now; costs next to nothing, for it is asked after every poll."""
        if self._plan.learnt is not self._learnt:
            self._renew(now_ns)
        return now_ns >= self._at_ns

    def take(self, now_ns: int) -> Probe | None:
        """Return the test that is due; None where nothing that would be asked depends on the fact."""
        fact = min(self._due_ns, key=self._due_ns.__getitem__)
        self._due_ns[fact] = now_ns + PROBE_NS
        self._at_ns = min(self._due_ns.values())
        learnt = self._plan.learnt
        without = Learnt(
            tuple(hole for hole in learnt.refused if hole not in fact.refused),
            None if fact.max_registers else learnt.max_registers,
            None if fact.max_bits else learnt.max_bits,
            learnt.turnaround_s,
        )
        block = self._block(fact, without)
        return Probe(block, without) if block else None

    def _renew(self, now_ns: int) -> None:
        """Take the facts as they are now; what is known for longer keeps its time."""
        self._learnt = learnt = self._plan.learnt
        facts = [Learnt((hole,)) for hole in learnt.refused]
        facts += [Learnt(max_registers=learnt.max_registers)] if learnt.max_registers else []
        facts += [Learnt(max_bits=learnt.max_bits)] if learnt.max_bits else []
        self._due_ns = {fact: self._due_ns.get(fact, now_ns + PROBE_NS) for fact in facts}
        self._at_ns = min(self._due_ns.values(), default=NEVER_NS)

    def _block(self, fact: Learnt, without: Learnt) -> Block | None:
        """Return a read that a fact forbids and that would be asked without it.

        Of a hole the smallest, of a limit the largest.
        What a fact does not forbid is answered whether it still holds or not, and proves nothing.
        """
        plan = self._plan
        now, then = plan.due(plan.all_scans), plan.due_with(without)
        freed = {read.block for read in now.refused} - {read.block for read in then.refused}
        tests = [block for block in (*freed, *(read.block for read in then.reads)) if _forbids(fact, block)]
        return (min if fact.refused else max)(tests, key=lambda block: block.count, default=None)


def _forbids(fact: Learnt, block: Block) -> bool:
    if fact.refused:
        return fact.refused[0].lies_in(block)
    if block.item_bytes == 0:
        return fact.max_bits is not None and block.count > fact.max_bits
    return fact.max_registers is not None and block.n_bytes > 2 * fact.max_registers
