"""Frames to MQTT in two lanes: live at once, the backlog from the spool beside it; the cursor moves on PUBACK.

live      as they are read: per device one message in flight, then a short rest
backlog   what is committed and not acknowledged, oldest first. It gets as many bytes of the link as come back
          acknowledged within a moment, so that a live frame never waits long behind it, however thin the link is
parked    what the broker refuses: its device rests, longer each time, and its frames wait in the spool. The backlog
          passes them by, without a list of them, and begins again once the broker takes a frame of the device
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.model.ranges import RangeSet
from gateway.spool.spool import START, Spool, Unsent, Why
from gateway.wire.client import REFUSED, Client, MqttError
from gateway.wire.frame_lines import LineWriter, ScanText
from gateway.wire.lines import Header, as_ranges
from gateway.wire.topics import GatewayAddress

log = logging.getLogger(__name__)

REST_S: Final = 0.005  # after a PUBACK: frames ready meanwhile travel together (ACQUISITION section 8)
REST_PER_FRAME_S: Final = 0.00125  # longer behind many frames: a message costs as much as a poll, however small it is
REST_MAX_S: Final = 0.02
LIVE_FRAMES: Final = 64  # of one device waiting in memory; beyond it the spool brings them
MESSAGE_FRAMES: Final = 128  # in one message of the backlog
MESSAGE_BYTES: Final = 128 * 1024  # well below every broker's default limit
HEADER_BYTES: Final = 96  # of a message's first line without the frames' numbers
SEQ_BYTES: Final = 12  # of one number in it
BOOK_S: Final = 0.05
IDLE_S: Final = 0.5  # how often an empty backlog is looked at again
SLICE_FRAMES: Final = (
    16  # of the backlog made into lines at a time: a quarter of a millisecond in which nothing is read
)
WINDOW_BYTES: Final = 4 * 1024  # of the backlog on their way, to begin with: the first one tells how quick the link is
WINDOW_LEAST_BYTES: Final = 2 * 1024
WINDOW_MOST_BYTES: Final = 1024 * 1024
WINDOW_MESSAGES: Final = 8  # of the backlog on their way: the rest of the connection's window is for the live lane
PROMPT_S: Final = 0.1  # waited no longer than this on its way: the link takes more
SLOW_S: Final = 0.3  # a live frame waits as long behind the backlog: it takes less
GROWTH: Final = 1.5
SHRINKING: Final = 0.6
FORGETTING: Final = 1.002  # with every message the quickest way known counts for less: links change
PAUSE_FIRST_S: Final = 1.0  # of a device whose data the broker refuses, doubling
PAUSE_CAP_S: Final = 300.0
MISSED_SOON: Final = 2  # live frames within one pause: the next comes within as long
NO_SUBSCRIBER: Final = 0x10  # MQTT 5, 3.4.2.1: accepted, and nobody has subscribed


@dataclass(slots=True)
class DeliveryCounters:
    """Messages since the process started; unheard: nobody subscribed.

    parked  frames that the backlog has passed by since it began, because the broker refuses their device now
    """

    published: int = 0
    acknowledged: int = 0
    refused: int = 0
    parked: int = 0
    unheard: int = 0


@dataclass(slots=True)
class _Lane:
    """The live lane of one device: frames that wait, and whether a message is on its way or the lane rests.

    catalog     of its frames: a device that is configured no longer keeps the one that knew it
    opens_at_s  until then nothing of it is sent, and pause_s is how long that will be the next time
    passed_by   how many of the parked frames are its own;  is_behind  whether there are any that the backlog is beyond
    missed      live frames that came meanwhile: of some that come soon the next will show whether the broker takes them
    """

    topic: str
    catalog: str
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)
    busy: bool = False
    rests_until_s: float = 0.0
    opens_at_s: float = 0.0
    pause_s: float = PAUSE_FIRST_S
    passed_by: int = 0
    is_behind: bool = False
    missed: int = 0


@dataclass(slots=True)
class Resend:
    """Frames that somebody asked for again; `done` is called once every one was acknowledged or refused.

    sent  those that the broker has now;  open  those that it has not yet;  gone  why the others cannot come
    """

    boot: int
    open: RangeSet
    gone: dict[Why, RangeSet]
    done: Callable[[Resend], None]
    sent: RangeSet = field(default_factory=RangeSet)


class _Window:
    """How much of the backlog may be on its way: what the link brings within a moment.

    What a message waited is what it took beyond the quickest one; the window moves once for what is on its way.
    """

    def __init__(self) -> None:
        self.bytes = float(WINDOW_BYTES)
        self._quickest_s = float("inf")
        self._moved_s = 0.0
        self._used = 0
        self._messages = 0
        self._free = asyncio.Event()

    @property
    def message_bytes(self) -> int:
        """How large one message may be."""
        return min(MESSAGE_BYTES, max(WINDOW_LEAST_BYTES, int(self.bytes) // 2))

    async def take(self, size: int) -> None:
        """Wait until a message of this size may go; one may always."""
        while self._messages and (self._used + size > self.bytes or self._messages >= WINDOW_MESSAGES):
            self._free.clear()
            await self._free.wait()
        self._used += size
        self._messages += 1

    def give(self, size: int, sent_s: float, now_s: float) -> None:
        """Take note that a message was acknowledged."""
        self._used -= size
        self._messages -= 1
        self._free.set()
        took_s = now_s - sent_s
        self._quickest_s = min(FORGETTING * self._quickest_s, took_s)
        waited_s = took_s - self._quickest_s
        if sent_s < self._moved_s or PROMPT_S <= waited_s <= SLOW_S:
            return
        self._moved_s = now_s
        if waited_s < PROMPT_S:
            self.bytes = min(GROWTH * self.bytes, WINDOW_MOST_BYTES)
        else:
            self.bytes = max(SHRINKING * self.bytes, WINDOW_LEAST_BYTES)


class Publisher:
    """Takes frames from the pipeline and brings them to the broker."""

    def __init__(self, address: GatewayAddress, devices: Sequence[str], spool: Spool, catalog: str) -> None:
        self.counters = DeliveryCounters()
        self.refusals: dict[str, int] = {}  # device -> the code with which its data were refused last
        self._address = address
        self._spool = spool
        self._lanes = [_Lane(address.device(name, "data"), catalog) for name in devices]
        self._by_device = dict(zip(devices, self._lanes, strict=True))
        self._offered: list[_Lane] = []
        self._client: Client | None = None
        self.connected = asyncio.Event()  # a broker is there and takes frames
        self._acked: list[int] = []  # by the broker, but not yet booked
        self._busy: dict[int, RangeSet] = {}  # boot -> frames on their way in either lane
        self._position = START
        self._is_rewound = False  # the backlog has to begin again: it has passed by a frame that is now wanted
        self._resends: list[Resend] = []
        self._writers: dict[ScanText, LineWriter] = {}

    def turn_to(self, devices: Sequence[str], gone: Collection[int], catalog: str) -> None:
        """Take frames of more devices, by number; what still waits of those that are gone goes out as before."""
        self._is_rewound = True  # no live frame will show any more whether what is gone is taken again
        for number, lane in enumerate(self._lanes):
            lane.missed = 0
            if number not in gone:
                lane.catalog = catalog
        for name in devices[len(self._lanes) :]:
            lane = self._by_device.setdefault(name, _Lane(self._address.device(name, "data"), catalog))
            lane.catalog = catalog
            self._lanes.append(lane)

    def offer(self, device: int, seq: int, line: bytes) -> None:
        """Take a frame of a device; while nobody is there, the spool alone keeps it."""
        if self._client is None:
            return
        lane = self._lanes[device]
        if lane.opens_at_s:
            lane.missed += 1
            return
        lane.waiting.append((seq, line))
        self._claim(seq)
        if len(lane.waiting) > LIVE_FRAMES:
            late, _ = lane.waiting.popleft()
            self._busy[self._spool.boot].discard(late, late)
            self._is_rewound = True
        if not lane.busy:
            lane.busy = True
            self._offered.append(lane)

    def flush(self) -> None:
        """Send what was offered in this turn, or when its lane has rested."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for lane in self._offered:
            if lane.rests_until_s > now:
                loop.call_at(lane.rests_until_s, self._send_live, lane)
            else:
                self._send_live(lane)
        self._offered.clear()

    def resend(self, job: Resend) -> None:
        """Send frames again that the spool has reopened; what is not sent when the connection ends is not answered."""
        self._resends.append(job)
        self._is_rewound = True
        self._settle(job.boot, RangeSet(), RangeSet())

    def _claim(self, seq: int) -> None:
        self._busy.setdefault(self._spool.boot, RangeSet()).add(seq)

    def _send_live(self, lane: _Lane) -> None:
        """Send everything that waits in a lane as one message; with nothing waiting the lane is free."""
        client = self._client
        if client is None or not lane.waiting:
            lane.busy = False
            return
        frames = _fitting(lane.waiting, client.room(lane.topic))
        seqs = [seq for seq, _ in frames]

        def acked(code: int) -> None:
            if code < REFUSED:
                self._accepted(lane, code)
                self._book_later(seqs)
            else:
                self._refuse(lane, code)
                self._give_back(lane, self._spool.boot, seqs)
            loop = asyncio.get_running_loop()
            lane.rests_until_s = loop.time() + min(max(REST_S, REST_PER_FRAME_S * len(seqs)), REST_MAX_S)
            if self._client is client and lane.waiting:
                loop.call_at(lane.rests_until_s, self._send_live, lane)
            else:
                lane.busy = False

        try:
            client.send(lane.topic, message(self._spool.boot, lane.catalog, frames), acked)
        except MqttError:
            for first, last in as_ranges(seqs):
                self._busy[self._spool.boot].discard(first, last)
            lane.busy = False
            return
        self.counters.published += 1

    def _book_later(self, seqs: Sequence[int]) -> None:
        """Move the cursor soon, over what all devices had acknowledged by then: those of one alone are full of gaps."""
        if not self._acked:
            asyncio.get_running_loop().call_later(BOOK_S, self._book)
        self._acked += seqs

    def _book(self) -> None:
        self._acknowledge(self._spool.boot, RangeSet(as_ranges(sorted(self._acked))))
        self._acked.clear()

    def _acknowledge(self, boot: int, frames: RangeSet) -> None:
        """Move the cursor over frames that the broker has."""
        busy = self._busy.setdefault(boot, RangeSet())
        for first, last in frames:
            self._spool.ack(boot, first, last)
            busy.discard(first, last)
        if self._resends:
            self._settle(boot, frames, RangeSet())

    def _settle(self, boot: int, sent: RangeSet, refused: RangeSet) -> None:
        """Take what was sent or refused from the resends that wait for it, and answer those that are complete."""
        for job in [job for job in self._resends if job.boot == boot]:
            for first, last in job.open.common(sent):
                job.sent.add(first, last)
            for first, last in (*sent, *refused):
                job.open.discard(first, last)
            if not job.open:
                self._resends.remove(job)
                job.done(job)

    def _accepted(self, lane: _Lane, code: int) -> None:
        self.counters.acknowledged += 1
        self.counters.unheard += code == NO_SUBSCRIBER
        self._is_rewound |= lane.is_behind and not lane.opens_at_s
        if lane.pause_s > PAUSE_FIRST_S:
            lane.pause_s = PAUSE_FIRST_S
            self.refusals.pop(_device_of(lane), None)
            log.info("broker takes data of %s again", _device_of(lane))

    def _refuse(self, lane: _Lane, code: int) -> None:
        """Let the device of a refused message rest: its frames are not tried in a hot loop."""
        device = _device_of(lane)
        self.counters.refused += 1
        if self.refusals.get(device) != code:
            self.refusals[device] = code
            log.error("broker refuses data of %s: PUBACK 0x%02x; the frames wait in the spool", device, code)
        self._give_back(lane, self._spool.boot, [seq for seq, _ in lane.waiting])
        lane.waiting.clear()
        if not lane.opens_at_s:
            loop = asyncio.get_running_loop()
            lane.opens_at_s = loop.time() + lane.pause_s
            loop.call_at(lane.opens_at_s, self._open, lane)
            lane.pause_s = min(2 * lane.pause_s, PAUSE_CAP_S)

    def _give_back(self, lane: _Lane, boot: int, seqs: Sequence[int]) -> None:
        """Leave frames that were on their way to the spool."""
        lane.is_behind = True
        frames = RangeSet(as_ranges(seqs))
        for first, last in frames:
            self._busy.setdefault(boot, RangeSet()).discard(first, last)
        self._settle(boot, RangeSet(), frames)

    def _pass_by(self, lane: _Lane, boot: int, seqs: Sequence[int]) -> None:
        """Leave frames of the backlog to the spool."""
        self._give_back(lane, boot, seqs)
        lane.passed_by += len(seqs)
        self.counters.parked += len(seqs)

    def _open(self, lane: _Lane) -> None:
        """Try what was refused once more: with the next live frame, or with the backlog where there is none."""
        lane.opens_at_s = 0.0
        self.counters.parked -= lane.passed_by
        lane.passed_by = 0
        self._is_rewound |= lane.missed < MISSED_SOON
        lane.missed = 0

    def _rewind(self) -> None:
        """Let the backlog begin again."""
        self._position, self._is_rewound = START, False
        self.counters.parked = 0
        for lane in self._by_device.values():
            lane.passed_by, lane.is_behind = 0, False

    async def run(self, client: Client) -> None:
        """Bring live frames and the backlog over this connection until it is lost."""
        self._busy.clear()
        self._rewind()
        for lane in self._by_device.values():
            lane.waiting.clear()
            lane.busy = False
        self._client = client
        self.connected.set()
        try:
            await self._backlog(client)
        finally:
            self._client = None
            self.connected.clear()
            self._resends.clear()
            self._book()

    async def _backlog(self, client: Client) -> None:
        window = _Window()
        while True:
            if self._is_rewound:
                self._rewind()
            end = self._spool.end()
            found = await self._spool.unsent(self._position, self._on_its_way)
            if found is None:
                self._position = max(self._position, end)  # what was passed over is on its way in the live lane
                await asyncio.sleep(IDLE_S)
                continue
            self._position = found.position
            async for device, frames in self._messages(found, client, window):
                await self._send_backlog(client, window, found, device, frames)

    def _on_its_way(self, boot: int) -> RangeSet:
        return self._busy.get(boot, _NOTHING)

    async def _messages(
        self, found: Unsent, client: Client, window: _Window
    ) -> AsyncIterator[tuple[str, list[tuple[int, bytes]]]]:
        """Yield (device, frames as lines) for each message that a batch of the backlog makes."""
        times = found.block.time.tolist()
        for device, frames in found.by_device().items():
            lines: deque[tuple[int, bytes]] = deque()
            size = 0
            topic = self._address.device(device, "data")
            lane = self._by_device.setdefault(device, _Lane(topic, found.catalog))
            if lane.opens_at_s:
                self._pass_by(lane, found.boot, [seq for seq, _, _ in frames])
                continue
            for k, (seq, scan, row) in enumerate(frames):
                value, quality = found.block.cells[scan]
                writer = self._writer(found.texts[scan])
                lines.append((seq, writer.line(value[row], quality[row], times[seq - found.block.first_seq])))
                size += SEQ_BYTES + len(lines[-1][1])
                if k % SLICE_FRAMES == SLICE_FRAMES - 1:
                    await asyncio.sleep(0)
                room = min(window.message_bytes, client.room(topic))
                if len(lines) >= MESSAGE_FRAMES or size > room:
                    yield device, _fitting(lines, room)
                    size = sum(SEQ_BYTES + len(line) for _, line in lines)
            while lines:
                yield device, _fitting(lines, min(window.message_bytes, client.room(topic)))

    def _writer(self, text: ScanText) -> LineWriter:
        if text not in self._writers:
            self._writers[text] = LineWriter(text)
        return self._writers[text]

    async def _send_backlog(
        self, client: Client, window: _Window, found: Unsent, device: str, frames: list[tuple[int, bytes]]
    ) -> None:
        lane = self._by_device[device]
        seqs = [seq for seq, _ in frames]
        under_way = RangeSet(as_ranges(seqs))
        if lane.opens_at_s:
            self._pass_by(lane, found.boot, seqs)
            return
        payload = message(found.boot, found.catalog, frames)
        loop = asyncio.get_running_loop()
        await window.take(len(payload))
        sent_s = loop.time()

        def acked(code: int) -> None:
            window.give(len(payload), sent_s, loop.time())
            if code < REFUSED:
                self._accepted(lane, code)
                self._acknowledge(found.boot, under_way)
            else:
                self._refuse(lane, code)
                self._pass_by(lane, found.boot, seqs)

        client.send(lane.topic, payload, acked)
        busy = self._busy.setdefault(found.boot, RangeSet())
        for first, last in under_way:
            busy.add(first, last)
        self.counters.published += 1


_NOTHING: Final = RangeSet()


def _device_of(lane: _Lane) -> str:
    return lane.topic.rsplit("/", 2)[1]


def _fitting(waiting: deque[tuple[int, bytes]], room: int) -> list[tuple[int, bytes]]:
    """Take the frames of the next message from the left: as many as fit into `room` bytes, at least one."""
    frames: list[tuple[int, bytes]] = []
    size = HEADER_BYTES
    while waiting and len(frames) < MESSAGE_FRAMES:
        size += SEQ_BYTES + len(waiting[0][1])
        if frames and size > room:
            break
        frames.append(waiting.popleft())
    return frames


def message(boot: int, catalog: str, frames: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the data message of these frames: the ledger comment, then their lines."""
    header = Header(
        boot,
        as_ranges(seq for seq, line in frames if line),
        as_ranges(seq for seq, line in frames if not line),
        catalog,
    )
    return header.encode() + b"".join(line for _, line in frames)
