"""A TCP link that fails on demand: passes bytes between its clients and one target, and does to them what networks do.

    client --> Way to_target --> target        every connection has a pump for each way: it takes bytes, lets them wait
    client <-- Way to_client <-- target        as long as the way asks, and gives them to the other side

What a proxy is told holds from that moment on, for the connections that it has and for those to come. Its buffers are
small, so that a peer feels a thin or a stopped link as it would a real one: by what is acknowledged to its kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final, Literal, Self

from drivers.sim.server import LINGER_NOT

READ_BYTES: Final = 1 << 16
BUFFER_BYTES: Final = 4096  # of a socket, which the kernel doubles; still 50 MB/s and 0.1 ms for a round trip
CHUNK_S: Final = 0.02  # a thin link passes so much of its rate at a time
QUEUE_CHUNKS: Final = 64  # on their way on a link with latency; a client that sends more has to wait
BACKLOG: Final = 100

Dead = Literal["", "swallow", "hold"]


class Way:
    """One direction of all connections: what happens to its bytes, and how many of them it passed or lost."""

    def __init__(self) -> None:
        self.passed_bytes = 0
        self.lost_bytes = 0
        self._moving = asyncio.Event()
        self._bytes_per_s = 0.0  # 0: as fast as it goes
        self._delay_s = 0.0
        self._free_s = 0.0  # when the thin link has passed what it was given so far
        self._left: int | None = None
        self._dead: Dead = ""
        self._pumps: set[_Pump] = set()
        self._moving.set()

    def freeze(self) -> None:
        """Let bytes wait until `thaw`."""
        self._moving.clear()

    def thaw(self) -> None:
        """Let bytes that wait go on."""
        self._moving.set()

    def half_open(self, *, swallow: bool = True) -> None:
        """Pass nothing more, and tell nobody; no connection of now or until `heal` ever passes anything again.

        With `swallow` the bytes are taken and lost, so the sender's kernel is content; else its window fills.
        """
        self._dead = "swallow" if swallow else "hold"
        for pump in self._pumps:
            pump.dead = self._dead

    def slow(self, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> None:
        """Be a link of this rate (0: any), which all connections share, and of this latency."""
        self._bytes_per_s, self._delay_s, self._free_s = bytes_per_s, delay_s, 0.0

    def truncate_after(self, n_bytes: int) -> None:
        """Reset the connection that carries the n-th byte from now on, behind that byte; once."""
        self._left = n_bytes

    def heal(self) -> None:
        """Pass everything at once again, on connections that are not half open."""
        self._dead, self._left = "", None
        self.slow()
        self.thaw()

    def pump(self, source: socket.socket, target: socket.socket) -> _Pump:
        """Return what moves the bytes of one connection this way."""
        pump = _Pump(self, source, target, self._dead)
        self._pumps.add(pump)
        return pump

    def release(self, pump: _Pump) -> None:
        """Forget a pump whose connection is over."""
        self._pumps.discard(pump)

    def chunk_bytes(self) -> int:
        """Return how many bytes may be taken at once."""
        return max(1, round(self._bytes_per_s * CHUNK_S)) if self._bytes_per_s else READ_BYTES

    async def carry(self, n_bytes: int) -> float:
        """Wait until a link of this rate has room for so many bytes; return when they arrive, in loop time."""
        now_s = asyncio.get_running_loop().time()
        if self._bytes_per_s:
            self._free_s = max(self._free_s, now_s) + n_bytes / self._bytes_per_s
            await asyncio.sleep(self._free_s - now_s)
            now_s = max(now_s, self._free_s)
        return now_s + self._delay_s

    async def moving(self) -> None:
        """Wait while the way is frozen."""
        await self._moving.wait()

    def cut_short(self, data: bytes) -> tuple[bytes, bool]:
        """Count bytes that are about to pass; return those that may, and whether the connection ends behind them."""
        ends = self._left is not None and self._left <= len(data)
        if self._left is not None:
            data = data[: self._left]
            self._left = None if ends else self._left - len(data)
        self.passed_bytes += len(data)
        return data, ends


class _Pump:
    """Moves the bytes of one connection one way."""

    def __init__(self, way: Way, source: socket.socket, target: socket.socket, dead: Dead) -> None:
        self.dead = dead
        self._way = way
        self._source = source
        self._target = target
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_CHUNKS)

    async def take(self) -> None:
        """Take bytes from the source until it ends; raises OSError."""
        loop = asyncio.get_running_loop()
        data = b"more"
        while data:
            await self._way.moving()
            if self.dead == "hold":
                await asyncio.Event().wait()  # until the connection is cut, or the proxy closes
            try:
                data = await loop.sock_recv(self._source, self._way.chunk_bytes())
            except OSError:
                if not self.dead:
                    raise
                data = b""  # nobody is told
            await self._queue.put((await self._way.carry(len(data)), data))

    async def give(self) -> None:
        """Give what was taken to the target when its time has come; raises OSError, also when it is to be cut short."""
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await self._queue.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await self._way.moving()
            if self.dead:
                self._way.lost_bytes += len(data)
                if not data:
                    return
                continue
            if not data:
                self._target.shutdown(socket.SHUT_WR)
                return
            data, ends = self._way.cut_short(data)
            await loop.sock_sendall(self._target, data)
            if ends:
                raise ConnectionResetError("cut short")


class Proxy:
    """Listens on a port of its own on 127.0.0.1 and passes every connection on to the target, while the block runs.

    A target that is away resets the client. `port` stays the same when dials are refused for a while.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.accepted_total = 0
        self.to_target = Way()
        self.to_client = Way()
        self._target = (host, port)
        self._tasks = asyncio.TaskGroup()
        self._connections: set[asyncio.Task[None]] = set()
        self._claim = socket.socket()  # keeps the port while nobody listens on it
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        self._claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._claim.bind(("127.0.0.1", 0))
        self.port = int(self._claim.getsockname()[1])
        await self._tasks.__aenter__()
        self.accept()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Reset every connection and give the port back."""
        self.refuse()
        self.cut()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._claim.close()

    @property
    def connections(self) -> int:
        """Return how many connections there are, half-open ones included."""
        return len(self._connections)

    @property
    def ways(self) -> tuple[Way, Way]:
        """Return both directions."""
        return self.to_target, self.to_client

    def accept(self) -> None:
        """Take new connections, as at the beginning."""
        if self._listener is None:
            self._listener = _socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self.port))
            self._listener.listen(BACKLOG)
            asyncio.get_running_loop().add_reader(self._listener, self._welcome, self._listener)

    def refuse(self) -> None:
        """Refuse new connections; the present ones go on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def cut(self) -> None:
        """Reset all connections, in both directions, half-open ones too."""
        for connection in self._connections:
            connection.cancel()

    def freeze(self) -> None:
        """Let bytes wait in both directions until `thaw`."""
        for way in self.ways:
            way.freeze()

    def thaw(self) -> None:
        """Let bytes that wait go on."""
        for way in self.ways:
            way.thaw()

    def half_open(self, *, swallow: bool = True) -> None:
        """Pass nothing more in either direction, and tell nobody; see `Way.half_open`."""
        for way in self.ways:
            way.half_open(swallow=swallow)

    def slow(self, bytes_per_s: float = 0.0, delay_s: float = 0.0) -> None:
        """Be a link of this rate (0: any) and latency in each direction."""
        for way in self.ways:
            way.slow(bytes_per_s, delay_s)

    def heal(self) -> None:
        """Take connections and pass everything again; what is half open stays so, as nobody was told."""
        for way in self.ways:
            way.heal()
        self.accept()

    async def flap(self, up_s: float, down_s: float, times: int) -> None:
        """Be up and then down, so often; down all connections are reset and new ones refused. Ends up."""
        for _ in range(times):
            await asyncio.sleep(up_s)
            self.refuse()
            self.cut()
            await asyncio.sleep(down_s)
            self.accept()

    def _welcome(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # the client has gone again
            client, _ = listener.accept()
            client.setblocking(False)
            self.accepted_total += 1
            connection = self._tasks.create_task(self._serve(client), name=f"proxy:{self.port}:{self.accepted_total}")
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)
            connection.add_done_callback(lambda _: client.close())  # also of a task that never began

    async def _serve(self, client: socket.socket) -> None:
        """Pass one connection on until both sides have ended it; anything else resets both sides."""
        ends = (client, _socket())
        pumps = (self.to_target.pump(*ends), self.to_client.pump(*reversed(ends)))
        resets = True
        try:
            await asyncio.get_running_loop().sock_connect(ends[1], self._target)
            async with asyncio.TaskGroup() as tasks:
                for pump in pumps:
                    tasks.create_task(pump.take())
                    tasks.create_task(pump.give())
            resets = False
        except* OSError:
            pass
        finally:
            for way, pump in zip(self.ways, pumps, strict=True):
                way.release(pump)
            for end in ends:
                if resets:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                end.close()


def _socket() -> socket.socket:
    """Return a TCP socket for an event loop, with small buffers, which those that it accepts inherit."""
    made = socket.socket()
    made.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
