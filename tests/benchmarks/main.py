"""`corridor bench [STAGE] [--json]`: what a value costs at every stage of its way, beside a peer in the same run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from tests.benchmarks import decode, detect, drain, end_to_end, ingest, lines, memory, month, publish, read, soak, spool
from tests.benchmarks.rig import Unavailable

Result = dict[str, Any]

STAGES: Final[dict[str, Callable[..., Result]]] = {
    "read": read.measure,
    "decode": decode.measure,
    "detect": detect.measure,
    "lines": lines.measure,
    "spool": spool.measure,
    "publish": publish.measure,
    "ingest": ingest.measure,
    "end_to_end": end_to_end.measure,
    "memory": memory.measure,
}
LONG: Final[dict[str, Callable[..., Result]]] = {  # a minute or more: only when they are asked for
    "drain": drain.measure,
    "month": month.measure,
    "soak": soak.measure,
}


def run(stage: str, *, as_json: bool, minutes: float | None = None) -> int:
    """Measure one stage, or `all` of them, and print the results; returns the exit code.

    minutes  how long soak takes, None: as long as it does by itself
    A stage that judges says whether it `passed`; where one did not, the code is 1.
    """
    if stage != "all" and stage not in STAGES and stage not in LONG:
        _say(f"bench: got {stage!r}, wanted all or one of {', '.join([*STAGES, *LONG])}")
        return 1
    found: dict[str, Result] = {}
    for name in STAGES if stage == "all" else [stage]:
        began = time.monotonic()
        _say(f"bench {name} ...")
        try:
            settings = {} if minutes is None else {"minutes": minutes}
            found[name] = _rounded(measured := {**STAGES, **LONG}[name](**settings))
        except Unavailable as error:
            found[name] = measured = {"skipped": str(error)}
        _say(f"bench {name}: {time.monotonic() - began:.1f} s")
        if not as_json:
            _show(name, measured)
    if as_json:
        print(json.dumps(found if stage == "all" else found[stage]))
    return int(any(not each.get("passed", True) for each in found.values()))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _show(stage: str, found: Result, indent: str = "  ") -> None:
    print(f"{indent[2:]}{stage}")
    for key, value in found.items():
        if isinstance(value, dict):
            _show(key, value, indent + "  ")
        else:
            print(f"{indent}{key:<44} {value:,.4g}" if isinstance(value, float) else f"{indent}{key:<44} {value}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
