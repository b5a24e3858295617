"""From checked tables to the frozen specification: what only shows between tables, files and secrets."""

from __future__ import annotations

import copy
import difflib
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from pydantic import ValidationError

from drivers import profile as profiles
from drivers.blocks import MAX_BITS, MAX_REGISTERS
from drivers.link import LinkSpec, SerialLine
from drivers.points import Point
from drivers.profile import ProfileError
from gateway.model import urls
from gateway.model.corridor import LIMITS, Device, GatewaySpec, MqttSpec, StoreSpec, Tag
from gateway.model.tables import DeviceTable, GatewayToml, LinkTable, MqttTable, StoreTable, TagTable, Toml

DEFAULT_DETECT: Final[dict[str, tuple[str, ...]]] = {
    "gauge": ("limits", "rate", "frozen", "ewma"),
    "counter": ("limits",),
    "state": ("limits",),
}
PASSWORD_ENV: Final = "CORRIDOR_MQTT_PASSWORD"  # noqa: S105 - a name, not a secret
TOKEN_ENV: Final = "CORRIDOR_STORE_TOKEN"  # noqa: S105 - a name, not a secret
TRANSPORTS: Final = ("tcp", "tls", "rtu+tcp", "rtu")
DEFAULT_PORTS: Final = {"tcp": 502, "tls": 802, "rtu+tcp": 502}


class ConfigError(Exception):
    """A configuration that cannot be used; `lines` has one line per error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Builder:
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
        url = urls.split(table.url)
        if url.scheme not in TRANSPORTS:
            near = difflib.get_close_matches(url.scheme, TRANSPORTS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            self.wrong(
                place,
                f"got {urls.hide(table.url)!r}, wanted tcp://host:502, tls://, rtu+tcp:// or rtu:///dev/...{hint}",
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
            self.wrong(place, f"got {urls.hide(table.url)!r}: Modbus has no user or password")
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
        url = urls.split(table.url)
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
        url = urls.split(table.url)
        if url.scheme not in ("influx2", "influx2s", "influx1", "influx1s", "sqlite"):
            self.wrong("store: url", f"got {urls.hide(table.url)!r}, wanted influx2://, influx1:// or sqlite:///path")
        if url.username or url.password:
            self.wrong("store: url", f"{urls.hide(table.url)!r} holds a user or password; use token_file")
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
