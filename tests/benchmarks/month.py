"""month: thirty days of the simulated corridor through the detectors: what they cry without cause, what they find."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from drivers.quality import BAD_DATA_UNAVAILABLE
from gateway.acquire.plan import plan
from gateway.demo.month import DAYS, MonthSite, month
from gateway.detect.bank import Bank
from gateway.detect.detector import Turn
from gateway.detect.flags import LIMITS, names
from gateway.detect.tags import tags_of

BLOCK_S: Final = 3_600.0  # of history at a time
WINDOW_S: Final = 60.0  # of every period in turn: so far the tags of an asset may be apart
NS: Final = 1_000_000_000
WEEKS: Final = DAYS / 7.0
GRACE_S: Final = 900.0  # after the end of an anomaly in which it still counts as found: two buckets and a half


@dataclass(frozen=True, slots=True)
class Cry:
    """A flag, or a bad quality, that rose."""

    time_s: float
    device: str
    tag: str
    asset: str
    reason: str


@dataclass(slots=True)
class _Watch:
    """The detectors of one site, and what they said."""

    site: MonthSite
    injected: bool
    cries: list[Cry] = field(default_factory=list)

    def run(self, days: float = DAYS) -> list[Cry]:
        """Take the days through the detectors and return every rise of a flag."""
        site, table = self.site, plan(self.site.spec).table
        bank = Bank(tags_of(table))
        row_of = {(site.spec.devices[table.device_of[i]].name, tag.name): i for i, tag in enumerate(table.tags)}
        history = site.history(injected=self.injected)
        groups = []
        for period_s, columns in site.by_period(history).items():
            rows = [row_of[history.columns[c].device, history.columns[c].tag] for c in columns]
            ready = np.unique(table.scan_of[rows]).astype(np.int32)
            groups.append((period_s, columns, rows, ready))
        before = np.zeros(table.n, np.uint16)
        was_bad = np.zeros(table.n, np.bool_)
        end_s = site.origin_s + days * 86_400.0
        for start_s in np.arange(site.origin_s, end_s, BLOCK_S):
            stop_s = min(start_s + BLOCK_S, end_s)
            shown = [
                (
                    times := np.arange(start_s, stop_s - period_s / 2, period_s),
                    history.block(times, columns),
                    rows,
                    ready,
                )
                for period_s, columns, rows, ready in groups
            ]
            for now_s in np.arange(start_s, stop_s, WINDOW_S):
                for times, value, rows, ready in shown:
                    first, last = np.searchsorted(times, (now_s, now_s + WINDOW_S))
                    if first < last:
                        self._window(table, bank, times[first:last], value[first:last], rows, ready, before, was_bad)
        return self.cries

    def _window(
        self,
        table: Any,
        bank: Bank,
        times: np.ndarray,
        shown: np.ndarray,
        rows: Any,
        ready: Any,
        before: Any,
        was_bad: Any,
    ) -> None:
        value = np.zeros((times.size, table.n))
        value[:, rows] = shown
        bad = np.isnan(value)
        stamps = np.repeat(np.round(times * NS).astype(np.int64)[:, None], len(table.scans), axis=1)
        turn = Turn(
            ready, stamps, stamps, value, np.where(bad, np.uint32(BAD_DATA_UNAVAILABLE), np.uint32(0)),
            np.zeros(value.shape), np.zeros(value.shape, np.uint16),
        )  # fmt: skip
        bank.update(turn)
        self._take(table, times, turn.flags[:, rows], before, np.array(rows))
        for row in np.flatnonzero(bad.any(axis=0) & ~was_bad):
            self._add(table, float(times[bad[:, row].argmax()]), int(row), "quality")
        was_bad[rows] = bad[-1, rows]

    def _take(self, table: Any, times: np.ndarray, flags: np.ndarray, before: np.ndarray, rows: np.ndarray) -> None:
        whole = np.vstack([before[rows], flags])
        rose = whole[1:] & ~whole[:-1]
        for k, j in zip(*np.nonzero(rose), strict=True):
            for reason in names(int(rose[k, j])):
                self._add(table, float(times[k]), int(rows[j]), reason)
        before[rows] = flags[-1]

    def _add(self, table: Any, time_s: float, row: int, reason: str) -> None:
        device = table.devices[table.device_of[row]]
        self.cries.append(Cry(time_s, device.name, table.tags[row].name, device.asset or device.name, reason))


def judge(site: MonthSite, *, injected: bool, days: float = DAYS) -> list[Cry]:
    """Return what the detectors of a site said in so many days."""
    return _Watch(site, injected).run(days)


def is_statistic(cry: Cry) -> bool:
    """Return whether a cry is the detectors' own: a limit is the site's word, a quality the meter's."""
    return cry.reason not in ("quality", *names(LIMITS))


def found_after(site: MonthSite, cries: Sequence[Cry]) -> Iterator[tuple[Any, Cry | None, float]]:
    """Yield (fault, first cry about its tag, or its device where it has none, and how long that took)."""
    history = site.history(injected=True)
    for fault in history.injected(site.end_s):
        start_s, end_s = fault.start_ns / NS, fault.end_ns / NS
        for cry in cries:
            is_about = cry.device == fault.device and cry.tag == (fault.tag or cry.tag)
            if is_about and start_s <= cry.time_s <= end_s + GRACE_S:
                yield fault, cry, cry.time_s - start_s
                break
        else:
            yield fault, None, float("nan")


def measure(*, days: float = DAYS, only: Sequence[str] = ()) -> dict[str, Any]:
    """Return by site: needless alarms a week, by reason, and of each injected anomaly how long it took to be found."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for site in month(Path(folder)):
            if only and site.name not in only:
                continue
            quiet = [cry for cry in judge(site, injected=False, days=days) if is_statistic(cry)]
            loud = judge(site, injected=True, days=days)
            found = {fault.name: (fault.kind, cry, after_s) for fault, cry, after_s in found_after(site, loud)}
            out[site.name] = {
                "false_alarms_per_week": len(quiet) / (days / 7.0),
                "by_reason": dict(Counter(cry.reason for cry in quiet)),
                "found": sum(cry is not None for _, cry, _ in found.values()),
                "injected": len(found),
                "after_s": {
                    f"{name} ({kind})": None if cry is None else f"{after_s:.0f} s by {cry.reason}"
                    for name, (kind, cry, after_s) in found.items()
                },
            }
    return out
