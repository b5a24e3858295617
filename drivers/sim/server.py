"""Modbus servers on a socket: Modbus TCP, TLS and RTU over TCP."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from drivers.link import LinkSpec
from drivers.sim.frames import MAX_PDU, MBAP, RtuRequests, mbap, rtu

TARGET_FAILED: Final = 0x0B
STREAM_SILENCE_S: Final = 0.05  # between two RTU frames in a TCP stream: more than a network's jitter
READ_BYTES: Final = 4096
CLOSE_S: Final = 0.5


class SimError(Exception):
    """A simulation that cannot be started; `lines` has one line per error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Reply:
    """What comes back to a request.

    pdu    None: nobody answers, because there is no such unit (is_known False) or because it is silent
    noise  bytes that come instead of a frame; on RTU an empty one means: the right frame with a wrong CRC
    cut    the connection drops
    """

    pdu: bytes | None
    is_known: bool = True
    delay_s: float = 0.0
    noise: bytes | None = None
    cut: bool = False


Respond = Callable[[int, bytes], Reply]  # unit, request PDU


class Endpoint(Protocol):
    """Where one link is served."""

    link: LinkSpec

    async def open(self) -> None:
        """Begin to serve; raises SimError."""
        ...

    async def close(self) -> None:
        """Drop every connection and give the endpoint back; `open` may follow."""
        ...


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The server's own certificate, and the authority of its clients when they must show one."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return the server side's TLS settings; raises OSError (SSLError is one) for unusable files."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert_file, self.key_file)
        if self.client_ca_file:
            context.load_verify_locations(self.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def rtu_frame(unit: int, reply: Reply) -> bytes:
    """Return what stands on an RTU line for a reply."""
    if reply.noise is None:
        return rtu(unit, reply.pdu or b"")
    if reply.noise:
        return reply.noise
    frame = rtu(unit, reply.pdu or b"")
    return frame[:-1] + bytes((frame[-1] ^ 0x5A,))


async def next_requests(
    framer: RtuRequests, read: Callable[[], Awaitable[bytes]], silence_s: float
) -> list[tuple[int, bytes]] | None:
    """Return the next requests of a byte stream (perhaps none yet), None at its end."""
    try:
        async with asyncio.timeout(silence_s if framer.has_part else None):
            data = await read()
    except TimeoutError:
        return framer.silence()
    return framer.feed(data) if data else None


class _Connection:
    """One client of a socket: its writer, and whether the server wants it gone."""

    __slots__ = ("gone", "writer")

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.gone = asyncio.Event()

    def drop(self) -> None:
        self.gone.set()
        self.writer.transport.abort()

    async def rest(self, seconds: float) -> None:
        """Wait, but not longer than the connection lives."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self.gone.wait()
            except TimeoutError:
                return


class SocketEndpoint:
    """A listening socket; every connection is served in the order of its requests."""

    def __init__(self, link: LinkSpec, respond: Respond, tls: ServerTls | None = None) -> None:
        self.link = link
        self.port = link.port
        self._respond = respond
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._idle = asyncio.Event()

    async def open(self) -> None:
        """Listen; a port 0 is chosen by the kernel and kept. Raises SimError."""
        link, context = self.link, None
        if link.transport == "tls":
            if self._tls is None:
                raise SimError(
                    [f"link '{link.name}': tls wants a server certificate (cert_file and key_file), got none"]
                )
            try:
                context = self._tls.context()
            except OSError as error:
                raise SimError([f"link '{link.name}': server certificate: {error}"]) from None
        try:
            self._server = await asyncio.start_server(
                self._serve, link.host, self.port, ssl=context, reuse_address=True
            )
        except OSError as error:
            what = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise SimError([f"link '{link.name}': cannot listen on {link.host}:{self.port}: {what}"]) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server:
            self._server.close()
            self._server = None
        self.drop()
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._connections:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return

    def drop(self) -> None:
        """Drop every connection, go on listening."""
        for connection in list(self._connections):
            connection.drop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.add(connection)
        try:
            if self._server is None:
                return
            if self.link.transport == "rtu+tcp":
                await self._serve_rtu(connection, reader)
            else:
                await self._serve_mbap(connection, reader)
        except (asyncio.IncompleteReadError, OSError):
            return  # the client went away, or we dropped it
        finally:
            writer.close()
            self._connections.discard(connection)
            self._idle.set()

    async def _serve_mbap(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        while not connection.gone.is_set():
            transaction, protocol, length, unit = MBAP.unpack(await reader.readexactly(MBAP.size))
            if protocol != 0 or not 2 <= length <= MAX_PDU + 1:
                return  # not Modbus: nothing after it can be understood
            request = await reader.readexactly(length - 1)
            reply = self._respond(unit, request)
            if not reply.is_known:
                reply = Reply(bytes((request[0] | 0x80, TARGET_FAILED)))
            if reply.pdu is not None and not reply.cut:
                noise = reply.noise
                await self._send(connection, reply, noise or mbap(transaction, unit, reply.pdu))
            elif reply.cut:
                connection.drop()

    async def _serve_rtu(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        framer = RtuRequests()
        while not connection.gone.is_set():
            requests = await next_requests(framer, lambda: reader.read(READ_BYTES), STREAM_SILENCE_S)
            if requests is None:
                return
            for unit, request in requests:
                reply = self._respond(unit, request)
                if reply.cut:
                    connection.drop()
                    return
                if reply.is_known and reply.pdu is not None and unit != 0:
                    await self._send(connection, reply, rtu_frame(unit, reply))

    async def _send(self, connection: _Connection, reply: Reply, frame: bytes) -> None:
        await connection.rest(reply.delay_s)
        if not connection.gone.is_set():
            connection.writer.write(frame)
            await connection.writer.drain()
