"""The script of faults: what it accepts, when things happen, and what a tag shows meanwhile."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.sim.faults import KINDS, Fault, FaultScript, FaultsError, Running, distort, load, parse
from tests.drivers.sim.build import gauge, meter

X = gauge("x", range=(0.0, 400.0))
ONE = {"kind": "freeze", "device": "m1", "tag": "x", "start_s": 5.0, "duration_s": 10.0}


def wrong(*entries, **table):
    with pytest.raises(FaultsError) as caught:
        parse({"fault": list(entries), **table}, "faults.toml")
    return caught.value.lines


def test_a_file_becomes_a_script(tmp_path):
    path = tmp_path / "faults.toml"
    path.write_text(
        '[[fault]]\nkind = "spike"\nname = "s"\ndevice = "m1"\ntag = "x"\nstart_s = 5\nduration_s = 2\nsize = 40\n'
        '[[fault]]\nkind = "slow"\ndevice = "m1"\nstart_s = 1\nduration_s = 2\nevery_s = 9\ndelay_s = 0.3\n'
    )
    first, second = load(path).faults
    assert first == Fault("spike", "s", "m1", "x", 5, 2, None, {"size": 40.0})
    assert (second.name, second.every_s, second.parameter("delay_s"), second.parameter("jitter_s")) == (
        "slow-2",
        9,
        0.3,
        0,
    )


def test_an_empty_script_is_fine():
    assert parse({}) == FaultScript()


def test_every_error_is_told_at_once_with_file_and_place():
    lines = wrong(
        {**ONE, "name": "a", "duraton_s": 3},
        {"kind": "frezee"},
        {**ONE, "name": "c", "kind": "spike"},
        {**ONE, "name": "d", "kind": "silent"},
        {"kind": "step", "name": "e", "device": "m1", "start_s": -1, "duration_s": 0, "size": "big"},
        {**ONE, "name": "f", "every_s": 3},
        faults=[],
    )
    assert lines == [
        "faults.toml: unknown key 'faults'; did you mean 'fault'?",
        "faults.toml: fault 'a': unknown key 'duraton_s'; did you mean 'duration_s'?",
        f"faults.toml: fault '#2': kind: got 'frezee', wanted one of {', '.join(KINDS)}; did you mean 'freeze'?",
        "faults.toml: fault 'c': wants exactly one of size, factor",
        "faults.toml: fault 'd': tag: silent happens to a whole device, wanted no tag",
        "faults.toml: fault 'e': start_s: got -1, wanted a number from 0 to 1e+09",
        "faults.toml: fault 'e': duration_s: got 0, wanted a number from 0.001 to 1e+09",
        "faults.toml: fault 'e': size: got 'big', wanted a number from -1e+15 to 1e+15",
        "faults.toml: fault 'e': tag: is missing, step happens to one tag",
        "faults.toml: fault 'f': every_s: got 3, wanted more than duration_s = 10.0",
    ]


@pytest.mark.parametrize(
    ("kind", "key", "value", "wanted"),
    [("exception", "code", 0, "a whole number from 1 to 255"),
     ("exception", "code", 256, "a whole number from 1 to 255"),
     ("exception", "code", -1, "a whole number from 1 to 255"),
     ("exception", "code", 2.7, "a whole number from 1 to 255"),
     ("exception", "code", True, "a whole number from 1 to 255"),
     ("exception", "code", "4", "a whole number from 1 to 255"),
     ("exception", "duration_s", 1e300, "a number from 0.001 to 1e+09"),
     ("exception", "duration_s", 1e-300, "a number from 0.001 to 1e+09"),
     ("exception", "start_s", math.inf, "a number from 0 to 1e+09"),
     ("exception", "start_s", 10**400, "a number from 0 to 1e+09"),
     ("exception", "every_s", math.nan, "a number from 0.001 to 1e+09"),
     ("exception", "name", "two\nlines", "a name"),
     ("exception", "device", 7, "a name"),
     ("garbage", "share", 1.5, "a number from 0 to 1"),
     ("slow", "delay_s", -0.1, "a number from 0 to 1e+09"),
     ("slow", "jitter_s", math.nan, "a number from 0 to 1e+09")],
)  # fmt: skip
def test_a_value_out_of_its_range_is_told_in_one_line(kind, key, value, wanted):
    entry = {"kind": kind, "name": "z", "device": "m1", "start_s": 1, "duration_s": 2, key: value}
    (line,) = wrong(entry)
    place = "#1" if key == "name" else "z"
    assert line == f"faults.toml: fault '{place}': {key}: got {value!r}, wanted {wanted}"


def test_what_stands_for_the_same_cannot_be_given_twice():
    assert wrong(
        {**ONE, "name": "a", "kind": "noise", "factor": 2, "sd": 1}, {**ONE, "name": "b", "kind": "drift"}
    ) == [
        "faults.toml: fault 'a': wants at most one of factor, sd",
        "faults.toml: fault 'b': wants per_s",
    ]
    assert len(parse({"fault": [{**ONE, "kind": "noise"}]}).faults) == 1


def test_a_misfit_is_told_with_the_file_it_is_in():
    script = parse({"fault": [{**ONE, "name": "a", "device": "m2"}]}, "my/faults.toml")
    assert script.check([meter(points=[X])]) == ["my/faults.toml: fault 'a': device: no device 'm2'"]


@pytest.mark.parametrize("text", ["", "\0\1", "[[fault]", "fault = 3"])
def test_a_broken_file_is_one_line(tmp_path, text):
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(FaultsError) as caught:
        load(path)
    assert len(caught.value.lines) == 1
    assert str(path) in caught.value.lines[0]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FaultsError, match="cannot be read"):
        load(tmp_path / "none.toml")


def test_what_does_not_fit_the_meters_is_told():
    points = [X, gauge("n", 2, "uint16"), gauge("f", 3)]
    script = FaultScript(
        (
            Fault("freeze", "a", "m1x", "x"),
            Fault("freeze", "b", "m1", "y"),
            Fault("nan", "c", "m1", "n"),
            Fault("stuck_high", "d", "m1", "f"),
            Fault("stuck_high", "e", "m1", "x"),
            Fault("nan", "f", "m1"),
        )
    )
    assert script.check([meter(points=points)]) == [
        "faults: fault 'a': device: no device 'm1x'; did you mean 'm1'?",
        "faults: fault 'b': tag: device 'm1' has no tag 'y'",
        "faults: fault 'c': tag: 'n' is uint16 without a sentinel, it cannot say that it is not available",
        "faults: fault 'd': value: is missing, and point 'f' has no range whose end it could be stuck at",
    ]


@given(st.floats(0, 100), st.floats(0.1, 50), st.one_of(st.none(), st.floats(0.2, 60)), st.floats(-10, 500))
def test_edges_are_where_occurrences_begin_and_end(start_s, duration_s, gap_s, t):
    every_s = None if gap_s is None else duration_s + gap_s
    fault = Fault("silent", "s", "m1", "", start_s, duration_s, every_s)
    edge = fault.next_edge(t)
    assert edge > t
    if not math.isinf(edge):
        assert fault.occurrence(edge + 1e-6) != fault.occurrence(edge - 1e-6)
        middle = (t + edge) / 2
        if edge - t > 1e-5:
            assert fault.occurrence(t + 1e-6) == fault.occurrence(middle)
    n = fault.occurrence(t)
    if n is not None:
        assert fault.begins(n) <= t + 1e-9
        assert t < fault.begins(n) + duration_s + 1e-9


def run(kind, values, point=X, sigma=0.5, last=None, begins_s=10.0, **parameters):
    """Return what a tag shows when a fault happens to these values, one a second."""
    running = Running(Fault(kind, "f", "m1", "x", begins_s, 100.0, None, parameters), 0, begins_s)
    return [distort(running, point, value, sigma, begins_s + i, last) for i, value in enumerate(values)]


RISING = [100.0, 101.0, 102.0, 103.0]


def test_freeze_holds_what_was_shown_last():
    assert run("freeze", RISING, last=99.5) == [99.5] * 4
    assert run("freeze", RISING) == [100.0] * 4


def test_spike_hits_the_first_reads_only():
    assert run("spike", RISING, size=40.0) == [140.0, 101.0, 102.0, 103.0]
    assert run("spike", RISING, factor=2.0, samples=2.0) == [200.0, 202.0, 102.0, 103.0]


def test_step_is_a_bias_and_drift_a_ramp():
    assert run("step", RISING, size=-5.0) == [95.0, 96.0, 97.0, 98.0]
    assert run("step", RISING, factor=1.5)[0] == 150.0
    assert run("drift", RISING, per_s=2.0) == [100.0, 103.0, 106.0, 109.0]


def test_noise_grows_by_its_factor_and_is_the_same_every_time():
    flat = [100.0] * 2000
    shown = run("noise", flat)
    sd = math.sqrt(sum((value - 100.0) ** 2 for value in shown) / len(shown))
    assert sd == pytest.approx(2.5, rel=0.1)
    assert run("noise", flat) == shown
    assert run("noise", flat, sd=0.0) == flat


def test_stuck_is_at_the_end_of_the_range_or_where_it_is_said():
    assert run("stuck_high", RISING) == [400.0] * 4
    assert run("stuck_low", RISING) == [0.0] * 4
    assert run("stuck_high", RISING, value=250.0) == [250.0] * 4
    assert run("stuck_high", RISING, point=gauge("n", 0, "int16", scale=0.1)) == [3276.7] * 4


@pytest.mark.parametrize(("limit", "side"), [(120.0, 1), (80.0, -1)])
def test_limit_ends_beyond_the_limit_on_the_other_side_and_still_moves(limit, side):
    shown = run("limit", [100.0, 100.4, 99.6, 100.2, 99.8, 100.0, 101.5], value=limit, last=100.0)
    assert shown[0] == 100.0  # it gets there in its ramp of 2 s
    assert all(side * (value - limit) > 0 for value in shown[2:])
    assert len(set(shown[2:])) == 5


def test_nan_is_not_available():
    assert run("nan", RISING) == [None] * 4


def test_every_kind_is_either_a_value_or_an_answer():
    assert {kind.reach for kind in KINDS.values()} == {"tag", "device", "link"}
