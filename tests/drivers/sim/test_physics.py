"""Every point of every profile moves as its plant would, and what belongs together agrees."""

import itertools
import math

import pytest

from drivers import profile as profiles
from drivers.encode import codec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.physics import quantities, texts
from drivers.sim.plants.pipeline import SECTION_M, WAVE_M_S, Pipeline
from drivers.sim.plants.place import World, place_of
from drivers.sim.plants.weather import Weather
from tests.drivers.sim.build import meter, tcp

T0 = 1_760_000_000.0
ELECTRICAL = [
    name
    for name in profiles.names()
    if name.split("_")[0] in ("abb", "camillebauer", "carlogavazzi", "eastron", "janitza", "schneider", "siemens")
]
COUNTING = [name for name in ELECTRICAL if any(point.kind == "counter" for point in profiles.find(name).points)]
USES = ["house", "crane-1", "reefer-2", "pump-1", "traction-feeder", "shore-1", "cable-landing", "points-heating"]
PAIRS = [  # a counter, and the power that it is the integral of
    (("energy_import", "energy_a"), ("power_active_total", "power_active")),
    (("energy_reactive_import",), ("power_reactive_total", "power_reactive")),
    (("energy_apparent_import",), ("power_apparent_total",)),
]
UNITS = {"kW": 1e3, "kvar": 1e3, "kVA": 1e3, "kWh": 1e3, "kvarh": 1e3, "kVAh": 1e3}

# What stands still in a healthy plant although the profile calls it a gauge: settings, identity, counts of parts.
STILL = {
    "carlogavazzi_em24_e1": {"phase_sequence", "hardware_version", "firmware_version", "phase_config", "application",
                             "switch_position"},
    "apc_nmc2": {"faulty_batteries", "batteries", "frequency"},  # whole hertz
    "dynasonics_tfx_ultra": {"negative_total"},
    "endresshauser_proline": {"system_condition", "byte_order", "telegram_delay", "write_protection", "unit_length",
                              *(f"scan_list_{i:02d}" for i in range(16))},
    "honeywell_midas": {"gas_selection"},
    "lufft_ws_umb": {"identification", "cfg_altitude", "cfg_wind_interval", "cfg_heating_mode"},
    "mettler_toledo_ind570": {"byte_order_mode", "capacity", "increment"},
    "msa_ultima_x": {"gas_type_1", "gas_unit_1", "calibration_step"},
    "pemtech_pt495": {"alarm1_level", "alarm1_latching", "alarm2_level", "alarm2_latching"},
    "rinstrum_c500": {"error"},
    "rockwell_1758flo_enron": {f"run{i}_flow_time_prev_{span}" for i in (0, 1) for span in ("day", "hour")},
    "schneider_pm5000": {"serial_number"},
    "sick_flowsic500": {"firmware_version", "serial_number", "counter_resolution"},
    "sick_flowsic600": {"device_type", "control", "serial_number", "software_version", "crc_program", "crc_parameters",
                        "counter_resolution"},
    "victron_gx_battery": {"charge_cycles", *(f"alarm_{what}" for what in (
        "any", "low_voltage", "high_voltage", "low_soc", "low_temperature", "high_temperature", "mid_voltage",
        "fuse_blown"))},
}  # fmt: skip


def values(spec, times, seed=1, only=None):
    """Return what each point, or only some, shows on the wire at each time."""
    found = quantities(World(seed, T0), spec)
    codecs = {
        point.name: codec(point) for point in spec.points if not point.is_text and (only is None or point.name in only)
    }
    return [
        {name: one.served_value(one.encode(found[name].at(t))) for name, one in codecs.items()} for t in times
    ]  # fmt: skip


def base(spec, row, name):
    """Return a value in V, A, W, var, VA, Wh."""
    point = next(point for point in spec.points if point.name == name)
    return row[name] * UNITS.get(point.unit, 1.0)


@pytest.mark.parametrize("name", profiles.names())
def test_every_point_of_a_profile_is_finite_and_every_gauge_moves(name):
    spec = meter(profile=name, points=None, name="meter-1", line="line-a", site="s1", kp_m=15_000)
    rows = values(spec, [T0 + 1.003 * i for i in range(90)])
    for point in spec.points:
        if point.is_text:
            continue
        seen = [row[point.name] for row in rows]
        assert all(value is not None and math.isfinite(value) for value in seen), point.name
        moves = len(set(seen)) > 1
        if point.name in STILL.get(name, ()):
            assert not moves, point.name
        elif point.kind == "gauge":
            assert moves, point.name


@pytest.mark.parametrize("name", profiles.names())
def test_same_seed_and_time_give_the_same_values_in_any_order(name):
    spec = meter(profile=name, name="meter-1", line="line-a", site="s1")
    times = [T0 + 7.0 * i for i in range(12)]
    forward = values(spec, times)
    assert values(spec, times[::-1])[::-1] == forward
    assert values(spec, times, seed=2) != forward


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ELECTRICAL)
def test_an_electricity_meter_agrees_with_itself(name, use):
    spec = meter(profile=name, name=use, line="line-a", site="s1", kp_m=15_000)
    for row in values(spec, [T0 + 11.7 * i for i in range(40)]):
        _check_sums(spec, row)
        _check_triangle(spec, row)
        _check_volts(row)
        if "frequency" in row:
            assert 49.9 <= row["frequency"] <= 50.1


def _check_sums(spec, row):
    for kind in ("power_active", "power_reactive"):
        parts = [f"{kind}_l{i}" for i in (1, 2, 3)]
        if f"{kind}_total" in row and all(part in row for part in parts):
            total = base(spec, row, f"{kind}_total")
            assert sum(base(spec, row, part) for part in parts) == pytest.approx(total, rel=1e-4, abs=2.0)


def _check_triangle(spec, row):
    for end in ("", "_total", "_l1", "_l2", "_l3"):
        p, q, s = (f"power_{kind}{end}" for kind in ("active", "reactive", "apparent"))
        if p in row and q in row and s in row:
            assert math.hypot(base(spec, row, p), base(spec, row, q)) == pytest.approx(base(spec, row, s), rel=1e-4)
        factor = f"power_factor{end}"
        if p in row and s in row and factor in row:
            assert row[factor] == pytest.approx(base(spec, row, p) / base(spec, row, s), abs=0.002)
    for i in (1, 2, 3):
        names = f"voltage_l{i}_n", f"current_l{i}", f"power_active_l{i}", f"power_reactive_l{i}"
        if all(one in row for one in names):
            volts, amps, p, q = (base(spec, row, one) for one in names)
            assert volts * amps == pytest.approx(math.hypot(p, q), rel=1e-3, abs=2.0)


def _check_volts(row):
    phases = [row[f"voltage_l{i}_n"] for i in (1, 2, 3) if f"voltage_l{i}_n" in row]
    for name in ("voltage_avg_ll", "voltage_system"):
        if name in row and len(phases) == 3:
            assert row[name] == pytest.approx(math.sqrt(3) * sum(phases) / 3, rel=1e-5)
    for a, b in ((1, 2), (2, 3), (3, 1)):
        if f"voltage_l{a}_l{b}" in row:
            assert row[f"voltage_l{a}_l{b}"] == pytest.approx(math.sqrt(3) * row[f"voltage_l{a}_n"], rel=0.03)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", COUNTING)
def test_energy_never_falls_and_is_the_integral_of_power(name, use):
    spec = meter(profile=name, name=use, line="line-a", site="s1", kp_m=15_000)
    counters = [point for point in spec.points if point.kind == "counter"]
    powers = {name for _, power in PAIRS for name in power}
    rows = values(spec, [T0 + i for i in range(901)], only=powers | {point.name for point in counters})
    for point in counters:
        seen = [row[point.name] for row in rows]
        assert all(b >= a for a, b in itertools.pairwise(seen)), point.name
    for counter, power in PAIRS:
        point = next((point for point in counters if point.name in counter), None)
        name = next((name for name in power if name in rows[0]), None)
        if point is None or name is None:
            continue
        rates = [max(0.0, base(spec, row, name)) for row in rows]
        grown = base(spec, rows[-1], point.name) - base(spec, rows[0], point.name)
        resolution = abs(point.scale) * UNITS.get(point.unit, 1.0) if "int" in point.type else 0.0
        if point.type == "float32":
            resolution = base(spec, rows[0], point.name) * 2.0**-23
        assert grown == pytest.approx(sum(rates[:-1]) / 3600.0, rel=0.02, abs=2 * resolution + 1.0), point.name


def test_a_crane_lifts_in_megawatts_and_feeds_back():
    spec = meter(profile="siemens_pac2200", name="crane-1")
    powers = [row["power_active_total"] for row in values(spec, [T0 + i for i in range(1200)])]
    assert 1.0e6 < max(powers) < 2.2e6
    assert -1.0e6 < min(powers) < -0.1e6


def test_line_pack_balances():
    """What goes in and does not come out is what the pressure says: V/K' dp/dt, by the wave's own relation."""
    line = Pipeline(World(1, T0), "pipe-a")
    dt, area = 60.0, math.pi / 4 * (1.0668 - 2 * 0.0159) ** 2
    places = [SECTION_M * i / 400 for i in range(401)]

    def packed(t):
        mean = sum(line.pressure(x, t) for x in places) / len(places)
        return mean * 1e5 * area * SECTION_M / (850.0 * WAVE_M_S**2)

    for start in (T0, T0 + 3600, T0 + 9000):
        times = [start + dt * i / 60 for i in range(61)]
        net = sum(line.change(0, t) - line.change(SECTION_M, t) for t in times[:-1]) / 3600.0
        grown = packed(start + dt) - packed(start)
        assert grown == pytest.approx(net, rel=0.05, abs=0.01)


def test_pressure_falls_along_the_line_and_a_wave_takes_its_time():
    line = Pipeline(World(1, T0), "pipe-a")
    assert line.pressure(0, T0) == pytest.approx(43.0, abs=0.3)
    assert line.pressure(SECTION_M, T0) == pytest.approx(6.0, abs=0.3)
    assert line.change(40_000, T0 + 40_000 / WAVE_M_S) == pytest.approx(line.change(0, T0))


def test_two_meters_on_one_line_see_one_flow():
    world = World(1, T0)
    specs = [meter(f"ft-{i}", profile="endresshauser_proline", line="pipe-a", kp_m=100_000) for i in (1, 2)]
    a, b = (quantities(world, spec)["mass_flow"] for spec in specs)
    for i in range(20):
        assert a.at(T0 + i) != b.at(T0 + i)
        assert a.at(T0 + i) == pytest.approx(b.at(T0 + i), rel=0.01)


def test_a_gust_is_the_highest_3_s_mean_of_its_window():
    weather = Weather(World(3, T0), "quay")
    for start in (T0, T0 + 1000.0, T0 + 50.0):
        highest = max(weather.wind(start - 3.0 * i - start % 3.0, 1) for i in range(20))
        assert weather.gust(start, 60.0) == pytest.approx(max(highest, weather.wind(start, 1)))
        assert weather.gust(start, 600.0) >= weather.gust(start, 60.0) >= weather.wind(start, 1)
        assert 0.0 < weather.wind(start) < 75.0


def test_speed_of_sound_of_the_paths_is_that_of_the_gas():
    row = values(meter(profile="sick_flowsic600", line="gas-a"), [T0])[0]
    for i in range(1, 5):
        assert row[f"path{i}_speed_of_sound"] == pytest.approx(row["speed_of_sound"], rel=0.005)
        assert row[f"path{i}_gas_velocity"] == pytest.approx(row["gas_velocity"], rel=0.03)


IN_PLACE = [
    Point("flow_mass", "holding", 0, "float32", unit="kg/s", range=(0.0, 400.0)),
    Point("mystery", "holding", 2, "uint16", scale=0.1),
    Point("pt_secondary_voltage", "holding", 3, "float32", unit="V", range=(0.0, 150.0)),
    Point("oil_temperature", "holding", 5, "int8_low", unit="degC"),
    Point("steam", "holding", 6, "float32", unit="kPa"),
    Point("big_power", "holding", 8, "int16", unit="W"),
    Point("frobnication", "holding", 9, "float16", unit="furlong"),
    Point("running", "coil", 0, "bool", kind="state"),
    Point("ambient_f", "holding", 10, "float32", unit="degF"),
    Point("total", "holding", 12, "uint16", unit="m3", kind="counter"),
]


def test_points_in_place_get_a_plausible_moving_value():
    spec = MeterSpec("thing", tcp(), 1, "", tuple(IN_PLACE))
    rows = values(spec, [T0 + i for i in range(60)])
    for point in IN_PLACE:
        seen = [row[point.name] for row in rows]
        low, high = point.range or codec(point).bounds
        assert all(low <= value <= high for value in seen), point.name
        if point.kind == "gauge":
            assert len(set(seen)) > 2, point.name
            assert seen.count(max(seen)) < 40, point.name  # not stuck at an end
    assert rows[0]["running"] == 1.0


def test_strings_say_who_made_the_meter():
    spec = meter(profile="schneider_pm5000", name="pm-1")
    said = texts(World(1, T0), spec)
    assert said["meter_model"] == "SCHNEIDER_PM5000"
    assert said["manufacturer"]


@pytest.mark.parametrize(("name", "wanted"), [("hut-12", True), ("fibre-hut", True), ("shutdown-valve", False)])
def test_only_whole_beginnings_of_words_count(name, wanted):
    assert place_of(World(1, T0), meter(name)).is_called(("hut",)) is wanted


def test_words_of_name_and_asset_tell_the_use():
    spec = meter("pm-7", asset="Crane-3")
    assert "crane" in place_of(World(1, T0), spec).words
