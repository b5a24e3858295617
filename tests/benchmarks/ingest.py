"""ingest: messages from the broker into a store, until the ledger has them; the ingest is a child process."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gateway.deliver.publish import message
from gateway.ingest.ledger_file import read_accounts
from gateway.model.corridor import MqttSpec
from gateway.wire.client import Client, keep_connected
from gateway.wire.frame_lines import LineWriter, scan_texts
from tests import servers
from tests.benchmarks import rig
from tests.processes import corridor, until

KINDS = {"one_frame_per_message": (1, 6_000), "ten_frames_per_message": (10, 2_000)}  # frames per message, messages
IN_FLIGHT = 32
TIME_NS = 1_764_000_000_000_000_000


def measure() -> dict[str, Any]:
    """Return messages and values per second and the ingest's processor time, for each store that is here."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="corridor-bench-") as name, rig.broker(Path(name)) as broker:
        folder = Path(name)
        out["sqlite"] = _into(folder / "sqlite", broker.port, f"sqlite:///{folder}/history.sqlite")
        if shutil.which("influxd"):
            with servers.influxd(folder / "influxd") as influxd:
                database = asyncio.run(servers.create_database(influxd.port))
                url = f"influx1://127.0.0.1:{influxd.port}/{database}"
                out["influxdb"] = _into(folder / "influx", broker.port, url)
        else:
            out["influxdb"] = {"skipped": "influxd is not installed"}
    return out


def _into(folder: Path, port: int, store: str) -> dict[str, Any]:
    folder.mkdir()
    config = folder / "ingest.toml"
    corridor_name = folder.name
    config.write_text(
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n[ingest]\nid = "in-{corridor_name}"\ncorridor = "{corridor_name}"\n'
        f'[store]\nurl = "{store}"\n'
    )
    out: dict[str, Any] = {}
    with corridor("ingest", config, "--state", folder / "state", log=folder / "ingest.log") as child:
        warm = _messages(corridor_name, 1, 1, 1)
        asyncio.run(_publish(port, corridor_name, warm, again=lambda: not _stored(folder / "state", 1)))
        for boot, (name, (n_frames, n_messages)) in enumerate(KINDS.items(), 2):
            made = _messages(corridor_name, boot, n_frames, n_messages)
            cpu, began = rig.cpu_s(child.pid), time.perf_counter()
            asyncio.run(_publish(port, corridor_name, made))
            until(lambda b=boot, n=n_frames * n_messages: _stored(folder / "state", b) == n, "all frames")
            wall, used = time.perf_counter() - began, rig.cpu_s(child.pid) - cpu
            n_values = n_messages * n_frames * rig.VALUES
            out[name] = {
                "messages_per_s": n_messages / wall,
                "values_per_s": n_values / wall,
                "cpu_us_per_value": 1e6 * used / n_values,
            }
    return out


def _messages(corridor_name: str, boot: int, n_frames: int, n_messages: int) -> list[bytes]:
    text = scan_texts(rig.table(1, rig.VALUES, "uint16", scale=0.1))[0]
    writer = LineWriter(type(text)(text.device, text.prefix.replace("=bench,", f"={corridor_name},"), *_rest(text)))
    rng, quality = np.random.default_rng(boot), np.zeros(rig.VALUES, np.uint32)
    out, seq = [], 0
    for _ in range(n_messages):
        frames = []
        for _ in range(n_frames):
            seq += 1
            value = np.round(rng.uniform(0, 6000, rig.VALUES), 1)
            frames.append((seq, writer.line(value, quality, TIME_NS + (boot * 1_000_000 + seq) * 1_000_000)))
        out.append(message(boot, "3f9a1234", frames))
    return out


def _rest(text: Any) -> tuple[Any, Any]:
    return text.names, text.decimals


async def _publish(port: int, corridor_name: str, messages: list[bytes], again: Any = None) -> None:
    """Publish with a window of messages in flight; with `again` repeat until it says no."""
    topic = f"corridor/v1/{corridor_name}/lab/gw1/d0/data"

    async def session(client: Client) -> None:
        window = asyncio.Semaphore(IN_FLIGHT)
        while True:
            for payload in messages:
                await window.acquire()
                client.send(topic, payload, lambda code: window.release())
            for _ in range(IN_FLIGHT):
                await window.acquire()
            if again is None or not again():
                return
            for _ in range(IN_FLIGHT):
                window.release()
            await asyncio.sleep(0.2)

    await keep_connected(MqttSpec((f"mqtt://127.0.0.1:{port}",), None, None), "bench", session)


def _stored(state: Path, boot: int) -> int:
    try:
        account = read_accounts(state).get(("gw1", boot))
    except OSError:
        return 0
    return account.stored.total if account else 0
