"""Batteries, uninterruptible supplies and the huts that they keep alive."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from drivers.sim import columns
from drivers.sim.plants.operations import BatteryTest, Visits
from drivers.sim.plants.place import Measured, Place, World, rules
from drivers.sim.signals import Integral, Shared, cycles, smooth, uniform, wander

CAPACITY_AH: Final = 200.0
LOAD_A: Final = 18.0  # what the battery would have to carry alone
FLOAT_V: Final = 53.6  # a 48 V battery on float charge
DISCHARGE_V: Final = 2.0  # below float charge as soon as a battery carries its load
CLIMATE_S: Final = 900.0


def _where(place: Place) -> tuple[str, str]:
    """Return site and asset: what stands together is tested and visited together."""
    return place.meter.site, place.meter.asset


class Battery:
    """A battery on float charge that breathes a little: current is the change of its charge, voltage follows it."""

    def __init__(self, world: World, place: Place) -> None:
        self._breath = smooth(place.key("charge"), 2400.0)
        self._drift = wander(place.key("float"), 900.0)
        self._test = world.plant(BatteryTest, *_where(place)) if world.operations else None
        self.energy_wh = Shared(Integral(self._rates, world.origin_s))

    def soc(self, t: float) -> float:
        """Return the state of charge, %."""
        soc = 97.0 + 1.2 * self._breath(t)
        if self._test:
            soc = soc - self._test.taken_s(t) * LOAD_A / 3600.0 / CAPACITY_AH * 100.0
        return soc

    def current(self, t: float) -> float:
        """Return the current, A, positive when charging."""
        return (self.soc(t + 0.5) - self.soc(t - 0.5)) / 100.0 * CAPACITY_AH * 3600.0

    def volts(self, t: float) -> float:
        """Return the terminal voltage."""
        volts = FLOAT_V + 0.04 * self.current(t) + 0.05 * self._drift(t)
        if self._test:
            volts = volts - DISCHARGE_V * self._test.on_battery(t)
        return volts

    def power(self, t: float) -> float:
        """Return the power, W, positive when charging."""
        return self.volts(t) * self.current(t)

    def _rates(self, t: float) -> tuple[float, ...]:
        power = self.power(t)
        return columns.most(power, 0.0) / 3600.0, columns.most(-power, 0.0) / 3600.0


def _of(
    dimension: str, pick: Callable[[Battery, float], float], sigma: float
) -> Callable[[Place, re.Match[str]], Measured]:
    def make(place: Place, match: re.Match[str]) -> Measured:
        battery = place.world.plant(Battery, place)
        return Measured(dimension, lambda t: pick(battery, t), sigma)

    return make


def _energy(place: Place, match: re.Match[str]) -> Measured:
    battery, which = place.world.plant(Battery, place), 1 if "discharg" in match.string else 0
    base = 200_000.0 * (1.0 + uniform(place.key("age"), 0))
    return Measured("energy", lambda t: base + battery.energy_wh(t)[which])


def level(
    dimension: str, value: float, swing: float, sigma: float, period_s: float = 900.0
) -> Callable[[Place, re.Match[str]], Measured]:
    """Return the maker of a gauge that wanders by `swing` about a value, with noise."""

    def make(place: Place, match: re.Match[str]) -> Measured:
        drift = wander(place.key(match.string), period_s)
        return Measured(dimension, lambda t: value + swing * drift(t), sigma)

    return make


def _room(place: Place, match: re.Match[str]) -> Measured:
    """Room temperature under a thermostat: slowly up, faster down."""
    key = place.key("room")
    cycle = cycles(key, CLIMATE_S, 0.1)

    def at(t: float) -> float:
        _, since = cycle(t)
        part = since / CLIMATE_S
        return 22.4 + 1.2 * columns.pick(part < 0.6, part / 0.6, columns.most(0.0, (1.0 - part) / 0.4))

    if place.world.operations:
        visits = place.world.plant(Visits, *_where(place)).schedule
        return Measured("temperature", lambda t: at(t) + 0.8 * visits.during(t, 180.0), 0.08)
    return Measured("temperature", at, 0.08)


def _rectifier(
    dimension: str, value: float, swing: float, sigma: float, tested: float
) -> Callable[[Place, re.Match[str]], Measured]:
    """Return the maker of a gauge of a rectifier: steady but for the test of its battery, when it shows `tested`."""
    steady = level(dimension, value, swing, sigma)

    def make(place: Place, match: re.Match[str]) -> Measured:
        found = steady(place, match)
        if not place.world.operations:
            return found
        test, signal = place.world.plant(BatteryTest, *_where(place)), found.signal
        return replace(found, signal=lambda t: signal(t) + (tested - signal(t)) * test.on_battery(t))

    return make


def _extreme(place: Place, match: re.Match[str]) -> Measured:
    """Lowest and highest cell."""
    battery = place.world.plant(Battery, place)
    side = 0.01 if "max" in match.string else -0.01
    return Measured("voltage", lambda t: battery.volts(t) / 16.0 + side, 0.004)


def _grid_power(place: Place, match: re.Match[str]) -> Measured:
    phase = match.group(1)
    return level("power", 480.0 + 35.0 * int(phase), 12.0, 3.0)(place, match)


RULES: Final = rules(
    {
        r"grid_l(\d)_power": _grid_power,
        r"pv_power": level("power", 220.0, 25.0, 5.0, 600.0),
        r"dc_(system_)?power": level("power", LOAD_A * FLOAT_V, 12.0, 4.0),
        r"energy_": _energy,
        r"cell_volt": _extreme,
        r"cell_temp": level("temperature", 23.0, 0.4, 0.08, 3600.0),
        r"starter": level("voltage", 12.8, 0.02, 0.006),
        r"mid_voltage_dev": level("share", 0.2, 0.02, 0.01),
        r"mid_volt": _of("voltage", lambda battery, t: battery.volts(t) / 2.0, 0.006),
        r"input_voltage_max": level("voltage", 236.0, 0.6, 0.5),
        r"input_voltage_min": level("voltage", 224.0, 0.6, 0.5),
        r"(input|output|mains|line|ac).*volt": level("voltage", 230.0, 1.2, 0.6),
        r"freq": level("frequency", 50.0, 0.02, 0.004, 120.0),
        r"runtime": level("time", 47 * 60.0, 40.0, 30.0, 1800.0),
        r"rectifier_current": _rectifier("current", LOAD_A, 0.4, 0.1, 0.4),
        r"load_current|dc_current": level("current", LOAD_A, 0.4, 0.1),
        r"rectifier_volt|dc_volt|bus_volt": _rectifier("voltage", FLOAT_V + 0.2, 0.04, 0.02, 50.8),
        r"(^|_)load(_|$)": level("share", 34.0, 0.8, 0.5),
        r"room|cabinet|hut|climate|indoor": _room,
        r"humidity": level("share", 42.0, 2.0, 0.3, 3600.0),
        r"consumed_ah": _of("charge", lambda battery, t: (battery.soc(t) - 100.0) / 100.0 * CAPACITY_AH, 0.0),
        r"time_to_go": _of("time", lambda battery, t: battery.soc(t) / 100.0 * CAPACITY_AH / LOAD_A * 3600.0, 60.0),
        r"soh|health": level("share", 96.4, 0.0, 0.06),
        r"soc|charge$": _of("share", lambda battery, t: battery.soc(t), 0.05),
        r"power": _of("power", lambda battery, t: battery.power(t), 1.0),
        r"current": _of("current", lambda battery, t: battery.current(t), 0.08),
        r"volt": _of("voltage", lambda battery, t: battery.volts(t), 0.008),
        r"temp": level("temperature", 23.5, 0.5, 0.1, 3600.0),
    }
)
