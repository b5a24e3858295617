"""Reads are planned by cost, within what a device can answer."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import profile
from drivers.link import LinkSpec, SerialLine
from drivers.points import Point
from gateway.acquire.cost import cost_of
from gateway.acquire.cover import Rules, cover, merged
from gateway.acquire.device import rates_of
from gateway.acquire.load import load_of
from gateway.acquire.plan import commit_phase_s, plan, text_blocks
from gateway.acquire.report import report
from tests.gateway import build
from tests.gateway.acquire import peers

RTU = LinkSpec("bus0", "rtu", path="/dev/ttyUSB0", serial=SerialLine(9600, 8, "E", 1), turnaround_s=0.02)
VECTORS = Path(__file__).parents[4] / "shared" / "vectors"
COST = cost_of(RTU)


def whole(made, number=0):
    """Return the reads of a device for the cycle in which all its scans are due."""
    one = made.devices[number]
    return one.due(one.all_scans).reads


def test_rtu_time_of_a_read_counts_characters_silences_and_turnaround():
    assert COST.of(40, 2) == pytest.approx((8 + 5 + 80 + 7) * 11 / 9600 + 0.02)


def test_neighbours_share_a_read_and_undefined_registers_part_it():
    points = [*build.registers(3), *build.registers(2, start=10)]
    found = build.blocks(build.device("d", []), points, COST)
    assert [(b.function, b.start, b.count) for b in found] == [(3, 0, 3), (3, 10, 2)]


def test_a_hole_is_crossed_where_the_profile_allows_it_and_it_pays():
    points = [*build.registers(3), *build.registers(2, start=10)]
    found = build.blocks(build.device("d", [], max_gap=16), points, COST)
    assert [(b.start, b.count) for b in found] == [(0, 12)]
    far = [*build.registers(1), *build.registers(1, start=100)]
    assert len(build.blocks(build.device("d", [], max_gap=125), far, COST)) == 2


def test_a_read_never_exceeds_the_device_and_never_tears_a_value():
    points = build.registers(30, kind="float32", step=2)
    found = build.blocks(build.device("d", [], max_registers=25), points, COST)
    assert all(b.count <= 25 for b in found)
    assert all(any(b.start <= p.address and p.address + 2 <= b.start + b.count for b in found) for p in points)


def test_points_that_overlap_in_a_chain_are_each_whole_in_a_legal_read():
    points = [Point(f"p{i}", "holding", i, "float32") for i in range(200)]
    device = build.device("d", [build.tag(p) for p in points])
    made = plan(build.gateway([device]))
    assert not made.errors
    blocks = [read.block for read in whole(made)]
    assert max(b.count for b in blocks) <= 125
    assert all(any(b.start <= p.address and p.address + 2 <= b.start + b.count for b in blocks) for p in points)


def test_a_point_wider_than_the_largest_read_is_an_error():
    points = [Point("total", "holding", 0, "float64"), *build.registers(2, start=10)]
    device = build.device("d1", [build.tag(p) for p in points], max_registers=2)
    assert plan(build.gateway([device])).errors == (
        "device 'd1': point 'total' takes 4 registers, wanted at most max_registers = 2",
    )


def test_a_string_longer_than_the_largest_read_is_fetched_in_parts():
    serial = Point("serial", "holding", 40, "string18")
    assert [(b.function, b.start, b.count) for b in text_blocks(serial, 4)] == [(3, 40, 4), (3, 44, 4), (3, 48, 1)]
    assert [(b.start, b.count) for b in text_blocks(serial, 125)] == [(40, 9)]


@st.composite
def layouts(draw):
    address, spans = 3, set()
    for _ in range(draw(st.integers(1, 7))):
        address = max(0, address + draw(st.integers(-3, 12)))
        n = draw(st.sampled_from([1, 2, 4]))
        spans.add((address, address + n))
        address += n
    some = st.lists(st.tuples(st.integers(0, address), st.integers(1, 3)), max_size=3)
    closed, refused = ([(a, a + n) for a, n in draw(some)] for _ in range(2))
    rules = Rules(
        draw(st.integers(4, 30)), draw(st.integers(0, 12)), merged(spans), merged(closed), tuple(sorted(refused))
    )
    return tuple(sorted(span for span in spans if rules.may_read(*span))), rules


def is_legal(start, end, rules):
    """Say it again, address by address."""
    defined, closed = ({a for s, e in spans for a in range(s, e)} for spans in (rules.defined, rules.closed))
    asked = set(range(start, end))
    holes = "".join(" " if a in defined else "x" for a in sorted(asked)).split()
    return (
        len(asked) <= rules.limit
        and all(len(hole) <= rules.max_gap for hole in holes)
        and not asked & closed
        and not any(set(range(*span)) <= asked for span in rules.refused)
    )


@settings(deadline=None)
@given(layouts())
def test_no_cover_of_all_that_are_legal_is_cheaper(layout):
    spans, rules = layout
    if not spans:
        return
    found = cover(spans, (3, 2), rules, COST)
    assert [k for i, j in found for k in range(i, j)] == list(range(len(spans)))
    ours = [(spans[i][0], max(end for _, end in spans[i:j])) for i, j in found]
    assert all(is_legal(start, end, rules) for start, end in ours)
    reads = [(s, e) for s, _ in spans for _, e in spans if s < e and is_legal(s, e, rules)]
    brings = [sum(1 << k for k, (a, b) in enumerate(spans) if s <= a and b <= e) for s, e in reads]
    best = {0: 0.0}
    for got in range(1 << len(spans)):  # a set is only made of smaller numbers
        for (s, e), more in zip(reads, brings, strict=True):
            if got in best and got | more != got:
                cost = best[got] + COST.of(e - s, 2)
                best[got | more] = min(cost, best.get(got | more, math.inf))
    assert sum(COST.of(end - start, 2) for start, end in ours) == pytest.approx(best[(1 << len(spans)) - 1])


def test_enron_items_and_registers_never_share_a_read():
    found = profile.find("sick_flowsic600")
    blocks = build.blocks(build.device("d", [], enron=True, max_registers=125), found.points, COST)
    assert {(b.start // 1000, b.item_bytes) for b in blocks} == {(3, 2), (5, 4), (7, 4)}
    assert max(b.n_bytes for b in blocks) <= 250


@pytest.mark.parametrize("name", profile.names())
def test_every_shipped_map_is_planned_whole(name):
    found = profile.find(name)
    tags = [build.tag(point) for point in found.points if not point.is_text]
    made = plan(build.gateway([build.device("d", tags, enron=found.enron, max_registers=found.max_registers)]))
    assert made.table.n == len(tags)
    assert made.errors == ()


def test_rows_of_a_scan_are_one_slice_and_every_row_lies_in_its_read():
    points = [*build.registers(5), *build.registers(5, start=50, kind="float32", step=2)]
    tags = [build.tag(p, period_s=1.0 if i % 2 else 5.0) for i, p in enumerate(points)]
    made = plan(build.gateway([build.device("a", tags), build.device("b", tags, unit=2)]))
    table = made.table
    assert [scan.period_s for scan in table.scans] == [1.0, 5.0, 1.0, 5.0]
    assert [scan.start for scan in table.scans[1:]] == [scan.stop for scan in table.scans[:-1]]
    for one in made.devices:
        for mask in range(1, one.all_scans + 1):
            due = one.due(mask)
            rows = [row for read in due.reads for row in read.rows]
            assert sorted(rows) == [row for scan in due.scans for row in range(scan.start, scan.stop)]
            for read in due.reads:
                assert read.end - read.at == read.block.n_bytes
                for row in read.rows:
                    point = table.tags[row].point
                    assert table.decode.at[row] == read.at + 2 * (point.address - read.block.start)
                    assert table.decode.at[row] + table.decode.size[row] <= read.end


def test_the_image_has_an_island_where_no_read_can_reach_and_stays_small():
    far = [*build.registers(3), *build.registers(2, start=60_000)]
    tags = [build.tag(p) for p in far]
    assert plan(build.gateway([build.device("d", tags)])).table.image_bytes == 10
    near = [build.tag(p) for p in (*build.registers(1), *build.registers(1, start=30))]
    assert plan(build.gateway([build.device("d", near, max_gap=28)])).table.image_bytes == 4
    assert plan(build.gateway([build.device("d", near, max_gap=29)])).table.image_bytes == 62
    assert plan(build.gateway([build.device("d", near, max_gap=29, max_registers=30)])).table.image_bytes == 4
    bits = [build.tag(Point(f"b{i}", "coil", 5 + i, "bool")) for i in range(11)]
    assert plan(build.gateway([build.device("d", bits)])).table.image_bytes == 11


def test_devices_of_one_period_take_turns_and_the_commit_stands_in_the_largest_gap():
    tags = [build.tag(p) for p in build.registers(2)]
    made = plan(build.gateway([build.device(f"d{i}", tags, link=f"l{i}") for i in range(4)]))
    assert [scan.phase_s for scan in made.table.scans] == [0.0, 0.25, 0.5, 0.75]
    assert commit_phase_s(made.table, 1.0) in (0.125, 0.375, 0.625, 0.875)
    bus = plan(build.gateway([build.device(f"d{i}", tags, link=f"l{i % 2}", unit=i) for i in range(4)]))
    assert [scan.phase_s for scan in bus.table.scans] == [0.0, 0.25, 0.5, 0.75]  # those of one link half a period apart


def test_the_commit_stands_in_a_gap_between_fast_polls():
    tags = [build.tag(p, period_s=0.25) for p in build.registers(2)]
    made = plan(build.gateway([build.device("d", tags)]))
    assert commit_phase_s(made.table, 1.0) % 0.25 == 0.125


def mixed(n_devices=1, periods=(1.0, 5.0, 60.0), n=12, **fields):
    tags = [build.tag(p, period_s=periods[i % len(periods)]) for i, p in enumerate(build.registers(n))]
    return [build.device(f"d{i}", tags, unit=i + 1, **fields) for i in range(n_devices)]


def test_slow_scans_fall_on_fast_ones_of_their_device_and_not_into_the_same_second():
    made = plan(build.gateway(mixed(10)))
    for device in range(10):
        fast, *slow = [scan for scan in made.table.scans if scan.device == device]
        assert fast.phase_s == pytest.approx(device / 10)
        for scan in slow:
            assert (scan.phase_s - fast.phase_s) % 1.0 == pytest.approx(0.0, abs=1e-9)
    for period_s, most in ((5.0, 2), (60.0, 1)):
        seconds = [int(scan.phase_s) for scan in made.table.scans if scan.period_s == period_s]
        assert max(seconds.count(second) for second in seconds) == most


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True), st.integers(0, 5))
def test_all_scans_of_a_device_meet_and_each_due_set_happens_as_often_as_counted(periods, number):
    made = plan(build.gateway(mixed(6, [float(p) for p in periods])))
    scans = [scan for scan in made.table.scans if scan.device == number]
    cycle = math.lcm(*periods)
    seen = Counter()
    ticks = {}
    for i, scan in enumerate(scans):
        for k in range(round(cycle / scan.period_s)):
            at = round((scan.phase_s + k * scan.period_s) % cycle, 6)
            ticks[at] = ticks.get(at, 0) | 1 << i
    seen.update(ticks.values())
    assert made.devices[number].all_scans in seen
    assert rates_of([scan.period_s for scan in scans]) == {mask: pytest.approx(n / cycle) for mask, n in seen.items()}


def test_scans_that_fall_due_together_are_one_optimal_plan_and_the_load_counts_it():
    (device,) = mixed(periods=(1.0, 5.0))
    made = plan(build.gateway([device], links=[RTU]))
    (one,) = made.devices
    assert [(r.block.start, r.block.count) for r in one.due(0b01).reads] == [(0, 11)]  # slow tags are no gap
    assert [(r.block.start, r.block.count) for r in one.due(0b11).reads] == [(0, 12)]
    assert one.due(0b11) is one.due(0b11)
    load = load_of(RTU, made.devices)
    assert (load.requests, load.bus_s) == (1, pytest.approx(COST.of(12, 2)))
    assert load.share == pytest.approx(0.8 * COST.of(11, 2) + 0.2 * COST.of(12, 2))


def test_more_periods_than_anybody_has_are_planned_all_the_same():
    periods = [float(p) for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)]
    made = plan(build.gateway(mixed(periods=periods, n=24), links=[RTU]))
    assert 0 < load_of(RTU, made.devices).share < 1


def test_undefined_registers_between_tags_of_another_period_are_still_a_gap():
    tags = [build.tag(p, period_s=1.0) for p in (*build.registers(1), *build.registers(1, start=10))]
    tags.append(build.tag(Point("slow", "holding", 5, "uint16"), period_s=5.0))
    for max_gap, n in ((3, 2), (4, 1)):
        (one,) = plan(build.gateway([build.device("d", tags, max_gap=max_gap)])).devices
        assert len(one.due(0b01).reads) == n


def test_report_says_what_the_contract_names():
    made = plan(build.gateway([build.device("d", [build.tag(p) for p in build.registers(10)])]))
    found = json.loads(json.dumps(report(made)))
    assert found["links"] == [{"name": "bus0", "requests_per_cycle": 1, "bus_time_s": 0.02002, "load": 0.02002}]
    assert made.errors == ()
    wanted = {"link", "device", "unit", "function", "start", "count", "period_s", "serves", "load"}
    assert set(found["requests"][0]) == wanted


def test_a_request_is_listed_once_with_what_makes_it_necessary_and_whom_it_serves():
    points = [*build.registers(4), *[Point(f"w{i}", "input", 100 + i, "uint16") for i in range(2)]]
    tags = [build.tag(p, period_s=5.0 if p.name in ("v3", "w0", "w1") else 1.0) for p in points]
    made = plan(build.gateway([build.device("d", tags)]))
    found = {(r["function"], r["start"], r["count"]): (r["period_s"], r["serves"]) for r in report(made)["requests"]}
    assert found == {(3, 0, 3): (1.0, [1.0]), (3, 0, 4): (5.0, [1.0, 5.0]), (4, 100, 2): (5.0, [5.0])}
    assert len(report(made)["requests"]) == 3


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, 10.0, 60.0]), min_size=1, max_size=12), st.integers(0, 9))
def test_the_loads_of_the_requests_add_up_to_the_loads_of_the_links(periods, max_gap):
    tags = [build.tag(Point(f"v{i}", "holding", 3 * i, "uint16"), period_s=p) for i, p in enumerate(periods)]
    found = report(plan(build.gateway([build.device("d", tags, max_gap=max_gap)])))
    assert sum(r["load"] for r in found["requests"]) == pytest.approx(found["links"][0]["load"], abs=1e-5)


def test_a_flat_out_scan_is_listed_and_has_no_load():
    made = plan(build.gateway([build.device("d", [build.tag(p, period_s=0.0) for p in build.registers(3)])]))
    found = report(made)
    assert [(r["count"], r["period_s"], r["serves"]) for r in found["requests"]] == [(3, 0.0, [0.0])]
    assert found["links"][0]["load"] == 0.0
    assert found["spool_days"] is None


ONCE = Point("average", "input", 2, "int16")


def once(period_s=1.0, extra=(), side_effects=(ONCE,)):
    points = [Point(f"p{i}", "input", i, "int16") for i in (0, 1, 3, 4)]
    tags = [*(build.tag(p) for p in points), *(build.tag(p, period_s=period_s) for p in (*side_effects, *extra))]
    return build.device("d", tags, max_gap=125, side_effects=tuple(side_effects))


def test_a_point_with_side_effects_is_read_by_itself_last_and_never_crossed():
    made = plan(build.gateway([once()]))
    reads = whole(made)
    assert made.devices[0].due(1).refused == ()
    assert [(r.block.start, r.block.count, r.is_once) for r in reads] == [(0, 2, False), (3, 2, False), (2, 1, True)]


def test_a_point_with_side_effects_is_not_crossed_even_where_it_is_no_tag():
    device = once()
    tags = tuple(tag for tag in device.tags if tag.name != "average")
    reads = whole(plan(build.gateway([replace(device, tags=tags)])))
    assert [(r.block.start, r.block.count) for r in reads] == [(0, 2), (3, 2)]


def test_a_point_with_side_effects_is_asked_only_when_its_own_scan_is_due():
    (one,) = plan(build.gateway([once(period_s=5.0)])).devices
    assert [r.is_once for r in one.due(0b01).reads] == [False, False]
    assert [r.is_once for r in one.due(0b10).reads] == [True]


def test_bits_of_a_register_with_side_effects_are_one_read():
    bits = tuple(Point(f"b{i}", "input", 2, "bool", bit=i) for i in range(3))
    made = plan(build.gateway([once(side_effects=bits)]))
    assert made.errors == ()
    assert [len(r.rows) for r in whole(made) if r.is_once] == [3]


def test_what_keeps_a_point_from_being_read_once_an_interval_is_an_error():
    assert plan(build.gateway([once(period_s=0.0)])).errors == (
        "device 'd': point 'average' changes the device when it is read, wanted period_s above 0, got 0",
    )
    (line,) = plan(build.gateway([once(extra=[Point("both", "input", 2, "uint32")])])).errors[:1]
    assert line.startswith("device 'd': points 'average' and 'both' share registers that change when they are read")


def test_a_text_on_registers_with_side_effects_is_an_error():
    text = Point("serial", "input", 1, "string4")
    device = replace(once(), strings=(text,))
    assert plan(build.gateway([device])).errors == (
        "device 'd': text 'serial' stands on registers of 'average', which change when they are read; "
        "wanted only one of them",
    )
    assert plan(build.gateway([replace(device, strings=(replace(text, address=3),))])).errors == ()


def published():
    path = VECTORS / "register_maps_dev.json"
    if not path.exists():
        pytest.skip("needs ../shared/vectors")
    widths = {1: "uint16", 2: "uint32", 4: "uint64"}
    for name, rows in json.loads(path.read_text())["maps"].items():
        points = [Point(f"p{i}", row["space"], row["address"], widths[row["registers"]]) for i, row in enumerate(rows)]
        yield name, points, build.device("d", [], max_gap=125)  # theirs: undefined registers may be read


def shipped():
    for name in profile.names():
        found = profile.find(name)
        points = [point for point in found.points if not point.is_text and point.name not in found.side_effects]
        fields = {"max_registers": found.max_registers, "max_bits": found.max_bits, "enron": found.enron}
        yield name, points, build.device("d", [], **fields)
        yield f"{name}, crossing", points, build.device("d", [], max_gap=125, **fields)


@pytest.mark.parametrize("maps", [published, shipped])
def test_no_peer_reads_any_map_in_less_bus_time(maps):
    spent = Counter()
    for name, points, device in maps():
        ours = sum(map(COST.read_s, build.blocks(device, points, COST)))
        spent["ours"] += ours
        for peer, strategy in peers.STRATEGIES.items():
            theirs = strategy(device, points)
            assert ours <= sum(map(COST.read_s, theirs)) + 1e-9, (name, peer)
            spent[peer] += sum(map(COST.read_s, theirs))
    assert spent["ours"] == min(spent.values()) < spent["contiguous"]
