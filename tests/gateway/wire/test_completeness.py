"""All boots of a gateway in one: what is counted once per boot is told once per gateway."""

from __future__ import annotations

from typing import Any

from gateway.wire import completeness as module
from gateway.wire.completeness import Absence, Completeness, Hole, summarise
from gateway.wire.ledger import GatewayReport
from tests.gateway.ledgers import boot_report


def boot(number: int, gateway: str = "gw", **said: Any) -> GatewayReport:
    return boot_report(gateway, number, **{"complete_time": 1000 * number, **said})


def test_boots_are_added_up() -> None:
    (one,) = summarise(
        [
            boot(8, missing=[(5, 9), (12, 12)], waiting=[(9, 9)], absent={"ft-101": {"BadTimeout": 1}}),
            boot(7, why={"dropped": [(120, 131)]}, absent={"ft-101": {"BadTimeout": 36}, "bv-1": {"BadTimeout": 40}}),
            boot(6, why={"uncommitted": [(7, 8)], "dropped": [(1, 1)]}, parked=[(3, 4)]),
        ]
    )
    assert one == Completeness(
        "gw",
        complete_ns=8000,
        waiting=1,
        parked=2,
        absent_samples=77,
        counts={"lost": 5, "dropped": 13, "uncommitted": 2},
        holes=[
            Hole("lost", 8, 5, "5-8, 12"),
            Hole("dropped", 7, 12, "120-131"),
            Hole("uncommitted", 6, 2, "7-8"),
            Hole("dropped", 6, 1, "1"),
        ],
        absent=[Absence("bv-1", "BadTimeout", 40), Absence("ft-101", "BadTimeout", 37)],
    )
    assert list(one.counts) == ["lost", "dropped", "uncommitted"]


def test_it_is_complete_up_to_the_first_gap_of_any_boot() -> None:
    whole, gap = boot(6), boot(7, missing=[(5, 9)])
    assert summarise([whole, gap, boot(8)])[0].complete_ns == 7000
    nothing_of_it = boot(7, missing=[(1, 9)], complete_time=None, complete_to=0)
    assert summarise([whole, nothing_of_it, boot(8)])[0].complete_ns == 6000
    assert summarise([nothing_of_it, boot(8)])[0].complete_ns is None
    assert summarise([whole, boot(7, complete_time=None)])[0].complete_ns == 6000  # only empty frames until now


def test_what_an_ingest_asks_for_is_lost_and_all_else_that_is_missing_on_its_way() -> None:
    row = boot(7, missing=[(1, 10)], waiting=[(9, 10)])
    assert (summarise([row])[0].waiting, summarise([row])[0].counts) == (2, {"lost": 8})
    row["lost"] = [(1, 3)]
    assert (summarise([row])[0].waiting, summarise([row])[0].counts) == (7, {"lost": 3})


def test_gateways_are_told_apart_and_in_order() -> None:
    found = summarise([boot(1, "b", parked=[(1, 1)]), boot(1, "a"), boot(2, "b", parked=[(1, 2)])])
    assert [(one.gateway, one.parked) for one in found] == [("a", 0), ("b", 3)]


def test_details_are_bounded_and_the_counts_are_not() -> None:
    tatters = [(2 * k, 2 * k) for k in range(1, 1001)]
    devices = {f"d{k}": {"BadTimeout": k} for k in range(1, 101)}
    (one,) = summarise(boot(k, why={"dropped": tatters}, absent=devices) for k in range(1, 41))
    assert (one.counts, one.absent_samples) == ({"dropped": 40_000}, 40 * 5050)
    assert [hole.boot for hole in one.holes] == [*range(40, 40 - module.SHOWN_HOLES, -1)]
    assert one.holes[0].ranges == "2, 4, 6, 8, 10, 12, 14, 16 …"
    assert len(one.absent) == module.SHOWN_ABSENT
    assert one.absent[0] == Absence("d100", "BadTimeout", 4000)
