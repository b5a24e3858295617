"""A column of times gives, to the last bit, the column of what each time gives."""

import math

import numpy as np
import pytest

from drivers.sim import columns
from drivers.sim.plants.place import World
from drivers.sim.plants.weather import Weather
from drivers.sim.signals import Integral, Lag, cycles, daily, duty, ramp, smooth, uniform, wander, white

T0 = 1_760_000_000.0


def of(thing, pick):
    return lambda t: pick(thing, t)


SIGNALS = {
    "white": lambda: white(5),
    "smooth": lambda: smooth(5, 70.0),
    "wander": lambda: wander(5, 700.0),
    "daily": lambda: daily(15.0),
    "duty": lambda: duty(5, 90.0, 0.4),
    "cycle": lambda: of(cycles(5, 60.0, 0.3), lambda cycle, t: cycle(t)[1]),
    "cycle number": lambda: of(cycles(5, 60.0, 0.3), lambda cycle, t: cycle(t)[0]),
    "drawn by cycle": lambda: of(cycles(5, 60.0, 0.3), lambda cycle, t: uniform(2**64 - 3, cycle(t)[0])),
    "ramp": lambda: lambda t: ramp(t - T0, 50.0),
    "integral": lambda: of(Integral(lambda t: (2.0, math.pi * (t - T0)), T0), lambda total, t: total(t)[1]),
    "lag": lambda: Lag(smooth(5, 70.0), 100.0, T0, 0.3),
    "gust": lambda: of(Weather(World(1, T0), "quay"), lambda weather, t: weather.gust(t, 120.0)),
}
RANDOM = np.random.default_rng(1)
TIMES = {
    "in a row": T0 + 1.0 * np.arange(700),
    "dense": T0 + 50.0 + 0.01 * np.arange(3000),
    "far apart": T0 + 3600.0 * np.arange(30),
    "in no order": T0 + RANDOM.uniform(0.0, 5000.0, 300),
    "one": np.array([T0 + 77.7]),
}


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("times", TIMES)
def test_a_signal_of_a_column(name, times):
    whole, alone = SIGNALS[name](), SIGNALS[name]()
    wanted = [alone(t) for t in TIMES[times].tolist()]
    assert whole(TIMES[times]).tolist() == wanted
    assert whole(TIMES[times][::-1].copy()).tolist() == wanted[::-1]
    assert [alone(T0 + 300.0), alone(T0 + 3.0)] == [whole(np.array([T0 + at]))[0] for at in (300.0, 3.0)]


def test_draws_of_negative_numbers_and_of_any_key():
    for key in (0, 1, 2**63, 2**64 - 1):
        n = np.array([-(2**40), -3, -1, 0, 1, 2**40, 7])
        assert columns.uniforms(key, n).tolist() == [uniform(key, i) for i in n.tolist()]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (columns.whole, (1.9,)), (columns.least, (1.0, 2.0)), (columns.most, (1.0, 2.0)), (columns.root, (2.0,)),
        (columns.within, (5.0, 1.0, 3.0)), (columns.within, (0.0, 1.0, 3.0)), (columns.cosine, (0.7,)),
        (columns.power, (0.7, 1.5)), (columns.hypotenuse, (3.1, 4.2)), (columns.angle, (1.0, -2.0)),
    ],
)  # fmt: skip
def test_a_function_of_a_column(function, arguments):
    first, *rest = arguments
    assert function(np.full(3, first), *rest).tolist() == [function(*arguments)] * 3


def test_of_two_columns_a_row_takes_its_own():
    found = columns.pick(np.array([True, False]), np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert found.tolist() == [1.0, 4.0]
    assert [columns.pick(True, 1.0, 3.0), columns.pick(False, 1.0, 3.0)] == [1.0, 3.0]
    assert columns.least(1.5, np.array([1.0, 2.0])).tolist() == [1.0, 1.5]
