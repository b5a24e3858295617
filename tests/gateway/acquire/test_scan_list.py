"""Whatever stands in a scan list, and whoever changes it, every value is that of its own register."""

import asyncio
import contextlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import profile as profiles
from drivers import quality
from drivers.encode import codec
from drivers.errors import DeviceException, IllegalAddress, NoAnswer, WrongAnswer, device_exception
from drivers.link import LinkCounters, LinkSpec, SerialLine
from drivers.modbus import open_link
from drivers.points import Point, ScanList
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import Fleet
from gateway.acquire.memory import Learnt
from gateway.acquire.plan import plan
from gateway.acquire.poll import Poller
from gateway.acquire.report import report
from gateway.model.clock import SystemClock
from tests.gateway import build
from tests.gateway.clock import FakeClock

SECOND = 1_000_000_000
AREA = ScanList("holding", 5000, 16, 5050, 2, 1)
PROLINE = profiles.find("endresshauser_proline")
RTU = LinkSpec("bus0", "rtu", path="/dev/ttyUSB0", serial=SerialLine(9600, 8, "E", 1), turnaround_s=0.02)
ADDRESSES = (100, 200, 300, 400, 600)  # of a register or two each, far apart: a read each
TAGS = tuple(Point(f"v{at}", "holding", at, "uint32" if at % 200 else "uint16") for at in ADDRESSES)
LISTED = [at + 1 for at in ADDRESSES]


def register(address):
    """Return what a register holds: another number at every address, and a small float in every pair."""
    return (address * 7 + 3) % 9973


def value_of(point):
    """Return what a right reader makes of a point's registers."""
    raw = b"".join(struct.pack(">H", register(point.address + i)) for i in range(point.n_registers))
    return codec(point).served_value(raw)


class Bus:
    """A link in virtual time to one meter that shows what its list says; all its registers are there but the holes.

    before  is called with each read: its number and the block
    faults  what is raised for a read by its start
    """

    state = "up"

    def __init__(self, clock, area, holes=()):
        self.clock, self.area, self.holes, self.asked = clock, area, holes, []
        self.counters, self.faults, self.before, self.entries = LinkCounters(), {}, lambda n, block: None, [0] * 16

    def list(self, *entries):
        self.entries = [*entries, *[0] * (16 - len(entries))]

    async def read(self, unit, block):
        self.before(len(self.asked), block)
        self.asked.append((block.start, block.count))
        await self.clock.sleep_until(self.clock.monotonic_ns() + 1_000_000)
        if fault := self.faults.get(block.start):
            raise fault
        if not self.holes.isdisjoint(range(block.start, block.end)):
            raise IllegalAddress(2)
        return b"".join(struct.pack(">H", self.shown(address)) for address in range(block.start, block.end))

    def shown(self, address):
        """Return what stands at an address: an entry, a register that is listed, or the register itself."""
        if address in range(5000, 5016):
            return self.entries[address - 5000]
        step = self.area.step
        if address not in range(5050, 5050 + step * 16):
            return register(address)
        entry, offset = self.entries[(address - 5050) // step], (address - 5050) % step
        return register(entry - self.area.base + offset) if entry else 0

    def taken(self):
        """Return what was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked


class Tray:
    """Takes what a poller hands on: per cycle each tag's value, or its quality where it is bad."""

    def __init__(self, made):
        self.made, self.image, self.bad, self.cycles = made, bytearray(made.table.image_bytes), {}, []
        self.doubts, self.done = [], asyncio.Event()

    def put(self, read, payload):
        assert len(payload) == read.block.n_bytes == read.end - read.at
        self.image[read.at : read.end] = payload
        for row in map(int, read.rows):
            self.bad.pop(row, None)

    def fail(self, read, found):
        self.bad.update((int(row), found) for row in read.rows)

    def doubtful(self, scan, now_ns):
        rows = [row for row in self.doubts if scan.start <= row < scan.stop]
        self.doubts = [row for row in self.doubts if row not in rows]
        return np.array(rows, np.int32)

    def doubt(self, rows):
        pass

    def finish(self, scans, since, began_ns, ended_ns):
        columns = self.made.table.decode
        for scan in scans:
            shown = {}
            for row in range(scan.start, scan.stop):
                point, at = self.made.table.tags[row].point, int(columns.at[row])
                raw = bytes(self.image[at : at + 2 * point.n_registers])
                shown[point.name] = self.bad.get(row) or codec(point).served_value(raw)
            self.cycles.append(shown)
        for row in (row for scan in scans for row in range(scan.start, scan.stop)):
            at, size = int(columns.at[row]), 2 * self.made.table.tags[row].point.n_registers
            self.image[at : at + size] = b"\xee" * size  # nothing of this cycle stands in for the next
        self.done.set()


def device(points=TAGS, area=AREA, periods=None, **fields):
    tags = [build.tag(p, period_s=(periods or {}).get(p.name, 1.0)) for p in points]
    return build.device("ft-101", tags, scan_list=area, **fields)


@contextlib.asynccontextmanager
async def polling(of=None, entries=(), holes=(), neighbours=()):
    """Poll a device, and its neighbours, once a second in virtual time; yields clock, bus and tray."""
    of, clock = of or device(), FakeClock()
    made = plan(build.gateway([of, *neighbours]))
    bus, tray = Bus(clock, of.scan_list or AREA, set(holes)), Tray(made)
    bus.list(*entries)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(Poller(bus, made.devices, (), tray, clock).run(clock.monotonic_ns()))
        yield clock, bus, tray
        task.cancel()


def right(points=TAGS):
    return {point.name: value_of(point) for point in points}


LIST = (5000, 16)
DIRECT = [(100, 2), (200, 1), (300, 2), (400, 1), (600, 1)]
PROOF = (5000, 5)
SHORT = [PROOF, (5050, 10), PROOF]


@pytest.mark.parametrize(
    ("entries", "asked"),
    [
        (LISTED, SHORT),
        (LISTED[::-1], SHORT),
        ([0, 9, *LISTED, 77], [(5002, 5), (5054, 10), (5002, 5)]),
        (LISTED[:4], [(5000, 4), (5050, 8), (5000, 4), (600, 1)]),
        ([301, 101, 301, 101, 401, 601], [(5002, 4), (5054, 8), (5002, 4), (200, 1)]),
        (LISTED[:3], DIRECT),  # three reads for three reads save nothing
        ([9, 102, 65535, 1], DIRECT),
        ([], DIRECT),
    ],
    ids=["equal", "unordered", "superset", "subset", "duplicates", "no gain", "others", "empty"],
)
async def test_what_is_listed_is_read_from_there_where_that_saves_time(entries, asked):
    async with polling(entries=entries) as (clock, bus, tray):
        await clock.advance(0.9)
        assert bus.taken() == [*DIRECT, LIST]  # a list that was just seen is used from the next poll on
        for _ in range(5):
            await clock.advance(1)
            assert bus.taken() == asked
    assert tray.cycles == [right()] * 6


async def test_where_an_entry_shows_one_register_values_and_proof_are_of_two_sizes():
    """Without transaction ids, two reads of one size behind each other cost a third between them."""
    points = tuple(Point(f"v{at}", "holding", at, "uint16") for at in ADDRESSES)
    async with polling(device(points, replace(AREA, step=1)), LISTED) as (clock, bus, tray):
        await clock.advance(1.9)
        assert bus.taken()[-3:] == [(5000, 6), (5050, 5), (5000, 6)]
    assert tray.cycles == [right(points)] * 2


async def test_a_device_without_a_scan_list_is_asked_what_it_was():
    async with polling(device(area=None), LISTED) as (clock, bus, tray):
        await clock.advance(3.9)
        assert bus.taken() == DIRECT * 4
    assert tray.cycles == [right()] * 4


@pytest.mark.parametrize("at", [0, 1, 2], ids=["before all", "before the values", "behind the values"])
async def test_a_list_that_somebody_changes_never_becomes_a_wrong_value(at):
    async with polling(entries=LISTED) as (clock, bus, tray):
        await clock.advance(2.9)
        bus.taken()
        bus.before = lambda n, block: n == at and bus.list(*LISTED[::-1])
        await clock.advance(1)
        assert bus.taken() == [*SHORT[: 3 if at else 1], *DIRECT, LIST]  # in the same cycle
        await clock.advance(1)
        assert bus.taken() == SHORT  # and by the new list in the next
        bus.before = lambda n, block: bus.list()
        await clock.advance(1)
        assert bus.taken() == [PROOF, *DIRECT, LIST]
        await clock.advance(1)
        assert bus.taken() == DIRECT
    assert tray.cycles == [right()] * len(tray.cycles)


async def test_a_list_that_is_cleared_behind_one_poll_and_put_back_in_the_next_is_found_out():
    async with polling(entries=LISTED) as (clock, bus, tray):
        await clock.advance(2.9)
        bus.taken()
        bus.list()
        bus.before = lambda n, block: n == 2 and bus.list(*LISTED)
        await clock.advance(1)
    assert tray.cycles == [right()] * 4


@pytest.mark.parametrize("start", [5000, 5050])
@pytest.mark.parametrize("code", [1, 2, 3])
async def test_a_refused_list_is_not_asked_again_in_this_run(start, code):
    async with polling(entries=LISTED) as (clock, bus, tray):
        bus.faults[start] = device_exception(code)
        await clock.advance(4.9)
        asked = bus.taken()
    assert sum(each[0] == start for each in asked) == 1
    assert asked[-5:] == DIRECT
    assert tray.cycles == [right()] * 5


@pytest.mark.parametrize("start", [5000, 5050])
@pytest.mark.parametrize("fault", [DeviceException(6), WrongAnswer()])
async def test_a_list_that_cannot_be_read_now_is_tried_again(start, fault):
    async with polling(entries=LISTED) as (clock, bus, tray):
        await clock.advance(1.9)
        bus.faults[start] = fault
        await clock.advance(2)
        bus.taken()
        del bus.faults[start]
        await clock.advance(1)
        assert bus.taken() == SHORT
    assert tray.cycles == [right()] * 5


@pytest.mark.parametrize("start", [5000, 5050])
async def test_silence_behind_the_values_takes_every_tag_and_the_list_is_read_anew(start):
    async with polling(entries=LISTED) as (clock, bus, tray):
        await clock.advance(1.9)
        bus.taken()
        bus.faults[start] = NoAnswer()
        await clock.advance(1)
        assert bus.taken() == SHORT[: 1 + (start == 5050)]  # who is silent is asked no more
        assert set(tray.cycles[-1].values()) == {quality.BAD_TIMEOUT}
        del bus.faults[start]
        await clock.advance(1)
        assert bus.taken() == [*DIRECT, LIST]
        await clock.advance(1)
        assert bus.taken() == SHORT
    assert tray.cycles[-2:] == [right()] * 2


async def test_silence_now_and_then_does_not_end_the_use_of_the_list():
    async with polling(entries=LISTED) as (clock, bus, _tray):
        await clock.advance(1.9)
        for _ in range(3):
            bus.faults[5050] = NoAnswer()
            await clock.advance(1)
            del bus.faults[5050]
            await clock.advance(2)
            assert bus.taken()[-3:] == SHORT


async def test_a_device_that_rests_on_a_bus_is_not_asked_by_its_list_either():
    neighbour = build.device("other", [build.tag(Point("o", "holding", 900, "uint16"))], unit=2)
    async with polling(entries=LISTED, neighbours=[neighbour]) as (clock, bus, _tray):
        await clock.advance(1.9)
        bus.taken()
        bus.faults = dict.fromkeys((5000, 5050, *ADDRESSES), WrongAnswer())
        await clock.advance(3.1)
        bus.taken()
        await clock.advance(4)
        assert set(bus.taken()) == {(900, 1)}


async def test_a_meter_that_ignores_reads_of_its_list_is_asked_for_it_twice():
    async with polling(entries=LISTED) as (clock, bus, tray):
        bus.faults[5000] = NoAnswer()
        await clock.advance(5.9)
        assert bus.taken() == [*DIRECT, LIST, *DIRECT, LIST, *DIRECT * 4]
    assert tray.cycles == [right()] * 6


async def test_a_meter_that_ignores_reads_of_its_values_costs_two_polls():
    async with polling(entries=LISTED) as (clock, bus, tray):
        bus.faults[5050] = NoAnswer()
        await clock.advance(9.9)
        assert bus.taken()[-10:] == DIRECT * 2
    lost = dict.fromkeys(right(), quality.BAD_TIMEOUT)
    assert tray.cycles == [right(), lost, right(), lost, *[right()] * 6]


async def test_scans_alone_and_together_each_have_their_own_way():
    periods = {"v100": 1.0, "v200": 1.0, "v300": 1.0, "v400": 1.0, "v600": 2.0}
    async with polling(device(periods=periods), LISTED) as (clock, bus, tray):
        await clock.advance(1.9)
        bus.taken()
        await clock.advance(4)
        fast, both = [(5000, 4), (5050, 8), (5000, 4)], SHORT
        assert bus.taken() in ([*fast, *both] * 2, [*both, *fast] * 2)
    shown = [name for cycle in tray.cycles for name in cycle]
    assert {name: shown.count(name) for name in periods} == {"v100": 6, "v200": 6, "v300": 6, "v400": 6, "v600": 3}
    assert all(cycle.items() <= right().items() for cycle in tray.cycles)


async def test_a_doubtful_value_is_read_again_where_it_stands():
    async with polling(entries=LISTED) as (clock, bus, tray):
        await clock.advance(1.9)
        bus.taken()
        tray.doubts = [2]
        await clock.advance(1)
        assert bus.taken() == [*SHORT, (300, 2)]
    assert tray.cycles[-1] == right()


async def test_a_refusal_beside_the_list_costs_the_refused_tag_alone():
    wrong = Point("wrong", "holding", 500, "uint16")
    of = device((*TAGS, wrong))
    async with polling(of, LISTED, holes=[500]) as (clock, bus, tray):
        await clock.advance(0.9)
        bus.taken()
        await clock.advance(1)
        assert bus.taken() == SHORT
    assert tray.cycles == [{**right(), "wrong": quality.BAD_CONFIGURATION_ERROR}] * 2


async def test_a_tag_that_cannot_be_read_directly_comes_by_the_list():
    async with polling(entries=LISTED, holes=[200]) as (clock, bus, tray):
        await clock.advance(0.9)
        assert tray.cycles[0]["v200"] == quality.BAD_CONFIGURATION_ERROR
        bus.taken()
        await clock.advance(1)
        assert bus.taken() == SHORT
    assert tray.cycles[1] == right()


async def test_a_doubtful_value_that_cannot_be_read_directly_waits_for_the_next_poll():
    async with polling(entries=LISTED, holes=[200]) as (clock, bus, tray):
        await clock.advance(1.9)
        bus.taken()
        tray.doubts = [0, 1]
        await clock.advance(1)
        assert bus.taken() == [*SHORT, (100, 2)]
    assert tray.cycles[-2:] == [right()] * 2


async def test_what_changes_the_device_and_what_shares_registers_is_read_directly():
    overlapping = Point("part", "holding", 301, "uint16")
    of = device((*TAGS, overlapping), side_effects=(TAGS[0],))
    async with polling(of, [*LISTED, 302]) as (clock, bus, tray):
        await clock.advance(1.9)
        asked = bus.taken()
    assert not any(start >= 5050 for start, _ in asked)
    assert tray.cycles == [right((*TAGS, overlapping))] * 2


async def test_bits_of_a_listed_register_come_together():
    bits = [Point(f"b{i}", "holding", 200, "bool", bit=2 + i) for i in range(3)]
    points = (TAGS[0], *bits, TAGS[2], TAGS[3])
    async with polling(device(points), [101, 201, 301, 401]) as (clock, bus, tray):
        await clock.advance(1.9)
        assert bus.taken()[-3:] == [(5000, 4), (5050, 8), (5000, 4)]
    assert tray.cycles == [right(points)] * 2
    assert {value_of(bit) for bit in bits} == {0.0, 1.0}


async def test_an_empty_entry_is_no_register_0():
    points = [Point(f"v{at}", "holding", at, "uint16") for at in (0, 100, 200)]
    async with polling(device(points, replace(AREA, base=0)), [100, 200, 0]) as (clock, bus, tray):
        await clock.advance(1.9)
        assert bus.taken()[-3:] == [(0, 1), (100, 1), (200, 1)]
    assert tray.cycles == [right(points)] * 2


async def test_a_list_larger_than_the_largest_read_is_not_asked_for():
    async with polling(device(max_registers=15), LISTED) as (clock, bus, tray):
        await clock.advance(1.9)
        assert bus.taken() == DIRECT * 2
    assert tray.cycles == [right()] * 2


async def test_values_beyond_the_largest_read_are_read_directly():
    entries = [101, *[0] * 8, *LISTED[1:]]
    async with polling(device(max_registers=20), entries) as (clock, bus, tray):
        await clock.advance(2.9)
        assert bus.taken() == [*DIRECT, LIST, *DIRECT * 2]
    assert tray.cycles == [right()] * 3


async def test_what_is_learnt_meanwhile_is_heeded():
    async with polling(entries=LISTED) as (clock, bus, tray):
        await clock.advance(1.9)
        assert bus.taken()[-3:] == SHORT
        tray.made.devices[0].learn(Learnt(max_registers=7))
        await clock.advance(1)
        assert bus.taken() == DIRECT
    assert tray.cycles == [right()] * 3


POINTS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["uint16", "int16", "uint32", "float32", "uint64"])),
    min_size=1, max_size=12, unique_by=lambda one: one[0],
).map(lambda found: tuple(Point(f"p{at}", "holding", 3 * at, kind) for at, kind in found))  # fmt: skip


@given(data=st.data(), points=POINTS, base=st.integers(0, 2), max_gap=st.sampled_from([0, 5, 125]))
@settings(max_examples=150)
def test_every_value_is_its_own_registers_whatever_is_listed_and_whenever_that_changes(data, points, base, max_gap):
    entry = st.sampled_from([point.address + base for point in points]) | st.integers(0, 190)
    first = [point.address + base for point in points[:16]]
    changes, seen = {}, {tuple(np.trim_zeros(first, "b"))}
    for n, entries in sorted(data.draw(st.dictionaries(st.integers(0, 60), st.lists(entry, max_size=16))).items()):
        filled = tuple(np.trim_zeros(entries, "b"))
        if filled not in seen:  # a list that is put back before it is read again was never seen to be another
            changes[n] = entries
        seen.add(filled)

    async def run():
        async with polling(device(points, replace(AREA, base=base), max_gap=max_gap)) as (clock, bus, tray):
            bus.list(*first)
            bus.before = lambda n, block: n in changes and bus.list(*changes[n])
            await clock.advance(9.9)
        return tray.cycles

    assert asyncio.run(run()) == [right(points)] * 10


@contextlib.asynccontextmanager
async def proline(names, entries, transport="tcp"):
    """Serve a Proline with these entries; yields its fleet, and what polls it for some cycles on a link of its own."""
    points = {point.name: point for point in PROLINE.points}
    link = LinkSpec("skid", transport, "127.0.0.1", 0)
    meter = MeterSpec("ft-101", link, 1, PROLINE.name, PROLINE.points, scan_list=PROLINE.scan_list)
    tags = [build.tag(points[name], period_s=0.1) for name in names]
    found = build.device("ft-101", tags, link="skid", scan_list=PROLINE.scan_list)

    async def run(cycles):
        """Return the cycles, and what the link has counted behind each."""
        made = plan(build.gateway([found], links=[replace(link, port=fleet.ports["skid"])]))
        tray, one, clock, counted = Tray(made), open_link(made.spec.links[0]), SystemClock(), []
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(Poller(one, made.devices, (), tray, clock).run(clock.monotonic_ns()))
            while len(tray.cycles) < cycles:
                tray.done.clear()
                await tray.done.wait()
                counted.append((one.counters.requests, one.counters.fences))
            task.cancel()
        await one.close()
        return tray.cycles[:cycles], counted

    async with Fleet([meter], seed=1) as fleet:
        fleet.set_scan_list("ft-101", entries)
        yield fleet, run


async def test_over_a_real_link_a_proline_is_read_by_its_list_and_after_a_restart_again():
    wanted = {
        "mass_flow": 241.5, "temperature": 18.25, "totalizer1": 12345.0, "system_condition": 2.0, "unit_length": 1.0,
    }  # fmt: skip
    async with proline(wanted, [2610, 2007, 0, 2017, 6859, 2125]) as (fleet, run):
        for name, value in wanted.items():
            fleet.set_value("ft-101", name, value)
        for _ in range(2):
            cycles, counted = await run(6)
            assert cycles == [wanted] * 6
            assert counted[5][0] in (5 + 1 + 3 * 5, 5 + 1 + 3 * 5 + 1)  # one more may be on its way


@pytest.mark.parametrize("n_empty", [0, 8], ids=["first slots", "last slots"])
async def test_on_a_line_without_ids_values_and_list_are_never_two_reads_of_one_size(n_empty):
    names = (
        "mass_flow", "temperature", "totalizer1", "system_condition", "byte_order", "telegram_delay",
        "write_protection", "unit_length",
    )  # fmt: skip
    listed = [point.address + 1 for point in PROLINE.points if point.name in names]  # 8 slots of 2, as long as the list
    async with proline(names, [*[0] * n_empty, *listed], "rtu+tcp") as (_, run):
        cycles, counted = await run(6)
    assert all(quality.BAD not in cycle.values() and len(cycle) == 8 for cycle in cycles)
    requests, fences = zip(*counted[1:], strict=True)
    assert 3 * 4 - 1 <= requests[-1] - requests[0] <= 3 * 4 + 1
    assert len(set(fences)) == 1


def test_the_plan_says_what_a_scan_list_would_save():
    row = [Point(f"r{i}", "holding", 900 + i, "uint16") for i in range(20)]
    made = plan(build.gateway([device((*TAGS, *row))], links=[RTU]))
    (said,) = report(made)["scan_lists"]
    assert said["entries"] == LISTED  # the row does not fit, and is one read already
    assert (said["requests_per_cycle"], said["direct"]["requests_per_cycle"]) == (4, 6)
    character_s = 11 / 9600
    reads_s = [(20 + 2 * n) * character_s + 0.02 for n in (5, 10, 5, 20)]
    assert said["bus_time_s"] == pytest.approx(sum(reads_s), abs=1e-6)
    assert report(plan(build.gateway([device(TAGS[:2])], links=[RTU])))["scan_lists"] == []
    assert report(plan(build.gateway([device(area=None)], links=[RTU])))["scan_lists"] == []
    assert report(plan(build.gateway([device(max_registers=15)], links=[RTU])))["scan_lists"] == []


@given(points=POINTS, gap=st.sampled_from([0, 5, 125]))
@settings(max_examples=60)
def test_what_the_plan_advises_is_what_a_meter_with_that_list_is_asked(points, gap):
    of = device(points, max_gap=gap)
    lines = report(plan(build.gateway([of])))["scan_lists"]
    if not lines:
        return

    async def run():
        async with polling(of, lines[0]["entries"]) as (clock, bus, _):
            await clock.advance(0.9)
            bus.taken()
            await clock.advance(1)
            return len(bus.taken())

    (said,) = lines
    assert asyncio.run(run()) == said["requests_per_cycle"] <= said["direct"]["requests_per_cycle"]
    assert said["bus_time_s"] <= said["direct"]["bus_time_s"]


async def test_a_refusal_that_no_list_is_about_changes_nothing():
    async with polling(entries=LISTED) as (clock, bus, tray):
        bus.faults[100] = IllegalAddress(2)
        await clock.advance(2.9)
        assert bus.taken()[-3:] == SHORT
    assert tray.cycles[1:] == [right()] * 2
