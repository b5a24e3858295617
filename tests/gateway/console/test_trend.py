from __future__ import annotations

import numpy as np

from gateway.console import trend
from gateway.console.ring import Samples
from gateway.history.store import Series, StoreAway, Trend

S = 1_000_000_000
SERIES = Series("meter", "link43", "ps1", "gw1", "bv-1", "pressure")


def samples(*seconds: float) -> Samples:
    return np.array([round(s * S) for s in seconds], np.int64), np.array(seconds, np.float64)


class Memory:
    """A store that holds one tag, raw, and remembers what it was asked."""

    def __init__(self, *seconds: float, away: str = "") -> None:
        self.times, self.values = samples(*seconds)
        self.away = away
        self.asked: list[tuple[int, int]] = []

    async def write(self, lines: bytes) -> None:
        raise NotImplementedError

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        self.asked.append((start_ns // S, stop_ns // S))
        if self.away:
            raise StoreAway(self.away)
        inside = (self.times >= start_ns) & (self.times < stop_ns)
        value = self.values[inside]
        return Trend(self.times[inside], value, value, value)

    async def close(self) -> None:
        return


async def read(store: Memory | None, live: Samples, start: int = 0, stop: int = 100, seen: int = 0, points: int = 1000):
    return await trend.read(store, SERIES, live, (start * S, stop * S), points, 10.0, seen * S)


def seconds(joined: trend.Joined) -> list[float]:
    return (joined.trend.time_ns / S).tolist()


async def test_history_ends_where_the_ring_begins() -> None:
    store = Memory(*range(100))
    joined = await read(store, samples(*range(60, 90)))
    assert store.asked == [(0, 60)]
    assert seconds(joined) == list(range(90))
    assert joined.trend.mean.tolist() == list(range(90))
    assert (joined.store, joined.live_from_ns) == ("ok", 60 * S)


async def test_what_the_database_has_not_stored_yet_comes_from_the_ring() -> None:
    joined = await read(Memory(*range(50)), samples(*range(40, 90)), seen=70)
    assert seconds(joined) == list(range(90))


async def test_a_ring_with_holes_from_before_the_last_reconnect_is_completed_by_history() -> None:
    store = Memory(*range(100))
    joined = await read(store, samples(*range(20, 30), *range(60, 90)), seen=60)
    assert store.asked == [(0, 60)]
    assert seconds(joined) == list(range(90))


async def test_without_a_store_the_live_part_is_shown_and_the_lack_is_said() -> None:
    joined = await read(None, samples(*range(60, 90)))
    assert seconds(joined) == list(range(60, 90))
    assert joined.store == "none"


async def test_an_away_store_leaves_the_live_part() -> None:
    joined = await read(Memory(away="connection refused"), samples(80, 81))
    assert (seconds(joined), joined.store, joined.text) == ([80, 81], "away", "connection refused")


async def test_bad_quality_and_silence_are_gaps() -> None:
    times, values = samples(0, 10, 20, 60, 70)
    values[1] = np.nan
    joined = await read(None, (times, values))
    assert seconds(joined) == [0, 10, 20, 20.001, 60, 70]
    assert np.isnan(joined.trend.mean).tolist() == [False, True, False, True, False, False]


async def test_only_the_window_is_returned() -> None:
    joined = await read(Memory(*range(60)), samples(*range(60, 90)), start=50, stop=65)
    assert seconds(joined) == list(range(50, 65))


async def test_a_live_part_with_too_many_samples_is_thinned_to_its_extremes() -> None:
    live = samples(*[k / 10 for k in range(1000)])
    live[1][505] = 999.0
    live[1][700:720] = np.nan
    joined = await read(None, live, points=10)
    assert seconds(joined) == [k * 10 for k in range(10)]
    assert joined.trend.high[5] == 999.0
    assert (joined.trend.low[3], joined.trend.mean[3], joined.trend.high[3]) == (30.0, 34.95, 39.9)
    assert joined.trend.mean[7] == np.mean([k / 10 for k in range(720, 800)])


async def test_a_thinned_history_is_not_repeated_by_the_ring() -> None:
    past = Trend(np.array([0, 10 * S]), np.array([0.0, 10.0]), np.array([5.0, 15.0]), np.array([9.0, 19.0]))
    whole, first = trend.join(past, samples(12, 18, 20, 30), 10, 10 * S, 100 * S)
    assert (whole.time_ns / S).tolist() == [0, 10, 20, 30]
    assert first == 20 * S


def test_a_bucket_without_any_good_sample_is_a_gap() -> None:
    times, values = samples(0, 1, 10, 11)
    values[2:] = np.nan
    thinned = trend.thin(times, values, 10 * S)
    assert thinned.mean.tolist()[0] == 0.5
    assert np.isnan([thinned.low[1], thinned.mean[1], thinned.high[1]]).all()
