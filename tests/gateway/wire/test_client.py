"""The MQTT client against a real broker: refusals are told, a lost broker is noticed, 3.1.1 is spoken if it must."""

import asyncio
import contextlib
import gc
import logging
import socket
import threading
import time

import pytest

from drivers.sim.proxy import Proxy
from gateway.model.corridor import MqttSpec
from gateway.wire import client as client_module
from gateway.wire.client import Client, MqttError, Rejected, Will, keep_connected
from tests import servers


def spec(*ports):
    return MqttSpec(tuple(f"mqtt://127.0.0.1:{port}" for port in ports), None, None)


async def connected(port, session, **options):
    async with asyncio.timeout(20):
        await keep_connected(spec(port), "test", session, **options)


async def test_a_publish_is_answered_and_read_back(mosquitto):
    async def session(client):
        await client.subscribe("a/#", qos=1)
        await client.publish("a/b", b"1", qos=1)
        async for message in client.messages:
            assert (message.topic.value, message.payload) == ("a/b", b"1")
            return

    await connected(mosquitto.port, session)


async def test_send_calls_back_with_the_reason_code(mosquitto):
    async def session(client):
        codes = asyncio.Queue()
        for i in range(200):
            client.send("a/b", b"%d" % i, codes.put_nowait)
        found = [await codes.get() for _ in range(200)]
        assert set(found) <= {0, 16}  # success, or success with nobody listening

    await connected(mosquitto.port, session)


@pytest.mark.parametrize("takes", [1, 2, 4, 5, 10])
async def test_no_more_is_in_flight_than_the_broker_takes(takes):
    """A broker that names a receive maximum hangs up on whoever exceeds it (MQTT 5, 4.9); mosquitto forgives it."""
    unanswered, most, numbers = [], 0, []

    async def packet(reader):
        (first,) = await reader.readexactly(1)
        length = shift = 0
        while True:
            (more,) = await reader.readexactly(1)
            length |= (more & 0x7F) << shift
            shift += 7
            if more < 0x80:
                return first, await reader.readexactly(length)

    async def acknowledge(writer):
        while True:
            await asyncio.sleep(0.01)  # whoever may send more has done it by now
            writer.write(b"".join(b"\x40\x02" + number for number in unanswered))
            unanswered.clear()

    async def serve(reader, writer):
        nonlocal most
        await packet(reader)
        writer.write(bytes((0x20, 6, 0, 0, 3, 0x21, 0, takes)))  # CONNACK with the property Receive Maximum
        answers = asyncio.create_task(acknowledge(writer))
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                first, body = await packet(reader)
                if first & 0xF0 == 0x30:
                    at = 2 + int.from_bytes(body[:2], "big")
                    numbers.append(body[at : at + 2])
                    unanswered.append(body[at : at + 2])
                    most = max(most, len(unanswered))
        answers.cancel()
        writer.close()

    async def session(client):
        codes = asyncio.Queue()
        for i in range(50):
            client.send("a/b", bytes(i * 100), codes.put_nowait)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(client.publish("a/c", b"1", qos=1))
        assert [await codes.get() for _ in range(50)] == [0] * 50

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        await connected(server.sockets[0].getsockname()[1], session)
    assert most == takes
    assert len(numbers) == len(set(numbers)) == 70


async def test_a_broker_that_acknowledges_nothing_is_left(monkeypatch):
    from gateway.wire import client as module

    monkeypatch.setattr(module, "UNANSWERED_S", 0.3)
    sessions, told = [], []

    async def serve(reader, writer):
        await reader.readexactly(2)
        writer.write(bytes((0x20, 3, 0, 0, 0)))
        with contextlib.suppress(ConnectionError):
            while await reader.read(100):
                writer.write(b"\xd0\0")
        writer.close()

    async def session(client):
        sessions.append(client)
        if len(sessions) == 2:
            return
        client.send("a/b", b"1", sessions.append)
        await client.lost()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await connected(port, session, keepalive_s=1, on_state=lambda _, what: told.append(what))
    assert len(sessions) == 2
    assert told[1].endswith("no message was acknowledged for 0.3 s")


async def test_what_the_broker_would_hang_up_on_is_refused_here(tmp_path):
    sessions = []
    with servers.mosquitto(tmp_path / "broker", "max_packet_size 3000") as broker:

        async def session(client):
            sessions.append(client)
            assert len(sessions) == 1, "the broker hung up"
            with pytest.raises(Rejected) as caught:
                await client.publish("a/b", bytes(3000), qos=1)
            assert caught.value.code == 0x95
            codes = asyncio.Queue()
            client.send("a/b", bytes(3000), codes.put_nowait)
            assert await codes.get() == 0x95
            client.send("a/b", bytes(client.room("a/b")), codes.put_nowait)
            assert await codes.get() in (0, 16)

        await connected(broker.port, session)


async def test_a_refused_publish_is_told(tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite open/#\n")
    with servers.mosquitto(tmp_path / "broker", f"acl_file {acl}") as broker:

        async def session(client):
            await client.publish("open/a", b"", qos=1)
            with pytest.raises(Rejected) as caught:
                await client.publish("closed/a", b"", qos=1)
            assert caught.value.code == 0x87
            codes = asyncio.Queue()
            client.send("closed/a", b"", codes.put_nowait)
            assert await codes.get() == 0x87

        await connected(broker.port, session)


async def test_a_killed_broker_fails_what_is_in_flight_and_is_found_again(mosquitto):
    states, sessions = [], []

    async def session(client):
        sessions.append(time.monotonic())
        if len(sessions) == 2:
            return
        mosquitto.kill()
        began = time.monotonic()
        try:
            await client.publish("a", b"x", qos=1)
            await client.lost()
        finally:
            assert time.monotonic() - began < 5
            mosquitto.start()

    await connected(mosquitto.port, session, on_state=lambda up, what: states.append(up))
    assert states == [True, False, True]


async def test_an_absent_broker_is_waited_for(mosquitto):
    mosquitto.stop()
    seen = []

    def told(up, what):
        seen.append(up)
        if not up:
            mosquitto.start()

    async def session(client):
        return

    await connected(mosquitto.port, session, on_state=told)
    assert seen == [False, True]


async def test_the_next_url_is_tried(mosquitto):
    async def session(client):
        return

    async with asyncio.timeout(10):
        await keep_connected(spec(1, mosquitto.port), "test", session)


async def test_only_a_round_of_urls_is_followed_by_a_pause(mosquitto, monkeypatch):
    async def session(client):
        rounds.append(len(pauses))
        if len(rounds) < 3:
            raise MqttError("lost")

    pauses, rounds = [], []
    monkeypatch.setattr(client_module.random, "uniform", lambda low, high: pauses.append(1) or high)
    async with asyncio.timeout(10):
        await keep_connected(spec(1, 1, mosquitto.port, 1), "test", session)
    assert rounds == [0, 1, 2]


async def test_a_url_that_nothing_can_be_made_of_is_a_broker_that_is_away(mosquitto):
    async def session(client):
        return

    told = []
    urls = ("mqtt://a..b:1883", "mqtt://h:x", f"mqtt://127.0.0.1:{mosquitto.port}")
    async with asyncio.timeout(10):
        await keep_connected(MqttSpec(urls, None, None), "test", session, on_state=lambda up, _: told.append(up))
    assert told == [False, True]


async def test_a_bug_of_the_session_is_no_broker_that_is_away(mosquitto):
    async def session(client):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await connected(mosquitto.port, session)


async def test_the_last_will_is_said_when_we_vanish(mosquitto):
    async def watch(client):
        await client.subscribe("will", qos=1)
        ready.set()
        async for message in client.messages:
            assert message.payload == b"gone"
            return

    async def vanish(client):
        client._client._sock_close()
        await asyncio.sleep(3600)

    ready = asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_connected(spec(mosquitto.port), "watch", watch))
        await ready.wait()
        dying = tasks.create_task(keep_connected(spec(mosquitto.port), "dying", vanish, will=Will("will", b"gone")))
        await asyncio.sleep(0)
        while not all(t.done() for t in tasks._tasks if t is not dying):
            await asyncio.sleep(0.02)
        dying.cancel()


async def test_a_message_not_acknowledged_comes_again(mosquitto):
    async def first(client):
        await client.subscribe("q", qos=1)
        await client.publish("q", b"1", qos=1)
        async for _ in client.messages:
            return

    got = []

    async def second(client):
        async for message in client.messages:
            got.append(message.payload)
            client.ack(message)
            return

    options = {"clean_start": False, "session_expiry_s": 60, "manual_ack": True}
    await connected(mosquitto.port, first, **options)
    await connected(mosquitto.port, second, **options)
    assert got == [b"1"]


@pytest.mark.parametrize("options", [{}, {"clean_start": False, "session_expiry_s": 60, "receive_maximum": 9}])
async def test_a_broker_of_3_1_1_is_spoken_to_in_its_version(options):
    pytest.importorskip("amqtt")
    from gateway.demo.broker import _amqtt, free_port

    port = free_port()
    versions = []

    async def session(client):
        versions.append(client.is_v5)
        await client.publish("a", b"1", qos=1)

    async with _amqtt(port):
        await connected(port, session, **options)
    assert versions == [False]


async def test_a_session_that_breaks_is_a_bug_and_propagates(mosquitto):
    async def session(client):
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError):
        await connected(mosquitto.port, session)


def test_refusal_and_loss_are_errors_of_mqtt():
    assert issubclass(Rejected, MqttError)
    with contextlib.suppress(Rejected):
        raise Rejected(0x87, "not authorized")


async def test_a_broker_that_meets_an_unknown_version_with_silence_is_tried_with_3_1_1(monkeypatch, caplog):
    from gateway.wire import client as module

    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.3)
    versions = []

    async def serve(reader, writer):
        head = await reader.readexactly(2)
        body = await reader.readexactly(head[1])
        versions.append(body[6])
        if body[6] == 4:
            writer.write(b"\x20\x02\x00\x00")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def session(client):
        assert not client.is_v5

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        await connected(server.sockets[0].getsockname()[1], session)
    assert versions == [5, 4, 5, 4]
    assert caplog.text.count("speaks MQTT 3.1.1 only") == 1


async def test_a_broker_that_hangs_up_before_it_answers_is_noticed_at_once():
    calls = []

    async def serve(reader, writer):
        calls.append(asyncio.get_running_loop().time())
        await reader.readexactly(2)
        writer.close()

    async def session(client):
        raise AssertionError("nobody answered")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.TaskGroup() as tasks:
        port = server.sockets[0].getsockname()[1]
        task = tasks.create_task(keep_connected(spec(port), "test", session))
        async with asyncio.timeout(20):
            while len(calls) < 5:
                await asyncio.sleep(0.01)
        task.cancel()
    assert calls[4] - calls[0] < 4 * 4.0  # waiting for CONNACK would take 5 s each


async def test_a_broker_whose_link_resets_every_dial_is_told_of_once(mosquitto, caplog):
    """A proxy, a NAT or a load balancer takes the call for a broker that is away, and then resets it."""
    caplog.set_level(logging.INFO)
    sessions = []

    async def session(client):
        sessions.append(client)
        await client.lost()

    async with Proxy("127.0.0.1", mosquitto.port) as proxy:
        task = asyncio.create_task(keep_connected(spec(proxy.port), "test", session))
        await servers.until(lambda: sessions)
        mosquitto.stop()
        dialled = proxy.accepted_total
        await servers.until(lambda: proxy.accepted_total > dialled + 3)
        mosquitto.start()
        await servers.until(lambda: len(sessions) == 2)
        proxy.cut()
        await servers.until(lambda: len(sessions) == 3)
        task.cancel()
        await asyncio.wait({task})
    first, second = [line for line in caplog.messages if "away" in line]
    assert "the broker hung up" in first
    assert second.endswith("[Errno 104] Connection reset by peer")
    assert len(caplog.messages) == 5  # and three times that it is connected


async def test_a_broker_that_accepts_and_hangs_up_in_one_breath_is_dialled_again_and_quoted(caplog):
    """As one does that has a second client of this name: what comes with the CONNACK counts too."""

    async def serve(reader, writer):
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00" + b"\xe0\x02\x8e\x00")
        calls.append(writer)

    calls = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(keep_connected(spec(port), "test", lambda client: client.lost()))
        await servers.until(lambda: len(calls) == 3)
        task.cancel()
        await asyncio.wait({task})
        for writer in calls:
            writer.close()
    assert [line.partition("away: ")[2] for line in caplog.messages] == [
        f"mqtt://127.0.0.1:{port}: the broker hung up: Session taken over"
    ]


async def test_a_broker_behind_a_websocket_acknowledges_all_the_same(mosquitto):
    async def session(client):
        await client.subscribe("a/#", qos=1)
        codes = asyncio.Queue()
        for i in range(200):
            client.send("a/b", bytes(i * 200), codes.put_nowait)
        await client.publish("a/b", b"last", qos=1)
        assert {await codes.get() for _ in range(200)} == {0}
        sizes = [len((await anext(client.messages)).payload) for _ in range(201)]
        assert sorted(sizes) == sorted([*range(0, 40_000, 200), 4])

    async with servers.websocket(mosquitto.port) as port, asyncio.timeout(20):
        url = f"ws://127.0.0.1:{port}/mqtt"
        await keep_connected(MqttSpec((url,), None, None), "test", session)


@contextlib.asynccontextmanager
async def slow_way(port):
    """A way to a port that takes little at a time, with pauses; yields its own port."""

    async def serve(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", port, limit=2048)

        async def answer():
            while data := await there.read(4096):
                writer.write(data)

        answers = asyncio.create_task(answer())
        while data := await reader.read(8192):
            back.write(data)
            await back.drain()
            await asyncio.sleep(0.001)
        answers.cancel()
        back.close()
        writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(serve, sock=listener, limit=2048)
    async with server:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["mqtt", "ws"])
async def test_a_message_larger_than_the_socket_takes_arrives_whole(mosquitto, scheme):
    """Of a partial write through a WebSocket paho forgets the message, and mixes what is left of it into the next."""
    sessions = []

    async def session(client):
        sessions.append(client)
        assert len(sessions) == 1, "the broker hung up"
        way = client._client.socket()
        getattr(way, "_socket", way).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await client.subscribe("a/#", qos=1)
        codes = asyncio.Queue()
        payloads = [bytes([i]) * size for i, size in enumerate([50_000, 1, 30_000, 100, 3000, 60_000] * 5)]
        for payload in payloads:
            client.send("a/b", payload, codes.put_nowait)
        await client.publish("a/c", bytes(40_000), qos=1)
        assert {await codes.get() for _ in payloads} == {0}
        found = [(await anext(client.messages)).payload for _ in range(len(payloads) + 1)]
        assert sorted(found) == sorted([*payloads, bytes(40_000)])

    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(servers.websocket(mosquitto.port)) if scheme == "ws" else mosquitto.port
        port = await stack.enter_async_context(slow_way(port))
        async with asyncio.timeout(20):
            await keep_connected(MqttSpec((f"{scheme}://127.0.0.1:{port}/mqtt",), None, None), "test", session)


@contextlib.asynccontextmanager
async def frozen_broker():
    """A broker that welcomes a client and reads no more; yields its port."""

    async def serve(reader, writer):
        await reader.readexactly(2)
        writer.write(bytes((0x20, 3, 0, 0, 0)))
        writer.transport.pause_reading()
        await released.wait()
        writer.close()

    released = asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with await asyncio.start_server(serve, sock=listener):
        try:
            yield listener.getsockname()[1]
        finally:
            released.set()


@pytest.mark.parametrize("returns", [True, False])
async def test_a_broker_that_takes_nothing_more_does_not_hold_up_the_end(returns):
    """DISCONNECT has to wait behind what the socket has no room for; whoever is told to end in 2 s cannot."""
    sessions, full = [], asyncio.Event()

    async def session(client):
        sessions.append(client)
        assert len(sessions) == 1, "begun again"
        client._client.socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for _ in range(20):
            client.send("a/b", bytes(100_000), lambda code: None)
        full.set()
        if not returns:
            await asyncio.sleep(3600)

    async with frozen_broker() as port:
        ending = asyncio.create_task(keep_connected(spec(port), "test", session))
        await full.wait()
        if not returns:
            ending.cancel()
        done, _ = await asyncio.wait({ending}, timeout=4)
        assert done
        assert ending.cancelled() != returns
        assert sessions[0]._client.socket() is None


async def test_a_connection_lost_in_the_turn_that_writes_leaves_no_writer_behind(mosquitto):
    """A writer that the loop adds a turn later belongs to whoever was given the file number meanwhile, and spins."""
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    async def session(client):
        number = client._client.socket().fileno()
        client._client.publish("a", b"x")
        client._client._sock_close()
        with socket.socket() as other:
            assert other.fileno() == number
            await asyncio.sleep(0.01)
            assert not loop.remove_writer(number)

    await connected(mosquitto.port, session)
    assert not told


async def test_a_number_in_flight_is_given_to_no_other_message():
    """A broker may be slow with one answer while 65,535 others come: the number begins anew, and meets it."""
    held, numbers = [], []

    async def serve(reader, writer):
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                first, n = await reader.readexactly(2)
                body = await reader.readexactly(n)
                if first & 0xF0 == 0x30:
                    numbers.append(body[3:5])
                    if body.endswith(b"slow"):
                        held.append(body[3:5])
                    else:
                        writer.write(b"\x40\x02" + body[3:5])
        writer.close()

    async def session(client):
        told = []
        client._client._last_mid = 65_533
        client.send("a", b"slow", lambda code: told.append("slow"))
        slow = asyncio.create_task(client.publish("a", b"slow", qos=1))
        await servers.until(lambda: len(held) == 2)
        client._client._last_mid = 65_533
        await client.publish("a", b"1", qos=1)
        client.send("a", b"2", lambda code: told.append("2"))
        await servers.until(lambda: told)
        assert told == ["2"]
        assert not slow.done()
        slow.cancel()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        await connected(server.sockets[0].getsockname()[1], session)
    assert len(set(numbers)) == 4


async def test_a_broker_that_refuses_faster_than_the_thread_ends_that_connected_is_quoted(monkeypatch):
    async def serve(reader, writer):
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x87\x00")
        writer.close()

    async def session(client):
        raise AssertionError("refused")

    def connect(self):
        at_once(self)
        time.sleep(0.1)

    at_once = Client._client_connect
    monkeypatch.setattr(Client, "_client_connect", connect)
    loop, told, tripped = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: tripped.append(context["message"]))
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.TaskGroup() as tasks:
        port = server.sockets[0].getsockname()[1]
        task = tasks.create_task(keep_connected(spec(port), "test", session, on_state=lambda _, why: told.append(why)))
        await servers.until(lambda: told)
        task.cancel()
    gc.collect()
    assert "Not authorized" in told[0]
    assert not tripped


async def test_giving_up_when_the_thread_has_just_connected_leaves_nothing_to_trip_over(mosquitto, monkeypatch):
    def connect(self):
        loop.call_soon_threadsafe(give_up)
        at_once(self)
        has_connected.set()

    def give_up():
        task.cancel()
        has_connected.wait()

    async def session(client):
        raise AssertionError("given up before")

    at_once, has_connected = Client._client_connect, threading.Event()
    monkeypatch.setattr(Client, "_client_connect", connect)
    loop, tripped = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: tripped.append(context["message"]))
    task = asyncio.create_task(connected(mosquitto.port, session))
    await asyncio.wait({task})
    await asyncio.sleep(0.05)
    assert not tripped
