"""Where the answers of a poll go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.model.frame import Read, Scan


class Sink(Protocol):
    """What takes the answers of one poll: the pipeline."""

    def put(self, read: Read, payload: bytes) -> None:
        """Take the answer of a read."""
        ...

    def fail(self, read: Read, quality: int) -> None:
        """Take note that a read has no answer, and what its tags become."""
        ...

    def identify(self, device: int, name: str, text: str) -> None:
        """Take a string that a device told of itself."""
        ...

    def tell(self, device: int, point: str, quality: int, text: str, now_ns: int) -> None:
        """Take what was found out about a device by one of its points, monotonic ns: an event."""
        ...

    def doubtful(self, scan: Scan, now_ns: int) -> NDArray[np.int32]:
        """Return the rows of a scan that must be read again before it is finished, usually none."""
        ...

    def doubt(self, rows: NDArray[np.int32]) -> None:
        """Take note that these doubtful rows are read again now."""
        ...

    def finish(self, scans: Sequence[Scan], since: Sequence[int], began_ns: int, ended_ns: int) -> None:
        """The poll of these scans of a device is complete.

        Monotonic ns of when each was due, of the first request and of the last answer.
        """
        ...
