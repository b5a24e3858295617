"""A running gateway takes a changed gateway.toml: what did not change does not notice; the wrong changes nothing."""

import asyncio
import contextlib
import itertools
import json
import random
import re
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from drivers.link import LinkSpec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import Fleet
from gateway import control
from gateway.acquire.plan import plan
from gateway.acquire.replan import replan
from gateway.app import catalog_of
from gateway.model import config
from gateway.model.corridor import MqttSpec
from gateway.spool.verify import verify
from gateway.wire.client import keep_connected
from gateway.wire.events import decode_alarms
from gateway.wire.lines import parse_header, parse_lines
from tests.gateway import build
from tests.processes import corridor
from tests.servers import free_port, until

POINTS = (
    Point("flow", "holding", 0, "float32", unit="kg/s"),
    Point("total", "holding", 2, "uint32", kind="counter"),
    Point("level", "holding", 8, "uint16"),
)
LINKS = {"a": "tcp", "b": "tcp", "bus": "rtu+tcp", "new": "tcp"}
METERS = {
    "a1": ("a", 1),
    "a2": ("a", 2),
    "b1": ("b", 1),
    "s1": ("bus", 1),
    "s2": ("bus", 2),
    "s3": ("bus", 3),
    "n1": ("new", 1),
}
BASE = "corridor/v1/link43/ps1/gw1"
PERIOD_S = 0.1


def meters():
    links = {name: LinkSpec(name, transport, "127.0.0.1", 0) for name, transport in LINKS.items()}
    return [MeterSpec(name, links[link], unit, "", POINTS) for name, (link, unit) in METERS.items()]


@dataclass
class Config:
    """A gateway.toml in the making: everything but `new` and what is on it, and s3, is there from the start."""

    broker: int
    ports: dict
    links: list = field(default_factory=lambda: ["a", "b", "bus"])
    devices: list = field(default_factory=lambda: ["a1", "a2", "b1", "s1", "s2"])
    settings: dict = field(default_factory=dict)  # device -> lines for its table
    limits: dict = field(default_factory=dict)  # device -> lines below its flow
    head: dict = field(default_factory=lambda: {"id": '"gw1"'})
    metrics: int = field(default_factory=free_port)
    more: str = ""

    def text(self):
        head = "".join(f"{key} = {value}\n" for key, value in self.head.items())
        out = [f'[gateway]\n{head}corridor = "link43"\nsite = "ps1"\n']
        out += [f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.broker}"\n[spool]\ncommit_s = 0.2\n{self.more}']
        out += [f'[metrics]\nlisten = "127.0.0.1:{self.metrics}"\n']
        for name in self.links:
            out.append(
                f'[[link]]\nname = "{name}"\nurl = "{LINKS[name]}://127.0.0.1:{self.ports[name]}"\n'
                "timeout_s = 0.5\nturnaround_s = 0.001\n"
            )
        for name in self.devices:
            link, unit = METERS[name]
            own = self.settings.get(name, f"period_s = {PERIOD_S}")
            out.append(f'[[device]]\nname = "{name}"\nlink = "{link}"\nunit = {unit}\n{own}\n')
            for p in POINTS:
                out.append(f'[[device.point]]\nname = "{p.name}"\nfunction = "holding"\naddress = {p.address}\n')
                out.append(f'type = "{p.type}"\nkind = "{p.kind}"\n')
            out.append(f"[device.tag.flow]\n{self.limits[name]}\n" if name in self.limits else "")
        return "\n".join(out)


class Running:
    """A `corridor run` with its meters, and everything that it says."""

    def __init__(self, folder, child, fleet, config):
        self.path, self.state, self.log = folder / "gateway.toml", folder / "gw", folder / "run.log"
        self.child, self.fleet, self.config = child, fleet, config
        self.messages = []

    def payloads(self, leaf):
        return [payload for topic, payload in self.messages if topic == f"{BASE}/{leaf}"]

    def latest(self, leaf):
        found = self.payloads(leaf)
        return json.loads(found[-1]) if found else {}

    def frames(self):
        """Return [(seq, catalog, line or None)] in the order of their arrival."""
        out = []
        for topic, payload in self.messages:
            if topic.endswith("/data"):
                header = parse_header(payload)
                seqs = [seq for a, b in header.seq for seq in range(a, b + 1)]
                out += [(seq, header.catalog, line) for seq, line in zip(seqs, parse_lines(payload), strict=True)]
                out += [(seq, header.catalog, None) for a, b in header.empty for seq in range(a, b + 1)]
        return out

    async def polls(self):
        """Return the counts of polls so far, by what became of them."""
        text = (await asyncio.to_thread(urlopen, f"http://127.0.0.1:{self.config.metrics}/")).read().decode()
        return {name: int(n) for name, n in re.findall(r"^corridor_polls_(\w+)_total\S* (\d+)", text, re.M)}

    def times(self, device, first=1, last=10**9):
        """Return the times of a device's frames in the order of their numbers."""
        lines = {seq: line for seq, _, line in self.frames() if line and first <= seq <= last}
        return [line.time_ns for _, line in sorted(lines.items()) if line.tags["device"] == device]

    def is_judging(self):
        return self.latest("health").get("detectors", {}).get("state") == "ready"

    def waited_s(self):
        """Return for how long gateway and meters were ready to run while others had the processors."""
        stats = [path.read_text().split() for pid in (self.child.pid, "self") for path in threads_of(pid)]
        return sum(int(waited_ns) for _, waited_ns, _ in stats) / 1e9

    def requests(self, device):
        return self.fleet.statistics()["requests"][device]

    async def reload(self, **changed):
        """Write the file and reload; returns what was reported."""
        for name, value in changed.items():
            setattr(self.config, name, value)
        self.path.write_text(self.config.text())
        return await asyncio.to_thread(control.ask, self.state, "reload", 20.0)

    async def polled(self, *devices, n=5):
        """Wait until devices were asked n more times."""
        before = {name: self.requests(name) for name in devices}
        await until(lambda: all(self.requests(name) >= before[name] + n for name in devices))

    async def listen(self, listening):
        async def session(client):
            await client.subscribe("corridor/#", qos=1)
            listening.set()
            async for message in client.messages:
                self.messages.append((message.topic.value, bytes(message.payload)))

        await keep_connected(MqttSpec((f"mqtt://127.0.0.1:{self.config.broker}",), None, None), "listener", session)


def threads_of(pid):
    return Path(f"/proc/{pid}/task").glob("*/schedstat")


async def command(*arguments):
    """Return exit code and standard output, as JSON where it is."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate()
    return child.returncode, json.loads(out) if out.startswith(b"{") else {"out": out.decode(), "err": err.decode()}


@contextlib.asynccontextmanager
async def running(folder, broker, *, is_loaded=True, **changed):
    """A gateway of the usual configuration that polls, and whose detectors are loaded unless that is said."""
    async with Fleet(meters(), seed=1) as fleet, asyncio.TaskGroup() as tasks:
        wanted = Config(broker, fleet.ports, **changed)
        (folder / "gateway.toml").write_text(wanted.text())
        listening = asyncio.Event()
        made = Running(folder, None, fleet, wanted)
        listener = tasks.create_task(made.listen(listening))
        await listening.wait()
        with corridor("run", made.path, "--state", made.state, log=made.log) as made.child:
            if is_loaded:
                await until(made.is_judging, 40)
                made.began, made.n_began, waited_s = await made.polls(), len(made.frames()), made.waited_s()
            yield made
            if is_loaded:
                made.ended, made.n_ended = await made.polls(), len(made.frames())
                made.starved_s = made.waited_s() - waited_s
            made.child.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(made.child.wait, 20) == 0
            last = max(b for a, b in verify(made.state / "spool")["boots"]["1"])
            await until(lambda: max(seq for seq, _, _ in made.frames()) == last)
        listener.cancel()
    assert "Traceback" not in made.log.read_text()


def undisturbed(gateway, *devices, cancelled=0):
    """Assert that no poll of these devices was missed, no frame is lost or doubled, and time goes on.

    A poll that was missed while the processor was others' for longer than a period is none of ours.
    cancelled  polls that a link took with it
    """
    seqs = sorted(seq for seq, _, _ in gateway.frames())
    assert seqs == list(range(1, len(seqs) + 1))
    excused = int(gateway.starved_s / PERIOD_S)
    assert gateway.ended["skipped"] - gateway.began["skipped"] <= cancelled + excused * len(gateway.config.devices)
    for name in devices:
        times = gateway.times(name)
        assert min(b - a for a, b in itertools.pairwise(times)) > 0
        times = gateway.times(name, gateway.n_began, gateway.n_ended)
        n = round((times[-1] - times[0]) / 1e9 / PERIOD_S) + 1
        assert abs(len(times) - n) <= excused, name


async def test_what_did_not_change_misses_no_poll_whatever_else_does(tmp_path, mosquitto):
    async with running(tmp_path, mosquitto.port) as gateway:
        await gateway.polled("a1", "b1", "s1", n=10)
        catalogs = [gateway.latest("catalog")["catalog"]]
        told, halts = [], []
        for changed in (
            {"limits": {"a1": "high_high = 1e9"}},
            {"devices": ["a1", "a2", "b1", "s1", "s2", "s3"]},
            {"settings": {"s2": f"period_s = {2 * PERIOD_S}"}},
            {"links": ["a", "b", "bus", "new"], "devices": ["a1", "a2", "b1", "s1", "s2", "s3", "n1"]},
            {"devices": ["a1", "b1", "s1", "s3", "n1"]},
            {"links": ["a", "b", "bus"], "devices": ["a1", "b1", "s1", "s3"]},
        ):
            found = await gateway.reload(**changed)
            assert (found["ok"], found["errors"]) == (True, [])
            halts.append(found["paused_s"] / found["took_s"])
            told.append(found["changes"])
            await until(lambda wanted=found["catalog"]: gateway.latest("catalog")["catalog"] == wanted)
            catalogs.append(found["catalog"])
            await gateway.polled(*gateway.config.devices)
        assert told == [
            ["device 'a1': settings (flow)"],
            ["device 's3': added"],
            ["device 's2': polled anew (period_s)"],
            ["link 'new': added", "device 'n1': added"],
            ["device 'a2': removed", "device 's2': removed"],
            ["link 'new': removed", "device 'n1': removed"],
        ]
        assert min(halts) < 1 / 4  # the rest is done beside the polls; any one of them may be starved
        assert len(set(catalogs)) == 7
        asked = {name: gateway.requests(name) for name in ("a2", "s2", "n1")}
        await gateway.polled("a1", "s1", n=10)
        assert {name: gateway.requests(name) for name in asked} == asked
        assert gateway.fleet.statistics()["connections"] == {"a": 1, "b": 1, "bus": 1, "new": 1}
        devices = [device["name"] for device in gateway.latest("catalog")["devices"]]
        assert devices == ["a1", "b1", "s1", "s3"]
    undisturbed(gateway, "a1", "b1", "s1", cancelled=1)
    order = [catalogs.index(catalog) for _, catalog, _ in sorted(gateway.frames(), key=lambda frame: frame[0])]
    assert set(order) == set(range(7))
    assert order == sorted(order)
    for name in METERS:
        times = gateway.times(name)
        assert times == sorted(set(times)), name


async def test_a_file_that_is_wrong_changes_nothing(tmp_path, mosquitto):
    async with running(tmp_path, mosquitto.port) as gateway:
        before = gateway.latest("catalog")["catalog"]
        good = gateway.config.text()
        for text, wanted in (
            (
                good.replace("unit = 2", "unit = 1", 1),
                ["device 'a2': unit: unit 1 on link 'a' belongs to device 'a1' already"],
            ),
            (
                good.replace('site = "ps1"', 'site = "ps2"'),
                ["gateway: site: got 'ps2', runs with 'ps1': needs a restart"],
            ),
            (
                good.replace("commit_s = 0.2", 'path = "other"'),
                ["spool: path: got 'other', runs with 'spool': needs a restart"],
            ),
            (good.replace("unit = 2", 'unit = "x"\nperiot_s = 3', 1), []),
            ("[gateway", []),
        ):
            gateway.path.write_text(text)
            found = await asyncio.to_thread(control.ask, gateway.state, "reload", 20.0)
            assert (found["ok"], found["changes"]) == (False, [])
            assert found["errors"] == ([f"{gateway.path}: {line}" for line in wanted] or config.check(gateway.path))
            assert found["errors"]
            assert "refused, the old configuration goes on" in gateway.log.read_text()
        code, found = await command("reload", "--state", gateway.state)
        assert (code, found["out"], found["err"].splitlines()) == (1, "", config.check(gateway.path))
        gateway.path.write_text(good)
        code, found = await command("reload", gateway.path, "--state", gateway.state)
        assert (code, found["out"]) == (0, "nothing changed\n")
        assert gateway.latest("catalog")["catalog"] == before
        assert gateway.fleet.statistics()["connections"] == {"a": 1, "b": 1, "bus": 1, "new": 0}
        await gateway.polled("a1")
    undisturbed(gateway, "a1", "a2", "b1", "s1", "s2")
    code, found = await command("reload", gateway.path, "--state", gateway.state)
    assert (code, found["err"]) == (3, f"{gateway.state}: no gateway runs here\n")


async def test_limits_hold_at_once_and_an_alarm_whose_limit_goes_is_closed(tmp_path, mosquitto):
    async with running(tmp_path, mosquitto.port) as gateway:
        gateway.fleet.set_value("a1", "flow", 90.0)
        await gateway.polled("a1")
        await gateway.reload(limits={"a1": "high = 80.0"})
        await until(lambda: any(a.tag == "flow" for a in decode_alarms(gateway.payloads("alarms")[-1])))
        (alarm,) = decode_alarms(gateway.payloads("alarms")[-1])
        assert (alarm.device, alarm.alarm, alarm.state, alarm.value) == ("a1", "high", "unacked", 90.0)
        await gateway.reload(limits={"a1": "high = 85.0"})
        await gateway.polled("a1")
        (same,) = decode_alarms(gateway.payloads("alarms")[-1])
        assert (same.since, same.state, same.limit) == (alarm.since, "unacked", 85.0)
        await gateway.reload(limits={"a1": "high = 95.0"})
        await until(lambda: decode_alarms(gateway.payloads("alarms")[-1])[0].state == "rtn_unacked")
        await gateway.reload(limits={})
        await until(lambda: decode_alarms(gateway.payloads("alarms")[-1]) == [])
        await until(lambda: gateway.latest("a1/event").get("reason") == "high:removed")
        assert gateway.fleet.statistics()["connections"]["a"] == 1
    undisturbed(gateway, "a1", "a2", "b1", "s1", "s2")


async def test_ten_signals_in_a_row_end_with_the_last_file(tmp_path, mosquitto):
    async with running(tmp_path, mosquitto.port) as gateway:
        for k in range(10):
            gateway.config.devices = ["a1", "b1", "s1", "s2", *(["s3"] if k % 2 else ["a2"])]
            gateway.path.write_text(gateway.config.text())
            gateway.child.send_signal(signal.SIGHUP)
            if k % 3 == 0:
                await gateway.polled("a1", n=2)
        await gateway.polled("s3")
        await until(lambda: [d["name"] for d in gateway.latest("catalog")["devices"]] == gateway.config.devices)
        await gateway.polled("a1", "b1", "s1")
    undisturbed(gateway, "a1", "b1", "s1", "s2")


async def test_a_reload_on_the_way_up_waits_for_the_line_and_not_for_the_detectors(tmp_path, mosquitto):
    def ask():
        with contextlib.suppress(control.NobodyThere):
            return control.ask(gateway.state, "reload", 20.0)

    async with running(tmp_path, mosquitto.port, is_loaded=False) as gateway:
        gateway.fleet.set_value("s3", "flow", 90.0)
        gateway.config.devices, gateway.config.limits = ["a1", "s1", "s3", "b1"], {"s3": "high = 80.0"}
        gateway.path.write_text(gateway.config.text())  # it may have read the old file, or not yet
        await until(lambda: asyncio.to_thread(ask), 40)
        await gateway.polled("a1", "b1", "s1", "s3")
        await until(gateway.is_judging, 40)
        await until(lambda: gateway.payloads("alarms") and decode_alarms(gateway.payloads("alarms")[-1]))
        (alarm,) = decode_alarms(gateway.payloads("alarms")[-1])
        assert (alarm.device, alarm.alarm) == ("s3", "high")
        gateway.config.devices = ["a1", "s1"]
        gateway.path.write_text(gateway.config.text())
        gateway.child.send_signal(signal.SIGHUP)  # and the end comes while it reads
    seqs = sorted(seq for seq, _, _ in gateway.frames())
    assert seqs == list(range(1, len(seqs) + 1))


async def test_broker_metrics_link_and_spool_change_while_it_runs(tmp_path, mosquitto):
    async with running(tmp_path, mosquitto.port) as gateway:
        log = gateway.log
        connects = log.read_text().count("connected to")
        before, gateway.config.metrics = gateway.config.metrics, free_port()
        gateway.path.write_text(
            gateway.config.text()
            .replace("commit_s = 0.2\n", "commit_s = 0.3\nmax_bytes = 2_000_000\n")
            .replace("[spool]", 'username = "other"\n[spool]')
            .replace(f':{gateway.fleet.ports["b"]}"\ntimeout_s = 0.5', f':{gateway.fleet.ports["b"]}"\ntimeout_s = 0.6')
        )
        code, found = await command("reload", "--state", gateway.state, "--json")
        assert (code, found["ok"], found["config"], found["changes"]) == (
            0,
            True,
            str(gateway.path),
            [
                "mqtt: connects anew",
                "spool: max_bytes: 1000000000 -> 2000000",
                "spool: commit_s: 0.2 -> 0.3",
                f"metrics: listen: 127.0.0.1:{before} -> 127.0.0.1:{gateway.config.metrics}",
                "link 'b': opened anew (timeout_s)",
                "device 'b1': polled anew (its link)",
            ],
        )
        await until(lambda: log.read_text().count("connected to") > connects)
        await gateway.polled("a1", "b1", "s1")
        await until(lambda: sum(f.stat().st_size for f in (gateway.state / "spool").iterdir()) < 2_000_000)
        assert gateway.fleet.statistics()["connections"] == {"a": 1, "b": 2, "bus": 1, "new": 0}
    seqs = {seq for seq, _, _ in gateway.frames()}
    assert seqs == set(range(1, max(seqs) + 1))
    times = gateway.times("b1")
    assert times == sorted(set(times)) or len(times) != len(set(times))  # QoS 1: the new connection may repeat


def test_two_orders_of_values_never_have_one_catalog():
    """The spool finds the names of a frame's values by the catalog: after a restart, too, which counts anew."""
    there, back = POINTS, (POINTS[0], replace(POINTS[1], address=9), replace(POINTS[2], address=2))
    one, other = (plan(build.gateway([build.device("d", [build.tag(p) for p in points])])) for points in (there, back))
    assert [tag.name for tag in one.table.tags] != [tag.name for tag in other.table.tags]
    assert catalog_of(one).catalog != catalog_of(other).catalog
    whole = build.gateway([build.device(name, [build.tag(POINTS[0])], unit=i) for i, name in enumerate("ab")])
    less = replace(whole, devices=whole.devices[1:])
    before = plan(whole)
    reloaded = replan(before, less, before.memory.preview(less))
    assert catalog_of(reloaded).catalog != catalog_of(plan(less)).catalog
    assert catalog_of(reloaded).devices == catalog_of(plan(less)).devices


@pytest.mark.slow
async def test_a_hundred_changes_at_random_disturb_nobody_else(tmp_path, mosquitto):
    rng = random.Random(7)
    removed = 0
    async with running(tmp_path, mosquitto.port) as gateway:
        for _ in range(100):
            devices = ["b1", *(name for name in METERS if name != "b1" and rng.random() < 0.6)]
            before = set(gateway.config.links)
            links = list(dict.fromkeys(["b", *(METERS[name][0] for name in devices)]))
            removed += len(before - set(links))
            settings = {name: f"period_s = {rng.choice((0.1, 0.2, 0.5))}" for name in devices if name != "b1"}
            limits = {name: f"high = {rng.choice((1.0, 1e9))}" for name in devices if rng.random() < 0.5}
            found = await gateway.reload(devices=devices, links=links, settings=settings, limits=limits)
            assert found["ok"], found
            if rng.random() < 0.5:
                await gateway.polled("b1", n=rng.randrange(1, 5))
        await gateway.polled(*gateway.config.devices)
    undisturbed(gateway, "b1", cancelled=removed + 100)
    assert gateway.fleet.statistics()["connections"]["b"] == 1
    for name in METERS:
        times = gateway.times(name)
        assert times == sorted(set(times)), name


@pytest.mark.parametrize("arguments", [(), ("--state", "nowhere")])
async def test_without_a_gateway_there_is_nothing_to_reload(tmp_path, arguments):
    code, found = await command("reload", *arguments)
    assert code == (3 if arguments else 2)
    assert "Traceback" not in found["err"]
