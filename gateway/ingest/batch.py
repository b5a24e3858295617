"""A batch: the lines of many messages side by side, and which frame of which message each one is."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.ingest.check import Checked, check
from gateway.ingest.dead_letters import Letter
from gateway.ingest.inbox import Delivery
from gateway.ingest.ledger import Entry
from gateway.wire import topics
from gateway.wire.lines import PayloadError, as_ranges


@dataclass(slots=True)
class Part:
    """One message's share of a batch: lines[first : first + len(checked.lines)]."""

    topic: str
    gateway: str
    checked: Checked
    first: int
    parked: list[int]


@dataclass(slots=True)
class Batch:
    """What goes to the store in one write, and what must be parked instead."""

    lines: list[bytes] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    def refuse(self, poison: list[tuple[int, str]], now_ns: int) -> None:
        """Park lines by index, with the store's reason."""
        parts = iter(self.parts)
        part = next(parts, None)
        for i, reason in poison:
            while part and i >= part.first + len(part.checked.lines):
                part = next(parts, None)
            if part is None:
                raise IndexError(f"line {i} of {len(self.lines)}")
            part.parked.append(part.checked.seqs[i - part.first])
            self.letters.append(Letter(now_ns, part.topic, reason, self.lines[i]))

    def entries(self) -> list[Entry]:
        """Return every frame of the batch for the ledger."""
        return [_entry(part) for part in self.parts]


def collect(deliveries: list[Delivery], now_ns: int) -> Batch:
    """Return the batch of these messages; what fails the check is among the letters already."""
    batch = Batch()
    for delivery in deliveries:
        address = topics.parse(delivery.topic)
        try:
            if address is None:
                raise PayloadError("not a topic of ours")
            checked = check(address, delivery.payload, now_ns)
        except PayloadError as error:
            batch.letters.append(Letter(now_ns, delivery.topic, str(error), delivery.payload))
            continue
        part = Part(delivery.topic, address.address.gateway, checked, len(batch.lines), [])
        for seq, line, reason in checked.refused:
            part.parked.append(seq)
            batch.letters.append(Letter(now_ns, delivery.topic, reason, line))
        batch.lines += checked.lines
        batch.parts.append(part)
    return batch


def _entry(part: Part) -> Entry:
    header = part.checked.header
    mark = (part.checked.seqs[-1], int(part.checked.lines[-1].rpartition(b" ")[2])) if part.checked.seqs else None
    if not part.parked:
        return Entry(part.gateway, header.boot, [*header.seq, *header.empty], [], mark)
    parked = set(part.parked)
    stored = as_ranges(seq for seq in part.checked.seqs if seq not in parked)
    return Entry(part.gateway, header.boot, [*stored, *header.empty], as_ranges(sorted(parked)), mark)
