"""What every detector is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Turn:
    """The frames of one turn, as columns of the whole TagTable; only rows of the ready scans count.

    ready    int32[r], scan numbers;  time_ns  int64[scans], when each scan's frame was read, on a clock that never
             steps: a first synchronisation is no change of the process and satisfies no delay
    value    float64[n], tag unit;  quality  uint32[n], OPC UA status code
    score    float64[n], 0 to 1, to be raised;  flags  uint16[n], of which a detector sets its own bits
    """

    ready: NDArray[np.int32]
    time_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint32]
    score: NDArray[np.float64]
    flags: NDArray[np.uint16]


class Detector(Protocol):
    """Columns in, flags out. A bad value never raises a flag and never teaches."""

    name: str

    def update(self, turn: Turn) -> None:
        """Advance by one frame of each ready scan."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state columns by name; writing into them restores a state."""
        ...
