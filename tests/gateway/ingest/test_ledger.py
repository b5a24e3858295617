"""The ledger: what is missing, what is gone, and that it survives."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest import ledger as module
from gateway.ingest.ledger import Ledger
from gateway.ingest.ledger_file import LedgerFile, read_ledger
from gateway.wire.events import encode_status
from gateway.wire.ledger import Entry, GatewayReport


def status(boots: dict[int, tuple[int, int]], boot: int = 7, state: str = "online") -> bytes:
    return encode_status(state, boot, "0", 1, boots)


def stored(*ranges: tuple[int, int], boot: int = 7, parked: tuple[tuple[int, int], ...] = ()) -> Entry:
    return Entry("gw", boot, list(ranges), list(parked))


def row(ledger: Ledger, boot: int = 7) -> GatewayReport:
    return next(each for each in ledger.report()["gateways"] if each["boot"] == boot)


def test_complete_when_all_that_was_committed_is_stored() -> None:
    ledger = Ledger()
    ledger.add([stored((1, 10)), stored((11, 20), parked=((21, 21),))])
    ledger.note("gw", status({7: (1, 21)}))
    assert ledger.report() == {
        "missing": 0,
        "waiting": 0,
        "gone": 0,
        "parked": 1,
        "absent": 0,
        "gateways": [
            {
                "gateway": "gw",
                "boot": 7,
                "complete_to": 21,
                "complete_time": None,
                "missing": [],
                "waiting": [],
                "gone": [],
                "why": {},
                "parked": [(21, 21)],
                "absent": {},
            },
        ],
    }


def test_what_the_spool_still_has_is_missing_and_what_it_dropped_is_gone() -> None:
    ledger = Ledger()
    ledger.add([stored((1, 3), (10, 12), (20, 22))])
    ledger.note("gw", status({7: (8, 30)}))
    assert row(ledger)["gone"] == [(4, 7)]
    assert row(ledger)["missing"] == [(8, 9), (13, 19), (23, 30)]
    assert row(ledger)["complete_to"] == 7
    assert ledger.report()["missing"] == 2 + 7 + 8


def test_frames_of_the_running_boot_that_are_not_committed_yet_may_still_come() -> None:
    ledger = Ledger()
    ledger.add([stored((1, 10), (12, 14))])
    ledger.note("gw", status({7: (1, 9)}))
    assert row(ledger)["missing"] == [(11, 11)]
    ledger.note("gw", status({7: (1, 9)}, boot=8))  # restarted: never committed, so never to come
    assert row(ledger)["missing"] == []
    assert row(ledger)["gone"] == [(11, 11)]
    assert row(ledger)["complete_to"] == 14


def test_a_boot_that_left_the_spool_is_gone_where_it_has_holes() -> None:
    ledger = Ledger()
    ledger.add([stored((2, 3), boot=6), stored((1, 1))])
    ledger.note("gw", status({7: (1, 1)}))
    assert row(ledger, 6)["gone"] == [(1, 1)]
    assert ledger.report()["missing"] == 0


def test_a_boot_that_nothing_came_from_is_missing_whole() -> None:
    ledger = Ledger()
    ledger.note("gw", status({6: (1, 5), 7: (1, 2)}))
    assert row(ledger, 6)["missing"] == [(1, 5)]
    assert row(ledger, 6)["complete_to"] == 0
    assert ledger.report()["missing"] == 7


def test_without_a_status_every_hole_may_still_be_filled() -> None:
    ledger = Ledger()
    ledger.add([stored((3, 4))])
    assert row(ledger)["missing"] == [(1, 2)]


def test_what_the_broker_has_not_had_is_waiting_and_the_rest_of_the_missing_is_lost() -> None:
    ledger = Ledger()
    ledger.add([stored((1, 10))])
    ledger.note("gw", encode_status("online", 7, "0", 1, {7: (1, 30)}, {7: [(1, 14), (20, 20)]}))
    assert row(ledger)["missing"] == [(11, 30)]
    assert row(ledger)["waiting"] == [(15, 19), (21, 30)]


def test_what_a_gateway_says_is_gone_is_no_longer_missing_until_it_comes_after_all() -> None:
    ledger = Ledger()
    ledger.add([stored((1, 10), (15, 20))])
    ledger.note("gw", status({7: (1, 20)}))
    ledger.lose("gw", 7, {"damaged": [(11, 12)], "dropped": [(13, 14)]})
    assert (row(ledger)["missing"], row(ledger)["complete_to"]) == ([], 20)
    assert row(ledger)["why"] == {"damaged": [(11, 12)], "dropped": [(13, 14)]}
    ledger.add([stored((12, 13))])
    assert row(ledger)["why"] == {"damaged": [(11, 11)], "dropped": [(14, 14)]}
    assert ledger.report()["gone"] == 2


def test_up_to_when_it_is_complete_is_the_time_of_the_last_frame_before_the_first_gap() -> None:
    ledger = Ledger()
    for first, last in ((1, 3), (6, 9), (4, 4), (10, 12)):
        ledger.add([Entry("gw", 7, [(first, last)], [], (last, 1000 * last))])
    assert row(ledger)["complete_time"] == 4000
    ledger.add([stored((5, 5))])
    assert row(ledger)["complete_time"] == 12_000


def test_of_many_frames_behind_a_gap_the_times_are_thinned() -> None:
    ledger = Ledger()
    for seq in range(2, 3 * module.MAX_MARKS):
        ledger.add([Entry("gw", 7, [(seq, seq)], [], (seq, seq))])
    assert len(ledger.accounts["gw", 7].marks) <= module.MAX_MARKS
    ledger.add([stored((1, 1))])
    complete = row(ledger)["complete_time"]
    assert complete is not None
    assert complete > 2.9 * module.MAX_MARKS


def test_what_never_existed_is_told_by_the_gateway_and_kept() -> None:
    ledger = Ledger()
    absent = {"ft-101": {"BadTimeout": 37}}
    ledger.note("gw", encode_status("online", 7, "0", 1, {7: (1, 3)}, {}, absent))
    ledger.note("gw", encode_status("online", 8, "0", 2, {7: (1, 3), 8: (1, 1)}))
    assert row(ledger)["absent"] == absent
    assert ledger.report()["absent"] == 37


def test_it_is_complete_up_to_now_while_every_frame_is_empty() -> None:
    ledger = Ledger()
    ledger.add([Entry("gw", 7, [(1, 9)], [], (3, 3000))])
    ledger.note("gw", encode_status("online", 7, "0", 9500, {7: (1, 9)}, committed_ns=9000))
    assert row(ledger)["complete_time"] == 9000
    ledger.note("gw", encode_status("online", 7, "0", 14_500, {7: (1, 14)}, committed_ns=14_000))
    assert row(ledger)["complete_time"] == 9000  # the last five have not come
    ledger.add([Entry("gw", 7, [(10, 14)], [])])
    assert row(ledger)["complete_time"] == 14_000


def test_a_last_will_is_old_news() -> None:
    ledger = Ledger()
    ledger.note("gw", status({7: (5, 90)}))
    ledger.note("gw", status({7: (1, 2)}, state="offline"))
    assert ledger.statuses["gw"].boots == {7: (5, 90)}
    ledger.note("gw", status({7: (5, 90), 8: (1, 3)}, boot=8, state="offline"))
    assert ledger.statuses["gw"].boot == 8


def test_a_spool_that_was_replaced_gives_its_numbers_again() -> None:
    """A new card: what is lost of its boot 1 must not count as stored because of the old one's."""
    ledger = Ledger()
    ledger.add([stored((1, 500), boot=1), stored((1, 90), (95, 99), boot=2)])
    ledger.note("gw", status({1: (1, 500), 2: (1, 99)}, boot=2))
    (old, newer) = ledger.note("gw", status({1: (1, 30)}, boot=1))
    assert (old["boot"], newer["boot"], newer["missing"]) == (1, 2, [(91, 94)])
    ledger.add([stored((1, 20), boot=1)])
    assert [each["boot"] for each in ledger.report()["gateways"]] == [1]
    assert row(ledger, 1)["missing"] == [(21, 30)]


def test_a_spool_that_was_replaced_within_its_first_boot_is_noticed_by_what_it_has_committed() -> None:
    ledger = Ledger()
    ledger.add([stored((1, 500), boot=1)])
    ledger.note("gw", status({1: (1, 500)}, boot=1))
    assert not ledger.note("gw", status({1: (40, 500)}, boot=1))
    assert not ledger.note("gw", status({1: (40, 500)}, boot=1, state="offline"))
    assert ledger.note("gw", status({1: (1, 30)}, boot=1))
    assert row(ledger, 1)["missing"] == [(1, 30)]


@pytest.mark.parametrize(("state", "is_retained"), [("online", True), ("offline", False)])
def test_an_old_word_of_a_gateway_replaces_no_spool(state: str, is_retained: bool) -> None:
    """A broker that begins from what it wrote half an hour ago says again what was true then."""
    ledger = Ledger()
    ledger.add([stored((1, 500), boot=1), stored((1, 99), boot=2)])
    ledger.note("gw", status({1: (1, 500), 2: (1, 99)}, boot=2))
    assert not ledger.note("gw", status({1: (1, 300)}, boot=1, state=state), is_retained=is_retained)
    assert row(ledger, 2)["complete_to"] == 99


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"boot": 1, "boots": {"1": 3}}',
        b'{"boot": 1, "boots": {"a": [1, 2]}}',
        b'{"boot": 1, "boots": {"1": [1, Infinity]}}',
        b'{"boot": 1, "boots": {"1": [1, 1e999]}}',
        b'{"boot": 1, "boots": {"1": [1, NaN]}}',
        b'{"boot": 1, "boots": {"1": [1.5, 2]}}',
        b'{"boot": 1, "boots": {"1": [5, 3]}}',
        b'{"boot": 1, "boots": {"1": [0, 3]}}',
        b'{"boot": 1, "boots": {"%d": [1, 3]}}' % 10**30,
        b'{"boot": %d, "boots": {}}' % 10**30,
        b'{"boot": 1, "boots": {"1": [1, %d]}}' % 2**63,
        *(
            b'{"ingest": "x", "share": "share", "accounts": [%s]}' % account
            for account in (
                b'["gw", %d, "1", ""]' % 10**30,
                b'["gw", 1, "1-%d", ""]' % 10**30,
                b'["gw", 1, "", "0"]',
                b'["gw", 1, 7, ""]',
                b'["gw", 1, []]',
                b'["\\ud800", 1, "1", ""]',
                b'["gw", Infinity, "1", ""]',
            )
        ),
    ],
    ids=lambda payload: payload[:60].decode(errors="replace"),
)
def test_what_is_no_status_and_no_ledger_is_an_error_and_changes_nothing(payload: bytes) -> None:
    ledger = Ledger()
    with pytest.raises(ValueError):
        ledger.note("gw", payload)
    with pytest.raises(ValueError):
        ledger.absorb("me", "share", payload)
    assert not ledger.unsaved
    assert ledger.report()["gateways"] == []


async def test_the_largest_numbers_that_are_taken_can_be_saved_and_told(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    ledger = file.load()
    last = 2**63 - 1
    ledger.note("gw", status({last: (1, last)}, boot=last))
    ledger.add([stored((1, last), boot=last), stored((2, 5), boot=1)])
    await file.save(ledger)
    await file.close()
    assert read_ledger(tmp_path) == ledger.report()
    other = Ledger()
    other.absorb("other", "ingest", ledger.encode("one", "ingest", 1))
    assert row(other, last)["complete_to"] == last


def test_a_ledger_that_was_written_with_billions_of_frames_can_be_read(tmp_path: Path) -> None:
    LedgerFile(tmp_path).load()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as file:
        file.execute("INSERT INTO accounts VALUES ('gw', 1, '1-999999999999', '', '{}')")
    assert read_ledger(tmp_path)["gateways"][0]["complete_to"] == 999_999_999_999


def test_ranges_in_the_worst_order_are_taken_over_at_once() -> None:
    n = 200_000
    ranges = ",".join(str(2 * k) for k in range(n, 0, -1))
    began = time.process_time()
    ledger = Ledger()
    ledger.absorb("me", "s", f'{{"ingest": "x", "share": "s", "accounts": [["gw", 1, "{ranges}", ""]]}}'.encode())
    assert ledger.accounts["gw", 1].stored.total == n
    assert time.process_time() - began < 5.0  # 0.5 s; one insertion after the other at the front took minutes


spans = st.tuples(st.integers(1, 40), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))
span_lists = st.lists(spans, max_size=10)


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in ranges for n in range(first, last + 1)}


@given(span_lists, span_lists, st.none() | spans, st.integers(6, 8))
def test_against_plain_sets(
    kept: list[tuple[int, int]], parked: list[tuple[int, int]], spool: tuple[int, int] | None, running: int
) -> None:
    ledger = Ledger()
    entry = Entry("gw", 7, kept, parked)
    ledger.add([entry])
    ledger.note("gw", status({7: spool} if spool else {}, boot=running), is_retained=True)
    once = ledger.report()
    ledger.add([entry, entry])
    assert ledger.report() == once, "idempotent"
    found = row(ledger)
    have = numbers(kept) | numbers(parked)
    in_spool = numbers([spool] if spool else [])
    whole = set(range(1, max(have | in_spool, default=0) + 1))
    still = in_spool | ({n for n in whole if n > max(in_spool, default=0)} if running <= 7 else set())
    assert numbers(found["missing"]) == (whole - have) & still
    assert numbers(found["gone"]) == (whole - have) - still
    assert found["complete_to"] == min(numbers(found["missing"]), default=max(whole, default=0) + 1) - 1


def test_workers_of_one_share_take_over_from_each_other_and_from_no_one_else() -> None:
    one, two, other = Ledger(), Ledger(), Ledger()
    one.add([stored((1, 1), (3, 3), parked=((5, 5),))])
    two.add([stored((2, 2), (4, 4))])
    two.absorb("two", "ingest", one.encode("one", "ingest", 1))
    other.absorb("other", "archive", one.encode("one", "ingest", 1))
    assert row(two)["complete_to"] == 5
    assert row(two)["parked"] == [(5, 5)]
    assert other.accounts == {}
    version = two.version
    two.absorb("two", "ingest", one.encode("one", "ingest", 1))
    two.absorb("two", "ingest", two.encode("two", "ingest", 1))
    assert two.version == version, "no news, no answer: two workers must not talk for ever"


def test_boots_beyond_the_kept_ones_are_forgotten_when_the_spool_has_none_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEPT_BOOTS", 2)
    ledger = Ledger()
    ledger.add([stored((1, 1), boot=boot) for boot in range(1, 6)])
    ledger.note("gw", status({2: (1, 1), 5: (1, 1)}, boot=5))
    assert sorted(boot for _, boot in ledger.accounts) == [2, 4, 5]


async def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "state")
    ledger = file.load()
    ledger.add([stored((1, 3), (7, 9), parked=((5, 5),)), stored((1, 1), boot=6)])
    ledger.note("gw", status({6: (1, 1), 7: (1, 9)}))
    await file.save(ledger)
    assert read_ledger(tmp_path / "state") == ledger.report(), "readable while it is open"
    ledger.add([stored((4, 4))])
    del ledger.accounts["gw", 6]
    ledger.unsaved.add(("gw", 6))
    await file.save(ledger)
    await file.close()
    assert read_ledger(tmp_path / "state") == ledger.report() == LedgerFile(tmp_path / "state").load().report()
    json.dumps(ledger.report())


async def test_what_could_not_be_saved_is_saved_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ingest.ledger_file.BUSY_S", 0.05)
    file = LedgerFile(tmp_path)
    ledger = file.load()
    ledger.add([stored((1, 3))])
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError):
        await file.save(ledger)
    other.close()
    assert ledger.unsaved == {("gw", 7)}
    await file.save(ledger)
    await file.close()
    assert read_ledger(tmp_path) == ledger.report()


async def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    (tmp_path / "ledger.sqlite").write_bytes(b"\x13" * 10_000)
    ledger = file.load()
    ledger.add([stored((1, 3))])
    await file.save(ledger)
    await file.close()
    assert row(LedgerFile(tmp_path).load())["complete_to"] == 3
    assert (tmp_path / "ledger.damaged").read_bytes() == b"\x13" * 10_000


def test_a_state_without_a_ledger_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no ledger here"):
        read_ledger(tmp_path)
