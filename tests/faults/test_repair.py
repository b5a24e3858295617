"""A broker that forgets what it acknowledged, a subscriber that overflows, a centre that lost everything: 0 missing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable

import pytest

from gateway.ingest import repair
from tests import servers
from tests.faults.goals import Show
from tests.faults.scene import Chain, chain
from tests.faults.test_outage import is_repaired

LOAD = 40  # frames committed before a loss, and without an ingest: a second


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "GRACE_S", 0.5)


async def repaired(at: Chain, lose: Callable[[], None]) -> None:
    """Lose something while the ingest is away, and wait until everything is in the database all the same."""
    at.gateway.start()
    async with at.ingest():
        await at.commits(LOAD)
        await at.caught_up()
    await at.commits(LOAD)  # the broker takes them for the absent ingest
    lose()
    async with at.ingest():
        await at.commits(LOAD)
        await at.finish()
    assert is_repaired(at)


async def test_a_broker_that_lost_its_memory_in_the_middle_of_load_loses_nothing(tmp_path, show: Show):
    async with chain(tmp_path) as at:

        def forget() -> None:
            at.broker.kill()
            for path in (tmp_path / "mosquitto").glob("*.db*"):
                path.unlink()
            at.broker.start()

        await repaired(at, forget)
        show(await at.goal("broker killed, its memory deleted", 1))


@pytest.mark.slow
async def test_a_subscriber_that_overflows_gets_the_rest_from_the_spool(tmp_path, show: Show):
    """mosquitto drops what exceeds its queue, and has acknowledged it all the same."""
    async with chain(tmp_path, "max_queued_messages 5") as at:
        await repaired(at, lambda: None)
        show(await at.goal("queue of the broker overflows", 1))


@pytest.mark.slow
async def test_a_gateway_whose_card_was_replaced_is_complete_again_and_so_is_its_account(tmp_path):
    async with chain(tmp_path) as at, at.ingest():
        for _ in range(2):
            at.gateway.start()
            await at.commits(LOAD)
            await at.caught_up()
            await asyncio.to_thread(at.gateway.stop)
        shutil.rmtree(at.gateway.state)
        at.gateway.log.rename(tmp_path / "old_card.log")
        at.gateway.start()
        await at.commits(LOAD)
        await servers.until(lambda: set(at.stored(tmp_path / "in1")) == {1})
        await at.finish()
        (held,) = at.held()[1]
        assert list(at.stored(tmp_path / "in1")[1]) == [held]
        rows = await at.rows()
        assert all(rows.get(row) == values for row, values in at.in_spool())


@pytest.mark.slow  # a status tells every 10 s what the broker has had
async def test_an_ingest_whose_ledger_and_database_are_lost_gets_everything_that_the_spool_has(tmp_path, show: Show):
    async with chain(tmp_path) as at:

        def lose() -> None:
            shutil.rmtree(tmp_path / "in1")
            for path in tmp_path.glob("history.sqlite*"):
                path.unlink()

        await repaired(at, lose)
        show(await at.goal("ledger and database lost", 1))
