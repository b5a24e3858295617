"""Simulated meters on lines that misbehave: what captures are made of.

`python -m tests.gateway.capture.scenes` runs every scene and writes tests/data/captures/: the capture, and beside it
what replay makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from drivers.blocks import Block
from drivers.errors import DriverError, LinkDown
from drivers.link import LinkSpec, SerialLine
from drivers.modbus import open_link
from drivers.points import Point
from drivers.sim.device import Meter, MeterSpec
from drivers.sim.frames import crc16, mbap, rtu
from gateway.capture.file import Capture, capture_of, encode
from tests.gateway import build

DATA = Path(__file__).parents[2] / "data" / "captures"
TIMEOUT_S = 0.25
POINTS = (
    Point("flow", "holding", 0, "float32", unit="kg/s"),
    Point("total", "holding", 2, "uint32", scale=0.1, unit="kg", kind="counter"),
    Point("level", "holding", 4, "int16", scale=0.1, unit="m", sentinels=(-32768,), range=(0.0, 50.0)),
    Point("running", "coil", 0, "bool", kind="state"),
)
HOLDING, COILS, LEVEL = Block(3, 0, 5), Block(1, 0, 1, 0), Block(3, 4, 1)
NO_SUCH = Block(3, 900, 2)

# request number, the frame of the right answer -> what comes instead, and after how long
Misbehave = Callable[[int, bytes], Iterator[tuple[float, bytes]]]


@dataclass(frozen=True)
class Scene:
    """Reads of units 1 and 2 over a line that misbehaves; `nan` makes the flow of unit 1 not available."""

    transport: str
    misbehave: Misbehave
    reads: tuple[tuple[int, Block], ...]
    nan: bool = False


def well(n: int, frame: bytes) -> Iterator[tuple[float, bytes]]:
    yield 0.001, frame


def at(number: int, instead: Callable[[bytes], list[tuple[float, bytes]]], *more: int) -> Misbehave:
    """Return a line on which only the answers to one request, or some more, are something else."""

    def misbehave(n: int, frame: bytes) -> Iterator[tuple[float, bytes]]:
        yield from instead(frame) if n in (number, *more) else well(n, frame)

    return misbehave


def damaged(frame: bytes) -> bytes:
    return frame[:5] + bytes((frame[5] ^ 0x10,)) + frame[6:]


def foreign(frame: bytes) -> bytes:
    """The same answer of another unit."""
    return rtu(frame[0] ^ 3, frame[1:-2])


def other_id(frame: bytes) -> bytes:
    return bytes((frame[0] ^ 0x55, frame[1])) + frame[2:9] + bytes(len(frame) - 9)


def pieces(frame: bytes, *cuts: int) -> list[tuple[float, bytes]]:
    edges = [0, *cuts, len(frame)]
    return [(0.01, frame[a:b]) for a, b in itertools.pairwise(edges)]


TURNS = ((1, HOLDING), (2, HOLDING), (1, COILS), (2, LEVEL))
SCENES = {
    "rtu_late_answer": Scene("rtu", at(6, lambda f: [(1.3 * TIMEOUT_S, f)]), TURNS * 3),
    "rtu_late_answer_fenced": Scene("rtu", at(8, lambda f: [(1.1 * TIMEOUT_S, f)]), TURNS * 3),
    "rtu_no_answer": Scene("rtu", at(5, lambda f: []), TURNS * 2),
    "rtu_wrong_checksum": Scene("rtu", at(3, lambda f: [(0.001, damaged(f))]), TURNS * 2),
    # the first answer, and that to the second try; the fence between them is answered
    "rtu_wrong_checksum_twice": Scene("rtu", at(3, lambda f: [(0.001, damaged(f))], 5), TURNS * 2),
    "rtu_foreign_frame": Scene("rtu", at(6, lambda f: [(0.001, foreign(f)), (0.02, f)]), TURNS * 2),
    "rtu_foreign_frame_instead": Scene("rtu+tcp", at(5, lambda f: [(0.001, foreign(f))]), TURNS * 2),
    "rtu_answer_twice": Scene("rtu+tcp", at(5, lambda f: [(0.001, f + f)]), TURNS * 2),
    "rtu_split_frame": Scene("rtu+tcp", at(2, lambda f: pieces(f, 1, 4, 9)), TURNS),
    "tcp_other_id": Scene("tcp", at(2, lambda f: [(0.001, other_id(f)), (0.01, f)]), TURNS),
    "tcp_other_id_instead": Scene("tcp", at(2, lambda f: [(0.001, other_id(f))]), TURNS),
    "tcp_late_answer": Scene("tcp", at(2, lambda f: [(1.2 * TIMEOUT_S, f)]), TURNS * 2),
    "tcp_split_frame": Scene("tcp", at(2, lambda f: pieces(f, 1, 7, 12)), TURNS),
    "tcp_silent": Scene("tcp", lambda n, f: iter(()) if 3 <= n <= 6 else well(n, f), TURNS * 3),
    "tcp_garbage": Scene("tcp", at(3, lambda f: [(0.001, b"\x15\x03 HTTP/1.1 400 Bad Request\r\n")]), TURNS * 2),
    "tcp_exception": Scene("tcp", well, ((1, HOLDING), (1, NO_SUCH), (2, HOLDING))),
    "tcp_nan": Scene("tcp", well, TURNS, nan=True),
}


async def run(scene: Scene) -> Capture:
    """Return the capture of a scene, acted out on a real line."""
    devices = [build.device(f"m{unit}", [build.tag(p) for p in POINTS], link="line", unit=unit) for unit in (1, 2)]
    async with served(scene) as link:
        one = open_link(link)
        for unit, block in scene.reads:
            try:
                await one.read(unit, block)
            except LinkDown:
                await asyncio.sleep(1.1)  # it dials once a second
            except DriverError:
                continue
        await asyncio.sleep(TIMEOUT_S)  # for what comes late
        await one.close()
        await asyncio.sleep(0.01)  # for the server to see it
    spec = build.gateway(devices, links=[link])
    return capture_of(spec, link, "test", 1_760_000_000_000_000_000, ["a test"], list(one.ring))


@contextlib.asynccontextmanager
async def served(scene: Scene) -> AsyncIterator[LinkSpec]:
    """Serve both meters on a line of the scene's kind."""
    link = LinkSpec("line", scene.transport, timeout_s=TIMEOUT_S, serial=SerialLine(19200))  # type: ignore[arg-type]
    meters = {unit: Meter(MeterSpec(f"m{unit}", link, unit, "", POINTS)) for unit in (1, 2)}
    values = {"flow": 12.5, "total": 1234.5, "level": 43.21, "running": 1.0}
    asked = 0

    async def answer(request: bytes, write: Callable[[bytes], object]) -> None:
        nonlocal asked
        asked += 1
        is_rtu = link.transport != "tcp"
        unit, pdu = (request[0], request[1:-2]) if is_rtu else (request[6], request[7:])
        found = meters[unit].answer(
            pdu, lambda point: None if scene.nan and unit == 1 and point.name == "flow" else values[point.name] / unit
        )
        frame = rtu(unit, found.pdu) if is_rtu else mbap(int.from_bytes(request[:2], "big"), unit, found.pdu)
        for delay_s, data in scene.misbehave(asked, frame):
            await asyncio.sleep(delay_s)
            write(data)

    async with asyncio.TaskGroup() as tasks:
        if link.transport == "rtu":
            async with _pty(answer, tasks) as path:
                yield replace(link, path=path)
        else:
            async with _socket(answer, 8 if link.transport == "rtu+tcp" else 12, tasks) as port:
                yield replace(link, host="127.0.0.1", port=port)


@contextlib.asynccontextmanager
async def _socket(answer, request_bytes, tasks):
    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(request_bytes)
                tasks.create_task(answer(request, writer.write))
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def _pty(answer, tasks):
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    held = bytearray()

    def received():
        held.extend(os.read(ours, 4096))
        while len(held) >= 8:
            assert crc16(bytes(held[:8])) == 0
            tasks.create_task(answer(bytes(held[:8]), lambda data: os.write(ours, data)))
            del held[:8]

    asyncio.get_running_loop().add_reader(ours, received)
    try:
        yield os.ttyname(theirs)
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)


def main() -> None:
    from gateway import cli

    DATA.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or SCENES:
        path = DATA / f"{name}.jsonl"
        path.write_bytes(encode(asyncio.run(run(SCENES[name]))))
        print(name, cli.main(["replay", str(path), "--out", str(path.with_suffix(".csv"))]))


if __name__ == "__main__":
    main()
