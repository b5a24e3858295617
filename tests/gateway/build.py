"""Small specifications for tests: a gateway of devices without a file."""

from dataclasses import replace

from drivers.blocks import MAX_BITS, MAX_REGISTERS
from drivers.link import LinkSpec
from drivers.points import Point
from gateway.acquire.cover import Rules, cover, merged
from gateway.acquire.space import limit_of, spot_of
from gateway.model.build import DEFAULT_DETECT
from gateway.model.corridor import Device, GatewaySpec, MqttSpec, Tag

NAN = float("nan")


def tag(point, *, period_s=1.0, **settings):
    """Return a tag with default settings."""
    plain = Tag(point, period_s, (NAN, NAN, NAN, NAN), 0.0, 0.0, 0.0, 3, DEFAULT_DETECT[point.kind])
    return replace(plain, **settings)


def registers(n, *, start=0, kind="uint16", step=1, **fields):
    """Return n points in a row."""
    return [Point(f"v{i}", "holding", start + i * step, kind, **fields) for i in range(n)]


def device(name, tags, *, link="bus0", unit=1, **fields):
    """Return a device of these tags."""
    tags = tuple(tags)
    base = Device(name, link, unit, "", "meter", "", "", None, tags, (), MAX_REGISTERS, MAX_BITS, 0, False)
    return replace(base, **{"points": tuple(t.point for t in tags), **fields})


def gateway(devices, *, links=None, **fields):
    """Return a specification of these devices; every link they name is a TCP link unless given."""
    from pathlib import Path

    names = dict.fromkeys(d.link for d in devices)
    made = links or [LinkSpec(name, "tcp", "127.0.0.1", 502 + i) for i, name in enumerate(names)]
    base = GatewaySpec(
        "gw1", "link43", "ps1", MqttSpec(("mqtt://127.0.0.1:1",), None, None), Path("spool"), 10_000_000, 1.0, 0.0,
        None, tuple(made), tuple(devices),
    )  # fmt: skip
    return replace(base, **fields)


def blocks(of, points, cost):
    """Return the cheapest reads of some points of a device, texts too."""
    out, spaces = [], {}
    for spot in sorted((spot_of(of, point) for point in points), key=lambda s: (s.space, s.start, s.end)):
        spaces.setdefault(spot.space, []).append(spot)
    for space, spots in spaces.items():
        spans = tuple((spot.start, spot.end) for spot in spots)
        rules = Rules(limit_of(space, of.max_registers, of.max_bits), of.max_gap, merged(spans))
        for i, j in cover(spans, space, rules, cost):
            out.append(spots[i].block(max(spot.end for spot in spots[i:j])))
    return out
