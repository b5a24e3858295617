"""Outages of broker, link and database, the whole chain through: what was committed is in the database, once."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time

import pytest

from gateway.wire.client import BACKOFF_CAP_S, KEEPALIVE_S
from tests import servers
from tests.faults.scene import Chain, chain, times_of

LOAD = 60  # frames committed before a fault, during it, and after it: a second and a half
DETECTED = r"the broker answers nothing for (\d+) s"
THIN_BYTES_PER_S = 3_000  # a third of what the gateway has to say
THICKER_BYTES_PER_S = 40_000
THIN_DELAY_S = 0.3
HALF_OPEN_S = 90.0
FLAPS = 20
KILLS = 200


async def run(at: Chain) -> None:
    """Start the gateway and let data flow all the way."""
    at.gateway.start()
    await at.commits(LOAD)
    await at.caught_up()


def is_repaired(at: Chain) -> bool:
    """Return whether a gateway was asked for something again."""
    return "command resend" in at.log()


async def refused(at: Chain) -> None:
    at.uplink.refuse()
    at.uplink.cut()
    await at.commits(LOAD)
    at.uplink.accept()


async def away(at: Chain) -> None:
    at.broker.stop()
    await at.commits(LOAD)
    at.broker.start()


async def killed(at: Chain) -> None:
    at.broker.kill()
    await at.commits(LOAD)
    at.broker.start()


async def frozen(at: Chain) -> None:
    at.broker.freeze()
    await servers.until(lambda: times_of(DETECTED, at.log()), 3 * KEEPALIVE_S)
    await at.commits(LOAD)
    at.broker.thaw()


async def thin(at: Chain) -> None:
    for proxy in (at.uplink, at.downlink):
        proxy.slow(THIN_BYTES_PER_S, THIN_DELAY_S)
    await at.commits(10 * LOAD)
    for proxy in (at.uplink, at.downlink):
        proxy.slow(THICKER_BYTES_PER_S, THIN_DELAY_S)
    await at.commits(LOAD)


async def test_a_link_that_is_cut_loses_nothing(tmp_path, show):
    async with chain(tmp_path) as at, at.ingest():
        at.gateway.start()
        await at.commits(10)
        at.uplink.refuse()
        at.uplink.cut()
        await at.commits(10)
        at.uplink.accept()
        await at.finish()
        show(await at.goal("link to the broker cut", 1))
    assert not is_repaired(at)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", [refused, away, frozen, thin], ids=lambda fault: fault.__name__)
async def test_a_broker_out_of_reach_loses_nothing(tmp_path, show, fault):
    async with chain(tmp_path) as at, at.ingest():
        await run(at)
        await fault(at)
        await at.commits(LOAD)
        await at.finish()
        show(await at.goal(f"broker {fault.__name__}", 1))
    assert not is_repaired(at)
    assert all(silent_s <= 1.5 * KEEPALIVE_S for silent_s in times_of(DETECTED, at.log()))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_broker_that_is_killed_loses_nothing(tmp_path, show):
    """What it had not written when it died comes by a resend."""
    async with chain(tmp_path, "autosave_interval 1") as at, at.ingest():
        await run(at)
        for _ in range(3):
            await killed(at)
            await at.commits(LOAD)
        await at.finish()
        show(await at.goal("broker killed", 3))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["swallow", "hold"])
@pytest.mark.parametrize("link", ["uplink", "downlink"])
async def test_a_connection_that_is_dead_and_nobody_is_told_is_replaced(tmp_path, show, link, kind):
    async with chain(tmp_path) as at, at.ingest():
        await run(at)
        proxy = getattr(at, link)
        dialled = proxy.accepted_total
        proxy.half_open(swallow=kind == "swallow")
        proxy.heal()
        await servers.until(lambda: proxy.accepted_total > dialled, 3 * KEEPALIVE_S)
        await at.commits(LOAD)
        await at.finish()
        show(await at.goal(f"{link} half open, {kind}", 1))
    assert not is_repaired(at)
    assert all(silent_s <= 1.5 * KEEPALIVE_S for silent_s in times_of(DETECTED, at.log()))
    assert len(times_of(DETECTED, at.log())) == (link == "uplink")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["swallow", "hold"])
async def test_links_half_open_for_a_minute_and_a_half_lose_nothing(tmp_path, show, kind):
    async with chain(tmp_path) as at, at.ingest():
        await run(at)
        for proxy in (at.uplink, at.downlink):
            proxy.half_open(swallow=kind == "swallow")
        await asyncio.sleep(HALF_OPEN_S)
        for proxy in (at.uplink, at.downlink):
            proxy.heal()
        await at.commits(LOAD)
        await at.finish()
        show(await at.goal(f"both links half open for 90 s, {kind}", 1))
    assert not is_repaired(at)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_link_that_flaps_under_load_loses_nothing_and_leaves_nothing_open(tmp_path, show):
    async with chain(tmp_path) as at, at.ingest():
        await run(at)
        before = at.gateway.resources()
        for proxy in (at.uplink, at.downlink):
            await proxy.flap(0.7, 0.3, FLAPS)
        await at.caught_up()
        after = at.gateway.resources()
        await at.finish()
        show(await at.goal("links flap", 2 * FLAPS))
    assert after["descriptors"] <= before["descriptors"]
    assert after["threads"] <= before["threads"] + 1  # the one that dials
    assert not is_repaired(at)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_gateway_that_is_killed_while_its_link_flaps_loses_nothing_that_it_had_committed(tmp_path, show):
    at_risk_s, rng = 0.0, random.Random(43)
    async with chain(tmp_path) as at, at.ingest():
        flapping = asyncio.create_task(at.uplink.flap(1.0, 0.5, 100_000))
        for _ in range(KILLS):
            at.gateway.start()
            await at.commits(rng.randint(1, LOAD))
            await asyncio.sleep(rng.random())  # anywhere between two commits
            killed_ns = time.time_ns()
            at.gateway.kill()
            at_risk_s = max(at_risk_s, await at.at_risk_s(killed_ns))
        flapping.cancel()
        at.uplink.heal()
        at.gateway.start()
        await at.commits(LOAD)
        await at.finish()
        show(await at.goal("gateway killed while its link flaps", KILLS, is_killed=True, at_risk_s=at_risk_s))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_first_data_come_as_soon_as_the_broker_is_dialled_again(tmp_path, show):
    """A broker that listens again is found within the back-off, and by the first dial; how soon, the table has."""
    assert BACKOFF_CAP_S < 1.0
    found = []
    async with chain(tmp_path) as at, at.ingest():
        await run(at)
        for _ in range(5):
            at.uplink.refuse()
            at.uplink.cut()
            await at.commits(5 * LOAD)  # seven seconds: the back-off is at its cap
            passed, dialled = at.uplink.to_target.passed_bytes, at.uplink.accepted_total
            stored = len(await at.rows())
            at.uplink.accept()
            began = time.monotonic()

            async def arrived(stored=stored) -> bool:
                return len(await at.rows()) > stored

            await servers.until(arrived)
            found.append(time.monotonic() - began)
            assert at.uplink.to_target.passed_bytes > passed
            assert at.uplink.accepted_total == dialled + 1
        await at.finish()
        goal = await at.goal("broker back, first data in the database", len(found))
        show(dataclasses.replace(goal, first_data_s=max(found)))
