"""Ingest workers that are killed, the whole chain through: what they were handed comes again, to them or to others."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.model.corridor import MqttSpec
from gateway.wire.client import Client, keep_connected
from tests import servers
from tests.faults.scene import Chain, chain
from tests.faults.test_outage import LOAD, is_repaired

KILLS = 10
KILL_WITHIN_S = 0.6  # of the first new row: three batches


async def stores(at: Chain, rows: int) -> None:
    """Wait until the database has so many more rows."""
    wanted = len(await at.rows()) + rows

    async def has() -> bool:
        return len(await at.rows()) >= wanted

    await servers.until(has, 60, 0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["sqlite", "influx"])
async def test_an_ingest_that_is_killed_loses_nothing(tmp_path, show, database):
    rng = random.Random(43)
    async with chain(tmp_path, database=database) as at:
        at.gateway.start()
        with at.worker():
            await at.commits(LOAD)
            await at.caught_up()
        for _ in range(KILLS):
            with at.worker() as child:
                await stores(at, 1)
                await asyncio.sleep(rng.random() * KILL_WITHIN_S)
                child.kill()
                child.wait()
        with at.worker():
            await at.finish()
            show(await at.goal(f"ingest killed, {database}", KILLS))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_worker_that_is_killed_and_comes_back_loses_nothing(tmp_path, show):
    async with chain(tmp_path) as at:
        with at.worker("in1"):
            with at.worker("in2") as child:
                at.gateway.start()
                await at.commits(5 * LOAD)
                await at.caught_up()
                child.kill()
                child.wait()
            await at.commits(5 * LOAD)
            with at.worker("in2"):
                await at.finish()
                show(await at.goal("one of two workers killed, back after 7 s", 1))


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_worker_that_is_killed_for_good_loses_nothing(tmp_path, show):
    """The broker keeps every second message for it; the other one asks for these again, half of which it gets."""
    async with chain(tmp_path) as at:
        with at.worker("in1"):
            with at.worker("in2") as child:
                at.gateway.start()
                await at.commits(5 * LOAD)
                await at.caught_up()
                child.kill()
                child.wait()
            at.ledgers.pop()
            await at.commits(5 * LOAD)
            lost = at.gateway.committed()[1]
            await servers.until(lambda: is_repaired(at), 60)
            await servers.until(lambda: at.stored(at.ledgers[0])[1].covers(1, lost), 200, 0.1)
            await remove(at, "in2")
            await at.finish()
            show(await at.goal("one of two workers killed for good", 1))


async def remove(at: Chain, worker: str) -> None:
    """End a worker's session with the broker, as who removes it does (deploy/README.md)."""

    async def session(client: Client) -> None:
        """Nothing to say."""

    await keep_connected(MqttSpec((f"mqtt://127.0.0.1:{at.broker.port}",), None, None), worker, session)
