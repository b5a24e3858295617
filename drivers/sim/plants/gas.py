"""Natural gas through ultrasonic meters, and detectors for gas where none should be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from drivers.sim import columns
from drivers.sim.plants.operations import HOUR_S, Schedule, steps
from drivers.sim.plants.place import Measured, Place, World, rules
from drivers.sim.signals import DAY_S, Integral, Shared, Signal, constant, uniform, wander

LINE_M3H: Final = 3200.0  # at line conditions
AREA_M2: Final = math.pi / 4.0 * 0.3**2  # DN 300
BASE_BAR: Final = 1.01325
BASE_K: Final = 288.15
COMPRESSIBILITY: Final = 0.89
COUNTS_PER_M3: Final = 10.0


class GasLine:
    """One gas line: flow m3/h at line conditions, pressure bar absolute, temperature degC, speed of sound m/s."""

    def __init__(self, world: World, line: str) -> None:
        flow, pressure, warmth = (wander(world.key("gas", line, name), s) for name, s in _PERIODS_S.items())
        asked: Signal = constant(0.0)
        if world.operations:  # what the shippers want, up to 5 % more or less; more flow, less pressure
            nomination = Schedule(world, "gas nomination", line, 14 * HOUR_S, (600.0, 600.0))
            asked = Shared(steps(nomination, lambda n: 0.1 * (nomination.draw(n, 0) - 0.5), 600.0))
        self.flow: Signal = Shared(lambda t: LINE_M3H * (1.0 + 0.008 * flow(t) + asked(t)))
        self.pressure: Signal = Shared(lambda t: 52.0 + 0.12 * pressure(t) - 8.0 * asked(t))
        self.temperature: Signal = Shared(lambda t: 14.0 + 0.8 * warmth(t))
        self.sound: Signal = lambda t: 401.0 + 0.55 * (self.temperature(t) - 14.0) - 0.1 * (self.pressure(t) - 52.0)
        self.total_m3 = Shared(Integral(lambda t: (self.flow(t) / 3600.0,), world.origin_s))
        self.compressibility: Signal = lambda t: COMPRESSIBILITY - 0.0016 * (self.pressure(t) - 52.0)

    def conversion(self, t: float) -> float:
        """Return the volume at base conditions that one cubic metre in the line is."""
        kelvin = self.temperature(t) + 273.15
        return self.pressure(t) / BASE_BAR * BASE_K / kelvin / self.compressibility(t)


_PERIODS_S: Final = {"flow": 900.0, "pressure": 1800.0, "temperature": 5400.0}


def _of(
    dimension: str, pick: Callable[[GasLine, float], float], sigma: float
) -> Callable[[Place, re.Match[str]], Measured]:
    def make(place: Place, match: re.Match[str]) -> Measured:
        line = place.world.plant(GasLine, place.meter.line)
        # the paths of one meter differ a little, for good
        path = re.match(r"path(\d)", match.string)
        factor = 1.0 + (0.002 * (uniform(place.key(path.group(0)), 0) - 0.5) if path else 0.0)
        return Measured(dimension, lambda t: factor * pick(line, t), sigma)

    return make


def _volume(place: Place, match: re.Match[str]) -> Measured:
    """Volume in counts; what flows backwards or during a fault is nothing."""
    line = place.world.plant(GasLine, place.meter.line)
    base = float(int(5e7 * uniform(place.key(match.string), 0)))
    if re.search(r"error|negative", match.string):
        return Measured("", constant(float(int(base / 1e4))), still=True)
    per_m3 = COUNTS_PER_M3 * (line.conversion(place.world.origin_s) if "base" in match.string else 1.0)
    return Measured("", lambda t: base + per_m3 * line.total_m3(t)[0], whole=True)


def _mass(place: Place, match: re.Match[str]) -> Measured:
    line = place.world.plant(GasLine, place.meter.line)
    base = float(int(1e7 * uniform(place.key(match.string), 0)))
    return Measured("", lambda t: base + 42.0 * line.total_m3(t)[0], whole=True)


def _run_time(place: Place, match: re.Match[str]) -> Measured:
    """Seconds with flow: in all, this and the last hour, this and the last day."""
    name, origin_s = match.string, place.world.origin_s
    if "prev" in name:
        return Measured("time", constant(DAY_S if "day" in name else 3600.0), still=True)
    if "today" in name:
        return Measured("time", lambda t: t % DAY_S, whole=True)
    if "hour" in name:
        return Measured("time", lambda t: t % 3600.0, whole=True)
    base = float(int(3e7 * uniform(place.key(name), 0)))
    return Measured("time", lambda t: base + columns.most(0.0, t - origin_s), whole=True)


def _good_share(place: Place, match: re.Match[str]) -> Measured:
    drift = wander(place.key(match.string), 300.0)
    return Measured("share", lambda t: 97.0 + 0.5 * drift(t), 0.6)


def _amplifier(place: Place, match: re.Match[str]) -> Measured:
    drift = wander(place.key(match.string), 900.0)
    return Measured("level", lambda t: 34.0 + 0.5 * drift(t), 0.6)


RULES: Final = rules(
    {
        r"run_time|flow_time": _run_time,
        r"mass_total": _mass,
        r"volume": _volume,
        r"samples": _good_share,
        r"agc": _amplifier,
        r"speed_of_sound": _of("speed", lambda line, t: line.sound(t), 0.06),
        r"velocity": _of("speed", lambda line, t: line.flow(t) / 3600.0 / AREA_M2, 0.03),
        r"flow_base": _of("flow", lambda line, t: line.flow(t) * line.conversion(t), 180.0),
        r"flow": _of("flow", lambda line, t: line.flow(t), 4.0),
        r"conversion": _of("", lambda line, t: line.conversion(t), 0.01),
        r"compressib": _of("", lambda line, t: line.compressibility(t), 0.0001),
        r"pressure": _of("pressure", lambda line, t: line.pressure(t), 0.02),
        r"temp": _of("temperature", lambda line, t: line.temperature(t), 0.08),
    }
)


def _concentration(place: Place, match: re.Match[str]) -> Measured:
    """Gas in air where there is none: the zero noise of the cell, % of the lower explosive limit."""
    drift = wander(place.key(match.string), 900.0)
    return Measured("", lambda t: 1.4 + 0.15 * drift(t), 0.25)


def _cabinet(place: Place, match: re.Match[str]) -> Measured:
    drift = wander(place.key(match.string), 3600.0)
    return Measured("temperature", lambda t: 21.0 + 1.2 * drift(t), 0.2)


DETECTOR_RULES: Final = rules(
    {r"concentration|gas_level|(^|_)lel(_|$)|h2s|(^|_)ch4": _concentration, r"temp": _cabinet}
)
