"""Batches of frames as bytes: the format of the spool.

Invariants
    A batch is accepted only if its magic, its segment number, its length and its CRC32C agree; anything else is
    skipped. Frames of a batch have successive sequence numbers of one boot. A batch explains itself with the schema
    batch (same catalog) that stands before it in the same segment. Numbers are little endian.

    segment  | header page | batch | batch | ... | zeros or old batches of a lower segment number |
    header   | magic 8s | segment u32 | size of the file u32 | crc u32 |                 padded to HEADER_BYTES
    batch    | magic u32 | segment u32 | boot u32 | kind u32 | first_seq u64 | n_frames u32 | n_values u32
             | length u32 | gap u32 | crc u32 | payload, length bytes | padding to 8 |
             gap: bytes without a meaning before it, since the batch before ended in another page
             crc covers the batch's header without itself, then the payload
    schema   payload = zlib( JSON of frame_lines.encode_texts ); it stands there twice, since all else hangs on it
    frames   payload = zlib( catalog 8s | tick u8 | scan of each frame, as differences | times of each frame, scan by
             scan | for each scan in ascending number its matrix of values and quality, column after column )
    held     the same of frames whose stamps are not fixed: the clock was not synchronised
    offset   payload = JSON {boot, through, offset_ns}: fixes the stamps of that boot's held frames up to that number
    times    in ticks of 1 ns or, where all are whole, 1 us. On the monotonic clock, which is the truth: when it was
             due, as second differences (a period is none), and the middle of the poll, counted from there; its
             uncertainty; what the wall clock was ahead of the monotonic one. The last three as differences
    column   | mode u8 | decimals u8 | differences as zigzag varints | 0, or 1 and the qualities as varint differences |
             mode SCALED: value * 10^decimals; SINGLE, DOUBLE: bits of the float32, float64; EMPTY: no good value
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.model.frame import FLOAT32_TEXT, Frame
from gateway.wire.frame_lines import EXACT, ScanText, decode_texts, encode_texts
from gateway.wire.strict_json import dumps

SEGMENT_MAGIC: Final = b"CGSPOOL2"
BATCH_MAGIC: Final = 0x31424743  # "CGB1"
PAGE_BYTES: Final = 4096  # what a disk is handed at least
HEADER_BYTES: Final = PAGE_BYTES  # one page, so that batches never share one with the header
ALIGN: Final = 8
SCHEMA: Final = 1
FRAMES: Final = 2
HELD: Final = 3
OFFSET: Final = 4
MEMO: Final = 5
BATCH: Final = struct.Struct("<IIIIQIIIII")
SEGMENT: Final = struct.Struct("<8sIII")
ZLIB_LEVEL: Final = 1  # level 6 and zstd gain below 1 % on these columns (ACQUISITION section 8)
SCALED, SINGLE, DOUBLE, EMPTY = 0, 1, 2, 3
MAX_VARINT: Final = 10  # bytes of a 64-bit varint
CATALOG_BYTES: Final = 8
TICKS_NS: Final = (1, 1_000)  # by the tick byte
DUE, TIME, OFFSETS = 1, 2, 4  # rows of Block.columns


def _crc_table() -> NDArray[np.uint32]:
    table = np.zeros(256, np.uint32)
    for i in range(256):
        crc = i
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # Castagnoli polynomial, reflected
        table[i] = crc
    return table


_CRC: Final = _crc_table()


@kernel("u4(u1[::1], u4[::1], u4)", nogil=True)
def _crc_update(data, table, crc):
    """Return the CRC32C register after these bytes."""
    for i in range(data.size):
        crc = (crc >> np.uint32(8)) ^ table[(crc ^ np.uint32(data[i])) & np.uint32(255)]
    return crc


def crc32c(*parts: bytes) -> int:
    """Return the CRC32C of the parts in a row (RFC 3720, appendix B.4)."""
    crc = np.uint32(0xFFFFFFFF)
    for part in parts:
        crc = _crc_update(np.frombuffer(part, np.uint8).copy(), _CRC, crc) if part else crc
    return int(crc) ^ 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class BatchHead:
    """The header of a batch. n_values counts the good values of its frames."""

    segment: int
    boot: int
    kind: int
    first_seq: int
    n_frames: int
    n_values: int
    length: int
    gap: int
    crc: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch in the segment, padding included."""
        return -(-(BATCH.size + self.length) // ALIGN) * ALIGN


def segment_header(number: int, size: int) -> bytes:
    """Return the header page of a segment."""
    head = SEGMENT.pack(SEGMENT_MAGIC, number, size, 0)[:-4]
    return (head + crc32c(head).to_bytes(4, "little")).ljust(HEADER_BYTES, b"\0")


def read_segment_header(page: bytes) -> tuple[int, int] | None:
    """Return number and size of a segment by its header page, or None if it is not one."""
    if len(page) < SEGMENT.size:
        return None
    magic, number, size, crc = SEGMENT.unpack_from(page)
    return (number, size) if magic == SEGMENT_MAGIC and crc == crc32c(page[: SEGMENT.size - 4]) else None


def pack_schema(segment: int, boot: int, schema: bytes) -> bytes:
    """Return a schema as it is written: twice."""
    return 2 * pack_batch(segment, boot, SCHEMA, 0, 0, 0, schema)


def encode_schema(catalog: str, texts: Sequence[ScanText]) -> bytes:
    """Return the payload of a schema."""
    return zlib.compress(encode_texts(catalog, texts), ZLIB_LEVEL)


def decode_schema(body: bytes) -> tuple[str, tuple[ScanText, ...]]:
    """Return catalog and texts of a schema's payload; raises ValueError, KeyError or TypeError."""
    try:
        return decode_texts(zlib.decompress(body))
    except zlib.error as error:
        raise CorruptBatch(str(error)) from None


def pack_batch(
    segment: int, boot: int, kind: int, first_seq: int, n_frames: int, n_values: int, body: bytes, gap: int = 0
) -> bytes:
    """Return a batch as it is written, without the gap before it."""
    head = BATCH.pack(BATCH_MAGIC, segment, boot, kind, first_seq, n_frames, n_values, len(body), gap, 0)
    crc = crc32c(head[:-4], body)
    batch = head[:-4] + crc.to_bytes(4, "little") + body
    return batch + bytes(-len(batch) % ALIGN)


def head_at(data: bytes | memoryview, at: int, segment: int) -> BatchHead | None:
    """Return the header of a batch of this segment if one whole, undamaged batch begins at `at`."""
    if at + BATCH.size > len(data):
        return None
    magic, *fields = BATCH.unpack_from(data, at)
    if magic != BATCH_MAGIC:
        return None
    head = BatchHead(*fields)
    if head.segment != segment or at + BATCH.size + head.length > len(data):
        return None
    view = memoryview(data)[at : at + BATCH.size + head.length]
    return head if crc32c(bytes(view[: BATCH.size - 4]), bytes(view[BATCH.size :])) == head.crc else None


def gap_before(at: int, n_bytes: int) -> int:
    """Return how many bytes to leave out at `at`, so that n_bytes touch as few pages as they can."""
    touched = -(-(at + n_bytes) // PAGE_BYTES) - at // PAGE_BYTES
    return -at % PAGE_BYTES if touched > -(-n_bytes // PAGE_BYTES) else 0


def encode_offset(boot: int, through: int, offset_ns: int | None) -> bytes:
    """Return the payload that fixes the stamps of a boot's held frames; None: as they were stamped."""
    return dumps({"boot": boot, "through": through, "offset_ns": offset_ns})


def encode_memo(memo: bytes) -> bytes:
    """Return the payload of a memo."""
    return zlib.compress(memo, ZLIB_LEVEL)


def decode_memo(body: bytes) -> bytes:
    """Return what a memo's payload says; raises ValueError."""
    try:
        return zlib.decompress(body)
    except zlib.error as error:
        raise CorruptBatch(str(error)) from None


def is_ours(data: bytes, at: int, segment: int) -> bool:
    """Return whether a batch of this segment stands at `at` whose magic or segment number alone is damaged."""
    mended = BATCH_MAGIC.to_bytes(4, "little") + segment.to_bytes(4, "little") + data[at + 8 : at + BATCH.size]
    if len(mended) < BATCH.size:
        return False
    length = BatchHead(*BATCH.unpack(mended)[1:]).length
    return head_at(mended + data[at + BATCH.size : at + BATCH.size + length], 0, segment) is not None


def body_of(data: bytes, at: int, head: BatchHead) -> bytes:
    """Return the payload of a batch."""
    return data[at + BATCH.size : at + BATCH.size + head.length]


@kernel("i8(i8, u1[::1], i8)", nogil=True)
def _put(x, out, pos):
    """Write a signed number as a zigzag varint; return the position behind it."""
    z = (np.uint64(x) << np.uint64(1)) ^ np.uint64(x >> np.int64(63))
    while z >= np.uint64(128):
        out[pos] = np.uint8(z & np.uint64(127)) | np.uint8(128)
        z >>= np.uint64(7)
        pos += 1
    out[pos] = np.uint8(z)
    return pos + 1


@kernel("UniTuple(i8, 2)(u1[::1], i8)", nogil=True)
def _get(data, pos):
    """Return (number, position behind it) of a zigzag varint; a position beyond the end means: cut off."""
    z = np.uint64(0)
    shift = np.uint64(0)
    while pos < data.size:
        byte = data[pos]
        pos += 1
        z |= np.uint64(byte & np.uint8(127)) << shift
        if byte < 128:
            return np.int64(z >> np.uint64(1)) ^ -np.int64(z & np.uint64(1)), pos
        shift += np.uint64(7)
        if shift > np.uint64(63):
            break
    return np.int64(0), data.size + 1


@kernel("i8(i8[::1], u1[::1], i8)", nogil=True)
def put_column(column, out, pos):
    """Write a column of whole numbers as differences; return the position behind it."""
    before = np.int64(0)
    for i in range(column.size):
        pos = _put(column[i] - before, out, pos)
        before = column[i]
    return pos


@kernel("i8(u1[::1], i8, i8[::1])", nogil=True)
def get_column(data, pos, column):
    """Fill a column from its differences; return the position behind it."""
    before = np.int64(0)
    for i in range(column.size):
        step, pos = _get(data, pos)
        if pos > data.size:
            return pos
        before += step
        column[i] = before
    return pos


@kernel("i8(i8[::1], i8[::1], i8[::1], i8[::1], i8[::1], i8, u1[::1], i8)", nogil=True)
def put_times(scan, due, time, uncertainty, offset, tick, out, pos):
    """Write the times of frames that stand scan by scan; return the position behind them."""
    step = first = before = lag = doubt = ahead = np.int64(0)
    for i in range(scan.size):
        due_i = (due[i] - offset[i]) // tick
        if i == 0 or scan[i] != scan[i - 1]:
            guess = first
            first = due_i
        else:
            guess = before + step
            step = due_i - before
        pos = _put(due_i - guess, out, pos)
        before = due_i
        lag_i, doubt_i, ahead_i = (time[i] - due[i]) // tick, uncertainty[i] // tick, offset[i] // tick
        pos = _put(lag_i - lag, out, pos)
        pos = _put(doubt_i - doubt, out, pos)
        pos = _put(ahead_i - ahead, out, pos)
        lag, doubt, ahead = lag_i, doubt_i, ahead_i
    return pos


@kernel("i8(u1[::1], i8, i8[::1], i8, i8[::1], i8[::1], i8[::1], i8[::1])", nogil=True)
def get_times(data, pos, scan, tick, due, time, uncertainty, offset):
    """Fill the columns from what put_times wrote; return the position behind it."""
    step = first = before = lag = doubt = ahead = np.int64(0)
    for i in range(scan.size):
        x, pos = _get(data, pos)
        if i == 0 or scan[i] != scan[i - 1]:
            due_i = first + x
            first = due_i
        else:
            due_i = before + step + x
            step = due_i - before
        before = due_i
        x, pos = _get(data, pos)
        lag += x
        x, pos = _get(data, pos)
        doubt += x
        x, pos = _get(data, pos)
        ahead += x
        if pos > data.size:
            return pos
        offset[i] = ahead * tick
        due[i] = due_i * tick + offset[i]
        time[i] = due[i] + lag * tick
        uncertainty[i] = doubt * tick
    return pos


@kernel("i8(f8[:, ::1], u4[:, ::1], i1[::1], f4[::1], u4[::1], f8[::1], i8[::1], u1[::1], i8)", nogil=True)
def put_matrix(value, quality, decimals, f4, bits4, f8, bits8, out, pos):
    """Write the values and qualities of one scan's frames, column after column; return the position behind them.

    value float64[frames, rows], quality uint32[frames, rows];  f4, bits4 and f8, bits8  one number seen as its bits
    """
    frames, rows = value.shape
    for j in range(rows):
        hint = np.int64(decimals[j])
        power = 10.0 ** max(hint, 0)
        any_good = False
        scaled = hint >= 0
        single = hint == FLOAT32_TEXT
        for i in range(frames):
            v = value[i, j]
            if quality[i, j] & BAD:
                continue
            any_good = True
            m = np.rint(v * power)
            if scaled and not (abs(m) < EXACT and m / power == v and (m != 0.0 or np.copysign(1.0, v) > 0.0)):
                scaled = False
            if single and np.float64(np.float32(v)) != v:
                single = False
        mode = SCALED if scaled else (SINGLE if single else DOUBLE)
        out[pos] = mode if any_good else EMPTY
        out[pos + 1] = max(hint, 0)
        pos += 2
        before = np.int64(0)
        mixed = False
        for i in range(frames):
            mixed = mixed or quality[i, j] != 0
            if not any_good:
                continue
            bits = before
            if not quality[i, j] & BAD:
                if mode == SCALED:
                    bits = np.int64(np.rint(value[i, j] * power))
                elif mode == SINGLE:
                    f4[0] = np.float32(value[i, j])
                    bits = np.int64(bits4[0])
                else:
                    f8[0] = value[i, j]
                    bits = bits8[0]
            pos = _put(bits - before, out, pos)
            before = bits
        out[pos] = 1 if mixed else 0
        pos += 1
        if mixed:
            last = np.int64(0)
            for i in range(frames):
                q = np.int64(quality[i, j])
                pos = _put(q - last, out, pos)
                last = q
    return pos


@kernel("i8(u1[::1], i8, f4[::1], u4[::1], f8[::1], i8[::1], f8[:, ::1], u4[:, ::1])", nogil=True)
def get_matrix(data, pos, f4, bits4, f8, bits8, value, quality):
    """Fill values (NaN where bad) and qualities from what put_matrix wrote; return the position behind them."""
    frames, rows = value.shape
    for j in range(rows):
        if pos + 3 > data.size:
            return np.int64(data.size + 1)
        mode = data[pos]
        power = 10.0 ** np.int64(data[pos + 1])
        pos += 2
        before = np.int64(0)
        for i in range(frames):
            value[i, j] = np.nan
            quality[i, j] = 0
            if mode == EMPTY:
                continue
            step, pos = _get(data, pos)
            if pos > data.size:
                return pos
            before += step
            if mode == SCALED:
                value[i, j] = np.float64(before) / power
            elif mode == SINGLE:
                bits4[0] = np.uint32(before)
                value[i, j] = np.float64(f4[0])
            else:
                bits8[0] = before
                value[i, j] = f8[0]
        if pos >= data.size:
            return np.int64(data.size + 1)
        mixed = data[pos]
        pos += 1
        if mixed:
            last = np.int64(0)
            for i in range(frames):
                step, pos = _get(data, pos)
                if pos > data.size:
                    return pos
                last += step
                quality[i, j] = np.uint32(last)
                if quality[i, j] & BAD:
                    value[i, j] = np.nan
    return pos


@dataclass(frozen=True, slots=True)
class SpooledFrame:
    """One frame as the spool holds it; arrays are its own."""

    scan: int
    seq: int
    due_ns: int
    time_ns: int
    uncertainty_ns: int
    offset_ns: int
    value: NDArray[np.float64]
    quality: NDArray[np.uint32]

    @classmethod
    def of(cls, frame: Frame) -> SpooledFrame:
        """Return a frame of the pipeline with copies of its columns, which the next poll overwrites."""
        return cls(
            frame.scan.number,
            frame.seq,
            frame.due_ns,
            frame.time_ns,
            frame.uncertainty_ns,
            frame.offset_ns,
            frame.value.copy(),
            frame.quality.copy(),
        )

    @property
    def n_good(self) -> int:
        """How many of its values may be used."""
        return int(np.count_nonzero(self.quality & BAD == 0))


class CorruptBatch(ValueError):
    """A batch whose CRC was right but whose columns do not fit its schema."""


@dataclass(frozen=True, slots=True)
class Block:
    """Frames with successive numbers, as columns.

    columns  int64[5, n]: scan, due, time, uncertainty, offset, in the order of their numbers
    cells    scan -> its frames in that order: value float64[k, rows], quality uint32[k, rows]
    """

    first_seq: int
    columns: NDArray[np.int64]
    cells: dict[int, tuple[NDArray[np.float64], NDArray[np.uint32]]]

    def __len__(self) -> int:
        return int(self.columns.shape[1])

    @property
    def time(self) -> NDArray[np.int64]:
        """When each was read, Unix ns."""
        times: NDArray[np.int64] = self.columns[TIME]
        return times

    @property
    def n_cells(self) -> int:
        """How many values it has, good or bad."""
        return sum(value.size for value, _ in self.cells.values())

    @property
    def n_good(self) -> int:
        """How many of its values may be used."""
        return sum(int(np.count_nonzero(quality & BAD == 0)) for _, quality in self.cells.values())

    @classmethod
    def of(cls, frames: Sequence[SpooledFrame]) -> Block:
        """Return the columns of frames."""
        rows = [(f.scan, f.due_ns, f.time_ns, f.uncertainty_ns, f.offset_ns) for f in frames]
        members: dict[int, list[SpooledFrame]] = {}
        for frame in frames:
            members.setdefault(frame.scan, []).append(frame)
        cells = {
            scan: (np.stack([f.value for f in each]), np.stack([f.quality for f in each]))
            for scan, each in members.items()
        }
        return cls(frames[0].seq, np.array(rows, np.int64).T.copy(), cells)

    def frames(self) -> list[SpooledFrame]:
        """Return its frames one by one; their arrays are rows of its own."""
        taken = dict.fromkeys(self.cells, 0)
        out = []
        for seq, (scan, due, time, uncertainty, offset) in enumerate(self.columns.T.tolist(), self.first_seq):
            value, quality = self.cells[scan]
            k = taken[scan]
            taken[scan] = k + 1
            out.append(SpooledFrame(scan, seq, due, time, uncertainty, offset, value[k], quality[k]))
        return out

    def moved(self, offset_ns: int) -> Block:
        """Return the same frames stamped with another offset of the wall clock."""
        columns = self.columns.copy()
        columns[[DUE, TIME, OFFSETS]] += offset_ns - self.columns[OFFSETS]
        return Block(self.first_seq, columns, self.cells)


def join(blocks: Sequence[Block]) -> Block:
    """Return blocks that follow each other as one."""
    cells = {}
    for scan in sorted({scan for block in blocks for scan in block.cells}):
        parts = [block.cells[scan] for block in blocks if scan in block.cells]
        cells[scan] = (np.concatenate([v for v, _ in parts]), np.concatenate([q for _, q in parts]))
    return Block(blocks[0].first_seq, np.concatenate([block.columns for block in blocks], axis=1), cells)


def encode_block(catalog: str, block: Block, decimals: Sequence[NDArray[np.int8]]) -> bytes:
    """Return the payload of a block; decimals[scan] int8[rows] says how values are scaled."""
    out = np.zeros(len(block.columns) * MAX_VARINT * len(block) + (2 * MAX_VARINT + 3) * block.n_cells + 64, np.uint8)
    is_coarse = not np.any(block.columns[DUE:] % TICKS_NS[1])
    out[0] = is_coarse
    pos = put_column(block.columns[0], out, 1)
    by_scan = block.columns[:, np.argsort(block.columns[0], kind="stable")]
    pos = put_times(*np.ascontiguousarray(by_scan), TICKS_NS[is_coarse], out, pos)
    f4, f8 = np.zeros(1, np.float32), np.zeros(1)
    for scan, (value, quality) in sorted(block.cells.items()):
        pos = put_matrix(value, quality, decimals[scan], f4, f4.view(np.uint32), f8, f8.view(np.int64), out, pos)
    return zlib.compress(catalog.encode().ljust(CATALOG_BYTES)[:CATALOG_BYTES] + out[:pos].tobytes(), ZLIB_LEVEL)


def decode_block(body: bytes, head: BatchHead, rows: Sequence[int]) -> Block:
    """Return the block of a payload; rows[scan] says how many values a frame of that scan has; raises CorruptBatch."""
    try:
        data = np.frombuffer(zlib.decompress(body), np.uint8)[CATALOG_BYTES:].copy()
    except zlib.error as error:
        raise CorruptBatch(str(error)) from None
    if not data.size or data[0] >= len(TICKS_NS):
        raise CorruptBatch("its times are in unknown ticks")
    n = head.n_frames
    columns, by_scan = np.zeros((5, n), np.int64), np.zeros((5, n), np.int64)
    scans = columns[0]
    pos = get_column(data, 1, scans)
    if pos > data.size or (n and not 0 <= scans.min() <= scans.max() < len(rows)):
        raise CorruptBatch("its columns do not fit its schema")
    order = np.argsort(scans, kind="stable")
    by_scan[0] = scans[order]
    pos = get_times(data, pos, by_scan[0], TICKS_NS[data[0]], *by_scan[1:])
    columns[:, order] = by_scan
    f4, f8 = np.zeros(1, np.float32), np.zeros(1)
    cells: dict[int, tuple[NDArray[np.float64], NDArray[np.uint32]]] = {}
    for scan, n_frames in zip(*(each.tolist() for each in np.unique(scans, return_counts=True)), strict=True):
        shape = (n_frames, rows[scan])
        value, quality = np.zeros(shape), np.zeros(shape, np.uint32)
        pos = get_matrix(data, pos, f4, f4.view(np.uint32), f8, f8.view(np.int64), value, quality)
        if pos > data.size:
            raise CorruptBatch("its columns are cut off")
        cells[scan] = (value, quality)
    return Block(head.first_seq, columns, cells)


def catalog_of(body: bytes) -> str:
    """Return the catalog that a frames payload was made with; raises CorruptBatch."""
    try:
        return zlib.decompressobj().decompress(body, CATALOG_BYTES).decode().strip()
    except (zlib.error, UnicodeDecodeError) as error:
        raise CorruptBatch(str(error)) from None
