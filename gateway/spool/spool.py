"""The contract of every spool."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from drivers.quality import BAD, name_of
from gateway.model.frame import Frame
from gateway.model.ranges import RangeSet
from gateway.spool.record import Block, SpooledFrame
from gateway.wire.frame_lines import ScanText

SpoolState = Literal["ok", "full", "read_only", "failing"]
Position = tuple[int, int]  # segment number, batch in it: where a reader of the backlog stands
Why = Literal["uncommitted", "dropped", "damaged"]  # why a frame cannot be sent again
START: Position = (0, 0)
BOOT_SPREAD: Final = 1 << 20  # boxes without a clock start at one time again and again: one in a million meets


def improvised_boot(known: int) -> int:
    """Return a boot number above `known` that was not given before, where no disk remembers it: seconds, spread."""
    return max(known + 1, int(time.time())) + secrets.randbelow(BOOT_SPREAD)


@dataclass(slots=True)
class SpoolStatistics:
    """What the spool holds and has lost; dropped counts what went before any acknowledgement, since it was made.

    oldest_ns  Unix ns of the oldest frame that nobody has acknowledged, None where there is none
    written    bytes that were handed to the disk since the start, in whole pages; `prepared`, those of segments that
               were written ahead, once: they are used again and again
    """

    state: SpoolState = "ok"
    bytes: int = 0
    oldest_ns: int | None = None
    unsent: int = 0
    pending: int = 0
    dropped: int = 0
    dropped_values: int = 0
    damaged: int = 0
    written: int = 0
    prepared: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Edition:
    """How the frames from `first_seq` on are written; it changes with the configuration."""

    first_seq: int
    catalog: str
    texts: tuple[ScanText, ...]

    @property
    def decimals(self) -> list[NDArray[np.int8]]:
        """int8[rows] of each scan: how its values are scaled."""
        return [np.array(text.decimals, np.int8) for text in self.texts]


@dataclass(frozen=True, slots=True)
class Drop:
    """Frames that went before anybody had them: how many, their good values, and from when to when, Unix ns."""

    ranges: dict[int, RangeSet]
    frames: int
    values: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """Frames of one batch, in columns, and how their lines look; `wanted` are those that nobody has acknowledged."""

    position: Position
    boot: int
    catalog: str
    texts: tuple[ScanText, ...]
    block: Block
    wanted: RangeSet

    @property
    def frames(self) -> list[SpooledFrame]:
        """The wanted ones, one by one."""
        return [frame for frame in self.block.frames() if frame.seq in self.wanted]

    def by_device(self) -> dict[str, list[tuple[int, int, int]]]:
        """Return (seq, scan, row in that scan's cells) of the wanted ones of each device, in order."""
        first, scans = self.block.first_seq, self.block.columns[0]
        is_wanted = np.zeros(scans.size, bool)
        for low, high in self.wanted:
            is_wanted[max(0, low - first) : max(0, high - first + 1)] = True
        out: dict[str, list[tuple[int, int, int]]] = {}
        for scan in sorted(self.block.cells):
            at = np.flatnonzero(scans == scan)
            rows = np.flatnonzero(is_wanted[at])
            seqs = (at[rows] + first).tolist()
            found = out.setdefault(self.texts[scan].device, [])
            is_second = bool(found)
            found += [(seq, scan, row) for seq, row in zip(seqs, rows.tolist(), strict=True)]
            if is_second:
                found.sort()
        return out


class Absent:
    """Samples of this boot that never existed, by device and the name of the quality that says why.

    They are counted in the disk's thread.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._guard = threading.Lock()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Device -> quality -> how many."""
        with self._guard:
            return {device: dict(counts) for device, counts in self._counts.items()}

    def add(self, text: ScanText, frame: SpooledFrame) -> None:
        """Count the bad values of a frame."""
        codes, counts = np.unique(frame.quality[frame.quality & BAD != 0], return_counts=True)
        if not codes.size:
            return
        with self._guard:
            of_device = self._counts.setdefault(text.device, {})
            for code, n in zip(codes.tolist(), counts.tolist(), strict=True):
                name = name_of(code)
                of_device[name] = of_device.get(name, 0) + n


class Spool(Protocol):
    """A durable queue of frames with sequence numbers per boot."""

    boot: int
    next_seq: int
    absent: Absent
    committed_ns: int  # stamp of the last committed frame of this boot, 0 where there is none or it may still be moved
    at_turn: Callable[[], None]  # called, in any thread, before memos are forgotten: keep elsewhere what they say

    def append(self, frame: Frame) -> None:
        """Take a frame whose seq is next_seq; it is safe after the next commit."""
        ...

    def turn_to(self, catalog: str, texts: Sequence[ScanText], max_bytes: int) -> None:
        """Take frames of another configuration from next_seq on, and keep no more than max_bytes from now on."""
        ...

    def attach(self, memo: bytes) -> None:
        """Take bytes that become safe with the next commit, in the same write as its frames, until `at_turn`."""
        ...

    def attached(self) -> list[bytes]:
        """Return what was attached before the start and no `at_turn` has asked to keep elsewhere, in order; once."""
        ...

    async def commit(self) -> None:
        """Make everything appended and attached so far durable; a disk that fails is a state, not an exception."""
        ...

    async def tidy(self) -> None:
        """Do a piece of the work that can wait, if there is any."""
        ...

    def ack(self, boot: int, first: int, last: int) -> None:
        """Take note that the broker has these frames."""
        ...

    def is_acked(self, boot: int, seq: int) -> bool:
        """Return whether the broker has this frame."""
        ...

    def reopen(self, boot: int, wanted: RangeSet) -> tuple[RangeSet, dict[Why, RangeSet]]:
        """Put frames that the broker has had into the backlog again; returns them, and why not for the others."""
        ...

    async def unsent(self, after: Position, but: Callable[[int], RangeSet]) -> Unsent | None:
        """Return the next batch behind `after` with unacknowledged frames but those of but(boot), or None."""
        ...

    def end(self) -> Position:
        """Return where the backlog ends now: what is committed later stands behind it."""
        ...

    def boots(self) -> dict[int, tuple[int, int]]:
        """Return the committed range of every boot still held."""
        ...

    def delivered(self) -> dict[int, RangeSet]:
        """Return which frames of every boot still held the broker has."""
        ...

    def statistics(self) -> SpoolStatistics:
        """Return what it holds and has lost."""
        ...

    def dropped(self) -> Drop | None:
        """Return what was dropped since this was asked last."""
        ...

    async def close(self) -> None:
        """Commit and give the files back."""
        ...
