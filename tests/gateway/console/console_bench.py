"""What the console is tested on: a real broker, and a console that runs."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.console import app
from gateway.history.store import Store
from gateway.model.corridor import ConsoleSpec, MqttSpec

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A mosquitto of our own, which can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def spec(self) -> MqttSpec:
        return MqttSpec((f"mqtt://127.0.0.1:{self.port}",), None, None)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(1000):
            with socket.socket() as probe:
                probe.settimeout(0.01)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            try:
                self._process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError("mosquitto ended")
        raise RuntimeError("mosquitto does not listen")

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@dataclass
class Console:
    """A console that is running; `url` ends with a slash."""

    url: str
    stop: asyncio.Event


@asynccontextmanager
async def running(
    mqtt: MqttSpec, store: Store | None = None, port: int = 0, connect: bool = True
) -> AsyncIterator[Console]:
    """Run a console, connected to its broker; on a port of the kernel's choice unless one is given."""
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        spec = ConsoleSpec(("127.0.0.1", port), mqtt, None)
        tasks.create_task(app.run(spec, store, stop=stop, ready=address.set_result))
        console = Console(await address, stop)
        if connect:
            await _connected(console)
        yield console
        stop.set()


async def _connected(console: Console) -> None:
    headers = {"Origin": console.url.rstrip("/")}
    async with (
        asyncio.timeout(15),
        aiohttp.ClientSession() as session,
        session.ws_connect(console.url + "api/stream", headers=headers) as stream,
    ):
        state = ""
        while state != "connected":
            await stream.send_str("next")
            state = (await stream.receive_json()).get("console", {}).get("mqtt", {}).get("state", state)
