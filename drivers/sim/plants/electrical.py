"""Three-phase electricity meters whose values agree: P = sum of phases, S^2 = P^2 + Q^2, energy = integral of power."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from drivers.points import Point
from drivers.sim import columns
from drivers.sim.plants.loads import LOW_VOLTAGE, Load, load_of
from drivers.sim.plants.place import UNITS, Measured, Place, World, bounds, rules
from drivers.sim.signals import Integral, Shared, Signal, uniform, wander, white

ROOT3: Final = math.sqrt(3.0)
EPOCH_S: Final = 1_735_689_600.0  # 2025-01-01: when the meters were put in, totals begin at 0
HOUR_S: Final = 3600.0
MARGIN: Final = 1.08  # between a load's peak, or its voltage, and what its meter must be able to show


class Grid:
    """The frequency of the interconnection: one value for every meter, 49.95 to 50.05 Hz."""

    def __init__(self, world: World) -> None:
        drift, noise = wander(world.key("grid"), 90.0), white(world.key("grid", "noise"))
        self.hz: Signal = Shared(lambda t: 50.0 + 0.03 * drift(t) + 0.002 * noise(t))


class Instant(NamedTuple):
    """One moment of a meter: totals in W, var, VA; volts, amperes and shares per phase."""

    p: float
    q: float
    s: float
    volts: tuple[float, ...]
    share: tuple[float, ...]
    amps: tuple[float, ...]


class PowerMeter:
    """What one meter sees of its load."""

    def __init__(self, world: World, place: Place) -> None:
        key = place.key("meter")
        self.one_phase = not any(re.search(r"l[23]", point.name) for point in place.meter.points)
        self.load = _measurable(load_of(place), place.meter.points, 1 if self.one_phase else 3)
        self._tilt = [0.02 * (uniform(key, i) - 0.5) for i in range(3)]
        self._volts = [wander(key + 10 + i, 600.0) for i in range(3)]
        self._flicker = [white(key + 20 + i) for i in range(3)]
        self._unbalance = wander(key + 30, 300.0)
        self._phi = wander(key + 40, 400.0)
        self.hz = world.plant(Grid).hz
        self.at = Shared(self._instant)
        self.energy = Shared(Integral(self._rates, world.origin_s))
        self._age_s = max(0.0, world.origin_s - EPOCH_S)

    @property
    def share0(self) -> tuple[float, ...]:
        """The mean share of each phase in the load."""
        if self.one_phase:
            return (1.0, 0.0, 0.0)
        total = 3.0 + sum(self._tilt)
        return tuple((1.0 + tilt) / total for tilt in self._tilt)

    def base_wh(self) -> float:
        """What the total was when the simulation began."""
        return self.load.mean_w * self._age_s / HOUR_S

    def _reactive(self, p: float, t: float) -> float:
        factor = columns.least(0.995, self.load.power_factor + 0.004 * self._phi(t))
        return abs(p) * columns.root(1.0 - factor * factor) / factor

    def _instant(self, t: float) -> Instant:
        load = self.load
        p = load.power_w(t)
        q = self._reactive(p, t)
        s = columns.hypotenuse(p, q)
        droop = 0.004 * columns.within(p / load.mean_w, -1.0, 3.0)
        volts = tuple(
            load.volts * (1.0 - droop + load.swing * slow(t) + 0.001 * fast(t))
            for slow, fast in zip(self._volts, self._flicker, strict=True)
        )
        a, b, c = self.share0
        shift = 0.0 if self.one_phase else 0.003 * self._unbalance(t)
        share = (a + shift, b - shift, c)
        return Instant(p, q, s, volts, share, tuple(s * w / v for w, v in zip(share, volts, strict=True)))

    def _rates(self, t: float) -> tuple[float, ...]:
        p = self.load.power_w(t)
        q = self._reactive(p, t)
        hour = 1.0 / HOUR_S
        return columns.most(p, 0.0) * hour, columns.most(-p, 0.0) * hour, q * hour, columns.hypotenuse(p, q) * hour


def _measurable(load: Load, points: Sequence[Point], n_phases: int) -> Load:
    """Return the load made small enough for what the meter's points can show, so that all of them still agree."""
    most = {"voltage": math.inf, "current": math.inf, "power": math.inf}
    for point in points:
        dimension, factor, _ = UNITS.get(point.unit, ("", 1.0, 0.0))
        dimension = "power" if dimension in ("reactive", "apparent") else dimension
        if dimension in most and point.kind == "gauge":
            high = bounds(point)[1] / factor
            most[dimension] = min(most[dimension], high / ROOT3 if dimension == "voltage" and _is_line(point) else high)
    volts = load.volts
    if volts * MARGIN > most["voltage"]:
        volts = min(LOW_VOLTAGE, most["voltage"] / MARGIN)
    peak_va = MARGIN * load.peak_w / load.power_factor
    share = min(1.0, most["power"] / peak_va, most["current"] * volts * n_phases / peak_va)
    power_w = load.power_w
    return replace(
        load, power_w=lambda t: share * power_w(t), mean_w=share * load.mean_w, peak_w=share * load.peak_w, volts=volts
    )


def _is_line(point: Point) -> bool:
    return bool(re.search(r"l[123]_?l[123]|_ll|system|line", point.name))


def _phase(name: str) -> int | None:
    """Return which phase (0 to 2) a name means, None for a total or mean."""
    match = re.search(r"(?:^|_)l([123])(?:_|$)", name)
    return int(match.group(1)) - 1 if match else None


def _of(place: Place, dimension: str, value: Callable[[PowerMeter, float], float]) -> Measured:
    meter = place.world.plant(PowerMeter, place)
    return Measured(dimension, lambda t: value(meter, t))


def _power(dimension: str, pick: Callable[[Instant], float]) -> Callable[[Place, re.Match[str]], Measured]:
    def make(place: Place, match: re.Match[str]) -> Measured:
        phase = _phase(match.string)
        if phase is None:
            return _of(place, dimension, lambda meter, t: pick(meter.at(t)))

        def of_phase(meter: PowerMeter, t: float) -> float:
            instant = meter.at(t)
            return pick(instant) * instant.share[phase]

        return _of(place, dimension, of_phase)

    return make


def _voltage(place: Place, match: re.Match[str]) -> Measured:
    name = match.string
    if pair := re.search(r"l([123])_?l([123])", name):
        a, b = int(pair.group(1)) - 1, int(pair.group(2)) - 1

        def between(meter: PowerMeter, t: float) -> float:
            volts = meter.at(t).volts
            return ROOT3 * (volts[a] + volts[b]) / 2.0

        return _of(place, "voltage", between)
    factor = ROOT3 if re.search(r"_ll|system|line", name) else 1.0
    phase = _phase(name)
    if phase is not None:
        return _of(place, "voltage", lambda meter, t: meter.at(t).volts[phase])

    def mean(meter: PowerMeter, t: float) -> float:
        volts = meter.at(t).volts
        return volts[0] if meter.one_phase else factor * sum(volts) / 3.0

    return _of(place, "voltage", mean)


def _current(place: Place, match: re.Match[str]) -> Measured:
    phase = _phase(match.string)
    if phase is not None:
        return _of(place, "current", lambda meter, t: meter.at(t).amps[phase])

    def mean(meter: PowerMeter, t: float) -> float:
        amps = meter.at(t).amps
        return amps[0] if meter.one_phase else sum(amps) / 3.0

    return _of(place, "current", mean)


def _neutral(place: Place, match: re.Match[str]) -> Measured:
    """The vector sum of three phases 120 degrees apart."""

    def vector(meter: PowerMeter, t: float) -> float:
        a, b, c = meter.at(t).amps
        return columns.root(columns.most(0.0, a * a + b * b + c * c - a * b - b * c - c * a))

    return _of(place, "current", vector)


def _energy(place: Place, match: re.Match[str]) -> Measured:
    """Totals: import is what the load took, export what it gave back; a phase has its mean share."""
    name, meter = match.string, place.world.plant(PowerMeter, place)
    phase = _phase(name)
    share = 1.0 if phase is None else meter.share0[phase]
    base, factor = meter.base_wh() * share, meter.load.power_factor
    if "reactive" in name or "var" in name:
        tangent = math.sqrt(1.0 - factor * factor) / factor
        if "export" in name:
            return Measured("reactive_energy", lambda t: 0.0, still=True)
        return Measured("reactive_energy", lambda t: base * tangent + share * meter.energy(t)[2])
    if "apparent" in name:
        return Measured("apparent_energy", lambda t: base / factor + share * meter.energy(t)[3])
    back = 0.05 * base
    if re.search(r"export|deliver|_b(_|$)", name):
        return Measured("energy", lambda t: back + share * meter.energy(t)[1])
    if re.search(r"total|sum", name):
        return Measured("energy", lambda t: base + back + share * sum(meter.energy(t)[:2]))
    if "net" in name:
        return Measured("energy", lambda t: base - back + share * (meter.energy(t)[0] - meter.energy(t)[1]))
    return Measured("energy", lambda t: base + share * meter.energy(t)[0])


def _distortion(place: Place, match: re.Match[str]) -> Measured:
    drift, level = wander(place.key(match.string), 600.0), 4.5 if "current" in match.string else 2.1
    return Measured("share", lambda t: level + 0.3 * drift(t), 0.02)


def _angle(place: Place, match: re.Match[str]) -> Measured:
    return _of(place, "angle", lambda meter, t: columns.angle(meter.at(t).q, meter.at(t).p))


def _frequency(place: Place, match: re.Match[str]) -> Measured:
    return Measured("frequency", place.world.plant(Grid).hz)


RULES: Final = rules(
    {
        r"thd": _distortion,
        r"freq|(^|_)hz(_|$)": _frequency,
        r"power_?factor|cos_?phi|(^|_)pf(_|$)": lambda place, match: _of(
            place, "", lambda meter, t: meter.at(t).p / meter.at(t).s
        ),
        r"phase_angle": _angle,
        r"energy|wh(_|$)|varh": _energy,
        r"reactive": _power("reactive", lambda instant: instant.q),
        r"apparent": _power("apparent", lambda instant: instant.s),
        r"power|active": _power("power", lambda instant: instant.p),
        r"current_(neutral|sum|n$)": _neutral,
        r"current": _current,
        r"volt": _voltage,
    }
)

BY_DIMENSION: Final = {
    "voltage": _voltage,
    "current": _current,
    "power": _power("power", lambda instant: instant.p),
    "reactive": _power("reactive", lambda instant: instant.q),
    "apparent": _power("apparent", lambda instant: instant.s),
    "frequency": _frequency,
    "energy": _energy,
    "reactive_energy": _energy,
    "apparent_energy": _energy,
}
