"""A spool that forgets: the same contract in memory, for benches and for tests of what stands around a spool."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from gateway.model.frame import Frame
from gateway.model.ranges import RangeSet
from gateway.spool.record import Block, SpooledFrame
from gateway.spool.spool import Absent, Drop, Edition, Position, SpoolStatistics, Unsent, Why
from gateway.wire.frame_lines import ScanText

VALUE_BYTES: Final = 12  # float64 and quality


class MemorySpool:
    """Frames in a bounded ring; the oldest go first and are counted."""

    def __init__(self, max_bytes: int, catalog: str, texts: Sequence[ScanText]) -> None:
        self.boot = 1
        self.next_seq = 1
        self.absent = Absent()
        self.committed_ns = 0
        self.at_turn: Callable[[], None] = lambda: None
        self._max_bytes = max_bytes
        self._editions = [Edition(1, catalog, tuple(texts))]
        self._frames: OrderedDict[int, SpooledFrame] = OrderedDict()
        self._bytes = 0
        self._acked = RangeSet()
        self._dropped = 0
        self._dropped_values = 0

    def append(self, frame: Frame) -> None:
        """Take a frame whose seq is next_seq."""
        if frame.seq != self.next_seq:
            raise ValueError(f"frame {frame.seq} out of order, wanted {self.next_seq}")
        self.next_seq += 1
        held = SpooledFrame.of(frame)
        self.committed_ns = frame.time_ns
        self.absent.add(self._editions[-1].texts[held.scan], held)
        self._frames[frame.seq] = held
        self._bytes += VALUE_BYTES * held.value.size
        while self._bytes > self._max_bytes:
            _, lost = self._frames.popitem(last=False)
            self._bytes -= VALUE_BYTES * lost.value.size
            if lost.seq not in self._acked:
                self._dropped += 1
                self._dropped_values += lost.n_good

    def turn_to(self, catalog: str, texts: Sequence[ScanText], max_bytes: int) -> None:
        """Take frames of another configuration from next_seq on; what memory may hold is no matter of `max_bytes`."""
        first = next(iter(self._frames), self.next_seq)
        while len(self._editions) > 1 and self._editions[1].first_seq <= first:
            del self._editions[0]
        self._editions.append(Edition(self.next_seq, catalog, tuple(texts)))

    def _edition(self, seq: int) -> Edition:
        return next(each for each in reversed(self._editions) if each.first_seq <= seq)

    def attach(self, memo: bytes) -> None:
        """Forget it: nothing of this outlives a restart."""

    def attached(self) -> list[bytes]:
        """Return nothing."""
        return []

    async def commit(self) -> None:
        """Do nothing: memory is as durable as it will ever be."""

    async def tidy(self) -> None:
        """Do nothing."""

    def ack(self, boot: int, first: int, last: int) -> None:
        """Take note that the broker has these frames."""
        if boot == self.boot:
            self._acked.add(first, last)

    def is_acked(self, boot: int, seq: int) -> bool:
        """Return whether the broker has this frame."""
        return boot == self.boot and seq in self._acked

    def reopen(self, boot: int, wanted: RangeSet) -> tuple[RangeSet, dict[Why, RangeSet]]:
        """Put frames into the backlog again."""
        held = RangeSet(self.boots().values()) if boot == self.boot else RangeSet()
        found = held.common(wanted)
        for first, last in found:
            self._acked.discard(first, last)
        gone = found.missing_from(wanted)
        return found, {"dropped": gone} if gone else {}

    async def unsent(self, after: Position, but: Callable[[int], RangeSet]) -> Unsent | None:
        """Return the next unacknowledged frame behind `after`, as a batch of one."""
        if self._frames:
            first = max(after[1] + 1, next(iter(self._frames)))
            for seq in range(first, self.next_seq):
                if seq not in self._acked and seq not in but(self.boot):
                    edition = self._edition(seq)
                    return Unsent(
                        (0, seq),
                        self.boot,
                        edition.catalog,
                        edition.texts,
                        Block.of([self._frames[seq]]),
                        RangeSet([(seq, seq)]),
                    )
        return None

    def end(self) -> Position:
        """Return where the backlog ends now."""
        return (0, self.next_seq - 1)

    def boots(self) -> dict[int, tuple[int, int]]:
        """Return the range held."""
        return {self.boot: (next(iter(self._frames)), self.next_seq - 1)} if self._frames else {}

    def delivered(self) -> dict[int, RangeSet]:
        """Return which frames the broker has."""
        return {self.boot: RangeSet(self._acked)} if self._acked else {}

    def dropped(self) -> Drop | None:
        """Return nothing: the counters say it."""
        return None

    def statistics(self) -> SpoolStatistics:
        """Return what it holds and has lost."""
        unsent = [seq for seq in self._frames if seq not in self._acked]
        return SpoolStatistics(
            bytes=self._bytes,
            oldest_ns=self._frames[unsent[0]].time_ns if unsent else None,
            unsent=len(unsent),
            dropped=self._dropped,
            dropped_values=self._dropped_values,
        )

    async def close(self) -> None:
        """Nothing to give back."""
