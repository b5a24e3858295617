"""The ledger message: what was written is read, and what nobody's ingest writes is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.wire.ledger import Entry, GatewayReport, Report, decode_accounts, decode_ledger, encode_ledger

ROW: GatewayReport = {
    "gateway": "gw", "boot": 7, "complete_to": 10, "complete_time": 1_764_000_000_000_000_000,
    "missing": [(11, 14), (20, 20)], "waiting": [(13, 14)], "gone": [(3, 5)],
    "why": {"dropped": [(3, 4)], "damaged": [(5, 5)]}, "parked": [(8, 8)], "absent": {"ft-101": {"BadTimeout": 37}},
}  # fmt: skip
REPORT: Report = {"missing": 5, "waiting": 2, "gone": 3, "parked": 1, "absent": 37, "gateways": [ROW]}
ACCOUNTS = [Entry("gw", 7, [(1, 2), (6, 7)], [(8, 8)], (7, 9)), Entry("gw", 6, [], [])]


def said(**changes: Any) -> bytes:
    return encode_ledger("in-1", "ingest", 5, {**REPORT, "gateways": [{**ROW, **changes}]}, ACCOUNTS)  # type: ignore


def test_what_was_written_is_read() -> None:
    found = decode_ledger(said())
    assert (found.ingest, found.share, found.time_ns, found.gateways) == ("in-1", "ingest", 5, [ROW])
    assert decode_ledger(said(lost=[(11, 12)])).gateways == [{**ROW, "lost": [(11, 12)]}]
    assert decode_accounts(said(), "in-2", "ingest") == ("in-1", ACCOUNTS)


def test_an_ingest_takes_no_account_of_itself_or_of_another_share() -> None:
    assert decode_accounts(said(), "in-1", "ingest") is None
    assert decode_accounts(said(), "in-2", "archive") is None


def test_ranges_are_put_in_order_and_reasons_of_a_newer_ingest_left_out() -> None:
    (row,) = decode_ledger(said(missing=[(20, 20), (11, 14)], why={"eaten": [(3, 3)], "dropped": [(4, 4)]})).gateways
    assert row["missing"] == ROW["missing"]
    assert row["why"] == {"dropped": [(4, 4)]}


@pytest.mark.parametrize(
    "changes",
    [
        {"gateway": ""},
        {"gateway": "x" * 129},
        {"gateway": 7},
        {"boot": 0},
        {"boot": True},
        {"complete_to": -1},
        {"complete_to": None},
        {"complete_time": -1},
        {"complete_time": "now"},
        {"missing": [(0, 3)]},
        {"missing": [(5, 3)]},
        {"missing": [(1, 2**63)]},
        {"missing": [(1, 1.5)]},
        {"missing": [1]},
        {"waiting": None},
        {"why": [(1, 2)]},
        {"why": {"dropped": 3}},
        {"absent": {"ft-101": 37}},
        {"absent": {"ft-101": {"BadTimeout": -1}}},
        {"absent": {"ft-101": {"BadTimeout": 1.0}}},
        {"absent": {"x" * 129: {}}},
        {"absent": []},
        {"lost": [(0, 1)]},
    ],
    ids=str,
)
def test_what_no_ingest_says_is_refused(changes: dict[str, Any]) -> None:
    raw = json.loads(said())
    raw["gateways"][0] |= changes
    with pytest.raises(ValueError):
        decode_ledger(json.dumps(raw).encode())


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"3", b"\xff", b"[" * 100_000, b'{"gateways":[],"ingest":"x"}'])
def test_what_is_no_ledger_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode_ledger(payload)
