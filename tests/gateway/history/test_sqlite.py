"""The SQLite store: its own promises beyond the contract."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.history import sqlite
from gateway.history.store import Series, Store, StoreAway, StoreRejected, open_store
from gateway.model.corridor import StoreSpec

T0 = 1_764_000_000_123_456_789
SERIES = Series("m", "c", "s", "g", "d", "v")


def line(value: float | str, time_ns: int, device: str = "d") -> bytes:
    return f"m,corridor=c,site=s,gateway=g,device={device} v={value} {time_ns}\n".encode()


def opened(path: Path) -> Store:
    return open_store(StoreSpec(f"sqlite://{path}", None))


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as reader:
        return reader.execute("SELECT gateway, device, tag, time_ns, value FROM samples ORDER BY time_ns").fetchall()


async def test_the_view_has_the_binding_columns(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "history.sqlite"
    store = opened(path)
    await store.write(line(1.5, T0))
    await store.close()
    assert rows(path) == [("g", "d", "v", T0, 1.5)]


@pytest.mark.parametrize("bad", ["nan", "inf", "true", '"text"', "1i"])
async def test_one_bad_line_keeps_the_whole_transaction_out(tmp_path: Path, bad: str) -> None:
    store = opened(tmp_path / "x")
    await store.write(line(1, T0))
    with pytest.raises(StoreRejected):
        await store.write(line(2, T0 + 1) + line(bad, T0 + 2))
    with pytest.raises(StoreRejected):
        await store.write(line(2, 2**63))
    with pytest.raises(StoreRejected, match="device"):
        await store.write(b"m,corridor=c,site=s,gateway=g v=1 1")
    await store.close()
    assert [row[3] for row in rows(tmp_path / "x")] == [T0]


async def test_readers_and_two_writers_share_the_file(tmp_path: Path) -> None:
    stores = [opened(tmp_path / "x") for _ in range(3)]
    writes = [stores[k].write(line(i, T0 + i, f"d{i % 4}")) for i in range(100) for k in range(2)]
    await asyncio.gather(*writes, *(stores[2].write(line(i, T0 + i)) for i in range(100)))
    trend = await stores[2].read(SERIES, 0, 2**63 - 1, 1000)
    assert trend.mean.tolist() == [float(i) for i in range(100)]
    assert len(rows(tmp_path / "x")) == 200
    for store in stores:
        await store.close()


async def test_a_fresh_file_is_set_up_by_many_at_once(tmp_path: Path) -> None:
    for k in range(60):  # without the lock one in 27 fails
        stores = [opened(tmp_path / f"{k}" / "x") for _ in range(3)]
        await asyncio.gather(*(store.write(line(i, T0 + i)) for i, store in enumerate(stores)))
        assert len(rows(tmp_path / f"{k}" / "x")) == 3
        for store in stores:
            await store.close()


async def test_a_locked_file_is_away_and_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    store = opened(tmp_path / "x")
    await store.write(line(1, T0))
    with closing(sqlite3.connect(tmp_path / "x", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreAway, match="locked"):
            await store.write(line(2, T0 + 1))
        assert (await store.read(SERIES, 0, 2**62, 10)).mean.tolist() == [1.0]
        other.execute("ROLLBACK")
    await store.write(line(2, T0 + 1))
    await store.close()
    assert len(rows(tmp_path / "x")) == 2


async def test_a_full_disk_is_away_and_leaves_the_file_whole(tmp_path: Path) -> None:
    store = opened(tmp_path / "x")
    await store.write(line(1, T0))
    assert isinstance(store, sqlite.Sqlite)
    assert store._writer
    store._writer.execute("PRAGMA max_page_count = 16")
    with pytest.raises(StoreAway, match="full"):
        await store.write(b"".join(line(i, T0 + i) for i in range(5000)))
    assert len(rows(tmp_path / "x")) == 1
    await store.write(b"".join(line(i, T0 + i) for i in range(5000)))
    await store.close()
    assert len(rows(tmp_path / "x")) == 5000


async def test_a_file_that_is_none_is_away(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not a database, but long enough to look like one" * 40)
    store = opened(tmp_path / "x")
    with pytest.raises(StoreAway, match="not a database"):
        await store.write(line(1, T0))
    with pytest.raises(StoreAway):
        await store.read(SERIES, 0, 1, 1)
    await store.close()


async def test_a_deleted_file_is_begun_anew_instead_of_written_into_the_void(tmp_path: Path) -> None:
    store = opened(tmp_path / "x")
    await store.write(line(1, T0))
    assert (await store.read(SERIES, 0, 2**62, 10)).mean.tolist() == [1.0]
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"x{suffix}").unlink()
    await store.write(line(2, T0 + 1))
    assert (await store.read(SERIES, 0, 2**62, 10)).mean.tolist() == [2.0]
    await store.close()
    assert [row[4] for row in rows(tmp_path / "x")] == [2.0]


async def test_a_commit_is_synced(tmp_path: Path) -> None:
    store = opened(tmp_path / "x")
    await store.write(line(1, T0))
    assert isinstance(store, sqlite.Sqlite)
    assert store._writer
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()
