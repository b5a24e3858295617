"""How busy a link is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.link import LinkSpec
from gateway.acquire.device import DevicePlan, rates_of


@dataclass(frozen=True, slots=True)
class Load:
    """What a link has to do.

    requests, bus_s  of a cycle in which every scan is due
    share            of its time, exact for the reads that scans share whenever they meet; flat-out scans left out
    """

    requests: int
    bus_s: float
    share: float


def load_of(link: LinkSpec, plans: Sequence[DevicePlan]) -> Load:
    """Return the load of a link from the plans of the devices, of which it takes its own."""
    own = [one for one in plans if one.link.name == link.name]
    cycles = [one.due(one.all_scans) for one in own]
    return Load(sum(len(due.reads) for due in cycles), sum(due.bus_s for due in cycles), sum(map(share_of, own)))


def share_of(one: DevicePlan, periods_s: Sequence[float] | None = None) -> float:
    """Return the share of its link's time that a device takes, with its own periods or with others for its scans."""
    given = [scan.period_s for scan in one.scans] if periods_s is None else periods_s
    return sum(rate * one.due(mask).bus_s for mask, rate in rates_of(given).items())
