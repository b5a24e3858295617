"""gateway.toml, ingest.toml and console.toml: read once, every error at once, then frozen."""

from __future__ import annotations

import copy
import difflib
import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drivers import profile as profiles
from drivers.blocks import MAX_BITS, MAX_REGISTERS
from drivers.link import LinkSpec, SerialLine
from drivers.points import Point
from drivers.profile import Name, PointModel, ProfileError, explain
from gateway.model.corridor import (
    LIMITS,
    ConsoleSpec,
    Device,
    GatewaySpec,
    IngestSpec,
    MqttSpec,
    StoreSpec,
    Tag,
)

DETECTORS: Final = ("limits", "rate", "frozen", "ewma")
DEFAULT_DETECT: Final[dict[str, tuple[str, ...]]] = {
    "gauge": ("limits", "rate", "frozen", "ewma"),
    "counter": ("limits",),
    "state": ("limits",),
}
MIN_SPOOL_BYTES: Final = 1_000_000  # eight segments of 125 kB: below that a segment holds less than one busy second
PASSWORD_ENV: Final = "CORRIDOR_MQTT_PASSWORD"  # noqa: S105 - a name, not a secret
TOKEN_ENV: Final = "CORRIDOR_STORE_TOKEN"  # noqa: S105 - a name, not a secret
TRANSPORTS: Final = ("tcp", "tls", "rtu+tcp", "rtu")
DEFAULT_PORTS: Final = {"tcp": 502, "tls": 802, "rtu+tcp": 502}
MQTT_SCHEMES: Final = ("mqtt", "mqtts", "ws", "wss")


class ConfigError(Exception):
    """A configuration that cannot be used; `lines` has one line per error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewayTable(_Table):
    """[gateway]"""

    id: Name = Field(description="unique in the corridor")
    corridor: Name
    site: Name


class MqttTable(_Table):
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
            parts = _split(url)
            if parts.scheme not in MQTT_SCHEMES or not parts.hostname:
                raise ValueError(
                    f"url: got {_hide(url)!r}, wanted mqtt://host:1883, mqtts://host:8883, ws:// or wss://"
                )
            if parts.password or parts.username:
                raise ValueError(f"url: {_hide(url)!r} holds a user or password; use username and password_file")
            _port(url)
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        return self

    @property
    def all_urls(self) -> tuple[str, ...]:
        """The brokers in the order in which they are tried."""
        return self.urls or ((self.url,) if self.url else ())


class SpoolTable(_Table):
    """[spool]"""

    path: Path = Path("spool")
    max_bytes: int = Field(1_000_000_000, ge=MIN_SPOOL_BYTES)
    commit_s: float = Field(1.0, gt=0, le=60)


class ClockTable(_Table):
    """[clock]"""

    hold_s: float = Field(0.0, ge=0)


class MetricsTable(_Table):
    """[metrics]"""

    listen: str


class LinkTable(_Table):
    """[[link]]"""

    name: Name
    url: str
    timeout_s: float = Field(1.0, gt=0, le=60)
    turnaround_s: float | None = Field(None, ge=0, le=10)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class TagTable(_Table):
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


class DeviceTable(_Table):
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


class GatewayToml(_Table):
    """gateway.toml: one box"""

    gateway: GatewayTable
    mqtt: MqttTable
    spool: SpoolTable = SpoolTable()
    clock: ClockTable = ClockTable()
    metrics: MetricsTable | None = None
    link: list[LinkTable] = Field(min_length=1)
    device: list[DeviceTable] = Field(min_length=1)


class StoreTable(_Table):
    """[store]"""

    url: str = Field(description="influx2://host:8086?org=o&bucket=b, influx1://host:8086/database, sqlite:///path")
    token_file: Path | None = None


class IngestTable(_Table):
    """[ingest]"""

    id: Name
    corridor: Name
    share: Name = "ingest"


class IngestToml(_Table):
    """ingest.toml"""

    mqtt: MqttTable
    ingest: IngestTable
    store: StoreTable


class ConsoleTable(_Table):
    """[console]"""

    listen: str = "127.0.0.1:8080"


class ConsoleToml(_Table):
    """console.toml"""

    mqtt: MqttTable
    console: ConsoleTable = ConsoleTable()
    store: StoreTable | None = None


SCHEMAS: Final[dict[str, type[_Table]]] = {"gateway": GatewayToml, "ingest": IngestToml, "console": ConsoleToml}
Toml = TypeVar("Toml", bound=_Table)


def kind_of(table: Mapping[str, Any]) -> str:
    """Return which of the three files a table is meant to be."""
    if "ingest" in table:
        return "ingest"
    return "console" if "console" in table and "gateway" not in table else "gateway"


def load_gateway(path: Path) -> GatewaySpec:
    """Return what gateway.toml says; opens no socket; raises ConfigError with every error at once."""
    table = _read(path)
    model, errors = _validate(GatewayToml, path, table)
    builder = _Builder(path, table)
    if model is None:
        errors += builder.salvage()
        raise ConfigError(list(dict.fromkeys(errors)))
    spec = builder.gateway(model)
    builder.finish()
    return spec


def load_ingest(path: Path) -> IngestSpec:
    """Return what ingest.toml says; raises ConfigError with every error at once."""
    model, builder = _load(IngestToml, path)
    own = model.ingest
    mqtt, store = builder.mqtt(model.mqtt, own.id), builder.store(model.store)
    builder.finish()
    return IngestSpec(own.id, own.corridor, own.share, mqtt, store)


def load_console(path: Path) -> ConsoleSpec:
    """Return what console.toml says; raises ConfigError with every error at once."""
    model, builder = _load(ConsoleToml, path)
    listen = builder.listen("console: listen", model.console.listen)
    mqtt = builder.mqtt(model.mqtt, None)
    store = builder.store(model.store) if model.store else None
    builder.finish()
    return ConsoleSpec(listen, mqtt, store)


def _load(kind: type[Toml], path: Path) -> tuple[Toml, _Builder]:
    table = _read(path)
    model, errors = _validate(kind, path, table)
    if model is None:
        raise ConfigError(errors)
    return model, _Builder(path, table)


def check(path: Path) -> list[str]:
    """Return every error of a configuration file, whichever of the three it is; an empty list means: it can run."""
    try:
        table = _read(path)
        {"gateway": load_gateway, "ingest": load_ingest, "console": load_console}[kind_of(table)](path)
    except ConfigError as error:
        return error.lines
    return []


def _read(path: Path) -> dict[str, Any]:
    try:
        return profiles.read_toml(path)
    except ProfileError as error:
        raise ConfigError(error.lines) from None


def _validate(kind: type[Toml], path: Path, table: dict[str, Any]) -> tuple[Toml | None, list[str]]:
    try:
        return kind.model_validate(table), []
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            place, model = _place(kind, item["loc"], table)
            lines.append(f"{path}: {place}: {explain(item, model.model_fields)}")
        return None, lines


def _place(kind: type[BaseModel], loc: tuple[int | str, ...], table: object) -> tuple[str, type[BaseModel]]:
    """Return where an error is, as an installer would say it, and the model whose keys are valid there."""
    words: list[str] = []
    model = kind
    for part in loc:
        below = table.get(part) if isinstance(table, dict) else None
        if isinstance(table, list | tuple) and isinstance(part, int) and part < len(table):
            below = table[part]
        if isinstance(part, int):
            name = below.get("name") if isinstance(below, dict) else None
            if words:
                words[-1] += f" '{name}'" if isinstance(name, str) else f" #{part + 1}"
        elif words and words[-1] == "tag":
            words[-1] = f"tag '{part}'"
        else:
            words.append(str(part))
            model = _model_of(model, str(part)) or model
        table = below
    return ": ".join(words) or "file", model


def _model_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    found = model.model_fields.get(key)
    return next((t for t in _models_in(found.annotation)), None) if found else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _hide(url: str) -> str:
    """Return a URL that can be shown: without what stands before the @."""
    scheme, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}***@{host.rpartition('@')[2]}{slash}{path}" if "@" in host else url


def _split(url: str) -> SplitResult:
    """Return the parts of a URL; one that cannot be taken apart has no scheme, which every caller refuses."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        raise ValueError(f"url: got {_hide(url)!r}, wanted a port from 1 to 65535") from None


class _Builder:
    """Turns checked tables into the frozen specification, gathering what only shows between them."""

    def __init__(self, path: Path, table: Mapping[str, Any]) -> None:
        self.path = path
        self.table = table
        self.errors: list[str] = []
        self.folders = (path.parent / "profiles",)

    def wrong(self, place: str, what: str) -> None:
        """Remember one error."""
        self.errors.append(f"{self.path}: {place}: {what}")

    def finish(self) -> None:
        """Raise ConfigError if anything was wrong."""
        if self.errors:
            raise ConfigError(list(dict.fromkeys(self.errors)))

    def salvage(self) -> list[str]:
        """Return the errors between tables that can be told although some table is broken."""
        links = [found for item in _tables(self.table.get("link")) if (found := _rescued(LinkTable, item))]
        devices = [good for item in _tables(self.table.get("device")) if (good := _rescued(DeviceTable, item))]
        self.links(links)
        names = {str(item.get("name")) for item in _tables(self.table.get("link"))}
        self._unique(devices, names)
        for device in devices:
            self.device(device)
        return self.errors

    def gateway(self, model: GatewayToml) -> GatewaySpec:
        """Return the whole specification."""
        links = self.links(model.link)
        self._unique(model.device, {link.name for link in model.link})
        devices = [self.device(device) for device in model.device]
        return GatewaySpec(
            id=model.gateway.id,
            corridor=model.gateway.corridor,
            site=model.gateway.site,
            mqtt=self.mqtt(model.mqtt, model.gateway.id),
            spool_path=model.spool.path,
            spool_max_bytes=model.spool.max_bytes,
            spool_commit_s=model.spool.commit_s,
            clock_hold_s=model.clock.hold_s,
            metrics_listen=self.listen("metrics: listen", model.metrics.listen) if model.metrics else None,
            links=tuple(links),
            devices=tuple(device for device in devices if device),
        )

    def _unique(self, devices: Any, link_names: set[str]) -> None:
        seen: set[str] = set()
        units: dict[tuple[str, int], str] = {}
        for device in devices:
            if device.name in seen:
                self.wrong(f"device '{device.name}'", "name is given twice, wanted one device per name")
            seen.add(device.name)
            if device.name == "command":
                self.wrong("device 'command'", "this name is the topic of commands, wanted another")
            if device.link not in link_names:
                near = difflib.get_close_matches(device.link, link_names, 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                wanted = f"wanted one of {', '.join(sorted(link_names))}" if link_names else "there are no links"
                self.wrong(f"device '{device.name}': link", f"no link '{device.link}', {wanted}{hint}")
            other = units.setdefault((device.link, device.unit), device.name)
            if other != device.name:
                self.wrong(
                    f"device '{device.name}': unit",
                    f"unit {device.unit} on link '{device.link}' belongs to device '{other}' already",
                )

    def links(self, tables: Any) -> list[LinkSpec]:
        """Return the links; two of one endpoint would be two connections, hence an error."""
        seen: dict[str, str] = {}
        out = []
        endpoints: dict[tuple[str, int, str], str] = {}
        for table in tables:
            if table.name in seen:
                self.wrong(f"link '{table.name}'", "name is given twice, wanted one link per name")
            seen[table.name] = table.name
            link = self.link(table)
            if link is None:
                continue
            other = endpoints.setdefault((link.host, link.port, link.path), link.name)
            if other != link.name:
                self.wrong(
                    f"link '{link.name}': url", f"link '{other}' has this endpoint already, wanted one connection"
                )
            out.append(link)
        return out

    def link(self, table: LinkTable) -> LinkSpec | None:
        """Return one link, or None when its URL says nothing usable."""
        place = f"link '{table.name}': url"
        url = _split(table.url)
        if url.scheme not in TRANSPORTS:
            near = difflib.get_close_matches(url.scheme, TRANSPORTS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            self.wrong(
                place, f"got {_hide(table.url)!r}, wanted tcp://host:502, tls://, rtu+tcp:// or rtu:///dev/...{hint}"
            )
            return None
        common: dict[str, Any] = {
            "name": table.name,
            "transport": url.scheme,
            "timeout_s": table.timeout_s,
            **({"turnaround_s": table.turnaround_s} if table.turnaround_s is not None else {}),
            **{key: self.file(f"link '{table.name}': {key}", getattr(table, key)) for key in _TLS_KEYS},
        }
        if url.scheme != "tls" and any(getattr(table, key) for key in _TLS_KEYS):
            self.wrong(f"link '{table.name}'", f"{', '.join(_TLS_KEYS)} go with tls://, got {url.scheme}://")
        if url.username or url.password:
            self.wrong(place, f"got {_hide(table.url)!r}: Modbus has no user or password")
        if url.scheme == "rtu":
            return self._serial(table, common, place)
        if url.query or url.path.strip("/"):
            self.wrong(place, f"got {table.url!r}, wanted {url.scheme}://host:port and nothing behind it")
        try:
            port = DEFAULT_PORTS[url.scheme] if url.port is None else url.port
        except ValueError:
            port = 0
        if not port:
            self.wrong(place, f"got {table.url!r}, wanted a port from 1 to 65535")
            return None
        if not url.hostname:
            self.wrong(place, f"got {table.url!r}, wanted {url.scheme}://host:{port}")
            return None
        return LinkSpec(**common, host=url.hostname, port=port)

    def _serial(self, table: LinkTable, common: dict[str, Any], place: str) -> LinkSpec | None:
        url = urlsplit(table.url)
        if url.netloc or not url.path.strip("/"):
            self.wrong(place, f"got {table.url!r}, wanted rtu:///dev/ttyUSB0?baudrate=9600&parity=E")
            return None
        given = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        allowed: dict[str, tuple[str, ...]] = {
            "baudrate": (),
            "bytesize": ("7", "8"),
            "parity": ("N", "E", "O"),
            "stopbits": ("1", "2"),
        }
        fine = True
        for key, value in given.items():
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, 1)
                hint = f", did you mean '{near[0]}'?" if near else ""
                self.wrong(place, f"unknown key '{key}'{hint}")
                fine = False
            elif allowed[key] and value not in allowed[key]:
                self.wrong(place, f"{key}: got '{value}', wanted {' or '.join(allowed[key])}")
                fine = False
        baudrate = given.get("baudrate", "9600")
        if not baudrate.isdigit() or not 300 <= int(baudrate) <= 4_000_000:
            self.wrong(place, f"baudrate: got '{baudrate}', wanted 300 to 4000000")
            fine = False
        if not fine:
            return None
        serial = SerialLine(
            int(baudrate),
            int(given.get("bytesize", "8")),
            given.get("parity", "N"),  # type: ignore[arg-type]
            int(given.get("stopbits", "1")),
        )
        return LinkSpec(**common, path=url.path, serial=serial)

    def device(self, table: DeviceTable) -> Device | None:
        """Return one device with its tags resolved against its profile."""
        place = f"device '{table.name}'"
        if table.profile:
            try:
                found = profiles.find(table.profile, self.folders)
            except ProfileError as error:
                for line in error.lines:
                    self.wrong(f"{place}: profile", line)
                return None
            points, measurement = found.points, found.measurement
            quirks = (found.max_registers, found.max_bits, found.max_gap, found.enron)
        else:
            points, measurement = tuple(point.point() for point in table.point), table.measurement
            quirks = (MAX_REGISTERS, MAX_BITS, 0, False)
            for line in profiles.check_points(table.point):
                self.wrong(place, line)
        tags = self._tags(table, points)
        return Device(
            name=table.name,
            link=table.link,
            unit=table.unit,
            profile=table.profile or "",
            measurement=measurement,
            asset=table.asset or "",
            line=table.line or "",
            kp_m=table.kp_m,
            tags=tuple(tags),
            strings=tuple(point for point in points if point.is_text),
            max_registers=table.max_registers or quirks[0],
            max_bits=quirks[1],
            max_gap=quirks[2] if table.max_gap is None else table.max_gap,
            enron=quirks[3],
        )

    def _tags(self, table: DeviceTable, points: tuple[Point, ...]) -> list[Tag]:
        place = f"device '{table.name}'"
        numbers = {point.name: point for point in points if not point.is_text}
        wanted = table.tags if table.tags is not None else tuple(numbers)
        if table.tags is not None and not table.tags:
            self.wrong(f"{place}: tags", "is empty, wanted at least one name, or leave it out for all points")
        for name in dict.fromkeys((*wanted, *table.tag)):
            if name not in numbers and not any(point.name == name for point in points):
                near = difflib.get_close_matches(name, numbers, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"wanted one of {', '.join(list(numbers)[:8])} ..."
                where = f"profile '{table.profile}'" if table.profile else "this device"
                key = "tags" if name in wanted else f"tag '{name}'"
                self.wrong(f"{place}: {key}", f"{where} has no point '{name}', {hint}")
            elif name not in wanted:
                self.wrong(f"{place}: tag '{name}'", "has settings but is not in 'tags'; add it there")
        if len(set(wanted)) != len(wanted):
            self.wrong(f"{place}: tags", "names a point twice")
        return [
            self._tag(table, numbers[name], table.tag.get(name, TagTable()))
            for name in dict.fromkeys(wanted)
            if name in numbers
        ]

    def _tag(self, table: DeviceTable, point: Point, given: TagTable) -> Tag:
        nan = float("nan")
        limits = tuple(nan if (value := getattr(given, name)) is None else float(value) for name in LIMITS)
        period_s = given.period_s if given.period_s is not None else max(point.period_s or 0.0, table.period_s)
        return Tag(
            point=point if given.unit is None else replace(point, unit=given.unit),
            period_s=period_s,
            limits=limits,  # type: ignore[arg-type]
            deadband=given.deadband,
            on_delay_s=given.on_delay_s,
            off_delay_s=given.off_delay_s,
            priority=given.priority,
            detect=DEFAULT_DETECT[point.kind] if given.detect is None else given.detect,
            rate=nan if given.rate is None else given.rate,
        )

    def mqtt(self, table: MqttTable, default_user: str | None) -> MqttSpec:
        """Return the broker settings with the password read from its file or the environment."""
        if table.password_file:
            password = self.secret("mqtt: password_file", table.password_file)
        else:
            password = os.environ.get(PASSWORD_ENV)
        return MqttSpec(
            table.all_urls,
            table.username or default_user,
            password,
            self.file("mqtt: ca_file", table.ca_file),
            self.file("mqtt: cert_file", table.cert_file),
            self.file("mqtt: key_file", table.key_file, secret=True),
        )

    def store(self, table: StoreTable) -> StoreSpec:
        """Return the store settings with the token read from its file or the environment."""
        url = _split(table.url)
        if url.scheme not in ("influx2", "influx2s", "influx1", "influx1s", "sqlite"):
            self.wrong("store: url", f"got {_hide(table.url)!r}, wanted influx2://, influx1:// or sqlite:///path")
        if url.username or url.password:
            self.wrong("store: url", f"{_hide(table.url)!r} holds a user or password; use token_file")
        token = self.secret("store: token_file", table.token_file) if table.token_file else os.environ.get(TOKEN_ENV)
        return StoreSpec(table.url, token)

    def listen(self, place: str, text: str) -> tuple[str, int]:
        """Return host and port of a listening address."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            self.wrong(place, f"got {text!r}, wanted host:port as in 127.0.0.1:8080")
            return "127.0.0.1", 0
        return host.strip("[]"), int(port)

    def file(self, place: str, given: Path | None, *, secret: bool = False) -> Path | None:
        """Return a file that the configuration names, relative to it; a missing one is an error."""
        if given is None:
            return None
        path = given if given.is_absolute() else self.path.parent / given
        try:
            mode = path.stat().st_mode
        except OSError as error:
            self.wrong(place, f"{given}: {error.strerror}")
            return path
        if secret and mode & (stat.S_IRGRP | stat.S_IROTH):
            self.wrong(place, f"{given}: others may read it (mode {stat.S_IMODE(mode):04o}), wanted 0600 or 0400")
        return path

    def secret(self, place: str, given: Path) -> str | None:
        """Return the first line of a secret file; one that others may read is an error."""
        before = len(self.errors)
        path = self.file(place, given, secret=True)
        if path is None or len(self.errors) > before:
            return None
        try:
            return path.read_text().strip().splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            self.wrong(place, f"{given}: holds no line of text")
            return None


_TLS_KEYS: Final = ("ca_file", "cert_file", "key_file")


def _rescued(kind: type[Toml], item: dict[str, Any]) -> Toml | None:
    """Return a broken table without its broken keys, so that the rest of it can still be checked."""
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        mended = copy.deepcopy(item)
        for found in error.errors(include_url=False):
            table: Any = mended
            for part in found["loc"][:-1]:
                is_item = isinstance(table, list) and isinstance(part, int)
                table = table[part] if is_item else table.get(part, {})
            if found["loc"] and isinstance(table, dict):
                table.pop(found["loc"][-1], None)
    try:
        return kind.model_validate(mended)
    except ValidationError:
        return None


def _tables(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def state_dir(given: Path | None, gateway_id: str) -> Path:
    """Return the folder of everything that outlives the process."""
    if given:
        return given
    if own := os.environ.get("STATE_DIRECTORY"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "corridor" / gateway_id
