"""A thin line between gateway and broker: every byte arrives, later; it refuses whom the broker would refuse."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

CHUNK_BYTES: Final = 65_536
LOOK_S: Final = 0.02


class Uplink:
    """Passes on what comes in either direction after `delay_s`; listens only while the far side does."""

    def __init__(self, host: str, port: int, delay_s: float) -> None:
        self.port = 0
        self._far = host, port
        self._delay_s = delay_s
        self._ended = asyncio.Event()
        self._open_ends: set[asyncio.StreamWriter] = set()

    async def run(self, listening: asyncio.Event) -> None:
        """Serve until cancelled, always on the port of the first time."""
        while True:
            self._ended.clear()
            server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = server.sockets[0].getsockname()[1]
            listening.set()
            try:
                await self._ended.wait()
            finally:
                server.close()
            while not await self._is_reachable():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(LOOK_S)

    def drop(self) -> None:
        """Hang up on both sides."""
        for writer in self._open_ends:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._far)
        except OSError:
            self._ended.set()
            writer.close()
            return
        ends = {writer, far_writer}
        self._open_ends |= ends
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._open_ends -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(CHUNK_BYTES)
            except OSError:
                data = b""
            if not data:
                self._ended.set()
            asyncio.get_running_loop().call_later(self._delay_s, _deliver, writer, data)

    async def _is_reachable(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(*self._far)
        except OSError:
            return False
        writer.close()
        return True


def _deliver(writer: asyncio.StreamWriter, data: bytes) -> None:
    if writer.is_closing():
        return
    if data:
        writer.write(data)
    else:
        writer.close()


@contextlib.asynccontextmanager
async def uplink(host: str, port: int, delay_s: float) -> AsyncIterator[int]:
    """Lay the line; yields the port of its near end."""
    line, listening = Uplink(host, port, delay_s), asyncio.Event()
    running = asyncio.ensure_future(line.run(listening))
    await listening.wait()
    try:
        yield line.port
    finally:
        running.cancel()
        line.drop()
        await asyncio.sleep(2 * delay_s)  # what is under way falls on closed ends
