"""What operators do is seeded, agrees over all meters that see it, and happens when people are awake."""

import itertools
import math

import numpy as np
import pytest

from drivers import profile as profiles
from drivers.sim.history import History
from drivers.sim.physics import quantities
from drivers.sim.plants.loads import cable_share
from drivers.sim.plants.operations import (
    HOUR_S,
    BatteryTest,
    Schedule,
    Timetable,
    is_shift,
    is_weekend,
    operations_of,
    people,
    pulse,
    ramped,
    traffic,
    weekend,
)
from drivers.sim.plants.pipeline import FLOW_M3H, N_RUNS, SECTION_M, STANDSTILL_W, WAVE_M_S, LoadingArm, Pipeline
from drivers.sim.plants.place import World, place_of
from drivers.sim.signals import DAY_S, ramp
from tests.drivers.sim.build import gauge, meter

MONDAY = 1_767_571_200.0
SPAN = 30 * DAY_S


def world(seed=1):
    return World(seed, MONDAY, operations=True)


def of(place, kind):
    return [one for one in operations_of(place, MONDAY, MONDAY + SPAN) if one.kind == kind]


def run(i, kp_m=0):
    return meter(f"ft-{i}", profile="endresshauser_proline", asset="meter-skid", line="pipe-a", kp_m=kp_m, site="s")


def pump(i):
    points = [gauge(name, 2 * k, unit=unit) for k, (name, unit) in enumerate(PUMP)]
    states = [gauge("running", 40, "bool", bit=0, kind="state")]
    return meter(f"mlp-{i}", points=[*points, *states], asset=f"pump-{i}", line="pipe-a", kp_m=0, site="s")


PUMP = [("bearing_temp_de", "degC"), ("winding_temp_u", "degC"), ("vibration_de", "mm/s"), ("speed", "rpm")]


def test_a_world_without_operations_has_none():
    quiet = World(1, MONDAY)
    for name in profiles.names():
        quantities(quiet, meter(profile=name, name=f"pump-1-{name}", line="pipe-a", site="s", asset="loading-arm"))
    assert operations_of(quiet, MONDAY, MONDAY + SPAN) == []


def test_the_same_seed_gives_the_same_operations_and_another_one_others():
    def found(seed):
        here = world(seed)
        here.plant(Pipeline, "pipe-a")
        return operations_of(here, MONDAY, MONDAY + SPAN)

    assert found(1) == found(1)
    assert found(1) != found(2)
    assert {one.kind for one in found(1)} == {"pump stop", "flow set-point", "batch"}
    kinds = [one.kind for one in found(1)]
    assert 10 <= kinds.count("pump stop") <= 30
    assert 30 <= kinds.count("flow set-point") <= 60
    assert 15 <= kinds.count("batch") <= 30
    assert [one.start_s for one in found(1)] == sorted(one.start_s for one in found(1))


def test_a_schedule_ends_before_it_begins_again_and_lists_what_it_shows():
    schedule = Schedule(world(), "x", "y", 10_000.0, (500.0, 4_000.0), jitter=0.6)
    done = schedule.done(MONDAY, MONDAY + 40 * 10_000.0)
    assert 38 <= len(done) <= 42
    for one, after in itertools.pairwise(done):
        assert one.end_s <= after.start_s
        assert schedule.during(one.start_s - 1.0, 10.0) == 0.0
        assert schedule.during((one.start_s + one.end_s) / 2.0, 10.0) == 1.0
        assert schedule.during(one.end_s + 11.0, 10.0) == 0.0
    with pytest.raises(ValueError, match="the next may begin sooner"):
        Schedule(world(), "x", "y", 10_000.0, (500.0, 4_001.0), jitter=0.6)


def test_only_what_begins_by_day_is_done():
    schedule = Schedule(world(), "x", "y", 5 * HOUR_S, (60.0, 60.0), jitter=0.9, by_day=True)
    done = schedule.done(MONDAY, MONDAY + SPAN)
    assert len(done) > 20
    for one in done:
        assert 7.0 <= one.start_s % DAY_S / HOUR_S < 17.0
        assert not is_weekend(one.start_s)
        assert schedule.during(one.start_s + 50.0, 10.0) == 1.0
    shown = schedule.during(MONDAY + 30.0 * np.arange(SPAN / 30.0), 1.0) > 0.5
    assert np.count_nonzero(np.diff(shown.astype(int)) == 1) == len(done)


def test_the_integral_of_a_ramp():
    for x in (-5.0, 0.0, 3.0, 10.0, 40.0):
        steps = [ramp(-5.0 + (x + 5.0) * (i + 0.5) / 4000, 10.0) for i in range(4000)]
        assert ramped(x, 10.0) == pytest.approx(sum(steps) * (x + 5.0) / 4000, abs=1e-4)
    assert pulse(1e6, 300.0, 10.0) == pytest.approx(300.0)
    assert pulse(-1.0, 300.0, 10.0) == 0.0


def test_the_calendar():
    assert [bool(is_weekend(MONDAY + i * DAY_S)) for i in range(7)] == [False] * 5 + [True] * 2
    noon = [MONDAY + i * DAY_S + 11 * HOUR_S for i in range(7)]
    assert [bool(is_shift(t)) for t in noon] == [True] * 6 + [False]
    assert [bool(is_shift(MONDAY + hour * HOUR_S)) for hour in (5.9, 6.1, 9.7, 12.2, 15.0, 22.1)] == [
        False, True, False, False, True, False,
    ]  # fmt: skip
    assert not is_shift(MONDAY + 5 * DAY_S + 15 * HOUR_S)
    assert people(noon[2]) == 1.0
    assert people(noon[6]) < 0.3
    assert people(MONDAY + 2 * HOUR_S) == pytest.approx(0.1)
    assert traffic(MONDAY + 2 * HOUR_S) < 0.1 < 0.9 < traffic(noon[0])
    edges = [weekend(MONDAY + 0.02 * DAY_S * i) for i in range(700)]
    assert max(abs(b - a) for a, b in itertools.pairwise(edges)) < 0.2
    assert (weekend(noon[2]), weekend(noon[5])) == (0.0, 1.0)


# --- a pump station ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def station():
    """Return the line's world, its meters' quantities, and the first stop of a pump."""
    here = world()
    found = {f"ft{i}": quantities(here, run(i)) for i in (1, 2, 3)}
    found |= {f"mlp{i}": quantities(here, pump(i)) for i in (1, 2, 3)}
    for i in (1, 2, 3):
        spec = meter(f"pm-{i}", profile="schneider_pm5000", asset=f"pump-{i}", line="pipe-a", kp_m=0, site="s")
        found[f"pm{i}"] = quantities(here, spec)
    return here, found, of(here, "pump stop")[0]


def test_the_runs_of_a_skid_see_what_the_line_and_the_pumps_see(station):
    here, found, _ = station
    line = here.plant(Pipeline, "pipe-a")
    for t in MONDAY + np.arange(0.0, SPAN, 4321.0):
        flow, density = line.flow(0, t), line.density(t)
        skid = sum(found[f"ft{i}"]["mass_flow"].at(t) for i in (1, 2, 3))
        assert skid == pytest.approx(flow * density / 3600.0, rel=0.005)
        assert found["ft1"]["scan_value_00"].at(t) == pytest.approx(flow / N_RUNS, rel=0.006)
        assert found["ft2"]["scan_value_01"].at(t) == pytest.approx(density, abs=0.4)
        power = 1000.0 * sum(found[f"pm{i}"]["power_active_total"].at(t) for i in (1, 2, 3))
        assert power == pytest.approx(line.pump_power_w(0, t), rel=0.01)


def test_a_pump_that_stops_is_missed_by_every_meter(station):
    here, found, stop = station
    line = here.plant(Pipeline, "pipe-a")
    before, after = stop.start_s - 60.0, stop.start_s + 3600.0
    which = next(i for i in (1, 2, 3) if found[f"mlp{i}"]["running"].at(after) == 0.0)
    others = [i for i in (1, 2, 3) if i != which]
    assert all(found[f"mlp{i}"]["running"].at(before) == 1.0 for i in (1, 2, 3))
    assert all(found[f"mlp{i}"]["running"].at(after) == 1.0 for i in others)
    shown = {name: (found[f"mlp{which}"][name].at(before), found[f"mlp{which}"][name].at(after)) for name, _ in PUMP}
    assert shown["speed"][0] > 2800.0
    assert abs(shown["speed"][1]) < 10.0
    assert shown["vibration_de"][1] < 0.3 * shown["vibration_de"][0]
    assert shown["bearing_temp_de"][1] < shown["bearing_temp_de"][0] - 15.0
    assert found[f"mlp{which}"]["bearing_temp_de"].at(stop.start_s + 60.0) > shown["bearing_temp_de"][0] - 5.0
    assert found[f"pm{which}"]["power_active_total"].at(after) * 1000.0 == pytest.approx(STANDSTILL_W, rel=0.02)
    assert found[f"pm{which}"]["current_l1"].at(after) < 1.0
    fallen = (line.flow(0, before) - line.flow(0, after)) / FLOW_M3H
    assert fallen == pytest.approx(0.14, abs=0.04)
    assert line.suction(after) - line.suction(before) == pytest.approx(3.3, abs=1.0)
    assert line.pressure(0.0, before) - line.pressure(0.0, after) == pytest.approx(3.3, abs=1.0)
    for i in others:
        ratio = found[f"pm{i}"]["power_active_total"].at(after) / found[f"pm{i}"]["power_active_total"].at(before)
        assert 0.95 < ratio < 1.25
    seconds = stop.start_s + np.arange(0.0, 60.0)
    flows = np.array([line.flow(0, t) for t in seconds])
    falling = seconds[(flows < flows[0] - 0.01 * FLOW_M3H) & (flows > flows[-1] + 0.01 * FLOW_M3H)]
    assert 4.0 <= falling[-1] - falling[0] <= 20.0


def test_one_pump_at_most_stands(station):
    here, _, _ = station
    running = np.array(here.plant(Pipeline, "pipe-a").station.running(MONDAY + np.arange(0.0, SPAN, 20.0)))
    assert running.min() >= 0.0
    assert running.max() <= 1.0
    assert running.sum(axis=0).min() >= N_RUNS - 1.0
    assert all(any(row < 0.5) for row in running)


def test_line_pack_balances_while_operators_change_the_flow(station):
    here, _, stop = station
    line = here.plant(Pipeline, "pipe-a")
    area = math.pi / 4 * (1.0668 - 2 * 0.0159) ** 2
    places = [SECTION_M * i / 800 for i in range(801)]

    def packed(t):
        mean = sum(line.pressure(x, t) for x in places) / len(places)
        return mean * 1e5 * area * SECTION_M / (850.0 * WAVE_M_S**2)

    start, dt = stop.start_s - 20.0, 60.0
    net = sum(line.change(0, start + 0.5 * i) - line.change(SECTION_M, start + 0.5 * i) for i in range(120)) / 7200.0
    assert packed(start + dt) - packed(start) == pytest.approx(net, rel=0.03)
    assert abs(net) > 5.0


def test_a_batch_travels_with_the_oil(station):
    here, _, _ = station
    line = here.plant(Pipeline, "pipe-a")
    batch, delay_s = of(here, "batch")[3], 43_000.0 / (FLOW_M3H / 3600.0 / (math.pi / 4 * (1.0668 - 0.0318) ** 2))
    for x_m, wait_s in ((0.0, 0.0), (43_000.0, delay_s)):
        step = line.density(batch.start_s + wait_s + 60.0, x_m) - line.density(batch.start_s + wait_s - 5.0, x_m)
        assert 9.0 < abs(step) < 41.0
    assert abs(line.density(batch.start_s + 60.0, 43_000.0) - line.density(batch.start_s - 5.0, 43_000.0)) < 1.0
    far = quantities(here, run(9, 43_000))["mass_flow"]
    t = batch.start_s + delay_s + 120.0
    assert far.at(t) == pytest.approx(line.flow(43_000, t) * line.density(t, 43_000.0) / 3600.0 / N_RUNS, rel=0.006)


def test_what_is_loaded_is_missing_in_the_tank():
    here = world()
    arm = here.plant(LoadingArm, "pipe-a")
    loading = of(here, "loading")[2]
    times = loading.start_s + np.arange(-60.0, loading.end_s - loading.start_s + 120.0)
    loaded_m3 = arm.flow(times).sum() / 3600.0
    assert 6_000.0 < loaded_m3 < 9_500.0
    assert (arm.level(times[0]) - arm.level(times[-1])) * arm.TANK_M2 == pytest.approx(loaded_m3, rel=1e-3)
    levels = arm.level(MONDAY + np.arange(0.0, SPAN, 30.0))
    assert 6.0 < levels.min() < levels.max() < 10.001
    assert np.abs(np.diff(levels)).max() < 30.0 * 2.0 * arm.M3H / 3600.0 / arm.TANK_M2
    spec = meter("ft-450", profile="dynasonics_tfx_ultra", asset="loading-arm-1", line="pipe-a", site="s", kp_m=600)
    shown = quantities(here, spec)["flow_rate_cmh"]
    assert shown.at(loading.start_s + 1000.0) == pytest.approx(arm.M3H, rel=0.01)
    assert abs(shown.at(loading.start_s - 100.0)) < 0.01 * arm.M3H


def test_a_battery_test_takes_from_the_charge_what_the_current_says():
    here = world()
    spec = meter("bat", profile="victron_gx_battery", asset="hut-1", site="s")
    hut = meter("hut", points=[gauge("rectifier_current", 0, unit="A")], asset="hut-1", site="s")
    found, rectifier = quantities(here, spec), quantities(here, hut)["rectifier_current"]
    test = of(here, "battery test")[0]
    middle = (test.start_s + test.end_s) / 2.0
    assert found["current"].at(middle) == pytest.approx(-18.0, abs=3.0)
    assert found["voltage"].at(middle) < found["voltage"].at(test.start_s - 60.0) - 1.5
    assert rectifier.at(middle) < 1.0
    assert rectifier.at(test.start_s - 60.0) > 16.0
    times = np.arange(test.start_s - 10.0, test.end_s + 10.0)
    amp_hours = found["current"].at(times).sum() / 3600.0
    grown = found["soc"].at(times[-1]) - found["soc"].at(times[0])
    assert grown * 2.0 == pytest.approx(amp_hours, abs=0.6)
    test_of = here.plant(BatteryTest, "s", "hut-1")
    assert test_of.taken_s(test.end_s + 30.0) == pytest.approx(test.end_s - test.start_s)
    assert test_of.taken_s(test.end_s + 3 * HOUR_S) == pytest.approx(0.0, abs=1e-6)


def test_trains_rest_at_night_and_are_counted():
    here = world()
    timetable = here.plant(Timetable, "rail-a", 600.0)
    times = MONDAY + np.arange(0.0, 14 * DAY_S, 60.0)
    last, before, since, count = timetable.at(times)
    assert np.all(before < last)
    assert np.all(since >= 0.0)
    assert np.all(np.diff(count) >= 0)
    by_hour = np.histogram((times[1:][np.diff(count) > 0] % DAY_S) / HOUR_S, bins=24, range=(0, 24))[0]
    assert by_hour[1:4].max() < 0.2 * by_hour[6:22].min()
    assert [timetable.at(t)[3] for t in times[:2000:97].tolist()] == count[:2000:97].tolist()
    later = world().plant(Timetable, "rail-a", 600.0)
    assert later.at(times[-1].item())[3] == count[-1]


def test_cranes_rest_and_ships_come_and_go():
    here = world()
    crane = quantities(here, meter("crane-1", profile="siemens_pac2200", asset="crane-1", site="p"))
    sunday, night = MONDAY + 6 * DAY_S + 12 * HOUR_S, MONDAY + 26 * HOUR_S
    for begin in (sunday, night):
        assert crane["power_active_total"].at(begin + np.arange(0.0, 3600.0)).max() < 60e3
    work = np.array(
        [crane["power_active_total"].at(MONDAY + i * DAY_S + 8 * HOUR_S + np.arange(600.0)) for i in range(5)]
    )
    assert (work.max(axis=1) > 0.5e6).sum() >= 3
    shore = quantities(here, meter("shore-1", profile="janitza_umg604", asset="berth-1", site="p"))[
        "power_active_total"
    ]
    call = of(here, "ship's call")[0]
    assert shore.at(call.start_s - 60.0) < 20e3 < 0.8e6 < shore.at(call.start_s + 60.0)
    assert shore.at(call.end_s + 60.0) < 20e3


def test_a_cable_carries_less_at_weekends():
    share = cable_share(place_of(world(), meter("pq", line="cable-a")))
    days = [np.mean(share(MONDAY + i * DAY_S + np.arange(0.0, DAY_S, 300.0))) for i in range(28)]
    working = np.mean([day for i, day in enumerate(days) if i % 7 in (1, 2, 3)])
    free = np.mean([day for i, day in enumerate(days) if i % 7 in (5, 6)])
    assert working - free == pytest.approx(0.05, abs=0.02)


def test_a_history_lists_its_operations():
    history = History([run(1), pump(2)], origin_s=MONDAY, operations=True)
    assert {one.where for one in operations_of(history.world, MONDAY, MONDAY + SPAN)} == {"pipe-a"}
    assert History([run(1)], origin_s=MONDAY).world.schedules == []
