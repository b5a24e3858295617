"""Captured traffic through the real link again: its peer says the same bytes at the same times after each request.

Meant for a loop in virtual time; on any other it takes as long as it took. What the link had learnt before the capture
began is taken from the traffic: transaction ids from the first requests, answers that may still come from `doubt`, the
time-out of a request from when it was given up, and whether it might dial from its having dialled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

from drivers.blocks import Block
from drivers.errors import DeviceException, DriverError, LinkDown
from drivers.link import LinkSpec, Traffic, UnitCounters
from drivers.modbus.framing import SEED, Doubt, MbapFraming, Outcome, RtuFraming
from drivers.modbus.link import ModbusLink
from drivers.modbus.stream import Stream

NEARLY: Final = 0.999
SHOWN_BYTES: Final = 16  # of a frame in a message: its header and first registers


@dataclass(frozen=True, slots=True)
class Replayed:
    """One read: what came of it then, and now.

    asked_s  when it was asked for, on the capture's clock
    sent     how the bytes that the link sent differ from those it sent then, "" if they do not
    """

    asked_s: float
    unit: int
    block: Block
    then: Outcome
    now: Outcome
    sent: str

    @property
    def difference(self) -> str:
        """Return what differs, in one line; "" when the read ended as it did then."""
        if is_same(self.then, self.now):
            return self.sent
        return f"then {told(self.then)}, now {told(self.now)}" + (f" ({self.sent})" if self.sent else "")


def is_same(one: Outcome, other: Outcome) -> bool:
    """Return whether two reads ended alike: the same payload, or an error of the same kind and exception code."""
    if isinstance(one, DeviceException) and isinstance(other, DeviceException):
        return one.code == other.code
    return type(one) is type(other) and (not isinstance(one, bytes) or one == other)


def told(outcome: Outcome) -> str:
    """Return how a read ended, in a few words."""
    if isinstance(outcome, DriverError):
        return f"{type(outcome).__name__}: {outcome}"
    return f"answer of {len(outcome)} bytes {_shown(outcome)}"


async def replay(spec: LinkSpec, traffic: Sequence[Traffic]) -> list[Replayed]:
    """Return every whole read of captured traffic, replayed; what began before the first `ask` is left out."""
    reads = _reads(traffic)
    if not reads:
        return []
    player = _Player(spec, reads[0].ask[0])
    await player.open(reads)
    return [await player.play(read) for read in reads]


@dataclass(slots=True)
class _Read:
    """The pieces of one read, and of the time until the next one."""

    ask: Traffic
    during: list[Traffic]
    end: Traffic
    after: list[Traffic]

    def all_of(self, kind: str) -> list[Traffic]:
        """Return the pieces of one kind that came during the read."""
        return [piece for piece in self.during if piece[1] == kind]

    @property
    def was_connected(self) -> bool:
        """Whether the link had its connection when the read was asked for."""
        is_refused = isinstance(self.end[2], LinkDown) and not self.all_of("tx")
        return not self.all_of("up") and not is_refused


def _reads(traffic: Iterable[Traffic]) -> list[_Read]:
    """Return the whole reads, in order."""
    out: list[_Read] = []
    ask: Traffic | None = None
    during: list[Traffic] = []
    for piece in traffic:
        kind = piece[1]
        if kind == "ask":
            ask, during = piece, []
        elif ask is None:
            if out:
                out[-1].after.append(piece)
        elif kind == "end":
            # what closed the connection because of how the read ended, follows from it
            lost = [] if isinstance(piece[2], LinkDown) else [other for other in during if other[1] == "down"]
            out.append(_Read(ask, [other for other in during if other not in lost], piece, lost))
            ask = None
        else:
            during.append(piece)
    return out


class _Peer:
    """The other end of the link: says what the player tells it to, keeps what it is sent."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.sent: list[tuple[float, bytes]] = []
        self.refusal: str | None = None
        self.is_over = False  # the read has ended
        self.accepts = asyncio.Event()
        self.moved = asyncio.Event()  # something was sent, or the read has ended
        self._loop = asyncio.get_running_loop()

    async def dial(self, make: Callable[[], Stream]) -> Stream:
        """Accept a connection where the capture has one; raises OSError where it has none."""
        if self.refusal is not None:
            raise OSError(self.refusal)
        self.stream = make()
        self.stream.connection_made(self)
        return self.stream

    async def ready(self) -> None:
        """Wait until the capture has a connection; not where it has none."""
        if self.refusal is None:
            await self.accepts.wait()

    def write(self, data: bytes) -> None:
        """Keep a request."""
        self.sent.append((self._loop.time(), data))
        self.moved.set()

    def abort(self) -> None:
        """Take note that the link has closed the connection."""
        self.stream = None

    def say(self, data: bytes) -> None:
        """Send bytes, if anybody is there to hear them."""
        if self.stream is not None:
            self.stream.data_received(data)

    def hang_up(self, why: str) -> None:
        """Lose the connection, if the link has not closed it itself."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.connection_lost(OSError(why))


class _Link(ModbusLink):
    """A ModbusLink that takes from a capture what it cannot know: ids, time-outs, when it may dial.

    waits_s, quiets_s  of the requests to come: the time-outs, and how long the line had been silent behind the answers
    """

    def __init__(self, spec: LinkSpec, peer: _Peer, crc: Callable[[bytes], bytes] | None) -> None:
        self.seed = b""
        self.waits_s: list[float] = []
        self.quiets_s: list[float] = []
        self._ready = peer.ready
        super().__init__(spec, peer.dial, crc)

    async def open(self) -> None:
        """Be connected, as the captured link was."""
        await self._connect()

    def recall(self, unit: int, blocks: Iterable[Block], doubt: Doubt | None) -> None:
        """Take what is known of a unit from before: answered reads, and the answers that may still come."""
        self._answered[unit] = {(block.function, block.n_bytes): block for block in blocks}
        if doubt is not None and isinstance(self._framing, RtuFraming):
            self._framing.doubts[unit] = doubt

    def _new_framing(self) -> MbapFraming | RtuFraming:
        return MbapFraming(self.counters, self.seed) if self._crc is None else super()._new_framing()

    def _timeout_s(self, seen: UnitCounters) -> float:
        return self.waits_s.pop(0) if self.waits_s else self._spec.timeout_s

    def _quiet_after(self, unit: int, seen: UnitCounters) -> float:
        return max(self._silence_s, self.quiets_s.pop(0) if self.quiets_s else 0.0)

    async def _connect(self) -> None:
        await self._ready()  # what it waited for before it dialled is no part of the dial's time-out
        self._next_dial_s = 0.0
        await super()._connect()

    def _tell(self, why: str) -> None:
        self._told = self.state  # no connection of today came or went


class _Player:
    """Walks through captured traffic in order, with the link's reads beside it."""

    def __init__(self, spec: LinkSpec, first_s: float) -> None:
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._zero_s = self._loop.time() - first_s
        self._late_s = 0.0  # how much later than in the capture the last request went out: answers follow requests
        self._peer = _Peer()
        self._link = _Link(spec, self._peer, _crc_of(spec))
        self._known: set[int] = set()  # units whose history the link has by now

    async def open(self, reads: Sequence[_Read]) -> None:
        """Connect ahead of the first read if the captured link was connected."""
        if reads[0].was_connected:
            self._link.seed = _seed(reads)
            self._peer.accepts.set()
            await self._link.open()

    async def play(self, read: _Read) -> Replayed:
        """Let the link read, with the peer saying what it said then."""
        asked_s, _, (unit, block) = read.ask
        await self._until(self._zero_s + asked_s)
        self._late_s = self._loop.time() - self._zero_s - asked_s
        self._prepare(read, unit)
        notes: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(unit, block))
            for piece in read.during:
                await self._play(piece, notes)
            now = await reading
        notes += [f"sent {_shown(data)}, which it did not then" for _, data in self._peer.sent]
        for piece in read.after:
            await self._play(piece, notes)
        return Replayed(asked_s, unit, block, cast("Outcome", read.end[2]), now, next(iter(notes), ""))

    def _prepare(self, read: _Read, unit: int) -> None:
        """Hand the link what it needs to behave as it did then."""
        peer, link = self._peer, self._link
        peer.sent.clear()
        peer.is_over = False
        ups, end = read.all_of("up"), read.end[2]
        why = str(end).removeprefix(f"{self._spec.name}: ") if isinstance(end, LinkDown) else "it did not dial then"
        peer.refusal = None if ups else why
        peer.accepts.clear()
        if ups:
            link.seed = ups[0][2]
        first_tx_s = min((piece[0] for piece in read.all_of("tx")), default=math.inf)
        for when, _, (shapes, age_s, blocks) in read.all_of("doubt"):
            is_from_before = when <= first_tx_s and unit not in self._known
            since_s = self._zero_s + when - age_s
            link.recall(unit, blocks, Doubt(list(shapes), since_s) if is_from_before else None)
        self._known.add(unit)
        link.waits_s = list(self._waits_s(read))
        link.quiets_s = list(self._quiets_s(read))

    def _waits_s(self, read: _Read) -> Iterable[float]:
        """Yield the time-out of each request: when it was given up, else longer than it took."""
        times = [piece[0] for piece in read.all_of("tx")]
        for sent_s, next_s in pairwise(times):
            yield next_s - sent_s + self._spec.timeout_s
        if times:
            is_given_up = isinstance(read.end[2], DriverError)
            yield read.end[0] - times[-1] + (0.0 if is_given_up else self._spec.timeout_s)

    def _quiets_s(self, read: _Read) -> Iterable[float]:
        """Yield the silence behind the answer to each request: nearly all of it, for a timer is never early."""
        heard_s: float | None = None
        for when, kind, _ in [*read.during, read.end]:
            if kind in ("tx", "end") and heard_s is not None:
                yield NEARLY * (when - heard_s)
                heard_s = None
            elif kind == "rx":
                heard_s = when

    async def _read(self, unit: int, block: Block) -> Outcome:
        try:
            return await self._link.read(unit, block)
        except DriverError as error:
            return error
        finally:
            self._peer.is_over = True
            self._peer.moved.set()

    async def _play(self, piece: Traffic, notes: list[str]) -> None:
        when, kind, what = piece
        await self._until(self._zero_s + when + self._late_s)
        match kind:
            case "rx":
                self._peer.say(what)
            case "down":
                self._peer.hang_up(what)
            case "up":
                self._peer.accepts.set()
            case "tx":
                await self._wait_for(when, what, notes)

    async def _wait_for(self, when: float, request: bytes, notes: list[str]) -> None:
        """Wait until the link has sent its next request, which should be this one, or has ended without."""
        peer = self._peer
        while not peer.sent and not peer.is_over:
            peer.moved.clear()
            await peer.moved.wait()
        if not peer.sent:
            notes.append(f"did not send {_shown(request)}")
            return
        sent_s, data = peer.sent.pop(0)
        self._late_s = sent_s - self._zero_s - when
        if data != request:
            notes.append(f"sent {_shown(data)} instead of {_shown(request)}")

    async def _until(self, when_s: float) -> None:
        await asyncio.sleep(max(0.0, when_s - self._loop.time()))


def _crc_of(spec: LinkSpec) -> Callable[[bytes], bytes] | None:
    if not spec.transport.startswith("rtu"):
        return None
    from drivers.modbus.serial import crc

    return crc


def _seed(reads: Iterable[_Read]) -> bytes:
    """Return a seed from which the transaction ids of the first requests follow; any seed where there are none."""
    ids = []
    for read in reads:
        if read.all_of("up"):
            break
        ids += [int.from_bytes(piece[2][:2], "big") for piece in read.all_of("tx")]
    if not ids:
        return b""
    step = (ids[1] - ids[0]) & 0xFFFF if len(ids) > 1 else 1
    if not step & 1:
        step = ids[1]  # they went past 0, which is none: there the step itself comes next
    return SEED.pack((ids[0] - step) & 0xFFFF, step)


def _shown(data: bytes) -> str:
    return data[:SHOWN_BYTES].hex(" ") + (" ..." if len(data) > SHOWN_BYTES else "")
