"""What every detector is, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Axis = Literal["tag", "scan", "asset"]


@dataclass(slots=True)
class Turn:
    """One or several frames in a row, as columns of all tags; only rows of the ready scans count.

    ready    int32[r], scan numbers;  time_ns  int64[frames, scans], when each scan's frame was read, on a clock that
             never steps: a first synchronisation is no change of the process and satisfies no delay
    stamp_ns int64[frames, scans], the same in Unix ns, for the time of day
    value    float64[frames, n], tag unit;  quality  uint32[frames, n], OPC UA status code
    score    float64[frames, n], 0 to 1, to be raised;  flags  uint16[frames, n], of which a detector sets its own bits
    """

    ready: NDArray[np.int32]
    time_ns: NDArray[np.int64]
    stamp_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint32]
    score: NDArray[np.float64]
    flags: NDArray[np.uint16]


class Detector(Protocol):
    """Columns in, flags out. A bad value never raises a flag and never teaches."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def axes(self) -> Mapping[str, Axis | None]:
        """What the rows of a state column stand for, where that is no tag; None: it does not outlive a restart."""
        ...

    def update(self, turn: Turn) -> None:
        """Advance by the frames of a turn, one after the other."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state columns by name; writing into them restores a state."""
        ...
