"""The spool on disk: append, one sync per commit, survive anything, never exceed the cap, count what is dropped.

Invariants
    What commit() returned for is on the disk before it returned. A sequence number is given once per boot, a boot
    number once per spool. The folder never holds more than max_bytes. A segment goes only as a whole, oldest first,
    and the frames in it that nobody acknowledged are added to the dropped counters, durably, before it goes.
    Start-up succeeds whatever the files hold, and whether or not there is a disk: frames wait in memory, bounded,
    until there is one. One process at a time: two would overwrite each other's batches, so who runs a gateway holds
    the folder first (see files.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.model.frame import Frame
from gateway.model.ranges import RangeSet
from gateway.spool.accounts import Accounts, why_not
from gateway.spool.files import RESERVED_BYTES, Files, make_folder
from gateway.spool.notes import Cursor, Meta, read_meta
from gateway.spool.record import (
    FRAMES,
    HEADER_BYTES,
    HELD,
    MEMO,
    OFFSET,
    PAGE_BYTES,
    Block,
    SpooledFrame,
    encode_block,
    encode_memo,
    encode_offset,
    encode_schema,
    gap_before,
    head_at,
    pack_batch,
    pack_schema,
)
from gateway.spool.seal import seal
from gateway.spool.segment import UNREADABLE, Segment, settle
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

MAX_PENDING_BYTES: Final = 64_000_000  # what waits in memory while the disk refuses: ten minutes at 1,000 values/s
FRAME_BYTES: Final = 900  # that a frame takes beside its values (measured): its objects, and two arrays'
VALUE_BYTES: Final = 12  # value and quality
MAX_RUN: Final = 8_192  # frames made into one batch: a disk that still refuses costs the work for one, not for all
PENDING_FRAMES: Final = 1_000  # that go to the broker from memory at a time while the disk refuses
MAX_MEMO_BYTES: Final = 4_000_000  # that wait in memory while the disk refuses
BATCH_ROOM: Final = 64  # header and padding of one batch
OFFSET_ROOM: Final = 192  # the batch that fixes stamps
STATES: Final[dict[int, SpoolState]] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read_only",
    errno.EACCES: "read_only",
    errno.EPERM: "read_only",
}


class DiskSpool:
    """Frames in segments of CRC'd, column-encoded, compressed batches.

    is_holding  the stamps of frames that are appended now are not fixed yet: the clock is not synchronised
    """

    def __init__(self, folder: Path, max_bytes: int, catalog: str, texts: Sequence[ScanText]) -> None:
        """Open or make the spool; a disk that will not have us is a state, and tried again with every commit."""
        self._folder = folder
        self._editions = [Edition(1, catalog, tuple(texts))]
        self._files = Files(folder, max_bytes, self._account, self._forget)
        self._max_bytes = max_bytes  # what the files are to keep to from the next commit on
        self._state: SpoolState = "ok"
        self._errors: list[str] = []
        self._pending: deque[SpooledFrame] = deque()
        self._pending_bytes = 0
        self._lock = asyncio.Lock()  # one disk action at a time
        self._accounts = Accounts()
        self._guard = threading.RLock()  # meta and drops, which the disk's thread and the loop both touch
        self._in_commit = 0  # frames up to here are being written
        self._written_through = 0  # and are on the disk up to here
        self._cursor = Cursor(folder)
        self._meta = Meta()
        self._is_meta_dirty = False
        self._drops: list[Drop] = []
        self._offsets: dict[int, tuple[int, int | None]] = {}
        self._unsaved_offsets: list[int] = []
        self._oldest: tuple[Position, int] | None = None  # first unsent batch, and the time of its oldest frame
        self._memos: list[bytes] = []
        self.at_turn: Callable[[], None] = lambda: None
        self._print_commits = os.environ.get("CORRIDOR_PRINT_COMMITS") == "1"
        self.is_holding = False
        self._held_through = 0
        self.absent = Absent()
        self.committed_ns = 0
        self.boot = 0
        self.next_seq = 1
        self._is_open = self._try(self._open)
        if not self.boot or not self._is_open:
            self.boot = improvised_boot(max(self.boot, self._meta.boot))  # the disk may forget that this one was given
        else:
            self._try(lambda: self._files.make_room(0))

    def turn_to(self, catalog: str, texts: Sequence[ScanText], max_bytes: int) -> None:
        """Take frames of another configuration from next_seq on; the folder shrinks with the next commit."""
        self._editions.append(Edition(self.next_seq, catalog, tuple(texts)))
        self._max_bytes = max_bytes

    def _edition(self, seq: int) -> Edition:
        """Return how a frame of this boot that is not on the disk yet is written."""
        return next(each for each in reversed(list(self._editions)) if each.first_seq <= seq)

    def _open(self) -> None:
        """Read what the folder holds and take the next boot number; raises OSError."""
        make_folder(self._folder)
        is_new = not self._files.make_way()
        self._meta = read_meta(self._folder).plus(self._meta)
        self._files.read(self._meta.dropped_through)
        self._offsets = settle(self._files.segments) | self._offsets
        batches = (batch for segment in self._files.segments for batch in segment.batches())
        self._accounts.open((boot, first, first + n - 1) for _, boot, first, n, _ in batches)
        self._files.sweep(self._meta.dropped_through)
        self._accounts.take_cursor(*self._cursor.read())
        if not self.boot:
            known = max(self._meta.boot, self._accounts.newest_boot)
            self.boot = known + 1 if known or is_new else improvised_boot(0)  # nothing of it can be read any more
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
        self._pending_bytes += _memory_of(copy)
        lost = []
        while self._pending_bytes > MAX_PENDING_BYTES and self._pending[0].seq > self._in_commit:
            lost.append(self._pending.popleft())
            self._pending_bytes -= _memory_of(lost[-1])
        if lost:
            self._lose(lost)

    def attach(self, memo: bytes) -> None:
        """Take bytes that become safe with the next commit, in the same write as its frames, until `at_turn`."""
        self._memos.append(memo)

    def attached(self) -> list[bytes]:
        """Return what was attached before the start to the commits of the newest segment; once."""
        if not self._files.segments:
            return []
        found, self._files.segments[-1].memos = self._files.segments[-1].memos, []
        return found

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
        if not self._files.segments:
            return START
        last = self._files.segments[-1]
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
            bytes=self._files.used() + RESERVED_BYTES,
            oldest_ns=self._oldest_ns(),
            unsent=self._accounts.unsent,
            pending=len(self._pending),
            dropped=self._meta.dropped,
            dropped_values=self._meta.dropped_values,
            damaged=sum(segment.damaged for segment in self._files.segments),
            written=self._files.written,
            prepared=self._files.prepared,
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
        for segment in reversed(self._files.segments):
            for i in reversed(range(len(segment))):
                try:
                    return int(segment.block(i, self._offsets)[0].time.max())
                except UNREADABLE:
                    continue
        return 0

    def unfixed(self) -> list[int]:
        """Return the boots that hold frames whose stamps are not fixed."""
        boots = {
            b: max(last for _, last in spans) for s in self._files.segments for b, spans in s.unfixed.items() if spans
        }
        return sorted(boot for boot, last in boots.items() if self._offsets.get(boot, (0, None))[0] < last)

    def fix(self, boot: int, offset_ns: int | None) -> None:
        """Fix the stamps of a boot's held frames, durable with the next commit; None: as they were stamped.

        What is appended from now on is stamped for good.
        """
        if boot == self.boot:
            self.is_holding = False
            through = self._held_through
        else:
            through = max((b for s in self._files.segments for _, b in s.unfixed.get(boot, RangeSet())), default=0)
        if through:
            self._offsets[boot] = (through, offset_ns)
            self._unsaved_offsets.append(boot)

    def shares_clock(self, boot: int) -> bool:
        """Return whether the monotonic clock of that boot is the one of this: the kernel has run on."""
        return bool(self._meta.kernel) and self._meta.kernel_since <= boot <= self.boot

    def _oldest_ns(self) -> int | None:
        """Return the time of the oldest unacknowledged frame; its batch is read once, while it stays the first."""
        for segment in list(self._files.segments):
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
            changes = (self._is_meta_dirty, self._unsaved_offsets, self._memos, self._accounts.is_changed)
            is_well = self._is_open and self._state == "ok" and self._files.keeps_to(self._max_bytes)
            if not frames and not any(changes) and is_well:
                return
            self._in_commit = frames[-1].seq if frames else 0
            await asyncio.to_thread(self._commit, frames)
            self._in_commit = 0
            while self._pending and self._pending[0].seq <= self._written_through:
                self._pending_bytes -= _memory_of(self._pending.popleft())
            first = self._pending[0].seq if self._pending else self.next_seq
            while len(self._editions) > 1 and self._editions[1].first_seq <= first:
                del self._editions[0]

    async def tidy(self) -> None:
        """Make the next segment ahead, or seal one that is full, if there is one; commits go on meanwhile."""
        if self._is_open and self._files.wants_spare():
            await self._make_spare()
            return
        async with self._lock:
            segment = self._next_to_seal()
            if segment is None or not await asyncio.to_thread(self._try, lambda: self._files.make_room(segment.end)):
                return
            if segment not in self._files.segments:
                return  # it was the oldest
            self._files.sealing = segment
            offsets = dict(self._offsets)
        try:
            made = await asyncio.to_thread(seal, segment, offsets)
        except OSError as error:
            log.debug("spool: %s cannot be sealed: %s", segment.path.name, error)
            self._files.leave_unsealed(segment)
            return
        finally:
            self._files.sealing = None
        async with self._lock:
            await asyncio.to_thread(self._try, lambda: self._swap(segment, made))

    async def _make_spare(self) -> None:
        async with self._lock:
            if not await asyncio.to_thread(self._try, self._files.claim_spare):
                return
        try:
            await asyncio.to_thread(self._files.make_spare)
        except OSError as error:
            log.debug("spool: no file for the next segment: %s", error)
            return
        async with self._lock:
            await asyncio.to_thread(self._try, self._files.keep_spare)

    def _next_to_seal(self) -> Segment | None:
        """Return the oldest segment that can be sealed once all its stamps are fixed, which they are."""
        for segment in self._files.to_seal():
            ends = ((boot, last) for boot, spans in segment.unfixed.items() for _, last in spans)
            if all(self._offsets.get(boot, (0, None))[0] >= last for boot, last in ends):
                return segment
        return None

    def _swap(self, segment: Segment, made: Segment) -> None:
        """Let the sealed segment take the place of the other; what could not be read is lost. Raises OSError."""
        if self._files.swap(segment, made):
            for boot, spans in segment.held.items():
                for first, last in made.held.get(boot, RangeSet()).missing_from(spans):
                    self._accounts.damage(boot, first, last)

    async def unsent(self, after: Position, but: Callable[[int], RangeSet]) -> Unsent | None:
        """Return the next batch behind `after` with unacknowledged frames but those of but(boot), or None.

        While the disk refuses, what waits in memory comes at the end.
        """
        async with self._lock:
            for segment in self._files.segments:
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
            if self._state == "ok" or self.is_holding or not self._pending:
                return None
            first, last = self._pending[0].seq, self._pending[-1].seq  # what waits has no holes
            some = but(self.boot).missing_from(self._accounts.unacked(self.boot, first, last))
            if not some:
                return None
            begin = next(iter(some))[0]
            edition = self._edition(begin)
            ends = (each.first_seq - 1 for each in self._editions if each.first_seq > begin)
            end = min(begin + PENDING_FRAMES - 1, last, *ends)
            block = Block.of(list(islice(self._pending, begin - first, end - first + 1)))
            wanted = some.common(RangeSet([(begin, end)]))
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
        is_done = self._try(lambda: self._files.keep_to(self._max_bytes))
        before = self._written_through
        is_done &= self._try(lambda: self._write(frames))
        if self._written_through > before and self._print_commits:
            with contextlib.suppress(OSError):  # whoever listens may be gone
                print(f"COMMIT boot={self.boot} seq={self._written_through}", flush=True)  # noqa: T201 - DESIGN section 5
        if is_done and self._is_meta_dirty:
            is_done = self._try(self._write_meta)
        if is_done and self._accounts.is_changed:
            is_done = self._try(self._write_cursor)
        if is_done and self._state != "ok":
            log.warning("spool ok again")
            self._state = "ok"

    def _try(self, action: Callable[[], object]) -> bool:
        """Run a disk action; what the disk refuses becomes the state, told once per change, until a commit is whole."""
        try:
            action()
        except OSError as error:
            state = STATES.get(error.errno or 0, "failing")
            if state != self._state:
                log.error("spool %s: %s; frames wait in memory", state, error)
                self._errors.append(str(error))
            self._state = state
            return False
        return True

    def _write(self, frames: Sequence[SpooledFrame]) -> None:
        """Write frames with successive numbers and one edition, in batches that fit a segment, and sync."""
        begins = {edition.first_seq for edition in list(self._editions)}
        runs: list[list[SpooledFrame]] = []
        for frame in frames:
            last = runs[-1][-1].seq if runs else 0
            is_over = not runs or len(runs[-1]) == MAX_RUN or last == self._held_through
            if is_over or last + 1 != frame.seq or frame.seq in begins:
                runs.append([])
            runs[-1].append(frame)
        if self._unsaved_offsets:
            self._write_offsets()
        for run in runs:
            edition = self._edition(run[0].seq)
            self._write_run(run, edition, encode_schema(edition.catalog, edition.texts), edition.decimals)
        while self._memos:  # there were no frames that they could go with, or no room beside them
            memos = self._riders(self._files.segment_bytes - HEADER_BYTES)
            if memos:
                segment = self._segment_for(sum(map(_room_of, memos)), self._editions[-1].catalog, 0)
                self._files.put(segment, self._pack_memos(memos, segment))
            else:
                log.error("spool: a memo of %d bytes is larger than a segment", len(self._memos[0]))
            del self._memos[: max(1, len(memos))]

    def _riders(self, room: int) -> list[bytes]:
        """Return the payloads of as many memos as fit into so many bytes."""
        while sum(map(len, self._memos)) > MAX_MEMO_BYTES:
            del self._memos[0]
        riders: list[bytes] = []
        for memo in list(self._memos):
            body = encode_memo(memo)
            room -= _room_of(body)
            if room < 0:
                break
            riders.append(body)
        return riders

    def _pack_memos(self, memos: Sequence[bytes], segment: Segment) -> bytes:
        return b"".join(pack_batch(segment.number, self.boot, MEMO, 0, 0, 0, body) for body in memos)

    def _write_offsets(self) -> None:
        """Write what fixes the stamps of held frames, behind them."""
        segment = self._segment_for(OFFSET_ROOM * len(self._unsaved_offsets), self._editions[-1].catalog, 0)
        batches = b""
        for boot in self._unsaved_offsets:
            body = encode_offset(boot, *self._offsets[boot])
            batches += pack_batch(segment.number, boot, OFFSET, 0, 0, 0, body)
        self._files.put(segment, batches)
        segment.offsets.update((boot, self._offsets[boot]) for boot in self._unsaved_offsets)
        self._unsaved_offsets.clear()

    def _write_run(
        self, run: list[SpooledFrame], edition: Edition, schema: bytes, decimals: Sequence[NDArray[np.int8]]
    ) -> None:
        body = encode_block(edition.catalog, Block.of(run), decimals)
        schema_bytes = 2 * (len(schema) + BATCH_ROOM)
        room = self._files.segment_bytes - HEADER_BYTES - schema_bytes - PAGE_BYTES
        if len(body) > room:
            if len(run) == 1:
                raise OSError(errno.EFBIG, f"one frame needs {len(body)} bytes, a segment has room for {room}")
            self._write_run(run[: len(run) // 2], edition, schema, decimals)
            self._write_run(run[len(run) // 2 :], edition, schema, decimals)
            return
        memos = self._riders(room - len(body))
        need = len(body) + BATCH_ROOM + PAGE_BYTES + sum(map(_room_of, memos))
        segment = self._segment_for(need, edition.catalog, schema_bytes)
        data = b""
        if edition.catalog not in segment.schemas:
            data = pack_schema(segment.number, self.boot, schema)
        n_values = sum(frame.n_good for frame in run)
        kind = HELD if run[0].seq <= self._held_through else FRAMES
        gap = 0 if data else gap_before(segment.end, len(body) + BATCH_ROOM)
        batch = pack_batch(segment.number, self.boot, kind, run[0].seq, len(run), n_values, body, gap)
        at = segment.end + len(data) + gap
        self._files.put(segment, data + batch + self._pack_memos(memos, segment), gap)
        del self._memos[: len(memos)]
        segment.schemas[edition.catalog] = edition.texts
        head = head_at(batch, 0, segment.number)
        assert head is not None
        segment.add(at, head)
        self._accounts.hold(self.boot, run[0].seq, run[-1].seq)
        self._written_through = run[-1].seq
        self.committed_ns = 0 if kind == HELD else run[-1].time_ns
        if n_values < sum(frame.value.size for frame in run):
            for frame in run:
                self.absent.add(edition.texts[frame.scan], frame)

    def _segment_for(self, n_bytes: int, catalog: str, schema_bytes: int) -> Segment:
        """Return the segment that has room for a batch, a new one if the last has not."""
        last = self._files.last()
        if last is not None and last.end + n_bytes + (0 if catalog in last.schemas else schema_bytes) <= last.size:
            return last
        self.at_turn()
        return self._files.begin(n_bytes + schema_bytes, self._meta.dropped_through)

    def _account(self, segment: Segment) -> None:
        """Count, durably, what goes unsent with a segment, before it goes. Raises OSError."""
        if segment.number <= self._meta.dropped_through:
            return  # it is counted already, and the disk kept the file
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
        for _, boot, first, n, _ in segment.batches():
            self._accounts.forget(boot, first + n)
        with self._guard:
            for boot in self._accounts.forget_boots(self.boot):
                self._meta.lost.pop(boot, None)
                self._offsets.pop(boot, None)

    def _write_meta(self) -> None:
        with self._guard:
            self._is_meta_dirty = False
        try:
            self._meta.write(self._folder)
        except OSError:
            self._is_meta_dirty = True
            raise
        self._files.written += 2 * PAGE_BYTES

    def _write_cursor(self) -> None:
        """Write the acknowledged ranges; not synced."""
        try:
            self._cursor.write(*self._accounts.cursor())
        except OSError:
            self._accounts.is_changed = True
            raise


def _memory_of(frame: SpooledFrame) -> int:
    return FRAME_BYTES + VALUE_BYTES * frame.value.size


def _room_of(memo: bytes) -> int:
    """Return how many bytes a memo needs at most."""
    return len(memo) + BATCH_ROOM
