"""The alarm table, whole, and the engine that walks it."""

import itertools
from dataclasses import replace

import pytest

from drivers.points import Point
from gateway.acquire.plan import plan
from gateway.alarm.engine import AlarmEngine
from gateway.alarm.journal import Journal
from gateway.alarm.state import TRANSITIONS, State, Step, after
from gateway.detect import flags
from gateway.wire.events import encode_alarms
from tests.gateway import build


@pytest.mark.parametrize(("state", "step"), list(itertools.product(State, Step)))
def test_every_state_answers_every_step(state, step):
    found = after(state, step)
    assert found in State
    assert found is TRANSITIONS.get((state, step), state)


def test_acknowledge_never_hides_an_active_alarm():
    assert after(State.UNACKED, Step.ACK) is State.ACKED
    assert after(State.ACKED, Step.ACK) is State.ACKED


def test_an_alarm_that_went_away_unseen_is_still_to_be_seen():
    assert after(State.UNACKED, Step.CLEAR) is State.RTN_UNACKED
    assert after(State.RTN_UNACKED, Step.ACK) is State.NORMAL


@pytest.fixture
def engine():
    point = Point("flow", "holding", 0, "float32", unit="kg/s")
    tag = build.tag(point, limits=(build.NAN, 10.0, 250.0, build.NAN), priority=2)
    device = build.device("ft-101", [tag], line="pipe-a", kp_m=132400, asset="run-1")
    return AlarmEngine(plan(build.gateway([device])).table)


def test_a_limit_alarm_lives_its_life(engine):
    moved = engine.tag(0, flags.HIGH, Step.RAISE, 100, 251.5)
    record = moved.record
    assert record.key == "ft-101/flow/high"
    assert (record.state, record.priority, record.value, record.limit, record.unit) == (
        "unacked",
        2,
        251.5,
        250.0,
        "kg/s",
    )
    assert (record.line, record.kp_m, record.asset) == ("pipe-a", 132400, "run-1")
    assert engine.tag(0, flags.HIGH, Step.RAISE, 101, 252.0) is None
    acked = engine.acknowledge("ft-101/flow/high", "anna", 102)
    assert (acked.record.state, acked.record.by, acked.record.since) == ("acked", "anna", 100)
    assert [a.state for a in engine.standing()] == ["acked"]
    assert engine.acknowledge("ft-101/flow/high", "ben", 103) == "'ft-101/flow/high' is acked already"
    assert engine.tag(0, flags.HIGH, Step.CLEAR, 104, 240.0).record.state == "normal"
    assert engine.standing() == []
    assert engine.acknowledge("ft-101/flow/high", "ben", 105) == "no standing alarm 'ft-101/flow/high'"


def test_low_and_high_are_alarms_of_their_own(engine):
    engine.tag(0, flags.HIGH, Step.RAISE, 100, 251.0)
    engine.tag(0, flags.LOW, Step.RAISE, 101, 9.0)
    assert [a.alarm for a in engine.standing()] == ["high", "low"]
    assert engine.revision == 2


def test_a_device_has_one_communication_alarm(engine):
    assert engine.device(0, Step.RAISE, 100).record.key == "ft-101//communication"
    assert engine.device(0, Step.RAISE, 101) is None
    assert engine.device(0, Step.CLEAR, 102).record.state == "rtn_unacked"
    assert engine.acknowledge("ft-101//communication", "anna", 103).record.state == "normal"


def test_alarms_outlive_a_restart_and_those_beyond_their_limit_are_named(engine, tmp_path):
    engine.tag(0, flags.HIGH, Step.RAISE, 100, 251.0)
    engine.acknowledge("ft-101/flow/high", "anna", 102)
    engine.tag(0, flags.LOW, Step.RAISE, 103, 9.0)
    engine.tag(0, flags.LOW, Step.CLEAR, 104, 11.0)
    engine.device(0, Step.RAISE, 105)
    journal = Journal(tmp_path)
    journal.stand(encode_alarms(106, engine.standing()))
    journal.close()
    again = AlarmEngine(engine._table)
    assert again.restore(Journal(tmp_path).standing()) == ([(0, flags.HIGH)], [])
    assert again.standing() == engine.standing()
    assert again.tag(0, flags.HIGH, Step.CLEAR, 107, 240.0).record.state == "normal"
    assert again.acknowledge("ft-101/flow/low", "ben", 108).record.state == "normal"


def test_an_alarm_that_the_configuration_forgot_stands_no_more(engine):
    engine.tag(0, flags.HIGH, Step.RAISE, 100, 251.0)
    known = engine.standing()[0]
    again = AlarmEngine(engine._table)
    unknown = [replace(known, tag="gone"), replace(known, alarm="high_high"), replace(known, state="nonsense")]
    assert again.restore(unknown) == ([], unknown)
    assert again.standing() == []
    assert again.revision == 3  # what is kept of them must be written anew


@pytest.mark.parametrize("content", [b"", b"{", b'{"alarms":[{}]}', b"\xff" * 9, b"[" * 100_000])
def test_damaged_alarms_are_told_and_forgotten(tmp_path, content, caplog):
    (tmp_path / "alarms.json").write_bytes(content)
    assert Journal(tmp_path).standing() == []
    assert "cannot be read" in caplog.text
