"""Captures of real runs through link and decode again: each comes out as it did, and a broken guard is seen."""

import asyncio
import csv

import pytest

from drivers.errors import NoAnswer
from drivers.link import LinkSpec
from drivers.modbus import replay as replaying
from drivers.modbus.framing import MbapFraming
from drivers.modbus.link import ModbusLink
from gateway.capture.file import encode, read
from gateway.commands import words
from gateway.replay import virtual
from gateway.replay.capture import first_difference, replay_capture
from tests.gateway.capture import scenes

CASES = sorted(path.stem for path in scenes.DATA.glob("*.jsonl"))
ALL_BAD = {  # what a case must contain, lest it be a case of nothing
    "rtu_late_answer": "BadTimeout",
    "rtu_wrong_checksum_twice": "BadCommunicationError",
    "rtu_foreign_frame_instead": "BadTimeout",
    "tcp_silent": "BadNoCommunication",
    "tcp_nan": "BadSensorFailure",
}


def case(name):
    return read(scenes.DATA / f"{name}.jsonl")


def corridor(*arguments):
    options = words.parser().parse_args([str(word) for word in arguments])
    return options.run(options)


def differs(name):
    return first_difference(replay_capture(case(name)))


def test_every_scene_has_its_case():
    assert set(CASES) >= set(scenes.SCENES)


@pytest.mark.parametrize("name", CASES)
def test_a_capture_decodes_to_what_stands_beside_it(name, tmp_path):
    out = tmp_path / "out.csv"
    assert corridor("replay", scenes.DATA / f"{name}.jsonl", "--out", out) == 0
    assert out.read_text() == (scenes.DATA / f"{name}.csv").read_text()
    if wanted := ALL_BAD.get(name):
        assert wanted in out.read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_capture_that_begins_anywhere_replays_from_there(name):
    """What the link had learnt before is found in the traffic: ids, doubts, time-outs."""
    found = case(name)
    whole = [reading.read for reading in replay_capture(found)]
    for k in range(len(found.traffic)):
        tail = virtual.run(replaying.replay(found.link, found.traffic[k:]))
        assert [one.difference for one in tail] == [""] * len(tail), k
        assert [type(one.now) for one in tail] == [type(one.now) for one in whole[len(whole) - len(tail) :]]


@pytest.mark.parametrize("name", ["rtu_late_answer", "rtu_foreign_frame", "tcp_other_id", "tcp_silent"])
async def test_a_run_of_today_replays_too(name, tmp_path):
    path = tmp_path / "now.jsonl"
    path.write_bytes(encode(await scenes.run(scenes.SCENES[name])))
    readings = await asyncio.to_thread(replay_capture, read(path))
    assert first_difference(readings) == ""
    assert [r.values for r in readings if r.read.now != r.read.then and isinstance(r.read.now, bytes)] == []
    assert len(readings) == len(scenes.SCENES[name].reads)


def test_a_checksum_that_is_not_looked_at_is_seen(monkeypatch):
    class Any(bytes):
        __hash__ = bytes.__hash__

        def __eq__(self, other):
            return True

    right = replaying._crc_of(LinkSpec("l", "rtu"))
    monkeypatch.setattr(replaying, "_crc_of", lambda spec: lambda frame: Any(right(frame)))
    assert "now answer of 1 bytes" in differs("rtu_wrong_checksum_twice")


def test_a_transaction_id_that_is_not_looked_at_is_seen(monkeypatch):
    take = MbapFraming.take
    monkeypatch.setattr(MbapFraming, "take", lambda self, data: take(self, self._tid.to_bytes(2, "big") + data[2:]))
    assert differs("tcp_nan") == ""
    assert "now answer of 10 bytes 00 00" in differs("tcp_other_id")


def test_a_late_answer_without_a_fence_is_seen(monkeypatch):
    async def nothing(self, framing, unit, block):
        framing.doubts.clear()

    monkeypatch.setattr(ModbusLink, "_fence", nothing)
    assert "instead of" in differs("rtu_late_answer_fenced")


def test_a_difference_is_exit_1_and_named(tmp_path, capsys):
    lines = (scenes.DATA / "tcp_nan.jsonl").read_text().replace('"end","01"', '"end","00"')
    path = tmp_path / "other.jsonl"
    path.write_text(lines)
    assert corridor("replay", path, "--json") == 1
    told = capsys.readouterr()
    assert "device 'm1', function 1, 1 from 0: then answer of 1 bytes 00, now answer of 1 bytes 01" in told.err
    assert '"difference": "at 0.00' in told.out


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "cannot be read"),
        ("{}\n", "is no capture"),
        ('{"capture', "is no capture"),
        ('{"capture": 2}\n', "format 2, wanted 1"),
    ],
)
def test_what_is_no_capture_is_exit_1_and_says_so(tmp_path, capsys, content, wrong):
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_text(content)
    assert corridor("replay", path) == 1
    assert wrong in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_exit_1(tmp_path, capsys):
    assert corridor("replay", scenes.DATA / "tcp_nan.jsonl", "--out", tmp_path) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_csv_has_a_row_per_value(tmp_path):
    out = tmp_path / "out.csv"
    corridor("replay", scenes.DATA / "tcp_nan.jsonl", "--out", out)
    first, *rows = csv.reader(out.open())
    assert first == ["time", "device", "tag", "value", "quality"]
    assert rows[0][1:] == ["m1", "flow", "", "BadSensorFailure"]
    assert rows[1][1:] == ["m1", "total", "1234.5", "Good"]
    assert len(rows) == 8


def test_virtual_time_passes_at_once_and_a_deadlock_is_told():
    async def wait():
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400.0):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time() - began

    assert virtual.run(wait()) == pytest.approx(86_400.0)
    with pytest.raises(virtual.Deadlock):
        virtual.run(asyncio.Event().wait())


def test_outcomes_are_the_same_by_kind_and_payload():
    assert replaying.is_same(NoAnswer("a"), NoAnswer("b"))
    assert not replaying.is_same(b"\0", NoAnswer("a"))
    assert not replaying.is_same(b"\0", b"\1")
