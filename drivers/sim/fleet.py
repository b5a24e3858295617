"""All simulated meters of a configuration behind real Modbus, with faults on schedule and a log of the truth."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from drivers.encode import can_be_absent
from drivers.points import Point
from drivers.sim.bus import PtyEndpoint
from drivers.sim.device import MeterSpec, Snapshot, Value, refusal
from drivers.sim.faults import Fault, FaultScript, FaultsError, Running, distort
from drivers.sim.hostile import HOWS
from drivers.sim.physics import Quantity
from drivers.sim.plants.place import World
from drivers.sim.play import Misbehaviour
from drivers.sim.server import Reply, ServerTls, SimError, SocketEndpoint
from drivers.sim.signals import key_of, uniform
from drivers.sim.truth import Injected, Truth
from drivers.sim.wiring import Device, Line, wire

TICK_S: Final = 0.5  # the truth is flushed, and a closed endpoint tried again, at least this often
NOISE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class SimClock:
    """Where a simulation takes its time from: stamps from the wall clock, everything else from the steady one."""

    wall_ns: Callable[[], int] = time.time_ns
    steady_s: Callable[[], float] = time.monotonic


class Fleet:
    """Simulated meters that answer from `async with` on until it ends.

    seed      the same seed and time give the same values
    truth     where to log what was served; None: nowhere
    script    faults and anomalies, relative to the start
    tls       the server's certificate; without it a tls link is refused
    is_paced  a serial bus takes as long as its line would
    operations  whether operators work in the plants, see World
    Raises SimError, with every error at once, for meters that cannot be served together, and FaultsError for a script
    that does not fit them.
    """

    def __init__(
        self,
        meters: Iterable[MeterSpec],
        *,
        seed: int = 1,
        truth: Path | None = None,
        script: FaultScript | None = None,
        tls: ServerTls | None = None,
        is_paced: bool = False,
        operations: bool = False,
        clock: SimClock | None = None,
    ) -> None:
        specs = list(meters)
        self._script = script or FaultScript()
        if wrong := self._script.check(specs):
            raise FaultsError(wrong)
        self._clock = clock or SimClock()
        self._start_s, self._start_ns = self._clock.steady_s(), self._clock.wall_ns()
        self._world = World(seed, self._start_ns / 1e9, operations)
        self._truth_path = truth
        self._truth = Truth(None)
        self._running: dict[int, Running] = {}
        self._next_edge = 0.0
        self._bug: Exception | None = None
        self._tasks = asyncio.TaskGroup()
        self._workers: list[asyncio.Task[None]] = []
        self._lines = wire(specs, self._world, self._respond, tls, is_paced=is_paced)
        self._devices = {device.spec.name: device for line in self._lines for device in line.units.values()}
        for i, fault in enumerate(self._script.faults):
            for device in self._reached(fault):
                device.faults.append(i)

    @property
    def ports(self) -> dict[str, int]:
        """The port of every link on a socket, by the link's name."""
        return {
            device.spec.link.name: line.endpoint.port
            for line in self._lines
            for device in line.units.values()
            if isinstance(line.endpoint, SocketEndpoint)
        }

    def anomalies(self) -> list[Injected]:
        """Return the faults and anomalies that are over, in the order in which they ended."""
        return list(self._truth.injected)

    def statistics(self) -> dict[str, Any]:
        """Return what was served so far: requests, exceptions by device, connections by link on a socket, values."""
        return {
            "requests": Counter({name: device.requests for name, device in self._devices.items()}),
            "exceptions": Counter({name: device.exceptions for name, device in self._devices.items()}),
            "connections": {
                device.spec.link.name: line.endpoint.accepted
                for line in self._lines
                for device in line.units.values()
                if isinstance(line.endpoint, SocketEndpoint)
            },
            "values": self._truth.n_values,
            "injected": len(self._truth.injected),
        }

    def set_value(self, device: str, tag: str, value: float | None) -> None:
        """Pin a tag to a value (None: not available) until `clear_value`; faults do not touch it."""
        found = self._device(device)
        if tag not in found.quantities:
            raise KeyError(f"device '{device}' has no tag '{tag}'")
        found.pins[tag] = value

    def clear_value(self, device: str, tag: str) -> None:
        """Let a pinned tag move again."""
        self._device(device).pins.pop(tag, None)

    def count_reads(self, device: str, tag: str) -> None:
        """Let a tag show the number of the read, as the truth has it: no two answers of the device are equal."""
        found = self._device(device)
        if tag not in found.quantities:
            raise KeyError(f"device '{device}' has no tag '{tag}'")
        found.quantities[tag] = Quantity(lambda _: found.seq + 1.0, 0.0, False)

    def set_scan_list(self, device: str, entries: Sequence[int]) -> None:
        """Write the scan list of a device as an installer does; what is not given is empty."""
        meter = self._device(device).meter
        meter.entries = [*entries, *[0] * (len(meter.entries) - len(entries))]

    def silence(self, device: str) -> None:
        """Let a device answer nothing until `wake`."""
        found = self._device(device)
        found.silent_ns = found.silent_ns or self._clock.wall_ns()

    def wake(self, device: str) -> None:
        """Let a silenced device answer again."""
        found = self._device(device)
        if found.silent_ns is not None:
            self._truth.happened(Injected("silent", "manual", device, "", found.silent_ns, self._clock.wall_ns()))
            found.silent_ns = None

    async def cut(self, link: str) -> None:
        """Drop a link's connections and stop listening (a bus: unplug its adapter) until `restore`."""
        line = self._line(link)
        if "manual" not in line.down:
            line.down.add("manual")
            line.cut_ns = self._clock.wall_ns()
        await self._settle(line)

    async def restore(self, link: str) -> None:
        """Listen again."""
        line = self._line(link)
        if "manual" in line.down:
            line.down.discard("manual")
            self._truth.happened(Injected("refuse", "manual", "", "", line.cut_ns, self._clock.wall_ns()))
        await self._settle(line)

    async def __aenter__(self) -> Fleet:
        """Open every endpoint; raises SimError with all that failed, and leaves nothing open then."""
        self._truth = _open_truth(self._truth_path)
        wrong: list[str] = []
        for line in self._lines:
            try:
                await line.endpoint.open()
                line.is_open = True
            except SimError as error:
                wrong += error.lines
        if wrong:
            await self._close()
            raise SimError(wrong)
        await self._tasks.__aenter__()
        for line in self._lines:
            if isinstance(line.endpoint, PtyEndpoint):
                self._workers.append(self._tasks.create_task(line.endpoint.run(), name=f"sim:{line.name}"))
        self._workers.append(self._tasks.create_task(self._conduct(), name="sim:conduct"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up everywhere, log what was going on, close the log."""
        try:
            for task in self._workers:
                task.cancel()
            # An error of the body is the caller's own; only a cancellation may be the group's way to tell of its own.
            passed = error if isinstance(error, asyncio.CancelledError) else None
            await self._tasks.__aexit__(type(passed) if passed else None, passed, trace if passed else None)
        finally:
            await self._close()
        if self._bug and error is None:
            raise self._bug

    async def _close(self) -> None:
        await asyncio.gather(*(line.endpoint.close() for line in self._lines))
        now_ns = self._clock.wall_ns()
        for running in self._running.values():
            self._log(running, min(now_ns, self._ns(running.begins_s + running.fault.duration_s)))
        for name, device in self._devices.items():
            if device.silent_ns is not None:
                self._truth.happened(Injected("silent", "manual", name, "", device.silent_ns, now_ns))
        for line in self._lines:
            if "manual" in line.down:
                self._truth.happened(Injected("refuse", "manual", "", "", line.cut_ns, now_ns))
        self._running.clear()
        self._truth.close()

    async def _conduct(self) -> None:
        """Begin and end faults on time, keep endpoints as they should be, flush the truth."""
        while True:
            if self._bug:
                raise self._bug
            t = self._now()
            self._advance(t)
            for line in self._lines:
                await self._settle(line)
            self._truth.flush()
            await asyncio.sleep(max(0.0, min(TICK_S, self._next_edge - self._now())))

    async def _settle(self, line: Line) -> None:
        """Open or close an endpoint as it should be; one that cannot open yet is tried again at the next tick."""
        async with line.lock:
            if line.down and line.is_open:
                line.is_open = False
                await line.endpoint.close()
            elif not line.down and not line.is_open:
                try:
                    await line.endpoint.open()
                    line.is_open = True
                except SimError:
                    return

    def _now(self) -> float:
        return self._clock.steady_s() - self._start_s

    def _ns(self, t: float) -> int:
        return self._start_ns + round(t * 1e9)

    def _advance(self, t: float) -> None:
        """Bring the running faults up to t."""
        if t < self._next_edge:
            return
        for i, fault in enumerate(self._script.faults):
            n, running = fault.occurrence(t), self._running.get(i)
            if running and running.n != n:
                del self._running[i]
                self._log(running, self._ns(running.begins_s + fault.duration_s))
                self._reach(i, fault, begins=False)
            if n is not None and i not in self._running:
                self._running[i] = Running(fault, n, fault.begins(n))
                self._reach(i, fault, begins=True)
        self._next_edge = min((fault.next_edge(t) for fault in self._script.faults), default=float("inf"))

    def _reach(self, i: int, fault: Fault, *, begins: bool) -> None:
        """Take a link down, or let it up again, for a fault that is about the link."""
        if fault.reach != "link":
            return
        line = self._line(self._device(fault.device).spec.link.name)
        if fault.kind == "cut" and begins:
            line.endpoint.drop()
        elif fault.kind == "refuse" and begins:
            line.down.add(f"fault {i}")
        elif fault.kind == "refuse":
            line.down.discard(f"fault {i}")

    def _log(self, running: Running, end_ns: int) -> None:
        fault = running.fault
        start_ns = self._ns(running.begins_s)
        self._truth.happened(Injected(fault.kind, fault.name, fault.device, fault.tag, start_ns, end_ns))

    def _respond(self, units: dict[int, Device], unit: int, request: bytes) -> Reply:
        """Return what comes back to a request; a bug in it ends the fleet, not only one connection."""
        try:
            return self._reply(units, unit, request)
        except Exception as error:
            self._bug = error
            raise

    def _reply(self, units: dict[int, Device], unit: int, request: bytes) -> Reply:
        device = units.get(unit)
        if device is None:
            return Reply(None, is_known=False)
        t = self._now()
        self._advance(t)
        running = [self._running[i] for i in device.faults if i in self._running]
        device.requests += 1
        kinds = {each.fault.kind: each.fault for each in running}
        if device.silent_ns is not None or "silent" in kinds:
            return Reply(None)
        if "cut" in kinds or "refuse" in kinds:
            return Reply(None, cut=True)
        delay_s = _delay_s(kinds.get("slow"), device.requests)
        if refused := kinds.get("exception"):
            device.exceptions += 1
            return Reply(refusal(request[0], int(refused.parameter("code") or 0)).pdu, delay_s=delay_s)
        answer = device.meter.answer(request, self._snapshot(device, running, t))
        if garbage := kinds.get("garbage"):
            key = key_of(self._world.seed, garbage.name, device.spec.name)
            if uniform(key, device.requests) < (garbage.parameter("share") or 0.0):
                noise = _noise(key, device.requests, is_rtu="rtu" in device.spec.link.transport)
                return Reply(answer.pdu, delay_s=delay_s, noise=noise)
        if answer.is_exception:
            device.exceptions += 1
        else:
            device.seq += 1
            device.last.update(answer.served)
            self._truth.served(self._clock.wall_ns(), device.spec.name, device.seq, answer.served)
        wrong = self._wrong(device, [each for each in running if each.fault.kind == "hostile"], t)
        return Reply(answer.pdu, delay_s=delay_s, wrong=wrong)

    def _wrong(self, device: Device, running: list[Running], t: float) -> Misbehaviour | None:
        """Return what goes wrong on the wire with this answer; of several, the last of the script."""
        found = None
        for each in running:
            fault = each.fault
            key = key_of(self._world.seed, fault.name, device.spec.name)
            if uniform(key, device.requests) < (fault.parameter("share") or 0.0):
                delay_s = fault.parameter("delay_s")
                delay_s = (HOWS[fault.how].delay_s or 0.0) if delay_s is None else delay_s
                left_s = each.begins_s + fault.duration_s - t
                found = Misbehaviour(fault.how, delay_s, left_s, each.reads, key ^ device.requests)
                each.reads += 1
        return found

    def _snapshot(self, device: Device, running: list[Running], t: float) -> Snapshot:
        """Return what every point of the device shows at t."""
        now_s, pins, signals = self._world.origin_s + t, device.pins, device.quantities
        on_tags = [each for each in running if each.fault.reach == "tag" or each.fault.kind == "nan"]

        def healthy(point: Point) -> Value:
            if point.is_text:
                return device.texts[point.name]
            name = point.name
            return pins[name] if name in pins else signals[name].at(now_s)

        if not on_tags:
            return healthy

        def distorted(point: Point) -> Value:
            value = healthy(point)
            if not isinstance(value, float | int) or point.name in pins:
                return value
            shown: float | None = float(value)
            for each in on_tags:
                tag = each.fault.tag
                if shown is not None and (tag == point.name or (not tag and can_be_absent(point))):
                    last = device.last.get(point.name)
                    shown = distort(each, point, shown, signals[point.name].sigma, t, last)
            return shown

        return distorted

    def _reached(self, fault: Fault) -> Iterable[Device]:
        """Return the devices that a fault is about: its own, and for a link fault all of that link."""
        own = self._device(fault.device)
        return self._line(own.spec.link.name).units.values() if fault.reach == "link" else (own,)

    def _device(self, name: str) -> Device:
        if name not in self._devices:
            near = difflib.get_close_matches(name, self._devices, 1)
            raise KeyError(f"no device '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        return self._devices[name]

    def _line(self, link: str) -> Line:
        for line in self._lines:
            if any(device.spec.link.name == link for device in line.units.values()):
                return line
        raise KeyError(f"no link '{link}'")


def _open_truth(path: Path | None) -> Truth:
    try:
        return Truth(path)
    except OSError as error:
        raise SimError([f"{path}: cannot be written: {error.strerror}"]) from None


def _delay_s(slow: Fault | None, n: int) -> float:
    if slow is None:
        return 0.0
    return (slow.parameter("delay_s") or 0.0) + (slow.parameter("jitter_s") or 0.0) * uniform(key_of(0, slow.name), n)


def _noise(key: int, n: int, *, is_rtu: bool) -> bytes:
    """Return random bytes; for RTU every other time nothing, which stands for a wrong CRC."""
    if is_rtu and n % 2:
        return b""
    return bytes(int(256 * uniform(key, n * NOISE_BYTES + i)) for i in range(1, NOISE_BYTES + 1))


async def serve(meters: Iterable[MeterSpec], *, ready: Callable[[Fleet], None] | None = None, **settings: Any) -> None:
    """Serve until cancelled; `ready` is called with the fleet once every endpoint is open. Settings as of Fleet."""
    async with Fleet(meters, **settings) as fleet:
        if ready:
            ready(fleet)
        await asyncio.Event().wait()
