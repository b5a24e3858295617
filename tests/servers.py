"""The real parts of tests: mosquitto, influxd, VictoriaMetrics, and an InfluxDB 2 front that misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

START_S = 20.0  # a loaded machine with many workers
TOKEN = "t0k"


def free_port() -> int:
    """Return a port that was free a moment ago; whoever starts a server on it retries on a clash."""
    with _claim(0) as probe:
        return int(probe.getsockname()[1])


def _claim(port: int) -> socket.socket:
    """Bind a port (0: any) without listening: no outgoing connection gets it, a server that reuses addresses may."""
    claim = socket.socket()
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        claim.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        raise
    return claim


async def until(condition: Callable[[], Any], within_s: float = 20.0, every_s: float = 0.01) -> Any:
    """Wait until `condition` (plain or async) is true and return what it said; fail at the deadline."""
    end = time.monotonic() + within_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, f"not within {within_s} s: {condition}"
        await asyncio.sleep(every_s)


def program(*candidates: str) -> str:
    """Return the path of the first program that exists, or skip the test."""
    for name in candidates:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{candidates[0]} is not installed")


@dataclass
class Server:
    """A child process that listens on `port`. `command(port)` writes its configuration and returns what to run.

    The port stays claimed while the process is away: nobody else's connection sits on it when it comes back.
    """

    command: Callable[[int], list[str]]
    log: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    claim: socket.socket | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start and wait until it accepts connections; keeps its port if it had one."""
        again = self.claim is not None
        for _ in range(5):
            if self.claim is None:
                self.claim = _claim(0)
                self.port = int(self.claim.getsockname()[1])
            with self.log.open("ab") as log:
                command = self.command(self.port)
                self.process = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)  # no Ctrl-C of ours
            if self._listens():
                return
            self.kill() if again else self.close()
        raise AssertionError(f"did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it as a supervisor would, SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would, SIGKILL."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Kill it and give its port up."""
        self.kill()
        if self.claim:
            self.claim.close()
            self.claim = None

    def freeze(self) -> None:
        """Stop it answering while its connections stay open."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def _listens(self) -> bool:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                time.sleep(0.02)  # a clash: the other one's listener answered, ours is about to give up
                return self.process.poll() is None
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str, keeps_sessions: bool = False) -> Iterator[Server]:
    """A broker on a port of its own; `lines` are added to its configuration.

    With `keeps_sessions`, sessions and what is queued for them outlive `stop()`.
    """
    binary = program("mosquitto", "/usr/sbin/mosquitto")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "mosquitto.conf"

    def command(port: int) -> list[str]:
        text = [f"listener {port} 127.0.0.1", "max_queued_messages 100000"]
        text += ["persistence true", f"persistence_location {folder}/"] if keeps_sessions else ["persistence false"]
        text += [] if any(line.startswith("allow_anonymous") for line in lines) else ["allow_anonymous true"]
        text += ["user root"] if os.geteuid() == 0 else []
        config.write_text("\n".join([*text, *lines]) + "\n")
        return [binary, "-c", str(config)]

    with _running(Server(command, folder / "mosquitto.log")) as server:
        yield server


@contextlib.contextmanager
def influxd(folder: Path, *http_lines: str) -> Iterator[Server]:
    """A real InfluxDB 1.x; `http_lines` are added to its [http] section."""
    binary = program("influxd")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "influxdb.conf"

    def command(port: int) -> list[str]:
        config.write_text(
            f"""reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
"""
            + "\n".join(http_lines)
            + "\n"
        )
        return [binary, "-config", str(config)]

    with _running(Server(command, folder / "influxd.log")) as server:
        yield server


@contextlib.contextmanager
def victoria_metrics(folder: Path) -> Iterator[Server]:
    """A VictoriaMetrics, which takes influx writes and answers 204 to anything."""
    binary = program("victoria-metrics")
    folder.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str]:
        return [
            binary, f"-storageDataPath={folder}/data", f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=100y", "-memory.allowedBytes=64MB",
        ]  # fmt: skip

    with _running(Server(command, folder / "victoria.log")) as server:
        yield server


@contextlib.contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.close()


async def influx_query(port: int, query: str, database: str = "") -> list[list[Any]]:
    """Return the rows of an InfluxQL query, with times in nanoseconds."""
    params = {"q": query, "epoch": "ns", **({"db": database} if database else {})}
    url = f"http://127.0.0.1:{port}/query"
    async with aiohttp.ClientSession() as session, session.post(url, data=params) as answer:
        result = (await answer.json())["results"][0]
    assert "error" not in result, result
    return [row for series in result.get("series", []) for row in series["values"]]


async def create_database(port: int) -> str:
    """Create a database with a fresh name and return it."""
    name = f"db_{uuid.uuid4().hex[:12]}"
    await influx_query(port, f"CREATE DATABASE {name}")
    return name


@dataclass
class Front:
    """InfluxDB 2 as seen from outside, a real InfluxDB 1 engine behind it.

    fault  None, or what every write meets: an HTTP status, "hang", "cut" (after the engine has stored the lines)
    retry_after  the header that goes with a faulty status
    """

    port: int
    engine: str
    fault: int | str | None = None
    retry_after: str | None = None
    writes: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The store URL, without the bucket."""
        return f"influx2://127.0.0.1:{self.port}?org=o"


@contextlib.asynccontextmanager
async def influx2_front(influxd_port: int) -> AsyncIterator[Front]:
    """Serve /api/v2/write and /query in front of an influxd."""
    engine = aiohttp.ClientSession()
    front = Front(0, f"http://127.0.0.1:{influxd_port}")
    released = asyncio.Event()

    def refuse(status: int, code: str, message: str) -> web.Response:
        headers = {"Retry-After": front.retry_after} if front.retry_after else {}
        return web.json_response({"code": code, "message": message}, status=status, headers=headers)

    def allowed(request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Token {TOKEN}"

    async def write(request: web.Request) -> web.StreamResponse:
        lines = await request.read()
        front.writes.append(lines)
        if not allowed(request):
            return refuse(401, "unauthorized", "unauthorized access")
        if isinstance(front.fault, int):
            return refuse(front.fault, "fault", "injected fault")
        if front.fault == "hang":
            await released.wait()
        params = {"db": request.query["bucket"], "precision": request.query.get("precision", "ns")}
        async with engine.post(f"{front.engine}/write", params=params, data=lines) as answer:
            status, text = answer.status, (await answer.text()).strip()
        if front.fault == "cut":
            assert request.transport
            request.transport.abort()
        if status == 204:
            return web.Response(status=204)
        return refuse(status, "invalid" if status == 400 else "not found", text)

    async def query(request: web.Request) -> web.Response:
        if not allowed(request):
            return refuse(401, "unauthorized", "unauthorized access")
        async with engine.get(f"{front.engine}/query", params=request.query) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")

    app = web.Application(client_max_size=64_000_000)
    app.add_routes([web.post("/api/v2/write", write), web.get("/query", query)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    front.port = runner.addresses[0][1]
    try:
        yield front
    finally:
        released.set()
        await runner.cleanup()
        await engine.close()


@contextlib.asynccontextmanager
async def websocket(port: int) -> AsyncIterator[int]:
    """A WebSocket before a broker's port, as in front of most brokers of a cloud; yields its own port."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        front = web.WebSocketResponse(protocols=("mqtt",))
        await front.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await reader.read(4096):
                await front.send_bytes(data)

        answers = asyncio.create_task(back())
        async for message in front:
            writer.write(message.data)
        answers.cancel()
        writer.close()
        return front

    application = web.Application()
    application.router.add_get("/mqtt", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
