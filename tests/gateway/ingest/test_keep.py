"""Isolating poison, waiting for a store, and the batches."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.history.store import StoreAway, StoreRejected
from gateway.ingest import inbox as inboxes
from gateway.ingest import keep as module
from gateway.ingest.inbox import Delivery, Inbox
from gateway.ingest.keep import Patience, keep, wait_s


class Memory:
    """A store that takes no line with `bad` in it; partial like InfluxDB 1.x or all-or-nothing; away when told."""

    def __init__(self, partial: bool = False, away: int = 0, retry_s: float | None = None) -> None:
        self.kept: set[bytes] = set()
        self.partial, self.away, self.retry_s = partial, away, retry_s
        self.writes = 0

    async def write(self, lines: bytes) -> None:
        self.writes += 1
        if self.away:
            self.away -= 1
            raise StoreAway("not now", self.retry_s)
        good = [line for line in lines.split(b"\n") if b"bad" not in line]
        if len(good) < lines.count(b"\n") + 1:
            self.kept |= set(good) if self.partial else set()
            raise StoreRejected("never")
        self.kept |= set(good)


@given(st.sets(st.integers(0, 63), max_size=8), st.integers(0, 64), st.booleans())
def test_poison_is_isolated_and_everything_else_is_kept(bad: set[int], n: int, partial: bool) -> None:
    lines = [b"bad %d" % i if i in bad else b"good %d" % i for i in range(n)]
    store = Memory(partial)
    poison = asyncio.run(keep(store, lines, Patience("store")))  # type: ignore[arg-type]
    assert poison == [(i, "never") for i in range(n) if i in bad]
    assert store.kept == {line for line in lines if b"good" in line}
    assert store.writes <= 1 + 2 * len(bad) * 7


async def test_a_store_that_is_away_is_asked_again_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.001)
    store = Memory(away=5)
    with caplog.at_level(logging.INFO):
        assert await keep(store, [b"good"], Patience("store")) == []  # type: ignore[arg-type]
    assert store.kept == {b"good"}
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["store away", "store is back"]


async def test_a_server_that_asks_for_time_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("gateway.ingest.keep.asyncio.sleep", sleep)
    await keep(Memory(away=2, retry_s=7.0), [b"good"], Patience("store"))  # type: ignore[arg-type]
    assert all(7.0 < each < 7.5 for each in waited)
    assert len(waited) == 2


def test_waits_are_capped_and_jittered() -> None:
    assert {round(wait_s(1.0, None), 3) for _ in range(50)} - {1.0}
    assert all(0.5 <= wait_s(1.0, None) <= 1.0 for _ in range(50))
    assert wait_s(5.0, 1e9) <= module.RETRY_AFTER_CAP_S + 5.0


def delivery(n: int) -> Delivery:
    nothing: Any = None
    return Delivery(nothing, nothing, "topic", bytes(n))


async def test_a_batch_is_what_came_until_it_is_quiet() -> None:
    inbox = Inbox()
    taking = asyncio.create_task(inbox.take())
    for _ in range(10):
        inbox.put(delivery(10))
        await asyncio.sleep(0)
    assert len(await taking) == 10
    assert inbox.statistics() == {"messages": 0, "bytes": 0, "peak_bytes": 100}


async def test_a_batch_is_bounded_and_a_large_message_is_one() -> None:
    inbox = Inbox()
    for n in (600_000, 600_000, 5_000_000, 10):
        inbox.put(delivery(n))
    assert [[len(each.payload) for each in await inbox.take()] for _ in range(3)] == [
        [600_000, 600_000],
        [5_000_000],
        [10],
    ]


async def test_a_steady_stream_is_cut_after_the_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "LINGER_S", 0.05)
    inbox = Inbox()

    async def stream() -> None:
        while True:
            inbox.put(delivery(1))
            await asyncio.sleep(0.001)

    streaming = asyncio.create_task(stream())
    batch = await asyncio.wait_for(inbox.take(), 5)
    streaming.cancel()
    assert len(batch) > 1


async def test_what_a_lost_connection_brought_is_forgotten() -> None:
    inbox = Inbox()
    inbox.put(delivery(inboxes.MAX_BYTES + 1))
    assert inbox.is_full
    inbox.clear()
    assert inbox.statistics() | {"peak_bytes": 0} == {"messages": 0, "bytes": 0, "peak_bytes": 0}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inbox.take(), 0.05)
