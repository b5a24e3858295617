"""What one meter answers, byte by byte."""

import struct

import pytest

from drivers import profile as profiles
from drivers.encode import served_value
from drivers.points import Hole, Point, ScanList
from drivers.sim.device import Meter
from tests.drivers.sim.build import gauge, meter


def ask(spec, function, start, count, snapshot=lambda point: 0.0):
    return Meter(spec).answer(struct.pack(">BHH", function, start, count), snapshot)


TWO_FLOATS = [gauge("a", 10), gauge("b", 12)]


def test_a_block_holds_its_points_in_place():
    answer = ask(meter(points=TWO_FLOATS), 3, 10, 4, lambda point: {"a": 1.5, "b": -2.0}[point.name])
    assert answer.pdu == b"\x03\x08" + struct.pack(">ff", 1.5, -2.0)
    assert answer.served == (("a", 1.5), ("b", -2.0))


def test_a_point_that_is_cut_by_the_block_is_sent_but_not_counted_as_served():
    answer = ask(meter(points=TWO_FLOATS), 3, 11, 3, lambda point: 1.5)
    assert answer.pdu == b"\x03\x06" + (struct.pack(">f", 1.5)[2:] + struct.pack(">f", 1.5))
    assert answer.served == (("b", 1.5),)


@pytest.mark.parametrize(
    ("function", "start", "count", "code"),
    [(3, 9, 2, 2), (3, 13, 2, 2), (3, 10, 5, 2), (4, 10, 2, 2), (3, 65535, 2, 2), (3, 10, 0, 3), (3, 10, 126, 3),
     (3, 10, 41, 3), (1, 0, 2001, 3), (5, 10, 1, 1), (6, 10, 1, 1), (16, 10, 1, 1), (43, 10, 1, 1), (23, 10, 1, 1)],
)  # fmt: skip
def test_refusals(function, start, count, code):
    spec = meter(points=TWO_FLOATS, max_registers=40)
    assert ask(spec, function, start, count).pdu == bytes((function | 0x80, code))


def test_a_request_of_the_wrong_length_is_refused():
    assert Meter(meter(points=TWO_FLOATS)).answer(b"\x03\x00\x0a\x00", lambda point: 0.0).pdu == b"\x83\x03"


def test_a_gap_reads_as_zero_only_where_the_device_lets_it_pass():
    points = [gauge("a", 0, "uint16"), gauge("b", 3, "uint16")]
    assert ask(meter(points=points, max_gap=2), 3, 0, 4, lambda point: 7.0).pdu == bytes.fromhex("03080007000000000007")
    assert ask(meter(points=points, max_gap=1), 3, 0, 4).pdu == b"\x83\x02"
    assert ask(meter(points=points, max_gap=2), 3, 0, 3).pdu == b"\x83\x02"  # does not end in a gap


def test_a_scan_list_shows_what_it_lists_and_nothing_of_a_list_that_is_empty():
    points = [gauge("a", 10), gauge("n", 20, "uint16"), gauge("slot", 101, "uint16"), gauge("shown", 110)]
    found = Meter(meter(points=points, scan_list=ScanList("holding", 100, 3, 110, 2, 1)))

    def read(start, count):
        answer = found.answer(
            struct.pack(">BHH", 3, start, count), lambda point: {"a": 1.5, "n": 7.0}.get(point.name, 9.0)
        )
        return answer.pdu[2:], dict(answer.served)

    assert read(100, 3) == (bytes(6), {"slot": 0.0})
    assert read(110, 6) == (bytes(12), {"shown": 0.0})
    found.entries = [21, 0, 11]
    assert read(100, 3)[0] == struct.pack(">HHH", 21, 0, 11)
    assert read(110, 6)[0] == struct.pack(">HHIf", 7, 0, 0, 1.5)
    assert read(113, 2)[0] == struct.pack(">If", 0, 1.5)[2:6]
    assert read(10, 2) == (struct.pack(">f", 1.5), {"a": 1.5})


def test_coils_are_packed_low_bit_first():
    points = [Point(f"c{i}", "coil", 20 + i, "bool") for i in range(10)]
    on = {"c0", "c2", "c9"}
    answer = ask(meter(points=points), 1, 20, 10, lambda point: float(point.name in on))
    assert answer.pdu == b"\x01\x02\x05\x02"
    assert dict(answer.served) == {f"c{i}": float(f"c{i}" in on) for i in range(10)}
    assert ask(meter(points=points), 1, 29, 1, lambda point: 1.0).pdu == b"\x01\x01\x01"


def test_bools_of_one_register_are_merged():
    points = [gauge(f"b{i}", 5, "bool", bit=i) for i in (0, 3, 15)]
    answer = ask(meter(points=points), 3, 5, 1, lambda point: float(point.name != "b3"))
    assert answer.pdu == b"\x03\x02\x80\x01"
    assert dict(answer.served) == {"b0": 1.0, "b3": 0.0, "b15": 1.0}


def test_all_values_of_a_read_are_asked_for_once_and_strings_are_not_served():
    asked = []

    def snapshot(point):
        asked.append(point.name)
        return "PM5110" if point.is_text else 3.0

    points = [gauge("model", 0, "string8"), gauge("x", 4)]
    answer = ask(meter(points=points), 3, 0, 6, snapshot)
    assert answer.pdu[2:] == b"PM5110\0\0" + struct.pack(">f", 3.0)
    assert asked == ["model", "x"]
    assert answer.served == (("x", 3.0),)


def test_enron_items_take_one_address_and_four_bytes():
    found = profiles.find("sick_flowsic600")
    spec = meter(profile="sick_flowsic600")
    values = {point.name: float(i) for i, point in enumerate(found.points)}
    answer = ask(spec, 3, 7001, 12, lambda point: values[point.name])
    wanted = [point.name for point in found.points if 7001 <= point.address <= 7012]
    assert answer.pdu == b"\x03\x30" + struct.pack(">12f", *(values[name] for name in wanted))
    assert [name for name, _ in answer.served] == wanted
    short = ask(spec, 3, 3001, 3, lambda point: values[point.name])
    assert len(short.pdu) == 2 + 6  # 16-bit points of the same device keep two bytes


def test_an_enron_answer_never_outgrows_its_byte_count():
    points = [gauge(f"x{i}", i) for i in range(100)]
    spec = meter(points=points, enron=True, max_registers=125)
    assert len(ask(spec, 3, 0, 62).pdu) == 2 + 248
    assert ask(spec, 3, 0, 63).pdu == b"\x83\x03"


def test_enron_items_and_registers_do_not_mix_in_one_answer():
    spec = meter(points=[gauge("a", 0, "uint16"), gauge("b", 1)], enron=True)
    assert ask(spec, 3, 0, 2).pdu == b"\x83\x02"


@pytest.mark.parametrize("name", profiles.names())
def test_every_point_of_every_profile_can_be_read_alone(name):
    found = profiles.find(name)
    spec = meter(profile=name)
    for point in found.points:
        count = 1 if found.enron and point.type in ("uint32", "int32", "float32", "bitfield32") else point.n_registers
        answer = ask(spec, point.read_code, point.address, count, lambda point: "T" if point.is_text else 1.0)
        assert not answer.is_exception, point.name
        if not point.is_text:
            assert dict(answer.served)[point.name] == served_value(point, answer.pdu[2:])


def test_not_available_is_served_as_none():
    answer = ask(meter(points=TWO_FLOATS), 3, 10, 4, lambda point: None if point.name == "a" else 2.0)
    assert answer.served == (("a", None), ("b", 2.0))
    assert answer.pdu[2:6] == bytes.fromhex("7fc00000")


def test_a_hole_is_refused_whether_points_lie_there_or_not():
    points = [gauge("a", 0, "uint16"), gauge("b", 1, "uint16"), gauge("c", 4, "uint16")]
    spec = meter(points=points, max_gap=9, holes=(Hole("holding", 1, 1), Hole("input", 0, 9)))
    assert ask(spec, 3, 0, 1, lambda point: 7.0).pdu == bytes.fromhex("03020007")
    assert ask(spec, 3, 4, 1, lambda point: 7.0).pdu == bytes.fromhex("03020007")
    for start, count in ((1, 1), (0, 2), (0, 5)):
        assert ask(spec, 3, start, count).pdu == b"\x83\x02"
