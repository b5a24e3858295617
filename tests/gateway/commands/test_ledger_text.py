"""`corridor ledger` in words: a line per gateway that a tired engineer understands at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drivers import quality
from gateway import cli
from gateway.commands import ledger_text
from gateway.commands.ledger_text import tell
from gateway.ingest.ledger import Ledger
from gateway.ingest.ledger_file import LedgerFile
from gateway.wire.events import encode_status
from gateway.wire.ledger import GONE, Entry, GatewayReport, Report
from tests.gateway.ledgers import NOON, boot_report


def boot(number: int = 7, gateway: str = "ps1-gw1", **said: Any) -> GatewayReport:
    return boot_report(gateway, number, **said)


def report(*boots: GatewayReport, **totals: int) -> Report:
    return {"missing": 0, "waiting": 0, "gone": 0, "parked": 0, "absent": 0, **totals, "gateways": list(boots)}  # type: ignore[typeddict-item]


def line(*boots: GatewayReport) -> str:
    """Return the only line, without the gateway and the time that it is complete up to."""
    (told,) = tell(report(*boots))
    head = "ps1-gw1  complete up to 2026-11-23 12:03:20 UTC; "
    assert told.startswith(head)
    return told.removeprefix(head)


def test_a_whole_gateway_is_told_in_two_facts() -> None:
    assert line(boot()) == "0 missing"
    assert line(boot(6), boot(7)) == "0 missing"


def test_what_never_existed_and_what_never_comes_is_told_with_the_reason() -> None:
    told = line(boot(why={"dropped": [(120, 131)]}, absent={"ft-101": {"BadTimeout": 37}}))
    assert told == ("0 missing; 37 samples never existed because ft-101 timed out; 12 frames dropped (boot 7: 120-131)")


def test_boots_are_added_up_and_named_where_they_have_something_to_tell() -> None:
    gone = boot(5, why={"dropped": [(1, 1)]}), boot(6), boot(7, why={"dropped": [(2, 3)], "uncommitted": [(9, 9)]})
    assert line(*gone) == (
        "0 missing; 3 frames dropped (boot 7: 2-3, boot 5: 1); "
        "1 frame not yet on disk when the gateway stopped (boot 7: 9)"
    )
    many = [boot(k, why={"damaged": [(1, 2)]}) for k in range(1, 9)]
    assert line(*many).endswith(
        "16 frames damaged on disk (boot 8: 1-2, boot 7: 1-2, boot 6: 1-2, boot 5: 1-2, boot 4: 1-2, 6 of older boots)"
    )


def test_what_is_on_its_way_is_told_apart_from_what_the_broker_has_had() -> None:
    assert line(boot(missing=[(661, 900)], waiting=[(661, 900)])) == "240 missing: 240 on their way"
    assert line(boot(missing=[(120, 131), (661, 900)], waiting=[(661, 900)])) == (
        "252 missing: 240 on their way, "
        "12 reached the broker (boot 7: 120-131) and are asked for again if they do not come"
    )


def test_devices_are_named_those_with_the_most_samples_first() -> None:
    absent = {"ft-101": {"BadTimeout": 37, "BadXyz": 1}, "bv-1": {"BadNoCommunication": 3}}
    assert line(boot(absent=absent)) == (
        "0 missing; 41 samples never existed: "
        "37 because ft-101 timed out, 3 because bv-1 was not reachable, 1 because ft-101 was BadXyz"
    )
    told = line(boot(absent={f"d{k}": {"BadTimeout": 10 - k} for k in range(8)}))
    assert told.startswith("0 missing; 52 samples never existed: 10 because d0 timed out, 9 because d1 timed out")
    assert told.endswith("6 because d4 timed out, 12 of other devices")


def test_without_a_known_time_none_is_made_up() -> None:
    assert tell(report(boot(complete_time=None, missing=[(1, 9)], waiting=[(1, 9)]))) == [
        "ps1-gw1  complete up to no known time; 9 missing: 9 on their way"
    ]
    assert tell(report()) == ["no gateway has been heard yet"]


def test_several_gateways_stand_below_each_other_above_their_sum() -> None:
    told = tell(report(boot(), boot(gateway="a", parked=[(1, 2)]), missing=5, waiting=2, gone=3, absent=4))
    assert told == [
        "a        complete up to 2026-11-23 12:03:20 UTC; 0 missing; 2 frames parked as dead letters",
        "ps1-gw1  complete up to 2026-11-23 12:03:20 UTC; 0 missing",
        "2 gateways: 5 missing, 2 of them on their way, 3 gone, 4 samples never existed",
    ]


def test_every_bad_quality_and_every_reason_has_its_words() -> None:
    assert set(ledger_text.ABSENT) == {name for code, name in quality.NAMES.items() if quality.is_bad(code)}
    assert set(ledger_text.GONE) == set(GONE)


async def test_the_command_tells_what_an_ingest_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, ledger = LedgerFile(tmp_path), Ledger()
    ledger.note("ps1-gw1", encode_status("online", 7, "0", 1, {7: (4, 10)}, {7: [(1, 9)]}))
    ledger.add([Entry("ps1-gw1", 7, [(1, 1), (4, 8)], [], (1, NOON))])
    await file.save(ledger)
    await file.close()
    assert cli.main(["ledger", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "ps1-gw1  complete up to 2026-11-23 12:03:20 UTC; 2 missing: 1 on their way, "
        "1 reached the broker (boot 7: 9) and are asked for again if they do not come; 2 frames dropped (boot 7: 2-3)\n"
    )
    assert cli.main(["ledger", "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gateways"][0]["missing"] == [[9, 10]]
