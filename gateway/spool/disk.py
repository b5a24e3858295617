"""The spool on disk: append, one sync per commit, survive anything, never exceed the cap, count what is dropped.

Invariants
    What commit() returned for is on the disk before it returned. A sequence number is given once per boot, a boot
    number once per spool. The folder never holds more than max_bytes. A segment goes only as a whole, oldest first,
    and the frames in it that nobody acknowledged are added to the dropped counters, durably, before it goes.
    Start-up succeeds whatever the files hold, and whether or not there is a disk: frames wait in memory, bounded,
    until there is one. One process at a time: two would overwrite each other's batches, so who runs a gateway holds
    the folder first (hold()).

    folder | meta, cursor      see notes.py
           | NNNNNNNNNN.spool   segments of one size, written once ahead; see record.py. One whose frames stand in a
           |                    sealed one is used again under a new number and keeps its old bytes meanwhile
           | spare              one that was written ahead and waits for its number
           | NNNNNNNNNN.sealed  a segment that was full, written anew in long blocks; see seal.py
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.model.durable import sync_folder
from gateway.model.frame import Frame
from gateway.model.ranges import RangeSet
from gateway.spool.accounts import Accounts, why_not
from gateway.spool.notes import SLOT_BYTES, Cursor, Meta, read_meta
from gateway.spool.record import (
    FRAMES,
    HEADER_BYTES,
    HELD,
    OFFSET,
    PAGE_BYTES,
    Block,
    SpooledFrame,
    encode_block,
    encode_offset,
    encode_schema,
    gap_before,
    head_at,
    pack_batch,
    pack_schema,
    segment_header,
)
from gateway.spool.seal import fresh_of, seal
from gateway.spool.segment import SUFFIX, UNREADABLE, Segment, name_of, scan, segments_in, settle
from gateway.spool.spool import (
    START,
    Absent,
    Drop,
    Edition,
    Position,
    SpoolState,
    SpoolStatistics,
    Unsent,
    Why,
    improvised_boot,
)
from gateway.wire.frame_lines import ScanText

log = logging.getLogger(__name__)

RESERVED_BYTES: Final = 2 * SLOT_BYTES + 64 * 1024  # cursor; meta, and its successor while it is written
SEGMENT_BYTES: Final = 8 * 1024 * 1024  # what one drop loses at most, and what pre-zeroing writes at once
SEGMENTS_AT_LEAST: Final = 8  # a segment is at most an eighth of max_bytes
MAX_PENDING_VALUES: Final = 1_000_000  # 12 MB: what waits in memory while the disk refuses
PENDING_FRAMES: Final = 1_000  # that go to the broker from memory at a time while the disk refuses
BATCH_ROOM: Final = 64  # header and padding of one batch
OFFSET_ROOM: Final = 192  # the batch that fixes stamps
SPARES: Final = 1  # files of segments' size that wait for a number: those of sealed ones, or made ahead
SPARE: Final = "spare"  # one that was made ahead
FIRST_BYTES: Final = 256 * 1024  # of a new spool's first segment: a small one is made in a moment, others ahead
STATES: Final[dict[int, SpoolState]] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read_only",
    errno.EACCES: "read_only",
    errno.EPERM: "read_only",
}


class InUse(Exception):
    """Another process has the spool."""


def hold(folder: Path) -> int:
    """Keep every other process out of a spool folder, until the returned descriptor is closed or this process ends.

    Raises InUse if another has it, OSError if the folder cannot be made or read. The lock is on the folder itself: it
    works on a read-only disk and leaves nothing behind.
    """
    _make_folder(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InUse(
            f"{folder}: another process has this spool; stop it, or give this one a --state of its own"
        ) from None
    except OSError as error:
        log.warning("spool %s: this disk knows no locks (%s): see that no other process uses it", folder, error)
    return fd


def _make_folder(folder: Path) -> None:
    """Make a folder, on the disk with its name; raises OSError."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (folder.parent, folder.parent.parent):
            sync_folder(parent)


class DiskSpool:
    """Frames in segments of CRC'd, column-encoded, compressed batches.

    is_holding  the stamps of frames that are appended now are not fixed yet: the clock is not synchronised
    """

    def __init__(self, folder: Path, max_bytes: int, catalog: str, texts: Sequence[ScanText]) -> None:
        """Open or make the spool; a disk that will not have us is a state, and tried again with every commit."""
        self._folder = folder
        self._editions = [Edition(1, catalog, tuple(texts))]
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // SEGMENTS_AT_LEAST)
        self._is_resized = False
        self._state: SpoolState = "ok"
        self._errors: list[str] = []
        self._pending: deque[SpooledFrame] = deque()
        self._pending_values = 0
        self._lock = asyncio.Lock()  # one disk action at a time
        self._accounts = Accounts()
        self._guard = threading.RLock()  # meta and drops, which the disk's thread and the loop both touch
        self._in_commit = 0  # frames up to here are being written
        self._written_through = 0  # and are on the disk up to here
        self._cursor = Cursor(folder)
        self._meta = Meta()
        self._is_meta_dirty = False
        self._drops: list[Drop] = []
        self._segments: list[Segment] = []
        self._spares: list[Path] = []
        self._sealing: Segment | None = None
        self._preparing = 0  # bytes of a file that is being made
        self._unsealable: set[int] = set()
        self._offsets: dict[int, tuple[int, int | None]] = {}
        self._unsaved_offsets: list[int] = []
        self._has_moved_on = False  # a segment was left because the disk failed in it
        self._oldest: tuple[Position, int] | None = None  # first unsent batch, and the time of its oldest frame
        self._print_commits = os.environ.get("CORRIDOR_PRINT_COMMITS") == "1"
        self.is_holding = False
        self._held_through = 0
        self.absent = Absent()
        self.written = self.prepared = 0
        self.boot = 0
        self.next_seq = 1
        self._is_open = self._try(self._open)
        if not self.boot or not self._is_open:
            self.boot = improvised_boot(max(self.boot, self._meta.boot))  # the disk may forget that this one was given
        else:
            self._try(lambda: self._make_room(0))

    def turn_to(self, catalog: str, texts: Sequence[ScanText], max_bytes: int) -> None:
        """Take frames of another configuration from next_seq on; the folder shrinks with the next commit."""
        self._editions.append(Edition(self.next_seq, catalog, tuple(texts)))
        self._is_resized = self._is_resized or max_bytes != self._max_bytes
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // SEGMENTS_AT_LEAST)

    def _edition(self, seq: int) -> Edition:
        """Return how a frame of this boot that is not on the disk yet is written."""
        return next(each for each in reversed(list(self._editions)) if each.first_seq <= seq)

    def _resize(self) -> None:
        """Keep to another max_bytes; files that wait for a number have the old size. Raises OSError."""
        while self._spares:
            self._spares.pop().unlink(missing_ok=True)
        self._make_room(0)

    def _open(self) -> None:
        """Read what the folder holds and take the next boot number; raises OSError."""
        _make_folder(self._folder)
        self._meta = read_meta(self._folder).plus(self._meta)
        self._segments, self._spares = [], []
        self._recover()
        self._accounts.take_cursor(*self._cursor.read())
        if not self.boot:
            self.boot = 1 + max(self._meta.boot, self._accounts.newest_boot)
        self._meta.begin(self.boot)
        self._write_meta()

    def append(self, frame: Frame) -> None:
        """Take a frame whose seq is next_seq; it is safe after the next commit."""
        if frame.seq != self.next_seq:
            raise ValueError(f"frame {frame.seq} out of order, wanted {self.next_seq}")
        self.next_seq += 1
        copy = SpooledFrame.of(frame)
        if self.is_holding:
            self._held_through = copy.seq
        self._pending.append(copy)
        self._pending_values += copy.value.size
        lost = []
        while self._pending_values > MAX_PENDING_VALUES and self._pending[0].seq > self._in_commit:
            lost.append(self._pending.popleft())
            self._pending_values -= lost[-1].value.size
        if lost:
            self._lose(lost)

    def _lose(self, frames: Sequence[SpooledFrame]) -> None:
        """Count frames that the disk never had: those that nobody has are gone."""
        with self._guard:
            gone = [frame for frame in frames if not self.is_acked(self.boot, frame.seq)]
            ranges = self._meta.lost.setdefault(self.boot, RangeSet())
            for frame in frames:
                ranges.add(frame.seq)
            self._is_meta_dirty = True
            if not gone:
                return
            values = sum(frame.n_good for frame in gone)
            self._meta.dropped += len(gone)
            self._meta.dropped_values += values
            spans = RangeSet()
            for frame in gone:
                spans.add(frame.seq)
            self._drops.append(Drop({self.boot: spans}, len(gone), values, gone[0].time_ns, gone[-1].time_ns))

    def ack(self, boot: int, first: int, last: int) -> None:
        """Take note that the broker has these frames."""
        self._accounts.ack(boot, first, last)

    def is_acked(self, boot: int, seq: int) -> bool:
        """Return whether the broker has this frame."""
        return self._accounts.is_acked(boot, seq)

    def reopen(self, boot: int, wanted: RangeSet) -> tuple[RangeSet, dict[Why, RangeSet]]:
        """Put frames that the broker has had into the backlog again; returns them, and why not for the others."""
        found = self._accounts.reopen(boot, wanted)
        self._oldest = None
        with self._guard:
            lost, has_dropped = self._meta.lost.get(boot, RangeSet()), self._meta.dropped_through > 0
            rest, held = found.missing_from(wanted), self._accounts.readable(boot)
            return found, why_not(rest, held, lost, has_dropped=has_dropped, is_over=boot < self.boot)

    def end(self) -> Position:
        """Return where the backlog ends now: what is committed later stands behind it."""
        if not self._segments:
            return START
        last = self._segments[-1]
        return (last.number, last.base + len(last))

    def _is_sent(self, segment: Segment) -> bool:
        """Return whether the broker has every frame of a segment: most of a long spool is skipped by this."""
        return all(self._accounts.are_acked(boot, *span) for boot, spans in segment.held.items() for span in spans)

    def boots(self) -> dict[int, tuple[int, int]]:
        """Return the committed range of every boot still held."""
        return self._accounts.spans()

    def delivered(self) -> dict[int, RangeSet]:
        """Return which frames of every boot still held the broker has."""
        return self._accounts.delivered()

    def statistics(self) -> SpoolStatistics:
        """Return what it holds and has lost."""
        return SpoolStatistics(
            state=self._state,
            bytes=self._used() + RESERVED_BYTES,
            oldest_ns=self._oldest_ns(),
            unsent=self._accounts.unsent,
            pending=len(self._pending),
            dropped=self._meta.dropped,
            dropped_values=self._meta.dropped_values,
            damaged=sum(segment.damaged for segment in self._segments),
            written=self.written,
            prepared=self.prepared,
            errors=self._errors[-1:],
        )

    def dropped(self) -> Drop | None:
        """Return what was dropped since this was asked last."""
        with self._guard:
            found, self._drops = self._drops, []
        if not found:
            return None
        ranges: dict[int, RangeSet] = {}
        for drop in found:
            for boot, spans in drop.ranges.items():
                for span in spans:
                    ranges.setdefault(boot, RangeSet()).add(*span)
        frames, values = sum(drop.frames for drop in found), sum(drop.values for drop in found)
        times = [time_ns for drop in found for time_ns in (drop.first_ns, drop.last_ns)]
        return Drop(ranges, frames, values, min(times), max(times))

    def newest_ns(self) -> int:
        """Return the latest stamp that is held, 0 where there is none: time goes on from there."""
        for segment in reversed(self._segments):
            for i in reversed(range(len(segment))):
                try:
                    return int(segment.block(i, self._offsets)[0].time.max())
                except UNREADABLE:
                    continue
        return 0

    def unfixed(self) -> list[int]:
        """Return the boots that hold frames whose stamps are not fixed."""
        boots = {b: max(last for _, last in spans) for s in self._segments for b, spans in s.unfixed.items() if spans}
        return sorted(boot for boot, last in boots.items() if self._offsets.get(boot, (0, None))[0] < last)

    def fix(self, boot: int, offset_ns: int | None) -> None:
        """Fix the stamps of a boot's held frames, durable with the next commit; None: as they were stamped.

        What is appended from now on is stamped for good.
        """
        if boot == self.boot:
            self.is_holding = False
            through = self._held_through
        else:
            through = max((b for s in self._segments for _, b in s.unfixed.get(boot, RangeSet())), default=0)
        if through:
            self._offsets[boot] = (through, offset_ns)
            self._unsaved_offsets.append(boot)

    def shares_clock(self, boot: int) -> bool:
        """Return whether the monotonic clock of that boot is the one of this: the kernel has run on."""
        return bool(self._meta.kernel) and self._meta.kernel_since <= boot <= self.boot

    def _oldest_ns(self) -> int | None:
        """Return the time of the oldest unacknowledged frame; its batch is read once, while it stays the first."""
        for segment in list(self._segments):
            if self._is_sent(segment):
                continue
            for i in range(len(segment)):
                _, boot, seq, n, _ = segment.batch(i)
                if self._accounts.are_acked(boot, seq, seq + n - 1):
                    continue
                at = (segment.number, segment.base + i)
                if self._oldest is None or self._oldest[0] != at:
                    try:
                        block, _ = segment.block(i, self._offsets)
                    except UNREADABLE:  # damaged, which the sender will tell, or dropped by the commit just now
                        continue
                    self._oldest = (at, int(block.time[0]))
                return self._oldest[1]
        waiting = next((frame for frame in self._pending if not self.is_acked(self.boot, frame.seq)), None)
        return None if waiting is None else waiting.time_ns

    async def commit(self) -> None:
        """Make everything appended so far durable; a disk that fails is a state, not an exception."""
        async with self._lock:
            frames = list(self._pending)
            idle = not (self._accounts.is_changed or self._is_meta_dirty or self._unsaved_offsets or self._is_resized)
            if not frames and idle and self._is_open:
                return
            self._in_commit = frames[-1].seq if frames else 0
            await asyncio.to_thread(self._commit, frames)
            self._in_commit = 0
            while self._pending and self._pending[0].seq <= self._written_through:
                self._pending_values -= self._pending.popleft().value.size
            first = self._pending[0].seq if self._pending else self.next_seq
            while len(self._editions) > 1 and self._editions[1].first_seq <= first:
                del self._editions[0]

    async def tidy(self) -> None:
        """Make the next segment ahead, or seal one that is full, if there is one; commits go on meanwhile."""
        if self._is_open and not self._spares and self._is_half_full():
            await self._prepare()
            return
        async with self._lock:
            segment = self._next_to_seal()
            if segment is None or not await asyncio.to_thread(self._try, lambda: self._make_room(segment.end)):
                return
            if segment not in self._segments:
                return  # it was the oldest
            self._sealing = segment
            offsets = dict(self._offsets)
        try:
            made = await asyncio.to_thread(seal, segment, offsets)
        except OSError as error:
            log.debug("spool: %s cannot be sealed: %s", segment.path.name, error)
            self._unsealable.add(segment.number)
            fresh_of(segment).unlink(missing_ok=True)
            return
        finally:
            self._sealing = None
        async with self._lock:
            await asyncio.to_thread(self._try, lambda: self._swap(segment, made))

    def _is_half_full(self) -> bool:
        """Return whether the segment that is written will soon be full, as the first one always is."""
        last = self._segments[-1] if self._segments else None
        return last is not None and (last.size < self._segment_bytes or 2 * last.end > last.size)

    async def _prepare(self) -> None:
        """Write a file of a segment's size ahead, so that no commit has to wait for that."""
        path = self._folder / SPARE
        async with self._lock:
            if not await asyncio.to_thread(self._try, lambda: self._make_room(self._segment_bytes, keep=True)):
                return
            self._preparing = self._segment_bytes
        try:
            await asyncio.to_thread(_make_zeroed, path, b"", self._segment_bytes)
        except OSError as error:
            log.debug("spool: %s cannot be made: %s", path.name, error)
            return
        finally:
            self._preparing = 0
        self.prepared += self._segment_bytes
        self._spares.append(path)

    def _next_to_seal(self) -> Segment | None:
        """Return the oldest segment that is full and not sealed, once all its stamps are fixed."""
        for segment in self._segments[:-1]:
            is_open = any(
                self._offsets.get(boot, (0, None))[0] < last for boot, r in segment.unfixed.items() for _, last in r
            )
            if not segment.is_sealed and not is_open and segment.number not in self._unsealable and len(segment):
                return segment
        return None

    def _swap(self, segment: Segment, made: Segment) -> None:
        """Let the sealed segment take the place of the other, whose file waits for a new number; raises OSError."""
        fresh = fresh_of(made)
        if segment not in self._segments or made.size > segment.size:
            fresh.unlink()
            self._unsealable.add(segment.number)
            return
        self.written += made.size
        fresh.rename(made.path)
        sync_folder(self._folder)
        self._segments[self._segments.index(segment)] = made
        for boot, spans in segment.held.items():
            for first, last in made.held.get(boot, RangeSet()).missing_from(spans):
                self._accounts.damage(boot, first, last)
        if segment.size == self._segment_bytes:
            self._spares.append(segment.path)
        else:
            segment.path.unlink(missing_ok=True)
        while len(self._spares) > SPARES:
            self._spares.pop(0).unlink(missing_ok=True)

    async def unsent(self, after: Position, but: Callable[[int], RangeSet]) -> Unsent | None:
        """Return the next batch behind `after` with unacknowledged frames but those of but(boot), or None.

        While the disk refuses, what waits in memory comes at the end.
        """
        async with self._lock:
            for segment in self._segments:
                if segment.number < after[0] or self._is_sent(segment):
                    continue
                first = max(0, after[1] - segment.base) if segment.number == after[0] else 0
                for i in range(first, len(segment)):
                    _, boot, seq, n, _ = segment.batch(i)
                    if self._accounts.are_acked(boot, seq, seq + n - 1):
                        continue
                    wanted = but(boot).missing_from(self._accounts.unacked(boot, seq, seq + n - 1))
                    if not wanted:
                        continue
                    position = (segment.number, segment.base + i + 1)
                    if found := await asyncio.to_thread(self._read, segment, i):
                        block, catalog = found
                        return Unsent(position, boot, catalog, segment.texts(catalog), block, wanted)
            if self._state == "ok" or self.is_holding:
                return None
            busy = but(self.boot)
            waiting = (f for f in self._pending if not self.is_acked(self.boot, f.seq) and f.seq not in busy)
            some = [frame for frame, _ in zip(waiting, range(PENDING_FRAMES), strict=False)]
            if not some:
                return None
            edition = self._edition(some[0].seq)
            wanted = RangeSet((f.seq, f.seq) for f in some if self._edition(f.seq) is edition)
            last = list(wanted)[-1][1]
            block = Block.of([f for f in self._pending if some[0].seq <= f.seq <= last])  # what waits has no holes
            return Unsent(after, self.boot, edition.catalog, edition.texts, block, wanted)

    async def close(self) -> None:
        """Commit what is pending."""
        await self.commit()

    def _read(self, segment: Segment, i: int) -> tuple[Block, str] | None:
        """Return a batch and its catalog; None for a damaged one, which is counted and no longer counts as held."""
        _, boot, first, n, _ = segment.batch(i)
        try:
            return segment.block(i, self._offsets)
        except OSError as error:  # it may be read the next time
            log.error("spool: frames %d:%d-%d cannot be read now: %s", boot, first, first + n - 1, error)
            return None
        except UNREADABLE as error:
            log.error("spool: frames %d:%d-%d are damaged: %s", boot, first, first + n - 1, error)
            segment.damaged += 1
            self._accounts.damage(boot, first, first + n - 1)
            return None

    def _commit(self, frames: Sequence[SpooledFrame]) -> None:
        """Write and sync; what is safe now is told by _written_through."""
        if not self._is_open:
            self._is_open = self._try(self._open)
            if not self._is_open:
                return
        if self._is_resized:
            self._is_resized = not self._try(self._resize)
        before = self._written_through
        is_done = self._try(lambda: self._write(frames))
        if self._written_through > before and self._print_commits:
            print(f"COMMIT boot={self.boot} seq={self._written_through}", flush=True)  # noqa: T201 - DESIGN section 5
        if is_done and self._is_meta_dirty:
            is_done = self._try(self._write_meta)
        if is_done and self._accounts.is_changed:
            self._try(self._write_cursor)

    def _try(self, action: Callable[[], object]) -> bool:
        """Run a disk action; what the disk refuses becomes the state, told once per change."""
        try:
            action()
        except OSError as error:
            state = STATES.get(error.errno or 0, "failing")
            if state != self._state:
                log.error("spool %s: %s; frames wait in memory", state, error)
                self._errors.append(str(error))
            self._state = state
            return False
        if self._state != "ok":
            log.warning("spool ok again")
        self._state = "ok"
        return True

    def _write(self, frames: Sequence[SpooledFrame]) -> None:
        """Write frames with successive numbers and one edition, in batches that fit a segment, and sync."""
        begins = {edition.first_seq for edition in list(self._editions)}
        runs: list[list[SpooledFrame]] = []
        for frame in frames:
            last = runs[-1][-1].seq if runs else 0
            if not runs or last + 1 != frame.seq or last == self._held_through or frame.seq in begins:
                runs.append([])
            runs[-1].append(frame)
        if self._unsaved_offsets:
            self._write_offsets()
        for run in runs:
            edition = self._edition(run[0].seq)
            self._write_run(run, edition, encode_schema(edition.catalog, edition.texts), edition.decimals)

    def _write_offsets(self) -> None:
        """Write what fixes the stamps of held frames, behind them."""
        segment = self._segment_for(OFFSET_ROOM * len(self._unsaved_offsets), self._editions[-1].catalog, 0)
        batches = b""
        for boot in self._unsaved_offsets:
            body = encode_offset(boot, *self._offsets[boot])
            batches += pack_batch(segment.number, boot, OFFSET, 0, 0, 0, body)
        self._put(segment, batches)
        segment.offsets.update((boot, self._offsets[boot]) for boot in self._unsaved_offsets)
        self._unsaved_offsets.clear()

    def _write_run(
        self, run: list[SpooledFrame], edition: Edition, schema: bytes, decimals: Sequence[NDArray[np.int8]]
    ) -> None:
        body = encode_block(edition.catalog, Block.of(run), decimals)
        schema_bytes = 2 * (len(schema) + BATCH_ROOM)
        room = self._segment_bytes - HEADER_BYTES - schema_bytes - PAGE_BYTES
        if len(body) > room:
            if len(run) == 1:
                raise OSError(errno.EFBIG, f"one frame needs {len(body)} bytes, a segment has room for {room}")
            self._write_run(run[: len(run) // 2], edition, schema, decimals)
            self._write_run(run[len(run) // 2 :], edition, schema, decimals)
            return
        segment = self._segment_for(len(body) + BATCH_ROOM + PAGE_BYTES, edition.catalog, schema_bytes)
        data = b""
        if edition.catalog not in segment.schemas:
            data = pack_schema(segment.number, self.boot, schema)
        n_values = sum(frame.n_good for frame in run)
        kind = HELD if run[0].seq <= self._held_through else FRAMES
        gap = 0 if data else gap_before(segment.end, len(body) + BATCH_ROOM)
        batch = pack_batch(segment.number, self.boot, kind, run[0].seq, len(run), n_values, body, gap)
        at = segment.end + len(data) + gap
        self._put(segment, data + batch, gap)
        segment.schemas[edition.catalog] = edition.texts
        head = head_at(batch, 0, segment.number)
        assert head is not None
        segment.add(at, head)
        self._accounts.hold(self.boot, run[0].seq, run[-1].seq)
        self._written_through = run[-1].seq
        if n_values < sum(frame.value.size for frame in run):
            for frame in run:
                self.absent.add(edition.texts[frame.scan], frame)

    def _put(self, segment: Segment, data: bytes, gap: int = 0) -> None:
        """Write at the end of a segment and sync; a place where the disk fails is left once. Raises OSError."""
        at = segment.end + gap
        try:
            fd = os.open(segment.path, os.O_WRONLY)
            try:
                _pwrite(fd, data, at)
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.EIO and not self._has_moved_on:
                self._has_moved_on = segment.is_left = True  # the next one may lie on sound ground
            raise
        self._has_moved_on = False
        self.written += (-(-(at + len(data)) // PAGE_BYTES) - at // PAGE_BYTES) * PAGE_BYTES
        segment.end = at + len(data)

    def _segment_for(self, n_bytes: int, catalog: str, schema_bytes: int) -> Segment:
        """Return the segment that has room for a batch, a new one if the last has not."""
        if self._segments and not (self._segments[-1].is_sealed or self._segments[-1].is_left):
            last = self._segments[-1]
            need = n_bytes + (0 if catalog in last.schemas else schema_bytes)
            if last.end + need <= last.size:
                return last
        number = 1 + max(self._meta.dropped_through, self._segments[-1].number if self._segments else 0)
        path = self._folder / name_of(number)
        size = self._segment_bytes
        if not (self._segments or self._spares) and n_bytes + schema_bytes < FIRST_BYTES - HEADER_BYTES:
            size = min(size, FIRST_BYTES)
        header = segment_header(number, size)
        if used := self._spares.pop(0) if self._spares else self._make_room(size):
            try:
                used.rename(path)
            except OSError:
                self._spares.append(used)
                raise
            _write_at(path, header)
        else:
            _make_zeroed(path, header, size)
            self.prepared += size
        sync_folder(self._folder)
        segment = Segment(path, number, size)
        self._segments.append(segment)
        return segment

    def _used(self) -> int:
        """Return the bytes of all segments, of files that wait for a number, and of one that is being sealed."""
        sealing = self._sealing.end if self._sealing else 0
        return (
            sum(s.size for s in list(self._segments))
            + len(self._spares) * self._segment_bytes
            + sealing
            + self._preparing
        )

    def _make_room(self, n_bytes: int, *, keep: bool = False) -> Path | None:
        """Drop the oldest segments until n_bytes more fit; returns the file of one that can be used again.

        With 0 it only brings the folder below a max_bytes that was lowered; with `keep` no file is used again.
        """
        recycled: Path | None = None
        while self._segments and self._used() + n_bytes > self._max_bytes - RESERVED_BYTES:
            if self._spares:
                self._spares.pop(0).unlink(missing_ok=True)
                continue
            oldest = self._segments[0]
            if oldest.number > self._meta.dropped_through:  # else it is counted already, and the disk kept the file
                self._account(oldest)
            is_usable = not oldest.is_sealed and oldest is not self._sealing and _size(oldest.path) == n_bytes
            if n_bytes == self._segment_bytes and is_usable and recycled is None and not keep:
                recycled, n_bytes = oldest.path, 0
            else:
                oldest.path.unlink(missing_ok=True)
            self._forget(oldest)
        return recycled

    def _account(self, segment: Segment) -> None:
        """Count, durably, what goes unsent with a segment, before it goes."""
        frames, values = 0, 0
        ranges: dict[int, RangeSet] = {}
        unsent_of: list[tuple[int, RangeSet]] = []
        for i, (_, boot, first, n, n_values) in enumerate(segment.batches()):
            unsent = self._accounts.unheard(boot, first, first + n - 1)
            if not unsent:
                continue
            unsent_of.append((i, unsent))
            frames += unsent.total
            for span in unsent:
                ranges.setdefault(boot, RangeSet()).add(*span)
            if unsent.total == n:
                values += n_values
            else:
                found = self._read(segment, i)
                values += sum(f.n_good for f in found[0].frames() if f.seq in unsent) if found else n_values
        with self._guard:
            meta = self._meta
            before = (meta.dropped, meta.dropped_values, meta.dropped_through)
            meta.dropped += frames
            meta.dropped_values += values
            meta.dropped_through = segment.number
        try:
            self._write_meta()
        except OSError:
            with self._guard:
                meta.dropped -= frames
                meta.dropped_values -= values
                meta.dropped_through = before[2]
            raise
        if frames:
            log.error("spool full: dropped %d frames (%d values) that nobody had yet", frames, values)
            (head, oldest), (tail, newest) = unsent_of[0], unsent_of[-1]
            first_ns = self._time_of(segment, head, next(iter(oldest))[0])
            last_ns = self._time_of(segment, tail, list(newest)[-1][1])
            with self._guard:
                self._drops.append(Drop(ranges, frames, values, first_ns, last_ns))

    def _time_of(self, segment: Segment, i: int, seq: int) -> int:
        try:
            block, _ = segment.block(i, self._offsets)
            return int(block.time[seq - block.first_seq])
        except UNREADABLE:
            return 0

    def _forget(self, segment: Segment) -> None:
        self._segments.remove(segment)
        for _, boot, first, n, _ in segment.batches():
            self._accounts.forget(boot, first + n)
        with self._guard:
            for boot in self._accounts.forget_boots(self.boot):
                self._meta.lost.pop(boot, None)
                self._offsets.pop(boot, None)

    def _recover(self) -> None:
        """Take in the segments that stand, whatever the files hold; what a drop had accounted already is removed."""
        for path in self._folder.glob("*.new"):
            path.unlink()
        for number, path in segments_in(self._folder):
            if number <= self._meta.dropped_through:
                path.unlink()
                continue
            try:
                segment = scan(path, number)
            except OSError as error:
                log.error("spool: %s cannot be read: %s", path.name, error)
                segment = Segment(path, number, _size(path), damaged=1, is_left=True)
            if segment.damaged:
                log.error("spool: %s: %d damaged places skipped", path.name, segment.damaged)
            self._segments.append(segment)
            if segment.is_sealed and _size(other := path.with_suffix(SUFFIX)) == self._segment_bytes:
                self._spares.append(other)
        self._offsets = settle(self._segments) | self._offsets
        batches = (batch for segment in self._segments for batch in segment.batches())
        self._accounts.open((boot, first, first + n - 1) for _, boot, first, n, _ in batches)
        sealed = {segment.number for segment in self._segments if segment.is_sealed}
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.stem.isdecimal() and int(path.stem) in sealed and path not in self._spares[:SPARES]:
                path.unlink()
        del self._spares[SPARES:]
        spare = self._folder / SPARE
        if not self._spares and _size(spare) == self._segment_bytes:
            self._spares.append(spare)
        else:
            spare.unlink(missing_ok=True)

    def _write_meta(self) -> None:
        with self._guard:
            self._is_meta_dirty = False
        try:
            self._meta.write(self._folder)
        except OSError:
            self._is_meta_dirty = True
            raise
        self.written += 2 * PAGE_BYTES

    def _write_cursor(self) -> None:
        """Write the acknowledged ranges; not synced."""
        try:
            self._cursor.write(*self._accounts.cursor())
        except OSError:
            self._accounts.is_changed = True
            raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _pwrite(fd: int, data: bytes, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def _write_at(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        _pwrite(fd, data, 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _make_zeroed(path: Path, header: bytes, size: int) -> None:
    """Make a segment with every block written once: a later write into it changes no metadata, so a sync is cheap."""
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as file:
            file.write(header)
            left = size - len(header)
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 20)))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
