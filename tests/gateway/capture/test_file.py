"""The capture file: what goes in comes out, and nothing that a disk or a stranger does to it becomes a traceback."""

import random

import pytest

from drivers import profile
from drivers.blocks import Block
from drivers.errors import (
    DeviceException,
    DriverError,
    LinkDown,
    NoAnswer,
    UnexpectedModel,
    Unidentified,
    WrongAnswer,
    device_exception,
)
from drivers.link import LinkSpec, SerialLine
from drivers.modbus import replay as replaying
from gateway.capture.file import CaptureError, capture_of, encode, read
from gateway.replay.capture import replay_capture
from tests.gateway import build
from tests.gateway.capture import scenes

LINK = LinkSpec("bus0", "rtu", path="/dev/ttyUSB0", serial=SerialLine(19200, 8, "E", 1), timeout_s=0.5)
ASK = (1, Block(3, 0, 1))


def capture(traffic, devices=None):
    devices = devices or [build.device("m1", [build.tag(p) for p in scenes.POINTS])]
    return capture_of(build.gateway(devices, links=[LINK]), LINK, "1.0", 17, ["timeout: m1"], traffic)


def kept(tmp_path, found):
    path = tmp_path / "c.jsonl"
    path.write_bytes(encode(found))
    return read(path)


def rewritten(tmp_path, line, old, new):
    """Return a path to a good capture with one thing changed in one line, counted from 1."""
    lines = (scenes.DATA / "rtu_late_answer.jsonl").read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(lines))
    return path


def leaves(kind=DriverError):
    return [leaf for one in kind.__subclasses__() for leaf in (one, *leaves(one))]


def test_traffic_comes_back_as_it_was(tmp_path):
    ends = [b"\0\1", NoAnswer("x"), WrongAnswer("y"), LinkDown("z\n\x1b"), *map(device_exception, range(1, 12))]
    traffic = [(5.0, "rx", b"\1"), (5.1, "end", b"")]
    for i, end in enumerate(ends):
        doubt = (((3, 10), (1, 1)), 0.25, (Block(1, 0, 9, 0), Block(3, 0, 1, 4, True)))
        traffic += [
            (6.0 + i, "ask", ASK), (6.1 + i, "up", b""), (6.2 + i, "doubt", doubt), (6.3 + i, "tx", b"\1\2"),
            (6.4 + i, "rx", b"\3"), (6.5 + i, "down", "gone"), (6.6 + i, "end", end),
        ]  # fmt: skip
    found = kept(tmp_path, capture(traffic))
    assert [kind for _, kind, _ in found.traffic] == [kind for _, kind, _ in traffic]
    for (then_s, kind, then), (now_s, _, now) in zip(traffic, found.traffic, strict=True):
        assert now_s == pytest.approx(then_s - 5.0, abs=2e-9)
        assert replaying.is_same(then, now) if kind == "end" else then == now
    assert (found.gateway, found.time_ns, found.why, found.link.serial) == ("gw1", 17, ("timeout: m1",), LINK.serial)


def test_every_error_of_a_read_can_be_written_and_read(tmp_path):
    of_who_asks = UnexpectedModel, Unidentified  # no link raises these: what it answered is in the capture
    for kind in leaves():
        if not issubclass(kind, (DeviceException, *of_who_asks)):
            found = kept(tmp_path, capture([(0.0, "ask", ASK), (0.1, "end", kind("x"))]))
            assert type(found.traffic[-1][2]) is kind


@pytest.mark.parametrize("name", profile.names())
def test_the_points_of_every_profile_come_back(tmp_path, name):
    found = profile.find(name)
    points = [p for p in found.points if not p.is_text]
    device = build.device("m", [build.tag(p, period_s=2.5) for p in points], enron=found.enron)
    (back,) = kept(tmp_path, capture([], [device])).devices
    assert back.enron == found.enron
    assert [(t.point.name, t.point.type, t.point.address, t.period_s) for t in back.tags] == [
        (p.name, p.type, p.address, 2.5) for p in points
    ]
    assert [(t.point.scale, t.point.offset, t.point.sentinels, t.point.range, t.point.bit) for t in back.tags] == [
        (p.scale, p.offset, p.sentinels, p.range, p.bit) for p in points
    ]


def test_a_read_that_goes_on_is_left_out():
    traffic = [(0.0, "ask", ASK), (0.1, "end", b"\0\1"), (0.2, "rx", b"\1"), (0.3, "ask", ASK), (0.4, "tx", b"\1")]
    assert [kind for _, kind, _ in capture(traffic).traffic] == ["ask", "end", "rx"]


def test_no_secret_and_no_endpoint_is_in_the_header():
    text = encode(capture([])).decode()
    assert not [word for word in ("ttyUSB0", "host", "port", "path", "key", "cert", "mqtt") if f'"{word}' in text]


@pytest.mark.parametrize(
    ("line", "old", "new", "wrong"),
    [
        (1, '"transport":"rtu"', '"transport":"ascii"', "link: transport"),
        (1, '"timeout_s":0.25', '"timeout_s":1e300', "timeout_s"),
        (1, '"baudrate":19200', '"baudrate":0', "baudrate"),
        (1, '"type":"float32"', '"type":"float31"', "unknown type"),
        (1, '"address":2', '"address":65535', "ends beyond"),
        (1, '"unit":2', '"unit":1', "unit 1 is given twice"),
        (1, '"unit":2', '"unit":3', "unit 2 belongs to no device"),
        (1, '"lines":', '"lines":9', "whole lines"),
        (1, '"gateway":"gw1"', '"gateway":"../x"', "gateway"),
        (2, "[0,", "[-1,", "time -1"),
        (2, "[0,", "[1e3,", "whole number"),
        (3, "[", "[99999999", "time 99999999"),
        (5, "[", "{", "line 5: Expecting"),
        (2, "[1,3,0,5,2,false]", "[9,3,0,5,2,false]", "unit 9 belongs to no device"),
        (2, "[1,3,0,5,2,false]", "[1,6,0,5,2,false]", "function 6"),
        (2, "[1,3,0,5,2,false]", "[1,3,0,2000,2,false]", "4000 bytes"),
        (2, "[1,3,0,5,2,false]", "[1,3,70000,5,2,false]", "start 70000"),
        (2, "[1,3,0,5,2,false]", "[1,3,0,5,2,0]", "is_once"),
        (2, "ask", "tell", "unknown kind 'tell'"),
        (3, "up", "ask", "'ask' while a read goes on"),
        (3, '""', '"00"', "a seed of 1 bytes"),
        (4, "01030000000585c9", "0103000000058", "hexadecimal"),
        (6, '"4148', '"', "wanted 10"),
    ],
)
def test_what_cannot_be_is_told_with_file_and_line(tmp_path, line, old, new, wrong):
    path = rewritten(tmp_path, line, old, new)
    with pytest.raises(CaptureError) as caught:
        read(path)
    assert caught.value.lines[0].startswith(f"{path}: ")
    assert wrong in "\n".join(caught.value.lines)


def test_a_file_cut_anywhere_is_told(tmp_path):
    raw = (scenes.DATA / "rtu_late_answer.jsonl").read_bytes()
    path = tmp_path / "c.jsonl"
    ends = [k for k, byte in enumerate(raw) if byte == ord("\n")]
    for n in sorted({*range(0, len(raw), 5), *(k + d for k in ends for d in (-1, 0, 1)), len(raw) - 1}):
        if n == len(raw):
            continue
        path.write_bytes(raw[:n])
        with pytest.raises(CaptureError):
            read(path)


def test_a_mutated_file_is_refused_or_replayed_and_never_a_traceback(tmp_path):
    rng = random.Random(7)
    path = tmp_path / "c.jsonl"
    refused = 0
    for name in ("rtu_late_answer_fenced", "tcp_silent", "tcp_garbage", "rtu_answer_twice"):
        raw = (scenes.DATA / f"{name}.jsonl").read_bytes()
        for _ in range(150):
            out = bytearray(raw)
            for _ in range(rng.choice((1, 1, 2, 5))):
                at = rng.randrange(raw.index(b"\n"), len(out)) if rng.random() < 0.8 else rng.randrange(len(out))
                out[at] = rng.choice((rng.randrange(256), *b'0123456789abcdef,[]"-'))
            path.write_bytes(out)
            try:
                found = read(path)
            except CaptureError:
                refused += 1
                continue
            replay_capture(found)
    assert 50 < refused < 550


def test_lines_of_other_captures_in_any_order_are_refused_or_replayed(tmp_path):
    rng = random.Random(8)
    path = tmp_path / "c.jsonl"
    for name in ("rtu_late_answer_fenced", "tcp_silent"):
        head, *lines = (scenes.DATA / f"{name}.jsonl").read_text().splitlines()
        for _ in range(100):
            cut = sorted(rng.sample(lines, len(lines) - rng.randrange(1, 6)), key=lambda s: int(s[1 : s.index(",")]))
            path.write_text("\n".join([head.replace(f'"lines":{len(lines)}', f'"lines":{len(cut)}'), *cut, ""]))
            try:
                found = read(path)
            except CaptureError:
                continue
            replay_capture(found)
