"""Two lanes: live frames at once, the backlog beside them; the cursor moves on PUBACK and on nothing else."""

import asyncio
import contextlib
import itertools

import pytest

from drivers.quality import BAD
from gateway.deliver import publish
from gateway.deliver.publish import Publisher, Resend
from gateway.model.ranges import RangeSet
from gateway.spool.disk import DiskSpool
from gateway.spool.memory import MemorySpool
from gateway.wire.client import MqttError
from gateway.wire.frame_lines import LineWriter
from gateway.wire.lines import parse_header, parse_lines
from gateway.wire.topics import GatewayAddress
from tests.gateway import frames

HERE = GatewayAddress("link43", "ps1", "gw1")


class Broker:
    """Takes what is sent and answers when it is told to."""

    def __init__(self):
        self.sent, self.is_up, self.max_bytes = [], True, 1_000_000

    def room(self, topic):
        return self.max_bytes

    def send(self, topic, payload, acked):
        if not self.is_up:
            raise MqttError("gone")
        self.sent.append((topic, payload, acked))

    def answer(self, code=0, n=None):
        """Acknowledge the first n messages (default: all)."""
        for _, _, acked in self.sent[:n]:
            acked(code)
        del self.sent[:n]

    def seqs(self):
        return [
            s for _, p, _ in self.sent for a, b in parse_header(p).seq + parse_header(p).empty for s in range(a, b + 1)
        ]


class Rig:
    """A publisher between a spool in memory and a broker of paper."""

    def __init__(self):
        self.spool = MemorySpool(10_000_000, "cat1", frames.texts())
        self.publisher = Publisher(HERE, ["d0", "d1", "d2"], self.spool, "cat1")
        self.broker = Broker()
        self.writers = [LineWriter(text) for text in frames.texts()]

    def frame(self, number=0):
        f = frames.frame(self.spool.next_seq, number)
        self.spool.append(f)
        self.publisher.offer(number, f.seq, self.writers[number].line(f.value, f.quality, f.time_ns))
        asyncio.get_running_loop().call_soon(self.publisher.flush)  # at the end of the turn, as the pipeline does
        return f

    @contextlib.asynccontextmanager
    async def session(self):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.publisher.run(self.broker))
            await settle()
            yield self.broker
            task.cancel()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(publish, "REST_S", 0.0)
    monkeypatch.setattr(publish, "REST_PER_FRAME_S", 0.0)
    monkeypatch.setattr(publish, "BOOK_S", 0.0)
    monkeypatch.setattr(publish, "IDLE_S", 0.001)


async def until(look):
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.001)


async def test_a_live_frame_goes_at_once_and_moves_the_cursor_on_its_puback():
    rig = Rig()
    async with rig.session() as broker:
        f = rig.frame()
        await settle()
        ((topic, payload, _),) = broker.sent
        assert topic == HERE.device("d0", "data")
        (line,) = parse_lines(payload)
        assert line.time_ns == f.time_ns
        assert len(line.fields) == int((f.quality & BAD == 0).sum())
        assert not rig.spool.is_acked(1, f.seq)
        broker.answer()
        await settle()
        assert rig.spool.is_acked(1, f.seq)


async def test_after_a_reload_each_device_goes_out_with_the_catalog_that_knows_it():
    rig = Rig()
    async with rig.session() as broker:
        for number in (0, 1):
            rig.frame(number)
        await settle()
        rig.frame(0)
        rig.frame(1)
        rig.publisher.turn_to(["d0", "d1", "d2", "d3"], {1}, "cat2")
        rig.publisher.offer(3, 5, b"meter v=1 1\n")
        broker.answer()
        await until(lambda: len(broker.sent) == 3)
        found = {topic: parse_header(payload).catalog for topic, payload, _ in broker.sent}
    names = {HERE.device(name, "data"): catalog for name, catalog in (("d0", "cat2"), ("d1", "cat1"), ("d3", "cat2"))}
    assert found == names


async def test_one_message_per_device_is_on_its_way_and_the_rest_travels_together():
    rig = Rig()
    async with rig.session() as broker:
        rig.frame(0)
        await settle()
        for _ in range(3):
            rig.frame(0)
        rig.frame(1)
        await settle()
        assert [topic.split("/")[-2] for topic, *_ in broker.sent] == ["d0", "d1"]
        broker.answer()
        await until(lambda: broker.sent)
        assert broker.seqs() == [2, 3, 4]


async def test_what_was_read_while_the_broker_was_away_comes_from_the_spool():
    rig = Rig()
    for i in range(9):
        rig.frame(i % 3)
    async with rig.session() as broker:
        await until(lambda: len(broker.sent) == 8)  # the window of the backlog, one frame a message here
        broker.answer()
        await until(lambda: len(broker.sent) == 1)
        broker.answer()
        assert rig.spool.statistics().unsent == 0


async def test_the_backlog_never_holds_up_a_live_frame():
    rig = Rig()
    for _ in range(50):
        rig.frame(0)
    async with rig.session() as broker:
        await until(lambda: len(broker.sent) == publish.WINDOW_MESSAGES)
        live = rig.frame(1)
        await settle()
        assert live.seq in broker.seqs()


async def test_a_lost_session_sends_again_what_was_not_acknowledged_and_nothing_else():
    rig = Rig()
    async with rig.session() as broker:
        for _ in range(3):
            rig.frame(0)
            await settle()
            broker.answer()
            await settle()
        rig.frame(0)
        rig.frame(1)
        await settle()
        broker.is_up = False
        rig.frame(2)
    rig.broker = Broker()
    async with rig.session() as broker:
        await until(lambda: len(broker.seqs()) == 3)
        assert sorted(broker.seqs()) == [4, 5, 6]


async def test_a_refused_message_is_counted_and_not_sent_again_in_a_hot_loop():
    rig = Rig()
    async with rig.session() as broker:
        f = rig.frame(0)
        await settle()
        broker.answer(0x87)
        for _ in range(30):
            await asyncio.sleep(0.001)
        assert broker.sent == []
        assert rig.publisher.counters.refused == 1
        assert not rig.spool.is_acked(1, f.seq)
        assert rig.spool.statistics().unsent == 1
    rig.broker = Broker()
    async with rig.session() as broker:
        await until(lambda: broker.sent)
        broker.answer()
        await settle()
        assert rig.spool.is_acked(1, f.seq)


async def test_a_lane_that_overflows_leaves_its_oldest_frames_to_the_spool():
    rig = Rig()
    async with rig.session() as broker:
        rig.frame(0)
        await settle()
        for _ in range(publish.LIVE_FRAMES + 5):
            rig.frame(0)
        await until(lambda: len(broker.seqs()) >= 6)
        assert set(broker.seqs()) >= {1, 2, 3, 4, 5, 6}
        await until(lambda: not broker.sent or broker.answer() or rig.spool.statistics().unsent == 0)
        assert rig.spool.statistics().unsent == 0


async def test_a_lane_that_overflows_while_the_spool_is_being_read_loses_nothing():
    rig = Rig()
    look, reading = rig.spool.unsent, asyncio.Event()

    async def slowly(after, want):
        found = await look(after, want)
        reading.set()
        await asyncio.sleep(0.01)  # as long as a thread takes to read a batch
        return found

    async with rig.session() as broker:
        rig.frame(0)
        await settle()
        rig.spool.unsent = slowly
        reading.clear()
        await reading.wait()
        for _ in range(publish.LIVE_FRAMES + 3):
            rig.frame(0)
        await until(lambda: {2, 3, 4} <= set(broker.seqs()))


async def test_a_backlog_that_begins_again_sends_nothing_twice():
    rig = Rig()
    for _ in range(5):
        rig.frame(1)
    async with rig.session() as broker:
        await until(lambda: len(broker.sent) == 5)
        for _ in range(publish.LIVE_FRAMES + 3):
            rig.frame(0)
            await settle()
        await until(lambda: 7 in broker.seqs())
        assert len(broker.seqs()) == len(set(broker.seqs()))


async def test_what_was_acknowledged_last_is_booked_when_the_session_ends(monkeypatch):
    monkeypatch.setattr(publish, "BOOK_S", 60.0)
    rig = Rig()
    async with rig.session() as broker:
        f = rig.frame(0)
        await settle()
        broker.answer()
    assert rig.spool.is_acked(1, f.seq)


async def test_messages_of_both_lanes_fit_a_broker_of_small_packets():
    rig = Rig()
    for _ in range(40):
        rig.frame()
    rig.broker.max_bytes = 1500
    async with rig.session() as broker:
        for _ in range(20):
            rig.frame()
        await settle()
        sizes, seqs = [], []
        async with asyncio.timeout(10):
            while len(set(seqs)) < 60:
                sizes += [len(payload) for _, payload, _ in broker.sent]
                seqs += broker.seqs()
                broker.answer()
                await asyncio.sleep(publish.REST_S)
    assert max(sizes) <= 1500
    assert len(sizes) > 5
    assert rig.spool.statistics().unsent == 0


async def test_what_is_refused_is_parked_and_tried_again_ever_more_rarely_until_it_is_taken(monkeypatch):
    monkeypatch.setattr(publish, "PAUSE_FIRST_S", 0.02)
    rig = Rig()
    for lane in rig.publisher._lanes:
        lane.pause_s = publish.PAUSE_FIRST_S
    loop = asyncio.get_running_loop()
    async with rig.session() as broker:
        tried = []
        rig.frame(0)
        while len(tried) < 4:
            rig.frame(1)
            await until(lambda: broker.sent)
            for topic, payload, acked in broker.sent:
                refused = topic == HERE.device("d0", "data")
                if refused:
                    tried.append(loop.time())
                    assert [s for a, b in parse_header(payload).seq for s in range(a, b + 1)] == [1]
                acked(0x87 if refused else 0)
            broker.sent.clear()
        gaps = [b - a for a, b in itertools.pairwise(tried)]
        assert all(gap >= wanted for gap, wanted in zip(gaps, (0.02, 0.04, 0.08), strict=False)), gaps
        assert (rig.publisher.counters.refused, rig.publisher.counters.parked) == (4, 1)
        assert rig.publisher.refusals == {"d0": 0x87}
        assert next(iter(rig.spool.delivered()[1]))[0] == 2
        await until(lambda: broker.sent)
        broker.answer()
        await until(lambda: not rig.spool.statistics().unsent)
        assert (rig.publisher.counters.parked, rig.publisher.refusals) == (0, {})


async def test_frames_of_a_refused_device_wait_in_the_spool_and_nobody_elses():
    rig = Rig()
    async with rig.session() as broker:
        rig.frame(0)
        await settle()
        broker.answer(0x97)
        for _ in range(5):
            rig.frame(0)
            rig.frame(1)
            await settle()
            broker.answer()
        await settle()
        assert {s for s in range(1, 12) if rig.spool.is_acked(1, s)} == {3, 5, 7, 9, 11}


async def test_what_is_refused_for_long_is_not_read_again_and_again(monkeypatch):
    rig, read = Rig(), []
    for _ in range(100):
        rig.frame(0)
    unsent = rig.spool.unsent

    async def counted(*arguments):
        found = await unsent(*arguments)
        read.extend(found.wanted if found else ())
        return found

    monkeypatch.setattr(rig.spool, "unsent", counted)
    lane = rig.publisher._lanes[0]
    async with rig.session() as broker:
        for _ in range(20):
            lane.pause_s = 0.01
            broker.answer(0x87)
            await until(lambda: lane.opens_at_s)
            for _ in range(3):
                rig.frame(0)
                await settle()
            await until(lambda: not lane.opens_at_s)
            rig.frame(0)
            await until(lambda: broker.sent)
        assert len(read) < 100 + 20 * 4 + 100  # and once more, because of the first pauses
        assert rig.publisher.counters.parked <= rig.spool.statistics().unsent == 180

        async def accepted():
            broker.answer()
            return not rig.spool.statistics().unsent

        async with asyncio.timeout(10):
            while not await accepted():
                await asyncio.sleep(0.001)
        assert rig.publisher.counters.parked == 0


async def test_live_frames_behind_a_refused_message_of_an_earlier_boot_are_not_forgotten(tmp_path):
    rig = Rig()
    before = DiskSpool(tmp_path, 10_000_000, "cat1", frames.texts())
    before.append(frames.frame(1, 0))
    await before.close()
    rig.spool = DiskSpool(tmp_path, 10_000_000, "cat1", frames.texts())
    rig.publisher = Publisher(HERE, ["d0", "d1", "d2"], rig.spool, "cat1")
    rig.publisher._lanes[0].pause_s = 0.01
    async with rig.session() as broker:
        await until(lambda: broker.sent)
        (_, _, refuse) = broker.sent.pop()
        for _ in range(2):
            rig.frame(0)
            await settle()
        await rig.spool.commit()
        refuse(0x87)  # one live frame is on its way, one waits
        while rig.spool.statistics().unsent:
            await until(lambda: broker.sent)
            broker.answer()
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("bytes_per_s", "latency_s", "share"),
    [(2_000, 0.05, 0.7), (20_000, 0.3, 0.7), (256_000, 0.1, 0.7), (1_000_000, 0.01, 0.7)],
)
async def test_the_backlog_uses_a_link_and_leaves_a_live_frame_waiting_no_longer_than_a_moment(
    bytes_per_s, latency_s, share
):
    """A link in virtual time: bytes one after the other, then the way there and back."""
    window = publish._Window()
    now_s, free_s, sent, delivered, waits, under_way = 0.0, 0.0, 0, 0, [], []
    while now_s < 120.0:
        size = window.message_bytes
        try:
            async with asyncio.timeout(0):
                await window.take(size)
        except TimeoutError:
            when_s, since_s, n = under_way.pop(0)
            now_s = when_s
            window.give(n, since_s, when_s)
            delivered += n
            continue
        waits.append((now_s, max(0.0, free_s - now_s)))  # of a live frame that came now
        free_s = max(free_s, now_s) + size / bytes_per_s
        under_way.append((free_s + latency_s, now_s, size))
        sent += size
    settled = sorted(wait_s for at_s, wait_s in waits if at_s > 20.0)
    assert settled[int(0.99 * len(settled))] < 2.0
    assert delivered / 120.0 > share * bytes_per_s


async def test_what_is_asked_for_again_is_sent_and_answered_once_the_broker_has_it():
    rig = Rig()
    done = []
    async with rig.session() as broker:
        for _ in range(6):
            rig.frame(0)
            await settle()
            broker.answer()
            await settle()
        await until(lambda: not rig.spool.statistics().unsent)
        found, gone = rig.spool.reopen(1, RangeSet([(2, 3), (5, 9)]))
        rig.publisher.resend(Resend(1, found, gone, done.append))
        await until(lambda: broker.sent)
        assert broker.seqs() == [2, 3, 5, 6]
        assert done == []
        broker.answer()
        await settle()
        (job,) = done
        assert (list(job.sent), {k: list(v) for k, v in job.gone.items()}) == ([(2, 3), (5, 6)], {"dropped": [(7, 9)]})
        assert not rig.spool.statistics().unsent


async def test_that_nobody_has_subscribed_is_counted():
    rig = Rig()
    async with rig.session() as broker:
        rig.frame(0)
        await settle()
        broker.answer(publish.NO_SUBSCRIBER)
        await until(lambda: not rig.spool.statistics().unsent)
        assert rig.publisher.counters.unheard == 1
