"""kill -9 at any moment: of a writer under load, and of a gateway whose broker comes and goes."""

import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.model.ranges import RangeSet
from gateway.spool.verify import verify
from hil_tests import bench as benches
from tests.faults.promises import Promises, broken, goal, hurry
from tests.faults.strace import HERE
from tests.processes import until

LATEST_S = 0.3  # after the opening: a hundred commits
BENCH = Path(benches.__file__).parent / "benches" / "simulated.toml"


@contextlib.contextmanager
def nursery(scratch):
    """A process that forks writers, see tests/faults/writer.py."""
    command = [sys.executable, "-m", "tests.faults.writer", str(scratch)]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # it would halve the lines of the spool
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=HERE
    ) as child:
        try:
            yield child
        finally:
            child.stdin.close()


def kill_one(parent, folder, seed, rng):
    """Let a writer go on with a folder and kill it some time after it has opened it; return what it told."""
    parent.stdin.write(f"{folder} {seed}\n")
    parent.stdin.flush()
    lines = []
    while len([line for line in lines if line.startswith(("PID", "BOOT"))]) < 2:
        lines.append(parent.stdout.readline().strip())
    (pid,) = [int(line.split()[1]) for line in lines if line.startswith("PID")]
    killer = threading.Timer(LATEST_S * rng.random(), os.kill, (pid, signal.SIGKILL))
    killer.start()
    while lines[-1] != "END":
        lines.append(parent.stdout.readline().strip())
    killer.join()
    return [line for line in lines if not line.startswith(("PID", "END"))]


async def killed(folder, times, seed):
    """Kill writers of one spool, one after the other; after each, a copy of the folder is looked at.

    Returns what the last of them was promised, and what each copy was judged by.
    """
    rng = random.Random(seed)
    promises, judged = Promises(), []
    spool = folder / "spool"
    with nursery(folder / "scratch") as parent:
        for i in range(times):
            for line in kill_one(parent, spool, seed + i, rng):
                promises.hear(line)
            assert promises.broken == []
            assert promises.boot == i + 1
            shutil.copytree(spool, folder / "copy")
            judged.append(promises.copy())
            assert await broken(folder / "copy", judged[-1]) == []
            shutil.rmtree(folder / "copy")
    return promises, judged


async def test_a_writer_that_is_killed_breaks_no_promise(tmp_path, monkeypatch, show):
    hurry(monkeypatch)
    _, judged = await killed(tmp_path, 5, 1)
    show(goal("spool: kill -9 of its writer", judged))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_writer_that_is_killed_two_hundred_times_breaks_no_promise(tmp_path, monkeypatch, show):
    hurry(monkeypatch)
    promises, judged = await killed(tmp_path, 200, 1000)
    show(goal("spool: kill -9 of its writer", judged))
    assert promises.dropped > 1_000


def run_and_kill(bench, times, rng):
    """Kill a gateway so many times while its broker comes and goes; return the last committed frame of each boot."""
    gateway, is_up = bench.gateway, True
    for boot in range(1, times + 1):
        gateway.start()
        for _ in range(rng.randint(1, 3)):
            wanted = gateway.committed().get(boot, 0) + rng.randint(1, 20)
            until(lambda boot=boot, wanted=wanted: gateway.committed().get(boot, 0) >= wanted, "a commit")
            if rng.random() < 0.5:
                (bench.broker.stop if is_up else bench.broker.start)()
                is_up = not is_up
        threading.Event().wait(rng.random() * 0.1)  # anywhere between two commits
        gateway.kill()
        committed = gateway.committed()
        kept = verify(gateway.state / "spool")
        assert kept["ok"], kept
        assert sorted(map(int, kept["boots"])) == sorted(committed) == list(range(1, boot + 1))
        for number, last in committed.items():
            ((first, until_seq),) = kept["boots"][str(number)]
            assert first == 1
            assert until_seq >= last
    if not is_up:
        bench.broker.start()
    return gateway.committed()


def everything_arrives_once(bench, committed):
    """Let the last gateway bring what its predecessors had committed, and see that no frame came with two stamps."""
    watch, gateway = bench.watch, bench.gateway
    gateway.start()

    def missing():
        return {n: RangeSet([(1, k)]) for n, k in committed.items() if watch.seqs(n).missing_from(RangeSet([(1, k)]))}

    until(lambda: not missing(), "what was committed")
    until(lambda: watch.seqs(max(committed) + 1), "the last boot")
    assert min(first for n in committed for first, _ in watch.seqs(n)) == 1
    stamps, owners = collections.defaultdict(set), collections.defaultdict(set)
    for s in watch.samples:
        stamps[s.device, s.tag, s.boot, s.seq].add((s.time_ns, s.value))
        owners[s.device, s.tag, s.time_ns].add((s.boot, s.seq))
    assert [key for key, found in stamps.items() if len(found) > 1] == []
    assert [key for key, found in owners.items() if len(found) > 1] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_gateway_that_is_killed_brings_every_committed_frame_under_one_stamp(tmp_path):
    with benches.opened(benches.load(BENCH), tmp_path) as bench:
        everything_arrives_once(bench, run_and_kill(bench, 25, random.Random(25)))
