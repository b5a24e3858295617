"""A counter's glitch on the wire: read again before its frame is finished, never booked, told once."""

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import replace

from drivers.errors import IllegalAddress, NoAnswer
from drivers.link import LinkCounters
from drivers.points import Point
from drivers.quality import BAD_DATA_UNAVAILABLE
from gateway.acquire.acquisition import Held
from gateway.acquire.plan import plan
from gateway.acquire.poll import Poller
from gateway.alarm.engine import AlarmEngine
from gateway.alarm.journal import Journal
from gateway.pipeline import Pipeline
from gateway.spool.memory import MemorySpool
from gateway.wire.frame_lines import scan_texts
from tests.gateway import build
from tests.gateway.clock import FakeClock
from tests.gateway.test_pipeline import Lane, taken

TOTAL = Point("energy", "holding", 0, "uint32", kind="counter", unit="kWh", max_rate=10.0)


class Meter:
    """A link to counters that rise by 5 a second; `wrong` holds what the next reads show instead."""

    def __init__(self, clock):
        self.clock, self.wrong, self.asked = clock, [], 0
        self.state, self.counters = "up", LinkCounters()

    async def read(self, unit, block):
        self.asked += 1
        shown = self.wrong.pop(0) if self.wrong else 1000 + 5 * (self.clock.monotonic_ns() // 1_000_000_000)
        if isinstance(shown, Exception):
            raise shown
        return int(shown).to_bytes(4, "big") * (block.n_bytes // 4)


@asynccontextmanager
async def polled(folder, *points, meter=Meter, **fields):
    clock = FakeClock()
    made = plan(build.gateway([build.device("m", [build.tag(p) for p in points or (TOTAL,)], **fields)]))
    spool = MemorySpool(1_000_000, "c", scan_texts(made.table))
    journal = Journal(folder)
    pipeline = Pipeline(made.table, spool, AlarmEngine(made.table), journal, Lane(), clock)
    meter = meter(clock)
    poller = Poller(meter, made.devices, (), pipeline, clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(poller.run(clock.monotonic_ns()))
        await clock.advance(5)

        async def seconds(n):
            await clock.advance(n)
            await taken(pipeline)

        yield seconds, meter, spool, journal
        task.cancel()


def booked(spool):
    return [float(f.value[0]) if not f.quality[0] else None for f in spool._frames.values()]


def told(journal):
    out = []
    while event := journal.next():
        out.append((event.reason, event.raw))
        journal.sent(event)
    return out


async def test_one_wrong_answer_is_never_booked(tmp_path):
    async with polled(tmp_path) as (seconds, meter, spool, journal):
        before = meter.asked
        meter.wrong = [0]
        await seconds(3)
        assert meter.asked == before + 3 + 1
        values = booked(spool)
        assert None not in values
        assert all(0 < b - a <= 10 for a, b in itertools.pairwise(values))
        assert [reason for reason, _ in told(journal)] == ["CounterGlitch"]


async def test_a_reset_is_booked_once_confirmed_and_told_with_its_registers(tmp_path):
    async with polled(tmp_path) as (seconds, meter, spool, journal):
        meter.wrong = [7, 7, 12]
        await seconds(2)
        assert booked(spool)[-2:] == [7, 12]
        assert told(journal) == [("CounterReset", "00000007")]


async def test_a_doubt_that_nobody_answers_is_bad_and_what_comes_next_goes_on(tmp_path):
    async with polled(tmp_path) as (seconds, meter, spool, _journal):
        meter.wrong = [0, NoAnswer()]
        await seconds(2)
        assert booked(spool)[-2] is None
        assert booked(spool)[-1] > 1000


async def test_two_wrong_answers_are_bad_and_say_why(tmp_path):
    async with polled(tmp_path) as (seconds, meter, spool, journal):
        meter.wrong = [0, 3_000_000]
        await seconds(1)
        assert int(list(spool._frames.values())[-1].quality[0]) == BAD_DATA_UNAVAILABLE
        assert told(journal) == [("BadDataUnavailable", "002dc6c0")]
        await seconds(1)
        assert booked(spool)[-1] > 1000


class Refusing(Meter):
    """Refuses reads of more than `most` registers."""

    most = 125

    async def read(self, unit, block):
        if block.count > self.most:
            raise IllegalAddress(2)
        return await super().read(unit, block)


async def test_what_surgery_brought_is_read_again_too(tmp_path):
    more = [replace(TOTAL, name=f"energy{i}", address=a) for i, a in enumerate((52, 50))]
    async with polled(tmp_path, TOTAL, *more, meter=Refusing) as (seconds, meter, spool, _journal):
        true = int(list(spool._frames.values())[-1].value[0]) + 5
        meter.wrong, meter.most = [true, 0], 2  # the counter that stands alone, then one that stood with another
        await seconds(2)
        assert meter.wrong == []
        assert all(value > 0 for f in spool._frames.values() for value in f.value)


async def test_a_counter_with_side_effects_is_not_read_again_and_the_next_poll_decides(tmp_path):
    async with polled(tmp_path, side_effects=(TOTAL,)) as (seconds, meter, spool, _journal):
        before = meter.asked
        meter.wrong = [0]
        await seconds(2)
        assert meter.asked == before + 2
        assert booked(spool)[-2] is None
        assert booked(spool)[-1] > 1000
        meter.wrong = [7, 12]
        await seconds(2)
        assert booked(spool)[-2:] == [None, 12]


async def test_a_poll_under_way_when_the_pipeline_comes_is_not_lost():
    held, calls = Held(), []
    read = object()
    held.put(read, b"1")

    class Next:
        def __getattr__(self, name):
            return lambda *given: calls.append((name, *given))

    held.hand_over(Next())
    held.put(read, b"2")
    held.finish(["scan"], [0], 1, 2)
    assert calls == [("put", read, b"1"), ("put", read, b"2"), ("finish", ["scan"], [0], 1, 2)]
