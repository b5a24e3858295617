"""A meter of another model is never read for the one that the profile describes, and everybody is told once."""

import asyncio
import contextlib
import struct
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest

from drivers import profile as profiles
from drivers import quality
from drivers.errors import LinkDown, NoAnswer, WrongAnswer, device_exception
from drivers.link import LinkCounters, LinkSpec
from drivers.modbus import open_link
from drivers.points import Expected, Point
from drivers.sim.device import Meter, MeterSpec
from drivers.sim.faults import Fault, FaultScript
from drivers.sim.fleet import Fleet
from drivers.sim.plants.settings import like
from gateway.acquire.acquisition import Held
from gateway.acquire.plan import plan, text_blocks
from gateway.acquire.poll import Identity, Poller
from gateway.alarm.engine import AlarmEngine
from gateway.alarm.journal import Journal
from gateway.demo.fleet import meters
from gateway.model.clock import SystemClock
from gateway.pipeline import Pipeline
from gateway.spool.memory import MemorySpool
from gateway.wire.frame_lines import scan_texts
from gateway.wire.lines import parse_lines
from tests.drivers.sim.build import HandClock, connect
from tests.gateway import build
from tests.gateway.clock import FakeClock
from tests.servers import until

EM24 = profiles.find("carlogavazzi_em24_e1")
SECOND = 1_000_000_000
SWAPPED_V = 999.0  # what only the second meter shows


def em24(name="em24-1", unit=1, tags=("voltage_l1_n", "frequency"), period_s=1.0, **fields):
    points = {point.name: point for point in EM24.points}
    return build.device(
        name, [build.tag(points[each], period_s=period_s) for each in tags], unit=unit,
        **{"profile": EM24.name, "points": EM24.points, "expect": EM24.expect, **fields},
    )  # fmt: skip


class Lane:
    """Takes lines as the publisher does."""

    def __init__(self):
        self.lines = []

    def offer(self, device, seq, line):
        self.lines.append(line)

    def flush(self):
        pass

    def values(self, tag):
        """Return every value of a tag that went out: a bad one has no field."""
        found = [parsed.fields for line in self.lines if line for parsed in parse_lines(line)]
        return [fields[tag] for fields in found if tag in fields]


@contextlib.asynccontextmanager
async def running(folder, *, period_s=0.1, **meter):
    """Poll one EM24 over TCP into a pipeline; yields the simulated fleet, the lane and the journal."""
    link = LinkSpec("skid", "tcp", "127.0.0.1", 0)
    simulated = MeterSpec("em24-1", link, 1, EM24.name, EM24.points, **{"expect": EM24.expect, **meter})
    async with Fleet([simulated], seed=1) as fleet:
        found = em24(period_s=period_s, link="skid")
        made = plan(build.gateway([found], links=[replace(link, port=fleet.ports["skid"])]))
        lane, journal, clock = Lane(), Journal(folder), SystemClock()
        spool, engine = MemorySpool(1_000_000, "c", scan_texts(made.table)), AlarmEngine(made.table)
        sink = Pipeline(made.table, spool, engine, journal, lane, clock)
        one = open_link(made.spec.links[0])
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            poller = Poller(one, made.devices, (), sink, clock)
            task = tasks.create_task(poller.run(clock.monotonic_ns()))
            yield fleet, lane, journal
            task.cancel()
        await one.close()


def told(journal, tag="model_code"):
    """Return what the journal says of a point, oldest first."""
    return [event for event in journal._waiting if event.tag == tag]


async def test_of_another_model_no_value_goes_out_and_one_event_tells_it(tmp_path):
    async with running(tmp_path) as (fleet, lane, journal):
        fleet.set_value("em24-1", "model_code", 71.0)
        await until(lambda: len(lane.lines) >= 15)
        assert fleet.statistics()["requests"]["em24-1"] == 1  # then it rests, on its own connection too
    assert lane.lines == [b""] * len(lane.lines)
    (event,) = told(journal)
    assert event.text == (
        "em24-1: model_code holds 71, wanted 1648 to 1653: not the meter that profile carlogavazzi_em24_e1 describes"
    )
    assert (event.device, event.quality, event.reason) == (
        "em24-1", quality.BAD_CONFIGURATION_ERROR, "BadConfigurationError",
    )  # fmt: skip
    assert [e.quality for e in told(journal, "frequency")] == [quality.BAD_CONFIGURATION_ERROR]


async def test_the_right_model_is_read_as_ever_for_one_request_more(tmp_path):
    async with running(tmp_path) as (fleet, lane, journal):
        await until(lambda: len(lane.values("frequency")) >= 10)
        polls = len(lane.values("frequency"))
        assert 1 + 2 * polls <= fleet.statistics()["requests"]["em24-1"] <= 1 + 2 * (polls + 1)
    assert set(lane.values("frequency")) <= {49.9, 50.0, 50.1}
    assert not journal._waiting


async def test_a_meter_that_was_swapped_between_two_polls_is_noticed_before_a_value_of_it_goes_out(tmp_path):
    async with running(tmp_path, period_s=1.2) as (fleet, lane, journal):
        await until(lambda: len(lane.values("voltage_l1_n")) == 1)
        await fleet.cut(
            "skid"
        )  # nobody is asked meanwhile: the next poll finds a connection, and no reading has failed
        fleet.set_value("em24-1", "voltage_l1_n", SWAPPED_V)
        fleet.set_value("em24-1", "model_code", 71.0)
        await fleet.restore("skid")
        await until(lambda: told(journal))
        await until(lambda: len(lane.lines) >= 3)
    assert len(lane.values("voltage_l1_n")) == 1
    assert SWAPPED_V not in lane.values("voltage_l1_n")


async def test_the_same_meter_behind_a_new_connection_goes_on_for_one_request_more(tmp_path):
    async with running(tmp_path, period_s=1.2) as (fleet, lane, journal):
        await until(lambda: len(lane.values("frequency")) == 1)
        await fleet.cut("skid")
        await fleet.restore("skid")
        await until(lambda: len(lane.values("frequency")) == 3)
        assert fleet.statistics()["requests"]["em24-1"] == 1 + 2 + 1 + 2 + 2
    assert not journal._waiting


class Bus:
    """A link in virtual time to simulated EM24s; `faults` maps a unit to what is raised for it, or to its model."""

    def __init__(self, clock, points=EM24.points):
        self.clock, self.faults, self.asked, self.blocks = clock, {}, Counter(), []
        self.state, self.counters = "up", LinkCounters()
        self.meter = Meter(MeterSpec("m", LinkSpec("l", "tcp"), 1, "", tuple(points)))
        self.says = {"model_code": 1650.0}

    async def read(self, unit, block):
        self.asked[unit] += 1
        self.blocks.append(block.start)
        fault = self.faults.get(unit)
        wait_s = 1.0 if isinstance(fault, NoAnswer) else 0.01
        await self.clock.sleep_until(self.clock.monotonic_ns() + round(wait_s * SECOND))
        if isinstance(fault, Exception):
            raise fault
        says = self.says if fault is None else {"model_code": fault}
        request = struct.pack(">BHH", block.function, block.start, block.count)
        pdu = self.meter.answer(request, lambda point: says.get(point.name, 50.0)).pdu
        if pdu[0] & 0x80:
            raise device_exception(pdu[1])
        return pdu[2:]


class Tray:
    """Takes what a poller hands on: qualities by device, what was told, how many frames."""

    def __init__(self):
        self.found, self.told, self.frames, self.strings = {}, [], Counter(), {}

    def put(self, read, payload):
        self.found.setdefault(read.device, []).append(0)

    def fail(self, read, found):
        self.found.setdefault(read.device, []).append(found)

    def identify(self, device, name, text):
        self.strings[name] = text

    def tell(self, device, point, found, text, now_ns):
        self.told.append((device, point, found, text))

    def doubtful(self, scan, now_ns):
        return np.zeros(0, np.int32)

    def finish(self, scans, since, began_ns, ended_ns):
        self.frames.update(scan.device for scan in scans)


@contextlib.asynccontextmanager
async def polling(devices, identities=(), points=EM24.points):
    clock = FakeClock()
    made, bus, tray = plan(build.gateway(devices)), Bus(clock, points), Tray()
    tray.made = made
    async with asyncio.TaskGroup() as tasks:
        poller = Poller(bus, made.devices, identities, tray, clock)
        task = tasks.create_task(poller.run(clock.monotonic_ns()))
        yield clock, bus, tray
        task.cancel()


async def test_another_model_rests_longer_and_longer_and_is_told_again_only_when_something_changed():
    async with polling([em24()]) as (clock, bus, tray):
        bus.says["model_code"] = 71.0
        await clock.advance(600)
        assert bus.asked[1] == 13  # at the start, after 5, 10, 20 and 40 s, then every 60 s
        assert set(bus.blocks) == {11}
        assert len(tray.told) == 1
        assert set(tray.found[0]) == {quality.BAD_CONFIGURATION_ERROR}
        assert tray.frames[0] in (600, 601)  # its tags are told to be bad each period
        bus.says["model_code"] = 72.0
        await clock.advance(70)
        bus.says["model_code"] = 1653.0
        await clock.advance(70)
        assert tray.found[0][-1] == 0
        bus.faults[1] = NoAnswer()
        await clock.advance(3)
        bus.faults[1] = 72.0
        await clock.advance(70)
    assert [text.split(", ")[0] for *_, text in tray.told] == [
        "em24-1: model_code holds 71",
        "em24-1: model_code holds 72",
        "em24-1: is the meter that profile carlogavazzi_em24_e1 describes",
        "em24-1: model_code holds 72",
    ]
    assert [found for *_, found, _ in tray.told] == [*[quality.BAD_CONFIGURATION_ERROR] * 2, 0, tray.told[0][2]]


async def test_another_model_on_a_bus_costs_its_neighbours_nothing():
    async with polling([em24(f"d{i}", i + 1) for i in range(10)]) as (clock, bus, tray):
        bus.faults[3] = 71.0
        await clock.advance(600)
    assert bus.asked[3] <= 5 + 600 / 60
    for number in set(range(10)) - {2}:
        assert tray.frames[number] >= 599
        assert set(tray.found[number]) == {0}
        assert 0 <= bus.asked[number + 1] - 1 - 2 * tray.frames[number] <= 2  # a poll may be on its way
    assert [device for device, *_ in tray.told] == [2]


@pytest.mark.parametrize("code", [1, 2, 3])
async def test_a_meter_that_refuses_the_register_is_another_model(code):
    async with polling([em24()]) as (clock, bus, tray):
        bus.faults[1] = device_exception(code)
        await clock.advance(20)
    assert set(tray.found[0]) == {quality.BAD_CONFIGURATION_ERROR}
    assert bus.asked[1] == 3
    (event,) = tray.told
    assert event[3].startswith(f"em24-1: model_code is refused with exception {code} (illegal ")
    assert event[3].endswith(", wanted 1648 to 1653: not the meter that profile carlogavazzi_em24_e1 describes")


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (NoAnswer(), quality.BAD_TIMEOUT),
        (LinkDown(), quality.BAD_NO_COMMUNICATION),
        (device_exception(11), quality.BAD_NO_COMMUNICATION),
        (device_exception(10), quality.BAD_NO_COMMUNICATION),
        (device_exception(6), quality.BAD_DEVICE_FAILURE),
        (device_exception(4), quality.BAD_DEVICE_FAILURE),
        (WrongAnswer(), quality.BAD_COMMUNICATION_ERROR),
    ],
)
async def test_whoever_does_not_say_what_it_is_is_not_read_and_not_called_another_model(fault, found):
    async with polling([em24("d0", 1), em24("d1", 2)]) as (clock, bus, tray):
        bus.faults[1] = fault
        await clock.advance(300)
        if not isinstance(fault, LinkDown):  # which backs nobody off
            assert bus.asked[1] <= 2 * (3 + 4 + 300 / 60)  # no more than the two reads of each poll without it
        assert set(tray.found[0]) == {found}
        assert set(bus.blocks[: bus.asked[1]]) >= {11}
        del bus.faults[1]
        await clock.advance(61)
        assert tray.found[0][-1] == 0
    assert not tray.told
    assert set(tray.found[1]) == {0}


async def test_a_device_that_did_not_answer_shows_its_model_again():
    async with polling([em24()]) as (clock, bus, tray):
        await clock.advance(2.5)
        bus.faults[1] = NoAnswer()
        await clock.advance(3)
        bus.faults[1] = 71.0
        n_good = tray.found[0].count(0)
        await clock.advance(20)
        assert tray.found[0].count(0) == n_good
    assert len(tray.told) == 1


async def test_a_meter_that_is_seldom_asked_shows_its_model_each_time():
    async with polling([em24(period_s=60.0), em24("d1", 2)]) as (clock, bus, tray):
        await clock.advance(65)
        n_good = tray.found[0].count(0)
        bus.faults[1] = 71.0  # nobody missed it: its neighbour kept the link up
        await clock.advance(120)
    assert tray.found[0].count(0) == n_good > 0
    assert [device for device, *_ in tray.told] == [0]
    assert bus.blocks.count(11) == 2 + 2 + 1  # of the neighbour, which is asked each second, once


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 8, 9])
async def test_whatever_a_gateway_says_of_a_unit_that_is_gone_who_stands_there_next_shows_its_model(code):
    async with polling([em24("d0", 1), em24("d1", 2)]) as (clock, bus, tray):
        await clock.advance(4.9)
        n_good = tray.found[0].count(0)
        bus.faults[1] = device_exception(code)
        await clock.advance(5)
        bus.faults[1] = 71.0
        await clock.advance(120)
    assert tray.found[0].count(0) == n_good > 0
    assert not tray.made.devices[0].learnt.refused


@pytest.mark.parametrize("code", [4, 5, 6])
async def test_a_meter_that_is_busy_for_a_moment_loses_no_poll_but_that(code):
    async with polling([em24("d0", 1), em24("d1", 2)]) as (clock, bus, tray):
        for _ in range(2):
            bus.faults[1] = device_exception(code)  # at the start, and later
            await clock.advance(0.9)
            del bus.faults[1]
            await clock.advance(5)
    assert [found for found in tray.found[0] if found] == [quality.BAD_DEVICE_FAILURE] * 4


NAMED = (
    Point("meter_model", "holding", 100, "string12"),
    Point("revision", "holding", 110, "uint16", sentinels=(0xFFFF,)),
    Point("power", "holding", 0, "uint16"),
)


@pytest.mark.parametrize(
    ("says", "wanted"),
    [
        ({"meter_model": "PM5110", "revision": 2.0}, None),
        ({"meter_model": "PM5111", "revision": 4.0}, None),
        ({"meter_model": "pm5110", "revision": 2.0}, "meter_model holds 'pm5110', wanted 'PM51*' or 'PM53?0'"),
        ({"meter_model": "PM5110", "revision": 3.0}, "revision holds 3, wanted 2 or 4"),
        ({"meter_model": "PM5110", "revision": None}, "revision says that it has no value (0xffff), wanted 2 or 4"),
        ({"meter_model": "", "revision": 2.0}, "meter_model holds '', wanted 'PM51*' or 'PM53?0'"),
    ],
)
async def test_texts_and_several_points_tell_a_model(says, wanted):
    expect = Expected("meter_model", texts=("PM51*", "PM53?0")), Expected("revision", (2.0, 4.0))
    tags, fields = [build.tag(NAMED[2])], {"points": NAMED, "profile": "p", "max_registers": 4}
    found = build.device("d", tags, unit=2, expect=expect, **fields)
    identity = Identity(1, 2, NAMED[:1], (text_blocks(NAMED[0], 4),))  # due before the first poll of the second device
    async with polling([build.device("first", tags, **fields), found], [identity], NAMED) as (clock, bus, tray):
        bus.says = says
        await clock.advance(4.9)
    if wanted is None:
        assert set(tray.found[1]) == {0}
        assert Counter(bus.blocks) == {100: 2, 104: 2, 110: 1, 0: 10}  # the text is read as identity too
        assert tray.strings == {"meter_model": says["meter_model"]}
    else:
        assert tray.told == [(1, *tray.told[0][1:3], f"d: {wanted}: not the meter that profile p describes")]
        assert set(tray.found[1]) == {quality.BAD_CONFIGURATION_ERROR}
        assert tray.strings == {}  # its texts are of another map too


async def test_a_connection_that_a_neighbour_has_made_anew_is_new_for_every_device_on_it():
    async with polling([em24("d0", 1), em24("d1", 2)]) as (clock, bus, tray):
        await clock.advance(2.2)
        n_good = tray.found[1].count(0)
        bus.counters.dials += 1
        bus.faults[2] = 71.0
        await clock.advance(10)
    assert tray.found[1].count(0) == n_good
    assert set(tray.found[0]) == {0}
    assert [device for device, *_ in tray.told] == [1]


def test_what_is_told_before_there_is_a_pipeline_is_held_with_its_time():
    held, tray = Held(), Tray()
    held.tell(3, "model_code", quality.BAD_CONFIGURATION_ERROR, "text", 17)
    held.hand_over(tray)
    held.tell(4, "model_code", 0, "again", 18)
    assert tray.told == [(3, "model_code", quality.BAD_CONFIGURATION_ERROR, "text"), (4, "model_code", 0, "again")]


def test_an_expected_point_that_no_read_of_the_device_holds_is_told():
    wide = Point("code", "holding", 5, "uint32")
    found = build.device("d", [build.tag(NAMED[2])], points=(NAMED[2], wide), expect=(Expected("code", (1.0,)),))
    assert plan(build.gateway([found])).errors == ()
    errors = plan(build.gateway([replace(found, max_registers=1)])).errors
    assert errors == ("device 'd': point 'code' takes 2 registers, wanted at most max_registers = 1",)


async def test_the_simulator_shows_the_model_of_a_device_that_does_not_read_it_and_another_by_a_fault():
    code = next(point for point in EM24.points if point.name == "model_code")
    spec = build.gateway([em24(link="skid")], links=[LinkSpec("skid", "tcp", "127.0.0.1", 0)])
    swapped = Fault("stuck_high", "swapped", "em24-1", "model_code", 10.0, 5.0, parameters={"value": 71.0})
    hand = HandClock()
    async with (
        Fleet(meters([spec]), script=FaultScript((swapped,)), clock=hand.clock()) as fleet,
        connect(fleet.ports["skid"]) as client,
    ):
        found = []
        for hand.s in (0.0, 12.0, 16.0):
            found.append(await client.number(code))
    assert found == [1648.0, 71.0, 1648.0]


@pytest.mark.parametrize("pattern", ["PM51*", "*", "?", "a[bc]d", "[!0]x", "[!0-9]*", "EM24-?[]x]", "plain"])
def test_a_simulated_meter_finds_a_text_for_every_pattern(pattern):
    assert fnmatchcase(like(pattern), pattern)
