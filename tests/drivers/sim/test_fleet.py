"""The fleet: truth is what was served, each fault shows its effect, tests can pin, silence, cut and restore."""

import asyncio
import contextlib
import json
import struct
import time

import pytest

from drivers import profile as profiles
from drivers.encode import served_value
from drivers.link import LinkSpec
from drivers.sim.faults import KINDS, Fault, FaultScript, FaultsError, parse
from drivers.sim.fleet import Fleet, serve
from drivers.sim.frames import crc16, rtu
from drivers.sim.server import SimError
from tests.drivers.sim.build import START_NS, Client, HandClock, connect, gauge, meter, tcp
from tests.servers import until

X, N = gauge("x", 0, range=(0.0, 400.0), unit="bar"), gauge("n", 2, "uint16", scale=0.1, sentinels=(0xFFFF,))
READ = struct.pack(">BHH", 3, 0, 3)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def fault(kind, tag="", start_s=10.0, duration_s=10.0, device="m1", **parameters):
    return Fault(kind, f"a {kind}", device, tag, start_s, duration_s, None, parameters)


@pytest.fixture
async def stack():
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def bench(stack, *faults, specs=None, **settings):
    """Return a fleet whose clock is moved by hand, the clock, and a client of its first link."""
    hand = HandClock()
    specs = specs or [meter(points=[X, N])]
    fleet = await stack.enter_async_context(Fleet(specs, script=FaultScript(faults), clock=hand.clock(), **settings))
    client = await stack.enter_async_context(connect(fleet.ports[specs[0].link.name]))
    return fleet, hand, client


async def see(hand, client, *times, point=X):
    """Return what a point shows at these times."""
    out = []
    for hand.s in times:
        out.append(await client.number(point))
    return out


# --- truth ------------------------------------------------------------------------------------------------------------


async def test_the_truth_is_what_was_served_bit_for_bit(stack, tmp_path):
    specs = [
        meter(f"m{i}", profile=name, unit=1)
        for i, name in enumerate(("abb_b23", "sick_flowsic600", "victron_gx_battery"))
    ]
    path, served = tmp_path / "truth.jsonl", []
    async with Fleet(specs, truth=path) as fleet:
        for spec in specs:
            found = profiles.find(spec.profile)
            async with connect(fleet.ports[spec.link.name]) as client:
                for seq, point in enumerate((p for p in found.points if not p.is_text), 1):
                    enron = found.enron and point.type in ("uint32", "float32")
                    before = time.time_ns()
                    raw = await client.read(1, point.read_code, point.address, 1 if enron else point.n_registers)
                    served.append((spec.name, point.name, served_value(point, raw), seq, before, time.time_ns()))
    truth = lines(path)
    assert [(line["device"], line["tag"], line["value"], line["seq"]) for line in truth] == [one[:4] for one in served]
    assert all(before <= line["t_ns"] <= after for line, (*_, before, after) in zip(truth, served, strict=True))
    assert set(truth[0]) == {"t_ns", "device", "tag", "value", "seq"}


async def test_one_read_is_one_moment_and_one_seq(stack, tmp_path):
    path = tmp_path / "truth.jsonl"
    async with Fleet([meter(points=[X, N])], truth=path) as fleet, connect(next(iter(fleet.ports.values()))) as client:
        for _ in range(3):
            await client.ask(1, READ)
        await client.ask(1, struct.pack(">BHH", 3, 0, 99))  # refused: no read
    truth = lines(path)
    assert [line["seq"] for line in truth] == [1, 1, 2, 2, 3, 3]
    assert [line["tag"] for line in truth] == ["x", "n"] * 3
    assert all(len({line["t_ns"] for line in truth if line["seq"] == seq}) == 1 for seq in (1, 2, 3))


async def test_not_available_is_null_in_the_truth(stack, tmp_path):
    path = tmp_path / "truth.jsonl"
    async with Fleet([meter(points=[X, N])], truth=path) as fleet, connect(next(iter(fleet.ports.values()))) as client:
        fleet.set_value("m1", "x", None)
        fleet.set_value("m1", "n", None)
        payload = (await client.ask(1, READ))[2:]
    assert payload == bytes.fromhex("7fc00000ffff")
    assert [line["value"] for line in lines(path)] == [None, None]


async def test_the_truth_is_flushed_while_it_runs(tmp_path):
    path = tmp_path / "truth.jsonl"
    async with Fleet([meter(points=[X])], truth=path) as fleet, connect(next(iter(fleet.ports.values()))) as client:
        await client.number(X)
        assert await until(path.read_text, within_s=3)


async def test_same_seed_and_clock_serve_the_same_values(stack):
    async def run(seed):
        async with contextlib.AsyncExitStack() as inner:
            _, hand, client = await bench(inner, specs=[meter(profile="eastron_sdm120")], seed=seed)
            out = []
            for hand.s in (0.0, 1.5, 300.0):
                out.append(await client.read(1, 4, 0, 2))
            return out

    assert await run(5) == await run(5)
    assert await run(5) != await run(6)


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_freeze_repeats_the_last_registers_exactly_then_lets_go(stack):
    _, hand, client = await bench(stack, fault("freeze", "x"))
    before, first, later, after = await see(hand, client, 9.0, 10.0, 19.9, 20.0)
    assert before == first == later
    assert after != before


@pytest.mark.parametrize(
    ("kind", "parameters", "wanted"),
    [("step", {"size": 50.0}, lambda healthy, shown: shown == pytest.approx(healthy + 50.0, rel=1e-6)),
     ("spike", {"factor": 3.0}, lambda healthy, shown: shown == pytest.approx(3 * healthy, rel=1e-6)),
     ("drift", {"per_s": 10.0}, lambda healthy, shown: shown == pytest.approx(healthy + 50.0, rel=1e-6)),
     ("stuck_high", {}, lambda healthy, shown: shown == 400.0),
     ("stuck_low", {}, lambda healthy, shown: shown == 0.0),
     ("limit", {"value": 300.0}, lambda healthy, shown: 300.0 < shown < 310.0),
     ("noise", {"sd": 5.0}, lambda healthy, shown: shown != healthy),
     ("nan", {}, lambda healthy, shown: shown is None)],
)  # fmt: skip
async def test_a_value_anomaly_changes_its_tag_and_no_other(stack, kind, parameters, wanted):
    _, hand, client = await bench(stack, fault(kind, "x", **parameters))
    healthy = await bench(stack)
    times = (9.0, 15.0, 21.0)
    sick, well = await see(hand, client, *times), await see(healthy[1], healthy[2], *times)
    assert (sick[0], sick[2]) == (well[0], well[2])
    assert wanted(well[1], sick[1])
    assert await see(hand, client, 15.5, point=N) == await see(healthy[1], healthy[2], 15.5, point=N)


async def test_nan_of_a_whole_device_takes_every_point_that_can_say_so(stack):
    _, hand, client = await bench(stack, fault("nan"), specs=[meter(points=[X, N, gauge("k", 3, "uint16")])])
    hand.s = 15.0
    assert (await client.read(1, 3, 0, 3)) == bytes.fromhex("7fc00000ffff")
    assert await client.number(gauge("k", 3, "uint16")) is not None


async def test_silent_is_no_answer_and_the_neighbour_on_the_line_answers(stack):
    link = tcp()
    specs = [meter("m1", link, 1, [X]), meter("m2", link, 2, [X])]
    _, hand, client = await bench(stack, fault("silent"), specs=specs)
    hand.s = 12.0
    client.writer.write(client.request(1, READ[:3] + b"\x00\x02") + client.request(2, READ[:3] + b"\x00\x02"))
    transaction, unit, _ = await client.answer()
    assert (transaction, unit) == (2, 2)


async def test_exception_carries_its_code(stack):
    fleet, hand, client = await bench(stack, fault("exception", code=6))
    hand.s = 12.0
    assert await client.ask(1, READ) == b"\x83\x06"
    hand.s = 20.0
    assert (await client.ask(1, READ))[0] == 3
    assert fleet.statistics()["exceptions"] == {"m1": 1}


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, about in KINDS.items() for key in about.parameters])
async def test_no_value_that_a_script_may_have_ends_the_fleet(stack, kind, key):
    number = KINDS[kind].parameters[key]
    tag = {"tag": "n"} if KINDS[kind].reach == "tag" else {}
    needed = {"value": 1} if kind == "limit" and key != "value" else {"size": 1} if key == "samples" else {}
    needed |= {"how": "late"} if kind == "hostile" else {}
    entry = {"kind": kind, "device": "m1", "start_s": 0, "duration_s": 1e9, **tag, **needed}
    for value in (number.low, number.high):
        script = parse({"fault": [{**entry, key: int(value) if number.is_whole else value}]})
        hand = HandClock()
        async with contextlib.AsyncExitStack() as inner:
            spec = meter(points=[X, N])
            fleet = await inner.enter_async_context(Fleet([spec], script=script, clock=hand.clock()))
            client = await inner.enter_async_context(connect(fleet.ports[spec.link.name]))
            hand.s = 1e8
            client.writer.write(client.request(1, READ))
            await until(lambda fleet=fleet: fleet.statistics()["requests"]["m1"] == 1)


async def test_slow_answers_late(stack):
    _, hand, client = await bench(stack, fault("slow", delay_s=0.15))
    hand.s = 12.0
    began = time.monotonic()
    assert (await client.ask(1, READ))[0] == 3
    assert time.monotonic() - began >= 0.15


async def test_garbage_is_no_answer_and_not_in_the_truth(stack, tmp_path):
    path = tmp_path / "truth.jsonl"
    _, hand, client = await bench(stack, fault("garbage"), truth=path)
    hand.s = 12.0
    client.writer.write(client.request(1, READ))
    async with asyncio.timeout(2):
        got = await client.reader.readexactly(12)
    assert got != client.request(1, READ)
    await stack.aclose()
    assert [line for line in lines(path) if "t_ns" in line] == []


async def test_garbage_on_rtu_breaks_the_checksum(stack):
    spec = meter("m1", tcp(transport="rtu+tcp"), 1, [X])
    _, hand, client = await bench(stack, fault("garbage"), specs=[spec])
    hand.s = 12.0
    for length in (9, 12):  # a whole frame with a wrong checksum, then random bytes
        client.writer.write(rtu(1, READ[:3] + b"\x00\x02"))
        async with asyncio.timeout(2):
            assert crc16(await client.reader.readexactly(length)) != 0


async def test_cut_drops_the_connection_at_a_request_and_can_be_dialled_again(stack):
    fleet, hand, client = await bench(stack, fault("cut"))
    port = next(iter(fleet.ports.values()))
    hand.s = 12.0
    client.writer.write(client.request(1, READ))
    assert await _is_closed(client)
    async with connect(port) as again:
        again.writer.write(again.request(1, READ))
        assert await _is_closed(again)
    hand.s = 20.0
    async with connect(port) as later:
        assert (await later.ask(1, READ))[0] == 3


async def test_refuse_closes_the_port_and_opens_the_same_one_again(stack):
    spec = meter(points=[X, N])
    script = FaultScript((fault("refuse", start_s=0.1, duration_s=0.3),))
    fleet = await stack.enter_async_context(Fleet([spec], script=script))
    port = fleet.ports[spec.link.name]
    client = await stack.enter_async_context(connect(port))
    assert await _is_closed(client)
    assert await _until(port, opens=False)
    assert await _until(port, opens=True)
    assert fleet.ports[spec.link.name] == port
    assert [one.kind for one in fleet.anomalies()] == ["refuse"]


async def _is_closed(client: Client) -> bool:
    async with asyncio.timeout(3):
        try:
            return await client.reader.read(1) == b""
        except ConnectionError:
            return True


async def _until(port: int, *, opens: bool) -> bool:
    async with asyncio.timeout(3):
        while True:
            try:
                async with connect(port) as client:
                    client.writer.write(client.request(1, READ))
                    if opens and await client.reader.read(1):
                        return True
            except OSError:
                if not opens:
                    return True
            await asyncio.sleep(0.01)


async def test_anomalies_are_logged_when_they_end_with_their_own_times(stack, tmp_path):
    path = tmp_path / "truth.jsonl"
    fleet, hand, client = await bench(
        stack, fault("freeze", "x"), fault("silent", start_s=30.0, duration_s=5.0), truth=path
    )
    await see(hand, client, 9.0, 12.0)
    assert fleet.anomalies() == []
    await see(hand, client, 20.5)
    assert [(one.kind, one.tag, one.start_ns, one.end_ns) for one in fleet.anomalies()] == [
        ("freeze", "x", START_NS + 10 * 10**9, START_NS + 20 * 10**9)
    ]
    hand.s = 33.0
    with pytest.raises(TimeoutError):
        await client.ask(1, READ, 0.05)
    await stack.aclose()
    faults = [line for line in lines(path) if "kind" in line]
    assert [(line["kind"], line["end_ns"] - START_NS) for line in faults] == [
        ("freeze", 20 * 10**9), ("silent", 33 * 10**9)
    ]  # fmt: skip
    assert set(faults[0]) == {"kind", "name", "device", "tag", "start_ns", "end_ns"}


async def test_a_repeated_fault_is_logged_each_time(stack):
    every = Fault("freeze", "f", "m1", "x", 10.0, 5.0, 20.0)
    fleet, hand, client = await bench(stack, every)
    await see(hand, client, *(float(t) for t in range(60)))
    assert [(one.start_ns - START_NS) // 10**9 for one in fleet.anomalies()] == [10, 30, 50]


# --- what tests and benches do ----------------------------------------------------------------------------------------


async def test_a_pinned_value_is_served_as_the_wire_carries_it_until_it_is_cleared(stack):
    fleet, hand, client = await bench(stack, fault("step", "n", size=50.0))
    fleet.set_value("m1", "n", 241.68)
    assert await see(hand, client, 0.0, 15.0, point=N) == [241.7, 241.7]
    fleet.clear_value("m1", "n")
    assert await see(hand, client, 16.0, point=N) != [241.7]
    with pytest.raises(KeyError, match="no device 'm1x'; did you mean 'm1'"):
        fleet.set_value("m1x", "n", 1.0)
    with pytest.raises(KeyError, match="no tag 'q'"):
        fleet.set_value("m1", "q", 1.0)


async def test_silence_and_wake(stack):
    fleet, _, client = await bench(stack)
    fleet.silence("m1")
    with pytest.raises(TimeoutError):
        await client.ask(1, READ, 0.05)
    fleet.wake("m1")
    assert (await client.ask(1, READ))[0] == 3
    assert [(one.kind, one.device) for one in fleet.anomalies()] == [("silent", "m1")]


async def test_cut_refuses_and_restore_listens_on_the_same_port(stack):
    spec = meter(points=[X, N])
    fleet, _, client = await bench(stack, specs=[spec])
    port = fleet.ports[spec.link.name]
    await fleet.cut(spec.link.name)
    assert await _is_closed(client)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        async with connect(port):
            pass
    await fleet.restore(spec.link.name)
    async with connect(port) as again:
        assert (await again.ask(1, READ))[0] == 3
    with pytest.raises(KeyError, match="no link 'nope'"):
        await fleet.cut("nope")


async def test_shutdown_is_quick_with_clients_and_a_slow_answer_on_the_way(tmp_path):
    began = 0.0
    specs = [meter(f"m{i}", points=[X, N]) for i in range(20)]
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet(
            specs, script=FaultScript((fault("slow", start_s=0.0, duration_s=60.0, device="m0", delay_s=30.0),))
        )
        async with fleet:
            for spec in specs:
                client = await stack.enter_async_context(connect(fleet.ports[spec.link.name]))
                client.writer.write(client.request(1, READ))
            await until(lambda: sum(fleet.statistics()["requests"].values()) == len(specs))
            began = time.monotonic()
        assert time.monotonic() - began < 1.0


async def test_an_error_of_the_body_is_its_own_and_cancellation_ends_it():
    with pytest.raises(ZeroDivisionError):
        async with Fleet([meter(points=[X])]):
            raise ZeroDivisionError
    ready = asyncio.Event()
    task = asyncio.create_task(serve([meter(points=[X])], ready=lambda fleet: ready.set()))
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("transport", ["tcp", "rtu+tcp"])
async def test_a_bug_in_an_answer_ends_the_fleet(transport, monkeypatch, caplog):
    def broken(*arguments):
        raise ZeroDivisionError("bug")

    monkeypatch.setattr("drivers.sim.device.Meter.answer", broken)
    spec = meter(points=[X], link=tcp(transport=transport))

    async def ask_once():
        async with Fleet([spec]) as fleet, connect(fleet.ports[spec.link.name]) as client:
            client.writer.write(client.request(1, READ) if transport == "tcp" else rtu(1, READ))
            await asyncio.sleep(5)
            pytest.fail("the fleet went on")

    with pytest.raises(ExceptionGroup) as caught:
        await ask_once()
    assert caught.value.subgroup(ZeroDivisionError)


def test_meters_that_cannot_be_served_together_are_told_all_at_once():
    def at(name, transport="tcp", port=15020):
        return LinkSpec(name, transport, "127.0.0.1", port)

    specs = [
        meter("a", at("l1"), 1, [X]),
        meter("b", at("l1"), 1, [X]),
        meter("a", at("l2"), 2, [X]),
        meter("d", at("l3", "rtu+tcp"), 3, [X]),
        meter("e", at("l1", port=15021), 4, [X]),
    ]
    with pytest.raises(SimError) as caught:
        Fleet(specs)
    assert caught.value.lines == [
        "device 'b': unit 1 belongs to device 'a' already",
        "device 'a': name is given twice",
        "device 'd': link 'l3': 127.0.0.1:15020 speaks tcp already",
        "device 'e': link 'l1' is at 127.0.0.1:15021 here, elsewhere at another endpoint",
    ]


def test_a_script_that_does_not_fit_is_refused():
    with pytest.raises(FaultsError, match="no device 'zz'"):
        Fleet([meter(points=[X])], script=FaultScript((fault("silent", device="zz"),)))


async def test_two_links_to_one_endpoint_share_it(stack):
    hand = HandClock()
    async with Fleet([meter("p", points=[X])]) as probe:
        port = next(iter(probe.ports.values()))
    links = [LinkSpec(name, "tcp", "127.0.0.1", port) for name in ("gw1", "gw2")]
    specs = [meter("a", links[0], 1, [X]), meter("b", links[1], 2, [X])]
    fleet = await stack.enter_async_context(Fleet(specs, clock=hand.clock()))
    assert fleet.ports == {"gw1": port, "gw2": port}
    client = await stack.enter_async_context(connect(port))
    assert await client.number(X, 1) != await client.number(X, 2)
