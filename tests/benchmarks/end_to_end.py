"""end_to_end: meters as fast as they answer, the whole gateway in a child process, and what arrives at the broker."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from tests.benchmarks import rig

METERS = 10
SETTLE_S = 2.0


def measure(*, n_meters: int = METERS, seconds: float = 6.0) -> dict[str, float]:
    """Return values per second at the broker, processor time, memory, and start to first value."""
    with (
        tempfile.TemporaryDirectory(prefix="corridor-bench-") as name,
        rig.broker(Path(name)) as broker,
        rig.meters(n_meters) as ports,
    ):
        config = rig.write_config(Path(name) / "gateway.toml", broker.port, ports, rig.VALUES, 0)
        return asyncio.run(_measure(config, Path(name), broker.port, seconds))


async def _measure(config: Path, folder: Path, port: int, seconds: float) -> dict[str, float]:
    first, n_frames, n_messages = asyncio.Event(), 0, 0

    def take(payload: bytes) -> None:
        nonlocal n_frames, n_messages
        n_messages += 1
        n_frames += payload.count(b"\n") - 1
        first.set()

    ready = asyncio.Event()
    watching = asyncio.ensure_future(rig.counted(port, "corridor/v1/bench/+/+/+/data", take, ready))
    await ready.wait()
    began = time.perf_counter()
    with rig.gateway(config, folder) as child:
        async with asyncio.timeout(rig.START_S):
            await first.wait()
        first_s = time.perf_counter() - began
        await asyncio.sleep(SETTLE_S)
        before, messages, cpu, began = n_frames, n_messages, rig.cpu_s(child.pid), time.perf_counter()
        await asyncio.sleep(seconds)
        wall, frames = time.perf_counter() - began, n_frames - before
        used = rig.cpu_s(child.pid) - cpu
        found = rig.memory_mb(child.pid)
        messages = n_messages - messages
        watching.cancel()
    n_values = frames * rig.VALUES
    return {
        "values_per_s": n_values / wall,
        "frames_per_s": frames / wall,
        "frames_per_message": frames / max(messages, 1),
        "cpu_s_per_million_values": 1e6 * used / max(n_values, 1),
        "cpu_share_of_one_core": used / wall,
        **found,
        "start_to_first_value_s": first_s,
    }
