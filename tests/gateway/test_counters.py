"""A counter's glitch on the wire: read again before its frame is finished, never booked, told once."""

import asyncio
import itertools
from contextlib import asynccontextmanager

from drivers.errors import NoAnswer
from drivers.link import LinkCounters
from drivers.points import Point
from drivers.quality import BAD_DATA_UNAVAILABLE
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
    """A link to one counter that rises by 5 a second; `wrong` holds what the next reads show instead."""

    def __init__(self, clock):
        self.clock, self.wrong, self.asked = clock, [], 0
        self.state, self.counters = "up", LinkCounters()

    async def read(self, unit, block):
        self.asked += 1
        shown = self.wrong.pop(0) if self.wrong else 1000 + 5 * (self.clock.monotonic_ns() // 1_000_000_000)
        if isinstance(shown, Exception):
            raise shown
        return int(shown).to_bytes(4, "big")


@asynccontextmanager
async def polled(folder, point=TOTAL):
    clock = FakeClock()
    made = plan(build.gateway([build.device("m", [build.tag(point)])]))
    spool = MemorySpool(1_000_000, "c", scan_texts(made.table))
    journal = Journal(folder)
    pipeline = Pipeline(made.table, spool, AlarmEngine(made.table), journal, Lane(), clock)
    meter = Meter(clock)
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
