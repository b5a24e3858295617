"""Points that do not move in a healthy plant: status words, switches, settings, identity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from drivers.points import Point
from drivers.sim import columns
from drivers.sim.plants.operations import Visits
from drivers.sim.plants.pipeline import is_running
from drivers.sim.plants.place import Measured, Place
from drivers.sim.signals import constant, uniform

# A pattern searched in the point's name and its value; the first match wins.
_STATES: Final[Mapping[str, float]] = {
    r"door|intrusion|alarm|fault|error|fail|trip|occupied|disturbed|warning|closed|lost|leak|simulated": 0.0,
    r"open|running|mains|_ok|clear|valid|online|stable|ready|_on$|present|healthy": 1.0,
}
_SETTINGS: Final[Mapping[str, float]] = {
    r"^alarm1_level": 20.0,
    r"^alarm2_level": 40.0,
    r"latching|^alarm_|^error$|faulty_|gas_unit|calibration_step|phase_(sequence|config)|unit_length|^control$": 0.0,
    r"system_condition|write_protection": 1.0,
    r"byte_order": 3.0,
    r"telegram_delay": 10.0,
    r"^application$": 7.0,
    r"switch_position": 3.0,
    r"charge_cycles": 37.0,
    r"^batteries$": 4.0,
    r"cfg_altitude": 12.0,
    r"cfg_wind_interval|counter_resolution": 10.0,
    r"cfg_": 0.0,
    r"^capacity$": 60_000.0,
    r"^increment$": 20.0,
    r"gas_type|gas_selection": 2.0,
}
_IDENTITY: Final = re.compile(
    r"serial|(^|_)version|identification|model|device_type|crc_|firmware|hardware|_code$|scan_list_"
)
_WILD: Final = re.compile(r"[*?]|\[(!?)(.[^]]*)\]")  # what stands for other characters in a shell pattern
_HEARTBEAT_BIT: Final = 1 << 11  # Honeywell Midas: toggles every 2 s


def setting(place: Place, point: Point) -> Measured | None:
    """Return what a point that stands still says; None for one that measures something."""
    name = point.name.lower()
    if place.meter.profile == "honeywell_midas" and name == "status":
        return Measured("", lambda t: 1.0 * _HEARTBEAT_BIT * (columns.whole(t / 2.0) % 2), still=True)
    if place.world.operations and point.kind == "state" and (found := _operated(place, name)):
        return found
    value = next((each.values[0] for each in place.meter.expect if each.point == point.name), None)
    if value is None:
        value = _first(_SETTINGS, name)
    if value is None and _IDENTITY.search(name):
        value = float(int(1 + 9998 * uniform(place.key(name), 0)))
    if value is None and (point.kind == "state" or point.type.startswith(("bool", "bitfield"))):
        value = _first(_STATES, name) or 0.0
    return None if value is None else Measured("", constant(value), still=True)


def _operated(place: Place, name: str) -> Measured | None:
    """Return a state that people change; None for one that they leave alone."""
    if name == "running":
        return is_running(place)
    if name == "door_open":
        visits = place.world.plant(Visits, place.meter.site, place.meter.asset)
        return Measured("", visits.door, still=True)
    return None


def _first(table: Mapping[str, float], name: str) -> float | None:
    return next((value for pattern, value in table.items() if re.search(pattern, name)), None)


def text(place: Place, point: Point) -> str:
    """Return what a string point says: who made the meter, which one it is."""
    if pattern := next((each.texts[0] for each in place.meter.expect if each.point == point.name), ""):
        return like(pattern)
    if "serial" in point.name:
        return f"SIM{int(1e8 * uniform(place.key(point.name), 0)):08d}"
    if "manufacturer" in point.name or "vendor" in point.name:
        return "Corridor Simulator"
    return (place.meter.profile or place.meter.name).upper()


def like(pattern: str) -> str:
    """Return a short text that a shell pattern admits."""

    def one(wild: re.Match[str]) -> str:
        is_not, characters = wild[1], wild[2]
        if not characters:
            return "0" if wild[0] == "?" else ""
        return next(c for c in "0aA_-" if c not in characters) if is_not else characters[0]

    return _WILD.sub(one, pattern)
