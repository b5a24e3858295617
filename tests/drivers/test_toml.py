"""TOML files: one line for what cannot be read, every fault of what can, nothing secret or unprintable in a message."""

from collections.abc import Iterator

import pytest
from pydantic import Field

from drivers.toml import WRONG, FileError, Int, Number, Table, escape, hide, judge, near, read_toml, shown


class Inner(Table):
    name: str = "x"
    low: Number = 0.0
    high: Number = 1.0

    def faults(self) -> Iterator[str]:
        if self.has("low", "high") and self.low >= self.high:
            yield "low must be below high"


class Outer(Table):
    count: Int = Field(1, ge=1, le=9)
    size: Int
    items: list[Inner] = Field(default_factory=list)
    named: dict[str, Inner] = Field(default_factory=dict)
    pair: tuple[Number, Number] | None = None

    def faults(self) -> Iterator[str]:
        if self.has("count", "size") and self.count > self.size:
            yield "count is above size"


def told(table):
    return [fault.text for fault in judge(Outer, table)[1]]


def test_what_is_right_in_a_wrong_table_is_kept_and_what_is_wrong_is_wrong():
    model, faults = judge(Outer, {"count": 3, "size": "2", "items": [{"low": "a", "high": 5}]})
    assert len(faults) == 2
    assert (model.count, model.items[0].high) == (3, 5.0)
    assert model.size is WRONG
    assert model.items[0].low is WRONG
    assert model.has("count", "items")
    assert not model.has("count", "size")


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"size": 1}, []),
        ({"size": 1, "count": 2}, ["count is above size"]),
        ({"size": 1, "count": 20}, ["count: got 20, wanted less than or equal to 9"]),  # no rule about a default
        ({"count": 5}, ["size: is missing"]),
        ({"size": True}, ["size: got true, wanted a whole number"]),
        ({"size": 2.0}, ["size: got 2.0, wanted a whole number"]),
        ({"size": 1, "coun": 2}, ["coun: unknown key, did you mean 'count'?"]),
        ({"size": 1, "items": 3}, ["items: got 3, wanted a list"]),
        ({"size": 1, "items": [3]}, ["item #1: got 3, wanted a table"]),
        ({"size": 1, "named": {"a": 3}}, ["named 'a': got 3, wanted a table"]),
        ({"size": 1, "named": {"a": {"lo": 3}}}, ["named 'a': lo: unknown key, did you mean 'low'?"]),
        ({"size": 1, "pair": [1]}, ["pair #2: is missing"]),
        ({"size": 1, "pair": [1, 2, 3]}, ["pair: got 3 items, wanted at most 2"]),
        ({"size": 1, "pair": [1, "2"]}, ["pair #2: got '2', wanted a number"]),
        (
            {"size": 1, "count": 2, "items": [{"name": "a", "low": 2}, {"low": "b"}]},
            ["item #2: low: got 'b', wanted a number", "count is above size", "item 'a': low must be below high"],
        ),
    ],
)
def test_every_fault_is_told_once_with_its_place_and_no_default_makes_another(table, wanted):
    assert told(table) == wanted


def test_wrong_is_false_and_empty_and_so_is_everything_about_it():
    assert not WRONG
    assert not WRONG.id.anything
    assert not WRONG.has("x")
    assert list(WRONG.points) == []


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a = " + b"[" * 100_000, "brackets stand too deep in each other"),
        (b"a = " + b"{b=" * 5_000, "brackets stand too deep in each other"),
        (b"a = " + b"1" * 5_000, "holds a number with too many digits"),
        (b"a = 1979-02-31", "is not TOML"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"\xff\xfea\x00", "is not text (byte 0)"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, content, wanted):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_toml(path)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(f"{path}: {wanted}")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_toml(path) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mqtts://user:p/w@h", "mqtts://***@h"),
        ("tcp://u:secret@h:99999", "tcp://***@h:99999"),
        ("u:secret@h", "***@h"),
        ("mqtt:/u:se@cret@h", "***@h"),
        ("mqtt://u:se\ncret@h", "mqtt://***@h"),
        ("influx1://h/db?user=u&password=p", "influx1://h/db?user=***&password=***"),
        ("tcp://h:502", "tcp://h:502"),
    ],
)
def test_what_may_be_secret_is_hidden(text, wanted):
    assert hide(text) == wanted
    assert shown(text) == repr(wanted)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (True, "true"),
        (1.5, "1.5"),
        ("a\nb", r"'a\nb'"),
        ({}, "a table"),
        ([1], "a list"),
        (1 << 80, "a number of 81 bits"),
    ],
)
def test_a_value_is_shown_as_toml_writes_it(value, wanted):
    assert shown(value) == wanted


def test_a_long_value_is_shown_short():
    assert len(shown("x" * 100_000)) < 130
    assert near("x" * 100_000, ["xx"]) == ""


def test_an_error_is_lines_that_a_terminal_can_show():
    assert escape("a\nb\x1b[0m\u2028\x7fé") == r"a\nb\x1b[0m\u2028\x7fé"
    assert FileError(["a\nb", "a\nb", "c"]).lines == [r"a\nb", "c"]
