"""Meters that cost next to nothing: real Modbus TCP servers of drivers.sim with answers made ahead.

The physics of a simulated fleet costs more than the gateway that reads it; here the gateway is to be the limit.
`python -m tests.benchmarks.meters N` prints the ports as JSON and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import struct
import sys
from typing import Final

from drivers.link import LinkSpec
from drivers.sim.server import Reply, Respond, SocketEndpoint

VARIANTS: Final = 64
REGISTERS: Final = 125


def answers() -> Respond:
    """Return a meter whose registers wander a little from answer to answer."""
    rng = random.Random(43)
    base = [rng.randrange(100, 60_000) for _ in range(REGISTERS)]
    made = [struct.pack(f">{REGISTERS}H", *(v + rng.randrange(-20, 21) for v in base)) for _ in range(VARIANTS)]
    turns = itertools.cycle(made)

    def respond(unit: int, request: bytes) -> Reply:
        n_bytes = 2 * int.from_bytes(request[3:5], "big")
        return Reply(bytes((request[0], n_bytes)) + next(turns)[:n_bytes])

    return respond


async def serve(n: int) -> None:
    """Serve n meters until standard input ends."""
    endpoints = [SocketEndpoint(LinkSpec(f"l{i}", "tcp", "127.0.0.1", 0), answers()) for i in range(n)]
    for endpoint in endpoints:
        await endpoint.open()
    print(json.dumps([endpoint.port for endpoint in endpoints]), flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    await over.wait()
    for endpoint in endpoints:
        await endpoint.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
