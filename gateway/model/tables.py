"""The keys of gateway.toml, ingest.toml and console.toml, as pydantic models: also the JSON Schema for editors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.blocks import MAX_REGISTERS
from drivers.profile import Name, PointModel
from gateway.model import urls
from gateway.model.corridor import LIMITS

DETECTORS: Final = ("limits", "rate", "frozen", "ewma")
MIN_SPOOL_BYTES: Final = 1_000_000  # eight segments of 125 kB: below that a segment holds less than one busy second
MQTT_SCHEMES: Final = ("mqtt", "mqtts", "ws", "wss")


class Table(BaseModel):
    """A table of a configuration file; a key that nobody reads is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewayTable(Table):
    """[gateway]"""

    id: Name = Field(description="unique in the corridor")
    corridor: Name
    site: Name


class MqttTable(Table):
    """[mqtt]"""

    url: str | None = Field(None, description="mqtt, mqtts, ws or wss")
    urls: tuple[str, ...] = Field((), description="failover list, tried in order")
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _reachable(self) -> MqttTable:
        if bool(self.url) == bool(self.urls):
            raise ValueError("wants either 'url' or 'urls'")
        for url in self.all_urls:
            parts = urls.split(url)
            if parts.scheme not in MQTT_SCHEMES or not parts.hostname:
                raise ValueError(
                    f"url: got {urls.hide(url)!r}, wanted mqtt://host:1883, mqtts://host:8883, ws:// or wss://"
                )
            if parts.password or parts.username:
                raise ValueError(f"url: {urls.hide(url)!r} holds a user or password; use username and password_file")
            urls.port_of(url)
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        return self

    @property
    def all_urls(self) -> tuple[str, ...]:
        """The brokers in the order in which they are tried."""
        return self.urls or ((self.url,) if self.url else ())


class SpoolTable(Table):
    """[spool]"""

    path: Path = Path("spool")
    max_bytes: int = Field(1_000_000_000, ge=MIN_SPOOL_BYTES)
    commit_s: float = Field(1.0, gt=0, le=60)


class ClockTable(Table):
    """[clock]"""

    hold_s: float = Field(0.0, ge=0)


class MetricsTable(Table):
    """[metrics]"""

    listen: str


class LinkTable(Table):
    """[[link]]"""

    name: Name
    url: str
    timeout_s: float = Field(1.0, gt=0, le=60)
    turnaround_s: float | None = Field(None, ge=0, le=10)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class TagTable(Table):
    """[device.tag.NAME]"""

    unit: str | None = Field(None, max_length=32, description="where the profile's unit is a setting of the device")
    period_s: float | None = Field(None, ge=0)
    low_low: float | None = None
    low: float | None = None
    high: float | None = None
    high_high: float | None = None
    rate: float | None = Field(None, gt=0, description="units per second that the tag may change at most")
    deadband: float = Field(0.0, ge=0)
    on_delay_s: float = Field(0.0, ge=0)
    off_delay_s: float = Field(0.0, ge=0)
    priority: int = Field(3, ge=1, le=4)
    detect: tuple[Literal["limits", "rate", "frozen", "ewma"], ...] | None = None

    @model_validator(mode="after")
    def _limits_in_order(self) -> TagTable:
        given = [(name, value) for name in LIMITS if (value := getattr(self, name)) is not None]
        for (below, a), (above, b) in itertools.pairwise(given):
            if a >= b:
                raise ValueError(f"{below} = {a} must be below {above} = {b}")
        return self


class DeviceTable(Table):
    """[[device]]"""

    name: Name
    link: Name
    unit: int = Field(1, ge=0, le=255)
    profile: Name | None = None
    measurement: Name = "meter"
    period_s: float = Field(1.0, ge=0, description="0: as fast as the device answers (benches)")
    asset: Name | None = None
    line: Name | None = None
    kp_m: int | None = None
    max_registers: int | None = Field(None, ge=1, le=MAX_REGISTERS)
    max_gap: int | None = Field(None, ge=0, le=MAX_REGISTERS)
    tags: tuple[str, ...] | None = None
    tag: dict[str, TagTable] = Field(default_factory=dict)
    point: tuple[PointModel, ...] = ()

    @model_validator(mode="after")
    def _points_from_one_place(self) -> DeviceTable:
        if not self.profile and not self.point:
            raise ValueError("wants 'profile', or points of its own ([[device.point]])")
        if self.profile and self.point:
            raise ValueError("has both 'profile' and points of its own; wants one of them")
        return self


class GatewayToml(Table):
    """gateway.toml: one box"""

    gateway: GatewayTable
    mqtt: MqttTable
    spool: SpoolTable = SpoolTable()
    clock: ClockTable = ClockTable()
    metrics: MetricsTable | None = None
    link: list[LinkTable] = Field(min_length=1)
    device: list[DeviceTable] = Field(min_length=1)


class StoreTable(Table):
    """[store]"""

    url: str = Field(description="influx2://host:8086?org=o&bucket=b, influx1://host:8086/database, sqlite:///path")
    token_file: Path | None = None


class IngestTable(Table):
    """[ingest]"""

    id: Name
    corridor: Name
    share: Name = "ingest"


class IngestToml(Table):
    """ingest.toml"""

    mqtt: MqttTable
    ingest: IngestTable
    store: StoreTable


class ConsoleTable(Table):
    """[console]"""

    listen: str = "127.0.0.1:8080"


class ConsoleToml(Table):
    """console.toml"""

    mqtt: MqttTable
    console: ConsoleTable = ConsoleTable()
    store: StoreTable | None = None


SCHEMAS: Final[dict[str, type[Table]]] = {"gateway": GatewayToml, "ingest": IngestToml, "console": ConsoleToml}
Toml = TypeVar("Toml", bound=Table)
