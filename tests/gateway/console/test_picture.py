from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from console_fake import device, ledger_message, own_alarm, tag

from drivers.quality import (
    BAD_NO_COMMUNICATION,
    BAD_WAITING_FOR_INITIAL_DATA,
    GOOD,
    UNCERTAIN_ENGINEERING_UNITS_EXCEEDED,
)
from gateway.console.picture import Picture
from gateway.wire.catalog import Catalog, CatalogDevice
from gateway.wire.events import AlarmRecord, Event, encode_alarms, encode_status
from gateway.wire.topics import OWN, GatewayAddress, parse
from tests.gateway.ledgers import boot_report

BASE = GatewayAddress("link43", "ps1", "gw1")
KEY = "link43/ps1/gw1"
S = 1_000_000_000
NOW = 1_764_000_000 * S
DEVICES = [
    device("ft-101", "pipe-a", 0, tag("flow", "m3/h"), tag("density", "kg/m3", 5.0)),
    device("bv-1", "pipe-a", 5200, tag("pressure", "bar")),
]


class Scene:
    def __init__(self, devices: list[CatalogDevice] | None = None) -> None:
        self.now_ns = NOW
        self.picture = Picture(lambda: self.now_ns)
        self.take("catalog", Catalog("3f9a", devices or DEVICES).encode(), retained=True)

    def take(self, leaf: str, payload: bytes, retained: bool = False) -> None:
        topic = parse(f"{BASE.base}/{leaf}")
        assert topic is not None
        self.picture.take(topic, payload, retained)

    def data(self, device: str, fields: str, time_ns: int) -> None:
        self.take(f"{device}/data", f"# boot=7 seq=1 catalog=3f9a\nmeter,device={device} {fields} {time_ns}\n".encode())

    def quality(self, device: str, tag: str, quality: int, time_ns: int, reason: str = "why") -> None:
        event = Event(time_ns, 7, 1, "quality", device, tag, quality, None, reason, reason)
        self.take(f"{device}/event", event.encode())

    def ledger(self, payload: bytes, ingest: str = "ingest-1", retained: bool = False) -> None:
        self.picture.take_ledger("link43", ingest, payload, retained)

    def told(self) -> list[dict[str, Any]]:
        """Return what the browser is told of the gateway's ledger."""
        (gateway,) = self.picture.changes(0)["gateways"]
        return gateway.get("ledger", [])

    def rows(self, since: int = 0) -> dict[int, tuple[Any, Any, int]]:
        """Return row -> value, age in ms, quality of what changed."""
        for gateway in self.picture.changes(since).get("gateways", []):
            if rows := gateway.get("rows"):
                return {i: (v, a, q) for i, v, a, q in zip(rows["i"], rows["v"], rows["a"], rows["q"], strict=True)}
        return {}


def test_before_the_first_value_a_tag_waits_for_initial_data() -> None:
    scene = Scene()
    assert scene.rows() == dict.fromkeys(range(3), (None, None, BAD_WAITING_FOR_INITIAL_DATA))
    json.dumps(scene.picture.changes(0), allow_nan=False)


def test_values_carry_their_age_and_only_changed_rows_are_told() -> None:
    scene = Scene()
    scene.data("ft-101", "flow=7868.5,density=861.2", NOW - S)
    tick = scene.picture.tick
    assert scene.rows()[0] == (7868.5, 1000, GOOD)
    scene.now_ns += 2 * S
    scene.data("bv-1", "pressure=53.2", NOW + 2 * S)
    assert scene.rows(tick) == {2: (53.2, 0, GOOD)}
    assert "gateways" not in scene.picture.changes(scene.picture.tick)


def test_bad_quality_keeps_the_last_good_value_until_a_later_value_comes() -> None:
    scene = Scene()
    scene.data("bv-1", "pressure=53.2", NOW)
    scene.quality("bv-1", "pressure", BAD_NO_COMMUNICATION, NOW + S, "no answer in 1.0 s")
    assert scene.rows()[2] == (53.2, 0, BAD_NO_COMMUNICATION)
    assert scene.picture.changes(0)["gateways"][0]["rows"]["why"] == {"2": "no answer in 1.0 s"}
    scene.data("bv-1", "pressure=53.1", NOW + S)  # the backlog of the moment of the change does not make it good
    assert scene.rows()[2][2] == BAD_NO_COMMUNICATION
    scene.data("bv-1", "pressure=53.0", NOW + 2 * S)
    assert scene.rows()[2][::2] == (53.0, GOOD)
    assert scene.picture.changes(0)["gateways"][0]["rows"]["why"] == {}


def test_uncertain_values_stay_uncertain_until_an_event_says_good() -> None:
    scene = Scene()
    scene.quality("bv-1", "pressure", UNCERTAIN_ENGINEERING_UNITS_EXCEEDED, NOW)
    scene.data("bv-1", "pressure=153.2", NOW)
    scene.data("bv-1", "pressure=153.3", NOW + S)
    assert scene.rows()[2][2] == UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
    scene.quality("bv-1", "pressure", GOOD, NOW + 2 * S)
    assert scene.rows()[2][2] == GOOD


def test_a_backlog_completes_the_ring_but_never_replaces_what_is_newer() -> None:
    scene = Scene()
    for k in (0, 3, 1, 2):
        scene.data("bv-1", f"pressure={50 + k}", NOW + k * S)
    scene.quality("bv-1", "pressure", BAD_NO_COMMUNICATION, NOW + 4 * S)
    gateway = scene.picture.gateways[KEY]
    times, values = gateway.ring.read(2)
    assert ((times - NOW) // S).tolist() == [0, 1, 2, 3, 4]
    assert values[:4].tolist() == [50, 51, 52, 53]
    assert math.isnan(values[4])
    assert scene.rows()[2][0] == 53


def test_a_new_catalog_keeps_what_is_known_of_tags_that_stay() -> None:
    scene = Scene()
    scene.data("bv-1", "pressure=53.2", NOW)
    tick = scene.picture.tick
    scene.take("catalog", Catalog("77aa", [DEVICES[1], device("new", "pipe-a", 1, tag("x", "1"))]).encode())
    assert scene.rows(tick) == {0: (53.2, 0, GOOD), 1: (None, None, BAD_WAITING_FOR_INITIAL_DATA)}
    assert scene.picture.gateways[KEY].ring.read(0)[1].tolist() == [53.2]


def test_unknown_fields_and_unreadable_messages_are_counted() -> None:
    scene = Scene()
    scene.data("ft-101", "flow=1.0,nonsense=2.0", NOW)
    scene.take("ft-101/data", b"not line protocol")
    scene.take("alarms", b'{"alarms": 3}')
    scene.take("status", b"[]")
    scene.take("ft-101/event", b'"text"')
    assert (scene.picture.unknown, scene.picture.broken) == (1, 4)
    assert scene.rows()[0][0] == 1.0


FAR = 10**24
LIVE = [
    ("bv-1/data", f"# x\nmeter,device=bv-1 pressure=1 {FAR}\n"),
    ("bv-1/data", f"# x\nmeter,device=bv-1 pressure=1 {-FAR}\n"),
    ("bv-1/data", f"# x\nmeter,device=bv-1 pressure=1 {NOW + 2 * 86_400 * S}\n"),
    ("bv-1/data", f"# x\nmeter,device=bv-1 pressure=1e999 {NOW}\n"),
    ("bv-1/data", f"# x\nmeter,device=bv-1 pressure=nan {NOW}\n"),
    *(
        ("bv-1/event", f'{{"kind":"quality","tag":"pressure","time":{time},"quality":{quality}}}')
        for time, quality in (
            (NOW, -1), (NOW, 2**32), (NOW, 10**30), (NOW, 1.5), (NOW, "true"), (NOW, "null"),
            ("Infinity", 0), ("1e999", 0), (FAR, 0), (-1, 0), (NOW + 2 * 86_400 * S, 0), ("null", 0),
        )
    ),
    ("bv-1/event", f'{{"kind":"quality","tag":["pressure"],"time":{NOW},"quality":0}}'),
    ("bv-1/event", f'{{"kind":"quality","tag":"pressure","time":{NOW},"quality":1,"reason":{{"a":1}}}}'),
    *((leaf, "[" * 100_000) for leaf in ("status", "health", "alarms", "catalog", "bv-1/event")),
    *((leaf, '{"a":' * 100_000) for leaf in ("status", "health", "alarms", "catalog", "bv-1/event")),
    ("status", '{"state":"online","time":Infinity}'),
    ("status", '{"state":"online","time":1e999}'),
    ("status", f'{{"state":"online","time":{10**30}}}'),
    ("status", '{"state":["online"]}'),
    ("status", '{"version":{"a":NaN}}'),
    ("health", '{"memory_bytes":NaN}'),
    ("health", '{"links":{"skid-a":null}}'),
    ("health", '{"links":[1]}'),
    ("health", '{"spool":"full"}'),
    ("health", '{"clock":null}'),
    ("alarms", '{"alarms":[{"value":Infinity}]}'),
    ("alarms", '{"alarms":[null]}'),
    ("catalog", '{"catalog":"x","devices":[{"name":"d"}]}'),
    ("catalog", '{"catalog":"x","devices":null}'),
]  # fmt: skip


@pytest.mark.parametrize(("leaf", "payload"), LIVE, ids=lambda text: text[:50])
def test_what_a_hostile_publisher_says_is_counted_and_changes_nothing(leaf: str, payload: str) -> None:
    scene = Scene()
    scene.data("bv-1", "pressure=53.2", NOW - S)
    scene.take("status", encode_status("online", 7, "0.1.0", NOW, {}))
    before = scene.picture.changes(0)
    scene.take(leaf, payload.encode())
    assert scene.picture.broken == 1
    after = scene.picture.changes(0)
    assert json.loads(json.dumps(after, allow_nan=False)) | {"tick": 0} == before | {"tick": 0}
    scene.data("bv-1", "pressure=53.3", NOW)
    assert scene.rows()[2] == (53.3, 0, GOOD)


def test_health_keeps_what_the_screens_show_and_nothing_that_is_nested_deeper() -> None:
    scene = Scene()
    said = {
        "polls": {"late": 2, "by": {"a": 1}}, "links": {"skid-a": {"state": "up", "load": 0.5, "units": [1]}},
        "spool": {"state": "ok", "unsent": 3}, "clock": {"state": "ok", "offset_s": 0.1}, "memory_bytes": 7,
    }  # fmt: skip
    scene.take("health", json.dumps(said).encode())
    assert scene.picture.gateways[KEY].health == {
        "polls": {"late": 2}, "links": {"skid-a": {"state": "up", "load": 0.5}},
        "spool": {"state": "ok", "unsent": 3}, "clock": {"state": "ok", "offset_s": 0.1},
    }  # fmt: skip


def test_a_catalog_that_would_take_all_memory_is_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.console.picture.MAX_TAGS", 3)
    scene = Scene()
    scene.take("catalog", Catalog("77aa", [*DEVICES, device("new", "pipe-a", 1, tag("x", "1"))]).encode())
    assert scene.picture.broken == 1
    assert len(scene.picture.gateways[KEY].tags) == 3


def test_a_status_from_the_future_is_no_contact_in_the_future() -> None:
    scene = Scene()
    scene.take("status", encode_status("online", 7, "0.1.0", NOW + 900 * S, {}), retained=True)
    assert scene.picture.gateways[KEY].heard_ns == NOW


def test_a_configuration_with_infinities_is_shown() -> None:
    scene = Scene([device("bv-1", "pipe-a", 5200, tag("pressure", "bar", 1.0, (0.0, math.inf), high=math.inf))])
    scene.data("bv-1", "pressure=53.2", NOW)
    (told,) = json.loads(json.dumps(scene.picture.changes(0), allow_nan=False))["gateways"]
    (tag_told,) = told["catalog"]["devices"][0]["tags"]
    assert (tag_told["range"], tag_told["limits"], told["rows"]["v"]) == (None, {}, [53.2])


def test_last_contact_is_of_live_messages_and_survives_the_will() -> None:
    scene = Scene()
    gateway = scene.picture.gateways[KEY]
    assert gateway.heard_ns == 0
    scene.take("status", encode_status("online", 7, "0.1.0", NOW - 60 * S, {}), retained=True)
    assert gateway.heard_ns == NOW - 60 * S
    scene.take("health", b"{}")
    scene.now_ns += 30 * S
    scene.take("status", encode_status("offline", 7, "0.1.0", NOW - 60 * S, {}))
    assert gateway.heard_ns == NOW
    assert gateway.status["state"] == "offline"


def test_an_emptied_status_removes_the_gateway() -> None:
    scene = Scene()
    tick = scene.picture.tick
    scene.take("status", b"", retained=True)
    assert scene.picture.changes(tick)["present"] == []


def test_alarms_carry_the_key_that_a_command_needs() -> None:
    scene = Scene()
    alarm = AlarmRecord("bv-1", "pressure", "low", "unacked", 2, NOW, NOW, 17.0, 18.0, "bar", "low", "pipe-a", 5200)
    scene.take("alarms", encode_alarms(NOW, [alarm]), retained=True)
    (told,) = scene.picture.changes(0)["gateways"][0]["alarms"]
    assert (told["key"], told["priority"], told["kp_m"]) == ("bv-1/pressure/low", 2, 5200)


def test_a_gateway_is_found_by_its_key_or_by_an_id_that_only_one_has() -> None:
    scene = Scene()
    assert scene.picture.find(KEY) is scene.picture.find("gw1") is not None
    other = parse("corridor/v1/link44/ps1/gw1/status")
    assert other is not None
    scene.picture.take(other, encode_status("online", 1, "0.1.0", NOW, {}), True)
    assert scene.picture.find("gw1") is None


def test_what_the_database_has_of_a_gateway_is_told_with_all_its_boots_together() -> None:
    scene = Scene()
    boots = (
        boot_report("gw1", 6, why={"dropped": [(1, 2)]}),
        boot_report("gw1", 7, missing=[(5, 9)], waiting=[(8, 9)], complete_time=NOW - 5 * S),
        boot_report("gw1", 8, absent={"ft-101": {"BadTimeout": 37}}),
        boot_report("gw2", 1, parked=[(1, 4)]),
    )
    scene.ledger(ledger_message(*boots, time_ns=NOW - S))
    assert scene.told() == [
        {
            "share": "ingest", "ingest": "ingest-1", "gateway": "gw1", "heard": NOW // 10**6,
            "complete": (NOW - 5 * S) // 10**6, "waiting": 2, "parked": 0, "counts": {"lost": 3, "dropped": 2},
            "holes": [
                {"why": "lost", "boot": 7, "frames": 3, "ranges": "5-7"},
                {"why": "dropped", "boot": 6, "frames": 2, "ranges": "1-2"},
            ],
            "absent": [{"device": "ft-101", "quality": "BadTimeout", "samples": 37}], "absent_samples": 37,
        },
    ]  # fmt: skip
    json.dumps(scene.picture.changes(0), allow_nan=False)


def test_a_ledger_is_told_once_and_again_when_it_changes_and_to_a_gateway_that_comes_later() -> None:
    scene = Scene()
    tick = scene.picture.tick
    scene.ledger(ledger_message(boot_report("gw1", 7), time_ns=NOW))
    (told,) = scene.picture.changes(tick)["gateways"]
    assert set(told) == {"key", "ledger", "heard"}
    tick = scene.picture.tick
    scene.ledger(ledger_message(boot_report("gw2", 7), ingest="other", share="other", time_ns=NOW), "other")
    assert "gateways" not in scene.picture.changes(tick)  # it says nothing of this one
    scene.picture.take_ledger("link44", "ingest-1", ledger_message(boot_report("gw1", 7), time_ns=NOW), False)
    assert "gateways" not in scene.picture.changes(tick)
    other = parse("corridor/v1/link44/ps1/gw1/status")
    assert other is not None
    scene.picture.take(other, encode_status("online", 1, "0.1.0", NOW, {}), True)
    (told,) = scene.picture.changes(tick)["gateways"]
    assert len(told["ledger"]) == 1


def test_of_the_ingests_of_a_share_the_newest_word_counts_and_every_share_is_told() -> None:
    scene = Scene()
    for ingest, share, after, parked in (("a", "live", 9, 1), ("b", "live", 8, 2), ("c", "archive", 1, 3)):
        payload = ledger_message(
            boot_report("gw1", 7, parked=[(1, parked)]), ingest=ingest, share=share, time_ns=NOW - 60 * S + after * S
        )
        scene.ledger(payload, ingest)
    assert [(one["share"], one["ingest"], one["parked"]) for one in scene.told()] == [
        ("archive", "c", 3), ("live", "a", 1),
    ]  # fmt: skip
    scene.ledger(b"", "a", retained=True)  # an ingest that is no more: its retained message was emptied
    assert [one["ingest"] for one in scene.told()] == ["c", "b"]
    scene.ledger(b"", "b", retained=True)
    scene.ledger(b"", "c", retained=True)
    assert scene.told() == []


def test_a_retained_ledger_is_as_old_as_it_says_and_a_live_one_is_new() -> None:
    scene = Scene()
    message = ledger_message(boot_report("gw1", 7), time_ns=NOW - 600 * S)
    scene.ledger(message, retained=True)
    assert scene.told()[0]["heard"] == (NOW - 600 * S) // 10**6
    scene.ledger(message)  # the ingest's clock is slow, but it lives
    assert scene.told()[0]["heard"] == NOW // 10**6
    scene.ledger(ledger_message(boot_report("gw1", 7), time_ns=NOW + 600 * S), retained=True)
    assert scene.told()[0]["heard"] == NOW // 10**6


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"ingest":"ingest-1","share":"s","time":1e999,"gateways":[]}',
        b'{"ingest":"ingest-1","share":"s","time":%d,"gateways":[]}' % (NOW + 2 * 86_400 * S),
        b'{"ingest":"ingest-1","share":"s","time":0,"gateways":[]}',
        b'{"ingest":"ingest-1","share":"s","time":%d,"gateways":{"gw1":{}}}' % NOW,
        b'{"ingest":"another","share":"s","time":%d,"gateways":[]}' % NOW,
        ledger_message(boot_report("gw1", 7, missing=[(0, 5)]), time_ns=NOW),
        ledger_message(boot_report("gw1", 7, absent={"ft-101": {"BadTimeout": -5}}), time_ns=NOW),
        ledger_message(boot_report("gw1", 7, why={"dropped": "1-3"}), time_ns=NOW),
    ],
    ids=lambda payload: repr(payload[:60]),
)  # fmt: skip
def test_a_ledger_that_cannot_be_read_is_counted_and_the_last_one_stays(payload: bytes) -> None:
    scene = Scene()
    scene.ledger(ledger_message(boot_report("gw1", 7, parked=[(1, 1)]), time_ns=NOW))
    before = scene.picture.changes(0)
    scene.ledger(payload)
    assert scene.picture.broken == 1
    assert scene.picture.changes(0) == before


def test_more_ingests_than_a_corridor_can_have_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.console.ledgers.MAX_INGESTS", 2)
    scene = Scene()
    for name in ("a", "b", "c", "a"):
        scene.ledger(ledger_message(boot_report("gw1", 7), ingest=name, share=name, time_ns=NOW), name)
    assert scene.picture.broken == 1
    assert [one["share"] for one in scene.told()] == ["a", "b"]


def test_what_a_gateway_says_of_itself_is_shown_and_breaks_nothing() -> None:
    scene = Scene()
    scene.take("alarms", encode_alarms(NOW, [own_alarm("spool"), own_alarm("refused")]), retained=True)
    (told,) = scene.picture.changes(0)["gateways"]
    assert [(one["key"], one["device"], one["tag"]) for one in told["alarms"]] == [
        ("gateway//spool", "gateway", ""), ("gateway//refused", "gateway", ""),
    ]  # fmt: skip
    for reason in ("spool:raise", "spool:dropped", "refused:clear", "clock"):
        event = Event(NOW, 7, 1, "alarm", OWN, "", 0, None, reason, "text")
        scene.take(f"{OWN}/event", event.encode())
    scene.take("health", b'{"clock":{"state":"holdover","offset_s":0.1}}')
    assert scene.picture.broken == 0
    assert scene.picture.gateways[KEY].heard_ns == NOW
    assert scene.picture.gateways[KEY].health["clock"]["state"] == "holdover"


async def test_wait_ends_with_the_change() -> None:
    scene = Scene()
    tick = scene.picture.tick
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(scene.picture.wait(tick, 60.0))
        await asyncio.sleep(0)
        scene.data("bv-1", "pressure=53.2", NOW)
        await waiting
    await scene.picture.wait(scene.picture.tick, 0.001)
