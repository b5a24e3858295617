"""The Modbus link against real peers: answers are proved, refusals are data, lost connections are found at once."""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import pytest

from drivers import quality
from drivers.blocks import Block
from drivers.errors import IllegalAddress, IllegalFunction, LinkDown, NoAnswer, WrongAnswer
from drivers.link import LinkSpec
from drivers.modbus import open_link
from drivers.modbus.framing import request_pdu
from drivers.modbus.link import TELL_LINES


@contextlib.asynccontextmanager
async def server(answer):
    """A raw Modbus TCP server: answer(tid, unit, pdu) -> bytes to send, or None for silence."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readexactly(7)
                pdu = await reader.readexactly(int.from_bytes(head[4:6], "big") - 1)
                reply = answer(int.from_bytes(head[:2], "big"), head[6], pdu)
                if reply is not None:
                    writer.write(reply)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield port, connections
    finally:
        listener.close()
        for writer in connections:
            writer.close()


def frame(tid, unit, pdu):
    return tid.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes([unit]) + pdu


def registers(pdu, values=None):
    count = int.from_bytes(pdu[3:5], "big")
    values = values or range(count)
    return bytes([pdu[0], 2 * count]) + b"".join(v.to_bytes(2, "big") for v in values)


def link(port, **settings):
    return open_link(LinkSpec("skid", "tcp", "127.0.0.1", port, **{"timeout_s": 0.3, **settings}))


async def test_a_right_answer_becomes_its_payload():
    async with server(lambda tid, unit, pdu: frame(tid, unit, registers(pdu))) as (port, _):
        one = link(port)
        assert await one.read(1, Block(3, 0, 3)) == bytes.fromhex("000000010002")
        assert one.state == "up"
        assert (one.counters.requests, one.counters.answers, one.counters.dials) == (1, 1, 1)
        await one.close()


async def test_a_meter_that_hangs_up_after_every_answer_is_no_news_and_one_that_is_gone_is(caplog):
    caplog.set_level(logging.INFO, "drivers.modbus.link")
    async with server(lambda tid, unit, pdu: frame(tid, unit, registers(pdu))) as (port, connections):
        one = link(port)
        for _ in range(3):
            await one.read(1, Block(3, 0, 3))
            connections.pop().close()
            async with asyncio.timeout(2):
                while one.state == "up":
                    await asyncio.sleep(0.01)
            await asyncio.sleep(1.0)  # until it may be dialled again
    assert [record.args[1] for record in caplog.records] == ["up"]
    with pytest.raises(LinkDown):
        await one.read(1, Block(3, 0, 3))
    assert [record.args[1] for record in caplog.records] == ["up", "down"]
    await one.close()


async def test_connections_that_were_lost_leave_nothing_behind_in_the_ring():
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    one = link(listener.sockets[0].getsockname()[1])
    for _ in range(3):
        with contextlib.suppress(LinkDown):
            await one.read(1, Block(3, 0, 3))
    ended = [what for _, kind, what in one.ring if kind == "end"]
    assert len(ended) == 3
    assert [error.__traceback__ for error in ended[:-1]] == [None, None]
    assert [error.__context__ for error in ended[:-1]] == [None, None]
    await one.close()
    listener.close()


async def test_a_port_that_closes_at_once_is_told_once(caplog):
    caplog.set_level(logging.INFO, "drivers.modbus.link")
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    one = link(listener.sockets[0].getsockname()[1])
    for _ in range(2):
        with pytest.raises(LinkDown):
            await one.read(1, Block(3, 0, 3))
        await asyncio.sleep(0.9)
    assert [record.args[1] for record in caplog.records] == ["down"]
    assert one.counters.dials == 2
    await one.close()
    listener.close()


WRONG = {
    "other unit": lambda tid, unit, pdu: frame(tid, unit + 1, registers(pdu)),
    "other function": lambda tid, unit, pdu: frame(tid, unit, bytes([4]) + registers(pdu)[1:]),
    "byte count of another read": lambda tid, unit, pdu: frame(tid, unit, bytes([3, 4, 0, 1, 0, 2])),
    "byte count beyond the bytes": lambda tid, unit, pdu: frame(tid, unit, bytes([3, 6, 0, 1])),
    "bytes beyond the byte count": lambda tid, unit, pdu: frame(tid, unit, registers(pdu) + b"\0\1"),
    "exception to another function": lambda tid, unit, pdu: frame(tid, unit, bytes([0x84, 2])),
    "no transaction": lambda tid, unit, pdu: frame(0, unit, registers(pdu)),
    "other protocol": lambda tid, unit, pdu: (
        frame(tid, unit, registers(pdu))[:2] + b"\0\1" + frame(tid, unit, registers(pdu))[4:]
    ),
    "length of nothing": lambda tid, unit, pdu: tid.to_bytes(2, "big") + b"\0\0\0\1" + bytes([unit]),
    "absurd length": lambda tid, unit, pdu: tid.to_bytes(2, "big") + b"\0\0\x10\x0a" + bytes([unit]) + registers(pdu),
    "other transaction": lambda tid, unit, pdu: frame(tid ^ 0x5555, unit, registers(pdu)),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_an_answer_that_is_not_ours_never_becomes_a_value(kind):
    async with server(WRONG[kind]) as (port, _):
        one = link(port)
        with pytest.raises((WrongAnswer, NoAnswer)) as caught:
            await one.read(1, Block(3, 0, 3))
        assert quality.is_bad(caught.value.quality)
        assert one.counters.answers == 0
        await one.close()


@pytest.mark.parametrize(
    ("code", "error", "wanted"),
    [(1, IllegalFunction, quality.BAD_NOT_SUPPORTED), (2, IllegalAddress, quality.BAD_CONFIGURATION_ERROR)],
)
async def test_an_exception_of_the_device_is_told_with_its_quality(code, error, wanted):
    async with server(lambda tid, unit, pdu: frame(tid, unit, bytes([pdu[0] | 0x80, code]))) as (port, _):
        one = link(port)
        with pytest.raises(error) as caught:
            await one.read(1, Block(3, 0, 3))
        assert caught.value.quality == wanted
        assert one.counters.exceptions == {code: 1}
        assert one.state == "up"
        await one.close()


async def test_silence_is_a_timeout_and_the_late_answer_is_not_the_next_ones():
    held = []

    def late(tid, unit, pdu):
        if not held:
            held.append(frame(tid, unit, registers(pdu, [7, 7, 7])))
            return None
        return held[0] + frame(tid, unit, registers(pdu, [1, 2, 3]))

    async with server(late) as (port, _):
        one = link(port)
        with pytest.raises(NoAnswer):
            await one.read(1, Block(3, 0, 3))
        with contextlib.suppress(WrongAnswer):
            assert await one.read(1, Block(3, 0, 3)) == bytes.fromhex("000100020003")
        assert one.counters.timeouts == 1
        await one.close()


async def test_a_connection_that_goes_fails_the_read_at_once():
    cut = {}

    def hang_up(tid, unit, pdu):
        cut["now"]()
        return

    async with server(hang_up) as (port, connections):
        cut["now"] = lambda: connections[0].close()
        one = link(port, timeout_s=30.0)
        began = time.monotonic()
        with pytest.raises(LinkDown):
            await one.read(1, Block(3, 0, 3))
        assert time.monotonic() - began < 10
        assert one.state == "down"


async def test_an_endpoint_that_refuses_is_dialled_at_most_once_a_second():
    one = link(1)
    for _ in range(50):
        with pytest.raises(LinkDown):
            await one.read(1, Block(3, 0, 3))
    assert one.counters.dials == 1


@pytest.mark.parametrize(
    "spec",
    [
        LinkSpec("skid", "tcp", "10.0.0..5", 502, timeout_s=0.3),
        LinkSpec("skid", "tls", "127.0.0.1", 802, timeout_s=0.3, ca_file=Path("/")),
        LinkSpec("skid", "tls", "127.0.0.1", 802, timeout_s=0.3, cert_file=Path(__file__), key_file=Path(__file__)),
    ],
    ids=["a host that is none", "a folder as certificate", "a certificate that is none"],
)
async def test_what_cannot_be_dialled_is_a_link_that_is_down(spec):
    one = open_link(spec)
    with pytest.raises(LinkDown):
        await one.read(1, Block(3, 0, 1))
    assert one.state == "down"


async def test_one_connection_and_one_request_at_a_time():
    waiting = []

    def answer(tid, unit, pdu):
        waiting.append(tid)
        return frame(tid, unit, registers(pdu))

    async with server(answer) as (port, connections):
        one = link(port)
        await asyncio.gather(*(one.read(1, Block(3, 0, n)) for n in range(1, 20)))
        assert len(connections) == 1
        assert len(waiting) == 19
        await one.close()


async def test_a_cancellation_in_the_turn_of_the_answer_is_heeded():
    async with server(lambda tid, unit, pdu: frame(tid, unit, registers(pdu))) as (port, _):
        one = link(port)
        await one.read(1, Block(3, 0, 3))

        async def poll():
            while True:
                await one.read(1, Block(3, 0, 3))

        for _ in range(20):
            polling = asyncio.ensure_future(poll())
            await asyncio.sleep(0)
            one._waiter.add_done_callback(lambda _, task=polling: task.cancel())
            with pytest.raises(asyncio.CancelledError):
                await polling
        await one.close()


async def test_no_fence_touches_registers_with_side_effects():
    one = open_link(LinkSpec("bus", "rtu+tcp", "127.0.0.1", 1))
    for function in (3, 4):
        once = Block(function, 10, 2, is_once=True)
        assert one._fence_for(1, once, [(function, 4)]).function in (1, 2)


def test_only_read_functions_exist():
    assert {request_pdu(1, Block(code, 0, 1))[1] for code in (1, 2, 3, 4)} == {1, 2, 3, 4}
    for code in (5, 6, 15, 16, 22, 23):
        with pytest.raises(ValueError, match="does not read"):
            request_pdu(1, Block(code, 0, 1))


async def test_a_link_that_flaps_is_told_a_few_times_and_in_the_end_as_it_is(caplog):
    answers = [True]

    def sometimes(tid, unit, pdu):
        return frame(tid, unit, registers(pdu)) if answers[0] else b"\0" * 12

    caplog.set_level("INFO")
    async with server(sometimes) as (port, connections):
        one = link(port, timeout_s=5.0)
        for _ in range(12):
            one._next_dial_s = 0.0
            await one.read(1, Block(3, 0, 1))
            connections[-1].transport.abort()
            with pytest.raises(LinkDown):
                await one.read(1, Block(3, 0, 1))
        assert len([r for r in caplog.records if "link 'skid'" in r.message]) == TELL_LINES
        one._told_s.clear()  # a minute later
        one._next_dial_s = 0.0
        await one.read(1, Block(3, 0, 1))
        assert one.state == one._told == "up"
        await one.close()
