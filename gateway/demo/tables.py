"""gateway.toml texts built from a few words per device."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from drivers import profile as profiles

Settings = Mapping[str, Mapping[str, Any]]

# Where a profile leaves the unit to the device's settings: how the meters of this corridor are set.
_UNITS: Final[dict[str, str]] = {
    r"mass_flow|slot_00": "kg/s",
    r"scan_value_00|slot_03": "m3/h",
    r"scan_value_01|slot_01": "kg/m3",
    r"user2|temperature|scan_value_02|slot_02|^sv$": "degC",
    r"scan_value_03|slot_05|concentration|gas_level|^[tq]v$": "%",
    r"scan_value_04|slot_06": "Hz",
    r"volume": "m3",
    r"total|slot_04": "t",
    r"user1|^pv$": "m",
    r"gross|net|tare": "kg",
    r"rate": "kg/s",
}


@dataclass(frozen=True, slots=True)
class At:
    """Where a device stands: asset, line and chainage."""

    asset: str
    line: str
    kp_m: int


def point(name: str, address: int, unit: str = "", type: str = "float32", **more: Any) -> dict[str, Any]:  # noqa: A002
    """Return a point in place, in the holding registers unless `function` says otherwise."""
    return {"name": name, "function": "holding", "address": address, "type": type, "unit": unit, **more}


def floats(*names: tuple[str, str], start: int = 0) -> list[dict[str, Any]]:
    """Return float32 points of (name, unit), one after the other."""
    return [point(name, start + 2 * i, unit) for i, (name, unit) in enumerate(names)]


@dataclass(slots=True)
class GatewayText:
    """One gateway.toml in the making."""

    id: str
    site: str
    broker_url: str
    links: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)

    def link(self, name: str, url: str, **more: Any) -> str:
        """Add a link and return its name."""
        self.links.append(_table("[[link]]", {"name": name, "url": url, **more}))
        return name

    def device(
        self,
        name: str,
        link: str,
        at: At,
        profile: str = "",
        *,
        unit: int = 1,
        period_s: float = 1.0,
        tags: Sequence[str] = (),
        points: Sequence[Mapping[str, Any]] = (),
        measurement: str = "",
        settings: Settings | None = None,
    ) -> None:
        """Add a device with a profile (and some of its tags) or with points in place; settings by tag: limits, say."""
        head: dict[str, Any] = {"name": name, "link": link, "unit": unit}
        head |= {"profile": profile} if profile else {"measurement": measurement}
        head |= {"period_s": period_s, "asset": at.asset, "line": at.line, "kp_m": at.kp_m}
        if tags:
            head["tags"] = list(tags)
        text = [_table("[[device]]", head)]
        text += [_table("  [[device.point]]", dict(entry), indent="  ") for entry in points]
        for tag, unit_sign in _units_of(profile, points):
            if tags and tag not in tags:
                continue
            table = dict((settings or {}).get(tag, {}))
            if unit_sign == "device":
                table["unit"] = next(sign for pattern, sign in _UNITS.items() if re.search(pattern, tag))
            if table:
                text.append(_table(f"  [device.tag.{tag}]", table, indent="  "))
        self.devices.append("\n".join(text))

    def text(self) -> str:
        """Return the whole file."""
        head = [
            _table("[gateway]", {"id": self.id, "corridor": "link43", "site": self.site}),
            _table("[mqtt]", {"url": self.broker_url}),
            _table("[spool]", {"max_bytes": 50_000_000}),
        ]
        return "\n".join([*head, *self.links, *self.devices])


def _units_of(profile: str, points: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return name and unit of every numeric point."""
    if profile:
        return [(point.name, point.unit) for point in profiles.find(profile).points if not point.is_text]
    return [(entry["name"], entry.get("unit", "")) for entry in points]


def _table(head: str, keys: Mapping[str, Any], indent: str = "") -> str:
    return "\n".join([head, *(f"{indent}{key} = {json.dumps(value)}" for key, value in keys.items()), ""])
