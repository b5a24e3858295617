"""What `corridor plan` tells: links, requests, bytes per day, days of spool, errors."""

from __future__ import annotations

from typing import Any, Final

from drivers.blocks import Block
from gateway.acquire.device import DevicePlan, Due, rates_of
from gateway.acquire.load import load_of
from gateway.acquire.memory import NOTHING
from gateway.acquire.plan import Plan
from gateway.acquire.scan_list import advice

BYTES_PER_VALUE: Final = 3.6  # kept by the spool at one frame per block (measured by `corridor bench spool`)
FRAME_BYTES: Final = 12.0  # sequence number, times and uncertainty of one frame in the spool
DAY_S: Final = 86_400


def report(found: Plan) -> dict[str, Any]:
    """Return the object of DESIGN section 7."""
    table = found.table
    per_day = sum(
        DAY_S / scan.period_s * (FRAME_BYTES + BYTES_PER_VALUE * (scan.stop - scan.start))
        for scan in table.scans
        if scan.period_s
    )
    return {
        "gateway": found.spec.id,
        "devices": len(found.spec.devices),
        "tags": table.n,
        "links": _links(found),
        "requests": [request for one in found.devices for request in _requests(found, one)],
        "bytes_per_day": round(per_day),
        "spool_days": round(found.spec.spool_max_bytes / per_day, 2) if per_day else None,
        "scan_lists": [line for one in found.devices if (line := _scan_list(one))],
        "learnt": [_learnt(found, one) for one in found.devices if one.learnt != NOTHING],
        "errors": list(found.errors),
    }


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
