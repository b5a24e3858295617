"""Meters for the tests of the simulation, and a client that speaks raw bytes."""

import asyncio
import contextlib
import itertools
import socket
import struct

from drivers import profile as profiles
from drivers.link import LinkSpec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import SimClock

START_NS = 1_760_000_000_000_000_000
_names = itertools.count(1)


def tcp(name="", transport="tcp", **more):
    return LinkSpec(name or f"link{next(_names)}", transport, "127.0.0.1", 0, **more)


def meter(name="m1", link=None, unit=1, points=None, profile="", **more):
    if points is None:
        found = profiles.find(profile or "eastron_sdm120")
        points, profile = found.points, found.name
        more = {"enron": found.enron, "max_registers": found.max_registers, **more}
    return MeterSpec(name, link or tcp(), unit, profile, tuple(points), **more)


def gauge(name="x", address=0, type_name="float32", **more):
    return Point(name, more.pop("function", "holding"), address, type_name, **more)


class HandClock:
    """A clock that a test moves by hand."""

    def __init__(self):
        self.s = 0.0

    def clock(self):
        return SimClock(lambda: START_NS + round(self.s * 1e9), lambda: 1000.0 + self.s)


class Client:
    """One TCP connection that sends and receives what a test says."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self._transaction = itertools.count(1)

    def request(self, unit, pdu):
        return struct.pack(">HHHB", next(self._transaction), 0, len(pdu) + 1, unit) + pdu

    async def answer(self, within_s=2.0):
        async with asyncio.timeout(within_s):
            head = await self.reader.readexactly(7)
            transaction, _, length, unit = struct.unpack(">HHHB", head)
            return transaction, unit, await self.reader.readexactly(length - 1)

    async def ask(self, unit, pdu, within_s=2.0):
        self.writer.write(self.request(unit, pdu))
        return (await self.answer(within_s))[2]

    async def read(self, unit, function, start, count):
        """Return the payload of a good answer."""
        pdu = await self.ask(unit, struct.pack(">BHH", function, start, count))
        assert pdu[0] == function, pdu.hex()
        return pdu[2:]

    async def number(self, point, unit=1):
        from drivers.encode import served_value

        raw = await self.read(unit, point.read_code, point.address, point.n_registers)
        return served_value(point, raw)


@contextlib.asynccontextmanager
async def connect(port, ssl=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
