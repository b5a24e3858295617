"""What the console knows of every gateway now: columns of latest values, alarms, status, health.

Every change raises `Picture.tick` and is marked with it; what a client must be told is everything marked later than
the tick it was told last. So there is no queue to a client, a slow one gets fewer and larger steps, and a snapshot is
the step from nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.quality import BAD_WAITING_FOR_INITIAL_DATA, GOOD, NAMES, is_bad
from gateway.console import intake
from gateway.console.intake import QualityChange
from gateway.console.ledgers import Ledgers
from gateway.console.ring import NEVER, Ring
from gateway.wire.catalog import Catalog, CatalogDevice, CatalogTag
from gateway.wire.catalog import decode as decode_catalog
from gateway.wire.events import AlarmRecord, decode_alarms
from gateway.wire.lines import Line, parse_lines
from gateway.wire.topics import GatewayAddress, Topic

NS_PER_MS: Final = 1_000_000
MAX_TAGS: Final = 50_000  # of one gateway: ten times the largest corridor, and 0.7 GB of ring when all are live
LIVE_NS: Final = 60_000_000_000  # a sample older than this came late: it says nothing about the delay of live ones


class GatewayPicture:
    """One gateway. Rows are the tags of its catalog in the catalog's order.

    value    float64[n], the last good one, NaN before the first
    time_ns  int64[n], Unix ns of that value, NEVER before the first
    quality  uint32[n], OPC UA status code now
    quality_ns  int64[n], when the quality last changed
    marked   int64[n], the tick of the last change
    """

    def __init__(self, address: GatewayAddress) -> None:
        self.address = address
        self.key = f"{address.corridor}/{address.site}/{address.gateway}"
        self.catalog = Catalog("", [])
        self.status: dict[str, Any] = {}
        self.health: dict[str, Any] = {}
        self.alarms: list[AlarmRecord] = []
        self.ledger: list[dict[str, Any]] = []
        self.heard_ns = 0
        self.delay_ms: float | None = None
        self.shape_tick = self.meta_tick = self.alarms_tick = self.ledger_tick = 0
        self._lay_out(Catalog("", []))

    def _lay_out(self, catalog: Catalog) -> None:
        n = sum(len(device.tags) for device in catalog.devices)
        self.catalog = catalog
        self.rows: dict[str, dict[str, int]] = {}
        self.devices = {device.name: device for device in catalog.devices}
        self.tags: list[tuple[CatalogDevice, CatalogTag]] = []
        for device in catalog.devices:
            self.rows[device.name] = {tag.name: len(self.tags) + i for i, tag in enumerate(device.tags)}
            self.tags += [(device, tag) for tag in device.tags]
        self.value: NDArray[np.float64] = np.full(n, np.nan)
        self.time_ns: NDArray[np.int64] = np.full(n, NEVER, np.int64)
        self.quality: NDArray[np.uint32] = np.full(n, BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        self.quality_ns: NDArray[np.int64] = np.full(n, NEVER, np.int64)
        self.marked: NDArray[np.int64] = np.zeros(n, np.int64)
        self.reason: dict[int, str] = {}
        self.ring = Ring(n)

    def take_catalog(self, catalog: Catalog) -> None:
        """Lay the columns out anew; tags that stay keep what is known of them. Raises ValueError for too many tags."""
        n = sum(len(device.tags) for device in catalog.devices)
        if n > MAX_TAGS:
            raise ValueError(f"a catalog of {n} tags, at most {MAX_TAGS} are shown")
        rows, value, time_ns = self.rows, self.value, self.time_ns
        quality, quality_ns, reason, ring = self.quality, self.quality_ns, self.reason, self.ring
        self._lay_out(catalog)
        for device, tags in self.rows.items():
            for tag, row in tags.items():
                old = rows.get(device, {}).get(tag)
                if old is None:
                    continue
                self.value[row], self.time_ns[row] = value[old], time_ns[old]
                self.quality[row], self.quality_ns[row] = quality[old], quality_ns[old]
                self.ring.take_over(row, ring.read(old))
                if old in reason:
                    self.reason[row] = reason[old]

    def take_line(self, line: Line, device: str, tick: int) -> int:
        """Take a frame's values; return how many fields are not in the catalog.

        A value that is older than the one shown (a backlog being sent) only completes the ring.
        """
        names = self.rows.get(device, {})
        known = [(row, value) for name, value in line.fields.items() if (row := names.get(name)) is not None]
        if not known:
            return len(line.fields)
        rows = np.array([row for row, _ in known], np.intp)
        values = np.array([value for _, value in known], np.float64)
        self.ring.push(rows, line.time_ns, values)
        newer = self.time_ns[rows] < line.time_ns
        rows, values = rows[newer], values[newer]
        self.value[rows], self.time_ns[rows], self.marked[rows] = values, line.time_ns, tick
        bad = rows[(self.quality[rows] >> 31 == 1) & (self.quality_ns[rows] < line.time_ns)]
        self.quality[bad], self.quality_ns[bad] = GOOD, line.time_ns
        for row in bad.tolist():
            self.reason.pop(row, "")
        return len(line.fields) - len(known)

    def take_quality(self, device: str, change: QualityChange, tick: int) -> None:
        """Take a change of quality; one that is older than the last is history."""
        row = self.rows.get(device, {}).get(change.tag)
        if row is None or change.time_ns < self.quality_ns[row]:
            return
        self.quality[row], self.quality_ns[row], self.marked[row] = change.quality, change.time_ns, tick
        self.reason.pop(row, "")
        if change.quality:
            self.reason[row] = change.why
        if is_bad(change.quality):
            self.ring.push(np.array([row], np.intp), change.time_ns, np.array([np.nan]))

    def changes(self, since: int, now_ns: int) -> dict[str, Any]:
        """Return what changed after the tick `since`, as JSON types; times are ages in ms at `now_ns`."""
        out: dict[str, Any] = {"key": self.key}
        if self.shape_tick > since:
            devices = [asdict(device) for device in self.catalog.devices]
            out["catalog"] = {**asdict(self.address), "catalog": self.catalog.catalog, "devices": devices}
        if self.meta_tick > since:
            out["status"], out["health"] = self.status, self.health
        if self.alarms_tick > since:
            out["alarms"] = [{**asdict(alarm), "key": alarm.key} for alarm in self.alarms]
        if self.ledger_tick > since:
            out["ledger"] = self.ledger
        rows = np.flatnonzero(self.marked > since) if self.shape_tick <= since else np.arange(self.value.size)
        if rows.size:
            known = self.time_ns[rows] != NEVER
            age = np.where(known, (now_ns - np.where(known, self.time_ns[rows], 0)) // NS_PER_MS, 0).tolist()
            value = self.value[rows].tolist()
            out["rows"] = {
                "i": rows.tolist(),
                "v": [v if v == v else None for v in value],
                "a": [a if k else None for a, k in zip(age, known.tolist(), strict=True)],
                "q": self.quality[rows].tolist(),
                "why": {str(row): text for row in rows.tolist() if (text := self.reason.get(row))},
            }
        if len(out) > 1:
            out["heard"] = self.heard_ns // NS_PER_MS
        return out


class Picture:
    """All gateways, and how the console itself is connected.

    unknown, broken  fields that no catalog names, and messages that could not be read, since the start
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.now_ns = now_ns
        self.gateways: dict[str, GatewayPicture] = {}
        self.tick = 1
        self.unknown = 0
        self.broken = 0
        self._ledgers = Ledgers()
        self._members_tick = 1
        self._console: dict[str, dict[str, Any]] = {}
        self._console_tick = 1
        self._changed = asyncio.Event()
        self.connected_ns = 0
        self.say("mqtt", "away", "")
        self.say("store", "none", "")

    def say(self, part: str, state: str, text: str) -> None:
        """Take the state of the console's own broker connection (`mqtt`) or database (`store`)."""
        before = self._console.get(part)
        if before and before["state"] == state and before["text"] == text:
            return
        same = before is not None and before["state"] == state
        since = before["since"] if before and same else self.now_ns() // NS_PER_MS
        if part == "mqtt" and state == "connected" and not same:
            self.connected_ns = self.now_ns()
        self._console = {**self._console, part: {"state": state, "text": text, "since": since}}
        self._console_tick = self._advance()

    def state_of(self, part: str) -> str:
        """Return the last state said of `mqtt` or `store`."""
        return str(self._console[part]["state"])

    def find(self, gateway: str) -> GatewayPicture | None:
        """Return a gateway by its key, or by its id where only one has it."""
        if gateway in self.gateways:
            return self.gateways[gateway]
        found = [one for one in self.gateways.values() if one.address.gateway == gateway]
        return found[0] if len(found) == 1 else None

    def take(self, topic: Topic, payload: bytes, retained: bool) -> None:
        """Take a message; one that cannot be read is counted, because a peer's fault must not end the console."""
        try:
            self._take(topic, payload, retained)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.broken += 1

    def take_ledger(self, corridor: str, ingest: str, payload: bytes, retained: bool) -> None:
        """Take an ingest's ledger message; one that cannot be read is counted."""
        try:
            self._ledgers.take(corridor, ingest, payload, retained, self.now_ns())
        except ValueError:
            self.broken += 1
            return
        for gateway in self.gateways.values():
            if gateway.address.corridor == corridor:
                self._show_ledger(gateway)

    def _show_ledger(self, gateway: GatewayPicture) -> None:
        said = self._ledgers.of(gateway.address.corridor, gateway.address.gateway)
        if said != gateway.ledger:
            gateway.ledger, gateway.ledger_tick = said, self._advance()

    def _take(self, topic: Topic, payload: bytes, retained: bool) -> None:
        key = f"{topic.address.corridor}/{topic.address.site}/{topic.address.gateway}"
        if not payload:
            if topic.leaf == "status" and self.gateways.pop(key, None) is not None:
                self._members_tick = self._advance()
            return
        gateway = self.gateways.get(key)
        if gateway is None:
            if topic.leaf not in ("status", "catalog", "alarms", "health", "data"):
                return
            gateway = self.gateways[key] = GatewayPicture(topic.address)
            self._members_tick = gateway.shape_tick = gateway.meta_tick = gateway.alarms_tick = self._advance()
            self._show_ledger(gateway)
        if not retained and topic.leaf != "status":
            gateway.heard_ns = self.now_ns()
        match topic.leaf:
            case "data" if topic.device is not None:
                self._take_data(gateway, topic.device, payload)
            case "event" if topic.device is not None:
                if change := intake.quality_change(payload, self.now_ns()):
                    gateway.take_quality(topic.device, change, self._advance())
            case "catalog":
                catalog = decode_catalog(payload)
                gateway.take_catalog(catalog)
                gateway.shape_tick = self._advance()
            case "alarms":
                gateway.alarms = decode_alarms(payload)
                gateway.alarms_tick = self._advance()
            case "status":
                gateway.status = intake.status(payload)
                if gateway.status.get("state") == "online":
                    now_ns = self.now_ns()
                    said_ns = min(gateway.status.get("time", 0), now_ns) if retained else now_ns
                    gateway.heard_ns = max(gateway.heard_ns, said_ns)
                gateway.meta_tick = self._advance()
            case "health":
                gateway.health = intake.health(payload)
                gateway.meta_tick = self._advance()
            case _:
                pass

    def _take_data(self, gateway: GatewayPicture, device: str, payload: bytes) -> None:
        tick = self._advance()
        now_ns = self.now_ns()
        for line in parse_lines(payload):
            if not intake.is_time(line.time_ns, now_ns):
                self.broken += 1
                continue
            self.unknown += gateway.take_line(line, device, tick)
            if abs(now_ns - line.time_ns) < LIVE_NS:
                delay_ms = (now_ns - line.time_ns) / NS_PER_MS
                gateway.delay_ms = delay_ms if gateway.delay_ms is None else 0.9 * gateway.delay_ms + 0.1 * delay_ms

    def changes(self, since: int) -> dict[str, Any]:
        """Return what changed after the tick `since`, as JSON types; 0 gives the whole picture."""
        now_ns = self.now_ns()
        out: dict[str, Any] = {"now": now_ns // NS_PER_MS, "tick": self.tick}
        delays = sorted(one.delay_ms for one in self.gateways.values() if one.delay_ms is not None)
        if delays:
            out["delay"] = round(max(delays[len(delays) // 2], 0.0))
        if since == 0:
            out["quality_names"] = {str(code): name for code, name in NAMES.items()}
        if self._console_tick > since:
            out["console"] = self._console
        if self._members_tick > since:
            out["present"] = list(self.gateways)
        changed = [change for one in self.gateways.values() if len(change := one.changes(since, now_ns)) > 1]
        if changed:
            out["gateways"] = changed
        return out

    async def wait(self, since: int, timeout_s: float) -> None:
        """Return when something changed after `since`, or after `timeout_s`."""
        if self.tick > since:
            return
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    def _advance(self) -> int:
        self.tick += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return self.tick
