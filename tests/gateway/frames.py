"""Frames for spools: many scans, noise, bad values."""

from functools import lru_cache

import numpy as np

from drivers.quality import BAD_TIMEOUT, UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
from gateway.model.frame import Frame, Scan
from gateway.wire.frame_lines import ScanText

SECOND = 1_000_000_000
START_NS = 1_764_000_000 * SECOND


def texts(scans=3, rows=5, decimals=(1, -1, -2, 0, 3)):
    """Return the texts of so many scans."""
    names = tuple(f"t{i}" for i in range(rows))
    kinds = tuple(decimals[i % len(decimals)] for i in range(rows))
    return tuple(ScanText(f"d{k}", f"meter,device=d{k} ", names, kinds) for k in range(scans))


def scan(number, rows=5):
    """Return a scan with so many rows."""
    return Scan(number, number, 1.0, 0.0, number * rows, (number + 1) * rows)


def frame(seq, number=0, rows=5, seed=None):
    """Return a frame with values of each kind of decimals, some bad, some uncertain."""
    value, quality = _readings(seq if seed is None else seed, rows)
    due = START_NS + seq * SECOND
    return Frame(scan(number, rows), seq, due, due + 12_345_678, 1_500_000, value.copy(), quality.copy())


@lru_cache(maxsize=10_000)
def _readings(seed, rows):
    rng = np.random.default_rng(seed)
    raw = rng.normal(100, 5, rows)
    kinds = (np.round(raw, 1), raw.astype(np.float32).astype(float), raw, np.round(raw), np.round(raw, 3))
    value = np.array([kinds[i % 5][i] for i in range(rows)])
    quality = np.zeros(rows, np.uint32)
    quality[rng.random(rows) < 0.1] = BAD_TIMEOUT
    quality[rng.random(rows) < 0.05] = UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
    value[quality == BAD_TIMEOUT] = np.nan
    return value, quality
