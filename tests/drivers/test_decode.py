"""The decode kernel against its slow twin, against itself interpreted, and against other projects' vectors."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import quality
from drivers.decode import Placed, Scratch, build_table, decode, decode_text, spread
from drivers.points import REGISTERS, Point
from tests.reference import decode as reference

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "telegraf_modbus_dev.json"
NUMBERS = [name for name in REGISTERS if name != "bool"]


def run(point, payload, *, at=0, kernel=decode, reason=0):
    """Return (value, quality) of one point that stands at a byte of an image."""
    table = build_table([Placed(point, at)])
    value, found = np.zeros(1), np.zeros(1, np.uint32)
    one, s = np.array([0], np.int32), Scratch()
    kernel(
        one, one, np.array([1], np.int32), np.frombuffer(payload, np.uint8).copy(),
        np.array([reason], np.uint32),
        table.at, table.code, table.size, table.order, table.bit, table.scale, table.divisor, table.offset,
        table.low, table.high, table.sentinel, table.first, s.u8, s.i8, s.f8, s.u4, s.f4, value, found,
    )  # fmt: skip
    return float(value[0]), int(found[0])


def wire(words):
    return b"".join(word.to_bytes(2, "big") for word in words)


@st.composite
def points(draw):
    kind = draw(st.sampled_from(NUMBERS))
    words = draw(st.lists(st.integers(0, 0xFFFF), min_size=REGISTERS[kind], max_size=REGISTERS[kind]))
    point = Point(
        "x",
        "holding",
        draw(st.integers(0, 60000)),
        kind,
        word_order=draw(st.sampled_from(["big", "little"])),
        byte_order=draw(st.sampled_from(["big", "little"])),
        scale=draw(st.sampled_from([1.0, 0.1, 0.001, 1e-6, 10.0, 0.25, -1.0, 3.6])),
        offset=draw(st.sampled_from([0.0, -273.15, 40.0])),
    )
    return point, words


@given(points())
def test_kernel_equals_its_slow_twin_and_itself_interpreted(case):
    point, words = case
    wanted = reference.decode(words, point.type, point.word_order, point.byte_order, None, point.scale, point.offset)
    value, found = run(point, wire(words))
    with np.errstate(all="ignore"):
        interpreted = run(point, wire(words), kernel=decode.py_func)
    assert np.array_equal([value], [interpreted[0]], equal_nan=True)
    assert found == interpreted[1]
    if wanted is None:
        assert math.isnan(value)
        assert found == quality.BAD_SENSOR_FAILURE
    else:
        assert value == wanted
        assert found == quality.GOOD


@given(st.integers(0, 0xFFFF), st.integers(0, 15), st.sampled_from(["big", "little"]))
def test_a_bit_inside_a_register(word, bit, order):
    point = Point("x", "holding", 7, "bool", bit=bit, byte_order=order)
    assert run(point, wire([word]))[0] == reference.decode([word], "bool", "big", order, bit)


@given(st.integers(0, 1999), st.binary(min_size=250, max_size=250))
def test_coils_count_from_the_lowest_bit_of_the_first_byte(i, payload):
    point = Point("x", "coil", i, "bool")
    assert run(point, spread(payload, 2000), at=i)[0] == payload[i // 8] >> i % 8 & 1


def test_a_sentinel_is_bad_in_its_signed_and_its_unsigned_spelling():
    for sentinel in (-9999, 0xD8F1):
        point = Point("x", "input", 0, "int16", scale=0.1, sentinels=(sentinel,))
        value, found = run(point, b"\xd8\xf1")
        assert math.isnan(value)
        assert found == quality.BAD_SENSOR_FAILURE
        assert run(point, b"\xd8\xf0") == (-1000.0, quality.GOOD)


@pytest.mark.parametrize("word", [0x7FC00000, 0xFFC00000, 0x7F800000, 0xFF800000, 0x00000001])
def test_nan_infinity_and_denormals_never_become_numbers(word):
    value, found = run(Point("x", "holding", 0, "float32"), word.to_bytes(4, "big"))
    assert math.isnan(value)
    assert found == quality.BAD_SENSOR_FAILURE


def test_a_value_outside_its_range_is_uncertain_and_still_there():
    point = Point("x", "holding", 0, "uint16", range=(0, 100))
    assert run(point, wire([101])) == (101.0, quality.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED)
    assert run(point, wire([100])) == (100.0, quality.GOOD)


def test_a_row_without_an_answer_gives_its_quality_and_no_number():
    value, found = run(Point("x", "holding", 0, "uint16"), wire([5]), reason=quality.BAD_TIMEOUT)
    assert math.isnan(value)
    assert found == quality.BAD_TIMEOUT


def test_a_power_of_ten_is_a_division_so_decimals_stay_decimal():
    assert run(Point("x", "holding", 0, "uint16", scale=0.1), wire([2417]))[0] == 241.7
    assert run(Point("x", "holding", 0, "uint16", scale=0.001), wire([2417]))[0] == 2.417


def test_an_enron_item_takes_one_address_and_four_bytes():
    point = Point("x", "holding", 7003, "float32")
    payload = bytes(8) + bytes.fromhex("42f6e979")
    assert run(point, payload, at=8)[0] == pytest.approx(123.456, rel=1e-6)


def test_a_wrong_dtype_is_refused_and_not_recompiled():
    one, s = np.array([0], np.int32), Scratch()
    with pytest.raises(TypeError):
        decode(one, one, one, np.zeros(2, np.int8), *[one] * 19, s.u8)


DELIBERATE = {
    # name -> why we answer otherwise
    "register11_uint8L-scale_.1": "Telegraf cuts a scaled value back to the integer type; ours are floats, always",
    "register13_int8H-scale_.1": "likewise",
    "register70_int64_uint64": "Telegraf wraps a negative int64 into a uint64 on request; we have no such request",
    "string_location lower little-endian": "one character a register: no meter of ours does it",
    "string_location upper little-endian": "likewise",
}


def vectors(kind):
    if not VECTORS.exists():
        pytest.skip("needs ../shared/vectors")
    return json.loads(VECTORS.read_text())[kind]


def test_decode_vectors_of_telegraf():
    names = {"UINT8L": "uint8_low", "UINT8H": "uint8_high", "INT8L": "int8_low", "INT8H": "int8_high", "BIT": "bool"}
    done = 0
    for case in vectors("decode"):
        if case["name"] in DELIBERATE:
            continue
        order, n = case["byte_order"], len(case["registers"])
        kind = case["type"].removesuffix("-IEEE")
        word = "little" if order in ("DCBA", "HGFEDCBA", "CDAB", "GHEFCDAB") else "big"
        byte = "little" if order in ("BA", "DCBA", "BADC", "HGFEDCBA", "BADCFEHG") else "big"
        done += 1
        if kind == "STRING":
            text = decode_text(Point("x", "holding", 0, f"string{2 * n}", byte_order=byte), wire(case["registers"]))
            assert text == case["expected"], case["name"]
            continue
        ours = {1: "int16", 2: "int32", 4: "int64"}[n] if kind == "FIXED" else names.get(kind, kind.lower())
        scale = case["scale"] or 1.0
        point = Point("x", "holding", 0, ours, word_order=word, byte_order=byte, bit=case["bit"], scale=scale)
        assert run(point, wire(case["registers"]))[0] == pytest.approx(case["expected"], rel=1e-6), case["name"]
    assert done == len(vectors("decode")) - sum(case["name"] in DELIBERATE for case in vectors("decode"))


def test_coil_vectors_of_telegraf():
    for case in vectors("coils"):
        write = case["write"] if isinstance(case["write"], int) else case["write"][0]
        payload = bytes([write << case["address"] % 8])
        point = Point("x", "coil", case["address"], "bool")
        assert run(point, spread(payload, 8), at=case["address"] % 8)[0] == float(case["expected"]), case["name"]
