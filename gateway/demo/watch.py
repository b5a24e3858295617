"""What happens while the demo runs, as an outsider sees it on MQTT: data, events, who is online."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.model.corridor import MqttSpec
from gateway.wire.client import Client, keep_connected
from gateway.wire.lines import parse_header
from gateway.wire.strict_json import loads, text, whole
from gateway.wire.topics import everything, parse

GRACE_NS: Final = 8_000_000_000  # a verdict may come this much later than the anomaly's end: two slow polls and a delay
QUEUE_EXPIRY_S: Final = 600  # the broker keeps what comes while the watch is cut off; a demo that died leaves no queue


class Injected(Protocol):
    """An anomaly that the simulator acted out, as its log has it."""

    @property
    def kind(self) -> str:
        """What it was."""
        ...

    @property
    def device(self) -> str:
        """Where it was."""
        ...

    @property
    def tag(self) -> str:
        """Of which tag; empty for the whole device."""
        ...

    @property
    def start_ns(self) -> int:
        """When it began, Unix ns."""
        ...

    @property
    def end_ns(self) -> int:
        """When it was over, Unix ns."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One event that a gateway told."""

    time: int
    kind: str
    device: str
    tag: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """How what was injected compares with what was told; `missed` names what nobody saw."""

    injected: int
    detected: int
    other: int
    missed: tuple[str, ...]
    surplus: tuple[str, ...]


@dataclass(slots=True)
class Watch:
    """Counts what crosses the broker."""

    mqtt: MqttSpec
    n_gateways: int
    say: Callable[[str], None]
    events: list[Seen] = field(default_factory=list)
    online: set[str] = field(default_factory=set)
    frames: int = 0
    standing: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Listen until cancelled."""
        identifier = f"corridor-demo-watch-{secrets.token_hex(4)}"  # of this run: no queue of an earlier one
        await keep_connected(self.mqtt, identifier, self._session, clean_start=False, session_expiry_s=QUEUE_EXPIRY_S)

    async def _session(self, client: Client) -> None:
        await client.subscribe(everything(), qos=1)
        async for message in client.messages:
            if isinstance(message.payload, bytes):
                self.take(message.topic.value, message.payload)

    def take(self, topic: str, payload: bytes) -> None:
        """Take one message of any topic; one that cannot be read is nothing to count."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self._take(topic, payload)

    def _take(self, topic: str, payload: bytes) -> None:
        found = parse(topic)
        if found is None:
            return
        if found.leaf == "data":
            header = parse_header(payload)
            self.frames += sum(last - first + 1 for first, last in (*header.seq, *header.empty))
        elif found.leaf == "event":
            raw = loads(payload)
            kind, device, tag, reason = (text(raw[name]) for name in ("kind", "device", "tag", "reason"))
            self.events.append(Seen(whole(raw["time"]), kind, device, tag, reason))
            if raw["kind"] != "quality":
                self.say(f"  {raw['device']}: {raw['text']}")
        elif found.leaf == "status":
            self._status(found.address.gateway, loads(payload))
        elif found.leaf == "alarms":
            self.standing[found.address.gateway] = len(loads(payload)["alarms"])

    def _status(self, gateway: str, status: Mapping[str, Any]) -> None:
        if status["state"] == "online" and gateway not in self.online:
            self.online.add(gateway)
            self.say(f"gateway {gateway} online, boot {status['boot']} ({len(self.online)}/{self.n_gateways})")

    def line(self, elapsed_s: float) -> str:
        """Return one line that says how things stand."""
        alarms = sum(self.standing.values())
        return f"{elapsed_s:.0f} s: {self.frames} frames on the broker, {alarms} standing alarms"

    def compare(self, injected: Iterable[Injected], covered: Mapping[str, tuple[str, ...]]) -> Found:
        """Return what of the injected anomalies was told; covered[kind] = (event kind, reasons that count)."""
        wanted = [one for one in injected if one.kind in covered]
        missed = [one for one in wanted if not any(_tells(one, seen, covered[one.kind]) for seen in self.events)]
        surplus = [
            seen
            for seen in self.events
            if seen.kind != "quality"
            and (seen.kind == "anomaly" or seen.reason.endswith(":raise"))
            and not any(_near(one, seen) for one in injected)
        ]
        return Found(
            len(wanted),
            len(wanted) - len(missed),
            len(surplus),
            tuple(f"{one.kind} {one.device}/{one.tag}" for one in missed),
            tuple(f"{seen.reason} {seen.device}/{seen.tag}" for seen in surplus),
        )


def _near(one: Injected, seen: Seen) -> bool:
    """Return whether an event may come from this anomaly: same place, same time."""
    return (
        seen.device == one.device
        and (not one.tag or not seen.tag or seen.tag == one.tag)
        and one.start_ns <= seen.time <= one.end_ns + GRACE_NS
    )


def _tells(one: Injected, seen: Seen, expected: tuple[str, ...]) -> bool:
    kind, *reasons = expected
    return _near(one, seen) and seen.kind == kind and (not reasons or seen.reason.split(":")[0] in reasons)
