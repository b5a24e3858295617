"""The disk spool and what can happen to it."""

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model.ranges import RangeSet
from gateway.spool import disk, files, notes
from gateway.spool.disk import DiskSpool
from gateway.spool.files import InUse, hold
from gateway.spool.record import HEADER_BYTES, PAGE_BYTES
from gateway.spool.segment import segments_in
from gateway.spool.verify import verify
from tests.contract.test_spools import everything, fill, unsent
from tests.gateway import frames


def opened(folder, size=10_000_000, catalog="cat1"):
    return DiskSpool(folder, size, catalog, frames.texts())


async def test_a_restart_keeps_frames_and_cursor_and_raises_the_boot(tmp_path):
    spool = opened(tmp_path)
    await fill(spool, 10)
    spool.ack(1, 1, 4)
    await spool.commit()
    again = opened(tmp_path)
    assert (spool.boot, again.boot) == (1, 2)
    assert [f.seq for f in await unsent(again)] == [5, 6, 7, 8, 9, 10]
    await fill(again, 3)
    assert again.boots() == {1: (1, 10), 2: (1, 3)}
    assert [f.seq for f in await unsent(again)] == [5, 6, 7, 8, 9, 10, 1, 2, 3]


async def test_the_boot_number_rises_even_when_meta_is_lost(tmp_path):
    for wanted in (1, 2, 3):
        spool = opened(tmp_path)
        assert spool.boot == wanted
        await fill(spool, 2)
    (tmp_path / "meta").unlink()
    assert opened(tmp_path).boot == 4
    (tmp_path / "meta").write_bytes(b"\xff" * 40)
    assert opened(tmp_path).boot >= 4


async def test_a_lost_cursor_only_sends_again(tmp_path):
    spool = opened(tmp_path)
    await fill(spool, 4)
    spool.ack(1, 1, 4)
    await spool.commit()
    (tmp_path / "cursor").write_bytes(b"nonsense")
    assert [f.seq for f in await unsent(opened(tmp_path))] == [1, 2, 3, 4]


async def test_frames_of_an_older_configuration_keep_their_own_texts(tmp_path):
    spool = opened(tmp_path)
    await fill(spool, 2)
    again = opened(tmp_path, catalog="cat2")
    await fill(again, 2)
    first = await again.unsent((0, 0), everything)
    second = await again.unsent(first.position, everything)
    assert (first.catalog, second.catalog) == ("cat1", "cat2")
    assert first.texts == frames.texts()


async def test_a_reload_between_two_commits_leaves_every_frame_with_the_texts_that_it_was_read_by(tmp_path):
    spool = opened(tmp_path)
    wider = frames.texts(scans=4, rows=7)
    for seq in (1, 2):
        spool.append(frames.frame(seq, seq))
    spool.turn_to("cat2", wider, 10_000_000)
    spool.append(frames.frame(3, 0, rows=7))
    spool.turn_to("cat3", frames.texts(), 10_000_000)
    spool.turn_to("cat4", frames.texts(rows=2), 10_000_000)
    spool.append(frames.frame(4, 1, rows=2))
    await spool.commit()
    for each in (spool, opened(tmp_path)):
        position, found = (0, 0), []
        while batch := await each.unsent(position, everything):
            position = batch.position
            found += [(batch.catalog, frame.seq, batch.texts, frame) for frame in batch.frames]
        assert [(catalog, seq) for catalog, seq, _, _ in found] == [("cat1", 1), ("cat1", 2), ("cat2", 3), ("cat4", 4)]
        for _, seq, texts, frame in found:
            rows, number = {1: (5, 1), 2: (5, 2), 3: (7, 0), 4: (2, 1)}[seq]
            assert texts == {5: frames.texts(), 7: wider, 2: frames.texts(rows=2)}[rows]
            assert np.array_equal(frame.value, frames.frame(seq, number, rows).value, equal_nan=True)
    assert verify(tmp_path)["ok"]


async def test_a_cap_that_is_lowered_while_it_runs_holds_after_the_next_commit(tmp_path):
    spool = opened(tmp_path, 8_000_000)
    for _ in range(12):
        await fill(spool, 500)
        await spool.tidy()
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    spool.turn_to("cat1", frames.texts(), 1_000_000)
    await spool.commit()
    assert before > 1_000_000 > sum(path.stat().st_size for path in tmp_path.iterdir())
    await fill(spool, 10)
    assert spool.boots()[1][1] == 6010
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.floats(0, 1), junk=st.binary(max_size=64))
async def test_a_torn_tail_costs_at_most_the_last_batch(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.mktemp("torn")
    spool = opened(folder)
    await fill(spool, 6)
    await fill(spool, 6)
    _number, path = segments_in(folder)[-1]
    start = spool._files.segments[-1].batch(1)[0]
    end = spool._files.segments[-1].end
    at = start + round(cut * (end - start - 1))
    raw = bytearray(path.read_bytes())
    raw[at:end] = bytes(end - at)
    raw[at : at + len(junk)] = junk
    path.write_bytes(raw)
    again = opened(folder)
    kept = [f.seq for f in await unsent(again)]
    assert kept[:6] == [1, 2, 3, 4, 5, 6]
    assert kept in ([1, 2, 3, 4, 5, 6], list(range(1, 13)))  # padding may be cut without harm
    await fill(again, 3)
    assert verify(folder)["boots"]["2"] == [[1, 3]]


async def test_a_damaged_batch_in_the_middle_is_skipped_counted_and_the_rest_kept(tmp_path):
    spool = opened(tmp_path)
    for _ in range(3):
        await fill(spool, 4)
    path = segments_in(tmp_path)[0][1]
    offset = spool._files.segments[0].batch(1)[0]
    raw = bytearray(path.read_bytes())
    raw[offset + 60] ^= 0xFF
    path.write_bytes(raw)
    again = opened(tmp_path)
    assert [f.seq for f in await unsent(again)] == [1, 2, 3, 4, 9, 10, 11, 12]
    assert again.statistics().damaged == 1
    found = verify(tmp_path)
    assert (found["ok"], found["damaged"], found["boots"]["1"]) == (False, 1, [[1, 4], [9, 12]])


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:3000],
        lambda raw: raw[:20] + raw[23:],
        lambda raw: raw[:HEADER_BYTES] + raw[HEADER_BYTES + 3 :],
        lambda raw: b"\xff" * 8 + raw[8 : HEADER_BYTES + 50] + bytes(len(raw) - HEADER_BYTES - 50),
    ],
    ids=["cut inside the header", "shifted in the header", "shifted in the first batch", "header and first batch gone"],
)
async def test_a_segment_of_which_nothing_is_left_is_told(tmp_path, damage):
    spool = opened(tmp_path)
    await fill(spool, 4)
    path = segments_in(tmp_path)[0][1]
    path.write_bytes(damage(path.read_bytes()))
    found = verify(tmp_path)
    assert (found["frames"], found["ok"]) == (0, False)
    assert opened(tmp_path).statistics().damaged >= 1


async def test_a_segment_that_a_cut_left_between_two_numbers_is_free_and_not_damaged(tmp_path):
    spool = opened(tmp_path)
    await fill(spool, 4)
    path = segments_in(tmp_path)[0][1]
    path.rename(tmp_path / "0000000009.spool")
    assert (verify(tmp_path)["frames"], verify(tmp_path)["ok"]) == (0, True)


async def test_one_process_has_a_spool(tmp_path):
    held = hold(tmp_path)
    with pytest.raises(InUse, match="another process"):
        hold(tmp_path)
    os.close(held)
    os.close(hold(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, bytes(10_000), os.urandom(20_000)])
async def test_start_up_succeeds_whatever_the_files_hold(tmp_path, content):
    spool = opened(tmp_path)
    await fill(spool, 3)
    (tmp_path / "0000000002.spool").write_bytes(content)
    (tmp_path / "meta").write_bytes(content)
    (tmp_path / "cursor").write_bytes(content)
    (tmp_path / "stray.spool").write_bytes(content)
    again = opened(tmp_path)
    assert [f.seq for f in await unsent(again)] == [1, 2, 3]
    await fill(again, 2)
    assert again.statistics().state == "ok"


async def test_a_recycled_segment_never_shows_its_old_frames(tmp_path):
    spool = opened(tmp_path, 1_000_000)
    while not spool.statistics().dropped:
        await fill(spool, 500)
    spool.ack(1, 1, spool.next_seq - 1)
    numbers = [number for number, _ in segments_in(tmp_path)]
    assert numbers[0] > 1
    found = verify(tmp_path)
    assert found["ok"]
    assert found["dropped_below"] == {"1": found["boots"]["1"][0][0]}
    assert len(found["boots"]["1"]) == 1
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 1_000_000


async def test_dropped_counters_outlive_a_restart(tmp_path):
    spool = opened(tmp_path, 1_000_000)
    while not spool.statistics().dropped:
        await fill(spool, 500)
    before = spool.statistics()
    after = opened(tmp_path, 1_000_000).statistics()
    assert (after.dropped, after.dropped_values) == (before.dropped, before.dropped_values)


async def test_a_crash_between_counting_and_dropping_counts_once(tmp_path, monkeypatch):
    spool = opened(tmp_path, 1_000_000)

    rename = Path.rename

    def crash(path, target):
        if path.suffix == ".spool":
            raise KeyboardInterrupt
        return rename(path, target)

    async def fill_for_ever():
        while True:
            await fill(spool, 500)

    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        await fill_for_ever()
    monkeypatch.undo()
    again = opened(tmp_path, 1_000_000)
    kept = again.boots()[1]
    assert again.statistics().dropped == kept[0] - 1
    assert again.statistics().unsent == kept[1] - kept[0] + 1


@pytest.mark.parametrize(
    ("code", "state"), [(errno.ENOSPC, "full"), (errno.EROFS, "read_only"), (errno.EIO, "failing")]
)
async def test_a_disk_that_refuses_is_a_state_and_nothing_is_lost(tmp_path, monkeypatch, code, state):
    spool = opened(tmp_path)
    await fill(spool, 3)
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
        await fill(spool, 3)
        assert spool.statistics().state == state
        assert spool.statistics().pending == 3
        assert spool.boots() == {1: (1, 3)}
    await spool.commit()
    assert spool.statistics().state == "ok"
    assert [f.seq for f in await unsent(spool)] == [1, 2, 3, 4, 5, 6]
    assert verify(tmp_path)["boots"] == {"1": [[1, 6]]}


async def test_memory_is_bounded_while_the_disk_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "MAX_PENDING_BYTES", 10 * (disk.FRAME_BYTES + 5 * disk.VALUE_BYTES))
    spool = opened(tmp_path)
    for _ in range(30):
        spool.append(frames.frame(spool.next_seq))
    assert spool.statistics().pending == 10
    assert spool.statistics().dropped == 20
    await spool.commit()
    assert spool.boots() == {1: (21, 30)}


def test_frames_of_one_value_take_no_more_memory_than_they_are_counted_for():
    script = """
import os
from pathlib import Path
from gateway.spool import disk
from tests.gateway import frames
def resident(): return os.sysconf("SC_PAGESIZE") * int(Path("/proc/self/statm").read_text().split()[1])
spool = disk.DiskSpool(Path("/proc/nowhere"), 10_000_000, "cat1", frames.texts(rows=1))
frame = frames.frame(1, rows=1)
before = resident()
for seq in range(1, disk.MAX_PENDING_BYTES // disk.FRAME_BYTES):
    spool.append(frames.Frame(frame.scan, seq, seq << 32, seq << 32, seq << 32, frame.value, frame.quality, seq << 32))
print((resident() - before) / disk.MAX_PENDING_BYTES)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert 0.5 < float(found.stdout) < 1.1


async def test_a_disk_that_refuses_costs_the_work_for_one_batch_a_commit_however_much_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "MAX_RUN", 10)
    spool = opened(tmp_path)
    await fill(spool, 1)
    encoded, encode = [], disk.encode_block
    monkeypatch.setattr(
        disk, "encode_block", lambda cat, block, *rest: encoded.append(len(block)) or encode(cat, block, *rest)
    )
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        await fill(spool, 95)
        assert encoded == [10]
    await spool.commit()
    assert encoded[1:] == [10] * 9 + [5]
    assert [f.seq for f in await unsent(spool)] == list(range(1, 97))


def test_kill_minus_nine_loses_nothing_that_was_said_to_be_committed(tmp_path):
    code = f"""
import asyncio
from pathlib import Path
from gateway.spool.disk import DiskSpool
from tests.gateway import frames
async def main():
    spool = DiskSpool(Path({str(tmp_path)!r}), 10_000_000, "cat1", frames.texts())
    while True:
        for _ in range(10):
            spool.append(frames.frame(spool.next_seq, spool.next_seq % 3))
        await spool.commit()
asyncio.run(main())
"""
    environment = {**os.environ, "CORRIDOR_PRINT_COMMITS": "1"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as child:
        lines = [child.stdout.readline() for _ in range(25)]
        child.kill()
        lines += child.stdout.readlines()
    last = int(lines[-1].split("seq=")[1])
    found = verify(tmp_path)
    assert found["ok"]
    ((first, kept),) = found["boots"]["1"]
    assert first == 1
    assert last <= kept <= last + 10


def test_zeroed_segments_leave_room_for_the_header():
    assert HEADER_BYTES % 4096 == 0


async def test_a_boot_number_never_comes_twice_although_the_disk_cannot_remember_it(tmp_path, monkeypatch):
    await fill(opened(tmp_path), 2)

    def refuse(path, data):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as full:
        full.setattr(notes, "replace_file", refuse)
        again = [opened(tmp_path) for _ in range(3)]
    boots = {spool.boot for spool in again}
    assert {spool.statistics().state for spool in again} == {"full"}
    assert len(boots) == 3
    assert min(boots) > 1


async def test_a_cap_that_was_lowered_holds_from_the_start_and_what_goes_is_counted(tmp_path):
    spool = opened(tmp_path, 20_000_000)
    for _ in range(40):
        await fill(spool, 400)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 1_000_000
    again = opened(tmp_path, 1_000_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000
    assert again.statistics().dropped == 16_000
    await fill(again, 3)
    assert [f.seq for f in await unsent(again)] == [1, 2, 3]


async def test_the_age_of_what_nobody_has_is_told(tmp_path):
    spool = opened(tmp_path)
    assert spool.statistics().oldest_ns is None
    await fill(spool, 4)
    oldest = (await unsent(spool))[0].time_ns
    assert spool.statistics().oldest_ns == oldest
    assert opened(tmp_path).statistics().oldest_ns == oldest
    spool.ack(1, 1, 4)
    assert spool.statistics().oldest_ns is None


@pytest.mark.parametrize("name", ["9999999999.spool", "²³.spool", "1.spool", "stray.spool"])
async def test_files_of_others_are_left_alone(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    (tmp_path / "0000000077.spool").mkdir()
    await fill(opened(tmp_path), 2)
    assert verify(tmp_path)["frames"] == 2
    assert (tmp_path / name).read_bytes() == b"mine"


async def test_looking_at_the_age_counts_nothing_as_damaged_or_sent(tmp_path):
    spool = opened(tmp_path)
    await fill(spool, 4)
    segments_in(tmp_path)[0][1].unlink()  # as a commit that drops it meanwhile
    found = spool.statistics()
    assert (found.oldest_ns, found.damaged, found.unsent) == (None, 0, 4)


async def test_what_the_broker_had_comes_again_when_it_is_wanted_and_is_no_drop(tmp_path):
    spool = opened(tmp_path)
    await fill(spool, 10)
    spool.ack(1, 1, 10)
    found, why = spool.reopen(1, RangeSet([(3, 4), (8, 12)]))
    assert list(found) == [(3, 4), (8, 10)]
    assert {name: list(ranges) for name, ranges in why.items()} == {"uncommitted": [(11, 12)]}
    await spool.commit()
    for one in (spool, opened(tmp_path)):  # also after a restart
        assert [f.seq for f in await unsent(one)] == [3, 4, 8, 9, 10]
    assert list(spool.delivered()[1]) == [(1, 2), (5, 7)]
    spool.ack(1, 3, 4)
    assert [f.seq for f in await unsent(spool)] == [8, 9, 10]


async def test_what_goes_after_it_was_acknowledged_once_is_no_drop(tmp_path):
    spool = opened(tmp_path, 1_000_000)
    await fill(spool, 500)
    spool.ack(1, 1, 500)
    spool.reopen(1, RangeSet([(1, 500)]))
    while spool.boots()[1][0] == 1:
        await fill(spool, 500)
        spool.ack(1, 501, spool.next_seq - 1)
    assert spool.statistics().dropped == 0
    assert spool.dropped() is None
    first = spool.boots()[1][0]
    _, why = spool.reopen(1, RangeSet([(1, first)]))
    assert {name: list(ranges) for name, ranges in why.items()} == {"dropped": [(1, first - 1)]}


async def test_of_a_boot_that_is_gone_and_of_one_that_never_was_is_told_why(tmp_path):
    spool = opened(tmp_path)
    await fill(spool, 3)
    again = opened(tmp_path)
    await fill(again, 3)

    def why(boot, *ranges):
        return {name: list(r) for name, r in again.reopen(boot, RangeSet(ranges))[1].items()}

    assert why(1, (2, 9)) == {"uncommitted": [(4, 9)]}
    assert why(9, (1, 2)) == {"uncommitted": [(1, 2)]}
    assert why(2, (1, 3)) == {}


async def test_a_folder_that_cannot_be_made_at_the_start_is_made_as_soon_as_it_can_be(tmp_path):
    (tmp_path / "state").write_bytes(b"in the way")
    spool = opened(tmp_path / "state" / "spool")
    assert spool.statistics().state == "failing"
    await fill(spool, 4)
    assert (spool.statistics().pending, spool.boots()) == (4, {})
    (tmp_path / "state").unlink()
    await fill(spool, 2)
    assert (spool.statistics().state, spool.boots()) == ("ok", {spool.boot: (1, 6)})
    assert opened(tmp_path / "state" / "spool").boot == spool.boot + 1


async def test_frames_that_wait_in_memory_for_the_disk_are_sent_all_the_same(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    await fill(spool, 3)
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        await fill(spool, 3)
        seen, position = RangeSet(), (0, 0)
        while batch := await spool.unsent(position, lambda boot: seen):
            position = batch.position
            seen.add(batch.frames[0].seq, batch.frames[-1].seq)
        assert list(seen) == [(1, 6)]
        spool.ack(1, 1, 6)
    await spool.commit()
    assert await unsent(spool) == []
    assert spool.boots() == {1: (1, 6)}


async def test_a_place_where_the_disk_fails_is_left(tmp_path, monkeypatch):
    spool = opened(tmp_path)
    await fill(spool, 3)
    bad, pwrite = spool._files.segments[-1].path, os.pwrite

    def write(fd, data, at):
        if Path(f"/proc/self/fd/{fd}").readlink() == bad:
            raise OSError(errno.EIO, "broken")
        return pwrite(fd, data, at)

    monkeypatch.setattr(disk.os, "pwrite", write)
    await fill(spool, 3)
    assert spool.statistics().state == "failing"
    await spool.commit()
    assert (spool.statistics().state, spool.boots()) == ("ok", {1: (1, 6)})


async def test_stamps_of_a_clock_that_was_not_set_are_fixed_once_and_stay(tmp_path):
    spool = opened(tmp_path)
    spool.is_holding = True
    await fill(spool, 4)
    guess = [f.time_ns for f in await unsent(spool)]
    spool.fix(1, 7_000)
    await fill(spool, 2)
    for one in (spool, opened(tmp_path)):
        found = await unsent(one)
        assert [f.time_ns for f in found][:4] == [t + 7_000 for t in guess]
        assert [f.offset_ns for f in found] == [7_000] * 4 + [0] * 2
        assert found[4].time_ns == frames.frame(5, 2).time_ns
    assert opened(tmp_path).unfixed() == []


async def test_frames_of_a_boot_that_never_saw_the_time_keep_their_order_and_can_be_fixed_later(tmp_path):
    spool = opened(tmp_path)
    spool.is_holding = True
    await fill(spool, 4)
    again = opened(tmp_path)
    assert again.unfixed() == [1]
    assert again.shares_clock(1)
    again.fix(1, -9_000)
    await again.commit()
    assert [f.offset_ns for f in await unsent(opened(tmp_path))] == [-9_000] * 4


@pytest.mark.parametrize("n", [1, 20, 60, 130])
async def test_a_commit_touches_as_few_pages_as_its_batch_can(tmp_path, n):
    spool = opened(tmp_path)
    await fill(spool, n)
    for _ in range(30):
        before = spool.statistics().written
        await fill(spool, n)
        segment = spool._files.segments[-1]
        batch = segment.read(len(segment) - 1)[0].size
        assert spool.statistics().written - before == -(-batch // PAGE_BYTES) * PAGE_BYTES
    found = verify(tmp_path)
    assert (found["ok"], found["frames"]) == (True, 31 * n)


async def test_no_commit_waits_for_the_next_segment_to_be_made(tmp_path, monkeypatch):
    spool = opened(tmp_path, 4_000_000)
    await fill(spool, 10)
    made = []
    make = files._make_zeroed
    monkeypatch.setattr(files, "_make_zeroed", lambda path, *rest: made.append(path.name) or make(path, *rest))
    while spool._files.segments[-1].number < 4:
        await fill(spool, 100)
        await spool.tidy()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4_000_000
    assert set(made) == {"spare"}
    assert spool.statistics().prepared < 2 * 500_000 + 262_144 + 1
    again = opened(tmp_path, 4_000_000)
    assert again.statistics().bytes <= 4_000_000
    assert len(await unsent(again)) == spool.next_seq - 1


async def test_what_is_told_of_a_drop_begins_with_the_first_frame_that_nobody_had(tmp_path):
    spool = opened(tmp_path, 1_000_000)
    await fill(spool, 10)  # one batch
    spool.ack(1, 1, 4)
    while not spool.statistics().dropped:
        await fill(spool, 500)
        spool.ack(1, 11, spool.next_seq - 1)
    dropped = spool.dropped()
    assert dropped is not None
    assert list(dropped.ranges[1]) == [(5, 10)]
    assert (dropped.first_ns, dropped.last_ns) == (frames.frame(5).time_ns, frames.frame(10).time_ns)


async def test_a_spare_that_was_made_ahead_is_used_after_a_restart(tmp_path):
    spool = opened(tmp_path, 4_000_000)
    while not (tmp_path / "spare").exists():
        await fill(spool, 100)
        await spool.tidy()
    inode = (tmp_path / "spare").stat().st_ino
    again = opened(tmp_path, 4_000_000)
    while again._files.segments[-1].number < 2:
        await fill(again, 100)
    assert (tmp_path / "0000000002.spool").stat().st_ino == inode
    assert not (tmp_path / "spare").exists()
    (tmp_path / "spare").write_bytes(b"of another size")
    opened(tmp_path, 4_000_000)
    assert not (tmp_path / "spare").exists()


async def test_what_went_while_there_was_no_disk_is_counted_when_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "MAX_PENDING_BYTES", 10 * (disk.FRAME_BYTES + 5 * disk.VALUE_BYTES))
    (tmp_path / "state").write_bytes(b"in the way")
    spool = opened(tmp_path / "state" / "spool")
    await fill(spool, 30)
    (tmp_path / "state").unlink()
    await fill(spool, 1)
    assert (spool.statistics().dropped, spool.boots()) == (21, {spool.boot: (22, 31)})
    dropped = spool.dropped()
    assert dropped is not None
    assert (list(dropped.ranges[spool.boot]), dropped.frames, spool.dropped()) == ([(1, 21)], 21, None)
    assert opened(tmp_path / "state" / "spool").statistics().dropped == 21


async def test_the_stamp_of_the_last_committed_frame_is_told_once_it_is_certain(tmp_path):
    spool = opened(tmp_path)
    spool.is_holding = True
    await fill(spool, 2)
    assert spool.committed_ns == 0
    spool.fix(1, 7_000)
    await fill(spool, 2)
    assert spool.committed_ns == (await unsent(spool))[-1].time_ns
    spool.append(frames.frame(spool.next_seq))
    assert spool.committed_ns == (await unsent(spool))[-1].time_ns


async def test_memos_come_back_in_order_until_they_are_kept_elsewhere(tmp_path):
    spool = opened(tmp_path, 1_000_000)
    spool.attach(b"one")
    await spool.commit()  # without a frame
    spool.attach(b"two")
    await fill(spool, 3)
    spool.attach(b"three")
    again = opened(tmp_path, 1_000_000)
    assert again.attached() == [b"one", b"two"]
    assert again.attached() == []
    turns = []
    again.at_turn = lambda: turns.append(len(again._files.segments))
    while not turns:
        again.attach(b"four")
        await fill(again, 20)
    assert turns == [1]
    again.attach(b"five")
    await again.commit()
    assert opened(tmp_path, 1_000_000).attached() == [b"four", b"five"]


async def test_memos_cost_no_sync_of_their_own_beside_frames(tmp_path, monkeypatch):
    spool, syncs, real = opened(tmp_path), [], os.fdatasync
    await fill(spool, 3)
    monkeypatch.setattr(disk.os, "fdatasync", lambda fd: (syncs.append(fd), real(fd)))
    for _ in range(5):
        spool.attach(b"an event")
        await fill(spool, 3)
    assert len(syncs) == 5


async def test_memos_wait_for_a_disk_that_refuses_within_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "MAX_MEMO_BYTES", 25)
    spool = opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        for k in range(5):
            spool.attach(b"memo %04d" % k)
            await fill(spool, 1)
    await spool.commit()
    assert list(dict.fromkeys(opened(tmp_path).attached()))[-2:] == [b"memo 0003", b"memo 0004"]


async def test_a_memo_that_is_larger_than_a_segment_hinders_nothing(tmp_path, caplog):
    spool = opened(tmp_path, 1_000_000)
    spool.attach(os.urandom(200_000))
    spool.attach(b"small")
    await fill(spool, 3)
    assert opened(tmp_path, 1_000_000).attached() == [b"small"]
    assert "larger than a segment" in caplog.text
    assert spool.boots() == {1: (1, 3)}


async def test_many_memos_take_their_turns(tmp_path):
    spool = opened(tmp_path, 1_000_000)
    kept = []
    spool.at_turn = kept.clear
    for k in range(60):
        memo = bytes([k]) + os.urandom(9_000)
        kept.append(memo)
        spool.attach(memo)
    await fill(spool, 3)
    found = opened(tmp_path, 1_000_000).attached()
    assert spool.statistics().state == "ok"
    assert 1 < len(found) < 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files of another user behind")
@pytest.mark.parametrize("umask", [0o022, 0o077])
async def test_files_of_another_user_are_left_or_replaced_and_what_can_be_read_of_them_is_sent(monkeypatch, umask):
    before, nobody = os.umask(umask), 65534
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to others
        folder = Path(name) / "spool"
        try:
            spool = opened(folder, 4_000_000)
            while not (folder / "spare").exists():
                await fill(spool, 100)
                await spool.tidy()
            spool.ack(1, 1, 1)
            await spool.commit()
            for path in (folder.parent, folder):
                os.chown(path, nobody, nobody)
            os.seteuid(nobody)
            again = opened(folder, 4_000_000)
            for _ in range(9):
                await fill(again, 100)
                again.ack(again.boot, 1, 1)
                await again.commit()
                await again.tidy()
            assert (again.statistics().state, again.statistics().pending) == ("ok", 0)
            assert again.boot > 1
            assert len(await unsent(again)) == 899 + (spool.next_seq - 1 if umask == 0o022 else 0)
            assert opened(folder, 4_000_000).is_acked(again.boot, 1)
        finally:
            os.seteuid(0)
            os.umask(before)


STRANGE = {
    "a folder": lambda path: (path.mkdir(), (path / "kept").touch()),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder": lambda path: path.symlink_to("/"),
    "a pipe": os.mkfifo,
    "of 20 GB": lambda path: os.truncate(path, 20 << 30) if path.touch() is None else None,
}
NAMES = ("meta", "cursor", "spare", "0000000001.spool", "0000000002.spool", "0000000002.sealed", "meta.new")


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("name", NAMES)
async def test_what_stands_where_a_file_belongs_and_is_none_is_put_aside(tmp_path, name, make, caplog):
    spool = opened(tmp_path)
    await fill(spool, 3)
    spool.ack(1, 1, 1)
    await spool.commit()
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    again = opened(tmp_path)
    for _ in range(3):
        await fill(again, 1)
        again.ack(again.boot, 1, 1)
        await again.commit()
        await again.tidy()
        assert (again.statistics().state, again.statistics().pending) == ("ok", 0)
    assert f"{name}.unused1" in {path.name for path in tmp_path.iterdir()}
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    last = opened(tmp_path)
    assert last.boots()[2] == (1, 3)
    assert last.is_acked(2, 1)


async def test_a_cursor_that_cannot_be_written_is_told_once_and_not_with_every_commit(tmp_path, caplog):
    spool = opened(tmp_path)
    await fill(spool, 1)
    (tmp_path / "cursor").mkdir()
    for seq in range(2, 6):
        await fill(spool, 1)
        spool.ack(1, seq, seq)
        await spool.commit()
        assert (spool.statistics().state, spool.statistics().pending) == ("failing", 0)
    (tmp_path / "cursor").rmdir()
    await spool.commit()
    assert spool.statistics().state == "ok"
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
async def test_a_file_that_is_used_again_and_cannot_be_written_takes_no_room_from_another(tmp_path, monkeypatch, code):
    write, make, refused = files._write_at, files._make_zeroed, []

    def refuse(path, data, at):
        if at == 0 and not refused:
            refused.append(path)
            raise OSError(code, os.strerror(code))
        write(path, data, at)

    def make_on_a_small_disk(path, header, size):
        if size + sum(each.stat().st_size for each in tmp_path.iterdir()) > 800_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(path, header, size)

    monkeypatch.setattr(files, "_write_at", refuse)
    monkeypatch.setattr(files, "_make_zeroed", make_on_a_small_disk)
    spool = opened(tmp_path, 1_000_000)
    while not refused:
        await fill(spool, 500)
    await fill(spool, 1)
    assert (spool.statistics().state, spool.statistics().pending) == ("ok", 0)


async def test_a_cap_that_is_lowered_while_a_file_is_made_ahead_holds(tmp_path, monkeypatch):
    spool, make, loop = opened(tmp_path, 16_000_000), files._make_zeroed, asyncio.get_running_loop()
    await fill(spool, 10)

    async def lower():
        spool.turn_to("cat1", frames.texts(), 1_000_000)
        await fill(spool, 10)

    def slowly(path, *rest):
        make(path, *rest)
        if path.name == "spare" and rest[-1] > 1_000_000:
            asyncio.run_coroutine_threadsafe(lower(), loop).result()

    monkeypatch.setattr(files, "_make_zeroed", slowly)
    await spool.tidy()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000
