"""detect: the scan kernel beside the same pass in C, the whole default bundle beside river, and the state of a tag."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from drivers.jit import kernel
from gateway.detect.bank import Bank
from gateway.detect.detector import Turn
from gateway.detect.rules import MIN_STILL, look
from gateway.detect.spike import Z_ALARM
from gateway.detect.tags import Tags, tags_of
from tests.benchmarks import rig

SIZES: Final = (100, 1_000, 10_000)
TAGS: Final = 100  # of one device in the live case
BUNDLE_TAGS: Final = 1_000
VALUES: Final = 200_000  # through a kernel in one call: the loop is inside
CHECKS: Final = ("below_low", "above_high", "rate", "frozen", "z_score", "ewma_mean", "ewma_variance")
C_FLAGS: Final = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
SECOND_NS: Final = 1_000_000_000
TICK_NS: Final = 300 * SECOND_NS  # between frames where every value goes through everything
BEGIN_NS: Final = 1_764_000_000 * SECOND_NS
RIVER_VALUES: Final = 20_000


def measure(*, seconds: float = 0.3, n_rounds: int = 7) -> dict[str, Any]:
    """Return samples per second of the scan kernel and of C by the number of tags, of the bundle, bytes of a tag.

    bundle  samples_per_s at 5 minutes a frame, where every value goes through every detector; at 1 Hz beside it
    """
    with tempfile.TemporaryDirectory() as folder:
        c = _c_scan(Path(folder))
        contestants: dict[str, Callable[[], float]] = {}
        for n in SIZES:
            contestants[f"scan {n}"] = _scan(n, seconds)
            if c:
                contestants[f"c {n}"] = _in_c(c, n, seconds)
        contestants["bundle"] = _bundle(TICK_NS, seconds)
        contestants["bundle 1 Hz"] = _bundle(SECOND_NS, seconds)
        contestants["live"] = _live(seconds)
        river = _river()
        if river:
            contestants["river"] = river
        found = rig.medians(contestants, n_rounds)
    table = rig.table(1, TAGS, "uint16")
    state = sum(column.nbytes for one in Bank(tags_of(table)).detectors for column in one.state().values())
    return {
        "scan": {
            str(n): {
                "samples_per_s": 1e9 / found[f"scan {n}"],
                "c_samples_per_s": 1e9 / found[f"c {n}"] if c else None,
                "ratio_c": found[f"c {n}"] / found[f"scan {n}"] if c else None,
                "checks": list(CHECKS),
            }
            for n in SIZES
        },
        "bundle": {
            "samples_per_s": 1e9 / found["bundle"],
            "samples_per_s_at_1_hz": 1e9 / found["bundle 1 Hz"],
            "river_samples_per_s": 1e9 / found["river"] if river else None,
            "ratio_river": found["river"] / found["bundle"] if river else None,
        },
        "live_us_per_frame_of_100_tags": found["live"] / 1e3,
        "state_bytes_per_tag": state / TAGS,
    }


def _frames(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of noise about a level of each tag, none of which is a finding."""
    rng = np.random.default_rng(43)
    frames = max(VALUES // n, 1)
    return rng.normal(0.0, 1.0, (frames, n)) + rng.uniform(100, 1000, n), np.zeros((frames, n), np.uint32)


_COLUMNS: Final = ", ".join(["f8[::1]"] * 19)


@kernel(f"void(f8[:, ::1], u4[:, ::1], {_COLUMNS}, u1[::1])", noalias=True)
def scan_frames(
    value, quality,
    quiet_low, quiet_high, rate, still_from, z_alarm, resolution,
    mean, variance, seen, last, idle, still, rest, share, polls, moves, longest, rough, roughest, hint,
):  # fmt: skip
    """Take frames through the scan kernel, the loop inside, as C does."""
    for k in range(value.shape[0]):
        look(
            0, value.shape[1], 1.0, value[k], quality[k],
            quiet_low, quiet_high, rate, still_from, z_alarm, resolution,
            mean, variance, seen, last, idle, still, rest, share, polls, moves, longest, rough, roughest, hint,
        )  # fmt: skip


def _columns(n: int) -> np.ndarray:
    """Return float64[19, n]: what `look` takes, limits and rate set, but far away."""
    out = np.zeros((19, n))
    for row, setting in enumerate((0.0, 2000.0, 1e6, MIN_STILL, Z_ALARM, 0.01)):
        out[row] = setting
    out[9] = np.nan  # the last value: none yet
    return out


def _scan(n: int, seconds: float) -> Callable[[], float]:
    value, quality = _frames(n)
    columns, hint = list(_columns(n)), np.zeros(n, np.uint8)

    def once() -> None:
        scan_frames(value, quality, *columns, hint)

    return lambda: rig.ns_per_call(once, seconds) / value.size


def _c_scan(folder: Path) -> ctypes.CDLL | None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        return None
    library = folder / "scan.so"
    source = Path(__file__).with_name("scan.c")
    subprocess.run([compiler, *C_FLAGS, "-o", str(library), str(source), "-lm"], check=True)
    return ctypes.CDLL(str(library))


def _in_c(c: ctypes.CDLL, n: int, seconds: float) -> Callable[[], float]:
    value, quality = _frames(n)
    columns, hint = _columns(n), np.zeros(n)
    arrays = (value, quality, columns, hint)

    def once() -> None:
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in arrays)
        c.scan(ctypes.c_long(len(value)), ctypes.c_long(n), ctypes.c_double(1.0), *pointers)

    once()
    other = list(_columns(n))
    scan_frames(value, quality, *other, np.zeros(n, np.uint8))
    # gcc contracts a * b + c into one rounding, we do not
    np.testing.assert_allclose(columns, np.array(other), rtol=1e-9, err_msg="C and kernel do not compute the same")
    return lambda: rig.ns_per_call(once, seconds) / value.size


def _bundle(step_ns: int, seconds: float) -> Callable[[], float]:
    """Return the time of a value through all detectors, many frames a call, as in a replay."""
    tags = tags_of(rig.table(BUNDLE_TAGS // TAGS, TAGS, "uint16"))
    tags = Tags(
        np.zeros(1, np.int32), np.array([BUNDLE_TAGS], np.int32), tags.detect, tags.kind, tags.asset, tags.n_assets,
        tags.limit, tags.deadband, tags.on_delay_ns, tags.off_delay_ns, tags.rate, tags.resolution,
    )  # fmt: skip
    bank = Bank(tags)
    value, quality = _frames(BUNDLE_TAGS)
    frames = len(value)
    times = (BEGIN_NS + step_ns * np.arange(frames))[:, None]
    turn = Turn(
        np.zeros(1, np.int32), times, times, value, quality, np.zeros(value.shape), np.zeros(value.shape, np.uint16)
    )

    def once() -> None:
        bank.update(turn)
        times[:] += step_ns * frames

    return lambda: rig.ns_per_call(once, seconds) / value.size


def _live(seconds: float) -> Callable[[], float]:
    """Return the time of one frame of one device through all detectors, as the gateway takes them."""
    bank = Bank(tags_of(rig.table(10, TAGS, "uint16")))
    n = bank.tags.n
    value, quality = _frames(n)
    times = np.full((1, bank.tags.n_scans), BEGIN_NS)
    turn = Turn(
        np.zeros(1, np.int32),
        times,
        times,
        value[:1].copy(),
        quality[:1],
        np.zeros((1, n)),
        np.zeros((1, n), np.uint16),
    )
    at = 0

    def once() -> None:
        nonlocal at
        at += 1
        turn.ready[0] = at % 10
        turn.value[:] = value[at % len(value)]
        times[:] += SECOND_NS // 10
        bank.update(turn)

    return lambda: rig.ns_per_call(once, seconds)


def _river() -> Callable[[], float] | None:
    """Return the time of a value in river's cheapest scorer, one object a tag; None where it is not installed."""
    with suppress(ImportError):
        from river.anomaly import GaussianScorer

        values = np.random.default_rng(43).normal(100.0, 1.0, RIVER_VALUES).tolist()

        def once() -> float:
            scorer = GaussianScorer()
            began = time.perf_counter_ns()
            for value in values:
                scorer.score_one(None, value)
                scorer.learn_one(None, value)
            return (time.perf_counter_ns() - began) / len(values)

        return once
    return None
