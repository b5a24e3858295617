"""The plan of a changed specification, in which everything that is polled as before keeps its numbers and its grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.acquire.device import DevicePlan
from gateway.acquire.memory import Memory
from gateway.acquire.plan import Layout, Plan
from gateway.model.change import kept_devices
from gateway.model.clock import NS
from gateway.model.corridor import Device, GatewaySpec
from gateway.model.frame import Scan


def replan(before: Plan, spec: GatewaySpec, memory: Memory) -> Plan:
    """Return the plan that a running gateway changes over to; `before` and what it plans go on unchanged.

    Devices that are polled as before keep their DevicePlan, number, scans, rows and image, with the settings of now;
    all others are appended, and what is gone leaves its numbers unused. `errors` is empty: ask plan() for them.
    memory  for the devices that are new; see Memory.preview
    """
    kept = kept_devices(before.spec, spec)
    links = {link.name: link for link in spec.links}
    plans = {one.device.name: one for one in before.devices if one.device.name in kept}
    layout = _as_it_is(before, {plans[d.name].number: d for d in spec.devices if d.name in kept})
    grid = [(scan, one.link.name) for one in plans.values() for scan in one.scans]
    devices: list[DevicePlan] = []
    for device in spec.devices:
        one = plans.get(device.name)
        if one is None:
            phases = _phases_beside(device, len(layout.devices), grid)
            one = layout.add(device, links[device.link], phases, memory)
            grid += [(scan, device.link) for scan in one.scans]
        devices.append(one)
    gone = frozenset(range(len(layout.devices))) - {one.number for one in devices}
    return Plan(layout.table(spec, gone), tuple(devices), before.memory, (), layout)


def _as_it_is(before: Plan, now: Mapping[int, Device]) -> Layout:
    """Return the layout of a plan, with the settings that devices have now, by number."""
    old = before.layout
    tags = list(old.tags)
    for scan in old.scans:
        if device := now.get(scan.device):
            settings = {tag.name: tag for tag in device.tags}
            tags[scan.start : scan.stop] = [settings[tag.name] for tag in tags[scan.start : scan.stop]]
    devices = [now.get(i, device) for i, device in enumerate(old.devices)]
    return Layout(devices, list(old.scans), list(old.rows), tags, old.image)


def _phases_beside(device: Device, number: int, grid: Iterable[tuple[Scan, str]]) -> dict[float, float]:
    """Return the periods of a new device, ascending, with phases that find it the largest gap between its neighbours.

    grid  (scan, name of its link) of what is polled already. Those of its own link count, else those of all; as in
    phases_of, all scans meet at one moment, which lies a whole number of fast periods later from device to device.
    """
    periods = sorted({tag.period_s for tag in device.tags})
    fastest = next((period_s for period_s in periods if period_s), 0.0)
    taken = [(scan.phase_s % fastest, link) for scan, link in grid if fastest and scan.period_s == fastest]
    own = [phase_s for phase_s, link in taken if link == device.link] or [phase_s for phase_s, _ in taken]
    meeting_ns = round(_in_largest_gap(sorted(own), fastest) * NS) + number * round(fastest * NS)
    return {each: meeting_ns % round(each * NS) / NS if each else 0.0 for each in periods}


def _in_largest_gap(taken: list[float], period_s: float) -> float:
    if not taken:
        return 0.0
    width, begin = max((b - a, a) for a, b in zip(taken, [*taken[1:], taken[0] + period_s], strict=True))
    return (begin + width / 2) % period_s
