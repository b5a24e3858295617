"""The demo as a stranger starts it: one command, everything in it, nothing missing at the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
