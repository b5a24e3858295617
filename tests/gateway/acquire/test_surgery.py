"""A refused read costs one tag, once: all else comes in the same cycle, and what was learnt outlives the process."""

import asyncio
import contextlib
import json
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drivers import quality
from drivers.errors import DeviceException, IllegalAddress, NoAnswer, device_exception
from drivers.link import LinkCounters, LinkSpec
from drivers.modbus import open_link
from drivers.points import Hole, Point
from drivers.sim.device import Meter, MeterSpec
from drivers.sim.fleet import Fleet
from gateway.acquire.memory import Learnt, Memory
from gateway.acquire.plan import plan
from gateway.acquire.poll import Poller
from gateway.acquire.report import report
from gateway.model.clock import SystemClock
from tests.gateway import build
from tests.gateway.clock import FakeClock

SECOND = 1_000_000_000
MINUTE = 60
VECTORS = Path(__file__).parents[4] / "shared" / "vectors"


def maps():
    """Return the published maps, name -> points."""
    path = VECTORS / "register_maps_dev.json"
    if not path.exists():
        pytest.skip("needs ../shared/vectors")
    widths = {1: "uint16", 2: "uint32", 4: "uint64"}
    return {
        name: [Point(f"p{i}", row["space"], row["address"], widths[row["registers"]]) for i, row in enumerate(rows)]
        for name, rows in json.loads(path.read_text())["maps"].items()
    }


def hole_of(point):
    return Hole(point.function, point.address, point.n_registers)


def device(points, **fields):
    return build.device("d", [build.tag(point) for point in points], **{"max_gap": 125, **fields})


class MeterBus:
    """A link in virtual time to one simulated meter; `faults` maps a block's start to what is raised for it."""

    state = "up"

    def __init__(self, clock, points, **fields):
        self.clock, self.faults, self.asked, self.n_refused = clock, {}, [], 0
        self.counters = LinkCounters()
        self.set(points, **fields)

    def set(self, points, **fields):
        link = LinkSpec("l", "tcp")
        self.meter = Meter(MeterSpec("m", link, 1, "", tuple(points), **{"max_gap": 125, **fields}))

    async def read(self, unit, block):
        self.asked.append(block)
        await self.clock.sleep_until(self.clock.monotonic_ns() + 1_000_000)
        if fault := self.faults.get(block.start):
            raise fault
        pdu = self.meter.answer(struct.pack(">BHH", block.function, block.start, block.count), lambda point: 1.0).pdu
        if pdu[0] & 0x80:
            self.n_refused += 1
            raise device_exception(pdu[1])
        return pdu[2:]


class Tray:
    """Takes what a poller hands on: per cycle the quality of every row, and how often it was brought."""

    def __init__(self, cycles=1):
        self.cycles, self.row, self.brought, self.wanted = [], {}, Counter(), cycles
        self.done = asyncio.Event()

    def put(self, read, payload):
        assert len(payload) == read.block.n_bytes
        for row in read.rows:
            self.row[int(row)] = 0
            self.brought[int(row)] += 1

    def fail(self, read, found):
        self.row.update((int(row), found) for row in read.rows)

    def doubtful(self, scan, now_ns):
        return np.zeros(0, np.int32)

    def finish(self, scans, since, began_ns, ended_ns):
        for scan in scans:
            self.cycles.append({row: q for row, q in self.row.items() if scan.start <= row < scan.stop})
        if len(self.cycles) >= self.wanted:
            self.done.set()


@contextlib.asynccontextmanager
async def polling(of, points=None, memory=None, **fields):
    """Poll one device once a second in virtual time; yields clock, bus, tray and its plan."""
    clock = FakeClock()
    made = plan(build.gateway([of]), memory)
    bus, tray = MeterBus(clock, [tag.point for tag in of.tags] if points is None else points, **fields), Tray()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(Poller(bus, made.devices, (), tray, clock).run(clock.monotonic_ns()))
        yield clock, bus, tray, made
        task.cancel()


def bad(cycle, made):
    """Return the names of the tags that are bad in a cycle, and that every other one is good."""
    assert set(cycle) == set(range(made.table.n))
    return {made.table.tags[row].name: q for row, q in cycle.items() if q}


async def test_one_illegal_tag_in_each_published_map_costs_that_tag_alone():
    asked = []
    for name, points in maps().items():
        for point in points:
            async with polling(device(points), holes=(hole_of(point),)) as (clock, bus, tray, made):
                await clock.advance(0.9)
                first, n_refused = len(bus.asked), bus.n_refused
                asked.append(first - len(made.devices[0].due(1).reads) + 1)
                await clock.advance(3)
            own = {p.name for p in points if hole_of(p) == hole_of(point)}
            assert [bad(cycle, made) for cycle in tray.cycles] == [
                dict.fromkeys(own, quality.BAD_CONFIGURATION_ERROR)
            ] * len(tray.cycles), (name, point)
            assert bus.n_refused == n_refused, (name, point)  # never again, and
            assert len(bus.asked) == first + 3 * len(made.devices[0].due(1).reads)  # it is not even asked
            assert made.devices[0].learnt == Learnt((hole_of(point),))
    assert max(asked) <= 2 * 6 + 1  # halves of at most 63 tags, and the refused read itself
    assert sum(asked) / len(asked) < 10.5


@pytest.mark.parametrize("name", [
    "modpoll SDM120M", "modpoll scpms6", "modpoll real_time_sampling", "modpoll tristar",
    "mbmd inepro", "mbmd sdm", "mbmd sdm72v2", "mbmd wago87930",
])  # fmt: skip
async def test_over_a_real_link_and_after_a_restart_the_first_cycle_has_no_refused_request(name, tmp_path):
    points = maps()[name]
    wrong = points[len(points) // 2]
    link = LinkSpec("bus0", "tcp", "127.0.0.1", 0, timeout_s=5.0)
    found = replace(device(points), tags=tuple(build.tag(point, period_s=0.2) for point in points))
    meter = MeterSpec("d", link, 1, "", tuple(points), max_gap=125, holes=(hole_of(wrong),))

    async def run(cycles):
        spec = build.gateway([found], links=[link])
        memory = Memory(spec, tmp_path)
        made, tray, one = plan(spec, memory), Tray(cycles), open_link(replace(link, port=fleet.ports["bus0"]))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            clock = SystemClock()
            task = tasks.create_task(Poller(one, made.devices, (), tray, clock).run(clock.monotonic_ns()))
            await tray.done.wait()
            task.cancel()
        await one.close()
        memory.commit()
        return [bad(cycle, made) for cycle in tray.cycles], one.counters.exceptions.total()

    async with Fleet([meter], seed=1) as fleet:
        first, n_refused = await run(1)
        again, n_again = await run(2)
    wanted = {wrong.name: quality.BAD_CONFIGURATION_ERROR}
    assert first == [wanted]
    assert n_refused > 0
    assert again == [wanted, wanted]
    assert n_again == 0


async def test_a_gap_that_the_meter_refuses_is_learnt_and_so_are_others_at_once():
    points = [p for start in (0, 10, 20, 30, 40, 50) for p in build.registers(3, start=start)]
    points = [replace(p, name=f"r{p.address}") for p in points]
    async with polling(device(points), max_gap=0) as (clock, bus, tray, made):
        await clock.advance(0.9)
        n = bus.n_refused
        await clock.advance(5)
    assert all(bad(cycle, made) == {} for cycle in tray.cycles)
    assert bus.n_refused == n
    assert made.devices[0].learnt.refused == tuple(Hole("holding", start + 3, 7) for start in (0, 10, 20, 30, 40))
    assert [(r.block.start, r.block.count) for r in made.devices[0].due(1).reads] == [(10 * i, 3) for i in range(6)]


@pytest.mark.parametrize("limit", [7, 40, 60, 61, 62, 63, 80])
async def test_the_largest_read_is_learnt_exactly(limit):
    points = build.registers(300)
    async with polling(device(points), max_registers=limit) as (clock, bus, tray, made):
        await clock.advance(0.9)
        n = bus.n_refused
        await clock.advance(5)
    assert all(bad(cycle, made) == {} for cycle in tray.cycles)
    assert bus.n_refused == n
    assert made.devices[0].learnt == Learnt(max_registers=limit)
    assert len(made.devices[0].due(1).reads) == -(-300 // limit)


async def test_the_largest_read_of_bits_is_learnt_apart():
    points = [Point(f"c{i}", "coil", i, "bool") for i in range(100)]
    async with polling(device(points), max_bits=32) as (clock, _bus, tray, made):
        await clock.advance(3.9)
    assert bad(tray.cycles[0], made) == {}
    assert made.devices[0].learnt == Learnt(max_bits=32)


async def test_a_border_that_must_not_be_crossed_is_learnt_where_size_cannot_be_the_reason():
    points = build.registers(60)

    class Border(MeterBus):
        async def read(self, unit, block):
            if block.start < 40 < block.end:
                await self.clock.sleep_until(self.clock.monotonic_ns() + 1_000_000)
                self.n_refused += 1
                raise IllegalAddress(2)
            return await super().read(unit, block)

    clock, made, tray = FakeClock(), plan(build.gateway([device(points)])), Tray()
    bus = Border(clock, points)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(Poller(bus, made.devices, (), tray, clock).run(clock.monotonic_ns()))
        await clock.advance(0.9)
        n = bus.n_refused
        await clock.advance(5)
        task.cancel()
    assert all(bad(cycle, made) == {} for cycle in tray.cycles)
    assert bus.n_refused == n
    assert [(r.block.start, r.block.end) for r in made.devices[0].due(1).reads][-1] == (40, 60)


async def test_several_illegal_tags_gaps_and_a_small_limit_at_once():
    points = [replace(p, name=f"r{p.address}") for s in range(0, 200, 20) for p in build.registers(9, start=s)]
    wrong = (Hole("holding", 3, 1), Hole("holding", 64, 2), Hole("holding", 188, 1))
    async with polling(device(points), holes=wrong, max_registers=30, max_gap=11) as (clock, bus, tray, made):
        await clock.advance(0.95)
        n = bus.n_refused
        await clock.advance(5)
    wanted = dict.fromkeys(("r3", "r64", "r65", "r188"), quality.BAD_CONFIGURATION_ERROR)
    assert [bad(cycle, made) for cycle in tray.cycles] == [wanted] * len(tray.cycles)
    assert bus.n_refused == n


async def test_bits_of_one_refused_register_are_blamed_together_and_asked_once():
    bits = [Point(f"b{i}", "holding", 5, "bool", bit=i) for i in range(16)]
    points = [*build.registers(3), *bits]
    async with polling(device(points), holes=(Hole("holding", 5, 1),)) as (clock, bus, tray, made):
        await clock.advance(0.9)
    assert set(bad(tray.cycles[0], made)) == {p.name for p in bits}
    assert len([block for block in bus.asked if block.start == 5]) == 1


async def test_a_part_that_answers_is_delivered_where_the_whole_value_is_refused():
    points = [*build.registers(4), Point("wide", "holding", 8, "uint32"), Point("low", "holding", 9, "uint16")]
    async with polling(device(points), holes=(Hole("holding", 8, 1),)) as (clock, bus, tray, made):
        await clock.advance(0.9)
        n = bus.n_refused
        await clock.advance(2)
    assert [set(bad(cycle, made)) for cycle in tray.cycles] == [{"wide"}] * 3
    assert bus.n_refused == n
    assert len([block for block in bus.asked if (block.start, block.end) == (8, 10)]) == 1  # known to be refused


async def test_nothing_is_learnt_from_a_device_that_answers_nothing_and_it_is_not_asked_to_death():
    points = build.registers(20)
    async with polling(device(points), points=[]) as (clock, bus, tray, made):
        await clock.advance(59.5)
        assert len(bus.asked) <= 2 * 20 + 60
        assert made.devices[0].learnt == Learnt()
        bus.set(points)  # it has started up
        await clock.advance(1)
    assert bad(tray.cycles[-1], made) == {}


@pytest.mark.parametrize("code", [1, 4, 5, 6, 8, 10, 11])
async def test_other_exceptions_divide_and_teach_nothing(code):
    points = [*build.registers(4), *[Point(f"w{i}", "input", i, "uint16") for i in range(4)]]
    of = device(points)
    async with polling(of) as (clock, bus, _tray, made):
        bus.faults = {0: device_exception(code)}
        await clock.advance(3.9)
        assert made.devices[0].learnt == Learnt()
        assert len(bus.asked) <= 8


async def test_a_refused_read_with_side_effects_is_asked_once_an_interval_and_teaches_nothing():
    once = Point("average", "input", 2, "uint16")
    points = [*(Point(f"p{i}", "input", i, "uint16") for i in (0, 1, 3)), once]
    async with polling(device(points, side_effects=(once,)), holes=(hole_of(once),)) as (clock, bus, tray, made):
        await clock.advance(9.5)
    assert Counter(block.start for block in bus.asked if block.start == 2) == {2: 10}
    assert all(set(bad(cycle, made)) == {"average"} for cycle in tray.cycles)
    assert made.devices[0].learnt == Learnt()


async def test_surgery_never_reads_a_point_with_side_effects_again():
    once = Point("average", "input", 2, "uint16")
    points = [*(Point(f"p{i}", "input", i, "uint16") for i in range(12) if i != 2), once]
    wrong = Point("p7", "input", 7, "uint16")
    of = device(points, side_effects=(once,))
    holes = (hole_of(wrong), hole_of(once))
    async with polling(of, holes=holes, max_registers=3) as (clock, bus, tray, made):
        await clock.advance(9.5)
    assert len([block for block in bus.asked if block.start <= 2 < block.end]) == 10
    assert all(set(bad(cycle, made)) == {"p7", "average"} for cycle in tray.cycles)


async def test_silence_in_the_middle_of_surgery_ends_it():
    points = build.registers(32)
    async with polling(device(points), holes=(Hole("holding", 3, 1),)) as (clock, bus, tray, made):
        bus.faults = {8: NoAnswer()}
        await clock.advance(0.9)
    assert bus.asked[-1].start == 8  # the other half was not asked after that
    found = bad(tray.cycles[0], made)
    assert set(found.values()) == {quality.BAD_CONFIGURATION_ERROR, quality.BAD_TIMEOUT}


async def test_a_unit_that_falls_silent_in_surgery_rests_on_a_shared_bus():
    points = build.registers(32)
    tags = [build.tag(point) for point in points]
    both = [build.device(f"d{i}", tags, unit=i) for i in (1, 2)]
    clock, made, tray = FakeClock(), plan(build.gateway(both)), Tray()
    bus = MeterBus(clock, points, holes=(Hole("holding", 3, 1),))
    bus.faults = {16: NoAnswer()}
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(Poller(bus, made.devices, (), tray, clock).run(clock.monotonic_ns()))
        await clock.advance(600)
        task.cancel()
    assert len([block for block in bus.asked if block.start == 16]) <= 2 * (5 + 600 / 60)


@pytest.mark.parametrize("period_s", [0.0, 1.0])
async def test_a_device_of_which_nothing_may_be_read_costs_nothing(period_s):
    points = build.registers(4)
    of = build.device("d", [build.tag(p, period_s=period_s) for p in points], holes=(Hole("holding", 0, 4),))
    async with polling(of) as (clock, bus, tray, made):
        await clock.advance(9.5)
    assert bus.asked == []
    assert [set(bad(cycle, made)) for cycle in tray.cycles] == [{p.name for p in points}] * 10


async def test_a_device_of_which_everything_was_refused_is_probed_all_the_same(tmp_path):
    (point,) = build.registers(1)
    memory = Memory(build.gateway([device([point])]))
    memory.keep("d", Learnt((hole_of(point),)))
    async with polling(device([point]), memory=memory) as (clock, bus, tray, made):
        await clock.advance(599)
        assert bus.asked == []
        await clock.advance(3)
    assert bad(tray.cycles[-1], made) == {}


async def test_a_refused_tag_is_asked_again_after_ten_minutes_never_before_and_forgotten_when_it_answers():
    points = build.registers(16)
    wrong = points[5]
    async with polling(device(points), holes=(hole_of(wrong),)) as (clock, bus, tray, made):
        await clock.advance(0.9)
        del bus.asked[:]
        per_cycle = len(made.devices[0].due(1).reads)
        await clock.advance(599)
        assert len(bus.asked) == 599 * per_cycle
        await clock.advance(2)
        assert [block.count for block in bus.asked].count(1) == 1
        await clock.advance(1198)
        assert [block.start for block in bus.asked if block.count == 1] == [5, 5]
        bus.set(points)
        await clock.advance(602)
        assert made.devices[0].learnt == Learnt()
        await clock.advance(2)
    assert [(r.block.start, r.block.count) for r in made.devices[0].due(1).reads] == [(0, 16)]
    assert bad(tray.cycles[-1], made) == {}


async def test_old_limits_are_tried_again_every_ten_minutes_with_one_read_each():
    points = [replace(p, name=f"r{p.address}") for s in (0, 60, 120, 180) for p in build.registers(50, start=s)]
    async with polling(device(points), max_gap=0, max_registers=30) as (clock, bus, tray, made):
        await clock.advance(0.9)
        n, facts = bus.n_refused, made.devices[0].learnt
        assert facts.max_registers == 30
        await clock.advance(590)
        assert bus.n_refused == n
        await clock.advance(60)
        assert 1 <= bus.n_refused - n <= 1 + len(facts.refused)
        bus.set(points)
        await clock.advance(700)
        assert made.devices[0].learnt == Learnt()
    assert all(bad(cycle, made) == {} for cycle in tray.cycles)


@pytest.mark.parametrize("spans", [((0, 180),), ((0, 5), (21, 30), (44, 65))], ids=["one span", "other groups"])
async def test_a_limit_that_still_holds_is_never_forgotten(spans):
    limit = 30
    points = [Point(f"r{a}", "holding", a, "uint16") for start, end in spans for a in range(start, end)]
    async with polling(device(points, max_registers=50), max_registers=limit) as (clock, bus, tray, made):
        await clock.advance(0.9)
        n = bus.n_refused
        await clock.advance(1205)
        assert bus.n_refused - n == 2
        assert made.devices[0].learnt == Learnt(max_registers=limit)
    assert all(bad(cycle, made) == {} for cycle in tray.cycles)


async def test_after_a_restart_nothing_is_probed_for_ten_minutes(tmp_path):
    points = build.registers(16)
    spec = build.gateway([device(points)])
    memory = Memory(spec, tmp_path)
    memory.keep("d", Learnt((hole_of(points[5]),)))
    memory.commit()
    async with polling(device(points), memory=Memory(spec, tmp_path), holes=(hole_of(points[5]),)) as found:
        clock, bus, tray, made = found
        await clock.advance(599)
        assert bus.n_refused == 0
        assert all(set(bad(cycle, made)) == {"v5"} for cycle in tray.cycles)
        await clock.advance(3)
        assert bus.n_refused == 1


async def test_a_single_tag_that_is_refused_is_learnt_beside_another_read_that_is_answered():
    points = [*build.registers(3), Point("far", "input", 900, "uint16")]
    async with polling(device(points), holes=(Hole("input", 900, 1),)) as (clock, bus, tray, made):
        await clock.advance(3.9)
    assert bus.n_refused == 1
    assert all(set(bad(cycle, made)) == {"far"} for cycle in tray.cycles)


def test_a_profiles_holes_are_never_read_and_never_crossed():
    points = build.registers(10)
    (one,) = plan(build.gateway([device(points, holes=(Hole("holding", 4, 2), Hole("input", 0, 9)))])).devices
    due = one.due(1)
    assert [(r.block.start, r.block.end) for r in due.reads] == [(0, 4), (6, 10)]
    assert [r.block.start for r in due.refused] == [4, 5]


def test_plan_tells_what_was_learnt():
    memory = Memory(build.gateway([device(build.registers(10))]))
    memory.keep("d", Learnt((Hole("holding", 4, 1),), 60, None, 0.031))
    made = plan(build.gateway([device(build.registers(10))]), memory)
    assert report(made)["learnt"] == [
        {
            "device": "d",
            "refused": [{"function": "holding", "start": 4, "count": 1, "tags": ["v4"]}],
            "max_registers": 60,
            "max_bits": None,
            "turnaround_s": 0.031,
        }
    ]
    assert [(r["start"], r["count"]) for r in report(made)["requests"]] == [(0, 4), (5, 5)]
    assert report(made)["links"][0]["bus_time_s"] == pytest.approx(2 * 0.031 + 18e-6)
    assert report(plan(build.gateway([device(build.registers(10))])))["learnt"] == []


def test_exception_5_is_no_illegal_address():
    assert not isinstance(device_exception(5), IllegalAddress)
    assert isinstance(device_exception(5), DeviceException)
