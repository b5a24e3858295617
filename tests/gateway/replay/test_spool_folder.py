"""A spool through the detectors again says what the gateway said, bit for bit."""

import asyncio
import shutil

import pytest

from gateway.replay.source import RecordedFrame, Span
from gateway.replay.spool_folder import SpoolFolder
from tests.gateway.replay import bench
from tests.gateway.replay.bench import T0, S


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """An hour of a gateway, in its spool."""
    folder = tmp_path_factory.mktemp("live")
    made = bench.Live(folder, bench.write_config(folder))
    asyncio.run(made.run(3600, bench.skid(), bench.failing))
    made.config = folder / "gateway.toml"
    return made


def test_frames_that_shared_a_turn_are_judged_alike(tmp_path):
    made = bench.Live(tmp_path, bench.write_config(tmp_path))
    asyncio.run(made.run(3600, bench.skid(), bench.failing, together=True))
    made.config = tmp_path / "gateway.toml"
    for (scan, time_ns, score, flags), (_, _, was_score, was_flags) in zip(verdicts(made), made.seen, strict=True):
        assert flags.tolist() == was_flags.tolist(), (scan, time_ns)
        assert score.tolist() == was_score.tolist(), (scan, time_ns)


@pytest.fixture(scope="module")
def booted(tmp_path_factory):
    """The same hour on a machine that has been up for a minute."""
    folder = tmp_path_factory.mktemp("booted")
    made = bench.Live(folder, bench.write_config(folder), started_ns=60 * S)
    asyncio.run(made.run(3600, bench.skid(), bench.failing))
    made.config = folder / "gateway.toml"
    return made


def verdicts(live):
    from gateway.acquire.plan import plan
    from gateway.commands.replays import _settings
    from gateway.model.config import load_gateway
    from gateway.replay.judge import Judge, recorded

    spec = load_gateway(live.config)
    source = SpoolFolder(live.folder, Span(), print)
    names = [(scan.device, tag) for scan in source.scans for tag in scan.tags]
    known, rows = _settings(spec, names)
    assert None not in rows
    ends = [sum(len(scan.tags) for scan in source.scans[: k + 1]) for k in range(len(source.scans))]
    scans = list(zip([0, *ends[:-1]], ends, strict=True))
    judge = Judge(recorded(scans, [device for device, _ in names], known, rows), is_whole=False)
    for frame in source.frames():
        assert isinstance(frame, RecordedFrame)
        found = judge.frame(frame)
        a, b = found.columns
        yield source.scans[frame.scan], frame.time_ns, found.score[0, a:b].copy(), found.flags[0, a:b].copy()
    assert plan(spec).table.n == len(names)


def test_replay_says_what_the_gateway_said_bit_for_bit(live):
    n_flags = set()
    found = list(verdicts(live))
    assert len(found) == len(live.seen) == 3600 + 720 + 3600 + 1800
    for (scan, time_ns, score, flags), (was, was_ns, was_score, was_flags) in zip(found, live.seen, strict=True):
        assert scan.tags == tuple(live.table.tags[row].name for row in range(was.start, was.stop))
        assert time_ns == was_ns
        assert flags.tolist() == was_flags.tolist(), (scan, time_ns)
        assert score.tolist() == was_score.tolist(), (scan, time_ns)
        n_flags.update(flags.tolist())
    assert {"high", "spike", "chatter", "frozen"} <= {name for each in n_flags for name in bench.names(each)}


def test_the_age_of_the_machine_changes_nothing(booted):
    for (_, _, score, flags), (_, _, was_score, was_flags) in zip(verdicts(booted), booted.seen, strict=True):
        assert flags.tolist() == was_flags.tolist()
        assert score.tolist() == was_score.tolist()


def test_the_command_writes_the_same(live, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    told = bench.summary(capsys, live.folder, "--config", live.config, "--out", out)
    rows = bench.table(out)
    assert told["rows"] == len(rows) == len(live.seen)
    for row, (scan, time_ns, score, flags) in zip(rows, live.seen, strict=True):
        assert row["time"] == str(time_ns)
        device = live.table.devices[scan.device].name
        here = {f"{device}.{live.table.tags[i].name}" for i in range(scan.start, scan.stop)}
        for i in range(scan.start, scan.stop):
            name = f"{device}.{live.table.tags[i].name}"
            assert abs(float(row[f"{name}.score"]) - score[i - scan.start]) <= 1e-15
            assert row[f"{name}.flags"] == bench.text_of(flags[i - scan.start])
        others = [name for name in row if name.endswith(".score") and name.removesuffix(".score") not in here]
        assert all(row[name] == "" for name in others)
    rises = {}
    before = {}
    for scan, _, _, flags in live.seen:
        for i, now in enumerate(flags.tolist(), scan.start):
            for name in bench.names(now & ~before.get(i, 0)):
                rises[name] = rises.get(name, 0) + 1
            before[i] = now
    told_by_reason = {}
    for one in told["alarms"]:
        told_by_reason[one["reason"]] = told_by_reason.get(one["reason"], 0) + one["count"]
    assert told_by_reason == rises


def test_a_span_and_the_state_folder_around(live, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    code, _, _ = bench.replayed(
        capsys, live.folder.parent, "--from", T0 + 100 * S, "--to", T0 + 200 * S, "--out", out
    )  # fmt: skip
    assert code == 0
    times = [int(row["time"]) for row in bench.table(out)]
    assert times == [time_ns for _, time_ns, _, _ in live.seen if T0 + 100 * S <= time_ns < T0 + 200 * S]


def test_a_damaged_batch_is_left_out_and_told(live, tmp_path, capsys):
    folder = tmp_path / "spool"
    shutil.copytree(live.folder, folder)
    (segment,) = folder.glob("*.spool")
    content = bytearray(segment.read_bytes())
    content[len(content.rstrip(bytes(1))) // 2] ^= 0xFF
    segment.write_bytes(content)
    code, out, err = bench.replayed(capsys, folder, "--config", live.config)
    assert code == 0
    assert err == [f"{folder}: 1 damaged batches left out"]
    assert f"{len(live.seen):,} rows" not in out


def test_replay_changes_nothing_in_the_spool(live, capsys):
    before = {path.name: path.read_bytes() for path in live.folder.iterdir()}
    assert bench.replayed(capsys, live.folder)[0] == 0
    assert {path.name: path.read_bytes() for path in live.folder.iterdir()} == before


def test_a_folder_without_frames_is_refused(tmp_path, capsys):
    wanted = f"{tmp_path}: holds no frames, wanted a spool folder, or the state folder of a gateway"
    assert bench.replayed(capsys, tmp_path) == (1, "", [wanted])
