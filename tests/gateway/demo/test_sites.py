"""The demo corridor passes the product's own checks, is healthy until the script says otherwise; the script fits."""

import itertools
import math
import re

import numpy as np
import pytest

from drivers.encode import codec
from drivers.sim.faults import KINDS
from drivers.sim.physics import quantities
from drivers.sim.plants.place import World
from gateway.acquire.plan import plan
from gateway.demo.fleet import meters
from gateway.demo.script import COVERED
from gateway.demo.sites import script, sites, write_sites
from gateway.detect.tags import tags_of
from gateway.model import config
from gateway.replay.judge import Judge, recorded

URL = "mqtt://127.0.0.1:1883"
T0 = 1_760_000_000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def paths(folder):
    ports = itertools.count(20_000)
    return write_sites(folder, URL, lambda: next(ports))


@pytest.fixture(scope="module")
def gateways(paths):
    return [config.load_gateway(path) for path in paths]


@pytest.fixture(scope="module")
def tags(gateways):
    return {
        (device.name, tag.name): tag for gateway in gateways for device in gateway.devices for tag in device.tags
    }  # fmt: skip


def test_every_file_passes_the_check(paths):
    assert len(paths) == 5
    assert [line for path in paths for line in config.check(path)] == []


def test_the_corridor_is_as_large_as_promised(gateways):
    devices = [device for gateway in gateways for device in gateway.devices]
    assert len(devices) >= 60
    assert sum(len(device.tags) for device in devices) >= 900
    link43 = next(gateway for gateway in gateways if gateway.site == "link43")
    assert 380 <= sum(len(device.tags) for device in link43.devices) <= 460


def test_every_device_says_what_it_looks_after_and_where(gateways):
    for gateway in gateways:
        for device in gateway.devices:
            assert device.asset, device.name
            assert device.line, device.name
            assert device.kp_m is not None, device.name


def test_names_are_unique_over_the_whole_corridor(gateways):
    for names in (
        [device.name for gateway in gateways for device in gateway.devices],
        [link.name for gateway in gateways for link in gateway.links],
        [gateway.id for gateway in gateways],
    ):
        assert len(set(names)) == len(names)


def test_all_kinds_of_links_are_there(gateways, folder):
    links = [link for gateway in gateways for link in gateway.links]
    assert {link.transport for link in links} == {"tcp", "rtu+tcp", "rtu"}
    users = [device.link for gateway in gateways for device in gateway.devices]
    assert any(users.count(link.name) > 1 for link in links if link.transport == "tcp")
    buses = [link for link in links if link.transport == "rtu"]
    assert all(users.count(bus.name) >= 2 and bus.path.startswith(str(folder.absolute())) for bus in buses)


def test_the_templates_of_the_domain_are_there(gateways):
    profiles = {device.profile for gateway in gateways for device in gateway.devices}
    assert {
        "endresshauser_proline", "emerson_micromotion_slots", "schneider_pm5000", "pemtech_pt495",
        "emerson_rosemount_2460", "sick_flowsic600", "sick_flowsic500", "janitza_umg96rm_b23",
        "siemens_pac2200", "thies_ultrasonic", "lufft_ws_umb", "diniargeo_dgt4x",
        "mettler_toledo_ind570", "eastron_sdm630", "apc_nmc2", "siemens_sicam_t",
        "lumasense_lumasmart", "victron_gx_battery",
    } <= profiles  # fmt: skip


def test_nothing_is_written_by_asking_for_the_sites(tmp_path):
    ports = itertools.count(20_000)
    found = sites(tmp_path, URL, lambda: next(ports))
    assert [site.path for site in found] == [tmp_path / site.name / "gateway.toml" for site in found]
    assert list(tmp_path.iterdir()) == []


# --- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["ps1", "port1", "rail1", "link43", "cable1"])
def test_a_healthy_corridor_raises_nothing(gateways, site):
    gateway = next(gateway for gateway in gateways if gateway.site == site)
    world, table = World(1, T0), plan(gateway).table
    known = tags_of(table)
    for number, (device, meter) in enumerate(zip(gateway.devices, meters([gateway]), strict=True)):
        found = quantities(world, meter)
        rows = [i for i, of in enumerate(table.device_of) if of == number]
        tags = [table.tags[i] for i in rows]
        period_s = min(tag.period_s for tag in tags)
        times = [T0 + 1.0007 * period_s * i for i in range(int(180 / period_s))]
        shown = [
            [one.served_value(one.encode(found[tag.name].at(t))) for t in times]
            for tag, one in ((tag, codec(tag.point)) for tag in tags)
        ]
        judge = Judge(recorded([(0, len(rows))], [""] * len(rows), known, rows), is_whole=False)
        value = np.array(shown).T.copy()
        for tag, column in zip(tags, value.T, strict=True):
            low_low, low, high, high_high = tag.limits
            beyond = (column < low_low) | (column < low) | (column > high) | (column > high_high)
            assert not beyond.any(), (device.name, tag.name)
        verdicts = judge.rows((np.array(times) * 1e9).astype(np.int64), value, np.isnan(value))
        assert not verdicts.flags.any(), (
            device.name,
            [tags[i].name for i in np.flatnonzero(verdicts.flags.any(axis=0))],
        )


def test_limits_hold_at_every_hour_of_days(gateways):
    specs = {meter.name: meter for meter in meters(gateways)}
    for gateway in gateways:
        world = World(1, T0)
        for device in gateway.devices:
            found = quantities(world, specs[device.name])
            for tag in device.tags:
                if tag.point.kind != "gauge" or all(math.isnan(limit) for limit in tag.limits):
                    continue
                low = max((limit for limit in tag.limits[:2] if not math.isnan(limit)), default=-math.inf)
                high = min((limit for limit in tag.limits[2:] if not math.isnan(limit)), default=math.inf)
                for i in range(48):
                    assert low < found[tag.name].at(T0 + 3607.0 * i) < high, f"{device.name}/{tag.name}"


# --- script -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 20.0, 45.0, 60.0, 90.0, 299.0, 300.0, 600.0, 3600.0, math.inf])
def test_the_script_fits_the_corridor_and_its_time(gateways, seconds):
    faults = script(seconds).faults
    assert script(seconds).check(meters(gateways)) == []
    assert all(fault.start_s >= 25.0 for fault in faults)
    if 0 < seconds < math.inf:
        assert all(fault.start_s + fault.duration_s <= seconds - 8.0 + 1e-9 for fault in faults)
        assert all(fault.every_s is None for fault in faults)
    else:
        assert all(fault.every_s for fault in faults)


def test_a_minute_shows_all_kinds_that_are_covered_and_one_that_is_not():
    faults = script(60.0).faults
    kinds = {fault.kind for fault in faults}
    assert set(COVERED) <= kinds
    assert kinds - set(COVERED) == {"drift"}
    assert set(COVERED) <= set(KINDS)
    longest = {kind: max(fault.duration_s for fault in faults if fault.kind == kind) for kind in kinds}
    assert longest["limit"] >= 8.0
    assert longest["freeze"] >= 25.0
    assert longest["silent"] >= 5.0


def test_longer_runs_show_more_rounds():
    assert len(script(3600.0).faults) == 12 * len(script(60.0).faults)
    assert len({fault.name for fault in script(3600.0).faults}) == len(script(3600.0).faults)


def test_no_tag_is_hit_twice_in_a_round_and_silent_devices_not_at_all():
    faults = script(60.0).faults
    places = [(fault.device, fault.tag) for fault in faults]
    assert len(set(places)) == len(places)
    whole = {fault.device for fault in faults if not fault.tag}
    assert not whole & {fault.device for fault in faults if fault.tag}


def test_every_covered_anomaly_is_on_a_tag_whose_detectors_can_see_it(tags):
    for fault in script(60.0).faults:
        tag = tags.get((fault.device, fault.tag))
        if fault.kind == "limit":
            limit = fault.parameter("value")
            assert "limits" in tag.detect
            assert limit in tag.limits
            assert fault.duration_s >= tag.on_delay_s + 5 * tag.period_s
        elif fault.kind == "spike":
            assert "spike" in tag.detect
            assert fault.duration_s < 6.0  # what stays longer is the process, and not told before a week
        elif fault.kind == "step":
            assert fault.parameter("size") / tag.period_s > tag.rate
        elif fault.kind == "freeze":
            assert "frozen" in tag.detect
            assert fault.duration_s > max(30 * tag.period_s, 20.0) + 2.0
        elif fault.kind == "drift":
            assert "drift" not in COVERED


def test_a_port_that_the_allocator_repeats_is_used_once(tmp_path):
    ports = (20_000 + i // 3 for i in itertools.count())
    texts = "".join(site.text for site in sites(tmp_path, URL, lambda: next(ports)))
    used = re.findall(r"127\.0\.0\.1:(\d+)", texts.replace(URL, ""))
    assert len(used) == len(set(used)) > 40
    with pytest.raises(RuntimeError, match="no new port"):
        sites(tmp_path, URL, lambda: 20_000)
