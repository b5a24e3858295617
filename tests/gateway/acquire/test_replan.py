"""A changed plan: what is polled as before keeps numbers, rows, image, grid and what it taught; the rest is new."""

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pytest

from drivers.link import LinkSpec
from drivers.points import Hole, Point
from gateway.acquire.acquisition import Acquisition
from gateway.acquire.memory import Learnt, Memory
from gateway.acquire.plan import plan
from gateway.acquire.poll import Poller
from gateway.acquire.replan import replan
from gateway.model.change import changes, kept_devices, kept_links, refusals
from tests.gateway import build
from tests.gateway.acquire.test_poll import Bus, Tray
from tests.gateway.clock import FakeClock

SECOND = 1_000_000_000


def device(name, *, link="bus0", unit=1, period_s=1.0, n=3, limit=build.NAN, **fields):
    limits = (build.NAN, build.NAN, limit, build.NAN)
    tags = [build.tag(p, period_s=period_s, limits=limits) for p in build.registers(n)]
    return build.device(name, tags, link=link, unit=unit, **fields)


def spec(*devices, **links):
    """Return a specification with fresh NaNs, as each file has; links: name -> time-out."""
    made = [LinkSpec(name, "tcp", "10.0.0.1", 502 + i, timeout_s=s) for i, (name, s) in enumerate(links.items())]
    return build.gateway(list(devices), links=made or [LinkSpec("bus0", "tcp", "10.0.0.1", 502)])


def after(before, changed):
    return replan(before, changed, before.memory.preview(changed))


def columns_of(table, rows):
    return [
        (table.tags[row].name, int(table.decode.at[row]), int(table.scan_of[row]), int(table.device_of[row]))
        for row in rows
    ]


def test_what_stays_keeps_its_numbers_and_what_goes_leaves_them_unused():
    a, b, c = (device(name, unit=i + 1) for i, name in enumerate("abc"))
    before = plan(spec(a, b, c))
    made = after(before, spec(device("new", unit=9), c, replace(b, max_gap=2), a))
    assert [one.device.name for one in made.devices] == ["new", "c", "b", "a"]
    assert [one.number for one in made.devices] == [3, 2, 4, 0]
    assert (made.devices[1], made.devices[3]) == (before.devices[2], before.devices[0])
    assert made.table.gone == {1}
    old = range(before.table.n)
    assert columns_of(made.table, old) == columns_of(before.table, old)
    assert made.table.scans[: len(before.table.scans)] == before.table.scans
    assert {scan.device for scan in made.table.live} == {0, 2, 3, 4}
    assert made.table.image_bytes > before.table.image_bytes
    again = after(made, spec(a, c))
    assert again.table.gone == {1, 3, 4}
    assert again.table.n == made.table.n


def test_settings_of_a_tag_change_in_place_and_polls_do_not_notice():
    before = plan(spec(device("a", asset="x"), device("b", unit=2)))
    changed = spec(device("a", asset="y", limit=5.0), device("b", unit=2))
    made = after(before, changed)
    assert made.devices == before.devices
    assert np.array_equal(made.table.limit[:3, 2], [5.0] * 3)
    assert np.isnan(made.table.limit[3:]).all()
    assert made.table.devices[0].asset == "y"
    assert changes(before.spec, changed) == ["device 'a': settings (asset, v0, v1, v2)"]


def test_a_device_of_a_link_that_is_opened_anew_is_polled_anew():
    devices = device("a", link="l1"), device("b", link="l2")
    before = plan(spec(*devices, l1=1.0, l2=1.0))
    changed = spec(*devices, l1=1.0, l2=2.0)
    made = after(before, changed)
    assert [one.number for one in made.devices] == [0, 2]
    assert (kept_links(before.spec, changed), kept_devices(before.spec, changed)) == ({"l1"}, {"a"})
    told = ["link 'l2': opened anew (timeout_s)", "device 'b': polled anew (its link)"]
    assert changes(before.spec, changed) == told


def test_nothing_differs_of_the_same_file_read_twice():
    assert changes(spec(device("a")), spec(device("a"))) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": 7}, "unit"),
        ({"period_s": 2.0}, "period_s"),
        ({"n": 2}, "tags, points"),
        ({"max_registers": 10}, "max_registers"),
        ({"strings": (Point("serial", "holding", 90, "string16"),)}, "strings"),
    ],
)
def test_what_a_poll_depends_on_is_polled_anew(change, words):
    found = changes(spec(device("a")), spec(device("a", **change)))
    (line,) = found
    assert line.startswith("device 'a': polled anew (")
    assert set(line[25:-1].split(", ")) == set(words.split(", "))


def test_the_identity_of_a_gateway_needs_a_restart():
    before = spec(device("a"))
    assert refusals(before, before) == []
    wrong = replace(before, id="gw2", spool_max_bytes=5_000_000, corridor="other")
    assert refusals(before, wrong) == [
        "gateway: id: got 'gw2', runs with 'gw1': needs a restart",
        "gateway: corridor: got 'other', runs with 'link43': needs a restart",
    ]


def test_a_new_device_finds_the_largest_gap_of_its_link():
    before = plan(spec(*(device(name, unit=i + 1) for i, name in enumerate("abcd"))))
    assert sorted(scan.phase_s for scan in before.table.scans) == [0.0, 0.25, 0.5, 0.75]
    four = before.spec.devices
    made = after(before, spec(*four, device("new", unit=9)))
    assert made.table.scans[4].phase_s in (0.125, 0.375, 0.625, 0.875)
    slow = device("slow", unit=10, period_s=1.0)
    slow = replace(slow, tags=(*slow.tags[:2], replace(slow.tags[2], period_s=60.0)))
    made = after(made, spec(*four, device("new", unit=9), slow))
    fast, rare = made.table.scans[5:]
    assert fast.phase_s not in {scan.phase_s for scan in made.table.scans[:5]}
    assert (rare.phase_s - fast.phase_s) % 1.0 == pytest.approx(0.0, abs=1e-9)  # slow scans fall on fast ones


def test_what_a_meter_taught_stays_with_the_meter(tmp_path):
    one, other = device("a"), device("b", unit=2)
    memory = Memory(spec(one, other), tmp_path)
    before = plan(spec(one, other), memory)
    known = Learnt((Hole("holding", 1, 1),))
    for name in "ab":
        memory.keep(name, known)
    changed = spec(device("a", period_s=2.0), device("b", unit=3))
    preview = memory.preview(changed)
    made = replan(before, changed, preview)
    assert [device.learnt for device in made.devices] == [known, Learnt()]  # unit 3 is another meter
    assert [device.learnt for device in before.devices] == [known, known]
    memory.turn_to(preview)
    for each in made.devices:
        each.adopt(memory)
    more = Learnt((Hole("holding", 1, 2),))
    made.devices[0].learn(more)
    assert (memory.of("a"), made.devices[0].learnt, memory.of("b")) == (more, more, Learnt())
    memory.commit()
    assert Memory(changed, tmp_path).of("a") == more


async def test_a_poller_takes_other_devices_between_two_polls_and_the_others_keep_their_grid():
    clock = FakeClock()
    before = plan(spec(device("a"), device("b", unit=2)))
    bus, tray = Bus(clock), Tray()
    poller = Poller(bus, before.devices, (), tray, clock)
    origin_ns = clock.monotonic_ns()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(poller.run(origin_ns))
        await clock.advance(10.001)  # in the middle of a poll of a
        assert not poller.is_asleep
        changed = spec(device("a"), device("new", unit=3, period_s=0.25))
        made = after(before, changed)
        poller.turn_to(made.of_link("bus0"), ())
        await clock.advance(10)
        task.cancel()
    due = {n: [d for number, d, *_ in tray.frames if number == n] for n in (0, 1, 2)}
    assert {b - a for a, b in itertools.pairwise(due[0])} == {SECOND}
    assert len(due[0]) == 20
    assert len(due[1]) == 10
    assert {b - a for a, b in itertools.pairwise(due[2])} == {SECOND // 4}
    assert len(due[2]) in (40, 41)
    assert (poller.counters.skipped, poller.counters.late) == (0, 0)


async def test_a_poller_that_sleeps_is_woken_for_a_faster_device():
    clock = FakeClock()
    before = plan(spec(device("a", period_s=600.0)))
    acquisition = Acquisition(before, clock)
    acquisition.links["bus0"] = acquisition.pollers["bus0"].link = bus = Bus(clock)
    tray = Tray()
    async with asyncio.TaskGroup() as tasks:
        acquisition.start(tasks)
        acquisition.feed(tray)
        await clock.advance(100)
        assert len(tray.frames) == 1
        acquisition.turn_to(after(before, spec(device("a", period_s=600.0), device("b", unit=2, period_s=1.0))))
        await acquisition.settle()
        await clock.advance(10)
        await acquisition.stop()
    assert bus.asked[2] in (10, 11)
    assert [number for number, *_ in tray.frames].count(0) == 1


async def test_a_link_without_devices_is_given_back_and_its_polls_stay_counted():
    clock = FakeClock()
    devices = device("a", link="l1"), device("b", link="l2")
    before = plan(spec(*devices, l1=1.0, l2=1.0))
    acquisition = Acquisition(before, clock)
    for name in ("l1", "l2"):
        acquisition.links[name] = acquisition.pollers[name].link = Bus(clock)
    async with asyncio.TaskGroup() as tasks:
        acquisition.start(tasks)
        acquisition.feed(Tray())
        await clock.advance(10.525)  # START_DELAY_S and the phase of b: in the middle of its poll
        assert acquisition.polls["l2"].due == acquisition.polls["l2"].done + 1
        made = after(before, spec(devices[0], l1=1.0))
        acquisition.turn_to(made)
        await acquisition.settle()
        done = acquisition.polls["l2"].done
        await clock.advance(9.475)
        assert list(acquisition.links) == list(acquisition.pollers) == ["l1"]
        counted = acquisition.polls["l2"]
        assert (counted.due, counted.done) == (counted.done + counted.skipped, done)
        await acquisition.stop()
    assert acquisition.polls["l1"].done == 20
