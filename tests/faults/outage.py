"""A whole gateway in virtual time, from the decode to the publisher: for outages of hours and days.

It is the gateway of `corridor run` on a real loop; only its clock is moved by hand, and what its meters answer is laid
before it without a wire. So polls, commits, tidying, detectors, alarms and drops happen when they would, and a day
passes in a minute. Device, stamp and values of a frame follow from its number:

    frame q of boot 1 is of meter k = (q - 1) % n, and its poll (q - 1) // n; their moments are Plant.times_ns(k, ...)
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from drivers.link import LinkSpec
from drivers.points import Point
from drivers.quality import BAD_TIMEOUT
from drivers.sim.device import MeterSpec
from drivers.sim.history import History
from gateway.acquire.acquisition import Acquisition
from gateway.acquire.plan import plan
from gateway.app import Gateway, catalog_of
from gateway.capture import recorder
from gateway.model.clock import NS, STAMP_NS
from gateway.model.corridor import MqttSpec
from gateway.spool.disk import DiskSpool
from gateway.wire.frame_lines import scan_texts
from tests.gateway import build

BEGAN_NS: Final = 1000 * NS  # on the monotonic clock: a machine that has been up for a while
ORIGIN_NS: Final = 1_764_000_000 * NS  # of the first poll; days from then are still in the past for every ingest
READ_NS: Final = 10_000_000  # from the middle of a read to its ends
LATE_NS: Final = 100_000  # by which a timer is late
AT_ONCE: Final = 600  # polls whose values are made at a time: half a megabyte for ten meters
SLEEPERS: Final = 4  # of a gateway at rest: commit, tidy, captures, and what detectors have learnt
LIVE_STEP_S: Final = 0.02  # in which time passes while meters are polled in real time
TOLD_NS: Final = 10 * NS  # how often the gateway says how it is
SETTLED_S: Final = 90.0  # until the detectors of a new gateway are loaded; a minute where they have to be compiled
IDLE_LOOK_S: Final = 60.0  # of the recorder: without a wire there is nothing to capture
AWAY_POLLS: Final = 3  # in a row that a meter does not answer: an alarm begins and ends
POINTS: Final = (
    ("voltage_l1_n", "V", 0.1), ("voltage_l2_n", "V", 0.1), ("voltage_l3_n", "V", 0.1),
    ("current_l1", "A", 0.001), ("current_l2", "A", 0.001), ("current_l3", "A", 0.001),
    ("power_active_total", "W", 0.1), ("power_reactive_total", "var", 0.1), ("power_factor_total", "", 0.001),
    ("frequency", "Hz", 0.001),
)  # fmt: skip


class HandClock:
    """Virtual time: it passes in `pass_to` alone, and waits there for everybody whom it wakes."""

    def __init__(self) -> None:
        self.state, self.offset_s = "synced", 0.0
        self._now_ns = BEGAN_NS
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._slept = asyncio.Event()
        self._is_over = False

    def monotonic_ns(self) -> int:
        return self._now_ns

    def wall_ns(self, monotonic_ns: int) -> int:
        return monotonic_ns - BEGAN_NS + ORIGIN_NS

    def not_before(self, wall_ns: int) -> None:
        assert wall_ns <= self.wall_ns(self._now_ns)

    def news(self) -> list[str]:
        return []

    async def sleep_until(self, monotonic_ns: int) -> None:
        if self._is_over:
            await asyncio.sleep((monotonic_ns - self._now_ns) / NS)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (monotonic_ns, next(self._numbers), woken))
        self._slept.set()
        await woken

    async def everybody(self, n: int) -> None:
        """Wait until so many sleep."""
        while len(self._sleepers) < n:
            self._slept.clear()
            await self._slept.wait()

    async def pass_to(self, monotonic_ns: int) -> None:
        """Let time pass: who is to be woken up to then does what he has to, one after the other, and sleeps again."""
        while self._sleepers[0][0] <= monotonic_ns:
            n = len(self._sleepers)
            when_ns, _, woken = heapq.heappop(self._sleepers)
            self._now_ns = max(self._now_ns, when_ns + LATE_NS)
            woken.set_result(None)
            await self.everybody(n)
        self._now_ns = max(self._now_ns, monotonic_ns)

    def end(self) -> None:
        """Let everybody who is not asleep yet sleep in real time: the gateway is about to end."""
        self._is_over = True


@dataclass(frozen=True)
class Plant:
    """So many meters of ten values each, polled in turn, and what they show.

    away_every  polls after which each has no answer for some again; one after the other
    """

    n: int
    period_s: float = 1.0
    away_every: int = 4800

    def meters(self) -> list[MeterSpec]:
        """Return the meters."""
        points = tuple(
            Point(name, "input", 2 * i, "int32", unit=unit, scale=scale) for i, (name, unit, scale) in enumerate(POINTS)
        )
        bus = LinkSpec("bus0", "tcp", "127.0.0.1", 0)
        return [MeterSpec(f"d{k}", bus, k + 1, "", points) for k in range(self.n)]

    def period_ns(self) -> int:
        """Return the time from one poll of a meter to its next."""
        return round(self.period_s * NS)

    def offset_ns(self, k: int) -> int:
        """Return how long after the first meter the k-th is polled: all of them within a second."""
        return min(self.period_ns(), NS) * k // self.n // STAMP_NS * STAMP_NS

    def times_ns(self, k: int, first: int, last: int) -> NDArray[np.int64]:
        """Return the stamps of polls first..last-1 of a meter."""
        return ORIGIN_NS + self.offset_ns(k) + self.period_ns() * np.arange(first, last, dtype=np.int64)

    def is_away(self, k: int, first: int, last: int) -> NDArray[np.bool_]:
        """Return which polls first..last-1 of a meter have no answer."""
        turns = self.away_every // AWAY_POLLS
        turn: NDArray[np.bool_] = np.arange(first, last) // AWAY_POLLS % turns == turns * (k + 1) // (self.n + 1)
        return turn

    def values(self, history: History, k: int, first: int, last: int) -> NDArray[np.float64]:
        """Return what a meter shows at polls first..last-1, float64[polls, values]."""
        mine = range(k * len(POINTS), (k + 1) * len(POINTS))
        return history.block(self.times_ns(k, first, last) / NS, mine)

    def history(self) -> History:
        """Return the world of the meters."""
        return History(self.meters(), seed=1, origin_s=ORIGIN_NS / NS)

    def answers(self, history: History, first: int, last: int) -> list[NDArray[np.int32]]:
        """Return the registers of every meter at polls first..last-1, big-endian int32[polls, values]."""
        per_unit = np.array([round(1 / scale) for _, _, scale in POINTS])
        return [np.rint(self.values(history, k, first, last) * per_unit).astype(">i4") for k in range(self.n)]


class Outage:
    """One gateway from its start to its end: it polls in no time, or as everybody does; see `running`."""

    def __init__(self, plant: Plant, gateway: Gateway, clock: HandClock, spool: DiskSpool) -> None:
        self.plant, self.gateway, self.spool = plant, gateway, spool
        self.polls = 0
        self.passed: Callable[[], None] = lambda: None  # called after every second of virtual time
        self._clock = clock
        self._history = plant.history()
        devices = gateway.plan.devices
        self._reads = [one.due(one.all_scans).reads for one in devices]
        self._told_ns = 0

    @property
    def frames(self) -> int:
        """How many frames there are so far."""
        return self.polls * self.plant.n

    async def hurry(self, polls: int) -> None:
        """Poll every meter so often, in no time."""
        for moment_ns, answers in self._rounds(polls):
            for k, answer in enumerate(answers):
                self._poll(k, answer, moment_ns + self.plant.offset_ns(k))
            self.gateway.pipeline.settle()
            await self.idle(moment_ns + self.plant.period_ns() - LATE_NS)

    async def live(self, is_over: Callable[[], bool]) -> None:
        """Poll in real time until `is_over`, once at least; every meter as often as the first."""
        loop = asyncio.get_running_loop()
        began_s = loop.time() - (self._clock.monotonic_ns() - BEGAN_NS) / NS
        rounds = self._rounds(None)
        while True:
            moment_ns, answers = next(rounds)
            for k, answer in enumerate(answers):
                due_ns = moment_ns + self.plant.offset_ns(k)
                while self._clock.monotonic_ns() < due_ns:
                    await self._step(began_s)
                self._poll(k, answer, due_ns)
            while self._clock.monotonic_ns() < moment_ns + self.plant.period_ns() - LATE_NS:
                if is_over():
                    return
                await self._step(began_s)

    async def _step(self, began_s: float) -> None:
        """Let real time pass for a moment; began_s is when virtual time would have begun."""
        await asyncio.sleep(LIVE_STEP_S)
        now_ns = BEGAN_NS + round((asyncio.get_running_loop().time() - began_s) * NS)
        await self._clock.pass_to(max(now_ns, self._clock.monotonic_ns()))

    async def idle(self, until_ns: int) -> None:
        """Let time pass without a poll, in no time."""
        while (now_ns := self._clock.monotonic_ns()) < until_ns:
            await self._clock.pass_to(min(until_ns, now_ns + NS))
            if self._clock.monotonic_ns() >= self._told_ns:
                self._told_ns = self._clock.monotonic_ns() + TOLD_NS
                self.gateway.health()
            self.passed()

    async def rest(self, seconds: float) -> None:
        """Let so much time pass after the last poll, in no time."""
        self.gateway.pipeline.settle()
        await self.idle(self._clock.monotonic_ns() + round(seconds * NS))

    def _rounds(self, polls: int | None) -> Iterator[tuple[int, list[bytes | None]]]:
        """Yield the moment of each poll of the first meter from here on, and the registers of all; None: no answer."""
        plant, end = self.plant, math.inf if polls is None else self.polls + polls
        while self.polls < end:
            first, last = self.polls, int(min(end, self.polls + AT_ONCE))
            answers = plant.answers(self._history, first, last)
            away = [plant.is_away(k, first, last) for k in range(plant.n)]
            for i in range(last - first):
                self.polls += 1
                yield (
                    BEGAN_NS + plant.period_ns() * (first + i),
                    [None if away[k][i] else answers[k][i].tobytes() for k in range(plant.n)],
                )

    def _poll(self, k: int, answers: bytes | None, moment_ns: int) -> None:
        pipeline = self.gateway.pipeline
        for read in self._reads[k]:
            if answers is None:
                pipeline.fail(read, BAD_TIMEOUT)
            else:
                pipeline.put(read, answers)
        scan = self.gateway.plan.table.scans[k]
        pipeline.finish([scan], [moment_ns], moment_ns - READ_NS, moment_ns + READ_NS)


@contextlib.asynccontextmanager
async def running(plant: Plant, folder: Path, port: int, max_bytes: int) -> AsyncIterator[Outage]:
    """Run a gateway; it has polled nothing yet, its detectors are loaded, and it looks for its broker."""
    devices = [
        build.device(meter.name, [build.tag(p, period_s=plant.period_s) for p in meter.points], unit=meter.unit)
        for meter in plant.meters()
    ]
    mqtt = MqttSpec((f"mqtt://127.0.0.1:{port}",), None, None)
    made = plan(build.gateway(devices, mqtt=mqtt, spool_max_bytes=max_bytes))
    clock, catalog = HandClock(), catalog_of(made)
    acquisition = Acquisition(made, clock)
    acquisition.origin_ns = BEGAN_NS
    spool = DiskSpool(folder / "spool", max_bytes, catalog.catalog, scan_texts(made.table))
    gateway = Gateway(made, folder, acquisition, spool, clock, catalog, lambda line: None)
    stop = asyncio.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "LOOK_S", IDLE_LOOK_S)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(gateway.run(stop))
            await asyncio.wait_for(clock.everybody(SLEEPERS), SETTLED_S)
            try:
                yield Outage(plant, gateway, clock, spool)
            finally:
                clock.end()
                stop.set()
                await running
                await acquisition.close()
