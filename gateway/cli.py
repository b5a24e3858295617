"""The command line: `corridor COMMAND`; each command imports only what it needs."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway import __version__

if TYPE_CHECKING:
    from gateway.model.corridor import GatewaySpec

DONE: Final = 0
WRONG_INPUT: Final = 1
USAGE: Final = 2
PEER_AWAY: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 the input is wrong, 2 usage, 3 a needed peer is away."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s" if options.verbose else "%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return DONE
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader of a pipe went away: nothing more to say
        return DONE


def entry() -> None:
    """Run `main` and leave at once with its exit code.

    A dial or a name look-up may hang in a thread that nothing can cancel; waiting for it would break the promise that
    every command ends within two seconds.
    """
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="corridor",
        description="Edge gateway for corridors: Modbus meters to MQTT and InfluxDB, nothing lost on the way.",
        epilog="Begin with `corridor demo`; then write a gateway.toml, `corridor check` it and `corridor run` it.",
    )
    parser.add_argument("--version", action="version", version=f"corridor {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every detail")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Any, text: str, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, **more)
        sub.set_defaults(run=run)
        return sub

    sub = add("demo", _demo, "a simulated corridor with broker, gateways, ingest, database and console")
    sub.add_argument("--seconds", type=float, metavar="N", help="stop after N seconds and sum up (default: Ctrl-C)")
    sub.add_argument("--port", type=int, default=8080, help="the console's port (default: 8080, or a free one)")
    sub.add_argument("--no-browser", action="store_true", help="do not open the console in a browser")
    sub.add_argument("--data", type=Path, metavar="DIR", help="keep everything here (default: a temporary folder)")
    sub.add_argument("--seed", type=int, default=1, help="of the simulated meters (default: 1)")
    sub.add_argument("--json", action="store_true", help="print the summary as one JSON object")

    sub = add("run", _run, "the gateway: read the meters of a gateway.toml and publish")
    sub.add_argument("config", type=Path, metavar="gateway.toml")
    sub.add_argument("--state", type=Path, metavar="DIR", help="spool, journal and boot number (default: see README)")

    sub = add("ingest", _ingest, "bring data from the broker into the database; acknowledged after the write")
    sub.add_argument("config", type=Path, metavar="ingest.toml")
    sub.add_argument("--state", type=Path, metavar="DIR", help="ledger and dead letters (default: see README)")

    sub = add("console", _console, "the operators' console in the browser")
    sub.add_argument("config", type=Path, metavar="console.toml")

    sub = add("check", _check, "report every error of configuration files; opens no socket")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE")

    sub = add("plan", _plan, "requests, bus load per link, bytes per day and days of spool of a gateway.toml")
    sub.add_argument("config", type=Path, metavar="gateway.toml")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    sub = add("sim", _sim, "every device of a gateway.toml as a simulated meter on real Modbus")
    sub.add_argument("config", type=Path, metavar="gateway.toml")
    sub.add_argument(
        "--truth", type=Path, metavar="FILE", help="write every value served and every fault as JSON lines"
    )
    sub.add_argument("--faults", type=Path, metavar="FILE", help="faults and anomalies to act out (TOML)")
    sub.add_argument("--seed", type=int, default=1, help="same seed, same values (default: 1)")
    sub.add_argument("--paced", action="store_true", help="let answers on serial lines take the time they would take")
    sub.add_argument("--cert", type=Path, metavar="FILE", help="certificate of simulated tls:// meters")
    sub.add_argument("--key", type=Path, metavar="FILE", help="its key")

    profile = add("profile", _profile_list, "meter profiles: list, show, lint, import")
    actions = profile.add_subparsers(metavar="ACTION", required=True)
    one = actions.add_parser("list", help="all profiles, with grade and number of points")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=_profile_list)
    one = actions.add_parser("show", help="one profile with its points")
    one.add_argument("name")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=_profile_show)
    one = actions.add_parser("lint", help="what a careful reader would question in profiles")
    one.add_argument("names", nargs="*", metavar="NAME|FILE", help="default: all shipped ones")
    one.set_defaults(run=_profile_lint)
    one = actions.add_parser("import", help="make a profile from a spreadsheet (CSV)")
    one.add_argument("file", type=Path, metavar="x.csv")
    one.add_argument("--out", type=Path, metavar="FILE", help="default: profiles/x.toml; - for standard output")
    for key in ("vendor", "model", "measurement", "source"):
        one.add_argument(f"--{key}", default=None)
    one.add_argument("--grade", choices=("A", "B", "C"), default=None, help="how sure the map is (default: C)")
    one.add_argument("--enron", action="store_true", help="one address carries one 32-bit item")
    one.set_defaults(run=_profile_import)

    sub = add("schema", _schema, "the JSON Schema of a configuration file, for editors")
    sub.add_argument("kind", nargs="?", default="gateway", choices=("gateway", "ingest", "console", "profile"))

    spool = add("spool", _spool_verify, "look into spool folders")
    actions = spool.add_subparsers(metavar="ACTION", required=True)
    one = actions.add_parser("verify", help="read every batch and report what is there; changes nothing")
    one.add_argument("dirs", type=Path, nargs="+", metavar="DIR")
    one.add_argument("--json", action="store_true", help="one JSON object per folder")
    one.set_defaults(run=_spool_verify)

    sub = add("ledger", _ledger, "what the database has of each gateway and boot, and what is missing")
    sub.add_argument("config", type=Path, nargs="?", metavar="ingest.toml")
    sub.add_argument("--state", type=Path, metavar="DIR")
    sub.add_argument("--json", action="store_true")

    sub = add("acl", _acl, "the broker's access list for these gateways and ingests")
    sub.add_argument("--broker", choices=("mosquitto",), default="mosquitto")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE")

    sub = add("bench", _bench, "measure: cost per stage, values per second, memory, start to first value")
    sub.add_argument("stage", nargs="?", default="all", help="one stage, or all (default)")
    sub.add_argument("--json", action="store_true")

    add("warm", _warm, "compile all kernels ahead, with progress")
    return parser


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _load(config: Path) -> GatewaySpec | None:
    from gateway.model.config import ConfigError, load_gateway

    try:
        return load_gateway(config)
    except ConfigError as error:
        for line in error.lines:
            _say(line)
        return None


def _run(options: argparse.Namespace) -> int:
    spec = _load(options.config)
    if spec is None:
        return WRONG_INPUT
    from gateway import app
    from gateway.acquire.plan import plan
    from gateway.model.config import state_dir

    found = plan(spec)
    for line in found.errors:
        _say(f"{options.config}: {line}")
    if found.errors:
        return WRONG_INPUT
    return asyncio.run(app.main(found, state_dir(options.state, spec.id)))


def _ingest(options: argparse.Namespace) -> int:
    from gateway.model.config import ConfigError, load_ingest, state_dir

    try:
        spec = load_ingest(options.config)
    except ConfigError as error:
        for line in error.lines:
            _say(line)
        return WRONG_INPUT
    from gateway.ingest import app

    async def serve(stop: asyncio.Event) -> None:
        await app.run(spec, state_dir(options.state, spec.id), stop=stop)

    return _serve(serve)


def _console(options: argparse.Namespace) -> int:
    from gateway.model.config import ConfigError, load_console

    try:
        spec = load_console(options.config)
    except ConfigError as error:
        for line in error.lines:
            _say(line)
        return WRONG_INPUT
    from gateway.console import app
    from gateway.history.store import open_store

    async def serve(stop: asyncio.Event) -> None:
        store = open_store(spec.store) if spec.store else None
        await app.run(spec, store, stop=stop, ready=lambda url: _say(f"console: {url}"))

    return _serve(serve)


def _sim(options: argparse.Namespace) -> int:
    spec = _load(options.config)
    if spec is None:
        return WRONG_INPUT
    from drivers.sim.faults import FaultsError
    from drivers.sim.server import ServerTls, SimError
    from gateway.demo.fleet import simulate

    tls = ServerTls(options.cert, options.key) if options.cert and options.key else None

    async def serve(stop: asyncio.Event) -> None:
        await simulate(
            [spec],
            stop=stop,
            say=_say,
            faults=options.faults,
            seed=options.seed,
            truth=options.truth,
            tls=tls,
            is_paced=options.paced,
        )

    try:
        return asyncio.run(_until_signal(serve))
    except (FaultsError, SimError) as error:
        for line in error.lines:
            _say(line)
        return WRONG_INPUT


def _serve(serve: Any) -> int:
    """Run a process until it is told to end; what the machine refuses it at the start is a line, not a traceback."""
    import sqlite3

    try:
        return asyncio.run(_until_signal(serve))
    except (OSError, sqlite3.OperationalError) as error:
        _say(f"cannot start: {error}")
        return WRONG_INPUT


async def _until_signal(serve: Any) -> int:
    """Run a process until SIGTERM or SIGINT."""
    import signal

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(stop)
    return DONE


def _demo(options: argparse.Namespace) -> int:
    from gateway.demo import app

    return asyncio.run(
        app.main(
            seconds=options.seconds,
            port=options.port,
            browser=not options.no_browser,
            data=options.data,
            seed=options.seed,
            as_json=options.json,
        )
    )


def _check(options: argparse.Namespace) -> int:
    from gateway.acquire.plan import plan
    from gateway.model.config import ConfigError, check, load_gateway

    wrong = 0
    for path in options.files:
        lines = check(path)
        if not lines:
            try:
                lines = [f"{path}: {line}" for line in plan(load_gateway(path)).errors] if _is_gateway(path) else []
            except ConfigError as error:
                lines = error.lines
        for line in lines:
            _say(line)
        wrong += bool(lines)
    return WRONG_INPUT if wrong else DONE


def _is_gateway(path: Path) -> bool:
    from drivers.profile import read_toml
    from gateway.model.config import kind_of

    return kind_of(read_toml(path)) == "gateway"


def _plan(options: argparse.Namespace) -> int:
    spec = _load(options.config)
    if spec is None:
        return WRONG_INPUT
    from gateway.acquire.plan import plan, report

    found = report(plan(spec))
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['gateway']}: {found['devices']} devices, {found['tags']} tags")
        print(f"{'link':<20} {'requests':>8} {'bus time':>9} {'load':>7}")
        for link in found["links"]:
            print(
                f"{link['name']:<20} {link['requests_per_cycle']:>8} {link['bus_time_s']:>8.3f}s {link['load']:>6.1%}"
            )
        print(f"\n{'device':<20} {'unit':>4} {'fc':>2} {'start':>6} {'count':>5} {'period':>7}")
        for one in found["requests"]:
            print(
                f"{one['device']:<20} {one['unit']:>4} {one['function']:>2} {one['start']:>6} {one['count']:>5}"
                f" {one['period_s']:>6g}s"
            )
        days = f"{found['spool_days']:g} days" if found["spool_days"] else "unknown (period 0)"
        print(f"\nspool: {found['bytes_per_day'] / 1e6:.1f} MB a day, room for {days}")
        for line in found["errors"]:
            _say(f"{options.config}: {line}")
    return WRONG_INPUT if found["errors"] else DONE


def _profile_list(options: argparse.Namespace) -> int:
    from drivers import profile

    rows = [profile.find(name, (Path("profiles"),)) for name in profile.names((Path("profiles"),))]
    if options.json:
        keys = ("name", "vendor", "model", "measurement", "grade", "source")
        print(json.dumps([{**{key: getattr(p, key) for key in keys}, "points": len(p.points)} for p in rows]))
        return DONE
    print(f"{'profile':<28} {'grade':<5} {'points':>6}  {'measurement':<18} meter")
    for p in rows:
        print(f"{p.name:<28} {p.grade:<5} {len(p.points):>6}  {p.measurement:<18} {p.vendor} {p.model}")
    return DONE


def _profile_show(options: argparse.Namespace) -> int:
    import dataclasses

    from drivers import profile

    try:
        path = Path(options.name)
        found = profile.load(path) if path.suffix == ".toml" else profile.find(options.name, (Path("profiles"),))
    except profile.ProfileError as error:
        for line in error.lines:
            _say(line)
        return WRONG_INPUT
    if options.json:
        print(json.dumps(dataclasses.asdict(found)))
        return DONE
    print(f"{found.vendor} {found.model}, measurement {found.measurement}, grade {found.grade}\nsource: {found.source}")
    for quirk in found.quirks:
        print(f"note: {quirk}")
    print(f"\n{'point':<28} {'function':<8} {'address':>7} {'type':<10} {'order':<6} {'scale':>8} {'unit':<8} kind")
    for p in found.points:
        print(
            f"{p.name:<28} {p.function:<8} {p.address:>7} {p.type:<10} {p.word_order:<6} {p.scale:>8g} {p.unit:<8}"
            f" {p.kind}"
        )
    return DONE


def _profile_lint(options: argparse.Namespace) -> int:
    from drivers import profile

    wrong = False
    for name in options.names or profile.names():
        try:
            found = profile.load(Path(name)) if name.endswith(".toml") else profile.find(name, (Path("profiles"),))
        except profile.ProfileError as error:
            wrong = True
            for line in error.lines:
                _say(line)
            continue
        for note in profile.lint(found):
            print(f"{found.name}: {note}")
    return WRONG_INPUT if wrong else DONE


def _profile_import(options: argparse.Namespace) -> int:
    from drivers import profile

    keys = ("vendor", "model", "measurement", "source", "grade")
    about: dict[str, Any] = {key: value for key in keys if (value := getattr(options, key)) is not None}
    if options.enron:
        about["enron"] = True
    try:
        text = profile.import_csv(options.file, about)
    except profile.ProfileError as error:
        for line in error.lines:
            _say(line)
        return WRONG_INPUT
    if str(options.out) == "-":
        print(text, end="")
        return DONE
    out = options.out or Path("profiles") / f"{options.file.stem}.toml"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    _say(f"{out}: {text.count('{name =')} points; now look it over: `corridor profile lint {out}`")
    return DONE


def _schema(options: argparse.Namespace) -> int:
    from drivers.profile import ProfileModel
    from gateway.model.tables import SCHEMAS

    model = ProfileModel if options.kind == "profile" else SCHEMAS[options.kind]
    print(json.dumps(model.model_json_schema(), indent=2))
    return DONE


def _acl(options: argparse.Namespace) -> int:
    from gateway.model.config import ConfigError
    from gateway.wire.acl import mosquitto

    try:
        print(mosquitto(options.files), end="")
    except ConfigError as error:
        for line in error.lines:
            _say(line)
        return WRONG_INPUT
    return DONE


def _spool_verify(options: argparse.Namespace) -> int:
    from gateway.spool.disk import verify

    for folder in options.dirs:
        if not folder.is_dir():
            _say(f"{folder}: is not a folder, wanted a spool")
            return WRONG_INPUT
        found = verify(folder)
        if options.json:
            print(json.dumps(found))
            continue
        print(f"{folder}: {'ok' if found['ok'] else 'damaged'}: {found['frames']} frames, {found['values']} values")
        for boot, ranges in found["boots"].items():
            spans = ", ".join(f"{a}-{b}" for a, b in ranges)
            print(f"  boot {boot}: {spans}")
        if found["damaged"]:
            print(f"  {found['damaged']} damaged places")
    return DONE


def _ledger(options: argparse.Namespace) -> int:
    from gateway.ingest.ledger_file import read_ledger
    from gateway.model.config import ConfigError, load_ingest, state_dir

    ident = "ingest"
    if options.config:
        try:
            ident = load_ingest(options.config).id
        except ConfigError as error:
            for line in error.lines:
                _say(line)
            return WRONG_INPUT
    try:
        found = read_ledger(state_dir(options.state, ident))
    except OSError as error:
        _say(str(error))
        return WRONG_INPUT
    if options.json:
        print(json.dumps(found))
        return DONE
    print(f"{'gateway':<24} {'boot':>5} {'complete to':>12} {'missing':>8} {'gone':>6}")
    for one in found["gateways"]:
        print(
            f"{one['gateway']:<24} {one['boot']:>5} {one['complete_to'] or 0:>12} {_count(one['missing']):>8}"
            f" {_count(one['gone']):>6}"
        )
    print(f"missing {found['missing']}, gone {found['gone']}, parked {found['parked']}")
    return DONE


def _count(ranges: Sequence[Sequence[int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _bench(options: argparse.Namespace) -> int:
    try:
        from tests.benchmarks import main as benchmarks
    except ModuleNotFoundError:
        _say("the benchmarks live in tests/benchmarks of a checkout: run `corridor bench` in its folder")
        return WRONG_INPUT
    return int(benchmarks.run(options.stage, as_json=options.json))


def _warm(options: argparse.Namespace) -> int:
    from gateway.warm import warm

    return warm(_say)


if __name__ == "__main__":
    sys.exit(main())
