"""The words and options of the command line, and whose work each command is."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from gateway import __version__
from gateway.commands import configuration, machine, profiles, records, replays, services
from gateway.commands.terminal import DONE, INTERRUPTED

MAX_PORT: Final = 65535
FAULTS_HELP: Final = """\
faults.toml is a list of [[fault]] tables: kind, device, start_s, duration_s; tag for a fault of one value; name and
every_s where wanted. Kinds of one tag: freeze, spike, step, drift, noise, stuck_high, stuck_low, limit; of a device:
nan, silent, slow, exception, garbage, hostile; of a link: refuse, cut. docs/simulation.md has the keys of each kind."""

REPLAY_HELP: Final = """\
SOURCE is a CSV file (`time`, ISO 8601 or integer nanoseconds, and a column for each tag), a spool folder or the state
folder around it, a database as in ingest.toml (influx2://, influx1://, sqlite://; --config and --from are needed then),
or a capture. All but captures go through the detectors as in the gateway, one line of scores for each line or frame:
<tag>.score and <tag>.flags, then score, anomaly and changepoint of all columns as one asset (of a spool or database:
of the frame's asset). With --config a column <device>.<tag> has the limits and detectors of that tag, so a limit can
be tried before it is deployed: --report shows what would have alarmed, and how often.

A gateway keeps captures in STATE/captures: the raw traffic of a link around a fault or event. Exit code 0: every read
ended as it did then; 1: one did not (the first is named), or the file cannot be used. CSV columns: time (Unix ns),
device, tag, value (empty where it must not be used), quality. docs/captures.md has the format, and how a capture
becomes a test case."""


RELOAD_HELP: Final = """\
The gateway is found by its state folder, and reads the file that it was started with. A file with errors is refused,
one line each as `corridor check` prints them, and the old configuration goes on. Exit code 0: done, or nothing changed;
1: refused; 3: no gateway runs there."""


BENCH_HELP: Final = """\
Stages that take minutes run only when they are asked for: drain, month, soak. `soak` runs meters, gateway, ingest and
console with a real broker and database for so many minutes, cuts links, restarts broker and database, reloads, and ends
with exit code 1 if any process grew or a frame is missing; Ctrl-C ends it early with what was seen until then."""


class _Parser(argparse.ArgumentParser):
    """Names an option that does not exist before it asks for what is missing."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Remember what was given, for `error`."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and a message."""
        if message.startswith("the following arguments are required") and (unknown := self._unknown()):
            message = f"unrecognized arguments: {' '.join(unknown)}"
        super().error(message)

    def _unknown(self) -> list[str]:
        """Return what looks like an option, not like a negative number, and is none of ours, not even shortened."""
        given = self._given[: self._given.index("--")] if "--" in self._given else self._given
        options = [one for one in given if one.startswith("-") and not one[1:2].isdigit()]
        known = tuple(self._option_string_actions)
        return [one for one in options if not any(name.startswith(one.partition("=")[0]) for name in known)]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = _Parser(
        prog="corridor",
        description="Edge gateway for corridors: Modbus meters to MQTT and InfluxDB, nothing lost on the way.",
        epilog="Begin with `corridor demo`; then write a gateway.toml, `corridor check` it and `corridor run` it.",
    )
    whole.add_argument("--version", action="version", version=f"corridor {__version__}", help="print the version")
    whole.add_argument("-v", "--verbose", action="store_true", help="log every detail")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    sub = _service(commands, "demo", services.demo, "a simulated corridor with broker, gateways, ingest and console")
    sub.add_argument("--seconds", type=_seconds, metavar="N", help="stop after N seconds and sum up (default: Ctrl-C)")
    sub.add_argument("--port", type=_port, default=8080, help="the console's port (default: 8080, or a free one)")
    sub.add_argument("--no-browser", action="store_true", help="do not open the console in a browser")
    sub.add_argument("--data", type=Path, metavar="DIR", help="keep everything here (default: a temporary folder)")
    sub.add_argument("--seed", type=int, default=1, help="of the simulated meters (default: 1)")
    sub.add_argument("--json", action="store_true", help="print the summary as one JSON object")

    sub = _service(commands, "run", services.run, "the gateway: read the meters of a gateway.toml and publish")
    sub.add_argument("config", type=Path, metavar="gateway.toml", help="what to read, and where to publish it")
    sub.add_argument("--state", type=Path, metavar="DIR", help="spool, journal and boot number (default: see README)")

    text = "have a running gateway read its gateway.toml again: only what changed is touched"
    sub = _add(commands, "reload", services.reload, text, epilog=RELOAD_HELP)
    sub.add_argument("config", type=Path, nargs="?", metavar="gateway.toml", help="the file that it runs with")
    sub.add_argument("--state", type=Path, metavar="DIR", help="its state folder (default: see README)")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    text = "bring data from the broker into the database; acknowledged after the write"
    sub = _service(commands, "ingest", services.ingest, text)
    sub.add_argument("config", type=Path, metavar="ingest.toml", help="the broker and the database")
    sub.add_argument("--state", type=Path, metavar="DIR", help="ledger and dead letters (default: see README)")

    sub = _service(commands, "console", services.console, "the operators' console in the browser")
    sub.add_argument("config", type=Path, metavar="console.toml", help="the broker, the database, where to listen")

    text = "every device of a gateway.toml as a simulated meter on real Modbus"
    sub = _service(commands, "sim", services.sim, text, epilog=FAULTS_HELP)
    sub.add_argument("config", type=Path, metavar="gateway.toml", help="the links and devices to simulate")
    sub.add_argument(
        "--truth", type=Path, metavar="FILE", help="write every value served and every fault as JSON lines"
    )
    sub.add_argument("--faults", type=Path, metavar="FILE", help="faults and anomalies to act out (TOML, see below)")
    sub.add_argument("--seed", type=int, default=1, help="same seed, same values (default: 1)")
    sub.add_argument(
        "--operations", action="store_true", help="let operators work: pumps, batches, ships, trains, tests"
    )
    sub.add_argument("--paced", action="store_true", help="let answers on serial lines take the time they would take")
    sub.add_argument("--cert", type=Path, metavar="FILE", help="certificate of simulated tls:// meters")
    sub.add_argument("--key", type=Path, metavar="FILE", help="its key")

    sub = _add(commands, "check", configuration.check, "report every error of configuration files; opens no socket")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE", help="gateway.toml, ingest.toml or console.toml")

    text = "requests, bus load per link, bytes per day and days of spool of a gateway.toml"
    sub = _add(commands, "plan", configuration.plan, text)
    sub.add_argument("config", type=Path, metavar="gateway.toml", help="what would be read")
    sub.add_argument(
        "--state", type=Path, metavar="DIR", help="where `run` keeps what it has learnt (default: its own)"
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    _add_profile(_group(commands, "profile", "meter profiles: list, show, lint, import, export"))

    text = "the JSON Schema of a configuration file, for editors"
    sub = _add(commands, "schema", configuration.schema, text)
    kinds = ("gateway", "ingest", "console", "profile")
    sub.add_argument("kind", nargs="?", default="gateway", choices=kinds, help="which file (default: gateway)")

    actions = _group(commands, "spool", "look into spool folders")
    text = "read every batch and report what is there; changes nothing"
    sub = _add(actions, "verify", records.verify, text)
    sub.add_argument("dirs", type=Path, nargs="+", metavar="DIR", help="spool folders")
    sub.add_argument("--json", action="store_true", help="print one JSON object per folder")

    text = "what was recorded, through the product again: history through the detectors, captures through the link"
    sub = _add(commands, "replay", replays.replay, text, epilog=REPLAY_HELP)
    sub.add_argument("source", metavar="SOURCE", help="a CSV file, spool folder, database URL, or capture; see below")
    sub.add_argument("--config", type=Path, metavar="FILE", help="gateway.toml with the settings of the tags")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write scores (of a capture: values) as CSV")
    sub.add_argument("--report", type=Path, metavar="FILE", help="write one HTML page: alarms a day, plots, limits")
    sub.add_argument("--from", dest="since", type=_moment, metavar="TIME", help="of a spool or database: begin here")
    sub.add_argument("--to", dest="until", type=_moment, metavar="TIME", help="and end before")
    sub.add_argument("--token-file", type=Path, metavar="FILE", help="the database's token")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    text = "up to when the database has everything of each gateway, and what is missing or never comes, with the reason"
    sub = _add(commands, "ledger", records.ledger, text)
    sub.add_argument("config", type=Path, nargs="?", metavar="ingest.toml", help="whose ledger (default: id 'ingest')")
    sub.add_argument("--state", type=Path, metavar="DIR", help="where the ingest keeps it (default: see README)")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    sub = _add(commands, "acl", configuration.acl, "the broker's access list for these gateways, ingests and consoles")
    brokers = ("mosquitto",)
    sub.add_argument("--broker", choices=brokers, default="mosquitto", help="whose format (default: mosquitto)")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE", help="gateway.toml, ingest.toml or console.toml")

    text = "measure: cost per stage, values per second, memory, start-up"
    sub = _add(commands, "bench", machine.bench, text, epilog=BENCH_HELP)
    sub.add_argument("stage", nargs="?", default="all", help="one stage, or all (default) that take no minutes")
    sub.add_argument("--minutes", type=_minutes, metavar="N", help="of soak: how long it takes (default: 20)")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    _add(commands, "warm", machine.warm, "compile all kernels ahead, with progress")
    return whole


def _add_profile(actions: Any) -> None:
    sub = _add(actions, "list", profiles.list_all, "all profiles, with grade and number of points")
    sub.add_argument("--json", action="store_true", help="print one JSON array")

    sub = _add(actions, "show", profiles.show, "one profile with its points")
    sub.add_argument("name", metavar="NAME|FILE", help="a profile's name, or a file that ends in .toml")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    sub = _add(actions, "lint", profiles.lint, "what a careful reader would question in profiles")
    sub.add_argument("names", nargs="*", metavar="NAME|FILE", help="profiles (default: all shipped ones)")

    sub = _add(actions, "import", profiles.import_csv, "make a profile from a spreadsheet (CSV)")
    sub.add_argument("file", type=Path, metavar="x.csv", help="columns: name,function,address,type and more")
    out_help = "where to write it (default: profiles/x.toml); - for standard output"
    sub.add_argument("--out", type=Path, metavar="FILE", help=out_help)
    sub.add_argument("--force", action="store_true", help="overwrite a file that is there already")
    sub.add_argument("--vendor", help="who makes the meter")
    sub.add_argument("--model", help="what it is called (default: the name of the CSV file)")
    sub.add_argument("--measurement", help="the name of its series (default: meter)")
    sub.add_argument("--source", help="where the map comes from (default: the name of the CSV file)")
    sub.add_argument("--grade", choices=("A", "B", "C"), help="how sure the map is (default: C)")
    sub.add_argument("--enron", action="store_true", help="one address carries one 32-bit item")

    text = "the profile of a device with what the gateway has learnt: refused registers, largest reads"
    sub = _add(actions, "export", profiles.export, text)
    sub.add_argument("config", type=Path, metavar="gateway.toml", help="where the device is configured")
    sub.add_argument("device", metavar="DEVICE", help="its name there")
    sub.add_argument(
        "--state", type=Path, metavar="DIR", help="where `run` keeps what it has learnt (default: its own)"
    )
    sub.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    sub.add_argument("--force", action="store_true", help="overwrite a file that is there already")


def _add(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    *,
    epilog: str | None = None,
    interrupted: int = INTERRUPTED,
) -> argparse.ArgumentParser:
    """Add a command and return its parser; `misused` ends it with a usage error."""
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, epilog=epilog)
    sub.set_defaults(run=run, interrupted=interrupted, misused=sub.error)
    return sub


def _service(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, *, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Add a command that runs until it is told to end."""
    return _add(commands, name, run, text, epilog=epilog, interrupted=DONE)


def _group(commands: Any, name: str, text: str) -> Any:
    return commands.add_parser(name, help=text, description=text).add_subparsers(metavar="ACTION", required=True)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted 0 to {MAX_PORT}")
    return int(text)


def _moment(text: str) -> int:
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        wanted = "wanted ISO 8601 (2026-11-23T06:00, UTC) or integer nanoseconds"
        raise argparse.ArgumentTypeError(f"got {text!r}, {wanted}") from None
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number of minutes above 0")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number of seconds")
    return value
