"""How busy a link is, and what to slow where it cannot keep its periods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from drivers.link import LinkSpec
from gateway.acquire.device import DevicePlan


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


def share_of(one: DevicePlan) -> float:
    """Return the share of its link's time that a device takes."""
    return sum(rate * one.due(mask).bus_s for mask, rate in one.rates().items())


def overloads(link: LinkSpec, plans: Sequence[DevicePlan]) -> list[str]:
    """Return a line when a link cannot keep its periods, with the device whose slowing mends it most cheaply."""
    load = load_of(link, plans).share
    if load <= 1.0:
        return []
    shares = {one.number: share_of(one) for one in plans if one.link.name == link.name}
    worst = max((one for one in plans if one.number in shares), key=lambda one: shares[one.number])
    room = shares[worst.number] - (load - 1.0)
    period_s = min(scan.period_s for scan in worst.scans if scan.period_s)
    repair = (
        f"slow '{worst.device.name}' from {period_s:g} s to "
        f"{math.ceil(10 * period_s * shares[worst.number] / room) / 10:g} s"
        if room > 0
        else f"slow every device on it by {load:.1f} times"
    )
    return [
        f"link '{link.name}': needs {math.ceil(100 * load) / 100:g} s of every 1 s, wanted at most 1; "
        f"{repair}, or split the link"
    ]
