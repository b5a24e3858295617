"""Alarm governor: of one cause an operator is told once.

What statistics find at one asset within an hour of each other has one cause, and who looks at the first finds the
rest: the flags of the others are withheld. Their scores stand. What the site has set, and what is a fact of one meter
(frozen, chatter), is always told.

Source: EEMUA 191 and ISA-18.2: an alarm that is a consequence of another is to be suppressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from gateway.detect.detector import Axis, Turn
from gateway.detect.flags import DRIFT, HEALTH, NOISE, NOVELTY, SHIFT, SPIKE
from gateway.detect.tags import Tags

GOVERNED: Final = SPIKE | SHIFT | DRIFT | NOVELTY | NOISE | HEALTH
QUIET_NS: Final = 3_600_000_000_000  # after what was told of an asset
LONG_AGO: Final = -(1 << 62)


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i8[:, ::1], i4[::1], u2[::1], u2[::1], u1[::1], i8[::1], u2[:, ::1])", noalias=True
)
def step(ready, start, stop, time_ns, asset, stood, withheld, busy, told_ns, flags):
    """Withhold flags of the ready frames, each in turn.

    stood, withheld uint16[n] state: the flags of the last frame, and which of them nobody was told of
    busy  uint8[scans] state: whether one of its tags had one;  told_ns int64[assets] state: when one was told last
    """
    for k in range(time_ns.shape[0]):
        for number in ready:
            now = time_ns[k, number]
            found = np.uint16(0)
            for row in range(start[number], stop[number]):
                found |= flags[k, np.uintp(row)]
            if found & GOVERNED == 0 and not busy[number]:
                continue
            busy[number] = 0
            for i in range(start[number], stop[number]):
                here = flags[k, i] & np.uint16(GOVERNED)
                rose = here & ~stood[i]
                withheld[i] &= here
                stood[i] = here
                if here != 0:
                    busy[number] = 1
                if rose != 0:
                    if 0 <= now - told_ns[asset[i]] < QUIET_NS:  # a clock that is behind withholds nothing
                        withheld[i] |= rose
                    else:
                        told_ns[asset[i]] = now
                flags[k, i] &= ~withheld[i]


class Governor:
    """What keeps one cause from being told many times; the last of the detectors."""

    name: Final = "governor"
    axes: Final[Mapping[str, Axis | None]] = MappingProxyType({"busy": "scan", "told_ns": "asset"})

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        self._state: dict[str, NDArray[Any]] = {
            "stood": np.zeros(tags.n, np.uint16),
            "withheld": np.zeros(tags.n, np.uint16),
            "busy": np.zeros(tags.n_scans, np.uint8),
            "told_ns": np.full(tags.n_assets, LONG_AGO, np.int64),
        }

    def update(self, turn: Turn) -> None:
        """Withhold flags of a turn; see `step`."""
        t, s = self._tags, self._state
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.time_ns, t.asset,
            s["stood"], s["withheld"], s["busy"], s["told_ns"], turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return self._state
