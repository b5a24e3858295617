"""Float32 totals beyond their resolution: nearer to the truth, never beyond what the meter shows, never falling."""

import math
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.estimate as module
from drivers.link import LinkCounters
from drivers.points import Point
from drivers.quality import BAD_TIMEOUT, GOOD, UNCERTAIN_ENGINEERING_UNITS_EXCEEDED, UNCERTAIN_SENSOR_NOT_ACCURATE
from gateway.acquire.plan import plan
from gateway.estimate import Estimates
from gateway.totals import STALLED
from tests.gateway import build
from tests.gateway.test_counters import polled, told
from tests.reference import estimate as reference

S = 1_000_000_000
ENERGY = Point("energy", "input", 0, "float32", kind="counter", unit="Wh", rate="power", rate_s=3600.0)
POWER = Point("power", "input", 2, "float32", unit="W")


class Meter:
    """A total and its rate; None is a bad sample."""

    def __init__(self, periods_s=(1.0, 1.0), **fields):
        point = replace(ENERGY, **fields)
        tags = [build.tag(p, period_s=period_s) for p, period_s in zip((point, POWER), periods_s, strict=True)]
        self.table = plan(build.gateway([build.device("d", tags)])).table
        names = [tag.name for tag in self.table.tags]
        self.row, self.rate_row = names.index("energy"), names.index("power")
        self.scans = [int(self.table.scan_of[row]) for row in (self.row, self.rate_row)]
        self.estimates = Estimates(self.table)
        self.time_ns = np.zeros(len(self.table.scans), np.int64)
        self.value, self.quality = np.zeros(2), np.zeros(2, np.uint32)
        self.scale, self.offset = point.scale, point.offset

    def put(self, row, value):
        self.value[row] = math.nan if value is None else value
        self.quality[row] = BAD_TIMEOUT if value is None else GOOD

    def update(self, *scans):
        return self.estimates.update(np.array(scans, np.int32), self.time_ns, self.value, self.quality)

    def poll(self, time_s, register, power):
        """Read both at one moment; return (value, quality, rows told)."""
        self.time_ns[:] = round(time_s * S)
        self.put(self.row, None if register is None else register * self.scale + self.offset)
        self.put(self.rate_row, power)
        told = self.update(*dict.fromkeys(reversed(self.scans)))
        return float(self.value[self.row]), int(self.quality[self.row]), told


def nearest(energy):
    return float(np.float32(energy))


def step_of(register):
    return float(np.nextafter(np.float32(register), np.float32(np.inf))) - register


def load(seed, start, mean_w, *, n=3000, period_s=1.0, jitter_s=0.1):
    """Return times, true energy and power at the polls of a load that wanders and switches, in s, Wh and W."""
    rng = np.random.default_rng(seed)
    fine = 20  # moments per poll
    m = n * fine
    level = np.repeat(rng.uniform(0.6, 1.4, m // (60 * fine) + 1), 60 * fine)[:m]
    wander = np.cumsum(rng.normal(0, 0.002, m))
    power = mean_w * level * np.exp(wander - np.linspace(0, wander[-1], m))
    moments = np.arange(m) * period_s / fine
    energy = start + np.concatenate([[0.0], np.cumsum((power[1:] + power[:-1]) / 2) * period_s / fine / 3600])
    times = np.arange(1, n - 1) * period_s + rng.uniform(-jitter_s, jitter_s, n - 2)
    return times, np.interp(times, moments, energy), np.interp(times, moments, power)


LOADS = [  # Wh at the start, mean W, period s: energy per poll of 1/10 to 3 steps
    (16_777_300, 5_000, 1.0),
    (20_000_000, 800, 1.0),
    (100_000_000, 40_000, 1.0),
    (1_200_000_000, 150_000, 5.0),
]


@pytest.mark.parametrize(("start", "mean_w", "period_s"), LOADS)
@pytest.mark.parametrize("seed", range(3))
def test_an_estimate_is_five_times_nearer_to_the_truth_and_never_falls(seed, start, mean_w, period_s):
    times, true, power = load(seed, start, mean_w, period_s=period_s)
    meter, shown = Meter((period_s, period_s)), [nearest(wh) for wh in true]
    polls = [meter.poll(*sample) for sample in zip(times, shown, power, strict=True)]
    seen = shown.index(next(x for x in shown if x > shown[0]))  # the first step
    found = np.array([value for value, _, _ in polls])
    error = np.abs(found - true)
    assert error.max() < step_of(start)
    assert 5 * error[seen:].mean() < np.abs(shown - true)[seen:].mean()
    assert (np.diff(found) >= 0).all()
    assert {quality for _, quality, _ in polls} == {UNCERTAIN_SENSOR_NOT_ACCURATE}
    assert not any(told for _, _, told in polls)


def test_below_its_limit_the_value_is_the_meters_own():
    meter = Meter(scale=0.001)
    for t in range(2000):
        register = nearest(16_776_300 + 0.5 * t)
        value, quality, _ = meter.poll(t, register, 1.8)
        if register >= 2**24:
            break
        assert (value, quality) == (register * 0.001, GOOD)
    assert (register, quality) == (2**24, UNCERTAIN_SENSOR_NOT_ACCURATE)


def steps(meter, start=20_000_000, n=5, watts=1800.0):
    """Let a total rise by half a Wh a second, so that it steps by 2 every fourth poll; return the last time."""
    for t in range(4 * n):
        meter.poll(t, start + 2 * (t // 4), watts)
    return t


def test_nothing_is_estimated_before_a_step_was_seen():
    meter = Meter()
    assert [meter.poll(t, 20_000_000, 1800.0)[:2] for t in range(3)] == [
        (20_000_000, UNCERTAIN_SENSOR_NOT_ACCURATE)
    ] * 3
    assert [meter.poll(t, 20_000_002, 1800.0)[0] - 20_000_000 for t in range(3, 7)] == [1.25, 1.75, 2.25, 2.75]


def test_an_estimate_waits_at_the_half_step_for_the_meter():
    meter = Meter()
    t = steps(meter)
    assert [meter.poll(t + i, 20_000_010, power)[0] for i, power in ((1, 9e3), (2, 9e3), (3, 0.0))] == [
        20_000_010.25,
        20_000_011,
        20_000_011,
    ]


def test_a_total_rests_and_does_not_fall_when_its_rate_is_lost():
    meter = Meter()
    t = steps(meter, n=4)
    assert meter.poll(t + 1, 20_000_006, 1800.0)[0] == 20_000_007
    assert meter.poll(t + 2, 20_000_006, None)[0] == 20_000_007
    assert meter.poll(t + 9, 20_000_006, 1800.0)[0] == 20_000_007


def test_while_the_rate_is_bad_the_value_rests_and_the_next_good_one_bridges_it():
    meter = Meter()
    t = steps(meter, n=4) + 1
    assert meter.poll(t, 20_000_008, 1800.0) == (20_000_007.25, UNCERTAIN_SENSOR_NOT_ACCURATE, [])
    assert meter.poll(t + 1, 20_000_008, None) == (20_000_008, UNCERTAIN_SENSOR_NOT_ACCURATE, [])
    assert meter.poll(t + 2, 20_000_008, 1800.0)[0] == 20_000_008.25
    assert meter.poll(t + 3, 20_000_010, None)[0] == 20_000_010  # a step without a rate: no one knows when
    assert meter.poll(t + 4, 20_000_010, 1800.0)[0] == 20_000_010
    assert meter.poll(t + 5, 20_000_012, 1800.0)[0] == 20_000_011.25


def test_a_rate_older_than_three_periods_estimates_nothing():
    meter = Meter()
    t = steps(meter, n=4) + 1
    assert meter.poll(t, 20_000_008, 1800.0)[0] == 20_000_007.25
    assert meter.poll(t + 4, 20_000_008, 1800.0)[0] == 20_000_008
    assert meter.poll(t + 5, 20_000_008, 1800.0)[0] == 20_000_008
    assert meter.poll(t + 6, 20_000_010, 1800.0)[0] == 20_000_009.25


def test_a_rate_in_a_scan_of_its_own_stands_for_three_of_its_periods():
    meter = Meter((1.0, 2.0))
    for t in range(30):
        meter.time_ns[:] = t * S
        meter.put(meter.row, 20_000_000 + 2 * (t // 4))
        meter.put(meter.rate_row, 1800.0)
        assert not meter.update(meter.scans[0], *([meter.scans[1]] if t % 2 == 0 and t < 20 else []))
        if t == 23:
            assert meter.value[meter.row] == 20_000_010.75
        if t == 25:
            assert meter.value[meter.row] == 20_000_012  # the last sample of the rate is 7 s old


def test_a_bad_total_is_left_alone_and_so_is_another_doubt():
    meter = Meter()
    t = steps(meter)
    value, quality, _ = meter.poll(t + 1, None, 1800.0)
    assert math.isnan(value)
    assert quality == BAD_TIMEOUT
    assert meter.poll(t + 2, 20_000_010, 1800.0)[0] == 20_000_009.75
    meter.put(meter.row, 20_000_010)
    meter.quality[meter.row] = UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
    meter.update(0)
    assert meter.quality[meter.row] == UNCERTAIN_ENGINEERING_UNITS_EXCEEDED


def test_a_total_that_falls_begins_anew():
    meter = Meter()
    t = steps(meter)
    assert meter.poll(t + 1, 18_000_000, 1800.0)[0] == 18_000_000
    assert meter.poll(t + 2, 18_000_000, 1800.0)[0] == 18_000_000
    assert meter.poll(t + 3, 18_000_002, 1800.0)[0] == 18_000_001.25


def test_a_total_that_counts_no_more_is_told_once_until_it_steps():
    meter = Meter()
    t = steps(meter)
    told = [meter.poll(t + 1 + i, 20_000_010 + 2 * (i // 20), 1800.0)[2] for i in range(40)]
    assert [i for i, rows in enumerate(told) if rows] == [9, 29]
    assert told[9] == [(meter.row, STALLED)]


def test_a_meter_that_stands_still_without_a_load_is_not_told():
    meter = Meter()
    t = steps(meter)
    assert not any(meter.poll(t + 1 + i, 20_000_010, -50_000.0)[2] for i in range(100))


@pytest.mark.parametrize("scale", [-1.0, -0.001, 0.001, 7.0])
def test_scale_and_offset_change_the_unit_and_nothing_else(scale):
    plain, scaled = Meter(), Meter(scale=scale, offset=-1000.0)
    for t in range(40):
        register = 20_000_000 + 2 * (t // 4)
        value, *_ = plain.poll(t, register, 1800.0)
        found, *_ = scaled.poll(t, register, 1800.0 * scale)
        assert math.isclose(found, value * scale - 1000.0, rel_tol=1e-14), t
    assert value != register


def test_a_truncating_meter_is_half_a_step_low_throughout():
    times, true, power = load(1, 20_000_000, 3_000)
    meter = Meter()
    found = [meter.poll(t, wh // 2 * 2, w)[0] - wh for t, wh, w in zip(times, true, power, strict=True)]
    assert abs(np.mean(found[100:]) + 1.0) < 0.1
    assert np.std(found[100:]) < 0.2


usual = st.floats(0, 6)
watts = st.floats(0, 2e4)
samples = st.lists(
    st.tuples(
        st.integers(1, 2_000_000_000) | st.integers(1, 4_000_000_000),  # ns since the poll before
        usual | usual | st.just(0.0) | st.sampled_from([0.0, -1e6, 1e8]),  # what the register rose
        watts | watts | st.floats(-5e4, 5e4) | st.none(),
        st.sampled_from([True, True, True, False]),  # whether the total is good
    ),
    min_size=20,
    max_size=60,
)
starts = st.sampled_from([0.5, 2.0**24 - 8, 2.0**24, 3e7, 2.0**27 - 20])


@given(starts, samples)
def test_what_is_published_rounds_to_what_the_meter_shows_and_falls_only_with_it(start, story):
    meter, twin = Meter(), reference.Total(1 / 3600.0, 3 * S)
    time_ns, true, before = 0, start, None
    for elapsed_ns, rise, power, is_good in story:
        time_ns, true = time_ns + elapsed_ns, max(true + rise, 0.5)
        register = nearest(true)
        value, quality, told = meter.poll(time_ns / S, register if is_good else None, power)
        twin.rate(time_ns, power)
        if not is_good:
            assert math.isnan(value)
            continue
        assert (value, quality == UNCERTAIN_SENSOR_NOT_ACCURATE, bool(told)) == twin.total(time_ns, register)
        below, above = (float(np.nextafter(np.float32(register), np.float32(way))) for way in (-math.inf, math.inf))
        assert (below + register) / 2 <= value <= (register + above) / 2
        assert register >= 2**24 or (value, quality) == (register, GOOD)
        assert before is None or register < before[0] or value >= before[1]
        before = register, value


@given(starts, samples, st.lists(st.booleans(), min_size=120, max_size=120))
def test_any_grouping_of_scans_into_turns_and_the_interpreted_kernel_give_the_same(start, story, splits):
    def played(grouped, kernel):
        meter, out, waiting, time_ns, true = Meter((1.0, 1.5)), [], {}, 0, start

        def turn():
            rows = meter.update(*waiting)
            if meter.scans[0] in waiting:
                out.append((float(meter.value[meter.row]), bool(meter.quality[meter.row]), bool(rows)))
            waiting.clear()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "estimate", kernel)
            for k, (elapsed_ns, rise, power, is_total) in enumerate(story):
                time_ns, true = time_ns + elapsed_ns, max(true + rise, 0.5)
                row = meter.row if is_total else meter.rate_row
                scan = meter.scans[0] if is_total else meter.scans[1]
                if scan in waiting or (waiting and not (grouped and splits[k])):
                    turn()
                waiting[scan] = None
                meter.time_ns[scan] = time_ns
                meter.put(row, nearest(true) if is_total else power)
            turn()
        state = [
            getattr(meter.estimates, name) for name in ("_rate", "_shown", "_area", "_before", "_total", "_published")
        ]
        return out, [column.tobytes() for column in state]

    plain = played(False, module.estimate)
    twin, wanted, time_ns, true = reference.Total(1 / 3600.0, 9 * S // 2), [], 0, start
    for elapsed_ns, rise, power, is_total in story:
        time_ns, true = time_ns + elapsed_ns, max(true + rise, 0.5)
        if is_total:
            wanted.append(twin.total(time_ns, nearest(true)))
        else:
            twin.rate(time_ns, power)
    assert plain[0] == wanted
    assert played(True, module.estimate) == plain
    with np.errstate(all="ignore"):
        assert played(True, module.estimate.py_func) == plain


class Link:
    """A link to a meter whose energy rises by half a Wh a second, as float32, until it counts no more."""

    def __init__(self, clock):
        self.clock, self.stands = clock, None
        self.start = 16_777_195.25 - 0.5 * (clock.monotonic_ns() // S)
        self.state, self.counters = "up", LinkCounters()

    async def read(self, unit, block):
        energy = self.start + 0.5 * (self.clock.monotonic_ns() // S) if self.stands is None else self.stands
        return struct.pack(">ff", energy, 1800.0)


@pytest.mark.parametrize("step_s", [0, 3600, -3600])
async def test_the_spool_gets_estimates_and_the_journal_each_change_once(tmp_path, step_s):
    async with polled(tmp_path, ENERGY, POWER, meter=Link) as (seconds, link, spool, journal):
        await seconds(60)
        assert [reason for reason, _ in told(journal)] == ["UncertainSensorNotAccurate"]
        link.clock.offset_ns += step_s * S
        await seconds(30)
        values = [float(frame.value[0]) for frame in spool._frames.values()][-35:]
        assert values[-1] > 2**24 + 20
        assert set(np.diff(values)) == {0.5}
        link.stands = float(np.float32(values[-1]))
        await seconds(60)
        assert [reason for reason, _ in told(journal)] == ["CounterStalled"]
        link.stands = 20_000_000 - 2**23
        await seconds(2)
        assert [reason for reason, _ in told(journal)] == ["CounterReset", "Good"]
        assert spool._frames[max(spool._frames)].value[0] == link.stands


def test_without_a_rate_that_is_read_nothing_is_done():
    for tags in ([build.tag(ENERGY)], [build.tag(replace(ENERGY, rate=None, rate_s=None)), build.tag(POWER)]):
        table = plan(build.gateway([build.device("d", tags), build.device("e", [build.tag(POWER)], unit=2)])).table
        value, quality = np.full(table.n, 3e7), np.zeros(table.n, np.uint32)
        time_ns, ready = np.zeros(len(table.scans), np.int64), np.arange(len(table.scans), dtype=np.int32)
        assert Estimates(table).update(ready, time_ns, value, quality) == []
        assert not quality.any()


def test_an_estimate_goes_on_over_a_reload_that_adds_others():
    times, true, power = load(1, 20_000_000, 800)
    meter, twin = Meter(), Meter()
    other = build.device("e", [build.tag(p) for p in (POWER, ENERGY)], unit=2)
    for k, sample in enumerate(zip(times, map(nearest, true), power, strict=True)):
        if k == 1500:  # its two rows stay the first ones
            table = plan(build.gateway([*meter.table.spec.devices, other])).table
            grown = Estimates(table)
            grown.take_over(meter.estimates)
            meter.table, meter.estimates = table, grown
            meter.value, meter.quality = np.append(meter.value, [0.0] * 2), np.append(meter.quality, [BAD_TIMEOUT] * 2)
            meter.quality = meter.quality.astype(np.uint32)
            meter.time_ns = np.zeros(len(table.scans), np.int64)
        assert meter.poll(*sample) == twin.poll(*sample), k
