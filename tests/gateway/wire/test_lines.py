"""Line protocol: what the kernel writes reads back as the same numbers, header and all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.quality import BAD_TIMEOUT
from gateway.deliver.publish import message
from gateway.wire.frame_lines import (
    FLOAT32_TEXT,
    LineWriter,
    ScanText,
    decimals_for,
    decode_texts,
    encode_texts,
    put_number,
)
from gateway.wire.lines import Header, PayloadError, as_ranges, parse_header, parse_line, parse_lines

finite = st.floats(allow_nan=False, allow_infinity=False)
single = st.floats(width=32, allow_nan=False, allow_infinity=False)


def write(values, decimals, bad=()):
    names = tuple(f"f{i}" for i in range(len(values)))
    quality = np.zeros(len(values), np.uint32)
    quality[list(bad)] = BAD_TIMEOUT
    return LineWriter(ScanText("d", "m,device=d ", names, tuple(decimals))).line(np.array(values, float), quality, 17)


@given(st.lists(st.tuples(finite, st.integers(-2, 9)), min_size=1, max_size=8))
def test_every_float64_reads_back_exactly(cells):
    cells = [(v, -2 if k == FLOAT32_TEXT else k) for v, k in cells]
    (line,) = parse_lines(write([v for v, _ in cells], [k for _, k in cells]))
    assert list(line.fields.values()) == [v for v, _ in cells]


@given(st.lists(single, min_size=1, max_size=8))
def test_a_float32_reads_back_as_the_same_float32(values):
    (line,) = parse_lines(write(values, [FLOAT32_TEXT] * len(values)))
    assert [np.float32(v) for v in line.fields.values()] == [np.float32(v) for v in values]


@given(st.integers(2**31, 2**40).filter(lambda n: float(np.float32(n / 128)) != n / 128))
def test_a_value_between_two_float32s_reads_back_exactly_where_a_float32_is_meant(n):
    (line,) = parse_lines(write([n / 128], [FLOAT32_TEXT]))
    assert line.fields["f0"] == n / 128


@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_a_decimal_keeps_its_decimals_and_no_more(raw, k):
    value = raw / 10**k
    text = write([value], [k]).decode().split("f0=")[1].split(" ")[0]
    assert float(text) == value
    assert len(text.partition(".")[2]) <= k
    assert not ("." in text and text.endswith("0"))


@given(finite)
def test_the_interpreted_kernel_writes_the_same(value):
    for hint in (-2, -1, 0, 3):
        k = decimals_for(value, hint)
        with np.errstate(all="ignore"):
            assert decimals_for.py_func(value, hint) == k
        if k >= 0:
            compiled, plain = np.zeros(64, np.uint8), np.zeros(64, np.uint8)
            assert put_number(value, k, compiled, 0) == put_number.py_func(value, k, plain, 0)
            assert np.array_equal(compiled, plain)


def test_a_bad_value_has_no_field_and_a_frame_without_good_values_no_line():
    assert write([1.5, 2.5, 3.5], [1, 1, 1], bad=[0, 2]) == b"m,device=d f1=2.5 17\n"
    assert write([1.5], [1], bad=[0]) == b""
    assert write([1.5, 2.5], [1, 1], bad=[1]) == b"m,device=d f0=1.5 17\n"


def test_a_message_names_its_frames_in_line_order():
    payload = message(7, "3f9a", [(1201, b"a x=1 1\n"), (1203, b""), (1207, b"a x=2 2\n"), (1208, b"a x=3 3\n")])
    assert payload.split(b"\n")[0] == b"# boot=7 seq=1201,1207-1208 empty=1203 catalog=3f9a"
    assert parse_header(payload) == Header(7, [(1201, 1201), (1207, 1208)], [(1203, 1203)], "3f9a")
    assert [line.time_ns for line in parse_lines(payload)] == [1, 2, 3]


def test_ranges_keep_the_order_of_lines():
    assert as_ranges([3, 4, 9, 1, 2]) == [(3, 4), (9, 9), (1, 2)]


@pytest.mark.parametrize(
    "payload",
    [b"", b"m f=1 1\n", b"# seq=1 catalog=a\n", b"# boot=x catalog=a\n", b"# boot=1 seq=5-3 catalog=a\n", b"#\xff\n"],
)
def test_a_broken_header_is_told(payload):
    with pytest.raises(PayloadError):
        parse_header(payload)


@pytest.mark.parametrize("line", ["m", "m f=1", "m f=x 1", "m f=1 1.5", "m,a f=1 1", 'm f="text" 1', "m f=1 1 1"])
def test_a_broken_line_is_told(line):
    with pytest.raises(PayloadError):
        parse_line(line)


def test_escapes_of_other_writers_are_understood():
    line = parse_line(r"my\ meter,site=a\,b,x\=y=1 f\ 1=2.5 9")
    assert (line.measurement, line.tags, line.fields) == ("my meter", {"site": "a,b", "x=y": "1"}, {"f 1": 2.5})


def test_texts_survive_the_spool():
    texts = (ScanText("d", "m,device=d ", ("a", "b"), (1, -1)),)
    assert decode_texts(encode_texts("3f9a", texts)) == ("3f9a", texts)
