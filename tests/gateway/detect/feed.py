"""Feeds detectors recorded columns, in calls of any size and in any order of scans."""

from dataclasses import dataclass

import numpy as np

from drivers.quality import BAD_TIMEOUT
from gateway.detect.detector import Turn
from gateway.detect.tags import KINDS, Tags
from gateway.model.build import DEFAULT_DETECT
from gateway.model.frame import DETECT_BITS

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BEGIN = 1_000 * SECOND  # on the clock that never steps
STAMP = 1_764_028_800 * SECOND + 5 * HOUR + 20 * MINUTE  # what Unix time is ahead of it: days, and part of an hour
MIDNIGHT = DAY - 5 * HOUR - 20 * MINUTE  # in Unix time, on the clock that never steps
NAN = float("nan")


def tags(
    n=1, *, scans=None, assets=None, kinds="gauge", detect=None,
    limit=(NAN, NAN, NAN, NAN), deadband=0.0, on_delay_s=0.0, off_delay_s=0.0, rate=NAN, resolution=0.0,
):  # fmt: skip
    """Return n tags in scans of these sizes (one of all), of these assets (one of all), with the default detectors."""
    scans, assets = scans or [n], assets or [0] * n
    kinds = [kinds] * n if isinstance(kinds, str) else kinds
    edges = np.cumsum([0, *scans]).astype(np.int32)
    named = [DEFAULT_DETECT[kind] if detect is None else detect for kind in kinds]
    return Tags(
        scan_start=edges[:-1].copy(),
        scan_stop=edges[1:].copy(),
        detect=np.array([sum(DETECT_BITS[name] for name in names) for names in named], np.uint8),
        kind=np.array([KINDS.index(kind) for kind in kinds], np.uint8),
        asset=np.array(assets, np.int32),
        n_assets=max(assets) + 1,
        limit=np.tile(np.array(limit), (n, 1)),
        deadband=np.full(n, deadband),
        on_delay_ns=np.full(n, round(on_delay_s * SECOND)),
        off_delay_ns=np.full(n, round(off_delay_s * SECOND)),
        rate=np.full(n, rate),
        resolution=np.full(n, resolution),
    )


@dataclass
class Columns:
    """Frames of all tags: time_ns int64[frames, scans], value float64[frames, n], bad bool[frames, n]."""

    time_ns: np.ndarray
    value: np.ndarray
    bad: np.ndarray

    def __len__(self):
        return len(self.value)

    def __getitem__(self, which):
        return Columns(self.time_ns[which].copy(), self.value[which].copy(), self.bad[which].copy())


def columns(values, *, period_s=1.0, begin_ns=BEGIN, scans=1, value_of_bad=NAN):
    """Return values float64[frames] or [frames, n] (NaN: bad) as frames of this period (or these, one a frame)."""
    value = np.array(values, float)
    value = value[:, None] if value.ndim == 1 else value
    passed = np.concatenate([[0.0], np.cumsum(np.broadcast_to(period_s, len(value)))])[:-1]
    time_ns = begin_ns + np.round(passed * 1e9).astype(np.int64)
    bad = np.isnan(value)
    value[bad] = value_of_bad
    return Columns(np.repeat(time_ns[:, None], scans, axis=1), value, bad)


def turn_of(fed, ready):
    """Return a turn of these columns, with nothing told yet."""
    quality = np.where(fed.bad, BAD_TIMEOUT, 0).astype(np.uint32)
    time_ns = np.ascontiguousarray(fed.time_ns)
    flags = np.zeros(fed.value.shape, np.uint16)
    ready = np.array(ready, np.int32)
    return Turn(ready, time_ns, time_ns + STAMP, np.ascontiguousarray(fed.value), quality, np.zeros(flags.shape), flags)


def run(detector, fed, *, sizes=None, ready=None, apart=False):
    """Feed all frames; returns (flags uint16[frames, n], score float64[frames, n]).

    sizes  frames of each call, all in one if None;  ready  order of the scans;  apart  a call for each of them
    """
    ready = list(range(fed.time_ns.shape[1])) if ready is None else ready
    flags, score, at = [], [], 0
    for size in sizes or [len(fed)]:
        turn = turn_of(fed[at : at + size], ready)
        at += size
        if apart:
            assert size == 1
            for number in ready:
                turn.ready = np.array([number], np.int32)
                detector.update(turn)
        else:
            detector.update(turn)
        flags.append(turn.flags)
        score.append(turn.score)
    assert at == len(fed)
    return np.concatenate(flags), np.concatenate(score)


def noise(frames, n=1, *, seed=0, mean=50.0, sd=1.0):
    """Return Gaussian noise."""
    return np.random.default_rng(seed).normal(mean, sd, (frames, n))


def saved(detector):
    """Return a copy of its state."""
    return {name: column.copy() for name, column in detector.state().items()}


def restore(detector, state):
    """Write a state back."""
    assert set(detector.state()) == set(state)
    for name, column in detector.state().items():
        column[...] = state[name]


def assert_same(found, wanted):
    """Hold two states, or two (flags, score), together bit for bit."""
    pairs = found.items() if isinstance(found, dict) else enumerate(found)
    for name, column in pairs:
        assert column.dtype == wanted[name].dtype, name
        assert column.tobytes() == wanted[name].tobytes(), name
