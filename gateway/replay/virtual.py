"""An event loop in virtual time: where everybody waits, the clock goes to the next timer at once."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any, Final

START_S: Final = 1000.0  # a machine that has been up for a while: 0 means "never" to those who keep times


class Deadlock(RuntimeError):
    """Everybody waits, and nobody for a time."""


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: a time-out passes by being counted."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, having let `timeout` pass; raises Deadlock where that would be for ever."""
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Deadlock("every task waits, and none for a time")
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """For asyncio.Runner(loop_factory=VirtualLoop): tasks that only sleep and talk to each other, in no time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self._jumping.now_s


def run(main: Any) -> Any:
    """Run a coroutine to its end in virtual time and return what it returns."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
