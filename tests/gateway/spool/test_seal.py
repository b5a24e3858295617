"""A full segment is written anew in long blocks: the same frames in fewer bytes, whatever happens meanwhile."""

import numpy as np
import pytest

from gateway.model.ranges import RangeSet
from gateway.spool import disk, files
from gateway.spool.disk import DiskSpool
from gateway.spool.segment import SEALED, segments_in
from gateway.spool.verify import verify
from tests.contract.test_spools import everything, fill, unsent
from tests.gateway import frames

CAP = 1_200_000


def opened(folder, size=CAP):
    return DiskSpool(folder, size, "cat1", frames.texts())


async def filled(folder, n_segments=2, size=CAP):
    """Return a spool with so many full segments and one that is written."""
    spool = opened(folder, size)
    while len(segments_in(folder)) <= n_segments:
        await fill(spool, 50)
    return spool


async def sealed(spool, folder):
    """Seal whatever is full."""
    for _ in segments_in(folder):
        await spool.tidy()


def size_of(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def same(found, wanted):
    return (
        found.seq == wanted.seq
        and np.array_equal(found.value, wanted.value, equal_nan=True)
        and np.array_equal(found.quality, wanted.quality)
        and (found.due_ns, found.time_ns, found.uncertainty_ns)
        == (wanted.due_ns, wanted.time_ns, wanted.uncertainty_ns)
    )


async def test_the_same_frames_in_fewer_bytes(tmp_path):
    spool = await filled(tmp_path)
    before, n = verify(tmp_path), spool.next_seq - 1
    raw = segments_in(tmp_path)[0][1].stat().st_size
    await sealed(spool, tmp_path)
    path = segments_in(tmp_path)[0][1]
    assert path.suffix == SEALED
    assert path.stat().st_size < 0.8 * raw
    after = verify(tmp_path)
    assert (after["ok"], after["boots"], after["values"]) == (True, before["boots"], before["values"])
    assert after["largest_batch"] > before["largest_batch"]
    for one in (spool, opened(tmp_path)):
        found = await unsent(one)
        assert len(found) == n
        assert all(same(f, frames.frame(f.seq, f.seq % 3)) for f in found)


async def test_its_file_is_used_again_so_that_the_folder_does_not_grow(tmp_path):
    spool = await filled(tmp_path, 1)
    await sealed(spool, tmp_path)
    whole = size_of(tmp_path)
    used = {path.stat().st_ino for path in tmp_path.glob("*.spool")}
    await fill(spool, 50)
    while len(segments_in(tmp_path)) < 3:
        await fill(spool, 50)
    assert {path.stat().st_ino for path in tmp_path.glob("*.spool")} == used
    assert size_of(tmp_path) == pytest.approx(whole, abs=4096)


async def test_a_reader_of_the_backlog_who_stood_in_it_misses_nothing(tmp_path):
    spool = await filled(tmp_path)
    position, seen = (0, 0), []
    for _ in range(3):
        batch = await spool.unsent(position, everything)
        position = batch.position
        seen += [f.seq for f in batch.frames]
        spool.ack(1, batch.frames[0].seq, batch.frames[-1].seq)
    await sealed(spool, tmp_path)
    while batch := await spool.unsent(position, everything):
        position = batch.position
        seen += [f.seq for f in batch.frames]
    assert seen == list(range(1, spool.next_seq))


async def test_commits_go_on_while_it_is_sealed_and_one_that_is_dropped_meanwhile_is_let_go(tmp_path, monkeypatch):
    spool = await filled(tmp_path, 5)
    sealing = disk.seal

    def slow(segment, offsets):
        spool._files.make_room(10_000_000)  # a commit that needed all the room
        return sealing(segment, offsets)

    monkeypatch.setattr(disk, "seal", slow)
    await spool.tidy()
    assert spool.statistics().state == "ok"
    assert not list(tmp_path.glob("*.new"))
    await fill(spool, 3)
    assert size_of(tmp_path) <= CAP
    assert verify(tmp_path)["ok"]


@pytest.mark.parametrize("step", ["written", "named"])
async def test_a_cut_between_two_steps_leaves_one_of_both(tmp_path, monkeypatch, step):
    spool = await filled(tmp_path)
    before = verify(tmp_path)

    class Cut(BaseException):
        pass

    def cut(*_):
        raise Cut

    with monkeypatch.context() as patch:
        if step == "written":
            patch.setattr(type(tmp_path), "rename", cut)
        else:
            patch.setattr(files, "sync_folder", cut)
        with pytest.raises(Cut):
            await spool.tidy()
    assert bool(list(tmp_path.glob("*.new"))) == (step == "written")
    again = opened(tmp_path)
    assert not list(tmp_path.glob("*.new"))
    assert verify(tmp_path)["boots"] == before["boots"]
    assert [f.seq for f in await unsent(again)] == list(range(1, spool.next_seq))
    await sealed(again, tmp_path)
    await fill(again, 200)
    assert verify(tmp_path)["ok"]
    assert size_of(tmp_path) <= CAP


async def test_a_damaged_batch_is_left_out_counted_and_told_when_it_is_asked_for(tmp_path):
    spool = await filled(tmp_path)
    segment = spool._files.segments[0]
    offset, _, first, n, _ = segment.batch(2)
    raw = bytearray(segment.path.read_bytes())
    raw[offset + 60] ^= 0xFF
    segment.path.write_bytes(raw)
    await sealed(spool, tmp_path)
    assert spool.statistics().damaged == 1
    found, why = spool.reopen(1, RangeSet([(first - 1, first + n)]))
    assert list(found) == [(first - 1, first - 1), (first + n, first + n)]
    assert {reason: list(ranges) for reason, ranges in why.items()} == {"damaged": [(first, first + n - 1)]}


async def test_the_cap_holds_whatever_is_sealed_and_drops_are_exact(tmp_path):
    spool = opened(tmp_path, 1_000_000)
    told = 0
    while spool.statistics().dropped < 5_000:
        await fill(spool, 200)
        await spool.tidy()
        assert size_of(tmp_path) <= 1_000_000
        assert spool.statistics().bytes <= 1_000_000
        told += drop.frames if (drop := spool.dropped()) else 0
    kept = spool.statistics()
    first = spool.boots()[1][0]
    assert first > 1
    assert kept.dropped == first - 1 == told
    assert kept.dropped_values == sum(
        int((frames.frame(seq, seq % 3).quality < 1 << 31).sum()) for seq in range(1, first)
    )
    assert [f.seq for f in await unsent(spool)] == list(range(first, spool.next_seq))
