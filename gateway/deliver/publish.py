"""Frames to MQTT in two lanes: live at once, the backlog from the spool beside it; the cursor moves on PUBACK."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.spool.record import SpooledFrame
from gateway.spool.spool import START, Spool, Unsent
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
BACKLOG_IN_FLIGHT: Final = 8  # messages of the backlog on their way: the rest of the window is for the live lane
IDLE_S: Final = 0.5  # how often an empty backlog is looked at again


@dataclass(slots=True)
class DeliveryCounters:
    """Messages since the process started."""

    published: int = 0
    acknowledged: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Lane:
    """The live lane of one device: frames that wait, and whether a message is on its way or the lane rests.

    catalog  of its frames: a device that is configured no longer keeps the one that knew it
    """

    topic: str
    catalog: str
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)
    busy: bool = False
    rests_until_s: float = 0.0


class Publisher:
    """Takes frames from the pipeline and brings them to the broker."""

    def __init__(self, address: GatewayAddress, devices: Sequence[str], spool: Spool, catalog: str) -> None:
        self.counters = DeliveryCounters()
        self._address = address
        self._spool = spool
        self._lanes = [_Lane(address.device(name, "data"), catalog) for name in devices]
        self._offered: list[_Lane] = []
        self._client: Client | None = None
        self.connected = asyncio.Event()  # a broker is there and takes frames
        self._claimed: set[int] = set()
        self._acked: list[int] = []  # by the broker, but not yet booked
        self._under_way: set[tuple[int, int]] = set()  # in messages of the backlog, as (boot, sequence number)
        self._refused: set[tuple[int, int]] = set()
        self._codes_told: set[int] = set()
        self._position = START
        self._is_rewound = False  # the backlog has to begin again: it has passed by a frame that is now wanted
        self._writers: dict[ScanText, LineWriter] = {}

    def turn_to(self, devices: Sequence[str], gone: Collection[int], catalog: str) -> None:
        """Take frames of more devices, by number; what still waits of those that are gone goes out as before."""
        for number, lane in enumerate(self._lanes):
            if number not in gone:
                lane.catalog = catalog
        self._lanes += [_Lane(self._address.device(name, "data"), catalog) for name in devices[len(self._lanes) :]]

    def offer(self, device: int, seq: int, line: bytes) -> None:
        """Take a frame of a device; while nobody is there, the spool alone keeps it."""
        if self._client is None:
            return
        lane = self._lanes[device]
        lane.waiting.append((seq, line))
        self._claimed.add(seq)
        if len(lane.waiting) > LIVE_FRAMES:
            late, _ = lane.waiting.popleft()
            self._claimed.discard(late)
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
                self._book_later(seqs)
            else:
                self._refuse(self._spool.boot, seqs, code)
                self._claimed.difference_update(seqs)
            loop = asyncio.get_running_loop()
            lane.rests_until_s = loop.time() + min(max(REST_S, REST_PER_FRAME_S * len(seqs)), REST_MAX_S)
            if self._client is client and lane.waiting:
                loop.call_at(lane.rests_until_s, self._send_live, lane)
            else:
                lane.busy = False

        try:
            client.send(lane.topic, message(self._spool.boot, lane.catalog, frames), acked)
        except MqttError:
            self._claimed.difference_update(seqs)
            lane.busy = False
            return
        self.counters.published += 1

    def _book_later(self, seqs: Sequence[int]) -> None:
        """Move the cursor soon, over what all devices had acknowledged by then: those of one alone are full of gaps."""
        self.counters.acknowledged += 1
        if not self._acked:
            asyncio.get_running_loop().call_later(BOOK_S, self._book)
        self._acked += seqs

    def _book(self) -> None:
        for first, last in as_ranges(sorted(self._acked)):
            self._spool.ack(self._spool.boot, first, last)
        self._claimed.difference_update(self._acked)
        self._acked.clear()

    def _refuse(self, boot: int, seqs: Iterable[int], code: int) -> None:
        if code not in self._codes_told:
            self._codes_told.add(code)
            log.error("broker refuses data: PUBACK 0x%02x; the frames stay in the spool", code)
        self.counters.refused += 1
        self._refused.update((boot, seq) for seq in seqs)  # tried again with the next connection, not in a hot loop

    async def run(self, client: Client) -> None:
        """Bring live frames and the backlog over this connection until it is lost."""
        self._claimed.clear()
        self._under_way.clear()
        self._refused.clear()
        self._position, self._is_rewound = START, False
        for lane in self._lanes:
            lane.waiting.clear()
            lane.busy = False
        self._client = client
        self.connected.set()
        try:
            await self._backlog(client)
        finally:
            self._client = None
            self.connected.clear()
            self._book()

    async def _backlog(self, client: Client) -> None:
        window = asyncio.Semaphore(BACKLOG_IN_FLIGHT)
        while True:
            if self._is_rewound:
                self._position, self._is_rewound = START, False
            end = self._spool.end()
            found = await self._spool.unsent(self._position, self._is_wanted)
            if found is None:
                self._position = max(self._position, end)  # what was passed over is on its way in the live lane
                await asyncio.sleep(IDLE_S)
                continue
            self._position = found.position
            for device, frames in self._messages(found, client):
                await window.acquire()
                self._send_backlog(client, window, found, device, frames)

    def _is_wanted(self, boot: int, seq: int) -> bool:
        if (boot, seq) in self._refused or (boot, seq) in self._under_way:
            return False
        return boot != self._spool.boot or seq not in self._claimed

    def _messages(self, found: Unsent, client: Client) -> Iterable[tuple[str, list[tuple[int, bytes]]]]:
        """Yield (device, frames as lines) for each message that a batch of the backlog makes."""
        by_device: dict[str, list[SpooledFrame]] = {}
        for frame in found.frames:
            by_device.setdefault(found.texts[frame.scan].device, []).append(frame)
        for device, frames in by_device.items():
            lines = deque(
                (frame.seq, self._writer(found.texts[frame.scan]).line(frame.value, frame.quality, frame.time_ns))
                for frame in frames
            )
            room = min(MESSAGE_BYTES, client.room(self._address.device(device, "data")))
            while lines:
                yield device, _fitting(lines, room)

    def _writer(self, text: ScanText) -> LineWriter:
        if text not in self._writers:
            self._writers[text] = LineWriter(text)
        return self._writers[text]

    def _send_backlog(
        self, client: Client, window: asyncio.Semaphore, found: Unsent, device: str, frames: list[tuple[int, bytes]]
    ) -> None:
        seqs = [seq for seq, _ in frames]
        under_way = {(found.boot, seq) for seq in seqs}

        def acked(code: int) -> None:
            if code < REFUSED:
                self.counters.acknowledged += 1
                for first, last in as_ranges(seqs):
                    self._spool.ack(found.boot, first, last)
            else:
                self._refuse(found.boot, seqs, code)
            self._under_way -= under_way
            window.release()

        client.send(self._address.device(device, "data"), message(found.boot, found.catalog, frames), acked)
        self._under_way |= under_way
        self.counters.published += 1


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
