"""Chatter: a state that changes back and forth, as a loose contact or a valve on its limit does.

A heartbeat, which has never stood still for a minute, is none.
Source: chattering as of EEMUA 191 and DOMAIN section 5: in and out three times or more within a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.detector import Axis, Turn
from gateway.detect.flags import CHATTER
from gateway.detect.tags import KINDS, Tags
from gateway.model.frame import DETECT_BITS

CHANGES: Final = 6  # three times in and out
WITHIN_NS: Final = 60_000_000_000
CHATTER_SCORE: Final = 0.5  # at the frame with which it begins
NEVER: Final = -(1 << 62)


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i8[:, ::1], f8[:, ::1], u4[:, ::1], "
    "f8[::1], i8[:, ::1], i4[::1], i8[::1], u1[::1], u1[::1], f8[:, ::1], u2[:, ::1])"
)
def step(ready, first, rows, time_ns, value, quality, last, changed_ns, at, began_ns, was_calm, is_on, score, flags):
    """Advance the states of the ready scans by each frame in turn.

    first int32[scans + 1], rows int32[m]  states first[s]:first[s + 1] of a scan and their rows
    last float64[m] NaN; changed_ns int64[m, CHANGES], at int32[m]  state: the last changes, and where the next goes
    began_ns int64[m] state, since when it was seen without a break; was_calm, is_on uint8[m] state: whether it ever
    stood still for long enough to be told from a heartbeat, and whether it chatters
    """
    for k in range(time_ns.shape[0]):
        for number in ready:
            now = time_ns[k, number]
            for j in range(first[number], first[number + 1]):
                i = rows[j]
                if quality[k, i] & BAD:
                    began_ns[j] = now  # nobody saw whether it stood still
                    continue
                if value[k, i] != last[j] and last[j] == last[j]:
                    changed_ns[j, at[j]] = now
                    at[j] = (at[j] + 1) % CHANGES
                if last[j] != last[j]:
                    began_ns[j] = now
                last[j] = value[k, i]
                was = is_on[j]
                is_often = now - changed_ns[j, at[j]] <= WITHIN_NS  # the oldest of them
                latest_ns = max(began_ns[j], changed_ns[j, (at[j] + CHANGES - 1) % CHANGES])
                if now - latest_ns >= WITHIN_NS:
                    was_calm[j] = 1
                is_on[j] = is_often and was_calm[j]
                if is_on[j]:
                    flags[k, i] |= np.uint16(CHATTER)
                    if not was:
                        score[k, i] = max(score[k, i], CHATTER_SCORE)


class Chatter:
    """States that change back and forth."""

    name: Final = "chatter"
    axes: Final[Mapping[str, Axis | None]] = MappingProxyType(
        dict.fromkeys(("last", "changed_ns", "at", "began_ns", "was_calm", "is_on"))
    )  # a minute is not worth keeping

    def __init__(self, tags: Tags) -> None:
        watched = (tags.kind == KINDS.index("state")) & ((tags.detect & DETECT_BITS["chatter"]) != 0)
        members = [np.flatnonzero(watched[a:b]) + a for a, b in zip(tags.scan_start, tags.scan_stop, strict=True)]
        self._rows = np.concatenate([*members, np.zeros(0, np.int64)]).astype(np.int32)
        self._first = np.cumsum([0, *map(len, members)]).astype(np.int32)
        m = self._rows.size
        self._state: dict[str, NDArray[Any]] = {
            "last": np.full(m, np.nan),
            "changed_ns": np.full((m, CHANGES), NEVER, np.int64),
            "at": np.zeros(m, np.int32),
            "began_ns": np.zeros(m, np.int64),
            "was_calm": np.zeros(m, np.uint8),
            "is_on": np.zeros(m, np.uint8),
        }

    def update(self, turn: Turn) -> None:
        """Advance by the frames of a turn; see `step`."""
        if not self._rows.size:
            return
        s = self._state
        step(
            turn.ready, self._first, self._rows, turn.time_ns, turn.value, turn.quality,
            s["last"], s["changed_ns"], s["at"], s["began_ns"], s["was_calm"],
            s["is_on"], turn.score, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return self._state
