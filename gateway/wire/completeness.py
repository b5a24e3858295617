"""What a ledger says of a gateway, its boots together: up to when it is complete, what is late, what never comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Final

from gateway.model.ranges import RangeSet, to_text
from gateway.wire.ledger import GONE, GatewayReport, Ranges, count

LOST: Final = "lost"
SHOWN_HOLES: Final = 20  # of one gateway, of the newest boots: a list that is longer is read as JSON
SHOWN_RANGES: Final = 8  # of one hole
SHOWN_ABSENT: Final = 20  # devices and qualities of one gateway, those with the most samples


@dataclass(frozen=True, slots=True)
class Hole:
    """Frames of one boot that are not in the store: how many, and the first of them as text.

    why  lost (asked for again), or why they never come: dropped, damaged, uncommitted
    """

    why: str
    boot: int
    frames: int
    ranges: str


@dataclass(frozen=True, slots=True)
class Absence:
    """Samples of one device that never existed, and the name of the quality that says why."""

    device: str
    quality: str
    samples: int


@dataclass(frozen=True, slots=True)
class Completeness:
    """One gateway in one store. Up to `complete_ns` (Unix ns, None where no time is known) nothing is missing.

    waiting   frames on their way
    counts    frames by why they are not there, as in Hole
    holes, absent  the same in detail, as much of it as is shown; absent_samples is the number of all
    """

    gateway: str
    complete_ns: int | None = None
    waiting: int = 0
    parked: int = 0
    absent_samples: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    holes: list[Hole] = field(default_factory=list)
    absent: list[Absence] = field(default_factory=list)


def summarise(reports: Iterable[GatewayReport]) -> list[Completeness]:
    """Return what the reports of all boots say of each gateway, by name."""
    ordered = sorted(reports, key=lambda one: (one["gateway"], one["boot"]))
    return [_gateway(name, list(boots)) for name, boots in groupby(ordered, key=lambda one: one["gateway"])]


def _gateway(name: str, boots: list[GatewayReport]) -> Completeness:
    """Return one gateway; its boots are in order."""
    waiting, counts, holes = 0, Counter[str](), []
    absent = Counter[tuple[str, str]]()
    for one in boots:
        lost = _lost(one)
        waiting += count(one["missing"]) - count(lost)
        for why, ranges in ((LOST, lost), *one["why"].items()):
            if ranges:
                holes.append(Hole(why, one["boot"], count(ranges), _text(ranges)))
                counts[why] += holes[-1].frames
        for device, qualities in one["absent"].items():
            for quality, n in qualities.items():
                absent[device, quality] += n
    return Completeness(
        name,
        _complete_ns(boots),
        waiting,
        sum(count(one["parked"]) for one in boots),
        absent.total(),
        {why: counts[why] for why in (LOST, *GONE) if counts[why]},
        sorted(holes[-SHOWN_HOLES:], key=lambda hole: (hole.why != LOST, -hole.boot)),
        [Absence(device, quality, n) for (device, quality), n in absent.most_common(SHOWN_ABSENT) if n],
    )


def _complete_ns(boots: list[GatewayReport]) -> int | None:
    """Return the time up to which nothing is missing: that of the first boot with a gap, or of the last one."""
    complete_ns = None
    for one in boots:
        complete_ns = one["complete_time"] or complete_ns
        if one["missing"]:
            break
    return complete_ns


def _lost(report: GatewayReport) -> Ranges:
    """Return what the ingest asks for again; of one that does not say so, all that the broker has had."""
    if "lost" in report:
        return report["lost"]
    return list(RangeSet(report["waiting"]).missing_from(RangeSet(report["missing"])))


def _text(ranges: Ranges) -> str:
    shown = to_text(islice(ranges, SHOWN_RANGES)).replace(",", ", ")
    return f"{shown} …" if len(ranges) > SHOWN_RANGES else shown
