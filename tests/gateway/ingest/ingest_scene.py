"""A corridor in small: messages as a gateway makes them, an ingest under test, and what is in its store."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from gateway.ingest.app import run
from gateway.model.corridor import IngestSpec, MqttSpec, StoreSpec
from gateway.wire.client import Client, keep_connected
from gateway.wire.events import encode_status
from gateway.wire.lines import Header, as_ranges
from tests import servers

CORRIDOR, SITE, GATEWAY, DEVICE = "link43", "ps1", "ps1-gw1", "ft-101"
BASE = f"corridor/v1/{CORRIDOR}/{SITE}/{GATEWAY}"
DATA = f"{BASE}/{DEVICE}/data"
SERIES = f"flow_meter,corridor={CORRIDOR},site={SITE},gateway={GATEWAY},device={DEVICE},asset=meter-run-1"
T0 = 1_764_000_000_123_456_789
SECOND = 1_000_000_000


def frame(seq: int, fields: str | None = None) -> bytes:
    """Return the line of a frame; its time and value follow from its number."""
    return f"{SERIES} {fields or f'mass={seq}.25,rho=861.5'} {T0 + seq * SECOND}".encode()


def message(
    seqs: Iterable[int], *, boot: int = 7, empty: Iterable[int] = (), lines: dict[int, bytes] | None = None
) -> bytes:
    """Return a data message of these frames; `lines` replaces some of them."""
    seqs, lines = list(seqs), lines or {}
    head = Header(boot, as_ranges(seqs), as_ranges(empty), "3f9a").encode()
    return head + b"".join(lines.get(seq, frame(seq)) + b"\n" for seq in seqs)


def stored(seqs: Iterable[int]) -> dict[int, float]:
    """Return {time_ns: value} of tag `mass`, as it must be in the store."""
    return {T0 + seq * SECOND: seq + 0.25 for seq in seqs}


def status(boots: dict[int, tuple[int, int]], boot: int = 7, state: str = "online") -> bytes:
    """Return a gateway's status."""
    return encode_status(state, boot, "0", T0, boots)


def spec(broker: servers.Server, store: str, token: str | None = None, ingest: str = "ingest-1") -> IngestSpec:
    """Return the configuration of an ingest."""
    mqtt = MqttSpec((f"mqtt://127.0.0.1:{broker.port}",), None, None)
    return IngestSpec(ingest, CORRIDOR, "ingest", mqtt, StoreSpec(store, token))


async def publish(broker: servers.Server, *messages: tuple[str, bytes], retain: bool = False) -> None:
    """Publish each with QoS 1, one after the other; returns when the broker has acknowledged all."""

    async def session(client: Client) -> None:
        for topic, payload in messages:
            await client.publish(topic, payload, 1, retain)

    mqtt = MqttSpec((f"mqtt://127.0.0.1:{broker.port}",), None, None)
    await keep_connected(mqtt, "ps1-gw1", session)


@contextlib.asynccontextmanager
async def ingesting(spec: IngestSpec, state: Path) -> AsyncIterator[None]:
    """Run an ingest until the block ends; it is subscribed when the block begins, and must end without an error."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(run(spec, state, stop=stop, ready=ready.set))
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert ready.is_set(), task
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def subscribed_once(spec: IngestSpec, state: Path) -> None:
    """Let an ingest create its session with the broker, and leave."""
    async with ingesting(spec, state):
        pass


def in_sqlite(path: Path) -> dict[int, float]:
    """Return what the SQLite store holds of tag `mass`."""
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(path)) as reader:
        try:
            return dict(reader.execute("SELECT time_ns, value FROM samples WHERE tag = 'mass'").fetchall())
        except sqlite3.OperationalError:
            return {}
