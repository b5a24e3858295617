"""All detectors over the frames of one turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from gateway.detect.chatter import Chatter
from gateway.detect.detector import Detector, Turn
from gateway.detect.governor import Governor
from gateway.detect.health import Health
from gateway.detect.novelty import Novelty
from gateway.detect.rules import Rules
from gateway.detect.tags import Tags


@kernel("void(i4[::1], i4[::1], i4[::1], f8[:, ::1], u2[:, ::1])")
def _clear(ready, start, stop, score, flags):
    """Set score and flags of every tag of the ready scans to 0."""
    for k in range(score.shape[0]):
        for number in ready:
            for i in range(start[number], stop[number]):
                score[k, i] = 0.0
                flags[k, i] = 0


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
    """The detectors of a set of tags."""

    def __init__(self, tags: Tags) -> None:
        self.tags = tags
        self.rules, self.health = Rules(tags), Health(tags)
        self.detectors: tuple[Detector, ...] = (self.rules, Chatter(tags), Novelty(tags), self.health, Governor(tags))
        self._rows = np.zeros(tags.n, np.int32)

    def update(self, turn: Turn) -> None:
        """Set score and flags of the frames of a turn."""
        _clear(turn.ready, self.tags.scan_start, self.tags.scan_stop, turn.score, turn.flags)
        for detector in self.detectors:
            detector.update(turn)

    def stand(self, row: int, bit: int) -> None:
        """Take note that an alarm by a limit stands: what is back to normal by now is seen at the first frame."""
        self.rules.stand(row, bit)

    def changed(
        self,
        ready: NDArray[np.int32],
        quality: NDArray[np.uint32],
        quality_before: NDArray[np.uint32],
        flags: NDArray[np.uint16],
        flags_before: NDArray[np.uint16],
    ) -> NDArray[np.int32]:
        """Return the rows of the ready scans whose quality or flags differ from what the caller last settled."""
        n = _changed(
            ready, self.tags.scan_start, self.tags.scan_stop, quality, quality_before, flags, flags_before, self._rows
        )
        return self._rows[:n]
