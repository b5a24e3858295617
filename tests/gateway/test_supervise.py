"""What systemd hears: ready, status, reloading, stopping; a watchdog that is fed while the polls go on, not longer."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway import control
from gateway.acquire.acquisition import Acquisition
from gateway.acquire.plan import plan
from gateway.model.clock import NS
from gateway.supervise import NEVER_NS, Pulse, Supervisor, Watch, has_begun
from tests import processes
from tests.gateway import build
from tests.gateway.clock import FakeClock
from tests.processes import until
from tests.servers import free_port

WATCHDOG_S = 0.2
FEEDS = 15  # 1.5 s of them: what is stuck is noticed after 0.6 s, with the patience of below

# A gateway with a fault inside that begins once a file is there; the patience of the watchdog is cut short.
FAULTY = """
import asyncio, pathlib, sys, threading
from drivers.modbus.link import ModbusLink
from gateway import app, supervise
from gateway.spool.disk import DiskSpool
from gateway.cli import main

kind, wish, *arguments = sys.argv[1:]
wish = pathlib.Path(wish)
supervise.STEP_S, app.COMMIT_STUCK_S = 0.2, 0.6
read, commit = ModbusLink.read, DiskSpool._commit

async def hang(link, unit, block):
    if wish.exists() and link._spec.name == "a":
        await asyncio.Event().wait()
    return await read(link, unit, block)

def stick(spool, frames):
    if wish.exists():
        threading.Event().wait()
    return commit(spool, frames)

if kind == "poll":
    ModbusLink.read = hang
if kind == "commit":
    DiskSpool._commit = stick
sys.exit(main(arguments))
"""


class Listener:
    """The end of the supervisor: every datagram, in order, as soon as it comes."""

    def __init__(self, address):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard = []

    def listen(self):
        """Take messages until an empty one comes."""
        while message := self.socket.recv(4096):
            self.heard.append(message.decode().split("\n"))

    def count(self, line):
        return sum(line in message for message in list(self.heard))

    def says(self, pattern):
        return any(re.match(pattern, line) for message in list(self.heard) for line in message)


@contextlib.contextmanager
def listening(address):
    made = Listener(address)
    thread = threading.Thread(target=made.listen)
    thread.start()
    try:
        yield made
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", made.socket.getsockname())
        thread.join()
        made.socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    with listening(f"@corridor-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "n")) as made:
        yield made


@pytest.fixture
def by_path(tmp_path):
    with listening(str(tmp_path / "n")) as made:
        yield made


def write_config(folder, ports, period_s=0.05):
    path = folder / "gateway.toml"
    text = '[gateway]\nid = "gw1"\ncorridor = "c"\nsite = "s"\n'
    text += '[mqtt]\nurl = "mqtt://127.0.0.1:1"\n[spool]\ncommit_s = 0.1\n'
    for name, port in ports.items():
        text += f'[[link]]\nname = "{name}"\nurl = "tcp://127.0.0.1:{port}"\ntimeout_s = 0.1\nturnaround_s = 0.001\n'
        text += f'[[device]]\nname = "d{name}"\nlink = "{name}"\nperiod_s = {period_s}\n'
        text += '[[device.point]]\nname = "v"\nfunction = "holding"\naddress = 0\ntype = "uint16"\n'
    path.write_text(text)
    return path


@contextlib.contextmanager
def gateway(folder, listener, config, kind="none"):
    """Run a gateway that speaks to the listener."""
    log = folder / "run.log"
    environment = {**os.environ, "NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
    arguments = [
        sys.executable,
        "-c",
        FAULTY,
        kind,
        str(folder / "wish"),
        "run",
        str(config),
        "--state",
        str(folder / "gw"),
    ]
    with log.open("ab") as out:
        child = subprocess.Popen(arguments, stdout=out, stderr=out, env=environment)
    try:
        yield child
    finally:
        child.send_signal(
            signal.SIGTERM if kind == "none" else signal.SIGKILL
        )  # what a stuck one meets in the field, too
        child.wait(20)


@contextlib.contextmanager
def meters(folder, config):
    """Meters in a process of their own."""
    with processes.corridor("sim", config, log=folder / "sim.log") as child:
        until(lambda: "simulating" in (folder / "sim.log").read_text(), "the meters")
        yield child


def test_a_gateway_tells_its_whole_life(tmp_path, listener):
    config = write_config(tmp_path, {"a": free_port()})
    with meters(tmp_path, config), gateway(tmp_path, listener, config) as child:
        until(lambda: listener.count("READY=1"), "READY")
        until(lambda: listener.count("WATCHDOG=1") >= 3, "three feeds")
        until(lambda: listener.says("STATUS=polling 1 devices on 1 links, 0 down; broker away; spool ok"), "a status")
        config.write_text(config.read_text().replace("[spool]", "[clock]\nhold_s = 0.5\n[spool]"))
        found = control.ask(tmp_path / "gw", "reload", 20.0)
        assert found["changes"] == ["clock: hold_s: 0.0 -> 0.5"]
        until(lambda: listener.count("READY=1") == 2, "READY again")
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
        heard = [message for message in listener.heard if not message[0].startswith(("STATUS", "WATCHDOG"))]
    assert [message[0] for message in heard] == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", heard[1][1])


def test_a_meter_that_freezes_or_is_away_is_no_lack_of_progress(tmp_path, by_path):
    config = write_config(tmp_path, {"a": free_port(), "b": free_port()})
    with meters(tmp_path, config) as sim, gateway(tmp_path, by_path, config):
        until(lambda: by_path.count("READY=1"), "READY")
        sim.send_signal(signal.SIGSTOP)
        try:
            until(lambda: by_path.says("STATUS=.* 2 down"), "both links down")
            n = by_path.count("WATCHDOG=1")
            until(lambda: by_path.count("WATCHDOG=1") >= n + FEEDS, "feeds while nobody answers")
        finally:
            sim.send_signal(signal.SIGCONT)
        until(lambda: by_path.says("STATUS=.* 0 down"), "both links up")


def test_it_is_ready_when_nobody_answers_too(tmp_path, by_path):
    config = write_config(tmp_path, {"a": 1}, period_s=600.0)
    with gateway(tmp_path, by_path, config):
        until(lambda: by_path.count("READY=1"), "READY")
        until(lambda: by_path.count("WATCHDOG=1") >= FEEDS, "feeds between two polls")


@pytest.mark.parametrize(("kind", "what"), [("poll", "link 'a'"), ("commit", "commit")])
def test_what_is_stuck_is_not_covered_by_what_goes_on(tmp_path, by_path, kind, what):
    config = write_config(tmp_path, {"a": free_port(), "b": free_port()})
    with meters(tmp_path, config), gateway(tmp_path, by_path, config, kind):
        until(lambda: by_path.count("WATCHDOG=1") >= 3 and by_path.says("STATUS=polling 2"), "feeds")
        (tmp_path / "wish").touch()
        until(lambda: by_path.says(f"STATUS=no progress: {what}$"), "the fault to be noticed")
        n = by_path.count("WATCHDOG=1")
        with pytest.raises(AssertionError):
            until(lambda: by_path.count("WATCHDOG=1") > n, "a feed", 3 * WATCHDOG_S)
    assert f"{what}: no progress; the watchdog is not fed" in (tmp_path / "run.log").read_text()


def test_a_watchdog_of_somebody_else_is_not_fed():
    ours = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000"}
    assert Supervisor(ours).feed_s == 15.0
    assert Supervisor({**ours, "WATCHDOG_PID": str(os.getpid())}).feed_s == 15.0
    assert Supervisor({**ours, "WATCHDOG_PID": "1"}).feed_s is None
    assert Supervisor({**ours, "WATCHDOG_USEC": "x"}).feed_s is None
    assert Supervisor({"WATCHDOG_USEC": "30000000"}).feed_s is None
    Supervisor(ours).tell("READY=1")  # nobody there: nothing happens
    Supervisor({}).tell("READY=1")


def test_only_what_has_something_to_do_can_be_stuck():
    watch = Watch()

    def stuck(now_s, mark, due_s=0.0, allowed_s=5.0):
        due_ns = NEVER_NS if due_s is None else round(due_s * NS)
        return watch.stuck([Pulse("one", due_ns, mark, round(allowed_s * NS))], round(now_s * NS))

    assert stuck(100, 1) == []
    assert stuck(105, 1) == []
    assert stuck(106, 1) == ["one"]
    assert stuck(107, 2) == []  # it got on
    assert stuck(120, 2, due_s=700) == []  # it rests
    assert stuck(690, 2, due_s=700) == []
    assert stuck(704, 2, due_s=700) == []  # due, but not for long
    assert stuck(706, 2, due_s=700) == ["one"]
    assert stuck(800, 2, due_s=None) == []


async def test_ready_waits_for_first_polls_but_not_for_one_that_is_due_much_later():
    devices = [build.device(f"d{i}", [build.tag(p) for p in build.registers(1)], link=f"l{i}") for i in range(2)]
    acquisition = Acquisition(plan(build.gateway(devices)), FakeClock())
    one, other = acquisition.pollers.values()
    one.due_ns = other.due_ns = 20_000_000
    assert not has_begun(acquisition)
    one.turns = 1
    assert not has_begun(acquisition)
    other.due_ns = 300 * NS
    assert has_begun(acquisition)
    other.due_ns, one.turns = 20_000_000, 0
    acquisition.links["l0"].counters.answers = 1
    assert not has_begun(acquisition)
    acquisition.polls["l0"].done = 1
    assert has_begun(acquisition)


def test_what_a_busy_supervisor_does_not_take_at_once_is_said_later(tmp_path):
    busy = Listener(str(tmp_path / "n"))
    with busy.socket:
        supervisor = Supervisor({"NOTIFY_SOCKET": busy.address})
        room = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
        said = [f"STATUS={k}".encode() for k in range(room + 3)]
        for line in said:
            supervisor.tell(line.decode())
        supervisor.tell("READY=1")
        busy.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while found := busy.socket.recv(100):
                assert found == said.pop(0)
        assert said
        supervisor.tell("STOPPING=1")
        assert [busy.socket.recv(100) for _ in range(len(said) + 2)] == [*said, b"READY=1", b"STOPPING=1"]


async def test_without_a_supervisor_nobody_looks():
    assert await asyncio.wait_for(Supervisor({}).attend(None, None, None, None), 1) is None
