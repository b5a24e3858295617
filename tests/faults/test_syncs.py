"""One sync a commit, whatever happens: what an event costs a card is a part of a page, not a sync of its own."""

import contextlib
import re
import subprocess
from pathlib import Path

from hil_tests import bench as benches
from tests import servers
from tests.processes import until

BENCH = Path(benches.__file__).parent / "benches" / "simulated.toml"
SYNC = re.compile(r"\bf(?:data)?sync\((\d+<[^>]*>)")
COMMITTED = re.compile(r"\bwrite\(.*COMMIT boot=")
MADE_AHEAD = 2  # syncs beyond one a commit, once: the file of the next segment


@contextlib.contextmanager
def traced(pid, path):
    """Write what a running process syncs, and what it says, into a file while the block runs."""
    calls = "trace=fsync,fdatasync,write"
    command = [servers.program("strace"), "-f", "-y", "-s", "40", "-e", calls, "-o", path, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert "attached" in tracer.stderr.readline()
            yield
        finally:
            tracer.terminate()


def test_events_cost_no_syncs_of_their_own(tmp_path):
    with benches.opened(benches.load(BENCH), tmp_path) as bench:
        bench.value("ft-101", "mass_flow", 249.5)
        bench.gateway.start()
        until(lambda: bench.gateway.committed().get(1, 0) > 30, "commits")
        journal = bench.gateway.state / "journal.jsonl"
        trace, before = tmp_path / "trace", journal.read_bytes()
        with traced(bench.gateway.pid, trace):
            for times in range(1, 5):
                for value, step in ((262.5, "raise"), (240.5, "clear")):
                    bench.value("ft-101", "mass_flow", value)
                    until(lambda s=step, n=times: len(bench.watch.alarm_events("ft-101", f"high:{s}")) >= n, step)
        text = trace.read_text()
        commits, syncs = len(COMMITTED.findall(text)), SYNC.findall(text)
        assert commits > 8
        assert len(syncs) <= commits + MADE_AHEAD, syncs
        assert not [name for name in syncs if "journal" in name or "alarms" in name]
        bench.gateway.kill()
        whole = journal.read_bytes()
        journal.write_bytes(before)  # as if the power had gone before it was synced
        assert len(whole.splitlines()) >= len(before.splitlines()) + 8
        bench.gateway.start()
        until(lambda: bench.gateway.committed().get(2, 0) > 10, "the next run")
        assert set(whole.splitlines()) <= set(journal.read_bytes().splitlines())
