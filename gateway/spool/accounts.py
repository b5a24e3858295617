"""What became of every frame: held, damaged, acknowledged, wanted again. Asked by the loop and by the disk's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from gateway.model.ranges import RangeSet
from gateway.spool.spool import Why

_NOTHING = RangeSet()


class Accounts:
    """Sequence numbers by boot, as ranges.

    is_changed  acknowledgements that the cursor on the disk does not have
    """

    def __init__(self) -> None:
        self.is_changed = False
        self._guard = threading.RLock()
        self._held: dict[int, RangeSet] = {}
        self._damaged: dict[int, RangeSet] = {}
        self._acked: dict[int, RangeSet] = {}
        self._again: dict[int, RangeSet] = {}  # acknowledged once, and wanted again

    def open(self, held: Iterable[tuple[int, int, int]]) -> None:
        """Begin with what a folder holds: (boot, first, last); acknowledgements stay."""
        with self._guard:
            self._held, self._damaged = {}, {}
            for boot, first, last in held:
                self._held.setdefault(boot, RangeSet()).add(first, last)

    def take_cursor(self, acked: dict[int, RangeSet], again: dict[int, RangeSet]) -> None:
        """Add the acknowledgements that the disk remembers."""
        with self._guard:
            for mine, found in ((self._acked, acked), (self._again, again)):
                for boot, ranges in found.items():
                    for span in ranges:
                        mine.setdefault(boot, RangeSet()).add(*span)

    def cursor(self) -> tuple[dict[int, RangeSet], dict[int, RangeSet]]:
        """Return the acknowledgements as the disk is to remember them."""
        with self._guard:
            self.is_changed = False
            return _copy(self._acked), _copy(self._again)

    @property
    def newest_boot(self) -> int:
        """The highest boot number that is known."""
        with self._guard:
            return max((0, *self._held, *self._acked))

    def hold(self, boot: int, first: int, last: int) -> None:
        """Take note that frames are on the disk."""
        with self._guard:
            self._held.setdefault(boot, RangeSet()).add(first, last)

    def damage(self, boot: int, first: int, last: int) -> None:
        """Take note that frames can never be read again: nobody waits for them any more."""
        with self._guard:
            self._damaged.setdefault(boot, RangeSet()).add(first, last)
            self.ack(boot, first, last)

    def ack(self, boot: int, first: int, last: int) -> None:
        """Take note that the broker has frames."""
        with self._guard:
            self._acked.setdefault(boot, RangeSet()).add(first, last)
            if boot in self._again:
                self._again[boot].discard(first, last)
            self.is_changed = True

    def reopen(self, boot: int, wanted: RangeSet) -> RangeSet:
        """Take the acknowledgement of frames back that are held; returns which."""
        with self._guard:
            found = self.readable(boot).common(wanted)
            for first, last in found.common(self._acked.get(boot, _NOTHING)):
                self._acked[boot].discard(first, last)
                self._again.setdefault(boot, RangeSet()).add(first, last)
            self.is_changed = True
            return found

    def readable(self, boot: int) -> RangeSet:
        """Return the frames of a boot that are held and not known to be damaged."""
        with self._guard:
            return self._damaged.get(boot, _NOTHING).missing_from(self._held.get(boot, _NOTHING))

    def is_acked(self, boot: int, seq: int) -> bool:
        """Return whether the broker has a frame."""
        with self._guard:
            return seq in self._acked.get(boot, _NOTHING)

    def are_acked(self, boot: int, first: int, last: int) -> bool:
        """Return whether the broker has all of these frames."""
        with self._guard:
            return self._acked.get(boot, _NOTHING).covers(first, last)

    def unacked(self, boot: int, first: int, last: int) -> RangeSet:
        """Return which of these frames the broker has not."""
        with self._guard:
            return self._acked.get(boot, _NOTHING).missing_from(RangeSet([(first, last)]))

    def unheard(self, boot: int, first: int, last: int) -> RangeSet:
        """Return which of these frames the broker never had."""
        with self._guard:
            return self._again.get(boot, _NOTHING).missing_from(self.unacked(boot, first, last))

    @property
    def unsent(self) -> int:
        """How many frames are held that the broker has not."""
        with self._guard:
            acked = [self._acked.get(boot, _NOTHING).count(*span) for boot, held in self._held.items() for span in held]
            return sum(held.total for held in self._held.values()) - sum(acked)

    def spans(self) -> dict[int, tuple[int, int]]:
        """Return the first and last frame held of every boot."""
        with self._guard:
            ends = {boot: list(held) for boot, held in sorted(self._held.items())}
        return {boot: (spans[0][0], spans[-1][1]) for boot, spans in ends.items() if spans}

    def delivered(self) -> dict[int, RangeSet]:
        """Return which frames of every boot still held the broker has."""
        with self._guard:
            return _copy(
                {boot: self._acked[boot] for boot in sorted(self._held) if self._held[boot] and boot in self._acked}
            )

    def forget(self, boot: int, below: int) -> None:
        """Let go of what lies below a frame: its segment is gone."""
        with self._guard:
            for ranges in (self._held, self._acked, self._again, self._damaged):
                if boot in ranges:
                    ranges[boot].discard_below(below)

    def forget_boots(self, but: int) -> list[int]:
        """Let go of boots of which nothing is held any more, and return them."""
        with self._guard:
            gone = [boot for boot, held in self._held.items() if not held and boot != but]
            for boot in gone:
                for ranges in (self._held, self._acked, self._again, self._damaged):
                    ranges.pop(boot, None)
            return gone


def why_not(
    wanted: RangeSet, held: RangeSet, lost: RangeSet, *, has_dropped: bool, is_over: bool
) -> dict[Why, RangeSet]:
    """Return why frames of a boot cannot be sent: by where they stand beside those that are held.

    lost         frames that no segment ever had
    has_dropped  whether the spool ever dropped a segment;  is_over  whether the boot is not the one that runs
    """
    out: dict[Why, RangeSet] = {}

    def add(why: Why, first: int, last: int) -> None:
        if first <= last:
            out.setdefault(why, RangeSet()).add(first, last)

    spans = list(held)
    for first, last in lost.common(wanted):
        add("dropped", first, last)
    for first, last in lost.missing_from(wanted):
        low, high = (spans[0][0], spans[-1][1]) if spans else (first, first - 1)
        if not spans and has_dropped and is_over:
            low = last + 1
        add("dropped" if has_dropped else "damaged", first, min(last, low - 1))
        add("damaged", max(first, low), min(last, high))
        add("uncommitted", max(first, high + 1, low), last)
    return out


def _copy(ranges: dict[int, RangeSet]) -> dict[int, RangeSet]:
    return {boot: RangeSet(each) for boot, each in ranges.items()}
