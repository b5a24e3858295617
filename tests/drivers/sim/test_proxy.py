"""The proxy does what networks do, passes every byte otherwise, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.sim.proxy import Proxy
from drivers.sim.server import LINGER_NOT
from tests.servers import free_port, until

MANY = 1_000_000  # more than all buffers on the way hold


@dataclass
class Peer:
    """A server behind the proxy: what it received on each connection, and how that ended."""

    port: int = 0
    received: list[bytearray] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = bytearray()
        self.received.append(got)
        self.writers.append(writer)
        try:
            while data := await reader.read(1 << 16):
                got += data
            self.ends.append("end")
            writer.close()
        except ConnectionResetError:
            self.ends.append("reset")


@contextlib.asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Peer, Proxy]]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    async with server, Proxy("127.0.0.1", peer.port) as proxy:
        yield peer, proxy


@contextlib.asynccontextmanager
async def dialled(
    proxy: Proxy, peer: Peer
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamWriter, bytearray]]:
    """Yield the client's reader and writer, the peer's writer and what the peer received."""
    n = len(peer.received)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        await until(lambda: len(peer.received) > n)
        yield reader, writer, peer.writers[n], peer.received[n]
    finally:
        writer.transport.abort()


async def test_every_byte_passes_both_ways_and_is_counted() -> None:
    there, back = random.Random(1).randbytes(MANY), random.Random(2).randbytes(MANY // 2)
    async with proxied() as (peer, proxy), dialled(proxy, peer) as (reader, writer, answers, got):
        writer.write(there)
        answers.write(back)
        writer.write_eof()
        assert await reader.readexactly(len(back)) == back
        await until(lambda: peer.ends == ["end"])
        assert got == there
        assert await reader.read() == b""
        await until(lambda: proxy.connections == 0)
        assert (proxy.to_target.passed_bytes, proxy.to_client.passed_bytes) == (len(there), len(back))
        assert (proxy.accepted_total, proxy.to_target.lost_bytes) == (1, 0)


async def test_cut_resets_both_sides_and_takes_new_connections() -> None:
    async with proxied() as (peer, proxy):
        async with dialled(proxy, peer) as (reader, _, _, _):
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: peer.ends == ["reset"])
        async with dialled(proxy, peer) as (_, writer, _, got):
            writer.write(b"again")
            await until(lambda: got == b"again")


async def test_refused_dials_leave_present_connections_alone() -> None:
    async with proxied() as (peer, proxy), dialled(proxy, peer) as (_, writer, _, got):
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"on")
        await until(lambda: got == b"on")
        proxy.accept()
        async with dialled(proxy, peer):
            assert proxy.connections == 2


async def test_a_target_that_is_away_resets_the_client() -> None:
    async with Proxy("127.0.0.1", free_port()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await until(lambda: proxy.connections == 0)


async def test_half_open_swallows_what_comes_and_tells_nobody_of_the_end() -> None:
    async with proxied() as (peer, proxy):
        async with dialled(proxy, peer) as (reader, writer, answers, got):
            proxy.half_open()
            writer.write(bytes(MANY))
            await writer.drain()
            await until(lambda: proxy.to_target.lost_bytes == MANY)
            answers.write(b"unheard")
            await until(lambda: proxy.to_client.lost_bytes == 7)
            proxy.heal()
            writer.write(b"dead all the same")
            await until(lambda: proxy.to_target.lost_bytes == MANY + 17)
            assert (bytes(got), reader.at_eof(), proxy.connections) == (b"", False, 1)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        async with dialled(proxy, peer) as (_, writer, _, got):
            writer.write(b"new")
            await until(lambda: got == b"new")
            await asyncio.sleep(0.05)  # nothing may happen: there is nothing to wait for
            assert peer.ends == []  # of the dead one, whose client has reset it


async def test_half_open_may_let_the_window_fill() -> None:
    async with proxied() as (peer, proxy), dialled(proxy, peer) as (_, writer, _, got):
        proxy.half_open(swallow=False)
        for _ in range(100):
            writer.write(bytes(MANY // 10))
        await asyncio.sleep(0.05)  # nothing may happen: there is nothing to wait for
        assert writer.transport.get_write_buffer_size() > MANY  # behind what kernels hold
        left = writer.transport.get_write_buffer_size()
        async with dialled(proxy, peer) as (_, other, _, theirs):  # a second one makes its way into nothing too
            other.write(b"x")
            await asyncio.sleep(0.05)
            assert (bytes(got), bytes(theirs)) == (b"", b"")
        assert writer.transport.get_write_buffer_size() == left
        proxy.cut()
        await until(lambda: peer.ends == ["reset", "reset"])


async def test_frozen_bytes_wait_and_then_go_on() -> None:
    there = random.Random(3).randbytes(MANY)
    async with proxied() as (peer, proxy), dialled(proxy, peer) as (reader, writer, answers, got):
        proxy.freeze()
        writer.write(there)
        answers.write(b"later")
        await asyncio.sleep(0.05)
        assert (bytes(got), proxy.to_client.passed_bytes) == (b"", 0)
        proxy.to_client.thaw()
        assert await reader.readexactly(5) == b"later"
        assert bytes(got) == b""
        proxy.thaw()
        await until(lambda: got == there)


async def test_a_thin_link_has_its_rate_and_latency_each_way() -> None:
    loop = asyncio.get_running_loop()
    async with proxied() as (peer, proxy), dialled(proxy, peer) as (reader, writer, answers, got):
        proxy.to_target.slow(bytes_per_s=50_000)
        proxy.to_client.slow(delay_s=0.2)
        began_s = loop.time()
        answers.write(b"late")
        assert await reader.readexactly(4) == b"late"
        assert loop.time() - began_s >= 0.2
        began_s = loop.time()
        writer.write(bytes(20_000))
        await until(lambda: len(got) == 20_000)
        assert loop.time() - began_s >= 0.35  # 0.4 s, but for the chunk before the first wait
        proxy.heal()
        writer.write(bytes(MANY))
        await until(lambda: len(got) == 20_000 + MANY, within_s=10)


async def received_until_reset(client: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.get_running_loop().sock_recv(client, 100):
            got += data
        pytest.fail("an end instead of a reset")
    return got


async def test_a_packet_is_cut_behind_the_byte_that_was_named() -> None:
    loop = asyncio.get_running_loop()
    async with proxied() as (peer, proxy):
        proxy.to_client.truncate_after(1000)
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", proxy.port))
            await until(lambda: peer.writers)
            peer.writers[0].write(bytes(400))
            n = len(await loop.sock_recv(client, 400))
            peer.writers[0].write(bytes(5000))
            n += len(await received_until_reset(client))
        assert (n, proxy.to_client.passed_bytes) == (1000, 1000)
        await until(lambda: peer.ends == ["reset"])
        async with dialled(proxy, peer) as (reader, _, answers, _):
            answers.write(bytes(2000))
            assert len(await reader.readexactly(2000)) == 2000


async def test_a_flapping_link_ends_up() -> None:
    async with proxied() as (peer, proxy):
        async with asyncio.TaskGroup() as tasks:
            flapping = tasks.create_task(proxy.flap(0.02, 0.02, 5))
            while not flapping.done():
                with contextlib.suppress(ConnectionError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                    with contextlib.closing(writer):
                        await asyncio.wait({asyncio.ensure_future(reader.read())}, timeout=1)
                await asyncio.sleep(0.005)
        async with dialled(proxy, peer) as (_, writer, _, got):
            writer.write(b"up")
            await until(lambda: got == b"up")
        assert proxy.accepted_total >= 4


@pytest.mark.parametrize("state", ["idle", "full", "frozen", "swallowed", "held", "thin", "late", "refused"])
async def test_nothing_is_left_when_it_closes(state: str) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    before, tasks = descriptors(), asyncio.all_tasks()
    async with Proxy("127.0.0.1", port) as proxy:
        clients = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
        await until(lambda: len(peer.received) == 3)
        if state == "frozen":
            proxy.freeze()
        elif state in ("swallowed", "held"):
            proxy.half_open(swallow=state == "swallowed")
        elif state == "thin":
            proxy.slow(bytes_per_s=100)
        elif state == "late":
            proxy.slow(delay_s=60)
        elif state == "refused":
            proxy.refuse()
        for _, writer in clients:
            writer.write(b"" if state == "idle" else bytes(MANY))
        await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    for _, writer in clients:
        writer.transport.abort()
    await until(lambda: len(peer.ends) == 3)
    await until(lambda: descriptors() == before)
    await until(lambda: asyncio.all_tasks() == tasks)
    server.close()
