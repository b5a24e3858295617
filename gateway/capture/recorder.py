"""What keeps the traffic around faults and events: looks at the links' rings, and writes captures beside the loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import get_ident
from typing import Final

from drivers.errors import DeviceException, DriverError, LinkDown, NoAnswer
from drivers.link import Link, LinkSpec, Traffic
from drivers.quality import GOOD
from gateway import __version__
from gateway.capture.file import Capture, capture_of, encode
from gateway.model.clock import NS, Clock
from gateway.model.corridor import GatewaySpec
from gateway.wire.events import Event

log = logging.getLogger(__name__)

LOOK_S: Final = 0.1  # the ring holds 0.16 s of the fastest meters there are: 5 ms an exchange, four pieces each
AFTER_S: Final = 2.0  # a late answer and the fence against it come within a time-out or two
AFTER_PIECES: Final = 256  # twice what came before; on a fast link that is half a second
MAX_REASONS: Final = 16  # of one capture; a link that goes takes hundreds of tags with it
QUIET_S: Final = 600.0  # between two captures of one link for one kind of fault,
QUIET_CAP_S: Final = 86_400.0  # doubling while it lasts: a dead meter has nine on its first day, then one a day
MAX_FILES: Final = 500
MAX_BYTES: Final = 32_000_000  # some 500 captures of a meter with 80 points; next to nothing on an SD card of 8 GB
MAX_WAITING: Final = 8  # captures that a slow disk has not taken; beyond them new ones are lost and counted
LAST_S: Final = 0.2  # at the end, for those that are open or wait: SIGTERM must end within 2 s


@dataclass(slots=True)
class CaptureCounters:
    """What became of the captures; `failed` were not written, because of the disk or because too many came at once."""

    written: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Open:
    """A capture that still waits for what comes after its fault."""

    until_ns: int
    time_ns: int
    pieces: list[Traffic]
    why: list[str]
    kind: str
    n_before: int


@dataclass(slots=True)
class _Watched:
    """One link, and what was seen of it.

    last  the newest piece that was looked at
    noticed  kind of event -> the first one since the last look
    quiet  kind of fault -> (no capture before, the pause after the next one)
    """

    spec: LinkSpec
    link: Link
    last: Traffic | None = None
    counted: tuple[int, int, int] = (0, 0, 0)
    noticed: dict[str, str] = field(default_factory=dict)
    quiet: dict[str, tuple[int, float]] = field(default_factory=dict)
    open: _Open | None = None

    def new_pieces(self) -> tuple[list[Traffic], bool]:
        """Return what came since the last look, and whether the ring still held all of it."""
        out: list[Traffic] = []
        is_whole = self.last is None
        for piece in reversed(self.link.ring):
            if piece is self.last:
                is_whole = True
                break
            out.append(piece)
        if out:
            self.last = out[0]
        return out[::-1], is_whole

    def faults(self, new: Sequence[Traffic]) -> Iterator[tuple[str, str]]:
        """Yield kind and text of every fault in new pieces, of what only counters tell, and of events."""
        for _, what_happened, what in new:
            if what_happened == "end" and isinstance(what, DriverError):
                yield _kind_of(what), str(what)
            elif what_happened == "down":
                yield "lost", str(what)
        seen = self.link.counters
        counted = (seen.crc_errors, seen.foreign_frames, seen.late_frames)
        for kind, now, before in zip(("checksum", "foreign", "late"), counted, self.counted, strict=True):
            if now > before:
                yield kind, f"{now - before} frames"
        self.counted = counted
        yield from self.noticed.items()
        self.noticed.clear()

    def may_capture(self, kind: str, now_ns: int) -> bool:
        """Return whether a capture for this kind of fault is due, and begin the pause after it."""
        due_ns, pause_s = self.quiet.get(kind, (0, QUIET_S))
        if now_ns < due_ns:
            return False
        if now_ns - due_ns > pause_s * NS:
            pause_s = QUIET_S  # it had gone
        self.quiet[kind] = (now_ns + round(pause_s * NS), min(2 * pause_s, QUIET_CAP_S))
        return True


class Recorder:
    """The captures of a gateway; `counters` for its health."""

    def __init__(self, spec: GatewaySpec, links: Mapping[str, Link], folder: Path, clock: Clock) -> None:
        self.counters = CaptureCounters()
        self._spec = spec
        self._folder = folder
        self._clock = clock
        self._links = {link.name: _Watched(link, links[link.name]) for link in spec.links}
        self._link_of = {device.name: device.link for device in spec.devices}
        self._waiting: deque[tuple[str, Capture]] = deque()
        self._has_waiting = asyncio.Event()
        self._is_failing = False
        self._is_crowded = False

    def turn_to(self, spec: GatewaySpec, links: Mapping[str, Link]) -> None:
        """Watch the links of a changed specification; a capture that is open of one that is gone is closed."""
        for watched in self._links.values():
            if links.get(watched.spec.name) is not watched.link:
                self._close(watched)
        before = {name: watched for name, watched in self._links.items() if links.get(name) is watched.link}
        self._links = {link.name: before.get(link.name) or _Watched(link, links[link.name]) for link in spec.links}
        self._link_of = {device.name: device.link for device in spec.devices}
        self._spec = spec

    def notice(self, event: Event) -> None:
        """Take an event: the traffic of its device is captured, unless it says that something is well again."""
        is_bad = event.quality != GOOD if event.kind == "quality" else event.reason.endswith(":raise")
        if event.device in self._link_of and (is_bad or event.kind == "anomaly"):
            watched = self._links[self._link_of[event.device]]
            watched.noticed.setdefault(event.kind, f"{event.device}: {event.text}")

    async def run(self) -> None:
        """Look at the links until cancelled; then write what is at hand."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(), name="captures")
                while True:
                    self.look()
                    await self._clock.sleep_until(self._clock.monotonic_ns() + round(LOOK_S * NS))
        finally:
            self._write_last()

    def look(self) -> None:
        """Take what came since the last look."""
        for watched in self._links.values():
            new, is_whole = watched.new_pieces()
            found = watched.open
            if found is not None:
                if is_whole:
                    found.pieces += new
                n_after = len(found.pieces) - found.n_before
                is_over = self._clock.monotonic_ns() >= found.until_ns or n_after >= AFTER_PIECES
                if is_over or not is_whole:  # what the ring has lost meanwhile cannot be left out of the middle
                    self._close(watched)
            for kind, text in watched.faults(new):
                self._capture(watched, kind, text)

    def _capture(self, watched: _Watched, kind: str, text: str) -> None:
        """Begin a capture, or add a reason to the one that is open."""
        now_ns = self._clock.monotonic_ns()
        pieces = list(watched.link.ring)
        if not pieces or not watched.may_capture(kind, now_ns):
            return
        if watched.open is None:
            time_ns = self._clock.wall_ns(now_ns) - _age_ns(pieces[0])
            watched.open = _Open(now_ns + round(AFTER_S * NS), time_ns, pieces, [], kind, len(pieces))
        if len(watched.open.why) < MAX_REASONS:
            watched.open.why.append(f"{kind}: {text}")

    def _close(self, watched: _Watched) -> None:
        """Hand a capture to the disk."""
        found, watched.open = watched.open, None
        if found is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.counters.failed += 1
            if not self._is_crowded:
                log.warning(
                    "more faults at once than the disk takes captures of: that of %s is lost", watched.spec.name
                )
            self._is_crowded = True
            return
        self._is_crowded = False
        name = f"{_stamp(found.time_ns)}-{watched.spec.name}-{found.kind}.jsonl"
        capture = capture_of(self._spec, watched.spec, __version__, found.time_ns, found.why, found.pieces)
        self._waiting.append((name, capture))
        self._has_waiting.set()

    async def _write(self) -> None:
        """Write what waits, one after the other, in a thread."""
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            while self._waiting:
                name, capture = self._waiting[0]
                try:
                    await asyncio.to_thread(keep, self._folder, name, capture)
                except OSError as error:
                    self._tell_failure(error)
                else:
                    self._tell_success(name, capture)
                self._waiting.popleft()

    def _write_last(self) -> None:
        """Write what is open and what waits, for as long as there is time; what was under way is written again."""
        self.look()
        for watched in self._links.values():
            self._close(watched)
        until_ns = self._clock.monotonic_ns() + round(LAST_S * NS)
        while self._waiting and self._clock.monotonic_ns() < until_ns:
            name, capture = self._waiting.popleft()
            try:
                keep(self._folder, name, capture)
            except OSError as error:
                self._tell_failure(error)
                return
            self._tell_success(name, capture)

    def _tell_success(self, name: str, capture: Capture) -> None:
        self.counters.written += 1
        self._is_failing = False
        log.info("captured %s: %s", name, "; ".join(capture.why[:1]))

    def _tell_failure(self, error: OSError) -> None:
        self.counters.failed += 1
        if not self._is_failing:
            log.error("captures cannot be kept in %s: %s", self._folder, error.strerror or error)
        self._is_failing = True


def keep(folder: Path, name: str, capture: Capture) -> None:
    """Write a capture and remove the oldest ones beyond MAX_FILES and MAX_BYTES; raises OSError.

    It is not synced: what a power cut tears is told when it is read, and a capture is not worth the wear.
    """
    content = encode(capture)
    folder.mkdir(parents=True, exist_ok=True)
    _make_room(folder, len(content))
    fresh = folder / f"{name}.{get_ident()}.new"  # the end of the process may write what a thread is at
    try:
        fresh.write_bytes(content)
        fresh.replace(folder / name)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _make_room(folder: Path, n_bytes: int) -> None:
    kept = sorted((path.name, path.stat().st_size) for path in folder.glob("*.jsonl*"))
    total = sum(size for _, size in kept) + n_bytes
    n_files = len(kept) + 1
    for name, size in kept:
        if total <= MAX_BYTES and n_files <= MAX_FILES:
            break
        (folder / name).unlink(missing_ok=True)
        total -= size
        n_files -= 1


def _age_ns(piece: Traffic) -> int:
    return round((asyncio.get_running_loop().time() - piece[0]) * NS)


def _kind_of(error: DriverError) -> str:
    if isinstance(error, NoAnswer):
        return "timeout"
    if isinstance(error, DeviceException):
        return "exception"
    return "lost" if isinstance(error, LinkDown) else "wrong"


def _stamp(time_ns: int) -> str:
    """Return a time as a file name that sorts: UTC, to the millisecond."""
    return datetime.fromtimestamp(time_ns // 1_000_000 / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
