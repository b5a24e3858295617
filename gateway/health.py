"""What the gateway knows of itself: one JSON object, every ten seconds and at once after a change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from drivers.link import Link
from gateway.acquire.plan import load_of
from gateway.acquire.poll import PollCounters
from gateway.deliver.publish import DeliveryCounters
from gateway.model.clock import clock_state
from gateway.model.frame import TagTable
from gateway.spool.spool import Spool

PERIOD_S: Final = 10.0
LOOK_S: Final = 1.0  # how soon a changed link or spool is told
KIB: Final = 1024


def memory_bytes() -> int:
    """Return the resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIB
    return 0


def report(
    table: TagTable,
    links: Mapping[str, Link],
    polls: Mapping[str, PollCounters],
    spool: Spool,
    delivery: DeliveryCounters,
    *,
    events_dropped: int,
    now_ns: int,
) -> dict[str, Any]:
    """Return the health message of DESIGN section 7."""
    kept = spool.statistics()
    total = PollCounters()
    for counters in polls.values():
        total.due += counters.due
        total.done += counters.done
        total.late += counters.late
        total.skipped += counters.skipped
    return {
        "time": now_ns,
        "polls": {"due": total.due, "done": total.done, "late": total.late, "skipped": total.skipped},
        "links": {spec.name: _link(links[spec.name], load_of(table, spec)[2]) for spec in table.spec.links},
        "spool": {
            "state": kept.state,
            "bytes": kept.bytes,
            "oldest_s": None if kept.oldest_ns is None else round((now_ns - kept.oldest_ns) / 1e9, 3),
            "unsent": kept.unsent,
            "pending": kept.pending,
            "dropped": kept.dropped,
            "dropped_values": kept.dropped_values,
            "damaged": kept.damaged,
        },
        "delivery": {
            "published": delivery.published,
            "acknowledged": delivery.acknowledged,
            "refused": delivery.refused,
            "events_dropped": events_dropped,
        },
        "clock": {"state": clock_state(), "offset_s": 0.0},
        "memory_bytes": memory_bytes(),
    }


def _link(link: Link, load: float) -> dict[str, Any]:
    seen = link.counters
    return {
        "state": link.state,
        "load": round(load, 4),
        "requests": seen.requests,
        "timeouts": seen.timeouts,
        "crc_errors": seen.crc_errors,
        "foreign_frames": seen.foreign_frames,
        "exceptions": {str(code): n for code, n in sorted(seen.exceptions.items())},
    }


def prometheus(gateway: str, health: Mapping[str, Any]) -> str:
    """Return the same counters as Prometheus text (exposition format 0.0.4)."""
    metrics: dict[str, list[str]] = {}  # the samples of one name stand together under its type

    def put(name: str, kind: str, value: float | int | None, labels: str = "") -> None:
        if value is not None:
            lines = metrics.setdefault(name, [f"# TYPE {name} {kind}"])
            lines.append(f'{name}{{gateway="{gateway}"{labels}}} {value}')

    for key, value in health["polls"].items():
        put(f"corridor_polls_{key}_total", "counter", value)
    for key in ("bytes", "unsent", "pending"):
        put(f"corridor_spool_{key}", "gauge", health["spool"][key])
    put("corridor_spool_oldest_seconds", "gauge", health["spool"]["oldest_s"])
    for key in ("dropped", "dropped_values", "damaged"):
        put(f"corridor_spool_{key}_total", "counter", health["spool"][key])
    put("corridor_spool_ok", "gauge", int(health["spool"]["state"] == "ok"))
    for key, value in health["delivery"].items():
        put(f"corridor_delivery_{key}_total", "counter", value)
    for key in ("requests", "timeouts", "crc_errors", "foreign_frames"):
        for name, link in health["links"].items():
            put(f"corridor_link_{key}_total", "counter", link[key], f',link="{name}"')
    for name, link in health["links"].items():
        put("corridor_link_up", "gauge", int(link["state"] == "up"), f',link="{name}"')
        put("corridor_link_load", "gauge", link["load"], f',link="{name}"')
        for code, n in link["exceptions"].items():
            put("corridor_link_exceptions_total", "counter", n, f',link="{name}",code="{code}"')
    put("corridor_clock_synced", "gauge", int(health["clock"]["state"] == "synced"))
    put("corridor_clock_offset_seconds", "gauge", health["clock"]["offset_s"])
    put("corridor_memory_bytes", "gauge", health["memory_bytes"])
    return "\n".join(line for lines in metrics.values() for line in lines) + "\n"
