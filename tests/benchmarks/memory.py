"""memory: a gateway with 1,000 tags at 1 Hz, as it stands after a while."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import rig

METERS, TAGS = 10, 100
RSS_LIMIT_MB, ANONYMOUS_LIMIT_MB = 170.0, 80.0


def measure(*, seconds: float = 15.0) -> dict[str, Any]:
    """Return resident and anonymous memory, where the resident part lies, and whether they keep their limits."""
    with (
        tempfile.TemporaryDirectory(prefix="corridor-bench-") as name,
        rig.broker(Path(name)) as broker,
        rig.meters(METERS) as ports,
    ):
        config = rig.write_config(Path(name) / "gateway.toml", broker.port, ports, TAGS, 1.0)
        with rig.gateway(config, Path(name)) as child:
            time.sleep(seconds)
            found = rig.memory_mb(child.pid)
            parts = _parts(child.pid)
            cpu = rig.cpu_s(child.pid)
    return {
        "tags": METERS * TAGS,
        **found,
        "rss_limit_mb": RSS_LIMIT_MB,
        "anonymous_limit_mb": ANONYMOUS_LIMIT_MB,
        "within_limits": found["rss_mb"] <= RSS_LIMIT_MB and found["anonymous_mb"] <= ANONYMOUS_LIMIT_MB,
        "cpu_s": cpu,
        "largest_parts_rss_mb": parts,
    }


def _parts(pid: int) -> dict[str, float]:
    """Return the resident memory of the ten largest mappings by file name; anonymous ones by what they are."""
    sizes: dict[str, float] = {}
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            name = words[5].rpartition("/")[2] if len(words) > 5 else "[anonymous]"
        elif words[0] == "Rss:":
            sizes[name] = sizes.get(name, 0.0) + int(words[1]) * rig.KIB / 1e6
    largest = sorted(sizes, key=lambda key: -sizes[key])[:10]
    return {key: sizes[key] for key in largest}
