"""One file of the spool: finding its batches, whatever happened to it, and reading one."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.model.ranges import RangeSet
from gateway.spool.record import (
    ALIGN,
    BATCH,
    BATCH_MAGIC,
    FRAMES,
    HEADER_BYTES,
    SCHEMA,
    BatchHead,
    body_of,
    head_at,
    segment_number,
)
from gateway.wire.frame_lines import ScanText, decode_texts

SUFFIX: Final = ".spool"
NAME: Final = re.compile(r"[0-9]{10}\.spool")
MAX_NUMBER: Final = 2**32 - 1  # what a segment's header holds
_FIELDS: Final = 5  # of one batch in the index: offset, boot, first seq, frames, values


@dataclass(slots=True)
class Segment:
    """A segment file and the index of its frame batches.

    index  flat: offset, boot, first_seq, n_frames, n_values of each batch
    end    where the next batch goes;  damaged  runs of bytes that should have been batches
    schemas  catalog -> texts, of the schema batches in it;  held  boot -> frames in it
    """

    path: Path
    number: int
    size: int
    end: int = HEADER_BYTES
    damaged: int = 0
    index: array[int] = field(default_factory=lambda: array("Q"))
    schemas: dict[str, tuple[ScanText, ...]] = field(default_factory=dict)
    held: dict[int, RangeSet] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index) // _FIELDS

    def batch(self, i: int) -> tuple[int, int, int, int, int]:
        """Return offset, boot, first_seq, n_frames, n_values of batch i."""
        return tuple(self.index[_FIELDS * i : _FIELDS * (i + 1)])  # type: ignore[return-value]

    def batches(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield every batch of the index."""
        return (self.batch(i) for i in range(len(self)))

    def add(self, offset: int, head: BatchHead) -> None:
        """Take note of a frames batch."""
        self.index.extend((offset, head.boot, head.first_seq, head.n_frames, head.n_values))
        self.held.setdefault(head.boot, RangeSet()).add(head.first_seq, head.first_seq + head.n_frames - 1)

    def read(self, i: int) -> tuple[BatchHead, bytes]:
        """Return header and payload of batch i; raises OSError, or ValueError if it is damaged."""
        offset = self.batch(i)[0]
        with self.path.open("rb") as file:
            start = os.pread(file.fileno(), BATCH.size, offset)
            if len(start) < BATCH.size:
                raise ValueError(f"{self.path.name}: cut off at byte {offset}")
            length = BatchHead(*BATCH.unpack(start)[1:]).length
            data = start + os.pread(file.fileno(), min(length, self.size), offset + BATCH.size)
        head = head_at(data, 0, self.number)
        if head is None:
            raise ValueError(f"{self.path.name}: damaged batch at byte {offset}")
        return head, body_of(data, 0, head)


def name_of(number: int) -> str:
    """Return the file name of a segment."""
    return f"{number:010d}{SUFFIX}"


def segments_in(folder: Path) -> list[tuple[int, Path]]:
    """Return the segment files of a folder in order of their numbers."""
    found = []
    for path in folder.glob("*" + SUFFIX):
        if NAME.fullmatch(path.name) and (number := int(path.stem)) <= MAX_NUMBER and path.is_file():
            found.append((number, path))
    return sorted(found)


def scan(path: Path, number: int) -> Segment:
    """Return a segment with every batch whose CRC agrees; never raises for what is in the file, only OSError.

    A batch that does not check is skipped up to the next that does; behind the last good one begins free space.
    """
    data = path.read_bytes()
    segment = Segment(path, number, len(data))
    magic = BATCH_MAGIC.to_bytes(4, "little")
    told = segment_number(data[:HEADER_BYTES])
    if len(data) < HEADER_BYTES or (told != number and _next_good(data, HEADER_BYTES, number, magic) is None):
        is_recycled = told is not None and told < number  # a cut came between its new name and its new header
        segment.damaged += bool(data) and not is_recycled and data.count(0) != len(data)
        return segment
    at = HEADER_BYTES
    while at < len(data):
        head = head_at(data, at, number)
        if head is None:
            found = _next_good(data, at + ALIGN, number, magic)
            if found is None:
                segment.damaged += _is_torn(data, at, number, magic)
                break
            segment.damaged += 1
            at = found
            continue
        if head.kind == FRAMES:
            segment.add(at, head)
        elif head.kind == SCHEMA:
            _take_schema(segment, body_of(data, at, head))
        at += head.size
        segment.end = at
    return segment


def _take_schema(segment: Segment, body: bytes) -> None:
    try:
        catalog, texts = decode_texts(body)
    except (ValueError, KeyError, TypeError):
        segment.damaged += 1
        return
    segment.schemas[catalog] = texts


def _next_good(data: bytes, at: int, number: int, magic: bytes) -> int | None:
    while (at := data.find(magic, at)) >= 0:
        if at % ALIGN == 0 and head_at(data, at, number) is not None:
            return at
        at += 1
    return None


def _is_torn(data: bytes, at: int, number: int, magic: bytes) -> bool:
    """Return whether a batch of this segment began behind the last good one: free space is zeros or older numbers."""
    return data.find(magic + number.to_bytes(4, "little"), at) >= 0
