"""A broker that answers nothing is found within 1.5 keepalives; a thin or late link is never taken for one."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.sim.proxy import Proxy
from gateway.model.corridor import MqttSpec
from gateway.wire import client as wire
from gateway.wire.client import Client, keep_connected
from gateway.wire.watchdog import LOOK, Traffic, Watchdog
from tests import certificates, servers
from tests.servers import until

KEEPALIVE_S = 2  # of the tests
BOUND = 1.5  # keepalives
RESERVE_S = 1.0  # of a busy machine


@dataclass
class Line:
    """A connection in virtual time: answers pings after `latency_s` until it is frozen; bytes leave at a rate."""

    keepalive_s: float = 10.0
    latency_s: float = 0.0
    frozen_s: float = float("inf")
    bytes_per_s: float = float("inf")
    heard_s: float = 0.0
    acked: float = 0.0
    waiting: float = 0.0
    answers: deque[float] = field(default_factory=deque)

    def run(self, until_s: float, writes: Callable[[float], int] = lambda _: 0, late_s: float = 0.0) -> float | None:
        """Return when the broker is given up, or None."""
        watchdog = Watchdog(self.keepalive_s, 0.0, self.traffic())
        now_s = 0.0
        while now_s < until_s:
            step_s = LOOK * self.keepalive_s + late_s
            left = min(self.waiting, self.bytes_per_s * step_s)
            now_s += step_s
            self.acked, self.waiting = self.acked + left, self.waiting - left + writes(now_s)
            while self.answers and self.answers[0] <= now_s and not self.waiting:
                self.answers.popleft()
                self.heard_s = now_s
            watchdog.look(now_s, self.heard_s, self.traffic(), is_reading=False)
            if watchdog.is_silent:
                return now_s
            if watchdog.asks(float("inf")):
                self.waiting += 2
                if now_s + self.latency_s / 2 < self.frozen_s:
                    self.answers.append(now_s + self.latency_s)
        return None

    def traffic(self) -> Traffic:
        return Traffic(round(self.acked), round(self.waiting), 0)


@pytest.mark.parametrize("phase", range(20))
def test_a_frozen_broker_is_found_within_the_bound_whenever_it_freezes(phase: int) -> None:
    frozen_s = 40 + phase * 0.37
    found_s = Line(frozen_s=frozen_s).run(200)
    assert found_s is not None
    assert 5 < found_s - frozen_s < 14.01 + 0.5


@pytest.mark.parametrize("latency_s", [0.0, 0.6, 2.0, 5.0, 6.5])
def test_seconds_of_latency_are_no_silence(latency_s: float) -> None:
    assert Line(latency_s=latency_s).run(1000) is None


def test_small_messages_on_their_way_are_no_sign_of_life() -> None:
    """By satellite some bytes are always unanswered, also those that the kernel of a frozen broker takes."""
    found_s = Line(frozen_s=40.0).run(200, lambda _: 700)
    assert found_s is not None
    assert found_s - 40.0 < 15


def test_what_we_did_not_listen_to_was_no_silence() -> None:
    assert Line().run(1000, late_s=19.0) is None


def test_a_large_message_on_a_thin_link_is_no_silence_and_a_window_that_stays_full_is() -> None:
    begun = []

    def writes(now_s: float) -> int:
        if now_s > 30 and not begun:
            begun.append(now_s)
            return 131_072
        return 0

    assert Line(bytes_per_s=2000).run(300, writes) is None
    begun.clear()
    found_s = Line(bytes_per_s=0.0, frozen_s=30.0).run(300, writes)
    assert found_s is not None
    assert found_s - 30 < 15


def test_part_of_a_record_that_cannot_be_read_yet_is_a_sign_of_life_and_keeps_the_link_busy() -> None:
    watchdog = Watchdog(10.0, 0.0, Traffic(0, 0, 0))
    for i in range(1, 30):
        watchdog.look(i, 0.0, Traffic(0, 0, 500 * i), is_reading=False)
        assert (watchdog.silent_s, watchdog.busy_s) == (0, i)
    watchdog.look(30, 29.9, Traffic(0, 0, 16_000), is_reading=False)
    assert watchdog.busy_s == 29  # what came could be read


def test_a_broker_that_wants_to_hear_from_us_more_often_does() -> None:
    watchdog, asked = Watchdog(10.0, 0.0, Traffic(0, 0, 0)), []
    for i in range(1, 13):
        watchdog.look(i, i, Traffic(0, 0, i), is_reading=False)
        if watchdog.asks(4):
            asked.append(i)
    assert asked == [2, 4, 6, 8, 10, 12]


@contextlib.asynccontextmanager
async def broker_of(scheme: str, folder: Path) -> AsyncIterator[tuple[servers.Server, int, Callable[[int], MqttSpec]]]:
    """Yield a broker, the port where it speaks this scheme, and the way to it by another port that leads there."""
    trusted = certificates.authority(folder / "ca")
    cert, key = trusted.issue("server")
    lines = [f"certfile {cert}", f"keyfile {key}"] if scheme == "mqtts" else []
    with servers.mosquitto(folder / "broker", *lines) as broker:
        async with contextlib.AsyncExitStack() as stack:
            port = broker.port
            if scheme == "ws":
                port = await stack.enter_async_context(servers.websocket(port))
            yield broker, port, lambda by: MqttSpec((f"{scheme}://127.0.0.1:{by}/mqtt",), None, None, trusted.ca)


@contextlib.asynccontextmanager
async def fault(how: str, folder: Path) -> AsyncIterator[tuple[MqttSpec, Callable[[], None], Callable[[], None]]]:
    """Yield the way to a broker, what makes it answer nothing, and what makes it answer again."""
    if how in ("swallow", "hold"):
        async with broker_of("mqtt", folder) as (_, port, spec), Proxy("127.0.0.1", port) as proxy:
            yield spec(proxy.port), lambda: proxy.half_open(swallow=how == "swallow"), proxy.heal
    else:
        async with broker_of(how, folder) as (broker, port, spec):
            yield spec(port), broker.freeze, broker.thaw


@dataclass
class Gateway:
    """Sends numbers for ever, again those that were not acknowledged when a connection ended."""

    unacknowledged: set[int] = field(default_factory=set)
    n: int = 0
    stopped: bool = False

    async def session(self, client: Client) -> None:
        for i in sorted(self.unacknowledged):
            self.send(client, i)
        while not self.stopped:
            self.unacknowledged.add(self.n)
            self.send(client, self.n)
            self.n += 1
            await asyncio.sleep(0.02)
        await client.lost()

    def send(self, client: Client, i: int) -> None:
        client.send("data", b"%d" % i, lambda _: self.unacknowledged.discard(i))


@dataclass
class Told:
    """What one connection was told, with times."""

    states: list[tuple[float, bool, str]] = field(default_factory=list)

    def __call__(self, up: bool, what: str) -> None:
        self.states.append((asyncio.get_running_loop().time(), up, what))

    @property
    def is_up(self) -> bool:
        return bool(self.states) and self.states[-1][1]


@pytest.mark.parametrize("how", ["mqtt", "mqtts", "ws", "swallow", "hold"])
async def test_a_broker_that_answers_nothing_is_left_in_time_and_nothing_is_lost(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "CONNECT_TIMEOUT_S", 1.0)  # of attempts while it answers nothing
    loop = asyncio.get_running_loop()
    gateway, received, failed_s = Gateway(), [], []

    async def receives(client: Client) -> None:
        await client.subscribe("data", qos=1)
        async for message in client.messages:
            received.append(int(bytes(message.payload)))
            client.ack(message)

    async def publishes(client: Client) -> None:
        try:
            while True:
                await client.publish("status", b"x", qos=1)
        finally:
            failed_s.append(loop.time())

    async def idles(client: Client) -> None:
        await client.lost()

    sessions: dict[str, Callable[[Client], Awaitable[None]]] = {
        "receives": receives, "sends": gateway.session, "publishes": publishes, "idles": idles,
    }  # fmt: skip
    told = {name: Told() for name in sessions}
    async with fault(how, tmp_path) as (spec, freeze, thaw), asyncio.TaskGroup() as tasks:
        running = []
        for name, session in sessions.items():
            keeps = {"clean_start": False, "session_expiry_s": 300, "manual_ack": True} if name == "receives" else {}
            connection = keep_connected(spec, name, session, on_state=told[name], keepalive_s=KEEPALIVE_S, **keeps)
            running.append(tasks.create_task(connection, name=name))
            await until(lambda name=name: told[name].is_up)
        await until(lambda: received)
        frozen_s = loop.time()
        freeze()
        await until(lambda: all(len(each.states) > 1 for each in told.values()))
        thaw()
        await until(lambda: all(each.is_up for each in told.values()))
        gateway.stopped = True
        await until(lambda: not gateway.unacknowledged and set(received) == set(range(gateway.n)))
        for connection in running:
            connection.cancel()
    for name, each in told.items():
        left_s, up, why = each.states[1]
        assert not up
        assert "the broker answers nothing for" in why, (name, why)
        assert left_s - frozen_s < BOUND * KEEPALIVE_S + RESERVE_S, name
    assert failed_s[0] - frozen_s < BOUND * KEEPALIVE_S + RESERVE_S


async def test_a_quiet_connection_stays(tmp_path: Path) -> None:
    """Longer than the silence that is allowed here, and than a broker waits for a word of ours."""
    told = Told()

    async def session(client: Client) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * KEEPALIVE_S):
                await client.lost()

    async with broker_of("ws", tmp_path) as (_, port, spec), asyncio.timeout(40):
        await keep_connected(spec(port), "quiet", session, on_state=told, keepalive_s=KEEPALIVE_S)
    assert [up for _, up, _ in told.states] == [True]


async def test_a_thin_link_is_not_taken_for_a_frozen_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the silence that is allowed passes while a message is on its way, and again while it comes back."""
    monkeypatch.setattr(wire, "ACK_TIMEOUT_S", 1.5)  # the proxy's window opens in steps of 6 kB, twice in this time
    told, acked = Told(), []
    payload = random.Random(1).randbytes(48_000)
    async with broker_of("mqtt", tmp_path) as (_, port, spec), Proxy("127.0.0.1", port) as proxy:
        proxy.slow(bytes_per_s=16_000, delay_s=0.2)

        async def session(client: Client) -> None:
            await client.subscribe("data", qos=1)
            client.send("data", payload, acked.append)
            await client.publish("status", b"x", qos=1)
            assert (await anext(client.messages)).payload == payload

        began_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(40):
            await keep_connected(spec(proxy.port), "thin", session, on_state=told, keepalive_s=KEEPALIVE_S)
        took_s = asyncio.get_running_loop().time() - began_s
    assert [up for _, up, _ in told.states] == [True]
    assert len(acked) == 1
    assert took_s > 2.5 * KEEPALIVE_S


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
async def test_128_kb_pass_a_link_of_2_kb_a_second(scheme: str, tmp_path: Path) -> None:
    told, acked, received = Told(), [], []
    async with broker_of(scheme, tmp_path) as (_, port, spec), Proxy("127.0.0.1", port) as proxy:

        async def session(client: Client) -> None:
            await client.subscribe("data", qos=1)
            proxy.slow(bytes_per_s=2000, delay_s=0.6)
            client.send("data", bytes(131_072), acked.append)
            await client.publish("status", b"x", qos=1)
            async for message in client.messages:
                received.append(message.payload)
                return

        async with asyncio.timeout(350):
            await keep_connected(spec(proxy.port), "thin", session, on_state=told)
    assert [up for _, up, _ in told.states] == [True]
    assert acked == [0]
    assert received == [bytes(131_072)]
