"""Everything that crosses the broker, in the order of its arrival, for as long as a bench lives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.model.ranges import RangeSet
from gateway.wire.lines import parse_header, parse_lines
from gateway.wire.topics import GatewayAddress, parse
from hil_tests.simulated import Loop

REDIAL_S: Final = 0.02  # much sooner than any gateway: what is measured is the gateway
SESSION_S: Final = 600  # the broker keeps what arrives while it restarts faster than we dial


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one tag, with the frame in which it came; `arrived_ns` is Unix ns at the subscriber."""

    device: str
    tag: str
    value: float
    time_ns: int
    boot: int
    seq: int
    arrived_ns: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """One frame as it came, with or without a line."""

    device: str
    boot: int
    seq: int
    arrived_ns: int


class Watch:
    """A subscriber to one gateway that outlives the broker's restarts.

    The lists only grow, so a length taken before something happens marks where what follows it begins.
    """

    def __init__(self, loop: Loop, url: str, address: GatewayAddress) -> None:
        self._loop = loop
        self._url = urlsplit(url)
        self._address = address
        self._work: Future[None]
        self._client: aiomqtt.Client | None = None
        self._listening = Future[None]()
        self.samples: list[Sample] = []
        self.frames: list[Arrived] = []
        self.events: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self.leaves: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Watch:
        """Subscribe."""
        self._work = self._loop.start(self._run())
        self._listening.result(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unsubscribe; an error of the watch itself comes out here."""
        self._work.cancel()
        with contextlib.suppress(CancelledError):
            self._work.result(10)

    def values(self, device: str, tag: str, since: int = 0) -> list[float]:
        """Return what came of a tag from the mark on, in the order of frames."""
        found = [s for s in self.samples[since:] if (s.device, s.tag) == (device, tag)]
        return [s.value for s in sorted(found, key=lambda s: (s.boot, s.seq))]

    def qualities(self, device: str, tag: str, since: int = 0) -> list[dict[str, Any]]:
        """Return the quality events of a tag from the mark on."""
        return [e for e in self.events[since:] if (e["kind"], e["device"], e["tag"]) == ("quality", device, tag)]

    def alarm_events(self, device: str, reason: str, since: int = 0) -> list[dict[str, Any]]:
        """Return the transitions of an alarm from the mark on; `reason` is <alarm>:<step>."""
        return [e for e in self.events[since:] if (e["kind"], e["device"], e["reason"]) == ("alarm", device, reason)]

    def standing(self) -> dict[str, dict[str, Any]]:
        """Return the alarms of the last retained message by their keys."""
        alarms = self.leaves.get("alarms", {}).get("alarms", [])
        return {f"{a['device']}/{a['tag']}/{a['alarm']}": a for a in alarms}

    def seqs(self, boot: int) -> RangeSet:
        """Return every frame of a boot that arrived."""
        return RangeSet((f.seq, f.seq) for f in self.frames if f.boot == boot)

    def command(self, name: str, body: dict[str, Any]) -> None:
        """Send a command to the gateway."""
        self._loop.call(self._send(self._address.command(name), json.dumps(body).encode()))

    async def _send(self, topic: str, payload: bytes) -> None:
        assert self._client, "the broker is away"
        await self._client.publish(topic, payload, qos=1)

    async def _run(self) -> None:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_S
        while True:
            try:
                async with aiomqtt.Client(
                    self._url.hostname or "",
                    self._url.port or 1883,
                    identifier=f"watch-{self._address.gateway}",
                    protocol=aiomqtt.ProtocolVersion.V5,
                    clean_start=False,
                    properties=properties,
                ) as self._client:
                    await self._client.subscribe(f"{self._address.base}/#", qos=1)
                    if not self._listening.done():
                        self._listening.set_result(None)
                    async for message in self._client.messages:
                        self._take(message.topic.value, bytes(message.payload))
            except aiomqtt.MqttError:
                self._client = None
                await asyncio.sleep(REDIAL_S)

    def _take(self, topic: str, payload: bytes) -> None:
        now_ns = time.time_ns()
        found = parse(topic)
        if found is None or found.command is not None or not payload:
            return
        if found.leaf == "data":
            self._take_data(found.device or "", payload, now_ns)
        elif found.leaf == "event":
            self.events.append({**json.loads(payload), "arrived_ns": now_ns})
        elif found.leaf == "reply":
            self.replies.append(json.loads(payload))
        else:
            self.leaves[found.leaf] = json.loads(payload)

    def _take_data(self, device: str, payload: bytes, now_ns: int) -> None:
        header = parse_header(payload)
        seqs = [seq for first, last in header.seq for seq in range(first, last + 1)]
        for seq, line in zip(seqs, parse_lines(payload), strict=True):
            assert line.tags["device"] == device
            for tag, value in line.fields.items():
                self.samples.append(Sample(device, tag, value, line.time_ns, header.boot, seq, now_ns))
        empty = [seq for first, last in header.empty for seq in range(first, last + 1)]
        self.frames += [Arrived(device, header.boot, seq, now_ns) for seq in (*seqs, *empty)]
