"""The whole chain with links that fail on demand, and a checker of what came through it.

    meters -> corridor run -> uplink -> mosquitto -> downlink -> ingest -> outlet -> InfluxDB (or a SQLite file)

Every link is a Proxy. Of each meter a tag shows the number of the read, so a value names its poll by itself: who checks
needs neither the gateway's numbers nor its clock to see that a poll is in the database twice. What was promised is
what the gateway printed (COMMIT) and what its spool holds at the end; what the meters really said stands in the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from drivers.link import LinkSpec
from drivers.points import Point
from drivers.quality import BAD
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import TICK_S, Fleet
from drivers.sim.proxy import Proxy
from gateway.ingest.ledger_file import read_ledger
from gateway.model.clock import NS
from gateway.model.ranges import RangeSet
from gateway.replay.source import Span
from gateway.replay.spool_folder import SpoolFolder
from gateway.spool.notes import read_meta
from gateway.spool.verify import verify
from gateway.wire.ledger import Report
from hil_tests.bench import Gateway
from tests import servers
from tests.faults.goals import Goal
from tests.gateway.ingest.ingest_scene import ingesting, spec
from tests.gateway.test_app import write_config
from tests.processes import corridor

READS: Final = "reads"  # the tag that shows the number of the read
POINTS: Final = (Point(READS, "holding", 0, "uint32"), *(Point(f"v{i}", "holding", 2 + i, "uint16") for i in range(4)))
TAGS: Final = tuple(point.name for point in POINTS)
UNITS: Final = 2
PERIOD_S: Final = 0.05  # so 40 frames a second, 200 values
CATCH_UP_S: Final = 90.0  # a thin link, a database that takes 20 s to be given up, a resend after two looks
RESTARTS: Final = 3  # of a gateway that had no time to bring its last frames

Row = tuple[str, int]  # device, time_ns
Rows = dict[Row, dict[str, float]]  # -> tag -> value


@dataclass
class Chain:
    """A running chain; `gateway` and ingest are started by the test.

    uplink, downlink  links to the broker: the gateway's, and that of ingest
    outlet, database  the link to InfluxDB, and its server; None where a SQLite file is the database
    rows              what is in the database
    ledgers           state folders of every ingest that was started
    """

    folder: Path
    fleet: Fleet
    broker: servers.Server
    uplink: Proxy
    downlink: Proxy
    outlet: Proxy | None
    database: servers.Server | None
    url: str
    rows: Callable[[], Awaitable[Rows]]
    gateway: Gateway
    ledgers: list[Path] = field(default_factory=list)

    def ingest(self, name: str = "in1") -> AbstractAsyncContextManager[None]:
        """Run an ingest in this process."""
        return ingesting(spec(self.downlink, self.url, ingest=name), self._ledger(name))

    @contextlib.contextmanager
    def worker(self, name: str = "in1") -> Iterator[object]:
        """Run `corridor ingest`."""
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.downlink.port}"\n'
            f'[ingest]\nid = "{name}"\ncorridor = "link43"\n[store]\nurl = "{self.url}"\n'
        )
        state = self._ledger(name)
        with corridor("ingest", config, "--state", state, log=self.folder / f"{name}.log") as child:
            yield child

    def _ledger(self, name: str) -> Path:
        state = self.folder / name
        if state not in self.ledgers:
            self.ledgers.append(state)
        return state

    def log(self) -> str:
        """Return what the gateway has said so far."""
        return self.gateway.log.read_text(errors="replace") if self.gateway.log.exists() else ""

    def n_committed(self) -> int:
        """Return how many frames the gateway has promised to keep, over all boots."""
        return sum(self.gateway.committed().values())

    async def commits(self, frames: int) -> None:
        """Wait until the gateway has committed so many more."""
        wanted = self.n_committed() + frames

        def has() -> bool:
            assert self.gateway.is_running, self.log()[-2000:]
            return self.n_committed() >= wanted

        await servers.until(has, CATCH_UP_S, 0.05)

    def stored(self, state: Path) -> dict[int, RangeSet]:
        """Return which frames of each boot are in the database, as a ledger has it."""
        found = {}
        for row in _report(state)["gateways"]:
            missing = RangeSet([*row["missing"], *row["gone"]])
            found[row["boot"]] = missing.missing_from(RangeSet([(1, _last(row))])) if _last(row) else RangeSet()
        return found

    async def caught_up(self, within_s: float = CATCH_UP_S) -> None:
        """Wait until every ledger has what is committed by now, while the gateway goes on."""
        wanted = self.gateway.committed()
        await servers.until(lambda: self._has(wanted), within_s, 0.05)

    def _has(self, wanted: dict[int, int]) -> bool:
        return all(
            self.stored(state).get(boot, RangeSet()).covers(1, last)
            for state in self.ledgers
            for boot, last in wanted.items()
        )

    async def finish(self) -> None:
        """End the gateway once all is there; one that had no time for its last frames is started again."""
        await self.caught_up()
        for _ in range(RESTARTS):
            await asyncio.to_thread(self.gateway.stop)
            with contextlib.suppress(AssertionError):
                return await self._settled()
            self.gateway.start()
            await self.commits(1)
        raise AssertionError(f"something stays behind: {[_report(state) for state in self.ledgers]}")

    async def _settled(self) -> None:
        """Wait until the ledgers have what the spool of the gateway that has ended holds, and nothing is missing."""
        held = {boot: last for boot, (*_, (_, last)) in self.held().items()}
        await servers.until(lambda: self._has(held) and not any(_report(s)["missing"] for s in self.ledgers), 10, 0.05)

    def held(self) -> dict[int, list[tuple[int, int]]]:
        """Return which frames of each boot the spool holds; fails where it is damaged."""
        found = verify(self.gateway.state / "spool")
        assert found["ok"], found
        return {int(boot): [(first, last) for first, last in spans] for boot, spans in found["boots"].items()}

    def in_spool(self) -> list[tuple[Row, dict[str, float]]]:
        """Return the frames of the spool that have a value, in order."""
        source = SpoolFolder(self.gateway.state / "spool", Span(), print)
        found = []
        for frame in source.frames():
            scan, good = source.scans[frame.scan], frame.quality & BAD == 0
            if good.any():
                values = zip(scan.tags, frame.value, good, strict=True)
                found.append(((scan.device, frame.time_ns), {tag: float(v) for tag, v, ok in values if ok}))
        return found

    async def goal(self, fault: str, times: int, *, is_killed: bool = False, at_risk_s: float | None = None) -> Goal:
        """Return what became of every frame, once the gateway has ended.

        is_killed  whether the database may have frames that no spool has: sent live, and not committed before the kill
        Fails where something is in the database that no meter has said, or no frame of the spool says.
        """
        committed, held = self.gateway.committed(), self.held()
        promised = {boot: RangeSet([(1, last)]) for boot, last in committed.items()}
        vanished = sum(RangeSet(held.get(boot, ())).missing_from(all_).total for boot, all_ in promised.items())
        spool, rows = self.in_spool(), await self.rows()
        lost = [row for row, values in spool if rows.get(row) != values]
        stamps = Counter((device, values[READS]) for (device, _), values in rows.items())
        twice = stamps.total() - len(stamps) + len(spool) - len({row for row, _ in spool})
        strangers = rows.keys() - {row for row, _ in spool}
        assert is_killed or not strangers, f"{len(strangers)} rows that no frame says: {sorted(strangers)[:5]}"
        await self._is_true(rows)
        for state in self.ledgers:
            self._is_closed(_report(state), may_lack_uncommitted=is_killed)
        self._is_quiet()
        told = read_meta(self.gateway.state / "spool").dropped
        return Goal(
            fault, times, sum(committed.values()), len(lost) + vanished - told, twice, told, vanished, at_risk_s
        )

    async def _is_true(self, rows: Rows) -> None:
        """Fail where a meter has not said what is in the database."""

        def unsaid() -> list[Row]:
            said: dict[tuple[str, float], dict[str, float]] = {}
            for line in (self.folder / "truth.jsonl").read_text().splitlines():
                one = json.loads(line)
                if "seq" in one:
                    said.setdefault((one["device"], float(one["seq"])), {})[one["tag"]] = one["value"]
            return [row for row, values in rows.items() if said.get((row[0], values[READS])) != values]

        await servers.until(lambda: not unsaid(), 5, 0.2)  # the truth is written in batches

    async def at_risk_s(self, killed_ns: int) -> float:
        """Return how old the oldest answer was that a gateway killed at this time (Unix ns) had not committed."""
        kept = {device: values[READS] for (device, _), values in self.in_spool() if READS in values}
        await asyncio.sleep(2 * TICK_S)  # the truth is flushed every tick
        lost = [
            one["t_ns"]
            for one in map(json.loads, (self.folder / "truth.jsonl").read_text().splitlines())
            if "seq" in one and one["seq"] > kept.get(one["device"], 0.0)
        ]
        return (killed_ns - min(lost, default=killed_ns)) / NS

    @staticmethod
    def _is_closed(report: Report, *, may_lack_uncommitted: bool) -> None:
        """Fail where a ledger says that something is missing, gone or parked."""
        reasons = {why for row in report["gateways"] for why in row["why"]}
        assert (report["missing"], report["parked"]) == (0, 0), report
        assert reasons <= ({"uncommitted"} if may_lack_uncommitted else set()), report

    def _is_quiet(self) -> None:
        """Fail where somebody logs what is a bug."""
        for path in self.folder.glob("*.log"):
            text = path.read_text(errors="replace")
            for word in ("Traceback", "never retrieved", "never awaited", "Unclosed", "ERROR"):
                assert word not in text, f"{path.name}: {text[max(0, text.index(word) - 300) :][:2000]}"


def _report(state: Path) -> Report:
    try:
        return read_ledger(state)
    except OSError:  # it has just begun
        return {"missing": 0, "waiting": 0, "gone": 0, "parked": 0, "absent": 0, "gateways": []}


def _last(row: Mapping[str, Any]) -> int:
    return max([row["complete_to"], *(last for name in ("missing", "gone") for _, last in row[name])])


@contextlib.asynccontextmanager
async def chain(folder: Path, *lines: str, database: str = "sqlite") -> AsyncIterator[Chain]:
    """Start everything but the gateway and the ingest; `lines` go into the broker's configuration."""
    async with contextlib.AsyncExitStack() as stack:
        broker = stack.enter_context(servers.mosquitto(folder / "mosquitto", *lines, keeps_sessions=True))
        uplink, downlink = [await stack.enter_async_context(Proxy("127.0.0.1", broker.port)) for _ in range(2)]
        link = LinkSpec("skid", "tcp", "127.0.0.1", 0)
        meters = [MeterSpec(f"d{unit}", link, unit, "", POINTS) for unit in range(1, UNITS + 1)]
        fleet = await stack.enter_async_context(Fleet(meters, seed=1, truth=folder / "truth.jsonl"))
        for meter in meters:
            fleet.count_reads(meter.name, READS)
        points = [(point.name, point.type, point.address) for point in POINTS]
        config = write_config(folder, uplink.port, fleet.ports["skid"], points, period_s=PERIOD_S, units=UNITS)
        gateway = Gateway(config, folder)
        stack.push_async_callback(asyncio.to_thread, gateway.stop)
        if database == "sqlite":
            path = folder / "history.sqlite"
            yield Chain(
                folder, fleet, broker, uplink, downlink, None, None, f"sqlite://{path}", lambda: _sqlite(path), gateway
            )
            return
        influx = stack.enter_context(servers.influxd(folder / "influx"))
        name = await servers.create_database(influx.port)
        outlet = await stack.enter_async_context(Proxy("127.0.0.1", influx.port))
        url = f"influx1://127.0.0.1:{outlet.port}/{name}"
        yield Chain(
            folder, fleet, broker, uplink, downlink, outlet, influx, url, lambda: _influx(influx.port, name), gateway
        )


async def _sqlite(path: Path) -> Rows:
    found: Rows = {}
    with contextlib.closing(sqlite3.connect(path)) as reader:
        for device, time_ns, tag, value in reader.execute("SELECT device, time_ns, tag, value FROM samples"):
            found.setdefault((device, time_ns), {})[tag] = value
    return found


async def _influx(port: int, database: str) -> Rows:
    rows = await servers.influx_query(port, f"SELECT device, {', '.join(TAGS)} FROM meter", database)
    return {
        (device, time_ns): {tag: float(v) for tag, v in zip(TAGS, values, strict=True) if v is not None}
        for time_ns, device, *values in rows
    }


def times_of(pattern: str, text: str) -> list[float]:
    """Return the numbers that a pattern finds in a log."""
    return [float(found) for found in re.findall(pattern, text)]
