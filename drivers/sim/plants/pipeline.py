"""A crude oil line: flow, pressure and temperature anywhere along it; pump stations, block valves and tanks on it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from drivers.sim import columns
from drivers.sim.plants.place import Measured, Place, World, rules
from drivers.sim.signals import Integral, Lag, Shared, Signal, constant, smooth, uniform, wander

# Reference section: 42 inch, 100 km, 7949 m3/h, density 850, wave speed 1069 m/s, friction 0.37 bar/km
SECTION_M: Final = 100_000
FLOW_M3H: Final = 7949.0
DENSITY: Final = 850.0
WAVE_M_S: Final = 1069.0
AREA_M2: Final = math.pi / 4.0 * (1.0668 - 2 * 0.0159) ** 2
FRICTION_BAR_KM: Final = 0.37
DISCHARGE_BAR: Final = 43.0
EFFICIENCY: Final = 0.82
N_RUNS: Final = 3  # parallel meter runs, and parallel pumps, of a station
SWING: Final = 0.004  # slow movement of the flow, share
JOUKOWSKY_BAR: Final = (
    DENSITY * WAVE_M_S / AREA_M2 / 1e5 / 3600.0
)  # pressure that comes with a flow change, bar per m3/h

PRESSURE_NOISE: Final = 0.03  # bar, 0.05 % of a 60 bar span
FLOW_NOISE: Final = 0.0012  # share of the reading
TEMPERATURE_NOISE: Final = 0.1


class Pipeline:
    """One line of sections of 100 km. Flow changes travel downstream as waves, so that the line pack always balances:
    what goes in and does not come out is what the pressure says."""

    def __init__(self, world: World, line: str) -> None:
        self._wave = wander(world.key("pipe", line, "flow"), 900.0)
        self._density = wander(world.key("pipe", line, "density"), 5400.0)
        self._oil_c = wander(world.key("pipe", line, "temperature"), 7200.0)

    def change(self, x_m: float, t: float) -> float:
        """Return the flow above its mean, m3/h, x_m behind the pump station."""
        return SWING * FLOW_M3H * self._wave(t - x_m / WAVE_M_S)

    def flow(self, kp_m: int | None, t: float) -> float:
        """Return the flow, m3/h."""
        return FLOW_M3H + self.change(_behind_station(kp_m), t)

    def pressure(self, x_m: float, t: float) -> float:
        """Return the pressure, bar, x_m behind the pump station (100 km: suction of the next)."""
        return DISCHARGE_BAR - FRICTION_BAR_KM * x_m / 1000.0 + JOUKOWSKY_BAR * self.change(x_m, t)

    def head(self, kp_m: int | None, t: float) -> float:
        """Return the pressure rise of the station at or before kp_m, bar."""
        return self.pressure(0.0, t) - self.pressure(SECTION_M, t)

    def pump_power_w(self, kp_m: int | None, t: float) -> float:
        """Return the shaft power of all pumps of the station."""
        return self.head(kp_m, t) * 1e5 * (FLOW_M3H + self.change(0.0, t)) / 3600.0 / EFFICIENCY

    def density(self, t: float) -> float:
        """Return the density, kg/m3."""
        return DENSITY + 1.5 * self._density(t)

    def temperature(self, t: float) -> float:
        """Return the temperature of the oil, degC."""
        return 38.0 + 1.2 * self._oil_c(t)


def _behind_station(kp_m: int | None) -> float:
    return 20_000.0 if kp_m is None else float(kp_m % SECTION_M)


def _line(place: Place) -> Pipeline:
    return place.world.plant(Pipeline, place.meter.line)


def mass_flow(place: Place, match: re.Match[str]) -> Measured:
    """Mass flow of one meter run, kg/s."""
    line, kp_m, share = _line(place), place.meter.kp_m, 1.0 / N_RUNS
    mean = FLOW_M3H * DENSITY / 3600.0 * share
    return Measured("mass_flow", lambda t: line.flow(kp_m, t) * line.density(t) / 3600.0 * share, FLOW_NOISE * mean)


def volume_flow(place: Place, match: re.Match[str]) -> Measured:
    """Volume flow of one meter run, m3/h."""
    line, kp_m, share = _line(place), place.meter.kp_m, 1.0 / N_RUNS
    return Measured("flow", lambda t: line.flow(kp_m, t) * share, FLOW_NOISE * FLOW_M3H * share)


def velocity(place: Place, match: re.Match[str]) -> Measured:
    """Mean velocity in the line, m/s."""
    line, kp_m = _line(place), place.meter.kp_m
    return Measured("speed", lambda t: line.flow(kp_m, t) / 3600.0 / AREA_M2, 0.004)


def density(place: Place, match: re.Match[str]) -> Measured:
    """Density, kg/m3."""
    return Measured("density", _line(place).density, 0.08)


def oil_temperature(place: Place, match: re.Match[str]) -> Measured:
    """Temperature of the medium, degC."""
    return Measured("temperature", _line(place).temperature, TEMPERATURE_NOISE)


def total_t(place: Place, match: re.Match[str]) -> Measured:
    """Mass total of one meter run, t; a float32 of this size still resolves a second."""
    if "negative" in match.string:
        return Measured("", constant(0.0), still=True)
    line, kp_m, share = _line(place), place.meter.kp_m, 1.0 / N_RUNS
    total = Shared(Integral(lambda t: (line.flow(kp_m, t) * line.density(t) / 3.6e6 * share,), place.world.origin_s))
    base = 200_000.0 * uniform(place.key("total"), 0)
    return Measured("", lambda t: base + total(t)[0])


def pressure_at(place: Place, match: re.Match[str]) -> Measured:
    """Pressure in the line where the meter stands, bar; downstream of a valve a little less."""
    line, x_m = _line(place), _behind_station(place.meter.kp_m)
    drop = 0.06 if re.search(r"down|outlet", match.string) else 0.0
    return Measured("pressure", lambda t: line.pressure(x_m, t) - drop, PRESSURE_NOISE)


def suction(place: Place, match: re.Match[str]) -> Measured:
    """Suction pressure of a station: the end of the section before it."""
    line = _line(place)
    return Measured("pressure", lambda t: line.pressure(SECTION_M, t), PRESSURE_NOISE)


def discharge(place: Place, match: re.Match[str]) -> Measured:
    """Discharge pressure of a station."""
    line = _line(place)
    return Measured("pressure", lambda t: line.pressure(0.0, t), PRESSURE_NOISE)


def seal(place: Place, match: re.Match[str]) -> Measured:
    """Seal pot pressure of a pump."""
    drift = wander(place.key(match.string), 900.0)
    return Measured("pressure", lambda t: 2.4 + 0.03 * drift(t), 0.012)


def machine_temperature(place: Place, match: re.Match[str]) -> Measured:
    """Bearings and windings: a thermal mass behind the pump's power."""
    line, kp_m, world = _line(place), place.meter.kp_m, place.world
    name = match.string
    above = (44.0 if "wind" in name else 26.0) + 4.0 * uniform(place.key(name), 0)
    mean = line.pump_power_w(kp_m, world.origin_s)
    warm = Lag(lambda t: line.pump_power_w(kp_m, t) / mean, 900.0, world.origin_s, 1.0)
    drift = wander(place.key(name, "drift"), 1200.0)
    return Measured("temperature", lambda t: 34.0 + above * warm(t) + 0.4 * drift(t), 0.15)


def vibration(place: Place, match: re.Match[str]) -> Measured:
    """Vibration velocity of a bearing, mm/s rms."""
    drift, level = wander(place.key(match.string), 300.0), 1.6 + 0.6 * uniform(place.key(match.string), 0)
    return Measured("vibration", lambda t: level + 0.05 * drift(t), 0.06)


def speed(place: Place, match: re.Match[str]) -> Measured:
    """Speed of a machine that follows the flow (affinity law)."""
    line, kp_m = _line(place), place.meter.kp_m
    return Measured("turning", lambda t: 2980.0 * line.flow(kp_m, t) / FLOW_M3H, 2.0)


def cathodic(place: Place, match: re.Match[str]) -> Measured:
    """Pipe-to-soil potential, V: between -0.85 and -1.2."""
    drift = wander(place.key(match.string), 1800.0)
    return Measured("voltage", lambda t: -1.02 + 0.015 * drift(t), 0.003)


def water_cut(place: Place, match: re.Match[str]) -> Measured:
    """Water in oil, %."""
    drift = wander(place.key(match.string), 1800.0)
    return Measured("share", lambda t: 0.28 + 0.02 * drift(t), 0.01)


def valve_position(place: Place, match: re.Match[str]) -> Measured:
    """Position of an open valve, %."""
    return Measured("share", constant(99.2), 0.08)


TANK_M: Final = 16.0


def _level(place: Place, name: str) -> Signal:
    match = re.search(r"tank(\d+)", name)
    which = match.group(1) if match else "1"
    move = smooth(place.key("tank", which), 6 * 3600.0)
    return lambda t: 8.5 + 3.0 * move(t)


def tank_level(place: Place, match: re.Match[str]) -> Measured:
    """Product level, m."""
    return Measured("length", _level(place, match.string), 0.001)


def ullage(place: Place, match: re.Match[str]) -> Measured:
    """Distance from the gauge to the surface, m."""
    level = _level(place, match.string)
    return Measured("length", lambda t: TANK_M - level(t), 0.001)


def tank_temperature(place: Place, match: re.Match[str]) -> Measured:
    """Product temperature, degC."""
    drift = wander(place.key(match.string), 4 * 3600.0)
    return Measured("temperature", lambda t: 26.0 + 1.5 * drift(t), 0.08)


def echo(place: Place, match: re.Match[str]) -> Measured:
    """Radar echo, V."""
    drift = wander(place.key(match.string), 600.0)
    return Measured("voltage", lambda t: 0.82 + 0.02 * drift(t), 0.004)


def gain(place: Place, match: re.Match[str]) -> Measured:
    """Receiver gain."""
    drift = wander(place.key(match.string), 600.0)
    return Measured("", lambda t: 1.35 + 0.03 * drift(t), 0.005)


def _drive(place: Place, match: re.Match[str]) -> Measured:
    drift = wander(place.key(match.string), 600.0)
    return Measured("", lambda t: 7.5 + 0.15 * drift(t), 0.05)


def _tube(place: Place, match: re.Match[str]) -> Measured:
    line = _line(place)
    return Measured("", lambda t: 84.0 * columns.root(DENSITY / line.density(t)), 0.01)


SLOTS: Final[tuple[Callable[[Place, re.Match[str]], Measured], ...]] = (
    mass_flow, density, oil_temperature, volume_flow, total_t, _drive, _tube,
)  # fmt: skip
SCAN: Final = (volume_flow, density, oil_temperature, _drive, _tube)


def _slot(order: tuple[Callable[[Place, re.Match[str]], Measured], ...]) -> Callable[[Place, re.Match[str]], Measured]:
    def make(place: Place, match: re.Match[str]) -> Measured:
        n = int(match.group(1))
        return order[n](place, match) if n < len(order) else _drive(place, match)

    return make


def _variable(place: Place, match: re.Match[str]) -> Measured:
    """HART variables of a transmitter: what its name says, then temperature, share of span, loop current."""
    if match.group(1) == "sv":
        return oil_temperature(place, match)
    if match.group(1) != "pv":
        return _drive(place, match)
    return tank_level(place, match) if re.search(r"\blt|level|tank", place.words) else pressure_at(place, match)


RULES: Final = rules(
    {
        r"tank\d*_user1|level": tank_level,
        r"tank\d*_user2|tank.*temp": tank_temperature,
        r"ullage": ullage,
        r"tank\d*_signal|^signal_strength$": echo,
        r"^gain$": gain,
        r"slot_(\d+)_value": _slot(SLOTS),
        r"scan_value_(\d+)": _slot(SCAN),
        r"^(pv|sv|tv|qv)$": _variable,
        r"mass_flow|flow_mass": mass_flow,
        r"total": total_t,
        r"velocity": velocity,
        r"flow": volume_flow,
        r"density": density,
        r"suction": suction,
        r"discharge": discharge,
        r"seal": seal,
        r"pressure|(^|_)p_": pressure_at,
        r"bearing|winding|motor_temp": machine_temperature,
        r"vibration": vibration,
        r"speed|rpm": speed,
        r"(^|_)cp(_|$)|cathodic|pipe_to_soil": cathodic,
        r"water_cut": water_cut,
        r"position": valve_position,
        r"temp": oil_temperature,
    }
)
