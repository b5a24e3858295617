"""One suite for every spool."""

import asyncio

import numpy as np
import pytest

from gateway.model.ranges import RangeSet
from gateway.spool.disk import DiskSpool
from gateway.spool.memory import MemorySpool
from gateway.spool.spool import START
from tests.gateway import frames

MAKERS = {
    "disk": lambda folder, size: DiskSpool(folder, size, "cat1", frames.texts()),
    "memory": lambda folder, size: MemorySpool(size, "cat1", frames.texts()),
}


@pytest.fixture(params=MAKERS, ids=str)
def make(request, tmp_path):
    return lambda size=10_000_000: MAKERS[request.param](tmp_path, size)


def everything(boot):
    return RangeSet()


async def unsent(spool, but=everything):
    position, found = START, []
    while batch := await spool.unsent(position, but):
        position = batch.position
        found += batch.frames
    return found


async def fill(spool, n):
    for _ in range(n):
        spool.append(frames.frame(spool.next_seq, spool.next_seq % 3))
    await spool.commit()


async def test_what_was_appended_comes_back_in_order_and_exact(make):
    spool = make()
    await fill(spool, 20)
    await fill(spool, 5)
    found = await unsent(spool)
    assert [f.seq for f in found] == list(range(1, 26))
    for f in found:
        wanted = frames.frame(f.seq, f.seq % 3)
        assert np.array_equal(f.value, wanted.value, equal_nan=True)
        assert np.array_equal(f.quality, wanted.quality)
        assert (f.due_ns, f.time_ns, f.uncertainty_ns) == (wanted.due_ns, wanted.time_ns, wanted.uncertainty_ns)
    await spool.close()


async def test_acknowledged_frames_are_not_sent_again(make):
    spool = make()
    await fill(spool, 10)
    spool.ack(spool.boot, 1, 4)
    spool.ack(spool.boot, 6, 6)
    assert [f.seq for f in await unsent(spool)] == [5, 7, 8, 9, 10]
    assert [f.seq for f in await unsent(spool, lambda boot: RangeSet([(8, 8)]))] == [5, 7, 9, 10]
    assert spool.statistics().unsent == 5
    assert spool.is_acked(spool.boot, 6)
    assert not spool.is_acked(spool.boot, 5)


async def test_behind_the_end_stands_only_what_comes_later(make):
    spool = make()
    await fill(spool, 10)
    end = spool.end()
    assert await spool.unsent(end, everything) is None
    await fill(spool, 2)
    found = await spool.unsent(end, everything)
    assert found.frames[0].seq == 11


async def test_boots_name_what_is_held(make):
    spool = make()
    assert spool.boots() == {}
    await fill(spool, 7)
    assert spool.boots() == {spool.boot: (1, 7)}


async def test_a_reload_changes_the_texts_from_the_next_frame_on(make):
    spool = make()
    await fill(spool, 3)
    spool.turn_to("cat2", frames.texts(rows=2), 10_000_000)
    spool.append(frames.frame(4, rows=2))
    await spool.commit()
    position, found = (0, 0), []
    while batch := await spool.unsent(position, everything):
        position = batch.position
        found += [
            (frame.seq, batch.catalog, batch.texts == frames.texts(rows=frame.value.size)) for frame in batch.frames
        ]
    assert found == [(seq, "cat2" if seq == 4 else "cat1", True) for seq in (1, 2, 3, 4)]


async def test_a_number_out_of_order_is_a_bug(make):
    spool = make()
    with pytest.raises(ValueError, match="out of order"):
        spool.append(frames.frame(3))


async def test_the_cap_holds_and_what_goes_unsent_is_counted_to_the_value(make):
    spool = make(1_000_000)
    n, good = 0, {}
    while n < 60_000 and not spool.statistics().dropped:
        for _ in range(1000):
            f = frames.frame(spool.next_seq, spool.next_seq % 3)
            good[f.seq] = int((f.quality < 1 << 31).sum())
            spool.append(f)
            n += 1
        await spool.commit()
        await asyncio.sleep(0)
    kept = spool.statistics()
    assert kept.bytes <= 1_000_000
    assert kept.dropped > 0
    first = next(iter(spool.boots().values()))[0]
    assert kept.dropped == first - 1
    assert kept.dropped_values == sum(good[seq] for seq in range(1, first))
    assert kept.unsent == n - kept.dropped
