"""The journal: every event of the gateway, on disk until the broker has it, then for the record.

journal.jsonl    one event a line, appended, synced with the spool's commit; rotated at MAX_BYTES
journal.1.jsonl  the one before
journal.sent     how many lines of journal.jsonl the broker has; its loss only sends events again
alarms.json      the standing alarms, as they are published: where the next run goes on
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.wire.events import AlarmRecord, Event, decode_alarms
from gateway.wire.strict_json import loads

log = logging.getLogger(__name__)

MAX_BYTES: Final = 4_000_000  # some 15,000 events a file, two files
MAX_WAITING: Final = 10_000  # events in memory that the broker has not taken; beyond it the oldest stay on disk only


class Journal:
    """Events in the order of their happening, with a cursor for the broker."""

    def __init__(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # a disk that refuses is told by the first commit
            folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "journal.jsonl"
        self._sent_path = folder / "journal.sent"
        self._waiting: deque[Event] = deque()
        self._new: list[bytes] = []
        self._lines = 0
        self._marked = 0
        self._alarms_path = folder / "alarms.json"
        self._standing: bytes | None = None
        self.dropped = 0
        self.changed = asyncio.Event()
        self.added: Callable[[Event], None] = lambda event: None
        self._restore()

    def add(self, event: Event) -> None:
        """Take an event; it is on disk after the next commit."""
        self._new.append(event.encode())
        del self._new[:-MAX_WAITING]
        self._waiting.append(event)
        self.changed.set()
        self.added(event)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1

    def stand(self, alarms: bytes) -> None:
        """Take the message of all standing alarms; it is on disk after the next commit."""
        self._standing = alarms

    def standing(self) -> list[AlarmRecord]:
        """Return the alarms that stood when the last run ended."""
        try:
            return decode_alarms(self._alarms_path.read_bytes())
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

    def commit(self) -> None:
        """Append what is new and sync, and note what the broker has; raises OSError.

        May run in a thread of its own: what is added meanwhile waits for the next commit.
        """
        new = list(self._new)
        if new:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                self._path.replace(self._path.with_name("journal.1.jsonl"))
                self._lines = 0
            with self._path.open("ab") as file:
                file.write(b"\n".join(new) + b"\n")
                file.flush()
                os.fdatasync(file.fileno())
            self._lines += len(new)
            del self._new[: len(new)]
        if standing := self._standing:
            fresh = self._alarms_path.with_name("alarms.json.new")
            with fresh.open("wb") as file:
                file.write(standing)
                file.flush()
                os.fdatasync(file.fileno())
            fresh.replace(self._alarms_path)
            if self._standing is standing:
                self._standing = None
        has = max(0, self._lines - len(self._waiting))
        if has != self._marked:
            self._sent_path.write_text(str(has))
            self._marked = has

    def _restore(self) -> None:
        """Take the events that the last run had not brought to the broker."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return
        try:
            self._marked = int(self._sent_path.read_text())
        except (OSError, ValueError):
            self._marked = 0
        self._lines = len(lines)
        for line in lines[self._marked :][-MAX_WAITING:]:
            try:
                self._waiting.append(Event(**loads(line)))
            except (ValueError, TypeError):
                log.warning("journal: a damaged line skipped")
