"""Two public boards, as they score: floors for the default detectors, with one set of parameters, on the dev halves.

The scorers and the data are not part of the repository (SKAB is GPL-3.0: it measures, it is never shipped).
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gateway.replay.judge import Judge, recorded

SHARED = Path(__file__).parents[4] / "shared"
SECOND = 1_000_000_000
AT_ALARM = 0.9 / 5.9  # the fixed threshold: 0.9 units
PROFILES = ("standard", "reward_low_FP_rate", "reward_low_FN_rate")
PERIODS = range(20, 200, 5)  # rows between the alarms of one who does not look
PHASES = 10

pytestmark = pytest.mark.skipif(not (SHARED / "tools" / "nab_score.py").exists(), reason="no ../shared with the boards")


def board(name):
    """Return the scorer's module and its corpus."""
    spec = importlib.util.spec_from_file_location(f"{name}_score", SHARED / "tools" / f"{name}_score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.Corpus(SHARED / "data" / name)


def judged(t, x):
    """Return the verdicts on the rows of one file: one asset of as many tags as it has columns."""
    n = x.shape[1]
    judge = Judge(recorded([(0, n)], [""] * n, None, [None] * n), is_whole=True)
    time_ns = np.round(np.asarray(t, float) * SECOND).astype(np.int64)
    value = np.ascontiguousarray(x, float)
    bad = ~np.isfinite(value)
    return judge.rows(time_ns, np.where(bad, 0.0, value), bad)


@pytest.fixture(scope="module")
def nab():
    module, corpus = board("nab")
    scores, _ = module.run(corpus, lambda t, x: judged(t, x).row_score, check=True)  # exits if it looked ahead
    return module, corpus, scores


@pytest.fixture(scope="module")
def skab():
    module, corpus = board("skab")

    def rows(t, x):
        found = judged(t, x)
        return {"outlier": found.alarm, "changepoint": found.changepoint}

    found, _ = module.run(corpus, rows, check=True)
    return module, corpus, found


def test_nab_at_the_best_threshold(nab):
    module, corpus, scores = nab
    found = module.score(corpus, scores)
    assert [found[p]["score"] >= floor for p, floor in zip(PROFILES, (73, 64, 79), strict=True)] == [True] * 3, found


def test_nab_at_the_threshold_that_is_shipped(nab):
    module, corpus, scores = nab
    found = module.score(corpus, scores, AT_ALARM)
    assert [found[p]["score"] >= floor for p, floor in zip(PROFILES, (72, 62, 77), strict=True)] == [True] * 3, found


def test_nab_by_what_would_have_alarmed(nab):
    """A flag that rises is an event for people: few of them, and every third failure of these two weeks or so."""
    _, corpus, _ = nab
    found, elsewhere = 0, 0
    for t, v, windows in corpus.files.values():
        flags = judged(t, v[:, None]).flags[:, 0]
        rose = np.flatnonzero(flags & ~np.append(np.uint16(0), flags[:-1]))
        of_window = [np.any((begin <= rose) & (rose <= end)) for begin, end in windows]
        found += sum(of_window)
        elsewhere += sum(all(not begin <= row <= end for begin, end in windows) for row in rose)
    assert found >= 15
    assert elsewhere <= 8


def test_skab_rows(skab):
    module, corpus, found = skab
    result = module.score(corpus, found)
    assert result["f1"] >= 0.85, result
    assert result["far_pct"] <= 12, result
    assert result["mar_pct"] <= 15, result


def test_skab_change_points_beat_an_alarm_that_does_not_look(skab):
    module, corpus, found = skab
    quiet = {name: np.zeros(len(t), np.uint8) for name, (t, *_) in corpus.files.items()}

    def blind(period, phase):
        preds = {}
        for name, none in quiet.items():
            changepoint = none.copy()
            changepoint[phase::period] = 1
            preds[name] = {"outlier": none, "changepoint": changepoint}
        return module.score(corpus, preds)["cp"]["low_fp"]

    phases = np.linspace(0, 1, PHASES, endpoint=False)
    best = max(np.mean([blind(period, int(period * phase)) for phase in phases]) for period in PERIODS)
    result = module.score(corpus, found)["cp"]
    assert result["low_fp"] >= best + 15, (result, best)
