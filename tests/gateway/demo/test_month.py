"""The thirty days that detectors are judged by: healthy but for the script, and the script is fair."""

import itertools
import math

import numpy as np
import pytest

from drivers.sim.signals import DAY_S
from gateway.demo.month import DAYS, FAULTS, QUIET_DAYS, month

NAMES = ["ps1", "port1", "rail1", "link43", "cable1"]
KINDS = ["freeze", "spike", "step", "drift", "noise", "stuck_high", "stuck_low", "limit", "nan", "silent", "exception"]


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    return {site.name: site for site in month(tmp_path_factory.mktemp("month"))}


def tags(site):
    return {(device.name, tag.name): tag for device in site.spec.devices for tag in device.tags}


def numbers(history):
    return {(series.device, series.tag): number for number, series in enumerate(history.columns)}


def test_every_site_has_one_fault_of_each_kind_spread_over_the_days_that_follow_the_quiet_ones(sites):
    assert list(sites) == list(FAULTS) == NAMES
    for site in sites.values():
        faults = site.script.faults
        assert sorted(fault.kind for fault in faults) == sorted(KINDS)
        assert site.script.check(site.meters) == []
        assert len({fault.name for fault in faults}) == len(faults)
        begins = sorted(fault.start_s / DAY_S for fault in faults)
        assert begins[0] >= QUIET_DAYS
        assert all(b - a > 0.4 for a, b in itertools.pairwise(begins))
        assert max(fault.start_s + fault.duration_s for fault in faults) < (DAYS - 1) * DAY_S


def test_the_tags_that_are_hit_are_float_gauges_that_move(sites):
    for site in sites.values():
        known = tags(site)
        for fault in site.script.faults:
            if fault.tag:
                point = known[fault.device, fault.tag].point
                assert (point.kind, point.type) == ("gauge", "float32"), fault.name
            if fault.kind == "spike":
                assert fault.duration_s == 3 * known[fault.device, fault.tag].period_s


def test_every_tag_is_polled_at_its_period(sites):
    for site in sites.values():
        history = site.history(injected=False)
        found = site.by_period(history)
        assert sum(map(len, found.values())) == len(tags(site))
        for period_s, columns in found.items():
            for number in columns:
                series = history.columns[number]
                assert tags(site)[series.device, series.tag].period_s == period_s


def moving(history):
    """Return the columns that are no totals: a total is counted from the origin on, which takes its time."""
    return [
        number
        for number, series in enumerate(history.columns)
        if series.kind != "counter" and "total" not in series.tag
    ]


@pytest.mark.parametrize("name", NAMES)
def test_operations_break_no_limit_of_a_gauge_and_nothing_is_missing(sites, name):
    site = sites[name]
    history, known = site.history(injected=False), tags(site)
    only = moving(history)
    for _, values in history.blocks(site.origin_s, site.end_s, 1811.0, only):
        assert np.isfinite(values).all()
        for number, column in zip(only, values.T, strict=True):
            series = history.columns[number]
            tag = known.get((series.device, series.tag))
            if tag and series.kind == "gauge":
                low_low, low, high, high_high = tag.limits
                beyond = (column < low_low) | (column < low) | (column > high) | (column > high_high)
                assert not beyond.any(), (series.device, series.tag)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_injected_shows_then_and_there_and_nowhere_else(sites, name):
    site = sites[name]
    healthy, sick = site.history(injected=False), site.history(injected=True)
    only = moving(healthy)
    assert len(sick.injected(site.end_s)) == len(site.script.faults)
    for fault in sorted(site.script.faults, key=lambda fault: fault.start_s):
        period_s = 5.0 if fault.device == "dts-1" else 10.0 if fault.device in ("ferry-tank", "met-q2") else 1.0
        begin = site.origin_s + fault.start_s - 20 * period_s
        times = begin + period_s * np.arange(math.ceil(min(fault.duration_s, 900.0) / period_s) + 40)
        inside = times - site.origin_s
        inside = (inside >= fault.start_s) & (inside < fault.start_s + fault.duration_s)
        wanted, shown = healthy.block(times, only), sick.block(times, only)
        for number, a, b in zip(only, wanted.T, shown.T, strict=True):
            series = healthy.columns[number]
            differs = (a != b) & ~(np.isnan(a) & np.isnan(b))
            if series.device == fault.device and fault.tag in ("", series.tag):
                assert differs[inside].mean() > 0.9 or series.kind == "state", fault.name
                assert not differs[~inside].any(), fault.name
                assert np.isnan(b[inside]).all() == (fault.kind in ("nan", "silent", "exception"))
            else:
                assert not differs.any(), (series.device, series.tag)


def test_a_drift_is_eight_times_what_its_tag_does_within_a_day(sites):
    for site in sites.values():
        fault = next(fault for fault in site.script.faults if fault.kind == "drift")
        history = site.history(injected=False)
        only = [numbers(history)[fault.device, fault.tag]]
        days = [values for _, values in history.blocks(site.origin_s, site.end_s, 240.0, only)]
        sd = np.vstack(days).reshape(DAYS, -1).std(axis=1)
        assert abs(fault.parameter("per_s")) * DAY_S > 8.0 * np.median(sd), site.name
