"""A broker that forgets what it has acknowledged, a subscriber that overflows, a worker that is killed: 0 missing."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from drivers.link import LinkSpec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import Fleet
from gateway.ingest import repair
from gateway.ingest.ledger import Report
from gateway.ingest.ledger_file import read_ledger
from gateway.spool.verify import verify
from tests import servers
from tests.gateway.ingest.ingest_scene import ingesting, spec
from tests.gateway.test_app import write_config
from tests.processes import corridor

POINTS = tuple(Point(f"v{i}", "holding", i, "uint16") for i in range(5))


@contextlib.asynccontextmanager
async def meter(folder: Path, port: int):
    """Serve a simulated meter; yields the configuration of a gateway that reads it at 20 Hz."""
    link = LinkSpec("skid", "tcp", "127.0.0.1", 0)
    async with Fleet([MeterSpec("d1", link, 1, "", POINTS)], seed=1) as fleet:
        points = [(p.name, p.type, p.address) for p in POINTS]
        yield write_config(folder, port, fleet.ports["skid"], points, period_s=0.05)


def ledger(state: Path) -> Report:
    return read_ledger(state)


def committed(folder: Path) -> set[int]:
    (spans,) = verify(folder / "gw" / "spool")["boots"].values()
    return {seq for first, last in spans for seq in range(first, last + 1)}


def stored(path: Path) -> Counter[int]:
    """Return how often each stamp of one tag is in the store."""
    with contextlib.closing(sqlite3.connect(path)) as reader:
        return Counter(row[0] for row in reader.execute("SELECT time_ns FROM samples WHERE tag = 'v0'"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "GRACE_S", 0.5)


async def settled(state: Path, at_least: int) -> Report:
    """Wait until the ledger has so many frames, and none is missing but those on their way."""

    def look() -> Report | None:
        found = ledger(state)
        is_there = found["gateways"] and found["gateways"][-1]["complete_to"] >= at_least
        return found if is_there and found["missing"] == found["waiting"] else None

    return await servers.until(look, 60)


async def test_a_broker_that_lost_its_memory_in_the_middle_of_load_loses_nothing(tmp_path: Path) -> None:
    history = tmp_path / "history.sqlite"
    with servers.mosquitto(tmp_path / "mosquitto", keeps_sessions=True) as broker:
        async with meter(tmp_path, broker.port) as config:
            where = spec(broker, f"sqlite://{history}")
            with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log") as gateway:
                async with ingesting(where, tmp_path / "in"):
                    await settled(tmp_path / "in", 20)
                # nobody is there: the broker takes frames for the absent ingest, and then forgets them
                lost = ledger(tmp_path / "in")["gateways"][0]["complete_to"]
                await servers.until(lambda: max(committed(tmp_path)) > lost + 40)
                broker.kill()
                for path in (tmp_path / "mosquitto").glob("*.db*"):
                    path.unlink()
                broker.start()
                async with ingesting(where, tmp_path / "in"):
                    await settled(tmp_path / "in", lost + 60)
                    gateway.terminate()
                    await asyncio.to_thread(gateway.wait, 20)
                    last = max(committed(tmp_path))
                    await servers.until(lambda: ledger(tmp_path / "in")["gateways"][0]["complete_to"] == last)
            found = ledger(tmp_path / "in")
            assert (found["missing"], found["gone"], found["parked"]) == (0, 0, 0)
            times = stored(history)
            assert len(times) == verify(tmp_path / "gw" / "spool")["values"] / len(POINTS)
            assert set(times.values()) == {1}
    assert "command resend" in (tmp_path / "run.log").read_text()


@pytest.mark.slow
async def test_a_subscriber_that_overflows_gets_the_rest_from_the_spool(tmp_path: Path) -> None:
    """mosquitto drops what exceeds its queue, and has acknowledged it all the same."""
    history = tmp_path / "history.sqlite"
    with servers.mosquitto(tmp_path / "mosquitto", "max_queued_messages 5", keeps_sessions=True) as broker:
        async with meter(tmp_path, broker.port) as config:
            where = spec(broker, f"sqlite://{history}")
            with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log"):
                async with ingesting(where, tmp_path / "in"):
                    await settled(tmp_path / "in", 10)
                lost = ledger(tmp_path / "in")["gateways"][0]["complete_to"]
                await servers.until(lambda: max(committed(tmp_path)) > lost + 60)
                async with ingesting(where, tmp_path / "in"):
                    found = await settled(tmp_path / "in", lost + 60)
            assert found["gone"] == 0
            assert set(stored(history).values()) == {1}
    assert "command resend" in (tmp_path / "run.log").read_text()


async def test_an_ingest_whose_ledger_and_database_are_lost_gets_everything_that_the_spool_has(tmp_path: Path) -> None:
    with servers.mosquitto(tmp_path / "mosquitto") as broker:
        async with meter(tmp_path, broker.port) as config:
            with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log"):
                async with ingesting(spec(broker, f"sqlite://{tmp_path}/one"), tmp_path / "in"):
                    await settled(tmp_path / "in", 30)
                shutil.rmtree(tmp_path / "in")
                async with ingesting(spec(broker, f"sqlite://{tmp_path}/two"), tmp_path / "in"):
                    await settled(tmp_path / "in", 60)
            assert min(stored(tmp_path / "two")) == min(stored(tmp_path / "one"))
