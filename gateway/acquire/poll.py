"""One task per link: reads its scans on an absolute grid and hands every answer on; the only await of the hot path."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers import quality
from drivers.blocks import Block
from drivers.decode import decode_text
from drivers.errors import (
    SILENCES,
    DriverError,
    IllegalAddress,
    LinkDown,
    Silence,
    UnexpectedModel,
    Unidentified,
    WrongAnswer,
)
from drivers.link import Link, Reader
from drivers.points import Point
from gateway.acquire.device import DevicePlan, Due
from gateway.acquire.probe import Probes
from gateway.acquire.proven import Proven
from gateway.acquire.scan_list import Listed
from gateway.acquire.sink import Sink
from gateway.acquire.surgery import Surgery
from gateway.model.clock import NS, Clock
from gateway.model.frame import Read

BACKOFF_FIRST_S: Final = 5.0  # DESIGN section 2: a dead unit on a shared bus is probed at 5 s, doubling to 60 s
BACKOFF_CAP_S: Final = 60.0
MISHEARD_POLLS: Final = 3  # in a row: a damaged answer or two happen on a noisy line, and the next poll is good
COSTLY_SHARE: Final = 0.5  # of the time-out: a poll that took longer and brought nothing has cost as much as a silence
FLAT_OUT_REST_NS: Final = NS  # period 0 and nobody there: one attempt a second, as the link dials
EARLY_REST_NS: Final = NS // 20
FRUITLESS_NS: Final = 60 * NS  # as the longest back-off: a device that refuses whatever it is asked
IDENTITY_PERIOD_NS: Final = 3600 * NS  # strings are read at start and once an hour
IDENTITY_RETRY_NS: Final = 60 * NS  # of a device that was away: as often as the longest back-off


@dataclass(slots=True)
class PollCounters:
    """What became of the polls: due = done + skipped, and what is due now; late ones were begun over a period late."""

    due: int = 0
    done: int = 0
    late: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """The string points of one device and the reads that fetch each."""

    device: int
    unit: int
    points: tuple[Point, ...]
    blocks: tuple[tuple[Block, ...], ...]


class _Station:
    """One device on the line: when its scans are due, and whether it may be asked.

    reader      what answers for it: the link, or one that first makes sure who is there
    listed      what its scan list shows, None without one
    slots       when each scan is due next, monotonic ns
    asks_at_ns  until then it rests: a dead unit on a shared bus, another meter than expected on any link; `pause_s` is
                how long it would rest next
    silence     the quality of its tags meanwhile
    misheard    polls since it was last heard that brought nothing but wrong answers, or not what it is
    divides_at_ns  until then a device that answers nothing keeps its refused reads whole
    """

    __slots__ = (
        "asks_at_ns", "divides_at_ns", "listed", "misheard", "pause_s", "periods_ns", "plan", "probes", "reader",
        "silence", "slots", "unit",
    )  # fmt: skip

    def __init__(self, plan: DevicePlan, reader: Reader, origin_ns: int, now_ns: int) -> None:
        self.plan = plan
        self.reader = reader
        self.listed = Listed(plan, plan.device.scan_list, reader) if plan.device.scan_list else None
        self.unit = plan.device.unit
        self.periods_ns = [round(scan.period_s * NS) for scan in plan.scans]
        self.slots = [
            _on_grid(origin_ns + round(scan.phase_s * NS), period_ns, now_ns)
            for scan, period_ns in zip(plan.scans, self.periods_ns, strict=True)
        ]
        self.asks_at_ns = 0
        self.pause_s = BACKOFF_FIRST_S
        self.silence = quality.BAD_TIMEOUT
        self.misheard = 0
        self.divides_at_ns = 0
        self.probes = Probes(plan, max(origin_ns, now_ns))

    def take(self, now_ns: int, counters: PollCounters) -> tuple[int, list[int]]:
        """Return the mask of the scans that are due, and since when; a poll a whole period late is skipped."""
        mask, since = 0, []
        for i, due_ns in enumerate(self.slots):
            if due_ns > now_ns:
                continue
            mask |= 1 << i
            counters.due += 1
            if period_ns := self.periods_ns[i]:
                missed = (now_ns - due_ns) // period_ns
                if missed:
                    counters.due += missed
                    counters.skipped += missed
                    counters.late += 1
                    due_ns += missed * period_ns
                self.slots[i] = due_ns + period_ns
                since.append(due_ns)
            else:
                self.slots[i] = now_ns
                since.append(now_ns)
        return mask, since

    def rest_flat_out(self, until_ns: int) -> None:
        """Let the scans without a period wait: nobody is there."""
        for i, period_ns in enumerate(self.periods_ns):
            if not period_ns:
                self.slots[i] = until_ns

    def heard(self) -> None:
        """Take note that it answers."""
        self.asks_at_ns, self.pause_s, self.misheard = 0, BACKOFF_FIRST_S, 0

    def hear_wrong(self, began_ns: int, ended_ns: int, found: int) -> None:
        """Let it rest too where it makes no sense for long: doubts and tries cost the line as much as a time-out."""
        self.misheard += 1
        is_costly = ended_ns - began_ns > COSTLY_SHARE * self.plan.link.timeout_s * NS
        if is_costly or self.misheard >= MISHEARD_POLLS:
            self.unheard(ended_ns, found)

    def unheard(self, now_ns: int, found: int) -> None:
        """Let it rest: asking it costs its neighbours."""
        self.asks_at_ns = now_ns + round(self.pause_s * NS)
        self.pause_s = min(2 * self.pause_s, BACKOFF_CAP_S)
        self.silence = found


def _on_grid(slot_ns: int, period_ns: int, now_ns: int) -> int:
    """Return the moment of a grid that has just passed, or its first one: who comes later begins at once."""
    late_ns = max(0, now_ns - slot_ns)
    return slot_ns + (late_ns // period_ns * period_ns if period_ns else late_ns)


_Turn = tuple[int, int, "_Station | Identity"]  # when it is due, monotonic ns; its place, which decides between equals


@dataclass(slots=True)
class Poller:
    """The devices of one link and their grid.

    is_early  there is no pipeline yet: whoever polls flat out would take the processor from what makes it
    due_ns    when it polls next, or should have begun to: monotonic ns
    turns     how often it has polled or asked for strings, answered or not
    is_asleep  until then: its task may be cancelled and begun again, and nothing is lost
    """

    link: Link
    plans: Sequence[DevicePlan]
    identities: Sequence[Identity]
    sink: Sink
    clock: Clock
    counters: PollCounters = field(default_factory=PollCounters)
    is_early: bool = False
    due_ns: int = 0
    turns: int = 0
    is_asleep: bool = False
    _origin_ns: int = 0
    _grid: list[_Turn] = field(default_factory=list)
    _stations: dict[int, _Station] = field(default_factory=dict)
    _is_laid_out: bool = False

    def turn_to(self, plans: Sequence[DevicePlan], identities: Sequence[Identity]) -> None:
        """Take other devices from the next poll on; those whose plan is the same object keep their place on the grid.

        Of one that is asleep the task has to be begun again: it may have to wake up sooner.
        """
        self.plans, self.identities, self._is_laid_out = plans, identities, False

    def _lay_out(self) -> None:
        """Put everything to be asked on the grid; what stood there keeps its time, what is new begins now."""
        now_ns = self.clock.monotonic_ns()
        asked = {what: due_ns for due_ns, _, what in self._grid if isinstance(what, Identity)}
        known = {station.plan: station for station in self._stations.values()}
        stations = [
            known.get(plan) or _Station(plan, self._reader(plan), self._origin_ns, now_ns) for plan in self.plans
        ]
        self._stations = {station.plan.number: station for station in stations}
        self._grid = [(min(each.slots), i, each) for i, each in enumerate(stations)]
        first_ns = max(self._origin_ns, now_ns)
        self._grid += [(asked.get(each, first_ns), len(stations) + i, each) for i, each in enumerate(self.identities)]
        heapq.heapify(self._grid)
        self._is_laid_out = True

    async def run(self, origin_ns: int) -> None:
        """Poll for ever; `origin_ns` is the monotonic moment from which every grid is counted. May be begun again.

        Slot k of a scan is due at origin + phase + k * period, whatever happened before: no drift. The scans of a
        device that are due when its turn comes are read together. A poll that is a whole period late is skipped and
        counted, never queued.
        """
        self._origin_ns = origin_ns
        answered = False
        while True:
            if not self._is_laid_out:
                self._lay_out()
            grid = self._grid
            is_shared = len(self._stations) > 1
            due_ns, i, what = grid[0]
            self.due_ns = due_ns
            now_ns = self.clock.monotonic_ns()
            if due_ns > now_ns or not answered:  # a read that was answered has let others run
                self.is_asleep = True
                await self.clock.sleep_until(due_ns)
                self.is_asleep = False
                now_ns = self.clock.monotonic_ns()
            if isinstance(what, Identity):
                answered = await self._identify(what, self._stations.get(what.device))
                heapq.heapreplace(grid, (due_ns + (IDENTITY_PERIOD_NS if answered else IDENTITY_RETRY_NS), i, what))
                self.turns += 1
                continue
            station = what
            mask, since = station.take(now_ns, self.counters)
            due = station.plan.due(mask)
            is_resting = now_ns < station.asks_at_ns and (is_shared or station.silence == UnexpectedModel.quality)
            is_there = await self._poll(station, due, since, now_ns, is_resting=is_resting)
            answered = is_there and bool(due.reads)
            if not answered:
                station.rest_flat_out(now_ns + FLAT_OUT_REST_NS)
            elif self.is_early:
                station.rest_flat_out(now_ns + EARLY_REST_NS)
            if is_there and station.listed is not None and station.listed.is_wanted:
                await station.listed.look()
            if is_there and station.probes.is_due(now_ns):
                await self._probe(station)
            heapq.heapreplace(grid, (min(station.slots), i, station))
            self.turns += 1

    def _reader(self, plan: DevicePlan) -> Reader:
        """Return what answers for a device."""
        if not plan.device.expect:
            return self.link

        def tell(point: str, found: int, text: str) -> None:
            self.sink.tell(plan.number, point, found, text, self.clock.monotonic_ns())

        return Proven(self.link, plan.device, self.clock, tell)

    async def _identify(self, identity: Identity, station: _Station | None) -> bool:
        """Read the strings of a device and return whether it was there; what is not answered keeps what was known."""
        if station is not None and self.clock.monotonic_ns() < station.asks_at_ns:
            return False
        reader = self.link if station is None else station.reader
        for point, blocks in zip(identity.points, identity.blocks, strict=True):
            try:
                raw = b"".join([await reader.read(identity.unit, block) for block in blocks])
            except SILENCES as error:
                if station is not None and not isinstance(error, LinkDown | Unidentified):
                    station.unheard(self.clock.monotonic_ns(), error.quality)
                return False
            except DriverError:
                continue
            self.sink.identify(identity.device, point.name, decode_text(point, raw))
        return True

    async def _poll(self, station: _Station, due: Due, since: list[int], began_ns: int, *, is_resting: bool) -> bool:
        """Read what is due of one device and hand it on; returns whether nobody was missed."""
        sink, reader, unit = self.sink, station.reader, station.unit
        silent = station.silence if is_resting else 0  # as at the last probe: nothing new is known
        missed: Silence | None = None
        is_wrong = False
        good: list[Read] = []
        refused: list[tuple[Read, int]] = []
        listed: list[Read] = []
        if station.listed is not None and not silent:
            try:
                due, listed = await station.listed.bring(due, sink, good)
            except SILENCES as error:
                missed, silent = error, error.quality
        for read in due.refused:
            sink.fail(read, IllegalAddress.quality)
        for read in due.reads:
            if silent:
                sink.fail(read, silent)
                continue
            try:
                payload = await reader.read(unit, read.block)
            except SILENCES as error:
                missed, silent = error, error.quality  # who did not answer one read will not answer the next in time
                sink.fail(read, silent)
            except DriverError as error:
                sink.fail(read, error.quality)
                is_wrong = is_wrong or isinstance(error, WrongAnswer)
                if isinstance(error, IllegalAddress) and not read.is_once:
                    refused.append((read, error.code))
            else:
                sink.put(read, payload)
                good.append(read)
        if refused and not silent and (good or began_ns >= station.divides_at_ns):
            missed = await self._operate(station, due, refused, good)
        ended_ns = self.clock.monotonic_ns()
        for scan in due.scans if good else ():
            if not missed and (rows := sink.doubtful(scan, ended_ns)).size:
                missed = await self._confirm(sink, station, [*good, *listed], rows)
                ended_ns = self.clock.monotonic_ns()
        if missed and station.listed is not None:
            station.listed.forget()
        if isinstance(missed, Unidentified):
            station.hear_wrong(began_ns, ended_ns, missed.quality)  # busy for a moment, most likely
        elif missed and not isinstance(missed, LinkDown):
            station.unheard(ended_ns, missed.quality)
        elif is_wrong and not good:
            station.hear_wrong(began_ns, ended_ns, WrongAnswer.quality)
        elif good:
            station.heard()
        self.counters.done += len(due.scans)
        sink.finish(due.scans, since, began_ns, ended_ns)
        return not missed and not is_resting

    async def _confirm(
        self, sink: Sink, station: _Station, good: Sequence[Read], rows: NDArray[np.int32]
    ) -> Silence | None:
        """Read again what brought these rows, and return the silence that came between.

        What has side effects is not read again: the next poll decides.
        """
        for read in good:
            again = np.intersect1d(read.rows, rows)
            if read.is_once or not again.size:
                continue
            rows = np.setdiff1d(rows, again)
            sink.doubt(again)
            try:
                sink.put(read, await station.reader.read(station.unit, read.block))
            except SILENCES as error:
                sink.fail(read, error.quality)
                return error
            except DriverError as error:
                sink.fail(read, error.quality)
        return None

    async def _operate(
        self, station: _Station, due: Due, refused: list[tuple[Read, int]], good: list[Read]
    ) -> Silence | None:
        """Bring what can be brought of refused reads; returns the silence that came between.

        A device that answers nothing whatever is asked is left whole for a while: dividing costs two requests a tag.
        """
        surgery = Surgery(station.reader, station.plan, self.sink, good)
        await surgery.operate(due, refused)
        if not surgery.has_answers:
            station.divides_at_ns = self.clock.monotonic_ns() + FRUITLESS_NS
        return surgery.missed

    async def _probe(self, station: _Station) -> None:
        """Put one learnt fact to the test; what is answered is forgotten, and the next plan asks it."""
        fact = station.probes.take(self.clock.monotonic_ns())
        if fact is None:
            return
        try:
            await station.reader.read(station.unit, fact.block)
        except DriverError:
            return
        station.plan.learn(fact.without)
