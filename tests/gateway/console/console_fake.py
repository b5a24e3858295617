"""A gateway without devices: publishes what it is told and answers acknowledgements, over a real broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiomqtt

from drivers.quality import BAD_NO_COMMUNICATION
from gateway.wire.catalog import Catalog, CatalogDevice, CatalogTag, identify
from gateway.wire.events import AlarmRecord, Event, encode_alarms, encode_status
from gateway.wire.ledger import GatewayReport, Report, encode_ledger
from gateway.wire.lines import Header
from gateway.wire.topics import OWN, GatewayAddress
from gateway.wire.topics import ledger as ledger_topic


def tag(
    name: str, unit: str, period_s: float = 1.0, span: tuple[float, float] | None = None, **limits: float
) -> CatalogTag:
    return CatalogTag(name, unit, "gauge", span, limits, period_s)


def device(
    name: str, line: str, kp_m: int | None, *tags: CatalogTag, link: str = "skid-a", asset: str = ""
) -> CatalogDevice:
    return CatalogDevice(name, "fake_meter", asset or name, line, kp_m, list(tags), {"serial": "4711"}, "meter", link)


def own_alarm(name: str, state: str = "unacked") -> AlarmRecord:
    """Return an alarm that a gateway has of itself."""
    now = time.time_ns()
    return AlarmRecord(OWN, "", name, state, 2, now, now, None, None, "", f"text {name}")


def ledger_message(
    *reports: GatewayReport, ingest: str = "ingest-1", share: str = "ingest", time_ns: int | None = None
) -> bytes:
    """Return the ledger message of an ingest."""
    said: Report = {"missing": 0, "waiting": 0, "gone": 0, "parked": 0, "absent": 0, "gateways": list(reports)}
    return encode_ledger(ingest, share, time_ns or time.time_ns(), said, [])


@dataclass
class FakeGateway:
    """One gateway's side of the topics."""

    client: aiomqtt.Client
    address: GatewayAddress
    devices: list[CatalogDevice]
    alarms: dict[str, AlarmRecord] = field(default_factory=dict)
    refuse: str = ""
    mute: bool = False
    boot: int = 7
    seq: int = 0
    commands: list[dict[str, Any]] = field(default_factory=list)

    async def announce(self, state: str = "online") -> None:
        catalog = Catalog(identify(self.devices), self.devices)
        await self.client.publish(self.address.leaf("catalog"), catalog.encode(), 1, retain=True)
        status = encode_status(state, self.boot, "0.1.0", time.time_ns(), {self.boot: (1, self.seq)})
        await self.client.publish(self.address.leaf("status"), status, 1, retain=True)
        await self.publish_alarms()

    async def frame(self, device: str, values: dict[str, float], time_ns: int | None = None) -> int:
        """Publish one frame's good values; return its time."""
        self.seq += 1
        time_ns = time_ns or time.time_ns()
        header = Header(self.boot, [(self.seq, self.seq)], [], "3f9a").encode().decode()
        fields = ",".join(f"{name}={value!r}" for name, value in values.items())
        series = f"meter,corridor={self.address.corridor},site={self.address.site},gateway={self.address.gateway}"
        line = f"{header}{series},device={device} {fields} {time_ns}\n"
        await self.client.publish(self.address.device(device, "data"), line.encode(), 1)
        return time_ns

    async def quality(self, device: str, tag: str, quality: int, reason: str, time_ns: int | None = None) -> None:
        event = Event(
            time_ns or time.time_ns(), self.boot, self.seq, "quality", device, tag, quality, None, reason, reason
        )
        await self.client.publish(self.address.device(device, "event"), event.encode(), 1)

    async def silence(self, device: str, reason: str = "no answer in 1.0 s") -> None:
        """Publish that every tag of a device has become bad."""
        for one in self.devices:
            if one.name == device:
                for tag in one.tags:
                    await self.quality(device, tag.name, BAD_NO_COMMUNICATION, reason)

    async def health(self, links: dict[str, str], **more: Any) -> None:
        body = {
            "polls": {"due": 1000, "done": 998, "late": 2, "skipped": 0},
            "links": {
                name: {"state": state, "load": 0.31, "requests": 5000, "timeouts": 3} for name, state in links.items()
            },
            "spool": {"state": "ok", "bytes": 12_000_000, "oldest_s": 86_400.0, "unsent": 0, "dropped": 0},
            "delivery": {"published": 1000, "acknowledged": 1000, "refused": 0},
            "clock": {"state": "synced", "offset_s": 0.0004},
            "memory_bytes": 92_000_000,
            **more,
        }
        await self.client.publish(self.address.leaf("health"), json.dumps(body).encode(), 0)

    async def ledger(self, *reports: GatewayReport, ingest: str = "ingest-1", **said: Any) -> None:
        """Publish what an ingest of this corridor says of boots of its gateways."""
        payload = ledger_message(*reports, ingest=ingest, **said)
        await self.client.publish(ledger_topic(self.address.corridor, ingest), payload, 1, retain=True)

    async def alarm(self, record: AlarmRecord) -> None:
        self.alarms[record.key] = record
        await self.publish_alarms()

    async def clear(self, key: str) -> None:
        self.alarms.pop(key, None)
        await self.publish_alarms()

    async def publish_alarms(self) -> None:
        body = encode_alarms(time.time_ns(), list(self.alarms.values()))
        await self.client.publish(self.address.leaf("alarms"), body, 1, retain=True)

    async def obey(self, command: dict[str, Any]) -> None:
        """Answer one acknowledge command."""
        self.commands.append(command)
        if self.mute:
            return
        key, ok, text = command["key"], True, "acknowledged"
        if self.refuse:
            ok, text = False, self.refuse
        elif command["expires"] < time.time_ns():
            ok, text = False, "the command has expired"
        elif key not in self.alarms:
            ok, text = False, f"no such alarm: {key}"
        else:
            state = {"unacked": "acked"}.get(self.alarms[key].state, self.alarms[key].state)
            self.alarms[key] = replace(self.alarms[key], state=state, by=command["by"], changed=time.time_ns())
            await self.publish_alarms()
        reply = {"id": command["id"], "ok": ok, "text": text}
        await self.client.publish(self.address.leaf("reply"), json.dumps(reply).encode(), 1)


@asynccontextmanager
async def connected(
    port: int, *gateways: tuple[GatewayAddress, list[CatalogDevice]]
) -> AsyncIterator[list[FakeGateway]]:
    """Announce gateways on the broker and let them answer commands while the block runs."""
    async with aiomqtt.Client("127.0.0.1", port) as client, asyncio.TaskGroup() as tasks:
        made = [FakeGateway(client, address, devices) for address, devices in gateways]
        by_topic = {one.address.command("acknowledge"): one for one in made}
        for topic in by_topic:
            await client.subscribe(topic, 1)

        async def obey() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                await by_topic[message.topic.value].obey(json.loads(message.payload))

        obeying = tasks.create_task(obey())
        for one in made:
            await one.announce()
        yield made
        obeying.cancel()
