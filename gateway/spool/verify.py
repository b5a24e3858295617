"""What a spool folder holds, read only: for `corridor spool verify` and whoever reads a spool that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.model.ranges import RangeSet
from gateway.spool.notes import Meta, read_meta
from gateway.spool.segment import UNREADABLE, scan, segments_in, settle


def verify(folder: Path) -> dict[str, Any]:
    """Return what a spool folder holds, reading only; for `corridor spool verify`.

    reason  why it is not ok, where that is not damage alone: no folder, no spool, or a segment that cannot be read
    """
    boots: dict[int, RangeSet] = {}
    frames = values = batches = largest = damaged = 0
    segments, meta, reason = _contents(folder)
    scanned = []
    for number, path in segments:
        try:
            scanned.append(scan(path, number))
        except FileNotFoundError:
            continue  # dropped meanwhile by the gateway whose spool this is
        except OSError as error:
            damaged += 1
            reason = f"{path.name} cannot be read: {error.strerror}"
            continue
    offsets = settle(scanned)
    for segment in scanned:
        damaged += segment.damaged
        for i, (_, boot, first, n, n_values) in enumerate(segment.batches()):
            try:
                segment.block(i, offsets)
            except UNREADABLE:
                damaged += 1
                continue
            boots.setdefault(boot, RangeSet()).add(first, first + n - 1)
            frames, values, batches, largest = frames + n, values + n_values, batches + 1, max(largest, n)
    first_kept = {boot: next(iter(ranges))[0] for boot, ranges in boots.items()}
    through = meta.dropped_through
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


def _contents(folder: Path) -> tuple[list[tuple[int, Path]], Meta, str | None]:
    """Return segments and meta of a spool, or why it is none."""
    try:
        names = {path.name for path in folder.iterdir()}
        segments = segments_in(folder)
        if not segments and "meta" not in names:
            return [], Meta(), "is not a spool: it has neither a segment (*.spool) nor meta"
        return segments, read_meta(folder), None
    except (NotADirectoryError, FileNotFoundError):
        return [], Meta(), "is not a folder"
    except OSError as error:
        return [], Meta(), f"cannot be read: {error.strerror}"
