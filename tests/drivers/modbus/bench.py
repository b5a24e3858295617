"""A bench for hostile meters: registers that tell where and when they were read, and a judge of a link that reads them.

A link is judged by its public face alone: what `read` returns or raises, and what it leaves behind.
"""

import asyncio
import collections
import contextlib
import contextvars
import gc
import itertools
import random
from dataclasses import dataclass, replace
from pathlib import Path

from drivers.blocks import Block
from drivers.errors import DeviceException, DriverError, LinkDown, NoAnswer, WrongAnswer
from drivers.link import LinkSpec, SerialLine
from drivers.modbus import open_link
from drivers.sim.bus import PtyEndpoint
from drivers.sim.device import Answer, refusal
from drivers.sim.play import Misbehaviour
from drivers.sim.server import Reply, ServerTls, SocketEndpoint
from drivers.sim.signals import uniform
from tests import certificates

TIMEOUT_S = 0.15
TLS_TIMEOUT_S = 0.5  # a handshake takes 10 ms, on a busy machine with others at the same time much more
MARGIN_S = 1.0  # beyond what a read may take: a busy machine, not a design
N_WAITS = 4  # of one read, each at most a time-out: dial, silence, fence, answer
POLL_S = 1.1  # between polls: the link dials at most once a second
MAX_UNTOLD = 10  # attempts that may not count for that
STALL_S = 0.02  # the loop of the test itself was late by this at once: what it measured meanwhile says nothing
STALL_SHARE = 0.25  # nor where it was late, a little each time, for a quarter of the read

LEAVES = (LinkDown, NoAnswer, WrongAnswer, DeviceException)

# Same unit and size side by side, sizes that differ by one, coils whose request looks like an answer to it: 01 03 ..
A, B = (1, Block(3, 0x10, 2)), (1, Block(3, 0x20, 2))
C, D = (1, Block(3, 0x30, 3)), (1, Block(4, 0x12, 3))
OTHER = (2, Block(3, 0x10, 2))
COILS, COILS_TOO = (1, Block(1, 0x0310, 20, 0)), (1, Block(1, 0x0340, 20, 0))
SINGLE, BITS, LARGE = (1, Block(3, 0x40, 1)), (2, Block(2, 0x05, 9, 0)), (1, Block(3, 0x50, 20))
CALM = (A, B, COILS, OTHER)
TROUBLED = (A, B, B, A, COILS, COILS, COILS_TOO, C, D, C, OTHER, A, SINGLE, B, BITS, LARGE, A)

SCENE: contextvars.ContextVar[str] = contextvars.ContextVar("SCENE", default="?")


def image(unit, function, start, count, generation):
    """Return the payload of a block at a generation: every register tells its unit, address and generation."""
    if function <= 2:
        bits = sum((uniform(8 * generation + 4 * (unit & 1) + function, start + i) < 0.5) << i for i in range(count))
        return bits.to_bytes((count + 7) // 8, "little")
    shift = 0x40 if function == 4 else 0
    return b"".join(bytes(((unit & 1) << 7 | (start + i + shift) & 0x7F, generation & 0xFF)) for i in range(count))


def request_of(block):
    """Return the request PDU of a block."""
    return bytes((block.function,)) + block.start.to_bytes(2, "big") + block.count.to_bytes(2, "big")


class Meters:
    """All units of a line; every request raises the generation that its registers show.

    asked   (generation, unit, function, start, count) of every request
    forged  (unit, request, payload) of well-formed answers that went out instead of the right one: no reader can tell
    wrong   what goes wrong with an answer: (unit, right answer) -> Misbehaviour or None
    """

    def __init__(self):
        self.generation = 0
        self.asked = []
        self.forged = set()
        self.wrong = lambda unit, answer: None

    def respond(self, unit, request):
        """Answer any read of any address."""
        self.generation += 1
        function, start, count = request[0], *(int.from_bytes(request[i : i + 2], "big") for i in (1, 3))
        if len(request) != 5 or function not in (1, 2, 3, 4) or not 1 <= count <= (125 if function > 2 else 2000):
            return Reply(refusal(function, 3).pdu)
        self.asked.append((self.generation, unit, function, start, count))
        payload = image(unit, function, start, count, self.generation)
        answer = Answer(bytes((function, len(payload))) + payload)
        return Reply(answer.pdu, wrong=self.wrong(unit, answer.pdu))

    def is_right(self, unit, block, payload, since):
        """Return whether a payload is what this block showed at a request later than a generation, or was forged."""
        what = (unit, block.function, block.start, block.count)
        if (unit, request_of(block), payload) in self.forged:
            return True
        return any(
            payload == image(*what, generation)
            for generation, *asked in self.asked
            if generation > since and tuple(asked) == what
        )

    def origin(self, unit, block, payload):
        """Return where a wrong payload is from."""
        for generation, *what in reversed(self.asked):
            if payload == image(*what, generation):
                return f"unit {what[0]} function {what[1]} at {what[2]:#x} x {what[3]}, generation {generation}"
        return "nowhere"


@dataclass(frozen=True)
class Fault:
    """What a row puts on the wire: the way, its delay, and whether only the first answer goes wrong."""

    how: str
    delay_s: float
    is_once: bool
    left_s: float = 3 * TIMEOUT_S

    def on(self, meters):
        """Let the meters go wrong from now on; returns what counts how often they did."""
        count = itertools.count()
        met = []

        def wrong(unit, answer):
            if self.is_once and met:
                return None
            met.append(n := next(count))
            return Misbehaviour(self.how, self.delay_s, self.left_s, n, seed=n)

        meters.wrong = wrong
        return met


@contextlib.asynccontextmanager
async def serving(transport, meters, folder, certificate=None):
    """Serve meters on one transport; yields the specification of a link to them."""
    spec = LinkSpec("skid", transport, "127.0.0.1", 0, timeout_s=TIMEOUT_S)
    if transport == "rtu":
        spec = LinkSpec("bus0", "rtu", path=str(folder / "tty"), serial=SerialLine(115200), timeout_s=TIMEOUT_S)
        bus = PtyEndpoint(spec, meters.respond)
        await bus.open()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bus.run())
            try:
                yield spec
            finally:
                running.cancel()
        await bus.close()
        return
    tls = None
    if transport == "tls":
        tls, ca_file = certificate
        spec = replace(spec, ca_file=ca_file, timeout_s=TLS_TIMEOUT_S)
    server = SocketEndpoint(spec, meters.respond, tls)
    await server.open()
    try:
        yield replace(spec, port=server.port)
    finally:
        await server.close()


def certificate(folder):
    """Return a server's certificate, and the file of who issued it."""
    authority = certificates.authority(folder / "ca")
    return ServerTls(*authority.issue("meter")), authority.ca


class Judge:
    """Reads through a link, and says what was wrong about it."""

    def __init__(self, link, spec, meters, stalls):
        self.link, self.meters = link, meters
        self.complaints = collections.Counter()
        self.errors = collections.Counter()
        self._stalls = stalls
        self._is_rtu = "rtu" in spec.transport
        self._limit_s = N_WAITS * spec.timeout_s + MARGIN_S

    async def read(self, unit, block):
        """Return True for a right value, False for none, None when this machine was too busy to tell."""
        since, is_busy = self.meters.generation, self._stalls.since()
        reading = asyncio.ensure_future(self.link.read(unit, block))
        done, _ = await asyncio.wait({reading}, timeout=self._limit_s)
        if not done:
            reading.cancel()
            await asyncio.wait({reading}, timeout=MARGIN_S)
            if not is_busy():
                self.complaints[f"no end after {self._limit_s:g} s"] += 1
            return None if is_busy() else False
        if (error := reading.exception()) is not None:
            self.errors[type(error).__name__] += 1
            if not isinstance(error, LEAVES) or type(error) is DriverError:
                self.complaints[f"raised {error!r}"] += 1
        elif self.meters.is_right(unit, block, reading.result(), since):
            return True
        elif not (self._is_rtu and is_busy()):  # silence proves nothing on a machine that stood still
            payload = reading.result()
            self.complaints[
                f"wrong value: unit {unit} function {block.function} at {block.start:#x} x {block.count} after "
                f"generation {since}: {payload.hex()}, which is {self.meters.origin(unit, block, payload)}"
            ] += 1
        return None if is_busy() else False

    async def insist(self, unit, block, within, pause_s, what):
        """Read until a right value comes; complain when it takes more attempts than this."""
        n_counted = 0
        for n in itertools.count(1):
            outcome = await self.read(unit, block)
            if outcome:
                return
            n_counted += outcome is not None or n > MAX_UNTOLD
            if n_counted >= within:
                self.complaints[f"{what}: no right value in {n} attempts, {dict(self.errors)}"] += 1
                return
            await asyncio.sleep(pause_s)


class Stalls:
    """How often, and by how much in all, the loop came round too late."""

    def __init__(self):
        self.n, self.late_s = 0, 0.0

    async def watch(self):
        """Count until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + STALL_S / 4
            await asyncio.sleep(STALL_S / 4)
            late_s = loop.time() - due
            self.n += late_s > STALL_S
            self.late_s += late_s

    def since(self):
        """Return a function that tells whether the loop has been too late since now."""
        loop = asyncio.get_running_loop()
        began, n, late_s = loop.time(), self.n, self.late_s
        return lambda: self.n > n or self.late_s - late_s > STALL_SHARE * (loop.time() - began)


async def through(fault, transport, folder, stalls, *, opens=open_link, is_fine=False, certificate=None):
    """Read before, during and after a fault; return what is to be complained about.

    certificate  of the server, for TLS
    is_fine      while it lasts there must be right values, too
    """
    meters = Meters()
    folder.mkdir()
    async with serving(transport, meters, folder, certificate) as spec:
        link = opens(spec)
        judge = Judge(link, spec, meters, stalls)
        loop = asyncio.get_running_loop()
        pauses = random.Random(fault.how)
        try:
            for target in CALM:
                await judge.insist(*target, 1 if target != A else 2, POLL_S, "before")
            met = fault.on(meters)
            end = loop.time() + 10 * TIMEOUT_S
            n_right = n_told = 0
            first = TROUBLED.index(COILS if fault.how.startswith("echo") else A)
            for n, target in enumerate(itertools.islice(itertools.cycle(TROUBLED), first, None)):
                if loop.time() > end or (n >= len(TROUBLED) and len(met) >= 3):
                    break
                outcome = await judge.read(*target)
                n_right += outcome is True
                n_told += outcome is not None
                if not outcome or n % 3 == 2:
                    await asyncio.sleep(pauses.choice((0.0, 0.01, 0.03)))
            if is_fine and n_told and not n_right:
                judge.complaints[f"refused all of what is fine: {dict(judge.errors)}"] += 1
            meters.wrong = lambda unit, answer: None
            await asyncio.sleep(POLL_S)
            for target in CALM:
                await judge.insist(*target, 2, POLL_S, "after")
        finally:
            await link.close()
        if not met:
            judge.complaints["the fault was never met"] += 1
    return list(judge.complaints)


def _n_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def stage(scenes):
    """Play scenes at the same time; return name -> complaints, those about no one scene under "left behind".

    scenes  name -> function of Stalls that returns what `through` does
    """
    loop = asyncio.get_running_loop()
    complaints = {name: [] for name in scenes} | {"left behind": []}
    stalls = Stalls()

    def told(_, context):
        where = complaints.get(SCENE.get(), complaints["left behind"])
        where.append(f"told the loop: {context.get('message')}: {context.get('exception')!r}")

    async def play(name, scene, after_s):
        SCENE.set(name)
        await asyncio.sleep(after_s)  # not all at the same moment
        complaints[name] += await scene(stalls)

    loop.set_exception_handler(told)
    watching = asyncio.ensure_future(stalls.watch())
    n_files = _n_files()
    async with asyncio.TaskGroup() as tasks:
        for i, (name, scene) in enumerate(scenes.items()):
            tasks.create_task(play(name, scene, 0.004 * i))
    others = {asyncio.current_task(), watching}
    for _ in range(50):
        left = asyncio.all_tasks() - others
        more = _n_files() - n_files
        if not left and more <= 0:
            break
        await asyncio.sleep(0.02)
    complaints["left behind"] += [f"task {task!r}" for task in left]
    complaints["left behind"] += [f"{more} file descriptors"] if more > 0 else []
    watching.cancel()
    await asyncio.wait({watching})
    gc.collect()  # exceptions that nobody asked for are told now
    return complaints
