"""Thirty days of the simulated corridor: what the detectors cry without cause, and what they find."""

import pytest

from gateway.demo.month import FAULTS, month
from tests.benchmarks import month as judged

MISSED: dict[str, list[str]] = {}
PER_WEEK = 1.0  # needless alarms of a site


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_operations_are_no_alarms(tmp_path, name):
    (site,) = (one for one in month(tmp_path) if one.name == name)
    cries = [cry for cry in judged.judge(site, injected=False) if judged.is_statistic(cry)]
    assert len(cries) <= PER_WEEK * judged.WEEKS, cries


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_every_kind_of_anomaly_is_found(tmp_path, name):
    (site,) = (one for one in month(tmp_path) if one.name == name)
    cries = judged.judge(site, injected=True)
    missed = [fault.name for fault, cry, _ in judged.found_after(site, cries) if cry is None]
    assert missed == MISSED.get(name, [])


def test_half_a_day_of_a_site_without_a_needless_alarm(tmp_path):
    (site,) = (one for one in month(tmp_path) if one.name == "cable1")
    assert [cry for cry in judged.judge(site, injected=False, days=0.5) if judged.is_statistic(cry)] == []
