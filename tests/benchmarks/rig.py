"""What benchmarks share: fair rounds, tables of tags, child processes and what they use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from drivers.link import LinkSpec
from drivers.points import Point
from gateway.acquire.plan import plan
from gateway.model.build import DEFAULT_DETECT
from gateway.model.corridor import Device, GatewaySpec, MqttSpec, Tag
from gateway.model.frame import TagTable
from tests import servers
from tests.processes import corridor

ROOT: Final = Path(__file__).parents[2]
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
KIB: Final = 1024
VALUES: Final = 98  # of one device: a power meter's block, as in ACQUISITION section 1
START_S: Final = 20.0


class Unavailable(Exception):
    """A peer that this stage needs is not installed here."""


def medians(contestants: Mapping[str, Callable[[], float]], n_rounds: int) -> dict[str, float]:
    """Return the median result of each; they take turns, so that a busy machine is busy for all of them."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(n_rounds):
        for name, measure in contestants.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


async def async_medians(
    contestants: Mapping[str, Callable[[], Awaitable[dict[str, float]]]], n_rounds: int
) -> dict[str, dict[str, float]]:
    """Return the median of every number that each contestant returns; they take turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(n_rounds):
        for name, measure in contestants.items():
            found[name].append(await measure())
    return {
        name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }


def ns_per_call(work: Callable[[], object], at_least_s: float) -> float:
    """Return the time of one call, from as many as fit."""
    work()
    n, began = 0, time.perf_counter_ns()
    end = began + round(at_least_s * 1e9)
    while (now := time.perf_counter_ns()) < end or not n:
        work()
        n += 1
    return (now - began) / max(n, 1)


def table(n_devices: int, n_values: int, kind: str = "float32", **fields: object) -> TagTable:
    """Return the table of so many devices with so many tags each, as the plan makes it."""
    step = 2 if kind.endswith("32") else 1
    nan = (math.nan,) * 4
    points = [Point(f"v{i:02}", "holding", step * i, kind, **fields) for i in range(n_values)]  # type: ignore[arg-type]
    tags = tuple(Tag(point, 1.0, nan, 0.0, 0.0, 0.0, 3, DEFAULT_DETECT["gauge"]) for point in points)
    first = Device("d0", "l0", 1, "", "meter", "", "", None, tags, (), 125, 2000, 0, False)
    devices = tuple(replace(first, name=f"d{i}", unit=i % 247 + 1, link=f"l{i // 247}") for i in range(n_devices))
    links = tuple(LinkSpec(name, "tcp", "127.0.0.1", 502) for name in dict.fromkeys(d.link for d in devices))
    mqtt = MqttSpec(("mqtt://127.0.0.1:1",), None, None)
    spec = GatewaySpec(
        "gw1", "bench", "lab", mqtt, Path("spool"), 100_000_000, 1.0, 0.0, None, links, devices
    )  # fmt: skip
    return plan(spec).table


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[servers.Server]:
    """Run a mosquitto without persistence."""
    if not (shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")):
        raise Unavailable("mosquitto is not installed")
    with servers.mosquitto(folder / "mosquitto", "max_inflight_messages 0") as server:
        yield server


@contextlib.contextmanager
def meters(n: int) -> Iterator[list[int]]:
    """Run so many meters in a child process of their own (see meters.py); yields their ports."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.meters", str(n)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert child.stdin
    assert child.stdout
    try:
        yield json.loads(child.stdout.readline())
    finally:
        child.stdin.close()  # it ends with its standard input, hence also when we are killed
        child.wait(10)
        child.stdout.close()


def write_config(path: Path, broker_port: int, ports: list[int], n_values: int, period_s: float) -> Path:
    """Write a gateway.toml: one device of so many uint16 tags on each port."""
    parts = [
        '[gateway]\nid = "gw1"\ncorridor = "bench"\nsite = "lab"',
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker_port}"',
    ]
    row = '{{name = "v{0:02}", function = "holding", address = {0}, type = "uint16", scale = 0.1}}'
    points = ", ".join(row.format(i) for i in range(n_values))
    for i, port in enumerate(ports):
        parts.append(f'[[link]]\nname = "l{i}"\nurl = "tcp://127.0.0.1:{port}"')
        parts.append(f'[[device]]\nname = "d{i}"\nlink = "l{i}"\nperiod_s = {period_s}\npoint = [{points}]')
    path.write_text("\n\n".join(parts) + "\n")
    return path


@contextlib.contextmanager
def gateway(config: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `corridor run` as a child process."""
    with corridor("run", config, "--state", folder / "state", log=folder / "gateway.log") as child:
        yield child


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_mb(pid: int) -> dict[str, float]:
    """Return the resident and the anonymous memory of a process."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {key: int(rest.split()[0]) * KIB / 1e6 for key, _, rest in (row.partition(":") for row in rows)}
    return {"rss_mb": found["Rss"], "anonymous_mb": found["Anonymous"]}


async def counted(port: int, topics: str, take: Callable[[bytes], None], ready: asyncio.Event) -> None:
    """Subscribe and hand on every payload until cancelled."""
    import aiomqtt

    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(topics, qos=0)
        ready.set()
        async for message in client.messages:
            take(bytes(message.payload))
