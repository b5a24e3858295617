"""Outages of the database, the whole chain through: what ingest has acknowledged is in it, and nothing twice."""

from __future__ import annotations

import logging
import random

import pytest

from tests import servers
from tests.faults.scene import Chain, chain
from tests.faults.test_outage import LOAD, is_repaired, run

AWAY_S = 60.0  # a write is given up after 20 s
SLOW_BYTES_PER_S = 20_000  # InfluxDB takes megabytes
SLOW_DELAY_S = 0.5
CUTS = 10
REQUEST_BYTES = 3_000  # of a fifth of a second
ANSWER_BYTES = 250


def was_away(caplog) -> int:
    """Return how often ingest has told that the database is away; each time it has come back."""
    assert caplog.text.count("store away") == caplog.text.count("store is back"), caplog.text
    return caplog.text.count("store away")


@pytest.fixture(autouse=True)
def told(caplog) -> None:
    caplog.set_level(logging.INFO, "gateway.ingest")


async def store_away(at: Chain, caplog) -> None:
    """Wait until ingest has told that the store is away, and more has come meanwhile."""
    await servers.until(lambda: "store away" in caplog.text, AWAY_S, 0.05)
    await at.commits(LOAD)


async def refused(at: Chain, caplog) -> None:
    at.outlet.refuse()
    at.outlet.cut()
    await store_away(at, caplog)
    at.outlet.accept()


async def stopped(at: Chain, caplog) -> None:
    at.database.stop()
    await store_away(at, caplog)
    at.database.start()


async def killed(at: Chain, caplog) -> None:
    for _ in range(3):
        at.database.kill()
        await at.commits(LOAD)
        at.database.start()
        await at.commits(LOAD)


async def frozen(at: Chain, caplog) -> None:
    at.database.freeze()
    await store_away(at, caplog)
    at.database.thaw()


async def slow(at: Chain, caplog) -> None:
    at.outlet.slow(SLOW_BYTES_PER_S, SLOW_DELAY_S)
    await at.commits(5 * LOAD)
    at.outlet.slow()


async def swallowed(at: Chain, caplog) -> None:
    at.outlet.half_open(swallow=True)
    await store_away(at, caplog)
    at.outlet.heal()


async def held_back(at: Chain, caplog) -> None:
    at.outlet.half_open(swallow=False)
    await store_away(at, caplog)
    at.outlet.heal()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "fault", [refused, stopped, killed, frozen, slow, swallowed, held_back], ids=lambda fault: fault.__name__
)
async def test_a_database_that_does_not_answer_loses_nothing(tmp_path, show, caplog, fault):
    async with chain(tmp_path, database="influx") as at, at.ingest():
        await run(at)
        await fault(at, caplog)
        await at.commits(LOAD)
        await at.finish()
        show(await at.goal(f"database {fault.__name__}", 3 if fault is killed else 1))
    assert not is_repaired(at)
    assert was_away(caplog) == {killed: 3, slow: 0}.get(fault, 1)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["to_target", "to_client"])
async def test_a_connection_to_the_database_that_ends_in_the_middle_loses_nothing(tmp_path, show, caplog, way):
    rng = random.Random(43)
    async with chain(tmp_path, database="influx") as at, at.ingest():
        await run(at)
        for _ in range(CUTS):
            n_bytes = rng.randint(1, REQUEST_BYTES if way == "to_target" else ANSWER_BYTES)
            getattr(at.outlet, way).truncate_after(n_bytes)
            told = caplog.text.count("store is back")
            await servers.until(lambda told=told: caplog.text.count("store is back") > told)
        await at.finish()
        part = "a request" if way == "to_target" else "an answer"
        show(await at.goal(f"connection to the database cut in the middle of {part}", CUTS))
    assert not is_repaired(at)
    assert was_away(caplog) == CUTS
