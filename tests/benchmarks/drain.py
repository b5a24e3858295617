"""drain: a backlog leaves the spool while live frames go on; how fast, how late they are, and what the loop feels.

100 meters of 10 values at 1 Hz, the spool on disk, a real mosquitto. The link is the loopback, or a thin one.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from drivers.sim.proxy import Proxy
from gateway.deliver.publish import Publisher
from gateway.model.corridor import MqttSpec
from gateway.model.frame import Frame, TagTable
from gateway.spool.disk import DiskSpool
from gateway.wire.client import Client, keep_connected
from gateway.wire.frame_lines import LineWriter, scan_texts
from gateway.wire.topics import GatewayAddress
from tests.benchmarks import rig

DEVICES, VALUES = 100, 10
BACKLOG_S = 1800  # of the field's time
QUIET_S = 5.0  # without a backlog, for comparison
THIN_BYTES_PER_S = 256_000  # 2 Mbit/s: twenty times the live load
THIN_DELAY_S = 0.05
START_NS = 1_764_000_000_000_000_000
TICK_S = 0.01
SECOND = 1_000_000_000


def measure() -> dict[str, dict[str, float]]:
    """Return for each link: times real time, latency of live frames and lateness of the loop, with and without it."""
    out = {}
    for name, backlog_s, thin in (("loopback", BACKLOG_S, False), ("thin", BACKLOG_S // 10, True)):
        with tempfile.TemporaryDirectory(prefix="corridor-bench-") as folder, rig.broker(Path(folder)) as broker:
            out[name] = asyncio.run(_Drain(Path(folder) / "spool", backlog_s).run(broker.port, thin=thin))
    return out


class _Drain:
    """A gateway from the spool on: frames come by the clock, as from its pipeline."""

    def __init__(self, folder: Path, backlog_s: int) -> None:
        self.table: TagTable = rig.table(DEVICES, VALUES, "uint16", scale=0.1)
        texts = scan_texts(self.table)
        self.spool = DiskSpool(folder, 1_000_000_000, "3f9a1234", texts)
        self.writers = [LineWriter(text) for text in texts]
        self.backlog_s = backlog_s
        self.offered: dict[int, float] = {}
        self.latency: list[float] = []
        self.late: list[float] = []
        self._rng = np.random.default_rng(43)
        self._base = self._rng.uniform(100, 6000, self.table.n)
        self._ack = self.spool.ack
        self.spool.ack = self._acked  # type: ignore[method-assign]

    async def run(self, port: int, *, thin: bool) -> dict[str, float]:
        for second in range(self.backlog_s):
            for number in range(DEVICES):
                self._frame(number, second)
            if second % 60 == 59:
                await self.spool.commit()
                await self.spool.tidy()
        await self.spool.commit()
        devices = [f"d{i}" for i in range(DEVICES)]
        publisher = Publisher(GatewayAddress("bench", "lab", "gw1"), devices, self.spool, "3f9a1234")
        out: dict[str, float] = {}

        async def session(client: Client) -> None:
            async with asyncio.TaskGroup() as tasks:
                serving = [tasks.create_task(publisher.run(client))]
                began = time.perf_counter()
                serving += [tasks.create_task(job) for job in (self._live(publisher), self._tick(), self._commit())]
                while self.spool.statistics().unsent > 2 * DEVICES:
                    await asyncio.sleep(0.05)
                took_s = time.perf_counter() - began
                out.update(self._told("", took_s), times_real_time=self.backlog_s / took_s)
                await asyncio.sleep(QUIET_S)
                out.update(self._told("quiet_", QUIET_S))
                for task in serving:
                    task.cancel()

        async with _link(port, thin=thin) as through:
            await keep_connected(MqttSpec((f"mqtt://127.0.0.1:{through}",), None, None), "bench", session)
        return out

    def _frame(self, number: int, second: int) -> tuple[int, bytes]:
        scan = self.table.scans[number]
        rows = slice(scan.start, scan.stop)
        value = np.round(self._base[rows] + self._rng.normal(0, 0.5, VALUES), 1)
        quality = np.zeros(VALUES, np.uint32)
        seq = self.spool.next_seq
        time_ns = START_NS + second * SECOND + number * SECOND // DEVICES
        self.spool.append(Frame(scan, seq, time_ns, time_ns + 1_000_000, 500_000, value, quality, START_NS))
        return seq, self.writers[number].line(value, quality, time_ns)

    async def _live(self, publisher: Publisher) -> None:
        """One frame of each meter a second, spread over it."""
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        k = 0
        while True:
            await asyncio.sleep(max(0.0, began + k / DEVICES - time.perf_counter()))
            seq, line = self._frame(k % DEVICES, self.backlog_s + k // DEVICES)
            self.offered[seq] = time.perf_counter()
            publisher.offer(k % DEVICES, seq, line)
            loop.call_soon(publisher.flush)
            k += 1

    async def _tick(self) -> None:
        """Ask for a moment, again and again, and note how late it comes: what a poll would feel."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.late.append(loop.time() - due)

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.spool.commit()

    def _acked(self, boot: int, first: int, last: int) -> None:
        now = time.perf_counter()
        self._ack(boot, first, last)
        self.latency += [now - self.offered.pop(seq) for seq in range(first, last + 1) if seq in self.offered]

    def _told(self, name: str, took_s: float) -> dict[str, float]:
        """Return what was noted since the last time."""
        latency, late = np.array(self.latency or [np.nan]), np.array(self.late or [np.nan])
        self.latency, self.late = [], []
        return {
            f"{name}took_s": took_s,
            f"{name}live_latency_p50_ms": 1e3 * float(np.quantile(latency, 0.5)),
            f"{name}live_latency_p99_ms": 1e3 * float(np.quantile(latency, 0.99)),
            f"{name}loop_late_p99_ms": 1e3 * float(np.quantile(late, 0.99)),
            f"{name}loop_late_max_ms": 1e3 * float(late.max()),
        }


@asynccontextmanager
async def _link(port: int, *, thin: bool) -> AsyncIterator[int]:
    """Yield the port behind which the broker is: its own, or that of a thin link before it."""
    if not thin:
        yield port
        return
    async with Proxy("127.0.0.1", port) as proxy:
        proxy.slow(THIN_BYTES_PER_S, THIN_DELAY_S)
        yield proxy.port
