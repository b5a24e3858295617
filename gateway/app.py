"""The gateway process on one page: build, one TaskGroup, signals, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drivers import jit
from drivers.points import decimals_of
from gateway import __version__, command, control, health
from gateway.acquire.acquisition import Acquisition, end
from gateway.acquire.plan import Plan, commit_phase_s
from gateway.alarm.engine import AlarmEngine
from gateway.alarm.journal import Journal
from gateway.alarm.state import Step
from gateway.capture.recorder import Recorder
from gateway.deliver.publish import Publisher, Resend
from gateway.model.clock import NS, SystemClock, WallClock
from gateway.model.corridor import LIMITS, Device, GatewaySpec
from gateway.model.durable import make_way, replace_file
from gateway.model.ranges import to_text
from gateway.pipeline import Pipeline
from gateway.reload import Outcome, Prepared, Refused, Requests, detectors_of, prepare
from gateway.spool.disk import DiskSpool
from gateway.spool.files import InUse, hold
from gateway.supervise import NEVER_NS, Pulse, Supervisor
from gateway.warm import Say, compile_missing, detectors, of_line
from gateway.wire.catalog import Catalog, CatalogDevice, CatalogTag, identify
from gateway.wire.client import Client, MqttError, Rejected, Will, keep_connected
from gateway.wire.events import encode_alarms, encode_status
from gateway.wire.frame_lines import scan_texts
from gateway.wire.strict_json import dumps
from gateway.wire.topics import GatewayAddress, parse

if TYPE_CHECKING:
    from gateway.detect.keep import Learnt, Packed

log = logging.getLogger(__name__)

TURNAROUNDS_NS: Final = 60 * NS  # how often what the links have learnt is looked at
COMMIT_STUCK_S: Final = 30.0  # worn cards pause for seconds; a commit that takes longer than this has no end
TURN_STUCK_S: Final = 5.0  # frames wait for milliseconds
LEARNT: Final = "detectors"
LEARNT_BYTES: Final = 256_000_000  # 100,000 tags are 50 MB
LEARNT_NS: Final = 3_600 * NS  # between two writes of it: 1,000 tags are half a megabyte, so ten a day on the card
DROPS_NS: Final = 60 * NS  # between two events about frames that were dropped: a full spool drops for ever
TIDY_S: Final = 5.0  # how often it is looked whether a segment is full: one is every half hour at 1,000 values/s
MAX_REPLIES: Final = 256  # to commands that the broker has not taken yet
DRAIN_S: Final = 0.8  # for the last frames on their way out, likewise
DRAIN_LOOK_S: Final = 0.02
CONNECT_S: Final = 0.1  # for the broker, before what was read early goes to the spool alone
LAST_WORDS_S: Final = 0.5  # for the goodbye to the broker: SIGTERM must end within 2 s
CANCEL_AGAIN_S: Final = 0.8  # longer than the goodbye: a TaskGroup that has just lost the broker forgets to end
OURS: Final = ("gateway.", "drivers.")  # the packages whose callbacks have no one else to tell
GC_OBJECTS: Final = 20_000  # made and not freed before the collector looks: at 700, its default, it takes 3 % of time


@dataclass(frozen=True, slots=True)
class Reloads:
    """What it takes to reload: whose wish it is, the file, and whom to tell."""

    requests: Requests
    config: Path
    supervisor: Supervisor


class Gateway:
    """One gateway: everything behind the pollers that a gateway.toml asks for."""

    def __init__(
        self,
        plan: Plan,
        state: Path,
        acquisition: Acquisition,
        spool: DiskSpool,
        clock: WallClock,
        catalog: Catalog,
        say: Say,
    ) -> None:
        spec, table = plan.spec, plan.table
        self.plan = plan
        self.clock = clock
        self.address = GatewayAddress(spec.corridor, spec.site, spec.id)
        self.spool = spool
        self._catalog = catalog
        self._state = state
        self._say = say
        self._learnt: Learnt | None = None
        self.journal = Journal(state, spool.attached())
        spool.at_turn = partial(self._try_journal, self.journal.sync)
        self.engine = AlarmEngine(table)
        self.publisher = Publisher(self.address, [d.name for d in spec.devices], spool, catalog.catalog)
        self.pipeline = Pipeline(table, spool, self.engine, self.journal, self.publisher, clock)
        self.recorder = Recorder(spec, acquisition.links, state / "captures", clock)
        self.journal.added = self.recorder.notice
        self._acquisition = acquisition
        self._turnarounds_due_ns = 0
        self._drops_due_ns = 0
        self._utilisation = health.Utilisation()
        actions: dict[str, command.Action] = {"acknowledge": self._acknowledge, "resend": self._resend}
        self._commands = command.Commands(actions, state / "commands.json")
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_REPLIES)
        self._commit_phase_s = commit_phase_s(table, spec.spool_commit_s)
        self._catalog_changed = asyncio.Event()
        self._refusals_told: set[tuple[str, int]] = set()
        self.pipeline.strings_changed = self._catalog_changed.set
        self._noted = self.engine.revision
        self._commit_due_ns = NEVER_NS
        self._n_commits = 0
        self._serving: dict[str, asyncio.Task[None]] = {}
        self.pipeline.resume(self.journal.standing())
        self._begin_time()

    def _begin_time(self) -> None:
        """Let time go on from the last stamps, and hold stamps of a clock that is not set, if we are told to."""
        newest_ns = self.spool.newest_ns()
        self.clock.not_before(newest_ns)
        if told := self.pipeline.not_before(newest_ns):
            self._note_own("clock", told)
        self.spool.is_holding = self.spec.clock_hold_s > 0 and self.clock.state == "unsynced"

    @property
    def spec(self) -> GatewaySpec:
        """What the configuration says."""
        return self.plan.spec

    async def run(self, stop: asyncio.Event, reloads: Reloads | None = None) -> None:
        """Take what the pollers read, spool and publish it until `stop` is set; then commit and say goodbye."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._serve(tasks, "deliver", self._deliver())
                self._serve(tasks, "detect", self._detect())
                await self._feed()
                self._serve(tasks, "commit", self._commit())
                self._serve(tasks, "tidy", self._tidy())
                self._serve(tasks, "capture", self.recorder.run())
                self._serve_metrics_where_asked(tasks)
                reloading = [tasks.create_task(self._reload(tasks, reloads), name="reload")] if reloads else []
                await stop.wait()
                await end(reloading, CANCEL_AGAIN_S)
                await self._acquisition.stop()
                await self._drain()
                await end(self._serving.values(), CANCEL_AGAIN_S)
        finally:
            await self.spool.close()
            self._note_alarms()
            self._commit_small_files()
            self._try_journal(self.journal.close)
            self._keep_learnt()

    def _serve(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._serving[name] = tasks.create_task(work, name=name)

    async def _reload(self, tasks: asyncio.TaskGroup, reloads: Reloads) -> None:
        """Take a changed configuration whenever that is asked for; one that is wrong changes nothing."""
        while True:
            tell = await reloads.requests.next()
            began_ns = self.clock.monotonic_ns()
            reloads.supervisor.reloading(began_ns)
            try:
                outcome = await self._reload_once(tasks, reloads.config)
            finally:
                reloads.supervisor.reloaded()
            outcome = replace(outcome, took_s=(self.clock.monotonic_ns() - began_ns) / NS)
            tell(outcome)
            for line in outcome.errors:
                log.error("%s", line)
            for line in outcome.changes:
                log.info("%s: %s", reloads.config, line)
            what = "refused, the old configuration goes on" if outcome.errors else f"{len(outcome.changes)} changes"
            log.info("reload: %s; %.3f s, %.1f ms of it at a halt", what, outcome.took_s, 1000 * outcome.paused_s)

    async def _reload_once(self, tasks: asyncio.TaskGroup, config: Path) -> Outcome:
        before, known = self.spec, self._learnt
        try:
            made = await asyncio.to_thread(prepare, config, self.plan, self.pipeline.parts, known, self._say)
        except Refused as error:
            return Outcome(str(config), errors=tuple(error.lines), catalog=self._catalog.catalog)
        if not made.changes:
            return Outcome(str(config), catalog=self._catalog.catalog)
        catalog = await asyncio.to_thread(catalog_of, made.plan)
        if known is None and self._learnt is not None:  # loaded meanwhile
            made = replace(made, learnt=await asyncio.to_thread(detectors_of, self._learnt, made.plan, self._say))
        began_ns = self.clock.monotonic_ns()
        self.turn_to(made, catalog)
        paused_s = (self.clock.monotonic_ns() - began_ns) / NS
        await self._acquisition.settle()
        if before.mqtt != self.spec.mqtt:
            await end([self._serving["deliver"]], CANCEL_AGAIN_S)
            self._serve(tasks, "deliver", self._deliver())
        if before.metrics_listen != self.spec.metrics_listen:
            if listening := self._serving.pop("metrics", None):
                await end([listening], CANCEL_AGAIN_S)
            self._serve_metrics_where_asked(tasks)
        return Outcome(str(config), made.changes, (), catalog.catalog, paused_s=paused_s)

    def turn_to(self, made: Prepared, catalog: Catalog) -> None:
        """Change over to another configuration between two steps of everybody else.

        What is polled as before keeps its numbers, so polls under way and everything that was learnt go on.
        """
        plan, table = made.plan, made.plan.table
        self.pipeline.settle()
        standing = self.engine.standing()
        plan.memory.turn_to(made.memory)
        for one in plan.devices:
            one.adopt(plan.memory)
        self.plan, self._catalog = plan, catalog
        self._acquisition.turn_to(plan)
        self.recorder.turn_to(plan.spec, self._acquisition.links)
        self.spool.turn_to(catalog.catalog, made.parts.texts, plan.spec.spool_max_bytes)
        self.publisher.turn_to([device.name for device in table.devices], table.gone, catalog.catalog)
        if self._learnt is not None and made.learnt is not None:
            made.learnt.take_over(self._learnt)
            self._learnt = made.learnt
        self.engine.turn_to(table)
        self.pipeline.turn_to(made.parts, self._learnt.bank if self._learnt else None)
        self.pipeline.resume(standing)
        self._utilisation = health.Utilisation()
        self._commit_phase_s = commit_phase_s(table, plan.spec.spool_commit_s)
        self._catalog_changed.set()
        self.journal.changed.set()

    def pulses(self) -> list[Pulse]:
        """Return what has to go on behind the pollers: commits, and the turns of the pipeline."""
        is_waiting, seq = self.pipeline.is_waiting, self.spool.next_seq
        return [
            Pulse("commit", self._commit_due_ns, self._n_commits, round(COMMIT_STUCK_S * NS)),
            Pulse("pipeline", 0 if is_waiting else NEVER_NS, seq, round(TURN_STUCK_S * NS)),
        ]

    def status_line(self) -> str:
        """Return how it goes, for people."""
        links = self._acquisition.links.values()
        down = sum(link.state == "down" for link in links)
        kept = self.spool.statistics()
        broker = "connected" if self.publisher.connected.is_set() else "away"
        return (
            f"polling {len(self.spec.devices)} devices on {len(links)} links, {down} down; broker {broker}; "
            f"spool {kept.state}, {kept.unsent} frames unsent"
        )

    async def _feed(self) -> None:
        """Take over what was read so far; a broker that is there at once gets it at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self.publisher.connected.wait()
        if dropped := self._acquisition.feed(self.pipeline):
            log.error("%d polls were lost while kernels were compiled", dropped)

    async def _detect(self) -> None:
        """Load the detectors beside the line, which does not wait for them, and keep what they learn."""
        found = await asyncio.to_thread(_read_learnt, self._state / LEARNT)
        table = None
        while table is not self.plan.table:  # a reload may come between
            table = self.plan.table
            await asyncio.to_thread(compile_missing, self._say, detectors(table))
        from gateway.detect.keep import Learnt

        self._learnt = Learnt(self.plan.table, found)
        if self._learnt.wrong:
            log.error("%s: what the detectors had learnt %s; they begin anew", LEARNT, self._learnt.wrong)
            _put_aside(self._state / LEARNT)
        self.pipeline.judge_from_now(self._learnt.bank)
        if self.pipeline.unjudged.dropped:
            log.error("%d frames were not judged: the detectors were not loaded", self.pipeline.unjudged.dropped)
        log.debug("%d bytes of the compiler handed back", jit.release())
        while True:
            await self.clock.sleep_until(self.clock.monotonic_ns() + LEARNT_NS)
            packed = self._learnt.packed()
            await asyncio.to_thread(self._write_learnt, packed)

    def _keep_learnt(self) -> None:
        """Write what the detectors have learnt, at the end."""
        if self._learnt:
            self._write_learnt(self._learnt.packed())
        elif n := len(self.pipeline.unjudged):
            log.error("%d frames were not judged: told to end before the detectors were loaded", n)

    def _write_learnt(self, packed: Packed) -> None:
        try:
            replace_file(self._state / LEARNT, packed.encode())
        except OSError as error:
            log.error("what the detectors have learnt cannot be kept: %s", error)

    async def _drain(self) -> None:
        """Commit the last frames and give a broker that is there the time to take them; the spool keeps the rest."""
        self._note_alarms()
        await self._commit_spool()
        self._commit_small_files()
        self._try_journal(self.journal.sync)
        deadline_ns = self.clock.monotonic_ns() + round(DRAIN_S * NS)
        while self.publisher.connected.is_set() and self.clock.monotonic_ns() < deadline_ns:
            if not self.spool.statistics().unsent and self.journal.next() is None:
                return
            await self.clock.sleep_until(self.clock.monotonic_ns() + round(DRAIN_LOOK_S * NS))

    async def _commit(self) -> None:
        """One commit per commit_s, in the plan's largest gap."""
        while True:
            period_ns = round(self.spec.spool_commit_s * NS)
            due_ns = self._acquisition.origin_ns + round(self._commit_phase_s * NS)
            due_ns += period_ns * max(0, -(-(self.clock.monotonic_ns() - due_ns) // period_ns))
            self._commit_due_ns = due_ns
            await self.clock.sleep_until(due_ns)
            self._note_alarms()
            await self._commit_spool()
            self._tell_own()
            self._note_turnarounds()
            await asyncio.to_thread(self._commit_small_files)
            self._n_commits += 1

    async def _commit_spool(self) -> None:
        """Commit frames, and in the same write the events and alarms that came with them."""
        for memo in self.journal.memos():
            self.spool.attach(memo)
        await self.spool.commit()

    def _try_journal(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            log.debug("%s", error)  # the spool on the same disk tells it

    async def _tidy(self) -> None:
        """Seal what is full, a piece at a time."""
        while True:
            await self.clock.sleep_until(self.clock.monotonic_ns() + round(TIDY_S * NS))
            await self.spool.tidy()

    def _tell_own(self) -> None:
        """Tell what became of the gateway's own parts since the last commit: spool, clock, delivery."""
        now_ns = self.clock.wall_ns(self.clock.monotonic_ns())
        for name, is_wrong in (
            ("spool", self.spool.statistics().state != "ok"),
            ("refused", bool(self.publisher.refusals)),
        ):
            self.pipeline.own(name, Step.RAISE if is_wrong else Step.CLEAR, now_ns)
        passed_ns = self.clock.monotonic_ns()
        if passed_ns >= self._drops_due_ns and (drop := self.spool.dropped()):
            self._drops_due_ns = passed_ns + DROPS_NS
            frames = "; ".join(f"boot {boot}: {to_text(ranges)}" for boot, ranges in drop.ranges.items())
            span = f"{_clock_time(drop.first_ns)} to {_clock_time(drop.last_ns)}"
            self._note_own("spool:dropped", f"dropped {drop.frames} frames ({drop.values} values) of {span}, {frames}")
        for text in self.clock.news():
            log.warning("%s", text)
            self._note_own("clock", text)

    def _note_own(self, reason: str, text: str) -> None:
        self.pipeline.note(reason, text, self.clock.wall_ns(self.clock.monotonic_ns()))

    def _note_alarms(self) -> None:
        """Hand the standing alarms to the journal when they changed; on the loop, which is who changes them."""
        if self._noted != self.engine.revision:
            self._noted = self.engine.revision
            self.journal.stand(self._alarms())

    def _note_turnarounds(self) -> None:
        """Hand what the links have learnt of their devices to the plan's memory, once a minute."""
        now_ns = self.clock.monotonic_ns()
        if now_ns < self._turnarounds_due_ns:
            return
        self._turnarounds_due_ns = now_ns + TURNAROUNDS_NS
        for device in self.spec.devices:
            found = self._acquisition.links[device.link].turnaround_s(device.unit)
            if found is not None:
                self.plan.memory.note_turnaround(device.name, found)

    def _alarms(self) -> bytes:
        return encode_alarms(self.clock.wall_ns(self.clock.monotonic_ns()), self.engine.standing())

    def _commit_small_files(self) -> None:
        for commit in (self.journal.commit, self.plan.memory.commit, self._commands.commit):
            try:
                commit()
            except OSError as error:
                log.debug("%s", error)  # the spool on the same disk has told it already

    async def _deliver(self) -> None:
        await self._fix_stamps()
        await keep_connected(
            self.spec.mqtt, f"corridor-{self.spec.id}", self._session, will=lambda: Will(*self._status("offline"))
        )

    async def _fix_stamps(self) -> None:
        """Wait for the clock, if we are told to, and fix the stamps of what was read meanwhile."""
        began_ns = self.clock.monotonic_ns()

        def is_over() -> bool:  # hold_s may be another one by then
            return self.clock.monotonic_ns() >= began_ns + self.spec.clock_hold_s * NS

        while self.spool.is_holding and self.clock.state == "unsynced" and not is_over():
            await self.clock.sleep_until(self.clock.monotonic_ns() + NS)
            self.clock.wall_ns(0)  # which looks at the machine's clock
        is_set = self.clock.state != "unsynced"
        offset_ns = self.clock.wall_ns(0)
        for boot in {*self.spool.unfixed(), self.spool.boot} if self.spool.is_holding else self.spool.unfixed():
            is_known = is_set and self.spool.shares_clock(boot)
            self.spool.fix(boot, offset_ns if is_known else None)
            if not is_known:
                self._note_own("clock", f"stamps of boot {boot} are uncertain: it never saw the time")
        await self.spool.commit()

    def _status(self, state: str) -> tuple[str, bytes]:
        now = self.clock.wall_ns(self.clock.monotonic_ns())
        spool = self.spool
        payload = encode_status(
            state, spool.boot, __version__, now, spool.boots(), spool.delivered(), spool.absent.counts,
            spool.committed_ns,
        )  # fmt: skip
        return self.address.leaf("status"), payload

    async def _session(self, client: Client) -> None:
        """Everything that crosses one connection."""
        await client.subscribe_as_published(self.address.command())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.publisher.run(client), name="data")
                tasks.create_task(self._greet(client), name="greet")
                tasks.create_task(self._tell_events(client), name="events")
                tasks.create_task(self._tell_health(client), name="health")
                tasks.create_task(self._obey(client), name="commands")
                tasks.create_task(self._reply(client), name="replies")
        except* MqttError as group:
            raise MqttError(str(group.exceptions[0])) from None
        finally:
            await self._goodbye(client)

    async def _goodbye(self, client: Client) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await client.publish(*self._status("offline"), qos=1, retain=True)
        except (MqttError, TimeoutError):
            return  # the Last Will says it for us

    async def _greet(self, client: Client) -> None:
        """Say who we are, and what we read, again whenever a string of a device changed."""
        await self._publish(client, *self._status("online"), retain=True)
        while True:
            self._catalog_changed.clear()
            devices = [
                CatalogDevice(**{**_fields(device), "strings": self.pipeline.strings.get(device.name, {})})
                for device in self._catalog.devices
            ]
            payload = Catalog(self._catalog.catalog, devices).encode()
            await self._publish(client, self.address.leaf("catalog"), payload, retain=True)
            await self._catalog_changed.wait()

    async def _publish(self, client: Client, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish; a refusal is counted and said once for each topic, not raised: data must go on."""
        try:
            await client.publish(topic, payload, qos=qos, retain=retain)
        except Rejected as error:
            self.publisher.counters.refused += 1
            if (topic, error.code) not in self._refusals_told:
                self._refusals_told.add((topic, error.code))
                log.error("%s: %s", topic, error)

    async def _tell_events(self, client: Client) -> None:
        """Bring events one by one, and the standing alarms whenever they changed."""
        told = -1
        while True:
            self.journal.changed.clear()
            while event := self.journal.next():
                await self._publish(client, self.address.device(event.device, "event"), event.encode())
                self.journal.sent(event)
            if told != self.engine.revision:
                told = self.engine.revision
                await self._publish(client, self.address.leaf("alarms"), self._alarms(), retain=True)
            if self.journal.next() is None and told == self.engine.revision:
                await self.journal.changed.wait()

    async def _tell_health(self, client: Client) -> None:
        """Health every ten seconds and at once after a change of spool or link; status with it."""
        told: object = None
        quiet_s = 0.0
        while True:
            kept = self.spool.statistics()
            links = [link.state for link in self._acquisition.links.values()]
            now = (kept.state, kept.dropped, links, self.pipeline.is_judging)
            if now != told or quiet_s >= health.PERIOD_S:
                told, quiet_s = now, 0.0
                await self._publish(client, self.address.leaf("health"), dumps(self.health()), qos=0)
                await self._publish(client, *self._status("online"), retain=True)
            await asyncio.sleep(health.LOOK_S)
            quiet_s += health.LOOK_S

    async def _obey(self, client: Client) -> None:
        async for message in client.messages:
            topic = parse(message.topic.value)
            if topic is None or topic.command is None or not isinstance(message.payload, bytes | bytearray):
                continue
            now = self.clock.wall_ns(self.clock.monotonic_ns())
            reply = self._commands.take(
                topic.command, bytes(message.payload), retained=bool(message.retain), now_ns=now
            )
            log.info("command %s: %s", topic.command, reply or "under way")
            if reply:
                await self._replies.put(reply)

    async def _reply(self, client: Client) -> None:
        while True:
            await self._publish(client, self.address.leaf("reply"), dumps(await self._replies.get()))

    def _acknowledge(self, found: Mapping[str, Any]) -> str | None:
        key = found.get("key")
        if not isinstance(key, str):
            return "acknowledge wants 'key': device/tag/alarm"
        return self.pipeline.acknowledge(key, found["by"])

    def _resend(self, found: Mapping[str, Any]) -> str | command.Later:
        """Send frames again that the broker or the database has lost; answered when the broker has them."""
        wanted = command.wanted_frames(found)
        if isinstance(wanted, str):
            return wanted
        boot, frames = wanted
        again, gone = self.spool.reopen(boot, frames)

        def done(job: Resend) -> None:
            if self._replies.full():
                return  # whoever waits for it asks again
            self._replies.put_nowait(
                {
                    "id": found["id"],
                    "ok": True,
                    "text": f"sent {job.sent.total} frames, {sum(r.total for r in job.gone.values())} are gone",
                    "boot": boot,
                    "sent": list(job.sent),
                    "gone": {why: list(ranges) for why, ranges in job.gone.items()},
                }
            )

        self.publisher.resend(Resend(boot, again, gone, done))
        return command.Later()

    def health(self) -> dict[str, Any]:
        """Return the health message."""
        return health.report(
            self.plan,
            self._acquisition.links,
            self._acquisition.polls,
            self.spool,
            self.publisher.counters,
            self.recorder.counters,
            used=self._utilisation.of(self._acquisition.links, self.clock.monotonic_ns() / NS),
            unexpected=self.pipeline.unexpected,
            clock={"state": self.clock.state, "offset_s": self.clock.offset_s},
            unjudged=None if self.pipeline.is_judging else len(self.pipeline.unjudged),
            events_dropped=self.journal.dropped,
            tasks=len(asyncio.all_tasks()),
            up_s=(self.clock.monotonic_ns() - self._acquisition.origin_ns) / NS,
            now_ns=self.clock.wall_ns(self.clock.monotonic_ns()),
        )

    def _serve_metrics_where_asked(self, tasks: asyncio.TaskGroup) -> None:
        if self.spec.metrics_listen:
            self._serve(tasks, "metrics", self._serve_metrics(*self.spec.metrics_listen))

    async def _serve_metrics(self, host: str, port: int) -> None:
        """Answer every HTTP request with the counters in Prometheus text."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(5.0):
                    await reader.readuntil(b"\r\n\r\n")
                body = health.prometheus(self.spec.id, self.health()).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
                await writer.drain()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                return
            finally:
                writer.close()

        try:
            server = await asyncio.start_server(answer, host, port)
        except OSError as error:
            log.error("metrics cannot be served: %s", error)  # meters are read all the same
            return
        async with server:
            await server.serve_forever()


def _read_learnt(path: Path) -> bytes | None:
    make_way(path, LEARNT_BYTES)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None  # the first start
    except OSError as error:
        log.error("%s: what the detectors had learnt cannot be read: %s; they begin anew", path, error.strerror)
        return None


def _clock_time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / NS, UTC).isoformat(timespec="seconds")


def _put_aside(path: Path) -> None:
    """Keep a file that this version cannot use: the one that wrote it may come back."""
    with contextlib.suppress(OSError):
        path.replace(path.with_name(f"{path.name}.unused"))


def catalog_of(plan: Plan) -> Catalog:
    """Return what a plan reads, as everybody else is told."""
    devices = [_catalog_device(device) for device in plan.spec.devices]
    return Catalog(identify(devices, [astuple(text) for text in scan_texts(plan.table)]), devices)


def _folder(spec: GatewaySpec, state: Path) -> Path:
    return spec.spool_path if spec.spool_path.is_absolute() else state / spec.spool_path


def _catalog_device(device: Device) -> CatalogDevice:
    tags = [
        CatalogTag(
            tag.name,
            tag.point.unit,
            tag.point.kind,
            tag.point.range,
            {name: limit for name, limit in zip(LIMITS, tag.limits, strict=True) if limit == limit},
            tag.period_s,
            None if tag.point.type.startswith("float") else decimals_of(tag.point.scale),
        )
        for tag in device.tags
    ]
    return CatalogDevice(
        device.name, device.profile, device.asset, device.line, device.kp_m, tags, {}, device.measurement, device.link
    )


def _fields(device: CatalogDevice) -> dict[str, Any]:
    return {name: getattr(device, name) for name in CatalogDevice.__dataclass_fields__}


async def main(plan: Plan, state: Path, say: Say, config: Path | None = None) -> int:
    """Run the gateway until SIGTERM or SIGINT; returns the exit code. `say` is told what has to be compiled first.

    config  the file that the plan came from: SIGHUP and `corridor reload` read it again
    """
    stop = asyncio.Event()
    requests, supervisor = Requests(), Supervisor()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, requests.signal)
    try:
        hold(_folder(plan.spec, state))  # until the process ends
    except InUse as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.debug("%s", error)  # the spool will say it
    clock = SystemClock()
    acquisition = Acquisition(plan, clock)
    process = Process(plan, state, acquisition, clock, say)
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(raise_bugs(), name="bugs"),
                tasks.create_task(
                    supervisor.attend(acquisition, clock, process.pulses, process.status_line), name="supervise"
                ),
            ]
            acquisition.start(tasks)
            reloads = None
            if config is not None:
                reloads = Reloads(requests, config, supervisor)
                beside.append(
                    tasks.create_task(control.serve(state, {"reload": requests.ask}), name="control"),
                )
            beside.append(tasks.create_task(supervisor.tell_end(stop), name="end"))
            await process.run(stop, reloads)
            await acquisition.stop()
            await end(beside, CANCEL_AGAIN_S)
    finally:
        await acquisition.close()
    return 0


async def raise_bugs() -> None:
    """Raise what a callback of ours raises: the loop would only log it, and the gateway go on without what it did."""
    loop = asyncio.get_running_loop()
    broken: asyncio.Future[None] = loop.create_future()

    def take(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        callback = getattr(context.get("handle"), "_callback", None)
        if str(getattr(callback, "__module__", "")).startswith(OURS) and not broken.done():
            broken.set_exception(context["exception"])

    loop.set_exception_handler(take)
    await broken


class Process:
    """The gateway as it comes up: kernels and spool are loaded while the pollers are at work already."""

    def __init__(self, plan: Plan, state: Path, acquisition: Acquisition, clock: WallClock, say: Say) -> None:
        self._plan, self._state, self._acquisition, self._clock, self._say = plan, state, acquisition, clock, say
        self._gateway: Gateway | None = None

    def pulses(self) -> list[Pulse]:
        """Return what has to go on beside the pollers."""
        return self._gateway.pulses() if self._gateway else []

    def status_line(self) -> str:
        """Return how it goes, for people."""
        return self._gateway.status_line() if self._gateway else "polling; loading kernels and spool"

    async def run(self, stop: asyncio.Event, reloads: Reloads | None) -> None:
        """Load what it takes, then take over what the pollers read, until `stop` is set."""
        plan, catalog = self._plan, catalog_of(self._plan)
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(stop.wait())
            preparing = tasks.create_task(asyncio.to_thread(_prepare, plan, self._state, catalog.catalog, self._say))
            await asyncio.wait({stopping, preparing}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            preparing.cancel()
        if preparing.cancelled():
            return  # told to end while a compiler was at work, which nothing can interrupt
        spool = preparing.result()
        gateway = Gateway(plan, self._state, self._acquisition, spool, self._clock, catalog, self._say)
        log.info(
            "gateway %s: boot %d, %d devices, %d tags, %d links",
            plan.spec.id, spool.boot, len(plan.spec.devices), plan.table.n, len(plan.spec.links),
        )  # fmt: skip
        gc.freeze()  # without a look at it: of 130,000 objects made on the way up one in a hundred is garbage
        gc.set_threshold(GC_OBJECTS)
        gc.enable()
        self._gateway = gateway
        await gateway.run(stop, reloads)


def _prepare(plan: Plan, state: Path, catalog: str, say: Say) -> DiskSpool:
    compile_missing(say, of_line(plan.table))
    return DiskSpool(_folder(plan.spec, state), plan.spec.spool_max_bytes, catalog, scan_texts(plan.table))
