"""Messages that have arrived and are not stored yet, handed on in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from gateway.wire.client import Client, Message

BATCH_BYTES: Final = 1_000_000  # 5,000 lines of 200 B: what InfluxDB advises for one write
LINGER_S: Final = 0.2  # five writes a second cost a store little, and nobody watches a trend faster than that
QUIET_S: Final = 0.005  # nothing new for so long: the burst is over, or the broker's window is full and it waits for us
MAX_BYTES: Final = 256_000_000  # a broker that keeps no window is cut off here; mosquitto 2.0 overruns it after a pause


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message and the connection on which it must be acknowledged."""

    client: Client
    message: Message
    topic: str
    payload: bytes


class Inbox:
    """Deliveries in the order of arrival; bounded by the window that the broker keeps (receive_maximum)."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._bytes = 0
        self._peak_bytes = 0

    @property
    def is_full(self) -> bool:
        """Return whether the broker has sent more than it should without an acknowledgement."""
        return self._bytes > MAX_BYTES

    def put(self, delivery: Delivery) -> None:
        """Add what arrived."""
        self._waiting.append(delivery)
        self._bytes += len(delivery.payload)
        self._peak_bytes = max(self._peak_bytes, self._bytes)
        self._arrived.set()

    def clear(self) -> None:
        """Forget what was not handed on: its connection is gone, and the broker will send it again."""
        self._waiting.clear()
        self._bytes = 0
        self._arrived.clear()

    async def take(self) -> list[Delivery]:
        """Wait for a batch: up to BATCH_BYTES, or what came within LINGER_S, or until it is quiet for QUIET_S."""
        loop = asyncio.get_running_loop()
        await self._arrived.wait()
        end, before = loop.time() + LINGER_S, 0
        while self._bytes < BATCH_BYTES and loop.time() < end and len(self._waiting) != before:
            before = len(self._waiting)
            await asyncio.sleep(QUIET_S)
        return self._batch()

    def statistics(self) -> dict[str, int]:
        """Return what is waiting, and the most that ever was."""
        return {"messages": len(self._waiting), "bytes": self._bytes, "peak_bytes": self._peak_bytes}

    def _batch(self) -> list[Delivery]:
        batch, size = [], 0
        while self._waiting and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].payload)
        self._bytes -= size
        if not self._waiting:
            self._arrived.clear()
        return batch
