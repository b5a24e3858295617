"""The benchmarks are there and run; what they measure is not asserted here."""

import json

from tests.benchmarks import decode, main


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
