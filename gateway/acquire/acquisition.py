"""All links of a gateway and the tasks that poll them; what they read before there is a pipeline is held, not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.link import Link
from drivers.modbus import open_link
from gateway.acquire.plan import Plan, text_blocks
from gateway.acquire.poll import Identity, PollCounters, Poller
from gateway.acquire.sink import Sink
from gateway.model.clock import NS, Clock
from gateway.model.frame import Read, Scan

START_DELAY_S: Final = 0.02  # from start to the first due time: every poller is waiting by then
CANCEL_AGAIN_S: Final = 0.1
HELD_BYTES: Final = 16_000_000  # of early answers: a minute of compiling at 100,000 values a second
HELD_EXTRA_BYTES: Final = 200  # what Python keeps beside each of them
NO_ROWS: Final = np.zeros(0, np.int32)


class Held:
    """Takes answers while there is no pipeline, in order; a Sink. Then passes on what polls under way still bring.

    dropped  polls for which there was no room
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._calls: list[Callable[[Sink], None]] = []
        self._bytes = 0
        self._next: Sink | None = None

    def put(self, read: Read, payload: bytes) -> None:
        """Hold the answer of a read."""
        self._hold(len(payload), lambda sink: sink.put(read, payload))

    def fail(self, read: Read, quality: int) -> None:
        """Hold that a read has no answer."""
        self._hold(0, lambda sink: sink.fail(read, quality))

    def identify(self, device: int, name: str, text: str) -> None:
        """Hold a string that a device told of itself."""
        self._hold(len(text), lambda sink: sink.identify(device, name, text))

    def tell(self, device: int, point: str, quality: int, text: str, now_ns: int) -> None:
        """Hold what was found out about a device."""
        self._hold(len(text), lambda sink: sink.tell(device, point, quality, text, now_ns))

    def doubtful(self, scan: Scan, now_ns: int) -> NDArray[np.int32]:
        """Return no rows: before the first decoded value there is nothing to doubt."""
        return NO_ROWS if self._next is None else self._next.doubtful(scan, now_ns)

    def doubt(self, rows: NDArray[np.int32]) -> None:
        """Pass on which rows are read again."""
        if self._next is not None:
            self._next.doubt(rows)

    def finish(self, scans: Sequence[Scan], since: Sequence[int], began_ns: int, ended_ns: int) -> None:
        """Hold that a poll is complete."""
        if self._bytes > HELD_BYTES:
            self.dropped += len(scans)
            return
        self._hold(0, lambda sink: sink.finish(scans, since, began_ns, ended_ns))

    def hand_over(self, sink: Sink) -> None:
        """Give everything to the pipeline, in the order in which it came."""
        for call in self._calls:
            call(sink)
        self._calls.clear()
        self._bytes = 0
        self._next = sink

    def _hold(self, n_bytes: int, call: Callable[[Sink], None]) -> None:
        if self._next is not None:
            call(self._next)
        elif self._bytes <= HELD_BYTES:
            self._bytes += n_bytes + HELD_EXTRA_BYTES
            self._calls.append(call)


async def end(tasks: Iterable[asyncio.Task[None]], again_s: float) -> None:
    """Cancel until the last task has ended: a library or a TaskGroup on the way may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)


class Acquisition:
    """The links of a plan and their pollers.

    links, polls  by the name of the link; what a link that is gone was counted stays
    pollers    of the links with devices
    origin_ns  the monotonic moment from which every grid is counted, once started
    """

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self.links: dict[str, Link] = {link.name: open_link(link) for link in plan.spec.links}
        self.polls = {link.name: PollCounters() for link in plan.spec.links}
        self.origin_ns = 0
        self._clock = clock
        self._held = Held()
        self._sink: Sink = self._held
        self._specs = plan.spec.links
        self.pollers = {name: self._poller(plan, name) for name in self.links if plan.of_link(name)}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retired: list[asyncio.Task[None]] = []  # of links that are given back
        self._closing: list[tuple[str, Link]] = []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Poll from now on."""
        self.origin_ns = self._clock.monotonic_ns() + round(START_DELAY_S * NS)
        self._group = tasks
        for name in self.pollers:
            self._run(name)

    def feed(self, sink: Sink) -> int:
        """Hand over what was read so far, and everything from now on; returns how many polls were dropped meanwhile."""
        self._sink = sink
        self._held.hand_over(sink)
        for poller in self.pollers.values():
            poller.sink = sink
            poller.is_early = False
        return self._held.dropped

    def turn_to(self, plan: Plan) -> None:
        """Poll what another plan says, without waiting for anything; `settle` has to follow.

        A link of the same specification keeps its connection, and a device of the same DevicePlan its grid. What is
        gone is asked nothing more, but for a poll under way on a link that stays.
        """
        before = {link.name: link for link in self._specs}
        self._specs = plan.spec.links
        now = {link.name: link for link in plan.spec.links}
        for name in [name for name, spec in before.items() if now.get(name) != spec]:
            self._retire(name)
            self._closing.append((name, self.links.pop(name)))
        for name, spec in now.items():
            devices = plan.of_link(name)
            if name not in self.links:
                self.links[name] = open_link(spec)
            self.polls.setdefault(name, PollCounters())
            known = self.pollers.get(name)
            if known is None and devices:
                self.pollers[name] = self._poller(plan, name)
            elif known is not None and not devices:
                self._retire(name)
                self._closing.append((name, self.links[name]))
            elif known is not None and list(known.plans) != devices:
                known.turn_to(devices, _identities(plan, name))
                if known.is_asleep:
                    self._tasks[name].cancel()
                    self._run(name)

    async def settle(self) -> None:
        """Close what is not used any more, then open what takes its place: many a meter has but one connection."""
        await end(self._retired, CANCEL_AGAIN_S)
        for name, link in self._closing:
            await link.close()
            counted = self.polls[name]
            counted.skipped += counted.due - counted.done - counted.skipped  # the poll that was under way
        self._retired, self._closing = [], []
        for name in self.pollers:
            if name not in self._tasks:
                self._run(name)

    async def stop(self) -> None:
        """Poll no more."""
        await end([*self._tasks.values(), *self._retired], CANCEL_AGAIN_S)

    async def close(self) -> None:
        """Give every endpoint back."""
        for link in [*self.links.values(), *(link for _, link in self._closing)]:
            await link.close()

    def _run(self, name: str) -> None:
        assert self._group is not None
        task = self._group.create_task(self.pollers[name].run(self.origin_ns), name=f"poll:{name}")
        self._tasks[name] = task

    def _retire(self, name: str) -> None:
        self.pollers.pop(name, None)
        if task := self._tasks.pop(name, None):
            task.cancel()
            self._retired.append(task)

    def _poller(self, plan: Plan, name: str) -> Poller:
        return Poller(
            self.links[name], plan.of_link(name), _identities(plan, name), self._sink, self._clock, self.polls[name],
            is_early=self._sink is self._held,
        )  # fmt: skip


def _identities(plan: Plan, link: str) -> list[Identity]:
    """Return what the devices of a link are asked for their strings."""
    return [
        Identity(one.number, d.unit, d.strings, tuple(text_blocks(p, d.max_registers) for p in d.strings))
        for one in plan.devices
        if (d := one.device).link == link and d.strings
    ]
