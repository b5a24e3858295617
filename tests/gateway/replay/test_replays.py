"""The command replay: one line a line, what is wrong in one line, whole files or none."""

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from gateway.cli import main
from gateway.replay import sheet
from gateway.replay.judge import EARLIEST, LATEST
from tests.gateway.replay import bench
from tests.gateway.replay.bench import T0, S

COMMAND = [sys.executable, "-m", "gateway.cli", "replay"]
HEADER = "wanted a header with 'time' and a column for each tag"
SMALL = "time,v\n1,2\n2,3\n"


def write(path, value, times=None, names=None):
    value = np.asarray(value, float)
    n = value.shape[1]
    times = range(T0, T0 + len(value) * S, S) if times is None else times
    lines = [",".join(["time", *(names or (f"v{i}" for i in range(n)))])]
    lines += [
        ",".join([str(t), *("" if v != v else repr(v) for v in row)])
        for t, row in zip(times, value.tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def plant(n=3, rows=1500, seed=1):
    """Return float64[rows, n] that keep together, with a spike, a step of one, and holes."""
    rng = np.random.default_rng(seed)
    value = 50 + np.sin(np.arange(rows) / 40)[:, None] + rng.normal(0, 0.2, (rows, n))
    value[rows // 3, 0] += 30
    value[rows // 2 :, -1] += 3
    value[rng.random((rows, n)) < 0.01] = np.nan
    return value


def refused(capsys, *arguments):
    code, out, lines = bench.replayed(capsys, *arguments)
    assert (code, out) == (1, "")
    (line,) = lines
    return line


def test_one_line_for_each_line_with_its_time_as_it_stands(tmp_path, capsys):
    source = tmp_path / "x.csv"
    stamps = [
        "2026-11-23T06:00:00Z",
        "2026-11-23T06:00:00Z",
        '"2020-01-01"',
        "17",
        "-5",
        "2026-11-23 06:00:01.250+01:00",
    ]
    source.write_text("a,time,b\r\n" + "".join(f"1,{stamp},\r\n" for stamp in stamps))
    out = tmp_path / "scores.csv"
    told = bench.summary(capsys, source, "--out", out)
    lines = out.read_text().splitlines()
    assert lines[0] == "time,a.score,a.flags,b.score,b.flags,score,anomaly,changepoint"
    assert lines[1:] == [f"{stamp},0,,0,,0,0,0" for stamp in stamps]
    assert (told["rows"], told["values"], told["alarms_total"]) == (6, 12, 0)


@pytest.mark.parametrize("n", [1, 3])
def test_a_line_depends_on_nothing_that_comes_after_it(tmp_path, capsys, n):
    source = write(tmp_path / "x.csv", plant(n))
    out = tmp_path / "out.csv"
    bench.summary(capsys, source, "--out", out)
    whole, lines = out.read_bytes(), source.read_bytes().splitlines(keepends=True)
    assert b"spike" in whole
    rng = np.random.default_rng(n)
    for cut in sorted(rng.integers(1, len(lines), 8).tolist()):
        source.write_bytes(b"".join(lines[:cut]))
        bench.summary(capsys, source, "--out", out)
        assert whole.startswith(out.read_bytes())
        assert out.read_bytes().count(b"\n") == cut


def test_blocks_change_nothing(tmp_path, capsys, monkeypatch):
    source, out = write(tmp_path / "x.csv", plant()), tmp_path / "out.csv"
    told = bench.summary(capsys, source, "--out", out)
    whole = out.read_bytes()
    for chunk, block in ((300, 1 << 16), (1 << 21, 3), (1 << 21, 100)):
        monkeypatch.setattr("gateway.replay.csv_file.CHUNK_BYTES", chunk)
        monkeypatch.setattr("gateway.replay.csv_file.BLOCK_VALUES", block)
        again = bench.summary(capsys, source, "--out", out)
        assert out.read_bytes() == whole
        assert {**told, "values_per_s": 0} == {**again, "values_per_s": 0}


def test_an_asset_of_one_tag_is_that_tag(tmp_path, capsys):
    source, out = write(tmp_path / "x.csv", plant(1)), tmp_path / "out.csv"
    bench.summary(capsys, source, "--out", out)
    rows = bench.table(out)
    assert all(row["score"] == row["v0.score"] and row["anomaly"] == str(int(row["v0.flags"] != "")) for row in rows)
    assert any(row["anomaly"] == "1" for row in rows)


def test_a_limit_is_tried_before_it_is_deployed(tmp_path, capsys):
    """high = 60 with a dead band of 2 and an on-delay of 3 s, on a.flow; a column of another name has no limit."""
    config = bench.write_config(tmp_path)
    flow = [50.0] * 20 + [61.0] * 2 + [50.0] * 5 + [61.0] * 10 + [59.0] * 5 + [57.0] * 5
    value = np.column_stack([flow, flow])
    source = write(tmp_path / "x.csv", value + np.arange(len(flow))[:, None] % 3 * 0.1, names=["a.flow", "other.flow"])
    out = tmp_path / "out.csv"
    told = bench.summary(capsys, source, "--config", config, "--out", out)
    assert [one for one in told["alarms"] if one["reason"] == "high"] == [
        {"tag": "a.flow", "reason": "high", "count": 1, "per_day": 1.0}
    ]
    rows = bench.table(out)
    standing = [k for k, row in enumerate(rows) if "high" in row["a.flow.flags"].split("|")]
    assert standing == list(range(27 + 3, 42))
    assert not any("high" in row["other.flow.flags"] for row in rows)
    told = bench.summary(capsys, source, "--out", out)
    assert not any(one["reason"] == "high" for one in told["alarms"])


def test_a_config_that_knows_no_column_is_told(tmp_path, capsys):
    config = bench.write_config(tmp_path)
    source = write(tmp_path / "x.csv", [[1.0], [2.0]])
    code, _, (line,) = bench.replayed(capsys, source, "--config", config)
    assert code == 0
    assert line == (
        f"{source}: no column is a tag of {config}, wanted names as <device>.<tag>: default detectors for all"
    )


def test_a_column_of_an_asset_is_judged_with_its_asset_and_the_row_with_all(tmp_path, capsys):
    """Columns of two assets: each is judged as the gateway would, and the row as if all were one."""
    value = plant(3)
    config = bench.write_config(tmp_path)
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    bench.summary(capsys, write(tmp_path / "x.csv", value, names=["a.flow", "b.pressure", "c.power"]),
                  "--config", config, "--out", a)  # fmt: skip
    bench.summary(capsys, write(tmp_path / "y.csv", value), "--out", b)
    with_config, without = bench.table(a), bench.table(b)
    last = [(row["score"], row["anomaly"], row["changepoint"]) for row in with_config]
    assert last == [(row["score"], row["anomaly"], row["changepoint"]) for row in without]
    assert any(row["anomaly"] == "1" for row in without)


EXTREMES = {
    "equal": [T0] * 1500,
    "back by years": [T0 - k * 86_400 * 365 * S // 100 for k in range(1500)],
    "to and fro": [(-1) ** k * k * 10**15 for k in range(1500)],
    "ends of int64": [(2**63 - 1 if k % 2 else -(2**63) + 1) for k in range(1500)],
    "far future": [2**63 - 1500 + k for k in range(1500)],
    "far past": [-(2**63) + 1 + k for k in range(1500)],
    "around zero": [(k - 750) * S for k in range(1500)],
    "from zero": [k * S for k in range(1500)],
    "huge steps": [k * 6 * 10**15 for k in range(1500)],
}


@pytest.mark.parametrize("name", EXTREMES)
def test_times_are_taken_as_they_come(tmp_path, capsys, name):
    source = write(tmp_path / "x.csv", plant(), times=EXTREMES[name])
    out, page = tmp_path / "out.csv", tmp_path / "page.html"
    bench.summary(capsys, source, "--out", out, "--report", page)
    rows = bench.table(out)
    assert [int(row["time"]) for row in rows] == EXTREMES[name]
    assert all(0.0 <= float(row[key]) <= 1.0 for row in rows for key in row if key.endswith("score"))
    assert "nan" not in page.read_text().lower().replace("finance", "")


def test_old_times_are_judged_as_new_ones(tmp_path, capsys):
    """A delay, a pause: what detectors do with 0 as "never" must not show in a file that begins in 1970, or before."""
    config = bench.write_config(tmp_path)
    value = np.array([[50.0 + k % 3, 1.0] for k in range(40)] + [[61.0 + k % 3, 1.0] for k in range(20)])
    flags = {}
    for start in (T0, 0, -30 * S, -100 * 365 * 86_400 * S, EARLIEST, LATEST - 100 * S):
        times = [start + k * S for k in range(60)]
        source = write(tmp_path / "x.csv", value, times=times, names=["a.flow", "b"])
        out = tmp_path / "out.csv"
        bench.summary(capsys, source, "--config", config, "--out", out)
        flags[start] = [row["a.flow.flags"] for row in bench.table(out)]
    assert all(found == flags[T0] for found in flags.values())
    assert flags[T0].index("high") == 43


def test_extreme_values_are_scored_from_0_to_1(tmp_path, capsys):
    rng = np.random.default_rng(4)
    value = plant(6, 2000)
    value[:, 1] *= 1e300
    value[:, 2] *= 1e-300
    value[:, 3] = rng.choice([1e308, -1e308, 0.0, 5e-324], 2000)
    value[1000:, 4] = rng.choice([1.7976931348623157e308, 1.0], 1000)
    value[:, 5] = 1e16 + np.arange(2000)
    out = tmp_path / "out.csv"
    bench.summary(capsys, write(tmp_path / "x.csv", value), "--out", out, "--report", tmp_path / "page.html")
    for row in bench.table(out):
        assert all(0.0 <= float(row[key]) <= 1.0 for key in row if key.endswith("score"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "line 1: nothing, " + HEADER),
        ("a,b\n1,2\n", "line 1: no column 'time' among 'a', 'b'; " + HEADER),
        ("time,v\n1,2\n2\n", "line 3: 1 cell, wanted 2 as in the header"),
        ("time,v\n1,2\n2,3,4\n", "line 3: more than 2 cells, wanted 2 as in the header"),
        ("time,v\n1,2\n2,many\n", "line 3: column 'v': 'many', wanted a number"),
        ("time,v\n1,2\nnow,3\n", "line 3: column 'time': 'now', wanted " + sheet.TIMES),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_leaves_no_file(tmp_path, capsys, text, wanted):
    source, out, page = tmp_path / "x.csv", tmp_path / "out.csv", tmp_path / "page.html"
    source.write_text(text)
    out.write_text("of the last run")
    assert refused(capsys, source, "--out", out, "--report", page) == f"{source}: {wanted}"
    assert out.read_text() == "of the last run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "x.csv"]


def test_files_that_cannot_be_used_are_named(tmp_path, capsys):
    source = tmp_path / "x.csv"
    source.write_text(SMALL)
    no = tmp_path / "no" / "x"
    assert refused(capsys, no) == f"{no}: cannot be read: No such file or directory"
    for option in ("--out", "--report"):
        assert refused(capsys, source, option, no) == f"{no}: cannot be written: No such file or directory"
        assert refused(capsys, source, option, tmp_path) == f"{tmp_path}: cannot be written: Is a directory"
        assert (
            refused(capsys, source, option, source)
            == f"{source}: is the source as well as {option}, wanted another file"
        )
        assert refused(capsys, source, option, "/dev/full") == "/dev/full: cannot be written: No space left on device"
    out = tmp_path / "o"
    assert (
        refused(capsys, source, "--out", out, "--report", out)
        == f"{out}: is --out as well as --report, wanted another file"
    )
    (tmp_path / "alias").symlink_to(source)
    assert "is the source as well" in refused(capsys, source, "--out", tmp_path / "alias")
    assert refused(capsys, source, "--config", no) == f"{no}: cannot be read: No such file or directory"
    assert refused(capsys, source, "--from", "0").startswith(f"{source}: --from and --to are for spools and databases")
    assert source.read_text() == SMALL


def test_a_new_file_has_the_rights_of_a_new_file_and_a_link_stays_one(tmp_path, capsys):
    source, link = tmp_path / "x.csv", tmp_path / "link"
    source.write_text(SMALL)
    link.symlink_to(tmp_path / "target")
    bench.summary(capsys, source, "--out", link)
    assert link.is_symlink()
    assert (tmp_path / "target").read_text().count("\n") == 3
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o666 & ~mask


def test_a_table_without_lines_is_a_header(tmp_path, capsys):
    source, out, page = tmp_path / "x.csv", tmp_path / "out.csv", tmp_path / "page.html"
    source.write_text("time,v\n")
    told = bench.summary(capsys, source, "--out", out, "--report", page)
    assert (told["rows"], told["values"], told["first_ns"], told["alarms"]) == (0, 0, None, [])
    assert out.read_text() == "time,v.score,v.flags,score,anomaly,changepoint\n"
    assert "<h1>" in page.read_text()
    assert bench.replayed(capsys, source)[:2] == (0, f"{source}: no rows\n")


def test_what_is_printed(tmp_path, capsys):
    source = write(tmp_path / "x.csv", plant(3))
    code, out, err = bench.replayed(capsys, source)
    assert (code, err) == (0, [])
    first, *middle, last = out.splitlines()
    assert first == f"{source}: 1,500 rows, 4,500 values, 2025-11-24T16:00:00+00:00 to 2025-11-24T16:24:59+00:00"
    assert all(re.fullmatch(r"  v\d +\w+ +\d+  \d+\.\d\d a day", line) for line in middle)
    assert re.fullmatch(r"  \d alarms, \d\.\d\d a day; \d change points", last)
    told = bench.summary(capsys, source)
    assert told["alarms_total"] == sum(one["count"] for one in told["alarms"]) == int(last.split()[0])
    assert set(told) == {
        *("source", "rows", "values", "first_ns", "last_ns", "alarms_total", "alarms_per_day", "anomalies"),
        *("changepoints", "alarms", "unusual", "values_per_s"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file that takes some seconds."""
    path = tmp_path_factory.mktemp("large") / "x.csv"
    body = "".join(f",{50 + 0.01 * (k % 97):.3f}" for k in range(100))
    with path.open("w") as stream:
        stream.write("time," + ",".join(f"v{i}" for i in range(100)) + "\n")
        for block in range(20):
            stream.write("".join(f"{T0 + (1000 * block + k) * S}{body}\n" for k in range(1000)))
    return path


def test_ctrl_c_ends_it_without_a_word_and_leaves_no_whole_file(tmp_path, large):
    fifo = tmp_path / "slow.csv"
    os.mkfifo(fifo)
    out = tmp_path / "out.csv"
    process = subprocess.Popen([*COMMAND, fifo, "--out", out], stdout=-1, stderr=-1)
    with fifo.open("wb") as stream, large.open("rb") as source:
        stream.write(source.read(10_000_000))
        stream.flush()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=20)
        took = time.monotonic() - began
    assert (process.returncode, told) == (130, (b"", b""))
    assert took < 2.0
    assert not out.exists()
    assert (tmp_path / "out.csv.part").exists()


def test_a_pipe_is_a_source_too(tmp_path, large):
    script = f"head -2000 {large} | {' '.join(COMMAND)} /dev/stdin --out /dev/stdout | wc -l"
    assert subprocess.run(script, shell=True, capture_output=True, check=True).stdout.split()[0] >= b"2000"


class Terminal(io.StringIO):
    """Takes what a terminal would show."""

    def isatty(self):
        return True


def test_a_terminal_sees_a_bar_and_gets_its_line_back(large, capsys, monkeypatch):
    monkeypatch.setattr("gateway.commands.replays.TOLD_EVERY_S", 0.0)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert main(["replay", str(large), "--json"]) == 0
    shown = terminal.getvalue()
    assert json.loads(capsys.readouterr().out)["rows"] == 20_000
    assert re.search(r"\r\[#+\.*\] +\d+ %  [\d,]+ values, \d+\.\d million a second\x1b\[K", shown)
    assert shown.endswith("\r\x1b[K")


def test_elsewhere_a_line_now_and_then(large, capsys, monkeypatch):
    monkeypatch.setattr("gateway.commands.replays.LOGGED_EVERY_S", 0.0)
    code, _, lines = bench.replayed(capsys, large)
    assert code == 0
    assert re.fullmatch(rf"{large}:  *\d+ %  [\d,]+ values, \d+\.\d million a second", lines[0])
    assert lines[-1].startswith(f"{large}: 100 %  2,000,000 values")


def test_memory_does_not_grow_with_the_file(tmp_path, large):
    head, body = large.read_bytes().split(b"\n", 1)
    peak = []
    for times in (1, 3):
        path = tmp_path / "x.csv"
        with path.open("wb") as stream:
            stream.write(head + b"\n")
            stream.writelines([body] * times)
        script = "import sys; from gateway.cli import main; main(sys.argv[1:]); print(open('/proc/self/status').read())"
        command = [sys.executable, "-c", script, "replay", path, "--json", "--out", tmp_path / "out.csv"]
        out = subprocess.run(command, capture_output=True, check=True).stdout
        peak.append(int(re.search(rb"VmHWM:\s+(\d+) kB", out)[1]))
    assert peak[1] - peak[0] < 8_000  # kB
