"""What a gateway would have decoded from the simulated meters, in virtual time: columns of values, and no socket.

The same world, quantities, registers and faults as in a Fleet, asked for many moments at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.encode import can_be_absent, codec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.faults import Fault, FaultScript, FaultsError, Running, distort
from drivers.sim.physics import Quantity, quantities
from drivers.sim.plants.place import World
from drivers.sim.signals import key_of, uniform
from drivers.sim.truth import Injected

BLOCK_ROWS: Final = 3600  # a block of one column then stays in the processor's cache
MUTE: Final = frozenset({"silent", "exception", "cut", "refuse"})
SPOILT: Final = frozenset({"garbage", "hostile"})  # a right reader takes none of these answers

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """One column of a history: a numeric point of a device."""

    device: str
    point: Point
    quantity: Quantity

    @property
    def tag(self) -> str:
        """The point's name."""
        return self.point.name

    @property
    def kind(self) -> str:
        """What kind of point it is: gauge, counter, state."""
        return self.point.kind


class History:
    """The values of simulated meters at any time from the origin on.

    columns     what the columns of a block are
    seed, origin_s, operations  as of World: the same give the same values as a Fleet that began at the origin
    script      faults and anomalies, relative to the origin. What one of them shows may hang on what was shown
                before it, so with a script blocks are asked for in the order of time.
    Raises FaultsError for a script that does not fit the meters.
    """

    def __init__(
        self,
        meters: Iterable[MeterSpec],
        *,
        seed: int = 1,
        origin_s: float,
        script: FaultScript | None = None,
        operations: bool = False,
    ) -> None:
        self.meters = tuple(meters)
        self._script = script or FaultScript()
        if wrong := self._script.check(self.meters):
            raise FaultsError(wrong)
        self.world = World(seed, origin_s, operations=operations)
        self.columns = tuple(_series(self.world, self.meters))
        self._link_of = {meter.name: meter.link.name for meter in self.meters}
        self._running: dict[int, Running] = {}
        self._last: dict[int, float] = {}

    def block(self, times_s: Times, only: Sequence[int] | None = None) -> Times:
        """Return the value of every column at each time, float64[r, n]; NaN where the meter shows or says none.

        times_s  Unix seconds, not before the origin;  only  the numbers of the columns wanted, in this order; None: all
        """
        times_s = np.ascontiguousarray(times_s, np.float64)
        wanted = range(len(self.columns)) if only is None else only
        out = np.empty((len(wanted), len(times_s)))
        if not len(times_s):
            return out.T
        t = np.round(times_s - self.world.origin_s, 6)  # what the Fleet counts, without the noise of the subtraction
        going_on = [(i, n) for i, fault in enumerate(self._script.faults) if (n := _occurrences(fault, t)).any()]
        mute: dict[str, NDArray[np.bool_]] = {}
        for row, number in zip(out, wanted, strict=True):
            series = self.columns[number]
            healthy: Any = series.quantity.at(times_s)  # type: ignore[arg-type]
            if np.ndim(healthy) == 0:
                healthy = np.full(len(t), float(healthy))
            row[:] = codec(series.point).served_column(healthy)
            if not going_on:
                continue
            if series.device not in mute:
                mute[series.device] = self._mute(series.device, going_on, t)
            self._distort(number, row, healthy, t, going_on, mute[series.device])
        return out.T

    def blocks(
        self, begin_s: float, end_s: float, period_s: float = 1.0, only: Sequence[int] | None = None
    ) -> Iterator[tuple[Times, Times]]:
        """Yield times and values from begin (Unix seconds) up to, not including, end."""
        n = math.ceil((end_s - begin_s) / period_s - 1e-9)
        for first in range(0, n, BLOCK_ROWS):
            times_s: Times = begin_s + period_s * np.arange(first, min(first + BLOCK_ROWS, n), dtype=np.float64)
            yield times_s, self.block(times_s, only)

    def injected(self, end_s: float) -> list[Injected]:
        """Return what the script does that begins before end (Unix seconds), by its begin."""
        out = []
        origin_ns, span_s = round(self.world.origin_s * 1e9), end_s - self.world.origin_s
        for fault in self._script.faults:
            n = 0
            while (begins_s := fault.begins(n)) < span_s:
                start_ns = origin_ns + round(begins_s * 1e9)
                end_ns = origin_ns + round((begins_s + fault.duration_s) * 1e9)
                out.append(Injected(fault.kind, fault.name, fault.device, fault.tag, start_ns, end_ns))
                n += 1
                if fault.every_s is None:
                    break
        return sorted(out, key=lambda one: one.start_ns)

    def _mute(self, device: str, going_on: list[tuple[int, NDArray[np.int64]]], t: Times) -> NDArray[np.bool_]:
        """Return when the device gives no answer that can be used, bool[r]."""
        out = np.zeros(len(t), np.bool_)
        for i, occurrence in going_on:
            fault = self._script.faults[i]
            if fault.reach == "link":
                is_reached = self._link_of[fault.device] == self._link_of[device]
            else:
                is_reached = fault.device == device
            if not is_reached:
                continue
            if fault.kind in MUTE:
                out |= occurrence > 0
            elif fault.kind in SPOILT:
                key, share = key_of(self.world.seed, fault.name, device), fault.parameter("share") or 0.0
                draws: Any = uniform(key, (t * 1000.0).astype(np.int64))  # type: ignore[arg-type]
                out |= (occurrence > 0) & (draws < share)
        return out

    def _distort(
        self,
        number: int,
        row: Times,
        healthy: Times,
        t: Times,
        going_on: list[tuple[int, NDArray[np.int64]]],
        mute: NDArray[np.bool_],
    ) -> None:
        """Let the faults of one column happen to it, in the order of the script."""
        series, faults = self.columns[number], self._script.faults
        mine = [(i, occurrence) for i, occurrence in going_on if _hits(faults[i], series)]
        if mine:
            encoder, last = codec(series.point), self._last.get(number, math.nan)
            hit, before = np.any([occurrence > 0 for _, occurrence in mine], axis=0), 0
            for k in np.flatnonzero(hit & ~mute).tolist():
                shown_before = row[before:k][~mute[before:k]]
                last = float(shown_before[-1]) if shown_before.size else last
                value: float | None = float(healthy[k])
                for i, occurrence in mine:
                    if occurrence[k] and value is not None:
                        running = self._run(i, int(occurrence[k]) - 1)
                        shown = None if math.isnan(last) else last
                        value = distort(running, series.point, value, series.quantity.sigma, float(t[k]), shown)
                served = encoder.served_value(encoder.encode(value))
                row[k] = last = served if isinstance(served, float) else math.nan
                before = k + 1
        if any(_hits(fault, series) for fault in faults) and not mute.all():
            self._last[number] = float(row[~mute][-1])
        row[mute] = math.nan

    def _run(self, i: int, n: int) -> Running:
        running = self._running.get(i)
        if running is None or running.n != n:
            fault = self._script.faults[i]
            running = self._running[i] = Running(fault, n, fault.begins(n))
        return running


def _series(world: World, meters: Iterable[MeterSpec]) -> Iterator[Series]:
    for meter in meters:
        found = quantities(world, meter)
        for point in meter.points:
            if point.name in found:
                yield Series(meter.name, point, found[point.name])


def _hits(fault: Fault, series: Series) -> bool:
    """Return whether a fault changes what a column shows, as Fleet does it."""
    if fault.device != series.device:
        return False
    return fault.tag == series.tag if fault.tag else fault.kind == "nan" and can_be_absent(series.point)


def _occurrences(fault: Fault, t: Times) -> NDArray[np.int64]:
    """Return 1 + which occurrence is going on at each time, 0 when none is; the column of Fault.occurrence."""
    since = t - fault.start_s
    n = np.zeros(len(t), np.int64) if fault.every_s is None else np.floor(since / fault.every_s).astype(np.int64)
    inside = since - n * (fault.every_s or 0.0)
    return np.where((n >= 0) & (inside >= 0.0) & (inside < fault.duration_s), n + 1, 0)
