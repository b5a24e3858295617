"""A day without a broker: the gateway's memory stays what it was after the first hour, and has room for the backlog."""

import json
import subprocess
import sys

import pytest

from tests.faults.strace import HERE

FLAT = 1.05  # of what it was after the first hour
DRAIN = 1.10  # likewise, while a day goes out: a batch, its lines and a window of messages
HOURS = 24


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_flat_over_a_day_of_outage_and_bounded_while_it_is_delivered(tmp_path, mosquitto):
    mosquitto.stop()
    command = [sys.executable, "-m", "tests.faults.day_away", tmp_path / "gw", str(mosquitto.port), str(HOURS)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=HERE) as child:
        assert child.stdin
        assert child.stdout
        rss = [json.loads(child.stdout.readline())["rss"] for _ in range(HOURS)]
        mosquitto.start()
        child.stdin.write("\n")
        child.stdin.flush()
        peak = json.loads(child.stdout.readline())["rss"]
    assert child.returncode == 0
    print("MB by the hour:", *(f"{each / 1e6:.1f}" for each in rss), "and at most, draining:", f"{peak / 1e6:.1f}")
    assert max(rss[1:]) <= FLAT * rss[0]
    assert peak <= DRAIN * rss[0]
