"""Weather of a site: air, sun and wind; the wind's means and gusts belong to one another."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from drivers.sim import columns
from drivers.sim.plants.operations import HOUR_S, Schedule
from drivers.sim.plants.place import Measured, Place, World, rules
from drivers.sim.signals import Shared, Signal, daily, smooth, wander

STEP_S: Final = 3.0  # a gust is the highest 3 s mean
GUST_WINDOWS_S: Final = {"10min": 600.0, "5min": 300.0, "2min": 120.0, "1min": 60.0}


class Front:
    """Weather fronts: colder, windier, damper and darker for most of a day."""

    def __init__(self, world: World, site: str) -> None:
        self._schedule = Schedule(world, "weather front", site, 60 * HOUR_S, (14 * HOUR_S, 28 * HOUR_S))
        self.passing: Signal = Shared(lambda t: self._schedule.during(t, 4 * HOUR_S))

    def cooled(self, air_c: Signal) -> Signal:
        """Return the temperature with the fronts, degC."""
        return lambda t: air_c(t) - 6.5 * self.passing(t)

    def shaded(self, sun_w_m2: Signal) -> Signal:
        """Return the radiation with the fronts, W/m2."""
        return lambda t: sun_w_m2(t) * (1.0 - 0.6 * self.passing(t))


class Weather:
    """The weather of one site; temperatures degC, wind m/s and degrees, sun W/m2."""

    def __init__(self, world: World, site: str) -> None:
        def key(name: str) -> int:
            return world.key("weather", site, name)

        day, spell, fast = daily(15.0), smooth(key("spell"), 6 * 3600.0), wander(key("air"), 1200.0)
        air: Signal = lambda t: 11.0 + 3.5 * day(t) + 1.5 * spell(t) + 0.2 * fast(t)  # noqa: E731
        self._front = Front(world, site) if world.operations else None
        self.air_c: Signal = Shared(self._front.cooled(air) if self._front else air)
        noon, cloud = daily(12.0), wander(key("cloud"), 2400.0)
        sun: Signal = lambda t: (  # noqa: E731
            3.0 + 620.0 * columns.power(columns.most(0.0, noon(t)), 1.5) * (0.85 + 0.12 * cloud(t))
        )
        self.sun_w_m2: Signal = Shared(self._front.shaded(sun) if self._front else sun)
        damp, barometer = wander(key("humidity"), 3600.0), smooth(key("pressure"), 12 * 3600.0)
        self.humidity: Signal = lambda t: 70.0 - 10.0 * day(t) + 3.0 * damp(t) + 14.0 * self._passing(t)
        self.pressure_bar: Signal = lambda t: 1.0135 + 0.006 * barometer(t) - 0.011 * self._passing(t)
        self._mean, self._veer = smooth(key("wind"), 3 * 3600.0), smooth(key("veer"), 4 * 3600.0)
        self._gusts = [smooth(key(f"gust{period}"), period) for period in (4.0, 15.0, 70.0, 300.0)]
        self._swing = wander(key("swing"), 60.0)
        self._maxima: dict[int, float] = {}

    def wind_mean(self, t: float) -> float:
        """Return the 10 min mean."""
        return (5.6 + 1.6 * self._mean(t)) * (1.0 + 0.25 * self._passing(t))

    def _passing(self, t: float) -> float:
        return self._front.passing(t) if self._front else 0.0

    def wind(self, t: float, slowest: int = 0) -> float:
        """Return the wind without its `slowest` fastest movements: 0 instantaneous, 1 3 s mean, 3 about 1 to 5 min."""
        turbulence = sum(gust(t) for gust in self._gusts[slowest:])
        return self.wind_mean(t) * (1.0 + 0.13 * turbulence)

    def gust(self, t: float, window_s: float) -> float:
        """Return the highest 3 s mean of the window that ends at t."""
        if type(t) is columns.COLUMN:
            return self._gusts_at(t, int(window_s / STEP_S))
        last = int(t / STEP_S)
        first = last - int(window_s / STEP_S) + 1
        if len(self._maxima) > 4 * int(max(GUST_WINDOWS_S.values()) / STEP_S):
            self._maxima.clear()
        highest = self.wind(t, 1)
        for n in range(first, last + 1):
            if (speed := self._maxima.get(n)) is None:
                speed = self._maxima[n] = self.wind(n * STEP_S, 1)
            highest = max(highest, speed)
        return highest

    def _gusts_at(self, t: Any, n_means: int) -> Any:
        last: Any = columns.whole(t / STEP_S)
        first = int(last.min()) - n_means + 1
        speeds: Any = self.wind(np.arange(first, int(last.max()) + 1) * STEP_S, 1)  # type: ignore[arg-type]
        highest = sliding_window_view(speeds, n_means).max(axis=1)
        return np.maximum(highest[last - n_means + 1 - first], self.wind(t, 1))

    def direction(self, t: float) -> float:
        """Return where the wind comes from."""
        return (235.0 + 40.0 * self._veer(t) + 8.0 * self._swing(t)) % 360.0


def _of(
    dimension: str, pick: Callable[[Weather, float], float], sigma: float
) -> Callable[[Place, re.Match[str]], Measured]:
    def make(place: Place, match: re.Match[str]) -> Measured:
        weather = place.world.plant(Weather, place.meter.site)
        return Measured(dimension, lambda t: pick(weather, t), sigma)

    return make


def _wind(place: Place, match: re.Match[str]) -> Measured:
    """Wind speed: instantaneous, a mean or an extreme, as the name says."""
    weather, name = place.world.plant(Weather, place.meter.site), match.string
    window_s = next((seconds for word, seconds in GUST_WINDOWS_S.items() if word in name), 600.0)
    if re.search(r"gust|max", name):
        return Measured("speed", Shared(lambda t: weather.gust(t, window_s)), 0.02)
    if "std" in name:
        return Measured("speed", lambda t: 0.11 * weather.wind_mean(t), 0.06)
    if re.search(r"min_|_min$|min_1min", name):
        return Measured("speed", lambda t: 0.72 * weather.wind(t, 3), 0.08)
    if re.search(r"10min|5min|2min|1min|avg|mean", name):
        return Measured("speed", lambda t: weather.wind(t, 3), 0.06)
    return Measured("speed", lambda t: weather.wind(t, 1 if "3s" in name else 0), 0.05)


def _direction(place: Place, match: re.Match[str]) -> Measured:
    weather = place.world.plant(Weather, place.meter.site)
    spread = 9.0 if re.search(r"max", match.string) else -9.0 if re.search(r"_min$", match.string) else 0.0
    return Measured("angle", lambda t: (weather.direction(t) + spread) % 360.0, 1.2)


def air_temperature(place: Place, match: re.Match[str]) -> Measured:
    """Air in the shade."""
    return Measured("temperature", place.world.plant(Weather, place.meter.site).air_c, 0.1)


def rail_temperature(place: Place, match: re.Match[str]) -> Measured:
    """Rail in the sun: up to 18 K above the air."""
    weather = place.world.plant(Weather, place.meter.site)
    return Measured("temperature", lambda t: weather.air_c(t) + 0.028 * weather.sun_w_m2(t), 0.12)


RULES: Final = rules(
    {
        r"wind_?dir|wind_gust_direction|direction": _direction,
        r"wind|burst": _wind,
        r"humidity|rel_hum": _of("share", lambda weather, t: weather.humidity(t), 0.3),
        r"pressure": _of("pressure", lambda weather, t: weather.pressure_bar(t), 0.00006),
        r"radiation|solar": _of("radiation", lambda weather, t: weather.sun_w_m2(t), 1.5),
        r"precip|rain": _of("length", lambda weather, t: 0.0012, 0.0001),
        r"snow": _of("", lambda weather, t: 1.0, 0.6),
        r"rail.*temp|temp.*rail": rail_temperature,
        r"air|ambient|outside|outdoor|temp": air_temperature,
    }
)
