"""The files of a spool: segments, and those that wait to become one; never more than max_bytes, oldest first to go.

folder | meta, cursor      see notes.py
       | NNNNNNNNNN.spool   segments of one size, written once ahead; see record.py. One whose frames stand in a
       |                    sealed one is used again under a new number and keeps its old bytes meanwhile
       | spare              one that was written ahead and waits for its number
       | NNNNNNNNNN.sealed  a segment that was full, written anew in long blocks; see seal.py
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway.model.durable import make_way, sync_folder
from gateway.spool.notes import SLOT_BYTES
from gateway.spool.record import HEADER_BYTES, PAGE_BYTES, segment_header
from gateway.spool.seal import fresh_of
from gateway.spool.segment import NAME, SUFFIX, Segment, name_of, scan, segments_in

log = logging.getLogger(__name__)

RESERVED_BYTES: Final = 2 * SLOT_BYTES + 64 * 1024  # cursor; meta, and its successor while it is written
SEGMENT_BYTES: Final = 8 * 1024 * 1024  # what one drop loses at most, and what pre-zeroing writes at once
SEGMENTS_AT_LEAST: Final = 8  # a segment is at most an eighth of max_bytes
SPARES: Final = 1  # files of segments' size that wait for a number: those of sealed ones, or made ahead
SPARE: Final = "spare"  # one that was made ahead
NOTES: Final = ("meta", "cursor")  # see notes.py
OURS: Final = re.compile(rf"{'|'.join(NOTES)}|{SPARE}|{NAME.pattern}|.*\.new")
NOT_HERE: Final = (errno.EIO, errno.EACCES, errno.EPERM)  # what is wrong with a file, not with the whole disk
FIRST_BYTES: Final = 256 * 1024  # of a new spool's first segment: a small one is made in a moment, others ahead


class InUse(Exception):
    """Another process has the spool."""


def hold(folder: Path) -> int:
    """Keep every other process out of a spool folder, until the returned descriptor is closed or this process ends.

    Raises InUse if another has it, OSError if the folder cannot be made or read. The lock is on the folder itself: it
    works on a read-only disk and leaves nothing behind.
    """
    make_folder(folder)
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


def make_folder(folder: Path) -> None:
    """Make a folder, on the disk with its name; raises OSError."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (folder.parent, folder.parent.parent):
            sync_folder(parent)


class Files:
    """Segments in order of their numbers; frames go into the last. Everything that touches the disk raises OSError.

    sealing  the one that is being written anew
    written, prepared  bytes since the start: put into segments, in whole pages; of files that were made ahead
    """

    def __init__(
        self, folder: Path, max_bytes: int, account: Callable[[Segment], None], forget: Callable[[Segment], None]
    ) -> None:
        """`account` is called before a segment is dropped and may refuse by OSError, `forget` when it is."""
        self.segments: list[Segment] = []
        self.sealing: Segment | None = None
        self.written = self.prepared = 0
        self._folder = folder
        self._account = account
        self._forget = forget
        self._spares: list[Path] = []
        self._preparing = 0  # bytes of a file that is being made
        self._unsealable: set[int] = set()
        self._has_moved_on = False  # a segment was left because the disk failed in it
        self._is_too_large = False  # what there is may be more than max_bytes, which was lowered
        self._max_bytes = max_bytes
        self.segment_bytes = _segment_bytes(max_bytes)

    def keeps_to(self, max_bytes: int) -> bool:
        """Return whether this is what it keeps to."""
        return max_bytes == self._max_bytes and not self._is_too_large

    def keep_to(self, max_bytes: int) -> None:
        """Hold no more than this from now on; files that wait for a number have the old size."""
        if self.keeps_to(max_bytes):
            return
        self._is_too_large = True
        self._max_bytes = max_bytes
        self.segment_bytes = _segment_bytes(max_bytes)
        while self._spares:
            self._spares.pop().unlink(missing_ok=True)
        self.make_room(0)
        self._is_too_large = False

    def used(self) -> int:
        """Return the bytes of all segments, of files that wait for a number, and of one that is being sealed."""
        sealing = self.sealing.end if self.sealing is not None else 0
        spares = len(self._spares) * self.segment_bytes
        return sum(s.size for s in list(self.segments)) + spares + sealing + self._preparing

    def make_way(self) -> bool:
        """Put aside what has a name of ours and is no file of ours; returns whether anything had one.

        Segments that this user may not read stay: they count, and go when they are the oldest. Raises OSError.
        """
        found = [p for p in self._folder.iterdir() if OURS.fullmatch(p.name)]
        for path in found:
            is_note = path.name in NOTES
            make_way(path, RESERVED_BYTES if is_note else SEGMENT_BYTES, os.R_OK if is_note else os.F_OK)
        return bool(found)

    def read(self, above: int) -> None:
        """Take in the segments with numbers above this one, whatever they hold."""
        self.segments = []
        for number, path in segments_in(self._folder):
            if number <= above:
                continue
            try:
                segment = scan(path, number)
            except OSError as error:
                log.error("spool: %s cannot be read: %s", path.name, error)
                segment = Segment(path, number, _size(path), damaged=1, is_left=True)
            if segment.damaged:
                log.error("spool: %s: %d damaged places skipped", path.name, segment.damaged)
            self.segments.append(segment)

    def sweep(self, above: int) -> None:
        """Remove what a power cut or a drop left behind, and find the file that waits for a number."""
        for path in self._folder.glob("*.new"):
            path.unlink()
        for number, path in segments_in(self._folder):
            if number <= above:
                path.unlink()
        old = [segment.path.with_suffix(SUFFIX) for segment in self.segments if segment.is_sealed]
        waiting = [*old, self._folder / SPARE]
        self._spares = [path for path in waiting if _size(path) == self.segment_bytes][:SPARES]
        for path in waiting:
            if path not in self._spares:
                path.unlink(missing_ok=True)

    def last(self) -> Segment | None:
        """Return the segment that frames go into; None where a new one has to be begun."""
        last = self.segments[-1] if self.segments else None
        return None if last is None or last.is_sealed or last.is_left else last

    def begin(self, n_bytes: int, above: int) -> Segment:
        """Begin a segment whose number is above all and `above`, large enough for so many bytes to begin with."""
        number = 1 + max(above, self.segments[-1].number if self.segments else 0)
        path = self._folder / name_of(number)
        size = self.segment_bytes
        if not (self.segments or self._spares) and n_bytes < FIRST_BYTES - HEADER_BYTES:
            size = min(size, FIRST_BYTES)
        header = segment_header(number, size)
        if used := self._spares.pop(0) if self._spares else self.make_room(size):
            try:
                used.rename(path)
            except OSError:
                self._spares.append(used)
                raise
            try:
                _write_at(path, header, 0)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        else:
            _make_zeroed(path, header, size)
            self.prepared += size
        sync_folder(self._folder)
        segment = Segment(path, number, size)
        self.segments.append(segment)
        return segment

    def put(self, segment: Segment, data: bytes, gap: int = 0) -> None:
        """Write at the end of a segment and sync; a place where the disk fails is left once."""
        at = segment.end + gap
        try:
            _write_at(segment.path, data, at)
        except OSError as error:
            if error.errno in NOT_HERE and not self._has_moved_on:
                self._has_moved_on = segment.is_left = True  # the next one may lie on sound ground
            raise
        self._has_moved_on = False
        self.written += (-(-(at + len(data)) // PAGE_BYTES) - at // PAGE_BYTES) * PAGE_BYTES
        segment.end = at + len(data)

    def make_room(self, n_bytes: int, *, keep: bool = False) -> Path | None:
        """Drop the oldest segments until n_bytes more fit; returns the file of one that can be used again.

        With 0 it only brings the folder below a max_bytes that was lowered; with `keep` no file is used again.
        """
        recycled: Path | None = None
        while self.segments and self.used() + n_bytes > self._max_bytes - RESERVED_BYTES:
            if self._spares:
                self._spares.pop(0).unlink(missing_ok=True)
                continue
            oldest = self.segments[0]
            self._account(oldest)
            is_usable = not oldest.is_sealed and oldest is not self.sealing and _size(oldest.path) == n_bytes
            if n_bytes == self.segment_bytes and is_usable and recycled is None and not keep:
                recycled, n_bytes = oldest.path, 0
            else:
                oldest.path.unlink(missing_ok=True)
            self.segments.remove(oldest)
            self._forget(oldest)
        return recycled

    def wants_spare(self) -> bool:
        """Return whether the segment that is written will soon be full, as the first one always is, and none waits."""
        last = self.segments[-1] if self.segments else None
        return not self._spares and last is not None and (last.size < self.segment_bytes or 2 * last.end > last.size)

    def claim_spare(self) -> None:
        """Make room for a file that is made ahead."""
        self.make_room(self.segment_bytes, keep=True)
        self._preparing = self.segment_bytes

    def make_spare(self) -> None:
        """Write a file of a segment's size ahead, so that no commit has to wait for that."""
        try:
            _make_zeroed(self._folder / SPARE, b"", self._preparing)
        except OSError:
            self._preparing = 0
            raise
        self.prepared += self._preparing

    def keep_spare(self) -> None:
        """Let the file that was made ahead wait for its number, if segments still have its size."""
        size, self._preparing = self._preparing, 0
        self._spares.append(self._folder / SPARE)
        if size != self.segment_bytes:
            self._spares.pop().unlink(missing_ok=True)

    def to_seal(self) -> Iterator[Segment]:
        """Yield the segments that are full, not sealed, and not known to resist it, oldest first."""
        full = (s for s in self.segments[:-1] if len(s) and not s.is_sealed)
        return (segment for segment in full if segment.number not in self._unsealable)

    def leave_unsealed(self, segment: Segment) -> None:
        """Take note that a segment resists; it is not tried again."""
        self._unsealable.add(segment.number)
        fresh_of(segment).unlink(missing_ok=True)

    def swap(self, segment: Segment, made: Segment) -> bool:
        """Let the sealed segment take the place of the other, whose file waits for a new number; False if it cannot."""
        fresh = fresh_of(made)
        if segment not in self.segments or made.size > segment.size:
            self.leave_unsealed(segment)
            return False
        self.written += made.size
        fresh.rename(made.path)
        sync_folder(self._folder)
        self.segments[self.segments.index(segment)] = made
        if segment.size == self.segment_bytes:
            self._spares.append(segment.path)
        else:
            segment.path.unlink(missing_ok=True)
        while len(self._spares) > SPARES:
            self._spares.pop(0).unlink(missing_ok=True)
        return True


def _segment_bytes(max_bytes: int) -> int:
    return min(SEGMENT_BYTES, max_bytes // SEGMENTS_AT_LEAST)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write_at(path: Path, data: bytes, at: int) -> None:
    """Write into a file that is there, and sync."""
    fd = os.open(path, os.O_WRONLY)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], at + done)
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
