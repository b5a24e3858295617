"""A reading that cannot be used never looks like a value: an event names why, the field is absent, and it recovers."""

from __future__ import annotations

from typing import Any

from drivers.quality import BAD, name_of
from hil_tests.bench import Bench
from tests.processes import until


def bad_then_good(bench: Bench, device: str, tag: str, since: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the first event that says bad and the one that says good again, once both are there."""
    events = bench.watch.qualities(device, tag, since)
    bad = next((e for e in events if e["quality"] & BAD), None)
    good = next((e for e in events if bad and e["seq"] > bad["seq"] and not e["quality"]), None)
    return (bad, good) if bad and good else None


def assert_absent_between(bench: Bench, device: str, tag: str, bad: dict[str, Any], good: dict[str, Any]) -> None:
    """No frame from the bad one to the good one holds the tag, and the good one does."""
    frames = {s.seq for s in bench.watch.samples if (s.device, s.tag) == (device, tag)}
    assert not [seq for seq in frames if bad["seq"] <= seq < good["seq"]]
    until(
        lambda: good["seq"] in {s.seq for s in bench.watch.samples if (s.device, s.tag) == (device, tag)},
        "the value of the frame that was good again",
    )


# device, tag, a tag of the same block, and the registers of "not available"
ABSENT = [("ft-101", "density", "mass_flow", "00007fc0"), ("tt-102", "temperature", "pressure", "7fff")]


def test_nan_and_sentinel_are_bad_sensor_failure_without_a_field(bench: Bench) -> None:
    watch = bench.watch
    for device, tag, neighbour, _ in ABSENT:
        bench.value(device, tag, 12.5)
        bench.value(device, neighbour, 33.25)
    bench.gateway.start()
    for device, tag, *_ in ABSENT:
        until(lambda d=device, t=tag: 12.5 in watch.values(d, t), f"a first value of {device}")
        bench.value(device, tag, None)
    for device, tag, neighbour, raw in ABSENT:
        bad = until(lambda d=device, t=tag: watch.qualities(d, t), f"a quality event of {device}")[0]
        assert (name_of(bad["quality"]), bad["reason"], bad["value"]) == ("BadSensorFailure", "BadSensorFailure", None)
        assert bad["raw"] == raw
        mark = len(watch.samples)
        until(lambda d=device, n=neighbour, m=mark: len(watch.values(d, n, m)) > 2, "its neighbour in the same block")
        bench.value(device, tag, 14.5)
    for device, tag, neighbour, _ in ABSENT:
        bad, good = until(lambda d=device, t=tag: bad_then_good(bench, d, t, 0), f"the recovery of {device}")
        assert_absent_between(bench, device, tag, bad, good)
        assert set(watch.values(device, tag)) == {12.5, 14.5}
        assert set(watch.values(device, neighbour)) == {33.25}
        assert not watch.qualities(device, neighbour)


def test_an_exception_is_bad_device_failure_and_recovers(bench: Bench) -> None:
    device, tag = "xt-103", "speed"
    bench.scripted(device, "exception")
    bench.value(device, tag, 1480.25)
    bench.gateway.start()
    watch = bench.watch
    until(lambda: watch.values(device, tag), "a first value")
    bad, good = until(lambda: bad_then_good(bench, device, tag, 0), "an exception and its end")
    assert name_of(bad["quality"]) == "BadDeviceFailure"
    assert_absent_between(bench, device, tag, bad, good)
    assert set(watch.values(device, tag)) == {1480.25}
    assert not watch.alarm_events(device, "communication:raise")  # it did answer


SILENT = ["em-201", "st-301"]  # one of two units of a bus, which is then probed at its back-off; one of its own


def test_silence_is_bad_timeout_then_an_alarm_and_recovers(bench: Bench) -> None:
    watch = bench.watch
    tags = {device: bench.device(device).spec.tags[0].name for device in SILENT if device in bench.names}
    bench.gateway.start()
    for device, tag in tags.items():
        until(lambda d=device, t=tag: watch.values(d, t), f"a first value of {device}")
        bench.device(device).silence()
    for device, tag in tags.items():
        bad = until(lambda d=device, t=tag: watch.qualities(d, t), f"a quality event of {device}")[0]
        assert name_of(bad["quality"]) == "BadTimeout"
        until(lambda d=device: watch.alarm_events(d, "communication:raise"), f"the alarm of {device}")
        until(lambda d=device: f"{d}//communication" in watch.standing(), f"the standing alarm of {device}")
        assert watch.standing()[f"{device}//communication"]["state"] == "unacked"
        bench.device(device).wake()
    for device, tag in tags.items():
        bad, good = until(lambda d=device, t=tag: bad_then_good(bench, d, t, 0), f"the recovery of {device}")
        assert_absent_between(bench, device, tag, bad, good)
        until(lambda d=device: watch.alarm_events(d, "communication:clear"), f"the end of the alarm of {device}")
        until(lambda d=device: watch.standing()[f"{d}//communication"]["state"] == "rtn_unacked", "an alarm to be seen")


def test_noise_on_the_bus_is_never_a_value(bench: Bench) -> None:
    device = "em-203"
    bench.scripted(device, "garbage")
    bench.value(device, "energy", 12345678.9)
    bench.value(device, "cos_phi", -0.999)
    bench.gateway.start()
    watch = bench.watch
    until(lambda: len(watch.values(device, "energy")) > 10, "ten values through the noise")
    until(lambda: bad_then_good(bench, device, "energy", 0), "noise that was noticed")
    assert set(watch.values(device, "energy")) == {12345678.9}
    assert set(watch.values(device, "cos_phi")) == {-0.999}
