"""A database as source: the tags of a gateway.toml over a range of time, scan by scan, joined where times agree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from drivers.quality import BAD_DATA_UNAVAILABLE, GOOD
from gateway.history.store import Series, Store, StoreAway, open_store
from gateway.model.clock import NS
from gateway.model.corridor import StoreSpec
from gateway.model.frame import TagTable
from gateway.replay.source import RecordedFrame, RecordedScan, SourceAway, SourceError, Span

ROWS: Final = 10_000  # of the fastest scan at a time: what a query answers within a second
MAX_ROWS: Final = 20 * ROWS  # a database that holds more of a tag in a window is thinned by it, hence refused
SHORTEST_S: Final = 60.0  # of a window
ANY: Final = 2  # samples, to know whether there are any


class Database:
    """The samples of a gateway's tags in a database; raises SourceError.

    A database has no quality: where a tag has no sample at the time of its scan its value was bad.
    """

    def __init__(self, store: StoreSpec, table: TagTable, span: Span) -> None:
        if span.start_ns < 0:
            raise SourceError(f"{store.url}: wanted --from: a database is replayed over a range of time")
        self._url = store.url
        address = urlsplit(store.url)
        self._is_file = address.scheme == "sqlite"
        if self._is_file and not Path(unquote(address.path)).is_file():
            raise SourceError(f"{store.url}: no such file")
        self._store = store
        self._table = table
        self._span = Span(span.start_ns, min(span.stop_ns, time.time_ns()))
        if self._span.stop_ns <= self._span.start_ns:
            raise SourceError(f"{store.url}: --to is not after --from")
        self.progress = 0.0
        self.scans = tuple(
            RecordedScan(table.device(scan).name, tuple(tag.name for tag in table.tags[scan.start : scan.stop]))
            for scan in table.scans
        )

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the frames of all scans, in the order of time."""
        fastest_s = min(scan.period_s or 1.0 for scan in self._table.scans)
        step_ns = round(max(ROWS * fastest_s, SHORTEST_S) * NS)
        with asyncio.Runner() as runner:
            try:
                store = runner.run(_open(self._store))
            except (ValueError, ImportError) as error:
                raise SourceError(f"{self._url}: {str(error).removeprefix('store: ')}") from None
            try:
                start_ns = self._span.start_ns
                while start_ns < self._span.stop_ns:
                    stop_ns = min(start_ns + step_ns, self._span.stop_ns)
                    frames = self._window(runner, store, start_ns, stop_ns)
                    yield from frames
                    if not frames:
                        stop_ns = runner.run(self._skip(store, stop_ns, step_ns))
                    self.progress = (stop_ns - self._span.start_ns) / (self._span.stop_ns - self._span.start_ns)
                    start_ns = stop_ns
            except StoreAway as error:
                raise (SourceError if self._is_file else SourceAway)(str(error)) from None
            finally:
                runner.run(store.close())

    async def _skip(self, store: Store, start_ns: int, step_ns: int) -> int:
        """Return from when on a window may have samples: what is empty is passed in strides that double."""
        while start_ns < self._span.stop_ns:
            stop_ns = min(start_ns + step_ns, self._span.stop_ns)
            for series in (self._series(scan, tag) for scan in self.scans for tag in scan.tags):
                if (await store.read(series, start_ns, stop_ns, ANY)).time_ns.size:
                    return start_ns
            start_ns, step_ns = stop_ns, 2 * step_ns
        return start_ns

    def _series(self, scan: RecordedScan, tag: str) -> Series:
        spec = self._table.spec
        device = next(one for one in spec.devices if one.name == scan.device)
        return Series(device.measurement, spec.corridor, spec.site, spec.id, device.name, tag)

    def _window(self, runner: asyncio.Runner, store: Store, start_ns: int, stop_ns: int) -> list[RecordedFrame]:
        found: list[tuple[int, int, int]] = []
        columns: list[NDArray[np.float64]] = []
        for scan in self.scans:
            times, value = runner.run(self._scan(store, scan, start_ns, stop_ns))
            found += [(int(t), len(columns), k) for k, t in enumerate(times)]
            columns.append(value)
        frames = []
        for time_ns, number, k in sorted(found):
            value = columns[number][k]
            quality = np.where(np.isnan(value), np.uint32(BAD_DATA_UNAVAILABLE), np.uint32(GOOD))
            frames.append(RecordedFrame(number, time_ns, value, quality))
        return frames

    async def _scan(
        self, store: Store, scan: RecordedScan, start_ns: int, stop_ns: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the times of a scan in a window and value float64[times, tags], NaN where a tag has none."""
        trends = []
        for tag in scan.tags:
            trend = await store.read(self._series(scan, tag), start_ns, stop_ns, MAX_ROWS)
            if (trend.low < trend.high).any():
                raise SourceError(f"{self._url}: {scan.device}.{tag}: more than {MAX_ROWS} samples in a window")
            trends.append(trend)
        times = np.unique(np.concatenate([trend.time_ns for trend in trends]))
        value = np.full((times.size, len(trends)), np.nan)
        for j, trend in enumerate(trends):
            value[np.searchsorted(times, trend.time_ns), j] = trend.mean
        return times, value


async def _open(spec: StoreSpec) -> Store:
    return open_store(spec)
