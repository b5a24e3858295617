"""What to slow on a link that cannot keep its periods: the cheapest change that is proved to fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from drivers.link import LinkSpec
from drivers.profile import MAX_PERIOD_S
from gateway.acquire.device import DevicePlan
from gateway.acquire.load import share_of

# by how much a period is slowed, in tenths; finer steps read like 1.37 s, larger ones are no repair but another use
TENTHS: Final = (*range(11, 31), *range(35, 101, 5), *range(120, 301, 20), 400, 500, 600)
Periods = list[float]  # of the scans of one device


@dataclass(frozen=True, slots=True)
class _Change:
    """Scans to slow together: device number -> indices of its scans; `words` say it, {0} being the new periods."""

    scans: Mapping[int, Sequence[int]]
    words: str


def overloads(link: LinkSpec, plans: Sequence[DevicePlan]) -> list[str]:
    """Return a line when a link cannot keep its periods, with the repair that costs the fewest samples per second."""
    own = {one.number: one for one in plans if one.link.name == link.name}
    load = sum(map(share_of, own.values()))
    if load <= 1.0:
        return []
    needs = f"link '{link.name}': needs {math.ceil(100 * load) / 100:g} s of every 1 s, wanted at most 1"
    repairs = [found for change in _changes(own) if (found := _repair(own, load, change))]
    words = min(repairs)[1] if repairs else f"slow every device on it by {_factor(own):.1f} times"
    return [f"{needs}; {words}, or split the link"]


def _changes(own: Mapping[int, DevicePlan]) -> Iterator[_Change]:
    """Yield what could be slowed: a device, its tags of one period, all tags of one period on the link.

    Of devices that are alike the first stands for all.
    """
    seen = set()
    classes: dict[float, dict[int, list[int]]] = {}
    for number, one in own.items():
        timed = [i for i, scan in enumerate(one.scans) if scan.period_s]
        for i in timed:
            classes.setdefault(one.scans[i].period_s, {}).setdefault(number, []).append(i)
        kind = tuple((tag.point, tag.period_s) for tag in one.device.tags)
        if kind in seen or not timed:
            continue
        seen.add(kind)
        name, periods = one.device.name, [one.scans[i].period_s for i in timed]
        yield _Change({number: timed}, f"slow '{name}' from {_seconds(periods)} to {{0}}")
        if len(timed) > 1:
            for i in timed:
                yield _Change({number: [i]}, f"slow the {one.scans[i].period_s:g} s tags of '{name}' to {{0}}")
    for period_s, scans in classes.items():
        if len(scans) > 1:
            yield _Change(scans, f"slow all {period_s:g} s tags on it to {{0}}")


def _repair(own: Mapping[int, DevicePlan], load: float, change: _Change) -> tuple[float, str] | None:
    """Return what the smallest change of this kind that fits costs, samples per second, and how to say it."""
    others = load - sum(share_of(own[number]) for number in change.scans)

    def slowed(tenths: int) -> dict[int, Periods]:
        return {number: _slowed(own[number], scans, tenths) for number, scans in change.scans.items()}

    def fits(of: Mapping[int, Periods]) -> bool:
        return others + sum(share_of(own[number], periods_s) for number, periods_s in of.items()) <= 1.0

    if not fits(slowed(TENTHS[-1])):
        return None  # not even the slowest would do
    found = next((of for of in map(slowed, TENTHS) if fits(of)), {})
    if not found or max(map(max, found.values())) > MAX_PERIOD_S:
        return None
    number, scans = next(iter(change.scans.items()))
    lost = sum(_samples_lost(own[n], periods_s) for n, periods_s in found.items())
    return lost, change.words.format(_seconds([found[number][i] for i in scans]))


def _slowed(one: DevicePlan, scans: Sequence[int], tenths: int) -> Periods:
    """Return the periods of a device's scans when some are slowed; a millisecond is as fine as they get."""
    return [
        math.ceil(scan.period_s * tenths * 100 - 1e-6) / 1000 if i in scans else scan.period_s
        for i, scan in enumerate(one.scans)
    ]


def _samples_lost(one: DevicePlan, periods_s: Periods) -> float:
    return sum(
        (scan.stop - scan.start) * (1 / scan.period_s - 1 / period_s)
        for scan, period_s in zip(one.scans, periods_s, strict=True)
        if scan.period_s
    )


def _factor(own: Mapping[int, DevicePlan]) -> float:
    """Return by how much every device has to be slowed, in tenths, so that the link keeps all periods."""
    tenths = 11
    while sum(share_of(one, _slowed(one, range(len(one.scans)), tenths)) for one in own.values()) > 1.0:
        tenths += 1
    return tenths / 10


def _seconds(periods_s: Sequence[float]) -> str:
    return ", ".join(f"{period_s:g} s" for period_s in periods_s)
