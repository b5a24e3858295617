"""What no store will take, kept for a person to look at: JSON lines, bounded, on disk before it is acknowledged."""

from __future__ import annotations

import base64
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.model.durable import sync_folder
from gateway.wire.strict_json import dumps

log = logging.getLogger(__name__)

MAX_BYTES: Final = 64_000_000  # of both files: a day of one bad 1 Hz meter is 20 MB
MAX_TEXT_BYTES: Final = 256_000  # of one letter: a gateway's largest message, and not all of a foreign file


@dataclass(frozen=True, slots=True)
class Letter:
    """A line, or a whole payload, that was refused. `time_ns` is when; `reason` says by what."""

    time_ns: int
    topic: str
    reason: str
    text: bytes

    def encode(self) -> bytes:
        """Return the JSON line: time, topic, reason, and text (base64 if it is not UTF-8; `cut` if it was longer)."""
        whole: dict[str, Any] = {"time": self.time_ns, "topic": self.topic, "reason": self.reason}
        text = self.text[:MAX_TEXT_BYTES]
        try:
            whole["text"] = text.decode()
        except UnicodeDecodeError:
            whole["base64"] = base64.b64encode(text).decode()
        if len(text) < len(self.text):
            whole["cut"] = len(self.text)
        return dumps(whole) + b"\n"


class DeadLetters:
    """`dead_letters.jsonl`, and the generation before it; together never more than `max_bytes`.

    Synchronous: it is called in a thread.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = folder / "dead_letters.jsonl"
        self.older = folder / "dead_letters.old.jsonl"
        self.max_bytes = max_bytes
        self.parked_total = 0
        self.discarded_total = 0

    def park(self, letters: list[Letter]) -> None:
        """Append letters and sync them to disk; raises OSError."""
        text = b"".join(letter.encode() for letter in letters)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size and size + len(text) > self.max_bytes // 2:
            self._rotate()
        with self.path.open("ab") as file:
            if file.tell() and not _ends_with_line_feed(self.path):
                file.write(b"\n")  # the process ended in the middle of a letter
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)
        self.parked_total += len(letters)

    def _rotate(self) -> None:
        if self.older.exists():
            with self.older.open("rb") as file:
                n = sum(1 for _ in file)
            self.discarded_total += n
            log.warning("dead letters: the %d oldest are discarded, %d in all", n, self.discarded_total)
        self.path.replace(self.older)


def _ends_with_line_feed(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
