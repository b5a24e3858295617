"""The benchmarks are there and run; what they measure is not asserted here."""

import json

import numpy as np
import pytest

from tests.benchmarks import decode, main, soak


def test_every_stage_of_the_line_has_a_benchmark():
    wanted = {"read", "decode", "detect", "lines", "spool", "publish", "ingest", "end_to_end", "memory"}
    assert set(main.STAGES) == wanted


def test_an_unknown_stage_is_told_with_those_that_exist(capsys):
    assert main.run("nonsense", as_json=True) == 1
    out, told = capsys.readouterr()
    assert out == ""
    assert "'nonsense'" in told
    assert all(stage in told for stage in main.STAGES)


def test_a_stage_prints_one_object_and_its_progress_elsewhere(capsys, monkeypatch):
    tiny = {"n_devices": 2, "n_values": 4, "seconds": 0.001, "n_rounds": 1}
    monkeypatch.setitem(main.STAGES, "decode", lambda: decode.measure(**tiny))
    assert main.run("decode", as_json=True) == 0
    out, told = capsys.readouterr()
    found = json.loads(out)
    wanted = {"ns_per_value", "struct_ns_per_value", "pymodbus_ns_per_value", "ratio_struct", "ratio_pymodbus"}
    assert wanted <= set(found)
    assert all(value > 0 for value in found.values())
    assert "bench decode" in told


def test_a_stage_that_did_not_pass_ends_with_1(capsys, monkeypatch):
    for passed, code in ((True, 0), (False, 1)):
        monkeypatch.setitem(main.LONG, "soak", lambda minutes, passed=passed: {"minutes": minutes, "passed": passed})
        assert main.run("soak", as_json=True, minutes=2.5) == code
        assert json.loads(capsys.readouterr().out) == {"minutes": 2.5, "passed": passed}


def samples(rss_mb, descriptors=14, tasks=23):
    """Return 20 minutes of a process that begins with nothing and has its size after a minute."""
    time_s = np.arange(0.0, 1200.0, 5.0)
    noise = np.random.default_rng(1).normal(0, 0.2, time_s.size)
    found = np.ones((time_s.size, 5)) * time_s[:, None]
    found[:, 1] = 1e6 * np.where(time_s < 60, 10 + time_s, rss_mb(time_s) + noise)
    found[:, 2], found[:, 3], found[:, 4] = descriptors + np.zeros(time_s.size), 5, tasks
    return found


def test_what_rises_after_its_warm_up_is_not_flat():
    still = soak.judge(samples(lambda t: 100 + 0 * t))
    assert still["flat"]
    assert abs(still["rss_slope_share_per_h"]) < 0.01
    leak = soak.judge(samples(lambda t: 100 + t / 240))  # 15 MB an hour
    assert not leak["flat"]
    assert leak["rss_slope_share_per_h"] == pytest.approx(0.15 / 1.0125, rel=0.05)  # of 101.25 MB at a quarter
    assert soak.judge(samples(lambda t: np.where(t < 200, 90, 100)))["flat"]  # grown in the first quarter


def test_a_descriptor_or_a_task_that_is_left_behind_every_few_minutes_is_not_flat():
    time_s = np.arange(0.0, 1200.0, 5.0)
    assert not soak.judge(samples(lambda t: 100 + 0 * t, descriptors=14 + time_s // 150))["flat"]
    assert not soak.judge(samples(lambda t: 100 + 0 * t, tasks=23 + time_s // 150))["flat"]
    briefly = soak.judge(samples(lambda t: 100 + 0 * t, descriptors=14 + 5 * (time_s % 100 < 20)))
    assert briefly["flat"]
    assert briefly["descriptors"] == {"first": 14, "last": 14, "most": 19}
    told = soak.judge(samples(lambda t: 100 + 0 * t, tasks=np.nan))
    assert told["flat"]
    assert "tasks" not in told


@pytest.mark.parametrize(
    ("ledger", "values", "said"),
    [
        ({}, 1000, "PASSED: all flat, nothing missing"),
        ({"missing": 3}, 1000, "FAILED: 3 frames missing"),
        ({"gone": 2, "parked": 1}, 1000, "FAILED: 2 frames gone; 1 frames parked"),
        ({}, 0, "FAILED: nothing arrived"),
    ],
)
def test_a_soak_that_lost_a_frame_has_not_passed(tmp_path, ledger, values, said):
    one = soak._Soak(tmp_path, 1200.0)
    one.processes["gateway"] = soak.Process(1, tmp_path / "log", samples(lambda t: 100 + 0 * t).tolist())
    found = one._verdict({"frames": 500, "missing": 0, "gone": 0, "parked": 0, **ledger}, values, is_whole=True)
    assert (found["verdict"], found["passed"]) == (said, said.startswith("PASSED"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_soak_goes_through_every_event_and_loses_nothing(capsys):
    found = soak.measure(minutes=1.5)
    assert found["ledger"] | {"frames": 0} == {"frames": 0, "missing": 0, "gone": 0, "parked": 0}
    assert min(found["happened"].values()) >= 1
    assert found["processes"].keys() == {"meters", "gateway", "ingest", "console"}
    assert found["processes"]["gateway"]["tasks"]["last"] > 5
    assert found["values_per_s"] > 100
    assert "soak 1/1.5 min" in capsys.readouterr().err
