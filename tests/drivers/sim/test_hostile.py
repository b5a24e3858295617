"""Ways to go wrong: what each puts on the wire, when, and that a script names them rightly."""

import asyncio
import contextlib
import os
import random
import struct

import pytest

from drivers.link import LinkSpec
from drivers.sim.faults import FaultScript, FaultsError, parse
from drivers.sim.fleet import Fleet
from drivers.sim.frames import MBAP, crc16, mbap, rtu
from drivers.sim.hostile import HOWS, Exchange, steps, wire_of
from drivers.sim.play import MAX_PLAYS, Stage
from tests.drivers.sim.build import connect, gauge, meter, tcp
from tests.servers import until

POINTS = [gauge(f"x{i}", i, "uint16") for i in range(4)]
ONE, TWO = (struct.pack(">BHH", 3, start, 2) for start in (0, 2))
FOR_ONE, FOR_TWO = (b"\x03\x04" + struct.pack(">HH", *values) for values in ((100, 101), (102, 103)))
ROWS = [(how, wire) for how, about in HOWS.items() for wire in about.wires]


def exchange(wire="tcp", **more):
    before = Exchange(wire, 6, 1, TWO, FOR_TWO)
    asked = {"delay_s": 0.01, "left_s": 0.05, "n": 1, "before": before, "random": random.Random(3), **more}
    return Exchange(wire, 0x0A07, 1, ONE, FOR_ONE, **asked)


def script(how, **more):
    entry = {"kind": "hostile", "device": "m1", "start_s": 0.0, "duration_s": 60.0, "how": how, **more}
    return parse({"fault": [entry]})


@contextlib.asynccontextmanager
async def bench(how, transport="tcp", **more):
    """A meter that goes wrong from the start, and a client of it."""
    spec = meter(points=POINTS, link=tcp(transport=transport))
    async with Fleet([spec], script=script(how, **more)) as fleet:
        for i, point in enumerate(POINTS):
            fleet.set_value("m1", point.name, 100 + i)
        async with connect(fleet.ports[spec.link.name]) as client:
            yield fleet, client


async def got(client, n):
    async with asyncio.timeout(2):
        return await client.reader.readexactly(n)


@pytest.mark.parametrize(("how", "wire"), ROWS)
def test_a_way_is_a_function_of_its_exchange_and_ends(how, wire):
    first, again = (list(steps(how, exchange(wire))) for _ in range(2))
    assert first == again
    assert len(first) <= 60
    assert all(step.after_s >= 0 for step in first)
    shapes = [FOR_ONE, b"\x83\x02", b"\x01\x01\x05"]
    for answer in shapes:
        for asked in (exchange(wire, before=None, n=0), exchange(wire)):
            for step in steps(how, Exchange(**{**fields(asked), "answer": answer})):
                assert len(step.data) < 1000


def fields(one):
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


@pytest.mark.parametrize(("how", "wire"), [row for row in ROWS if row[0] not in ("never", "crosstalk")])
def test_a_way_is_not_a_plain_right_answer(how, wire):
    """It takes what it feeds on: bytes that a converter eats, an odd turn."""
    answer = b"\x03\x04\x11\x0a\xff\x93"
    (first, *more) = (*steps(how, Exchange(wire, 7, 1, ONE, answer, 0.01, 0.05, 1, exchange(wire))), None)
    assert more != [None] or first.data != exchange_frame(wire, answer) or first.after_s or first.end or first.waits


def exchange_frame(wire, pdu):
    return mbap(7, 1, pdu) if wire == "tcp" else rtu(1, pdu)


@pytest.mark.parametrize(("how", "wire"), [row for row in ROWS if row[0].startswith("flip_")])
def test_a_flip_is_one_bit_of_the_field_that_it_names(how, wire):
    spans = {"id": (0, 2), "protocol": (2, 4), "length": (4, 6), "unit": (6, 7), "function": (7, 8), "count": (8, 9)}
    n = len(exchange(wire).right)
    low, high = {**spans, "payload": (9, n)}[how[5:]] if wire == "tcp" else _rtu_span(how[5:], n)
    for seed in range(40):
        one = exchange(wire, random=random.Random(seed))
        (step,) = steps(how, one)
        wrong = [i for i, (a, b) in enumerate(zip(step.data, one.right, strict=True)) if a != b]
        assert len(wrong) == 1
        assert low <= wrong[0] < high
        assert (step.data[wrong[0]] ^ one.right[wrong[0]]).bit_count() == 1


def _rtu_span(what, n):
    return {"unit": (0, 1), "function": (1, 2), "count": (2, 3), "payload": (3, n - 2), "crc": (n - 2, n)}[what]


def test_untold_answers_carry_every_proof():
    (step,) = steps("crosstalk", exchange())
    assert (step.data[: MBAP.size + 2], step.data[9:]) == (exchange().right[: MBAP.size + 2], exchange().other[2:])
    (step,) = steps("crosstalk", exchange("rtu"))
    assert crc16(step.data) == 0
    assert wire_of("tls") == "tcp"


async def test_a_late_answer_arrives_while_later_requests_are_answered():
    async with bench("late", delay_s=0.1) as (_, client):
        client.writer.write(client.request(1, ONE))
        await asyncio.sleep(0.05)
        client.writer.write(client.request(1, TWO))
        assert [await client.answer() for _ in range(2)] == [(1, 1, FOR_ONE), (2, 1, FOR_TWO)]


async def test_what_waits_for_the_next_request_comes_before_its_answer():
    async with bench("duplicated_with_next") as (_, client):
        client.writer.write(client.request(1, ONE))
        assert await got(client, 13) == mbap(1, 1, FOR_ONE)
        client.writer.write(client.request(1, TWO))
        assert await got(client, 26) == mbap(1, 1, FOR_ONE) + mbap(2, 1, FOR_TWO)


async def test_what_comes_behind_the_next_request_may_come_after_its_answer():
    async with bench("duplicated_behind_next", delay_s=0.01) as (_, client):
        client.writer.write(client.request(1, ONE) + client.request(1, TWO))
        assert await got(client, 39) == mbap(1, 1, FOR_ONE) + mbap(2, 1, FOR_TWO) + mbap(1, 1, FOR_ONE)


async def test_shifted_answers_everything_with_what_was_asked_before():
    async with bench("shifted", "rtu+tcp") as (_, client):
        for request, answer in ((ONE, b""), (TWO, rtu(1, FOR_ONE)), (ONE, rtu(1, FOR_TWO))):
            client.writer.write(rtu(1, request))
            assert await got(client, len(answer)) == answer
            await asyncio.sleep(0.01)


async def test_the_share_of_answers_that_go_wrong():
    async with bench("stray_ff_behind", share=0.3) as (_, client):
        n_wrong = 0
        for _ in range(100):
            client.writer.write(client.request(1, ONE))
            await client.answer()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.002):
                    n_wrong += len(await client.reader.readexactly(1))
        assert 15 <= n_wrong <= 45


async def test_connections_are_closed_at_once_until_the_fault_ends():
    async with bench("close_at_accept", duration_s=0.3) as (fleet, client):
        client.writer.write(client.request(1, ONE))
        assert await client.reader.read() == b""
        (port,) = fleet.ports.values()
        async with connect(port) as refused:
            assert await refused.reader.read() == b""
        async with asyncio.timeout(3):
            while True:
                async with connect(port) as again:
                    again.writer.write(again.request(1, ONE))
                    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                        assert await again.answer() == (1, 1, FOR_ONE)
                        return


async def test_the_next_connection_gets_the_answer_of_the_last_one():
    async with bench("late_with_first_request", duration_s=1e9, share=1.0) as (fleet, client):
        client.writer.write(client.request(1, ONE))
        assert await client.reader.read() == b""
        async with connect(next(iter(fleet.ports.values()))) as again:
            again.writer.write(mbap(9, 1, TWO))
            assert await got(again, 13) == mbap(1, 1, FOR_ONE)


@pytest.mark.parametrize(("how", "error"), [("close", None), ("reset", ConnectionResetError)])
async def test_a_connection_ends_orderly_or_with_a_reset(how, error):
    async with bench(how) as (_, client):
        client.writer.write(client.request(1, ONE))
        async with asyncio.timeout(2):
            if error is None:
                assert await client.reader.read() == b""
            else:
                with pytest.raises(error):
                    await client.reader.read()


async def test_an_endless_way_ends_with_its_fault_and_does_not_pile_up():
    async with bench("garbage_forever", duration_s=0.2, delay_s=0.0) as (_, client):
        client.writer.write(client.request(1, ONE))
        async with asyncio.timeout(3):
            while (await client.reader.read(4096)) and not client.writer.is_closing():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await client.reader.readexactly(1)
                        continue
                break
        assert await client.ask(1, ONE) == FOR_ONE


async def test_an_adapter_is_unplugged_and_back_at_once(tmp_path):
    path = tmp_path / "tty0"
    spec = meter(points=POINTS, link=LinkSpec("bus0", "rtu", path=str(path)))
    async with Fleet([spec], script=script("close", duration_s=0.5)) as fleet:
        fleet.set_value("m1", "x0", 100)
        was, fd = path.readlink(), os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        os.write(fd, rtu(1, ONE))
        assert await until(lambda: path.is_symlink() and path.readlink() != was)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(fd, rtu(1, ONE))
        os.close(fd)


async def test_more_plays_than_a_connection_may_have_are_silence():
    class Wire:
        def __init__(self):
            self.n_bytes = 0

        def send(self, data):
            self.n_bytes += len(data)

        async def rest(self, seconds):
            await asyncio.sleep(0)

    wire = Wire()
    async with asyncio.TaskGroup() as tasks:
        stage = Stage("tcp", wire, tasks)
        for _ in range(MAX_PLAYS + 9):
            stage.begin(steps("late", exchange(delay_s=0.01)))
    assert wire.n_bytes == MAX_PLAYS * len(exchange().right)


ENTRY = {"kind": "hostile", "name": "h", "device": "m1", "start_s": 0, "duration_s": 1}


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [({}, "how: is missing"),
     ({"how": 3}, f"how: got 3, wanted one of the {len(HOWS)} in docs/simulation.md"),
     ({"how": "crc_wrng"},
      f"how: got 'crc_wrng', wanted one of the {len(HOWS)} in docs/simulation.md; did you mean 'crc_wrong'?"),
     ({"how": "late", "shre": 1}, "unknown key 'shre'; did you mean 'share'?"),
     ({"how": "late", "share": 2}, "share: got 2, wanted a number from 0 to 1"),
     ({"how": "late", "delay_s": -1}, "delay_s: got -1, wanted a number from 0 to 1e+09"),
     ({"how": "crc_wrong", "delay_s": 1}, "delay_s: 'crc_wrong' has no delay, wanted none"),
     ({"how": "late", "tag": "x"}, "tag: hostile happens to a whole device, wanted no tag")],
)  # fmt: skip
def test_a_wrong_key_is_told(keys, wanted):
    with pytest.raises(FaultsError) as caught:
        parse({"fault": [{**ENTRY, **keys}]}, "faults.toml")
    assert caught.value.lines == [f"faults.toml: fault 'h': {wanted}"]


def test_a_way_that_the_wire_does_not_have_is_an_error_of_the_script():
    found = parse({"fault": [{**ENTRY, "how": "crc_wrong"}]}, "faults.toml")
    link = tcp("skid")
    assert found.check([meter(points=POINTS, link=link)]) == [
        "faults.toml: fault 'h': how: 'crc_wrong' does not exist on tcp, link 'skid'; wanted a device on rtu+tcp or rtu"
    ]
    assert FaultScript(found.faults).check([meter(points=POINTS, link=tcp(transport="rtu+tcp"))]) == []


async def test_a_neighbour_on_the_same_connection_is_answered_rightly():
    link = tcp()
    specs = [meter("m1", link, 1, POINTS), meter("m2", link, 2, POINTS)]
    async with Fleet(specs, script=script("never")) as fleet:
        fleet.set_value("m2", "x0", 7)
        fleet.set_value("m2", "x1", 8)
        async with connect(fleet.ports[link.name]) as client:
            client.writer.write(client.request(1, ONE) + client.request(2, ONE))
            assert await client.answer() == (2, 2, b"\x03\x04\x00\x07\x00\x08")
