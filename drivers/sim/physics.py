"""Which plant a point belongs to: from profile, names and units to a moving value for every point of every meter."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivers.points import Point
from drivers.sim import columns
from drivers.sim.device import MeterSpec
from drivers.sim.plants import cable, electrical, gas, pipeline, settings, supply, trackside, weather
from drivers.sim.plants.place import UNITS, Measured, Place, Rule, World, bounds, in_unit, place_of
from drivers.sim.signals import Signal, wander, white

LAST_DIGIT_NOISE: Final = 0.5  # sd of a gauge in steps of its last digit: a converter is never quieter

Rules = Sequence[Rule]

_BY_PROFILE: Final[tuple[tuple[tuple[str, ...], tuple[Rules, ...]], ...]] = (
    (("abb_", "camillebauer_", "carlogavazzi_", "eastron_", "janitza_", "schneider_", "siemens_"), (electrical.RULES,)),
    (("apc_", "victron_"), (supply.RULES,)),
    (("endresshauser_", "emerson_", "dynasonics_"), (pipeline.RULES,)),
    (("sick_", "rockwell_"), (gas.RULES,)),
    (("honeywell_", "msa_", "pemtech_"), (gas.DETECTOR_RULES,)),
    (("calypso_", "lambrecht_", "lufft_", "sokol_", "thies_"), (weather.RULES,)),
    (("diniargeo_", "mettler_", "rinstrum_"), (trackside.SCALE_RULES,)),
    (("lumasense_",), (cable.RULES,)),
)

# For meters without a profile: words in their name or asset.
_BY_WORDS: Final[tuple[tuple[tuple[str, ...], tuple[Rules, ...]], ...]] = (
    (("dts", "joint", "cable"), (cable.RULES, supply.RULES)),
    (("hotbox", "hot-box", "axle", "node", "track", "rail"), (trackside.RULES, supply.RULES)),
    (("rectifier", "traction", "substation"), (trackside.RULES, supply.RULES, electrical.RULES)),
    (("hut", "ups", "battery", "climate"), (supply.RULES,)),
    (("wind", "weather", "met"), (weather.RULES,)),
    (("gas",), (gas.RULES, gas.DETECTOR_RULES)),
    (("scale", "weigh"), (trackside.SCALE_RULES,)),
    (("pump", "valve", "pipe", "tank", "flow"), (pipeline.RULES,)),
)

_REST: Final = (
    electrical.RULES,
    trackside.RULES,
    weather.RULES[:2],
    gas.DETECTOR_RULES[:1],
    pipeline.RULES,
    supply.RULES,
)

# dimension -> level, slow swing, noise: what a gauge shows of which only the unit is known
_BY_DIMENSION: Final[dict[str, tuple[float, float, float]]] = {
    "temperature": (24.0, 0.8, 0.1),
    "pressure": (12.0, 0.1, 0.02),
    "flow": (820.0, 6.0, 1.2),
    "mass_flow": (240.0, 2.0, 0.4),
    "density": (861.0, 1.0, 0.1),
    "speed": (6.0, 0.4, 0.1),
    "length": (5.2, 0.1, 0.01),
    "share": (52.0, 1.0, 0.2),
    "angle": (180.0, 5.0, 1.0),
    "mass": (1200.0, 8.0, 2.0),
    "volume": (900.0, 6.0, 1.0),
    "turning": (1490.0, 5.0, 1.5),
    "vibration": (1.8, 0.1, 0.05),
    "content": (12.0, 0.6, 0.2),
    "": (50.0, 1.0, 0.2),
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A point's true value as a function of time, in its own unit, noise included.

    sigma  sd of that noise;  still  a setting or state, which does not move
    """

    at: Signal
    sigma: float
    still: bool


def quantities(world: World, meter: MeterSpec) -> dict[str, Quantity]:
    """Return the quantity behind every numeric point of a meter, by name."""
    place = place_of(world, meter)
    return {point.name: _quantity(place, point) for point in meter.points if not point.is_text}


def texts(world: World, meter: MeterSpec) -> dict[str, str]:
    """Return what every string point of a meter says, by name."""
    place = place_of(world, meter)
    return {point.name: settings.text(place, point) for point in meter.points if point.is_text}


def _quantity(place: Place, point: Point) -> Quantity:
    measured = settings.setting(place, point) or _measured(place, point)
    signal, sigma = measured.signal, measured.sigma
    low, high = bounds(point)
    if measured.still:
        return Quantity(lambda t: columns.within(signal(t), low, high), 0.0, True)
    if point.kind == "counter":
        span = high - low
        return Quantity((lambda t: signal(t) % span) if span < 1e300 else signal, 0.0, False)
    if not _fits(place, signal, low, high):
        signal, sigma = _within(place, point, low, high)
    if not measured.whole and not point.type.startswith("float"):
        sigma = max(sigma, LAST_DIGIT_NOISE * abs(point.scale))
    return Quantity(_noisy(place, point, signal, sigma), sigma, False)


def _noisy(place: Place, point: Point, signal: Signal, sigma: float) -> Signal:
    if sigma == 0.0:
        return signal
    noise = white(place.key(point.name, "noise"))
    if (
        point.unit == "Hz" and "freq" in point.name.lower()
    ):  # a meter's last digit may be 0.1 Hz; the grid stays within its band
        return lambda t: columns.within(signal(t) + sigma * noise(t), 49.9, 50.1)
    return lambda t: signal(t) + sigma * noise(t)


def _fits(place: Place, signal: Signal, low: float, high: float) -> bool:
    return all(low <= signal(place.world.origin_s + after_s) <= high for after_s in (0.0, 30.0))


def _within(place: Place, point: Point, low: float, high: float) -> tuple[Signal, float]:
    """Return a gauge that moves in the middle of what its point allows."""
    span = min(high - low, 2.0 * max(abs(low), abs(high)))
    middle, drift = (high + low) / 2.0 if math.isfinite(high + low) else 0.0, wander(place.key(point.name), 900.0)
    return lambda t: middle + 0.03 * span * drift(t), 0.004 * span


def _measured(place: Place, point: Point) -> Measured:
    """Return what the point measures: by its plant's rules, then by anyone's, then by its unit alone."""
    dimension = UNITS.get(point.unit, ("", 1.0, 0.0))[0]
    name = point.name.lower()
    for rules in (*_family(place), *_REST):
        for pattern, make in rules:
            if match := pattern.search(name):
                found = in_unit(make(place, match), point.unit)
                if found is not None:
                    return found
    whole_name = re.match(".*", name)
    if dimension in electrical.BY_DIMENSION and whole_name:
        found = in_unit(electrical.BY_DIMENSION[dimension](place, whole_name), point.unit)
        if found is not None:
            return found
    level, swing, sigma = _BY_DIMENSION.get(dimension, _BY_DIMENSION[""])
    drift = wander(place.key(name), 900.0)
    return in_unit(Measured(dimension, lambda t: level + swing * drift(t), sigma), point.unit) or Measured("", drift)


def _family(place: Place) -> tuple[Rules, ...]:
    for prefixes, rules in _BY_PROFILE:
        if place.meter.profile.startswith(prefixes):
            return rules
    for words, rules in _BY_WORDS:
        if place.is_called(words):
            return rules
    return ()
