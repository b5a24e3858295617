"""A gateway that dies: the boot number rises, and what it had committed arrives all the same."""

from __future__ import annotations

import time

from gateway.spool.verify import verify
from hil_tests.bench import Bench
from hil_tests.conftest import Record
from hil_tests.test_broker import all_arrived
from tests.processes import until


def test_kill_9_while_the_broker_is_away_loses_nothing_that_was_committed(bench: Bench, record: Record) -> None:
    watch, gateway = bench.watch, bench.gateway
    gateway.start()
    until(lambda: len(watch.frames) > 10 and 1 in gateway.committed(), "data before, and a commit")
    bench.broker.stop()
    before = gateway.committed()[1]
    until(lambda: gateway.committed()[1] >= before + 20, "frames that nobody has")
    gateway.kill()
    committed = gateway.committed()
    kept = verify(gateway.state / "spool")
    assert kept["ok"]
    assert kept["boots"]["1"][0][0] == 1
    assert kept["boots"]["1"][-1][1] >= committed[1]

    bench.broker.start()
    began_ns = time.time_ns()
    gateway.start()
    until(lambda: watch.leaves["status"]["boot"] == 2, "the second boot")
    until(lambda: all_arrived(bench, committed), "what the first boot had committed")
    until(lambda: watch.seqs(2), "data of the second boot")
    assert watch.leaves["status"]["state"] == "online"
    assert watch.leaves["status"]["boots"]["1"][1] >= committed[1]
    fresh = min(f.arrived_ns for f in watch.frames if f.boot == 2)
    record("restart_to_live_s", (fresh - began_ns) / 1e9, unit="s", limit=2.0)

    twice = {(s.device, s.tag, s.time_ns): set() for s in watch.samples}
    for s in watch.samples:
        twice[s.device, s.tag, s.time_ns].add((s.boot, s.seq, s.value))
    assert all(len(values) == 1 for values in twice.values()), "a repeat differed from the first"
