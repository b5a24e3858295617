"""The spool on disk: append, one sync per commit, survive anything, never exceed the cap, count what is dropped.

Invariants
    What commit() returned for is on the disk before it returned. A sequence number is given once per boot, a boot
    number once per spool. The folder never holds more than max_bytes. A segment goes only as a whole, oldest first,
    and the frames in it that nobody acknowledged are added to the dropped counters, durably, before it goes.
    Start-up succeeds whatever the files hold. One process at a time: two would overwrite each other's batches, so who
    runs a gateway holds the folder first (hold()).

    folder | meta       boot, dropped counters, dropped_through; replaced as a whole and synced: at start and at a drop
           | cursor     two slots of acknowledged ranges, never synced: its loss only sends frames again
           | NNNNNNNNNN.spool   segments; see record.py. A recycled one keeps its old bytes under a new number
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.model.durable import replace_file, sync_folder
from gateway.model.frame import Frame
from gateway.model.ranges import RangeSet, from_text, to_text
from gateway.spool.record import (
    FRAMES,
    HEADER_BYTES,
    SCHEMA,
    CorruptBatch,
    SpooledFrame,
    catalog_of,
    decode_frames,
    encode_frames,
    head_at,
    pack_batch,
    segment_header,
)
from gateway.spool.segment import Segment, name_of, scan, segments_in
from gateway.spool.spool import START, Edition, Position, SpoolState, SpoolStatistics, Unsent, improvised_boot
from gateway.wire.frame_lines import ScanText, encode_texts

log = logging.getLogger(__name__)

RESERVED_BYTES: Final = 160 * 1024  # meta, its successor while it is written, cursor
SEGMENT_BYTES: Final = 8 * 1024 * 1024  # what one drop loses at most, and what pre-zeroing writes at once
SEGMENTS_AT_LEAST: Final = 8  # a segment is at most an eighth of max_bytes
SLOT_BYTES: Final = 32 * 1024  # one copy of the acknowledged ranges
MAX_PENDING_VALUES: Final = 1_000_000  # 12 MB: what waits in memory while the disk refuses
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
    folder.mkdir(parents=True, exist_ok=True)
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


class DiskSpool:
    """Frames in segments of CRC'd, column-encoded, compressed batches."""

    def __init__(self, folder: Path, max_bytes: int, catalog: str, texts: Sequence[ScanText]) -> None:
        """Open or make the spool; raises OSError only if the folder cannot be made or read."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._editions = [Edition(1, catalog, tuple(texts))]
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // SEGMENTS_AT_LEAST)
        self._has_shrunk = False
        self._state: SpoolState = "ok"
        self._errors: list[str] = []
        self._pending: deque[SpooledFrame] = deque()
        self._pending_values = 0
        self._lock = asyncio.Lock()  # one disk action at a time
        self._guard = threading.RLock()  # the ranges and counters, which the disk's thread and the loop both touch
        self._in_commit = 0  # frames up to here are being written
        self._committed: dict[int, RangeSet] = {}
        self._acked: dict[int, RangeSet] = {}
        self._cursor_turn = 0
        self._cursor_dirty = False
        meta = _read_meta(folder / "meta")
        self._dropped = int(meta.get("dropped", 0))
        self._dropped_values = int(meta.get("dropped_values", 0))
        self._dropped_through = int(meta.get("dropped_through", 0))
        self._segments = self._recover()
        self._read_cursor()
        self.boot = 1 + max([int(meta.get("boot", 0)), *self._committed, *self._acked])
        self.next_seq = 1
        self._print_commits = os.environ.get("CORRIDOR_PRINT_COMMITS") == "1"
        self._oldest: tuple[Position, int] | None = None  # first unsent batch, and the time of its oldest frame
        is_writable = self._try(self._write_meta)
        if not is_writable:
            self.boot = improvised_boot(self.boot)  # the disk may forget that this one was given
        self._committed[self.boot] = RangeSet()
        self._acked[self.boot] = RangeSet()
        if is_writable:
            self._try(lambda: self._make_room(0))

    def turn_to(self, catalog: str, texts: Sequence[ScanText], max_bytes: int) -> None:
        """Take frames of another configuration from next_seq on; the folder shrinks with the next commit."""
        self._editions.append(Edition(self.next_seq, catalog, tuple(texts)))
        self._has_shrunk = self._has_shrunk or max_bytes < self._max_bytes
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // SEGMENTS_AT_LEAST)

    def append(self, frame: Frame) -> None:
        """Take a frame whose seq is next_seq; it is safe after the next commit."""
        if frame.seq != self.next_seq:
            raise ValueError(f"frame {frame.seq} out of order, wanted {self.next_seq}")
        self.next_seq += 1
        copy = SpooledFrame.of(frame)
        self._pending.append(copy)
        self._pending_values += copy.value.size
        while self._pending_values > MAX_PENDING_VALUES and self._pending[0].seq > self._in_commit:
            lost = self._pending.popleft()
            self._pending_values -= lost.value.size
            if lost.seq not in self._acked[self.boot]:
                self._dropped += 1
                self._dropped_values += lost.n_good

    def ack(self, boot: int, first: int, last: int) -> None:
        """Take note that the broker has these frames."""
        with self._guard:
            self._acked.setdefault(boot, RangeSet()).add(first, last)
            self._cursor_dirty = True

    def is_acked(self, boot: int, seq: int) -> bool:
        """Return whether the broker has this frame."""
        with self._guard:
            return boot in self._acked and seq in self._acked[boot]

    def end(self) -> Position:
        """Return where the backlog ends now: what is committed later stands behind it."""
        return (self._segments[-1].number, len(self._segments[-1])) if self._segments else START

    def _is_sent(self, segment: Segment) -> bool:
        """Return whether the broker has every frame of a segment: most of a long spool is skipped by this."""
        return all(self._are_acked(boot, *span) for boot, spans in segment.held.items() for span in spans)

    def _are_acked(self, boot: int, first: int, last: int) -> bool:
        with self._guard:
            return boot in self._acked and self._acked[boot].covers(first, last)

    def boots(self) -> dict[int, tuple[int, int]]:
        """Return the committed range of every boot still held."""
        out = {}
        with self._guard:
            for boot, ranges in sorted(self._committed.items()):
                if spans := list(ranges):
                    out[boot] = (spans[0][0], spans[-1][1])
        return out

    def statistics(self) -> SpoolStatistics:
        """Return what it holds and has lost."""
        with self._guard:
            unsent = sum(
                self._acked.get(boot, RangeSet()).missing_from(ranges).total for boot, ranges in self._committed.items()
            )
        return SpoolStatistics(
            state=self._state,
            bytes=sum(segment.size for segment in self._segments) + RESERVED_BYTES,
            oldest_ns=self._oldest_ns(),
            unsent=unsent,
            pending=len(self._pending),
            dropped=self._dropped,
            dropped_values=self._dropped_values,
            damaged=sum(segment.damaged for segment in self._segments),
            errors=self._errors[-1:],
        )

    def _oldest_ns(self) -> int | None:
        """Return the time of the oldest unacknowledged frame; its batch is read once, while it stays the first."""
        for segment in list(self._segments):
            if self._is_sent(segment):
                continue
            for i in range(len(segment)):
                _, boot, seq, n, _ = segment.batch(i)
                if self._are_acked(boot, seq, seq + n - 1):
                    continue
                at = (segment.number, i)
                if self._oldest is None or self._oldest[0] != at:
                    try:
                        frames, _ = frames_of(segment, i)
                    except UNREADABLE:  # damaged, which the sender will tell, or dropped by the commit just now
                        continue
                    self._oldest = (at, frames[0].time_ns)
                return self._oldest[1]
        waiting = next((frame for frame in self._pending if not self.is_acked(self.boot, frame.seq)), None)
        return None if waiting is None else waiting.time_ns

    async def commit(self) -> None:
        """Make everything appended so far durable; a disk that fails is a state, not an exception."""
        async with self._lock:
            frames = list(self._pending)
            if not frames and not self._cursor_dirty and not self._has_shrunk:
                return
            self._in_commit = frames[-1].seq if frames else 0
            done = await asyncio.to_thread(self._commit, frames)
            self._in_commit = 0
            for frame in frames if done else ():
                self._pending.popleft()
                self._pending_values -= frame.value.size
            first = self._pending[0].seq if self._pending else self.next_seq
            while len(self._editions) > 1 and self._editions[1].first_seq <= first:
                del self._editions[0]

    async def unsent(self, after: Position, want: Callable[[int, int], bool]) -> Unsent | None:
        """Return the next batch behind `after` with unacknowledged frames for which want(boot, seq) holds, or None."""
        async with self._lock:
            for segment in self._segments:
                if segment.number < after[0] or self._is_sent(segment):
                    continue
                first = after[1] if segment.number == after[0] else 0
                for i in range(first, len(segment)):
                    _, boot, seq, n, _ = segment.batch(i)
                    if self._are_acked(boot, seq, seq + n - 1):
                        continue
                    wanted = {s for s in range(seq, seq + n) if not self.is_acked(boot, s) and want(boot, s)}
                    if not wanted:
                        continue
                    position = (segment.number, i + 1)
                    frames, catalog = await asyncio.to_thread(self._read, segment, i)
                    taken = tuple(frame for frame in frames if frame.seq in wanted)
                    return Unsent(position, boot, catalog, segment.schemas.get(catalog, ()), taken)
        return None

    async def close(self) -> None:
        """Commit what is pending."""
        await self.commit()

    def _read(self, segment: Segment, i: int) -> tuple[list[SpooledFrame], str]:
        """Return the frames of a batch; a damaged one has none, is counted, and no longer counts as held."""
        _, boot, first, n, _ = segment.batch(i)
        try:
            return frames_of(segment, i)
        except UNREADABLE as error:
            log.error("spool: frames %d:%d-%d cannot be read: %s", boot, first, first + n - 1, error)
            segment.damaged += 1
            self.ack(boot, first, first + n - 1)  # nobody will ever send them
            return [], ""

    def _commit(self, frames: Sequence[SpooledFrame]) -> bool:
        """Write and sync; returns whether the frames are safe."""
        if self._has_shrunk:
            self._has_shrunk = not self._try(lambda: self._make_room(0))
        if not self._try(lambda: self._write(frames)):
            return False
        if frames and self._print_commits:
            print(f"COMMIT boot={self.boot} seq={frames[-1].seq}", flush=True)  # noqa: T201 - DESIGN section 5
        if self._cursor_dirty:
            self._try(self._write_cursor)
        return True

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
        editions = list(self._editions)
        begins = {edition.first_seq for edition in editions}
        runs: list[list[SpooledFrame]] = []
        for frame in frames:
            if not runs or runs[-1][-1].seq + 1 != frame.seq or frame.seq in begins:
                runs.append([])
            runs[-1].append(frame)
        for run in runs:
            edition = next(each for each in reversed(editions) if each.first_seq <= run[0].seq)
            self._write_run(run, edition, edition.decimals)

    def _write_run(self, run: list[SpooledFrame], edition: Edition, decimals: Sequence[NDArray[np.int8]]) -> None:
        body = encode_frames(edition.catalog, run, decimals)
        schema = encode_texts(edition.catalog, edition.texts)
        room = self._segment_bytes - HEADER_BYTES - len(schema) - 4 * 1024
        if len(body) > room:
            if len(run) == 1:
                raise OSError(errno.EFBIG, f"one frame needs {len(body)} bytes, a segment has room for {room}")
            self._write_run(run[: len(run) // 2], edition, decimals)
            self._write_run(run[len(run) // 2 :], edition, decimals)
            return
        segment = self._segment_for(len(body) + 2 * BATCH_ROOM, edition.catalog, len(schema) + BATCH_ROOM)
        fd = os.open(segment.path, os.O_WRONLY)
        try:
            if edition.catalog not in segment.schemas:
                batch = pack_batch(segment.number, self.boot, SCHEMA, 0, 0, 0, schema)
                _pwrite(fd, batch, segment.end)
                segment.end += len(batch)
                segment.schemas[edition.catalog] = edition.texts
            n_values = sum(frame.n_good for frame in run)
            batch = pack_batch(segment.number, self.boot, FRAMES, run[0].seq, len(run), n_values, body)
            _pwrite(fd, batch, segment.end)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        head = head_at(batch, 0, segment.number)
        assert head is not None
        segment.add(segment.end, head)
        segment.end += len(batch)
        with self._guard:
            self._committed[self.boot].add(run[0].seq, run[-1].seq)

    def _segment_for(self, n_bytes: int, catalog: str, schema_bytes: int) -> Segment:
        """Return the segment that has room for a batch, a new one if the last has not."""
        if self._segments:
            last = self._segments[-1]
            need = n_bytes + (0 if catalog in last.schemas else schema_bytes)
            if last.end + need <= last.size:
                return last
        number = 1 + max(self._dropped_through, self._segments[-1].number if self._segments else 0)
        path = self._folder / name_of(number)
        recycled = self._make_room(self._segment_bytes)
        if recycled:
            recycled.rename(path)
            _write_at(path, segment_header(number))
        else:
            _make_zeroed(path, segment_header(number), self._segment_bytes)
        sync_folder(self._folder)
        segment = Segment(path, number, self._segment_bytes)
        self._segments.append(segment)
        return segment

    def _make_room(self, n_bytes: int) -> Path | None:
        """Drop the oldest segments until n_bytes more fit; returns the file of one that can be used again.

        With 0 it only brings the folder below a max_bytes that was lowered.
        """
        recycled: Path | None = None
        while self._segments and sum(s.size for s in self._segments) + n_bytes > self._max_bytes - RESERVED_BYTES:
            oldest = self._segments[0]
            self._account(oldest)
            if n_bytes and oldest.size == n_bytes and recycled is None:
                recycled = oldest.path
            else:
                oldest.path.unlink(missing_ok=True)
            self._forget(oldest)
        return recycled

    def _account(self, segment: Segment) -> None:
        """Count, durably, what goes unsent with a segment, before it goes."""
        frames, values = 0, 0
        for i, (_, boot, first, n, n_values) in enumerate(segment.batches()):
            unsent = [seq for seq in range(first, first + n) if not self.is_acked(boot, seq)]
            frames += len(unsent)
            if len(unsent) == n:
                values += n_values
            elif unsent:
                values += sum(f.n_good for f in self._read(segment, i)[0] if f.seq in set(unsent))
        before = (self._dropped, self._dropped_values, self._dropped_through)
        self._dropped += frames
        self._dropped_values += values
        self._dropped_through = segment.number
        try:
            self._write_meta()
        except OSError:
            self._dropped, self._dropped_values, self._dropped_through = before
            raise
        if frames:
            log.error("spool full: dropped %d frames (%d values) that nobody had yet", frames, values)

    def _forget(self, segment: Segment) -> None:
        with self._guard:
            self._segments.remove(segment)
            for _, boot, first, n, _ in segment.batches():
                self._committed[boot].discard_below(first + n)
                self._acked.get(boot, RangeSet()).discard_below(first + n)
            for boot in [boot for boot, held in self._committed.items() if not held and boot != self.boot]:
                del self._committed[boot]
                self._acked.pop(boot, None)

    def _recover(self) -> list[Segment]:
        """Return the segments that stand, whatever the files hold; what a drop had accounted already is removed."""
        kept = []
        for number, path in segments_in(self._folder):
            try:
                if number <= self._dropped_through:
                    path.unlink()
                    continue
                segment = scan(path, number)
            except OSError as error:
                log.error("spool: %s cannot be read: %s", path.name, error)
                continue
            if segment.damaged:
                log.error("spool: %s: %d damaged places skipped", path.name, segment.damaged)
            for _, boot, first, n, _ in segment.batches():
                self._committed.setdefault(boot, RangeSet()).add(first, first + n - 1)
            kept.append(segment)
        return kept

    def _write_meta(self) -> None:
        meta = {
            "boot": self.boot,
            "dropped": self._dropped,
            "dropped_values": self._dropped_values,
            "dropped_through": self._dropped_through,
        }
        replace_file(self._folder / "meta", _sealed(json.dumps(meta).encode()))

    def _write_cursor(self) -> None:
        """Write the acknowledged ranges into the slot whose turn it is; not synced."""
        self._cursor_turn += 1
        with self._guard:
            whole = {"turn": self._cursor_turn, "acked": {b: to_text(r) for b, r in self._acked.items() if r}}
        slot = _sealed(json.dumps(whole).encode())
        if len(slot) > SLOT_BYTES:  # ranges in tatters: keep the lowest of each boot, the rest is sent again
            with self._guard:
                whole["acked"] = {b: to_text(list(r)[:64]) for b, r in self._acked.items() if r}
            slot = _sealed(json.dumps(whole).encode())
        fd = os.open(self._folder / "cursor", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            _pwrite(fd, slot.ljust(SLOT_BYTES, b"\0"), SLOT_BYTES * (self._cursor_turn % 2))
        finally:
            os.close(fd)
        self._cursor_dirty = False

    def _read_cursor(self) -> None:
        try:
            raw = (self._folder / "cursor").read_bytes()
        except OSError:
            return
        slots = [_unsealed(raw[at : at + SLOT_BYTES].rstrip(b"\0")) for at in (0, SLOT_BYTES)]
        newest = max((slot for slot in slots if slot), key=lambda slot: int(slot.get("turn", 0)), default=None)
        if newest is None:
            return
        self._cursor_turn = int(newest["turn"])
        for boot, text in newest["acked"].items():
            self._acked[int(boot)] = RangeSet(from_text(text))


BATCH_ROOM: Final = 64  # header and padding of one batch
UNREADABLE: Final = (OSError, ValueError, KeyError, CorruptBatch)


def frames_of(segment: Segment, i: int) -> tuple[list[SpooledFrame], str]:
    """Return the frames of batch i and their catalog; raises one of UNREADABLE."""
    head, body = segment.read(i)
    catalog = catalog_of(body)
    rows = [len(text.names) for text in segment.schemas[catalog]]
    return decode_frames(body, head, rows), catalog


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


def _sealed(body: bytes) -> bytes:
    return b"%08x %s" % (zlib.crc32(body), body)


def _unsealed(raw: bytes) -> dict[str, Any] | None:
    crc, _, body = raw.partition(b" ")
    try:
        whole = json.loads(body) if int(crc, 16) == zlib.crc32(body) else None
    except ValueError:
        return None
    return whole if isinstance(whole, dict) else None


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        found = _unsealed(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.error("spool: %s", error)
        return {}
    if found is None:
        log.error("spool: meta is damaged: the counters of dropped frames begin again at 0")
        return {}
    return found


def verify(folder: Path) -> dict[str, Any]:
    """Return what a spool folder holds, reading only; for `corridor spool verify`.

    reason  why it is not ok, where that is not damage alone: no folder, no spool, or a segment that cannot be read
    """
    boots: dict[int, RangeSet] = {}
    frames = values = batches = largest = damaged = 0
    segments, meta, reason = _contents(folder)
    for number, path in segments:
        try:
            segment = scan(path, number)
        except FileNotFoundError:
            continue  # dropped meanwhile by the gateway whose spool this is
        except OSError as error:
            damaged += 1
            reason = f"{path.name} cannot be read: {error.strerror}"
            continue
        damaged += segment.damaged
        for i, (_, boot, first, n, n_values) in enumerate(segment.batches()):
            try:
                frames_of(segment, i)
            except UNREADABLE:
                damaged += 1
                continue
            boots.setdefault(boot, RangeSet()).add(first, first + n - 1)
            frames, values, batches, largest = frames + n, values + n_values, batches + 1, max(largest, n)
    first_kept = {boot: next(iter(ranges))[0] for boot, ranges in boots.items()}
    through = int(meta.get("dropped_through", 0))
    return {
        "dir": str(folder),
        "ok": damaged == 0 and reason is None,
        "reason": reason,
        "boots": {str(boot): [list(span) for span in ranges] for boot, ranges in sorted(boots.items())},
        "frames": frames,
        "values": values,
        "batches": batches,
        "largest_batch": largest,
        "damaged": damaged,
        "dropped_below": {str(boot): first for boot, first in first_kept.items() if first > 1 and through},
    }


def _contents(folder: Path) -> tuple[list[tuple[int, Path]], dict[str, Any], str | None]:
    """Return segments and meta of a spool, or why it is none."""
    try:
        names = {path.name for path in folder.iterdir()}
        segments = segments_in(folder)
        if not segments and "meta" not in names:
            return [], {}, "is not a spool: it has neither a segment (*.spool) nor meta"
        return segments, _read_meta(folder / "meta") if "meta" in names else {}, None
    except (NotADirectoryError, FileNotFoundError):
        return [], {}, "is not a folder"
    except OSError as error:
        return [], {}, f"cannot be read: {error.strerror}"
