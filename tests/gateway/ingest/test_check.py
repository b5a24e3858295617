"""What a store may have: the check that stands before it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import toml
from gateway.ingest.check import AHEAD_NS, NAME, check, fault
from gateway.wire import topics
from gateway.wire.lines import PayloadError, parse_line

NOW = 1_764_000_000_000_000_000
OWNER = ("link43", "ps1", "gw", "ft-101")
SERIES = b"flow_meter,corridor=link43,site=ps1,gateway=gw,device=ft-101"


def line(fields: str = "mass=1.5", time: object = NOW, series: bytes = SERIES) -> bytes:
    return series + f" {fields} {time}".encode()


@pytest.mark.parametrize(
    "fields",
    ["mass=1", "mass=-0.5,rho=861.2", "mass=1e-05", "mass=1.5E+300", "mass=0", "a.b-c_d=1", "mass=123456789012345678"],
)
def test_a_float_passes(fields: str) -> None:
    assert fault(line(fields), OWNER, NOW) == ""


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("mass=1i", "'mass' is '1i'"),
        ("mass=1.5,ok=true", "'ok' is 'true'"),
        ("mass=t", "'t'"),
        ('mass="text"', "wanted a finite float"),
        ("mass=nan", "'nan'"),
        ("mass=Inf", "'Inf'"),
        ("mass=-inf", "'-inf'"),
        ("mass=1e999", "beyond what a float can hold"),
        ("mass=" + "9" * 400, "beyond what a float can hold"),
        ("mass=", "''"),
        ("mass", "'mass' is ''"),
        ("mass=1,", "''"),
        ("=1", "'' has a name that no gateway gives"),
        ("time=1", "'time' has a name that no gateway gives"),
        ("mass=1,time=1", "'time' has a name"),
        ("m" * 65 + "=1", "has a name"),
        ("-mass=1", "has a name"),
        ("zähler=1", "has a name"),
        ("mass\x00=1", "has a name"),
        ("mass=1_0", "'1_0'"),
        ("mass=0x10", "'0x10'"),
    ],
)
def test_anything_else_does_not(fields: str, reason: str) -> None:
    assert reason in fault(line(fields), OWNER, NOW)


@pytest.mark.parametrize(
    "time", [0, 17, NOW // 1000, 999_999_999_999_999_999, "", "then", f"{NOW}.5", f"-{NOW}", 10**19]
)
def test_a_time_that_is_not_nanoseconds_of_this_age_does_not(time: object) -> None:
    assert "wanted nanoseconds after 2001" in fault(line(time=time), OWNER, NOW)


def test_a_time_may_be_a_day_ahead_and_no_more() -> None:
    assert fault(line(time=NOW + AHEAD_NS), OWNER, NOW) == ""
    assert "a day ahead" in fault(line(time=NOW + AHEAD_NS + 1), OWNER, NOW)
    assert "a day ahead" in fault(line(time=2**63 + 1), OWNER, NOW)


@pytest.mark.parametrize("name", ["corridor", "site", "gateway", "device"])
def test_a_line_must_belong_to_the_device_of_its_topic(name: str) -> None:
    value = dict(zip(("corridor", "site", "gateway", "device"), OWNER, strict=True))[name].encode()
    other = SERIES.replace(b"%s=%s" % (name.encode(), value), b"%s=other" % name.encode())
    assert f"its tag {name} is 'other'" in fault(line(series=other), OWNER, NOW)
    absent = SERIES.replace(b",%s=%s" % (name.encode(), value), b"")
    assert f"its tag {name} is None" in fault(line(series=absent), OWNER, NOW)


@pytest.mark.parametrize("text", [b"garbage", b"a b", b"a b c d", b"a,b c=1 %d" % NOW, b"\xff,a=b c=1 %d" % NOW, b" "])
def test_what_is_no_line_protocol_does_not(text: bytes) -> None:
    assert fault(text, OWNER, NOW)


@pytest.mark.parametrize(
    "series",
    [
        SERIES + rb",asset=meter\ run\,1\=a",
        SERIES + ",asset=Zähler".encode(),
        SERIES + b",asset=a\xff",
        SERIES + b",asset=",
        SERIES + b",time=1",
        SERIES + b",b\xffd=1",
        SERIES + b",device=ft-101",
        SERIES + b",asset=" + b"a" * 65,
        b"m\xff" + SERIES,
        b"m\x00" + SERIES,
        b"-" + SERIES,
    ],
)
def test_names_that_no_configuration_can_have_do_not_pass(series: bytes) -> None:
    assert fault(line(series=series), OWNER, NOW)


def test_a_byte_that_is_not_utf8_never_reaches_a_store() -> None:
    assert "'v\ufffd' has a name that no gateway gives" in fault(SERIES + b" v\xff=1 %d" % NOW, OWNER, NOW)


def test_the_names_are_those_of_the_configuration() -> None:
    for name in ("a", "_a", "9.b-c_D", "a" * 64, "", "-a", ".a", "a b", "a=b", "é", "a" * 65, "a\n"):
        is_ours = re.search(toml.NAME, name) is not None and len(name) <= toml.MAX_NAME and not name.endswith("\n")
        assert (re.fullmatch(NAME, name.encode()) is not None) == is_ours, name


@given(st.binary(max_size=60) | st.text(alphabet='a,= "\\.1e-i#\n', max_size=40).map(str.encode))
def test_no_bytes_break_the_check(tail: bytes) -> None:
    text = SERIES + tail
    if not fault(text, OWNER, NOW):
        parse_line(text.decode())
    fault(line().replace(b"mass", b"mass" + tail), OWNER, NOW).encode()


def test_frames_and_lines_must_match() -> None:
    topic = topics.parse("corridor/v1/link43/ps1/gw/ft-101/data")
    assert topic
    good = b"# boot=7 seq=3,1-2 empty=9 catalog=x\n" + b"\n".join([line(), line("mass=1i"), line()]) + b"\n"
    found = check(topic, good, NOW)
    assert found.seqs == [3, 2]
    assert [(seq, text) for seq, text, _ in found.refused] == [(1, line("mass=1i"))]
    assert found.header.empty == [(9, 9)]
    for head in (b"# boot=7 seq=1-2 catalog=x\n", b"# boot=7 catalog=x\n"):
        with pytest.raises(PayloadError, match="frames, the message has 3 lines"):
            check(topic, head + good.partition(b"\n")[2], NOW)
    for payload in (b"", line(), b"# hello\n" + line(), b"# boot=x seq=1 catalog=y\n" + line()):
        with pytest.raises(PayloadError):
            check(topic, payload, NOW)


@pytest.mark.parametrize(
    "head",
    [
        f"boot={10**30} seq=1",
        f"boot={2**63} seq=1",
        "boot=0 seq=1",
        "boot=-3 seq=1",
        "boot=1 seq=0",
        f"boot=1 seq={10**30}",
        f"boot=1 seq=1 empty={2**63}",
        "boot=1 seq=1 empty=1-999999999999",
        "boot=1 seq=1-1000000000000",
        "boot=" + "9" * 5000 + " seq=1",
    ],
)
def test_numbers_that_no_gateway_counts_to_are_refused_with_a_short_reason(head: str) -> None:
    topic = topics.parse("corridor/v1/link43/ps1/gw/ft-101/data")
    assert topic
    with pytest.raises(PayloadError) as refused:
        check(topic, f"# {head} catalog=x\n".encode() + line() + b"\n", NOW)
    assert len(str(refused.value)) < 300
