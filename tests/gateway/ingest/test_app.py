"""The whole ingest on a real broker: nothing lost, nothing twice, nothing acknowledged before it is stored."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.history import store as stores
from gateway.history.sqlite import Sqlite
from gateway.ingest import app
from gateway.ingest.ledger_file import read_ledger
from gateway.wire.client import Client, keep_connected
from tests import servers
from tests.gateway.ingest.ingest_scene import (
    BASE,
    CORRIDOR,
    DATA,
    SECOND,
    SERIES,
    T0,
    frame,
    in_sqlite,
    ingesting,
    message,
    publish,
    spec,
    status,
    stored,
    subscribed_once,
)
from tests.servers import until


def letters(state: Path) -> list[dict[str, object]]:
    path = state / "dead_letters.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def accounted(state: Path) -> int:
    rows = read_ledger(state)["gateways"]
    return rows[0]["complete_to"] if rows else 0


async def in_influx(port: int, database: str) -> dict[int, float]:
    return dict(await servers.influx_query(port, "SELECT mass FROM flow_meter", database))


async def test_every_frame_is_in_sqlite_once_and_in_the_ledger(mosquitto: servers.Server, tmp_path: Path) -> None:
    path, state = tmp_path / "x", tmp_path / "state"
    async with ingesting(spec(mosquitto, f"sqlite://{path}"), state):
        await publish(mosquitto, (f"{BASE}/status", status({7: (1, 301)})), retain=True)
        await publish(mosquitto, *((DATA, message(range(i, i + 3))) for i in range(1, 300, 3)))
        await publish(mosquitto, (DATA, message([], empty=[301])))
        await until(lambda: accounted(state) == 301)
    assert in_sqlite(path) == stored(range(1, 301))
    found = read_ledger(state)
    assert (found["missing"], found["gone"], found["parked"]) == (0, 0, 0)
    (row,) = found["gateways"]
    assert (row["gateway"], row["boot"], row["complete_to"], row["missing"], row["gone"]) == ("ps1-gw1", 7, 301, [], [])
    assert row["complete_time"] == T0 + 300 * SECOND


@pytest.mark.parametrize("version", [1, 2])
async def test_every_frame_is_in_influxdb_once(
    version: int, mosquitto: servers.Server, influx2: servers.Front, influxd: servers.Server, tmp_path: Path
) -> None:
    database = await servers.create_database(influxd.port)
    url = f"{influx2.url}&bucket={database}" if version == 2 else f"influx1://127.0.0.1:{influxd.port}/{database}"
    async with ingesting(spec(mosquitto, url, servers.TOKEN if version == 2 else None), tmp_path / "state"):
        await publish(mosquitto, *((DATA, message(range(i, i + 3))) for i in range(1, 300, 3)))
        await until(lambda: accounted(tmp_path / "state") == 300)
    assert await in_influx(influxd.port, database) == stored(range(1, 301))


@pytest.mark.parametrize("fault", [503, 429, "cut", 401])
async def test_a_store_that_fails_and_recovers_loses_nothing(
    fault: int | str, mosquitto: servers.Server, influx2: servers.Front, influxd: servers.Server, tmp_path: Path
) -> None:
    database = await servers.create_database(influxd.port)
    influx2.fault, influx2.retry_after = fault, "0.3" if fault == 429 else None
    async with ingesting(spec(mosquitto, f"{influx2.url}&bucket={database}", servers.TOKEN), tmp_path / "state"):
        await publish(mosquitto, *((DATA, message([seq])) for seq in range(1, 401)))
        await until(lambda: len(influx2.writes) >= 3)
        assert accounted(tmp_path / "state") == 0
        influx2.fault = None
        await until(lambda: accounted(tmp_path / "state") == 400)
    assert await in_influx(influxd.port, database) == stored(range(1, 401))


async def test_nothing_is_acknowledged_before_it_is_stored(
    mosquitto: servers.Server, influx2: servers.Front, influxd: servers.Server, tmp_path: Path
) -> None:
    database = await servers.create_database(influxd.port)
    where = spec(mosquitto, f"{influx2.url}&bucket={database}", servers.TOKEN)
    influx2.fault = 503
    async with ingesting(where, tmp_path / "state"):
        await publish(mosquitto, *((DATA, message([seq])) for seq in range(1, 101)))
        await until(lambda: len(influx2.writes) >= 2)
    influx2.fault = None
    async with ingesting(where, tmp_path / "state"):  # the broker still has every one of them
        await until(lambda: accounted(tmp_path / "state") == 100)
    assert await in_influx(influxd.port, database) == stored(range(1, 101))


async def test_what_comes_while_the_ingest_is_away_waits_in_the_broker(
    mosquitto: servers.Server, tmp_path: Path
) -> None:
    where, state = spec(mosquitto, f"sqlite://{tmp_path}/x"), tmp_path / "state"
    await subscribed_once(where, state)
    await publish(mosquitto, *((DATA, message([seq])) for seq in range(1, 101)))
    async with ingesting(where, state):
        await until(lambda: accounted(state) == 100)
    assert in_sqlite(tmp_path / "x") == stored(range(1, 101))


async def test_a_bug_between_write_and_acknowledgement_repeats_and_loses_nothing(
    mosquitto: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, state = spec(mosquitto, f"sqlite://{tmp_path}/x"), tmp_path / "state"
    await subscribed_once(where, state)
    await publish(mosquitto, *((DATA, message([seq])) for seq in range(1, 51)))
    with monkeypatch.context() as patch:
        patch.setattr(app.Ingest, "acknowledge", lambda *_: 1 / 0)
        with pytest.raises(ExceptionGroup) as found:
            await asyncio.wait_for(app.run(where, state, stop=asyncio.Event()), 20)
        assert found.group_contains(ZeroDivisionError)
    before = accounted(state)
    assert before > 0
    assert in_sqlite(tmp_path / "x") == stored(range(1, before + 1))
    async with ingesting(where, state):
        await until(lambda: accounted(state) == 50)
        await publish(mosquitto, (DATA, message([51])))
        await until(lambda: accounted(state) == 51)
    assert in_sqlite(tmp_path / "x") == stored(range(1, 52))


CHILD = """
import asyncio, pathlib, sys
from gateway.ingest.app import run
from gateway.model.corridor import IngestSpec, MqttSpec, StoreSpec
port, store, state = sys.argv[1:]
mqtt = MqttSpec((f"mqtt://127.0.0.1:{port}",), None, None)
spec = IngestSpec("ingest-1", "link43", "ingest", mqtt, StoreSpec(store, None))
asyncio.run(run(spec, pathlib.Path(state), stop=asyncio.Event(), ready=lambda: print("ready", flush=True)))
"""


async def test_killed_again_and_again_it_stores_every_frame(mosquitto: servers.Server, tmp_path: Path) -> None:
    path, state = tmp_path / "x", tmp_path / "state"
    where = spec(mosquitto, f"sqlite://{path}")
    await subscribed_once(where, state)
    sending = asyncio.create_task(publish(mosquitto, *((DATA, message([seq])) for seq in range(1, 1501))))
    for kill in range(1, 5):
        arguments = [sys.executable, "-c", CHILD, str(mosquitto.port), f"sqlite://{path}", str(state)]
        child = await asyncio.to_thread(subprocess.Popen, arguments, env={**os.environ, "PYTHONPATH": "."})
        await until(lambda kill=kill: len(in_sqlite(path)) >= 100 * kill, every_s=0.001)
        child.kill()
        child.wait()
    await sending
    async with ingesting(where, state):
        await until(lambda: accounted(state) == 1500)
    assert in_sqlite(path) == stored(range(1, 1501))


async def test_poison_is_parked_and_the_rest_is_stored(mosquitto: servers.Server, tmp_path: Path) -> None:
    state = tmp_path / "state"
    bad = {2: frame(2, "mass=1i"), 4: frame(4, 'mass="x"'), 6: SERIES.encode() + b" mass=1 17"}
    async with ingesting(spec(mosquitto, f"sqlite://{tmp_path}/x"), state):
        await publish(mosquitto, (DATA, message(range(1, 8), lines=bad)))
        await publish(mosquitto, (DATA, b"what is this"), (f"{BASE}/other/data", message([8])))
        await publish(mosquitto, (DATA, message([9]) + frame(10)))
        await publish(mosquitto, (DATA, message([8])))
        await until(lambda: accounted(state) == 8)
    assert in_sqlite(tmp_path / "x") == stored([1, 3, 5, 7, 8])
    assert read_ledger(state)["gateways"][0]["parked"] == [(2, 2), (4, 4), (6, 6), (8, 8)]
    found = letters(state)
    assert [letter["text"] for letter in found] == [
        *(bad[seq].decode() for seq in (2, 4, 6)),
        "what is this",
        frame(8).decode(),
        (message([9]) + frame(10)).decode(),
    ]
    for letter, reason in zip(
        found, ("'1i'", "wanted a finite float", "'17'", "ledger comment", "'other'", "2 lines"), strict=True
    ):
        assert reason in str(letter["reason"])
    assert found[0]["topic"] == DATA
    assert {tuple(letter)[:3] for letter in found} == {("time", "topic", "reason")}


HOSTILE = {
    "a boot that SQLite cannot hold": (DATA, message([1], boot=10**30)),
    "a million million empty frames": (DATA, b"# boot=1 empty=1-999999999999 catalog=x\n"),
    "a field name that is not UTF-8": (DATA, message([1], lines={1: frame(1).replace(b"mass", b"mass\xff")})),
    "a field called time": (DATA, message([2], lines={2: frame(2, "time=1")})),
    "a status with an infinity": (f"{BASE}/status", b'{"boot":1,"boots":{"1":[1,Infinity]}}'),
    "a deep status": (f"{BASE}/status", b"[" * 100_000),
    "a ledger with an impossible boot": (
        f"corridor/v1/{CORRIDOR}/ledger/x",
        b'{"ingest":"x","share":"ingest","accounts":[["gw",%d,"1",""]]}' % 10**30,
    ),
    "a ledger with half a character": (
        f"corridor/v1/{CORRIDOR}/ledger/y",
        b'{"ingest":"y","share":"ingest","accounts":[["\\ud800",1,"1",""]]}',
    ),
}


async def test_hostile_messages_neither_end_it_nor_count_as_stored(mosquitto: servers.Server, tmp_path: Path) -> None:
    where, state = spec(mosquitto, f"sqlite://{tmp_path}/x"), tmp_path / "state"
    async with ingesting(where, state):
        for topic, payload in HOSTILE.values():
            await publish(mosquitto, (topic, payload), retain=not topic.endswith("/data"))
        await publish(mosquitto, (DATA, message([3, 4])))
        await until(lambda: accounted(state) == 4)
    async with ingesting(where, state):  # the retained ones come again
        await publish(mosquitto, (DATA, message([5])))
        await until(lambda: accounted(state) == 5)
    assert in_sqlite(tmp_path / "x") == stored([3, 4, 5])
    (row,) = read_ledger(state)["gateways"]
    assert (row["boot"], row["parked"], row["complete_to"]) == (7, [(1, 2)], 5)
    assert len(letters(state)) == 4


async def test_influxdb_opens_its_shard_again_after_a_hostile_name(mosquitto: servers.Server, tmp_path: Path) -> None:
    state, hostile = tmp_path / "state", frame(2).replace(b"mass", b"mass\xff")
    with servers.influxd(tmp_path / "influx") as influx:
        database = await servers.create_database(influx.port)
        async with ingesting(spec(mosquitto, f"influx1://127.0.0.1:{influx.port}/{database}"), state):
            await publish(mosquitto, (DATA, message(range(1, 4), lines={2: hostile})))
            await until(lambda: accounted(state) == 3)
        influx.stop()
        influx.start()
        assert await in_influx(influx.port, database) == stored([1, 3])
    assert read_ledger(state)["gateways"][0]["parked"] == [(2, 2)]


async def test_a_type_conflict_in_influxdb_is_isolated(
    mosquitto: servers.Server, influxd: servers.Server, influx_database: str, tmp_path: Path
) -> None:
    taken = f"{SERIES} mass=true {T0}".encode()  # someone else made `rho` a bool and `mass` is ours
    url, state = f"influx1://127.0.0.1:{influxd.port}/{influx_database}", tmp_path / "state"
    other = stores.open_store(stores.StoreSpec(url, None))
    await other.write(taken.replace(b"mass", b"rho"))
    await other.close()
    lines = {seq: frame(seq, f"mass={seq}.25") for seq in range(1, 41)} | {17: frame(17), 30: frame(30)}
    async with ingesting(spec(mosquitto, url), state):
        await publish(
            mosquitto, (DATA, message(range(1, 21), lines=lines)), (DATA, message(range(21, 41), lines=lines))
        )
        await until(lambda: accounted(state) == 40)
    assert await in_influx(influxd.port, influx_database) == stored(set(range(1, 41)) - {17, 30})
    assert [letter["text"] for letter in letters(state)] == [frame(17).decode(), frame(30).decode()]
    assert all("field type conflict" in str(letter["reason"]) for letter in letters(state))
    assert read_ledger(state)["gateways"][0]["parked"] == [(17, 17), (30, 30)]


async def test_a_broker_that_restarts_is_found_again_and_the_gap_is_named(
    mosquitto: servers.Server, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with ingesting(spec(mosquitto, f"sqlite://{tmp_path}/x"), state):
        await publish(mosquitto, (DATA, message([1, 2])))
        await until(lambda: accounted(state) == 2)
        mosquitto.kill()
        mosquitto.start()

        async def arrived() -> bool:
            await publish(mosquitto, (DATA, message([5])))
            return len(in_sqlite(tmp_path / "x")) == 3

        await until(arrived, every_s=0.1)
        await publish(mosquitto, (f"{BASE}/status", status({7: (1, 6)})), retain=True)
        await until(lambda: read_ledger(state)["missing"] == 3)
    assert read_ledger(state)["gateways"][0]["missing"] == [(3, 4), (6, 6)]


async def test_the_ledger_is_published_and_two_workers_share_it(
    mosquitto: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "ANNOUNCE_S", 0.1)
    url, heard = f"sqlite://{tmp_path}/x", {}

    async def listen(client: Client) -> None:
        await client.subscribe(f"corridor/v1/{CORRIDOR}/ledger/+", qos=1)
        async for spoken in client.messages:
            heard[spoken.topic.value.rsplit("/", 1)[1]] = json.loads(bytes(spoken.payload))

    def both_complete() -> bool:
        return len(heard) == 2 and all(
            each["missing"] == 0 and each["gateways"][0]["complete_to"] == 200 for each in heard.values()
        )

    one, two = (spec(mosquitto, url, ingest=f"ingest-{k}") for k in (1, 2))
    listening = asyncio.create_task(keep_connected(one.mqtt, "listener", listen))
    async with ingesting(one, tmp_path / "1"), ingesting(two, tmp_path / "2"):
        await publish(mosquitto, (f"{BASE}/status", status({7: (1, 200)})), retain=True)
        await publish(mosquitto, *((DATA, message([seq])) for seq in range(1, 201)))
        await until(both_complete)
    listening.cancel()
    assert in_sqlite(tmp_path / "x") == stored(range(1, 201))
    assert read_ledger(tmp_path / "1") == read_ledger(tmp_path / "2")


async def test_a_full_state_folder_is_waited_for(
    mosquitto: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, tries = tmp_path / "state", 0
    where = spec(mosquitto, f"sqlite://{tmp_path}/x")

    def full(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.ingest.dead_letters.DeadLetters.park", full)
        async with ingesting(where, state):
            await publish(mosquitto, (DATA, b"poison"), (DATA, message([1])))
            await until(lambda: tries >= 2)
    assert read_ledger(state)["gateways"] == []
    async with ingesting(where, state):
        await until(lambda: accounted(state) == 1)
    assert [letter["text"] for letter in letters(state)] == ["poison"]


async def test_stop_ends_it_at_once_while_broker_and_store_are_away(tmp_path: Path) -> None:
    away = servers.Server(lambda _: [], tmp_path / "log", port=1)
    stop = asyncio.Event()
    task = asyncio.create_task(app.run(spec(away, "influx1://127.0.0.1:1/x"), tmp_path / "state", stop=stop))
    await until(lambda: (tmp_path / "state" / "ledger.sqlite").exists())
    stop.set()
    await asyncio.wait_for(task, 2)


async def test_one_write_holds_many_messages(
    mosquitto: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    real = Sqlite.write

    async def counted(self: Sqlite, lines: bytes) -> None:
        writes.append(lines.count(b"\n") + 1)
        await real(self, lines)

    monkeypatch.setattr(Sqlite, "write", counted)
    where, state = spec(mosquitto, f"sqlite://{tmp_path}/x"), tmp_path / "state"
    await subscribed_once(where, state)
    await publish(mosquitto, *((DATA, message([seq])) for seq in range(1, 201)))
    async with ingesting(where, state):
        await until(lambda: accounted(state) == 200)
    assert sum(writes) == 200
    assert len(writes) <= 200 / 10  # mosquitto's window of 20 messages, halved for luck
