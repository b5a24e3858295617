"""The ledger in words: a line per gateway, from the meter to the database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from gateway.model.clock import NS
from gateway.wire.completeness import LOST, Absence, Completeness, Hole, summarise
from gateway.wire.ledger import Report

ABSENT: Final = {  # what a device did when a sample of it did not come to be
    "BadCommunicationError": "gave damaged answers",
    "BadTimeout": "timed out",
    "BadNoCommunication": "was not reachable",
    "BadWaitingForInitialData": "had not been read yet",
    "BadNotSupported": "does not support them",
    "BadConfigurationError": "refused what it was asked for",
    "BadDeviceFailure": "reported a failure",
    "BadSensorFailure": "had no valid sensor reading",
    "BadDataUnavailable": "showed values that could not be confirmed",
}
GONE: Final = {
    "dropped": "dropped",
    "damaged": "damaged on disk",
    "uncommitted": "not yet on disk when the gateway stopped",
}
SHOWN: Final = 5  # devices, and boots of one reason: the rest is told by its number


def tell(report: Report) -> list[str]:
    """Return the lines: one per gateway, and the sum where there are several."""
    gateways = summarise(report["gateways"])
    if not gateways:
        return ["no gateway has been heard yet"]
    width = max(len(one.gateway) for one in gateways)
    lines = [f"{one.gateway:<{width}}  {'; '.join(_parts(one))}" for one in gateways]
    if len(gateways) > 1:
        sums = [f"{report['missing']} missing", f"{report['waiting']} of them on their way", f"{report['gone']} gone"]
        lines.append(f"{len(gateways)} gateways: {', '.join(sums)}, {report['absent']} samples never existed")
    return lines


def _parts(one: Completeness) -> list[str]:
    parts = [_complete(one), *_missing(one)]
    if one.absent_samples:
        parts.append(_absent(one.absent, one.absent_samples))
    for why in (why for why in one.counts if why != LOST):
        n = one.counts[why]
        parts.append(f"{_n(n, 'frame')} {GONE.get(why, why)} ({_where(one.holes, why, n)})")
    if one.parked:
        parts.append(f"{_n(one.parked, 'frame')} parked as dead letters")
    return parts


def _complete(one: Completeness) -> str:
    if one.complete_ns is None:
        return "complete up to no known time"
    return f"complete up to {datetime.fromtimestamp(one.complete_ns // NS, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _missing(one: Completeness) -> list[str]:
    """Return how many are missing, those that are on their way apart from those that the broker has had."""
    lost = one.counts.get(LOST, 0)
    parts = [f"{lost + one.waiting} missing"]
    if one.waiting:
        parts.append(f"{one.waiting} on their way")
    if lost:
        where = _where(one.holes, LOST, lost)
        parts.append(f"{lost} reached the broker ({where}) and are asked for again if they do not come")
    return [f"{parts[0]}: {', '.join(parts[1:])}" if one.waiting or lost else parts[0]]


def _absent(absent: list[Absence], samples: int) -> str:
    told = _n(samples, "sample") + " never existed"
    if len(absent) == 1 and absent[0].samples == samples:
        return f"{told} because {absent[0].device} {_did(absent[0])}"
    some = [f"{each.samples} because {each.device} {_did(each)}" for each in absent[:SHOWN]]
    rest = samples - sum(each.samples for each in absent[:SHOWN])
    return f"{told}: {', '.join([*some, f'{rest} of other devices'] if rest else some)}"


def _did(one: Absence) -> str:
    return ABSENT.get(one.quality, f"was {one.quality}")


def _where(holes: Iterable[Hole], why: str, frames: int) -> str:
    mine = [hole for hole in holes if hole.why == why][:SHOWN]
    some = [f"boot {hole.boot}: {hole.ranges}" for hole in mine]
    rest = frames - sum(hole.frames for hole in mine)
    return ", ".join([*some, f"{rest} of older boots"] if rest else some)


def _n(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
