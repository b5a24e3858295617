"""Time as the gateway sees it: schedules on the monotonic clock, stamps on the wall clock, and whether to trust it."""

from __future__ import annotations

import asyncio
import ctypes
import time
from functools import cache
from typing import Final, Literal, Protocol

NS: Final = 1_000_000_000
ClockState = Literal["synced", "unsynced", "unknown"]


class Clock(Protocol):
    """What tells and waits; passed in, so that a test of an hour takes a millisecond."""

    def monotonic_ns(self) -> int:
        """Return a time that never goes back and never jumps."""
        ...

    def wall_ns(self, monotonic_ns: int) -> int:
        """Return the Unix time of a moment on the monotonic clock."""
        ...

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Return at that moment, at once if it has passed."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def wall_ns(self, monotonic_ns: int) -> int:
        """Return the Unix time of a moment, by the offset between both clocks as it is now."""
        return time.time_ns() - time.monotonic_ns() + monotonic_ns

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Let others run, and sleep until that moment: a loop's timer may fire a little early."""
        await asyncio.sleep(max(0, monotonic_ns - time.monotonic_ns()) / NS)
        if time.monotonic_ns() < monotonic_ns:
            await self.sleep_until(monotonic_ns)


class _Timex(ctypes.Structure):
    # adjtimex(2); only `modes` is written (0: read only), the rest is room for the kernel's answer
    _fields_ = (("modes", ctypes.c_int), ("offset", ctypes.c_long), ("rest", ctypes.c_byte * 512))


TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # each one makes classes that only the collector gets rid of


def clock_state() -> ClockState:
    """Return whether the kernel believes the wall clock is synchronised (adjtimex)."""
    try:
        status = _libc().adjtimex(ctypes.byref(_Timex()))
    except (OSError, AttributeError):
        return "unknown"
    if status < 0:
        return "unknown"
    return "unsynced" if status == TIME_ERROR else "synced"
