"""The command line: `corridor COMMAND`, its words and options; gateway/commands has what they do."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.commands import configuration, machine, profiles, records, services
from gateway.commands.terminal import DONE


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

    sub = add("demo", services.demo, "a simulated corridor with broker, gateways, ingest, database and console")
    sub.add_argument("--seconds", type=float, metavar="N", help="stop after N seconds and sum up (default: Ctrl-C)")
    sub.add_argument("--port", type=int, default=8080, help="the console's port (default: 8080, or a free one)")
    sub.add_argument("--no-browser", action="store_true", help="do not open the console in a browser")
    sub.add_argument("--data", type=Path, metavar="DIR", help="keep everything here (default: a temporary folder)")
    sub.add_argument("--seed", type=int, default=1, help="of the simulated meters (default: 1)")
    sub.add_argument("--json", action="store_true", help="print the summary as one JSON object")

    sub = add("run", services.run, "the gateway: read the meters of a gateway.toml and publish")
    sub.add_argument("config", type=Path, metavar="gateway.toml")
    sub.add_argument("--state", type=Path, metavar="DIR", help="spool, journal and boot number (default: see README)")

    sub = add("ingest", services.ingest, "bring data from the broker into the database; acknowledged after the write")
    sub.add_argument("config", type=Path, metavar="ingest.toml")
    sub.add_argument("--state", type=Path, metavar="DIR", help="ledger and dead letters (default: see README)")

    sub = add("console", services.console, "the operators' console in the browser")
    sub.add_argument("config", type=Path, metavar="console.toml")

    sub = add("check", configuration.check, "report every error of configuration files; opens no socket")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE")

    sub = add(
        "plan", configuration.plan, "requests, bus load per link, bytes per day and days of spool of a gateway.toml"
    )
    sub.add_argument("config", type=Path, metavar="gateway.toml")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    sub = add("sim", services.sim, "every device of a gateway.toml as a simulated meter on real Modbus")
    sub.add_argument("config", type=Path, metavar="gateway.toml")
    sub.add_argument(
        "--truth", type=Path, metavar="FILE", help="write every value served and every fault as JSON lines"
    )
    sub.add_argument("--faults", type=Path, metavar="FILE", help="faults and anomalies to act out (TOML)")
    sub.add_argument("--seed", type=int, default=1, help="same seed, same values (default: 1)")
    sub.add_argument("--paced", action="store_true", help="let answers on serial lines take the time they would take")
    sub.add_argument("--cert", type=Path, metavar="FILE", help="certificate of simulated tls:// meters")
    sub.add_argument("--key", type=Path, metavar="FILE", help="its key")

    profile = add("profile", profiles.list_all, "meter profiles: list, show, lint, import")
    actions = profile.add_subparsers(metavar="ACTION", required=True)
    one = actions.add_parser("list", help="all profiles, with grade and number of points")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=profiles.list_all)
    one = actions.add_parser("show", help="one profile with its points")
    one.add_argument("name")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=profiles.show)
    one = actions.add_parser("lint", help="what a careful reader would question in profiles")
    one.add_argument("names", nargs="*", metavar="NAME|FILE", help="default: all shipped ones")
    one.set_defaults(run=profiles.lint)
    one = actions.add_parser("import", help="make a profile from a spreadsheet (CSV)")
    one.add_argument("file", type=Path, metavar="x.csv")
    one.add_argument("--out", type=Path, metavar="FILE", help="default: profiles/x.toml; - for standard output")
    for key in ("vendor", "model", "measurement", "source"):
        one.add_argument(f"--{key}", default=None)
    one.add_argument("--grade", choices=("A", "B", "C"), default=None, help="how sure the map is (default: C)")
    one.add_argument("--enron", action="store_true", help="one address carries one 32-bit item")
    one.set_defaults(run=profiles.import_csv)

    sub = add("schema", configuration.schema, "the JSON Schema of a configuration file, for editors")
    sub.add_argument("kind", nargs="?", default="gateway", choices=("gateway", "ingest", "console", "profile"))

    spool = add("spool", records.verify, "look into spool folders")
    actions = spool.add_subparsers(metavar="ACTION", required=True)
    one = actions.add_parser("verify", help="read every batch and report what is there; changes nothing")
    one.add_argument("dirs", type=Path, nargs="+", metavar="DIR")
    one.add_argument("--json", action="store_true", help="one JSON object per folder")
    one.set_defaults(run=records.verify)

    sub = add("ledger", records.ledger, "what the database has of each gateway and boot, and what is missing")
    sub.add_argument("config", type=Path, nargs="?", metavar="ingest.toml")
    sub.add_argument("--state", type=Path, metavar="DIR")
    sub.add_argument("--json", action="store_true")

    sub = add("acl", configuration.acl, "the broker's access list for these gateways and ingests")
    sub.add_argument("--broker", choices=("mosquitto",), default="mosquitto")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE")

    sub = add("bench", machine.bench, "measure: cost per stage, values per second, memory, start to first value")
    sub.add_argument("stage", nargs="?", default="all", help="one stage, or all (default)")
    sub.add_argument("--json", action="store_true")

    add("warm", machine.warm, "compile all kernels ahead, with progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
