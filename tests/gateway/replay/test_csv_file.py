"""A table of text becomes the numbers that Python's own readers make of it, bit for bit, wherever a chunk ends."""

import contextlib
import math
import os
import struct
import threading
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.replay import csv_file, sheet
from gateway.replay.csv_file import CsvFile, ScoreFile
from gateway.replay.judge import Verdicts
from gateway.replay.output import Output
from gateway.replay.source import SourceError
from tests.gateway.replay import plain


def read(path, text):
    """Write a file and return (columns, times, values, bad, the times' own text) as the reader has them."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = CsvFile(path)
    times, values, bad, stamps = [], [], [], []
    for block in source.blocks():
        times += block.time_ns.tolist()
        values.append(block.value.copy())
        bad.append(block.bad.copy())
        stamps += [block.text[a:b].tobytes().decode() for a, b in block.stamp]
    source.close()
    n = len(source.columns)
    return (
        source.columns,
        times,
        np.vstack([np.zeros((0, n)), *values]),
        np.vstack([np.zeros((0, n), bool), *bad]),
        stamps,
    )


def refused(path, text):
    with pytest.raises(SourceError) as caught:
        read(path, text)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def bits(value):
    return struct.pack(">d", value).hex()


def check_numbers(path, cells):
    _, _, values, bad, _ = read(path, "time,v,w\n" + "".join(f"{k},{cell},{cell}\r\n" for k, cell in enumerate(cells)))
    for k, cell in enumerate(cells):
        wanted = plain.number(cell.strip('"'))
        for column in (0, 1):  # in the middle of a line and at its end: two ways through the kernel
            assert bad[k, column] == math.isnan(wanted), cell
            if not math.isnan(wanted):
                assert bits(values[k, column]) == bits(wanted), cell


HARD = [
    *("0", "-0", "+0", "0.0", "-0.0", "00000000000000000000000001", "000.000", ".5", "5.", "-.5e1", "+1.5E+3", "1e0", "1e-0"),
    *("9007199254740993", "9007199254740991", "9007199254740992.5", "9007199254740993.0000000000000000000001"),
    *("18446744073709551615", "18446744073709551616", "18446744073709551617", "184467440737095516160000"),
    *("9999999999999999999", "99999999999999999999", "123456789012345678901234567890", "0.000000000000000000000000123"),
    *("12345678901234567", "1234567890.123456789", "0.1234567890123456789", "1.7976931348623157e308", "1.7976931348623159e308"),
    *("1.797693134862315807e308", "1.797693134862315808e308", "2.2250738585072014e-308", "2.2250738585072011e-308"),
    *("4.9406564584124654e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "1e-400", "-1e-400", "1e400", "-1e999"),
    *("8.5e-323", "5e-324", "6.631236846766476e-316", "3.2378839133029012895883524125015321748630094e-319"),
    *("1e22", "1e23", "8.41e21", "9.109e-31", "6.62607015e-34", "6e-5", "1E5", "1e+05", "100000000000000000000e-20"),
    *("2.2204460492503131e-16", "1.1102230246251565e-16", "1.00000000000000011102230246251565", "1.00000000000000011102230246251566"),
    *("7.2057594037927933e+16", "36028797018963967.5", "4503599627370496.5", "4503599627370497.5", "0.500000000000000166533453693773481063544750213623046875"),
    *("  7  ", " -1.5", '"3.25"', '" 3.25 "', '""', "", "   ", "nan", "NaN", "-nan", "NULL", "None", "N/A", "-", "inf", "-Infinity"),
    *("true", "False", "1e00000000000000000001", "1e-00000000000000000001", "0e999999999", "0.0e-999999999999", "1e99999999"),
]  # fmt: skip


def test_hard_numbers_are_as_float_reads_them(tmp_path):
    check_numbers(tmp_path / "x.csv", HARD)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=200))
def test_every_float_comes_back_from_its_shortest_text(tmp_path_factory, values):
    cells = [
        text for v in values for text in (repr(v), f"{v:.17e}", f"{v:.0f}" if abs(v) < 1e30 else f"{v:g}", f"{v:.18g}")
    ]
    check_numbers(tmp_path_factory.getbasetemp() / "floats.csv", cells)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**40), st.integers(1, 40), st.integers(0, 40), st.none() | st.integers(-420, 400)),
        min_size=1,
        max_size=50,
    )
)
@example([(18446744073709551616, 20, 0, None)])
def test_every_decimal_is_as_float_reads_it(tmp_path_factory, parts):
    cells = []
    for number, width, places, exponent in parts:
        digits = str(number)[:width].zfill(places + 1)
        text = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}".removesuffix(".")
        cells.append(text if exponent is None else f"-{text}e{exponent:+}")
    check_numbers(tmp_path_factory.getbasetemp() / "decimals.csv", cells)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(2**52, 2**53 - 1), st.integers(-1074, 960)), min_size=1, max_size=50))
def test_exact_halves_go_to_the_even_one(tmp_path_factory, halves):
    from decimal import Context, Decimal

    exact = Context(prec=1200)
    cells = []
    for m, e in halves:
        half = exact.multiply(Decimal(2 * m + 1), exact.power(Decimal(2), e - 1))
        cells += [f"{half:e}", f"{half.next_plus(exact):e}", f"{half.next_minus(exact):e}"]
        cells += [f"{half:.18e}", f"{half:.17e}", f"{half:.16e}"]
    check_numbers(tmp_path_factory.getbasetemp() / "halves.csv", cells)


@pytest.mark.parametrize(
    "cell", ["abc", "1,5,", "1.2.3", "1e", "e5", "--1", "+-1", "1_000", "0x10", "1 2", '"1"2', '"5', '5"', "1e5.", ".", "+", '"1""2"']
)  # fmt: skip
def test_what_is_no_number_is_named(tmp_path, cell):
    text = refused(tmp_path / "x.csv", f"time,v\n1,0\n\n2,{cell}\n3,0\n")
    assert text.startswith("line 4: ")
    assert ("column 'v': " in text and text.endswith(", wanted a number")) or "wanted 2 as in the header" in text


TIMES = [
    *("0", "-1", "1700000000000000000", "-9223372036854775807", "9223372036854775807", "1970-01-01", "1969-12-31T23:59:59Z"),
    *("2000-02-29T12:00:00Z", "1900-02-28T00:00Z", "2024-02-29", "2026-11-23T06:00:00+05:30", "2026-11-23 06:00:00-0330"),
    *("2026-11-23t06:00:00z", "2026-11-23T06:00:00+00", "2026-11-23T06:00:00.123456789Z", "2026-11-23T06:00:00.1234567899Z"),
    *("1969-12-31T23:59:59.999999999Z", "1900-01-01T00:00:00.5+14:00", "2261-12-31T23:59:59.999999999-23:59", "1678-01-01"),
    *("2026-12-31T23:59:59.9", "2026-11-23T06:00", " 2026-11-23T06:00 ", '"2026-11-23T06:00:00,5"', '"12"'),
]  # fmt: skip


def test_times_are_as_datetime_reads_them_and_copied_as_they_stand(tmp_path):
    _, times, _, _, stamps = read(tmp_path / "x.csv", "v,time\n" + "".join(f"1,{text}\n" for text in TIMES))
    assert times == [plain.time_ns(text.strip('"')) for text in TIMES]
    assert stamps == TIMES


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(1678, 1, 2), datetime(2261, 12, 30)),  # noqa: DTZ001 - the zone is drawn beside it
            st.sampled_from([None, *(timezone(timedelta(minutes=m)) for m in (0, 60, -210, 345, 1439, -1439))]),
            st.sampled_from(["auto", "minutes", "seconds", "milliseconds", "microseconds"]),
        ),
        min_size=1,
        max_size=50,
    )
)
def test_every_iso_time_is_as_datetime_reads_it(tmp_path_factory, moments):
    texts = [moment.replace(tzinfo=zone).isoformat("T", spec) for moment, zone, spec in moments]
    path = tmp_path_factory.getbasetemp() / "times.csv"
    _, times, _, _, _ = read(path, "time,v\n" + "".join(f"{text},1\n" for text in texts))
    assert times == [plain.time_ns(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        *("", "noon", "12.5", "1e9", "+5", "--5", "9223372036854775808", "99999999999999999999", "2026-13-01", "2026-02-29"),
        *("2026-04-31", "1900-02-29", "2026-00-01", "2026-01-00", "2026-1-1", "26-01-01", "2026-01-01T", "2026-01-01T24:00"),
        *("2026-01-01T12:60", "2026-01-01T12:00:60", "2026-01-01T12:00:00.", "2026-01-01T12:00:00+24:00", "2026-01-01T12:00:00+0"),
        *("2026-01-01T12:00:00Zx", "2026-01-01T12:00:00 UTC", "2026/01/01", "1677-12-31", "2262-01-01", "0001-01-01", "2026-01-01T1"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_named(tmp_path, text):
    found = refused(tmp_path / "x.csv", f"v,time,w\n1,5,2\n1,{text},2\n")
    assert found.startswith(
        f"line 3: column 'time': '{text}', wanted ISO 8601 (2026-11-23T06:00:00Z, 1678 to 2261) or "
    )


SHAPES = {
    "unix": "time,a,b\n1,2,3\n4,5,6\n",
    "windows": "time,a,b\r\n1,2,3\r\n4,,6\r\n",
    "mixed": "time,a,b\n1,2,3\r\n\n\r\n4,5,6\r\n\n",
    "no end": "time,a,b\n1,2,3\n4,5,6",
    "no end, empty last cell": "time,a,b\n1,2,3\n4,5,",
    "byte order mark": "\ufefftime,a,b\n1,2,3\n",
    "quoted header": '"time","a, and more","b ""c"""\n1,2,3\n',
    "quoted cells": 'time,a,b\n"1","2","3"\r\n4,"",6\n',
    "time last": "a,b,time\n1,2,3\n4,,6\n",
    "time between": 'a,time,b\n1,2020-01-01,3\n4,"2020-01-02",6\n',
    "one column": "time,a\n1,2\n2,\n3,-1.5e-3\n",
    "header only": "time,a\n",
    "header without end": "time,a",
    "long cells": f"time,a,b\n1,{'0' * 3000}1.5,{' ' * 500}2\n2,3,4\n",
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_tables(tmp_path, name):
    check_table(tmp_path / "x.csv", SHAPES[name])


def check_table(path, text):
    names, times, rows = plain.read(text)
    columns, found_times, values, bad, _ = read(path, text)
    assert list(columns) == [name for name in names if name != "time"]
    assert found_times == times
    wanted = np.array(rows, float).reshape(len(times), len(columns))
    assert (bad == np.isnan(wanted)).all()
    assert (values[~bad].view(np.uint64) == wanted[~bad].view(np.uint64)).all()


def test_a_chunk_may_end_anywhere(tmp_path, monkeypatch):
    text = (
        '\ufefftime,a,"b"\r\n2026-11-23T06:00:00.25Z,-1.5e-3,"7"\r\n\r\n-5,,nan\n12,99999999999999999999,3.25\n13,1,2'
    )
    _, times, rows = plain.read(text)
    for size in range(2, len(text) + 4):
        monkeypatch.setattr(csv_file, "CHUNK_BYTES", size)
        columns, found, values, bad, stamps = read(tmp_path / "x.csv", text)
        assert (found, columns) == (times, ("a", "b")), size
        assert np.array_equal(np.where(bad, np.nan, values), np.array(rows), equal_nan=True), size
        assert stamps == ["2026-11-23T06:00:00.25Z", "-5", "12", "13"]
    for size in range(2, 60):
        monkeypatch.setattr(csv_file, "CHUNK_BYTES", size)
        assert refused(tmp_path / "x.csv", text + "\n\n14,1\n").startswith("line 8: 2 cells, wanted 3 as in the header")
        assert refused(tmp_path / "x.csv", text + "\n14,1,x\n").startswith("line 7: column 'b': 'x', wanted a number")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_broken_table_is_refused_where_the_plain_reader_refuses_it(tmp_path_factory, data):
    """Random bytes of a CSV: either both have the same numbers, or both refuse."""
    text = data.draw(
        st.text(alphabet='0123456789.,-+eE"\n\r tTZ:naf', max_size=60).map(lambda s: "time,a,b\n1,2,3\n" + s)
    )
    if data.draw(st.booleans()):
        at = data.draw(st.integers(9, len(text)))
        text = text[:at] + data.draw(st.sampled_from([",", "\n", '"', "\r\n", "-"])) + text[at:]
    if any(mark in text[9:].replace("\r\n", "\n") for mark in ('"', "\r")):
        wanted = None  # csv reads quotes inside cells and lone returns in its own ways: it must only not crash here
    else:
        try:
            wanted = plain.read(text)
        except (ValueError, OverflowError):
            wanted = ()
    path = tmp_path_factory.getbasetemp() / "broken.csv"
    try:
        found = read(path, text)
    except SourceError:
        assert wanted in (None, ()) or any(not -(2**63) < t < 2**63 for t in wanted[1]), text
    else:
        if wanted is not None:
            assert wanted != (), text
            assert found[1] == wanted[1]


def test_three_thousand_columns_and_long_lines(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    n = 3000
    rows = rng.normal(size=(40, n)) * 10.0 ** rng.integers(-12, 12, (40, n))
    text = "time," + ",".join(f"v{i}" for i in range(n)) + "\n"
    text += "".join(f"{k}," + ",".join(map(repr, row.tolist())) + "\n" for k, row in enumerate(rows))
    monkeypatch.setattr(csv_file, "CHUNK_BYTES", 5000)  # a line of 60 kB makes it grow
    _, times, values, bad, _ = read(tmp_path / "x.csv", text)
    assert times == list(range(40))
    assert not bad.any()
    assert (values == rows).all()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"", "line 1: nothing, wanted a header with 'time' and a column for each tag"),
        (b"\n1,2\n", "line 1: nothing, wanted"),
        (b"a,b\n1,2\n", "line 1: no column 'time' among 'a', 'b'; wanted a header"),
        (b"tme,b\n1,2\n", "line 1: no column 'time' among 'tme', 'b'"),
        (b"time\n1\n", "line 1: no column beside 'time'"),
        (b"time,a,b,a\n", "line 1: column 'a' is there twice"),
        (b"time,time,a\n", "line 1: column 'time' is there twice"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe\x00time", "line 1: byte 8 is no UTF-8, wanted a CSV file"),
        (b'time,"a\n1,2\n', "line 1: unexpected end of data, wanted a header as CSV"),
        (b"time,a\n1\n", "line 2: 1 cell, wanted 2 as in the header"),
        (b"time,a\n1,2\n\n3,4,5\n6,7\n", "line 4: more than 2 cells, wanted 2 as in the header"),
        (b"time,a\n1,2\n3\xff,4\n", "line 3: column 'time': '3\ufffd', wanted ISO 8601"),
        (b"time,a\n1,2\n3,4\xff\n", "line 3: column 'a': '4\ufffd', wanted a number"),
        (b"time,a\n1,\x00\x00\n", "line 2: column 'a': "),
    ],
)
def test_what_is_wrong_is_said_with_file_line_column_found_and_wanted(tmp_path, text, wanted):
    assert refused(tmp_path / "x.csv", text).startswith(wanted)


def test_too_many_columns_are_refused(tmp_path):
    header = "time," + ",".join(f"v{i}" for i in range(csv_file.MAX_COLUMNS + 1))
    assert refused(tmp_path / "x.csv", header) == "line 1: 100001 columns of tags, wanted at most 100000"


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "CHUNK_BYTES", 1 << 10)
    monkeypatch.setattr(csv_file, "MAX_LINE_BYTES", 1 << 12)
    assert refused(tmp_path / "x.csv", "time,a\n1," + "1" * 10_000).startswith("line 2: longer than 4096 bytes")


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "no", "No such file or directory")):
        with pytest.raises(SourceError, match=f"{path}: cannot be read: {why}"):
            CsvFile(path)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-16, 4.9e-16, 5.1e-16, 1e-9, 0.5, math.nextafter(1, 0)]),
        min_size=1,
    )
)
def test_scores_come_back_within_1e_15(tmp_path_factory, scores):
    path = tmp_path_factory.getbasetemp() / "scores.csv"
    r = len(scores)
    score = np.array(scores).reshape(r, 1)
    flags = np.arange(r, dtype=np.uint16).reshape(r, 1) % 2048
    zeros = np.zeros(r, np.uint8)
    found = Verdicts((0, 1), 0, score, flags, score[:, 0].copy(), zeros + 1, zeros)
    text = np.frombuffer(bytearray(b"2026-11-23"), np.uint8)
    with Output(path) as output:
        ScoreFile(output, ["a,b"]).write(text, np.array([[0, 10]] * r), found)
    lines = path.read_text().splitlines()
    assert lines[0] == 'time,"a,b.score","a,b.flags",score,anomaly,changepoint'
    for k, line in enumerate(lines[1:]):
        cells = line.split(",")
        assert abs(float(cells[1]) - scores[k]) <= 5.1e-16 + 1.2e-16
        assert cells[2] == "|".join(name for bit, name in csv_file.NAMES.items() if int(flags[k, 0]) & bit)
        assert cells[3:] == [cells[1], "1", "0"]


def test_a_score_that_is_none_is_written_as_a_score():
    out = np.zeros(sheet.SCORE_BYTES, np.uint8)
    texts = {}
    for score in (math.nan, -1.0, 7.0, math.inf):
        texts[score] = out[: sheet._put_score(score, out, 0)].tobytes()
    assert [*texts.values()] == [b"0", b"0", b"1.000000000000000", b"1.000000000000000"]


def test_now_is_utc_without_an_offset(tmp_path):
    _, times, _, _, _ = read(tmp_path / "x.csv", "time,v\n2026-11-23T06:00:00,1\n")
    assert times == [int(datetime(2026, 11, 23, 6, tzinfo=UTC).timestamp()) * 10**9]


@settings(max_examples=60)
@given(st.data())
def test_a_block_stands_while_the_next_is_read(tmp_path_factory, data):
    """Lines of nothing, lines longer than a chunk, and blocks that end just before either."""
    lines = data.draw(st.lists(st.sampled_from(["", "x,1", f"x,{'7' * 60}.5", "", "x,"]), max_size=60))
    text = "time,v\n" + "".join(f"{line.replace('x', str(10**18 + k))}\n" for k, line in enumerate(lines))
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_file, "BLOCK_VALUES", data.draw(st.integers(1, 5)))
        patch.setattr(csv_file, "CHUNK_BYTES", data.draw(st.sampled_from([24, 50, 64, 200])))
        held, copy, times = None, None, []
        for block in CsvFile(path)._blocks():
            now = [each.copy() for each in (block.time_ns, block.value, block.bad, block.text, block.stamp)]
            if held is not None:
                for each, was in zip((held.time_ns, held.value, held.bad, held.text, held.stamp), copy, strict=True):
                    assert each.tobytes() == was.tobytes()
            held, copy = block, now
            times += block.time_ns.tolist()
    assert times == [10**18 + k for k, line in enumerate(lines) if line]


def test_an_output_that_fails_does_not_wait_for_a_pipe(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    lines = "".join(f"{10**18 + k},{k}\n" for k in range(2 * csv_file.BLOCK_VALUES))  # more than a chunk
    keep_open = os.open(fifo, os.O_RDWR)  # no end of file

    def write():
        with contextlib.suppress(OSError):
            fifo.write_text(f"time,v\n{lines}")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    source = CsvFile(fifo)
    blocks = source.blocks()
    next(blocks)
    next(blocks)  # the rest of the first chunk
    blocks.close()
    source.close()  # neither waits for the rest of a chunk that does not come
    assert any(thread.name == "read-csv" for thread in threading.enumerate())
    os.close(keep_open)
    writer.join(10)
