"""Where a point stands and what it measures: the words that every plant uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from drivers.encode import codec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.signals import Signal, key_of

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class World:
    """Everything that the meters of one simulation share: seed, origin of all totals, plants seen by many meters.

    operations  whether operators work: pumps change over, tanks are filled, ships come, people rest at night
    schedules   what they do and when: each operations.Schedule of the plants that were asked for so far
    """

    seed: int
    origin_s: float
    operations: bool = False
    schedules: list[Any] = field(default_factory=list)
    _plants: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def key(self, *words: object) -> int:
        """Return the key of a signal of this world."""
        return key_of(self.seed, *words)

    def plant(self, kind: Callable[..., T], *words: object) -> T:
        """Return the one plant of this kind and name, built as kind(world, *words) when it is first asked for."""
        name = (kind, *words)
        if name not in self._plants:
            self._plants[name] = kind(self, *words)
        plant: T = self._plants[name]
        return plant


@dataclass(frozen=True, slots=True)
class Place:
    """One meter in the world. `words` is what its name and asset say about its use."""

    world: World
    meter: MeterSpec
    words: str

    def key(self, *words: object) -> int:
        """Return the key of a signal of this meter alone."""
        return self.world.key(self.meter.site, self.meter.name, *words)

    def is_called(self, words: Iterable[str]) -> bool:
        """Return whether one of these words begins a word of the meter's name or asset."""
        return any(re.search(rf"(?<![a-z]){word}", self.words) for word in words)


def place_of(world: World, meter: MeterSpec) -> Place:
    """Return the place of a meter."""
    return Place(world, meter, f"{meter.name} {meter.asset}".lower())


@dataclass(frozen=True, slots=True)
class Measured:
    """What a point measures.

    dimension  a row of DIMENSIONS; the signal is in its base unit
    sigma      instrument noise that is added to the signal, base unit
    still      a setting, status or identity: it does not move and carries no noise
    whole      a number of things: noise of the last digit would be nonsense
    """

    dimension: str
    signal: Signal
    sigma: float = 0.0
    still: bool = False
    whole: bool = False


Rule = tuple[re.Pattern[str], Callable[[Place, re.Match[str]], Measured]]


def rules(table: Mapping[str, Callable[[Place, re.Match[str]], Measured]]) -> Sequence[Rule]:
    """Return a table of patterns as rules; a pattern is searched in the point's name, the first match wins."""
    return [(re.compile(pattern), maker) for pattern, maker in table.items()]


# unit -> dimension, value in this unit = value in the base unit * factor + offset; the first of a dimension is its base
UNITS: Final[dict[str, tuple[str, float, float]]] = {
    "V": ("voltage", 1, 0), "kV": ("voltage", 1e-3, 0), "mV": ("voltage", 1e3, 0),
    "A": ("current", 1, 0), "mA": ("current", 1e3, 0), "kA": ("current", 1e-3, 0),
    "W": ("power", 1, 0), "kW": ("power", 1e-3, 0), "MW": ("power", 1e-6, 0),
    "var": ("reactive", 1, 0), "kvar": ("reactive", 1e-3, 0), "Mvar": ("reactive", 1e-6, 0),
    "VA": ("apparent", 1, 0), "kVA": ("apparent", 1e-3, 0), "MVA": ("apparent", 1e-6, 0),
    "Wh": ("energy", 1, 0), "kWh": ("energy", 1e-3, 0), "MWh": ("energy", 1e-6, 0),
    "varh": ("reactive_energy", 1, 0), "kvarh": ("reactive_energy", 1e-3, 0),
    "VAh": ("apparent_energy", 1, 0), "kVAh": ("apparent_energy", 1e-3, 0),
    "Hz": ("frequency", 1, 0), "mHz": ("frequency", 1e3, 0),
    "degC": ("temperature", 1, 0), "°C": ("temperature", 1, 0), "C": ("temperature", 1, 0),
    "K": ("temperature", 1, 273.15), "degF": ("temperature", 1.8, 32), "F": ("temperature", 1.8, 32),
    "bar": ("pressure", 1, 0), "barg": ("pressure", 1, 0), "bara": ("pressure", 1, 1.013), "mbar": ("pressure", 1e3, 0),
    "Pa": ("pressure", 1e5, 0), "hPa": ("pressure", 1e3, 0), "kPa": ("pressure", 100, 0), "MPa": ("pressure", 0.1, 0),
    "psi": ("pressure", 14.5038, 0), "template:bar": ("pressure", 1, 0),
    "m/s": ("speed", 1, 0), "km/h": ("speed", 3.6, 0), "kn": ("speed", 1.94384, 0),
    "m3/h": ("flow", 1, 0), "m3/s": ("flow", 1 / 3600, 0), "l/s": ("flow", 1 / 3.6, 0), "l/min": ("flow", 1000 / 60, 0),
    "kg/s": ("mass_flow", 1, 0), "kg/h": ("mass_flow", 3600, 0), "t/h": ("mass_flow", 3.6, 0),
    "kg/m3": ("density", 1, 0), "g/cm3": ("density", 1e-3, 0), "kg/l": ("density", 1e-3, 0),
    "kg": ("mass", 1, 0), "t": ("mass", 1e-3, 0),
    "m": ("length", 1, 0), "mm": ("length", 1e3, 0), "cm": ("length", 100, 0), "km": ("length", 1e-3, 0),
    "m3": ("volume", 1, 0), "l": ("volume", 1e3, 0), "Nm3": ("volume", 1, 0),
    "%": ("share", 1, 0), "deg": ("angle", 1, 0), "°": ("angle", 1, 0),
    "s": ("time", 1, 0), "min": ("time", 1 / 60, 0), "h": ("time", 1 / 3600, 0), "ms": ("time", 1e3, 0),
    "rpm": ("turning", 1, 0), "mm/s": ("vibration", 1, 0), "W/m2": ("radiation", 1, 0), "Ah": ("charge", 1, 0),
    "kN": ("force", 1, 0), "ppm": ("content", 1, 0), "dB": ("level", 1, 0),
}  # fmt: skip


def in_unit(measured: Measured, unit: str) -> Measured | None:
    """Return the same quantity in a point's unit; None when that unit is of another dimension.

    A unit that the table does not know ("", "device") is taken for the base unit.
    """
    dimension, factor, offset = UNITS.get(unit, ("", 1.0, 0.0))
    if dimension == "" or ((factor, offset) == (1, 0) and dimension == measured.dimension):
        return measured
    if measured.dimension not in (dimension, ""):
        return None
    if measured.dimension == "":
        return measured
    signal = measured.signal
    return Measured(
        measured.dimension,
        lambda t: signal(t) * factor + offset,
        measured.sigma * abs(factor),
        measured.still,
        measured.whole,
    )


def bounds(point: Point) -> tuple[float, float]:
    """Return what a point's registers can hold and, for a gauge, what it calls plausible."""
    low, high = codec(point).bounds
    if point.range and point.kind != "counter":
        low, high = max(low, point.range[0]), min(high, point.range[1])
    return low, high
