"""The two small files of a spool: meta, which must not be lost, and cursor, whose loss only sends frames again.

meta     boot, dropped counters, dropped_through (segment), lost (frames that no segment ever had), kernel and
         kernel_since (the run of the kernel, and the first boot in it); replaced as a whole and synced: at start,
         at a drop
cursor   two slots of acknowledged ranges, and of those wanted again; never synced
"""

from __future__ import annotations

import json
import logging
import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from gateway.model.durable import replace_file
from gateway.model.ranges import RangeSet, from_text, to_text

log = logging.getLogger(__name__)

SLOT_BYTES: Final = 32 * 1024  # one copy of the acknowledged ranges
MAX_RANGES: Final = 64  # of one boot where they are in tatters: the lowest are kept
KERNEL: Final = Path("/proc/sys/kernel/random/boot_id")

Ranges = Mapping[int, RangeSet]


@dataclass(slots=True)
class Meta:
    """What the spool must know after any cut."""

    boot: int = 0
    dropped: int = 0
    dropped_values: int = 0
    dropped_through: int = 0
    lost: dict[int, RangeSet] = field(default_factory=dict)
    kernel: str = ""
    kernel_since: int = 0

    def begin(self, boot: int) -> None:
        """Take note that a boot begins; the monotonic clock goes on over the boots of one run of the kernel."""
        kernel = kernel_run()
        if not kernel or kernel != self.kernel:
            self.kernel, self.kernel_since = kernel, boot
        self.boot = boot

    def plus(self, other: Meta) -> Meta:
        """Return this with what went while it could not be read."""
        lost = {boot: RangeSet(ranges) for boot, ranges in (*self.lost.items(), *other.lost.items())}
        dropped, values = self.dropped + other.dropped, self.dropped_values + other.dropped_values
        return replace(self, dropped=dropped, dropped_values=values, lost=lost)

    def write(self, folder: Path) -> None:
        """Have it on the disk; raises OSError."""
        whole = {
            "boot": self.boot,
            "dropped": self.dropped,
            "dropped_values": self.dropped_values,
            "dropped_through": self.dropped_through,
            "lost": _texts(self.lost),
            "kernel": self.kernel,
            "kernel_since": self.kernel_since,
        }
        replace_file(folder / "meta", _sealed(json.dumps(whole).encode()))


def kernel_run() -> str:
    """Return what names this run of the kernel; empty where it does not tell."""
    try:
        return KERNEL.read_text().strip()
    except OSError:
        return ""


def read_meta(folder: Path) -> Meta:
    """Return what was written last; what is damaged begins again at 0, and is told. Raises OSError but for none."""
    try:
        found = _unsealed((folder / "meta").read_bytes())
    except FileNotFoundError:
        return Meta()
    try:
        if found is None:
            raise ValueError
        boot, dropped, dropped_values, dropped_through = (
            int(found.get(name, 0)) for name in ("boot", "dropped", "dropped_values", "dropped_through")
        )
        return Meta(
            boot,
            dropped,
            dropped_values,
            dropped_through,
            lost=_ranges(found.get("lost", {})),
            kernel=str(found.get("kernel", "")),
            kernel_since=int(found.get("kernel_since", 0)),
        )
    except (ValueError, TypeError, AttributeError):
        log.error("spool: meta is damaged: the counters of dropped frames begin again at 0")
        return Meta()


class Cursor:
    """What the broker has, per boot, and what of it is to be sent again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "cursor"
        self._turn = 0

    def read(self) -> tuple[dict[int, RangeSet], dict[int, RangeSet]]:
        """Return acknowledged and wanted-again frames as they were written last; empty where that is damaged."""
        try:
            raw = self._path.read_bytes()
        except OSError:
            return {}, {}
        slots = [_unsealed(raw[at : at + SLOT_BYTES].partition(b"\n")[0]) for at in (0, SLOT_BYTES)]
        for slot in sorted((s for s in slots if s), key=lambda s: int(s.get("turn", 0)), reverse=True):
            try:
                found = _ranges(slot["acked"]), _ranges(slot.get("again", {}))
            except (ValueError, TypeError, AttributeError, KeyError):
                continue
            self._turn = int(slot["turn"])
            return found
        return {}, {}

    def write(self, acked: Ranges, again: Ranges) -> int:
        """Write into the slot whose turn it is, not synced; returns how many bytes. Raises OSError."""
        self._turn += 1
        slot = self._slot(_texts(acked, SLOT_BYTES // 2), _texts(again, SLOT_BYTES // 2))
        if len(slot) > SLOT_BYTES:
            slot = self._slot(_texts(acked, MAX_RANGES), _texts(again, MAX_RANGES))
        if not os.access(self._path, os.W_OK, effective_ids=True):
            self._path.unlink(missing_ok=True)  # another user's
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            return os.pwrite(fd, slot[:SLOT_BYTES], SLOT_BYTES * (self._turn % 2))
        finally:
            os.close(fd)

    def _slot(self, acked: Mapping[int, str], again: Mapping[int, str]) -> bytes:
        return _sealed(json.dumps({"turn": self._turn, "acked": acked, "again": again}).encode()) + b"\n"


def _texts(ranges: Ranges, most: int = sys.maxsize) -> dict[int, str]:
    """Return ranges as text; of those of one boot the lowest, no more than `most`."""
    return {boot: to_text(islice(each, most)) for boot, each in ranges.items() if each}


def _ranges(texts: Mapping[str, str]) -> dict[int, RangeSet]:
    return {int(boot): RangeSet(from_text(text)) for boot, text in texts.items()}


def _sealed(body: bytes) -> bytes:
    return b"%08x %s" % (zlib.crc32(body), body)


def _unsealed(raw: bytes) -> dict[str, Any] | None:
    crc, _, body = raw.partition(b" ")
    try:
        whole = json.loads(body) if int(crc, 16) == zlib.crc32(body) else None
    except ValueError:
        return None
    return whole if isinstance(whole, dict) else None
