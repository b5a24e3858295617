"""What was learnt survives a restart and another meter under the same name; no file can do harm."""

import json
import logging
from dataclasses import replace

import pytest

from drivers.link import LinkSpec
from drivers.points import Hole
from gateway.acquire.cost import cost_of
from gateway.acquire.memory import FILE, Learnt, Memory
from gateway.acquire.plan import plan
from tests.gateway import build

LEARNT = Learnt((Hole("holding", 3, 1), Hole("input", 40, 2)), 60, 500, 0.031)


def spec(points=None, link="10.0.0.5", **fields):
    tags = [build.tag(p) for p in points or build.registers(8)]
    made = build.gateway([build.device("d", tags, **fields), build.device("e", tags, unit=9)])
    return replace(made, links=(LinkSpec("bus0", "tcp", link, 502),))


def kept(folder, learnt=LEARNT):
    memory = Memory(spec(), folder)
    memory.keep("d", learnt)
    memory.commit()
    return folder / FILE


def test_what_was_kept_is_known_after_a_restart(tmp_path):
    kept(tmp_path)
    again = Memory(spec(), tmp_path)
    assert again.of("d") == LEARNT
    assert again.of("e") == Learnt()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "other",
    [spec(unit=2), spec(link="10.0.0.6"), spec(build.registers(9)), spec(build.registers(8, kind="int16"))],
    ids=["unit", "link", "points", "types"],
)
def test_another_meter_under_the_same_name_starts_anew(tmp_path, other):
    kept(tmp_path)
    assert Memory(other, tmp_path).of("d") == Learnt()


def test_other_tags_of_the_same_meter_change_nothing(tmp_path):
    kept(tmp_path)
    (device, other), tags = spec().devices, spec().devices[0].tags
    fewer = replace(device, tags=(replace(tags[0], period_s=7.0), tags[1]))
    assert Memory(replace(spec(), devices=(fewer, other)), tmp_path).of("d") == LEARNT


def test_the_file_is_written_after_a_change_only(tmp_path):
    path = kept(tmp_path)
    memory = Memory(spec(), tmp_path)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    memory.keep("d", LEARNT)
    memory.commit()
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    memory.keep("d", Learnt())
    memory.commit()
    memory.commit()
    assert json.loads(path.read_text()) == {"devices": {}}


def test_a_disk_that_refuses_is_tried_again(tmp_path):
    memory = Memory(spec(), tmp_path / "absent")
    memory.keep("d", LEARNT)
    with pytest.raises(OSError, match="absent"):
        memory.commit()
    (tmp_path / "absent").mkdir()
    memory.commit()
    assert Memory(spec(), tmp_path / "absent").of("d") == LEARNT


def test_without_a_folder_nothing_is_written():
    memory = Memory(spec())
    memory.keep("d", LEARNT)
    memory.commit()
    assert memory.of("d") == LEARNT


def altered(path, **changes):
    table = json.loads(path.read_text())
    table["devices"]["d"].update(changes)
    return json.dumps(table).encode()


HOSTILE = {
    "empty": lambda path: b"",
    "torn": lambda path: path.read_bytes()[:40],
    "binary": lambda path: bytes(range(256)),
    "a list": lambda path: b"[1]",
    "a number": lambda path: b"7",
    "no devices": lambda path: b"{}",
    "devices a list": lambda path: b'{"devices": ["d"]}',
    "a device of text": lambda path: b'{"devices": {"d": "x"}}',
    "no meter": lambda path: b'{"devices": {"d": {}}}',
    "deep": lambda path: b'{"devices":' + b"[" * 100_000,
    "huge": lambda path: b'{"devices": {}}' + b" " * 4_000_001,
    "NaN": lambda path: path.read_bytes().replace(b"0.031", b"NaN"),
    "infinite": lambda path: path.read_bytes().replace(b"0.031", b"1e999"),
    "negative": lambda path: altered(path, turnaround_s=-1),
    "a limit of 0": lambda path: altered(path, max_registers=0),
    "a limit of text": lambda path: altered(path, max_bits="9"),
    "a limit of yes": lambda path: altered(path, max_bits=True),
    "refused is a table": lambda path: altered(path, refused={}),
    "an unknown function": lambda path: altered(path, refused=[{"function": "write", "start": 0, "count": 1}]),
    "a function that is a list": lambda path: altered(path, refused=[{"function": [], "start": 0, "count": 1}]),
    "beyond the end": lambda path: altered(path, refused=[{"function": "holding", "start": 65535, "count": 2}]),
    "nothing refused": lambda path: altered(path, refused=[{"function": "holding", "start": 1, "count": 0}]),
    "too many": lambda path: altered(path, refused=[{"function": "holding", "start": 1, "count": 1}] * 5000),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_cannot_be_ours_is_one_log_line_and_nothing_else(tmp_path, caplog, content):
    path = kept(tmp_path)
    path.write_bytes(content(path))
    with caplog.at_level(logging.INFO):
        memory = Memory(spec(), tmp_path)
    assert memory.of("d") == Learnt()
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    memory.keep("d", LEARNT)
    memory.commit()
    assert Memory(spec(), tmp_path).of("d") == LEARNT


def test_a_folder_in_place_of_the_file_is_one_log_line(tmp_path, caplog):
    (tmp_path / FILE).mkdir()
    assert Memory(spec(), tmp_path).of("d") == Learnt()
    assert len(caplog.records) == 1


def test_a_turnaround_is_news_when_it_differs_and_the_plan_heeds_it(tmp_path):
    memory = Memory(spec(), tmp_path)
    made = plan(spec(), memory)
    (link,) = made.spec.links
    for seconds, known in ((0.1, 0.1), (0.12, 0.1), (0.2, 0.2), (0.0, 0.2), (-1.0, 0.2), (1e9, 0.2), (0.16, 0.2)):
        memory.note_turnaround("d", seconds)
        assert memory.of("d").turnaround_s == known
        assert made.devices[0].cost == cost_of(link, known)
    assert made.devices[1].cost == cost_of(link)
    memory.commit()
    assert Memory(spec(), tmp_path).of("d").turnaround_s == 0.2
