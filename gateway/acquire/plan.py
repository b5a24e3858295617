"""Which block, which link, which period, which rows: pure functions from specification to plan; nothing connects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from drivers.blocks import Block
from drivers.decode import Placed, build_table
from drivers.link import LinkSpec
from drivers.points import Point, decimals_of
from drivers.profile import ENRON_TYPES
from gateway.model.corridor import Device, GatewaySpec, Tag
from gateway.model.frame import DETECT_BITS, FLOAT32_TEXT, FLOAT64_TEXT, Scan, TagTable

RTU_REQUEST_CHARACTERS: Final = 8  # unit, function, address, quantity, CRC
RTU_ANSWER_CHARACTERS: Final = 5  # unit, function, byte count, CRC; plus two per register
RTU_SILENCE_CHARACTERS: Final = 7  # 3.5 before the request and 3.5 before the answer
TCP_BYTES_PER_S: Final = 1_000_000.0  # a thin uplink's worth; only breaks ties between equally many requests
BYTES_PER_VALUE: Final = 3.6  # kept by the spool at one frame per block (measured by `corridor bench spool`)
FRAME_BYTES: Final = 12.0  # sequence number, times and uncertainty of one frame in the spool
DAY_S: Final = 86_400


def request_s(link: LinkSpec, count: int, item_bytes: int) -> float:
    """Return the bus time of one read, seconds: characters and silences on a serial line, plus the turnaround."""
    n_bytes = (count + 7) // 8 if item_bytes == 0 else count * item_bytes
    if link.transport == "rtu":
        characters = RTU_REQUEST_CHARACTERS + RTU_ANSWER_CHARACTERS + n_bytes + RTU_SILENCE_CHARACTERS
        return characters * link.serial.bits_per_character / link.serial.baudrate + link.turnaround_s
    return link.turnaround_s + n_bytes / TCP_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class _Span:
    """One point on the address line: [start, end) in addresses."""

    start: int
    end: int
    point: Point


def _item_bytes(device: Device, point: Point) -> int:
    if point.is_bit:
        return 0
    return 4 if device.enron and point.type in ENRON_TYPES else 2


def blocks_of(device: Device, points: Iterable[Point], cost: Callable[[int, int], float]) -> list[Block]:
    """Return the cheapest legal reads that cover the points; cost(count, item_bytes) is that of one read.

    Optimal by dynamic programming over the points in address order: a block never exceeds the device's largest read
    (but for a point that alone does, which plan() refuses), and crosses at most max_gap undefined addresses in a row.
    A point stands whole in one block; points that overlap may stand in two.
    """
    spaces: dict[tuple[int, int], list[_Span]] = {}
    for point in points:
        item = _item_bytes(device, point)
        length = 1 if item != 2 else point.n_registers
        span = _Span(point.address, point.address + length, point)
        spaces.setdefault((point.read_code, item), []).append(span)
    out: list[Block] = []
    for (function, item), spans in sorted(spaces.items()):
        limit = device.max_bits if item == 0 else device.max_registers * 2 // item
        out += _cover(sorted(spans, key=lambda s: (s.start, s.end)), function, item, limit, device.max_gap, cost)
    return out


def _cover(
    spans: Sequence[_Span], function: int, item: int, limit: int, max_gap: int, cost: Callable[[int, int], float]
) -> list[Block]:
    """Return the cheapest partition of sorted spans into blocks of at most `limit` addresses."""
    n = len(spans)
    best = [0.0] + [math.inf] * n
    cut = [0] * (n + 1)
    for i in range(n):
        end = spans[i].start
        for j in range(i, n):
            if j > i and spans[j].start - end > max_gap:
                break
            end = max(end, spans[j].end)
            count = end - spans[i].start
            if count > limit and j > i:
                break
            total = best[i] + cost(count, item)
            if total < best[j + 1]:
                best[j + 1], cut[j + 1] = total, i
    blocks = []
    j = n
    while j:
        i = cut[j]
        end = max(span.end for span in spans[i:j])
        blocks.append(Block(function, spans[i].start, end - spans[i].start, item))
        j = i
    return blocks[::-1]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the gateway will do: the table, and for each link the scans it polls."""

    table: TagTable
    errors: tuple[str, ...]

    @property
    def spec(self) -> GatewaySpec:
        """The specification that was planned."""
        return self.table.spec

    def scans_of(self, link: str) -> list[Scan]:
        """Return the scans that a link polls."""
        return [scan for scan in self.table.scans if self.table.device(scan).link == link]


def plan(spec: GatewaySpec) -> Plan:
    """Return the plan of a specification; what cannot work is told in `errors`, not raised."""
    links = {link.name: link for link in spec.links}
    scans: list[Scan] = []
    rows: list[Placed] = []
    tags: list[Tag] = []
    image = n_blocks = 0
    for number, device in enumerate(spec.devices):
        link = links[device.link]

        def cost(count: int, item: int, link: LinkSpec = link) -> float:
            return request_s(link, count, item)

        for period_s in sorted({tag.period_s for tag in device.tags}):
            members = [tag for tag in device.tags if tag.period_s == period_s]
            blocks = blocks_of(device, (tag.point for tag in members), cost)
            at = [image + sum(block.n_bytes for block in blocks[:k]) for k in range(len(blocks))]
            placed = [_place(device, tag, blocks, at, n_blocks) for tag in members]
            order = sorted(range(len(members)), key=lambda i: (placed[i].block, placed[i].point.address))
            start = len(rows)
            rows += [placed[i] for i in order]
            tags += [members[i] for i in order]
            scans.append(Scan(len(scans), number, period_s, 0.0, start, len(rows), tuple(blocks), n_blocks, tuple(at)))
            n_blocks += len(blocks)
            image += sum(block.n_bytes for block in blocks)
    table = _table(spec, tuple(tags), tuple(_spread(scans)), rows, image, n_blocks)
    return Plan(table, (*(line for device in spec.devices for line in too_wide(device)), *overloads(table)))


def _place(device: Device, tag: Tag, blocks: Sequence[Block], at: Sequence[int], first: int) -> Placed:
    item = _item_bytes(device, tag.point)
    start = tag.point.address
    stop = start + (1 if item != 2 else tag.point.n_registers)
    for k, block in enumerate(blocks):
        same = block.function == tag.point.read_code and block.item_bytes == item
        if same and block.start <= start and stop <= block.start + block.count:
            return Placed(tag.point, first + k, at[k], block)
    raise AssertionError(f"{device.name}: {tag.name} is in no block")


def _spread(scans: list[Scan]) -> list[Scan]:
    """Return the scans with their phases: those of one period stand evenly over it, so that devices take turns."""
    out = []
    for scan in scans:
        peers = [other.number for other in scans if other.period_s == scan.period_s]
        phase_s = scan.period_s * peers.index(scan.number) / len(peers)
        out.append(replace(scan, phase_s=phase_s))
    return out


def _table(
    spec: GatewaySpec,
    tags: tuple[Tag, ...],
    scans: tuple[Scan, ...],
    rows: Sequence[Placed],
    image_bytes: int,
    n_blocks: int,
) -> TagTable:
    scan_of = np.zeros(len(tags), np.int32)
    for scan in scans:
        scan_of[scan.start : scan.stop] = scan.number
    device_of_scan = np.array([scan.device for scan in scans], np.int32)
    return TagTable(
        spec=spec,
        tags=tags,
        scans=scans,
        decode=build_table(rows),
        limit=np.array([tag.limits for tag in tags], np.float64).reshape(-1, 4),
        deadband=np.array([tag.deadband for tag in tags], np.float64),
        on_delay_ns=np.array([tag.on_delay_s * 1e9 for tag in tags], np.int64),
        off_delay_ns=np.array([tag.off_delay_s * 1e9 for tag in tags], np.int64),
        rate=np.array([tag.rate for tag in tags], np.float64),
        resolution=np.array([_resolution(tag.point) for tag in tags], np.float64),
        decimals=np.array([_decimals(tag.point) for tag in tags], np.int8),
        detect=np.array([sum(DETECT_BITS[name] for name in tag.detect) for tag in tags], np.uint8),
        scan_start=np.array([scan.start for scan in scans], np.int32),
        scan_stop=np.array([scan.stop for scan in scans], np.int32),
        scan_of=scan_of,
        device_of=device_of_scan[scan_of],
        image_bytes=image_bytes,
        n_blocks=n_blocks,
    )


def _resolution(point: Point) -> float:
    return 0.0 if point.type.startswith("float") else abs(point.scale)


def _decimals(point: Point) -> int:
    if point.type == "float32" and point.scale == 1.0 and point.offset == 0.0:
        return FLOAT32_TEXT
    power = decimals_of(point.scale)
    if point.type.startswith("float") or power is None or not float(point.offset).is_integer():
        return FLOAT64_TEXT
    return power


def load_of(table: TagTable, link: LinkSpec) -> tuple[int, float, float]:
    """Return requests per cycle, bus time of that cycle in seconds, and load (share of time) of a link."""
    requests, bus_s, load = 0, 0.0, 0.0
    for scan in table.scans:
        if table.device(scan).link != link.name:
            continue
        scan_s = sum(request_s(link, block.count, block.item_bytes) for block in scan.blocks)
        requests += len(scan.blocks)
        bus_s += scan_s
        load += scan_s / scan.period_s if scan.period_s else 0.0
    return requests, bus_s, load


def too_wide(device: Device) -> list[str]:
    """Return one line per point that the device's largest read does not hold."""
    return [
        f"device '{device.name}': point '{point.name}' takes {point.n_registers} registers, "
        f"wanted at most max_registers = {device.max_registers}"
        for point in (tag.point for tag in device.tags)
        if not point.is_bit and point.n_registers > device.max_registers
    ]


def text_blocks(point: Point, max_registers: int) -> tuple[Block, ...]:
    """Return the reads that fetch a string: as many as it takes, for it is no number that two reads could tear."""
    return tuple(
        Block(point.read_code, point.address + at, min(max_registers, point.n_registers - at))
        for at in range(0, point.n_registers, max_registers)
    )


def overloads(table: TagTable) -> list[str]:
    """Return one line per link that cannot keep its periods, with the device whose slowing mends it most cheaply."""
    out = []
    for link in table.spec.links:
        _, _, load = load_of(table, link)
        if load <= 1.0:
            continue
        scans = [scan for scan in table.scans if table.device(scan).link == link.name and scan.period_s]
        costs = {
            scan.number: sum(request_s(link, b.count, b.item_bytes) for b in scan.blocks) / scan.period_s
            for scan in scans
        }
        worst = max(scans, key=lambda scan: costs[scan.number])
        room = costs[worst.number] - (load - 1.0)
        repair = (
            f"slow '{table.device(worst).name}' from {worst.period_s:g} s to "
            f"{math.ceil(10 * worst.period_s * costs[worst.number] / room) / 10:g} s"
            if room > 0
            else f"slow every device on it by {load:.1f} times"
        )
        out.append(
            f"link '{link.name}': needs {math.ceil(100 * load) / 100:g} s of every 1 s, wanted at most 1; "
            f"{repair}, or split the link"
        )
    return out


def commit_phase_s(table: TagTable, commit_s: float) -> float:
    """Return where in the commit period the plan's largest gap begins: a commit hurts the poll that it meets."""
    due = sorted({scan.phase_s % commit_s for scan in table.scans if scan.period_s}) or [0.0]
    gaps = [(after - before, before) for before, after in zip(due, [*due[1:], due[0] + commit_s], strict=True)]
    width, before = max(gaps)
    return (before + width / 2) % commit_s


def report(found: Plan) -> dict[str, Any]:
    """Return what `corridor plan --json` prints: links, requests, bytes per day, days of spool, errors."""
    table = found.table
    links = []
    for link in found.spec.links:
        requests, bus_s, load = load_of(table, link)
        entry = {"name": link.name, "requests_per_cycle": requests, "bus_time_s": round(bus_s, 6)}
        links.append({**entry, "load": round(load, 6)})
    requests_out = [
        {
            "link": table.device(scan).link,
            "device": table.device(scan).name,
            "unit": table.device(scan).unit,
            "function": block.function,
            "start": block.start,
            "count": block.count,
            "period_s": scan.period_s,
            "serves": [scan.period_s],
        }
        for scan in table.scans
        for block in scan.blocks
    ]
    per_day = sum(
        DAY_S / scan.period_s * (FRAME_BYTES + BYTES_PER_VALUE * (scan.stop - scan.start))
        for scan in table.scans
        if scan.period_s
    )
    return {
        "gateway": found.spec.id,
        "devices": len(found.spec.devices),
        "tags": table.n,
        "links": links,
        "requests": requests_out,
        "bytes_per_day": round(per_day),
        "spool_days": round(found.spec.spool_max_bytes / per_day, 2) if per_day else None,
        "errors": list(found.errors),
    }
