"""The journal: every event of the gateway, on disk until the broker has it, then for the record.

journal.jsonl    one event a line; rotated at MAX_BYTES
journal.1.jsonl  the one before
journal.sent     how many lines of journal.jsonl the broker has; its loss only sends events again
alarms.json      the standing alarms, as they are published: where the next run goes on

What is new goes to the disk as a memo with the spool's next commit, in one write with the frames that caused it, so
that events cost no sync of their own. The files follow without one, and are synced when the spool turns to another
segment, at a rotation and at the end. What a power cut took from them the next run finds in the memos.

memo   lines: an event as in journal.jsonl; ! and the standing alarms; = where everything before is safe in the files
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from gateway.model.durable import make_way, replace_file, sync_folder
from gateway.wire.events import AlarmRecord, Event, decode_alarms
from gateway.wire.strict_json import loads

log = logging.getLogger(__name__)

MAX_BYTES: Final = 4_000_000  # some 15,000 events a file, two files
MOST_BYTES: Final = 4 * MAX_BYTES  # it is looked at before a write, and what a long outage brings is written at once
MAX_WAITING: Final = 10_000  # events in memory that the broker has not taken; beyond it the oldest stay on disk only
MEMO_LINES: Final = 100  # of one memo, 27 KB: several fit into the smallest segment
ALARMS: Final = b"!"
SAFE: Final = b"="


class Journal:
    """Events in the order of their happening, with a cursor for the broker."""

    def __init__(self, folder: Path, memos: Iterable[bytes] = ()) -> None:
        """Go on where the last run ended; `memos` are those that outlived it."""
        with contextlib.suppress(OSError):  # a disk that refuses is told by the first commit
            folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "journal.jsonl"
        self._before_path = folder / "journal.1.jsonl"
        self._sent_path = folder / "journal.sent"
        self._waiting: deque[Event] = deque()
        self._new: list[bytes] = []  # lines that are not in the files yet
        self._guard = threading.Lock()  # the lines and their numbers, which the loop and the disk's threads touch
        self._files = threading.Lock()  # who writes them
        self._written = 0  # lines since the start: in the files,
        self._noted = 0  # in memos,
        self._synced = 0  # in files that are on the disk,
        self._told_safe = 0  # and told to be there
        self._lines = 0
        self._marked = 0
        self._alarms_path = folder / "alarms.json"
        for path in (self._path, self._before_path, self._sent_path, self._alarms_path):
            make_way(path, MOST_BYTES, os.R_OK | os.W_OK)
        self._standing: bytes | None = None
        self.dropped = 0
        self.changed = asyncio.Event()
        self.added: Callable[[Event], None] = lambda event: None
        self._restore([line for memo in memos for line in memo.splitlines()])

    def add(self, event: Event) -> None:
        """Take an event; it is safe with the spool's next commit, if `memos` are attached to it."""
        self._take(event.encode())
        self._waiting.append(event)
        self.changed.set()
        self.added(event)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1

    def stand(self, alarms: bytes) -> None:
        """Take the message of all standing alarms, likewise."""
        self._take(ALARMS + alarms)

    def _take(self, line: bytes) -> None:
        with self._guard:
            self._new.append(line)
            if (too_many := len(self._new) - MAX_WAITING) > 0:
                self._drop(too_many)

    def _drop(self, n: int) -> None:
        """Let go of the first new lines."""
        del self._new[:n]
        self._written += n
        self._noted = max(self._noted, self._written)

    def standing(self) -> list[AlarmRecord]:
        """Return the alarms that stood when the last run ended."""
        try:
            return decode_alarms(self._standing or self._alarms_path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.error("journal: the alarms of the last run cannot be read: %s", error)
            return []

    def next(self) -> Event | None:
        """Return the oldest event that the broker has not acknowledged."""
        return self._waiting[0] if self._waiting else None

    def sent(self, event: Event) -> None:
        """Take note that the broker has this event, which `next` returned."""
        if self._waiting and self._waiting[0] is event:
            self._waiting.popleft()

    def memos(self) -> list[bytes]:
        """Return what is new since this was asked last, to be attached to the spool's next commit."""
        with self._guard:
            lines = self._new[self._noted - self._written :]
            if self._told_safe < self._noted <= self._synced:
                lines.insert(0, SAFE)
                self._told_safe = self._noted
            self._noted = self._written + len(self._new)
        return [b"\n".join(lines[i : i + MEMO_LINES]) for i in range(0, len(lines), MEMO_LINES)]

    def commit(self) -> None:
        """Write what was in memos into the files, and what the broker has; raises OSError.

        Nothing is synced. May run in a thread of its own: what is added meanwhile waits for the next memo.
        """
        with self._files:
            self._write()

    def sync(self) -> None:
        """Have what was in memos on the disk in the files: the memos so far are needed no more. Raises OSError."""
        with self._files:
            self._write()
            self._sync()

    def close(self) -> None:
        """Have everything on the disk in the files, what was in no memo too. Raises OSError."""
        self.memos()
        self.sync()

    def _write(self) -> None:
        with self._guard:
            through = self._noted  # what is in no memo yet, a power cut might take from an unsynced file
            new = self._new[: through - self._written]
        events = [line for line in new if not line.startswith(ALARMS)]
        if events:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                self._sync()
                self._path.replace(self._before_path)
                self._lines = 0
            self._append(b"\n".join(events) + b"\n")
            self._lines += len(events)
        for line in new:
            if line.startswith(ALARMS):
                self._standing = line[len(ALARMS) :]
        with self._guard:
            self._drop(max(0, through - self._written))
        has = max(0, self._lines - len(self._waiting))
        if has != self._marked:
            self._sent_path.write_text(str(has))
            self._marked = has

    def _append(self, data: bytes) -> None:
        """Write at the end of the file, all of it or nothing; raises OSError."""
        with self._path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            except OSError:
                file.truncate(end)
                raise

    def _sync(self) -> None:
        through = self._written
        if self._path.exists():
            fd = os.open(self._path, os.O_WRONLY)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        if self._standing is not None:
            replace_file(self._alarms_path, self._standing)
            self._standing = None
        sync_folder(self._path.parent)
        self._synced = through

    def _restore(self, memos: list[bytes]) -> None:
        """Take the events that the last run had not brought to the broker, and what only the memos have of it."""
        lines = self._read()
        if unsafe := memos[len(memos) - memos[::-1].index(SAFE) :] if SAFE in memos else memos:
            known = {*lines, *_lines_of(self._before_path)}
            self._new = [line for line in dict.fromkeys(unsafe) if line not in known]
            self._noted = len(self._new)
            lines += [line for line in self._new if not line.startswith(ALARMS)]
        try:
            marked = int(self._sent_path.read_text())
        except (OSError, ValueError):
            marked = 0
        if marked > len(lines):  # of the file before, which a power cut let stand
            marked = 0
        for line in lines[marked:][-MAX_WAITING:]:
            try:
                self._waiting.append(Event(**loads(line)))
            except (ValueError, TypeError):
                log.warning("journal: a damaged line skipped")
        self._marked = marked
        if self._new:
            with contextlib.suppress(OSError):  # told by the first commit
                self.sync()

    def _read(self) -> list[bytes]:
        """Return the lines of the file; one that a power cut left without an end is taken away."""
        try:
            data = self._path.read_bytes()
            if end := len(data) - (data.rfind(b"\n") + 1):
                os.truncate(self._path, len(data) - end)
        except OSError:
            return []
        lines = data[: len(data) - end].splitlines()
        self._lines = len(lines)
        return lines


def _lines_of(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []
