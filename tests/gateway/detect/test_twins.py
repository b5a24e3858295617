"""Every kernel equals its slow twin, which shares no code with it: flags exactly, scores to 1e-9."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.detect import cusum, flags, health, novelty
from gateway.detect.chatter import Chatter
from gateway.detect.governor import Governor
from gateway.detect.health import CAUSE, KNOWS_OTHERS, Health
from gateway.detect.novelty import Novelty
from gateway.detect.rules import Rules
from tests.gateway.detect import feed
from tests.gateway.detect.feed import NAN, SECOND
from tests.reference import detect as reference
from tests.reference import detect_health, detect_novelty

FEW = settings(max_examples=40)
EDGES = (10.0, 20.0, 80.0, 90.0)
at_the_edges = st.sampled_from([None, 5.0, 9.9, 10.0, 11.0, 12.0, 15.0, 20.0, 21.0, 50.0, 78.0, 79.0, 80.0, 81.0, 89.0])
samples = st.lists(st.one_of(st.none(), st.integers(0, 1000).map(lambda x: x / 10)), min_size=1, max_size=120)


def polls(fed, i=0):
    """Yield (time_ns, value or None) of a tag."""
    for now, value, bad in zip(fed.time_ns[:, 0].tolist(), fed.value[:, i].tolist(), fed.bad[:, i], strict=True):
        yield now, None if bad else value


def bits(found, *which):
    return (found & np.uint16(sum(which))).tolist()


@settings(max_examples=100)
@given(
    st.lists(at_the_edges, min_size=1, max_size=80),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 3.0]),
)
@example([11.0, 21.0, 79.0, 89.0], 2.0, 0.0, 0.0)
@example([5.0, 5.0, 5.0, 15.0, 5.0, 5.0, 5.0, 15.0, 15.0, 15.0, 15.0, 5.0], 0.0, 2.0, 3.0)
def test_limits_equal_their_slow_twin(values, deadband, on_delay_s, off_delay_s):
    delays = {"on_delay_s": on_delay_s, "off_delay_s": off_delay_s}
    fed = feed.columns([NAN if v is None else v for v in values])
    made = feed.tags(detect=("limits",), limit=EDGES, deadband=deadband, **delays)
    found, _ = feed.run(Rules(made), fed)
    ns = [int(each * SECOND) for each in delays.values()]
    twins = [reference.Limit(edge, side, deadband, *ns) for edge, side in zip(EDGES, (-1, -1, 1, 1), strict=True)]
    assert found[:, 0].tolist() == [sum(t.step(*poll) << j for j, t in enumerate(twins)) for poll in polls(fed)]


@FEW
@given(samples, st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0]), min_size=120, max_size=120))
@example([0.0, None, 9.0, None, 0.0, 5.0], [1.0] * 120)
@example([0.0, 9.0, 9.0], [0.0] * 120)
def test_rate_equals_its_slow_twin(values, periods):
    fed = feed.columns([NAN if v is None else v for v in values], period_s=np.array(periods[: len(values)]))
    found, score = feed.run(Rules(feed.tags(detect=("rate",), rate=4.98765)), fed)
    twin = reference.Rate(4.98765)
    wanted = [twin.step(*poll) for poll in polls(fed)]
    assert (found[:, 0] == np.where(wanted, flags.RATE, 0)).all()
    rises = np.array(wanted) & ~np.array([False, *wanted[:-1]])
    assert (score[:, 0] == np.where(rises, 0.5, 0.0)).all()


def hold_rules_together(made, fed):
    """Compare frozen and spike of every tag of one scan; returns all flags."""
    one = Rules(made)
    found, score = feed.run(one, fed)
    jumps = reference.Jumps()
    twins = [reference.Gauge(jumps, resolution) for resolution in made.resolution]
    for k, now in enumerate(fed.time_ns[:, 0].tolist()):
        for i, twin in enumerate(twins):
            is_frozen, is_spike, wanted = twin.step(now, None if fed.bad[k, i] else float(fed.value[k, i]))
            assert found[k, i] == is_frozen * flags.FROZEN + is_spike * flags.SPIKE, (k, i)
            assert score[k, i] == pytest.approx(wanted, rel=1e-9, abs=0), (k, i)
    for i, twin in enumerate(twins):
        learnt = {
            "mean": twin.level.mean,
            "variance": twin.level.variance,
            "share": twin.stillness.share,
            "longest": twin.stillness.longest,
            "rough": twin.steps.mean,
            "roughest": twin.steps.most,
            "jump": twin.spike.largest["stayed"],
            "blip": twin.spike.largest["returned"],
        }
        assert {name: one.state()[name][i] for name in learnt} == pytest.approx(learnt, rel=1e-9, abs=1e-300)
    return found


def lively(frames, n, seed):
    """Return gauges of one or two assets that jump alone and together, stand still, rest elsewhere, and go bad."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(50, 1, (frames, n)) + rng.normal(0, 30, n), rng.integers(0, 4))
    moves = rng.random((frames, n)) < rng.choice([0.1, 0.5, 1.0], n)
    for k in range(1, frames):
        values[k, ~moves[k]] = values[k - 1, ~moves[k]]
    for _ in range(frames // 20):
        k, length = rng.integers(0, frames), rng.choice([1, 1, 2, 3, 20])
        who = rng.random(n) < rng.choice([1 / n, 1.0])
        values[k : k + length, who] += rng.choice([-1, 1]) * 10 ** rng.uniform(0.5, 3)
    for _ in range(3):
        k, i = rng.integers(0, frames), rng.integers(0, n)
        values[k : k + rng.integers(20, 400), i] = rng.choice([values[k, i], 0.0, 55.0])
    values[rng.random((frames, n)) < 0.03] = NAN
    return values


@pytest.mark.parametrize("seed", range(8))
def test_frozen_and_spike_equal_their_slow_twins(seed):
    rng = np.random.default_rng(1000 + seed)
    n = int(rng.integers(1, 7))
    made = feed.tags(
        n, assets=[i // 4 for i in range(n)], detect=("frozen", "spike"), resolution=rng.choice([0.0, 0.1])
    )
    period_s = rng.choice([0.1, 0.2, 1.0, 1.0, 4.0, 11.0, 200.0], 1200, p=[0.1, 0.2, 0.3, 0.2, 0.1, 0.09, 0.01])
    period_s[100 * (1 + seed)] = 7 * 86400.0 * (seed % 4 > 0)
    found = hold_rules_together(made, feed.columns(lively(1200, n, seed), period_s=period_s))
    assert found.any()


few_levels = st.lists(st.sampled_from([None, 0.0, 1.0, 1.0, 2.0, 1e6]), min_size=1, max_size=40)


@FEW
@given(st.lists(few_levels, min_size=1, max_size=4), st.sampled_from([0.0, 1.0]))
@example([[0.0, 1.0] * 12, [1e6] * 24, [None, 2.0] * 12], 1.0)
def test_rules_equal_their_slow_twins_on_few_levels(patterns, resolution):
    frames = max(map(len, patterns)) + 30
    values = [[NAN if v is None else v for v in (p * frames)[:frames]] for p in patterns]
    made = feed.tags(len(patterns), detect=("frozen", "spike"), resolution=resolution)
    hold_rules_together(made, feed.columns(np.array(values).T))


@pytest.mark.parametrize("away", [0.0, 3.0, 1e5, 1e7])
def test_a_rest_far_away_or_near_equals_its_slow_twin(away):
    values = feed.noise(700, 2, seed=8, mean=0.0)
    values[:, 1] = np.repeat(values[:70, 1], 10)  # moves in every tenth poll
    values[200:500] = away
    values[620:] = values[620]
    period_s = np.where(np.arange(700) == 100, 7 * 86400.0, 1.0)  # what stays is told of who is known for a week
    found = hold_rules_together(feed.tags(2, detect=("frozen", "spike")), feed.columns(values, period_s=period_s))
    assert found.any()


def test_the_seeds_of_the_rules_say_both_often():
    found = [feed.run(Rules(feed.tags(4)), feed.columns(lively(1200, 4, seed)))[0] for seed in range(6)]
    for bit in (flags.FROZEN, flags.SPIKE):
        assert sum(np.count_nonzero(np.diff((each & bit).astype(int), axis=0) > 0) for each in found) > 5


states = st.lists(st.sampled_from([None, 0.0, 1.0, 2.0]), min_size=1, max_size=60)


@FEW
@given(states, st.lists(st.sampled_from([1.0, 1.0, 9.0, 12.0, 60.0]), min_size=60, max_size=60), st.booleans())
@example([0.0, 1.0, None, 0.0, 1.0, None, None, 0.0, 1.0, None, 0.0, None, 0.0, 1.0], [1.0] * 60, True)
@example([0.0, 1.0] * 6, [12.0] * 60, True)
@example([0.0, 1.0] * 30, [1.0] * 60, False)
def test_chatter_equals_its_slow_twin(values, periods, calm):
    values, periods = [0.0, *values], [61.0, *periods[: len(values)]] if calm else [1.0, *periods[: len(values)]]
    fed = feed.columns([NAN if v is None else v for v in values], period_s=np.array(periods))
    found, score = feed.run(Chatter(feed.tags(kinds="state")), fed)
    twin, was = reference.Chatter(), False
    for k, (now, value) in enumerate(polls(fed)):
        wanted = twin.step(now, value)
        assert found[k, 0] == wanted * flags.CHATTER
        assert score[k, 0] == (0.5 if wanted and not was else 0.0)
        was = wanted if value is not None else was


# --- five minutes, the five envelopes and the two sums


def hold_novelty_together(made, fed):
    """Compare novelty of the tags of one scan; returns all flags."""
    kinds = [("gauge", "counter", "state")[k] for k in made.kind]
    one = Novelty(made)
    found, score = feed.run(one, fed)
    twin = detect_novelty.Scan(kinds, float(made.resolution[0]))
    of = {None: 0, "shift": flags.SHIFT, "novelty": flags.NOVELTY, "noise": flags.NOISE, "drift": flags.DRIFT}
    for k, now in enumerate(fed.time_ns[:, 0].tolist()):
        row = [None if bad else v for v, bad in zip(fed.value[k].tolist(), fed.bad[k], strict=True)]
        for i, (name, wanted) in enumerate(twin.step(now, now + feed.STAMP, row)):
            assert found[k, i] == of[name], (k, i)
            assert score[k, i] == pytest.approx(wanted, rel=1e-9, abs=0), (k, i)
    for i, tag in enumerate(twin.tags):
        learnt = {
            novelty.MEAN_STEP: tag.noise,
            novelty.SMALL: tag.smallest,
            novelty.TOLD: tag.told,
        }
        numbers = one.state()["numbers"][i]
        assert {column: numbers[column] for column in learnt} == pytest.approx(learnt, rel=1e-9, abs=1e-12)
        envelopes = [*tag.level.now, *tag.level.copies, *tag.day.now, *tag.day.copies]
        envelopes += [*tag.after_step.cells, *tag.after_trend.cells, *tag.week.halves]
        envelopes += [tag.x, tag.p, tag.f, tag.known, tag.known_next, tag.week.seen]
        wanted = np.array([(each.low, each.high) for each in envelopes])
        assert one.state()["envelopes"][i] == pytest.approx(wanted, rel=1e-6, abs=1e-12)
        learnt = {
            cusum.SUM: tag.burst.sum,
            cusum.LARGEST: tag.burst.largest,
            cusum.DRIFTED: tag.drift.sum,
            cusum.LARGEST_DRIFT: tag.drift.largest,
        }
        sums = one.state()["sums"][i]
        assert {column: sums[column] for column in learnt} == pytest.approx(learnt, rel=1e-9, abs=1e-9)
    return found


def days(frames, seed, *, period_s):
    """Return a gauge with a daily pattern and events, a counter and a state, and where frames are."""
    rng = np.random.default_rng(seed)
    period = np.full(frames, period_s) * rng.choice([1.0, 0.97, 1.05], frames, p=[0.9, 0.05, 0.05])
    period[rng.integers(0, frames, 6)] = rng.choice([200.0, 700.0, 4000.0, 30_000.0], 6)
    hours = np.cumsum(period) / 3600 % 24
    gauge = 1e4 + 10 * np.sin(hours / 24 * 2 * np.pi) + rng.normal(0, 0.5, frames)
    busy = (hours > 8) & (hours < 17)
    flow = np.where(busy, 5.0, 1.0) * rng.uniform(0.9, 1.1, frames)
    state = (rng.random(frames) < np.where(busy, 0.4, 0.02)).astype(float)
    for _ in range(8):
        k, length = rng.integers(frames // 3, frames), rng.integers(1, 60)
        gauge[k : k + length] += rng.normal(0, 40)
        flow[k : k + length] *= rng.uniform(0, 6)
        state[k : k + length] = np.arange(frames)[k : k + length] % 2
    counter = np.cumsum(flow * period)
    counter[frames // 2 :] -= counter[frames // 2]  # it was exchanged
    values = np.column_stack([np.round(gauge, 1), counter, state])
    values[rng.random((frames, 3)) < 0.1] = NAN
    values[frames // 4 : frames // 4 + 20] = NAN
    values[frames // 2 + 5, 0] = 1e40  # no measurement, whatever the meter says
    return feed.columns(values, period_s=period)


@pytest.mark.parametrize(
    ("period_s", "resolution", "n_days"),
    [(100.0, 0.0, 10), (300.0, 0.1, 14), (37.0, 0.0, 5), (1000.0, 0.0, 30), (7200.0, 0.0, 60)],
)
def test_novelty_equals_its_slow_twin(period_s, resolution, n_days):
    detect = ("shift", "novelty")
    made = feed.tags(3, kinds=["gauge", "counter", "state"], detect=detect, resolution=resolution)
    found = hold_novelty_together(made, days(round(n_days * 86400 / period_s), 7, period_s=period_s))
    assert {*np.unique(found)} - {flags.SHIFT, flags.NOVELTY, flags.DRIFT} == {0}
    assert found.any() == (n_days > 7)


def test_novelty_equals_its_slow_twin_on_the_stroke_of_five_minutes():
    """A day is over with the frame that makes it 24 h, not with the one after it."""
    values = 50 + 10 * np.sin(np.arange(1000) / 144 * np.pi) + feed.noise(1000, mean=0.0)[:, 0]
    hold_novelty_together(feed.tags(detect=("shift", "novelty")), feed.columns(values, period_s=300.0))


@pytest.mark.parametrize("sign", [-1, 1])
def test_novelty_equals_its_slow_twin_from_where_it_never_was(sign):
    """The first day ends in a cell far from all that were visited: what comes next is held against the whole span."""
    values = 50.0 + np.arange(300) % 2
    values[287:294] += sign * 100.0 * 3.0 ** np.arange(7)
    hold_novelty_together(feed.tags(detect=("shift", "novelty")), feed.columns(values, period_s=300.0))


@FEW
@given(
    st.lists(
        st.sampled_from([0.0, 1.0, 60.0, 100.0, 149.0, 150.0, 299.0, 300.0, 301.0, 1199.0, 1201.0, 90_000.0]),
        max_size=60,
    )
)
def test_buckets_close_when_their_slow_twins_do(periods):
    fed = feed.columns(np.arange(len(periods) + 1.0) % 7, period_s=np.array([*periods, 1.0]))
    one = Novelty(feed.tags())
    twin = detect_novelty.Scan(["gauge"])
    for k, now in enumerate(fed.time_ns[:, 0].tolist()):
        feed.run(one, fed[k : k + 1])
        twin.step(now, now + feed.STAMP, [float(fed.value[k, 0])])
        assert one.state()["frames"][0] == twin.clock.frames
        assert one.state()["began_ns"][0] == twin.clock.began
        assert one.state()["numbers"][0, 0] == twin.tags[0].n


# --- the health of an asset


def hold_health_together(columns_of, fed_scans):
    """Compare the health of one asset; columns_of: meters of each scan; fed_scans: (t_ns, scan, values) in turn."""
    n = sum(map(len, columns_of))
    made = feed.tags(n, scans=[len(c) for c in columns_of], detect=("health",))
    one, twin = Health(made), detect_health.Rows(columns_of)
    was, seen = False, {"alarms": 0, "alarm": 0, "change": 0, "knows": False, "cause": set()}
    value = np.zeros((1, n))
    bad = np.zeros((1, n), bool)
    for now, scan, row in fed_scans:
        value[0, columns_of[scan]], bad[0, columns_of[scan]] = np.nan_to_num(row), np.isnan(row)
        times = np.full((1, len(columns_of)), now, np.int64)
        turn = feed.turn_of(feed.Columns(times, value, bad), [scan])
        one.update(turn)
        plain = [None if x != x else x for x in row.tolist()]
        wanted, in_alarm, is_change, blamed = twin.step(now, scan, plain)
        assert one.score[0, 0] == pytest.approx(wanted, rel=1e-9, abs=1e-12), now  # of small evidence little is left
        assert (one.alarm[0, 0], one.changepoint[0, 0]) == (in_alarm, is_change), now
        assert one.state()["blamed"][0] == blamed
        if twin.asset.began is not None:
            assert one.state()["asset"][0, CAUSE] == twin.asset.cause, now
        flagged = np.flatnonzero(turn.flags[0])
        assert flagged.tolist() == ([blamed] if blamed in columns_of[scan] and not bad[0, blamed] else [])
        assert blamed < 0 or turn.score[0, blamed] == (one.score[0, 0] if flagged.size else 0.0)
        seen["alarms"] += in_alarm and not was
        seen["alarm"] += in_alarm
        was = in_alarm
        seen["change"] += is_change
        seen["cause"].add(blamed)
    for meter, plain in zip(one.state()["meter"], twin.asset.meters, strict=True):
        learnt = {
            health.B: plain.level,
            health.V: plain.spread,
            health.U: plain.change,
            health.Q_HEALTHY: plain.noise,
            health.V_OTHERS: plain.unexplained,
        }
        assert {column: meter[column] for column in learnt} == pytest.approx(learnt, rel=1e-9, abs=1e-300)
    asset = one.state()["asset"][0]
    assert asset[health.LIMITS] == pytest.approx(twin.asset.alarm.factor, rel=1e-9)
    assert asset[health.LASTED] == pytest.approx(twin.asset.alarm.lasted, rel=1e-9)
    seen["knows"] = bool(one.state()["asset"][0, KNOWS_OTHERS])
    assert seen["knows"] == (twin.asset.slopes is not None)
    return seen


def meters(rows, n, seed, *, bad=0.01, calm=450):
    """Return n meters that follow one load, with faults of one after some calm rows, and a step of all."""
    rng = np.random.default_rng(seed)
    load = np.zeros(rows)
    for k in range(1, rows):
        load[k] = 0.9 * load[k - 1] + rng.normal(0, 0.3)
    values = 100 + np.outer(load, rng.uniform(0.5, 2, n)) + rng.normal(0, 0.3, (rows, n))
    for k in rng.integers(calm, rows, 8):
        length = rng.integers(60, 160)
        values[k : k + length, rng.integers(0, n)] += (
            rng.choice([-1, 1]) * rng.uniform(2, 20) * np.linspace(0.3, 1, length)[: rows - k]
        )
    values[rows * 9 // 10 :] += np.linspace(3, 6, n)
    values[rng.random((rows, n)) < bad] = NAN
    return values


def test_health_equals_its_slow_twin_while_it_learns():
    values = meters(1500, 3, 1)
    values[:, 2] = np.where(np.arange(1500) < 700, 4.0, 4.0 + values[:, 1] % 1)  # a constant that comes to life
    values[900:910, 0] = 1e150
    seen = hold_health_together([[0, 1, 2]], [((1000 + k) * SECOND, 0, row) for k, row in enumerate(values)])
    assert seen["alarm"]
    assert seen["change"]


@pytest.mark.parametrize(
    ("seed", "period_s", "calm", "is_blamed"),
    [(2, 200, 450, False), (3, 200, 450, True), (3, 30, 450, False), (2, 7, 2800, True)],
)  # what is read faster sees alarms clear; blamed is who grew beyond what was seen, or stood still for the week
def test_health_equals_its_slow_twin_after_the_week(seed, period_s, calm, is_blamed):
    values = meters(3600, 2 + seed, seed, bad=0.002, calm=calm)
    values[1500:1560, 0] += 15.0 * (calm < 1500)
    values[3000:, 3][::7] = NAN
    if seed == 3:
        values[:, 2] = 5.0  # a constant
        values[3300:3340, 1:3] = NAN
    times = (1000 + period_s * np.arange(3600)) * SECOND
    times[2700:] += 7 * feed.DAY
    seen = hold_health_together(
        [list(range(2 + seed))], [(int(t), 0, row) for t, row in zip(times, values, strict=True)]
    )
    assert seen["knows"]
    assert seen["alarm"]
    assert seen["change"]
    assert (max(seen["cause"]) >= 0) == is_blamed
    assert health.WAITING in seen["cause"]


def test_health_equals_its_slow_twin_through_bursts_and_many_alarms():
    """Many rows come once or twice above the limit; and more alarms than the limit grows with."""
    rng = np.random.default_rng(7)
    values = 10 + rng.normal(0, 1, (6000, 2))
    for k in range(500, 3000, 25):
        values[k : k + rng.integers(2, 5), rng.integers(0, 2)] += rng.uniform(4, 12)
    for j, k in enumerate(range(3000, 5800, 250)):
        values[k : k + 90, j % 2] += 12.0 * 1.3**j
    fed = [((1000 + k) * SECOND, 0, row) for k, row in enumerate(values)]
    one = hold_health_together([[0, 1]], fed)
    assert one["alarms"] > 7


def test_health_equals_its_slow_twin_where_the_week_showed_few_rows():
    values = meters(1600, 3, 6)
    times = 1000 + np.concatenate([6 * 3600 * np.arange(28), 7 * 86400 + np.arange(1572)])
    seen = hold_health_together([[0, 1, 2]], [(int(t) * SECOND, 0, row) for t, row in zip(times, values, strict=True)])
    assert not seen["knows"]
    assert seen["alarm"]


def test_health_equals_its_slow_twin_of_many_meters():
    """The worst of ten is worse by chance: their limit is higher."""
    values = meters(900, 10, 8)
    seen = hold_health_together([list(range(10))], [((1000 + k) * SECOND, 0, row) for k, row in enumerate(values)])
    assert seen["alarm"]


def test_health_of_rows_from_several_scans_equals_its_slow_twin():
    values, rng = meters(1800, 5, 4, calm=950), np.random.default_rng(5)
    columns_of = [[0, 1], [2], [3, 4]]
    fed = []
    for k, row in enumerate(values):
        for scan in rng.permutation(3):
            if scan != 2 or k % 4 == 0:  # a slow one
                t = 1000 + 20 * k + (feed.DAY // SECOND * 7 if k > 900 else 0)
                fed.append((t * SECOND + len(fed) % 1000, int(scan), row[columns_of[scan]]))
    seen = hold_health_together(columns_of, fed)
    assert seen["alarm"]
    assert {health.NOBODY, health.OPERATED} < seen["cause"]


# --- the governor

told_of = st.sets(
    st.sampled_from(["spike", "shift", "drift", "novelty", "noise", "health", "frozen", "high", "rate"]), max_size=3
)
frames_of = st.lists(st.tuples(st.integers(0, 2), *[told_of] * 5), min_size=1, max_size=40)
NAMED = {name: bit for bit, name in flags.NAMES.items()}


@FEW
@given(frames_of, st.lists(st.sampled_from([0.0, 1.0, 599.0, 600.0, 1800.0, 3599.0, 3600.0]), min_size=40, max_size=40))
@example([(0, {"spike"}, set(), set(), set(), set()), (0, set(), {"health"}, set(), set(), set())], [3600.0] * 40)
@example([(0, {"spike"}, set(), set(), set(), set()), (0, set(), {"health"}, set(), set(), set())], [3599.0] * 40)
def test_the_governor_equals_its_slow_twin(frames, periods):
    asset_of = [0, 1, 0, 0, 1]
    rows_of = [[0, 1], [2], [3, 4]]
    one, twin = Governor(feed.tags(5, scans=[2, 1, 2], assets=asset_of)), reference.Governor(asset_of)
    now = feed.BEGIN
    for (scan, *named), period in zip(frames, periods, strict=False):
        turn = feed.turn_of(feed.columns(np.zeros((1, 5)), begin_ns=now, scans=3), [scan])
        turn.flags[0] = [sum(NAMED[name] for name in names) for names in named]
        turn.score[:] = 0.7
        wanted = turn.flags[0].tolist()
        told = twin.step(now, rows_of[scan], [named[i] for i in rows_of[scan]])
        for i, names in zip(rows_of[scan], told, strict=True):
            wanted[i] = sum(NAMED[name] for name in names)
        one.update(turn)
        assert turn.flags[0].tolist() == wanted
        assert (turn.score == 0.7).all()
        now += round(period * SECOND)
