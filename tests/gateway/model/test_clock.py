"""The machine's clock keeps its word."""

import asyncio
import time

import pytest

from gateway.model import clock
from gateway.model.clock import NS, SystemClock

MS = 1_000_000


async def test_nobody_is_woken_before_the_moment_even_by_a_loop_that_fires_early():
    loop = asyncio.get_running_loop()
    loop._clock_resolution = 0.005  # what a loop takes for the same moment

    async def keep_awake():
        while True:
            await asyncio.sleep(0)

    awake = asyncio.create_task(keep_awake())
    ours = SystemClock()
    at_ns = ours.monotonic_ns() + 20 * MS
    await ours.sleep_until(at_ns)
    assert ours.monotonic_ns() >= at_ns
    awake.cancel()


async def test_a_moment_that_has_passed_lets_others_run_once():
    ours, ran = SystemClock(), []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await ours.sleep_until(ours.monotonic_ns() - 1)
    assert ran == [1]


class Machine:
    """The machine's wall clock and what its kernel says of it, at will."""

    def __init__(self, monkeypatch, state):
        self.state, self.ahead_ns, self.asleep_ns = state, 0, 0
        real = clock._machine_offset_ns
        monkeypatch.setattr(clock, "_machine_offset_ns", lambda: real() + self.ahead_ns)
        monkeypatch.setattr(clock, "_asleep_ns", lambda: self.asleep_ns)
        monkeypatch.setattr(clock, "clock_state", lambda: self.state)
        monkeypatch.setattr(clock, "LOOK_NS", 0)


def wall_s(ours):
    return ours.wall_ns(ours.monotonic_ns()) / NS


@pytest.mark.parametrize("hours", [-1, 1, 24 * 3650, -(24 * 3650)])
def test_a_step_of_a_clock_that_nobody_has_synchronised_moves_no_stamp_and_is_told_once(monkeypatch, hours):
    machine = Machine(monkeypatch, "unsynced")
    ours = SystemClock()
    assert ours.news() == ["the clock is not synchronised: stamps may be wrong"]
    machine.ahead_ns = hours * 3600 * NS
    for _ in range(3):
        assert wall_s(ours) == pytest.approx(time.time(), abs=1.0)
    (told,) = ours.news()
    assert f"moved to {hours * 3600.0:+.1f} s" in told
    assert ours.offset_s == pytest.approx(hours * 3600, abs=1)
    machine.state = "synced"
    assert wall_s(ours) == pytest.approx(time.time() + hours * 3600, abs=1.0)
    first, second = ours.news()
    assert first == "the clock is synced, it was unsynced"
    assert f"set by {hours * 3600.0:+.1f} s" in second
    assert ours.offset_s == 0.0


@pytest.mark.parametrize("state", ["synced", "unknown"])
def test_a_step_of_a_clock_that_is_synchronised_is_followed(monkeypatch, state):
    machine = Machine(monkeypatch, state)
    ours = SystemClock()
    machine.ahead_ns = -3600 * NS
    assert wall_s(ours) == pytest.approx(time.time() - 3600, abs=1.0)
    (told,) = ours.news()
    assert "stamps wait until it has caught up" in told


def test_a_clock_that_was_synchronised_holds_over_and_does_not_follow_steps(monkeypatch):
    machine = Machine(monkeypatch, "synced")
    ours = SystemClock()
    machine.state, machine.ahead_ns = "unsynced", 5 * NS
    assert wall_s(ours) == pytest.approx(time.time(), abs=1.0)
    assert (ours.state, round(ours.offset_s)) == ("holdover", 5)


@pytest.mark.parametrize("state", ["synced", "holdover", "unsynced", "unknown"])
def test_stamps_go_on_with_the_time_that_a_machine_has_slept(monkeypatch, state):
    machine = Machine(monkeypatch, "synced" if state == "holdover" else state)
    ours = SystemClock()
    machine.state = "unsynced" if state == "holdover" else state
    wall_s(ours)
    ours.news()
    machine.asleep_ns = machine.ahead_ns = 3600 * NS  # the kernel gives both clocks the same time of a sleep
    assert wall_s(ours) == pytest.approx(time.time() + 3600, abs=1.0)
    assert (ours.state, ours.offset_s) == (state, 0.0)
    assert ours.news() == ["the machine slept for 3600.0 s"]


def test_discipline_is_followed_and_no_step(monkeypatch):
    machine = Machine(monkeypatch, "unsynced")
    ours = SystemClock()
    ours.news()
    before = ours.wall_ns(0)
    machine.ahead_ns = 200 * MS
    assert ours.wall_ns(0) - before == pytest.approx(200 * MS, abs=MS)
    assert ours.news() == []


def test_time_goes_on_from_the_last_stamp_where_the_machine_has_forgotten_it(monkeypatch):
    machine = Machine(monkeypatch, "unsynced")
    machine.ahead_ns = -50 * 365 * 86_400 * NS
    ours = SystemClock()
    last = time.time_ns() + 60 * NS
    ours.not_before(last)
    assert last <= ours.wall_ns(ours.monotonic_ns()) < last + NS
    told = ours.news()
    assert any("behind the last stamp" in one for one in told)
    assert not any("moved" in one for one in told)  # nobody did
    assert ours.offset_s == pytest.approx(-50 * 365 * 86_400 - 60, abs=1)
    machine.state = "synced"
    other = SystemClock()
    other.not_before(last)
    assert wall_s(other) < 1e9  # who is synchronised knows better; stamps wait


def test_stamps_are_whole_microseconds_and_their_offset_rests(monkeypatch):
    monkeypatch.setattr(clock, "LOOK_NS", 0)
    ours = SystemClock()
    offsets = {ours.wall_ns(0) for _ in range(200)}
    assert all(offset % 1000 == 0 for offset in offsets)
    assert len(offsets) <= 3  # a loaded machine may be slow between two looks
