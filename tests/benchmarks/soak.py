"""soak: the whole line for many minutes while things happen to it; what grows, and what is missing at the end.

Meters, gateway, ingest and console are processes of their own, as in the field, with a real mosquitto and InfluxDB.
Links are cut and devices fail by a script; broker and database are restarted and the gateway's configuration is changed
by a schedule. Every few seconds each process is looked at from outside (/proc); the gateway says how many tasks it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway import control
from gateway.ingest.ledger_file import read_ledger
from gateway.model.corridor import MqttSpec
from gateway.wire.client import Client, keep_connected
from gateway.wire.ledger import count
from gateway.wire.strict_json import loads
from tests import servers
from tests.benchmarks.rig import KIB, Unavailable
from tests.processes import corridor

MINUTES: Final = 20.0
LOOK_S: Final = 5.0  # how often every process is looked at
TOLD_S: Final = 60.0  # how often a line is said
WARM: Final = 0.25  # of the time, in which kernels are loaded and buffers find their size; what grows later grows
FLAT_SHARE: Final = 0.03  # of the resident memory: what the allocator may have more at the end than after the start
FLAT_NUMBER: Final = 2  # descriptors, threads or tasks more: a connection that is just being made
AWAY_S: Final = 5.0  # of the broker or the database
SETTLED_S: Final = 90.0  # for the last frames: the ledger asks for lost ones 10 s after they were missed, and again
RELOAD_S: Final = 30.0
LINKS: Final = ("tcp", "tcp", "rtu+tcp", "rtu+tcp")
DEVICES: Final = 5  # of each link
PROFILE: Final = "carlogavazzi_em24_e1"
TAGS: Final = (
    *("voltage_l1_n", "voltage_l2_n", "voltage_l3_n", "current_l1", "current_l2", "current_l3"),
    *("power_active_total", "power_factor_total", "frequency", "energy_import"),
)
FAULTS: Final = (  # kind, device, first second, how long, how often, keys of its own
    ("cut", "d0-0", 25, 2, 60, ""),
    ("refuse", "d2-0", 40, 8, 90, ""),
    ("silent", "d1-1", 15, 6, 50, ""),
    ("exception", "d1-2", 20, 5, 70, "code = 4"),
    ("slow", "d3-1", 30, 10, 80, "delay_s = 0.4"),
    ("garbage", "d2-2", 35, 6, 75, "share = 0.5"),
)
RELOADS: Final = 12  # in a long soak: each leaves the rows of the device that changed, 13 KB a tag, for good
EVENTS: Final = (("broker", 45.0, 120.0), ("database", 75.0, 150.0), ("reload", 20.0, 60.0))  # first and period, s
COUNTED: Final = ("descriptors", "threads", "tasks")


@dataclass
class Process:
    """One process and its samples: time_s, rss_bytes, descriptors, threads, tasks (NaN where it does not tell)."""

    pid: int
    log: Path
    samples: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    tasks: float = float("nan")

    def look(self, now_s: float) -> None:
        """Take a sample; raises RuntimeError if the process has ended."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            found = dict(line.split(":", 1) for line in lines)
            rss, threads = int(found["VmRSS"].split()[0]) * KIB, int(found["Threads"])
            n = len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        except (OSError, KeyError) as error:
            tail = self.log.read_text(errors="replace")[-1000:]
            raise RuntimeError(f"a process has ended ({error!r}); {self.log.name}:\n{tail}") from None
        self.samples.append((now_s, rss, n, threads, self.tasks))


def judge(samples: np.ndarray) -> dict[str, Any]:
    """Return how a process grew after its warm-up, from its samples float64[n, 5], and whether that is flat.

    rss_growth_mb          from the first to the last of the samples
    rss_growth_share       the same by a line through them, of where it begins
    rss_slope_share_per_h  of that line
    """
    late = samples[samples[:, 0] >= samples[0, 0] + WARM * np.ptp(samples[:, 0])]
    time_s, rss = late[:, 0], late[:, 1]
    slope, begin = np.polyfit(time_s - time_s[0], rss, 1) if len(late) > 1 else (0.0, rss[0])
    growth = float(slope * np.ptp(time_s) / begin)
    out: dict[str, Any] = {
        "rss_mb": float(rss[-1] / 1e6),
        "rss_growth_mb": float((rss[-1] - rss[0]) / 1e6),
        "rss_growth_share": growth,
        "rss_slope_share_per_h": float(slope * 3600.0 / begin),
    }
    is_flat = growth <= FLAT_SHARE
    for name, column in zip(COUNTED, late[:, 2:].T, strict=True):
        column = column[~np.isnan(column)]
        if not column.size:
            continue
        third = -(-len(column) // 3)
        first, last = float(np.median(column[:third])), float(np.median(column[-third:]))
        out[name] = {"first": first, "last": last, "most": float(column.max())}
        is_flat = is_flat and last - first <= FLAT_NUMBER
    return {**out, "flat": is_flat}


def measure(*, minutes: float = MINUTES) -> dict[str, Any]:
    """Return for each process how it grew, what is missing at the end, and whether all of that `passed`.

    Ctrl-C ends it early, with what was measured until then.
    """
    for name in ("mosquitto", "influxd"):
        if not (shutil.which(name) or shutil.which(f"/usr/sbin/{name}")):
            raise Unavailable(f"{name} is not installed")
    with tempfile.TemporaryDirectory(prefix="corridor-soak-") as name:
        return asyncio.run(_Soak(Path(name), 60.0 * minutes).run())


class _Soak:
    """One soak; what happens is counted in `done`."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.done = dict.fromkeys((name for name, *_ in EVENTS), 0)
        self.processes: dict[str, Process] = {}
        self.health: dict[str, Any] = {}
        self.began_s = time.monotonic()
        self._wrong: list[str] = []
        self._ports = {f"l{i}": servers.free_port() for i in range(len(LINKS))}
        self._console_port = servers.free_port()

    async def run(self) -> dict[str, Any]:
        """Start everything, let it run, end it, and return the verdict."""
        with contextlib.ExitStack() as stack:
            broker = stack.enter_context(servers.mosquitto(self.folder / "mosquitto", keeps_sessions=True))
            store = stack.enter_context(servers.influxd(self.folder / "influxd"))
            database = await servers.create_database(store.port)
            url = f"mqtt://127.0.0.1:{broker.port}"
            self._write(url, f"influx1://127.0.0.1:{store.port}/{database}")
            for name, *arguments in (
                ("meters", "sim", "gateway.toml", "--faults", "faults.toml"),
                ("ingest", "ingest", "ingest.toml", "--state", "in"),
                ("console", "console", "console.toml"),
                ("gateway", "run", "gateway.toml", "--state", "gw"),
            ):
                paths = [self.folder / one if "." in one or one in ("in", "gw") else one for one in arguments]
                log = self.folder / f"{name}.log"
                child = stack.enter_context(corridor(*paths, log=log))
                self.processes[name] = Process(child.pid, log)
            watching = asyncio.create_task(keep_connected(MqttSpec((url,), None, None), "soak", self._watch))
            is_whole = await self._soaked({"broker": broker, "database": store})
            lost = await self._settled(is_whole)
            watching.cancel()
            values = await self._stored(store.port, database)
        return self._verdict(lost, values, is_whole)

    async def _soaked(self, parts: dict[str, servers.Server]) -> bool:
        """Let time pass; returns whether it was all of it, or Ctrl-C came."""
        happening: list[asyncio.Task[None]] = []
        try:
            actions: dict[str, Callable[[], Awaitable[None]]] = {
                **{name: lambda part=part: self._restart(part) for name, part in parts.items()},
                "reload": self._reload,
            }
            rare_s = {"reload": self.seconds / RELOADS}
            happening = [
                asyncio.create_task(self._again(name, first_s, max(every_s, rare_s.get(name, 0.0)), actions[name]))
                for name, first_s, every_s in EVENTS
            ]
            told_s = 0.0
            while (passed_s := time.monotonic() - self.began_s) < self.seconds:
                for process in self.processes.values():
                    process.look(passed_s)
                if passed_s >= told_s:
                    told_s += TOLD_S
                    self._tell(passed_s)
                if failed := next((task for task in happening if task.done()), None):
                    failed.result()
                await asyncio.sleep(min(LOOK_S, max(0.0, self.seconds - passed_s)))
        except asyncio.CancelledError:  # Ctrl-C
            task = asyncio.current_task()
            assert task
            task.uncancel()
            return False
        finally:
            for each in happening:
                each.cancel()
            await asyncio.gather(*happening, return_exceptions=True)
            for part in parts.values():
                if part.process is None:
                    await asyncio.to_thread(part.start)
        return True

    async def _again(self, name: str, first_s: float, every_s: float, action: Callable[[], Awaitable[None]]) -> None:
        """Do something again and again."""
        due_s = first_s
        while True:
            await asyncio.sleep(max(0.0, self.began_s + due_s - time.monotonic()))
            await action()
            self.done[name] += 1
            due_s += every_s

    async def _restart(self, part: servers.Server) -> None:
        await asyncio.to_thread(part.stop)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(part.start)

    async def _reload(self) -> None:
        """Change a device's period, and back."""
        path = self.folder / "gateway.toml"
        path.write_text(self._gateway(period_s=1.0 if self.done["reload"] % 2 else 2.0))
        found = await asyncio.to_thread(control.ask, self.folder / "gw", "reload", RELOAD_S)
        if not found["ok"]:
            self._wrong.append(f"reload: {found['errors']}")

    async def _watch(self, client: Client) -> None:
        await client.subscribe("corridor/v1/soak/+/+/health", qos=0)
        async for message in client.messages:
            self.health = loads(bytes(message.payload))
            self.processes["gateway"].tasks = self.health["tasks"]

    async def _settled(self, is_whole: bool) -> dict[str, Any]:
        """Wait until nothing is missing, as long as that may take; returns what the ledger says then."""
        end_s = time.monotonic() + (SETTLED_S if is_whole else LOOK_S)
        while True:
            with contextlib.suppress(OSError):  # no ledger yet
                report = read_ledger(self.folder / "in")
                found = {
                    "frames": sum(row["complete_to"] for row in report["gateways"]),
                    "missing": sum(count(row["missing"]) - count(row["waiting"]) for row in report["gateways"]),
                    **{key: report[key] for key in ("gone", "parked")},
                }
                if found["missing"] == 0 and found["frames"]:
                    return found
                if time.monotonic() > end_s:
                    return found
            if time.monotonic() > end_s:
                return {"frames": 0, "missing": 0, "gone": 0, "parked": 0}
            await asyncio.sleep(0.5)

    async def _stored(self, port: int, database: str) -> int:
        rows = await servers.influx_query(port, "SELECT COUNT(*) FROM /.*/", database)
        return sum(sum(row[1:]) for row in rows)

    def _verdict(self, ledger: dict[str, Any], values: int, is_whole: bool) -> dict[str, Any]:
        """Return everything, with a plain line at the end."""
        took_s = self.processes["gateway"].samples[-1][0]
        judged = {name: judge(np.array(process.samples)) for name, process in self.processes.items()}
        grown = [name for name, found in judged.items() if not found["flat"]]
        wrong = [f"{name} grows" for name in grown] + self._wrong
        wrong += [f"{ledger[key]} frames {key}" for key in ("missing", "gone", "parked") if ledger[key]]
        if not ledger["frames"] or not values:
            wrong.append("nothing arrived")
        line = "; ".join(wrong) or "all flat, nothing missing"
        return {
            "minutes": took_s / 60.0,
            "interrupted": not is_whole,
            "happened": self.done,
            "values": values,
            "values_per_s": values / max(took_s, 1.0),
            "ledger": ledger,
            "processes": judged,
            "verdict": f"{'FAILED' if wrong else 'PASSED'}: {line}",
            "passed": not wrong,
        }

    def _tell(self, passed_s: float) -> None:
        parts = [
            f"{name} {p.samples[-1][1] / 1e6:.1f} MB {p.samples[-1][2]:.0f} fd" for name, p in self.processes.items()
        ]
        unsent = self.health.get("spool", {}).get("unsent", "?")
        happened = ", ".join(f"{n} {name}" for name, n in self.done.items())
        line = f"soak {passed_s / 60:.0f}/{self.seconds / 60:g} min: {'; '.join(parts)}; unsent {unsent}; {happened}"
        print(line, file=sys.stderr, flush=True)

    def _write(self, url: str, store: str) -> None:
        """Write all configuration files."""
        self._url = url
        mqtt, kept = f'[mqtt]\nurl = "{url}"\n', f'[store]\nurl = "{store}"\n'
        (self.folder / "gateway.toml").write_text(self._gateway(period_s=1.0))
        (self.folder / "ingest.toml").write_text(f'{mqtt}[ingest]\nid = "in1"\ncorridor = "soak"\n{kept}')
        (self.folder / "console.toml").write_text(f'{mqtt}{kept}[console]\nlisten = "127.0.0.1:{self._console_port}"\n')
        (self.folder / "faults.toml").write_text("".join(_fault(*each) for each in FAULTS))

    def _gateway(self, period_s: float) -> str:
        """Return a gateway.toml; `period_s` is that of one device, the others' is 1 s."""
        parts = [f'[gateway]\nid = "gw1"\ncorridor = "soak"\nsite = "lab"\n[mqtt]\nurl = "{self._url}"\n']
        for (name, port), transport in zip(self._ports.items(), LINKS, strict=True):
            parts.append(f'[[link]]\nname = "{name}"\nurl = "{transport}://127.0.0.1:{port}"\ntimeout_s = 0.3\n')
            for k in range(DEVICES):
                device = f"d{name[1:]}-{k}"
                own_s = period_s if device == "d3-4" else 1.0
                tags = ", ".join(f'"{tag}"' for tag in TAGS)
                parts.append(
                    f'[[device]]\nname = "{device}"\nlink = "{name}"\nunit = {k + 1}\nprofile = "{PROFILE}"\n'
                    f"period_s = {own_s}\ntags = [{tags}]\n"
                )
        return "\n".join(parts)


def _fault(kind: str, device: str, start_s: int, duration_s: int, every_s: int, more: str) -> str:
    return (
        f'[[fault]]\nkind = "{kind}"\ndevice = "{device}"\nstart_s = {start_s}\nduration_s = {duration_s}\n'
        f"every_s = {every_s}\n{more}\n"
    )
