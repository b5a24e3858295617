"""A disk that is full, read-only or failing: nothing is raised, nothing lost, and it goes on when the disk does."""

import contextlib
import errno
import io
import itertools
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.spool.disk import FRAME_BYTES, MAX_PENDING_BYTES, VALUE_BYTES
from gateway.spool.spool import START
from tests.contract.test_spools import everything
from tests.faults.promises import MAX_BYTES, Promises, broken, frame, hurry, n_good, opened, size
from tests.faults.writer import tell
from tests.gateway import frames

CALLS = ("open", "write", "pwrite", "fdatasync", "fsync", "rename", "replace", "unlink", "truncate", "ftruncate")
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
READ_ONLY = os.O_RDONLY | os.O_CLOEXEC
BATCH = 8  # frames of a commit: 32 KB, a quarter of a segment
SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]
COMMITS = 40  # 1.3 MB: ten segments, of which six fit

# What is known to be wrong: the tests that show it are expected to fail until it is put right.


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    hurry(monkeypatch)


class FailingDisk:
    """What this process asks of a folder, numbered from 1, and which of it fails.

    refuse, refuse_read  (number, name of the call) -> errno or None; the second one for files opened to be read
    """

    def __init__(self, folder, monkeypatch):
        self._folder = str(folder)
        self.refuse = self.refuse_read = lambda n, call: None
        self.n = self.n_read = self.refused = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        monkeypatch.setattr(io, "open", self._wrapped("open file", io.open))

    def _wrapped(self, name, call):
        def asked(target, *arguments, **named):
            path = target
            if isinstance(target, int):
                with contextlib.suppress(OSError):
                    path = str(Path(f"/proc/self/fd/{target}").readlink())
            if self._is_ours(str(path)) and (code := self._answer(name, arguments)):
                self.refused += 1
                raise OSError(code, os.strerror(code))
            return call(target, *arguments, **named)

        return asked

    def _answer(self, name, arguments):
        if (name == "open file" and arguments[:1] in ((), ("r",), ("rb",))) or arguments[:1] == (READ_ONLY,):
            self.n_read += 1
            return self.refuse_read(self.n_read, name)
        self.n += 1
        return self.refuse(self.n, name)

    def _is_ours(self, path):
        return path == self._folder or path.startswith(f"{self._folder}/")


async def commit(spool, promises, n=BATCH):
    """Append and commit some frames, and hear what the spool says of itself."""
    for _ in range(n):
        spool.append(frame(spool.boot, spool.next_seq))
    promises.hear(f"APPENDED {spool.boot} {spool.next_seq - 1}")
    await spool.commit()
    tell(spool, promises.hear)


def is_consistent(spool):
    """Return whether what it holds and what waits in memory are together all that was appended."""
    _first, last = spool.boots().get(spool.boot, (0, 0))
    return last + spool.statistics().pending == spool.next_seq - 1


async def work(folder, disk, refuse):
    """Fill a spool while the disk refuses now and then, then let it recover; return what is broken."""
    promises = Promises()
    disk.refuse = refuse
    spool = opened(folder)
    promises.hear(f"BOOT {spool.boot}")
    for _ in range(COMMITS):
        refused = disk.refused
        await commit(spool, promises)
        if not is_consistent(spool):
            promises.broken.append(f"holds {spool.boots()}, {spool.statistics().pending} of {spool.next_seq - 1} wait")
        if spool.statistics().state != "ok":
            assert disk.refused > refused
        if size(folder) > MAX_BYTES:
            promises.broken.append(f"the folder has {size(folder)} bytes")
        if spool.boots() and spool.next_seq % 5 == 0:
            boot, (first, _) = next(iter(spool.boots().items()))
            promises.hear(f"ACK {boot} {first} {first + 3}")
            spool.ack(boot, first, first + 3)
    disk.refuse = lambda n, call: None
    await commit(spool, promises, 1)
    assert (spool.statistics().state, spool.statistics().pending) == ("ok", 0)
    return await broken(folder, promises)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    return FailingDisk(tmp_path / "spool", monkeypatch)


def refusing(code, first, end):
    """Return what refuses the steps from first to before end."""
    return lambda n, call: code if first <= n < end else None


async def count_asked(folder, disk):
    """Return how often a disk that never refuses is asked."""
    assert await work(folder, disk, lambda n, call: None) == []
    return disk.n


@pytest.mark.parametrize(
    ("every", "length"),
    [
        (111, 25),
        pytest.param(1, 1, marks=SLOW),
        pytest.param(1, 25, marks=SLOW),
    ],
)
async def test_a_refusal_at_any_step_breaks_no_promise(tmp_path, monkeypatch, every, length):
    with monkeypatch.context() as healthy:
        n = await count_asked(tmp_path / "spool", FailingDisk(tmp_path / "spool", healthy))
    wrong = {}
    for at, code in zip(range(1, n, every), itertools.cycle(REFUSALS), strict=False):
        folder = tmp_path / f"at-{at}"
        with monkeypatch.context() as patch:
            found = await work(folder, FailingDisk(folder, patch), refusing(code, at, at + length))
        if found:
            wrong[at] = found
    assert wrong == {}


@pytest.mark.parametrize("share", [0.02, pytest.param(0.2, marks=SLOW), pytest.param(0.5, marks=SLOW)])
@pytest.mark.parametrize("seeds", [1, pytest.param(25, marks=SLOW)])
async def test_a_disk_that_refuses_now_and_then_breaks_no_promise(tmp_path, monkeypatch, share, seeds):
    wrong = {}
    for seed in range(seeds):
        rng = random.Random(seed)
        folder = tmp_path / f"seed-{seed}"
        with monkeypatch.context() as patch:
            refuse = lambda n, call, rng=rng: errno.EIO if rng.random() < share else None  # noqa: E731 - one word of a table
            if found := await work(folder, FailingDisk(folder, patch), refuse):
                wrong[seed] = found
    assert wrong == {}


async def test_a_commit_that_is_refused_behind_its_first_batch_is_not_written_twice(tmp_path, monkeypatch):
    for behind in range(2, 20, 2):
        folder = tmp_path / f"behind-{behind}"
        with monkeypatch.context() as patch:
            disk = FailingDisk(folder, patch)
            promises = Promises()
            spool = opened(folder)
            promises.hear(f"BOOT {spool.boot}")
            begun = disk.n
            disk.refuse = lambda n, call, last=begun + behind: errno.EIO if n > last else None
            await commit(spool, promises, 60)  # 160 KB, more than a segment
            disk.refuse = lambda n, call: None
            await commit(spool, promises, 1)
            assert await broken(folder, promises) == []


async def test_a_batch_whose_sync_is_refused_is_not_there_twice(tmp_path, monkeypatch):
    for at in range(1, 16):
        folder = tmp_path / f"at-{at}"
        with monkeypatch.context() as patch:
            disk = FailingDisk(folder, patch)
            promises = Promises()
            spool = opened(folder)
            promises.hear(f"BOOT {spool.boot}")
            await commit(spool, promises, 30)  # 80 KB of the 125 KB of a segment
            begun = disk.n
            disk.refuse = lambda n, call, at=begun + at: errno.EIO if n == at else None
            await commit(spool, promises, 10)  # fits, and is refused at some step
            await commit(spool, promises, 10)  # both together do not fit
            disk.refuse = lambda n, call: None
            await commit(spool, promises, 1)
            assert await broken(folder, promises) == []


async def test_the_cap_holds_although_segments_cannot_get_their_new_names(tmp_path, disk):
    spool = opened(tmp_path / "spool")
    promises = Promises([f"BOOT {spool.boot}"])
    while not promises.dropped:
        await commit(spool, promises)
    turns = itertools.cycle((errno.EIO, None))
    disk.refuse = lambda n, call: next(turns) if call == "rename" else None
    for _ in range(COMMITS):
        await commit(spool, promises)
        assert size(tmp_path / "spool") <= MAX_BYTES
    assert promises.broken == []


async def test_a_read_that_is_refused_once_loses_nothing(tmp_path, disk):
    spool = opened(tmp_path / "spool")
    await commit(spool, Promises([f"BOOT {spool.boot}"]))
    refused = disk.n_read + 1
    disk.refuse_read = lambda n, call: errno.EIO if n == refused else None
    await spool.unsent(START, everything)
    assert spool.statistics().unsent == BATCH
    assert not spool.is_acked(spool.boot, 1)


@pytest.mark.parametrize(
    "at",
    [
        1,
        2,
        -1,
    ],
    ids=["meta", "the oldest segment", "the newest segment"],
)
async def test_a_read_that_is_refused_at_the_start_loses_nothing_for_ever(tmp_path, disk, at):
    promises = Promises()
    spool = opened(tmp_path / "spool")
    promises.hear(f"BOOT {spool.boot}")
    while not promises.dropped:
        await commit(spool, promises)
    before = promises.copy()
    begun = disk.n_read
    disk.refuse_read = lambda n, call: errno.EIO if n - begun == at % 8 else None  # meta, six segments, cursor
    spool = opened(tmp_path / "spool")
    for seq in range(1, 41):  # more than a segment has room for
        spool.append(frame(spool.boot, seq))
    await spool.commit()
    disk.refuse_read = lambda n, call: None
    before.hear(f"BOOT {spool.boot}")
    before.hear(f"APPENDED {spool.boot} 40")
    assert await broken(tmp_path / "spool", before) == []


async def test_memory_is_bounded_while_the_disk_refuses_and_what_goes_is_counted(tmp_path, disk):
    wide = (MAX_PENDING_BYTES // 100 - FRAME_BYTES) // VALUE_BYTES  # rows: a hundred frames of them may wait
    spool = opened(tmp_path / "spool", frames.texts(3, wide))
    disk.refuse = lambda n, call: errno.EIO
    for seq in range(1, 121):
        spool.append(frame(spool.boot, seq, wide))
        if seq == 10:
            await spool.commit()
    told = spool.statistics()
    assert (told.state, told.pending, told.dropped) == ("failing", 100, 20)
    assert told.dropped_values == sum(n_good(spool.boot, seq, wide) for seq in range(1, 21))


# A real disk that is small, or that turns read-only.


@contextlib.contextmanager
def mounted(folder, n_bytes):
    """A file system of so many bytes; skips where that is not permitted."""
    folder.mkdir()
    how = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(how, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, how):
    """Turn a mounted file system read-only (ro) or back (rw)."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


async def test_a_full_disk_is_told_and_filled_when_there_is_room_again(tmp_path):
    with mounted(tmp_path / "disk", 1_000_000) as disk:
        (disk / "ballast").write_bytes(bytes(500_000))
        promises = Promises()
        spool = opened(disk / "spool")
        promises.hear(f"BOOT {spool.boot}")
        while spool.statistics().state == "ok":
            assert spool.next_seq < 1_000
            await commit(spool, promises)
        for _ in range(4):
            await commit(spool, promises)
            assert spool.statistics().state == "full"
            assert is_consistent(spool)
        assert spool.statistics().pending > 4 * BATCH
        (disk / "ballast").unlink()
        await commit(spool, promises)
        assert (spool.statistics().state, spool.statistics().pending) == ("ok", 0)
        assert not list((disk / "spool").glob("*.new"))
        assert await broken(disk / "spool", promises) == []


async def test_a_disk_that_turns_read_only_is_told_and_written_when_it_turns_back(tmp_path):
    with mounted(tmp_path / "disk", 2_000_000) as disk:
        promises = Promises()
        spool = opened(disk / "spool")
        promises.hear(f"BOOT {spool.boot}")
        await commit(spool, promises)
        remount(disk, "ro")
        for _ in range(3):
            await commit(spool, promises)
            assert spool.statistics().state == "read_only"
            assert is_consistent(spool)
        remount(disk, "rw")
        await commit(spool, promises)
        assert (spool.statistics().state, spool.statistics().pending) == ("ok", 0)
        assert await broken(disk / "spool", promises) == []


async def test_a_spool_that_starts_on_a_read_only_disk_is_written_when_that_turns_writable(tmp_path):
    with mounted(tmp_path / "disk", 2_000_000) as disk:
        promises = Promises()
        spool = opened(disk / "spool")
        promises.hear(f"BOOT {spool.boot}")
        await commit(spool, promises)
        remount(disk, "ro")
        spool = opened(disk / "spool")
        promises.hear(f"BOOT {spool.boot}")
        await commit(spool, promises)
        assert (spool.statistics().state, spool.statistics().pending) == ("read_only", BATCH)
        remount(disk, "rw")
        await commit(spool, promises)
        assert (spool.statistics().state, spool.statistics().pending) == ("ok", 0)
        assert await broken(disk / "spool", promises) == []


async def test_a_boot_number_that_was_given_on_a_read_only_disk_is_remembered_when_that_turns_writable(tmp_path):
    with mounted(tmp_path / "disk", 2_000_000) as disk:
        await commit(opened(disk / "spool"), Promises(["BOOT 1"]))
        remount(disk, "ro")
        spool = opened(disk / "spool")
        remount(disk, "rw")
        await commit(spool, Promises([f"BOOT {spool.boot}"]))
        for segment in (disk / "spool").glob("*.spool"):
            segment.unlink()  # lost: but a number once given is given for ever
        assert opened(disk / "spool").boot > spool.boot
