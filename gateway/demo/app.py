"""The demo: a simulated corridor and every process of the product beside it, in one command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
import tempfile
import time
import webbrowser
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from drivers.sim.fleet import Fleet
from drivers.sim.server import SimError
from gateway.demo.broker import NoBroker, broker, free_port
from gateway.demo.fleet import meters
from gateway.demo.orphan import end_with_parent
from gateway.demo.sites import COVERED, script, write_sites
from gateway.demo.watch import Watch
from gateway.ingest.ledger_file import read_accounts
from gateway.model.config import load_gateway
from gateway.model.corridor import GatewaySpec, MqttSpec
from gateway.model.ranges import RangeSet
from gateway.spool.verify import verify

LOOK_S: Final = 0.1
TELL_S: Final = 10.0
CATCH_UP_S: Final = 15.0  # for the database to take what the gateways have committed at the end
STOP_S: Final = 3.0  # after SIGTERM; then the process is killed
WRONG: Final = 1
PEER_AWAY: Final = 3


# Of this run, not of one before in the same folder; by series, so that a large database is not read through.
ANY_SINCE: Final = (
    "SELECT 1 FROM series WHERE EXISTS (SELECT 1 FROM samples_ WHERE series = series.id AND time_ns >= ?) LIMIT 1"
)
ALL_SINCE: Final = "SELECT count(*) FROM samples_ WHERE time_ns >= ?"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(slots=True)
class _Run:
    """Where everything of one demo lies, and what was seen.

    began, began_ns  when it started, on the monotonic clock and in Unix ns
    last_boots  the last boot of each gateway whose frames an earlier run left in the folder
    """

    folder: Path
    specs: list[GatewaySpec]
    configs: list[Path]
    began: float
    began_ns: int
    last_boots: dict[str, int]
    first_value_s: float | None = None
    children: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        return self.folder / "history.sqlite"

    def state(self, name: str) -> Path:
        return self.folder / "state" / name


async def main(*, seconds: float | None, port: int, browser: bool, data: Path | None, seed: int, as_json: bool) -> int:
    """Run the demo for so many seconds, or until Ctrl-C; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with contextlib.ExitStack() as cleanup:
        if data is None:
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="corridor-demo-")))
        else:
            try:
                folder = usable(data)
            except OSError as error:
                _say(f"--data {data}: {error.strerror or error}, wanted a folder that can be written to")
                return WRONG
        try:
            summary = await _demo(folder, stop, seconds, port, browser and seconds is None, seed)
        except NoBroker as error:
            _say(str(error))
            return PEER_AWAY
        except SimError as error:
            for line in error.lines:
                _say(line)
            return PEER_AWAY
    if as_json:
        print(json.dumps(summary))
    else:
        for key, value in summary.items():
            print(f"{key.replace('_', ' '):<24} {value}")
    return 0


def usable(data: Path) -> Path:
    """Return a folder, made where it is not there; raises OSError if it cannot be written to.

    It is absolute: the database is named by a URL, in which a relative path would begin at the root.
    """
    folder = data.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    return folder


async def _demo(
    folder: Path, stop: asyncio.Event, seconds: float | None, port: int, browser: bool, seed: int
) -> dict[str, Any]:
    began, began_ns = time.monotonic(), time.time_ns()
    async with broker(folder) as (url, what):
        _say(f"broker: {what} at {url}")
        configs = write_sites(folder, url, free_port)
        run = _Run(folder, [load_gateway(path) for path in configs], configs, began, began_ns, {})
        run.last_boots = {spec.id: max(_committed(run, spec), default=0) for spec in run.specs}
        n_tags = sum(len(device.tags) for spec in run.specs for device in spec.devices)
        specs = meters(run.specs)
        acted = script(seconds or 0.0)
        async with Fleet(specs, seed=seed, truth=folder / "truth.jsonl", script=acted) as fleet:
            _say(f"simulated meters: {len(specs)} with {n_tags} tags on {len(fleet.ports)} links, {len(configs)} sites")
            watch = Watch(MqttSpec((url,), None, None), n_gateways=len(configs), say=_say)
            listen = f"127.0.0.1:{port if port == 0 or _is_free(port) else free_port()}"
            if listen.endswith(":0"):
                listen = f"127.0.0.1:{free_port()}"
            _write_peers(run, url, listen)
            async with _children(run):
                _say(f"console: http://{listen}/")
                async with asyncio.TaskGroup() as tasks:
                    jobs = [tasks.create_task(watch.run()), tasks.create_task(_first_value(run))]
                    if browser:
                        jobs.append(tasks.create_task(_open(f"http://{listen}/", run)))
                    await _wait(run, watch, fleet, stop, seconds)
                    await _settle(run)
                    for job in jobs:
                        job.cancel()
                missing, stored = await _catch_up(run)
            return _summary(run, watch, fleet, missing, stored, f"http://{listen}/", n_tags)


def _is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_peers(run: _Run, url: str, listen: str) -> None:
    """Write ingest.toml and console.toml beside the sites' gateway.toml files."""
    store = f'[store]\nurl = "sqlite:///{run.database}"\n'
    corridor = run.specs[0].corridor
    mqtt = f'[mqtt]\nurl = "{url}"\n\n'
    (run.folder / "ingest.toml").write_text(f'{mqtt}[ingest]\nid = "ingest-1"\ncorridor = "{corridor}"\n\n{store}')
    (run.folder / "console.toml").write_text(f'{mqtt}[console]\nlisten = "{listen}"\n\n{store}')


@contextlib.asynccontextmanager
async def _children(run: _Run) -> AsyncIterator[None]:
    """Start the same processes that go to the field, each with its log; stop them in the end."""
    try:
        for path, spec in zip(run.configs, run.specs, strict=True):
            await _start(run, spec.id, "run", str(path), "--state", str(run.state(spec.id)))
        await _start(run, "ingest", "ingest", str(run.folder / "ingest.toml"), "--state", str(run.state("ingest")))
        await _start(run, "console", "console", str(run.folder / "console.toml"))
        yield
    finally:
        await _stop(run, list(run.children))


async def _start(run: _Run, name: str, *arguments: str) -> None:
    with (run.folder / f"{name}.log").open("ab") as log:
        run.children[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.cli",
            *arguments,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )


async def _stop(run: _Run, names: list[str]) -> None:
    """End children with SIGTERM, together; one that does not go in time is killed and told."""
    stopping = [(name, child) for name in names if (child := run.children.pop(name, None))]
    for _, child in stopping:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
    for name, child in stopping:
        try:
            async with asyncio.timeout(STOP_S):
                await child.wait()
        except TimeoutError:
            _say(f"{name} did not end within {STOP_S:g} s and was killed")
            child.kill()
            await child.wait()


async def _first_value(run: _Run) -> None:
    """Note when the first value is in the database."""
    while run.first_value_s is None:
        if run.database.exists():
            with contextlib.suppress(sqlite3.Error), contextlib.closing(_open_database(run.database)) as db:
                if db.execute(ANY_SINCE, (run.began_ns,)).fetchone():
                    run.first_value_s = round(time.monotonic() - run.began, 2)
                    _say(f"first value in the database after {run.first_value_s:.1f} s")
                    return
        await asyncio.sleep(LOOK_S)


def _open_database(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)


async def _open(url: str, run: _Run) -> None:
    while run.first_value_s is None:
        await asyncio.sleep(LOOK_S)
    await asyncio.to_thread(webbrowser.open, url)


async def _wait(run: _Run, watch: Watch, fleet: Fleet, stop: asyncio.Event, seconds: float | None) -> None:
    """Let it run, telling now and then what happens; a child that died is told and ends the demo."""
    told = time.monotonic()
    while not stop.is_set():
        if seconds is not None and time.monotonic() - run.began >= seconds:
            return
        for name, child in run.children.items():
            if child.returncode is not None:
                _say(f"{name} ended with exit code {child.returncode}; its log:")
                _say((run.folder / f"{name}.log").read_text()[-2000:])
                return
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            _say(watch.line(time.monotonic() - run.began))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stop.wait()


async def _settle(run: _Run) -> None:
    """Stop the gateways, so that no more is committed; what they still had goes out with them or waits in the spool."""
    _say("stopping the gateways")
    await _stop(run, [spec.id for spec in run.specs])


async def _catch_up(run: _Run) -> tuple[int, int]:
    """Wait for the database to take what was committed; returns frames missing and frames stored."""
    committed = {spec.id: _committed(run, spec) for spec in run.specs}
    deadline = time.monotonic() + CATCH_UP_S
    while True:
        missing, stored = _compare(run, committed)
        if not missing or time.monotonic() > deadline:
            return missing, stored
        await asyncio.sleep(LOOK_S)


def _committed(run: _Run, spec: GatewaySpec) -> dict[int, RangeSet]:
    """Return the frames in a gateway's spool by boot, those of earlier runs left out once these are known."""
    last = run.last_boots.get(spec.id, 0)
    boots = verify(run.state(spec.id) / "spool")["boots"]
    return {int(boot): RangeSet((a, b) for a, b in spans) for boot, spans in boots.items() if int(boot) > last}


def _compare(run: _Run, committed: dict[str, dict[int, RangeSet]]) -> tuple[int, int]:
    """Return how many committed frames the database lacks, and how many it has."""
    try:
        accounts = read_accounts(run.state("ingest"))
    except FileNotFoundError:
        accounts = {}  # it had not come so far
    n_missing = n_stored = 0
    for spec in run.specs:
        for boot, whole in committed[spec.id].items():
            account = accounts.get((spec.id, boot))
            lacking = account.stored.missing_from(whole).total if account else whole.total
            n_missing += lacking
            n_stored += whole.total - lacking
    return n_missing, n_stored


def _summary(run: _Run, watch: Watch, fleet: Fleet, missing: int, stored: int, url: str, n_tags: int) -> dict[str, Any]:
    values = 0
    if run.database.exists():
        with contextlib.closing(_open_database(run.database)) as db:
            values = db.execute(ALL_SINCE, (run.began_ns,)).fetchone()[0]
    found = watch.compare(fleet.anomalies(), COVERED)
    return {
        "gateways": len(run.specs),
        "devices": sum(len(spec.devices) for spec in run.specs),
        "tags": n_tags,
        "frames_read": stored + missing,
        "frames_stored": stored,
        "values_stored": values,
        "missing": missing,
        "first_value_s": run.first_value_s,
        "anomalies_injected": found.injected,
        "anomalies_detected": found.detected,
        "anomalies_other": found.other,
        "console_url": url,
    }
