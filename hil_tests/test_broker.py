"""A broker that goes and comes: every committed frame arrives, live ones do not wait for the backlog."""

from __future__ import annotations

import statistics
import time

from gateway.model.ranges import RangeSet
from hil_tests.bench import Bench
from hil_tests.conftest import Record
from tests.processes import until

OUTAGE_FRAMES = 60  # committed while nobody listened: at ten commits a second some twenty batches, sixty messages
ONE_WAY_S = 0.1  # with eight messages of the backlog in flight it then takes longer than a second
IN_BETWEEN = 10  # frames that may have been read, and not yet been committed, when the first data arrived


def all_arrived(bench: Bench, committed: dict[int, int]) -> bool:
    """Return whether every committed frame of every boot arrived."""
    return all(not bench.watch.seqs(boot).missing_from(RangeSet([(1, last)])) for boot, last in committed.items())


def test_an_outage_of_the_broker_loses_nothing_and_does_not_delay_what_is_live(bench: Bench, record: Record) -> None:
    watch, gateway = bench.watch, bench.gateway
    bench.slow_uplink(ONE_WAY_S)
    gateway.start()
    until(lambda: len(watch.frames) > 10, "data before the outage")

    bench.broker.stop()
    before = gateway.committed().get(1, 0)
    until(lambda: gateway.committed().get(1, 0) >= before + OUTAGE_FRAMES, "frames in the spool")
    mark, behind = len(watch.frames), gateway.committed()
    bench.broker.start()
    until(lambda: len(watch.frames) > mark, "data after the outage")
    connected_at = gateway.committed()[1] + IN_BETWEEN
    until(lambda: all_arrived(bench, behind), "all frames of the outage")
    after = gateway.committed()
    until(lambda: all_arrived(bench, after), "all frames since")
    until(lambda: any(f.seq > connected_at for f in watch.frames), "live frames")

    came = watch.frames[mark:]
    backlog = [i for i, frame in enumerate(came) if frame.seq <= behind[1]]
    live = [i for i, frame in enumerate(came) if frame.seq > connected_at]
    assert min(live) < max(backlog), "live frames waited for the whole backlog"
    record("backlog_frames", len(backlog), unit="frames")
    record("backlog_ms", (came[max(backlog)].arrived_ns - came[0].arrived_ns) / 1e6, unit="ms", limit=5000.0)
    stamps = {(s.boot, s.seq): s.time_ns for s in watch.samples}
    delays = [
        (f.arrived_ns - stamps[f.boot, f.seq]) / 1e6 for f in (came[i] for i in live) if (f.boot, f.seq) in stamps
    ]
    record("live_beside_backlog_ms", statistics.median(delays), unit="ms", limit=4000 * ONE_WAY_S)
    until(lambda: watch.leaves["status"]["state"] == "online", "the gateway's word that it is there")
    repeated = len(watch.frames) - len({(f.boot, f.seq) for f in watch.frames})
    record("repeated_frames", repeated, unit="frames")


def test_a_gateway_that_starts_without_a_broker_brings_everything_when_it_comes(bench: Bench, record: Record) -> None:
    watch, gateway = bench.watch, bench.gateway
    bench.broker.stop()
    gateway.start()
    until(lambda: gateway.committed().get(1, 0) >= 20, "frames in the spool")
    bench.broker.start()
    began_ns, committed = time.time_ns(), gateway.committed()
    until(lambda: all_arrived(bench, committed), "everything since the start")
    record("first_data_ms", (watch.frames[0].arrived_ns - began_ns) / 1e6, unit="ms", limit=1500.0)
