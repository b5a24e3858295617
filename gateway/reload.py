"""Reloading: a changed gateway.toml is read, checked and planned beside the loop; app.py then changes over in one step.

SIGHUP, `corridor reload`   Requests.ask()
in a thread                 prepare(): read, check, plan, kernels, columns; what is wrong is Refused
on the loop, in one step    Gateway.turn_to(): pipeline, spool, publisher, detectors, alarms, pollers
after it                    links closed and opened, the broker connected anew where that changed
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drivers.modbus import load_transport
from gateway.acquire.memory import Memory
from gateway.acquire.plan import Plan, plan
from gateway.acquire.replan import replan
from gateway.model.change import changes, refusals
from gateway.model.config import ConfigError, load_gateway
from gateway.pipeline import Parts
from gateway.warm import Say, compile_missing, detectors, of_line

if TYPE_CHECKING:
    from gateway.detect.keep import Learnt

SWITCH_S: Final = 0.0005  # how long the thread may keep the processor from a poll; Python's default is 5 ms
MAX_GONE_ROWS: Final = 5_000  # of devices that were removed or polled anew: 20 MB, and 5 ms more of a halt


class Refused(Exception):
    """A configuration that is not taken; `lines` say why, one each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a change needs and that could be made without a halt.

    memory   as it is before anything is learnt under the new plan
    changes  what differs, a line each; none: there is nothing to do
    learnt   the detectors, None while they are not loaded
    """

    plan: Plan
    memory: Memory
    parts: Parts
    learnt: Learnt | None
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a reload: what changed, or why nothing did.

    took_s    from the request to the end;  paused_s  for how long of it nothing else could happen
    """

    config: str
    changes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    catalog: str = ""
    took_s: float = 0.0
    paused_s: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "ok": not self.errors,
            "config": self.config,
            "changes": list(self.changes),
            "errors": list(self.errors),
            "catalog": self.catalog,
            "took_s": round(self.took_s, 6),
            "paused_s": round(self.paused_s, 6),
        }


class Requests:
    """Requests to reload; those that come while none is under way are answered together."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._asked: list[asyncio.Future[Outcome]] = []

    def signal(self) -> None:
        """Ask without waiting for an answer: SIGHUP."""
        self._wanted.set()

    async def ask(self) -> dict[str, Any]:
        """Ask, and return what became of it."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._wanted.set()
        return (await answer).plain()

    async def next(self) -> Callable[[Outcome], None]:
        """Wait for the next request, and return whom to tell what became of it."""
        await self._wanted.wait()
        self._wanted.clear()
        asked, self._asked = self._asked, []

        def tell(outcome: Outcome) -> None:
            for answer in asked:
                if not answer.done():
                    answer.set_result(outcome)

        return tell


def prepare(path: Path, before: Plan, parts: Parts, learnt: Learnt | None, say: Say) -> Prepared:
    """Read a changed configuration and make everything that it needs, in a thread; opens no socket.

    Raises Refused with every error at once, having changed nothing.
    """
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        return _prepare(path, before, parts, learnt, say)
    finally:
        sys.setswitchinterval(interval_s)


def _prepare(path: Path, before: Plan, parts: Parts, learnt: Learnt | None, say: Say) -> Prepared:
    try:
        spec = load_gateway(path)
    except ConfigError as error:
        raise Refused(error.lines) from None
    memory = before.memory.preview(spec)
    wrong = [*refusals(before.spec, spec), *plan(spec, memory).errors]
    if wrong:
        raise Refused(f"{path}: {line}" for line in wrong)
    found = tuple(changes(before.spec, spec))
    if not found:
        return Prepared(before, memory, parts, learnt, ())
    after = replan(before, spec, memory)
    if sum(scan.stop - scan.start for scan in after.table.scans if scan.device in after.table.gone) > MAX_GONE_ROWS:
        raise Refused([f"{path}: {MAX_GONE_ROWS} tags have gone since the start: needs a restart"])
    for link in spec.links:
        load_transport(link)
    compile_missing(say, of_line(after.table))
    judging = None if learnt is None else detectors_of(learnt, after, say)
    return Prepared(after, memory, Parts(after.table, parts), judging, found)


def detectors_of(learnt: Learnt, after: Plan, say: Say) -> Learnt:
    """Return the detectors of a changed plan, which take over what `learnt` knows when it is changed over to."""
    from gateway.detect.keep import Learnt

    compile_missing(say, detectors(after.table))
    return Learnt.after(learnt, after.table)
