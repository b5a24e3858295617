"""A history shows what the live simulator shows, value by value, in whatever blocks it is asked."""

import itertools

import numpy as np
import pytest

from drivers import profile as profiles
from drivers.encode import codec
from drivers.points import Point
from drivers.sim.faults import Fault, FaultScript, FaultsError
from drivers.sim.fleet import Fleet
from drivers.sim.history import History
from drivers.sim.physics import quantities
from drivers.sim.plants.place import World
from gateway.demo.fleet import meters as meters_of
from gateway.demo.sites import write_sites
from gateway.model import config
from tests.drivers.sim.build import START_NS, HandClock, gauge, meter, tcp

T0 = START_NS / 1e9
ROWS = [0.0, 0.5, 1.0, 61.0, 600.5, 1800.0, 3601.0, 7333.25, 20_000.0, 100_000.0]


@pytest.fixture(scope="module")
def gateways(tmp_path_factory):
    ports = itertools.count(20_000)
    paths = write_sites(tmp_path_factory.mktemp("demo"), "mqtt://127.0.0.1:1883", lambda: next(ports))
    return {gateway.site: gateway for gateway in map(config.load_gateway, paths)}


def live(fleet, hand, at_s, columns):
    """Return what every column's register says, read from the fleet at one moment."""
    hand.s = at_s
    fleet._advance(fleet._now())
    out = []
    for device, points in itertools.groupby(columns, key=lambda one: one.device):
        found = fleet._devices[device]
        running = [fleet._running[i] for i in found.faults if i in fleet._running]
        kinds = {each.fault.kind for each in running}
        is_mute = bool(kinds & {"silent", "exception", "cut", "refuse"})
        snapshot = fleet._snapshot(found, running, fleet._now())
        for column in points:
            if is_mute:
                out.append(None)
                continue
            one = codec(column.point)
            out.append(one.served_value(one.encode(snapshot(column.point))))
            found.last[column.tag] = out[-1]
    return out


def same(shown, wanted, columns):
    for row, wants in zip(shown.tolist(), wanted, strict=True):
        for value, want, column in zip(row, wants, columns, strict=True):
            assert value == want or (want is None and value != value), (column.device, column.tag)


LARGE = [pytest.param(site, marks=pytest.mark.slow) for site in ("ps1", "port1", "rail1", "link43")]  # over a minute


@pytest.mark.parametrize("operations", [False, True])
@pytest.mark.parametrize("site", ["cable1", *LARGE])
def test_every_point_of_every_site_is_what_the_live_meter_shows(gateways, site, operations):
    meters, hand = meters_of([gateways[site]]), HandClock()
    fleet = Fleet(meters, seed=7, clock=hand.clock(), operations=operations)
    history = History(meters, seed=7, origin_s=T0, operations=operations)
    wanted = [live(fleet, hand, at_s, history.columns) for at_s in ROWS]
    same(history.block(T0 + np.array(ROWS)), wanted, history.columns)


@pytest.mark.parametrize("operations", [False, True])
@pytest.mark.parametrize("name", profiles.names())
def test_a_column_of_any_profile_is_its_value_at_each_time(name, operations):
    spec = meter(profile=name, name="meter-1", line="line-a", site="s1", kp_m=15_000)
    columns = quantities(World(3, T0, operations), spec)
    alone = quantities(World(3, T0, operations), spec)
    times = T0 + np.array([0.0, 3.0, 3.25, 700.0, 2222.0, 2223.0])
    for key, quantity in columns.items():
        shown = np.broadcast_to(quantity.at(times), times.shape).tolist()
        assert shown == [alone[key].at(t) for t in times.tolist()], key


def test_splitting_into_blocks_and_asking_for_some_columns_change_nothing(gateways):
    meters = meters_of([gateways["ps1"]])
    times = T0 + 7.0 * np.arange(1500)
    whole = History(meters, origin_s=T0).block(times)
    split = History(meters, origin_s=T0)
    np.testing.assert_array_equal(np.vstack([split.block(part) for part in np.split(times, [1, 2, 700])]), whole)
    some = [40, 3, 3]
    np.testing.assert_array_equal(split.block(times[900:], some), whole[900:][:, some])
    walked = list(split.blocks(T0, T0 + 7.0 * 1500 - 1.0, 7.0, some))
    np.testing.assert_array_equal(np.concatenate([part for part, _ in walked]), times)
    np.testing.assert_array_equal(np.vstack([values for _, values in walked]), whole[:, some])


X, N = gauge("x", 0, range=(0.0, 400.0), unit="bar"), gauge("n", 2, "uint16", scale=0.1, sentinels=(0xFFFF,))
I = gauge("i", 3, "int16")  # noqa: E741
SCRIPT = FaultScript(
    (
        Fault("freeze", "f", "m1", "x", 10.0, 20.0),
        Fault("step", "s", "m1", "x", 25.0, 20.0, parameters={"size": 5.0}),
        Fault("noise", "no", "m1", "x", 50.0, 20.0, 100.0),
        Fault("spike", "sp", "m1", "n", 12.0, 20.0, parameters={"factor": 3.0, "samples": 2}),
        Fault("limit", "l", "m1", "n", 60.0, 20.0, parameters={"value": 900.0}),
        Fault("stuck_low", "st", "m1", "i", 5.0, 5.0),
        Fault("drift", "d", "m1", "i", 100.0, 60.0, parameters={"per_s": -0.7}),
        Fault("nan", "na", "m1", "", 40.0, 5.0, 60.0),
        Fault("silent", "si", "m1", "", 28.0, 9.0),
        Fault("exception", "e", "m2", "", 90.0, 9.0, parameters={"code": 4.0}),
        Fault("refuse", "r", "m2", "", 110.0, 9.0),
    )
)


@pytest.mark.parametrize(("step_s", "n_blocks"), [(0.5, 11), (1.0, 170), (3.0, 1)])
def test_faults_show_as_they_do_live(step_s, n_blocks):
    link = tcp("shared")
    meters = [meter("m1", link, 1, [X, N, I]), meter("m2", link, 2, [X, N]), meter("m3", points=[X, N])]
    hand = HandClock()
    fleet = Fleet(meters, script=SCRIPT, clock=hand.clock())
    history = History(meters, origin_s=T0, script=SCRIPT)
    times = step_s * np.arange(int(170 / step_s))
    wanted = [live(fleet, hand, at_s, history.columns) for at_s in times.tolist()]
    shown = np.vstack([history.block(T0 + part) for part in np.array_split(times, n_blocks)])
    same(shown, wanted, history.columns)
    assert np.isnan(shown[:, -1]).sum() == 0
    assert np.isnan(shown[:, -2]).sum() == 0
    assert np.isnan(shown[:, 3]).sum() == 18 / step_s


def test_the_truth_says_what_the_script_does():
    history = History([meter("m1", points=[X, N, I]), meter("m2", points=[X])], origin_s=T0, script=SCRIPT)
    found = history.injected(T0 + 151.0)
    assert [(one.kind, (one.start_ns - START_NS) / 1e9) for one in found] == [
        ("stuck_low", 5.0), ("freeze", 10.0), ("spike", 12.0), ("step", 25.0), ("silent", 28.0), ("nan", 40.0),
        ("noise", 50.0), ("limit", 60.0), ("exception", 90.0), ("drift", 100.0), ("nan", 100.0), ("refuse", 110.0),
        ("noise", 150.0),
    ]  # fmt: skip
    assert found[1].end_ns - found[1].start_ns == 20_000_000_000
    with pytest.raises(FaultsError, match="no device"):
        History([meter("m9", points=[X])], origin_s=T0, script=SCRIPT)


TYPES = ["bool", "int8_low", "uint8_high", "int16", "uint16", "int32", "uint32", "int64", "uint64",
         "float16", "float32", "float64", "bitfield16"]  # fmt: skip


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("scale", [1.0, 0.1, 3.7, 1000.0])
@pytest.mark.parametrize("sentinels", [(), (0x7F, 0x7FFF, 0x8000, 0xFFFF, 3)])
def test_a_column_through_the_registers_is_each_value_through_the_registers(type_name, scale, sentinels):
    more = (
        {"bit": 3}
        if type_name == "bool"
        else {"scale": scale, "offset": 0.0 if "float" in type_name else 0.5, "sentinels": sentinels}
    )
    one = codec(Point("x", "holding", 0, type_name, **more))
    random = np.random.default_rng(4)
    values = np.concatenate([random.normal(0, 10.0**e, 200) for e in (-42, -3, 0, 2, 4, 9, 12, 39)])
    values = np.concatenate([values, (np.arange(-40_000, 70_000, 13) * scale) + 0.5, [0.0, -0.0, 1.5, 2.5]])
    wanted = [one.served_value(one.encode(value)) for value in values.tolist()]
    np.testing.assert_array_equal(one.served_column(values), np.array([np.nan if w is None else w for w in wanted]))


def test_what_is_not_finite_is_not_available():
    one = codec(gauge("x", 0))
    np.testing.assert_array_equal(one.served_column(np.array([1.5, np.nan, np.inf])), [1.5, np.nan, np.nan])
