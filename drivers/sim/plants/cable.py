"""A power cable where it comes ashore: joints and fibre-optic zones, warmed by the square of the load."""

from __future__ import annotations

import re
from typing import Final

from drivers.sim.plants.loads import cable_share
from drivers.sim.plants.place import Measured, Place, World, rules
from drivers.sim.signals import DAY_S, Lag, Shared, constant, uniform, wander

CONDUCTOR_TAU_S: Final = 1800.0
SOIL_TAU_S: Final = 3 * DAY_S
SEA_C: Final = 15.0
CONDUCTOR_K: Final = 38.0  # above the soil at rated load
SOIL_K: Final = 12.0
LANDFALL: Final = range(3, 6)  # dry sand above the beach: the hot spot
LANDFALL_FACTOR: Final = 1.35


class Cable:
    """The two thermal masses of one cable line: conductor (half an hour) and soil (days), kelvin above the sea."""

    def __init__(self, world: World, place: Place) -> None:
        share = cable_share(place)
        mean = 0.72**2
        self.conductor = Shared(
            Lag(lambda t: CONDUCTOR_K * share(t) ** 2, CONDUCTOR_TAU_S, world.origin_s, CONDUCTOR_K * mean)
        )
        self.soil = Shared(Lag(lambda t: SOIL_K * share(t) ** 2, SOIL_TAU_S, world.origin_s, SOIL_K * mean, 600.0))

    def above_sea(self, t: float, depth: float) -> float:
        """Return kelvin above the sea: `depth` of the conductor's warmth and all of the soil's."""
        return depth * self.conductor(t) + self.soil(t)


def _cable(place: Place) -> Cable:
    return place.world.plant(Cable, place)


def joint(place: Place, match: re.Match[str]) -> Measured:
    """A joint or a fibre thermometer on it."""
    cable, drift = _cable(place), wander(place.key(match.string), 3600.0)
    depth = 0.8 + 0.15 * uniform(place.key(match.string), 0)
    return Measured("temperature", lambda t: SEA_C + cable.above_sea(t, depth) + 0.2 * drift(t), 0.1)


def zone(place: Place, match: re.Match[str]) -> Measured:
    """A zone of the fibre along the cable: cool below the sea, warm where it lands."""
    cable, drift = _cable(place), wander(place.key(match.string), 1800.0)
    n, top = int(match.group(1)), 1.5 if "max" in match.string else 0.0
    factor = LANDFALL_FACTOR if n in LANDFALL else 1.0 if n < LANDFALL.start else 0.72
    return Measured("temperature", lambda t: SEA_C + top + factor * cable.above_sea(t, 0.7) + 0.3 * drift(t), 0.25)


def sea(place: Place, match: re.Match[str]) -> Measured:
    """Sea water at the landing."""
    drift = wander(place.key(match.string), 6 * 3600.0)
    return Measured("temperature", lambda t: SEA_C + 0.8 * drift(t), 0.05)


def probe(place: Place, match: re.Match[str]) -> Measured:
    """Signal strength of a fibre probe."""
    drift = wander(place.key(match.string), 1800.0)
    return Measured("", lambda t: 71.0 + 0.8 * drift(t), 0.3)


def sheath(place: Place, match: re.Match[str]) -> Measured:
    """Sheath current, A."""
    share = cable_share(place)
    return Measured("current", lambda t: 6.2 * share(t), 0.05)


def loss(place: Place, match: re.Match[str]) -> Measured:
    """Optical loss of the fibre, dB."""
    return Measured("level", constant(11.4), 0.05)


RULES: Final = rules(
    {
        r"zone_?(\d+)": zone,
        r"sea": sea,
        r"^signal": probe,
        r"sheath": sheath,
        r"loss": loss,
        r"joint|temperature_ch|termination|temp": joint,
    }
)
