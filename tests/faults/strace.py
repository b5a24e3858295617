"""What a process does to the files of a folder, recorded by strace in the order in which it was done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import pytest

RECORDED: Final = (
    "open,openat,creat,lseek,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,"
    "mkdir,mkdirat,truncate,ftruncate"
)
# What the power-cut model knows nothing of: a folder that meets one of these cannot be judged.
STRANGE: Final = (
    "openat2,openat,mmap,writev,pwritev,pwritev2,fallocate,sync_file_range,link,linkat,symlink,symlinkat,"
    "copy_file_range,sendfile,splice"
)
HERE: Final = Path(__file__).parents[2]  # where `python -m tests...` is found
LONGEST: Final = 4_000_000  # bytes of one write that are recorded
CALL: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
BEGUN: Final = re.compile(r"(\d+) +(\w+\(.*) <unfinished \.\.\.>")
RESUMED: Final = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
OPEN_FILE: Final = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})*)>")


class StrangeCall(Exception):
    """A system call on the folder that the model does not know."""


@dataclass(frozen=True, slots=True)
class Made:
    """A file, or with `is_folder` a folder, got this name; it was not there before. Names are relative to the root."""

    name: str
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """A file got another size without being written."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes were written at an offset."""

    name: str
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file got another name; one that had it is gone."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Removed:
    """A name is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class Synced:
    """fsync, or fdatasync (`data_only`), of a file or a folder returned."""

    name: str
    data_only: bool


@dataclass(frozen=True, slots=True)
class Said:
    """Text was written to standard output."""

    text: str


Operation = Made | Cut | Written | Renamed | Removed | Synced | Said


def record(command: Sequence[str], root: Path, **environment: str) -> list[Operation]:
    """Run a command that ends well; return what it found below `root`, did there, and said.

    Skips the test where strace cannot.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    if subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not permitted here")
    trace = root.with_name(root.name + ".trace")
    found = as_found(root)
    names = {operation.name for operation in found if isinstance(operation, Made)}
    calls = f"trace={RECORDED},{STRANGE}"
    subprocess.run(
        [strace, "-f", "--seccomp-bpf", "-y", "-xx", "-s", str(LONGEST), "-e", calls, "-o", str(trace), *command],
        stdout=subprocess.DEVNULL,
        cwd=HERE,
        env={**os.environ, "CORRIDOR_PRINT_COMMITS": "1", **environment},
        check=True,
    )
    return [*found, *_Reader(root, names).operations(trace)]


def as_found(root: Path) -> list[Operation]:
    """Return operations that make, for certain, what is below `root` now."""
    out: list[Operation] = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        out.append(Made(name, is_folder=path.is_dir()))
        if path.is_file():
            out += [Written(name, 0, path.read_bytes()), Synced(name, data_only=False)]
        out.append(Synced(str(PurePosixPath(name).parent), data_only=False))
    return out


class _Reader:
    """Turns the lines of a trace into operations."""

    def __init__(self, root: Path, names: set[str]) -> None:
        self._root = f"{root}/"
        self._mark = _escaped(f"{root}")
        self._offsets: dict[int, int] = {}  # of open files, for write()
        self._names = names  # that are there

    def operations(self, trace: Path) -> Iterator[Operation]:
        begun: dict[str, str] = {}
        with trace.open() as lines:
            for line in lines:
                if half := BEGUN.match(line):
                    begun[half[1]] = half[2]
                    continue
                if half := RESUMED.match(line):
                    line = f"{half[1]} {begun.pop(half[1])}{half[2]}"
                if (call := CALL.match(line)) and int(call[4]) >= 0:
                    yield from self._operation(call[2], call[3], int(call[4]))

    def _operation(self, call: str, arguments: str, result: int) -> Iterator[Operation]:
        if self._mark not in arguments and not arguments.startswith("1<"):
            return  # a process opens a thousand files while it starts
        texts = [_unescaped(text[1]) for text in TEXT.finditer(arguments)]
        on = OPEN_FILE.search(arguments)
        names = [self._name(text) for text in texts] if call not in ("write", "pwrite64") else []
        if on and (name := self._name(_unescaped(on[2]))) is not None:
            names.append(name)
        if call == "write" and on and on[1] == "1":
            yield Said(texts[0].decode())
        if not [name for name in names if name is not None]:
            return
        yield from self._on_folder(call, arguments, result, [name for name in names if name is not None], texts, on)

    def _on_folder(
        self, call: str, arguments: str, result: int, names: list[str], texts: list[bytes], on: re.Match[str] | None
    ) -> Iterator[Operation]:
        name = names[0]
        if on and call.endswith("at") and call != "openat":
            raise StrangeCall(f"{call} below a descriptor of {name}")
        if call in ("open", "openat"):
            yield from self._open(name, arguments, result)
        elif call in ("mkdir", "mkdirat"):
            yield Made(name, is_folder=True)
        elif call in ("write", "pwrite64") and on:
            fd = int(on[1])
            if TEXT.search(arguments)[2] or len(texts[0]) < result:  # type: ignore[index]
                raise StrangeCall(f"a write of more than {LONGEST} bytes")
            at = self._offsets[fd] if call == "write" else int(arguments.rsplit(",", 1)[1])
            self._offsets[fd] += result if call == "write" else 0
            yield Written(name, at, texts[0][:result])
        elif call in ("fsync", "fdatasync"):
            yield Synced(name, call == "fdatasync")
        elif call in ("rename", "renameat", "renameat2"):
            self._names.discard(name)
            self._names.add(names[1])
            yield Renamed(name, names[1])
        elif call in ("unlink", "unlinkat", "rmdir"):
            self._names.discard(name)
            yield Removed(name)
        elif call in ("truncate", "ftruncate"):
            yield Cut(name, int(arguments.rsplit(",", 1)[1]))
        elif call == "lseek" and on:
            self._offsets[int(on[1])] = result
        elif call != "mmap" or ("MAP_SHARED" in arguments and "PROT_WRITE" in arguments):
            raise StrangeCall(f"{call} on {name}")

    def _open(self, name: str, arguments: str, fd: int) -> Iterator[Operation]:
        self._offsets[fd] = 0
        if "O_APPEND" in arguments or "O_TMPFILE" in arguments:
            raise StrangeCall(f"open {name} with O_APPEND or O_TMPFILE")
        if "O_CREAT" in arguments and name not in self._names:
            self._names.add(name)
            yield Made(name)
        elif "O_TRUNC" in arguments:
            yield Cut(name, 0)

    def _name(self, path: bytes) -> str | None:
        """Return a path relative to the root, None for one elsewhere."""
        text = path.decode(errors="replace")
        if f"{text}/" == self._root:
            return "."
        return text.removeprefix(self._root) if text.startswith(self._root) else None


def _escaped(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _unescaped(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
