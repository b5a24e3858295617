"""Encoding is the inverse of an independent decoder, and says what a reader will see."""

import math
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drivers.encode import can_be_absent, codec, encode, served_value
from drivers.points import REGISTERS, Point
from tests.reference.decode import decode

ORDERS = ["big", "little"]
INTEGERS = [name for name in REGISTERS if "float" not in name and name != "bool"]
FLOATS = ["float16", "float32", "float64"]
SCALES = [1.0, 0.1, 0.01, 0.001, -0.1, -1.0, 0.25, 100.0]


def words(raw):
    return list(struct.unpack(f">{len(raw) // 2}H", raw))


def slow(point, raw):
    return decode(
        words(raw), point.type, point.word_order, point.byte_order, point.bit, point.scale, point.offset
    )  # fmt: skip


points = st.builds(
    Point,
    name=st.just("x"),
    function=st.just("holding"),
    address=st.just(0),
    type=st.sampled_from(INTEGERS),
    word_order=st.sampled_from(ORDERS),
    byte_order=st.sampled_from(ORDERS),
    scale=st.sampled_from(SCALES),
    offset=st.sampled_from([0.0, -40.0, 12.5]),
)


@given(points, st.floats(-1e6, 1e6))
def test_an_integer_comes_back_within_half_a_step_or_at_the_end_of_its_type(point, value):
    raw = encode(point, value)
    seen, (low, high) = slow(point, raw), codec(point).bounds
    wanted = min(max(value, low), high)
    assert abs(seen - wanted) <= 0.5 * abs(point.scale) + 1e-6 * abs(wanted)
    assert served_value(point, raw) == seen


@given(st.sampled_from(FLOATS), st.sampled_from(ORDERS), st.sampled_from(ORDERS), st.floats(-6e4, 6e4))
def test_a_float_comes_back_with_the_precision_of_its_type(type_name, word_order, byte_order, value):
    point = Point("x", "input", 0, type_name, word_order=word_order, byte_order=byte_order)
    raw = encode(point, value)
    seen = slow(point, raw)
    precision = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 0.0}[type_name]
    assert seen == pytest.approx(value, rel=precision, abs=1e-7 if type_name == "float16" else 1e-37)
    assert served_value(point, raw) == seen


@given(points, st.floats(-1e5, 1e5))
def test_encoding_a_served_value_again_changes_nothing(point, value):
    assume(abs(value / point.scale) < 2**52)
    first = encode(point, value)
    assert encode(point, served_value(point, first)) == first


@pytest.mark.parametrize(
    ("word_order", "byte_order", "wanted"),
    [("big", "big", "11223344"), ("little", "big", "33441122"), ("big", "little", "22114433"),
     ("little", "little", "44332211")],
)  # fmt: skip
def test_the_four_orders_of_a_double_register(word_order, byte_order, wanted):
    point = Point("x", "holding", 0, "uint32", word_order=word_order, byte_order=byte_order)
    assert encode(point, 0x11223344).hex() == wanted


def test_a_decimal_stays_decimal():
    point = Point("t", "holding", 0, "uint16", scale=0.1)
    raw = encode(point, 241.70000001)
    assert words(raw) == [2417]
    assert served_value(point, raw) == 241.7


@pytest.mark.parametrize("byte_order", ORDERS)
def test_bits_and_bytes_of_one_register_can_be_merged(byte_order):
    def of(type_name, value, **more):
        return int.from_bytes(encode(Point("x", "holding", 0, type_name, byte_order=byte_order, **more), value), "big")

    register = of("bool", True, bit=9) | of("bool", False, bit=10) | of("int8_low", -2)
    raw = register.to_bytes(2, "big")
    assert [served_value(Point("b", "holding", 0, "bool", bit=i, byte_order=byte_order), raw) for i in (9, 10)] == [
        1,
        0,
    ]
    assert served_value(Point("b", "holding", 0, "int8_low", byte_order=byte_order), raw) == -2.0
    assert raw == (b"\x02\xfe" if byte_order == "big" else b"\xfe\x02")


def test_not_available_is_the_first_sentinel_else_nan():
    assert encode(Point("x", "holding", 0, "int16", sentinels=(-9999, 0x7FFF)), None).hex() == "d8f1"
    assert encode(Point("x", "holding", 0, "float32", word_order="little"), None).hex() == "00007fc0"
    assert encode(Point("x", "holding", 0, "float32", sentinels=(0x7FA00000,)), math.nan).hex() == "7fa00000"
    assert not can_be_absent(Point("x", "holding", 0, "uint16"))
    with pytest.raises(ValueError, match="cannot say 'not available'"):
        encode(Point("x", "holding", 0, "uint16"), None)


@pytest.mark.parametrize("type_name", ["int16", "uint16", "int32", "uint32"])
def test_a_clamped_value_never_means_not_available(type_name):
    top = (1 << 8 * 2 * REGISTERS[type_name]) - 1
    top = top // 2 if type_name.startswith("int") else top
    point = Point("x", "holding", 0, type_name, sentinels=(top,))
    raw = encode(point, 1e30)
    assert served_value(point, raw) == top - 1
    assert served_value(point, encode(point, None)) is None


def test_no_float_is_served_that_a_reader_takes_for_rubbish():
    point = Point("x", "holding", 0, "float32")
    assert encode(point, 1e-40) == bytes(4)
    assert served_value(point, bytes.fromhex("00000001")) is None
    assert served_value(point, encode(point, 1e300)) == pytest.approx(3.4e38, rel=0.01)


@pytest.mark.parametrize("byte_order", ORDERS)
def test_text_is_padded_cut_and_swapped(byte_order):
    point = Point("x", "holding", 0, "string5", byte_order=byte_order)
    raw = encode(point, "ABCDEFG")
    assert len(raw) == 6
    assert raw == (b"ABCDE\0" if byte_order == "big" else b"BADC\0E")
    assert served_value(point, raw) == "ABCDE"
    assert served_value(point, encode(point, "AB")) == "AB"


def test_a_coil_is_one_bit():
    point = Point("x", "coil", 7, "bool")
    assert encode(point, 1.0) == b"\x01"
    assert served_value(point, b"\x00") == 0.0
