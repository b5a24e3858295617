"""All detectors over the frames of one turn."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from gateway.detect.detector import Detector, Turn
from gateway.detect.ewma import Ewma
from gateway.detect.frozen import Frozen
from gateway.detect.limits import Limits
from gateway.detect.rate import Rate
from gateway.model.frame import TagTable

REGISTRY: Final[tuple[type[Detector], ...]] = (Limits, Rate, Frozen, Ewma)  # type: ignore[assignment]


@kernel("void(i4[::1], i4[::1], i4[::1], f8[::1])")
def _clear(ready, start, stop, score):
    """Set the score of every tag of the ready scans to 0."""
    for k in range(ready.size):
        for i in range(start[ready[k]], stop[ready[k]]):
            score[i] = 0.0


@kernel("i8(i4[::1], i4[::1], i4[::1], u4[::1], u4[::1], u2[::1], u2[::1], i4[::1])")
def _changed(ready, start, stop, quality, quality_before, flags, flags_before, rows):
    """Write the rows whose quality or flags differ from before; return how many."""
    n = 0
    for k in range(ready.size):
        for i in range(start[ready[k]], stop[ready[k]]):
            if quality[i] != quality_before[i] or flags[i] != flags_before[i]:
                rows[n] = i
                n += 1
    return n


class Bank:
    """The detectors of a gateway and what they said last.

    score float64[n], flags uint16[n]  of the last frame of each tag
    """

    def __init__(self, table: TagTable) -> None:
        self._table = table
        self.detectors: list[Detector] = [kind(table) for kind in REGISTRY]  # type: ignore[call-arg]
        self.score = np.zeros(table.n)
        self.flags = np.zeros(table.n, np.uint16)
        self.flags_before = np.zeros(table.n, np.uint16)
        self._rows = np.zeros(table.n, np.int32)

    def update(
        self,
        ready: NDArray[np.int32],
        time_ns: NDArray[np.int64],
        value: NDArray[np.float64],
        quality: NDArray[np.uint32],
    ) -> None:
        """Advance every detector by one frame of each ready scan; columns as of Turn."""
        _clear(ready, self._table.scan_start, self._table.scan_stop, self.score)
        turn = Turn(ready, time_ns, value, quality, self.score, self.flags)
        for detector in self.detectors:
            detector.update(turn)

    def changed(
        self, ready: NDArray[np.int32], quality: NDArray[np.uint32], quality_before: NDArray[np.uint32]
    ) -> NDArray[np.int32]:
        """Return the rows of the ready scans whose quality or flags differ from what the caller last settled."""
        n = _changed(
            ready, self._table.scan_start, self._table.scan_stop, quality, quality_before,
            self.flags, self.flags_before, self._rows,
        )  # fmt: skip
        return self._rows[:n]
