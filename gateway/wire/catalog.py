"""The catalog message: what a gateway reads, for everybody downstream."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any


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


@dataclass(frozen=True, slots=True)
class Catalog:
    """All devices of a gateway. `catalog` is the short hash that data messages refer to."""

    catalog: str
    devices: list[CatalogDevice]

    def encode(self) -> bytes:
        """Return the JSON message."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


def identify(devices: list[CatalogDevice]) -> str:
    """Return the hash of what the configuration fixes; strings read from devices do not count."""
    fixed = [{**asdict(device), "strings": None} for device in devices]
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]


def decode(payload: bytes) -> Catalog:
    """Return the catalog of a message; raises ValueError."""
    try:
        raw: dict[str, Any] = json.loads(payload)
        devices = []
        for device in raw["devices"]:
            tags = [
                CatalogTag(**{**tag, "range": tuple(tag["range"]) if tag["range"] else None}) for tag in device["tags"]
            ]
            devices.append(CatalogDevice(**{**device, "tags": tags}))
        return Catalog(raw["catalog"], devices)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a catalog: {error!r}") from None
