"""What was lost between gateway and store is asked for again, once, by one worker, and not in a hurry."""

from __future__ import annotations

import itertools
import json

import pytest

from gateway.ingest.ledger import Ledger
from gateway.ingest.repair import ALIVE_S, GRACE_S, MAX_FRAMES, MAX_RANGES, PATIENCE_S, Ask, Repair
from gateway.model.ranges import RangeSet
from gateway.wire.events import encode_status
from gateway.wire.ledger import Entry, decode_ledger
from gateway.wire.topics import GatewayAddress

HERE = GatewayAddress("link43", "ps1", "gw")


class Scene:
    """A ledger, a repair and the time."""

    def __init__(self, ident: str = "in-2") -> None:
        self.ledger, self.repair, self.now_s = Ledger(), Repair(ident), 1000.0
        self.repair.meet(HERE)

    def status(self, committed: int, delivered: list[tuple[int, int]], state: str = "online", boot: int = 7) -> None:
        said = encode_status(state, boot, "0", 1, {7: (1, committed)}, {7: delivered})
        self.ledger.note("gw", said)

    def stored(self, *ranges: tuple[int, int]) -> None:
        self.ledger.add([Entry("gw", 7, list(ranges), [])])

    def look(self, after_s: float = GRACE_S, *, is_queue_in: bool = True) -> list[Ask]:
        self.now_s += after_s
        return self.repair.look(self.ledger, self.now_s, is_queue_in=is_queue_in)

    def answer(self, ask: Ask, **fields: object) -> None:
        said = {"id": ask.ident, "ok": True, "sent": list(ask.ranges), "gone": {}, **fields}
        self.repair.answer("gw", json.dumps(said).encode(), self.ledger, self.now_s)


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.stored((1, 10), (16, 20))
    made.status(30, [(1, 24)])
    return made


def test_what_the_broker_has_had_and_stays_missing_is_asked_for(scene: Scene) -> None:
    assert scene.look() == []  # it may be on its way
    (ask,) = scene.look()
    assert (ask.to, ask.boot, list(ask.ranges)) == (HERE, 7, [(11, 15), (21, 24)])
    command = ask.command("in-2", 5)
    assert command == {
        "id": ask.ident, "expires": 5 + 60_000_000_000, "by": "in-2", "boot": 7, "ranges": [(11, 15), (21, 24)],
    }  # fmt: skip


def test_of_a_queue_that_still_comes_in_only_what_others_have_passed_is_asked_for(scene: Scene) -> None:
    scene.look(is_queue_in=False)
    (ask,) = scene.look(is_queue_in=False)
    assert list(ask.ranges) == [(11, 15)]
    said = encode_status("online", 8, "0", 1, {7: (1, 30), 8: (1, 9)}, {7: [(1, 30)], 8: [(1, 9)]})
    scene.ledger.note("gw", said)
    scene.answer(ask)
    scene.stored((11, 15))
    assert [scene.look(is_queue_in=False) for _ in range(3)] == [[], [], []]
    scene.ledger.add([Entry("gw", 8, [(3, 3)], [])])
    scene.look(is_queue_in=False)
    (ask,) = scene.look(is_queue_in=False)
    assert (ask.boot, list(ask.ranges)) == (7, [(21, 30)])
    scene.answer(ask)
    scene.stored((21, 30))
    (ask,) = scene.look(is_queue_in=False)
    assert (ask.boot, list(ask.ranges)) == (8, [(1, 2)])


def test_what_arrives_meanwhile_is_not_asked_for(scene: Scene) -> None:
    scene.look()
    scene.stored((11, 15), (21, 22))
    (ask,) = scene.look()
    assert list(ask.ranges) == [(23, 24)]


def test_one_thing_at_a_time_and_the_next_after_the_answer(scene: Scene) -> None:
    scene.look()
    (ask,) = scene.look()
    assert scene.look() == []
    scene.stored((11, 15))
    scene.answer(ask)
    (other,) = scene.look()
    assert list(other.ranges) == [(21, 24)]
    assert (scene.repair.asked, scene.repair.recovered) == (9 + 4, 9)


def test_who_does_not_answer_is_asked_ever_more_rarely(scene: Scene) -> None:
    scene.look()
    asked_at = []
    while len(asked_at) < 5:
        if scene.look():
            asked_at.append(scene.now_s)
    gaps = [b - a for a, b in itertools.pairwise(asked_at)]
    assert gaps == [PATIENCE_S, 2 * PATIENCE_S, 4 * PATIENCE_S, 8 * PATIENCE_S]


def test_what_is_gone_is_not_asked_for_again(scene: Scene) -> None:
    scene.look()
    (ask,) = scene.look()
    scene.answer(ask, sent=[[11, 13], [21, 24]], gone={"dropped": [[14, 14]], "damaged": [[15, 15]], "else": [[1, 9]]})
    scene.stored((11, 13), (21, 24))
    scene.look()
    assert scene.look() == []
    assert scene.ledger.report()["gateways"][0]["why"] == {"damaged": [(15, 15)], "dropped": [(14, 14)]}


def test_a_refusal_is_no_answer(scene: Scene) -> None:
    scene.look()
    (ask,) = scene.look()
    scene.answer(ask, ok=False)
    assert scene.look() == []  # not before the first one has expired
    assert scene.look(PATIENCE_S)


def test_a_gateway_that_is_away_or_unknown_is_asked_nothing(scene: Scene) -> None:
    scene.status(30, [(1, 24)], "offline")
    scene.look()
    assert scene.look() == []
    scene.status(30, [(1, 24)])
    scene.repair._gateways.clear()
    scene.look()
    assert scene.look() == []


def test_of_workers_that_share_the_first_one_alive_asks(scene: Scene) -> None:
    scene.repair.heard("in-1", scene.now_s)
    scene.repair.heard("in-3", scene.now_s)
    scene.look()
    assert scene.look() == []
    assert scene.look(ALIVE_S)


def test_a_large_gap_is_asked_for_in_parts_that_a_command_can_hold() -> None:
    scene = Scene()
    scene.stored(*((k, k) for k in range(2, 3 * MAX_RANGES, 2)))
    scene.status(10 * MAX_FRAMES, [(1, 10 * MAX_FRAMES)])
    scene.look()
    (ask,) = scene.look()
    assert len(list(ask.ranges)) == MAX_RANGES
    assert len(json.dumps(ask.command("in-2", 1))) < 16_000
    scene.stored((1, 3 * MAX_RANGES))
    scene.answer(ask)
    (ask,) = scene.look()
    assert ask.ranges.total == MAX_FRAMES


@pytest.mark.parametrize(
    ("every", "lost", "wanted", "asked"),
    [(2, 50_000, 10_100, 20_000), (1000, 50_000, 219, 19_200), (1000, 150, 150, 150)],
)
def test_frames_that_are_lost_here_and_there_are_asked_for_with_those_between(
    every: int, lost: int, wanted: int, asked: int
) -> None:
    """n of them in MAX_RANGES ranges are n + (n - MAX_RANGES) * (every - 1) frames, at most MAX_FRAMES in a command."""
    scene, missing = Scene(), RangeSet((k, k) for k in range(1, every * lost + 1, every))
    scene.stored(*missing.missing_from(RangeSet([(1, every * lost)])))
    scene.status(every * lost, [(1, every * lost)])
    scene.look()
    (ask,) = scene.look()
    assert (ask.ranges.common(missing).total, ask.ranges.total) == (wanted, asked)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"id": 1, "sent": 5}', b"\xff"])
def test_a_reply_that_cannot_be_read_is_an_error_and_one_to_somebody_else_is_nothing(
    scene: Scene, payload: bytes
) -> None:
    scene.look()
    (ask,) = scene.look()
    with pytest.raises(ValueError):
        scene.repair.answer("gw", payload.replace(b"1", json.dumps(ask.ident).encode()), scene.ledger, scene.now_s)
    scene.repair.answer("gw", b'{"id": "other", "sent": [[1, 2]]}', scene.ledger, scene.now_s)
    scene.repair.answer("stranger", b'{"id": "other"}', scene.ledger, scene.now_s)
    assert scene.repair.recovered == 0


def test_lost_is_what_two_looks_missed_and_nobody_has_brought_since(scene: Scene) -> None:
    def told() -> list[tuple[int, int]]:
        said = decode_ledger(scene.ledger.encode("in-2", "ingest", 1, scene.repair.lost))
        return said.gateways[0]["lost"]

    scene.look()
    assert told() == []
    scene.repair.heard("in-1", scene.now_s)  # which asks, being the first by name
    assert scene.look() == []
    assert told() == [(11, 15), (21, 24)]
    scene.stored((11, 14))
    assert told() == [(15, 15), (21, 24)]


def test_what_a_gateway_lacks_that_is_away_is_lost_and_not_asked_for_until_it_is_back(scene: Scene) -> None:
    scene.status(30, [(1, 24)], "offline")
    assert [scene.look(), scene.look()] == [[], []]
    assert list(scene.repair.lost["gw", 7]) == [(11, 15), (21, 24)]
    scene.status(30, [(1, 24)])
    assert len(scene.look()) == 1
