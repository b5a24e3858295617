"""From checked tables to the frozen specification: what only shows between tables, files and secrets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeVar, cast
from urllib.parse import unquote

from drivers import profile as profiles
from drivers.link import LinkSpec, SerialLine
from drivers.points import Point
from drivers.profile import Profile, ProfileError, is_in_hole
from drivers.toml import Fault, FileError, hide, near, shown, titled
from gateway.model import files, urls
from gateway.model.corridor import LIMITS, ConsoleSpec, Device, GatewaySpec, IngestSpec, MqttSpec, StoreSpec, Tag
from gateway.model.tables import (
    TLS_KEYS,
    ConsoleTable,
    ConsoleToml,
    DeviceTable,
    GatewayToml,
    IngestToml,
    LinkTable,
    MetricsTable,
    MqttTable,
    StoreTable,
    TagTable,
)

DEFAULT_DETECT: Final[dict[str, tuple[str, ...]]] = {
    "gauge": ("limits", "rate", "frozen", "spike", "shift", "novelty", "health"),
    "counter": ("limits", "novelty"),
    "state": ("limits", "chatter", "novelty"),
}
PASSWORD_ENV: Final = "CORRIDOR_MQTT_PASSWORD"  # noqa: S105 - a name, not a secret
TOKEN_ENV: Final = "CORRIDOR_STORE_TOKEN"  # noqa: S105 - a name, not a secret
MAX_NAMES: Final = 8  # points that a message lists: enough to recognise the meter, few enough for one line
NOWHERE: Final = ("", 0)  # stands for a listening address with a fault; nothing runs then
ConfigError = FileError
Named = TypeVar("Named", LinkTable, DeviceTable)


class Builder:
    """Turns checked tables into the frozen specification, gathering what only shows between them.

    The faults within the tables are told already, and WRONG stands there; links and devices with faults are left out.
    """

    def __init__(self, path: Path, faults: Iterable[Fault]) -> None:
        self.path = path
        self.errors = [f"{path}: {fault.text}" for fault in faults]
        self.broken = {fault.loc[:2] for fault in faults}
        self.folders = (path.parent / "profiles",)

    def wrong(self, *what: str) -> None:
        """Remember one error: its place, what was found, what is wanted."""
        self.errors.append(": ".join((str(self.path), *what)))

    def gateway(self, model: GatewayToml) -> GatewaySpec:
        """Return the specification of a gateway."""
        links = self.links(model.link)
        reached = {link.name for link in links}
        return GatewaySpec(
            id=model.gateway.id,
            corridor=model.gateway.corridor,
            site=model.gateway.site,
            mqtt=self.mqtt(model.mqtt, model.gateway.id),
            spool_path=model.spool.path,
            spool_max_bytes=model.spool.max_bytes,
            spool_commit_s=model.spool.commit_s,
            spool_endurance_bytes=model.spool.endurance_bytes,
            clock_hold_s=model.clock.hold_s,
            metrics_listen=_listen(model.metrics),
            links=tuple(links),
            devices=tuple(device for device in self.devices(model.device, model.link) if device.link in reached),
        )

    def ingest(self, model: IngestToml) -> IngestSpec:
        """Return the specification of an ingest."""
        own = model.ingest
        return IngestSpec(own.id, own.corridor, own.share, self.mqtt(model.mqtt, own.id), self.store(model.store))

    def console(self, model: ConsoleToml) -> ConsoleSpec:
        """Return the specification of a console."""
        store = self.store(model.store) if model.store else None
        return ConsoleSpec(_listen(model.console) or NOWHERE, self.mqtt(model.mqtt, None), store)

    def links(self, tables: Sequence[LinkTable]) -> list[LinkSpec]:
        """Return the links; two of one endpoint would be two connections, hence an error."""
        endpoints: dict[tuple[str, int, str], str] = {}
        out = []
        for i, place, table in self._named("link", tables):
            tls_files = self.tls(place, table)
            if (url := table.endpoint) is None:
                continue
            other = endpoints.setdefault((url.host, url.port, url.path), place)
            if other != place:
                self.wrong(place, "url", f"{other} has this endpoint already, wanted one connection")
            if ("link", i) not in self.broken:
                out.append(_link(table, url, tls_files))
        return out

    def devices(self, tables: Sequence[DeviceTable], links: Sequence[LinkTable]) -> list[Device]:
        """Return the devices with their tags resolved against their profiles."""
        names = sorted(link.name for link in links if link.has("name"))
        all_known = bool(names) and all(link.has("name") for link in links)
        units: dict[tuple[str, int], str] = {}
        out = []
        for i, place, table in self._named("device", tables):
            n_errors = len(self.errors)
            if all_known and table.has("link") and table.link not in names:
                wanted = f"wanted one of {', '.join(names)}{near(table.link, names)}"
                self.wrong(place, "link", f"no link {shown(table.link)}, {wanted}")
            if table.has("link", "unit"):
                other = units.setdefault((table.link, table.unit), place)
                if other != place:
                    where = f"unit {table.unit} on link {shown(table.link)}"
                    self.wrong(place, "unit", f"{where} belongs to {other} already")
            meter = self._meter(place, table)
            if meter:
                self._check_tags(place, table, meter.points)
            if meter and ("device", i) not in self.broken and len(self.errors) == n_errors:
                out.append(_device(table, meter))
        return out

    def _named(self, what: str, tables: Sequence[Named]) -> list[tuple[int, str, Named]]:
        """Return number, place and table of each; a name that is given twice is an error."""
        out = []
        seen: set[str] = set()
        for i, table in enumerate(tables):
            place = titled(what, table.name if table.has("name") else None, i)
            if place in seen:
                self.wrong(place, f"name is given twice, wanted one {what} per name")
            seen.add(place)
            out.append((i, place, table))
        return out

    def _meter(self, place: str, table: DeviceTable) -> Profile | None:
        """Return the points of a device, and how they are read; None when that is not known."""
        if table.profile and not table.point:
            try:
                return profiles.find(table.profile, self.folders)
            except ProfileError as error:
                for line in error.lines:
                    self.wrong(place, "profile", line)
                return None
        is_own = table.point and not table.profile and table.has("profile")
        if is_own and all(point.has("name", "type") for point in table.point):
            points = tuple(point.point() for point in table.point)
            return Profile("", "", "", table.measurement, source=str(self.path), grade="C", points=points)
        return None

    def _check_tags(self, place: str, table: DeviceTable, points: tuple[Point, ...]) -> None:
        """Tell what is wrong with the tags that a device names."""
        where = f"profile {shown(table.profile)}" if table.profile else "this device"
        texts = {point.name for point in points if point.is_text}
        numbers = list(dict.fromkeys(point.name for point in points if not point.is_text))
        wanted = numbers if table.tags is None else list(table.tags)
        if not numbers:
            self.wrong(place, f"{where} has only texts, wanted at least one point with a number")
        elif not wanted and table.has("tags"):
            self.wrong(place, "tags", "is empty, wanted at least one name, or leave it out for all points")
        if len(set(wanted)) != len(wanted):
            self.wrong(place, "tags", "names a point twice")
        for name in dict.fromkeys((*wanted, *table.tag)):
            key = "tags" if name in wanted else f"tag {shown(name)}"
            if name in texts:
                self.wrong(place, key, f"{shown(name)} is a text and read at the start, wanted points with numbers")
            elif name not in numbers:
                hint = near(name, numbers, ", ") or f", wanted one of {', '.join(numbers[:MAX_NAMES])} ..."
                self.wrong(place, key, f"{where} has no point {shown(name)}{hint}")
            elif name not in wanted and table.has("tags"):
                self.wrong(place, key, "has settings but is not in 'tags'; add it there")
        kinds = {point.name: point.kind for point in points}
        for name, given in table.tag.items():
            if name in kinds and given.has("detect"):
                for setting, detector in _idle(given, DEFAULT_DETECT[kinds[name]]):
                    self.wrong(place, f"tag {shown(name)}", f"{setting} is set, wanted '{detector}' in detect as well")

    def mqtt(self, table: MqttTable, default_user: str | None) -> MqttSpec:
        """Return the broker settings with the password read from its file or the environment."""
        password = self.secret("mqtt", "password_file", table.password_file, PASSWORD_ENV)
        return MqttSpec(table.all_urls, table.username or default_user, password, **self.tls("mqtt", table))

    def store(self, table: StoreTable) -> StoreSpec:
        """Return the store settings with the token read from its file or the environment."""
        url = urls.parse(table.url, urls.STORES) if table.has("url") else None
        if url and url.scheme == "sqlite" and os.path.isdir(unquote(url.path)):  # noqa: PTH112 - Path's may raise
            self.wrong("store", "url", f"got {shown(table.url)}, which is a folder, wanted sqlite:///path/to/file")
        return StoreSpec(table.url, self.secret("store", "token_file", table.token_file, TOKEN_ENV))

    def tls(self, place: str, table: MqttTable | LinkTable) -> dict[str, Path | None]:
        """Return the files of a table that are there; certificates that ssl cannot use are an error."""
        given = {key: getattr(table, key) for key in TLS_KEYS}
        found = {key: self.file(place, key, path, secret=key == "key_file") for key, path in given.items()}
        for key, fault in files.tls_faults(*found.values()):
            self.wrong(place, key, f"{hide(str(given[key]))}: {fault}")
        return found

    def secret(self, place: str, key: str, given: Path | None, variable: str) -> str | None:
        """Return the first line of a secret file, or what the environment says where there is none."""
        if not given:
            return os.environ.get(variable)
        path = self.file(place, key, given, secret=True)
        line = files.first_line(path) if path else None
        if path and line is None:
            self.wrong(place, key, f"{hide(str(given))}: holds no line of text")
        return line

    def file(self, place: str, key: str, given: Path | None, *, secret: bool) -> Path | None:
        """Return a file that the configuration names, relative to it; None, and an error, when it cannot be used."""
        if not given:
            return None
        path = self.path.parent / given
        if fault := files.fault(path, secret=secret):
            self.wrong(place, key, f"{hide(str(given))}: {fault}")
            return None
        return path


def _idle(given: TagTable, default: Sequence[str]) -> list[tuple[str, str]]:
    """Return (setting, detector) of what is set for a detector that does not look at this tag."""
    detect = default if given.detect is None else given.detect
    found = [(name, "limits") for name in LIMITS if getattr(given, name) is not None and given.has(name)]
    found += [("rate", "rate")] if given.rate is not None and given.has("rate") else []
    return [(setting, detector) for setting, detector in found if detector not in detect]


def _listen(table: MetricsTable | ConsoleTable | None) -> tuple[str, int] | None:
    return urls.listening(table.listen) if table and table.has("listen") else None


def _link(table: LinkTable, url: urls.Url, tls_files: dict[str, Path | None]) -> LinkSpec:
    serial = {key: int(url.query[key]) for key in ("baudrate", "bytesize", "stopbits") if key in url.query}
    parity = cast(Literal["N", "E", "O"], url.query.get("parity", "N"))
    spec = LinkSpec(
        name=table.name,
        transport=cast(Literal["tcp", "tls", "rtu+tcp", "rtu"], url.scheme),
        host=url.host,
        port=url.port,
        path=url.path if url.scheme == "rtu" else "",
        serial=SerialLine(**serial, parity=parity),
        timeout_s=table.timeout_s,
        ca_file=tls_files["ca_file"],
        cert_file=tls_files["cert_file"],
        key_file=tls_files["key_file"],
    )
    return spec if table.turnaround_s is None else replace(spec, turnaround_s=table.turnaround_s)


def _device(table: DeviceTable, meter: Profile) -> Device:
    numbers = {point.name: point for point in meter.points if not point.is_text}
    wanted = numbers if table.tags is None else table.tags
    return Device(
        name=table.name,
        link=table.link,
        unit=table.unit,
        profile=table.profile or "",
        measurement=meter.measurement,
        asset=table.asset or "",
        line=table.line or "",
        kp_m=table.kp_m,
        tags=tuple(_tag(table.period_s, numbers[name], table.tag.get(name, TagTable())) for name in wanted),
        strings=tuple(p for p in meter.points if p.is_text and not is_in_hole(p, meter.holes, enron=meter.enron)),
        max_registers=table.max_registers or meter.max_registers,
        max_bits=meter.max_bits,
        max_gap=meter.max_gap if table.max_gap is None else table.max_gap,
        enron=meter.enron,
        points=meter.points,
        side_effects=tuple(point for point in meter.points if point.name in meter.side_effects),
        holes=meter.holes,
        expect=meter.expect,
        scan_list=meter.scan_list,
    )


def _tag(device_period_s: float, point: Point, given: TagTable) -> Tag:
    nan = float("nan")
    limits = tuple(nan if (value := getattr(given, name)) is None else value for name in LIMITS)
    return Tag(
        point=point if given.unit is None else replace(point, unit=given.unit),
        period_s=max(point.period_s or 0.0, device_period_s) if given.period_s is None else given.period_s,
        limits=cast(tuple[float, float, float, float], limits),
        deadband=given.deadband,
        on_delay_s=given.on_delay_s,
        off_delay_s=given.off_delay_s,
        priority=given.priority,
        detect=DEFAULT_DETECT[point.kind] if given.detect is None else given.detect,
        rate=nan if given.rate is None else given.rate,
    )
