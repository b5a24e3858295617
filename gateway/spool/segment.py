"""One file of the spool: finding its batches, whatever happened to it, and reading one."""

from __future__ import annotations

import errno
import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence, Set
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
    HELD,
    MEMO,
    OFFSET,
    PAGE_BYTES,
    SCHEMA,
    BatchHead,
    Block,
    body_of,
    catalog_of,
    decode_block,
    decode_memo,
    decode_schema,
    head_at,
    is_ours,
    read_segment_header,
)
from gateway.wire.frame_lines import ScanText
from gateway.wire.strict_json import loads, whole

SUFFIX: Final = ".spool"
SEALED: Final = ".sealed"  # written anew in long blocks once it was full; takes the place of the other
NAME: Final = re.compile(r"[0-9]{10}\.(spool|sealed)")
UNREADABLE: Final = (OSError, ValueError, KeyError)  # what reading a batch of a damaged file ends in
SEALED_BASE: Final = 1 << 32  # its batches count from here: a reader who stood in the other one begins it anew
MAX_NUMBER: Final = 2**32 - 1  # what a segment's header holds
_FIELDS: Final = 5  # of one batch in the index: offset, boot, first seq, frames, values


@dataclass(slots=True)
class Segment:
    """A segment file and the index of its frame batches.

    index  flat: offset, boot, first_seq, n_frames, n_values of each batch
    end    where the next batch goes;  is_left  none does, because the disk failed there
    damaged  runs of bytes that should have been batches
    schemas  catalog -> texts, of the schema batches in it;  held  boot -> frames in it
    unfixed  boot -> frames whose stamps are not fixed in it;  offsets  boot -> what fixes them: through which number,
             and the offset of the wall clock, None for the one they have
    memos    what was attached to the commits in it, as the scan found it
    known    schemas of other segments, where its own are damaged
    """

    path: Path
    number: int
    size: int
    end: int = HEADER_BYTES
    damaged: int = 0
    is_left: bool = False
    index: array[int] = field(default_factory=lambda: array("Q"))
    schemas: dict[str, tuple[ScanText, ...]] = field(default_factory=dict)
    held: dict[int, RangeSet] = field(default_factory=dict)
    unfixed: dict[int, RangeSet] = field(default_factory=dict)
    offsets: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    memos: list[bytes] = field(default_factory=list)
    known: Mapping[str, tuple[ScanText, ...]] = field(default_factory=dict)

    @property
    def is_sealed(self) -> bool:
        """Whether it is one that nothing is added to any more."""
        return self.path.suffix == SEALED

    @property
    def base(self) -> int:
        """What its batches count from in a reader's position."""
        return SEALED_BASE if self.is_sealed else 0

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
        last = head.first_seq + head.n_frames - 1
        self.held.setdefault(head.boot, RangeSet()).add(head.first_seq, last)
        if head.kind == HELD:
            self.unfixed.setdefault(head.boot, RangeSet()).add(head.first_seq, last)

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

    def leave_out(self, batches: Set[int]) -> None:
        """Let go of batches of the index."""
        if batches:
            kept = [self.batch(i) for i in range(len(self)) if i not in batches]
            self.index = array("Q", (number for batch in kept for number in batch))
            self.held = {}
            for _, boot, first, n, _ in kept:
                self.held.setdefault(boot, RangeSet()).add(first, first + n - 1)

    def texts(self, catalog: str) -> tuple[ScanText, ...]:
        """Return how the lines of a catalog's frames look; raises KeyError."""
        return self.schemas[catalog] if catalog in self.schemas else self.known[catalog]

    def block(self, i: int, offsets: Mapping[int, tuple[int, int | None]]) -> tuple[Block, str]:
        """Return the frames of batch i, stamped as `offsets` fixes them, and their catalog.

        Raises one of UNREADABLE.
        """
        head, body = self.read(i)
        catalog = catalog_of(body)
        block = decode_block(body, head, [len(text.names) for text in self.texts(catalog)])
        through, offset_ns = offsets.get(head.boot, (0, None))
        if head.kind == HELD and offset_ns is not None and head.first_seq <= through:
            block = block.moved(offset_ns)
        return block, catalog


def name_of(number: int, suffix: str = SUFFIX) -> str:
    """Return the file name of a segment."""
    return f"{number:010d}{suffix}"


def segments_in(folder: Path) -> list[tuple[int, Path]]:
    """Return the segment files of a folder in order of their numbers; of one that is there twice the sealed one."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.s*")):  # .sealed before .spool
        if NAME.fullmatch(path.name) and (number := int(path.stem)) <= MAX_NUMBER and path.is_file():
            found.setdefault(number, path)
    return sorted(found.items())


def scan(path: Path, number: int) -> Segment:
    """Return a segment with every batch whose CRC agrees; never raises for what is in the file, only OSError.

    A batch that does not check is skipped up to the next that does; behind the last good one begins free space. What
    cannot be read counts as damaged.
    """
    data, n_unread = _read(path)
    segment = Segment(path, number, len(data), damaged=n_unread, is_left=n_unread > 0)
    magic = BATCH_MAGIC.to_bytes(4, "little")
    told = read_segment_header(data[:HEADER_BYTES])
    if len(data) < HEADER_BYTES or told is None or told[0] != number:
        is_recycled = told is not None and told[0] < number  # a cut came between its new name and its new header
        segment.damaged += not is_recycled
        if len(data) < HEADER_BYTES or _next_good(data, HEADER_BYTES, number, magic) is None:
            return segment
    elif len(data) < told[1]:
        segment.damaged += 1
        segment.is_left = True
    at = HEADER_BYTES
    while at < len(data):
        head = head_at(data, at, number)
        if head is None:
            found = _next_good(data, at + ALIGN, number, magic)
            if found is None:
                segment.damaged += _is_torn(data, at, number, magic)
                break
            later = head_at(data, found, number)
            segment.damaged += later is None or later.gap != found - at
            at = found
            continue
        if head.kind in (FRAMES, HELD):
            segment.add(at, head)
        else:
            _take(segment, head.kind, body_of(data, at, head))
        at += head.size
        segment.end = at
    return segment


def settle(segments: Sequence[Segment]) -> dict[int, tuple[int, int | None]]:
    """Let segments of a spool make up for each other; returns what fixes the stamps of held frames, from all of them.

    A schema that is damaged in one is known from the others. A batch that stands twice, since its sync was refused
    and it was written again elsewhere, counts where it was written last.
    """
    known = {catalog: texts for segment in segments for catalog, texts in segment.schemas.items()}
    seen: dict[int, RangeSet] = {}
    for segment in reversed(segments):
        segment.known = known
        repeated = set()
        for i in reversed(range(len(segment))):
            _, boot, first, n, _ = segment.batch(i)
            later = seen.setdefault(boot, RangeSet())
            if later.covers(first, first + n - 1):
                repeated.add(i)
            later.add(first, first + n - 1)
        segment.leave_out(repeated)
    return {boot: fixed for segment in segments for boot, fixed in segment.offsets.items()}


def _read(path: Path) -> tuple[bytes, int]:
    """Return what a file holds, zeros where the disk cannot read it, and how many such pages; raises OSError."""
    try:
        return path.read_bytes(), 0
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    pages, n_unread = [], 0
    with path.open("rb", buffering=0) as file:
        for at in range(0, os.fstat(file.fileno()).st_size, PAGE_BYTES):
            try:
                pages.append(os.pread(file.fileno(), PAGE_BYTES, at))
            except OSError:
                pages.append(bytes(PAGE_BYTES))
                n_unread += 1
    return b"".join(pages), n_unread


def _take(segment: Segment, kind: int, body: bytes) -> None:
    """Take in a batch without frames."""
    try:
        if kind == SCHEMA:
            catalog, texts = decode_schema(body)
            segment.schemas[catalog] = texts
        elif kind == OFFSET:
            raw = loads(body)
            offset_ns = None if raw["offset_ns"] is None else whole(raw["offset_ns"])
            segment.offsets[whole(raw["boot"])] = (whole(raw["through"]), offset_ns)
        elif kind == MEMO:
            segment.memos.append(decode_memo(body))
    except (ValueError, KeyError, TypeError):
        segment.damaged += 1


def _next_good(data: bytes, at: int, number: int, magic: bytes) -> int | None:
    while (at := data.find(magic, at)) >= 0:
        if at % ALIGN == 0 and head_at(data, at, number) is not None:
            return at
        at += 1
    return None


def _is_torn(data: bytes, at: int, number: int, magic: bytes) -> bool:
    """Return whether a batch of this segment began behind the last good one: free space is zeros or older numbers."""
    if data.find(magic + number.to_bytes(4, "little"), at) >= 0:
        return True
    return is_ours(data, at, number) or is_ours(data, at - at % -PAGE_BYTES, number)
