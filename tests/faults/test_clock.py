"""A box without a clock chip: it starts in 1970, somebody sets its clock, it starts again. With libfaketime."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from pathlib import Path

import pytest

from drivers.link import LinkSpec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import Fleet
from gateway.model.clock import EPOCH_NS, NS, clock_state
from gateway.spool.verify import verify
from gateway.wire.lines import parse_header, parse_lines
from tests import servers
from tests.gateway.test_app import DATA, collect, write_config
from tests.processes import corridor, until

LIBRARY = Path(f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1")
EVENT = "corridor/v1/link43/ps1/gw1/gateway/event"
POINTS = tuple(Point(f"v{i}", "holding", i, "uint16") for i in range(5))

pytestmark = [
    pytest.mark.skipif(not LIBRARY.exists(), reason="libfaketime is not installed"),
    pytest.mark.skipif(clock_state() == "synced", reason="this machine's clock is synchronised, so steps are believed"),
]


@contextlib.asynccontextmanager
async def meter(folder: Path, port: int):
    """Serve a simulated meter; yields the configuration of a gateway that reads it at 20 Hz."""
    link = LinkSpec("skid", "tcp", "127.0.0.1", 0)
    async with Fleet([MeterSpec("d1", link, 1, "", POINTS)], seed=1) as fleet:
        points = [(p.name, p.type, p.address) for p in POINTS]
        yield write_config(folder, port, fleet.ports["skid"], points, period_s=0.05)


def frames(messages: list[bytes]) -> dict[tuple[int, int], int]:
    """Return the stamp of every frame (boot, seq)."""
    found: dict[tuple[int, int], int] = {}
    for payload in messages:
        header = parse_header(payload)
        seqs = [seq for first, last in header.seq for seq in range(first, last + 1)]
        for seq, line in zip(seqs, parse_lines(payload), strict=True):
            assert found.setdefault((header.boot, seq), line.time_ns) == line.time_ns
    return found


async def test_time_never_goes_back_whatever_becomes_of_the_machines_clock(tmp_path: Path) -> None:
    stamp = tmp_path / "faketime"
    fake = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with servers.mosquitto(tmp_path / "mosquitto", keeps_sessions=True) as broker:
        await collect(broker.port, lambda m: True, session_expiry_s=300)
        async with meter(tmp_path, broker.port) as config:

            def committed() -> int:
                boots = verify(tmp_path / "gw" / "spool")["boots"]
                return max(boots[max(boots, key=int)][-1]) if boots else 0

            for boot, begins in ((1, "1970-01-01 00:00:10"), (2, "1970-01-01 00:00:20")):
                stamp.write_text(f"@{begins}")
                log = tmp_path / f"run{boot}.log"
                with corridor("run", config, "--state", tmp_path / "gw", log=log, **fake):
                    await asyncio.to_thread(until, lambda b=boot: str(b) in spool_boots(tmp_path), "a first commit")
                    for step in ("-1h", "+10y", "+5s", "-5s"):
                        n = committed()
                        stamp.write_text(f"{step}")
                        await asyncio.to_thread(until, lambda n=n: committed() > n + 8, "frames after a step")
        spool = verify(tmp_path / "gw" / "spool")
        wanted = {
            (int(boot), seq) for boot, spans in spool["boots"].items() for a, b in spans for seq in range(a, b + 1)
        }

        def has_all(messages: dict[str, list[bytes]]) -> bool:
            return len(frames(messages.get(DATA, []))) >= spool["values"] / len(POINTS) - 1

        found = await collect(broker.port, has_all, session_expiry_s=300)
    stamps = frames(found[DATA])
    assert set(stamps) <= wanted
    in_order = [stamps[key] for key in sorted(stamps)]
    assert all(a < b for a, b in itertools.pairwise(in_order))
    assert EPOCH_NS <= in_order[0] < in_order[-1] < EPOCH_NS + 600 * NS  # no step moved a stamp
    texts = [json.loads(payload)["text"] for payload in found[EVENT]]
    assert any("-3600" in text or "not synchronised" in text for text in texts)
    assert any("behind the last stamp" in text for text in texts)


def spool_boots(folder: Path) -> dict[str, object]:
    """Return the boots of a gateway's spool."""
    return dict(verify(folder / "gw" / "spool")["boots"])
