"""What the supervisor is told: ready, status, reloading, stopping, and alive for as long as the polls go on.

The protocol of sd_notify(3), without a library: datagrams to $NOTIFY_SOCKET; where that is not set nobody listens.
The watchdog is fed by progress, not by a timer: everything that has something to do must have got on with it within
the time that one step of it may take. A meter or a link that is away is no lack of progress: its polls end, badly.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.acquire.acquisition import Acquisition
from gateway.model.clock import NS, Clock

log = logging.getLogger(__name__)

LOOK_S: Final = 0.05  # how often we look whether the first polls are over
STATUS_S: Final = 10.0  # between two looks later, where no watchdog wants more
FIRST_POLLS_NS: Final = 10 * NS  # of a meter that is asked for the first time later than this nobody waits
STEP_TIMEOUTS: Final = 4  # a dial, a silence and a fence stand before an answer, each with a time-out of its own
STEP_S: Final = 5.0  # and what a busy machine adds
NEVER_NS: Final = 2**63 - 1
MAX_WAITING: Final = 16  # messages; a supervisor that takes none for longer has troubles of its own
MAX_STATUS: Final = 200  # characters: a line of systemctl


@dataclass(frozen=True, slots=True)
class Pulse:
    """Something that has to go on.

    due_ns      when there is something to do for it, monotonic ns; NEVER_NS while there is not
    mark        differs whenever it has got on
    allowed_ns  how long one step may take
    """

    name: str
    due_ns: int
    mark: object
    allowed_ns: int


class Watch:
    """Looks whether everything goes on."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, int]] = {}  # name -> mark, and since when it is this one

    def stuck(self, pulses: Iterable[Pulse], now_ns: int) -> list[str]:
        """Return the names of what has had something to do for longer than a step may take, and has not got on."""
        seen, self._seen = self._seen, {}
        out = []
        for pulse in pulses:
            mark, since_ns = seen.get(pulse.name, (None, now_ns))
            if mark != pulse.mark or pulse.due_ns > now_ns:
                since_ns = now_ns
            self._seen[pulse.name] = (pulse.mark, since_ns)
            if now_ns - max(since_ns, pulse.due_ns) > pulse.allowed_ns:
                out.append(pulse.name)
        return out


def pulses_of(acquisition: Acquisition) -> list[Pulse]:
    """Return the pulse of every poller: a request that is sent, answered or given up is a step."""
    out = []
    for name, poller in acquisition.pollers.items():
        seen = poller.link.counters
        mark = (id(poller), poller.turns, seen.dials, seen.requests, seen.answers, seen.timeouts)
        allowed_ns = round((STEP_TIMEOUTS * poller.plans[0].link.timeout_s + STEP_S) * NS)
        out.append(Pulse(f"link '{name}'", poller.due_ns, mark, allowed_ns))
    return out


def has_begun(acquisition: Acquisition) -> bool:
    """Return whether a meter has answered, or every poller has tried its luck."""
    if any(link.counters.answers for link in acquisition.links.values()):
        return any(counted.done for counted in acquisition.polls.values())
    begins_ns = acquisition.origin_ns + FIRST_POLLS_NS
    return all(poller.turns or poller.due_ns > begins_ns for poller in acquisition.pollers.values())


class Supervisor:
    """Whoever started this process; everything is said into the wind where that was nobody who listens.

    feed_s  how often the watchdog is fed at least: half the time that it waits; None: there is none
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket: socket.socket | None = None
        if name.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
        is_ours = usec.isdecimal() and int(usec) > 0 and pid == str(os.getpid())
        self.feed_s = int(usec) / 2e6 if is_ours and self._socket else None
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._is_ready = False
        self._is_reloading = False

    async def attend(
        self, acquisition: Acquisition, clock: Clock, more: Callable[[], Sequence[Pulse]], status: Callable[[], str]
    ) -> None:
        """Say that we are ready once we are, then feed the watchdog while everything goes on; until cancelled.

        more  what else has to go on;  status  a short line for people
        """
        if self._socket is None:
            return
        watch, stuck_before, told = Watch(), list[str](), ""
        while True:
            now_ns = clock.monotonic_ns()
            if not self._is_ready and has_begun(acquisition):
                self._is_ready = True
                if not self._is_reloading:
                    self.tell("READY=1")
            stuck = watch.stuck([*pulses_of(acquisition), *more()], now_ns)
            if stuck and stuck != stuck_before:
                log.error("%s: no progress; the watchdog is not fed", ", ".join(stuck))
            stuck_before = stuck
            line = f"no progress: {', '.join(stuck)}" if stuck else status()
            if self._send_waiting():  # else there is no room for what may as well be said later
                if line != told:
                    told = line
                    self.tell(f"STATUS={line[:MAX_STATUS]}")
                if not stuck and self.feed_s:
                    self.tell("WATCHDOG=1")
            rest_s = min(self.feed_s or STATUS_S, STATUS_S) if self._is_ready and not self._waiting else LOOK_S
            await clock.sleep_until(now_ns + round(rest_s * NS))

    def reloading(self, monotonic_ns: int) -> None:
        """Say that the configuration is being read again."""
        self._is_reloading = True
        self.tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns // 1000}")

    def reloaded(self) -> None:
        """Say that this is over, however it ended."""
        self._is_reloading = False
        if self._is_ready:
            self.tell("READY=1")

    async def tell_end(self, stop: asyncio.Event) -> None:
        """Say that this is the end, once it is."""
        await stop.wait()
        self.tell("STOPPING=1")

    def tell(self, *lines: str) -> None:
        """Send one message, behind those that wait because the supervisor is busy; nobody here waits for it."""
        if self._socket is not None:
            self._waiting.append("\n".join(lines).encode())
            self._send_waiting()

    def _send_waiting(self) -> bool:
        """Send what waits; returns whether there is room for more. What cannot be sent at all is lost."""
        while self._waiting and self._socket is not None:
            try:
                self._socket.sendto(self._waiting[0], self._address)
            except BlockingIOError:
                return False
            except OSError as error:
                log.debug("supervisor: %s", error)
            self._waiting.popleft()
        return True
