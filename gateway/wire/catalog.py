"""The catalog message: what a gateway reads, for everybody downstream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.wire.strict_json import dumps, loads, number, text, whole

MAX_PERIOD_S: Final = 1e9  # thirty years: more is no period, and three of it must still be a time


@dataclass(frozen=True, slots=True)
class CatalogTag:
    """One tag. `limits` holds those of low_low, low, high, high_high that are set.

    decimals  places behind the point that the meter gives, None where it sends floats
    """

    name: str
    unit: str
    kind: str
    range: tuple[float, float] | None
    limits: dict[str, float]
    period_s: float
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class CatalogDevice:
    """One device and its tags; `strings` are its identity, as read from it."""

    name: str
    profile: str
    asset: str
    line: str
    kp_m: int | None
    tags: list[CatalogTag]
    strings: dict[str, str] = field(default_factory=dict)
    measurement: str = "meter"
    link: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON tables; dataclasses.asdict takes ten times as long, and every start waits for it."""
        tags = [{name: getattr(tag, name) for name in CatalogTag.__dataclass_fields__} for tag in self.tags]
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "tags": tags}


@dataclass(frozen=True, slots=True)
class Catalog:
    """All devices of a gateway. `catalog` is the short hash that data messages refer to."""

    catalog: str
    devices: list[CatalogDevice]

    def encode(self) -> bytes:
        """Return the JSON message."""
        return dumps({"catalog": self.catalog, "devices": [device.plain() for device in self.devices]})


def identify(devices: list[CatalogDevice], scans: Sequence[object] = ()) -> str:
    """Return the hash of what the configuration fixes; strings read from devices do not count.

    scans  how the line of each looks, by number: the spool finds the names of a frame's values by this hash, so it
           must differ where their order does
    """
    fixed = [{**device.plain(), "strings": None} for device in devices]
    return hashlib.sha256(json.dumps([fixed, scans], sort_keys=True).encode()).hexdigest()[:8]


def decode(payload: bytes) -> Catalog:
    """Return the catalog of a message; raises ValueError. Keys of a newer gateway are left out."""
    try:
        raw = loads(payload)
        return Catalog(text(raw["catalog"]), [_device(device) for device in raw["devices"]])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a catalog: {error!r}") from None


def _device(raw: dict[str, Any]) -> CatalogDevice:
    return CatalogDevice(
        name=text(raw["name"]),
        profile=text(raw["profile"]),
        asset=text(raw["asset"]),
        line=text(raw["line"]),
        kp_m=None if raw["kp_m"] is None else whole(raw["kp_m"]),
        tags=[_tag(tag) for tag in raw["tags"]],
        strings={name: text(value) for name, value in raw.get("strings", {}).items()},
        measurement=text(raw.get("measurement", "meter")),
        link=text(raw.get("link", "")),
    )


def _tag(raw: dict[str, Any]) -> CatalogTag:
    period_s = number(raw["period_s"])
    if not 0 <= period_s <= MAX_PERIOD_S:
        raise ValueError(f"a period of {period_s} s")
    decimals = raw.get("decimals")
    return CatalogTag(
        name=text(raw["name"]),
        unit=text(raw["unit"]),
        kind=text(raw["kind"]),
        range=_range(raw["range"]),
        limits={name: number(limit) for name, limit in raw["limits"].items() if limit is not None},
        period_s=period_s,
        decimals=None if decimals is None else whole(decimals),
    )


def _range(raw: list[Any] | None) -> tuple[float, float] | None:
    """Return a range with two ends; one that is open (null, where the gateway has an infinity) is none."""
    if raw is None or None in raw:
        return None
    low, high = raw
    return number(low), number(high)
