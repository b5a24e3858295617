"""Feeds one detector frame by frame."""

import numpy as np

from drivers.points import Point
from drivers.quality import BAD_TIMEOUT
from gateway.acquire.plan import plan
from gateway.detect.detector import Turn
from tests.gateway import build

SECOND = 1_000_000_000


def table(n=1, *, scans=1, kind="float32", scale=1.0, **settings):
    """Return the table of n tags on each of so many scans."""
    points = [Point(f"v{i}", "holding", 2 * i, kind, scale=scale) for i in range(n)]
    devices = [build.device(f"d{k}", [build.tag(p, **settings) for p in points], unit=k + 1) for k in range(scans)]
    return plan(build.gateway(devices)).table


def run(detector, made, values, *, period_s=1.0, start=0, split=()):
    """Feed values float[frames, n] (NaN: bad) of all scans and return (flags uint16, score) of every frame."""
    values = np.asarray(values, float)
    n = made.n
    ready = np.arange(len(made.scans), dtype=np.int32)
    flags, score = np.zeros(n, np.uint16), np.zeros(n)
    out_flags, out_score = [], []
    for k, row in enumerate(values, start):
        quality = np.where(np.isnan(row), BAD_TIMEOUT, 0).astype(np.uint32)
        time_ns = np.full(len(made.scans), (1000 + k) * round(period_s * SECOND), np.int64)
        score[:] = 0.0
        groups = np.array_split(ready, len(ready)) if split else [ready]
        for group in groups:
            detector.update(
                Turn(np.ascontiguousarray(group), time_ns, np.ascontiguousarray(row), quality, score, flags)
            )
        out_flags.append(flags.copy())
        out_score.append(score.copy())
    return np.array(out_flags), np.array(out_score)
