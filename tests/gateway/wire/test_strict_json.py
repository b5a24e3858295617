"""JSON from a peer: every fault is a ValueError; JSON to a peer: always valid."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.catalog import Catalog, CatalogDevice, CatalogTag, decode
from gateway.wire.events import AlarmRecord, Event, decode_alarms, encode_alarms
from gateway.wire.strict_json import dumps, loads, number, text, whole

DEEP = 200_000
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(values)
def test_what_goes_out_can_be_read_whatever_it_was(value):
    loads(dumps(value))


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_a_value_error(payload):
    try:
        loads(payload)
    except ValueError:
        return


@pytest.mark.parametrize(
    "payload",
    [
        b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"1e999", b"-1e999", b"[" * DEEP, b'{"a":' * DEEP, b"\xff", b"",
        b'"\\ud800"', b'{"\\uDFFF":1}', b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", b"[1,]", b"9" * 5000,
    ],
    ids=lambda payload: payload[:20].decode(errors="replace"),
)  # fmt: skip
def test_what_is_not_strict_json_is_refused(payload):
    with pytest.raises(ValueError):
        loads(payload)


def test_what_is_strict_json_is_read():
    assert loads(b'{"a":[1,2.5,1e308,true,null,"\\ud83d\\ude00"],"b":"\xc3\xa9"}') == {
        "a": [1, 2.5, 1e308, True, None, "\U0001f600"],
        "b": "é",
    }


def test_numbers_that_are_not_finite_go_out_as_null():
    assert (
        dumps({"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "c": 1}) == b'{"a":null,"b":[null,[1.5,null]],"c":1}'
    )


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (text, 1), (text, None), (number, "1"), (number, True), (number, 10**400), (number, math.inf),
        (number, math.nan), (whole, 1.0), (whole, True), (whole, 2**63), (whole, -(2**63)), (whole, "7"), (whole, None),
    ],
)  # fmt: skip
def test_a_reader_refuses_the_wrong_type(read, value):
    with pytest.raises((TypeError, ValueError)):
        read(value)


def catalog(**changes):
    tag = CatalogTag(**{"name": "t", "unit": "bar", "kind": "gauge", "range": (0.0, 9.0), "limits": {"high": 7.0},
                        "period_s": 1.0, "decimals": 2, **changes})  # fmt: skip
    return Catalog("3f9a", [CatalogDevice("d", "p", "a", "l", 5, [tag], {"serial": "1"}, "meter", "skid")])


def test_a_catalog_with_infinities_is_valid_and_reads_as_one_without_them():
    assert decode(catalog().encode()) == catalog()
    sent = catalog(range=(0.0, math.inf), limits={"high": math.inf, "low": 1.0}).encode()
    json.loads(sent, parse_constant=lambda name: pytest.fail(name))
    (tag,) = decode(sent).devices[0].tags
    assert (tag.range, tag.limits) == (None, {"low": 1.0})


def test_an_event_with_a_value_that_is_not_finite_is_valid():
    sent = Event(1, 7, 1, "anomaly", "d", "t", 0, math.inf, "r", "x", score=math.nan).encode()
    assert (loads(sent)["value"], loads(sent)["score"]) == (None, None)


ALARM = AlarmRecord("d", "t", "low", "unacked", 2, 1, 2, 17.2, 18.0, "bar", "low", "l", 5, "a", "anna")


def test_alarms_read_back_and_a_key_of_a_newer_gateway_does_no_harm():
    assert decode_alarms(encode_alarms(1, [ALARM])) == [ALARM]
    assert decode_alarms(encode_alarms(1, [ALARM]).replace(b'{"device"', b'{"newer":1,"device"')) == [ALARM]


@pytest.mark.parametrize("wrong", [b"null", b"[]", b"{}", b"1e999", b"NaN", b'"7"', b"true"])
@pytest.mark.parametrize("field", [*(f'"{name}"' for name in ("device", "since", "priority", "kp_m", "value", "text"))])
def test_an_alarm_of_wrong_types_is_refused(field, wrong):
    sent = loads(encode_alarms(1, [ALARM]))["alarms"][0]
    parts = [f'"{k}":{json.dumps(v)}' if f'"{k}"' != field else f"{field}:{wrong.decode()}" for k, v in sent.items()]
    whole = f'{{"time":1,"alarms":[{{{",".join(parts)}}}]}}'.encode()
    if (field, wrong) in {('"kp_m"', b"null"), ('"value"', b"null"), ('"device"', b'"7"'), ('"text"', b'"7"')}:
        assert decode_alarms(whole)
        return
    with pytest.raises(ValueError):
        decode_alarms(whole)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"period_s":1.0', b'"period_s":1e300'), (b'"period_s":1.0', b'"period_s":-1'),
        (b'"period_s":1.0', b'"period_s":"1"'), (b'"limits":{"high":7.0}', b'"limits":null'),
        (b'"limits":{"high":7.0}', b'"limits":{"high":"x"}'), (b"[0.0,9.0]", b"[0.0]"), (b"[0.0,9.0]", b'["a","b"]'),
        (b'"name":"t"', b'"name":["t"]'), (b'"kp_m":5', b'"kp_m":5.5'), (b'"serial":"1"', b'"serial":{}'),
        (b'"devices":[', b'"devices":[3,'), (b'"unit":"bar"', b'"unit":NaN'),
    ],
)  # fmt: skip
def test_a_catalog_of_wrong_types_is_refused(old, new):
    sent = catalog().encode()
    assert old in sent
    with pytest.raises(ValueError):
        decode(sent.replace(old, new))
