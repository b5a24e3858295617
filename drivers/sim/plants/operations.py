"""What people do every day and what is no anomaly: when it is done, for how long, and how fast it comes and goes.

    begin        lasts(n)         end
      |<-rise->|           |        |<-rise->|        cycle n, then quiet until cycle n + 1
    __/''''''''''''''''''''''''''''''\\_______

A world without operations has none of this. Days and hours are UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from drivers.sim import columns
from drivers.sim.plants.place import World
from drivers.sim.signals import DAY_S, Signal, cycles, ramp, uniform

HOUR_S: Final = 3600.0
EPOCH_WEEKDAY: Final = 3.0  # 1970-01-01 was a Thursday


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that was done: what, where, from when to when (Unix seconds)."""

    kind: str
    where: str
    start_s: float
    end_s: float


class Schedule:
    """One thing that is done about every period, each time for a while.

    jitter    share of the period by which a begin may be late
    lasts_s   shortest and longest time from begin to end; the longest ends before the next can begin
    by_day    only what begins between 7 and 17 on a working day is done
    """

    def __init__(
        self,
        world: World,
        kind: str,
        where: str,
        period_s: float,
        lasts_s: tuple[float, float],
        *,
        jitter: float = 0.5,
        by_day: bool = False,
    ) -> None:
        if lasts_s[1] > period_s * (1.0 - jitter):
            raise ValueError(f"{kind}: lasts up to {lasts_s[1]} s, the next may begin sooner")
        self.kind, self.where = kind, where
        self._key = world.key("operation", kind, where)
        self._period_s, self._jitter, self._lasts_s, self._by_day = period_s, jitter, lasts_s, by_day
        self.at = cycles(self._key, period_s, jitter)  # time -> cycle, seconds since it began
        world.schedules.append(self)

    def draw(self, n: int, which: int) -> float:
        """Return a number of cycle n within 0..1; `which` tells several apart."""
        return uniform(self._key + 16 + which, n)

    def lasts_s(self, n: int) -> float:
        """Return how long cycle n lasts."""
        return self._lasts_s[0] + (self._lasts_s[1] - self._lasts_s[0]) * uniform(self._key + 1, n)

    def is_done(self, n: int) -> Any:
        """Return 1 where cycle n is done at all, else 0."""
        if not self._by_day:
            return 1.0
        begin_s = (n + self._jitter * uniform(self._key, n)) * self._period_s
        hour = begin_s % DAY_S / HOUR_S
        return (hour >= 7.0) * (hour < 17.0) * (1.0 - is_weekend(begin_s))

    def during(self, t: float, rise_s: float) -> float:
        """Return 1 while it goes on, else 0; it comes and goes within `rise_s`."""
        n, since = self.at(t)
        return (ramp(since, rise_s) - ramp(since - self.lasts_s(n), rise_s)) * self.is_done(n)

    def done(self, begin_s: float, end_s: float) -> list[Operation]:
        """Return what is done and begins in a span, Unix seconds."""
        out, t = [], begin_s
        while t < end_s + self._period_s * (1.0 + self._jitter):
            n, since = self.at(t)
            if begin_s <= (start_s := t - since) < end_s and self.is_done(n):
                out.append(Operation(self.kind, self.where, start_s, start_s + self.lasts_s(n)))
            t += self._period_s / 8.0
        return sorted({round(one.start_s, 3): one for one in out}.values(), key=lambda one: one.start_s)


def operations_of(world: World, begin_s: float, end_s: float) -> list[Operation]:
    """Return every scheduled operation of the plants of a world that begins in a span, in order; it explains an alarm.

    What comes every few minutes (lifts, trains, trucks) and what the hour says (shifts, lights) is not in it.
    """
    found = [one for schedule in world.schedules for one in schedule.done(begin_s, end_s)]
    return sorted(found, key=lambda one: (one.start_s, one.kind, one.where))


def steps(schedule: Schedule, level: Callable[[int], float], rise_s: float) -> Signal:
    """Return a signal that stands at a level and goes to that of the next cycle when it begins."""

    def at(t: float) -> float:
        n, since = schedule.at(t)
        before = level(n - 1)
        return before + (level(n) - before) * ramp(since, rise_s)

    return at


def ramped(x: float, rise: float) -> float:
    """Return the integral of `ramp` from -infinity to x."""
    f = columns.within(x / rise, 0.0, 1.0)
    return rise * f * f * f * (1.0 - 0.5 * f) + columns.most(x - rise, 0.0)


def pulse(since: float, lasts_s: float, rise_s: float) -> float:
    """Return the integral of what comes at 0 and goes after `lasts_s`; in the end it is `lasts_s`."""
    return ramped(since, rise_s) - ramped(since - lasts_s, rise_s)


def is_weekend(t: float) -> Any:
    """Return 1 on Saturdays and Sundays, else 0."""
    return ((t - t % DAY_S) / DAY_S + EPOCH_WEEKDAY) % 7.0 >= 5.0


def weekend(t: float) -> float:
    """Return 1 at weekends, 0 on working days, and a smooth way between, from Friday evening to Monday morning."""
    days = ((t - t % DAY_S) / DAY_S + EPOCH_WEEKDAY) % 7.0 + t % DAY_S / DAY_S  # 0: Monday 0:00
    return ramp(days - 4.75, 0.5) + 1.0 - ramp(days, 0.25)


def people(t: float, edge_s: float = 2700.0) -> float:
    """Return the share of people at work: all from 7 to 17 on working days, few else."""
    since = t % DAY_S
    by_day = ramp(since - 6.5 * HOUR_S, edge_s) - ramp(since - 16.5 * HOUR_S, edge_s)
    return 0.1 + 0.9 * by_day * (1.0 - 0.85 * is_weekend(t))


def traffic(t: float) -> float:
    """Return the share of trains and trucks that run: few between 0:30 and 4:30, fewer at weekends."""
    hour = t % DAY_S / HOUR_S
    at_night = (hour >= 0.5) * (hour < 4.5)
    return (1.0 - 0.92 * at_night) * (0.95 - 0.25 * is_weekend(t))


BREAKS_H: Final = ((9.5, 10.0), (12.0, 12.75), (14.0, 14.25), (18.0, 18.5))


def is_shift(t: float) -> Any:
    """Return 1 while the quay works: 6 to 22 without the breaks, Saturdays to 14, Sundays not."""
    hour = t % DAY_S / HOUR_S
    day = ((t - t % DAY_S) / DAY_S + EPOCH_WEEKDAY) % 7.0
    on: Any = (hour >= 6.0) * (hour < columns.pick(day == 5.0, 14.0, 22.0)) * (day != 6.0)
    for begin, end in BREAKS_H:
        on = on * ((hour < begin) + (hour >= end))
    return on


class Visits:
    """People who come to a cabinet or hut by day, and open its door."""

    def __init__(self, world: World, site: str, asset: str) -> None:
        self.schedule = Schedule(
            world, "visit", f"{site}/{asset}", 30 * HOUR_S, (180.0, 1500.0), jitter=0.8, by_day=True
        )

    def door(self, t: float) -> float:
        """Return 1 while the door is open."""
        return columns.pick(self.schedule.during(t, 1.0) >= 0.5, 1.0, 0.0)


class BatteryTest:
    """A weekly test: the rectifier steps back, the battery carries the load for some minutes and is charged again."""

    CHARGE_S: Final = 2.5 * HOUR_S

    def __init__(self, world: World, site: str, asset: str) -> None:
        self.schedule = Schedule(world, "battery test", f"{site}/{asset}", 7 * DAY_S, (600.0, 1200.0), jitter=0.3)

    def on_battery(self, t: float) -> float:
        """Return 1 while the battery carries the load."""
        return self.schedule.during(t, 5.0)

    def taken_s(self, t: float) -> float:
        """Return how many seconds of load the battery lacks."""
        n, since = self.schedule.at(t)
        lasts_s = self.schedule.lasts_s(n)
        back = pulse(since - lasts_s - 60.0, self.CHARGE_S, 300.0) / self.CHARGE_S
        return pulse(since, lasts_s, 5.0) - lasts_s * back


class Timetable:
    """Which cycles of a line have a train, counted; trains rest at night."""

    BACK: Final = 400  # cycles before the origin that are known: the last train of the evening is among them

    def __init__(self, world: World, line: str, period_s: float) -> None:
        key = world.key("trains", line)
        self._key, self._period_s, self._cycle = key, period_s, cycles(key, period_s)
        self._first = self._cycle(world.origin_s)[0] - self.BACK
        self._n = 0
        self._know(2 * self.BACK)

    def _know(self, n: int) -> None:
        if n <= self._n:
            return
        k: Any = np.arange(self._first, self._first + n)
        begin_s = (k + 0.2 * uniform(self._key, k)) * self._period_s
        runs = uniform(self._key + 1, k) < traffic(begin_s)
        self._n, self._begin_s = n, begin_s
        self._last = np.maximum.accumulate(np.where(runs, np.arange(n), 0))
        self._count = np.cumsum(runs)

    def at(self, t: float) -> tuple[Any, Any, Any, Any]:
        """Return the last train, the one before it, the seconds since the last came, and how many came so far."""
        n: Any = self._cycle(t)[0] - self._first
        self._know((int(np.max(n)) // self.BACK + 2) * self.BACK)
        last = self._last[n]
        found = last, self._last[last - 1], t - self._begin_s[last], self._count[n] - self._count[self.BACK]
        return found if type(t) is columns.COLUMN else tuple(one.item() for one in found)
