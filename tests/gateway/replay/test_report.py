"""The page of a replay: all in one file, of bounded size, with a name and words for all that is drawn."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from gateway.replay import report
from gateway.replay.judge import Judge, recorded
from gateway.replay.plot import Axis, moment, runs
from gateway.replay.report import MAX_BYTES, page_of
from gateway.replay.summary import WIDTH, Summary
from tests.gateway.replay import bench
from tests.gateway.replay.bench import T0, S

LIMITS = np.array([np.nan, 45.0, 60.0, 1e6])


def summary(value, times=None, *, limits=None, names=None):
    """Return the summary of a replay of these values."""
    value = np.asarray(value, float)
    rows, n = value.shape
    tags = recorded([(0, n)], [""] * n, None, [None] * n)
    if limits is not None:
        tags.limit[:] = limits
    judge = Judge(tags, is_whole=True)
    found = Summary(tuple(names or (f"d.v{i}" for i in range(n))), tags)
    times = T0 + np.arange(rows) * S if times is None else np.asarray(times)
    bad = np.isnan(value)
    for at in range(0, rows, 500):
        part = slice(at, at + 500)
        here = np.ascontiguousarray(value[part]), np.ascontiguousarray(bad[part])
        found.add(0, times[part], *here, judge.rows(times[part], *here))
    return found


def noise(n=2, rows=3000):
    return 50 + np.random.default_rng(1).normal(0, 0.5, (rows, n))


class Page(HTMLParser):
    """Checks that tags close, and keeps what a reader and a screen reader get."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def check(text):
    page = Page(text)
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<img|\bsrc=", text)
    assert "NaN" not in text
    assert not re.search(r"[ ,\"-](nan|inf)\b", text)
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert all(head["scope"] == "col" for head in page.all("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    return page


def test_everything_is_in_the_page_with_names_and_words():
    value = noise()
    value[1000, 0] += 40
    value[2000:2100, 1] = 61 + value[2000:2100, 1] - 50
    value[500:600, 0] = np.nan
    times = T0 + np.arange(3000) * S
    times[1500:] += 3600 * S
    text = page_of("plant <1> & more", ["settings of x.toml"], summary(value, times, limits=LIMITS))
    page = check(text)
    words = " ".join(page.words)
    assert "Replay of plant <1> & more" in words
    for word in (
        "settings of x.toml",
        "low 45",
        "high 60",
        "Far outside: high_high 1e+06",
        "spike",
        "score",
        "in alarm",
    ):
        assert word in words, word
    assert re.search(r"2025-11-24 16:00:00 to 2025-11-24 17:49:59 UTC, 3,000 rows, 6,000 values", words)
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert labels[0].startswith("Alarms a day, 2025-11-24 to 2025-11-24: at most ")
    assert any(re.match(r"d\.v0: \d+\.\d+ to \d+\.\d+; high 1, spike 1", label) for label in labels)
    bands = [polygon for polygon in page.all("polygon") if polygon["class"] == "band"]
    assert len(bands) == 3 + 2  # d.v0: until the hole, until the gap, behind it; d.v1: until the gap, behind it


def test_names_of_tags_are_no_markup():
    names = ["<script>alert(1)</script>", "\"a\" & 'b'"]
    value = noise()
    value[1000] += 40
    page = check(page_of('x"><script>', ["<b>"], summary(value, names=names)))
    assert "script" not in {tag for tag, _ in page.tags}


@pytest.mark.parametrize("n", [1, 1000])
def test_the_page_is_bounded(n):
    rng = np.random.default_rng(2)
    value = rng.normal(0, 1, (600, n))
    value[rng.random((600, n)) < 0.02] = 1e6
    found = summary(value, limits=np.array([-0.1, 0.0, 0.1, 0.2]))
    text = page_of("x", [], found)
    check(text)
    assert len(text.encode()) < MAX_BYTES + 100_000 < 3_000_000
    assert sum(found.counts.values()) > 150 * n
    if n == 1000:
        assert "The first 500 of " in text
        assert re.search(r"The \d+ tags with most alarms of 1,000\.", text)


@pytest.mark.parametrize(
    "value",
    [[[1.0]], [[np.nan]], [[np.nan]] * 50, [[5.0]] * 50, [[1e308], [-1e308]], [[1.0], [np.nan]], [[0.0, 1e-320]]],
)
def test_small_and_strange_tables(value):
    check(page_of("x", [], summary(value)))


def test_a_page_of_nothing():
    assert "nothing" in page_of("x", [], Summary(("a",), recorded([(0, 1)], [""], None, [None])))


@pytest.mark.parametrize(
    "times", [np.full(3000, T0), T0 - np.arange(3000) * S, np.arange(3000) * 3_000_000_000_000_000]
)
def test_strange_times(times):
    value = noise()
    value[1000] += 40
    check(page_of("x", [], summary(value, times)))


def test_what_is_thinned_keeps_every_extreme():
    value = noise(3, 5000)
    value[3333, 1] = 80.0
    value[4444, 2] = np.nan
    found = summary(value)
    plot = found.plots[0]
    assert (plot.rows, plot.per, plot.width) == (5000, 8, 625)
    assert plot.times[: plot.width].tolist() == [T0 + k * 8 * S for k in range(625)]
    groups = value.reshape(625, 8, 3)
    assert (found.low[:625] == np.nanmin(groups, axis=1).astype(np.float32)).all()
    assert (found.high[:625] == np.nanmax(groups, axis=1).astype(np.float32)).all()
    assert (found.low[625:] == np.inf).all()
    assert plot.times.size == WIDTH


def test_every_flag_that_rises_is_counted_once():
    value = noise(2, 2000)
    value[300::200, 0] = 61.0
    found = summary(value, limits=LIMITS)
    assert found.counts[0, "high"] == len(range(300, 2000, 200))
    assert [one.time_ns for one in found.alarms if one.reason == "high"] == [T0 + k * S for k in range(300, 2000, 200)]
    assert sum(found.by_day.values()) == sum(found.counts.values())


@pytest.mark.parametrize("span_s", [1, 59, 600, 7200, 90_000, 86_400 * 9, 86_400 * 400, 86_400 * 20_000])
def test_the_times_of_an_axis_are_round_and_few(span_s):
    ticks = Axis(T0 + 123, T0 + span_s * S).ticks()
    assert 0 <= len(ticks) <= 9
    assert len({text for _, text in ticks}) == len(ticks)
    assert all(re.fullmatch(r"(\d{4}-\d\d-\d\d ?)?(\d\d:\d\d(:\d\d)?)?", text) for _, text in ticks)


def test_runs_end_at_breaks():
    on = np.array([1, 1, 0, 1, 1, 1], bool)
    assert runs(on, np.array([0, 1, 0, 0, 0, 1], bool)) == [(0, 1), (1, 2), (3, 5), (5, 6)]


def test_the_report_of_a_command_says_whose_settings(tmp_path, capsys):
    config, source = bench.write_config(tmp_path), tmp_path / "x.csv"
    source.write_text("time,a.flow\n" + "".join(f"{T0 + k * S},{50 + k}\n" for k in range(20)))
    bench.summary(capsys, source, "--config", config, "--report", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert f"settings of {config}" in text
    assert "high 60" in text
    assert moment(T0) in text
    assert report.STYLE in text


def test_the_most_unusual_moments_are_listed_once_each_highest_first():
    value = noise(3, 6000)
    for at, column, size in ((4000, 1, 30.0), (5000, 2, 20.0), (5004, 2, 29.0)):
        value[at, column] += size
    found = summary(value)
    peaks = found.peaks(4)
    assert [peak.score for peak in peaks] == sorted((peak.score for peak in peaks), reverse=True)
    first, second = sorted(peak.time_ns for peak in peaks)
    assert {(peak.column, (peak.time_ns - T0) // S // 50) for peak in peaks} == {(1, 80), (2, 100)}
    assert {peak.time_ns: peak.reasons for peak in peaks} == {first: ("spike",), second: ()}  # of one asset one
    assert "Most unusual" in page_of("x", [], found)
    assert summary(np.full((50, 1), 5.0)).peaks(3) == []


def test_the_highest_score_of_any_scan_is_listed_and_no_column_takes_all_places():
    tags = recorded([(0, 30), (30, 31)], [""] * 31, None, [None] * 31)
    found = Summary(tuple(f"v{i}" for i in range(31)), tags)
    for plot in found.plots:
        plot.rows = 200
        plot.times[:200] = T0 + np.arange(200) * S
    found.top[:200, :30] = np.random.default_rng(1).uniform(0.1, 0.5, (200, 30))
    found.top[100, 30] = 0.99
    found.seen[105, 30] = 64
    found.top[:200, 7] = 0.9
    peaks = found.peaks(5)
    assert (peaks[0].column, peaks[0].score, peaks[0].reasons) == (30, pytest.approx(0.99), ("spike",))
    assert [peak.column for peak in peaks[1:4]] == [7, 7, 7]
    assert peaks[4].column not in (7, 30)
