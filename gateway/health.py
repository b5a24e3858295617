"""What the gateway knows of itself: one JSON object, every ten seconds and at once after a change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from drivers.link import Latency, Link, UnitCounters
from gateway.acquire.load import load_of
from gateway.acquire.plan import Plan
from gateway.acquire.poll import PollCounters
from gateway.capture.recorder import CaptureCounters
from gateway.deliver.publish import DeliveryCounters
from gateway.spool.spool import Spool

PERIOD_S: Final = 10.0
MEASURED_S: Final = 60.0  # of writing, before bytes a day are told
DAY_S: Final = 86_400
YEAR_DAYS: Final = 365.25
LOOK_S: Final = 1.0  # how soon a changed link or spool is told
KIB: Final = 1024
FAULTS: Final = ("timeouts", "crc_errors", "foreign_frames", "late_frames")


def memory_bytes() -> int:
    """Return the resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIB
    return 0


def descriptors() -> int:
    """Return how many files and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # less the one that lists them


def report(
    plan: Plan,
    links: Mapping[str, Link],
    polls: Mapping[str, PollCounters],
    spool: Spool,
    delivery: DeliveryCounters,
    captures: CaptureCounters,
    *,
    used: Mapping[str, float],
    unexpected: Mapping[str, str],
    clock: Mapping[str, Any],
    unjudged: int | None,
    events_dropped: int,
    tasks: int,
    up_s: float,
    now_ns: int,
) -> dict[str, Any]:
    """Return the health message of DESIGN section 7.

    used        link -> measured share of time in which it was taken
    unexpected  device -> what it said instead of its model
    clock       state, and by how much the machine's clock is ahead of ours, s
    tasks       of the event loop
    up_s        since the start
    unjudged    frames that wait until the detectors are loaded, None once they are
    """
    kept = spool.statistics()
    per_day = round(kept.written / up_s * DAY_S) if up_s >= MEASURED_S else None
    endurance = plan.spec.spool_endurance_bytes
    total = PollCounters()
    for counters in polls.values():
        total.due += counters.due
        total.done += counters.done
        total.late += counters.late
        total.skipped += counters.skipped
    return {
        "time": now_ns,
        "polls": {"due": total.due, "done": total.done, "late": total.late, "skipped": total.skipped},
        "links": {
            spec.name: _link(links[spec.name], load_of(spec, plan.devices).share, used.get(spec.name))
            for spec in plan.spec.links
        },
        "devices": {
            device.name: _device(seen, unexpected.get(device.name))
            for device in plan.spec.devices
            if (seen := links[device.link].counters.units.get(device.unit))
            and (is_faulty(seen) or device.name in unexpected)
        },
        "spool": {
            "state": kept.state,
            "bytes": kept.bytes,
            "oldest_s": None if kept.oldest_ns is None else round((now_ns - kept.oldest_ns) / 1e9, 3),
            "unsent": kept.unsent,
            "pending": kept.pending,
            "dropped": kept.dropped,
            "dropped_values": kept.dropped_values,
            "damaged": kept.damaged,
            "written_bytes": kept.written + kept.prepared,
            "written_bytes_per_day": per_day,
            "card_years": round(endurance / per_day / YEAR_DAYS, 1) if endurance and per_day else None,
        },
        "delivery": {
            "published": delivery.published,
            "acknowledged": delivery.acknowledged,
            "refused": delivery.refused,
            "parked": delivery.parked,
            "unheard": delivery.unheard,
            "events_dropped": events_dropped,
        },
        "detectors": {"state": "ready" if unjudged is None else "loading", "waiting": unjudged or 0},
        "captures": {"written": captures.written, "failed": captures.failed},
        "clock": dict(clock),
        "memory_bytes": memory_bytes(),
        "descriptors": descriptors(),
        "tasks": tasks,
    }


def _link(link: Link, load: float, used: float | None) -> dict[str, Any]:
    seen = link.counters
    return {
        "state": link.state,
        "load": round(load, 4),
        "utilisation": None if used is None else round(used, 4),
        "dials": seen.dials,
        "noise_bytes": seen.noise_bytes,
        "fences": seen.fences,
        "busy_s": round(seen.busy_s, 3),
        **_seen(seen),
    }


def _seen(seen: UnitCounters) -> dict[str, Any]:
    """Return what a link and a device alike are counted by."""
    return {
        "requests": seen.requests,
        "answers": seen.answers,
        **{name: getattr(seen, name) for name in FAULTS},
        "exceptions": {str(code): n for code, n in sorted(seen.exceptions.items())},
        "latency": {
            "p50_s": _finite(seen.latency.within(0.5)),
            "p99_s": _finite(seen.latency.within(0.99)),
            "sum_s": round(seen.latency.total_s, 3),
            "counts": list(seen.latency.counts),
        },
    }


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else seconds


def _device(seen: UnitCounters, unexpected: str | None) -> dict[str, Any]:
    """Return the faults of one device and its typical answer time; the rest is in the metrics."""
    out: dict[str, Any] = {name: n for name in ("requests", *FAULTS) if (n := getattr(seen, name))}
    if seen.exceptions:
        out["exceptions"] = {str(code): n for code, n in sorted(seen.exceptions.items())}
    if unexpected:
        out["unexpected"] = unexpected
    return {**out, "p99_s": _finite(seen.latency.within(0.99))}


def is_faulty(seen: UnitCounters) -> bool:
    """Return whether anything ever went wrong with a device."""
    return bool(seen.exceptions) or any(getattr(seen, name) for name in FAULTS)


class Utilisation:
    """The measured share of time in which each link was taken, over the last window of at least PERIOD_S."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._busy_s: dict[str, float] = {}
        self._found: dict[str, float] = {}

    def of(self, links: Mapping[str, Link], now_s: float) -> Mapping[str, float]:
        """Return link name -> share; empty until a first window is over."""
        if self._began_s is None or now_s - self._began_s >= PERIOD_S:
            if self._began_s is not None:
                span_s = now_s - self._began_s
                self._found = {n: (k.counters.busy_s - self._busy_s[n]) / span_s for n, k in links.items()}
            self._began_s = now_s
            self._busy_s = {name: link.counters.busy_s for name, link in links.items()}
        return self._found


def prometheus(gateway: str, health: Mapping[str, Any]) -> str:
    """Return the same counters as Prometheus text (exposition format 0.0.4)."""
    metrics: dict[str, list[str]] = {}  # the samples of one name stand together under its type

    def put(name: str, kind: str, value: float | int | None, labels: str = "", part: str = "") -> None:
        if value is not None:
            lines = metrics.setdefault(name, [f"# TYPE {name} {kind}"])
            lines.append(f'{name}{part}{{gateway="{gateway}"{labels}}} {value}')

    for key, value in health["polls"].items():
        put(f"corridor_polls_{key}_total", "counter", value)
    for key in ("bytes", "unsent", "pending"):
        put(f"corridor_spool_{key}", "gauge", health["spool"][key])
    put("corridor_spool_oldest_seconds", "gauge", health["spool"]["oldest_s"])
    for key in ("dropped", "dropped_values", "damaged", "written_bytes"):
        put(f"corridor_spool_{key}_total", "counter", health["spool"][key])
    put("corridor_spool_ok", "gauge", int(health["spool"]["state"] == "ok"))
    for key, value in health["delivery"].items():
        if key == "parked":
            put("corridor_delivery_parked", "gauge", value)
        else:
            put(f"corridor_delivery_{key}_total", "counter", value)
    for key, value in health["captures"].items():
        put(f"corridor_captures_{key}_total", "counter", value)
    for key in ("requests", "answers", *FAULTS, "noise_bytes", "fences", "dials"):
        for name, link in health["links"].items():
            put(f"corridor_link_{key}_total", "counter", link[key], f',link="{name}"')
    for name, link in health["links"].items():
        put("corridor_link_busy_seconds_total", "counter", link["busy_s"], f',link="{name}"')
        seen, under = 0, link["latency"]
        for bound, n in zip((*Latency.BOUNDS_S, "+Inf"), under["counts"], strict=True):
            seen += n
            put("corridor_link_answer_seconds", "histogram", seen, f',link="{name}",le="{bound}"', "_bucket")
        put("corridor_link_answer_seconds", "histogram", under["sum_s"], f',link="{name}"', "_sum")
        put("corridor_link_answer_seconds", "histogram", seen, f',link="{name}"', "_count")
    for key in ("requests", *FAULTS):
        for name, device in health["devices"].items():
            put(f"corridor_device_{key}_total", "counter", device.get(key, 0), f',device="{name}"')
    for name, device in health["devices"].items():
        for code, n in device.get("exceptions", {}).items():
            put("corridor_device_exceptions_total", "counter", n, f',device="{name}",code="{code}"')
    for name, link in health["links"].items():
        put("corridor_link_up", "gauge", int(link["state"] == "up"), f',link="{name}"')
        put("corridor_link_load", "gauge", link["load"], f',link="{name}"')
        for code, n in link["exceptions"].items():
            put("corridor_link_exceptions_total", "counter", n, f',link="{name}",code="{code}"')
    put("corridor_detectors_ready", "gauge", int(health["detectors"]["state"] == "ready"))
    put("corridor_clock_synced", "gauge", int(health["clock"]["state"] == "synced"))
    put("corridor_clock_offset_seconds", "gauge", health["clock"]["offset_s"])
    for key in ("memory_bytes", "descriptors", "tasks"):
        put(f"corridor_{key}", "gauge", health[key])
    return "\n".join(line for lines in metrics.values() for line in lines) + "\n"
