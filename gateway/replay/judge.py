"""The detectors of the gateway over recorded columns: the same kernels, fed many frames a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.quality import BAD_DATA_UNAVAILABLE
from gateway.detect.bank import Bank
from gateway.detect.detector import Turn
from gateway.detect.health import Health
from gateway.detect.tags import Tags
from gateway.model.build import DEFAULT_DETECT
from gateway.model.frame import DETECT_BITS
from gateway.replay.source import RecordedFrame

SCAN_0: Final = np.zeros(1, np.int32)
EARLIEST: Final = 1 << 60  # ns, 2006: detectors take no time of 0 and below, so older records are moved there
LATEST: Final = (1 << 62) - 1  # ns, 2116: later times are as good as that one, and no difference overflows


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What became of r frames of n columns.

    columns  first of those that the frames have, and the one behind the last;  asset  the number of the rows' asset
    score float64[r, n], flags uint16[r, n]; row_score float64[r], alarm and changepoint uint8[r]: of that asset
    """

    columns: tuple[int, int]
    asset: int
    score: NDArray[np.float64]
    flags: NDArray[np.uint16]
    row_score: NDArray[np.float64]
    alarm: NDArray[np.uint8]
    changepoint: NDArray[np.uint8]


def recorded(
    scans: Sequence[tuple[int, int]], assets: Sequence[str], known: Tags | None, rows: Sequence[int | None]
) -> Tags:
    """Return the detectors' view of recorded columns.

    scans  first row of each, and the one behind its last
    known, rows  the settings of a gateway, and the row there of each column; one without is a gauge with the default
           detectors, and part of the asset that `assets` names
    """
    n = len(rows)
    out = Tags(
        scan_start=np.array([start for start, _ in scans], np.int32),
        scan_stop=np.array([stop for _, stop in scans], np.int32),
        detect=np.full(n, sum(DETECT_BITS[name] for name in DEFAULT_DETECT["gauge"]), np.uint8),
        kind=np.zeros(n, np.uint8),
        asset=np.zeros(n, np.int32),
        n_assets=0,
        limit=np.full((n, 4), np.nan),
        deadband=np.zeros(n),
        on_delay_ns=np.zeros(n, np.int64),
        off_delay_ns=np.zeros(n, np.int64),
        rate=np.full(n, np.nan),
        resolution=np.zeros(n),
    )
    numbers: dict[str | int, int] = {}
    for i, row in enumerate(rows):
        key = assets[i] if known is None or row is None else int(known.asset[row])
        out.asset[i] = numbers.setdefault(key, len(numbers))
    here = [i for i, row in enumerate(rows) if row is not None]
    there = [row for row in rows if row is not None]
    if known is not None:
        for name in ("detect", "kind", "limit", "deadband", "on_delay_ns", "off_delay_ns", "rate", "resolution"):
            getattr(out, name)[here] = getattr(known, name)[there]
    return replace(out, n_assets=len(numbers))


class Judge:
    """The detectors over recorded columns.

    is_whole  all columns together are one asset as well, whatever the settings say: its verdicts are those of the row
    """

    def __init__(self, tags: Tags, *, is_whole: bool) -> None:
        self.tags = tags
        self.bank = Bank(tags)
        whole = replace(tags, asset=np.zeros(tags.n, np.int32), n_assets=1)
        self._whole = Health(whole) if is_whole and tags.n_assets > 1 else None
        self._sizes = np.bincount(tags.asset, minlength=tags.n_assets)
        self._turn = _turn(1, tags)
        self._moved_ns: int | None = None

    def rows(self, time_ns: NDArray[np.int64], value: NDArray[np.float64], bad: NDArray[np.bool_]) -> Verdicts:
        """Return the verdicts on r rows of the only scan, read at time_ns int64[r].

        value float64[r, n];  bad bool[r, n], where there is none
        """
        r, n = value.shape
        turn = _turn(r, self.tags)
        turn.ready, turn.value = SCAN_0, value
        turn.stamp_ns = np.ascontiguousarray(time_ns[:, None])
        moved = self._moved(int(time_ns[0]))
        turn.time_ns = np.clip(turn.stamp_ns, 1 - moved, LATEST - moved) + moved
        turn.quality[bad] = BAD_DATA_UNAVAILABLE
        self.bank.update(turn)
        if self._whole is None:
            return self._found(turn, 0, (0, n))
        self._whole.update(replace(turn, score=turn.score.copy(), flags=turn.flags.copy()))
        return _verdicts(turn, self._whole, 0, (0, n))

    def frame(self, frame: RecordedFrame) -> Verdicts:
        """Return the verdicts on one frame of one scan; the row is its asset."""
        turn, k = self._turn, frame.scan
        columns = int(self.tags.scan_start[k]), int(self.tags.scan_stop[k])
        turn.ready = np.array([k], np.int32)
        moved = self._moved(frame.time_ns)
        turn.stamp_ns[0, k] = frame.time_ns
        turn.time_ns[0, k] = min(max(frame.time_ns, 1 - moved), LATEST - moved) + moved
        turn.value[0, columns[0] : columns[1]] = frame.value
        turn.quality[0, columns[0] : columns[1]] = frame.quality
        self.bank.update(turn)
        return self._found(turn, int(self.tags.asset[columns[0]]), columns)

    def _moved(self, first_ns: int) -> int:
        """Return by how much the detectors' times are later than those of the source: none, unless it begins early."""
        if self._moved_ns is None:
            self._moved_ns = max(EARLIEST - max(first_ns, -LATEST), 0)
        return self._moved_ns

    def _found(self, turn: Turn, asset: int, columns: tuple[int, int]) -> Verdicts:
        found = _verdicts(turn, self.bank.health, asset, columns)
        if self._sizes[asset] > 1:
            return found
        only = columns[0]  # an asset of one tag is that tag
        return replace(found, row_score=turn.score[:, only].copy(), alarm=(turn.flags[:, only] != 0).astype(np.uint8))


def _turn(r: int, tags: Tags) -> Turn:
    n = tags.n
    return Turn(
        SCAN_0,
        np.zeros((r, tags.n_scans), np.int64),
        np.zeros((r, tags.n_scans), np.int64),
        np.zeros((r, n)),
        np.zeros((r, n), np.uint32),
        np.zeros((r, n)),
        np.zeros((r, n), np.uint16),
    )


def _verdicts(turn: Turn, health: Health, asset: int, columns: tuple[int, int]) -> Verdicts:
    r = len(turn.value)
    return Verdicts(
        columns,
        asset,
        turn.score,
        turn.flags,
        np.ascontiguousarray(health.score[:r, asset]),
        np.ascontiguousarray(health.alarm[:r, asset]),
        np.ascontiguousarray(health.changepoint[:r, asset]),
    )
