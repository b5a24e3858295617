"""What detectors are for, and what they must not do: on a virtual clock, in the words of an operator."""

import numpy as np
import pytest

from gateway.detect import flags
from gateway.detect.bank import Bank
from gateway.detect.chatter import Chatter
from gateway.detect.governor import Governor
from gateway.detect.health import COMMISSION, KNOWS_OTHERS, Health
from gateway.detect.novelty import AGE, LAST, ORIGIN, TICKS, Novelty
from gateway.detect.rules import Rules
from gateway.model.frame import DETECT_BITS
from tests.gateway.detect import feed, test_contract
from tests.gateway.detect.feed import MIDNIGHT, SECOND

HOURLY = np.repeat(np.array([0, 0, 0, 0, 0, 1, 4, 8, 9, 9, 8, 8, 6, 8, 9, 9, 8, 7, 4, 2, 1, 0, 0, 0], float), 12)

FIRST_DAY = (MIDNIGHT + feed.STAMP) // feed.DAY + 3  # of the week, from Monday on


def rises(found, bit):
    """Return (frame, tag) where a flag begins."""
    before = np.vstack([np.zeros_like(found[:1]), found[:-1]])
    return [(int(k), int(i)) for k, i in np.argwhere(found & ~before & np.uint16(bit))]


def days(n, seed=0, *, sd=0.1):
    """Return five-minute values of a load that follows the clock, from midnight Unix time on."""
    return np.tile(HOURLY, n) + feed.noise(288 * n, seed=seed, mean=20, sd=sd)[:, 0]


def five_minutes(values):
    """Return frames every five minutes from midnight Unix time on."""
    return feed.columns(values, period_s=300.0, begin_ns=MIDNIGHT)


def week_after(frame, frames, period_s=1.0):
    """Return the periods of frames between which a week passes once."""
    return np.where(np.arange(frames) == frame, 7 * 86400.0, period_s)


# --- rules


def test_noise_alone_raises_nothing_in_a_day():
    n, per_call = 8, 21_600
    bank, rng = Bank(feed.tags(n, assets=[0] * 4 + [1] * 4)), np.random.default_rng(9)
    for part in range(86_400 // per_call):
        values = rng.normal(50, [0.1, 1, 5, 20] * 2, (per_call, n))
        values[:, 4:] = np.round(values[:, 4:], 1)
        found, _ = feed.run(bank, feed.columns(values, begin_ns=feed.BEGIN + part * per_call * SECOND))
        assert not found.any()


@pytest.mark.parametrize("value", [0.0, 3.0, -1e9])
def test_a_constant_is_never_called_frozen_nor_anything_else(value):
    found, score = feed.run(Bank(feed.tags()), feed.columns(np.full(90_000, value)))
    assert not found.any()
    assert not score.any()


@pytest.mark.parametrize("resolution", [0.1, 0.0])
def test_one_digit_of_a_gauge_that_stood_still_is_no_spike(resolution):
    values = np.full(300, 5000.0)
    values[[100, 200, 201]] = 5000.1
    found, _ = feed.run(Rules(feed.tags(resolution=resolution)), feed.columns(values))
    assert not found.any()


def test_the_resolution_of_an_integer_gauge_near_zero_is_no_spike():
    values = np.full(300, 0.0)
    values[100] = 0.1
    assert not feed.run(Rules(feed.tags(resolution=0.1)), feed.columns(values))[0].any()


def test_a_moving_tag_that_stops_where_it_was_is_frozen_after_half_a_minute():
    values = feed.noise(600, seed=1)[:, 0]
    values[400:] = 50.3
    found, score = feed.run(Rules(feed.tags(detect=("frozen",))), feed.columns(values))
    assert rises(found, flags.FROZEN) == [(430, 0)]  # 30 polls in which it did not move
    assert score[430, 0] == pytest.approx(1 - 9 / 30)
    assert found[430:, 0].all()


def test_a_tag_that_rests_often_is_frozen_only_beyond_twice_its_longest_rest():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(50, 1, 200), rng.choice([1, 1, 1, 1, 1, 1, 1, 61], 200))  # rests of 60 polls
    moving = values.size
    values = np.concatenate([values, rng.normal(50, 1, 1), np.full(300, 50.0)])
    found, _ = feed.run(Rules(feed.tags(detect=("frozen",))), feed.columns(values))
    [(frame, _)] = rises(found, flags.FROZEN)
    share = 1 / (1 + 60 / 8)
    assert frame >= moving + 1 + 120
    assert frame <= moving + 1 + max(120, 2 * 18 / share)


def test_frozen_ends_with_the_first_value_that_moves():
    values = feed.noise(600, seed=1)[:, 0]
    values[400:500] = 50.3
    found, _ = feed.run(Rules(feed.tags(detect=("frozen",))), feed.columns(values))
    assert np.flatnonzero(found[:, 0]).tolist() == list(range(430, 500))


def test_frozen_needs_twenty_seconds_however_fast_the_polls():
    values = feed.noise(1200, seed=1)[:, 0]
    values[400:] = 50.3
    found, _ = feed.run(Rules(feed.tags(detect=("frozen",))), feed.columns(values, period_s=0.1))
    [(frame, _)] = rises(found, flags.FROZEN)
    assert frame in (600, 601)  # of 0.1 s each; the sum of 200 of them is near 20


def of_asset(n=4, frames=400, seed=5):
    return feed.noise(frames, n, seed=seed)


@pytest.mark.parametrize("garbage", [[1e200], [1e308, -1e308], [-1e150] * 3])
def test_garbage_among_the_first_values_does_not_blind_spike(garbage):
    values = feed.noise(800, seed=5)[:, 0]
    values[5 : 5 + len(garbage)] = garbage
    values[700] += 60.0
    found, _ = feed.run(Rules(feed.tags()), feed.columns(values))
    assert rises(found[600:], flags.SPIKE) == [(101, 0)]


def test_a_jump_of_one_meter_is_a_spike_one_poll_later():
    values = of_asset()
    values[300, 2] += 30
    found, score = feed.run(Rules(feed.tags(4)), feed.columns(values))
    assert np.argwhere(found).tolist() == [[301, 2]]
    assert 0.5 < score[301, 2] < 1


@pytest.mark.parametrize(("together", "is_told"), [(1, True), (2, True), (3, False), (4, False)])
@pytest.mark.parametrize("assets", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_a_step_of_three_tags_is_an_operation_whatever_their_assets(together, is_told, assets):
    values = of_asset()
    values[300:, :together] += 30
    fed = feed.columns(values, period_s=week_after(100, 400))
    found, _ = feed.run(Rules(feed.tags(4, assets=assets)), fed)
    assert rises(found, flags.SPIKE) == ([(306, i) for i in range(together)] if is_told else [])


@pytest.mark.parametrize("assets", [[0, 0, 0], [0, 1, 2]])
def test_three_glitches_at_once_are_an_operation(assets):
    values = of_asset(3)
    values[300] += 30
    assert not feed.run(Rules(feed.tags(3, assets=assets)), feed.columns(values))[0].any()


def test_a_meter_that_flickers_is_no_operation_of_three_tags():
    values = of_asset()
    values[300:312:2, 2] += 30 * 1.4 ** np.arange(6)  # each more than was usual so far
    found, _ = feed.run(Rules(feed.tags(4)), feed.columns(values))
    assert rises(found, flags.SPIKE) == [(k, 2) for k in range(301, 312, 2)]


def test_an_operation_that_begins_later_does_not_excuse_a_spike():
    """A tag that is read once a minute jumps; twenty seconds later three others do."""
    values = of_asset()
    bank, found = Rules(feed.tags(4, scans=[3, 1])), []
    for k in range(60 * 205):
        row = feed.noise(1, 4, seed=k)
        row[0, :3] += 30 * (k >= 60 * 200 + 20)
        row[0, 3] = values[k // 60, 3] + 30 * (k // 60 == 200)
        turn = feed.turn_of(
            feed.columns(row, begin_ns=feed.BEGIN + k * SECOND, scans=2), [0, 1] if k % 60 == 0 else [0]
        )
        bank.update(turn)
        found.append(turn.flags[0, 3] != 0)
    assert np.flatnonzero(found).tolist() == [60 * 201]


def test_the_tags_of_an_operation_may_follow_one_another_within_ten_seconds():
    def told(gap):
        values = of_asset()
        for i in range(3):
            values[300 + gap * i :, i] += 30
        fed = feed.columns(values, period_s=week_after(100, 400))
        return rises(feed.run(Rules(feed.tags(4)), fed)[0], flags.SPIKE)

    assert told(0) == told(2) == []
    assert told(5) == [(306, 0)]  # judged when only one other had followed; the others know of three
    assert told(6) == [(306, 0), (312, 1), (318, 2)]  # twelve seconds: each for itself


def test_a_step_is_silent_in_the_first_week_and_told_after_it_unless_it_is_usual():
    values = of_asset(frames=4000)
    values[300:600, 2] += 30  # shows what is done to it
    values[1500:1600, 2] += 31  # 1.03 of that
    values[2500:2600, 2] += 60
    values[3500:3600, 2] += 60
    found, _ = feed.run(Rules(feed.tags(4)), feed.columns(values, period_s=week_after(1000, 4000)))
    assert rises(found, flags.SPIKE) == [(2506, 2)]  # six seconds later; and the way back is no news any more


@pytest.mark.parametrize(("seconds", "is_told"), [(604_700, False), (604_800, True)])
def test_a_week_is_counted_from_the_first_frame_of_the_scan(seconds, is_told):
    values = of_asset(1)
    values[300:, 0] += 30
    period = np.where(np.arange(400) == 100, seconds - 305.0, 1.0)  # the verdict comes in frame 306
    found, _ = feed.run(Rules(feed.tags()), feed.columns(values, period_s=period))
    assert rises(found, flags.SPIKE) == ([(306, 0)] if is_told else [])


def test_a_glitch_that_returns_is_told_at_once_even_if_larger_jumps_are_usual():
    values = of_asset(frames=2500)
    values[300:600, 2] += 100
    values[[1500, 1600, 1700], 2] += [30, 30, 60]
    found, _ = feed.run(Rules(feed.tags(4)), feed.columns(values))
    assert rises(found, flags.SPIKE) == [(1501, 2), (1701, 2)]  # as large a one as before is usual


@pytest.mark.parametrize(("falls_to", "is_told"), [(0.4, False), (0.1, True)])
def test_a_motor_whose_inrush_falls_to_a_part_runs_and_what_falls_to_less_was_a_glitch(falls_to, is_told):
    values = feed.noise(2500, mean=10.0, sd=0.1)[:, 0]
    values[300:600] += 40.0
    values[1500:1501] += 15.0
    values[1501:1505] += 15.0 * falls_to
    found, _ = feed.run(Rules(feed.tags()), feed.columns(values, period_s=week_after(1000, 2500)))
    assert rises(found, flags.SPIKE) == ([(1501, 0)] if is_told else [])


@pytest.mark.parametrize(("weeks", "is_told"), [(1, False), (4, True)])
def test_what_is_usual_is_forgotten_by_half_in_four_weeks(weeks, is_told):
    values = of_asset(1, frames=800)
    values[[300, 600], 0] += [30, 25]
    period = np.where(np.arange(800) == 500, weeks * 604_800.0, 1.0)
    found, _ = feed.run(Rules(feed.tags()), feed.columns(values, period_s=period))
    assert rises(found, flags.SPIKE) == [(301, 0), (601, 0)][: 1 + is_told]


@pytest.mark.parametrize(("pulses", "weeks", "is_told"), [(500.0, 1, False), (500.0, 16, True), (0.0, 1, True)])
def test_a_load_that_comes_in_pulses_is_no_spike_however_small_the_first_of_them(pulses, weeks, is_told):
    """A thermostat's heating: what it does within a minute is more than where its first pulse today leads."""
    values = feed.noise(3000, mean=180.0)[:, 0]
    values[300:900] += pulses * (np.arange(600) / 600.0) * (np.arange(600) // 10 % 2)  # the colder, the more
    values[2000:2010] += 54.0
    period = np.where(np.arange(3000) == 1500, weeks * 604_800.0, 1.0)
    found, _ = feed.run(Rules(feed.tags()), feed.columns(values, period_s=period))
    assert rises(found[1500:], flags.SPIKE) == ([(506, 0)] if is_told else [])


def test_what_operations_do_to_a_meter_is_not_how_it_moves():
    """Nor is a jump and its return: only what a meter does again and again."""
    one = Rules(feed.tags(4))
    values = of_asset(frames=2500)
    values[500:600] += 1000.0
    values[1500, 0] += 1000.0
    feed.run(one, feed.columns(values))
    assert (one.state()["roughest"] < 12.0).all()


def test_a_ramp_is_as_high_as_its_end():
    """It is away after its first step; what its height at the verdict was is usual from then on, not the first step."""
    values = of_asset(1, frames=3000)
    for k in (300, 1500):
        values[k : k + 4, 0] += [15, 30, 45, 60]
        values[k + 4 : k + 100, 0] += 60
    found, _ = feed.run(Rules(feed.tags()), feed.columns(values, period_s=week_after(1000, 3000)))
    assert not found.any()


def test_the_flag_of_a_spike_stands_five_minutes_at_most():
    """Where it stands still its level is never learnt anew."""
    values = feed.noise(1000, mean=0.0, sd=0.001)[:, 0]
    values[200:] = 50.0
    found, _ = feed.run(Rules(feed.tags()), feed.columns(values, period_s=week_after(100, 1000)))
    assert np.flatnonzero(found[:, 0] & flags.SPIKE).tolist() == list(range(206, 507))


@pytest.mark.parametrize("detect", [None, ("spike",)])
def test_a_gauge_that_stood_at_exactly_zero_may_begin_to_run(detect):
    values = np.zeros(1000)
    values[200:] = feed.noise(800, mean=5.0)[:, 0]
    for period_s in (1.0, week_after(100, 1000)):
        found, _ = feed.run(Rules(feed.tags(detect=detect)), feed.columns(values, period_s=period_s))
        assert not (found[300:] & flags.SPIKE).any()
        assert len(rises(found, flags.SPIKE)) == (np.size(period_s) > 1)  # of a week of zeros it is news, once


@pytest.mark.parametrize("sds", [8, 20, 100, 1000])
def test_a_pump_that_goes_to_rest_elsewhere_is_not_frozen(sds):
    values = feed.noise(900, seed=3, mean=0.5 * sds, sd=0.5)[:, 0]
    values[400:] = 0.0
    assert not (feed.run(Rules(feed.tags()), feed.columns(values))[0] & flags.FROZEN).any()


def test_a_tag_read_every_three_minutes_is_not_judged_poll_by_poll():
    values = of_asset()
    values[300, 2] += 30
    assert not feed.run(Rules(feed.tags(4)), feed.columns(values, period_s=180.0))[0].any()


def test_nothing_is_a_spike_in_the_first_twenty_polls():
    values = of_asset(frames=40)
    values[18, 0] += 1000
    assert not feed.run(Rules(feed.tags(4)), feed.columns(values))[0].any()


def test_a_limit_that_stood_before_the_restart_is_cleared_by_the_first_good_value():
    bank = Bank(feed.tags(3, scans=[1, 2], assets=[0, 0, 0], limit=(np.nan, np.nan, 80.0, np.nan)))
    bank.stand(1, flags.HIGH)
    fed = feed.columns([[50.0, 50.0, 50.0]] * 3, scans=2)
    fed.bad[0, 1:] = True
    found, _ = feed.run(bank, fed)
    assert found.tolist() == [[0, flags.HIGH, 0], [0, 0, 0], [0, 0, 0]]


# --- chatter


@pytest.mark.parametrize(("apart_s", "is_told"), [(12.0, True), (12.5, False)])
def test_six_changes_within_a_minute_are_chatter(apart_s, is_told):
    period = np.where(np.arange(9) < 2, 60.0, apart_s)  # it stood still for a minute before
    fed = feed.columns([0, 0, 1, 0, 1, 0, 1, 0, 1], period_s=period)
    found, score = feed.run(Chatter(feed.tags(kinds="state")), fed)
    assert rises(found, flags.CHATTER)[:1] == ([(7, 0)] if is_told else [])
    assert score.max() == (0.5 if is_told else 0.0)


def test_chatter_ends_a_minute_after_its_oldest_change():
    fed = feed.columns([*[0] * 61, 0, 1, 0, 1, 0, 1, 0, *[0] * 100])
    found, _ = feed.run(Chatter(feed.tags(kinds="state")), fed)
    assert np.flatnonzero(found[:, 0]).tolist() == list(range(67, 123))


def test_a_heartbeat_is_no_chatter_until_it_has_stood_still_for_a_minute():
    values = np.arange(600) % 2
    values[400:460] = 0
    found, _ = feed.run(Chatter(feed.tags(kinds="state")), feed.columns(values))
    assert rises(found, flags.CHATTER) == [(466, 0)]  # the sixth change from 461 on


def test_a_limit_that_is_gone_does_not_stand_while_another_is_watched():
    bank = Bank(feed.tags(limit=(np.nan, np.nan, np.nan, 90.0)))
    bank.stand(0, flags.HIGH)
    assert not feed.run(bank, feed.columns(np.full(10, 50.0)))[0].any()


# --- novelty


def test_novelty_is_silent_in_the_first_day():
    rng = np.random.default_rng(1)
    values = 10 ** rng.uniform(-3, 6, 288)
    found, score = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert not found.any()
    assert not score.any()


@pytest.mark.parametrize("day", [8, 29])
def test_the_hour_alone_is_scored_and_is_no_alarm(day):
    """A morning that begins at midnight: what every day shows, as every day shows it, at another hour."""
    values = days(31)
    at = 288 * day
    values[at : at + 60] = values[at - 288 + 60 : at - 288 + 120]
    found, score = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert not found[: at + 60].any()
    assert score[at : at + 60].max() > 0.5


def fast(values):
    """Return frames every 100 s, three to a five-minute value."""
    return feed.columns(np.repeat(values, 3), period_s=100.0, begin_ns=MIDNIGHT)


@pytest.mark.parametrize(("ticks", "is_told"), [(3, False), (4, True)])
def test_a_burst_alarms_only_if_the_value_stays_a_quarter_of_an_hour(ticks, is_told):
    values = days(10)
    at = 288 * 9 + 30
    values[at : at + ticks] += 25.0
    found, score = feed.run(Novelty(feed.tags()), fast(values))
    assert score[3 * at + 2, 0] > 0.5
    after = 3 * (at + 3) + 2
    assert np.flatnonzero(found[:, 0]).tolist() == ([after, after + 1, after + 2] if is_told else [])
    assert (score[after, 0] >= 0.5) == is_told


def test_a_tag_that_is_read_too_seldom_for_spike_alarms_with_the_first_value():
    values = days(10)
    at = 288 * 9 + 30
    values[at] += 25.0
    found, _ = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert np.flatnonzero(found[:, 0]).tolist() == [at]


@pytest.mark.parametrize(("day", "ticks", "is_told"), [(4, 12, False), (5, 1, False), (5, 12, True), (8, 1, True)])
def test_the_less_is_known_the_more_has_to_be_new(day, ticks, is_told):
    values = days(9)
    at = 288 * day + 30
    values[at : at + ticks] += 25.0 + np.arange(ticks)
    found, score = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert score[at, 0] > 0.5
    assert found.any() == is_told


@pytest.mark.parametrize(("size", "is_told"), [(15.0, False), (60.0, True)])
def test_what_is_hardly_newer_than_what_was_shown_before_is_no_alarm(size, is_told):
    """A test of every other day that goes a little farther each time, and one that goes much farther."""
    values = days(14)
    for day, further in ((8, 15.0), (10, 15.5), (12, 15.0 + size / 15.0)):
        at = 288 * day + 30
        values[at : at + 12] += further
    values[288 * 12 + 34 : 288 * 12 + 42] += size - 15.0
    found, _ = feed.run(Novelty(feed.tags()), fast(values))
    told = {int(k) // (3 * 288) for k in np.flatnonzero(found[:, 0])}
    assert told == ({8, 12} if is_told else {8})


def test_a_drift_is_found_while_it_goes_on():
    """Each hour excuses the next one, as it hardly differs; what was known two days ago does not."""
    values = 50.0 + feed.noise(288 * 12, mean=0.0, sd=0.3, seed=8)[:, 0]
    values[288 * 10 :] += np.minimum(np.arange(288 * 2) / 288, 1.0) * 8.0
    found, score = feed.run(Novelty(feed.tags()), five_minutes(values))
    told = np.flatnonzero(found[:, 0] & flags.DRIFT)
    assert told.size == 1
    assert 288 * 10 < told[0] < 288 * 11
    assert score[told[0], 0] >= 0.5


def test_a_drift_of_the_first_week_is_no_alarm():
    values = days(9)
    values[288 * 3 : 288 * 4] += np.arange(288) / 288 * 4.0 * np.ptp(values)
    found, _ = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert not (found[: 288 * 7] & flags.DRIFT).any()


@pytest.mark.parametrize("detect", [("shift",), ("shift", "novelty")])
def test_a_drift_is_found_after_an_excursion_that_was_put_right(detect):
    values = 50.0 + feed.noise(288 * 40, mean=0.0, sd=0.3, seed=9)[:, 0]
    values[288 * 10 : 288 * 15] += 20.0 * np.arange(288 * 5) / (288 * 5)
    values[288 * 30 :] -= np.arange(288 * 10) / 288 * 6.0
    found, _ = feed.run(Novelty(feed.tags(detect=detect)), five_minutes(values))
    told = np.flatnonzero(found[288 * 30 :, 0] & flags.DRIFT)
    assert told.size == 1
    assert told[0] < 288 * 3


@pytest.mark.parametrize("gap_s", [300.0, 4000.0, 7200.0, 86_400.0])
def test_one_value_is_no_drift_whatever_was_missing_before(gap_s):
    values = days(12)
    at = 288 * 10 + 100
    values[at] += 25.0
    period = np.full(len(values), 300.0)
    period[at - 1] = gap_s
    found, _ = feed.run(Novelty(feed.tags()), feed.columns(values, period_s=period, begin_ns=MIDNIGHT))
    assert not (found & flags.DRIFT).any()


def test_a_level_change_that_shift_alone_watches_is_told_as_a_drift():
    """Novelty is not asked, so nothing has told of it before."""
    values = days(20)
    values[288 * 15 :] += 25.0
    found, _ = feed.run(Novelty(feed.tags(detect=("shift",))), five_minutes(values))
    assert np.flatnonzero(found[:, 0] & (flags.DRIFT | flags.SHIFT)).size


@pytest.mark.parametrize("period_s", [120.0, 300.0])
def test_a_state_waits_whatever_its_period(period_s):
    values = np.zeros(round(20 * 86_400 / period_s))
    values[-round(86_400 / period_s)] = 1.0
    made = feed.tags(kinds="state", detect=("novelty", "shift"))
    found, _ = feed.run(Novelty(made), feed.columns(values, period_s=period_s, begin_ns=MIDNIGHT))
    assert not found.any()


def test_what_has_been_told_as_a_step_is_not_told_as_a_drift():
    values = days(12, sd=0.02)
    values[10 * 288 :] += 25.0
    found, _ = feed.run(Novelty(feed.tags()), fast(values))
    assert found.any()
    assert not (found & flags.DRIFT).any()


def test_a_gauge_that_rises_for_ever_does_not_drift():
    """A total that its meter shows as a plain number goes beyond all that was known every day."""
    values = np.arange(288 * 21) * 0.5 + feed.noise(288 * 21, mean=0.0, sd=0.01)[:, 0]
    found, _ = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert not (found & flags.DRIFT).any()


@pytest.mark.parametrize(("week", "is_told"), [(2, False), (6, True)])
def test_what_runs_on_a_sunday_as_on_any_other_day_is_scored_once_sundays_are_known(week, is_told):
    values = days(7 * 8)
    is_sunday = (np.arange(len(values)) // 288 + FIRST_DAY) % 7 == 6
    values[is_sunday] = 20.0 + feed.noise(int(is_sunday.sum()), mean=0.0, sd=0.1)[:, 0]
    at = int(np.flatnonzero(is_sunday)[288 * week])
    values[at + 96 : at + 192] = days(1, seed=9)[96:192]
    found, score = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert (score[at + 96 : at + 192] > 0.3).any() == is_told
    assert not found[: at + 192].any()  # a schedule is for people to judge


def test_a_usual_week_is_quiet():
    found, _ = feed.run(Novelty(feed.tags()), five_minutes(days(15, seed=4)))
    assert not found.any()


def test_what_lasts_is_told_once_in_eight_hours_unless_it_grows():
    values = days(12, sd=0.02)
    values[10 * 288 :] += 25.0
    found, score = feed.run(Novelty(feed.tags()), five_minutes(values))
    assert np.flatnonzero(found[: 10 * 288 + 96]).tolist() == [10 * 288]
    told = np.flatnonzero(score[10 * 288 : 10 * 288 + 96, 0])
    assert told.size
    peaks = score[10 * 288 + told, 0]
    units = 5 * peaks / (1 - peaks)
    assert (units[1:] > 1.4 * units[:-1]).all()


def test_a_counter_is_judged_by_its_rate_and_a_state_by_its_changes():
    rate = 5.0 + np.random.default_rng(3).uniform(-0.1, 0.1, 288 * 9)
    rate[288 * 8 + 30 :] = 15.0
    state = np.zeros(288 * 9)
    state[288 * 8 + 30 :] = np.arange(288 - 30) % 2
    for kind, values in (("counter", np.cumsum(rate) * 300), ("state", state)):
        found, _ = feed.run(Novelty(feed.tags(kinds=kind, detect=("novelty", "shift"))), five_minutes(values))
        assert np.flatnonzero(found[:, 0])[0] == 288 * 8 + 33 + (kind == "state"), kind  # its first value there is a 0


@pytest.mark.parametrize(("detect", "bits"), [("novelty", flags.NOVELTY), ("shift", flags.SHIFT | flags.DRIFT)])
def test_shift_and_novelty_are_told_to_those_who_ask(detect, bits):
    fed = test_contract.wild()
    found, _ = feed.run(Novelty(feed.tags(11, scans=[11], detect=(detect,))), only_scan(fed))
    assert np.bitwise_or.reduce(found, axis=None) & bits
    assert not (found & ~np.uint16(bits)).any()


def only_scan(fed):
    return feed.Columns(np.ascontiguousarray(fed.time_ns[:, :1]), fed.value, fed.bad)


def test_half_of_a_bucket_must_be_good_to_be_judged():
    """A frame every 100 s, three to the bucket: with one of them good it says nothing, with two it does."""
    for n_bad, is_told in ((1, True), (2, False)):
        values = np.repeat(days(6), 3)
        at = 3 * (288 * 4 + 30)
        values[at : at + 3] += 40.0
        values[at : at + n_bad] = np.nan
        _, score = feed.run(Novelty(feed.tags()), feed.columns(values, period_s=100.0, begin_ns=MIDNIGHT))
        assert (score[at : at + 3] > 0.5).any() == is_told


def test_the_bucket_of_a_tag_that_is_bad_at_its_end_goes_on_into_the_next():
    values = np.repeat(days(6), 3)
    at = 3 * (288 * 4 + 30)
    values[at : at + 2] += 40.0
    values[at + 2] = np.nan
    one = Novelty(feed.tags())
    fed = feed.columns(values, period_s=100.0, begin_ns=MIDNIGHT)
    _, score = feed.run(one, fed[: at + 6])
    assert np.flatnonzero(score[at:, 0] > 0.5).tolist() == [5]
    numbers = one.state()["numbers"][0]
    of_two = values[[at, at + 1, at + 3, at + 4, at + 5]]
    assert numbers[LAST] + numbers[ORIGIN] == pytest.approx(of_two.mean())


@pytest.mark.parametrize("period_s", [300.0, 600.0, 3600.0])
def test_what_is_read_every_five_minutes_or_less_often_is_judged_at_once(period_s):
    one, fed = Novelty(feed.tags()), feed.columns(np.arange(100) % 7, period_s=period_s)
    for k in range(len(fed)):
        feed.run(one, fed[k : k + 1])
        if k > 1:  # the first frame has no interval yet
            assert one.state()["numbers"][0, LAST] + one.state()["numbers"][0, ORIGIN] == fed.value[k, 0]


def test_the_usual_interval_is_the_period():
    one = Novelty(feed.tags())
    feed.run(one, feed.columns(np.zeros(100), period_s=600.0))
    assert one.state()["every_s"][0] == pytest.approx(600.0)


def test_the_age_of_novelty_is_that_of_values_not_of_frames():
    one = Novelty(feed.tags())
    feed.run(one, feed.columns(np.full(600, np.nan), period_s=300.0))
    assert one.state()["numbers"][0, AGE] == 0.0


# --- health


def train(rows, n=5, seed=2):
    """Return n meters that follow one load."""
    rng = np.random.default_rng(seed)
    load = np.zeros(rows)
    for k in range(1, rows):
        load[k] = 0.9 * load[k - 1] + rng.normal(0, 0.4)
    return 100 + np.outer(load, np.linspace(1, 2, n)) + rng.normal(0, 0.2, (rows, n))


@pytest.mark.parametrize("cause", range(5))
def test_health_names_the_meter_that_drifts(cause):
    fed, at = learnt(600)
    fed.value[at + 200 :, cause] += np.linspace(0, 40, 400)
    one = Health(feed.tags(5))
    found, score = feed.run(one, fed)
    assert {i for _, i in rises(found, flags.HEALTH)} == {cause}
    first = np.flatnonzero(found[:, cause])[0]
    assert at + 200 < first < at + 300
    assert one.alarm[first, 0]
    assert score[first, cause] == one.score[first, 0] > 0.5


def known(rows, n=5, *, seed=2, weeks=2):
    """Return the frames, a second apart, of meters that began so many weeks before the last 500 of them."""
    period_s = np.where(np.arange(rows) == rows - 500, weeks * 604_800.0, 1.0)
    return feed.columns(train(rows, n, seed), period_s=period_s)


def test_health_blames_nobody_in_the_week_in_which_it_learns():
    fed = feed.columns(train(1400))
    fed.value[1000:, 1] += 30.0
    one = Health(feed.tags(5))
    found, score = feed.run(one, fed)
    assert one.alarm[1000:, 0].any()
    assert not found.any()
    assert not score.any()


def test_health_blames_a_meter_a_minute_after_the_alarm_began():
    fed = known(1400)
    fed.value[1000:, 1] += 30.0
    one = Health(feed.tags(5))
    found, _ = feed.run(one, fed)
    began = int(np.flatnonzero(one.alarm[:, 0])[0])
    assert 1002 <= began <= 1006  # three rows above the limit
    assert rises(found, flags.HEALTH)[0] == (began + 60, 1)


@pytest.mark.parametrize(
    ("n", "moved", "is_told"), [(5, 1, True), (5, 2, True), (5, 3, False), (9, 3, False), (10, 3, True)]
)
def test_nobody_is_blamed_where_a_third_and_three_of_the_meters_left_their_levels(n, moved, is_told):
    fed = known(1400, n)
    fed.value[1000:, :moved] += 30.0
    one = Health(feed.tags(n))
    found, _ = feed.run(one, fed)
    assert one.alarm[1061, 0]
    assert found[:1200].any() == is_told


@pytest.mark.parametrize(("times", "is_told"), [(1.0, False), (4.0, True)])
def test_a_meter_is_blamed_for_more_than_the_asset_has_shown(times, is_told):
    fed = known(2400)
    fed.value[700:800, 1] += 5.0  # in the learning week
    fed.value[1950:2000, 1] += 5.0
    fed.value[2250:2350, 1] += 5.0 * times
    one = Health(feed.tags(5))
    found, _ = feed.run(one, fed)
    for k in (700, 1950, 2250):
        assert one.alarm[k : k + 50, 0].any()
    assert not found[:2250].any()
    assert found.any() == is_told


@pytest.mark.parametrize(("weeks", "shift", "is_told"), [(1, 0.3, False), (2, 0.3, True), (1, 0.5, True)])
def test_in_the_second_week_a_meter_is_blamed_for_several_times_as_much(weeks, shift, is_told):
    """The week that was learnt is the one that it knows best."""
    fed = known(3000, weeks=weeks)
    fed.value[2700:, 1] += shift
    one = Health(feed.tags(5))
    found, _ = feed.run(one, fed)
    assert one.alarm[2700:, 0].any()
    assert found.any() == is_told


def test_a_meter_that_drifts_is_blamed_once_that_is_more_than_was_usual():
    """Its alarm begins as small as those that were seen."""
    fed = known(3400)
    fed.value[700:800, 1] += 40.0  # in the learning week
    fed.value[3000:, 1] += np.linspace(0.0, 12.0, 400)
    one = Health(feed.tags(5))
    found, _ = feed.run(one, fed)
    raised, blamed = (int(np.flatnonzero(each)[0]) for each in (one.alarm[2900:, 0], found[2900:, 1]))
    assert blamed > raised + 61
    assert not found[:2900].any()


def test_an_asset_that_falls_silent_in_alarm_is_neither_well_nor_accepted():
    values = train(1200)
    values[1000:, 2] += 20.0
    one, fed = Health(feed.tags(5)), feed.columns(values)
    feed.run(one, fed[:1030])
    assert one.alarm[1029, 0]
    before = feed.saved(one)
    dark = fed[1030:1100]
    dark.bad[:] = True
    feed.run(one, dark)
    assert one.alarm[:70, 0].all()
    assert (one.state()["meter"] == before["meter"]).all()
    assert (one.state()["asset"] == before["asset"]).all()


def test_a_week_without_a_value_is_no_learning_week():
    fed, _ = learnt(0)
    one = Health(feed.tags(5))
    dark = feed.columns(np.full((400, 5), np.nan), period_s=2000.0)
    fed.time_ns += dark.time_ns[-1] + 200 * SECOND - feed.BEGIN
    feed.run(one, dark)
    feed.run(one, fed)
    assert one.state()["asset"][0, KNOWS_OTHERS] == 1.0


def test_a_load_beyond_what_was_learnt_is_an_alarm_of_the_asset_but_of_no_meter():
    fed, at = learnt(600)
    fed.value[at + 200 :] += 6.0 * np.linspace(1, 2, 5)  # along the relation that was learnt; 6 sd of the load
    one = Health(feed.tags(5))
    found, _ = feed.run(one, fed)
    assert one.alarm[at + 200 :, 0].any()
    assert not found.any()


def test_a_scan_of_two_assets_is_judged_for_both():
    fed = known(1400, 6)
    fed.value[1000:, [1, 4]] += 30.0
    one = Health(feed.tags(6, assets=[0, 0, 0, 1, 1, 1]))
    found, _ = feed.run(one, fed)
    assert one.alarm[1010].tolist() == [1, 1]
    assert {i for _, i in rises(found, flags.HEALTH)} == {1, 4}


def test_health_is_silent_while_it_is_commissioned():
    values = train(int(COMMISSION))
    values[200:, 1] += np.linspace(0, 1.5, values.shape[0] - 200)  # a lot for the 20 rows before, a start-up here
    found, _ = feed.run(Health(feed.tags(5)), feed.columns(values))
    assert not found.any()


def test_one_meter_alone_has_no_health():
    one = Health(feed.tags(3, assets=[0, 1, 2]))
    values = train(800, 3)
    values[600:] += 1000
    found, _ = feed.run(one, feed.columns(values))
    assert not found.any()
    assert not one.score.any()


def test_more_meters_than_2_kb_hold_go_without_each_other():
    for n, matrix in ((32, 1024), (33, 0)):
        one = Health(feed.tags(n))
        assert one.state()["matrices"].size == matrix
        fed = known(1100, n)
        fed.value[700:, 5] += 30.0
        assert {i for _, i in rises(feed.run(one, fed)[0], flags.HEALTH)} == {5}


def test_the_score_of_a_frame_with_two_rows_of_an_asset_is_the_worse():
    """A scan that comes again completes the row before; with the other scan it completes its own."""
    values = train(600, 2, seed=4)
    fed = feed.columns(values, scans=2)
    made = feed.tags(2, scans=[1, 1])
    one = Health(made)
    fed.value[490:501, 0] += 40.0
    feed.run(one, fed[:500])
    feed.run(one, fed[500:501], ready=[0])
    state = feed.saved(one)
    apart = []
    for number in (0, 1):
        feed.run(one, fed[501:502], ready=[number])
        apart.append(float(one.score[0, 0]))
    feed.restore(one, state)
    feed.run(one, fed[501:502], ready=[0, 1])
    assert one.score[0, 0] == apart[0] > apart[1]


def learnt(rows_after):
    """Return frames of a week and of some rows after it, and where those begin."""
    rows = 3100
    values = train(rows + rows_after)
    return feed.columns(values, period_s=200.0), rows


def test_a_load_that_stays_in_its_range_after_the_learning_week_is_no_alarm():
    fed, at = learnt(600)
    one = Health(feed.tags(5))
    fed.value[at + 200 :] += 1.5 * np.linspace(1, 2, 5)  # along the relation that was learnt
    found, _ = feed.run(one, fed)
    assert one.state()["asset"][0, KNOWS_OTHERS] == 1.0
    assert not found.any()


def test_a_meter_that_leaves_the_relation_is_an_alarm_though_it_stays_within_its_range():
    fed, at = learnt(600)
    one = Health(feed.tags(5))
    fed.value[at + 200 :, 3] += 2.0  # 1.2 sd of its own
    found, _ = feed.run(one, fed)
    assert {i for _, i in rises(found, flags.HEALTH)} == {3}
    assert at + 200 < np.flatnonzero(found[:, 3])[0] < at + 230


@pytest.mark.parametrize("n_gone", [1, 2])
def test_a_meter_without_a_value_does_not_disturb_the_others(n_gone):
    fed, at = learnt(600)
    fed.bad[at + 100 :, 2 : 2 + n_gone] = True
    fed.value[fed.bad] = 1e9
    fed.value[at + 200 : at + 300] += 1.5 * np.linspace(1, 2, 5)
    assert not feed.run(Health(feed.tags(5)), fed)[0].any()
    fed.value[at + 400 :, 1] += 2.0
    found, _ = feed.run(Health(feed.tags(5)), fed)
    assert [i for _, i in rises(found, flags.HEALTH)] == [1]


def test_the_alarm_of_an_asset_clears_forty_rows_after_all_is_well():
    values = train(1400)
    values[1000:1050, 1] += 15.0
    one = Health(feed.tags(5))
    feed.run(one, feed.columns(values))
    alarm = np.flatnonzero(one.alarm[:, 0])
    begin, end = int(alarm[0]), int(alarm[-1])
    assert alarm.size == end + 1 - begin
    assert 1002 <= begin <= 1006  # three rows above the limit
    assert 1050 + 40 <= end + 1 <= 1050 + 40 + 40


def test_two_assets_do_not_know_of_each_other():
    values = np.hstack([train(1400, 3), train(1400, 3, seed=3)])
    values[1000:, 4] += 30.0
    one = Health(feed.tags(6, scans=[3, 3], assets=[0, 0, 0, 1, 1, 1]))
    found, _ = feed.run(one, feed.columns(values, scans=2, period_s=week_after(900, 1400)))
    assert not found[:, :3].any()
    assert found[:, 4].any()
    assert one.alarm.any(axis=0).tolist() == [False, True]


# --- the governor


def test_of_an_asset_one_finding_is_told_an_hour_and_of_another_asset_its_own():
    values = of_asset(frames=4400)
    for k, i, size in [(300, 0, 30), (500, 1, 30), (600, 0, 60), (700, 2, 30), (4000, 1, 60)]:
        values[k, i] += size
    fed = feed.columns(values)
    made = feed.tags(4, assets=[0, 0, 1, 1])
    found, score = feed.run(Bank(made), fed)
    assert rises(found, flags.SPIKE) == [(301, 0), (701, 2), (4001, 1)]  # 3,700 s after the first
    told = [(int(k), int(i)) for k, i in np.argwhere(score > 0.5)]
    assert told == [(301, 0), (501, 1), (601, 0), (701, 2), (4001, 1)]  # scores stand


def govern(one, found, at_s):
    """Return what is told of one frame, which is of so many seconds."""
    turn = feed.turn_of(feed.columns(np.zeros((1, len(found))), begin_ns=feed.BEGIN + at_s * SECOND), [0])
    turn.flags[0] = found
    one.update(turn)
    return turn.flags[0].tolist()


@pytest.mark.parametrize("bit", [flags.SPIKE, flags.SHIFT, flags.NOVELTY, flags.HEALTH])
def test_what_statistics_find_second_is_withheld_for_as_long_as_it_stands(bit):
    one = Governor(feed.tags(2))
    assert govern(one, [bit, 0], 0) == [bit, 0]
    assert govern(one, [bit, bit], 10) == [bit, 0]
    assert govern(one, [bit, bit], 7200) == [bit, 0]  # it stands since then, and is no news
    assert govern(one, [0, 0], 7201) == [0, 0]
    assert govern(one, [0, bit], 7202) == [0, bit]


def test_a_clock_that_is_behind_after_a_restart_withholds_nothing():
    one = Governor(feed.tags(2))
    assert govern(one, [flags.SPIKE, 0], 7200) == [flags.SPIKE, 0]
    assert govern(one, [0, flags.SPIKE], 10) == [0, flags.SPIKE]


@pytest.mark.parametrize("name", ["low_low", "low", "high", "high_high", "rate", "frozen", "chatter"])
def test_what_the_site_has_set_and_facts_of_one_meter_are_always_told(name):
    [bit] = [bit for bit, each in flags.NAMES.items() if each == name]
    one = Governor(feed.tags(2))
    assert govern(one, [flags.SPIKE, 0], 0) == [flags.SPIKE, 0]
    assert govern(one, [flags.SPIKE | bit, bit | flags.HEALTH], 10) == [flags.SPIKE | bit, bit]
    fresh = Governor(feed.tags(2))
    assert govern(fresh, [bit, 0], 0) == [bit, 0]
    assert govern(fresh, [0, flags.HEALTH], 1) == [0, flags.HEALTH]  # and it uses nothing up


# --- all of them


def test_a_tag_that_names_no_detector_is_left_alone():
    made = feed.tags(11, scans=[4, 3, 4], detect=(), limit=(10.0, 20.0, 80.0, 90.0), rate=0.4)
    bank = Bank(made)
    found, score = feed.run(bank, test_contract.wild())
    assert not found.any()
    assert not score.any()
    [novelty] = [one for one in bank.detectors if one.name == Novelty.name]
    assert not novelty.state()["numbers"][:, TICKS].any()  # nor is it learnt for nothing


OF = {
    "limits": flags.LIMITS,
    "rate": flags.RATE,
    "frozen": flags.FROZEN,
    "spike": flags.SPIKE,
    "shift": flags.SHIFT,
    "novelty": flags.NOVELTY,
    "chatter": flags.CHATTER,
    "health": flags.HEALTH,
}


@pytest.mark.parametrize("name", DETECT_BITS)
def test_a_detector_that_a_tag_does_not_name_leaves_it_alone(name):
    made = test_contract.site()
    made.detect[:] &= ~np.uint8(DETECT_BITS[name])
    found, _ = feed.run(Bank(made), test_contract.wild())
    assert not (found & np.uint16(OF[name])).any()
    assert (found & ~np.uint16(OF[name])).any()


def test_what_a_turn_brings_from_before_is_cleared_in_every_frame_of_the_ready_scans():
    bank = Bank(feed.tags(4, scans=[1, 2, 1]))
    turn = feed.turn_of(feed.columns(np.full((3, 4), 50.0), scans=3), [0, 2])
    turn.flags[:], turn.score[:] = flags.HIGH, 0.7
    bank.update(turn)
    assert turn.flags.tolist() == [[0, flags.HIGH, flags.HIGH, 0]] * 3
    assert turn.score.tolist() == [[0.0, 0.7, 0.7, 0.0]] * 3


def test_changed_names_exactly_the_rows_that_changed():
    bank = Bank(feed.tags(6, scans=[3, 1, 2], assets=[0] * 6))
    ready = np.array([0, 2], np.int32)
    quality, told = np.zeros(6, np.uint32), np.zeros(6, np.uint16)
    quality_before, told_before = quality.copy(), told.copy()
    assert bank.changed(ready, quality, quality_before, told, told_before).tolist() == []
    quality[2], told[0], told_before[4], quality_before[3] = 7, flags.HIGH, flags.RATE, 1  # row 3 is not ready
    assert bank.changed(ready, quality, quality_before, told, told_before).tolist() == [0, 2, 4]
    assert bank.changed(ready[::-1].copy(), quality, quality_before, told, told_before).tolist() == [4, 0, 2]


# --- noise


@pytest.mark.parametrize(("times", "buckets", "is_told"), [(5.0, 12, True), (5.0, 2, False), (1.5, 12, False)])
def test_a_meter_that_is_noisier_than_ever_for_a_quarter_of_an_hour_is_told_after_a_week(times, buckets, is_told):
    """A loose terminal; but not what an operator does, which is over within one or two buckets."""
    per_day, at = 288 * 30, 288 * 30 * 8
    values = 50 + feed.noise(9 * per_day, seed=4, mean=0.0)[:, 0]
    values[per_day : per_day + 30] += np.linspace(0, 400, 30)  # a ramp
    values[at : at + 30 * buckets] = 50 + times * (values[at : at + 30 * buckets] - 50)
    found, score = feed.run(Novelty(feed.tags()), feed.columns(values, period_s=10.0))
    said = rises(found, flags.NOISE)
    assert bool(said) == is_told
    if is_told:
        assert at + 60 <= said[0][0] <= at + 30 * 5
        assert score[said[0][0], 0] >= 0.5


# --- what was once open


def test_an_alarm_of_a_limit_that_is_gone_does_not_stand_for_ever():
    bank = Bank(feed.tags())
    bank.stand(0, flags.HIGH)
    assert not feed.run(bank, feed.columns(np.full(10, 50.0)))[0][1:].any()


def test_a_heartbeat_whose_link_was_lost_is_no_chatter():
    values = np.arange(600.0) % 2
    values[200:300] = np.nan
    assert not feed.run(Chatter(feed.tags(kinds="state")), feed.columns(values))[0].any()


def test_a_heartbeat_of_twelve_seconds_is_no_chatter():
    values = np.arange(600) // 12 % 2
    assert not feed.run(Chatter(feed.tags(kinds="state")), feed.columns(values))[0].any()


def test_a_jump_after_an_operation_does_not_make_a_fault_of_its_last_tag():
    values = of_asset(5)
    for i, k in enumerate([300, 301, 302, 309, 311]):
        values[k:, i] += 30
    found, _ = feed.run(Rules(feed.tags(5)), feed.columns(values, period_s=week_after(100, 400)))
    assert rises(found, flags.SPIKE) == [(317, 4)]


def test_an_alarm_of_the_learning_week_does_not_shorten_the_minute_of_the_next():
    fed = known(1800)
    fed.value[700:800, 3] += 5.0
    fed.value[1500:, 1] += 60.0
    one = Health(feed.tags(5))
    found, _ = feed.run(one, fed)
    assert one.alarm[700:800, 0].any()
    began = 1300 + int(np.flatnonzero(one.alarm[1300:, 0])[0])
    assert rises(found, flags.HEALTH)[0][0] == began + 60


def test_a_meter_without_a_value_is_not_one_that_left_its_level():
    values = train(3600, 4)
    values[:, 3] = values[:, :2].mean(axis=1)  # it follows two others
    values[3300:, :2] += 12.0
    fed = feed.columns(values, period_s=200.0)
    fed.bad[3290:, 3] = True
    one = Health(feed.tags(4))
    found, _ = feed.run(one, fed)
    assert one.alarm[3300:, 0].any()
    assert found.any()  # two have left their levels


@pytest.mark.parametrize("bad", [1, 3 * 288])
def test_a_flag_stands_until_its_bucket_is_over_though_the_tag_is_bad_then(bad):
    """Novelty, then dead: that is how sensors fail. The one that is put in its place has nothing to do with it."""
    values = np.repeat(days(12), 3)
    at = 3 * (288 * 8 + 30)
    values[at : at + 3 * 5] += 25.0
    values[at + 3 * 4 + 2 : at + 3 * 4 + 2 + bad] = np.nan  # from the end of the bucket after the alarm on
    fed = feed.columns(values, period_s=100.0, begin_ns=feed.MIDNIGHT)
    found, _ = feed.run(Novelty(feed.tags()), fed)
    assert np.flatnonzero(found[:, 0]).tolist() == [at + 11, at + 12, at + 13]
