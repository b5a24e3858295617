"""What a store may have: the check that stands before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.check import AHEAD_NS, check, fault
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
        ("=1", "not line protocol"),
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


def test_escapes_in_tags_pass() -> None:
    assert fault(line(series=SERIES + rb",asset=meter\ run\,1\=a"), OWNER, NOW) == ""
    assert fault(line(series=SERIES + ",asset=Zähler".encode()), OWNER, NOW) == ""


@given(st.binary(max_size=60) | st.text(alphabet='a,= "\\.1e-i#\n', max_size=40).map(str.encode))
def test_no_bytes_break_the_check(tail: bytes) -> None:
    text = SERIES + tail
    if not fault(text, OWNER, NOW):
        parse_line(text.decode())


def test_frames_and_lines_must_match() -> None:
    topic = topics.parse("corridor/v1/link43/ps1/gw/ft-101/data")
    assert topic
    good = b"# boot=7 seq=3,1-2 empty=9 catalog=x\n" + b"\n".join([line(), line("mass=1i"), line()]) + b"\n"
    found = check(topic, good, NOW)
    assert found.seqs == [3, 2]
    assert [(seq, text) for seq, text, _ in found.refused] == [(1, line("mass=1i"))]
    assert found.header.empty == [(9, 9)]
    for head in (b"# boot=7 seq=1-2 catalog=x\n", b"# boot=7 seq=1-1000000000000 catalog=x\n", b"# boot=7 catalog=x\n"):
        with pytest.raises(PayloadError, match="frames, the message has 3 lines"):
            check(topic, head + good.partition(b"\n")[2], NOW)
    for payload in (b"", line(), b"# hello\n" + line(), b"# boot=x seq=1 catalog=y\n" + line()):
        with pytest.raises(PayloadError):
            check(topic, payload, NOW)
