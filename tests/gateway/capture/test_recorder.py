"""When captures are written, what is in them, and what they cost: time, files, bytes, and never the gateway."""

import asyncio
import contextlib
import math
from dataclasses import replace

import pytest

from drivers.blocks import Block
from drivers.errors import LinkDown, NoAnswer, device_exception
from drivers.link import LinkCounters, LinkSpec
from drivers.modbus.link import RING
from drivers.quality import BAD_TIMEOUT
from gateway import app
from gateway.acquire.acquisition import Acquisition
from gateway.acquire.plan import plan
from gateway.capture import recorder
from gateway.capture.file import read
from gateway.capture.recorder import Recorder
from gateway.model.clock import SystemClock
from gateway.replay.capture import first_difference, replay_capture
from gateway.spool.disk import DiskSpool
from gateway.wire.events import Event
from gateway.wire.frame_lines import scan_texts
from tests.gateway import build
from tests.gateway.capture import scenes
from tests.gateway.clock import FakeClock

LINK = LinkSpec("bus0", "tcp", "127.0.0.1", 502)
ASK = (1, Block(3, 0, 1))


class Link:
    """A link that says what a test puts in its ring."""

    def __init__(self):
        from collections import deque

        self.ring = deque(maxlen=RING)
        self.counters = LinkCounters()

    def exchange(self, end=b"\0\1"):
        now = asyncio.get_running_loop().time()
        for kind, what in (("ask", ASK), ("tx", b"\1"), ("rx", b"\2"), ("end", end)):
            self.ring.append((now, kind, what))


class Rig:
    """A recorder of one link, looked at by hand."""

    def __init__(self, folder):
        self.clock, self.link, self.folder = FakeClock(), Link(), folder / "captures"
        self.spec = build.gateway([build.device("m1", [build.tag(p) for p in scenes.POINTS])], links=[LINK])
        self.recorder = Recorder(self.spec, {"bus0": self.link}, self.folder, self.clock)

    async def pass_s(self, seconds):
        """Let time pass in looks, and the disk take what waits."""
        for _ in range(round(seconds / recorder.LOOK_S)):
            self.clock.now_ns += round(recorder.LOOK_S * 1e9)
            self.recorder.look()
        await self.write()

    async def write(self):
        writing = asyncio.ensure_future(self.recorder._write())
        while self.recorder._waiting:
            await asyncio.sleep(0.001)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing

    def kept(self):
        return [read(path) for path in sorted(self.folder.glob("*.jsonl"))]


@pytest.fixture
async def rig(tmp_path):
    return Rig(tmp_path)


def event(kind="quality", quality=BAD_TIMEOUT, reason="x"):
    return Event(0, 1, 1, kind, "m1", "flow", quality, None, reason, "flow: bad")


async def test_a_link_without_faults_leaves_nothing(rig):
    for _ in range(100):
        rig.link.exchange()
        await rig.pass_s(0.1)
    assert not rig.folder.exists()


async def test_a_fault_is_captured_with_what_came_before_and_after(rig):
    for end in (b"\0\1", NoAnswer("silence"), b"\0\2"):
        rig.link.exchange(end)
        await rig.pass_s(1.0)
    await rig.pass_s(1.0)
    rig.link.exchange(b"\0\3")
    await rig.pass_s(1.0)
    (found,) = rig.kept()
    assert found.why == ("timeout: silence",)
    ends = [what for _, kind, what in found.traffic if kind == "end"]
    assert [ends[0], type(ends[1]), ends[2:]] == [b"\0\1", NoAnswer, [b"\0\2"]]
    assert rig.recorder.counters.written == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (lambda rig: rig.link.exchange(device_exception(2)), "exception: exception 2"),
        (lambda rig: rig.link.exchange(LinkDown("gone")), "lost: gone"),
        (lambda rig: rig.link.ring.append((0.0, "down", "reset")), "lost: reset"),
        (lambda rig: setattr(rig.link.counters, "crc_errors", 2), "checksum: 2 frames"),
        (lambda rig: setattr(rig.link.counters, "foreign_frames", 1), "foreign: 1 frames"),
        (lambda rig: setattr(rig.link.counters, "late_frames", 1), "late: 1 frames"),
        (lambda rig: rig.recorder.notice(event()), "quality: m1: flow: bad"),
        (lambda rig: rig.recorder.notice(event("anomaly", 0, "ewma")), "anomaly: m1: flow: bad"),
        (lambda rig: rig.recorder.notice(event("alarm", 0, "high:raise")), "alarm: m1: flow: bad"),
    ],
)
async def test_what_is_worth_a_capture(rig, fault, why):
    rig.link.exchange()
    await rig.pass_s(0.1)
    fault(rig)
    await rig.pass_s(3.0)
    (found,) = rig.kept()
    assert len(found.why) == 1
    assert found.why[0].startswith(why)


async def test_what_is_well_again_is_not(rig):
    rig.link.exchange()
    for one in (event(quality=0), event("alarm", 0, "high:clear"), event("alarm", 0, "high:ack")):
        rig.recorder.notice(one)
    await rig.pass_s(3.0)
    assert not rig.folder.exists()


async def test_faults_that_come_together_are_one_capture(rig):
    rig.link.exchange(NoAnswer("silence"))
    rig.recorder.notice(event())
    await rig.pass_s(1.0)
    rig.link.exchange(device_exception(4))
    await rig.pass_s(3.0)
    (found,) = rig.kept()
    assert [reason.split(":")[0] for reason in found.why] == ["timeout", "quality", "exception"]


async def test_a_dead_device_does_not_write_all_day(rig):
    for _ in range(48 * 60):
        rig.link.exchange(NoAnswer("silence"))
        rig.clock.now_ns += 60 * 10**9
        rig.recorder.look()
        await rig.write()
    n = len(rig.kept())
    assert 8 <= n <= 10  # at 0, 10, 30, 70, 150, 310, 630, 1270 and 2550 minutes
    rig.link.exchange()
    rig.clock.now_ns += 3 * 86_400 * 10**9
    for _ in range(2):
        rig.link.exchange(NoAnswer("again"))
        await rig.pass_s(3.0)
        rig.clock.now_ns += 600 * 10**9
    assert len(rig.kept()) == n + 2


async def test_what_is_at_hand_when_the_gateway_ends_is_written(rig):
    running = asyncio.ensure_future(rig.recorder.run())
    await asyncio.sleep(0)
    rig.link.exchange(NoAnswer("silence"))
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    (found,) = rig.kept()
    assert found.why == ("timeout: silence",)
    assert not list(rig.folder.glob("*.new"))


async def test_captures_lost_because_too_many_come_at_once_are_told(tmp_path, caplog):
    links = [replace(LINK, name=f"l{i}", port=i + 1) for i in range(recorder.MAX_WAITING + 5)]
    devices = [build.device(f"m{i}", [build.tag(scenes.POINTS[0])], link=f"l{i}") for i in range(len(links))]
    found = {link.name: Link() for link in links}
    clock = FakeClock()
    crowd = Recorder(build.gateway(devices, links=links), found, tmp_path, clock)
    for link in found.values():
        link.exchange(NoAnswer("silence"))
    for _ in range(30):
        crowd.look()
        clock.now_ns += round(recorder.LOOK_S * 1e9)
    assert crowd.counters.failed == 5
    assert caplog.text.count("more faults at once") == 1


async def test_a_link_faster_than_the_looks_has_captures_without_holes(rig):
    rig.link.exchange(NoAnswer("silence"))
    await rig.pass_s(0.1)
    for _ in range(RING):
        rig.link.exchange()
    await rig.pass_s(3.0)
    (found,) = rig.kept()
    assert [kind for _, kind, _ in found.traffic] == ["ask", "tx", "rx", "end"]


async def test_a_long_capture_ends(rig):
    rig.link.exchange(NoAnswer("silence"))
    for _ in range(20):
        await rig.pass_s(0.1)
        for _ in range(10):
            rig.link.exchange()
    await rig.pass_s(0.1)
    (found,) = rig.kept()
    assert recorder.AFTER_PIECES <= len(found.traffic) <= recorder.AFTER_PIECES + RING


async def test_the_folder_stays_within_its_bounds(rig, monkeypatch):
    monkeypatch.setattr(recorder, "MAX_FILES", 3)
    monkeypatch.setattr(recorder, "QUIET_S", 0.0)
    for i in range(6):
        rig.link.exchange(NoAnswer(f"n{i}"))
        await rig.pass_s(3.0)
    assert [found.why[0] for found in rig.kept()] == ["timeout: n3", "timeout: n4", "timeout: n5"]
    size = sum(path.stat().st_size for path in rig.folder.iterdir()) / 3
    monkeypatch.setattr(recorder, "MAX_BYTES", round(2.5 * size))
    rig.link.exchange(NoAnswer("n6"))
    await rig.pass_s(3.0)
    assert [found.why[0] for found in rig.kept()] == ["timeout: n5", "timeout: n6"]


async def test_a_disk_that_refuses_is_counted_and_told_once(rig, monkeypatch, caplog):
    monkeypatch.setattr(recorder, "QUIET_S", 0.0)
    rig.folder.write_text("in the way")
    for _ in range(3):
        rig.link.exchange(NoAnswer("silence"))
        await rig.pass_s(3.0)
    assert (rig.recorder.counters.written, rig.recorder.counters.failed) == (0, 3)
    assert caplog.text.count("captures cannot be kept") == 1
    rig.folder.unlink()
    rig.link.exchange(NoAnswer("silence"))
    await rig.pass_s(3.0)
    assert (rig.recorder.counters.written, rig.recorder.counters.failed) == (1, 3)


@pytest.mark.parametrize("name", ["rtu_no_answer", "tcp_nan", "tcp_exception"])
async def test_a_gateway_captures_what_it_published(tmp_path, name):
    """A real gateway, a meter with a fault: its capture replays to the qualities and values of its frames."""
    scene = scenes.SCENES[name]
    points = [p for p in scenes.POINTS if not p.is_bit]
    if name == "tcp_exception":
        points = [replace(points[0], address=900), *points[1:]]
    frames = []
    async with scenes.served(scene) as link:
        devices = [build.device("m1", [build.tag(p, period_s=0.4) for p in points], link="line", unit=1)]
        made, clock = plan(build.gateway(devices, links=[link])), SystemClock()
        acquisition = Acquisition(made, clock)
        gateway = app.Gateway(
            made,
            tmp_path,
            acquisition,
            DiskSpool(tmp_path / "spool", 1_000_000, "c", scan_texts(made.table)),
            clock,
            app.catalog_of(made),
            str,
        )
        append = gateway.spool.append

        def kept(frame):
            tags = made.table.tags[frame.scan.start : frame.scan.stop]
            values = {t.name: v for t, v in zip(tags, zip(frame.value, frame.quality, strict=True), strict=True)}
            frames.append((frame.time_ns, frame.uncertainty_ns, values))
            append(frame)

        gateway.spool.append = kept
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            acquisition.start(tasks)
            tasks.create_task(gateway.run(stop))
            async with asyncio.timeout(30.0):
                while not gateway.recorder.counters.written:
                    await asyncio.sleep(0.05)
            stop.set()
        await acquisition.close()
    (path,) = (tmp_path / "captures").glob("*.jsonl")
    readings = await asyncio.to_thread(replay_capture, read(path))
    assert first_difference(readings) == ""
    compared = 0
    for reading in readings:
        for found in reading.values:
            time_ns, uncertainty_ns, values = min(frames, key=lambda frame: abs(frame[0] - reading.time_ns))
            assert abs(time_ns - reading.time_ns) <= uncertainty_ns + 50_000_000
            value, quality = values[found.tag]
            assert quality == found.quality
            assert value == found.value or (math.isnan(value) and math.isnan(found.value))
            compared += 1
    assert compared >= 6
    assert len({found.quality for reading in readings for found in reading.values}) == 2


async def test_over_a_reload_a_link_that_stays_is_watched_on_and_one_that_goes_is_closed(rig):
    rig.link.exchange(NoAnswer("silence"))
    await rig.pass_s(0.1)
    rig.recorder.turn_to(rig.spec, {"bus0": rig.link})  # nothing of this link changed
    rig.link.exchange(b"\0\7")
    await rig.pass_s(3.0)
    (found,) = rig.kept()
    assert [what for _, kind, what in found.traffic if kind == "end"][1:] == [b"\0\7"]
    rig.link.exchange(LinkDown("gone"))
    await rig.pass_s(0.1)
    other = Link()
    bus1 = replace(LINK, name="bus1", port=503)
    spec = build.gateway([build.device("m2", [build.tag(p) for p in scenes.POINTS], link="bus1")], links=[bus1])
    rig.recorder.turn_to(spec, {"bus1": other})
    await rig.write()
    lost = rig.kept()[-1]
    assert (lost.why, [device.name for device in lost.devices]) == (("lost: gone",), ["m1"])
    rig.recorder.notice(event())  # of a device that is gone: nobody to capture
    other.exchange(NoAnswer("silence"))
    await rig.pass_s(3.0)
    assert rig.kept()[-1].link.name == "bus1"
