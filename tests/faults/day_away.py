"""A gateway whose broker is away for some hours of virtual time, in a process of its own: what it needs in memory.

`python -m tests.faults.day_away FOLDER PORT HOURS` prints a JSON line after every hour, waits for a line on its
standard input, by when the broker has to be back, and prints another once the backlog has gone: {"rss": bytes}.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
from pathlib import Path
from typing import Final

from gateway.app import GC_OBJECTS
from gateway.commands.services import _share_heap
from gateway.health import memory_bytes
from tests.faults.outage import Plant, running

PLANT: Final = Plant(10)  # 100 tags at 1 Hz
HOUR: Final = 3600
LOOK_S: Final = 0.02


async def main(folder: Path, port: int, hours: int) -> None:
    """Go through it."""
    async with running(PLANT, folder, port, 1_000_000_000) as gateway:
        gc.freeze()  # as `corridor run` does
        gc.set_threshold(GC_OBJECTS)
        for _ in range(hours):
            await gateway.hurry(HOUR)
            say(memory_bytes())
        if not await asyncio.to_thread(sys.stdin.readline):
            return  # nobody waits for the rest
        looking = asyncio.create_task(_peak())
        connected = gateway.gateway.publisher.connected
        await gateway.live(lambda: connected.is_set() and gateway.spool.statistics().unsent <= 2 * PLANT.n)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def _peak() -> None:
    """Look until cancelled; then say the most."""
    most = 0
    try:
        while True:
            most = max(most, memory_bytes())
            await asyncio.sleep(LOOK_S)
    finally:
        say(most)


def say(rss: int) -> None:
    """Print a line."""
    print(json.dumps({"rss": rss}), flush=True)


if __name__ == "__main__":
    _share_heap()
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
