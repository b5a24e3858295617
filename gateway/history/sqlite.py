"""Samples in one SQLite file: the store of a demo, a bench or a single box.

    series    id -> measurement, corridor, site, gateway, device, tag
    samples_  (series, time_ns) -> value, clustered by that key: a trend is one contiguous scan
    samples   view: gateway, device, tag, time_ns, value

WAL lets the console read while ingest writes. synchronous is FULL: NORMAL loses the last commits in a power cut, and
these were acknowledged to the broker. With one commit a batch the sync costs one fdatasync a batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import numpy as np

from gateway.history.store import Series, StoreAway, StoreRejected, Trend
from gateway.model.corridor import StoreSpec
from gateway.wire.lines import PayloadError, parse_lines

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL, corridor TEXT NOT NULL, site TEXT NOT NULL,
    gateway TEXT NOT NULL, device TEXT NOT NULL, tag TEXT NOT NULL,
    UNIQUE (gateway, device, tag, measurement, corridor, site)
);
CREATE TABLE IF NOT EXISTS samples_ (
    series INTEGER NOT NULL, time_ns INTEGER NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (series, time_ns)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS samples AS
    SELECT gateway, device, tag, time_ns, value FROM samples_ JOIN series ON series.id = samples_.series;
"""
BUSY_S: Final = 5.0  # how long to wait for another process's transaction, which takes milliseconds
PAGE_BYTES: Final = 1024  # every commit touches a page per series; at 1,000 series and 1 Hz, 1 kB pages and
WAL_PAGES: Final = 64_000  # a log of 64 MB write 1.8 MB/s to the disk, SQLite's defaults 8.0 (a flash card's life)
NAMES: Final = ("corridor", "site", "gateway", "device")
INSERT: Final = "INSERT OR REPLACE INTO samples_ VALUES (?, ?, ?)"
ADD_SERIES: Final = (
    "INSERT INTO series (measurement, corridor, site, gateway, device, tag) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET tag = excluded.tag RETURNING id"
)
RAW: Final = "SELECT time_ns, value, value, value FROM samples_ WHERE series = ? AND time_ns >= ? AND time_ns < ?"
THINNED: Final = (
    "SELECT ?2 + (time_ns - ?2) / ?4 * ?4, min(value), avg(value), max(value) FROM samples_"
    " WHERE series = ?1 AND time_ns >= ?2 AND time_ns < ?3 GROUP BY (time_ns - ?2) / ?4 ORDER BY 1"
)
MAX_NS: Final = 2**63 - 1

Key = tuple[str, ...]


class Sqlite:
    """sqlite:///absolute/path. One thread writes and one reads, so the event loop never waits for the disk."""

    def __init__(self, spec: StoreSpec) -> None:
        self._path = Path(unquote(urlsplit(spec.url).path))
        if self._path.name == "":
            raise ValueError(f"store: got {spec.url!r}, wanted sqlite:///path/to/file")
        self._writing = ThreadPoolExecutor(1, "sqlite-write")
        self._reading = ThreadPoolExecutor(1, "sqlite-read")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._inode = self._read_inode = 0
        self._ids: dict[Key, int] = {}

    async def write(self, lines: bytes) -> None:
        """Keep these lines in one transaction; raises StoreAway, or StoreRejected and keeps none of them."""
        await asyncio.get_running_loop().run_in_executor(self._writing, self._write, lines)

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        """Return the tag's samples in [start_ns, stop_ns), thinned to max_points; raises StoreAway."""
        span = max(start_ns, 0), min(stop_ns, MAX_NS)
        return await asyncio.get_running_loop().run_in_executor(self._reading, self._read, series, *span, max_points)

    async def close(self) -> None:
        """Finish what is being written and close the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for pool in (self._writing, self._reading):
            pool.shutdown()
        for connection in (self._writer, self._reader):
            if connection:
                connection.close()

    def _write(self, lines: bytes) -> None:
        rows = _rows(lines)
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            ids = self._ids
            for key, _, _ in rows:
                if key not in ids:
                    ids[key] = connection.execute(ADD_SERIES, key).fetchone()[0]
            connection.executemany(INSERT, [(ids[key], time_ns, value) for key, time_ns, value in rows])
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._give_up()
            raise StoreAway(f"{self._path}: {error}") from None

    def _open(self) -> sqlite3.Connection:
        """Return the writer's connection, a new one if the file was replaced or deleted under us."""
        if self._writer and self._inode == _inode(self._path):
            return self._writer
        self._give_up()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self._path.parent):
            self._writer = _connect(self._path, "rwc")
            self._writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            self._writer.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * PAGE_BYTES}")
            self._writer.executescript(SCHEMA)
        self._inode = _inode(self._path)
        return self._writer

    def _give_up(self) -> None:
        self._ids = {}
        if self._writer:
            with contextlib.suppress(sqlite3.Error):
                self._writer.close()
        self._writer = None

    def _read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        try:
            if self._reader is None or self._read_inode != _inode(self._path):
                self._reader = _connect(self._path, "rw")
                self._read_inode = _inode(self._path)
            return _select(self._reader, series, start_ns, stop_ns, max_points)
        except (sqlite3.Error, OSError) as error:
            if self._reader:
                self._reader.close()
            self._reader = None
            raise StoreAway(f"{self._path}: {error}") from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Set a file up while no other writer does: SQLite does not wait for a lock when it changes the journal mode."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, timeout=BUSY_S, isolation_level=None, check_same_thread=False, uri=True)


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0


def _rows(text: bytes) -> list[tuple[Key, int, float]]:
    """Return (series, time_ns, value) of every field; raises StoreRejected."""
    rows: list[tuple[Key, int, float]] = []
    try:
        for line in parse_lines(text):
            head = (line.measurement, *(line.tags[name] for name in NAMES))
            rows += [((*head, tag), line.time_ns, value) for tag, value in line.fields.items()]
    except (PayloadError, UnicodeDecodeError) as error:
        raise StoreRejected(str(error)) from None
    except KeyError as error:
        raise StoreRejected(f"a line without the tag {error}") from None
    return rows


def _select(connection: sqlite3.Connection, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
    found = connection.execute(
        "SELECT id FROM series WHERE (measurement, corridor, site, gateway, device, tag) = (?, ?, ?, ?, ?, ?)",
        (series.measurement, series.corridor, series.site, series.gateway, series.device, series.tag),
    ).fetchone()
    if not found:
        return _trend([])
    rows = connection.execute(f"{RAW} LIMIT {max_points + 1}", (found[0], start_ns, stop_ns)).fetchall()
    if len(rows) > max_points:
        bucket_ns = -(-(stop_ns - start_ns) // max_points)
        rows = connection.execute(THINNED, (found[0], start_ns, stop_ns, bucket_ns)).fetchall()
    return _trend(rows)


def _trend(rows: list[tuple[int, float, float, float]]) -> Trend:
    time_ns = np.array([row[0] for row in rows], dtype=np.int64)
    low, mean, high = (np.array([row[k] for row in rows], dtype=np.float64) for k in (1, 2, 3))
    return Trend(time_ns, low, mean, high)
