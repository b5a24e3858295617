"""publish: frames through the Publisher to a real mosquitto, beside one awaited aiomqtt publish of JSON per frame."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiomqtt
import numpy as np

from gateway.deliver.publish import Publisher
from gateway.model.corridor import MqttSpec
from gateway.spool.memory import MemorySpool
from gateway.wire.client import Client, keep_connected
from gateway.wire.frame_lines import LineWriter, scan_texts
from gateway.wire.topics import GatewayAddress
from tests.benchmarks import rig

DEVICES = 10
ROUNDS = 3
WAITING = 48  # frames of one device offered and not acknowledged: below what the live lane lets go of
TIME_NS = 1_764_000_000_123_000_000


class _Counting(MemorySpool):
    """A spool that keeps nothing and counts what the broker has."""

    acked = 0
    then: Callable[[int], object] | None = None

    def ack(self, boot: int, first: int, last: int) -> None:
        """Count, and say which frame the broker has."""
        self.acked += last - first + 1
        if self.then:
            self.then(last)


def measure(*, seconds: float = 1.2) -> dict[str, float]:
    """Return messages and values per second that the broker acknowledged, and processor time per value."""
    with tempfile.TemporaryDirectory(prefix="corridor-bench-") as folder, rig.broker(Path(folder)) as broker:
        return asyncio.run(_measure(broker.port, seconds))


async def _measure(port: int, seconds: float) -> dict[str, float]:
    contestants = {
        "flat_out": lambda: _ours(port, seconds, WAITING),
        "single": lambda: _ours(port, seconds, 1),
        "naive": lambda: _naive(port, seconds),
    }
    found = await rig.async_medians(contestants, ROUNDS)
    a, b, single = found["flat_out"], found["naive"], found["single"]
    return {
        **a,
        "one_frame_per_message_cpu_us_per_message": single["cpu_us_per_message"],
        "ratio_one_frame_per_message_cpu": single["cpu_us_per_message"] / b["cpu_us_per_message"],
        **{f"naive_{key}": value for key, value in b.items()},
        "ratio_values_per_s": a["values_per_s"] / b["values_per_s"],
        "ratio_cpu": a["cpu_us_per_value"] / b["cpu_us_per_value"],
    }


async def _ours(port: int, seconds: float, waiting: int) -> dict[str, float]:
    """Every device has its next frame ready as long as fewer than `waiting` of its frames are on their way."""
    table = rig.table(DEVICES, rig.VALUES, "uint16", scale=0.1)
    texts = scan_texts(table)
    writers = [LineWriter(text) for text in texts]
    value, quality = (
        np.round(np.random.default_rng(43).uniform(0, 6000, rig.VALUES), 1),
        np.zeros(rig.VALUES, np.uint32),
    )
    spool = _Counting(1, "3f9a1234", texts)
    publisher = Publisher(GatewayAddress("bench", "lab", "gw1"), [f"d{i}" for i in range(DEVICES)], spool, "3f9a1234")
    out: dict[str, float] = {}

    def offer(device: int, seq: int) -> None:
        publisher.offer(device, seq, writers[device].line(value, quality, TIME_NS + seq))
        asyncio.get_running_loop().call_soon(publisher.flush)

    async def session(client: Client) -> None:
        serving = asyncio.ensure_future(publisher.run(client))
        await asyncio.sleep(0)
        began, cpu, seq = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            for device in range(DEVICES) if seq - spool.acked <= (waiting - 1) * DEVICES else ():
                seq += 1
                offer(device, seq)
            if waiting == 1:  # from here on every acknowledgement brings the next frame of its device
                spool.then = lambda last: offer((last - 1) % DEVICES, last + DEVICES)
                await asyncio.sleep(seconds)
                spool.then = None
            await asyncio.sleep(0)
        out.update(_rates(publisher.counters.acknowledged, spool.acked, began, cpu))
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    await keep_connected(MqttSpec((f"mqtt://127.0.0.1:{port}",), None, None), "bench", session)
    return out


async def _naive(port: int, seconds: float) -> dict[str, float]:
    value = np.round(np.random.default_rng(43).uniform(0, 6000, rig.VALUES), 1)
    names, n = [f"v{i:02}" for i in range(rig.VALUES)], 0
    async with aiomqtt.Client("127.0.0.1", port) as client:
        began, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            payload = json.dumps({"time": TIME_NS + n, **dict(zip(names, value.tolist(), strict=True))})
            await client.publish(f"bench/d{n % DEVICES}", payload, qos=1)
            n += 1
        return _rates(n, n, began, cpu)


def _rates(n_messages: int, n_frames: int, began: float, cpu: float) -> dict[str, float]:
    wall, used, n_values = time.perf_counter() - began, time.process_time() - cpu, n_frames * rig.VALUES
    return {
        "messages_per_s": n_messages / wall,
        "values_per_s": n_values / wall,
        "frames_per_message": n_frames / max(n_messages, 1),
        "cpu_us_per_message": 1e6 * used / max(n_messages, 1),
        "cpu_us_per_value": 1e6 * used / max(n_values, 1),
    }
