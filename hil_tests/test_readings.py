"""Every tag of the bench arrives with the right value: every type, word order and scale, over every kind of link."""

from __future__ import annotations

import math
import statistics
import time

from drivers.quality import BAD
from hil_tests.bench import Bench
from hil_tests.conftest import Record
from hil_tests.rig import CannotDo
from tests.processes import until

# No value equals itself with bytes or words exchanged, nor with its scale forgotten; all are what the wire can carry.
LIVE_NS = 2_000_000_000  # two periods of the slowest device

VALUES = {
    ("ft-101", "mass_flow"): 241.7,
    ("ft-101", "density"): 861.2,
    ("ft-101", "volume_flow"): -1234.5,
    ("ft-101", "viscosity"): 1.2e-05,
    ("ft-101", "mass_total"): 123456789.015625,
    ("ft-101", "pulses"): 4294967303.0,
    ("ft-101", "net_total"): -12345678.901,
    ("tt-102", "temperature"): -40.1,
    ("tt-102", "pressure"): 101.32,
    ("tt-102", "level"): -37.5,
    ("tt-102", "offset_low"): -5.0,
    ("tt-102", "offset_high"): 100.0,
    ("tt-102", "half"): 0.333251953125,
    ("xt-103", "running"): 1.0,
    ("xt-103", "tripped"): 0.0,
    ("xt-103", "ready"): 1.0,
    ("xt-103", "speed"): -1499.99,
    ("xt-103", "alarms"): 2147483649.0,
    ("em-202", "tension"): -123456.7,
    ("em-202", "current"): 4000000.001,
    ("em-203", "energy"): 12345678.9,
    ("em-203", "cos_phi"): -0.999,
}


def pin_all(bench: Bench) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the lowest and highest right value of every tag: pinned to one of its own, or as the bench file says."""
    wanted = {}
    for i, device in enumerate(bench.devices()):
        for k, tag in enumerate(device.spec.tags):
            name = device.spec.name, tag.name
            value = VALUES.get(name, 100.0 * (i + 1) + k + 0.5)
            try:
                bench.value(*name, value)
                wanted[name] = value, value
            except CannotDo:
                wanted[name] = bench.file.expect.get(name[0], {}).get(name[1], (-math.inf, math.inf))
    return wanted


def test_every_tag_arrives_with_the_value_that_its_meter_shows(bench: Bench, record: Record) -> None:
    wanted = pin_all(bench)
    began = time.time_ns()
    bench.gateway.start()
    watch, faulty = bench.watch, bench.rig.faulty()
    until(lambda: wanted.keys() <= {(s.device, s.tag) for s in watch.samples}, "a value of every tag")
    until(lambda: len(watch.frames) > 100, "a hundred frames")
    for s in watch.samples:
        low, high = wanted[s.device, s.tag]
        assert low <= s.value <= high, s
    assert not [e for e in watch.events if e["kind"] == "quality" and e["quality"] & BAD and e["device"] not in faulty]
    assert {d["name"]: {t["name"] for t in d["tags"]} for d in watch.leaves["catalog"]["devices"]} == {
        d.spec.name: {tag.name for tag in d.spec.tags} for d in bench.devices()
    }
    record("start_to_first_value_s", (watch.samples[0].arrived_ns - began) / 1e9, unit="s", limit=2.0)
    # what was read before the broker was there comes from the spool; here it is about what is live
    live_ns = watch.samples[0].arrived_ns
    until(lambda: watch.samples[-1].time_ns > live_ns + LIVE_NS, "live values")
    delays_ms = sorted({(s.arrived_ns - s.time_ns) / 1e6 for s in watch.samples if s.time_ns > live_ns})
    record("end_to_end_ms", statistics.median(delays_ms), unit="ms", limit=50.0)
    record("end_to_end_p95_ms", delays_ms[int(0.95 * len(delays_ms))], unit="ms", limit=250.0)


def test_a_value_that_changes_arrives_once_it_has_changed_and_never_changes_back(bench: Bench, record: Record) -> None:
    device, tag = "ft-101", "mass_flow"
    bench.value(device, tag, 1.5)
    bench.gateway.start()
    watch = bench.watch
    delays_ms = []
    for value in (1.5, -3.5, 0.0, 7.25):
        mark, began_ns = len(watch.samples), time.time_ns()
        bench.value(device, tag, value)
        until(lambda mark=mark, value=value: value in watch.values(device, tag, mark), f"{value}")
        found = next(s for s in watch.samples[mark:] if (s.device, s.tag, s.value) == (device, tag, value))
        delays_ms.append((found.arrived_ns - began_ns) / 1e6)
    seen = watch.values(device, tag)
    changes = [b for a, b in zip([None, *seen], seen, strict=False) if a != b]
    assert changes == [1.5, -3.5, 0.0, 7.25]
    record("change_to_broker_ms", max(delays_ms[1:]), unit="ms", limit=1000 * bench.device(device).period_s + 100)
