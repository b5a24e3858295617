"""A rig of simulated meters: the Fleet in a thread of its own, so that a test may wait while meters answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, TypeVar

from drivers.sim.device import MeterSpec
from drivers.sim.faults import FaultScript
from drivers.sim.fleet import Fleet

T = TypeVar("T")
CALL_S: Final = 30.0


class Loop:
    """An event loop in a thread, for as long as the context lasts."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bench", daemon=True)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin work and return at once."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work and return its result."""
        return self.start(work).result(CALL_S)

    def __enter__(self) -> Loop:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)
        self._loop.close()


class Simulated:
    """Simulated meters on ports that the kernel chooses; `ports` maps link to port once it is entered."""

    def __init__(self, loop: Loop, meters: Iterable[MeterSpec], script: FaultScript) -> None:
        self._loop = loop
        self._meters = [
            meter if meter.link.transport == "rtu" else replace(meter, link=replace(meter.link, port=0))
            for meter in meters
        ]
        self._script = script
        self._over: asyncio.Event
        self._serving: Future[None]
        self._fleet: Fleet
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Simulated:
        """Open every endpoint; raises SimError."""
        ready: Future[None] = Future()
        self._serving = self._loop.start(self._serve(ready))
        self._serving.add_done_callback(lambda done: None if ready.done() else ready.set_exception(_why(done)))
        ready.result(CALL_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up everywhere."""
        self._loop.call(self._end())
        self._serving.result(CALL_S)

    async def _serve(self, ready: Future[None]) -> None:
        self._over = asyncio.Event()
        async with Fleet(self._meters, script=self._script) as self._fleet:
            self.ports = self._fleet.ports
            ready.set_result(None)
            await self._over.wait()

    async def _end(self) -> None:
        self._over.set()

    def cut(self, link: str) -> None:
        """Drop the link's connections and stop listening; a bus: unplug its adapter."""
        self._loop.call(self._fleet.cut(link))

    def restore(self, link: str) -> None:
        """Listen again."""
        self._loop.call(self._fleet.restore(link))

    def silence(self, device: str) -> None:
        """Let a device answer nothing."""
        self._loop.call(_later(self._fleet.silence, device))

    def wake(self, device: str) -> None:
        """Let a device answer again."""
        self._loop.call(_later(self._fleet.wake, device))

    def pin(self, device: str, tag: str, value: float | None) -> None:
        """Make a meter show this value, None: NaN or its sentinel."""
        self._loop.call(_later(self._fleet.set_value, device, tag, value))

    def faulty(self) -> set[str]:
        """Return the devices that the bench's script reaches."""
        return {fault.device for fault in self._script.faults}


async def _later(action: Any, *arguments: Any) -> None:
    action(*arguments)


def _why(done: Future[None]) -> BaseException:
    return done.exception() or RuntimeError("the meters ended before they began")
