"""The words that a test speaks: bench.link("bus0").cut(), bench.device("ft-101").silence(), bench.broker.stop()."""

from __future__ import annotations

import contextlib
import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from drivers.sim.faults import FaultScript, parse
from gateway.demo.fleet import meters
from gateway.model.config import load_gateway
from gateway.model.corridor import Device, GatewaySpec
from gateway.wire.topics import GatewayAddress
from hil_tests.rig import CannotDo, Rig, Wired, run
from hil_tests.simulated import Loop, Simulated
from hil_tests.uplink import uplink
from hil_tests.watch import Watch
from tests import servers
from tests.processes import corridor

T = TypeVar("T")
KEYS: Final = ("name", "kind", "gateway", "strict", "redial_s", "needs", "broker")
TABLES: Final = ("bench", "fault", "link", "device", "broker", "expect")
COMMIT: Final = re.compile(rb"COMMIT boot=(\d+) seq=(\d+)")


class BenchError(Exception):
    """A bench file that cannot be used."""


@dataclass(frozen=True, slots=True)
class BenchFile:
    """What a bench file says.

    gateway   text of its gateway.toml, a template: $broker, $folder, $port_<link>
    strict    whether a measurement beyond its limit fails the test
    redial_s  how long after a lost connection the next attempt is permitted at the latest
    needs     paths without which the bench is not there
    commands  how real links, devices and the broker are handled
    expect    device -> tag -> (low, high): what a right reading is where no value can be pinned
    """

    name: str
    kind: str
    folder: Path
    gateway: str
    strict: bool
    redial_s: float
    needs: tuple[str, ...]
    broker: str
    script: FaultScript
    commands: Mapping[str, Any]
    expect: Mapping[str, Mapping[str, tuple[float, float]]]

    @property
    def links(self) -> list[str]:
        """The links of its gateway."""
        return [link["name"] for link in tomllib.loads(self.gateway)["link"]]

    @property
    def sound_links(self) -> list[str]:
        """The links without a device that misbehaves by itself."""
        faulty = {fault.device for fault in self.script.faults}
        noisy = {device["link"] for device in tomllib.loads(self.gateway)["device"] if device["name"] in faulty}
        return [link for link in self.links if link not in noisy]

    def absent(self) -> list[str]:
        """Return what of this bench is not here."""
        return [path for path in self.needs if not Path(path).exists()]


def load(path: Path) -> BenchFile:
    """Return what a bench file says; raises BenchError."""
    try:
        table = tomllib.loads(path.read_text())
        about = table["bench"]
        unknown = [key for key in table if key not in TABLES] + [key for key in about if key not in KEYS]
        if unknown:
            raise BenchError(f"{path}: unknown key {', '.join(unknown)}, wanted of {', '.join((*TABLES, *KEYS))}")
        if about["kind"] not in ("simulated", "hardware"):
            raise BenchError(f"{path}: kind: got {about['kind']!r}, wanted simulated or hardware")
        return BenchFile(
            name=about["name"],
            kind=about["kind"],
            folder=path.parent,
            gateway=(path.parent / about["gateway"]).read_text(),
            strict=about.get("strict", False),
            redial_s=about.get("redial_s", 1.0),
            needs=tuple(about.get("needs", ())),
            broker=about.get("broker", "own"),
            script=parse({"fault": table.get("fault", [])}, str(path)),
            commands={key: table[key] for key in ("link", "device", "broker") if key in table},
            expect={
                d: {t: (low, high) for t, (low, high) in tags.items()} for d, tags in table.get("expect", {}).items()
            },
        )
    except (OSError, KeyError, ValueError) as error:
        raise BenchError(f"{path}: {error!r}") from None


class Broker(Protocol):
    """The broker between gateway and watch."""

    url: str

    def stop(self) -> None:
        """End it; what its subscribers had not fetched is kept."""
        ...

    def start(self) -> None:
        """Start it again where it was; returns when it accepts connections."""
        ...


class OwnBroker:
    """A mosquitto of the bench's own, on a port that the kernel chose; sessions survive a restart."""

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        self.url = f"mqtt://127.0.0.1:{server.port}"

    def stop(self) -> None:
        """End it with SIGTERM."""
        self._server.stop()

    def start(self) -> None:
        """Start it on the same port."""
        self._server.start()


class OtherBroker:
    """A broker at an address, with commands to stop and start it where the bench file has some."""

    def __init__(self, url: str, folder: Path, commands: Mapping[str, list[str]]) -> None:
        self.url = url
        self._folder = folder
        self._commands = commands

    def stop(self) -> None:
        """Run `stop`."""
        if not {"stop", "start"} <= self._commands.keys():
            raise CannotDo(f"no commands 'stop' and 'start' for the broker at {self.url}")
        run(self._commands["stop"], self._folder)

    def start(self) -> None:
        """Run `start`."""
        run(self._commands["start"], self._folder)


class Gateway:
    """The gateway under test: `corridor run` as a child process, with its log and its state."""

    def __init__(self, config: Path, folder: Path) -> None:
        self.config = config
        self.state = folder / "state"
        self.log = folder / "gateway.log"
        self._running = contextlib.ExitStack()
        self._child: Any = None
        self._is_killed = False

    def start(self) -> None:
        """Start it; its spool goes on where the last run ended."""
        self._is_killed = False
        self._child = self._running.enter_context(
            corridor("run", self.config, "--state", self.state, log=self.log, CORRIDOR_PRINT_COMMITS="1")
        )

    @property
    def pid(self) -> int:
        """The number of its process."""
        return int(self._child.pid)

    def kill(self) -> None:
        """End it as a power cut would, SIGKILL."""
        self._is_killed = True
        self._child.kill()
        self._child.wait()
        self._running.close()

    def stop(self) -> None:
        """End it as a supervisor would, SIGTERM; one that does not end well by itself fails the test."""
        self._running.close()
        if self._child is not None and not self._is_killed:
            tail = self.log.read_text(errors="replace")[-2000:]
            assert self._child.returncode == 0, f"after SIGTERM: exit code {self._child.returncode}\n{tail}"

    @property
    def is_running(self) -> bool:
        """Return whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def resources(self) -> dict[str, int]:
        """Return how many descriptors and threads it has, and its resident memory in kB."""
        process = Path(f"/proc/{self._child.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return {
            "descriptors": len(list((process / "fd").iterdir())),
            "threads": int(status["Threads"]),
            "resident_kb": int(status["VmRSS"].split()[0]),
        }

    def committed(self) -> dict[int, int]:
        """Return the last frame of each boot that it said was on the disk."""
        out: dict[int, int] = {}
        for boot, seq in COMMIT.findall(self.log.read_bytes()) if self.log.exists() else ():
            out[int(boot)] = int(seq)
        return out


@dataclass(frozen=True, slots=True)
class BenchLink:
    """One link of the bench."""

    name: str
    rig: Rig

    def cut(self) -> None:
        """Take it away."""
        self.rig.cut(self.name)

    def restore(self) -> None:
        """Give it back."""
        self.rig.restore(self.name)


@dataclass(frozen=True, slots=True)
class BenchDevice:
    """One device of the bench: what the gateway is told of it, and how a test handles it."""

    spec: Device
    rig: Rig

    @property
    def period_s(self) -> float:
        """Its slowest period."""
        return max(tag.period_s for tag in self.spec.tags)

    def silence(self) -> None:
        """Let it answer nothing."""
        self.rig.silence(self.spec.name)

    def wake(self) -> None:
        """Let it answer again."""
        self.rig.wake(self.spec.name)


@dataclass(slots=True)
class Bench:
    """Meters, links, a broker, a watch on it, and the gateway, which a test starts when it is ready."""

    file: BenchFile
    spec: GatewaySpec
    rig: Rig
    broker: Broker
    watch: Watch
    gateway: Gateway
    loop: Loop
    stack: contextlib.ExitStack
    pinned: dict[tuple[str, str], float | None] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The names of all devices."""
        return {device.name for device in self.spec.devices}

    def link(self, name: str) -> BenchLink:
        """Return a link."""
        if name not in {link.name for link in self.spec.links}:
            raise CannotDo(f"bench {self.file.name} has no link '{name}'")
        return BenchLink(name, self.rig)

    def device(self, name: str) -> BenchDevice:
        """Return a device."""
        for device in self.spec.devices:
            if device.name == name:
                return BenchDevice(device, self.rig)
        raise CannotDo(f"bench {self.file.name} has no device '{name}'")

    def devices(self, link: str | None = None) -> list[BenchDevice]:
        """Return the devices of a link, or all."""
        return [BenchDevice(d, self.rig) for d in self.spec.devices if link is None or d.link == link]

    def value(self, device: str, tag: str, value: float | None) -> None:
        """Pin what a meter shows, None: not available."""
        self.device(device)
        self.rig.pin(device, tag, value)
        self.pinned[device, tag] = value

    def slow_uplink(self, delay_s: float) -> None:
        """Put a line that delays every byte between gateway and broker, before the gateway is started."""
        url = urlsplit(self.broker.url)
        if url.scheme != "mqtt":
            raise CannotDo(f"bench {self.file.name}: the way to {self.broker.url} cannot be slowed, wanted mqtt://")
        port = self._entered(uplink(url.hostname or "", url.port or 1883, delay_s))
        text = self.gateway.config.read_text()
        self.gateway.config.write_text(text.replace(self.broker.url, f"mqtt://127.0.0.1:{port}"))

    def _entered(self, context: contextlib.AbstractAsyncContextManager[T]) -> T:
        """Enter a context on the bench's loop until the bench is put away."""
        entered = self.loop.call(context.__aenter__())
        self.stack.callback(lambda: self.loop.call(context.__aexit__(None, None, None)))
        return entered

    def scripted(self, device: str, kind: str) -> None:
        """Go on only if this device acts that fault out by itself."""
        if not any((f.device, f.kind) == (device, kind) for f in self.file.script.faults):
            raise CannotDo(f"bench {self.file.name}: no device '{device}' that acts out '{kind}'")


@contextlib.contextmanager
def opened(file: BenchFile, folder: Path) -> Iterator[Bench]:
    """Make a bench ready: broker up, meters answering, watch subscribed, gateway configured but not started."""
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(Loop())
        if file.broker == "own":
            broker: Broker = OwnBroker(stack.enter_context(servers.mosquitto(folder / "broker", keeps_sessions=True)))
        else:
            broker = OtherBroker(file.broker, file.folder, file.commands.get("broker", {}))
        config = folder / "gateway.toml"
        rig: Rig
        if file.kind == "simulated":
            spec = _configure(file, config, broker.url, {name: i for i, name in enumerate(file.links, 1)})
            rig = simulated = stack.enter_context(Simulated(loop, meters([spec]), file.script))
            spec = _configure(file, config, broker.url, simulated.ports)
        else:
            spec = _configure(file, config, broker.url, {})
            rig = Wired(file.name, file.folder, file.commands)
        watch = stack.enter_context(Watch(loop, broker.url, GatewayAddress(spec.corridor, spec.site, spec.id)))
        uplinks = stack.enter_context(contextlib.ExitStack())
        gateway = Gateway(config, folder)
        stack.callback(gateway.stop)
        yield Bench(file, spec, rig, broker, watch, gateway, loop, uplinks)


def _configure(file: BenchFile, path: Path, broker: str, ports: Mapping[str, int]) -> GatewaySpec:
    """Write gateway.toml with the bench's addresses filled in, and return what it says."""
    words = {"broker": broker, "folder": str(path.parent), **{f"port_{name}": port for name, port in ports.items()}}
    path.write_text(string.Template(file.gateway).safe_substitute(words))
    return load_gateway(path)
