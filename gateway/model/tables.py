"""The keys of gateway.toml, ingest.toml and console.toml, as pydantic models: also the JSON Schema for editors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from drivers.blocks import MAX_REGISTERS
from drivers.profile import Period, PointModel, Unit, point_faults
from drivers.toml import FilePath, Int, Name, Number, Table, Text, shown
from gateway.model import urls
from gateway.model.corridor import LIMITS

DETECTORS: Final = ("limits", "rate", "frozen", "spike", "shift", "novelty", "chatter", "health")
MIN_SPOOL_BYTES: Final = 1_000_000  # eight segments of 125 kB: below that a segment holds less than one busy second
MAX_SPOOL_BYTES: Final = 2**63 - 1  # the largest offset in a file
MAX_DELAY_S: Final = 86_400.0  # a day: an alarm that waits longer is one that nobody wants
MAX_HOLD_S: Final = 86_400.0  # a day without publishing anything, for a clock that is not going to be set
MAX_KP_M: Final = 40_075_000  # once around the earth
BAUDRATES: Final = (300, 4_000_000)  # bit/s, what serial adapters can do
SERIAL: Final = {"bytesize": ("8",), "parity": ("N", "E", "O"), "stopbits": ("1", "2")}  # RTU sends bytes: 8 bits
TLS_KEYS: Final = ("ca_file", "cert_file", "key_file")


class GatewayTable(Table):
    """[gateway]"""

    id: Name = Field(description="unique in the corridor")
    corridor: Name
    site: Name


class MqttTable(Table):
    """[mqtt]"""

    url: Text | None = Field(None, description="mqtt, mqtts, ws or wss")
    urls: tuple[Text, ...] = Field((), description="failover list, tried in order")
    username: Text | None = None
    password_file: FilePath | None = None
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the brokers, and between the files."""
        if self.has("url", "urls") and bool(self.url) == bool(self.urls):
            yield "wants either 'url' or 'urls'"
        for key, given in (("url", (self.url,) if self.url else ()), ("urls", self.urls)):
            for url in given:
                for fault in urls.faults(url, urls.BROKERS, "use username and password_file"):
                    yield f"{key}: {fault}"
        yield from _pair_faults(self)

    @property
    def all_urls(self) -> tuple[str, ...]:
        """The brokers in the order in which they are tried."""
        return self.urls or ((self.url,) if self.url else ())


class SpoolTable(Table):
    """[spool]"""

    path: FilePath = Path("spool")
    max_bytes: Int = Field(1_000_000_000, ge=MIN_SPOOL_BYTES, le=MAX_SPOOL_BYTES)
    commit_s: Number = Field(1.0, gt=0, le=60)
    endurance_bytes: Int | None = Field(None, gt=0)


class ClockTable(Table):
    """[clock]"""

    hold_s: Number = Field(0.0, ge=0, le=MAX_HOLD_S)


class MetricsTable(Table):
    """[metrics]"""

    listen: Text

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the address."""
        yield from _listen_faults(self)


class LinkTable(Table):
    """[[link]]"""

    name: Name
    url: Text
    timeout_s: Number = Field(1.0, gt=0, le=60)
    turnaround_s: Number | None = Field(None, ge=0, le=10)
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the endpoint, and between it and the files."""
        if self.has("url"):
            for fault in urls.faults(self.url, urls.LINKS, "Modbus has none"):
                yield f"url: {fault}"
        if url := self.endpoint:
            yield from (f"url: {fault}" for fault in _serial_faults(url.query))
            if url.scheme != "tls" and any(getattr(self, key) for key in TLS_KEYS):
                yield f"{', '.join(TLS_KEYS)} go with tls://, got {url.scheme}://"
        yield from _pair_faults(self)

    @property
    def endpoint(self) -> urls.Url | None:
        """What the URL says, None when it says nothing usable."""
        return urls.parse(self.url, urls.LINKS) if self.has("url") else None


def _serial_faults(query: Mapping[str, str]) -> Iterator[str]:
    for key, wanted in SERIAL.items():
        if key in query and query[key] not in wanted:
            yield f"{key}: got {shown(query[key])}, wanted {' or '.join(wanted)}"
    if "baudrate" in query and urls.number_in(query["baudrate"], *BAUDRATES) is None:
        yield f"baudrate: got {shown(query['baudrate'])}, wanted {BAUDRATES[0]} to {BAUDRATES[1]}"


def _pair_faults(table: MqttTable | LinkTable) -> Iterator[str]:
    if table.has("cert_file", "key_file") and bool(table.cert_file) != bool(table.key_file):
        yield "cert_file and key_file go together"


def _listen_faults(table: MetricsTable | ConsoleTable) -> Iterator[str]:
    if table.has("listen") and not urls.listening(table.listen):
        yield f"listen: got {shown(table.listen)}, wanted host:port as in 127.0.0.1:8080"


class TagTable(Table):
    """[device.tag.NAME]"""

    unit: Unit | None = Field(None, description="where the profile's unit is a setting of the device")
    period_s: Period | None = None
    low_low: Number | None = None
    low: Number | None = None
    high: Number | None = None
    high_high: Number | None = None
    rate: Number | None = Field(None, gt=0, description="units per second that the tag may change at most")
    deadband: Number = Field(0.0, ge=0)
    on_delay_s: Number = Field(0.0, ge=0, le=MAX_DELAY_S)
    off_delay_s: Number = Field(0.0, ge=0, le=MAX_DELAY_S)
    priority: Int = Field(3, ge=1, le=4)
    detect: tuple[Literal["limits", "rate", "frozen", "spike", "shift", "novelty", "chatter", "health"], ...] | None = (
        None
    )

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between the limits, and with the deadband between the inner ones."""
        given = {name: value for name in LIMITS if self.has(name) and (value := getattr(self, name)) is not None}
        for (below, a), (above, b) in itertools.pairwise(given.items()):
            if a >= b:
                yield f"{below} = {a} must be below {above} = {b}"
            elif (below[:3], above[:4]) == ("low", "high") and self.has("deadband") and self.deadband > b - a:
                yield f"deadband: got {self.deadband}, wanted at most {b - a}, from {below} to {above}"


class DeviceTable(Table):
    """[[device]]"""

    name: Name
    link: Name
    unit: Int = Field(1, ge=0, le=255)
    profile: Name | None = None
    measurement: Name = "meter"
    period_s: Period = Field(1.0, description="0: as fast as the device answers (benches)")
    asset: Name | None = None
    line: Name | None = None
    kp_m: Int | None = Field(None, ge=-MAX_KP_M, le=MAX_KP_M)
    max_registers: Int | None = Field(None, ge=1, le=MAX_REGISTERS)
    max_gap: Int | None = Field(None, ge=0, le=MAX_REGISTERS)
    tags: tuple[str, ...] | None = None
    tag: dict[str, TagTable] = Field(default_factory=dict)
    point: tuple[PointModel, ...] = ()

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between the name, the profile and the points."""
        if self.has("name") and self.name == "command":
            yield "this name is the topic of commands, wanted another"
        if self.has("profile", "point"):
            if not self.profile and not self.point:
                yield "wants 'profile', or points of its own ([[device.point]])"
            if self.profile and self.point:
                yield "has both 'profile' and points of its own; wants one of them"
        if self.profile and not self.point and self.has("measurement") and "measurement" in self.model_fields_set:
            yield f"measurement: got {shown(self.measurement)}, wanted none beside 'profile', which names its series"
        yield from point_faults(self.point)


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

    url: Text = Field(description="influx2://host:8086?org=o&bucket=b, influx1://host:8086/database, sqlite:///path")
    token_file: FilePath | None = None

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the URL."""
        if self.has("url"):
            yield from (f"url: {fault}" for fault in urls.faults(self.url, urls.STORES, "use token_file"))


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

    listen: Text = "127.0.0.1:8080"

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the address."""
        yield from _listen_faults(self)


class ConsoleToml(Table):
    """console.toml"""

    mqtt: MqttTable
    console: ConsoleTable = ConsoleTable()
    store: StoreTable | None = None


SCHEMAS: Final[dict[str, type[Table]]] = {"gateway": GatewayToml, "ingest": IngestToml, "console": ConsoleToml}
