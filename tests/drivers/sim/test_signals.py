"""Signals are functions of seed and time alone."""

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.sim.signals import (
    GAUSS_BOUND,
    Integral,
    Lag,
    Shared,
    cycles,
    duty,
    gauss,
    key_of,
    ramp,
    smooth,
    uniform,
    wander,
    white,
)  # fmt: skip

T0 = 1_760_000_000.0
MAKERS = [
    lambda key: white(key),
    lambda key: smooth(key, 60.0),
    lambda key: wander(key, 600.0),
    lambda key: duty(key, 120.0, 0.4),
]


@pytest.mark.parametrize("make", MAKERS)
def test_the_order_of_asking_does_not_matter(make):
    times = [T0 + 0.37 * i for i in range(500)]
    forward = [make(7)(t) for t in times]
    signal = make(7)
    assert [signal(t) for t in reversed(times)] == forward[::-1]
    assert [make(8)(t) for t in times] != forward


@given(st.integers(0, 2**64 - 1), st.integers(-(2**40), 2**40))
def test_draws_stay_in_their_bounds(key, n):
    assert 0.0 <= uniform(key, n) < 1.0
    assert abs(gauss(key, n)) <= GAUSS_BOUND


def test_gauss_is_white_with_mean_0_and_sd_1():
    draws = [gauss(key_of(1, "x"), n) for n in range(20_000)]
    assert statistics.mean(draws) == pytest.approx(0.0, abs=0.03)
    assert statistics.pstdev(draws) == pytest.approx(1.0, abs=0.02)
    lag1 = statistics.mean(a * b for a, b in itertools.pairwise(draws))
    assert lag1 == pytest.approx(0.0, abs=0.03)


def test_smooth_is_continuous_and_bounded():
    signal = smooth(3, 10.0)
    values = [signal(T0 + 0.01 * i) for i in range(20_000)]
    assert max(abs(b - a) for a, b in itertools.pairwise(values)) < 2 * 1.5 * 0.01 / 10.0 + 1e-9
    assert max(map(abs, values)) <= 1.0
    assert statistics.pstdev(values) > 0.2


def test_a_cycle_begins_in_order_and_never_in_the_future():
    cycle = cycles(5, 100.0)
    before = cycle(T0)
    for i in range(1, 4000):
        n, since = cycle(T0 + i)
        assert 0.0 <= since <= 125.0
        assert n >= before[0]
        before = (n, since)


def test_duty_is_on_for_its_share():
    signal = duty(9, 100.0, 0.3)
    assert statistics.mean(signal(T0 + i) for i in range(20_000)) == pytest.approx(0.3, abs=0.03)


def test_ramp_runs_from_0_to_1():
    assert [ramp(x, 4.0) for x in (-1.0, 0.0, 2.0, 4.0, 9.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_an_integral_is_exact_for_a_constant_and_repeatable_in_any_order():
    total = Integral(lambda t: (2.0, t - T0), T0)
    assert total(T0 + 10.25)[0] == pytest.approx(20.5)
    late = total(T0 + 100.5)
    assert late[1] == pytest.approx(100.5**2 / 2, rel=1e-3)
    early = total(T0 + 3.5)
    assert total(T0 + 100.5) == late
    assert Integral(lambda t: (2.0, t - T0), T0)(T0 + 3.5) == early
    assert total(T0 - 5.0) == (0.0, 0.0)


def test_a_lag_answers_a_step_as_an_exponential():
    lag = Lag(lambda t: 1.0, 100.0, T0, 0.0, step_s=1.0)
    assert lag(T0 + 100.0) == pytest.approx(1.0 - math.exp(-1.0), abs=0.002)
    assert lag(T0) == 0.0


def test_shared_evaluates_once_per_moment():
    calls = []
    shared = Shared(lambda t: calls.append(t) or t)
    assert [shared(1.0), shared(1.0), shared(2.0)] == [1.0, 1.0, 2.0]
    assert calls == [1.0, 2.0]
