"""Reads are planned by cost, within what a device can answer."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import profile
from drivers.link import LinkSpec, SerialLine
from drivers.points import Point
from gateway.acquire.plan import blocks_of, commit_phase_s, plan, report, request_s, text_blocks
from tests.gateway import build

RTU = LinkSpec("bus0", "rtu", path="/dev/ttyUSB0", serial=SerialLine(9600, 8, "E", 1), turnaround_s=0.02)
VECTORS = Path(__file__).parents[4] / "shared" / "vectors"


def cost(count, item_bytes):
    return request_s(RTU, count, item_bytes)


def test_rtu_time_of_a_read_counts_characters_silences_and_turnaround():
    assert request_s(RTU, 40, 2) == pytest.approx((8 + 5 + 80 + 7) * 11 / 9600 + 0.02)


def test_neighbours_share_a_read_and_undefined_registers_part_it():
    points = [*build.registers(3), *build.registers(2, start=10)]
    found = blocks_of(build.device("d", []), points, cost)
    assert [(b.function, b.start, b.count) for b in found] == [(3, 0, 3), (3, 10, 2)]


def test_a_hole_is_crossed_where_the_profile_allows_it_and_it_pays():
    points = [*build.registers(3), *build.registers(2, start=10)]
    found = blocks_of(build.device("d", [], max_gap=16), points, cost)
    assert [(b.start, b.count) for b in found] == [(0, 12)]
    far = [*build.registers(1), *build.registers(1, start=100)]
    assert len(blocks_of(build.device("d", [], max_gap=125), far, cost)) == 2


def test_a_read_never_exceeds_the_device_and_never_tears_a_value():
    points = build.registers(30, kind="float32", step=2)
    found = blocks_of(build.device("d", [], max_registers=25), points, cost)
    assert all(b.count <= 25 for b in found)
    assert all(any(b.start <= p.address and p.address + 2 <= b.start + b.count for b in found) for p in points)


def test_points_that_overlap_in_a_chain_are_each_whole_in_a_legal_read():
    points = [Point(f"p{i}", "holding", i, "float32") for i in range(200)]
    device = build.device("d", [build.tag(p) for p in points])
    made = plan(build.gateway([device]))
    assert not made.errors
    blocks = made.table.scans[0].blocks
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
    address, points = 0, []
    for i in range(draw(st.integers(1, 7))):
        address += draw(st.integers(0, 12))
        kind = draw(st.sampled_from(["uint16", "float32", "int64"]))
        points.append(Point(f"p{i}", "holding", address, kind))
        address += points[-1].n_registers
    return points, draw(st.integers(4, 30)), draw(st.integers(0, 12))


@given(layouts())
def test_the_plan_is_as_cheap_as_the_best_of_all_partitions(layout):
    points, limit, gap = layout
    found = blocks_of(build.device("d", [], max_registers=limit, max_gap=gap), points, cost)
    best = float("inf")
    for cuts in itertools.product([False, True], repeat=len(points) - 1):
        runs = [[points[0]]]
        for cut, point in zip(cuts, points[1:], strict=True):
            runs.append([point]) if cut else runs[-1].append(point)
        spans = [(run[0].address, run[-1].address + run[-1].n_registers) for run in runs]
        holes = [b.address - a.address - a.n_registers for run in runs for a, b in itertools.pairwise(run)]
        if all(end - start <= limit or len(run) == 1 for (start, end), run in zip(spans, runs, strict=True)) and all(
            hole <= gap for hole in holes
        ):
            best = min(best, sum(cost(end - start, 2) for start, end in spans))
    assert sum(cost(b.count, 2) for b in found) == pytest.approx(best)


def test_enron_items_and_registers_never_share_a_read():
    found = profile.find("sick_flowsic600")
    blocks = blocks_of(build.device("d", [], enron=True, max_registers=125), found.points, cost)
    assert {(b.start // 1000, b.item_bytes) for b in blocks} == {(3, 2), (5, 4), (7, 4)}
    assert max(b.n_bytes for b in blocks) <= 250


@pytest.mark.parametrize("name", profile.names())
def test_every_shipped_map_is_planned_whole(name):
    found = profile.find(name)
    tags = [build.tag(point) for point in found.points if not point.is_text]
    made = plan(build.gateway([build.device("d", tags, enron=found.enron, max_registers=found.max_registers)]))
    assert made.table.n == len(tags)
    assert made.errors == ()


def test_rows_of_a_scan_are_one_slice_and_every_row_lies_in_its_block():
    points = [*build.registers(5), *build.registers(5, start=50, kind="float32", step=2)]
    tags = [build.tag(p, period_s=1.0 if i % 2 else 5.0) for i, p in enumerate(points)]
    made = plan(build.gateway([build.device("a", tags), build.device("b", tags, unit=2)]))
    table = made.table
    assert [scan.period_s for scan in table.scans] == [1.0, 5.0, 1.0, 5.0]
    assert [scan.start for scan in table.scans[1:]] == [scan.stop for scan in table.scans[:-1]]
    for scan in table.scans:
        for row in range(scan.start, scan.stop):
            k = table.decode.block[row] - scan.first_block
            at = table.decode.at[row] - scan.at[k]
            assert 0 <= at <= scan.blocks[k].n_bytes - table.decode.size[row]


def test_devices_of_one_period_take_turns_and_the_commit_stands_in_the_largest_gap():
    tags = [build.tag(p) for p in build.registers(2)]
    made = plan(build.gateway([build.device(f"d{i}", tags, link=f"l{i}") for i in range(4)]))
    assert [scan.phase_s for scan in made.table.scans] == [0.0, 0.25, 0.5, 0.75]
    assert commit_phase_s(made.table, 1.0) in (0.125, 0.375, 0.625, 0.875)


def test_a_bus_that_cannot_keep_its_periods_is_refused_with_the_repair():
    tags = [build.tag(p) for p in build.registers(100)]
    devices = [build.device(f"d{i}", tags, unit=i) for i in range(1, 7)]
    (little,) = plan(build.gateway(devices[:4], links=[RTU])).errors
    assert "link 'bus0': needs 1.09 s of every 1 s" in little
    assert "slow 'd1' from 1 s to 1.5 s" in little
    much = plan(build.gateway(devices, links=[RTU]))
    assert "slow every device on it by 1.6 times" in much.errors[0]
    assert report(much)["errors"] == list(much.errors)


def test_report_says_what_the_contract_names():
    made = plan(build.gateway([build.device("d", [build.tag(p) for p in build.registers(10)])]))
    found = json.loads(json.dumps(report(made)))
    assert found["links"] == [{"name": "bus0", "requests_per_cycle": 1, "bus_time_s": 0.02002, "load": 0.02002}]
    wanted = {"link", "device", "unit", "function", "start", "count", "period_s", "serves"}
    assert set(found["requests"][0]) == wanted


def test_published_maps_cost_no_more_than_contiguous_reads():
    path = VECTORS / "register_maps_dev.json"
    if not path.exists():
        pytest.skip("needs ../shared/vectors")
    codes = {"holding": "holding", "input": "input", "coil": "coil", "discrete": "discrete"}
    for name, rows in json.loads(path.read_text())["maps"].items():
        points = []
        for i, row in enumerate(rows):
            kind = {1: "uint16", 2: "uint32", 4: "uint64"}.get(row["registers"], f"string{2 * row['registers']}")
            points.append(
                Point(f"p{i}", codes[row["space"]], row["address"], "bool" if "coil" in row["space"] else kind)
            )
        contiguous = blocks_of(build.device("d", []), points, cost)
        crossing = blocks_of(build.device("d", [], max_gap=125), points, cost)
        assert sum(cost(b.count, 2) for b in crossing) <= sum(cost(b.count, 2) for b in contiguous) + 1e-9, name
