"""Plays misbehaviours on one connection or bus, side by side with the requests that come meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from drivers.link import Transport
from drivers.sim.hostile import Door, Exchange, Step, steps, wire_of

MAX_PLAYS: Final = 64  # at work on one connection at a time; beyond that requests meet silence


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """How an exchange goes wrong: the way, its numbers (see Exchange) and the seed of what is random in it."""

    how: str
    delay_s: float = 0.0
    left_s: float = 0.0
    n: int = 0
    seed: int = 0


class Wire(Protocol):
    """What steps are played on."""

    def send(self, data: bytes) -> None:
        """Send bytes now; nothing happens once the wire is gone."""
        ...

    def end(self, how: Literal["close", "reset"]) -> None:
        """End the connection."""
        ...

    def receive_next(self, door: Door) -> None:
        """Receive connections like this from now on."""
        ...

    async def rest(self, seconds: float) -> None:
        """Wait, but not longer than the wire lives."""
        ...


class Stage:
    """What goes wrong on one connection or bus; plays are tasks of the group of whoever serves it."""

    def __init__(self, transport: Transport, wire: Wire, tasks: asyncio.TaskGroup) -> None:
        self._transport: Final = wire_of(transport)
        self._wire = wire
        self._tasks = tasks
        self._held: list[Iterator[Step]] = []
        self._n_plays = 0
        self._before: Exchange | None = None
        self.is_over = False

    def close(self) -> None:
        """Forget what waits; plays end by themselves at their next step."""
        self.is_over = True
        self._held.clear()

    def request(self) -> None:
        """Let what waits for a request happen, now that there is one."""
        held, self._held = self._held, []
        for rest in held:
            self._go(rest)

    def exchange(
        self, transaction: int, unit: int, request: bytes, answer: bytes | None, wrong: Misbehaviour | None
    ) -> None:
        """Note an exchange, and begin what goes wrong with it; answer: the right PDU, None when nobody answers."""
        if answer is None:
            return
        now = Exchange(self._transport, transaction, unit, request, answer, before=self._before)
        self._before = replace(now, before=None)
        if wrong is not None:
            now = replace(now, delay_s=wrong.delay_s, left_s=wrong.left_s, n=wrong.n, random=random.Random(wrong.seed))
            self.begin(steps(wrong.how, now))

    def begin(self, play: Iterable[Step]) -> None:
        """Play steps; those without a pause or a wait have happened when this returns."""
        self._go(iter(play))

    def _go(self, play: Iterator[Step]) -> None:
        for step in play:
            if self.is_over:
                return
            if step.waits or step.after_s > 0:
                self._put_off(step, play)
                return
            self._do(step)

    def _put_off(self, step: Step, play: Iterator[Step]) -> None:
        if self._n_plays + len(self._held) >= MAX_PLAYS:
            return
        if step.waits:
            self._held.append(itertools.chain((replace(step, waits=False),), play))
            return
        self._n_plays += 1
        self._tasks.create_task(self._later(step, play), name="sim:play")

    async def _later(self, step: Step, play: Iterator[Step]) -> None:
        try:
            await self._wire.rest(step.after_s)
        finally:
            self._n_plays -= 1
        if not self.is_over:
            self._do(step)
            self._go(play)

    def _do(self, step: Step) -> None:
        if step.door:
            self._wire.receive_next(step.door)
        if step.data:
            self._wire.send(step.data)
        if step.end:
            self._wire.end(step.end)
