"""Bytes to answers, without a socket: only what provably answers the request at hand gets through.

A read has one right answer shape: unit, function and byte count are known before it is sent, and over MBAP the
transaction id too. So the header of the right answer is written down when asking, and what comes is compared with it as
a whole. Everything else is somebody else's, late, damaged or noise; it is counted and never becomes a value.

RTU has no transaction id. There an answer is only believed once the line has fallen silent behind it, when the whole
burst can be read from its front, and only while no other answer of the same shape can still be on its way: that is what
`Doubt` keeps, and what the link clears with a fence (see link.py).
"""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from drivers.blocks import Block
from drivers.errors import DriverError, WrongAnswer, device_exception
from drivers.link import LinkCounters

READ_FUNCTIONS: Final = frozenset({1, 2, 3, 4})  # all that this program ever sends
REGISTER_FUNCTIONS: Final = frozenset({3, 4})
REQUEST: Final = struct.Struct(">BBHH")  # unit, function, address, quantity
MBAP: Final = struct.Struct(">HHH")  # transaction, protocol 0, bytes that follow
SEED: Final = struct.Struct(">HH")  # first transaction id, step
OWN_REFUSALS: Final = frozenset({1, 2, 3, 4, 6, 7, 8})  # its last word; behind any other the answer may still come
ERROR: Final = 0x80  # set in the function of an exception answer
MIN_FOLLOWING: Final = 3  # unit, function, and a code or count: no answer is shorter
MAX_FOLLOWING: Final = 254  # unit and a PDU of 253 bytes
MAX_HELD: Final = 1024  # bytes without an answer in them: more than two of the longest frames
GIVEN_UP: Final = 64  # transactions whose late answers are still known as late
MAX_DOUBTS: Final = 64  # answers that may still come from one unit: more than a poll ever asks without an answer
MAX_PAYLOAD_BYTES: Final = 250  # 125 registers or 2000 bits: no read of ours is answered by more
RTU_ECHO_BYTES: Final = 8  # a read request on the line

Outcome = bytes | DriverError
Crc = Callable[[bytes], bytes]


def request_pdu(unit: int, block: Block) -> bytes:
    """Return unit and PDU of a read; raises ValueError for every other function, so that nothing else can leave."""
    if block.function not in READ_FUNCTIONS:
        raise ValueError(f"function {block.function} does not read")
    return REQUEST.pack(unit, block.function, block.start, block.count)


class MbapFraming:
    """Modbus TCP: transaction ids from a random start in random odd steps, never 0, so that none can be guessed.

    has_ids    requests are numbered, so a late answer cannot pass for the next one
    is_broken  the stream is out of step: only a new connection helps
    has_noise  bytes came since the last request that are part of no frame
    seed       what the transaction ids follow from, so that a capture can be replayed
    """

    def __init__(self, counters: LinkCounters, seed: bytes = b"") -> None:
        self.has_ids = True
        self.is_broken = self.has_noise = False
        self.seed = seed or random.randbytes(SEED.size)
        self._counters = counters
        self._tid, step = SEED.unpack(self.seed)
        self._step = step | 1
        self._held = b""
        self._asked = b""
        self._right = b""  # how the right answer begins: nine bytes, up to its byte count
        self._length = -1  # of the right answer; -1 while nothing is expected
        self._unit = 0
        self._given_up: deque[int] = deque(maxlen=GIVEN_UP)

    def ask(self, unit: int, block: Block) -> bytes:
        """Return the bytes of a request, and expect its answer from now on."""
        if self._held:
            self.rest()
        self.has_noise = False
        tid = self._tid = (self._tid + self._step) & 0xFFFF or self._step
        pdu = request_pdu(unit, block)
        n_bytes = block.n_bytes
        self._right = MBAP.pack(tid, 0, n_bytes + MIN_FOLLOWING) + bytes((unit, block.function, n_bytes))
        self._length = len(self._right) + n_bytes
        self._unit = unit
        self._asked = MBAP.pack(tid, 0, len(pdu)) + pdu
        return self._asked

    def take(self, data: bytes) -> Outcome | None:
        """Take what came; returns the answer or why there will be none, None while neither can be said."""
        if len(data) == self._length and not self._held and data.startswith(self._right) and data != self._asked:
            self._length = -1
            return data[9:]
        self._held += data
        return self._frames()

    def settle(self) -> Outcome | None:
        """Return None: a frame says where it ends."""
        return None

    def give_up(self) -> None:
        """Stop expecting; half a frame in hand means that nothing after it can be understood."""
        if self._length >= 0:
            self._given_up.append(self._tid)
            self._length = -1
        self.is_broken = self.is_broken or bool(self._held)

    def rest(self) -> None:
        """Throw away what came unasked and is no whole frame."""
        self._counters.noise_bytes += len(self._held)
        self._held = b""

    def _frames(self) -> Outcome | None:
        """Take whole frames from the bytes at hand until one is the answer."""
        found: Outcome | None = None
        while len(self._held) >= MBAP.size:
            tid, protocol, following = MBAP.unpack_from(self._held)
            if protocol or not MIN_FOLLOWING <= following <= MAX_FOLLOWING:
                if self._resynchronise():
                    continue
                break
            end = MBAP.size + following
            if len(self._held) < end:
                break
            frame, self._held = self._held[:end], self._held[end:]
            if self._length >= 0 and tid == self._tid:
                found = self._judge(frame) if found is None else WrongAnswer("two answers to one request")
            elif tid in self._given_up:
                self._given_up.remove(tid)
                self._counters.late_frames += 1
                self._counters.unit(frame[6]).late_frames += 1
            else:
                self._counters.foreign_frames += 1
        if found is not None:
            self._length = -1
        if isinstance(found, bytes) and self._held:
            self.is_broken = self.has_noise = True  # the frame's length lied: what it held is nobody's values
            return WrongAnswer("bytes behind the answer that are no frame")
        return found

    def _judge(self, frame: bytes) -> Outcome | None:
        """Return what a frame with the right transaction id says; an echo of the request says nothing."""
        if frame == self._asked:
            self._counters.foreign_frames += 1
            return None
        if len(frame) == self._length and frame.startswith(self._right):
            return frame[9:]
        unit, function = self._right[6], self._right[7]
        if len(frame) == MBAP.size + MIN_FOLLOWING and frame[6] == unit and frame[7] == function | ERROR:
            return device_exception(frame[8])
        self._counters.foreign_frames += 1
        self._counters.unit(unit).foreign_frames += 1
        return WrongAnswer(
            f"asked unit {unit}, function {function}, {self._right[8]} bytes; "
            f"got unit {frame[6]}, function {frame[7]}, {len(frame) - 9} bytes"
        )

    def _resynchronise(self) -> bool:
        """Go to the header of the answer at hand, nine bytes that nobody can guess; returns whether it is there."""
        at = len(self._held)
        is_found = False
        if self._length >= 0:
            refusal = self._right[:4] + bytes((0, MIN_FOLLOWING, self._right[6], self._right[7] | ERROR))
            places = [place for place in (self._held.find(self._right, 1), self._held.find(refusal, 1)) if place > 0]
            is_found = bool(places)
            at = min(places, default=max(1, at - len(refusal) + 1))  # what is kept may be the beginning of a header
        self.has_noise = True
        self._counters.noise_bytes += at
        self._held = self._held[at:]
        return is_found


@dataclass(slots=True)
class Doubt:
    """Answers that may still come, of one unit: (function, byte count) in the order in which they were asked."""

    shapes: list[tuple[int, int]]
    since_s: float


class RtuFraming:
    """Modbus RTU on a serial line or in a TCP stream; speaks of itself in the words of MbapFraming.

    doubts     unit -> the answers that may still come from it
    suspect_s  unit -> when something last went wrong between it and us, in seconds of now_s
    """

    def __init__(self, counters: LinkCounters, crc: Crc, now_s: Callable[[], float]) -> None:
        self.has_ids = False
        self.is_broken = self.has_noise = False
        self.seed = b""
        self.doubts: dict[int, Doubt] = {}
        self.suspect_s: dict[int, float] = {}
        self._counters = counters
        self._crc = crc
        self._now_s = now_s
        self._held = b""
        self._asked = b""
        self._right = b""  # how the right answer begins: unit, function, byte count
        self._shape = (0, 0)
        self._unit = -1  # whose answer is expected; -1: nobody's

    def ask(self, unit: int, block: Block) -> bytes:
        """Return the bytes of a request, and expect its answer from now on."""
        if self._held:
            self.rest()
        pdu = request_pdu(unit, block)
        self._unit, self._shape = unit, (block.function, block.n_bytes)
        self._right = bytes((unit, block.function, block.n_bytes))
        self._asked = pdu + self._crc(pdu)
        return self._asked

    def take(self, data: bytes) -> Outcome | None:
        """Keep what came: it is judged when the line falls silent."""
        self._held += data
        if len(self._held) > MAX_HELD:
            self._counters.noise_bytes += len(self._held) - MAX_HELD
            self._held = self._held[-MAX_HELD:]
        return None

    def settle(self) -> Outcome | None:
        """Return what the burst at hand proves: read from its front, it must hold the answer once.

        A frame as long as the answer whose checksum is wrong is the answer, damaged; there will be no other.
        """
        if self._unit < 0:
            return None
        answers, damaged, others, noise = self._walk()
        if not answers and not damaged:
            return None
        unit, shape = self._unit, self._shape
        self._end(others, noise)
        if not answers:
            self._counters.crc_errors += 1
            self._counters.unit(unit).crc_errors += 1
            self.doubt(unit, shape)
            return WrongAnswer("the answer's checksum is wrong")
        if len(set(answers)) > 1:
            self._foreign(unit, len(answers))
            self.doubt(unit, shape)
            return WrongAnswer(f"{len(answers)} answers to one request")
        first = answers[0]
        is_refusal = bool(first[1] & ERROR)
        if self._settles(unit, first):
            self._counters.late_frames += 1
            self._counters.unit(unit).late_frames += 1
            self.doubt(unit, shape)
            return WrongAnswer("an answer that may be that to an older request")
        self.doubts.pop(unit, None)  # answers come in the order of their requests
        if len(answers) > 1:
            self._foreign(unit, len(answers) - 1)
            self.doubt(unit, shape)
        if is_refusal and first[2] not in OWN_REFUSALS:
            self.doubt(unit, shape)
        return device_exception(first[2]) if is_refusal else first[3:-2]

    def give_up(self) -> None:
        """Stop expecting; the answer may still come."""
        if self._unit >= 0:
            unit, shape = self._unit, self._shape
            _, _, others, noise = self._walk()
            self._end(others, noise)
            self.doubt(unit, shape)

    def rest(self) -> None:
        """Judge what came while nothing was expected, and throw it away."""
        self._unit = -1
        _, _, others, noise = self._walk()
        self._end(others, noise)

    def is_provable(self, unit: int, block: Block) -> bool:
        """Return whether no answer that may still come from the unit looks like that to this block."""
        known = self.doubts.get(unit)
        return known is None or (block.function, block.n_bytes) not in known.shapes

    def doubt(self, unit: int, shape: tuple[int, int], *, is_suspect: bool = True) -> None:
        """Remember that an answer of this shape may still come from a unit, behind all those that may already.

        is_suspect  something went wrong, so it may come out of turn too
        """
        known = self.doubts.setdefault(unit, Doubt([], 0.0))
        known.since_s = self._now_s()
        if is_suspect:
            self.suspect_s[unit] = known.since_s
        if known.shapes[-1:] != [shape] and len(known.shapes) < MAX_DOUBTS:
            known.shapes.append(shape)

    def _settles(self, unit: int, frame: bytes) -> bool:
        """Take a frame for the first answer in doubt that looks like it: those before it have come or never will.

        Returns whether there was one.
        """
        known = self.doubts.get(unit)
        if known is None:
            return False
        function, is_error = frame[1] & 0x7F, bool(frame[1] & ERROR)
        at = next((i for i, (f, n) in enumerate(known.shapes) if f == function and (is_error or n == frame[2])), -1)
        del known.shapes[: at + 1]
        if not known.shapes:
            del self.doubts[unit]
        return at >= 0

    def _foreign(self, unit: int, n: int) -> None:
        self.suspect_s[unit] = self._now_s()
        self._counters.foreign_frames += n
        self._counters.unit(unit).foreign_frames += n

    def _end(self, others: list[bytes], noise: int) -> None:
        """Nothing is expected any more: account for what else the burst held."""
        self._held, self._unit = b"", -1
        self._counters.noise_bytes += noise
        for frame in others:
            self._account(frame)

    def _account(self, frame: bytes) -> None:
        """Count a whole frame that is not the answer at hand: late if it was asked for before, else foreign."""
        unit, function = frame[0], frame[1]
        if self._settles(unit, frame):
            self._counters.late_frames += 1
            self._counters.unit(unit).late_frames += 1
            return
        if unit not in self._counters.units:
            self._counters.foreign_frames += 1
        else:
            self._foreign(unit, 1)
            if function in READ_FUNCTIONS and 0 < frame[2] <= MAX_PAYLOAD_BYTES and len(frame) == frame[2] + 5:
                self.doubt(unit, (function, frame[2]))  # who answers unasked may do so again

    def _walk(self) -> tuple[list[bytes], bool, list[bytes], int]:
        """Read the burst from its front.

        Returns the frames that answer the request, whether there is one with a wrong checksum instead, all other whole
        frames, and how many bytes were part of none.
        """
        held = self._held
        answers: list[bytes] = []
        others: list[bytes] = []
        noise = at = 0
        echoes = 1 if self._unit >= 0 else 0
        damaged = False
        whole = len(self._right) + self._shape[1] + 2  # of the right answer
        while at < len(held):
            if echoes and held.startswith(self._asked, at):
                echoes, at = 0, at + len(self._asked)
                continue
            end = self._frame_end(at)
            if end:
                frame = held[at:end]
                (answers if self._is_answer(frame) else others).append(frame)
                at = end
                continue
            if self._unit >= 0 and held.startswith(self._right, at) and at + whole <= len(held):
                damaged = True
            noise += 1
            at += 1
        return answers, damaged, others, noise

    def _is_answer(self, frame: bytes) -> bool:
        if self._unit < 0:
            return False
        if frame[1] & ERROR:
            return frame[0] == self._unit and frame[1] == self._right[1] | ERROR
        return frame.startswith(self._right) and len(frame) == len(self._right) + self._shape[1] + 2

    def _frame_end(self, at: int) -> int:
        """Return where the frame with a right checksum that begins here ends, 0 if none does."""
        held = self._held
        if len(held) - at < 4:
            return 0
        for length in _lengths(held, at):
            end = at + length
            if end <= len(held) and self._crc(held[at : end - 2]) == held[end - 2 : end]:
                return end
        return 0


def _lengths(held: bytes, at: int) -> tuple[int, ...]:
    """Return how long a frame that begins here can be: an answer, or the request of another master."""
    function, third = held[at + 1], held[at + 2]
    if function & ERROR:
        return (5,)
    if function in READ_FUNCTIONS:
        return (5 + third, RTU_ECHO_BYTES)
    if function in (5, 6, 8):
        return (8,)
    if function in (15, 16):
        return (8, 9 + held[at + 6]) if len(held) > at + 6 else (8,)
    if function in (17, 23, 24):
        return (5 + third,)
    return (10,) if function == 22 else ()
