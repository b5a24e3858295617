"""The console's side of MQTT: every message into the picture, acknowledgements out, their replies back."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import Any, Final

from gateway.console.picture import Picture
from gateway.model.corridor import MqttSpec
from gateway.wire import topics
from gateway.wire.client import Client, MqttError, keep_connected
from gateway.wire.strict_json import dumps, loads

log = logging.getLogger(__name__)

REPLY_S: Final = 10.0  # a gateway answers within its command loop; later an operator has tried again
KEEP_QOS: Final = 1
LIVE_QOS: Final = 0  # a lost live value is followed by the next one; the database has it anyway


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command. `code` is ok, refused, mqtt_away, gateway_offline, gateway_unknown or no_answer."""

    gateway: str
    key: str
    ok: bool
    code: str
    text: str = ""


class Feed:
    """The broker connection. Commands need it; values simply stop without it."""

    def __init__(self, spec: MqttSpec, picture: Picture) -> None:
        self._spec = spec
        self._picture = picture
        self._client: Client | None = None
        self._waiting: dict[str, asyncio.Future[tuple[bool, str]]] = {}

    async def run(self) -> None:
        """Stay connected for ever."""
        await keep_connected(self._spec, f"console-{secrets.token_hex(4)}", self._session, on_state=self._on_state)

    def _on_state(self, connected: bool, text: str) -> None:
        self._picture.say("mqtt", "connected" if connected else "away", "" if connected else text)

    async def _session(self, client: Client) -> None:
        await client.subscribe(f"{topics.ROOT}/+/+/+/reply", qos=KEEP_QOS)
        for leaf in ("catalog", "status", "alarms"):
            await client.subscribe(topics.all_of("+", leaf), qos=KEEP_QOS)
        await client.subscribe(topics.all_of("+", "health"), qos=LIVE_QOS)
        await client.subscribe(f"{topics.ROOT}/+/+/+/+/event", qos=KEEP_QOS)
        await client.subscribe(topics.ledger("+"), qos=LIVE_QOS)
        await client.subscribe(topics.all_data("+"), qos=LIVE_QOS)
        self._client = client
        try:
            async for message in client.messages:
                topic = topics.parse(message.topic.value)
                if topic is None:
                    if ledger := topics.parse_ledger(message.topic.value):
                        self._picture.take_ledger(*ledger, message.payload, message.retain)
                elif topic.leaf == "reply":
                    self._take_reply(message.payload)
                else:
                    self._picture.take(topic, message.payload, message.retain)
        finally:
            self._client = None

    def _take_reply(self, payload: bytes) -> None:
        try:
            reply = loads(payload)
            waiting = self._waiting.get(str(reply["id"]))
            answer = (reply["ok"] is True, str(reply.get("text") or ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._picture.broken += 1
            return
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def acknowledge(self, gateway: str, key: str, by: str) -> Answer:
        """Ask a gateway to acknowledge the alarm `device/tag/alarm`; return its answer, or why there is none."""
        found = self._picture.find(gateway)
        if found is None:
            return Answer(gateway, key, False, "gateway_unknown")
        if self._client is None:
            return Answer(gateway, key, False, "mqtt_away")
        if found.status.get("state") == "offline":
            return Answer(gateway, key, False, "gateway_offline")
        identity = secrets.token_hex(8)
        expires = self._picture.now_ns() + int(REPLY_S * 1e9)
        command: dict[str, Any] = {"id": identity, "expires": expires, "by": by, "key": key}
        waiting = self._waiting[identity] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(REPLY_S):
                await self._client.publish(found.address.command("acknowledge"), dumps(command), qos=1, retain=False)
                ok, text = await waiting
        except MqttError as error:
            return Answer(gateway, key, False, "mqtt_away", str(error))
        except TimeoutError:
            return Answer(gateway, key, False, "no_answer")
        finally:
            del self._waiting[identity]
        log.info("acknowledge %s %s by %s: %s %s", found.key, key, by, "done" if ok else "refused", text)
        return Answer(gateway, key, ok, "ok" if ok else "refused", text)
