"""One task per link: reads its scans on an absolute grid and hands every answer on; the only await of the hot path."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from drivers import quality
from drivers.blocks import Block
from drivers.decode import decode_text
from drivers.errors import DriverError, LinkDown, NoAnswer
from drivers.link import Link
from drivers.points import Point
from gateway.model.clock import NS, Clock
from gateway.model.frame import Scan

BACKOFF_FIRST_S: Final = 5.0  # DESIGN section 2: a dead unit on a shared bus is probed at 5 s, doubling to 60 s
BACKOFF_CAP_S: Final = 60.0
FLAT_OUT_REST_NS: Final = NS  # period 0 and nobody there: one attempt a second, as the link dials
IDENTITY_PERIOD_NS: Final = 3600 * NS  # strings are read at start and once an hour
IDENTITY_RETRY_NS: Final = 60 * NS  # of a device that was away: as often as the longest back-off


@dataclass(slots=True)
class PollCounters:
    """What became of the polls: due = done + skipped, and what is due now; late ones were begun over a period late."""

    due: int = 0
    done: int = 0
    late: int = 0
    skipped: int = 0


class Sink(Protocol):
    """What takes the answers of one poll: the pipeline."""

    def put(self, scan: Scan, k: int, payload: bytes) -> None:
        """Take the answer of the scan's block k."""
        ...

    def fail(self, scan: Scan, k: int, quality: int) -> None:
        """Take note that block k has no answer, and what its tags become."""
        ...

    def identify(self, device: int, name: str, text: str) -> None:
        """Take a string that a device told of itself."""
        ...

    def finish(self, scan: Scan, due_ns: int, began_ns: int, ended_ns: int) -> None:
        """The poll is complete; monotonic ns of when it was due, of the first request and of the last answer."""
        ...


@dataclass(slots=True)
class _Unit:
    """How a device on a shared bus has behaved: when it may be asked again, and how long the next pause would be."""

    asks_at_ns: int = 0
    pause_s: float = BACKOFF_FIRST_S


@dataclass(frozen=True, slots=True)
class Identity:
    """The string points of one device and the reads that fetch each."""

    device: int
    unit: int
    points: tuple[Point, ...]
    blocks: tuple[tuple[Block, ...], ...]


@dataclass(slots=True)
class Poller:
    """The scans of one link and their grid; `units` maps a device's number to its unit."""

    link: Link
    scans: Sequence[Scan]
    identities: Sequence[Identity]
    units: Mapping[int, int]
    sink: Sink
    clock: Clock
    counters: PollCounters = field(default_factory=PollCounters)

    async def run(self, origin_ns: int) -> None:
        """Poll for ever; `origin_ns` is the monotonic moment from which every grid is counted.

        Slot k of a scan is due at origin + phase + k * period, whatever happened before: no drift. A poll that is a
        whole period late is skipped and counted, never queued.
        """
        is_shared = len({scan.device for scan in self.scans}) > 1
        health: dict[int, _Unit] = {scan.device: _Unit() for scan in self.scans}
        grid = [(origin_ns + round(scan.phase_s * NS), i) for i, scan in enumerate(self.scans)]
        grid += [(origin_ns, len(self.scans) + i) for i in range(len(self.identities))]
        heapq.heapify(grid)
        while True:
            due_ns, i = grid[0]
            await self.clock.sleep_until(due_ns)
            if i >= len(self.scans):
                is_known = await self._identify(self.identities[i - len(self.scans)], health)
                heapq.heapreplace(grid, (due_ns + (IDENTITY_PERIOD_NS if is_known else IDENTITY_RETRY_NS), i))
                continue
            scan = self.scans[i]
            period_ns = round(scan.period_s * NS)
            now_ns = self.clock.monotonic_ns()
            if period_ns:
                missed = (now_ns - due_ns) // period_ns
                self.counters.due += 1 + missed
                self.counters.skipped += missed
                self.counters.late += missed > 0
                due_ns += missed * period_ns
                heapq.heapreplace(grid, (due_ns + period_ns, i))
                await self._poll(scan, due_ns, health[scan.device], is_shared)
            else:
                self.counters.due += 1
                answered = await self._poll(scan, now_ns, health[scan.device], is_shared)
                heapq.heapreplace(grid, (now_ns if answered else now_ns + FLAT_OUT_REST_NS, i))

    async def _identify(self, identity: Identity, health: Mapping[int, _Unit]) -> bool:
        """Read the strings of a device and return whether it was there; what is not answered keeps what was known."""
        unit = health.get(identity.device)
        if unit is not None and self.clock.monotonic_ns() < unit.asks_at_ns:
            return False
        for point, blocks in zip(identity.points, identity.blocks, strict=True):
            try:
                raw = b"".join([await self.link.read(identity.unit, block) for block in blocks])
            except (NoAnswer, LinkDown):
                return False
            except DriverError:
                continue
            self.sink.identify(identity.device, point.name, decode_text(point, raw))
        return True

    async def _poll(self, scan: Scan, due_ns: int, state: _Unit, is_shared: bool) -> bool:
        """Read the blocks of one scan and hand them on; returns whether the device was there."""
        began_ns = self.clock.monotonic_ns()
        is_resting = is_shared and began_ns < state.asks_at_ns
        silent: int | None = quality.BAD_TIMEOUT if is_resting else None  # as at the last probe: nothing new is known
        for k, block in enumerate(scan.blocks):
            if silent is not None:
                self.sink.fail(scan, k, silent)
                continue
            try:
                payload = await self.link.read(self.units[scan.device], block)
            except (NoAnswer, LinkDown) as error:
                silent = error.quality  # what did not answer one block will not answer the next in time
                self.sink.fail(scan, k, silent)
            except DriverError as error:
                self.sink.fail(scan, k, error.quality)
            else:
                self.sink.put(scan, k, payload)
        ended_ns = self.clock.monotonic_ns()
        if silent is None:
            state.asks_at_ns, state.pause_s = 0, BACKOFF_FIRST_S
        elif silent == quality.BAD_TIMEOUT and not is_resting:
            state.asks_at_ns = ended_ns + round(state.pause_s * NS)
            state.pause_s = min(2 * state.pause_s, BACKOFF_CAP_S)
        self.counters.done += 1
        self.sink.finish(scan, due_ns, began_ns, ended_ns)
        return silent is None
