"""Commands about what is kept: spool verify, ledger."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from gateway.commands.terminal import DONE, WRONG_INPUT, refuse, say


def verify(options: argparse.Namespace) -> int:
    """Report what spool folders hold; a damaged one is a finding, one that is no spool is wrong input."""
    from gateway.spool.verify import verify

    code = DONE
    for folder in options.dirs:
        found = verify(folder)
        if found["reason"]:
            say(f"{folder}: {found['reason']}")
        is_spool = found["ok"] or found["damaged"]
        if not is_spool:
            code = WRONG_INPUT
        if options.json:
            print(json.dumps(found))
        elif is_spool:
            _tell(found)
    return code


def _tell(found: dict[str, Any]) -> None:
    state = "ok" if found["ok"] else "damaged"
    print(f"{found['dir']}: {state}: {found['frames']} frames, {found['values']} values")
    for boot, ranges in found["boots"].items():
        spans = ", ".join(f"{a}-{b}" for a, b in ranges)
        print(f"  boot {boot}: {spans}")
    if found["damaged"]:
        print(f"  {found['damaged']} damaged places")


def ledger(options: argparse.Namespace) -> int:
    """Report what the database has of each gateway and boot."""
    from gateway.ingest.ledger_file import read_ledger
    from gateway.model.config import ConfigError, load_ingest, state_dir

    ident = "ingest"
    if options.config:
        try:
            ident = load_ingest(options.config).id
        except ConfigError as error:
            return refuse(error.lines)
    try:
        found = read_ledger(state_dir(options.state, ident))
    except OSError as error:
        return refuse([str(error)])
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
