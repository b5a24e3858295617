"""The demo as a stranger starts it: one command, everything in it, nothing missing at the end."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.demo import app
from gateway.demo.broker import free_port
from gateway.demo.sites import write_sites
from gateway.history.sqlite import Sqlite
from gateway.model.config import load_gateway
from gateway.model.corridor import StoreSpec
from gateway.model.ranges import RangeSet

SECONDS = 25  # 5 s are enough on an idle machine; the rest is for a busy one


def demo(folder, *, mosquitto):
    environment = dict(os.environ)
    if not mosquitto:  # a machine without it: the demo looks for it on the PATH
        environment["CORRIDOR_DEMO_BROKER"] = "amqtt"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gateway.cli",
            "demo",
            "--seconds",
            str(SECONDS),
            "--port",
            "0",
            "--json",
            "--data",
            folder,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


async def test_a_file_is_no_folder_for_the_demo_and_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = await app.main(seconds=1.0, port=0, browser=False, data=tmp_path / "file", seed=1, as_json=True)
    assert code == 1
    assert capsys.readouterr().err == f"--data {tmp_path}/file: File exists, wanted a folder that can be written to\n"


def test_a_relative_folder_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert app.usable(Path("a/b")) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


async def test_values_of_an_earlier_run_are_not_counted(tmp_path):
    began_ns = 1_764_000_000_000_000_000
    run = app._Run(tmp_path, [], [], time.monotonic(), began_ns, {})
    store = Sqlite(StoreSpec(f"sqlite://{run.database}", None))
    await store.write(b"m,corridor=c,site=s,gateway=g,device=d v=1,w=2 %d" % (began_ns - 1))
    with contextlib.closing(app._open_database(run.database)) as db:
        assert db.execute(app.ANY_SINCE, (began_ns,)).fetchone() is None
        assert db.execute(app.ALL_SINCE, (began_ns,)).fetchone() == (0,)
        await store.write(b"m,corridor=c,site=s,gateway=g,device=d w=2 %d" % began_ns)
        assert db.execute(app.ANY_SINCE, (began_ns,)).fetchone() == (1,)
        assert db.execute(app.ALL_SINCE, (began_ns,)).fetchone() == (1,)
    await store.close()


def test_frames_of_an_earlier_run_are_not_counted(tmp_path, monkeypatch):
    (spec,) = [load_gateway(path) for path in write_sites(tmp_path, "mqtt://127.0.0.1:1", free_port)[:1]]
    run = app._Run(tmp_path, [spec], [], time.monotonic(), 0, {})
    boots = {"1": [[1, 5]], "2": [[1, 3], [7, 7]]}
    monkeypatch.setattr(app, "verify", lambda folder: {"boots": boots})
    run.last_boots = {spec.id: 1}
    committed = {spec.id: app._committed(run, spec)}
    assert committed == {spec.id: {2: RangeSet([(1, 3), (7, 7)])}}
    assert app._compare(run, committed) == (4, 0)


@pytest.mark.slow
def test_a_second_demo_in_the_same_folder_tells_about_itself(tmp_path):
    first, _ = demo(tmp_path, mosquitto=True)
    second, _ = demo(tmp_path, mosquitto=True)
    assert second["missing"] == 0
    assert second["first_value_s"] > 0.5, "no process can start, read and store in less"
    for key in ("frames_stored", "values_stored"):
        assert second[key] < 1.5 * first[key]


@pytest.mark.parametrize("mosquitto", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_whole_line_runs_and_nothing_is_missing(tmp_path, mosquitto):
    if not mosquitto:
        pytest.importorskip("amqtt")
    summary, told = demo(tmp_path, mosquitto=mosquitto)
    assert list(summary) == [
        "gateways", "devices", "tags", "frames_read", "frames_stored", "values_stored", "missing", "first_value_s",
        "anomalies_injected", "anomalies_detected", "anomalies_other", "console_url",
    ]  # fmt: skip
    assert summary["missing"] == 0
    assert summary["gateways"] >= 3
    assert summary["devices"] >= 60
    assert summary["tags"] >= 900
    assert summary["frames_stored"] == summary["frames_read"] > 0
    assert summary["values_stored"] > summary["tags"]
    for word in ("broker:", "simulated meters:", "console: http://127.0.0.1:", "first value in the database"):
        assert word in told
    truth = (tmp_path / "truth.jsonl").read_text().splitlines()
    assert {"t_ns", "device", "tag", "value", "seq"} <= json.loads(truth[0]).keys()
    assert not [p for p in Path(tmp_path).glob("*.log") if "Traceback" in p.read_text()]
