"""Modbus servers on a socket: Modbus TCP, TLS and RTU over TCP."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from drivers.link import LinkSpec
from drivers.sim.frames import MAX_PDU, MBAP, RtuRequests, mbap, rtu
from drivers.sim.hostile import Door
from drivers.sim.play import Misbehaviour, Stage

TARGET_FAILED: Final = 0x0B
STREAM_SILENCE_S: Final = 0.05  # between two RTU frames in a TCP stream: more than a network's jitter
READ_BYTES: Final = 4096
CLOSE_S: Final = 0.5
MAX_UNSENT_BYTES: Final = 1 << 18  # what a misbehaviour may pile up for a client that does not read
LINGER_NOT: Final = struct.pack("ii", 1, 0)  # closing then sends a reset, see socket(7)


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
    wrong  what happens on the wire instead of this answer
    """

    pdu: bytes | None
    is_known: bool = True
    delay_s: float = 0.0
    noise: bytes | None = None
    cut: bool = False
    wrong: Misbehaviour | None = None


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
    """One client of a socket: its writer, what goes wrong on it, and whether it is over."""

    __slots__ = ("_endpoint", "gone", "stage", "writer")

    def __init__(self, writer: asyncio.StreamWriter, endpoint: SocketEndpoint, tasks: asyncio.TaskGroup) -> None:
        self.writer = writer
        self.gone = asyncio.Event()
        self.stage = Stage(endpoint.link.transport, self, tasks)
        self._endpoint = endpoint

    def drop(self) -> None:
        """End the connection now."""
        self.over()
        self.writer.transport.abort()

    def over(self) -> None:
        """Let everything end that still goes on for this connection."""
        self.gone.set()
        self.stage.close()

    def send(self, data: bytes) -> None:
        """Send what goes wrong; what a client that does not read leaves behind is bounded."""
        if self.writer.transport.get_write_buffer_size() < MAX_UNSENT_BYTES:
            self.writer.write(data)

    def end(self, how: Literal["close", "reset"]) -> None:
        """End the connection, after what was sent or with a reset."""
        if how == "reset":
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self.drop()
        else:
            self.over()
            self.writer.close()

    def receive_next(self, door: Door) -> None:
        """Receive connections like this from now on."""
        self._endpoint.receive_next(door)

    async def rest(self, seconds: float) -> None:
        """Wait, but not longer than the connection lives."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self.gone.wait()
            except TimeoutError:
                return


class SocketEndpoint:
    """A listening socket; every connection is served in the order of its requests.

    accepted  connections since the start
    """

    def __init__(self, link: LinkSpec, respond: Respond, tls: ServerTls | None = None) -> None:
        self.link = link
        self.port = link.port
        self.accepted = 0
        self._respond = respond
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._idle = asyncio.Event()
        self._door: Door | None = None
        self._door_until = 0.0

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

    def receive_next(self, door: Door) -> None:
        """Receive the next connection, or those of some time, with the steps of a misbehaviour."""
        self._door, self._door_until = door, asyncio.get_running_loop().time() + door.for_s

    def _greet(self, connection: _Connection) -> None:
        door = self._door
        if door is None:
            return
        is_late = asyncio.get_running_loop().time() >= self._door_until
        if is_late:
            self._door = None
        if not (is_late and door.for_s):
            connection.stage.begin(door.steps)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as tasks:
            connection = _Connection(writer, self, tasks)
            self._connections.add(connection)
            self.accepted += 1
            try:
                if self._server is None:
                    return
                self._greet(connection)
                if self.link.transport == "rtu+tcp":
                    await self._serve_rtu(connection, reader)
                else:
                    await self._serve_mbap(connection, reader)
            except (asyncio.IncompleteReadError, OSError):
                return  # the client went away, or we dropped it
            finally:
                connection.over()
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
            if reply.cut:
                connection.drop()
                return
            await self._reply(connection, transaction, unit, request, reply)

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
                if reply.is_known and unit != 0:
                    await self._reply(connection, 0, unit, request, reply)

    async def _reply(self, connection: _Connection, transaction: int, unit: int, request: bytes, reply: Reply) -> None:
        """Let what waited for a request happen, then answer it, or let that go wrong."""
        stage = connection.stage
        stage.request()
        await connection.rest(reply.delay_s)
        if connection.gone.is_set():
            return
        stage.exchange(transaction, unit, request, reply.pdu, reply.wrong)
        if reply.wrong is None and reply.pdu is not None:
            is_rtu = self.link.transport == "rtu+tcp"
            frame = rtu_frame(unit, reply) if is_rtu else reply.noise or mbap(transaction, unit, reply.pdu)
            connection.writer.write(frame)
            await connection.writer.drain()
