"""What a source of recorded frames is: spools and databases, read in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class SourceError(Exception):
    """A source that cannot be replayed, or scores that cannot be written; `lines` say why, one fault each."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = list(lines)


class SourceAway(SourceError):
    """A source that cannot be reached now: the database is away."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time, Unix ns, the end not in it."""

    start_ns: int = -(2**62)
    stop_ns: int = 2**62


@dataclass(frozen=True, slots=True)
class RecordedScan:
    """Tags of one device that were read together."""

    device: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One poll of the scan of that number; value float64[n], quality uint32[n] as the meter's frame had them."""

    scan: int
    time_ns: int
    value: NDArray[np.float64]
    quality: NDArray[np.uint32]


class FrameSource(Protocol):
    """Frames of several scans; `progress` is the share that was read, 0 to 1."""

    scans: tuple[RecordedScan, ...]
    progress: float

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield every frame, per scan in the order of time; raises SourceError."""
        ...
