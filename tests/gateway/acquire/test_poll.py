"""Polling keeps its grid whatever happens, and one dead unit does not cost its neighbours."""

import asyncio
import contextlib
import itertools
from collections import Counter

import numpy as np

from drivers import quality
from drivers.blocks import Block
from drivers.errors import DeviceException, LinkDown, NoAnswer, TargetAway, WrongAnswer
from drivers.link import LinkCounters
from drivers.points import Point
from gateway.acquire.plan import plan
from gateway.acquire.poll import Identity, Poller
from tests.gateway import build
from tests.gateway.clock import FakeClock

SECOND = 1_000_000_000


class Bus:
    """A link in virtual time: answers after delay_s, or raises what is set for a unit."""

    def __init__(self, clock, delay_s=0.01):
        self.clock, self.delay_s, self.faults, self.asked = clock, delay_s, {}, Counter()
        self.state, self.counters, self.blocks = "up", LinkCounters(), []

    async def read(self, unit, block):
        self.asked[unit] += 1
        self.blocks.append((self.clock.monotonic_ns(), block))
        fault = self.faults.get(unit)
        wait_s = 1.0 if isinstance(fault, NoAnswer) else self.delay_s
        await self.clock.sleep_until(self.clock.monotonic_ns() + round(wait_s * SECOND))
        if isinstance(fault, Exception):
            raise fault
        if callable(fault):
            fault(block)
        return bytes(block.n_bytes)

    async def close(self):
        pass


class Tray:
    """Takes what a poller hands on."""

    def __init__(self):
        self.frames, self.failed, self.payloads, self.strings, self.scans = [], [], [], {}, []

    def put(self, read, payload):
        self.payloads.append((read.device, read.block.start, payload))

    def fail(self, read, found):
        self.failed.append((read.device, read.block.start, found))

    def identify(self, device, name, text):
        self.strings[name] = text

    def doubtful(self, scan, now_ns):
        return np.zeros(0, np.int32)

    def finish(self, scans, since, began_ns, ended_ns):
        for scan, due_ns in zip(scans, since, strict=True):
            self.frames.append((scan.device, due_ns, began_ns, ended_ns))
            self.scans.append((scan.period_s, due_ns))


@contextlib.asynccontextmanager
async def polling(devices, identities=()):
    clock = FakeClock()
    made = plan(build.gateway(devices))
    bus, tray = Bus(clock), Tray()
    poller = Poller(bus, made.devices, identities, tray, clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(poller.run(clock.monotonic_ns()))
        yield clock, bus, tray, poller
        task.cancel()


def devices(n, points=4):
    tags = [build.tag(p) for p in build.registers(points)]
    return [build.device(f"d{i}", tags, unit=i + 1) for i in range(n)]


async def test_the_grid_never_drifts():
    async with polling(devices(1)) as (clock, bus, tray, poller):
        bus.delay_s = 0.37
        await clock.advance(3600)
    due = [due for _, due, *_ in tray.frames]
    assert [b - a for a, b in itertools.pairwise(due)] == [SECOND] * (len(due) - 1)
    assert len(due) in (3600, 3601)
    assert (poller.counters.skipped, poller.counters.late) == (0, 0)


async def test_late_polls_are_skipped_and_counted_never_queued():
    async with polling(devices(1)) as (clock, bus, tray, poller):
        bus.delay_s = 2.5
        await clock.advance(100.5)
    assert poller.counters.due == poller.counters.done + poller.counters.skipped + 1  # one is on its way
    assert (poller.counters.skipped, poller.counters.late) == (60, 40)
    assert all((due - tray.frames[0][1]) % SECOND == 0 for _, due, *_ in tray.frames)
    assert all(began - due < SECOND for _, due, began, _ in tray.frames)


async def test_a_dead_unit_on_a_bus_costs_one_timeout_a_back_off():
    async with polling(devices(10)) as (clock, bus, tray, _poller):
        bus.faults[3] = NoAnswer()
        await clock.advance(600)
    healthy = Counter(device for device, *_ in tray.frames)
    assert bus.asked[3] <= 5 + 600 / 60
    assert min(n for device, n in healthy.items() if device != 2) >= 0.95 * 600
    found = [q for number, _, q in tray.failed if number == 2]
    assert set(found) == {quality.BAD_TIMEOUT}  # one event at the start: a probe that fails again tells nothing new


async def test_a_dead_unit_costs_no_second_timeout_for_its_texts():
    identity = Identity(2, 3, (Point("text", "holding", 200, "string4"),), ((Block(3, 200, 2),),))
    async with polling(devices(10), [identity]) as (clock, bus, _tray, _poller):
        bus.faults[3] = NoAnswer()
        await clock.advance(5)
        assert bus.asked[3] == 1
        await clock.advance(595)
    assert bus.asked[3] <= 5 + 600 / 60


async def test_a_unit_that_only_answers_wrongly_rests_too_and_is_found_again():
    async with polling(devices(10)) as (clock, bus, tray, _poller):
        bus.faults[3] = WrongAnswer()
        await clock.advance(600)
        asked = bus.asked[3]
        assert asked <= 3 + 3 + 600 / 60 + 1  # polls at first, probes at 5, 10, 20 and 40 s, then every 60 s
        assert {found for device, _, found in tray.failed if device == 2} == {quality.BAD_COMMUNICATION_ERROR}
        del bus.faults[3]
        await clock.advance(65)
        heard = bus.asked[3]
        await clock.advance(10)
        assert bus.asked[3] == heard + 10


async def test_a_wrong_answer_that_cost_most_of_a_time_out_lets_the_unit_rest_at_once():
    async with polling(devices(2)) as (clock, bus, _tray, _poller):
        bus.delay_s = 0.6
        bus.faults[1] = WrongAnswer()
        await clock.advance(4.5)
        assert bus.asked[1] == 1
        assert bus.asked[2] == 5  # at 0.6 s, then in time


async def test_two_damaged_polls_in_a_row_cost_a_unit_nothing_more():
    async with polling(devices(2)) as (clock, bus, _tray, _poller):
        await clock.advance(0.5)  # between two polls
        for _ in range(10):
            bus.faults[1] = WrongAnswer()
            await clock.advance(2)
            del bus.faults[1]
            await clock.advance(1)
    assert bus.asked[1] == 31


async def test_a_device_on_its_own_connection_is_tried_every_period():
    async with polling(devices(1)) as (clock, bus, tray, _poller):
        bus.faults[1] = NoAnswer()
        await clock.advance(20)
        bus.faults.clear()
        before = len(tray.payloads)
        await clock.advance(2.5)
    assert bus.asked[1] >= 10
    assert len(tray.payloads) - before >= 2


async def test_a_lost_link_backs_nobody_off():
    async with polling(devices(5)) as (clock, bus, tray, _poller):
        bus.faults = dict.fromkeys(range(1, 6), LinkDown())
        await clock.advance(60)
        bus.faults.clear()
        before = Counter(device for device, *_ in tray.frames)
        asked = dict(bus.asked)
        await clock.advance(2)
    assert all(bus.asked[unit] > asked[unit] for unit in range(1, 6))
    assert len(before) == 5


async def test_an_exception_to_one_read_leaves_the_others():
    tags = [
        build.tag(p) for p in (*build.registers(2), *[Point(f"w{i}", "holding", 50 + i, "uint16") for i in range(2)])
    ]

    def refuse(block):
        if block.start == 50:
            raise DeviceException(4)

    async with polling([build.device("d", tags)]) as (clock, bus, tray, _poller):
        bus.faults[1] = refuse
        await clock.advance(3.5)
    assert {(start, q) for _, start, q in tray.failed} == {(50, quality.BAD_DEVICE_FAILURE)}
    assert {start for _, start, _ in tray.payloads} == {0}


async def test_silence_fails_every_read_of_the_scan_after_one_timeout():
    tags = [
        build.tag(p) for p in (*build.registers(2), *[Point(f"w{i}", "holding", 50 + i, "uint16") for i in range(2)])
    ]
    async with polling([build.device("d", tags)]) as (clock, bus, tray, _poller):
        bus.faults[1] = NoAnswer()
        await clock.advance(1.5)
    assert bus.asked[1] == 2  # the second poll is on its way
    assert [(start, q) for _, start, q in tray.failed] == [(0, quality.BAD_TIMEOUT), (50, quality.BAD_TIMEOUT)]


async def test_strings_are_read_at_start_and_once_an_hour():
    text = Point("serial", "holding", 200, "string4")
    identity = Identity(0, 1, (text,), ((Block(3, 200, 2),),))
    async with polling(devices(1), [identity]) as (clock, bus, tray, _poller):
        await clock.advance(5.5)
        polls = len(tray.frames)
        assert bus.asked[1] == polls + 1
        assert tray.strings == {"serial": ""}
        await clock.advance(3600)
    assert bus.asked[1] == len(tray.frames) + 2


async def test_period_zero_polls_flat_out_but_never_spins_on_a_dead_link():
    tags = [build.tag(p, period_s=0.0) for p in build.registers(2)]
    async with polling([build.device("d", tags)]) as (clock, bus, _tray, _poller):
        await clock.advance(1.0)
        fast = bus.asked[1]
        bus.faults[1], bus.delay_s = LinkDown(), 0.0
        await clock.advance(10)
    assert fast >= 90
    assert bus.asked[1] - fast <= 12


async def test_strings_of_a_device_that_was_away_at_the_start_come_within_two_minutes_of_its_return():
    text = Point("serial", "holding", 200, "string4")
    identity = Identity(0, 1, (text,), ((Block(3, 200, 2),),))
    async with polling(devices(3), [identity]) as (clock, bus, tray, _poller):
        bus.faults[1] = NoAnswer()
        await clock.advance(300)
        assert bus.asked[1] <= 2 * (5 + 300 / 60)
        bus.faults.clear()
        await clock.advance(120)
    assert tray.strings == {"serial": ""}


def two_classes(**fields):
    tags = [build.tag(p, period_s=5.0 if i % 2 else 1.0) for i, p in enumerate(build.registers(10))]
    return build.device("d", tags, **fields)


async def test_scans_that_meet_are_read_together_and_each_keeps_its_grid():
    async with polling([two_classes()]) as (clock, bus, tray, _poller):
        await clock.advance(59.9)
    assert Counter(block.count for _, block in bus.blocks) == {9: 48, 10: 12}
    assert Counter(period_s for period_s, _ in tray.scans) == {1.0: 60, 5.0: 12}
    for period_s in (1.0, 5.0):
        due = [at for each, at in tray.scans if each == period_s]
        assert {b - a for a, b in itertools.pairwise(due)} == {round(period_s * SECOND)}


async def test_scans_that_meet_only_because_they_are_late_are_read_together_too():
    tags = [build.tag(p, period_s=1.0 if i % 2 else 1.5) for i, p in enumerate(build.registers(4))]
    async with polling([build.device("d", tags)]) as (clock, bus, _tray, _poller):
        bus.delay_s = 0.7  # asked at 0 s until 0.7 s, at 1 s until 1.7 s, at 1.7 s with what was due at 1.5 s
        await clock.advance(2.2)
    began = [at // 100_000_000 for at, _ in bus.blocks]
    assert [at - began[0] for at in began] == [0, 10, 17]


async def test_a_unit_that_its_gateway_cannot_reach_rests_like_a_silent_one():
    async with polling(devices(3)) as (clock, bus, tray, _poller):
        bus.faults[2] = TargetAway(11)
        await clock.advance(600)
    assert bus.asked[2] <= 5 + 600 / 60
    assert {q for device, _, q in tray.failed if device == 1} == {quality.BAD_NO_COMMUNICATION}
    assert len([1 for device, *_ in tray.frames if device == 1]) >= 599  # its tags are told to be bad each period


async def test_a_poll_that_is_due_already_sleeps_no_more():
    async with polling(devices(4)) as (clock, bus, _tray, poller):
        slept = []
        original = clock.sleep_until

        async def sleep_until(at_ns):
            slept.append(at_ns)
            await original(at_ns)

        clock.sleep_until = sleep_until
        bus.delay_s = 0.3
        await clock.advance(30)
    assert poller.counters.late > 10  # always late, so there is nothing to wait for but answers
    assert len(slept) <= bus.asked.total() + 4
