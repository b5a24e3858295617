"""What a writer of a spool was promised, and whether a folder keeps it: the spool seen from outside only.

The writer tells every step in a line, in the order in which things happen:

    BOOT 3                          the spool is open, this is its boot number
    APPENDED 3 17                   frames up to 17 were appended
    ATTACHED 3:5                    this memo was attached
    COMMIT boot=3 seq=17            (by the spool itself) and are on the disk
    KEPT                            memos are kept elsewhere: a new segment is begun
    HELD 2:5-90 3:1-17              what the spool says it holds of each boot, after every opening and commit
    DROPPED 40 4321                 frames and good values that it says went unsent, likewise
    ACK 2 5 9                       these are acknowledged
    KNOWN 2:5-9                     after an opening: what of the acknowledgements before it outlived the restart

Promises
    A frame whose COMMIT (or HELD) was told is held, bit for bit, until the cap drops it; the oldest go first.
    What goes without an acknowledgement is counted, to the frame and to the value, and nothing else is.
    So is a memo that was attached before a COMMIT, until a new segment is begun. They come in their order.
    No frame comes twice, none that was never appended. A boot number is higher than every one before it.
    The folder never exceeds its cap. It opens whatever happened, and works.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from drivers.quality import BAD
from gateway.model.frame import Frame
from gateway.model.ranges import RangeSet
from gateway.spool import disk, files
from gateway.spool.disk import DiskSpool
from gateway.spool.record import SpooledFrame
from gateway.spool.spool import START
from gateway.wire.frame_lines import ScanText
from tests.contract.test_spools import everything
from tests.faults.goals import Goal
from tests.gateway import frames

MAX_BYTES: Final = 1_000_000  # the smallest cap that a configuration may ask for: it rotates and drops soon
ROWS: Final = 600  # of a frame: 4 KB in the spool, so that a full one has 200 and is read in no time
SCANS: Final = 2
BOOT_NS: Final = 1_000_000 * frames.SECOND  # frames of different boots never share a time
BOOTS: Final = 1_000  # more than a test has; a boot number that a disk could not remember is in the billions
TEXTS: Final = frames.texts(SCANS, ROWS)
Key = tuple[int, int]  # boot, seq


def opened(folder: Path, texts: Sequence[ScanText] = TEXTS) -> DiskSpool:
    """Open the spool under test."""
    return DiskSpool(folder, MAX_BYTES, "cat1", texts)


@functools.lru_cache(maxsize=2_000)  # 15 MB
def frame(boot: int, seq: int, rows: int = ROWS) -> Frame:
    """Return the one frame that has this number."""
    made = frames.frame(seq, seq % SCANS, rows, seed=boot * 1_000_003 + seq)
    later = boot % BOOTS * BOOT_NS
    return dataclasses.replace(made, due_ns=made.due_ns + later, time_ns=made.time_ns + later)


def n_good(boot: int, seq: int, rows: int = ROWS) -> int:
    """Return how many values of a frame may be used."""
    return int(np.count_nonzero(frame(boot, seq, rows).quality & BAD == 0))


def is_same(found: SpooledFrame, boot: int) -> bool:
    """Return whether a frame is the one that was appended: times, qualities and good values bit for bit."""
    wanted = frame(boot, found.seq, found.value.size)
    return (
        (found.scan, found.due_ns, found.time_ns, found.uncertainty_ns)
        == (wanted.scan.number, wanted.due_ns, wanted.time_ns, wanted.uncertainty_ns)
        and np.array_equal(found.quality, wanted.quality)
        and np.where(np.isnan(found.value), np.nan, found.value).tobytes() == wanted.value.tobytes()
    )


class Promises:
    """Everything that a writer was told so far, over all its boots."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.boot = 0
        self.newest = 0  # frame of this boot that was ever held
        self.appended: dict[int, int] = {}
        self.held: set[Key] = set()
        self.acked: set[Key] = set()
        self.dropped = self.dropped_values = 0
        self.told = 0  # dropped, by the spool's own count
        self.committed = self.lost = 0  # frames that were ever held; of these, gone where none may go
        self.attached: list[str] = []  # memos: before the next commit,
        self.memos: list[str] = []  # safe
        self.broken: list[str] = []
        for line in lines:
            self.hear(line)

    def copy(self) -> Promises:
        """Return the same promises, to go on with on another way."""
        other = Promises()
        other.boot, other.newest, other.appended = self.boot, self.newest, dict(self.appended)
        other.held, other.acked = set(self.held), set(self.acked)
        other.dropped, other.dropped_values = self.dropped, self.dropped_values
        other.committed, other.lost, other.told = self.committed, self.lost, self.told
        other.attached, other.memos = list(self.attached), list(self.memos)
        other.broken = list(self.broken)
        return other

    def forget(self) -> None:
        """Keep the counts only: thousands are judged in one run."""
        self.held, self.acked = set(), set()

    def hear(self, line: str) -> None:
        """Take a line of the writer; what contradicts an earlier one is noted as broken."""
        word, *rest = line.replace("boot=", "").replace("seq=", "").split()
        if word == "BOOT":
            if int(rest[0]) <= self.boot:
                self.broken.append(f"boot {rest[0]} was given after boot {self.boot}")
            self.boot, self.newest = int(rest[0]), 0
            self.attached.clear()
            self.appended[self.boot] = 0
        elif word == "APPENDED":
            self.appended[int(rest[0])] = int(rest[1])
        elif word == "ATTACHED":
            self.attached.append(rest[0])
        elif word == "KEPT":
            self.attached.clear()
            self.memos.clear()
        elif word == "COMMIT":
            self.memos += self.attached
            self.attached.clear()
            boot, last = int(rest[0]), int(rest[1])
            while last > 0 and (boot, last) not in self.held:
                self.held.add((boot, last))
                self.committed += 1
                last -= 1
        elif word == "ACK":
            self.acked |= {(int(rest[0]), seq) for seq in range(int(rest[1]), int(rest[2]) + 1)}
        elif word == "HELD":
            self.see(_keys(rest))
        elif word == "KNOWN":
            self._remember(_keys(rest))
        elif word == "DROPPED":
            self.count(int(rest[0]), int(rest[1]))
        else:
            raise ValueError(f"a writer does not say {line!r}")

    def see(self, held: set[Key]) -> None:
        """Take what is held now: what is not there any more was dropped, oldest first."""
        never = sorted(key for key in held if key[1] > self.appended.get(key[0], 0))
        if never:
            self.broken.append(f"held, but never appended: {_text(never)}")
        present = [seq for boot, seq in held if boot == self.boot]
        unseen = range(self.newest + 1, min(present, default=0))  # went in the commit that brought them
        gone = (self.held - held) | {(self.boot, seq) for seq in unseen}
        self.newest = max(present, default=self.newest)
        oldest = min(held, default=(0, 0))  # a cap never takes everything
        lost = sorted(key for key in gone if key > oldest)
        if lost:
            self.lost += len(lost)
            self.broken.append(f"lost, and not the oldest: {_text(lost)}")
        self.dropped += len(gone - self.acked)
        self.dropped_values += sum(n_good(*key) for key in gone - self.acked)
        self.committed += len(held - self.held) - len(never)
        self.held = held - set(never)

    def recall(self, found: Sequence[str]) -> None:
        """Take the memos that an opening finds."""
        rest = iter(found)
        if lost := [memo for memo in self.memos if memo not in rest]:  # in this order
            self.broken.append(f"memos that were safe are lost: {lost[:4]}")

    def count(self, dropped: int, values: int) -> None:
        """Take what the spool says it has dropped, after it was seen what it holds."""
        self.told = dropped
        if (dropped, values) != (self.dropped, self.dropped_values):
            told = f"{dropped} frames, {values} values"
            self.broken.append(f"counted {told} as dropped, but {self.dropped}, {self.dropped_values} went")

    def _remember(self, known: set[Key]) -> None:
        if known - self.acked:
            self.broken.append(f"known as acknowledged, but never were: {_text(sorted(known - self.acked))}")
        self.acked = known


def goal(fault: str, judged: Sequence[Promises]) -> Goal:
    """Return the row of the goals table of what was judged, each once its fault was over."""
    return Goal(
        fault,
        times=len(judged),
        committed=sum(each.committed for each in judged),
        lost=sum(each.lost for each in judged),
        told=sum(each.told for each in judged),
        found=sum(each.dropped for each in judged),
    )


def _keys(spans: Iterable[str]) -> set[Key]:
    out = set()
    for span in spans:
        boot, _, ends = span.partition(":")
        first, _, last = ends.partition("-")
        out |= {(int(boot), seq) for seq in range(int(first), int(last) + 1)}
    return out


def _text(keys: list[Key]) -> str:
    return ", ".join(f"{boot}:{seq}" for boot, seq in keys[:4]) + (f" and {len(keys) - 4} more" if keys[4:] else "")


def held_text(held: Iterable[tuple[int, RangeSet]]) -> str:
    """Return ranges of boots as the words of HELD and KNOWN."""
    return " ".join(f"{boot}:{first}-{last}" for boot, ranges in held for first, last in ranges)


def known(spool: DiskSpool) -> str:
    """Return what a spool that holds no gaps knows to be acknowledged, as the words of KNOWN."""
    acked = []
    for boot, (first, last) in spool.boots().items():
        acked.append((boot, RangeSet((seq, seq) for seq in range(first, last + 1) if spool.is_acked(boot, seq))))
    return held_text(acked)


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process judge a folder without waiting: no syncs, no threads, no log of what is damaged on purpose."""

    async def at_once(call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    for log in (disk.log, files.log):
        monkeypatch.setattr(log, "disabled", True)


async def broken(folder: Path, promises: Promises) -> list[str]:
    """Return what a folder does not keep of the promises; empty is good. Opens it twice, and writes to it."""
    try:
        return await _broken(folder, promises)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return [*promises.broken, f"raised {error!r}"]


async def _broken(folder: Path, promises: Promises) -> list[str]:
    spool = opened(folder)
    promises.hear(f"BOOT {spool.boot}")
    promises.recall([memo.decode() for memo in spool.attached()])
    promises.see(keys(spool.boots()))
    _look(promises, spool, folder)
    promises.hear(f"KNOWN {known(spool)}")
    for seq in range(1, 4):
        spool.append(frame(spool.boot, seq))
        promises.hear(f"APPENDED {spool.boot} {seq}")
        await spool.commit()
        promises.hear(f"COMMIT boot={spool.boot} seq={seq}")
    (folder / "cursor").unlink(missing_ok=True)  # never synced: so everything is sent again, and is seen
    again = opened(folder)
    promises.hear(f"BOOT {again.boot}")
    promises.see(await _backlog(again, promises))
    _look(promises, again, folder)
    return promises.broken


def keys(boots: Mapping[int, tuple[int, int]]) -> set[Key]:
    """Return the frames of a spool without gaps from what it says of its boots."""
    return {(boot, seq) for boot, (first, last) in boots.items() for seq in range(first, last + 1)}


async def _backlog(spool: DiskSpool, promises: Promises) -> set[Key]:
    """Return all frames of a spool without acknowledgements; what differs from what was appended is broken."""
    position, found, wrong = START, [], []
    while batch := await spool.unsent(position, everything):
        position = batch.position
        found += [(batch.boot, frame.seq) for frame in batch.frames]
        is_right = batch.texts == TEXTS
        wrong += [(batch.boot, sent.seq) for sent in batch.frames if not is_right or not is_same(sent, batch.boot)]
    if wrong:
        promises.broken.append(f"differ from what was appended: {_text(wrong)}")
    if found != sorted(set(found)):
        promises.broken.append(f"{len(found)} frames are sent, {len(set(found))} different ones, or not in order")
    return set(found)


def _look(promises: Promises, spool: DiskSpool, folder: Path) -> None:
    told = spool.statistics()
    promises.count(told.dropped, told.dropped_values)
    if told.state != "ok":
        promises.broken.append(f"its state is {told.state}: {told.errors}")
    if size(folder) > MAX_BYTES:
        promises.broken.append(f"the folder has {size(folder)} bytes")
