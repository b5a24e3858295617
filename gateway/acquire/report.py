"""What `corridor plan` tells: links, requests, bytes per day, days of spool, errors."""

from __future__ import annotations

import math
from typing import Any, Final

from drivers.blocks import Block
from gateway.acquire.device import DevicePlan, Due, rates_of
from gateway.acquire.load import load_of
from gateway.acquire.memory import NOTHING
from gateway.acquire.plan import Plan
from gateway.acquire.scan_list import advice

SEALED_VALUE_BYTES: Final = 1.0  # kept by the spool in the end; measured .75 to 1.1 (`corridor bench spool`)
SEALED_FRAME_BYTES: Final = 4.0  # times and uncertainty of one frame, likewise
VALUE_BYTES: Final = 3.3  # in the batch of one commit
FRAME_BYTES: Final = 10.0
PAGE_BYTES: Final = 4096  # what a disk is handed at least
BESIDE_BYTES: Final = (
    2 * PAGE_BYTES * 86_400 / 30
)  # a day: both slots of the cursor, with every writeback of the kernel
LEARNT_BYTES: Final = 24 * 500  # a day and tag: what the detectors have learnt, once an hour
DAY_S: Final = 86_400
YEAR_DAYS: Final = 365.25


def report(found: Plan) -> dict[str, Any]:
    """Return the object of DESIGN section 7."""
    table = found.table
    frames = sum(1 / scan.period_s for scan in table.scans if scan.period_s)
    values = sum((scan.stop - scan.start) / scan.period_s for scan in table.scans if scan.period_s)
    per_day = DAY_S * (SEALED_FRAME_BYTES * frames + SEALED_VALUE_BYTES * values)
    written = per_day + _committed_per_day(found.spec.spool_commit_s, frames, values) + LEARNT_BYTES * table.n
    endurance = found.spec.spool_endurance_bytes
    return {
        "gateway": found.spec.id,
        "devices": len(found.spec.devices),
        "tags": table.n,
        "links": _links(found),
        "requests": [request for one in found.devices for request in _requests(found, one)],
        "bytes_per_day": round(per_day),
        "spool_days": round(found.spec.spool_max_bytes / per_day, 2) if per_day else None,
        "written_bytes_per_day": round(written),
        "card_years": round(endurance / written / YEAR_DAYS, 1) if endurance and per_day else None,
        "scan_lists": [line for one in found.devices if (line := _scan_list(one))],
        "learnt": [_learnt(found, one) for one in found.devices if one.learnt != NOTHING],
        "errors": list(found.errors),
    }


def _committed_per_day(commit_s: float, frames_per_s: float, values_per_s: float) -> float:
    """Return the bytes that a disk is handed for commits: whole pages, as few as a batch can touch."""
    batch = commit_s * (FRAME_BYTES * frames_per_s + VALUE_BYTES * values_per_s)
    commits = min(1 / commit_s, frames_per_s)
    return BESIDE_BYTES + DAY_S * commits * PAGE_BYTES * math.ceil(batch / PAGE_BYTES)


def _links(found: Plan) -> list[dict[str, Any]]:
    out = []
    for link in found.spec.links:
        load = load_of(link, found.devices)
        entry = {"name": link.name, "requests_per_cycle": load.requests, "bus_time_s": round(load.bus_s, 6)}
        out.append({**entry, "load": round(load.share, 6)})
    return out


def _requests(found: Plan, one: DevicePlan) -> list[dict[str, Any]]:
    """Return every request that a device gets, once.

    period_s  how often it is certain to come: the longest period of the scans that have to meet for it
    serves    the periods of the tags whose values it brings
    load      its share of the link's time; where slower scans join, a larger read takes its place now and then, and
              it comes less often than its period says
    """
    periods: dict[Block, float] = {}
    serves: dict[Block, set[float]] = {}
    per_s: dict[Block, float] = {}
    for due, rate in _due_sets(one):
        period_s = max(scan.period_s for scan in due.scans)
        for read in due.reads:
            periods[read.block] = min(period_s, periods.get(read.block, period_s))
            serves.setdefault(read.block, set()).update(found.table.tags[row].period_s for row in read.rows)
            per_s[read.block] = per_s.get(read.block, 0.0) + rate
    return [
        {
            "link": one.link.name,
            "device": one.device.name,
            "unit": one.device.unit,
            "function": block.function,
            "start": block.start,
            "count": block.count,
            "period_s": period_s,
            "serves": sorted(serves[block]),
            "load": round(per_s[block] * one.cost.read_s(block), 9),
        }
        for block, period_s in sorted(periods.items(), key=lambda item: (item[1], item[0].function, item[0].start))
    ]


def _learnt(found: Plan, one: DevicePlan) -> dict[str, Any]:
    """Return what a device has taught; `tags` are those that are not asked because of these registers."""
    refused = one.due(one.all_scans).refused
    holes = []
    for hole in one.learnt.refused:
        mine = [r for r in refused if hole.lies_in(r.block)]
        tags = sorted(found.table.tags[row].name for read in mine for row in read.rows)
        holes.append({"function": hole.function, "start": hole.start, "count": hole.count, "tags": tags})
    rest = {key: getattr(one.learnt, key) for key in ("max_registers", "max_bits", "turnaround_s")}
    return {"device": one.device.name, "refused": holes, **rest}


def _scan_list(one: DevicePlan) -> dict[str, Any] | None:
    """Return what a device would save with the best entries in its scan list, when all scans are due."""
    area, direct = one.device.scan_list, one.due(one.all_scans)
    if area is None or (found := advice(one, area)) is None:
        return None
    entries, shortcut = found
    return {
        "device": one.device.name,
        "entries": list(entries),
        "requests_per_cycle": shortcut.n_reads,
        "bus_time_s": round(shortcut.bus_s, 6),
        "direct": {"requests_per_cycle": len(direct.reads), "bus_time_s": round(direct.bus_s, 6)},
    }


def _due_sets(one: DevicePlan) -> list[tuple[Due, float]]:
    """Return the plan of every due-set that happens and how often, 1/s; a flat-out scan is one, its load unknown."""
    flat_out = [(1 << i, 0.0) for i, scan in enumerate(one.scans) if not scan.period_s]
    timed = sorted(rates_of([scan.period_s for scan in one.scans]).items())
    return [(one.due(mask), rate) for mask, rate in (*flat_out, *timed)]
