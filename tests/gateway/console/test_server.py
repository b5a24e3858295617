from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from console_bench import Broker, Console, running
from console_fake import FakeGateway, connected, device, own_alarm, tag

from drivers.quality import BAD_DEVICE_FAILURE
from gateway.console import feed, guard
from gateway.history.store import Series, Store, StoreAway, Trend
from gateway.wire.events import AlarmRecord
from gateway.wire.topics import GatewayAddress
from tests.gateway.ledgers import boot_report

GW1 = GatewayAddress("link43", "ps1", "gw1")
GW2 = GatewayAddress("link43", "ps2", "gw2")
DEVICES = [
    device("ft-101", "pipe-a", 0, tag("flow", "m3/h"), tag("density", "kg/m3")),
    device("bv-1", "pipe-a", 5200, tag("pressure", "bar")),
]
KEY = "bv-1/pressure/low"


def low_alarm() -> AlarmRecord:
    now = time.time_ns()
    return AlarmRecord(
        "bv-1", "pressure", "low", "unacked", 2, now, now, 17.2, 18.0, "bar", "pressure low", "pipe-a", 5200
    )


class Client:
    """A browser as far as these tests need one."""

    def __init__(self, session: aiohttp.ClientSession, console: Console) -> None:
        self.session = session
        self.url = console.url
        self.origin = console.url.rstrip("/")

    async def state(self) -> dict[str, Any]:
        async with self.session.get(self.url + "api/state") as response:
            assert response.status == 200
            return await response.json()

    async def gateway(self, name: str = "gw1") -> dict[str, Any] | None:
        return next((g for g in (await self.state()).get("gateways", []) if g["key"].endswith(f"/{name}")), None)

    async def when(self, condition: Any, name: str = "gw1") -> dict[str, Any]:
        """Return the gateway's state as soon as the condition holds for it."""
        async with asyncio.timeout(15):
            while True:
                found = await self.gateway(name)
                if found and condition(found):
                    return found
                await asyncio.sleep(0.01)

    async def trend(self, **query: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.get(self.url + "api/trend", params={k: str(v) for k, v in query.items()}) as response:
            return response.status, await response.json()

    async def acknowledge(self, *keys: str, gateway: str = "link43/ps1/gw1", **headers: str) -> tuple[int, Any]:
        body = {"by": "anna", "alarms": [{"gateway": gateway, "key": key} for key in keys]}
        headers = {"Origin": self.origin, **{k.replace("_", "-"): v for k, v in headers.items()}}
        async with self.session.post(self.url + "api/acknowledge", json=body, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def bench(broker: Broker, store: Store | None = None) -> AsyncIterator[tuple[Client, list[FakeGateway]]]:
    async with (
        connected(
            broker.port, (GW1, DEVICES), (GW2, [device("bv-9", "pipe-a", 43_000, tag("pressure", "bar"))])
        ) as made,
        running(broker.spec, store) as console,
        aiohttp.ClientSession() as session,
    ):
        client = Client(session, console)
        await client.when(lambda g: g.get("catalog"), "gw1")
        await client.when(lambda g: g.get("catalog"), "gw2")
        yield client, made


def values(gateway: dict[str, Any]) -> list[float | None]:
    return gateway["rows"]["v"] if "rows" in gateway else []


async def test_state_holds_every_gateway_with_values_quality_and_alarms(broker: Broker) -> None:
    async with bench(broker) as (client, (gw1, gw2)):
        await gw1.frame("ft-101", {"flow": 7868.5, "density": 861.2})
        await gw1.frame("bv-1", {"pressure": 53.25})
        await gw1.quality("ft-101", "density", BAD_DEVICE_FAILURE, "sentinel")
        await gw1.alarm(low_alarm())
        await gw1.health({"skid-a": "up"})
        await gw2.frame("bv-9", {"pressure": 29.5})
        found = await client.when(lambda g: g.get("health") and len(g["alarms"]) == 1 and g["rows"]["q"][1])
        assert values(found) == [7868.5, 861.2, 53.25]
        assert found["rows"]["q"] == [0, BAD_DEVICE_FAILURE, 0]
        assert found["rows"]["why"] == {"1": "sentinel"}
        assert all(0 <= age < 10_000 for age in found["rows"]["a"])
        assert found["status"]["state"] == "online"
        assert [d["kp_m"] for d in found["catalog"]["devices"]] == [0, 5200]
        await client.when(lambda g: values(g) == [29.5], "gw2")
        assert (await client.state())["console"]["mqtt"]["state"] == "connected"


async def test_the_stream_tells_only_what_is_new(broker: Broker) -> None:
    async with (
        bench(broker) as (client, (gw1, _)),
        client.session.ws_connect(client.url + "api/stream", headers={"Origin": client.origin}) as stream,
    ):
        await stream.send_str("next")
        whole = await stream.receive_json()
        assert {g["key"] for g in whole["gateways"]} == set(whole["present"]) == {"link43/ps1/gw1", "link43/ps2/gw2"}
        assert whole["quality_names"]["0"] == "Good"
        await gw1.frame("bv-1", {"pressure": 53.25})
        seen: dict[str, Any] = {}
        while not seen:
            await stream.send_str("next")
            step = await stream.receive_json(timeout=5)
            seen = next((g for g in step.get("gateways", []) if "rows" in g), {})
        assert (seen["rows"]["i"], seen["rows"]["v"], "catalog" in seen) == ([2], [53.25], False)
        began = time.monotonic()
        for _ in range(4):
            await gw1.frame("bv-1", {"pressure": 53.5})
            await stream.send_str("next")
            await stream.receive_json(timeout=5)
        assert time.monotonic() - began >= 0.75  # four steps a second at most


async def test_an_acknowledgement_goes_to_the_gateway_and_its_answer_comes_back(broker: Broker) -> None:
    async with bench(broker) as (client, (gw1, gw2)):
        await gw1.alarm(low_alarm())
        await client.when(lambda g: g["alarms"])
        status, body = await client.acknowledge(KEY)
        assert status == 200
        assert body["answers"] == [
            {"gateway": "link43/ps1/gw1", "key": KEY, "ok": True, "code": "ok", "text": "acknowledged"}
        ]
        found = await client.when(lambda g: g["alarms"][0]["state"] == "acked")
        assert found["alarms"][0]["by"] == "anna"
        (command,) = gw1.commands
        assert set(command) == {"id", "expires", "by", "key"}
        assert 0 < command["expires"] - time.time_ns() < 11e9
        assert gw2.commands == []


async def test_the_ledgers_of_all_ingests_reach_the_browser(broker: Broker) -> None:
    async with bench(broker) as (client, (gw1, _)):
        await gw1.ledger(boot_report("gw1", 7), boot_report("gw2", 3, absent={"bv-9": {"BadTimeout": 37}}))
        await client.when(lambda g: len(g.get("ledger", [])) == 1)
        await gw1.ledger(boot_report("gw1", 7, parked=[(1, 2)]), ingest="ingest-2", share="archive")
        found = await client.when(lambda g: len(g["ledger"]) == 2)
        assert [(one["share"], one["parked"]) for one in found["ledger"]] == [("archive", 2), ("ingest", 0)]
        found = await client.when(lambda g: g.get("ledger"), "gw2")
        assert found["ledger"][0]["absent"] == [{"device": "bv-9", "quality": "BadTimeout", "samples": 37}]


async def test_an_alarm_of_the_gateway_itself_is_acknowledged_like_any_other(broker: Broker) -> None:
    async with bench(broker) as (client, (gw1, _)):
        await gw1.alarm(own_alarm("spool"))
        found = await client.when(lambda g: g["alarms"])
        _, body = await client.acknowledge(found["alarms"][0]["key"])
        assert body["answers"][0]["ok"]
        await client.when(lambda g: g["alarms"][0]["state"] == "acked")
        assert [command["key"] for command in gw1.commands] == ["gateway//spool"]


async def test_refusals_and_their_reasons_reach_the_operator(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "REPLY_S", 0.4)
    async with bench(broker) as (client, (gw1, gw2)):
        _, body = await client.acknowledge("bv-1/pressure/high", KEY)
        assert [(a["ok"], a["code"], a["text"]) for a in body["answers"]] == [
            (False, "refused", "no such alarm: bv-1/pressure/high"),
            (False, "refused", f"no such alarm: {KEY}"),
        ]
        gw1.mute = True
        _, body = await client.acknowledge(KEY)
        assert body["answers"][0]["code"] == "no_answer"
        _, body = await client.acknowledge(KEY, gateway="nowhere")
        assert body["answers"][0]["code"] == "gateway_unknown"
        await gw2.announce("offline")
        await client.when(lambda g: g["status"]["state"] == "offline", "gw2")
        _, body = await client.acknowledge(KEY, gateway="gw2")
        assert body["answers"][0]["code"] == "gateway_offline"
        assert gw2.commands == []


async def test_a_broker_that_goes_away_is_said_and_comes_back(broker: Broker) -> None:
    async with running(broker.spec) as console, aiohttp.ClientSession() as session:
        client = Client(session, console)

        async def mqtt(state: str) -> dict[str, Any]:
            async with (
                asyncio.timeout(20),
                session.ws_connect(console.url + "api/stream", headers={"Origin": client.origin}) as stream,
            ):
                while True:
                    await stream.send_str("next")
                    part = (await stream.receive_json()).get("console", {}).get("mqtt", {})
                    if part.get("state") == state:
                        return part

        await mqtt("connected")
        async with connected(broker.port, (GW1, DEVICES)) as (gw1,):
            await client.when(lambda g: g.get("catalog"))
            await gw1.frame("bv-1", {"pressure": 53.25})
            await client.when(lambda g: values(g)[2] == 53.25)
        broker.stop()
        away = await mqtt("away")
        assert away["text"]
        assert abs(away["since"] - time.time() * 1000) < 20_000
        assert values(await client.gateway() or {})[2] == 53.25
        _, body = await client.acknowledge(KEY)
        assert body["answers"][0]["code"] == "mqtt_away"
        broker.start()
        await mqtt("connected")


class Down:
    async def write(self, lines: bytes) -> None:
        raise NotImplementedError

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        raise StoreAway(f"no database for {series.device}")

    async def close(self) -> None:
        return


async def test_a_trend_without_the_database_says_so_and_shows_the_live_part(broker: Broker) -> None:
    async with bench(broker, Down()) as (client, (gw1, _)):
        times = [await gw1.frame("bv-1", {"pressure": 50.0 + k}) // 1_000_000 for k in range(3)]
        await client.when(lambda g: values(g)[2] == 52.0)
        status, body = await client.trend(gateway="gw1", device="bv-1", tag="pressure", points=100)
        assert status == 200
        assert body["store"] == {"state": "away", "text": "no database for bv-1"}
        assert (body["time"], body["mean"], body["unit"]) == (times, [50.0, 51.0, 52.0], "bar")
        assert (await client.state())["console"]["store"]["state"] == "away"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"gateway": "gw1", "device": "bv-1", "tag": "nothing"}, 404, "tag_unknown"),
        ({"gateway": "gw9", "device": "bv-1", "tag": "pressure"}, 404, "tag_unknown"),
        ({"from": "yesterday"}, 400, "bad_request"),
        ({"from": 2, "to": 1}, 400, "bad_request"),
        ({"points": 0}, 400, "bad_request"),
        ({"from": -(10**30), "to": 10**30}, 400, "bad_request"),
    ],
)
async def test_a_trend_that_cannot_be_is_refused(broker: Broker, query: dict[str, Any], status: int, code: str) -> None:
    async with bench(broker) as (client, _):
        assert await client.trend(**query) == (status, {"code": code})


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
)
async def test_commands_from_another_site_are_refused(broker: Broker, headers: dict[str, str]) -> None:
    async with bench(broker) as (client, (gw1, _)):
        await gw1.alarm(low_alarm())
        await client.when(lambda g: g["alarms"])
        assert await client.acknowledge(KEY, **headers) == (403, {"code": "origin_refused"})
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.session.ws_connect(
                client.url + "api/stream", headers={k.replace("_", "-"): v for k, v in headers.items()}
            )
        assert refused.value.status == 403
        assert gw1.commands == []


async def test_a_command_without_any_proof_of_origin_or_of_another_type_is_refused(broker: Broker) -> None:
    async with bench(broker) as (client, (gw1, _)):
        url, origin = client.url + "api/acknowledge", {"Origin": client.origin}
        body = {"by": "x", "alarms": [{"gateway": "gw1", "key": KEY}]}
        async with client.session.post(url, json=body) as response:
            assert response.status == 403
        text = {**origin, "Content-Type": "text/plain"}
        async with client.session.post(url, data=json.dumps(body), headers=text) as response:
            assert response.status == 415
        for wrong in ([], {}, {"alarms": []}, {"alarms": [3]}, {"alarms": [{"gateway": "gw1", "key": KEY}] * 501}):
            async with client.session.post(url, json=wrong, headers=origin) as response:
                assert response.status == 400, wrong
        async with client.session.get(url) as response:
            assert response.status == 405
        assert gw1.commands == []


async def test_a_command_that_is_no_json_or_has_no_name_is_refused(broker: Broker) -> None:
    async with bench(broker) as (client, (gw1, _)):
        url, json_type = client.url + "api/acknowledge", "application/json"
        alarms = f'"alarms":[{{"gateway":"gw1","key":"{KEY}"}}]'
        for payload, kind, code in (
            ("[" * 100_000, json_type, "bad_request"),
            (f'{{"by":"anna","expires":NaN,{alarms}}}', json_type, "bad_request"),
            (f'{{"by":"\\ud800",{alarms}}}', json_type, "bad_request"),
            (f'{{"by":["anna"],{alarms}}}', json_type, "bad_request"),
            ("[" * 100_000, json_type + "; charset=zzz", "bad_request"),
            (f"{{{alarms}}}", json_type, "no_name"),
            (f'{{"by":" \\t ",{alarms}}}', json_type, "no_name"),
        ):
            headers = {"Origin": client.origin, "Content-Type": kind}
            async with client.session.post(url, data=payload.encode(), headers=headers) as response:
                assert (response.status, await response.json()) == (400, {"code": code}), payload[:40]
        assert gw1.commands == []


async def test_no_message_of_any_publisher_ends_the_console_or_its_answers(broker: Broker) -> None:
    deep = b"[" * 100_000
    async with bench(broker) as (client, (gw1, _)):
        for leaf, payload in (
            ("status", b'{"state":"online","time":Infinity}'),
            ("status", deep),
            ("reply", deep),
            ("reply", b'{"id":[],"ok":1}'),
            ("health", b'{"memory_bytes":NaN,"spool":{"bytes":Infinity}}'),
            ("alarms", b'{"alarms":[{"value":NaN}]}'),
            ("catalog", b'{"catalog":NaN,"devices":[]}'),
            ("bv-1/data", b"# x\nmeter,device=bv-1 pressure=1 %d\n" % 10**24),
            ("bv-1/event", b'{"kind":"quality","tag":"pressure","time":1,"quality":-1}'),
            ("bv-1/event", b'{"kind":"quality","tag":"pressure","time":Infinity,"quality":1}'),
            ("bv-1/event", b'{"kind":"quality","tag":"pressure","time":1,"quality":%d}' % 2**33),
        ):
            await gw1.client.publish(f"{GW1.base}/{leaf}", payload, 1)
        for payload in (deep, b"[]", b'{"ingest":"x","share":"s","time":Infinity,"gateways":[]}', b"\xff"):
            await gw1.client.publish("corridor/v1/link43/ledger/x", payload, 1, retain=True)
        await gw1.frame("bv-1", {"pressure": 53.25})
        await client.when(lambda g: values(g)[2] == 53.25)
        async with client.session.ws_connect(client.url + "api/stream", headers={"Origin": client.origin}) as stream:
            await stream.send_str("next")
            assert len((await stream.receive_json(timeout=5))["gateways"]) == 2
        await gw1.alarm(low_alarm())
        await client.when(lambda g: g["alarms"])
        _, body = await client.acknowledge(KEY)
        assert body["answers"][0]["ok"]


async def test_a_name_rebound_to_this_address_is_refused(broker: Broker) -> None:
    async with running(broker.spec) as console, aiohttp.ClientSession() as session:
        for path in ("", "api/state", "api/trend"):
            async with session.get(console.url + path, headers={"Host": "evil.example:8080"}) as response:
                assert (response.status, await response.json()) == (421, {"code": "host_refused"})
        async with session.get(console.url + "api/state", headers={"Host": "localhost:8080"}) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("host", "listen", "ours"),
    [
        ("127.0.0.1:8080", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("[::1]:8080", "127.0.0.1", True),
        ("10.0.0.5:8080", "127.0.0.1", False),
        ("10.0.0.5:8080", "0.0.0.0", True),
        ("console.example", "0.0.0.0", False),
        ("console.example:8080", "console.example", True),
        ("", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "0.0.0.0", False),
        ("[bad", "0.0.0.0", False),
    ],
)
def test_which_names_mean_this_server(host: str, listen: str, ours: bool) -> None:
    assert guard.is_our_name(host, listen) is ours


async def test_every_answer_forbids_inline_scripts_and_foreign_resources(broker: Broker) -> None:
    async with running(broker.spec) as console, aiohttp.ClientSession() as session:
        for path in ("", "api/state", "nothing.js", "api/nothing", "assets/../../app.py"):
            async with session.get(console.url + path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy, path
                assert "unsafe" not in policy
                assert "http" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_it_stops_quickly_also_with_a_stream_open(broker: Broker) -> None:
    async with aiohttp.ClientSession() as session:
        async with running(broker.spec) as console:
            stream = await session.ws_connect(console.url + "api/stream", headers={"Origin": console.url.rstrip("/")})
            await stream.send_str("next")
            await stream.receive_json()
            began = time.monotonic()
        assert time.monotonic() - began < 2.0
        await stream.close()
