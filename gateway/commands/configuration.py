"""Commands about configuration files: check, plan, schema, acl."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.commands.terminal import DONE, WRONG_INPUT, refuse


def check(options: argparse.Namespace) -> int:
    """Report every error of configuration files."""
    from gateway.acquire.plan import plan
    from gateway.model import config

    wrong = [line for path in options.files for line in config.check(path, lambda spec: plan(spec).errors)]
    return refuse(wrong) if wrong else DONE


def plan(options: argparse.Namespace) -> int:
    """Print what a gateway will ask, and what that costs."""
    from gateway.acquire.memory import Memory
    from gateway.acquire.plan import plan
    from gateway.acquire.report import report
    from gateway.model.config import ConfigError, load_gateway, state_dir

    try:
        spec = load_gateway(options.config)
        found = report(plan(spec, Memory(spec, state_dir(options.state, spec.id))))
    except ConfigError as error:
        return refuse(error.lines)
    if options.json:
        print(json.dumps(found))
        return WRONG_INPUT if found["errors"] else DONE
    print(f"{found['gateway']}: {found['devices']} devices, {found['tags']} tags")
    print(f"{'link':<20} {'requests':>8} {'bus time':>9} {'load':>7}")
    for link in found["links"]:
        print(f"{link['name']:<20} {link['requests_per_cycle']:>8} {link['bus_time_s']:>8.3f}s {link['load']:>6.1%}")
    print(f"\n{'device':<20} {'unit':>4} {'fc':>2} {'start':>6} {'count':>5} {'period':>7}")
    for one in found["requests"]:
        print(
            f"{one['device']:<20} {one['unit']:>4} {one['function']:>2} {one['start']:>6} {one['count']:>5}"
            f" {one['period_s']:>6g}s"
        )
    for one in found["scan_lists"]:
        print(f"\n{one['device']}: {_saving(one)}")
    for one in found["learnt"]:
        print(f"\n{one['device']} has taught: {'; '.join(_lessons(one))}")
    days = f"{found['spool_days']:g} days" if found["spool_days"] else "unknown (period 0)"
    years = f"; the card lasts {found['card_years']:g} years" if found["card_years"] else ""
    print(f"\nspool: {found['bytes_per_day'] / 1e6:.1f} MB a day, room for {days}")
    print(f"written to the disk: {found['written_bytes_per_day'] / 1e6:.0f} MB a day{years}")
    return refuse(f"{options.config}: {line}" for line in found["errors"]) if found["errors"] else DONE


def _saving(one: Mapping[str, Any]) -> str:
    """Return what a device would save by its scan list, in words."""
    direct, entries = one["direct"], " ".join(map(str, one["entries"]))
    reads = f"{one['requests_per_cycle']} reads instead of {direct['requests_per_cycle']}"
    bus_time = f"{one['bus_time_s']:.2f} s instead of {direct['bus_time_s']:.2f} s"
    return f"with {entries} in its scan list: {reads}, {bus_time}"


def _lessons(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a device has taught, in words."""
    for hole in one["refused"]:
        why = f"({', '.join(hole['tags'])})" if hole["tags"] else "in a read"
        yield f"it refuses {hole['function']} {hole['start']} to {hole['start'] + hole['count'] - 1} {why}"
    for key, what in (("max_registers", "registers"), ("max_bits", "bits")):
        if one[key]:
            yield f"its largest read is of {one[key]} {what}"
    if one["turnaround_s"]:
        yield f"it takes {1000 * one['turnaround_s']:.0f} ms to answer"


def schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema of one kind of file."""
    from drivers.profile import ProfileModel
    from gateway.model.tables import SCHEMAS

    model = ProfileModel if options.kind == "profile" else SCHEMAS[options.kind]
    print(json.dumps(model.model_json_schema(), indent=2))
    return DONE


def acl(options: argparse.Namespace) -> int:
    """Print the broker's access list."""
    from gateway.model.config import ConfigError
    from gateway.wire.acl import mosquitto

    try:
        print(mosquitto(options.files), end="")
    except ConfigError as error:
        return refuse(error.lines)
    return DONE
