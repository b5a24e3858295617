"""The broker is away for seconds, hours, days: what was committed is in the database once, or counted as dropped.

The gateway goes through an outage in virtual time (see outage.py). Then a real mosquitto comes back, and a real ingest
brings the backlog into a real InfluxDB while live frames go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from drivers.sim.proxy import Proxy
from gateway.ingest.ledger_file import read_ledger
from gateway.model.clock import NS
from gateway.model.corridor import MqttSpec
from gateway.model.ranges import from_text
from gateway.wire.client import Client, keep_connected
from gateway.wire.lines import parse_header
from gateway.wire.topics import OWN, parse
from tests import servers
from tests.faults.goals import Goal, Show
from tests.faults.outage import POINTS, Outage, Plant, running
from tests.faults.promises import size
from tests.processes import corridor

ROOMY = 1_000_000_000
SMALL = 270_000  # 139 KB of segments, of 34 KB
HOUR = 3600
LARGE = 100_000  # frames: a backlog that is not gone before the first live frame
DRAIN_S = 400.0  # for the largest backlog on a machine that has other work; none of it is a measurement
DROPPED = re.compile(r"dropped (\d+) frames \((\d+) values\) of (\S+) to (\S+), boot 1: (\S+)")
BASE = "corridor/v1/link43/ps1/gw1"


@dataclass(frozen=True)
class Drop:
    """What an event tells of frames that were dropped; first, last: from when to when."""

    frames: int
    values: int
    first: str
    last: str


@dataclass
class Watcher:
    """What the broker hands on: the frames of every meter in the order in which they came, and what is told of drops.

    order  the first frame of every message, over all meters
    """

    seqs: dict[str, array[int]] = field(default_factory=dict)
    order: array[int] = field(default_factory=lambda: array("q"))
    drops: dict[str, Drop] = field(default_factory=dict)
    is_listening: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, client: Client) -> None:
        """One connection to the broker."""
        await client.subscribe(f"{BASE}/+/+", qos=1)
        self.is_listening.set()
        async for message in client.messages:
            self._take(message.topic.value, bytes(message.payload))

    def _take(self, topic: str, payload: bytes) -> None:
        found = parse(topic)
        if found is not None and found.leaf == "data":
            head = parse_header(payload)
            came = sorted(seq for first, last in (*head.seq, *head.empty) for seq in range(first, last + 1))
            self.seqs.setdefault(found.device or "", array("q")).extend(came)
            self.order.append(came[0])
        elif found is not None and found.device == OWN and (event := json.loads(payload))["reason"] == "spool:dropped":
            words = DROPPED.fullmatch(event["text"])
            assert words, event
            frames, values, first, last, ranges = words.groups()
            self.drops[ranges] = Drop(int(frames), int(values), first, last)

    def arrived(self, frames: int) -> NDArray[np.bool_]:
        """Return which of so many frames came, bool[frames]."""
        out = np.zeros(frames, np.bool_)
        for each in self.seqs.values():
            out[np.array(each, np.int64) - 1] = True
        return out

    def told(self, frames: int) -> NDArray[np.bool_]:
        """Return which of so many frames are said to be dropped, bool[frames]."""
        out = np.zeros(frames, np.bool_)
        for ranges in self.drops:
            for first, last in from_text(ranges):
                assert not out[first - 1 : last].any(), "told twice"
                out[first - 1 : last] = True
        return out


@dataclass
class Line:
    """Gateway, broker, ingest and database; `spans` are the first and last frame of each outage."""

    broker: servers.Server
    way: Proxy  # from the gateway to the broker
    gateway: Outage
    watcher: Watcher
    folder: Path
    max_bytes: int
    spans: list[tuple[int, int]] = field(default_factory=list)

    def look(self) -> None:
        """See that the spool keeps to its cap."""
        assert size(self.folder / "gw" / "spool") <= self.max_bytes

    async def outage(self, polls: int) -> None:
        """Take the broker away for so many polls of every meter; it comes back, and the backlog goes out."""
        gateway, spool = self.gateway, self.gateway.spool
        connected = gateway.gateway.publisher.connected
        await asyncio.to_thread(self.broker.stop)
        await servers.until(lambda: not connected.is_set())
        self.way.freeze()
        first = gateway.frames + 1
        await gateway.hurry(polls)
        assert not connected.is_set()
        sessions = self.sessions()
        await asyncio.to_thread(self.broker.start)
        await servers.until(lambda: self.sessions() > sessions)  # a share of nobody is kept for nobody by mosquitto 2.0
        self.way.thaw()
        await servers.until(connected.is_set, every_s=0.001)
        self.spans.append((first, gateway.frames))
        async with asyncio.timeout(DRAIN_S):
            await gateway.live(lambda: spool.statistics().unsent <= 2 * gateway.plant.n)
        await self.settle()

    def sessions(self) -> int:
        """Return how often the ingest has subscribed."""
        return self.broker.log.read_bytes().count(b"in1 1 $share/")

    async def settle(self) -> None:
        """Wait until everybody has what the gateway has: time goes on until drops are told, too."""
        spool, frames = self.gateway.spool, self.gateway.frames
        await self.gateway.rest(61.0 if spool.statistics().dropped else 1.0)

        def is_settled() -> bool:
            kept = spool.statistics()
            found = read_ledger(self.folder / "in")
            return (
                not (kept.unsent or kept.pending or found["missing"])
                and bool(found["gateways"])
                and found["gateways"][-1]["complete_to"] == frames
                and np.count_nonzero(self.watcher.arrived(frames)) == frames - kept.dropped
                and sum(drop.frames for drop in self.watcher.drops.values()) == kept.dropped
            )

        await servers.until(is_settled, DRAIN_S, 0.1)


@contextlib.asynccontextmanager
async def line(plant: Plant, folder: Path, store: str, max_bytes: int = ROOMY) -> AsyncIterator[Line]:
    """Run the whole line; a few frames of every meter have gone through it."""
    # how often a subscriber overflows, and that the ledger mends it, is the matter of test_repair.py
    lines = ("max_queued_messages 0", "log_type subscribe")
    config = folder / "ingest.toml"
    async with contextlib.AsyncExitStack() as stack:
        broker = stack.enter_context(servers.mosquitto(folder / "mosquitto", *lines, keeps_sessions=True))
        way = await stack.enter_async_context(Proxy("127.0.0.1", broker.port))
        url = f"mqtt://127.0.0.1:{broker.port}"
        config.write_text(
            f'[mqtt]\nurl = "{url}"\n[ingest]\nid = "in1"\ncorridor = "link43"\n[store]\nurl = "{store}"\n'
        )
        watcher = Watcher()
        watching = asyncio.create_task(
            keep_connected(
                MqttSpec((url,), None, None), "watcher", watcher.listen, clean_start=False, session_expiry_s=3600
            )
        )
        with corridor("ingest", config, "--state", folder / "in", log=folder / "ingest.log"):
            await watcher.is_listening.wait()
            async with running(plant, folder / "gw", way.port, max_bytes) as gateway:
                found = Line(broker, way, gateway, watcher, folder, max_bytes)
                await servers.until(found.sessions)
                gateway.passed = found.look
                await gateway.hurry(3)
                await found.settle()
                yield found
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


@dataclass(frozen=True)
class Stored:
    """What the database has of the frames, bool[frames]; `strange` are samples under stamps that no frame has."""

    found: NDArray[np.bool_]
    away: NDArray[np.bool_]
    strange: int


async def stored(line: Line, port: int, database: str) -> Stored:
    """Compare every series with what the meters showed, value by value."""
    plant, polls = line.gateway.plant, line.gateway.polls
    history = plant.history()
    found, away = np.zeros((2, polls, plant.n), np.bool_)
    strange = 0
    names = ", ".join(f'"{name}"' for name, *_ in POINTS)
    for k in range(plant.n):
        rows = await servers.influx_query(port, f"SELECT {names} FROM meter WHERE device = 'd{k}'", database)
        times_ns = np.array([row[0] for row in rows], np.int64)
        values = np.array([row[1:] for row in rows], np.float64)
        wanted_ns = plant.times_ns(k, 0, polls)
        at = np.searchsorted(wanted_ns, times_ns).clip(0, polls - 1)
        is_ours = wanted_ns[at] == times_ns
        strange += int(np.count_nonzero(~is_ours))
        found[at[is_ours], k] = True
        away[:, k] = plant.is_away(k, 0, polls)
        assert np.array_equal(values[is_ours], plant.values(history, k, 0, polls)[at[is_ours]])
    return Stored(found.ravel(), away.ravel(), strange)


def is_in_order(line: Line) -> bool:
    """Return whether every tag's samples came in order in either lane: those of an outage, and those that were live."""
    is_late = np.zeros(line.gateway.frames + 1, np.int64)
    for number, (first, last) in enumerate(line.spans, 1):
        is_late[first : last + 1] = number
    for each in line.watcher.seqs.values():
        seqs = np.array(each, np.int64)
        _, firsts = np.unique(seqs, return_index=True)
        seqs = seqs[np.sort(firsts)]  # one that came again had come
        for number in range(len(line.spans) + 1):
            if (np.diff(seqs[is_late[seqs] == number]) < 0).any():
                return False
    return True


def stamps(plant: Plant, ranges: str) -> tuple[str, str]:
    """Return the first and the last stamp of frames, to the second as people read it."""
    spans = from_text(ranges)
    times_ns = [
        plant.times_ns((seq - 1) % plant.n, (seq - 1) // plant.n, (seq - 1) // plant.n + 1)[0]
        for seq in (spans[0][0], spans[-1][1])
    ]
    first, last = (
        datetime.fromtimestamp(int(time_ns) // NS, UTC).isoformat(timespec="seconds") for time_ns in times_ns
    )
    return first, last


async def goals(line: Line, labels: Sequence[str], port: int, database: str) -> list[Goal]:
    """Return what became of the frames of each outage, by counting; what is told of drops must be what is missing."""
    frames, watcher, spool = line.gateway.frames, line.watcher, line.gateway.spool.statistics()
    arrived, told = watcher.arrived(frames), watcher.told(frames)
    kept = await stored(line, port, database)
    assert np.array_equal(kept.found, arrived & ~kept.away), "broker and database have different frames"
    assert is_in_order(line)
    ledger = read_ledger(line.folder / "in")
    assert (ledger["missing"], ledger["parked"]) == (0, 0)
    assert ledger["gone"] == np.count_nonzero(~arrived)
    assert spool.dropped == np.count_nonzero(told)
    assert spool.dropped_values == len(POINTS) * np.count_nonzero(~arrived & ~kept.away)
    assert spool.dropped_values == sum(drop.values for drop in watcher.drops.values())
    for ranges, drop in watcher.drops.items():
        assert (drop.first, drop.last) == stamps(line.gateway.plant, ranges)
    out = []
    for label, (first, last) in zip(labels, line.spans, strict=True):
        span = slice(first - 1, last)
        found = ~arrived[span]
        lost = int(np.count_nonzero(found & ~told[span]))
        n_told, n_found = int(np.count_nonzero(told[span])), int(np.count_nonzero(found))
        assert told[span][:n_told].all(), "not the oldest went"
        out.append(Goal(f"broker away for {label}", 1, last - first + 1, lost, kept.strange, n_told, n_found))
    return out


def has_gone_on(line: Line) -> bool:
    """Return whether live frames came while the backlog of the last outage was on its way."""
    order, (_, last) = np.array(line.watcher.order), line.spans[-1]
    return bool(np.flatnonzero(order > last)[0] < np.flatnonzero(order <= last)[-1])


async def outages(tmp_path, server, database, plant, spans, max_bytes=ROOMY):
    """Go through outages of so many seconds each; return the line's goals, and how full the spool was."""
    labels = [f"{text}, {plant.n} meters" for text in spans]
    async with line(plant, tmp_path, f"influx1://127.0.0.1:{server.port}/{database}", max_bytes) as whole:
        for seconds in spans.values():
            await whole.outage(round(seconds / plant.period_s))
        if plant.n * max(spans.values()) / plant.period_s >= LARGE:
            assert has_gone_on(whole)
        return await goals(whole, labels, server.port, database)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("plant", "spans"),
    [
        (Plant(20), {"1 s": 1, "1 min": 60, "1 h": HOUR}),
        (Plant(100, 10.0), {"13 h": 13 * HOUR}),
        (Plant(10, 10.0), {"72 h": 72 * HOUR}),
    ],
    ids=["up to 1 h", "13 h", "72 h"],
)
async def test_after_an_outage_everything_is_there_once(tmp_path, influxd, influx_database, show: Show, plant, spans):
    for goal in await outages(tmp_path, influxd, influx_database, plant, spans):
        show(goal)
        assert goal.told == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_spool_that_is_too_small_drops_the_oldest_and_says_which(
    tmp_path, influxd, influx_database, show: Show
):
    spans = {"13 h, spool of 1 MB": 13 * HOUR}
    (goal,) = await outages(tmp_path, influxd, influx_database, Plant(20, 5.0), spans, 1_000_000)
    show(goal)
    assert goal.committed / 10 < goal.told < goal.committed


async def test_it_is_known_what_is_missing_after_an_outage_too_long_for_the_spool(
    tmp_path, influxd, influx_database, show: Show
):
    spans = {"10 min": 600, "1 h, small spool": HOUR}
    found = await outages(tmp_path, influxd, influx_database, Plant(8, 5.0, away_every=300), spans, SMALL)
    for goal in found:
        show(goal)
    assert [goal.told > 0 for goal in found] == [False, True]
