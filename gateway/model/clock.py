"""Time as the gateway sees it: schedules on the monotonic clock, stamps on the wall clock, and whether to trust it."""

from __future__ import annotations

import asyncio
import ctypes
import time
from functools import cache
from typing import Final, Literal, Protocol

NS: Final = 1_000_000_000
STEP_NS: Final = NS // 2  # more at once is a step of the wall clock, not its discipline (RELIABILITY section 6)
SLEW_NS: Final = 100_000  # less is not followed: far below the uncertainty of a poll, and offsets that rest store well
LOOK_NS: Final = NS  # how often the wall clock is looked at
STAMP_NS: Final = 1_000  # stamps are whole microseconds
EPOCH_NS: Final = 1_793_491_200 * NS  # 1 November 2026: no gateway of this version has run before
ClockState = Literal["synced", "holdover", "unsynced", "unknown"]


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


class WallClock(Clock, Protocol):
    """A clock that also knows how far its wall time is to be trusted."""

    @property
    def state(self) -> ClockState:
        """Whether the wall clock is synchronised; holdover: it was."""
        ...

    @property
    def offset_s(self) -> float:
        """By how much the machine's wall clock is ahead of what wall_ns says."""
        ...

    def not_before(self, wall_ns: int) -> None:
        """Let time go on from a stamp that was given already, while nobody knows better."""
        ...

    def news(self) -> list[str]:
        """Return what happened to the wall clock since this was asked last."""
        ...


class SystemClock:
    """The machine's clocks.

    The wall time is the monotonic time and an offset, which follows the machine's wall clock where that is disciplined,
    and its steps only where the kernel says that it is synchronised: whoever sets a clock that nobody has checked
    moves no stamp. The first synchronisation is a step that is followed, and so is the time that the machine slept, for
    which the monotonic clock stands.
    """

    def __init__(self) -> None:
        self._offset_ns = _machine_offset_ns()
        self._ahead_ns = 0
        self._asleep_ns = _asleep_ns()
        self._looked_ns = time.monotonic_ns()
        self._state: ClockState = clock_state()
        self._news: list[str] = []
        if self._state == "unsynced":
            self._news.append("the clock is not synchronised: stamps may be wrong")
            self.not_before(EPOCH_NS)

    @property
    def state(self) -> ClockState:
        """Whether the kernel believes that the wall clock is synchronised; holdover: it did."""
        return self._state

    @property
    def offset_s(self) -> float:
        """By how much the machine's wall clock is ahead of what wall_ns says: steps that were not followed."""
        return self._ahead_ns / NS

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def wall_ns(self, monotonic_ns: int) -> int:
        """Return the Unix time of a moment, by the offset between both clocks as it is now."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            self._look(_machine_offset_ns(), clock_state())
        return self._offset_ns + monotonic_ns

    def not_before(self, wall_ns: int) -> None:
        """Let time go on from a stamp that was given already, unless the kernel knows better."""
        behind_ns = wall_ns - (self._offset_ns + time.monotonic_ns())
        if behind_ns > 0 and self._state == "unsynced":
            forward_ns = -(-behind_ns // STAMP_NS) * STAMP_NS
            self._offset_ns += forward_ns
            self._ahead_ns -= forward_ns
            self._news.append(f"the clock is {behind_ns / NS:.0f} s behind the last stamp: time goes on from there")

    def news(self) -> list[str]:
        """Return what happened to the wall clock since this was asked last."""
        found, self._news = self._news, []
        return found

    async def sleep_until(self, monotonic_ns: int) -> None:
        """Let others run, and sleep until that moment: a loop's timer may fire a little early."""
        await asyncio.sleep(max(0, monotonic_ns - time.monotonic_ns()) / NS)
        if time.monotonic_ns() < monotonic_ns:
            await self.sleep_until(monotonic_ns)

    def _look(self, machine_ns: int, state: ClockState) -> None:
        """Follow the machine's wall clock as far as it is to be believed."""
        if state == "unsynced" and self._state in ("synced", "holdover"):
            state = "holdover"
        if state != self._state:
            self._news.append(f"the clock is {state}, it was {self._state}")
        self._state = state
        asleep_ns = _asleep_ns()
        if (slept_ns := asleep_ns - self._asleep_ns) >= STEP_NS:
            self._asleep_ns = asleep_ns
            self._offset_ns += slept_ns // STAMP_NS * STAMP_NS
            self._news.append(f"the machine slept for {slept_ns / NS:.1f} s")
        ahead_ns = machine_ns - self._offset_ns
        if abs(ahead_ns) >= STEP_NS and state not in ("synced", "unknown"):
            if abs(ahead_ns - self._ahead_ns) >= STEP_NS:
                self._news.append(
                    f"the machine's clock was moved to {ahead_ns / NS:+.1f} s while it was not synchronised: "
                    "stamps do not follow it"
                )
            self._ahead_ns = ahead_ns
            return
        self._ahead_ns = 0
        if abs(ahead_ns) >= STEP_NS:
            how = "" if ahead_ns > 0 else "; stamps wait until it has caught up"
            self._news.append(f"the clock was set by {ahead_ns / NS:+.1f} s{how}")
        if abs(ahead_ns) >= SLEW_NS:
            self._offset_ns = machine_ns


def _machine_offset_ns() -> int:
    """Return the machine's wall clock less its monotonic clock, in whole microseconds."""
    before = time.monotonic_ns()
    wall = time.time_ns()
    return (wall - (before + time.monotonic_ns()) // 2) // STAMP_NS * STAMP_NS


def _asleep_ns() -> int:
    """Return for how long the machine has slept since it was started: only CLOCK_BOOTTIME goes on then."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


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
