"""Frames to line protocol: one kernel writes the text of all values of a frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.model.corridor import Device, GatewaySpec
from gateway.model.frame import FLOAT32_TEXT, Scan, TagTable

MAX_DECIMALS: Final = 17
EXACT: Final = 2.0**53  # whole numbers below it are exact in a float64
NUMBER_BYTES: Final = 32  # sign, 17 digits, point, leading zeros, comma
MINUS, POINT, ZERO, COMMA = 45, 46, 48, 44


@kernel("i8(f8, i8)", nogil=True)
def decimals_for(v, hint):
    """Return the fewest decimals whose text reads back as this value, or -1 if none up to 17 does.

    hint  decimals to try first, FLOAT32_TEXT where the meter sends a float32, FLOAT64_TEXT for any other; a value that
          is no float32 is exact under either
    """
    if hint >= 0:
        power = 10.0**hint
        m = np.rint(v * power)
        if abs(m) < EXACT and m / power == v:
            return hint
    power = 1.0
    for k in range(MAX_DECIMALS + 1):
        m = np.rint(v * power)
        if abs(m) >= EXACT:
            return -1
        back = m / power
        if back == v or (hint == FLOAT32_TEXT and np.float64(np.float32(back)) == v):
            return k
        power *= 10.0
    return -1


@kernel("i8(f8, i8, u1[::1], i8)", nogil=True)
def put_number(v, k, out, pos):
    """Write v with k decimals, trailing zeros of the fraction left out; return the position behind it."""
    m = np.int64(np.rint(abs(v) * 10.0**k))
    while k > 0 and m % 10 == 0:
        m //= 10
        k -= 1
    if v < 0.0 and m != 0:
        out[pos] = MINUS
        pos += 1
    digits = 1
    rest = m // 10
    while rest > 0:
        digits += 1
        rest //= 10
    digits = max(digits, k + 1)
    end = pos + digits + (1 if k > 0 else 0)
    at = end - 1
    for d in range(digits):
        if k > 0 and d == k:
            out[at] = POINT
            at -= 1
        out[at] = ZERO + m % 10
        m //= 10
        at -= 1
    return end


@kernel("UniTuple(i8, 2)(f8[::1], u4[::1], i8, i1[::1], u1[::1], i4[::1], u1[::1], i8, i8)", nogil=True)
def put_fields(value, quality, row, decimals, names, name_first, out, pos, n_before):
    """Write `name=number` of every good value from `row` on, commas between; return (position, row).

    names uint8[], the field names with their `=` in one run; those of row i are [name_first[i]:name_first[i + 1]]
    n_before  how many fields stand before. A row below value.size comes back for a number whose text is not found here:
    its name is written, the caller appends the number and calls again from the next row.
    """
    n = n_before
    for i in range(row, value.size):
        if quality[i] & BAD:
            continue
        if n:
            out[pos] = COMMA
            pos += 1
        for j in range(name_first[i], name_first[i + 1]):
            out[pos] = names[j]
            pos += 1
        n += 1
        k = decimals_for(value[i], np.int64(decimals[i]))
        if k < 0:
            return pos, i
        pos = put_number(value[i], k, out, pos)
    return pos, value.size


@dataclass(frozen=True, slots=True)
class ScanText:
    """What a scan's line looks like; stored with the frames, so that a backlog outlives its configuration.

    prefix  measurement and series tags, as they stand in the line, with the blank behind
    names, decimals  of the fields, in row order
    """

    device: str
    prefix: str
    names: tuple[str, ...]
    decimals: tuple[int, ...]


def scan_texts(table: TagTable) -> tuple[ScanText, ...]:
    """Return the texts of all scans of a gateway, by scan number."""
    return tuple(_scan_text(table, scan) for scan in table.scans)


def _scan_text(table: TagTable, scan: Scan) -> ScanText:
    device = table.device(scan)
    return ScanText(
        device.name,
        prefix_of(table.spec, device),
        tuple(tag.name for tag in table.tags[scan.start : scan.stop]),
        tuple(int(k) for k in table.decimals[scan.start : scan.stop]),
    )


def prefix_of(spec: GatewaySpec, device: Device) -> str:
    """Return measurement and tags of a device's lines; names need no escaping, their pattern allows nothing special."""
    tags = f"corridor={spec.corridor},site={spec.site},gateway={spec.id},device={device.name}"
    asset = f",asset={device.asset}" if device.asset else ""
    return f"{device.measurement},{tags}{asset} "


def encode_texts(catalog: str, texts: Sequence[ScanText]) -> bytes:
    """Return the schema that the spool stores before the first frame that needs it."""
    return json.dumps({"catalog": catalog, "scans": [asdict(t) for t in texts]}, separators=(",", ":")).encode()


def decode_texts(raw: bytes) -> tuple[str, tuple[ScanText, ...]]:
    """Return catalog and texts of a stored schema."""
    whole = json.loads(raw)
    texts = (
        ScanText(scan["device"], scan["prefix"], tuple(scan["names"]), tuple(scan["decimals"]))
        for scan in whole["scans"]
    )
    return whole["catalog"], tuple(texts)


class LineWriter:
    """Writes the lines of one scan; owns its buffer, so a line costs no allocation but its own bytes."""

    def __init__(self, text: ScanText) -> None:
        fields = [f"{name}=".encode() for name in text.names]
        self.device = text.device
        self._prefix = text.prefix.encode()
        self._names = np.frombuffer(b"".join(fields) or b" ", np.uint8).copy()
        self._first = np.cumsum([0, *map(len, fields)], dtype=np.int32)
        self._decimals = np.array(text.decimals, np.int8)
        self._out = np.zeros(len(self._names) + NUMBER_BYTES * (len(fields) + 1), np.uint8)

    def line(self, value: NDArray[np.float64], quality: NDArray[np.uint32], time_ns: int) -> bytes:
        """Return the line of one frame with its line feed, or nothing if no value of it is good."""
        parts, row, n = [self._prefix], 0, 0
        while row < value.size:
            pos, row = put_fields(value, quality, row, self._decimals, self._names, self._first, self._out, 0, n)
            parts.append(self._out[:pos].tobytes())
            n += pos
            if row < value.size:
                parts.append(repr(float(value[row])).encode())
                row += 1
        return b"".join([*parts, b" %d\n" % time_ns]) if n else b""
