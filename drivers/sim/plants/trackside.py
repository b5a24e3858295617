"""Along the track: hot boxes, train counts, rectifiers, and the scales that weigh what the trains and trucks bring."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from drivers.sim import columns
from drivers.sim.plants.operations import Timetable, traffic
from drivers.sim.plants.place import Measured, Place, rules
from drivers.sim.plants.weather import Weather, air_temperature, rail_temperature
from drivers.sim.signals import Signal, cycles, ramp, uniform, wander

TRAIN_S: Final = 600.0  # one train in ten minutes


def _train(place: Place) -> Callable[[float], tuple[int, float]]:
    return cycles(place.world.key("trains", place.meter.line), TRAIN_S)


def _timetable(place: Place) -> Timetable | None:
    return place.world.plant(Timetable, place.meter.line, TRAIN_S) if place.world.operations else None


def hot_box(place: Place, match: re.Match[str]) -> Measured:
    """Bearing temperature of the last train: above ambient, both sides of an axle nearly alike."""
    weather, train, key = place.world.plant(Weather, place.meter.site), _train(place), place.key("box")
    side = 1 if re.search(r"right|(^|_)r(_|$)", match.string) else 0

    timetable = _timetable(place)

    def at(t: float) -> float:
        if timetable:
            n, last, since, _ = timetable.at(t)
            now, before = _box(key, n, side), _box(key, last, side)
            return weather.air_c(t) + before + (now - before) * ramp(since, 8.0)
        n, since = train(t)
        now, before = _box(key, n, side), _box(key, n - 1, side)
        return weather.air_c(t) + before + (now - before) * ramp(since, 8.0)

    return Measured("temperature", at, 0.3)


def _box(key: int, n: int, side: int) -> float:
    return 22.0 + 8.0 * uniform(key, n) + 3.0 * (uniform(key + 1 + side, n) - 0.5)


def trains(place: Place, match: re.Match[str]) -> Measured:
    """Trains, or axles, counted."""
    train, axles = _train(place), 120.0 if "axle" in match.string else 1.0
    first, timetable = train(place.world.origin_s)[0], _timetable(place)
    base = float(int(2000 * uniform(place.key(match.string), 0)))
    if timetable:
        return Measured("", lambda t: base + axles * timetable.at(t)[3], whole=True)
    return Measured("", lambda t: base + axles * (train(t)[0] - first), whole=True)


def train_speed(place: Place, match: re.Match[str]) -> Measured:
    """Speed of the last train, m/s."""
    train, key, timetable = _train(place), place.key("speed"), _timetable(place)
    if timetable:
        return Measured("speed", lambda t: 17.0 + 6.0 * uniform(key, timetable.at(t)[0]), 0.1)
    return Measured("speed", lambda t: 17.0 + 6.0 * uniform(key, train(t)[0]), 0.1)


def oil_of_transformer(place: Place, match: re.Match[str]) -> Measured:
    """Transformer or rectifier temperature, degC."""
    drift = wander(place.key(match.string), 3600.0)
    return Measured("temperature", lambda t: 48.0 + 2.0 * drift(t), 0.15)


RULES: Final = rules(
    {
        r"box|axle.*(temp|left|right)|journal": hot_box,
        r"axle_?count|axles|trains?_?(count|total)": trains,
        r"train_speed": train_speed,
        r"rail.*temp|temp.*rail": rail_temperature,
        r"air|ambient": air_temperature,
        r"transformer|rectifier.*temp|oil": oil_of_transformer,
    }
)


TARE_KG: Final = 14_800.0
TRUCK_S: Final = 300.0


def _weight(place: Place, name: str) -> Signal:
    """A truck drives on, stands, drives off; between trucks the scale is empty."""
    match = re.match(r"scale(\d)", name)
    key = place.key("truck", match.group(1) if match else "1")
    cycle = cycles(key, TRUCK_S)

    def at(t: float) -> float:
        n, since = cycle(t)
        kg = 18_000.0 + 24_000.0 * uniform(key + 1, n)
        if place.world.operations:  # hardly a truck at night
            kg = kg * (uniform(key + 2, n) < traffic(t - since))
        return 6.0 + kg * (ramp(since, 8.0) - ramp(since - 150.0, 8.0))

    return at


def _gross(place: Place, match: re.Match[str]) -> Measured:
    return Measured("mass", _weight(place, match.string), 2.0)


def _net(place: Place, match: re.Match[str]) -> Measured:
    weight = _weight(place, match.string)
    return Measured("mass", lambda t: columns.most(0.0, weight(t) - TARE_KG), 2.0)


def _rate(place: Place, match: re.Match[str]) -> Measured:
    weight = _weight(place, match.string)
    return Measured("", lambda t: weight(t) - weight(t - 1.0), 1.0)


def _tare(place: Place, match: re.Match[str]) -> Measured:
    return Measured("mass", lambda t: TARE_KG, 1.0)


SCALE_RULES: Final = rules({r"gross|weight|displayed": _gross, r"(^|_)net": _net, r"^rate$": _rate, r"tare": _tare})
