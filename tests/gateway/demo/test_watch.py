"""The demo's own ear on the broker."""

import asyncio
import contextlib
import json

import aiomqtt
import pytest

from gateway.demo.watch import Watch
from gateway.model.corridor import MqttSpec
from tests.servers import until

BASE = "corridor/v1/link43/ps1/gw1"
EVENT = json.dumps(
    {"time": 1, "kind": "anomaly", "device": "pt-100", "tag": "discharge_pressure", "reason": "frozen", "text": ""}
).encode()


class Line:
    """A wire to a broker that can be cut; who calls meanwhile is hung up on."""

    def __init__(self, port: int) -> None:
        self.port, self._to, self._is_cut = 0, port, False
        self._ends: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._ends += [writer, far_writer]
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))

    def cut(self) -> None:
        self._is_cut = True
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    def mend(self) -> None:
        self._is_cut = False


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


@contextlib.asynccontextmanager
async def cuttable(port: int):
    line = Line(port)
    async with await asyncio.start_server(line.serve, "127.0.0.1", 0) as server:
        line.port = server.sockets[0].getsockname()[1]
        yield line
        line.cut()


@pytest.mark.parametrize(
    ("leaf", "payload"),
    [
        ("status", b"[" * 100_000), ("status", b""), ("status", b"3"), ("alarms", b'{"alarms":3}'),
        ("d/event", b'{"time":NaN,"kind":"alarm"}'), ("d/event", b"[]"), ("d/data", b"garbage"),
        ("d/event", b'{"time":"1","kind":"alarm","device":"d","tag":"t","reason":"low","text":"x"}'),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_cannot_be_read_is_nothing_to_count(leaf, payload):
    watch = Watch(MqttSpec(("mqtt://127.0.0.1:1",), None, None), 1, say=lambda line: None)
    watch.take(f"{BASE}/{leaf}", payload)
    assert (watch.frames, watch.events, watch.online, watch.standing) == (0, [], set(), {})


async def test_what_is_told_while_it_is_cut_off_counts_too(mosquitto):
    """A gateway delivers an event once; a watch that was away then would say that nobody had found the anomaly."""
    heard = []
    async with cuttable(mosquitto.port) as line, asyncio.TaskGroup() as tasks:
        watch = Watch(MqttSpec((f"mqtt://127.0.0.1:{line.port}",), None, None), 1, say=heard.append)
        watching = tasks.create_task(watch.run())
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as gateway:
            await gateway.publish(f"{BASE}/status", b'{"state":"online","boot":1}', qos=1, retain=True)
            await until(lambda: watch.online)
            line.cut()
            await gateway.publish(f"{BASE}/pt-100/event", EVENT, qos=1)
            line.mend()
        await until(lambda: watch.events)
        watching.cancel()
    assert [event.reason for event in watch.events] == ["frozen"]
