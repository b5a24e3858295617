"""A link that cannot keep its periods is refused, with a repair that really fits and costs the fewest samples."""

import re
from dataclasses import replace

import pytest

from drivers.link import LinkSpec, SerialLine
from drivers.points import Point
from gateway.acquire.load import load_of
from gateway.acquire.plan import plan
from gateway.acquire.report import report
from tests.gateway import build

RTU = LinkSpec("bus0", "rtu", path="/dev/ttyUSB0", serial=SerialLine(9600, 8, "E", 1), turnaround_s=0.02)


def device(i, n=100, period_s=1.0):
    return build.device(f"d{i}", [build.tag(p, period_s=period_s) for p in build.registers(n)], unit=i)


def errors(devices):
    return plan(build.gateway(devices, links=[RTU])).errors


def repaired(devices, line):
    """Return the devices as the line says."""
    repair = line.split("; ")[1].removesuffix(", or split the link")
    if found := re.fullmatch(r"slow '(\w+)' from ([^t]+) to (.+)", repair):
        name, olds, news = found.groups()
        names, classes = {name}, dict(zip(olds.split(", "), news.split(", "), strict=True))
    elif found := re.fullmatch(r"slow the (.+) tags of '(\w+)' to (.+)", repair):
        names, classes = {found.group(2)}, {found.group(1): found.group(3)}
    elif found := re.fullmatch(r"slow all (.+) tags on it to (.+)", repair):
        names, classes = {d.name for d in devices}, {found.group(1): found.group(2)}
    else:
        factor = float(re.fullmatch(r"slow every device on it by (.+) times", repair).group(1))
        names = {d.name for d in devices}
        classes = {f"{t.period_s:g} s": f"{t.period_s * factor} s" for d in devices for t in d.tags}
    out = []
    for each in devices:
        tags = each.tags
        if each.name in names:
            periods = {float(old[:-2]): float(new[:-2]) for old, new in classes.items()}
            tags = tuple(replace(t, period_s=periods.get(t.period_s, t.period_s)) for t in tags)
        out.append(replace(each, tags=tags))
    return out


def samples_per_s(devices):
    return sum(1 / tag.period_s for each in devices for tag in each.tags)


def test_the_load_is_told_with_the_change_that_loses_the_fewest_samples():
    four = [device(i) for i in range(1, 5)]
    (line,) = errors(four)
    assert line == (
        "link 'bus0': needs 1.09 s of every 1 s, wanted at most 1; slow 'd1' from 1 s to 1.5 s, or split the link"
    )  # 100 / 1 - 100 / 1.5 = 33 samples a second; all four from 1 s to 1.1 s: 36
    assert errors(repaired(four, line)) == ()
    assert report(plan(build.gateway(four, links=[RTU])))["errors"] == [line]


def test_all_devices_are_slowed_a_little_where_no_single_one_has_enough_to_give():
    many = [device(i, 3) for i in range(1, 26)]
    (line,) = errors(many)
    assert "slow all 1 s tags on it to 1.3 s" in line
    assert errors(repaired(many, line)) == ()


def test_a_class_of_a_device_is_slowed_where_that_is_enough():
    fast = [build.tag(p, period_s=0.2) for p in build.registers(4)]
    slow = [build.tag(Point(f"s{i}", "input", i, "uint16"), period_s=1.0) for i in range(100)]
    devices = [build.device("d1", [*fast, *slow]), build.device("d2", slow, unit=2), device(3, 80)]
    (line,) = errors(devices)
    assert "slow the 0.2 s tags of 'd1' to" in line
    assert errors(repaired(devices, line)) == ()


def test_where_nothing_single_helps_everybody_is_slowed():
    devices = [build.device(f"d{i}", [build.tag(p, period_s=i / 100) for p in build.registers(100)]) for i in (1, 2)]
    devices = [replace(each, unit=i) for i, each in enumerate(devices)]
    (line,) = errors(devices)
    assert "slow every device on it by" in line
    assert errors(repaired(devices, line)) == ()


@pytest.mark.parametrize("seed", range(30))
def test_every_repair_that_is_named_fits(seed):
    import random

    rng = random.Random(seed)
    devices = []
    for i in range(1, rng.randint(2, 9)):
        periods = rng.sample([0.1, 0.25, 0.5, 0.7, 1.0, 2.0, 5.0], rng.randint(1, 3))
        points = build.registers(rng.randint(2, 120))
        devices.append(build.device(f"d{i}", [build.tag(p, period_s=rng.choice(periods)) for p in points], unit=i))
    found = errors(devices)
    load = load_of(RTU, plan(build.gateway(devices, links=[RTU])).devices).share
    assert bool(found) == (load > 1)
    if found:
        assert errors(repaired(devices, found[0])) == (), found[0]
