"""Links, devices and tags as the whole program sees them: frozen, checked, free of files and dicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drivers.link import LinkSpec
from drivers.points import Expected, Hole, Point, ScanList

LIMITS: Final = ("low_low", "low", "high", "high_high")  # in the order of the columns of TagTable.limit


@dataclass(frozen=True, slots=True)
class Tag:
    """A point of one device, with what the site has set for it.

    limits  low_low, low, high, high_high in tag unit; NaN where there is none
    priority  1 highest to 4 diagnostic
    """

    point: Point
    period_s: float
    limits: tuple[float, float, float, float]
    deadband: float
    on_delay_s: float
    off_delay_s: float
    priority: int
    detect: tuple[str, ...]
    rate: float = float("nan")

    @property
    def name(self) -> str:
        """The name operators know: the point's."""
        return self.point.name


@dataclass(frozen=True, slots=True)
class Device:
    """A meter bound to a link and unit.

    points        all that its profile knows, in tags or not
    side_effects  those that change it when they are read
    holes         what is never to be read
    expect        what it must say before anything else is believed
    scan_list     what an installer can have it show side by side
    """

    name: str
    link: str
    unit: int
    profile: str
    measurement: str
    asset: str
    line: str
    kp_m: int | None
    tags: tuple[Tag, ...]
    strings: tuple[Point, ...]
    max_registers: int
    max_bits: int
    max_gap: int
    enron: bool
    points: tuple[Point, ...] = ()
    side_effects: tuple[Point, ...] = ()
    holes: tuple[Hole, ...] = ()
    expect: tuple[Expected, ...] = ()
    scan_list: ScanList | None = None


@dataclass(frozen=True, slots=True)
class MqttSpec:
    """How a process reaches the brokers; `password` is the secret itself and must never be shown."""

    urls: tuple[str, ...]
    username: str | None
    password: str | None = field(repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """Everything that one gateway.toml says."""

    id: str
    corridor: str
    site: str
    mqtt: MqttSpec
    spool_path: Path
    spool_max_bytes: int
    spool_commit_s: float
    clock_hold_s: float
    metrics_listen: tuple[str, int] | None
    links: tuple[LinkSpec, ...]
    devices: tuple[Device, ...]
    spool_endurance_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """Where samples are kept; `token` is a secret."""

    url: str
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class IngestSpec:
    """Everything that one ingest.toml says."""

    id: str
    corridor: str
    share: str
    mqtt: MqttSpec
    store: StoreSpec


@dataclass(frozen=True, slots=True)
class ConsoleSpec:
    """Everything that one console.toml says."""

    listen: tuple[str, int]
    mqtt: MqttSpec
    store: StoreSpec | None
