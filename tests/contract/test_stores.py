"""One suite for every store: what ingest and console rely on, whichever database it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

from gateway.history.store import Series, Store, StoreAway, StoreRejected, open_store
from gateway.model.corridor import StoreSpec
from tests import servers

T0 = 1_764_000_000_123_456_789
SECOND = 1_000_000_000
HEAD = "flow_meter,corridor=link43,site=ps1,gateway={gateway},device=ft-101,asset=meter\\ run\\ 1"


@dataclass
class Bench:
    """A store and how a test sees what is in it. `samples` returns {time_ns: value} of a tag, asked of the server."""

    store: Store
    gateway: str
    samples: Callable[[str], Awaitable[dict[int, float]]]
    resolution_ns: int = 1
    reads: bool = True
    rejects: bool = True
    binds_types: bool = False

    def line(self, fields: str, time_ns: int) -> bytes:
        return f"{HEAD.format(gateway=self.gateway)} {fields} {time_ns}\n".encode()

    def series(self, tag: str) -> Series:
        return Series("flow_meter", "link43", "ps1", self.gateway, "ft-101", tag)

    def stamp(self, time_ns: int) -> int:
        return time_ns // self.resolution_ns * self.resolution_ns


def influx_samples(port: int, database: str) -> Callable[[str], Awaitable[dict[int, float]]]:
    async def samples(tag: str) -> dict[int, float]:
        rows = await servers.influx_query(port, f'SELECT "{tag}" FROM flow_meter', database)
        return {time: value for time, value in rows if value is not None}

    return samples


def victoria_samples(port: int, gateway: str) -> Callable[[str], Awaitable[dict[int, float]]]:
    async def samples(tag: str) -> dict[int, float]:
        match = f'flow_meter_{tag}{{gateway="{gateway}"}}'
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await session.get("/internal/force_flush")
            async with session.get("/api/v1/export", params={"match[]": match}) as answer:
                found = [json.loads(line) for line in (await answer.text()).splitlines()]
        return {t * 1_000_000: v for each in found for t, v in zip(each["timestamps"], each["values"], strict=True)}

    return samples


def sqlite_samples(store: Store, path: Path) -> Callable[[str], Awaitable[dict[int, float]]]:
    import sqlite3

    async def samples(tag: str) -> dict[int, float]:
        reader = sqlite3.connect(path)
        try:
            return dict(reader.execute("SELECT time_ns, value FROM samples WHERE tag = ?", (tag,)).fetchall())
        finally:
            reader.close()

    return samples


BENCHES = ("sqlite", "influx1", "influx2", "victoria1", "victoria2")


@pytest.fixture(params=BENCHES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    name: str = request.param
    gateway = f"gw-{abs(hash(request.node.nodeid)):x}"
    if name == "sqlite":
        path = tmp_path / "history.sqlite"
        store = open_store(StoreSpec(f"sqlite://{path}", None))
        made = Bench(store, gateway, sqlite_samples(store, path))
        yield made
        await store.close()
        return
    if name.startswith("victoria"):
        port = request.getfixturevalue("victoria_metrics").port
        url = f"influx1://127.0.0.1:{port}/x" if name == "victoria1" else f"influx2://127.0.0.1:{port}?org=o&bucket=b"
        store = open_store(StoreSpec(url, None))
        samples = victoria_samples(port, gateway)
        yield Bench(store, gateway, samples, resolution_ns=1_000_000, reads=False, rejects=False)
        await store.close()
        return
    port = request.getfixturevalue("influxd").port
    database = await servers.create_database(port)
    samples = influx_samples(port, database)
    if name == "influx1":
        store = open_store(StoreSpec(f"influx1://127.0.0.1:{port}/{database}", None))
        yield Bench(store, gateway, samples, binds_types=True)
        await store.close()
        return
    async with servers.influx2_front(port) as front:
        store = open_store(StoreSpec(f"{front.url}&bucket={database}", servers.TOKEN))
        yield Bench(store, gateway, samples, binds_types=True)
        await store.close()


async def test_what_is_written_is_there(bench: Bench) -> None:
    comment = b"# boot=7 seq=1-2 catalog=3f9a\n"
    await bench.store.write(comment + bench.line("mass=241.7,rho=861.25", T0) + bench.line("mass=1e-05", T0 + SECOND))
    assert await bench.samples("mass") == {bench.stamp(T0): 241.7, bench.stamp(T0 + SECOND): 1e-05}
    assert await bench.samples("rho") == {bench.stamp(T0): 861.25}


async def test_a_repeat_changes_nothing_and_a_correction_replaces(bench: Bench) -> None:
    lines = b"".join(bench.line(f"mass={i}.5", T0 + i * SECOND) for i in range(20))
    await bench.store.write(lines)
    await bench.store.write(lines)
    assert await bench.samples("mass") == {bench.stamp(T0 + i * SECOND): i + 0.5 for i in range(20)}
    if bench.rejects:  # VictoriaMetrics keeps both and takes the larger
        await bench.store.write(bench.line("mass=-4", T0))
        assert (await bench.samples("mass"))[T0] == -4.0


async def test_raw_samples_come_back_in_order_within_the_span(bench: Bench) -> None:
    if not bench.reads:
        pytest.skip("VictoriaMetrics answers no InfluxQL")
    await bench.store.write(b"".join(bench.line(f"mass={i},rho=1", T0 + i * SECOND) for i in (3, 1, 2, 0, 4)))
    trend = await bench.store.read(bench.series("mass"), T0 + SECOND, T0 + 4 * SECOND, 3)
    assert trend.time_ns.dtype == np.int64
    assert trend.time_ns.tolist() == [T0 + i * SECOND for i in (1, 2, 3)]
    assert trend.low.tolist() == trend.mean.tolist() == trend.high.tolist() == [1.0, 2.0, 3.0]


async def test_too_many_samples_become_low_mean_high_of_buckets(bench: Bench) -> None:
    if not bench.reads:
        pytest.skip("VictoriaMetrics answers no InfluxQL")
    values = [float((7 * i) % 100) for i in range(1000)]
    await bench.store.write(b"".join(bench.line(f"mass={v}", T0 + i * SECOND) for i, v in enumerate(values)))
    trend = await bench.store.read(bench.series("mass"), T0, T0 + 1000 * SECOND, 10)
    groups = [values[i : i + 100] for i in range(0, 1000, 100)]
    assert trend.time_ns.tolist() == [T0 + i * SECOND for i in range(0, 1000, 100)]
    assert trend.low.tolist() == [min(group) for group in groups]
    assert trend.high.tolist() == [max(group) for group in groups]
    assert trend.mean.tolist() == pytest.approx([sum(group) / 100 for group in groups], rel=1e-12)


async def test_an_unknown_tag_is_an_empty_trend(bench: Bench) -> None:
    if not bench.reads:
        pytest.skip("VictoriaMetrics answers no InfluxQL")
    await bench.store.write(bench.line("mass=1", T0))
    nasty = Series("flow_meter", "o'hara", "\\", bench.gateway, "a\nb", 'x" FROM y; --')
    for series in (bench.series("absent"), nasty):
        assert (await bench.store.read(series, 0, 2**63 - 1, 100)).time_ns.size == 0


@pytest.mark.parametrize("bad", [b"garbage\n", b"flow_meter,corridor=c\n", b"a,b=c d=1 then\n"])
async def test_lines_that_are_none_are_rejected(bench: Bench, bad: bytes) -> None:
    if not bench.rejects:
        pytest.skip("VictoriaMetrics takes anything: gateway.ingest.check is there for that")
    with pytest.raises(StoreRejected):
        await bench.store.write(bad)
    await bench.store.write(bench.line("mass=1", T0))


async def test_a_type_conflict_is_rejected_and_the_good_lines_may_be_repeated(bench: Bench) -> None:
    if not bench.rejects:
        pytest.skip("VictoriaMetrics stores a bool as 1")
    await bench.store.write(bench.line("mass=1", T0))
    good, bad = bench.line("mass=2", T0 + SECOND), bench.line("mass=true", T0 + 2 * SECOND)
    with pytest.raises(StoreRejected):
        await bench.store.write(good + bad)
    await bench.store.write(good)
    assert await bench.samples("mass") == {T0: 1.0, T0 + SECOND: 2.0}


def urls(tmp_path: Path) -> dict[str, str]:
    return {
        "sqlite": "sqlite:///proc/none/x",
        "influx1": "influx1://127.0.0.1:1/x",
        "influx2": "influx2://127.0.0.1:1?bucket=b",
    }


@pytest.mark.parametrize("scheme", ["sqlite", "influx1", "influx2"])
async def test_a_store_that_is_not_there_is_away(scheme: str, tmp_path: Path) -> None:
    store = open_store(StoreSpec(urls(tmp_path)[scheme], None))
    line = HEAD.format(gateway="g").encode() + b" mass=1 %d" % T0
    with pytest.raises(StoreAway, match=urlsplit(urls(tmp_path)[scheme]).netloc or "/proc/none/x"):
        await store.write(line)
    with pytest.raises(StoreAway):
        await store.read(Series("flow_meter", "link43", "ps1", "g", "ft-101", "mass"), 0, T0, 10)
    await store.close()


def test_a_url_without_its_database_is_an_error() -> None:
    for url in ("influx1://host:8086", "influx2://host:8086?org=o", "sqlite://", "mongodb://host/x"):
        with pytest.raises(ValueError, match="wanted"):
            open_store(StoreSpec(url, None))
