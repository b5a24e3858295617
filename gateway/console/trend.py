"""One tag over time: the database's samples, continued to the present by the live ring, without gap or repeat."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gateway.console.ring import Samples
from gateway.history.store import Series, Store, StoreAway, Trend

READ_DEADLINE_S: Final = 10.0  # the operator has looked elsewhere by then; the live part is shown meanwhile
StoreState = Literal["ok", "none", "away"]


@dataclass(frozen=True, slots=True)
class Joined:
    """A trend for a screen. A NaN row is a gap: bad quality, or nothing for three periods.

    live_from_ns  where the live part begins, None if it adds nothing
    """

    trend: Trend
    live_from_ns: int | None
    store: StoreState
    text: str


def empty() -> Trend:
    """Return a trend of nothing."""
    none = np.empty(0, np.float64)
    return Trend(np.empty(0, np.int64), none, none, none)


async def read(
    store: Store | None,
    series: Series,
    live: Samples,
    span: tuple[int, int],
    points: int,
    period_s: float,
    seen_ns: int,
) -> Joined:
    """Return a tag in [span): history up to where the live samples begin, then those.

    seen_ns  since when the console has been listening without a break; live samples before may have holes
    """
    start_ns, stop_ns = span
    times, values = live
    inside = (times >= start_ns) & (times < stop_ns)
    times, values = times[inside], values[inside]
    trusted = times[times >= seen_ns]
    cut_ns = int(trusted[0]) if trusted.size else stop_ns
    past, text = empty(), ""
    state: StoreState = "none" if store is None else "ok"
    if store is not None and start_ns < cut_ns:
        try:
            async with asyncio.timeout(READ_DEADLINE_S):
                past = await store.read(series, start_ns, cut_ns, points)
        except StoreAway as error:
            state, text = "away", str(error)
        except TimeoutError:
            state, text = "away", f"no answer in {READ_DEADLINE_S:.0f} s"
    width_ns = max((stop_ns - start_ns) // max(points, 1), 1)
    spacing_ns = max(int(3 * period_s * 1e9), int(2.5 * width_ns))
    return Joined(*join(past, (times, values), points, width_ns, spacing_ns), state, text)


def join(past: Trend, live: Samples, points: int, width_ns: int, spacing_ns: int) -> tuple[Trend, int | None]:
    """Return history with the live samples that it does not have yet, and the time of the first of them."""
    times, values = live
    if past.time_ns.size:
        is_thinned = bool((past.low < past.high).any())
        newer = times >= int(past.time_ns[-1]) + (width_ns if is_thinned else 1)
        times, values = times[newer], values[newer]
    first_ns = int(times[0]) if times.size else None
    now = thin(times, values, width_ns) if times.size > points else Trend(times, values, values, values)
    whole = Trend(
        np.concatenate([past.time_ns, now.time_ns]),
        np.concatenate([past.low, now.low]),
        np.concatenate([past.mean, now.mean]),
        np.concatenate([past.high, now.high]),
    )
    return with_gaps(whole, spacing_ns), first_ns


def thin(times: NDArray[np.int64], values: NDArray[np.float64], width_ns: int) -> Trend:
    """Return low, mean and high of each bucket of `width_ns`; a bucket with a NaN keeps its good samples."""
    bucket = times // width_ns
    first = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    good = ~np.isnan(values)
    n = np.add.reduceat(good, first, dtype=np.int64)
    total = np.add.reduceat(np.where(good, values, 0.0), first)
    low = np.minimum.reduceat(np.where(good, values, np.inf), first)
    high = np.maximum.reduceat(np.where(good, values, -np.inf), first)
    none = n == 0
    mean = np.where(none, np.nan, total / np.maximum(n, 1))
    return Trend(times[first], np.where(none, np.nan, low), mean, np.where(none, np.nan, high))


def with_gaps(trend: Trend, spacing_ns: int) -> Trend:
    """Return the trend with a NaN row after every sample that was followed by silence longer than `spacing_ns`."""
    after = np.flatnonzero(np.diff(trend.time_ns) > spacing_ns)
    if not after.size:
        return trend
    at = trend.time_ns[after] + 1_000_000
    hole = np.full(after.size, np.nan)
    columns = (np.insert(column, after + 1, hole) for column in (trend.low, trend.mean, trend.high))
    return Trend(np.insert(trend.time_ns, after + 1, at), *columns)
