"""One turn: payloads in, frames, events, alarms and lines out; bad answers become quality and never numbers."""

import asyncio
import math
import struct
from dataclasses import replace

import pytest

from drivers import quality
from drivers.points import Point
from gateway.acquire.plan import plan
from gateway.acquire.replan import replan
from gateway.alarm.engine import AlarmEngine
from gateway.alarm.journal import Journal
from gateway.detect.bank import Bank
from gateway.detect.tags import tags_of
from gateway.pipeline import Parts, Pipeline
from gateway.spool.memory import MemorySpool
from gateway.wire.frame_lines import scan_texts
from gateway.wire.lines import parse_lines
from tests.gateway import build
from tests.gateway.clock import FakeClock

MS = 1_000_000
POINTS = (
    Point("flow", "holding", 0, "float32", unit="kg/s"),
    Point("level", "holding", 2, "int16", scale=0.1, sentinels=(-9999,), range=(0.0, 50.0)),
    Point("state", "holding", 9, "uint16", kind="state"),
)


class Lane:
    """Takes lines as the publisher does."""

    def __init__(self):
        self.lines = []

    def offer(self, device, seq, line):
        self.lines.append((device, seq, line))

    def flush(self):
        pass


async def taken(pipeline):
    """Wait until every frame went through the kernels."""
    while pipeline._ready:
        await asyncio.sleep(0)


class Rig:
    """A pipeline of two devices with two reads each."""

    def __init__(self, folder, settings=None, *, is_judging=True):
        usual = {"limits": (build.NAN, build.NAN, 100.0, build.NAN), "priority": 2}
        flow = build.tag(POINTS[0], **{**usual, **(settings or {})})
        tags = [flow, build.tag(POINTS[1]), build.tag(POINTS[2])]
        devices = [build.device("a", tags, unit=1), build.device("b", tags, unit=2)]
        made = plan(build.gateway(devices))
        self.made, self.table = made, made.table
        self.reads = {one.number: one.due(one.all_scans).reads for one in made.devices}
        self.clock = FakeClock()
        self.spool = MemorySpool(1_000_000, "c", scan_texts(self.table))
        self.engine, self.journal, self.lane = AlarmEngine(self.table), Journal(folder), Lane()
        self.pipeline = Pipeline(self.table, self.spool, self.engine, self.journal, self.lane, self.clock)
        if is_judging:
            self.pipeline.judge_from_now(Bank(tags_of(self.table)))

    def put(self, number=0, flow=50.0, level=100, state=1, fail=None):
        """One poll of a device; fail: {number of the read: quality}."""
        scan = self.table.scans[number]
        payloads = [struct.pack(">fh", flow, level), struct.pack(">H", state)]
        for k, (read, payload) in enumerate(zip(self.reads[number], payloads, strict=True)):
            if fail and k in fail:
                self.pipeline.fail(read, fail[k])
            else:
                self.pipeline.put(read, payload)
        began = self.clock.monotonic_ns()
        self.clock.now_ns += 10 * MS
        self.pipeline.finish([scan], [began - 3 * MS], began, self.clock.monotonic_ns())

    async def turn(self):
        await taken(self.pipeline)

    def frames(self):
        return list(self.spool._frames.values())

    def events(self):
        out = []
        while event := self.journal.next():
            out.append(event)
            self.journal.sent(event)
        return out


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


async def test_frames_of_one_turn_are_numbered_stamped_and_sent_together(rig):
    rig.put(0, flow=12.5, level=100)
    rig.put(1, flow=13.5, level=101)
    await rig.turn()
    first, second = rig.frames()
    assert (first.seq, second.seq) == (1, 2)
    assert list(first.value) == [12.5, 10.0, 1.0]
    assert first.uncertainty_ns == 5 * MS
    assert first.time_ns - first.due_ns == 8 * MS
    assert [device for device, *_ in rig.lane.lines] == [0, 1]
    (line,) = parse_lines(rig.lane.lines[1][2])
    assert line.fields == {"flow": 13.5, "level": 10.1, "state": 1.0}
    assert line.time_ns == second.time_ns
    assert rig.events() == []  # a first good value is what everybody expects


async def test_a_failed_read_is_bad_alone_and_has_no_field(rig):
    rig.put(fail={1: quality.BAD_CONFIGURATION_ERROR})
    await rig.turn()
    (frame,) = rig.frames()
    assert list(frame.quality) == [0, 0, quality.BAD_CONFIGURATION_ERROR]
    assert math.isnan(frame.value[2])
    assert b"state" not in rig.lane.lines[0][2]
    (event,) = rig.events()
    assert (event.kind, event.tag, event.reason, event.value) == ("quality", "state", "BadConfigurationError", None)
    assert event.raw is None


async def test_a_sentinel_keeps_its_registers_in_the_event(rig):
    rig.put(level=-9999)
    await rig.turn()
    (event,) = rig.events()
    assert (event.tag, event.reason, event.raw) == ("level", "BadSensorFailure", "d8f1")
    rig.put(level=100)
    await rig.turn()
    (event,) = rig.events()
    assert (event.tag, event.reason, event.quality) == ("level", "Good", 0)


async def test_outside_the_range_is_told_and_published_all_the_same(rig):
    rig.put(level=600)
    await rig.turn()
    assert b"level=60" in rig.lane.lines[0][2]
    (event,) = rig.events()
    assert (event.reason, event.value) == ("UncertainEngineeringUnitsExceeded", 60.0)


async def test_nothing_good_makes_a_frame_without_a_line(rig):
    rig.put(fail={0: quality.BAD_TIMEOUT, 1: quality.BAD_TIMEOUT})
    await rig.turn()
    assert rig.lane.lines == [(0, 1, b"")]
    assert rig.spool.next_seq == 2


async def test_a_limit_alarm_is_raised_and_cleared_with_its_frame(rig):
    rig.put(flow=101.0)
    await rig.turn()
    (event,) = rig.events()
    assert (event.kind, event.reason, event.seq, event.value) == ("alarm", "high:raise", 1, 101.0)
    assert [a.key for a in rig.engine.standing()] == ["a/flow/high"]
    rig.put(flow=99.0)
    await rig.turn()
    assert [e.reason for e in rig.events()] == ["high:clear"]
    assert [a.state for a in rig.engine.standing()] == ["rtn_unacked"]


async def test_one_missed_poll_is_noise_two_are_an_alarm_and_an_answer_ends_it(rig):
    both = {0: quality.BAD_TIMEOUT, 1: quality.BAD_TIMEOUT}
    rig.put()
    await rig.turn()
    rig.put(fail=both)
    await rig.turn()
    assert not [e for e in rig.events() if e.kind == "alarm"]
    rig.put(fail=both)
    await rig.turn()
    assert [e.reason for e in rig.events() if e.kind == "alarm"] == ["communication:raise"]
    rig.put(fail=both)
    rig.put(1)
    await rig.turn()
    assert not [e for e in rig.events() if e.kind == "alarm"]
    rig.put()
    await rig.turn()
    assert [e.reason for e in rig.events() if e.kind == "alarm"] == ["communication:clear"]


def test_what_a_reload_leaves_as_it_is_is_kept_once(rig):
    before = rig.pipeline.parts
    after = Parts(plan(rig.made.spec).table, before)
    assert [id(text) for text in after.texts] == [id(text) for text in before.texts]
    assert [id(writer) for writer in after.writers] == [id(writer) for writer in before.writers]


async def test_time_never_goes_back_for_a_tag(rig):
    rig.put()
    await rig.turn()
    rig.clock.offset_ns -= 3_600_000_000_000
    rig.put()
    await rig.turn()
    first, second = rig.frames()
    assert second.time_ns == first.time_ns + MS


async def test_an_old_answer_never_stands_in_for_a_missing_one(rig):
    rig.put(flow=12.5)
    await rig.turn()
    rig.put(fail={0: quality.BAD_TIMEOUT, 1: quality.BAD_TIMEOUT})
    await rig.turn()
    assert all(math.isnan(v) for v in rig.frames()[1].value)


async def test_strings_are_told_once_and_when_they_change(rig):
    told = []
    rig.pipeline.strings_changed = lambda: told.append(dict(rig.pipeline.strings["a"]))
    rig.pipeline.identify(0, "serial", "X1")
    rig.pipeline.identify(0, "serial", "X1")
    rig.pipeline.identify(0, "serial", "X2")
    assert told == [{"serial": "X1"}, {"serial": "X2"}]


async def test_another_model_is_an_event_at_its_time_and_known_until_the_right_one_is_back(rig):
    now_ns = rig.clock.monotonic_ns()
    rig.pipeline.tell(1, "code", quality.BAD_CONFIGURATION_ERROR, "b: code holds 71", now_ns)
    assert rig.pipeline.unexpected == {"b": "b: code holds 71"}
    rig.pipeline.tell(1, "code", quality.GOOD, "b: is the meter", now_ns + MS)
    assert rig.pipeline.unexpected == {}
    found = [(e.time, e.kind, e.device, e.tag, e.reason, e.text) for e in rig.journal._waiting]
    wall_ns = rig.clock.wall_ns(now_ns)
    assert found == [
        (wall_ns, "quality", "b", "code", "BadConfigurationError", "b: code holds 71"),
        (wall_ns + MS, "quality", "b", "code", "Good", "b: is the meter"),
    ]


async def test_what_came_back_to_normal_while_the_gateway_was_away_is_cleared_at_the_first_poll(tmp_path):
    rig = Rig(tmp_path / "1")
    rig.put(flow=120.0)
    await asyncio.sleep(0)
    standing = rig.engine.standing()
    assert [alarm.state for alarm in standing] == ["unacked"]
    again = Rig(tmp_path / "2")
    again.pipeline.resume(standing)
    assert again.engine.standing() == standing
    again.put(flow=50.0)
    await asyncio.sleep(0)
    assert [alarm.state for alarm in again.engine.standing()] == ["rtn_unacked"]
    event = again.journal.next()
    assert (event.reason, event.value) == ("high:clear", 50.0)  # the value then, not that of the raise


@pytest.mark.parametrize("step_s", [3600, -3600])
async def test_a_clock_that_steps_satisfies_no_delay_and_is_no_rate(tmp_path, step_s):
    rig = Rig(tmp_path, {"on_delay_s": 60.0, "rate": 2.0, "detect": ("limits", "rate")})
    for n in range(20):
        rig.clock.now_ns += 990 * MS
        rig.put(flow=110.0 + n)
        await rig.turn()
        if n == 10:
            rig.clock.offset_ns += step_s * 1_000_000_000
    assert rig.events() == []
    assert rig.engine.standing() == []


async def test_an_alarm_that_left_the_configuration_has_a_last_event(tmp_path):
    rig = Rig(tmp_path / "1")
    rig.put(flow=120.0)
    await rig.turn()
    again = Rig(tmp_path / "2", {"limits": (build.NAN,) * 4})
    again.pipeline.resume(rig.engine.standing())
    (event,) = again.events()
    assert (event.kind, event.device, event.tag, event.reason) == ("alarm", "a", "flow", "high:removed")
    assert again.engine.standing() == []


async def test_any_read_fits_the_image_whatever_was_planned(tmp_path):
    """Halves, single tags, merged scans: an answer has its place by its address."""
    points = [*build.registers(6), Point("c", "coil", 3, "bool"), Point("e", "coil", 14, "bool")]
    tags = [build.tag(p, period_s=2.0 if i % 2 else 1.0) for i, p in enumerate(points)]
    made = plan(build.gateway([build.device("a", tags, max_gap=20)]))
    spool = MemorySpool(1_000_000, "c", scan_texts(made.table))
    clock = FakeClock()
    pipeline = Pipeline(made.table, spool, AlarmEngine(made.table), Journal(tmp_path), Lane(), clock)
    (one,) = made.devices
    by_name = {tag.name: row for row, tag in enumerate(made.table.tags)}
    fast, slow = made.table.scans
    merged = one.due(one.all_scans)
    assert [(r.block.function, r.block.start, r.block.count) for r in merged.reads] == [(1, 3, 12), (3, 0, 6)]
    pipeline.put(merged.reads[0], bytes([0b0000_0001, 0b0000_1000]))
    pipeline.put(merged.reads[1], bytes(range(12)))
    pipeline.finish([fast, slow], [0, 0], 0, 10)
    await taken(pipeline)
    value = {name: float(pipeline._value[row]) for name, row in by_name.items()}
    assert value == {**{f"v{i}": float(2 * i * 256 + 2 * i + 1) for i in range(6)}, "c": 1.0, "e": 1.0}
    (alone,) = [r for r in one.due(1).reads if r.block.function == 3]
    assert (alone.block.start, alone.block.count) == (0, 5)
    pipeline.put(alone, bytes(10))
    pipeline.finish([fast], [0], 0, 10)
    await taken(pipeline)
    assert [float(pipeline._value[by_name[f"v{i}"]]) for i in (0, 1, 2, 4)] == [0.0, 515.0, 0.0, 0.0]  # v1 is not due


async def test_what_a_read_failed_is_good_again_once_another_read_brings_it(rig):
    rig.put(fail={0: quality.BAD_TIMEOUT, 1: quality.BAD_CONFIGURATION_ERROR})
    await rig.turn()
    rig.put()
    await rig.turn()
    rig.put(fail={1: quality.BAD_CONFIGURATION_ERROR})
    await rig.turn()
    assert [list(map(bool, frame.quality)) for frame in rig.frames()] == [[True] * 3, [False] * 3, [False, False, True]]


async def test_a_second_answer_in_one_turn_waits_for_the_frame_of_the_first(rig):
    rig.put(flow=1.0)
    rig.put(flow=2.0)
    await rig.turn()
    assert [frame.value[0] for frame in rig.frames()] == [1.0, 2.0]


def told(rig):
    """Return the events in the order of their frames: a late verdict comes behind what was told meanwhile."""
    found = [
        (e.seq, e.time, e.kind, e.device, e.tag, e.reason, e.value, e.quality, e.text, e.raw) for e in rig.events()
    ]
    return sorted(found, key=lambda one: (one[0], one[2], one[4], one[5]))


async def days_work(rig, *, judged_after=None):
    """Limits, spikes, stillness, failures, a sentinel: something for everybody, on two devices."""
    for n in range(120):
        rig.clock.now_ns += 990 * MS
        flow = 50.0 + 0.1 * (n % 7) + (70.0 if 30 <= n < 34 else 0.0)
        fail = {0: quality.BAD_TIMEOUT} if 50 <= n < 53 else None
        rig.put(n % 2, flow=flow, level=-9999 if n == 60 else 100, state=n // 3 % 2, fail=fail)
        await rig.turn()
        if n == judged_after:
            rig.pipeline.judge_from_now(Bank(tags_of(rig.table)))


@pytest.mark.parametrize("judged_after", [0, 31, 51, 60, 119])
async def test_frames_that_came_before_the_detectors_are_judged_as_if_they_had_been_there(tmp_path, judged_after):
    prompt, late = Rig(tmp_path / "1"), Rig(tmp_path / "2", is_judging=False)
    await days_work(prompt)
    await days_work(late, judged_after=judged_after)
    assert late.lane.lines == prompt.lane.lines
    assert told(late) == told(prompt)
    assert late.engine.standing() == prompt.engine.standing()
    assert len(late.pipeline.unjudged) == 0


async def test_a_bad_quality_is_told_at_once_though_the_detectors_are_not_there_yet(tmp_path):
    rig = Rig(tmp_path, is_judging=False)
    rig.put(flow=120.0, level=-9999)
    await rig.turn()
    assert [(e.tag, e.reason) for e in rig.events()] == [("level", "BadSensorFailure")]
    assert len(rig.frames()) == len(rig.pipeline.unjudged) == 1
    assert not rig.pipeline.is_judging


async def test_frames_beyond_what_can_wait_go_unjudged_and_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.pipeline.MAX_UNJUDGED", 30)
    rig = Rig(tmp_path, is_judging=False)
    for n in range(25):
        rig.clock.now_ns += 990 * MS
        rig.put(flow=120.0 if n < 3 else 50.0)
        await rig.turn()
    assert (len(rig.pipeline.unjudged), rig.pipeline.unjudged.dropped) == (10, 15)
    assert len(rig.frames()) == 25
    rig.pipeline.judge_from_now(Bank(tags_of(rig.table)))
    assert rig.engine.standing() == []


class Changing(Rig):
    """A rig whose configuration changes under its pipeline, as app.py does it."""

    def turn_to(self, devices):
        before = self.made
        spec = build.gateway(devices, links=before.spec.links)
        self.made = replan(before, spec, before.memory.preview(spec))
        self.table = self.made.table
        self.reads = {one.number: one.due(one.all_scans).reads for one in self.made.devices}
        parts = Parts(self.table, self.pipeline.parts)
        self.pipeline.settle()
        standing = self.engine.standing()
        self.spool.turn_to("c2", parts.texts, 1_000_000)
        self.engine.turn_to(self.table)
        self.pipeline.turn_to(parts, Bank(tags_of(self.table)))
        self.pipeline.resume(standing)


@pytest.fixture
def changing(tmp_path):
    return Changing(tmp_path)


async def test_a_poll_that_a_reload_meets_half_way_is_one_frame(changing):
    a, b = changing.table.devices
    one, other = changing.reads[1]
    changing.pipeline.put(one, struct.pack(">fh", 12.5, 100))
    changing.put(0)
    changing.turn_to([b])  # a goes, and b has answered one of its two reads
    scan = changing.table.scans[1]
    changing.pipeline.put(other, struct.pack(">H", 7))
    changing.pipeline.finish([scan], [0], 0, MS)
    changing.pipeline.finish([changing.table.scans[0]], [0], 0, MS)  # of a, which was asked before it went
    await changing.turn()
    found = [(frame.scan, frame.seq, list(frame.value)) for frame in changing.frames()]
    assert found == [(0, 1, [50.0, 10.0, 1.0]), (1, 2, [12.5, 10.0, 7.0])]
    assert changing.spool.next_seq == 3
    assert changing.table.gone == {0}
    assert a.name not in {changing.table.devices[s.device].name for s in changing.table.live}


async def test_what_a_gone_device_says_is_not_taken_for_the_new_one_of_its_name(changing):
    a, b = changing.table.devices
    changing.pipeline.identify(0, "serial", "OLD")
    changing.turn_to([replace(a, max_registers=100), b])
    assert changing.pipeline.strings == {}
    changing.pipeline.identify(0, "serial", "OLD")
    changing.pipeline.tell(0, "flow", quality.BAD_CONFIGURATION_ERROR, "another", 0)
    changing.pipeline.identify(2, "serial", "NEW")
    assert changing.pipeline.strings == {"a": {"serial": "NEW"}}
    assert (changing.pipeline.unexpected, changing.events()) == ({}, [])


async def test_time_of_a_tag_goes_on_although_its_device_is_polled_anew(changing):
    a, b = changing.table.devices
    changing.put(0)
    await changing.turn()
    changing.turn_to([b])
    changing.turn_to([a, b])
    changing.clock.offset_ns -= 3_600_000_000_000  # the wall clock was set back meanwhile
    changing.put(2)
    await changing.turn()
    first, second = changing.frames()
    assert (first.scan, second.scan) == (0, 2)
    assert second.time_ns == first.time_ns + MS


async def test_alarms_follow_their_tags_over_a_reload_and_close_with_their_limits(changing):
    a, b = changing.table.devices
    for number in (0, 1):
        changing.put(number, flow=150.0)
    await changing.turn()
    assert [(r.device, r.state) for r in changing.engine.standing()] == [("a", "unacked"), ("b", "unacked")]
    since = {r.device: r.since for r in changing.engine.standing()}
    changing.events()
    plain = replace(b, tags=tuple(replace(t, limits=(build.NAN,) * 4) for t in b.tags))
    changing.turn_to([replace(a, max_registers=100), plain])
    (standing,) = changing.engine.standing()
    assert (standing.device, standing.since) == ("a", since["a"])
    (event,) = changing.events()
    assert (event.device, event.reason) == ("b", "high:removed")
    changing.put(2, flow=150.0)
    changing.put(1, flow=150.0)
    await changing.turn()
    assert [r.device for r in changing.engine.standing()] == ["a"]
    assert changing.events() == []
    changing.put(2, flow=50.0)
    await changing.turn()
    assert [(r.device, r.state) for r in changing.engine.standing()] == [("a", "rtn_unacked")]


async def test_counters_go_on_over_a_reload(tmp_path):
    """A zero right behind it is doubted, as it would have been without."""
    total = Point("total", "holding", 0, "uint32", kind="counter")
    rig = Changing(tmp_path)
    spec = build.gateway([build.device("new", [build.tag(total)], unit=3)], links=rig.made.spec.links)
    rig.turn_to([*rig.table.devices, *spec.devices])
    (read,), scan = rig.reads[2], rig.table.scans[2]
    for value in (1000, 1001):
        rig.pipeline.put(read, struct.pack(">I", value))
        assert not rig.pipeline.doubtful(scan, rig.clock.now_ns).size
        rig.pipeline.finish([scan], [0], rig.clock.now_ns, rig.clock.now_ns)
        rig.clock.now_ns += 1000 * MS
    rig.turn_to([*rig.table.devices[:2], spec.devices[0], build.device("d", [build.tag(POINTS[1])], unit=4)])
    assert (rig.table.scans[2], rig.table.n) == (scan, 8)
    rig.pipeline.put(read, struct.pack(">I", 0))
    assert list(rig.pipeline.doubtful(scan, rig.clock.now_ns)) == [6]
