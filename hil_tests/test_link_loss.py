"""A link that goes: an alarm, no wrong value, neighbours that do not notice, and back as soon as it is permitted."""

from __future__ import annotations

import contextlib
import time

from drivers.quality import BAD
from hil_tests.bench import Bench, BenchDevice
from hil_tests.conftest import Record
from hil_tests.rig import CannotDo
from hil_tests.watch import Sample
from tests.processes import until

OLD, NEW = 1.5, 8.5  # what its meters show before it is cut, and when it comes back


def test_a_cut_link_is_told_and_comes_back_with_what_is_true_then(bench: Bench, link_name: str, record: Record) -> None:
    watch, link = bench.watch, bench.link(link_name)
    cut_off = {d.spec.name: _gauge(d) for d in bench.devices(link_name)}
    neighbours = {d.spec.name for d in bench.devices()} - cut_off.keys() - bench.rig.faulty()
    can_pin = _pin(bench, cut_off, OLD)
    bench.gateway.start()
    until(lambda: {d.spec.name for d in bench.devices()} <= {s.device for s in watch.samples}, "all devices")

    before = len(watch.events)
    link.cut()
    for device in cut_off:
        until(lambda d=device: watch.alarm_events(d, "communication:raise", before), f"the alarm of {device}")
        until(lambda d=device: f"{d}//communication" in watch.standing(), f"the standing alarm of {device}")
    _pin(bench, cut_off, NEW)
    mark = len(watch.frames)
    until(
        lambda: neighbours <= {f.device for f in watch.frames[mark:]} and len(watch.frames) > mark + 20,
        "more of the neighbours",
    )

    began_ns, restored = time.time_ns(), len(watch.events)
    link.restore()
    for device in cut_off:
        until(lambda d=device: watch.alarm_events(d, "communication:clear", restored), f"the end of {device}'s alarm")
    for device, tag in cut_off.items():
        raised = watch.alarm_events(device, "communication:raise", before)[0]["seq"]
        cleared = watch.alarm_events(device, "communication:clear", restored)[0]["seq"]
        back = until(lambda d=device, t=tag, s=cleared: _first_from(bench, d, t, s), f"a value of {device}")
        held = [s for s in watch.samples if s.device == device and raised <= s.seq < cleared]
        assert not held, "a value of a device that nobody could reach"
        if can_pin:
            seen = watch.values(device, tag)
            assert seen == sorted(seen), f"{device} showed an old value after a new one"
            assert set(seen) == {OLD, NEW}
            assert back.value == NEW
        limit_ms = 1000 * (bench.file.redial_s + 2 * bench.device(device).period_s)
        record(f"{device}_back_after_ms", (back.arrived_ns - began_ns) / 1e6, unit="ms", limit=limit_ms)

    disturbed = [e for e in watch.events if e["device"] in neighbours and e["quality"] & BAD]
    assert not disturbed


def _first_from(bench: Bench, device: str, tag: str, seq: int) -> Sample | None:
    """Return the first value of a tag in a frame from this number on."""
    found = [s for s in bench.watch.samples if (s.device, s.tag) == (device, tag) and s.seq >= seq]
    return min(found, key=lambda s: s.seq, default=None)


def _gauge(device: BenchDevice) -> str:
    return next(tag.name for tag in device.spec.tags if tag.point.kind == "gauge")


def _pin(bench: Bench, tags: dict[str, str], value: float) -> bool:
    """Pin one tag of each device; returns whether this bench can."""
    with contextlib.suppress(CannotDo):
        for device, tag in tags.items():
            bench.value(device, tag, value)
        return True
    return False
