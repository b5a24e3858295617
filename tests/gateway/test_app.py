"""`corridor run` as it goes to the field: another project's meters, broker and database; peers that are away."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import time
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from drivers.link import LinkSpec
from drivers.points import Hole, Point
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import Fleet
from gateway import app
from gateway.acquire.plan import plan
from gateway.model.config import load_gateway
from gateway.model.corridor import MqttSpec
from gateway.spool.verify import verify
from gateway.wire.client import MqttError, keep_connected
from gateway.wire.events import decode_alarms
from gateway.wire.lines import parse_header, parse_lines
from tests import libmodbus, servers
from tests.processes import corridor, until

needs_libmodbus = pytest.mark.skipif(libmodbus.library() is None, reason="libmodbus is not installed")

TYPES = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f", "int64": "q", "float64": "d"}


def write_config(folder, broker, port, points, *, period_s=0.2, more="", units=1):
    """Write a gateway.toml of so many devices on one link, each with these points (name, type, address)."""
    path = folder / "gateway.toml"
    lines = [
        '[gateway]\nid = "gw1"\ncorridor = "link43"\nsite = "ps1"\n',
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker}"\n',
        more,
        f'[[link]]\nname = "skid"\nurl = "tcp://127.0.0.1:{port}"\ntimeout_s = 0.5\n',
    ]
    row = '[[device.point]]\nname = "{}"\nfunction = "holding"\ntype = "{}"\naddress = {}\n'
    for unit in range(1, units + 1):
        lines.append(f'[[device]]\nname = "d{unit}"\nlink = "skid"\nunit = {unit}\nperiod_s = {period_s}\n')
        lines += [row.format(*point) for point in points]
    path.write_text("\n".join(lines))
    return path


def some_registers():
    """Return (registers, points, expected values) of one value of each type, twenty times over."""
    rng = random.Random(43)
    registers, points, expected = [], [], {}
    for i in range(60):
        kind = list(TYPES)[i % len(TYPES)]
        raw = rng.randbytes(struct.calcsize(">" + TYPES[kind]))
        if kind.startswith("float"):
            raw = struct.pack(">" + TYPES[kind], rng.uniform(-1000, 1000))
        value = struct.unpack(">" + TYPES[kind], raw)[0]
        points.append((f"v{i}", kind, len(registers)))
        expected[f"v{i}"] = (kind, value)
        registers += [int.from_bytes(raw[k : k + 2], "big") for k in range(0, len(raw), 2)]
    return registers[:120], [p for p in points if p[2] < 110], expected


async def collect(broker, enough, seconds=40, listening=None, session_expiry_s=0):
    """Return messages {topic: [payloads]} once enough(messages) is true; sets `listening` when it is subscribed.

    With `session_expiry_s` the broker keeps the subscription and what comes for it until the next call.
    """
    found = {}

    async def session(client):
        await client.subscribe("corridor/#", qos=1)
        if listening:
            listening.set()
        if enough(found):
            return
        async for message in client.messages:
            found.setdefault(message.topic.value, []).append(message.payload)
            if enough(found):
                return

    async with asyncio.timeout(seconds):
        await keep_connected(
            MqttSpec((f"mqtt://127.0.0.1:{broker}",), None, None),
            "collector",
            session,
            clean_start=not session_expiry_s,
            session_expiry_s=session_expiry_s,
        )
    return found


DATA = "corridor/v1/link43/ps1/gw1/d1/data"


@needs_libmodbus
def test_values_in_influxdb_equal_the_registers_of_libmodbus(tmp_path, mosquitto, influxd, influx_database):
    registers, points, expected = some_registers()
    ingest = tmp_path / "ingest.toml"
    ingest.write_text(
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{mosquitto.port}"\n[ingest]\nid = "in1"\ncorridor = "link43"\n'
        f'[store]\nurl = "influx1://127.0.0.1:{influxd.port}/{influx_database}"\n'
    )

    def query(what):
        text = quote(f"SELECT {what} FROM meter ORDER BY time DESC LIMIT 1")
        with urlopen(f"http://127.0.0.1:{influxd.port}/query?db={influx_database}&q={text}") as answer:
            series = json.load(answer)["results"][0].get("series")
        return dict(zip(series[0]["columns"], series[0]["values"][0], strict=True)) if series else None

    with libmodbus.served(registers) as port:
        config = write_config(tmp_path, mosquitto.port, port, points)
        with (
            corridor("ingest", ingest, "--state", tmp_path / "in", log=tmp_path / "ingest.log"),
            corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log"),
        ):
            until(lambda: query("*"), "a row in InfluxDB")
    row = query("*")  # now that nobody writes: InfluxDB shows a point that is being written field by field
    counts = query("count(*)")
    assert len({counts[f"count_{name}"] for name, *_ in points}) == 1
    assert row["device"] == "d1"
    assert row["gateway"] == "gw1"
    for name, kind, _ in points:
        value = expected[name][1]
        if kind == "float32":
            assert struct.pack(">f", row[name]) == struct.pack(">f", value), name
        else:
            assert float(row[name]) == float(value), name


@needs_libmodbus
async def test_what_a_gateway_says_of_itself(tmp_path, mosquitto):
    registers, points, _ = some_registers()
    with libmodbus.served(registers) as port:
        config = write_config(tmp_path, mosquitto.port, port, points)
        with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log") as child:
            base = "corridor/v1/link43/ps1/gw1"
            wanted = {f"{base}/{leaf}" for leaf in ("status", "catalog", "health", "alarms")} | {DATA}
            found = await collect(mosquitto.port, lambda m: wanted <= m.keys() and len(m[DATA]) > 5)
            child.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert await asyncio.to_thread(child.wait, 20) == 0
            assert time.monotonic() - began < 10  # 2 s on an idle machine; a loaded one may take longer
            last = await collect(mosquitto.port, lambda m: f"{base}/status" in m)
    status = json.loads(found[f"{base}/status"][0])
    assert (status["state"], status["boot"]) == ("online", 1)
    assert json.loads(last[f"{base}/status"][0])["state"] == "offline"
    catalog = json.loads(found[f"{base}/catalog"][0])
    assert [device["name"] for device in catalog["devices"]] == ["d1"]
    assert {tag["name"] for tag in catalog["devices"][0]["tags"]} == {name for name, *_ in points}
    health = json.loads(found[f"{base}/health"][-1])
    assert health["links"]["skid"]["state"] in ("up", "closed")
    assert set(health) >= {"polls", "links", "spool", "delivery", "clock", "memory_bytes"}
    seqs = []
    for payload in found[DATA]:
        header = parse_header(payload)
        assert header.boot == 1
        assert header.catalog == catalog["catalog"]
        assert len(list(parse_lines(payload))) == sum(b - a + 1 for a, b in header.seq)
        seqs += [seq for a, b in header.seq for seq in range(a, b + 1)]
    assert sorted(set(seqs)) == list(range(min(seqs), max(seqs) + 1))
    spool = verify(tmp_path / "gw" / "spool")
    assert spool["ok"]
    assert spool["boots"]["1"][0][1] >= max(seqs)


@needs_libmodbus
def test_a_gateway_starts_with_everything_absent_and_loses_nothing(tmp_path):
    registers, points, _ = some_registers()
    with (
        servers.mosquitto(tmp_path / "mosquitto", keeps_sessions=True) as mosquitto,
        libmodbus.served(registers) as port,
    ):
        # subscribed before: the gateway may be back at the broker sooner than anybody else
        asyncio.run(collect(mosquitto.port, lambda m: True, session_expiry_s=300))
        mosquitto.stop()
        config = write_config(tmp_path, mosquitto.port, port, points)
        with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log", CORRIDOR_PRINT_COMMITS="1"):
            commits = re.compile(rb"COMMIT boot=1 seq=(\d+)")
            log = tmp_path / "run.log"
            until(lambda: any(int(n) >= 15 for n in commits.findall(log.read_bytes())), "fifteen committed frames")
            mosquitto.start()

            def has_all(messages):
                seqs = {
                    seq
                    for payload in messages.get(DATA, [])
                    for a, b in parse_header(payload).seq
                    for seq in range(a, b + 1)
                }
                return set(range(1, 16)) <= seqs

            asyncio.run(collect(mosquitto.port, has_all, session_expiry_s=300))
    assert "away" in (tmp_path / "run.log").read_text()


@needs_libmodbus
def test_a_second_gateway_on_one_state_is_refused_and_the_first_goes_on(tmp_path, mosquitto):
    registers, points, _ = some_registers()
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with libmodbus.served(registers) as port:
        config = write_config(tmp_path, mosquitto.port, port, points)
        with corridor("run", config, "--state", tmp_path / "gw", log=first, CORRIDOR_PRINT_COMMITS="1"):
            until(lambda: b"COMMIT" in first.read_bytes(), "a commit")
            with corridor("run", config, "--state", tmp_path / "gw", log=second) as other:
                assert other.wait(20) == 1
            behind = first.read_bytes().count(b"COMMIT")
            until(lambda: first.read_bytes().count(b"COMMIT") > behind, "the first to go on")
    assert "another process has this spool" in second.read_text()
    assert "Traceback" not in second.read_text()
    last = int(re.findall(rb"COMMIT boot=1 seq=(\d+)", first.read_bytes())[-1])
    assert verify(tmp_path / "gw" / "spool")["boots"]["1"][0][1] >= last


@needs_libmodbus
async def test_alarms_stand_over_a_restart_and_a_retained_command_is_refused(tmp_path, mosquitto):
    registers, points, _ = some_registers()
    base = "corridor/v1/link43/ps1/gw1"
    limits = "  [device.tag.v1]\n  low = 100000.0\n"  # of an uint16: below it whatever it is
    with libmodbus.served(registers) as port:
        config = write_config(tmp_path, mosquitto.port, port, points)
        config.write_text(config.read_text() + limits)
        with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log"):
            found = await collect(mosquitto.port, lambda m: any(b"v1" in a for a in m.get(f"{base}/alarms", [])))
            (alarm,) = decode_alarms(found[f"{base}/alarms"][-1])

            async def command(client):
                await client.subscribe(f"{base}/reply", qos=1)
                body = {"id": "c1", "by": "anna", "expires": time.time_ns() + 10**12, "key": alarm.key}
                await client.publish(f"{base}/command/acknowledge", json.dumps(body).encode(), qos=1, retain=True)
                async for message in client.messages:
                    replies.append(json.loads(message.payload))
                    return

            replies = []
            await keep_connected(MqttSpec((f"mqtt://127.0.0.1:{mosquitto.port}",), None, None), "operator", command)
            assert (replies[0]["ok"], replies[0]["text"]) == (False, "retained commands are not carried out")
        with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log"):
            status = f"{base}/status"
            found = await collect(
                mosquitto.port,
                lambda m: any(b'"boot":2' in s and b"online" in s for s in m.get(status, [])) and DATA in m,
            )
    for message in found[f"{base}/alarms"]:
        assert [(a.key, a.since) for a in decode_alarms(message)] == [(alarm.key, alarm.since)]


@needs_libmodbus
async def test_a_broker_too_small_for_health_has_the_data_all_the_same(tmp_path):
    registers, points, _ = some_registers()
    log = tmp_path / "run.log"
    with (
        servers.mosquitto(tmp_path / "mosquitto", "max_packet_size 400") as mosquitto,
        libmodbus.served(registers) as port,
    ):
        config = write_config(tmp_path, mosquitto.port, port, points[:2])
        with corridor("run", config, "--state", tmp_path / "gw", log=log):
            await collect(mosquitto.port, lambda m: len(m.get(DATA, [])) > 20)
    said = log.read_text()
    assert said.count("connected to") == 1
    assert said.count("/health: refused") == 1


@needs_libmodbus
async def test_a_device_that_goes_is_told(tmp_path, mosquitto):
    registers, points, _ = some_registers()
    events = "corridor/v1/link43/ps1/gw1/d1/event"
    with contextlib.ExitStack() as stack:
        meter = contextlib.ExitStack()
        port = meter.enter_context(libmodbus.served(registers))
        stack.push(meter)
        config = write_config(tmp_path, mosquitto.port, port, points)
        stack.enter_context(corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log"))
        await collect(mosquitto.port, lambda m: DATA in m)
        listening = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(
                collect(
                    mosquitto.port,
                    lambda m: any(b"communication:raise" in e for e in m.get(events, [])),
                    listening=listening,
                )
            )
            await listening.wait()
            await asyncio.to_thread(meter.close)
    told = [json.loads(e) for e in watching.result()[events]]
    bad = [e for e in told if e["kind"] == "quality" and e["quality"] & 1 << 31]
    assert {e["tag"] for e in bad} == {name for name, *_ in points}
    assert all(e["value"] is None for e in bad)


@needs_libmodbus
async def test_a_disk_that_will_not_have_us_stops_nothing_and_repeats_no_boot(tmp_path, mosquitto):
    registers, points, _ = some_registers()
    (tmp_path / "file").write_text("")
    before = int(time.time())
    with libmodbus.served(registers) as port, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        metrics = f'[metrics]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'
        config = write_config(tmp_path, mosquitto.port, port, points, more=metrics)
        with corridor("run", config, "--state", tmp_path / "file" / "gw", log=tmp_path / "run.log"):
            found = await collect(mosquitto.port, lambda m: len(m.get(DATA, [])) > 3)
    assert parse_header(found[DATA][0]).boot >= before
    said = (tmp_path / "run.log").read_text()
    assert "spool failing" in said
    assert "metrics cannot be served" in said
    assert "Traceback" not in said


async def test_what_a_meter_refuses_is_known_to_the_next_run(tmp_path):
    points = [Point(f"v{i}", "holding", i, "uint16") for i in range(20)]
    link = LinkSpec("skid", "tcp", "127.0.0.1", 0)
    meter = MeterSpec("d1", link, 1, "", tuple(points), holes=(Hole("holding", 7, 1),))
    counted = []
    async with Fleet([meter], seed=1) as fleet:
        config = write_config(tmp_path, 1, fleet.ports["skid"], [(p.name, p.type, p.address) for p in points])
        learnt = tmp_path / "gw" / "learnt.json"
        for _ in range(2):
            before = fleet.statistics()["exceptions"]["d1"]
            asked = fleet.statistics()["requests"]["d1"]
            with corridor("run", config, "--state", tmp_path / "gw", log=tmp_path / "run.log") as child:
                async with asyncio.timeout(30):
                    while fleet.statistics()["requests"]["d1"] < asked + 30 or not learnt.exists():
                        await asyncio.sleep(0.05)
                child.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(child.wait, 20) == 0
            counted.append(fleet.statistics()["exceptions"]["d1"] - before)
    assert json.loads(learnt.read_text())["devices"]["d1"]["refused"] == [
        {"function": "holding", "start": 7, "count": 1}
    ]
    assert counted[0] > 0
    assert counted[1] == 0


@pytest.mark.parametrize(
    ("module", "ends"), [("gateway.pipeline", True), ("drivers.modbus.link", True), ("paho", False)]
)
async def test_a_bug_in_a_callback_of_ours_ends_the_process_and_one_of_a_library_is_logged(module, ends, caplog):
    def callback():
        raise RuntimeError("a bug")

    callback.__module__ = module
    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(app.raise_bugs())
    await asyncio.sleep(0)
    loop.call_soon(callback)
    done, _ = await asyncio.wait({watching}, timeout=20 if ends else 0.05)
    loop.set_exception_handler(None)
    assert bool(done) == ends
    assert "a bug" in caplog.text
    if ends:
        assert isinstance(watching.exception(), RuntimeError)
    watching.cancel()


async def test_a_bug_met_by_an_answer_of_the_broker_ends_the_process_too(mosquitto):
    """Raised into the library that read the answer it would be a connection lost, made anew for ever."""

    def acked(code):
        raise RuntimeError("a bug")

    acked.__module__ = "gateway.deliver.publish"

    async def session(client):
        client.send("a/b", b"1", acked)
        await client.publish("a/b", b"2", qos=1)
        await asyncio.sleep(20)

    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(app.raise_bugs())
    mqtt = MqttSpec((f"mqtt://127.0.0.1:{mosquitto.port}",), None, None)
    meeting = asyncio.create_task(keep_connected(mqtt, "test", session))
    await asyncio.wait({watching}, timeout=10)
    loop.set_exception_handler(None)
    meeting.cancel()
    await asyncio.wait({meeting})
    assert watching.done()
    assert str(watching.exception()) == "a bug"


async def test_sigterm_in_the_turn_that_loses_the_broker_ends_the_gateway(tmp_path, monkeypatch):
    """Of a cancellation and an error of its tasks a TaskGroup raises the error, which is one more to connect after."""
    sessions = []

    async def lose():
        raise MqttError("connection lost")

    async def connect_for_ever(*_, **__):
        while True:
            sessions.append("begun")
            with contextlib.suppress(BaseExceptionGroup):
                async with asyncio.TaskGroup() as tasks:
                    if len(sessions) == 1:
                        await ending.wait()
                        tasks.create_task(lose())
                    else:
                        await asyncio.sleep(3600)

    async def drain(gateway):
        ending.set()
        await asyncio.sleep(0)

    ending = asyncio.Event()
    monkeypatch.setattr(app, "keep_connected", connect_for_ever)
    monkeypatch.setattr(app.Gateway, "_drain", drain)
    config = write_config(tmp_path, 1, 1, [("v", "uint16", 0)])
    running = asyncio.create_task(app.main(plan(load_gateway(config)), tmp_path / "gw", str))
    await servers.until(lambda: sessions)
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), signal.SIGTERM)
    done, _ = await asyncio.wait({running}, timeout=5)
    assert done
    assert running.result() == 0
    assert sessions == ["begun", "begun"]
