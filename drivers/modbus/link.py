"""One Modbus endpoint: dialling, one request at a time, proof before values, quarantine, counting."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from drivers.blocks import BITS_PER_BYTE, Block
from drivers.errors import DeviceException, DriverError, LinkDown, NoAnswer, WrongAnswer
from drivers.link import LinkCounters, LinkSpec, LinkState, Traffic, UnitCounters
from drivers.modbus.framing import READ_FUNCTIONS, REGISTER_FUNCTIONS, MbapFraming, Outcome, RtuFraming
from drivers.modbus.stream import Stream

log = logging.getLogger(__name__)

REDIAL_S: Final = 1.0  # never more than one dial a second per endpoint
DIAL_JITTER_S: Final = 0.1  # so that a hundred gateways do not dial a restarted converter in the same instant
DIAL_PATIENCE_S: Final = 0.25  # a poll waits this long for the next permitted dial; a later one is the next poll's
SILENT_REDIAL: Final = 3  # requests in a row without any answer: the other end may have forgotten the connection

SILENCE_CHARACTERS: Final = 3.5  # Modbus over Serial Line V1.02, section 2.5.1.1: what ends a frame
SILENCE_MIN_S: Final = 0.002  # 1.75 ms from 19200 baud on says the same section; adapters deliver once a millisecond
ANSWER_OVERHEAD_BYTES: Final = 5  # unit, function, byte count, CRC
RETRY_SHARE: Final = 0.5  # of the time-out: a try that took longer, its fence included, has cost the neighbours enough
FORGET_TIMEOUTS: Final = 10  # an answer later than this many time-outs is not coming: devices do not queue for ever
FORGET_MIN_S: Final = 10.0
REPEAT_S: Final = 1.0  # a repeated answer comes within milliseconds; radio modems try again within a second
SUSPECT_S: Final = 10.0  # how long a device is heard out after something went wrong
SUSPECT_MIN_S: Final = 0.05  # its own answer is there by then, through the adapter and a busy machine
SUSPECT_FACTOR: Final = 2.0  # of the time in which nearly all of its answers came
NOISY_TIMEOUTS: Final = 1  # how long we wait for a line to fall silent before a request

# The learnt time-out of a device that shares its link: where it is longer than needed, the neighbours pay.
HISTORY_ANSWERS: Final = 200  # before them a device has no history: the whole timeout_s holds
LEARNT_SHARE: Final = 0.999
LEARNT_FACTOR: Final = 4.0  # of the time in which LEARNT_SHARE of the answers came
LEARNT_MIN_S: Final = 0.1
TURNAROUND_WEIGHT: Final = 1 / 32  # of one answer in the learnt turnaround

TELL_LINES: Final = 6  # of the log about one link in TELL_S; what a link that flaps is now is told when that is over
TELL_S: Final = 60.0
RING: Final = 128  # pieces of traffic kept for a capture: some thirty exchanges
KNOWN_BLOCKS: Final = 8  # answered reads of a unit that can serve as its fence

Dial = Callable[[Callable[[], Stream]], Awaitable[Stream]]


class ModbusLink:
    """A Link over one byte stream.

    dial     opens a connection for the stream that it is given; raises OSError
    crc      of RTU, None for MBAP
    silence_s  what ends a frame on a line without lengths
    """

    def __init__(self, spec: LinkSpec, dial: Dial, crc: Callable[[bytes], bytes] | None) -> None:
        self.state: LinkState = "closed"
        self.counters = LinkCounters()
        self.ring: deque[Traffic] = deque(maxlen=RING)
        self._spec = spec
        self._dial = dial
        self._crc = crc
        self._is_numbered = crc is None
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._framing = self._new_framing()
        self._waiter: asyncio.Future[bytes] | None = None
        self._deadline_s = self._sent_s = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._last_byte_s = 0.0
        self._next_dial_s = 0.0
        self._silent = 0  # requests in a row that nobody answered
        self._told: LinkState = "closed"
        self._told_s: deque[float] = deque(maxlen=TELL_LINES)
        self._error: DriverError | None = None  # the last one
        self._lock = asyncio.Lock()
        self._turnarounds: dict[int, float] = {}
        self._last = (-1, Block(3, 0, 1), 0.0)  # unit, read and time of the last answer
        self._has_twin = False  # whether the last answer would look like that to the read at hand
        self._answered: dict[int, dict[tuple[int, int], Block]] = {}
        line = spec.serial
        self._character_s = line.bits_per_character / line.baudrate if spec.transport == "rtu" else 0.0
        self._settle_s = self._silence_s = max(SILENCE_CHARACTERS * self._character_s, SILENCE_MIN_S)
        self._where = f"{spec.host}:{spec.port}" if spec.host else spec.path

    async def read(self, unit: int, block: Block) -> bytes:
        """Return exactly `block.n_bytes` payload bytes of `unit`; raises a DriverError leaf."""
        ring, loop = self.ring, self._loop
        await self._lock.acquire()
        try:
            ring.append((loop.time(), "ask", (unit, block)))
            if self._is_numbered and self._stream is not None and self._stream.transport is not None:
                payload = await self._exchange(unit, block)
            else:
                payload = await self._read(unit, block)
            ring.append((loop.time(), "end", payload))
            return payload
        except DriverError as error:
            self._forget_way()
            self._error = error
            ring.append((loop.time(), "end", error))
            raise
        finally:
            self._lock.release()

    def turnaround_s(self, unit: int) -> float | None:
        """Return how long a device takes to answer, without the characters on the wire; None while unknown."""
        if self.counters.unit(unit).answers < HISTORY_ANSWERS:
            return None
        return self._turnarounds.get(unit)

    async def close(self) -> None:
        """Give the endpoint back; a later read opens it again."""
        self._hang_up()
        self._fail(LinkDown(f"{self._spec.name}: closed"))
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self.state = self._told = "closed"

    def _forget_way(self) -> None:
        """Let go of what the last error came through: in the ring it would keep connections long closed."""
        if self._error is not None:
            self._error.__traceback__ = self._error.__context__ = None

    async def _read(self, unit: int, block: Block) -> bytes:
        if self._stream is None or self._stream.transport is None:
            await self._connect()
        if isinstance(self._framing, MbapFraming):
            return await self._exchange(unit, block)
        await self._wait_for_silence()
        self._doubt_twins(self._framing, unit, block)
        began_s = self._loop.time()
        if unit in self._framing.doubts:
            await self._fence(self._framing, unit, block)
        try:
            payload = await self._exchange(unit, block)
        except WrongAnswer:
            if block.is_once or self._loop.time() - began_s > RETRY_SHARE * self._spec.timeout_s:
                raise
            await self._wait_for_silence()  # a damaged answer came at once: there is time for one more try
            if unit in self._framing.doubts:
                await self._fence(self._framing, unit, block)
            payload = await self._exchange(unit, block)
        self._last = (unit, block, self._last_byte_s)
        if not block.is_once:
            self._remember(unit, block)
        return payload

    # One exchange

    async def _exchange(self, unit: int, block: Block) -> bytes:
        """Send one request and return its proven answer."""
        stream, loop, seen = self._stream, self._loop, self.counters.unit(unit)
        if stream is None or stream.transport is None:
            self._tell("closed before anything was asked")
            raise LinkDown(f"{self._spec.name}: connection lost")
        request = self._framing.ask(unit, block)
        self.counters.requests += 1
        seen.requests += 1
        waiter: asyncio.Future[bytes] = loop.create_future()
        self._waiter = waiter
        self._sent_s = now = loop.time()
        self._deadline_s = now + self._timeout_s(seen)
        self._settle_s = self._silence_s if self._framing.has_ids else self._quiet_after(unit, seen)
        if self._watchdog is None:
            self._watchdog = loop.call_at(self._deadline_s, self._watch)
        elif self._watchdog.when() > self._deadline_s:
            self._watchdog.cancel()
            self._watchdog = loop.call_at(self._deadline_s, self._watch)
        self.ring.append((now, "tx", request))
        stream.transport.write(request)
        try:
            payload = await waiter
        except DriverError as error:
            self._count(error, seen)
            raise
        except asyncio.CancelledError:
            self._framing.give_up()  # its answer is still to come
            raise
        finally:
            self._waiter = None
            self.counters.busy_s += loop.time() - now
        took = self._last_byte_s - now
        self.counters.answers += 1
        seen.answers += 1
        seen.latency.note(took)
        self.counters.latency.note(took)
        self._silent = 0
        if self.state != self._told:
            self._tell("answers")
        wire_s = (len(request) + block.n_bytes + ANSWER_OVERHEAD_BYTES + SILENCE_CHARACTERS) * self._character_s
        own = max(0.0, took - wire_s)
        known = self._turnarounds.get(unit, own)
        self._turnarounds[unit] = known + TURNAROUND_WEIGHT * (own - known)
        return payload

    def _timeout_s(self, seen: UnitCounters) -> float:
        """Return how long to wait for a unit: timeout_s, less where that is proven to be too long for its neighbours.

        Whoever was missed last is given the whole time, so that a device that has become slow is found again.
        """
        cap = self._spec.timeout_s
        if len(self.counters.units) < 2 or seen.answers < HISTORY_ANSWERS or self._silent:
            return cap
        known = seen.latency.within(LEARNT_SHARE)
        return cap if known is None else min(cap, max(LEARNT_MIN_S, LEARNT_FACTOR * known))

    def _count(self, error: DriverError, seen: UnitCounters) -> None:
        """Count what came instead of an answer."""
        if isinstance(error, DeviceException):
            self._silent = 0
            self.counters.exceptions[error.code] += 1
            seen.exceptions[error.code] += 1
        elif isinstance(error, NoAnswer):
            self._silent += 1
            self.counters.timeouts += 1
            seen.timeouts += 1
            if self._silent >= SILENT_REDIAL and self._spec.transport != "rtu":
                self._silent = 0
                self._drop(f"no answer to {SILENT_REDIAL} requests in a row")
        if self._framing.is_broken:
            self._drop("what came is not Modbus")

    # What the stream and the timers call

    def _received(self, data: bytes) -> None:
        now = self._last_byte_s = self._loop.time()
        self.ring.append((now, "rx", data))
        outcome = self._framing.take(data)
        if outcome is not None:
            self._resolve(outcome)
        elif self._settling is None and not self._framing.has_ids and self._waiter is not None:
            self._settling = self._loop.call_at(now + self._settle_s, self._settle)

    def _settle(self) -> None:
        """Judge what came once the line is silent."""
        self._settling = None
        quiet_s = self._last_byte_s + self._settle_s
        if self._waiter is None:
            return
        if self._loop.time() < quiet_s:
            self._settling = self._loop.call_at(quiet_s, self._settle)
        elif (outcome := self._framing.settle()) is not None:
            self._resolve(outcome)

    def _watch(self) -> None:
        """Look whether the answer at hand is overdue; one timer serves all requests."""
        self._watchdog = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._deadline_s:
            self._watchdog = self._loop.call_at(self._deadline_s, self._watch)
            return
        outcome = self._framing.settle()
        if outcome is None:
            what = f"{self._spec.name}: no answer within {self._deadline_s - self._sent_s:.3g} s"
            outcome = WrongAnswer(f"{what}, only noise") if self._framing.has_noise else NoAnswer(what)
            self._framing.give_up()
        self._resolve(outcome)

    def _lost(self, why: str) -> None:
        self._framing.give_up()  # what was asked may be answered to whoever connects next
        self._drop(why)
        self._fail(LinkDown(f"{self._spec.name}: connection lost: {why}"))

    def _resolve(self, outcome: Outcome) -> None:
        if isinstance(outcome, DriverError):
            self._fail(outcome)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(outcome)

    def _fail(self, error: DriverError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # Lines without transaction ids

    async def _wait_for_silence(self) -> None:
        """Wait until nobody speaks; raises WrongAnswer when somebody always does."""
        until_s = self._loop.time() + NOISY_TIMEOUTS * self._spec.timeout_s
        while (wait_s := self._last_byte_s + self._silence_s - self._loop.time()) > 0:
            if self._loop.time() > until_s:
                raise WrongAnswer(f"{self._spec.name}: the line is never silent")
            await asyncio.sleep(wait_s)
        self._framing.rest()

    def _quiet_after(self, unit: int, seen: UnitCounters) -> float:
        """Return how long the line must be silent behind an answer before it is believed.

        Of a device with which something went wrong lately, or whose last answer looked alike, long enough for its true
        answer to come too: two that differ are both refused.
        """
        wrong_s = self._framing.suspect_s.get(unit) if isinstance(self._framing, RtuFraming) else None
        if not self._has_twin and (wrong_s is None or self._loop.time() - wrong_s > SUSPECT_S):
            return self._silence_s
        usual_s = SUSPECT_FACTOR * (seen.latency.within(LEARNT_SHARE) or 0.0)
        return max(self._silence_s, SUSPECT_MIN_S, min(usual_s, self._spec.timeout_s / 2))

    def _doubt_twins(self, framing: RtuFraming, unit: int, block: Block) -> None:
        """Doubt an answer that would look like the last one to another read: some radios and repeaters say it twice."""
        self._has_twin = False
        last_unit, last, when_s = self._last
        is_twin = (last_unit, last.function, last.n_bytes) == (unit, block.function, block.n_bytes)
        if is_twin and last.start != block.start and self._loop.time() - when_s < REPEAT_S:
            framing.doubt(unit, (block.function, block.n_bytes), is_suspect=False)
            self._has_twin = True

    async def _fence(self, framing: RtuFraming, unit: int, block: Block) -> None:
        """Make sure that no older answer can be taken for that to `block`; raises a DriverError leaf.

        A read of another shape is the fence: a device answers in the order in which it was asked, so when that one is
        answered, or refused, nothing from before can come any more. However late an old answer is, its shape tells it
        apart.
        """
        doubt = framing.doubts[unit]
        now = self._loop.time()
        age_s = now - doubt.since_s
        self.ring.append((now, "doubt", (tuple(doubt.shapes), age_s, tuple(self._answered.get(unit, {}).values()))))
        if age_s > max(FORGET_MIN_S, FORGET_TIMEOUTS * self._spec.timeout_s):
            del framing.doubts[unit]
            return
        fence = self._fence_for(unit, block, doubt.shapes)
        self.counters.fences += 1
        try:
            await self._exchange(unit, fence)
        except (DeviceException, WrongAnswer):
            if not framing.is_provable(unit, block):
                raise
        await self._wait_for_silence()

    def _fence_for(self, unit: int, block: Block, shapes: list[tuple[int, int]]) -> Block:
        """Return a read whose answer looks neither like one that may still come nor like that to `block`.

        One that has been answered before, a shorter one of the same kind, or one of another function: even its refusal
        is told apart. Where all of them are in doubt, the one that was asked last: it settles most.
        """
        shape = block.function, block.n_bytes
        known = sorted(self._answered.get(unit, {}).values(), key=lambda each: each.n_bytes)
        step = 1 if block.item_bytes else BITS_PER_BYTE
        counts = () if block.is_once else range(step, block.count, step)
        shorter = [Block(block.function, block.start, count, block.item_bytes) for count in counts]
        strange = READ_FUNCTIONS - {block.function}
        if block.is_once:
            strange -= REGISTER_FUNCTIONS  # many meters show one register under both functions
        functions = sorted(strange, reverse=True)
        others = [Block(f, block.start, 1, 2 if f in REGISTER_FUNCTIONS else 0) for f in functions]
        candidates = [each for each in (*known, *shorter, *others) if (each.function, each.n_bytes) != shape]

        def settles(each: Block) -> int:
            found = each.function, each.n_bytes
            return shapes.index(found) if found in shapes else len(shapes)

        return max(candidates, key=settles)  # the first of those that settle most

    def _remember(self, unit: int, block: Block) -> None:
        known = self._answered.setdefault(unit, {})
        if len(known) < KNOWN_BLOCKS:
            known.setdefault((block.function, block.n_bytes), block)

    # The connection

    def _new_framing(self) -> MbapFraming | RtuFraming:
        if self._crc is None:
            return MbapFraming(self.counters)
        return RtuFraming(self.counters, self._crc, self._loop.time)

    async def _connect(self) -> None:
        """Dial, at most once a second and with jitter; raises LinkDown."""
        now = self._loop.time()
        dial_s = max(now, self._next_dial_s)
        if dial_s > now + DIAL_PATIENCE_S:
            raise LinkDown(f"{self._spec.name}: not connected")
        if dial_s > now:
            await asyncio.sleep(dial_s - now)
        self._next_dial_s = self._loop.time() + REDIAL_S + random.uniform(0.0, DIAL_JITTER_S)
        self.counters.dials += 1
        if isinstance(self._framing, MbapFraming):
            self._framing = self._new_framing()
        else:
            self._framing.rest()  # its doubts stay: a converter may hold an old answer for whoever connects next
        self._silent = 0
        try:
            async with asyncio.timeout(self._spec.timeout_s):
                self._stream = await self._dial(lambda: Stream(self._received, self._lost))
        except TimeoutError:
            self.state = "down"
            self._tell("cannot be reached")
            raise LinkDown(f"{self._spec.name}: cannot be reached") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA refuses
            self.state = "down"
            self._tell(str(error))
            raise LinkDown(f"{self._spec.name}: {error}") from None
        self.ring.append((self._loop.time(), "up", self._framing.seed))
        self.state = "up"

    def _tell(self, why: str) -> None:
        """Say a change of the state once: up when a device has answered, for a port that accepts is not yet a link.

        A link that flaps is told a few times a minute.
        """
        now = self._loop.time()
        is_flapping = len(self._told_s) == TELL_LINES and now - self._told_s[0] < TELL_S
        if self.state != self._told and not is_flapping:
            level = logging.INFO if self.state == "up" else logging.WARNING
            log.log(level, "link '%s' %s: %s: %s", self._spec.name, self.state, self._where, why)
            self._told = self.state
            self._told_s.append(now)

    def _drop(self, why: str) -> None:
        """Close a connection that is gone or cannot be trusted."""
        self.ring.append((self._loop.time(), "down", why))
        self._hang_up()
        self.state = "down"
        if self._waiter is not None:  # who hangs up between two requests may well be there for the next one
            self._tell(why)

    def _hang_up(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
