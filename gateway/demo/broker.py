"""A broker for the demo: mosquitto where it is installed, else amqtt in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from gateway.demo.orphan import end_with_parent

START_S: Final = 10.0
LOOK_S: Final = 0.05
VERSION_AT: Final = 9  # bytes of a CONNECT up to its version, where its length takes one byte (at most four)
UNSUPPORTED_VERSION: Final = bytes((0x20, 3, 0, 0x84, 0))  # CONNACK of MQTT 5, reason code 0x84
AMQTT: Final = "amqtt"
QUEUE: Final = 100_000  # messages kept for an ingest that is away; mosquitto's own 1,000 would be dropped unseen


class NoBroker(Exception):
    """Neither mosquitto nor amqtt is here."""


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Run a broker on the loopback; yields (url, what it is); raises NoBroker."""
    port = free_port()
    url = f"mqtt://127.0.0.1:{port}"
    wanted = os.environ.get("CORRIDOR_DEMO_BROKER", "mosquitto")  # amqtt: as on a machine without mosquitto
    path = shutil.which(wanted, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path and wanted != AMQTT:  # amqtt has a script of this name, which is no mosquitto
        async with _mosquitto(path, folder, port) as name:
            yield url, name
        return
    async with _amqtt(port) as name:
        yield url, name


@contextlib.asynccontextmanager
async def _mosquitto(path: str, folder: Path, port: int) -> AsyncIterator[str]:
    config = folder / "mosquitto.conf"
    # a change of user, which mosquitto makes when it is started as root, makes the kernel forget end_with_parent
    user = "user root\n" if os.geteuid() == 0 else ""
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages {QUEUE}\n{user}"
    )
    process = await asyncio.create_subprocess_exec(
        path,
        "-c",
        str(config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=end_with_parent(),
    )
    try:
        await _listening(path, process, port)
        yield "mosquitto"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _listening(path: str, process: asyncio.subprocess.Process, port: int) -> None:
    deadline = asyncio.get_running_loop().time() + START_S
    while process.returncode is None and asyncio.get_running_loop().time() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(LOOK_S)
        else:
            writer.close()
            return
    how = "does not listen" if process.returncode is None else f"ended with exit code {process.returncode}"
    raise NoBroker(f"{path} {how}; is it a mosquitto?")


@contextlib.asynccontextmanager
async def _amqtt(port: int) -> AsyncIterator[str]:
    try:
        from amqtt.broker import Broker
    except ImportError:
        raise NoBroker(
            "no broker here: install mosquitto (apt install mosquitto), or the demo extra (pip install -e '.[demo]')"
        ) from None
    import logging

    logging.getLogger("amqtt").setLevel(logging.ERROR)
    logging.getLogger("transitions").setLevel(logging.ERROR)
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    class Honest(Broker):  # type: ignore[misc]
        """amqtt, which speaks 3.1.1 and loses its place in a CONNECT of MQTT 5, says so instead."""

        async def stream_connected(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
        ) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                start = await reader.readexactly(VERSION_AT)
                while start[-6:-1] != b"\x04MQTT" and len(start) < VERSION_AT + 3:
                    start += await reader.readexactly(1)
                if start[-6:] == b"\x04MQTT\x05":
                    writer.write(UNSUPPORTED_VERSION)
                    await writer.drain()
                    writer.close()
                    return
                reader._buffer[:0] = start  # type: ignore[attr-defined]  # unread: there is no public way
                await super().stream_connected(reader, writer, listener_name)

    running = Honest(config)
    await running.start()
    try:
        yield "amqtt (MQTT 3.1.1, in this process)"
    finally:
        await running.shutdown()
