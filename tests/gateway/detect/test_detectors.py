"""Every detector: equal to its slow twin, blind to bad values, the same in any batching, restored by its state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.detect import flags
from gateway.detect.bank import REGISTRY, Bank
from gateway.detect.detector import Turn
from gateway.detect.ewma import Ewma
from gateway.detect.frozen import Frozen
from gateway.detect.limits import Limits
from gateway.detect.rate import Rate
from tests.gateway.detect import feed
from tests.reference import detect as reference

NAN = float("nan")
SETTINGS = {
    "limits": (10.0, 20.0, 80.0, 90.0),
    "deadband": 2.0,
    "on_delay_s": 2.0,
    "off_delay_s": 3.0,
    "rate": 5.0,
}


def noise(frames, n=1, seed=0, mean=50.0, sd=1.0):
    return np.random.default_rng(seed).normal(mean, sd, (frames, n))


@pytest.fixture(params=REGISTRY, ids=lambda kind: kind.name)
def kind(request):
    return request.param


def wild(frames, n, seed=3):
    """Return values with steps, spikes, stillness and gaps: something for every detector."""
    values = np.round(noise(frames, n, seed, 50, 3), 2)
    values[frames // 5 : frames // 5 + 3] += 60
    values[frames // 3 : frames // 3 + 80] = values[frames // 3]
    values[-30:] -= 45
    values[np.random.default_rng(seed).random((frames, n)) < 0.05] = NAN
    return values


def test_a_bad_value_never_raises_a_flag_and_never_teaches(kind):
    made = feed.table(2, **SETTINGS)
    good = wild(400, 2)
    good[np.isnan(good)] = 50.0
    holes = np.insert(good, np.arange(0, 400, 3), NAN, axis=0)
    keep = ~np.isnan(holes).all(axis=1)
    dense, state = kind(made), kind(made)
    only_bad, _ = feed.run(state, made, np.full((100, 2), NAN))
    assert not only_bad.any()
    fresh = kind(made)
    for name, column in state.state().items():
        assert np.array_equal(column, fresh.state()[name]), name
    del dense, keep


def test_the_order_of_batches_changes_nothing(kind):
    made = feed.table(3, scans=4, **SETTINGS)
    values = wild(300, made.n)
    together = feed.run(kind(made), made, values)
    apart = feed.run(kind(made), made, values, split=True)
    assert np.array_equal(together[0], apart[0])
    assert np.array_equal(together[1], apart[1])


def test_state_survives_save_and_restore(kind):
    made = feed.table(2, **SETTINGS)
    values = wild(300, 2)
    whole = kind(made)
    flags_whole, _ = feed.run(whole, made, values)
    first, second = kind(made), kind(made)
    feed.run(first, made, values[:150])
    for name, column in first.state().items():
        second.state()[name][...] = column
    flags_second, _ = feed.run(second, made, values[150:], start=150)
    bits = np.uint16(0xFFFF)
    if kind is Limits:  # the flags column itself is part of what limits remember; the caller keeps it
        bits = np.uint16(0)
    assert np.array_equal(flags_second & bits, flags_whole[150:] & bits)


def test_compiled_and_interpreted_kernel_agree_bit_for_bit(kind, monkeypatch):
    import importlib

    made = feed.table(2, **SETTINGS)
    values = wild(400, 2)
    compiled, plain = kind(made), kind(made)
    flags_c, score_c = feed.run(compiled, made, values)
    module = importlib.import_module(kind.__module__)
    monkeypatch.setattr(module, "step", module.step.py_func)
    with np.errstate(all="ignore"):
        flags_p, score_p = feed.run(plain, made, values)
    assert np.array_equal(flags_c, flags_p)
    assert np.allclose(score_c, score_p, rtol=1e-15, atol=0)
    for name, column in compiled.state().items():
        assert np.array_equal(column, plain.state()[name]), name


def test_a_wrong_dtype_is_refused(kind):
    made = feed.table(2, **SETTINGS)
    ready = np.array([0], np.int32)
    with pytest.raises(TypeError):
        kind(made).update(
            Turn(
                ready, np.zeros(1, np.int64), np.zeros(2, np.float32), np.zeros(2, np.uint32), np.zeros(2), no_flags(2)
            )
        )


def no_flags(n):
    return np.zeros(n, np.uint16)


def test_scores_lie_between_0_and_1(kind):
    made = feed.table(2, **SETTINGS)
    _, score = feed.run(kind(made), made, wild(400, 2))
    assert score.min() >= 0.0
    assert score.max() <= 1.0


samples = st.lists(st.one_of(st.none(), st.integers(0, 1000).map(lambda x: x / 10)), min_size=1, max_size=120)


@settings(max_examples=60)
@given(samples)
def test_limits_equal_their_slow_twin(values):
    made = feed.table(1, **SETTINGS)
    found, _ = feed.run(Limits(made), made, [[NAN if v is None else v] for v in values])
    twins = [
        reference.Limit(edge, side, 2.0, 2.0, 3.0) for edge, side in ((10.0, -1), (20.0, -1), (80.0, 1), (90.0, 1))
    ]
    for k, value in enumerate(values):
        wanted = sum(twin.step(1000.0 + k, value) << j for j, twin in enumerate(twins))
        assert found[k, 0] == wanted


@settings(max_examples=60)
@given(samples)
def test_rate_equals_its_slow_twin(values):
    made = feed.table(1, rate=5.0)
    found, _ = feed.run(Rate(made), made, [[NAN if v is None else v] for v in values])
    twin = reference.Rate(5.0)
    assert [bool(f & flags.RATE) for f in found[:, 0]] == [twin.step(1000.0 + k, v) for k, v in enumerate(values)]


@pytest.mark.parametrize("moving", [1.0, 0.3, 0.05])
def test_frozen_equals_its_slow_twin(moving):
    rng = np.random.default_rng(5)
    steps = np.where(rng.random(1200) < moving, rng.integers(1, 5, 1200), 0)
    steps[600:] = 0
    values = np.cumsum(steps).astype(float)
    made = feed.table(1)
    found, _ = feed.run(Frozen(made), made, values[:, None])
    twin = reference.Frozen()
    wanted = [twin.step(1000.0 + k, float(v)) for k, v in enumerate(values)]
    assert [bool(f) for f in found[:, 0]] == wanted
    assert any(wanted[600:])
    assert not any(wanted[:600])


def test_ewma_equals_its_slow_twin():
    values = wild(500, 1)
    made = feed.table(1)
    found, _ = feed.run(Ewma(made), made, values)
    twin = reference.Ewma()
    wanted = [twin.step(0.0, None if np.isnan(v) else float(v)) for v in values[:, 0]]
    assert [bool(f) for f in found[:, 0]] == wanted
    assert any(wanted)


def test_a_gauge_that_never_moved_is_not_called_frozen():
    made = feed.table(1)
    found, _ = feed.run(Frozen(made), made, np.full((500, 1), 3.0))
    assert not found.any()


def test_noise_alone_raises_nothing_in_a_day():
    made = feed.table(1, scans=4)
    found, _ = feed.run(Ewma(made), made, noise(20_000, made.n, seed=9))
    assert not found.any()
    found, _ = feed.run(Frozen(made), made, np.round(noise(20_000, made.n, seed=9), 1))
    assert not found.any()


def test_the_resolution_of_an_integer_gauge_is_not_an_anomaly():
    values = np.full((200, 1), 50.0)
    values[100] = 50.1
    made = feed.table(1, kind="uint16", scale=0.1)
    found, _ = feed.run(Ewma(made), made, values)
    assert not found.any()


def test_a_detector_that_a_tag_does_not_name_leaves_it_alone():
    made = feed.table(1, detect=(), **SETTINGS)
    bank = Bank(made)
    for row in wild(400, 1):
        quality = np.where(np.isnan(row), 1 << 31, 0).astype(np.uint32)
        bank.update(np.array([0], np.int32), np.array([1], np.int64), row, quality)
        assert not bank.flags.any()


def test_changed_names_exactly_the_rows_that_changed():
    made = feed.table(3, **SETTINGS)
    bank = Bank(made)
    ready, quality = np.array([0], np.int32), np.zeros(3, np.uint32)
    before = quality.copy()
    assert list(bank.changed(ready, quality, before)) == []
    quality[2] = 7
    bank.flags[0] = flags.HIGH
    assert list(bank.changed(ready, quality, before)) == [0, 2]
