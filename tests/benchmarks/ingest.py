"""ingest: messages from the broker into a store, until the ledger has them; the ingest is a child process.

Then small messages that wait in the broker: how much more do two workers take that share them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gateway.deliver.publish import message
from gateway.ingest.ledger_file import read_accounts
from gateway.model.corridor import MqttSpec
from gateway.model.ranges import RangeSet
from gateway.wire.client import Client, keep_connected
from gateway.wire.frame_lines import LineWriter, scan_texts
from tests import servers
from tests.benchmarks import rig
from tests.processes import corridor, until

KINDS = {"one_frame_per_message": (1, 6_000), "ten_frames_per_message": (10, 2_000)}  # frames per message, messages
SMALL_VALUES, SMALL_MESSAGES, ROUNDS = 10, 20_000, 3  # ten values a message: it costs more than what is in it
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
                out["influxdb"]["workers"] = _shared(folder / "shared", broker.port, url)
        else:
            out["influxdb"] = {"skipped": "influxd is not installed"}
    return out


@contextlib.contextmanager
def _worker(folder: Path, port: int, store: str, number: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Run an ingest of the corridor that is called like the folder; its state is in folder/<number>."""
    config = folder / f"ingest{number}.toml"
    config.write_text(
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n[ingest]\nid = "in-{folder.name}-{number}"\n'
        f'corridor = "{folder.name}"\n[store]\nurl = "{store}"\n'
    )
    with corridor("ingest", config, "--state", folder / str(number), log=folder / f"{number}.log") as child:
        yield child


def _shared(folder: Path, port: int, store: str) -> dict[str, float]:
    """Return the messages a second of one worker and of two; they take turns."""
    folders = (folder.with_name(f"{folder.name}{k}") for k in itertools.count())
    takers = {f"{n}": lambda n=n: _drained(next(folders), port, store, n) for n in (1, 2)}
    found = rig.medians(takers, ROUNDS)
    return {"one_messages_per_s": found["1"], "two_messages_per_s": found["2"], "ratio": found["2"] / found["1"]}


def _drained(folder: Path, port: int, store: str, n_workers: int) -> float:
    """Return the messages a second from the first to the last of those that waited for so many workers."""
    folder.mkdir()
    states = [folder / str(number) for number in range(n_workers)]

    @contextlib.contextmanager
    def workers() -> Iterator[None]:
        with contextlib.ExitStack() as running:
            for number in range(n_workers):
                running.enter_context(_worker(folder, port, store, number))
            yield

    with workers():
        warm = _messages(folder.name, 1, 1, 1)
        asyncio.run(
            _publish(port, folder.name, warm, again=lambda: not all(_stored(state, 1).total for state in states))
        )
    asyncio.run(_publish(port, folder.name, _messages(folder.name, 2, 1, SMALL_MESSAGES, SMALL_VALUES)))

    def n_stored() -> int:
        return RangeSet(span for state in states for span in _stored(state, 2)).total

    with workers():
        first = until(n_stored, "the first ones")
        began = time.perf_counter()
        until(lambda: n_stored() == SMALL_MESSAGES, "all of them")
        return (SMALL_MESSAGES - first) / (time.perf_counter() - began)


def _into(folder: Path, port: int, store: str) -> dict[str, Any]:
    folder.mkdir()
    corridor_name, state = folder.name, folder / "0"
    out: dict[str, Any] = {}
    with _worker(folder, port, store) as child:
        warm = _messages(corridor_name, 1, 1, 1)
        asyncio.run(_publish(port, corridor_name, warm, again=lambda: not _stored(state, 1).total))
        for boot, (name, (n_frames, n_messages)) in enumerate(KINDS.items(), 2):
            made = _messages(corridor_name, boot, n_frames, n_messages)
            cpu, began = rig.cpu_s(child.pid), time.perf_counter()
            asyncio.run(_publish(port, corridor_name, made))
            until(lambda b=boot, n=n_frames * n_messages: _stored(state, b).total == n, "all frames")
            wall, used = time.perf_counter() - began, rig.cpu_s(child.pid) - cpu
            n_values = n_messages * n_frames * rig.VALUES
            out[name] = {
                "messages_per_s": n_messages / wall,
                "values_per_s": n_values / wall,
                "cpu_us_per_value": 1e6 * used / n_values,
            }
    return out


def _messages(corridor_name: str, boot: int, n_frames: int, n_messages: int, n_values: int = rig.VALUES) -> list[bytes]:
    text = scan_texts(rig.table(1, n_values, "uint16", scale=0.1))[0]
    writer = LineWriter(type(text)(text.device, text.prefix.replace("=bench,", f"={corridor_name},"), *_rest(text)))
    rng, quality = np.random.default_rng(boot), np.zeros(n_values, np.uint32)
    out, seq = [], 0
    for _ in range(n_messages):
        frames = []
        for _ in range(n_frames):
            seq += 1
            value = np.round(rng.uniform(0, 6000, n_values), 1)
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


def _stored(state: Path, boot: int) -> RangeSet:
    try:
        account = read_accounts(state).get(("gw1", boot))
    except OSError:
        return RangeSet()
    return account.stored if account else RangeSet()
