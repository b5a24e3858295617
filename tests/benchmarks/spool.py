"""spool: append and commit, what is kept per value, what the device is asked to write."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gateway.model.frame import Frame, TagTable
from gateway.spool.disk import DiskSpool
from gateway.spool.record import FRAMES, Block, SpooledFrame, encode_block, pack_batch
from gateway.wire.frame_lines import scan_texts
from tests.benchmarks import rig

START_NS = 1_764_000_000_000_000_000
SECOND = 1_000_000_000
DEVICES = 10
CATALOG = "3f9a1234"
SECTOR_BYTES = 512


def measure(*, n_commits: int = 60, n_rounds: int = 3) -> dict[str, Any]:
    """Return values per second, bytes kept per value by frames per batch, and device bytes per value at 1,000 tags."""
    table = rig.table(DEVICES, rig.VALUES + 2, "uint16", scale=0.1)
    with tempfile.TemporaryDirectory(prefix="corridor-bench-") as folder:
        rounds = [asyncio.run(_commits(table, Path(folder) / str(i), n_commits)) for i in range(n_rounds)]
    middle = {key: float(np.median([one[key] for one in rounds])) for key in rounds[0]}
    middle["device_bytes_per_value"] = min(one["device_bytes_per_value"] for one in rounds)  # others only add to it
    return {**middle, "kept_bytes_per_value": {f"{n}_frames_per_batch": _kept(table, n) for n in (1, 10, 60)}}


def _frames(table: TagTable, n: int, first_seq: int = 1) -> list[Frame]:
    """Return n frames of all devices in turn: decimals that wander by their noise, as meters do."""
    rng = np.random.default_rng(43)
    base = rng.uniform(100, 6000, table.n)
    quality = np.zeros(table.n, np.uint32)
    out = []
    for k in range(n):
        scan = table.scans[k % len(table.scans)]
        rows = slice(scan.start, scan.stop)
        value = np.round(base[rows] + rng.normal(0, 0.5, scan.stop - scan.start), 1)
        due_ns = START_NS + k // len(table.scans) * SECOND + scan.number * SECOND // len(table.scans)
        out.append(Frame(scan, first_seq + k, due_ns, due_ns + 1_234_567 + 1000 * k, 800_000, value, quality[rows]))
    return out


async def _commits(table: TagTable, folder: Path, n_commits: int) -> dict[str, float]:
    """One frame of each device between two commits: a second of a gateway with 1,000 tags at 1 Hz."""
    spool = DiskSpool(folder, 100_000_000, CATALOG, scan_texts(table))
    frames = _frames(table, n_commits * DEVICES)
    for frame in frames[:DEVICES]:
        spool.append(frame)
    await spool.commit()  # the first one makes the segment: written ahead once, in megabytes
    before, append_s, commit_s = (_written(), _sectors(folder)), 0.0, []
    for k in range(DEVICES, len(frames), DEVICES):
        began = time.perf_counter()
        for frame in frames[k : k + DEVICES]:
            spool.append(frame)
        middle = time.perf_counter()
        await spool.commit()
        append_s += middle - began
        commit_s.append(time.perf_counter() - middle)
    n_values = (len(frames) - DEVICES) * (table.n // DEVICES)
    asked, reached = _written() - before[0], _sectors(folder) - before[1]
    await spool.close()
    return {
        "values_per_s": n_values / (append_s + sum(commit_s)),
        "append_ns_per_value": 1e9 * append_s / n_values,
        "commit_median_ms": 1e3 * float(np.median(commit_s)),
        "commit_p95_ms": 1e3 * float(np.quantile(commit_s, 0.95)),
        "asked_bytes_per_value": asked / n_values,
        "device_bytes_per_value": reached / n_values,
    }


def _kept(table: TagTable, n: int) -> float:
    """Return the bytes of one batch of n frames of one device, per value."""
    taken = _frames(table, n * DEVICES)[::DEVICES]
    held = [
        SpooledFrame(f.scan.number, 1 + k, f.due_ns, f.time_ns, f.uncertainty_ns, 0, f.value.copy(), f.quality.copy())
        for k, f in enumerate(taken)
    ]
    decimals = [np.array(text.decimals, np.int8) for text in scan_texts(table)]
    body = encode_block(CATALOG, Block.of(held), decimals)
    n_values = sum(frame.value.size for frame in held)
    return len(pack_batch(1, 1, FRAMES, 1, n, n_values, body)) / n_values


def _written() -> int:
    """Return the bytes that this process has dirtied in the page cache; ext4 counts a whole folio, up to 2 MiB."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def _sectors(folder: Path) -> int:
    """Return the bytes that have reached the folder's block device, by whomever; 0 where it does not tell."""
    device = folder.stat().st_dev
    try:
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    except OSError:
        return 0
    return int(fields[6]) * SECTOR_BYTES
