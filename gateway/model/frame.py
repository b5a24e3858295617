"""Columns all the way: the table of all tags, and one poll as a view of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.blocks import Block
from drivers.decode import DecodeTable
from gateway.model.corridor import Device, GatewaySpec, Tag

FLOAT32_TEXT: Final = -1  # the shortest decimal that is the same float32
FLOAT64_TEXT: Final = -2  # the shortest decimal that is the same float64

DETECT_BITS: Final = {
    "limits": 1,
    "rate": 2,
    "frozen": 4,
    "spike": 8,
    "shift": 16,
    "novelty": 32,
    "chatter": 64,
    "health": 128,
}


@dataclass(frozen=True, slots=True)
class Scan:
    """The points of one device that share a period: what one Frame holds.

    start, stop  rows in the TagTable
    phase_s      offset of its polls on the period's grid
    """

    number: int
    device: int
    period_s: float
    phase_s: float
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Read:
    """One read as it is planned: what is asked, where the answer goes, and whose values it brings.

    device   number of the device
    at, end  bytes of the image that the answer fills; a bit fills a byte
    rows     int32[r], the rows that it serves, in the order of their addresses
    """

    device: int
    block: Block
    at: int
    end: int
    rows: NDArray[np.int32]

    @property
    def is_once(self) -> bool:
        """Whether it changes the device: asked once in an interval of its scan, whatever comes back."""
        return self.block.is_once


@dataclass(frozen=True, slots=True)
class TagTable:
    """Constant columns of the whole gateway, sorted so that every scan is one contiguous slice; n rows.

    A row, scan, device or byte of the image has its number for the life of the process. A reload only appends: of what
    is configured no longer the numbers stay, unused.

    devices    by number;  gone  numbers of those that are configured no longer
    limit      float64[n, 4], low_low, low, high, high_high, NaN where there is none
    deadband   float64[n], tag unit
    on_delay_ns, off_delay_ns  int64[n]
    rate       float64[n], units per second, NaN where there is none
    resolution float64[n], the smallest step the wire can carry, 0 if unknown
    decimals   int8[n], decimal places of the value's text, or FLOAT32_TEXT, FLOAT64_TEXT
    detect     uint8[n], DETECT_BITS
    scan_start, scan_stop  int32[scans];  scan_of, device_of  int32[n]
    """

    spec: GatewaySpec
    devices: tuple[Device, ...]
    tags: tuple[Tag, ...]
    scans: tuple[Scan, ...]
    decode: DecodeTable
    limit: NDArray[np.float64]
    deadband: NDArray[np.float64]
    on_delay_ns: NDArray[np.int64]
    off_delay_ns: NDArray[np.int64]
    rate: NDArray[np.float64]
    resolution: NDArray[np.float64]
    decimals: NDArray[np.int8]
    detect: NDArray[np.uint8]
    scan_start: NDArray[np.int32]
    scan_stop: NDArray[np.int32]
    scan_of: NDArray[np.int32]
    device_of: NDArray[np.int32]
    image_bytes: int
    gone: frozenset[int] = frozenset()

    @property
    def n(self) -> int:
        """How many rows there are, those of gone devices too."""
        return len(self.tags)

    @property
    def live(self) -> list[Scan]:
        """The scans that are polled."""
        return [scan for scan in self.scans if scan.device not in self.gone]

    def device(self, scan: Scan) -> Device:
        """Return the device that a scan reads."""
        return self.devices[scan.device]


@dataclass(frozen=True, slots=True)
class Frame:
    """All tags of one scan, read once.

    Rows keep the order of TagTable for the life of the process. `value` and `quality` are views: whoever keeps a Frame
    beyond the turn in which it was made copies them.

    seq         number within this boot
    due_ns      when the scan was scheduled, Unix ns
    value       float64[n], tag unit; finite wherever quality is not bad
    quality     uint32[n], OPC UA status code
    time_ns, uncertainty_ns  the middle between first request and last answer, and half of that span
    offset_ns   wall clock less monotonic clock, as both times were stamped with; what is left without it never jumps
    """

    scan: Scan
    seq: int
    due_ns: int
    time_ns: int
    uncertainty_ns: int
    value: NDArray[np.float64]
    quality: NDArray[np.uint32]
    offset_ns: int = 0
