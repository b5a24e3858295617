"""What a power cut may leave of a folder: images made from the recorded operations of the process that wrote it.

A process writes into the page cache; the disk follows when it likes, and has to only where the process waits for a
sync. So at the moment of a cut a folder has a certain part, which was waited for, and a pending part, of which
anything may be there:

    operations   w1 w2 sync w3 rename w4 | cut
    certain      ^^^^^^^^^^              |
    pending                 ^^^^^^^^^^^^ |   each sector of w3, w4 in one of the states that it went through

    sector of a file    certain content -> after w1 -> after w3     a sector is never torn in itself, and holds one of
                               0              1            2        these; other sectors choose by themselves

POSIX, which promises nothing else
    fsync or fdatasync makes a file certain, but not its name; fsync of a folder makes its names certain. Each pending
    creation, renaming and removal has happened or not, whatever became of the others; a renaming is never halved. The
    size of a file is one of those it had, whatever became of its data: what is missing reads as zeros.

EXT4, data=ordered
    Names and sizes are journaled: of what is pending a prefix is there, never a later operation without an earlier.
    fsync commits the whole journal, of all files. fdatasync does so only if the file's size is pending: after an
    overwrite in place it makes data certain and nothing else. A file that grows gets its blocks late (delayed
    allocation): its new size enters the journal with fsync, with a renaming over another file (auto_da_alloc), or
    at any time, here: last. Data behind the old size are on the disk before the journal tells the new one, so no zeros
    or old bytes are seen there. An overwrite in place is of no journal: each sector as in POSIX.

A `Fate` says how much of the pending part the disk had done by itself: FATES has the extremes and a random one. A disk
that returns from a sync before it has written is not modelled: nothing could be promised on it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from tests.faults.strace import Cut, Made, Operation, Removed, Renamed, Said, Synced, Written

SECTOR: Final = 512  # bytes; what a disk writes whole or not at all
PAGE: Final = 4096  # bytes; a growing file grows by these
Image = Mapping[str, bytes | None]  # name -> content, None for a folder
Kept = Literal["none", "all", "random", "all but the last", "only the last"]


@dataclass(frozen=True, slots=True)
class Fate:
    """How much of the pending names, and of the pending data, is on the disk."""

    names: Kept
    data: Kept


FATES: Final[Mapping[str, Fate]] = {
    "all lost": Fate("none", "none"),
    "all kept": Fate("all", "all"),
    "last write torn": Fate("all", "all but the last"),
    "reverse order": Fate("only the last", "only the last"),
    "names without data": Fate("all", "none"),
    "data without names": Fate("none", "all"),
    "random": Fate("random", "random"),
}


@dataclass(slots=True)
class File:
    """A file, or a folder: what it holds for the process, and what of it is certain.

    pending  sector -> (number of the write, content after it) of every write since the last sync
    sizes    every size since the last sync
    told     EXT4: the size in the journal, committed or not
    """

    is_folder: bool = False
    live: bytearray = field(default_factory=bytearray)
    certain: bytes = b""
    pending: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    told: int = 0

    def write(self, number: int, at: int, data: bytes) -> None:
        """Take a write."""
        self._grow(at + len(data))
        self.live[at : at + len(data)] = data
        self._note(number, at, at + len(data))

    def cut(self, number: int, size: int) -> None:
        """Take another size: what was behind it is zeros, should the file ever grow again."""
        before = len(self.live)
        del self.live[size:]
        self._grow(size)
        self.sizes.append(size)
        self._note(number, size, before)

    def _grow(self, size: int) -> None:
        if size > len(self.live):
            self.live.extend(bytes(size - len(self.live)))
            self.sizes.append(size)

    def _note(self, number: int, start: int, stop: int) -> None:
        for sector in range(start // SECTOR, -(-stop // SECTOR)):
            content = bytes(self.live[sector * SECTOR : (sector + 1) * SECTOR]).ljust(SECTOR, b"\0")
            self.pending.setdefault(sector, []).append((number, content))

    def sync(self) -> None:
        """Make all of it certain."""
        self.certain = bytes(self.live)
        self.pending.clear()
        self.sizes.clear()


@dataclass(frozen=True, slots=True)
class Entry:
    """A pending change of a name: `file` gets `name` (None: no name any more) and loses `old`.

    EXT4 has a second kind, in which a file without names gets a new size: `write` is the last write that it covers.
    """

    file: File
    name: str | None = None
    old: str | None = None
    size: int | None = None
    write: int = 0


class Disk:
    """The folder of one moment, in the model POSIX; see EXT4 below."""

    def __init__(self) -> None:
        self.names: dict[str, File] = {}  # as the process sees them
        self.certain: dict[str, File] = {}
        self.pending: list[Entry] = []
        self.n_writes = 0

    def do(self, operation: Operation) -> None:
        """Take the next operation."""
        match operation:
            case Made(name, is_folder):
                self._enter(Entry(File(is_folder), name))
            case Written(name, at, data):
                self.n_writes += 1
                self.names[name].write(self.n_writes, at, data)
            case Cut(name, size):
                self.n_writes += 1
                self.cut(self.names[name], size)
            case Renamed(old, new):
                if new in self.names:
                    self.replace(self.names[old])
                self._enter(Entry(self.names[old], new, old))
            case Removed(name):
                self._enter(Entry(self.names[name], None, name))
            case Synced(name, data_only):
                self.sync(name, self.names.get(name), data_only)

    def _enter(self, entry: Entry) -> None:
        self.pending.append(entry)
        _apply(entry, self.names)

    def cut(self, file: File, size: int) -> None:
        """A file gets another size."""
        file.cut(self.n_writes, size)

    def replace(self, file: File) -> None:
        """A file is about to get a name that another one has."""

    def sync(self, name: str, file: File | None, data_only: bool) -> None:
        """A sync has returned; the root of the recording is a folder without a File."""
        if file is not None and not file.is_folder:
            file.sync()
            return
        below = [entry for entry in self.pending if _folder_of(entry) == name]
        for entry in below:
            _apply(entry, self.certain)
            self.pending.remove(entry)

    def image(self, fate: Fate, rng: random.Random) -> Image:
        """Return what a cut leaves now."""
        names = dict(self.certain)
        for entry in _some(self.pending, fate.names, rng):
            _apply(entry, names)
        return self._contents(names, {id(f): self._content(f, fate, rng) for f in names.values() if not f.is_folder})

    def _content(self, file: File, fate: Fate, rng: random.Random) -> bytes:
        size = len(file.live)
        if fate.data == "none":
            size = len(file.certain)
        elif fate.data == "random":
            size = rng.choice([len(file.certain), *file.sizes])
        return self._sectors(file, size, fate.data, rng, {})

    def _sectors(self, file: File, size: int, kept: Kept, rng: random.Random, least: Mapping[int, int]) -> bytes:
        """Return a file with each pending sector in one of its states; least[sector] of them are certain."""
        out = bytearray(max(size, len(file.certain)))
        out[: len(file.certain)] = file.certain
        out[size:] = bytes(len(out) - size)
        torn_at = rng.random()
        for k, (sector, states) in enumerate(sorted(file.pending.items())):
            n = len(states)
            is_last = states[-1][0] == self.n_writes
            if kept == "none" or (kept == "only the last" and not is_last):
                n = 0
            elif kept == "random":
                n = rng.randint(0, n)
            elif kept == "all but the last" and is_last and k >= torn_at * len(file.pending):
                n -= 1
            n = max(n, least.get(sector, 0))
            if n:
                out[sector * SECTOR : (sector + 1) * SECTOR] = states[n - 1][1]
        return bytes(out[:size])

    def _contents(self, names: Mapping[str, File], contents: Mapping[int, bytes]) -> Image:
        """Return names with contents, without those below a folder that is not there."""
        folders = {".", *(name for name, file in names.items() if file.is_folder)}
        out: dict[str, bytes | None] = {}
        for name, file in names.items():
            if {str(parent) for parent in PurePosixPath(name).parents} <= folders:
                out[name] = None if file.is_folder else contents[id(file)]
        return out


class Ext4(Disk):
    """The folder of one moment, in the model EXT4: `pending` is the journal since its last commit."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}  # by id(File): the size in the committed journal

    def cut(self, file: File, size: int) -> None:
        """A file gets another size, which is journaled at once."""
        super().cut(file, size)
        self._tell_size(file)

    def replace(self, file: File) -> None:
        """A file that has grown gets its blocks before it takes the place of another one."""
        if file.told != len(file.live):
            self._tell_size(file)

    def _tell_size(self, file: File) -> None:
        file.told = len(file.live)
        self.pending.append(Entry(file, size=file.told, write=self.n_writes))

    def sync(self, name: str, file: File | None, data_only: bool) -> None:
        """A sync has returned: data are certain, and mostly the journal is committed."""
        if file is not None and not file.is_folder:
            if file.told != len(file.live):
                self._tell_size(file)
            is_pending = any(entry.file is file and entry.size is not None for entry in self.pending)
            file.sync()
            if data_only and not is_pending:
                return
        for entry in self.pending:
            self._apply(entry, self.certain, self.sizes)
        self.pending.clear()

    def _apply(self, entry: Entry, names: dict[str, File], sizes: dict[int, int]) -> None:
        if entry.size is None:
            _apply(entry, names)
        else:
            sizes[id(entry.file)] = entry.size

    def image(self, fate: Fate, rng: random.Random) -> Image:
        """Return what a cut leaves now."""
        n = len(self.pending)
        kept = {"none": 0, "all": n, "random": rng.randint(0, n), "all but the last": n - 1, "only the last": n}
        journal = self.pending[: max(0, kept[fate.names])]
        names, sizes = dict(self.certain), dict(self.sizes)
        for entry in journal:
            self._apply(entry, names, sizes)
        is_whole = len(journal) == n
        contents = {}
        for file in names.values():
            if not file.is_folder:
                covered = max((e.write for e in journal if e.file is file and e.size is not None), default=0)
                contents[id(file)] = self._ordered(file, sizes.get(id(file), 0), covered, is_whole, fate, rng)
        return self._contents(names, contents)

    def _ordered(self, file: File, size: int, covered: int, is_whole: bool, fate: Fate, rng: random.Random) -> bytes:
        """Return a file of this size: what is behind its certain size was written before the size was told."""
        if is_whole and file.told < len(file.live) and fate.data != "none":  # the disk may have told more by itself
            grown = [len(file.live), *range((size // PAGE + 1) * PAGE, len(file.live), PAGE)]
            size = rng.choice(grown) if fate.data == "random" else len(file.live)
            covered = self.n_writes
        least = {
            sector: sum(number <= covered for number, _ in states)
            for sector, states in file.pending.items()
            if (sector + 1) * SECTOR > self.sizes.get(id(file), 0)
        }
        return self._sectors(file, size, fate.data, rng, least)


MODELS: Final = {"posix": Disk, "ext4": Ext4}


def _apply(entry: Entry, names: dict[str, File]) -> None:
    if entry.old is not None and names.get(entry.old) is entry.file:
        del names[entry.old]
    if entry.name is not None:
        names[entry.name] = entry.file


def _folder_of(entry: Entry) -> str:
    return str(PurePosixPath(entry.name or entry.old or "").parent)


def _some(entries: Sequence[Entry], kept: Kept, rng: random.Random) -> Sequence[Entry]:
    if kept == "random":
        return [entry for entry in entries if rng.random() < 0.5]
    return {"none": entries[:0], "all": entries, "all but the last": entries[:-1], "only the last": entries[-1:]}[kept]


@dataclass(frozen=True, slots=True)
class PowerCut:
    """What is left after so many operations, and the lines that were said since the cut before it."""

    after: int
    fate: str
    image: Image
    said: Sequence[str]


def cuts(
    operations: Sequence[Operation], model: str, wanted: Iterable[tuple[int, str]], rng: random.Random
) -> Iterator[PowerCut]:
    """Yield a power cut for each (number of operations before it, fate), in their order."""
    disk = MODELS[model]()
    said = ""
    done = 0
    for after, fate in sorted(wanted):
        for operation in operations[done:after]:
            disk.do(operation)
            said += operation.text if isinstance(operation, Said) else ""
        done = after
        *lines, said = said.split("\n")
        yield PowerCut(after, fate, disk.image(FATES[fate], rng), lines)


def lay_out(image: Image, root: Path) -> None:
    """Make the files of an image below a new folder."""
    root.mkdir(parents=True)
    for name, content in sorted(image.items()):
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


def clear(root: Path) -> None:
    """Take a laid out folder away."""
    shutil.rmtree(root)
