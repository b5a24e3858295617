"""Frozen value: a good frame that carries a dead number, as meters that "hold the last valid value" send."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.detector import Turn
from gateway.detect.flags import FROZEN
from gateway.model.frame import DETECT_BITS, TagTable

BIT: Final = DETECT_BITS["frozen"]
MEMORY: Final = 200  # polls over which the share of those in which the value moves is learnt
MAX_SHARE: Final = 0.999999  # a tag that always moved: keeps the logarithm finite
MIN_STILL: Final = 30  # polls; below that no stillness is evidence
MIN_STILL_NS: Final = 20_000_000_000  # and 20 s, however fast the polls
MIN_MOVES: Final = 10  # a tag that has not yet moved this often has shown no noise to miss
EVIDENCE: Final = 18.0  # nats: a tag that moves as before stays still this long once in 66 million times


@kernel(
    "void(i4[::1], i4[::1], i4[::1], i8[::1], f8[::1], u4[::1], u1[::1], "
    "f8[::1], i4[::1], i8[::1], f8[::1], i4[::1], i4[::1], f8[::1], u2[::1])"
)
def step(
    ready, start, stop, time_ns, value, quality, detect,
    last, still, moved_ns, share, moves, polls, score, flags,
):  # fmt: skip
    """Advance every tag of the ready scans by one frame.

    last float64[n], still int32[n], moved_ns int64[n]  state: the value, for how many polls and since when it stands
    share float64[n], moves, polls int32[n]  state: learnt share of polls in which it moves; how often, of how many
    The flag is set when standing still for so long has a chance below exp(-EVIDENCE) given that share. Stillness
    teaches only when it is over: else a frozen tag would teach that it rarely moves.
    """
    for k in range(ready.size):
        now = time_ns[ready[k]]
        for i in range(start[ready[k]], stop[ready[k]]):
            if not detect[i] & BIT:
                continue
            if quality[i] & BAD:
                flags[i] &= np.uint16(0xFFFF ^ FROZEN)  # a bad reading proves nothing either way
                continue
            if moved_ns[i] == 0:
                last[i] = value[i]
                moved_ns[i] = now
                continue
            if value[i] != last[i]:
                n = still[i] + 1
                polls[i] = min(polls[i] + n, max(MEMORY, n))
                share[i] += (1.0 / n - share[i]) * n / polls[i]
                moves[i] = min(moves[i] + 1, MIN_MOVES)
                last[i] = value[i]
                moved_ns[i] = now
                still[i] = 0
                flags[i] &= np.uint16(0xFFFF ^ FROZEN)
                continue
            still[i] += 1
            evidence = -still[i] * np.log1p(-min(share[i], MAX_SHARE))
            is_due = still[i] >= MIN_STILL and now - moved_ns[i] >= MIN_STILL_NS
            if moves[i] >= MIN_MOVES and is_due and evidence >= EVIDENCE:
                flags[i] |= np.uint16(FROZEN)
                score[i] = max(score[i], 1.0 - 0.5 * EVIDENCE / evidence)


class Frozen:
    """Detector of values that stopped moving although the tag always moved."""

    name: Final = "frozen"

    def __init__(self, table: TagTable) -> None:
        self._table = table
        self._last = np.zeros(table.n)
        self._still = np.zeros(table.n, np.int32)
        self._moved_ns = np.zeros(table.n, np.int64)
        self._share = np.zeros(table.n)
        self._moves = np.zeros(table.n, np.int32)
        self._polls = np.zeros(table.n, np.int32)

    def update(self, turn: Turn) -> None:
        """Advance by one frame of each ready scan; see `step`."""
        t = self._table
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.time_ns, turn.value, turn.quality, t.detect,
            self._last, self._still, self._moved_ns, self._share, self._moves, self._polls, turn.score, turn.flags,
        )  # fmt: skip

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return {
            "last": self._last,
            "still": self._still,
            "moved_ns": self._moved_ns,
            "share": self._share,
            "moves": self._moves,
            "polls": self._polls,
        }
