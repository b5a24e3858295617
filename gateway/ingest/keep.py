"""Getting a batch into a store: waiting for one that is away, isolating lines that it will never take."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.history.store import Store, StoreAway, StoreRejected

log = logging.getLogger(__name__)

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_CAP_S: Final = 5.0  # a store that is back is found within this
RETRY_AFTER_CAP_S: Final = 60.0  # a server may ask for patience, not for silence


class Patience:
    """Repeats a step until its peer is there again; logs once per change of state."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.away = ""  # why, while it is away
        self.waits_total = 0

    async def until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run `step` until it raises neither StoreAway nor an error of the disk."""
        delay_s = BACKOFF_FIRST_S
        while True:
            try:
                await step()
            except (StoreAway, OSError, sqlite3.OperationalError) as error:
                self._note(str(error))
                wish_s = error.retry_s if isinstance(error, StoreAway) else None
                self.waits_total += 1
                await asyncio.sleep(wait_s(delay_s, wish_s))
                delay_s = min(2 * delay_s, BACKOFF_CAP_S)
            else:
                self._note("")
                return

    def _note(self, away: str) -> None:
        if away and not self.away:
            log.warning("%s away, waiting, nothing is acknowledged meanwhile: %s", self.what, away)
        elif self.away and not away:
            log.info("%s is back", self.what)
        self.away = away


def wait_s(delay_s: float, wish_s: float | None) -> float:
    """Return how long to wait: at least what the server asked for, capped; jittered, as others wait too."""
    jitter = random.uniform(0.5, 1.0)
    if wish_s is None:
        return delay_s * jitter
    return min(wish_s, RETRY_AFTER_CAP_S) + delay_s * jitter


async def keep(store: Store, lines: list[bytes], patience: Patience) -> list[tuple[int, str]]:
    """Write lines, however long that takes; return (index, reason) of those that the store will never take.

    A rejected batch is halved until the poison stands alone. Equal samples replace each other, so the good lines of a
    partial write may be written again.
    """
    if not lines:
        return []
    try:
        await patience.until_done(lambda: store.write(b"\n".join(lines)))
    except StoreRejected as error:
        if len(lines) == 1:
            return [(0, str(error))]
        middle = len(lines) // 2
        left = await keep(store, lines[:middle], patience)
        right = await keep(store, lines[middle:], patience)
        return left + [(middle + i, reason) for i, reason in right]
    return []
