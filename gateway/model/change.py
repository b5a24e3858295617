"""Two configurations side by side: what a reload has to do, in words, and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Final, TypeVar

from drivers.link import LinkSpec
from gateway.model.corridor import Device, GatewaySpec, Tag

FIXED: Final = {  # field of GatewaySpec -> its place in gateway.toml; each is part of names that others know, or a lock
    "id": "gateway: id",
    "corridor": "gateway: corridor",
    "site": "gateway: site",
    "spool_path": "spool: path",
}
SETTINGS: Final = {
    "spool_max_bytes": "spool: max_bytes",
    "spool_commit_s": "spool: commit_s",
    "clock_hold_s": "clock: hold_s",
}
UNPOLLED: Final = ("asset", "line", "kp_m", "measurement", "tags")  # of a Device: no poll depends on them; tags partly
Named = TypeVar("Named", LinkSpec, Device)


def refusals(before: GatewaySpec, after: GatewaySpec) -> list[str]:
    """Return a line for each setting that differs and that no running gateway can change."""
    return [
        f"{place}: got '{new}', runs with '{old}': needs a restart"
        for name, place in FIXED.items()
        if (new := getattr(after, name)) != (old := getattr(before, name))
    ]


def changes(before: GatewaySpec, after: GatewaySpec) -> list[str]:
    """Return what differs, a line each; an empty list means that there is nothing to do."""
    lines = ["mqtt: connects anew"] if before.mqtt != after.mqtt else []
    for name, place in SETTINGS.items():
        if (new := getattr(after, name)) != (old := getattr(before, name)):
            lines.append(f"{place}: {old} -> {new}")
    if before.metrics_listen != after.metrics_listen:
        lines.append(f"metrics: listen: {_address(before.metrics_listen)} -> {_address(after.metrics_listen)}")
    links, devices = kept_links(before, after), kept_devices(before, after)
    lines += _named("link", before.links, after.links, _link_change)
    lines += _named("device", before.devices, after.devices, lambda old, new: _device_change(old, new, links, devices))
    return lines


def kept_links(before: GatewaySpec, after: GatewaySpec) -> frozenset[str]:
    """Return the names of the links whose connections stay open."""
    old = {link.name: link for link in before.links}
    return frozenset(link.name for link in after.links if old.get(link.name) == link)


def kept_devices(before: GatewaySpec, after: GatewaySpec) -> frozenset[str]:
    """Return the names of the devices that are polled as before: the same reads at the same times over the same link.

    Their limits, detectors and whereabouts may have changed.
    """
    links = kept_links(before, after)
    old = {device.name: device for device in before.devices}
    return frozenset(
        device.name
        for device in after.devices
        if device.link in links and device.name in old and not list(_poll_differences(old[device.name], device))
    )


def _poll_differences(old: Device, new: Device) -> Iterator[str]:
    """Yield the names of the fields that a poll depends on and that differ."""
    for field in fields(Device):
        if field.name not in UNPOLLED and getattr(old, field.name) != getattr(new, field.name):
            yield field.name
    if [_read_of(tag) for tag in old.tags] != [_read_of(tag) for tag in new.tags]:
        yield "tags"
    elif [tag.period_s for tag in old.tags] != [tag.period_s for tag in new.tags]:
        yield "period_s"


def _read_of(tag: Tag) -> str:
    """Return what of a tag's point a poll depends on: the unit of a value is only a word."""
    return repr({field.name: getattr(tag.point, field.name) for field in fields(tag.point) if field.name != "unit"})


def _settings_of(tag: Tag) -> str:
    """Return the rest of a tag, as text: a limit that is not set is NaN, which is not equal to itself."""
    return repr((tag.point.unit, *(getattr(tag, f.name) for f in fields(Tag) if f.name not in ("point", "period_s"))))


def _named(
    what: str, before: tuple[Named, ...], after: tuple[Named, ...], differs: Callable[[Named, Named], str]
) -> Iterator[str]:
    """Yield what became of named things: those that are there no more, then the others in their order."""
    old = {one.name: one for one in before}
    new = {one.name for one in after}
    yield from (f"{what} '{name}': removed" for name in old if name not in new)
    for one in after:
        if one.name not in old:
            yield f"{what} '{one.name}': added"
        elif words := differs(old[one.name], one):
            yield f"{what} '{one.name}': {words}"


def _link_change(old: LinkSpec, new: LinkSpec) -> str:
    names = [field.name for field in fields(LinkSpec) if getattr(old, field.name) != getattr(new, field.name)]
    return f"opened anew ({', '.join(names)})" if names else ""


def _device_change(old: Device, new: Device, links: frozenset[str], kept: frozenset[str]) -> str:
    if new.name not in kept:
        why = list(_poll_differences(old, new)) or (["its link"] if new.link not in links else [])
        return f"polled anew ({', '.join(why)})"
    names = [f.name for f in fields(Device) if f.name in UNPOLLED[:-1] and getattr(old, f.name) != getattr(new, f.name)]
    names += [a.name for a, b in zip(old.tags, new.tags, strict=True) if _settings_of(a) != _settings_of(b)]
    return f"settings ({', '.join(names)})" if names else ""


def _address(found: tuple[str, int] | None) -> str:
    return "off" if found is None else f"{found[0]}:{found[1]}"
