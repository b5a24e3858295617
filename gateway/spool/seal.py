"""A full segment written anew in long blocks: differences need a run of values to be small.

Batches of one second keep 3 to 4 bytes a value, blocks of a minute 0.8 to 1.2. The new file stands beside the old one
until both are on the disk, so a power cut leaves one of them whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from gateway.spool.record import (
    FRAMES,
    HEADER_BYTES,
    HELD,
    OFFSET,
    Block,
    encode_block,
    encode_offset,
    encode_schema,
    head_at,
    join,
    pack_batch,
    pack_schema,
    segment_header,
)
from gateway.spool.segment import SEALED, UNREADABLE, Segment, name_of

BATCHES: Final = 64  # in a block: a minute of commits; with more the columns hardly shrink (ACQUISITION section 8)
VALUES: Final = 65_536  # in a block where few tags would leave it short
MAX_VALUES: Final = 524_288  # and never more: 6 MB while it is written or read


def seal(segment: Segment, offsets: Mapping[int, tuple[int, int | None]]) -> Segment:
    """Write the batches of a segment into a new file under its number, synced but not yet under its name.

    What cannot be read is left out and counted as damaged. Stamps that are fixed by now are fixed in the new file.
    Raises OSError.
    """
    path = segment.path.with_name(name_of(segment.number, SEALED))
    made = Segment(path, segment.number, 0, damaged=segment.damaged)
    with fresh_of(made).open("wb") as file:
        file.write(bytes(HEADER_BYTES))

        def put(boot: int, kind: int, body: bytes, first: int = 0, frames: int = 0, values: int = 0) -> None:
            batch = pack_batch(segment.number, boot, kind, first, frames, values, body)
            if frames:
                head = head_at(batch, 0, segment.number)
                assert head is not None
                made.add(made.end, head)
            file.write(batch)
            made.end += len(batch)

        for boot, (through, offset_ns) in segment.offsets.items():
            put(boot, OFFSET, encode_offset(boot, through, offset_ns))
        made.offsets.update(segment.offsets)
        for boot, kind, catalog, block in _long_blocks(segment, offsets, made):
            texts = segment.texts(catalog)
            if catalog not in made.schemas:
                schema = pack_schema(segment.number, boot, encode_schema(catalog, texts))
                file.write(schema)
                made.end += len(schema)
                made.schemas[catalog] = texts
            decimals = [np.array(text.decimals, np.int8) for text in texts]
            body = encode_block(catalog, block, decimals)
            put(boot, kind, body, block.first_seq, len(block), block.n_good)
        file.seek(0)
        file.write(segment_header(segment.number, made.end))
        file.flush()
        os.fsync(file.fileno())
    made.size = made.end
    made.known = segment.known
    return made


def fresh_of(segment: Segment) -> Path:
    """Return where a segment is written before it has its name."""
    return segment.path.with_suffix(".new")


def _long_blocks(
    segment: Segment, offsets: Mapping[int, tuple[int, int | None]], made: Segment
) -> Iterator[tuple[int, int, str, Block]]:
    """Yield (boot, kind, catalog, block), each of as many batches that follow each other as make a long one."""
    parts: list[Block] = []
    n_values = 0
    known: tuple[int, int, str] | None = None
    for i in range(len(segment)):
        _, boot, first, _, _ = segment.batch(i)
        try:
            block, catalog = segment.block(i, offsets)
        except FileNotFoundError:
            raise  # dropped meanwhile: there is nothing left to seal
        except UNREADABLE:
            made.damaged += 1
            continue
        is_open = boot in segment.unfixed and first in segment.unfixed[boot]
        is_open = is_open and first > offsets.get(boot, (0, None))[0]
        now = (boot, HELD if is_open else FRAMES, catalog)
        is_next = bool(parts) and now == known and parts[-1].first_seq + len(parts[-1]) == first
        is_long = len(parts) >= BATCHES and n_values >= VALUES
        if parts and (not is_next or is_long or n_values + block.n_cells > MAX_VALUES):
            assert known is not None
            yield *known, join(parts)
            parts, n_values = [], 0
        known = now
        parts.append(block)
        n_values += block.n_cells
    if parts:
        assert known is not None
        yield *known, join(parts)
