"""decode -> detect -> alarm -> spool on the frames of one turn of the event loop: plain calls on columns."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from drivers import decode
from drivers.quality import BAD, BAD_NO_COMMUNICATION, BAD_TIMEOUT, BAD_WAITING_FOR_INITIAL_DATA, name_of
from gateway.alarm.engine import COMMUNICATION, AlarmEngine, Transition
from gateway.alarm.journal import Journal
from gateway.alarm.state import Step
from gateway.detect import flags as bits
from gateway.detect.detector import Turn
from gateway.estimate import Estimates
from gateway.model.clock import NS, STAMP_NS, STEP_NS, Clock
from gateway.model.frame import Frame, Read, Scan, TagTable
from gateway.spool.spool import Spool
from gateway.totals import REASONS, Totals
from gateway.wire.events import AlarmRecord, Event, EventKind
from gateway.wire.frame_lines import LineWriter, ScanText, scan_texts
from gateway.wire.topics import OWN

if TYPE_CHECKING:
    from gateway.detect.bank import Bank

MS_NS: Final = 1_000_000
REMOVED: Final = "removed"  # the step of an alarm whose limit, tag or device has left the configuration
MISSES: Final = 2  # polls in a row without an answer before a device counts as away: one is noise on a thin link
TURN_GAP_S: Final = 0.001  # between turns: the kernels cost 20 us a call, so frames that come faster share them
NO_ROWS: Final = np.zeros(0, np.int32)
CARRIED: Final = (  # columns by row, scan, device or byte of the image: those of a longer table begin with them
    *("_image", "_reason", "_has_reason", "_is_in_line", "_value", "_quality", "_quality_before", "_time_ns"),
    *("_steady_ns", "_score", "_flags", "_flags_before", "_misses", "_now_ns"),
)
MAX_AHEAD_NS: Final = 86_400 * NS  # stamps further in the future are wrong, and no ingest takes them
MAX_UNJUDGED: Final = 2_000_000  # values: 24 MB, half an hour at 1,000 tags a second; no compiler takes so long
MAX_TURN: Final = 512  # frames that go through the kernels in one call; more than a turn of the loop ever brings


@dataclass(frozen=True, slots=True)
class _Unjudged:
    """A frame that no detector has seen yet."""

    scan: Scan
    seq: int
    time_ns: int
    steady_ns: int
    value: NDArray[np.float64]
    quality: NDArray[np.uint32]


class Unjudged:
    """Frames that wait for the detectors to be loaded; the oldest go first, counted.

    dropped  frames that no detector will see
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._frames: deque[_Unjudged] = deque()
        self._values = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: _Unjudged) -> None:
        """Keep a frame."""
        self._frames.append(frame)
        self._values += frame.value.size
        while self._values > MAX_UNJUDGED:
            self._values -= self._frames.popleft().value.size
            self.dropped += 1

    def take(self) -> Iterable[_Unjudged]:
        """Return what waits, oldest first, and keep it no longer."""
        found, self._frames, self._values = self._frames, deque(), 0
        return found


class Live(Protocol):
    """What takes a frame's line towards the broker at once: the publisher."""

    def offer(self, device: int, seq: int, line: bytes) -> None:
        """Take a frame of a device; an empty line for one without a good value."""
        ...

    def flush(self) -> None:
        """Send what was offered: the turn is over."""
        ...


class Parts:
    """What a pipeline makes of a table, apart from its columns; may be made beside the loop."""

    def __init__(self, table: TagTable, before: Parts | None = None) -> None:
        """`before` lends what is the same."""
        lent: dict[ScanText, LineWriter] = {}
        known: dict[ScanText, ScanText] = {}  # a spool keeps the texts of every edition that its segments have
        if before is not None:
            lent.update(zip(before.texts, before.writers, strict=True))
            known.update(zip(before.texts, before.texts, strict=True))
        self.table = table
        self.texts: tuple[ScanText, ...] = tuple(known.get(text, text) for text in scan_texts(table))
        self.writers: list[LineWriter] = [lent.get(text) or LineWriter(text) for text in self.texts]
        self.rows_of = _rows_of(table)
        self.totals = Totals(table)
        self.estimates = Estimates(table)
        self.alone = [np.array([scan.number], np.int32) for scan in table.scans]  # one that is ready by itself


class Pipeline:
    """The whole way of a reading from payload to spool; a poll.Sink.

    Payloads lie in one image, by device and address. The frames of a poll go through every kernel as soon as it is
    complete; those that come faster go through it in one call. Python objects begin where a quality or a flag changed.
    """

    def __init__(
        self, table: TagTable, spool: Spool, engine: AlarmEngine, journal: Journal, live: Live, clock: Clock
    ) -> None:
        self.spool = spool
        self.strings: dict[str, dict[str, str]] = {}
        self.strings_changed: Callable[[], None] = lambda: None
        self.unexpected: dict[str, str] = {}  # device -> what it said instead of its model
        self.values_read = 0
        self._engine = engine
        self._journal = journal
        self._live = live
        self._clock = clock
        self.unjudged = Unjudged()
        self._bank: Bank | None = None
        self._offset_ns = clock.wall_ns(0)  # of the wall clock, at the last frame
        self._least_ns = 0  # no stamp is below it
        self._stepped_ns = 0  # by how much it has stepped since the start, in all
        self._scratch = decode.Scratch()
        self._ready: list[tuple[Scan, int, int, int, int]] = []
        self._is_scheduled = False
        self._next_turn_s = 0.0
        self._take(Parts(table))

    def _take(self, parts: Parts) -> None:
        """Begin with a table and empty columns."""
        table = parts.table
        self.parts = parts
        self.table = table
        self._writers = parts.writers
        self._totals, self._estimates, self._alone = parts.totals, parts.estimates, parts.alone
        self._rows_of = parts.rows_of
        self._image = np.zeros(table.image_bytes, np.uint8)
        self._image_view = memoryview(self._image)  # type: ignore[arg-type]
        self._reason = np.full(table.n, BAD_WAITING_FOR_INITIAL_DATA, np.uint32)  # 0 where the row was answered
        self._has_reason = [True] * len(self._rows_of)  # whether a row of the device has one
        self._is_in_line = [False] * len(self._rows_of)  # whether a frame of the device waits for this turn's kernels
        self._value = np.full(table.n, math.nan)
        self._quality = np.full(table.n, BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        self._quality_before = self._quality.copy()
        self._time_ns = np.zeros(len(table.scans), np.int64)  # what the frame is stamped with
        self._steady_ns = np.zeros(len(table.scans), np.int64)  # the same without the steps of the clock, for detectors
        self._score = np.zeros(table.n)  # of the last frame of each tag, and its flags
        self._flags = np.zeros(table.n, np.uint16)
        self._flags_before = np.zeros(table.n, np.uint16)
        self._standing: list[tuple[int, int]] = []  # limits that the last run left beyond: (row, bit)
        self._seen = Turn(
            NO_ROWS, self._steady_ns[None], self._time_ns[None], self._value[None], self._quality[None],
            self._score[None], self._flags[None],
        )  # fmt: skip
        self._misses = [0] * len(table.scans)
        self._now_ns = np.zeros(len(table.scans), np.int64)  # of the poll at hand

    def settle(self) -> None:
        """Take every frame that is complete through the line, so that nothing is left of this table's time."""
        self._turn()

    def turn_to(self, parts: Parts, bank: Bank | None) -> None:
        """Go on with a table that has grown, after `settle`: polls under way do not notice.

        bank  which has taken over what the one before had learnt, None while there is none
        The standing alarms follow by `resume`.
        """
        old = {name: getattr(self, name) for name in CARRIED}
        gone, table = parts.table.gone - self.table.gone, self.table
        for number in gone:
            self.strings.pop(table.devices[number].name, None)
            self.unexpected.pop(table.devices[number].name, None)
        parts.totals.take_over(self._totals)
        parts.estimates.take_over(self._estimates)
        self._take(parts)
        for name, column in old.items():
            getattr(self, name)[: len(column)] = column
        self._begin_behind()
        self._bank = bank

    def _begin_behind(self) -> None:
        """Let a device that is polled anew go on in time where it ended: per tag, time never goes back."""
        table = self.table
        last_ns: dict[str, int] = {}
        for scan in table.scans:
            if scan.device in table.gone:
                name = table.devices[scan.device].name
                last_ns[name] = max(last_ns.get(name, 0), int(self._time_ns[scan.number]))
        for scan in table.live:
            if not self._time_ns[scan.number]:
                self._time_ns[scan.number] = max(self._least_ns, last_ns.get(table.devices[scan.device].name, 0))

    def resume(self, standing: Iterable[AlarmRecord]) -> None:
        """Take the standing alarms of the last run: what is back to normal by now is seen at the first poll.

        One that the configuration no longer knows is an event, the last word about it.
        """
        beyond, forgotten = self._engine.restore(standing)
        for row, bit in beyond:
            self._standing.append((row, bit))
            if self._bank:
                self._bank.stand(row, bit)
            self._flags_before[row] |= bit
        now_ns = self._clock.wall_ns(self._clock.monotonic_ns())
        for old in forgotten:
            text = f"{old.tag or old.device} {old.text}: not configured any more"
            reason = f"{old.alarm}:{REMOVED}"
            self._journal.add(Event(now_ns, self.spool.boot, 0, "alarm", old.device, old.tag, 0, None, reason, text))

    @property
    def is_waiting(self) -> bool:
        """Whether frames wait for the next turn."""
        return bool(self._ready)

    @property
    def is_judging(self) -> bool:
        """Whether the detectors are loaded."""
        return self._bank is not None

    def judge_from_now(self, bank: Bank) -> None:
        """Let detectors judge every frame from now on, and first those that came while they were loaded."""
        for row, bit in self._standing:
            bank.stand(row, bit)
        self._turn()
        self._bank = bank
        for frame in self.unjudged.take():
            rows = slice(frame.scan.start, frame.scan.stop)
            self._value[rows], self._quality[rows], self._quality_before[rows] = (
                frame.value,
                frame.quality,
                frame.quality,
            )
            self._time_ns[frame.scan.number], self._steady_ns[frame.scan.number] = frame.time_ns, frame.steady_ns
            self._judge(bank, self._alone[frame.scan.number], {frame.scan.number: frame.seq})

    def not_before(self, wall_ns: int) -> str | None:
        """Give no stamp up to that one again; returns why not, where it is too far ahead to be waited for."""
        ahead_ns = wall_ns - self._clock.wall_ns(self._clock.monotonic_ns())
        if ahead_ns > MAX_AHEAD_NS:
            return f"the last stamps of the spool are {ahead_ns / NS / 3600:.0f} h ahead: time goes back"
        self._least_ns = wall_ns
        self._time_ns[:] = np.maximum(self._time_ns, wall_ns)
        return None

    def own(self, condition: str, step: Step, time_ns: int) -> None:
        """Move an alarm of the gateway itself."""
        if moved := self._engine.own(condition, step, time_ns):
            self._told(moved, self.spool.next_seq - 1)

    def note(self, reason: str, text: str, time_ns: int) -> None:
        """Make an event of what the gateway found out about itself."""
        self._journal.add(
            Event(time_ns, self.spool.boot, self.spool.next_seq - 1, "alarm", OWN, "", 0, None, reason, text)
        )

    def acknowledge(self, key: str, by: str) -> str | None:
        """Acknowledge a standing alarm by its key device/tag/alarm; returns why not, or None when it is done."""
        now = self._clock.wall_ns(self._clock.monotonic_ns())
        moved = self._engine.acknowledge(key, by, now)
        if not isinstance(moved, Transition):
            return moved
        self._told(moved, self.spool.next_seq - 1)
        return None

    def put(self, read: Read, payload: bytes) -> None:
        """Copy the answer of a read into the image."""
        if self._is_in_line[read.device]:
            self._turn()
        if not read.block.item_bytes:
            payload = decode.spread(payload, read.block.count)
        self._image_view[read.at : read.end] = payload
        if self._has_reason[read.device]:
            self._reason[read.rows] = 0

    def fail(self, read: Read, quality: int) -> None:
        """Take note that a read has no answer."""
        if self._is_in_line[read.device]:
            self._turn()
        self._reason[read.rows] = quality
        self._has_reason[read.device] = True

    def identify(self, device: int, name: str, text: str) -> None:
        """Take a string that a device told of itself."""
        if device in self.table.gone:
            return
        known = self.strings.setdefault(self.table.devices[device].name, {})
        if known.get(name) != text:
            known[name] = text
            self.strings_changed()

    def tell(self, device: int, point: str, quality: int, text: str, now_ns: int) -> None:
        """Make an event of what was found out about a device by one of its points."""
        if device in self.table.gone:
            return
        name, time_ns = self.table.devices[device].name, self._clock.wall_ns(now_ns)
        if quality & BAD:
            self.unexpected[name] = text
        else:
            self.unexpected.pop(name, None)
        reason, seq = name_of(quality), self.spool.next_seq
        self._journal.add(Event(time_ns, self.spool.boot, seq, "quality", name, point, quality, None, reason, text))

    def doubtful(self, scan: Scan, now_ns: int) -> NDArray[np.int32]:
        """Return the rows of a scan that must be read again before it is finished: what no counter can show."""
        if not self._totals.has(scan):
            return NO_ROWS
        if self._is_in_line[scan.device]:
            self._turn()
        ready = self._alone[scan.number]
        self._decode(ready)
        self._now_ns[scan.number] = self._steady(now_ns)[1]
        return self._totals.doubtful(ready, self._now_ns, self._value, self._quality)

    def doubt(self, rows: NDArray[np.int32]) -> None:
        """Keep the samples of doubtful rows, which are read again now."""
        self._totals.doubt(rows, self._value)

    def finish(self, scans: Sequence[Scan], since: Sequence[int], began_ns: int, ended_ns: int) -> None:
        """Stamp the frames of a poll and take them through the kernels; a little later if others have just been.

        A poll that a reload has met half-way, of a device that is not configured any more, comes to nothing.
        """
        if scans[0].device in self.table.gone:
            return
        steady_ns = (began_ns + ended_ns) // 2 // STAMP_NS * STAMP_NS
        wall_ns, unstepped_ns = self._steady(steady_ns)
        doubt_ns = -(-max(ended_ns - steady_ns, steady_ns - began_ns) // STAMP_NS) * STAMP_NS
        if len(self._ready) + len(scans) > MAX_TURN:
            self._turn()
        for scan, due_ns in zip(scans, since, strict=True):
            time_ns = max(wall_ns, int(self._time_ns[scan.number]) + MS_NS)  # per tag, time never goes back
            self._time_ns[scan.number], self._steady_ns[scan.number] = time_ns, unstepped_ns
            offset_ns = time_ns - steady_ns
            self._ready.append((scan, due_ns // STAMP_NS * STAMP_NS + offset_ns, time_ns, doubt_ns, offset_ns))
        device = scans[0].device
        if self._has_reason[device]:
            self._has_reason[device] = bool(self._reason[self._rows_of[device]].any())
        self._is_in_line[device] = True
        if not self._is_scheduled:
            self._take_soon()

    def _steady(self, monotonic_ns: int) -> tuple[int, int]:
        """Return the Unix time of a moment, and the same as if the wall clock had never stepped: for the detectors.

        Without a step both are the frame's stamp, so that a replay of the spool computes what we compute.
        """
        wall_ns = self._clock.wall_ns(monotonic_ns)
        offset_ns = wall_ns - monotonic_ns
        if abs(offset_ns - self._offset_ns) >= STEP_NS:
            self._stepped_ns += offset_ns - self._offset_ns
        self._offset_ns = offset_ns
        return wall_ns, wall_ns - self._stepped_ns

    def _take_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_turn_s:
            self._is_scheduled = True
            loop.call_at(self._next_turn_s, self._on_schedule)
        else:
            self._turn()
            self._next_turn_s = loop.time() + TURN_GAP_S

    def _on_schedule(self) -> None:
        self._is_scheduled = False
        self._turn()
        self._next_turn_s = asyncio.get_running_loop().time() + TURN_GAP_S

    def _turn(self) -> None:
        """Take every frame that is complete through decode, detect, alarm, spool and out to the live lane."""
        if not self._ready:
            return
        taken, self._ready = self._ready, []
        table = self.table
        numbers = [each[0].number for each in taken]
        ready = self._alone[numbers[0]] if len(numbers) == 1 else np.array(numbers, np.int32)
        self._decode(ready)
        counted = self._totals.update(ready, self._steady_ns, self._value, self._quality)
        counted += self._estimates.update(ready, self._steady_ns, self._value, self._quality)
        seq = self.spool.next_seq
        for row, verdict in counted:
            self._tell_total(row, verdict, seq + numbers.index(table.scan_of[row]))
        seq_of = {number: seq + k for k, number in enumerate(numbers)}
        if self._bank is None:
            self._wait(taken, seq_of)
        else:
            self._judge(self._bank, ready, seq_of)
        for k, (scan, due_ns, time_ns, uncertainty_ns, offset_ns) in enumerate(taken):
            rows = slice(scan.start, scan.stop)
            value, quality = self._value[rows], self._quality[rows]
            self.spool.append(Frame(scan, seq + k, due_ns, time_ns, uncertainty_ns, value, quality, offset_ns))
            self._live.offer(scan.device, seq + k, self._writers[scan.number].line(value, quality, time_ns))
            self._watch(scan, seq + k)
            self._is_in_line[scan.device] = False
            self.values_read += scan.stop - scan.start
        self._live.flush()

    def _wait(self, taken: Sequence[tuple[Scan, int, int, int, int]], seq_of: Mapping[int, int]) -> None:
        """Keep frames that no detector has seen yet."""
        for scan, _, time_ns, _, _ in taken:
            rows = slice(scan.start, scan.stop)
            steady_ns = int(self._steady_ns[scan.number])
            value, quality = self._value[rows].copy(), self._quality[rows].copy()
            self.unjudged.add(_Unjudged(scan, seq_of[scan.number], time_ns, steady_ns, value, quality))
            for row in np.flatnonzero(quality != self._quality_before[rows]).tolist():
                self._tell_quality(scan.start + row, time_ns, seq_of[scan.number])
            self._quality_before[rows] = quality

    def _judge(self, bank: Bank, ready: NDArray[np.int32], seq_of: Mapping[int, int]) -> None:
        """Let the detectors see the ready frames, and tell what changed."""
        self._seen.ready = ready
        bank.update(self._seen)
        changed = bank.changed(ready, self._quality, self._quality_before, self._flags, self._flags_before)
        if changed.size:
            self._tell(changed, seq_of)

    def _decode(self, ready: NDArray[np.int32]) -> None:
        """Turn the answers of the ready scans into values and quality."""
        table, columns, s = self.table, self.table.decode, self._scratch
        decode.decode(
            ready, table.scan_start, table.scan_stop, self._image, self._reason,
            columns.at, columns.code, columns.size, columns.order, columns.bit,
            columns.scale, columns.divisor, columns.offset, columns.low, columns.high, columns.sentinel, columns.first,
            s.u8, s.i8, s.f8, s.u4, s.f4, self._value, self._quality,
        )  # fmt: skip

    def _tell_total(self, row: int, verdict: int, seq: int) -> None:
        """Tell what became of a counter's doubted sample; one that is not confirmed is told by its quality."""
        if reason := REASONS.get(verdict):
            name, value = self.table.tags[row].name, self._value[row]
            time_ns = int(self._time_ns[self.table.scan_of[row]])
            text = f"{name}: {reason}, goes on from {value:.12g}"
            self._add(row, time_ns, seq, "quality", reason, text, raw=self._raw(row))

    def _tell(self, rows: np.ndarray, seq_of: Mapping[int, int]) -> None:
        """Turn changed rows into events and alarm transitions, and settle what is now known."""
        table = self.table
        for row in map(int, rows):
            scan = int(table.scan_of[row])
            time_ns, seq = int(self._time_ns[scan]), seq_of[scan]
            before, now = int(self._flags_before[row]), int(self._flags[row])
            if self._quality[row] != self._quality_before[row]:
                self._tell_quality(row, time_ns, seq)
            for bit in bits.NAMES:
                if (before ^ now) & bit:
                    self._tell_flag(row, bit, bool(now & bit), time_ns, seq)
            self._flags_before[row] = self._flags[row]
            self._quality_before[row] = self._quality[row]

    def _tell_quality(self, row: int, time_ns: int, seq: int) -> None:
        quality, before = int(self._quality[row]), int(self._quality_before[row])
        if before == BAD_WAITING_FOR_INITIAL_DATA and not quality:
            return  # the first good value of a run is what everybody expects
        tag = self.table.tags[row]
        raw = self._raw(row) if quality & BAD and not self._reason[row] else None
        text = f"{tag.name}: {name_of(before)} -> {name_of(quality)}"
        self._add(row, time_ns, seq, "quality", name_of(quality), text, raw=raw)

    def _tell_flag(self, row: int, bit: int, is_on: bool, time_ns: int, seq: int) -> None:
        tag = self.table.tags[row]
        name = bits.NAMES[bit]
        if bit & bits.LIMITS:
            step = Step.RAISE if is_on else Step.CLEAR
            moved = self._engine.tag(row, bit, step, time_ns, float(self._value[row]))
            if moved:
                self._told(moved, seq)
        elif is_on:
            score = float(self._score[row])
            self._add(row, time_ns, seq, "anomaly", name, f"{tag.name}: {bits.MEANING[bit]}", score=score)

    def _watch(self, scan: Scan, seq: int) -> None:
        """Raise or clear the communication alarm: a device is away when MISSES polls in a row found nobody there."""
        is_away = self._has_reason[scan.device] and self._is_away(scan)
        misses = self._misses[scan.number] = self._misses[scan.number] + 1 if is_away else 0
        if is_away and misses != MISSES:
            return
        step = Step.RAISE if is_away else Step.CLEAR
        moved = self._engine.device(scan.device, step, int(self._time_ns[scan.number]))
        if moved:
            self._told(moved, seq)

    def _is_away(self, scan: Scan) -> bool:
        """Return whether nobody answered any row of a scan, and some of them because nobody was there."""
        found = set(self._reason[scan.start : scan.stop].tolist())
        return 0 not in found and not found.isdisjoint((BAD_TIMEOUT, BAD_NO_COMMUNICATION))

    def _told(self, moved: Transition, seq: int) -> None:
        """Write an alarm's transition into the journal, with the tag's value now."""
        record = moved.record
        value = float(self._value[moved.row]) if moved.row >= 0 else math.nan
        quality = BAD_NO_COMMUNICATION if record.alarm == COMMUNICATION and moved.step is Step.RAISE else 0
        text = f"{record.tag or record.device} {record.text}: {record.state}" + (
            f" by {record.by}" if record.by else ""
        )
        self._journal.add(
            Event(
                record.changed,
                self.spool.boot,
                seq,
                "alarm",
                record.device,
                record.tag,
                quality,
                None if math.isnan(value) else value,
                f"{record.alarm}:{moved.step}",
                text,
            )
        )

    def _add(
        self,
        row: int,
        time_ns: int,
        seq: int,
        kind: EventKind,
        reason: str,
        text: str,
        *,
        raw: str | None = None,
        score: float | None = None,
    ) -> None:
        device = self.table.devices[int(self.table.device_of[row])]
        value = float(self._value[row])
        self._journal.add(
            Event(
                time_ns,
                self.spool.boot,
                seq,
                kind,
                device.name,
                self.table.tags[row].name,
                int(self._quality[row]),
                None if math.isnan(value) else value,
                reason,
                text,
                raw,
                score,
            )
        )

    def _raw(self, row: int) -> str:
        """Return the registers of a row as they came, in hexadecimal."""
        at = int(self.table.decode.at[row])
        return bytes(self._image_view[at : at + int(self.table.decode.size[row])]).hex()


def _rows_of(table: TagTable) -> list[slice]:
    """Return the rows of each device, which stand together."""
    out = [slice(0, 0)] * len(table.devices)
    for scan in table.scans:
        rows = out[scan.device]
        out[scan.device] = slice(rows.start if rows.stop else scan.start, scan.stop)
    return out
