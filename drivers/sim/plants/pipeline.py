"""A crude oil line: flow, pressure and temperature anywhere along it; pump stations, block valves and tanks on it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from drivers.sim import columns
from drivers.sim.plants.operations import HOUR_S, Schedule, pulse, steps
from drivers.sim.plants.place import Measured, Place, World, rules
from drivers.sim.signals import Integral, Lag, Shared, Signal, constant, ramp, smooth, uniform, wander

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

NOMINAL_W: Final = FRICTION_BAR_KM * SECTION_M / 1000.0 * 1e5 * FLOW_M3H / 3600.0 / EFFICIENCY  # of all pumps
PUMP_SHARE: Final = 0.14  # of the flow that is lost while one of three pumps stands
SET_POINT_SHARE: Final = 0.025  # by which operators move the flow at most
STANDSTILL_W: Final = 1500.0  # the heater of a motor that stands
BATCH_C: Final = 0.03  # by which a batch is warmer per kg/m3

PRESSURE_NOISE: Final = 0.03  # bar, 0.05 % of a 60 bar span
FLOW_NOISE: Final = 0.0012  # share of the reading
TEMPERATURE_NOISE: Final = 0.1


class Station:
    """What operators do to a line at its pump station: pumps, set-points of the flow, batches.

    One of three pumps is stopped for some hours, every second time another one then rests while it runs again.
    """

    def __init__(self, world: World, line: str) -> None:
        self._stop = Schedule(world, "pump stop", line, 48 * HOUR_S, (4 * HOUR_S, 14 * HOUR_S))
        moves = Schedule(world, "flow set-point", line, 15 * HOUR_S, (300.0, 300.0))
        self.set_point = Shared(
            steps(moves, lambda n: SET_POINT_SHARE * FLOW_M3H * (2.0 * moves.draw(n, 0) - 1.0), 300.0)
        )
        batch = Schedule(world, "batch", line, 36 * HOUR_S, (45.0, 45.0))
        self.batch = steps(batch, lambda n: (1.0 - 2.0 * (n % 2)) * (5.0 + 15.0 * batch.draw(n, 0)), 45.0)
        self.running = Shared(self._running)
        self.flow = Shared(lambda t: self.set_point(t) - PUMP_SHARE * FLOW_M3H * (N_RUNS - sum(self.running(t))))

    def _running(self, t: float) -> tuple[float, ...]:
        """Return the speed of each pump, 1 at full flow: they run down in 15 s and up in 10 to 20 s."""
        n, since = self._stop.at(t)
        lasts_s = self._stop.lasts_s(n)
        stopped = columns.whole(N_RUNS * self._stop.draw(n, 0))
        is_changed = self._stop.draw(n, 1) < 0.5
        first_s = lasts_s * (1.0 - 0.4 * is_changed)
        first = ramp(since, 15.0) - ramp(since - first_s, 10.0)
        second = (ramp(since - first_s - 120.0, 15.0) - ramp(since - lasts_s, 20.0)) * is_changed
        return tuple(
            1.0 - first * (stopped == pump) - second * ((stopped + 1) % N_RUNS == pump) for pump in range(N_RUNS)
        )


class Pipeline:
    """One line of sections of 100 km. Flow changes travel downstream as waves, so that the line pack always balances:
    what goes in and does not come out is what the pressure says."""

    def __init__(self, world: World, line: str) -> None:
        self._wave = wander(world.key("pipe", line, "flow"), 900.0)
        self._density = wander(world.key("pipe", line, "density"), 5400.0)
        self._oil_c = wander(world.key("pipe", line, "temperature"), 7200.0)
        self.station = world.plant(Station, line) if world.operations else None
        self._passed: dict[tuple[str, float], Signal] = {}

    def _behind(self, what: str, signal: Signal, x_m: float, metres_per_s: float) -> Signal:
        """Return a signal of the station as it comes by x_m behind it."""
        if (what, x_m) not in self._passed:
            self._passed[what, x_m] = Shared(lambda t: signal(t - x_m / metres_per_s))
        return self._passed[what, x_m]

    def change(self, x_m: float, t: float) -> float:
        """Return the flow above its mean, m3/h, x_m behind the pump station."""
        change = SWING * FLOW_M3H * self._wave(t - x_m / WAVE_M_S)
        if self.station:
            change = change + self._behind("flow", self.station.flow, x_m, WAVE_M_S)(t)
        return change

    def flow(self, kp_m: int | None, t: float) -> float:
        """Return the flow, m3/h."""
        return FLOW_M3H + self.change(_behind_station(kp_m), t)

    def pressure(self, x_m: float, t: float) -> float:
        """Return the pressure, bar, x_m behind the pump station (100 km: suction of the next)."""
        return DISCHARGE_BAR - FRICTION_BAR_KM * x_m / 1000.0 + JOUKOWSKY_BAR * self.change(x_m, t)

    def suction(self, t: float) -> float:
        """Return the pressure before the station: the end of the section before it, less what the station takes."""
        if not self.station:
            return self.pressure(SECTION_M, t)
        level = DISCHARGE_BAR - FRICTION_BAR_KM * SECTION_M / 1000.0
        wave = SWING * FLOW_M3H * self._wave(t - SECTION_M / WAVE_M_S)
        return level + JOUKOWSKY_BAR * (wave - self.station.flow(t))

    def head(self, kp_m: int | None, t: float) -> float:
        """Return the pressure rise of the station at or before kp_m, bar."""
        return self.pressure(0.0, t) - self.suction(t)

    def pump_power_w(self, kp_m: int | None, t: float) -> float:
        """Return the shaft power of all pumps of the station."""
        return self.head(kp_m, t) * 1e5 * (FLOW_M3H + self.change(0.0, t)) / 3600.0 / EFFICIENCY

    def running(self, pump: int | None, t: float) -> float:
        """Return the speed of a pump, 1 at full flow; without a number, or an operator, it always runs."""
        return self.station.running(t)[pump] if self.station and pump is not None else 1.0

    def one_pump_w(self, kp_m: int | None, pump: int | None, t: float) -> float:
        """Return the power of one pump of the station."""
        if not self.station or pump is None:
            return self.pump_power_w(kp_m, t) / N_RUNS
        running = self.station.running(t)
        return columns.most(STANDSTILL_W, self.pump_power_w(kp_m, t) * running[pump] / sum(running))

    def speed(self, kp_m: int | None, pump: int | None, t: float) -> float:
        """Return the speed of a pump as a share of the nominal one (affinity law)."""
        if not self.station:
            return self.flow(kp_m, t) / FLOW_M3H
        wanted = FLOW_M3H + SWING * FLOW_M3H * self._wave(t) + self.station.set_point(t)
        return wanted / FLOW_M3H * self.running(pump, t)

    def _batch(self, x_m: float, t: float) -> float:
        """Return how much denser than the mean the oil is that comes by, kg/m3; it travels at the mean velocity."""
        if not self.station:
            return 0.0
        return self._behind("batch", self.station.batch, x_m, FLOW_M3H / 3600.0 / AREA_M2)(t)

    def density(self, t: float, x_m: float = 0.0) -> float:
        """Return the density, kg/m3."""
        return DENSITY + 1.5 * self._density(t) + self._batch(x_m, t)

    def temperature(self, t: float, x_m: float = 0.0) -> float:
        """Return the temperature of the oil, degC."""
        return 38.0 + 1.2 * self._oil_c(t) + BATCH_C * self._batch(x_m, t)


def _behind_station(kp_m: int | None) -> float:
    return 20_000.0 if kp_m is None else float(kp_m % SECTION_M)


def _line(place: Place) -> Pipeline:
    return place.world.plant(Pipeline, place.meter.line)


def pump_of(place: Place) -> int | None:
    """Return which pump of the station a meter belongs to, 0 to 2, by its name or asset."""
    match = re.search(r"(?<![a-z])(?:pump|mlp)-([123])(?!\d)", place.words)
    return int(match.group(1)) - 1 if match else None


class LoadingArm:
    """Ships and trucks are loaded from tank 1 through one arm, and the tank is filled again."""

    M3H: Final = FLOW_M3H / N_RUNS
    RISE_S: Final = 40.0
    WAIT_S: Final = 4.2 * HOUR_S
    REFILL_S: Final = 2.4 * HOUR_S
    TANK_M2: Final = 2830.0

    def __init__(self, world: World, line: str) -> None:
        self._schedule = Schedule(world, "loading", line, 11 * HOUR_S, (2.5 * HOUR_S, 3.5 * HOUR_S), jitter=0.35)

    def flow(self, t: float) -> float:
        """Return the flow through the arm, m3/h."""
        return self.M3H * self._schedule.during(t, self.RISE_S)

    def level(self, t: float) -> float:
        """Return the level of tank 1, m: what has gone through the arm is missing."""
        n, since = self._schedule.at(t)
        lasts_s = self._schedule.lasts_s(n)
        back = pulse(since - self.WAIT_S, self.REFILL_S, 120.0) / self.REFILL_S
        taken_m3 = self.M3H / 3600.0 * (pulse(since, lasts_s, self.RISE_S) - lasts_s * back)
        return 10.0 - taken_m3 / self.TANK_M2


def _flow(place: Place) -> Signal:
    """Return the volume flow that a meter of one run, or of a loading arm, sees, m3/h."""
    line, kp_m, share = _line(place), place.meter.kp_m, 1.0 / N_RUNS
    if place.world.operations and place.is_called(("loading",)):
        return place.world.plant(LoadingArm, place.meter.line).flow
    return lambda t: line.flow(kp_m, t) * share


def mass_flow(place: Place, match: re.Match[str]) -> Measured:
    """Mass flow of one meter run, kg/s."""
    line, kp_m, share = _line(place), place.meter.kp_m, 1.0 / N_RUNS
    mean, x_m = FLOW_M3H * DENSITY / 3600.0 * share, _behind_station(kp_m)
    return Measured(
        "mass_flow", lambda t: line.flow(kp_m, t) * line.density(t, x_m) / 3600.0 * share, FLOW_NOISE * mean
    )


def volume_flow(place: Place, match: re.Match[str]) -> Measured:
    """Volume flow of one meter run, m3/h."""
    return Measured("flow", _flow(place), FLOW_NOISE * FLOW_M3H / N_RUNS)


def velocity(place: Place, match: re.Match[str]) -> Measured:
    """Mean velocity in the line, m/s."""
    line, kp_m = _line(place), place.meter.kp_m
    if place.world.operations and place.is_called(("loading",)):
        arm = _flow(place)
        return Measured("speed", lambda t: N_RUNS * arm(t) / 3600.0 / AREA_M2, 0.004)
    return Measured("speed", lambda t: line.flow(kp_m, t) / 3600.0 / AREA_M2, 0.004)


def density(place: Place, match: re.Match[str]) -> Measured:
    """Density, kg/m3."""
    line, x_m = _line(place), _behind_station(place.meter.kp_m)
    return Measured("density", lambda t: line.density(t, x_m), 0.08)


def oil_temperature(place: Place, match: re.Match[str]) -> Measured:
    """Temperature of the medium, degC; batches pass through a line, not through a tank."""
    if place.world.operations and place.is_called(("tank", "ferry")):
        return tank_temperature(place, match)
    line, x_m = _line(place), _behind_station(place.meter.kp_m)
    return Measured("temperature", lambda t: line.temperature(t, x_m), TEMPERATURE_NOISE)


def total_t(place: Place, match: re.Match[str]) -> Measured:
    """Mass total of one meter run, t; a float32 of this size still resolves a second."""
    if "negative" in match.string:
        return Measured("", constant(0.0), still=True)
    line, kp_m, share = _line(place), place.meter.kp_m, 1.0 / N_RUNS
    x_m, flow = _behind_station(kp_m), _flow(place)
    if place.world.operations:
        total = Shared(Integral(lambda t: (flow(t) * line.density(t, x_m) / 3.6e6,), place.world.origin_s))
    else:
        total = Shared(
            Integral(lambda t: (line.flow(kp_m, t) * line.density(t) / 3.6e6 * share,), place.world.origin_s)
        )
    base = 200_000.0 * uniform(place.key("total"), 0)
    return Measured("", lambda t: base + total(t)[0])


def pressure_at(place: Place, match: re.Match[str]) -> Measured:
    """Pressure in the line where the meter stands, bar; downstream of a valve a little less."""
    line, x_m = _line(place), _behind_station(place.meter.kp_m)
    drop = 0.06 if re.search(r"down|outlet", match.string) else 0.0
    if place.world.operations and drop:
        test = place.world.plant(ValveTest, place.meter.name)
        return Measured("pressure", lambda t: line.pressure(x_m, t) - drop - 0.05 * test.share(t), PRESSURE_NOISE)
    return Measured("pressure", lambda t: line.pressure(x_m, t) - drop, PRESSURE_NOISE)


def suction(place: Place, match: re.Match[str]) -> Measured:
    """Suction pressure of a station: the end of the section before it."""
    line = _line(place)
    return Measured("pressure", line.suction, PRESSURE_NOISE)


def discharge(place: Place, match: re.Match[str]) -> Measured:
    """Discharge pressure of a station."""
    line = _line(place)
    return Measured("pressure", lambda t: line.pressure(0.0, t), PRESSURE_NOISE)


def seal(place: Place, match: re.Match[str]) -> Measured:
    """Seal pot pressure of a pump."""
    drift = wander(place.key(match.string), 900.0)
    if place.world.operations:
        line, pump = _line(place), pump_of(place)
        return Measured("pressure", lambda t: 2.1 + 0.3 * line.running(pump, t) + 0.03 * drift(t), 0.012)
    return Measured("pressure", lambda t: 2.4 + 0.03 * drift(t), 0.012)


def machine_temperature(place: Place, match: re.Match[str]) -> Measured:
    """Bearings and windings: a thermal mass behind the pump's power."""
    line, kp_m, world = _line(place), place.meter.kp_m, place.world
    name = match.string
    above = (44.0 if "wind" in name else 26.0) + 4.0 * uniform(place.key(name), 0)
    if world.operations:
        pump = pump_of(place)
        share: Signal = lambda t: line.one_pump_w(kp_m, pump, t) * N_RUNS / NOMINAL_W  # noqa: E731
        warm = Lag(share, 900.0, world.origin_s, share(world.origin_s))
    else:
        mean = line.pump_power_w(kp_m, world.origin_s)
        warm = Lag(lambda t: line.pump_power_w(kp_m, t) / mean, 900.0, world.origin_s, 1.0)
    drift = wander(place.key(name, "drift"), 1200.0)
    return Measured("temperature", lambda t: 34.0 + above * warm(t) + 0.4 * drift(t), 0.15)


def vibration(place: Place, match: re.Match[str]) -> Measured:
    """Vibration velocity of a bearing, mm/s rms."""
    drift, level = wander(place.key(match.string), 300.0), 1.6 + 0.6 * uniform(place.key(match.string), 0)
    if place.world.operations:
        line, pump = _line(place), pump_of(place)

        def shaken(t: float) -> float:
            """Return hardly anything at rest, and more than usual while it runs up or down."""
            running = line.running(pump, t)
            return (level + 0.05 * drift(t)) * (0.12 + 0.88 * running) + 3.0 * running * (1.0 - running)

        return Measured("vibration", shaken, 0.03)
    return Measured("vibration", lambda t: level + 0.05 * drift(t), 0.06)


def speed(place: Place, match: re.Match[str]) -> Measured:
    """Speed of a machine that follows the flow (affinity law)."""
    line, kp_m = _line(place), place.meter.kp_m
    if place.world.operations:
        pump = pump_of(place)
        return Measured("turning", lambda t: 2980.0 * line.speed(kp_m, pump, t), 2.0)
    return Measured("turning", lambda t: 2980.0 * line.flow(kp_m, t) / FLOW_M3H, 2.0)


def is_running(place: Place) -> Measured | None:
    """Whether a pump runs; None where nobody stops it."""
    line, pump = _line(place), pump_of(place)
    if pump is None:
        return None
    return Measured("", lambda t: columns.pick(line.running(pump, t) > 0.5, 1.0, 0.0), still=True)


def cathodic(place: Place, match: re.Match[str]) -> Measured:
    """Pipe-to-soil potential, V: between -0.85 and -1.2."""
    drift = wander(place.key(match.string), 1800.0)
    return Measured("voltage", lambda t: -1.02 + 0.015 * drift(t), 0.003)


def water_cut(place: Place, match: re.Match[str]) -> Measured:
    """Water in oil, %."""
    drift = wander(place.key(match.string), 1800.0)
    return Measured("share", lambda t: 0.28 + 0.02 * drift(t), 0.01)


class ValveTest:
    """A block valve moves a little way towards closed and back, every few weeks: its limit switch stays at open."""

    def __init__(self, world: World, device: str) -> None:
        self._schedule = Schedule(world, "valve test", device, 10 * 24 * HOUR_S, (150.0, 300.0), jitter=0.7)

    def share(self, t: float) -> float:
        """Return 1 at the end of its way."""
        return self._schedule.during(t, 60.0)


def valve_position(place: Place, match: re.Match[str]) -> Measured:
    """Position of an open valve, %."""
    if place.world.operations:
        test = place.world.plant(ValveTest, place.meter.name)
        return Measured("share", lambda t: 99.2 - 14.0 * test.share(t), 0.08)
    return Measured("share", constant(99.2), 0.08)


TANK_M: Final = 16.0


class Tank:
    """A tank that is filled and emptied in turn, each time at one rate, and stands in between."""

    def __init__(self, world: World, name: str) -> None:
        self._schedule = Schedule(world, "tank transfer", name, 16 * HOUR_S, (3 * HOUR_S, 6 * HOUR_S))
        self.level = Shared(self._level)

    def _full(self, n: int) -> float:
        """Return the level after transfer n, m."""
        return 5.0 + 5.0 * (n % 2) + 2.0 * self._schedule.draw(n, 0)

    def _level(self, t: float) -> float:
        n, since = self._schedule.at(t)
        lasts_s, before = self._schedule.lasts_s(n), self._full(n - 1)
        return before + (self._full(n) - before) * pulse(since, lasts_s, 60.0) / lasts_s


def _level(place: Place, name: str) -> Signal:
    match = re.search(r"tank(\d+)", name)
    which = match.group(1) if match else "1"
    if place.world.operations:
        if place.is_called(("tank-farm",)) and which == "1":
            return Shared(place.world.plant(LoadingArm, place.meter.line).level)
        return place.world.plant(Tank, f"{place.meter.name}/{which}").level
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
    line, x_m = _line(place), _behind_station(place.meter.kp_m)
    return Measured("", lambda t: 84.0 * columns.root(DENSITY / line.density(t, x_m)), 0.01)


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
