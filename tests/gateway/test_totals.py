"""Counters: glitches never count, what is confirmed does, and is told."""

import math
import random

import numpy as np
import pytest

from drivers.points import Point
from drivers.quality import BAD_DATA_UNAVAILABLE, BAD_TIMEOUT, GOOD
from gateway.acquire.plan import plan
from gateway.totals import GLITCH, JUMP, RESET, ROLLOVER, UNCONFIRMED, Totals
from tests.gateway import build

S = 1_000_000_000


class Meter:
    """One counter polled once a second: `poll` is given what the first read and the second one show."""

    def __init__(self, **fields):
        point = Point("total", "holding", 0, **{"type": "uint32", "kind": "counter", "unit": "kWh", **fields})
        table = plan(build.gateway([build.device("d", [build.tag(point)])])).table
        self.totals = Totals(table)
        self.time_ns = np.zeros(1, np.int64)
        self.value, self.quality = np.zeros(1), np.zeros(1, np.uint32)
        self.ready = np.zeros(1, np.int32)
        self.rereads = 0

    def poll(self, first, second=None, quality=GOOD):
        """Return (value that counts, None if it is bad; verdict, 0 for none)."""
        self.time_ns += S
        self.value[0], self.quality[0] = first, quality
        rows = self.totals.doubtful(self.ready, self.time_ns, self.value, self.quality)
        if rows.size:
            self.rereads += 1
            self.totals.doubt(rows, self.value)
            self.value[0] = first if second is None else second
        told = self.totals.update(self.ready, self.time_ns, self.value, self.quality)
        assert (self.quality[0] != GOOD) == (math.isnan(self.value[0]) or quality != GOOD)
        return None if self.quality[0] else float(self.value[0]), told[0][1] if told else 0


def running(n=30, rate=5, **fields):
    meter = Meter(**fields)
    for i in range(n):
        assert meter.poll(1000 + rate * i) == (1000 + rate * i, 0)
    assert not meter.rereads
    return meter, 1000 + rate * (n - 1)


@pytest.mark.parametrize("wrong", [0, 5, 4_000_000_000])
@pytest.mark.parametrize("fields", [{}, {"max_rate": 10.0}])
@pytest.mark.parametrize("polls", [5, 30])
def test_one_wrong_sample_never_counts(wrong, fields, polls):
    meter, last = running(polls, **fields)
    assert meter.poll(wrong, last + 5) == (last + 5, GLITCH)
    assert meter.poll(last + 10) == (last + 10, 0)
    assert meter.rereads == 1


def test_a_reset_that_is_confirmed_counts_and_is_told():
    meter, _ = running(max_rate=10.0)
    assert meter.poll(0, 0) == (0, RESET)
    assert meter.poll(5) == (5, 0)


def test_a_rollover_counts_and_is_told_as_such():
    for fields in ({}, {"max_rate": 10.0}):
        meter = Meter(width=16, **fields)
        for value in range(65_000, 65_536, 5):
            meter.poll(value)
        assert meter.poll(4) == (4, ROLLOVER), fields


def test_the_width_of_a_counter_is_that_of_its_type_in_its_own_unit():
    meter = Meter(scale=0.1, max_rate=2.0)
    top = 0.1 * 2**32
    meter.poll(top - 1)
    assert meter.poll(0.5) == (0.5, ROLLOVER)


def test_a_jump_beyond_the_given_rate_is_told_and_one_beyond_the_pace_only_confirmed():
    meter, _ = running(max_rate=10.0)
    assert meter.poll(9000, 9001) == (9001, JUMP)
    meter, _ = running()
    assert meter.poll(900_000, 900_001) == (900_001, 0)
    assert meter.rereads == 1


def test_two_samples_that_agree_with_nothing_are_bad_and_the_next_poll_decides():
    meter, last = running(max_rate=10.0)
    assert meter.poll(0, 77_777) == (None, UNCONFIRMED)
    assert meter.quality[0] == BAD_DATA_UNAVAILABLE
    assert meter.poll(last + 10) == (last + 10, GLITCH)


@pytest.mark.parametrize("kind", ["uint32", "float64"])
def test_a_counter_that_rested_is_right_from_the_first_poll_of_its_flow(kind):
    meter = Meter(type=kind)
    for _ in range(30):
        assert meter.poll(0) == (0, 0)
    for i in range(10):
        true = 20_000 * (i + 1)
        assert meter.poll(true, true + 200) == (true if i else true + 200, 0)
    assert meter.rereads == 1


@pytest.mark.parametrize("fields", [{}, {"max_rate": 1.0}])
def test_no_counter_is_bad_for_ever(fields):
    meter, _ = running(**fields, rate=1)
    found = [meter.poll(900_000 - 50 * i, 900_000 - 50 * i - 25)[0] for i in range(12)]
    assert 5 <= found.count(None) < 12


def test_the_width_counts_from_the_offset_and_a_negative_scale_counts_down():
    meter = Meter(width=16, offset=100_000.0)
    for value in range(65_000, 65_536, 5):
        meter.poll(100_000 + value)
    assert meter.poll(100_004) == (100_004, ROLLOVER)
    meter = Meter(scale=-0.5, width=16, max_rate=10.0)
    for i in range(30):
        assert meter.poll(-32_700.0 - i) == (-32_700.0 - i, 0)
    assert meter.poll(0, -32_730.0) == (-32_730.0, GLITCH)
    assert not meter.poll(-32_740.0)[1]
    for i in range(5):
        meter.poll(-32_745.0 - 5 * i)
    assert meter.poll(-1.0) == (-1.0, ROLLOVER)


def test_what_was_not_read_again_does_not_confirm_itself():
    meter, last = running(max_rate=10.0)
    meter.totals.doubt = lambda rows, value: None
    assert meter.poll(0) == (None, UNCONFIRMED)
    assert meter.poll(last + 10) == (last + 10, GLITCH)


def test_silence_is_no_doubt_and_what_was_missed_counts():
    meter, last = running(max_rate=10.0)
    for _ in range(60):
        assert meter.poll(0, quality=BAD_TIMEOUT)[0] is None
    assert meter.poll(last + 305) == (last + 305, 0)
    assert not meter.rereads


def test_a_load_that_rises_is_not_doubted():
    meter, last = running(rate=1)
    assert meter.poll(last + 90) == (last + 90, 0)
    assert not meter.rereads


def test_glitches_at_random_book_nothing():
    rng = random.Random(3)
    meter = Meter(max_rate=50.0)
    true = before = 1_000_000
    assert meter.poll(true) == (true, 0)
    for _ in range(5000):
        true += rng.randint(0, 40)
        wrong = rng.choice((0, 1, true // 2, true + 100_000, true * 2, 0xFFFFFFFF))
        found, _ = meter.poll(wrong if rng.random() < 0.1 else true, true)
        assert found == true
        assert found >= before
        before = found


def test_gauges_and_empty_tables_cost_nothing():
    table = plan(build.gateway([build.device("d", [build.tag(p) for p in build.registers(3)])])).table
    totals = Totals(table)
    assert not totals.has(table.scans[0])
    assert totals.update(np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(3), np.zeros(3, np.uint32)) == []


def test_the_kernel_is_what_python_makes_of_it(monkeypatch):
    import gateway.totals as module

    def story(meter):
        rng = random.Random(5)
        true, said = 60_000, []
        for _ in range(400):
            true += rng.randint(0, 60)
            wrong = rng.choice((0, true * 3, true - 1))
            said.append(meter.poll(wrong if rng.random() < 0.2 else true % 65_536, rng.choice((true % 65_536, wrong))))
        return said

    compiled = story(Meter(width=16, max_rate=100.0))
    monkeypatch.setattr(module, "judge", module.judge.py_func)
    assert story(Meter(width=16, max_rate=100.0)) == compiled
    assert {verdict for _, verdict in compiled} >= {GLITCH, ROLLOVER, RESET}
