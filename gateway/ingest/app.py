"""The ingest process: broker -> inbox -> check -> store -> dead letters -> ledger -> acknowledgement.

    receive()     one session: subscribe, fill the inbox; acknowledges nothing
    write()       takes a batch, keeps it, parks poison, records the frames, then acknowledges; two of them take turns
    save()        brings to disk what the gateways and the other workers say
    announce()    publishes the ledger
    mend()        asks the gateways for what was lost on the way

The next batches collect and are checked while one is being written. What is not acknowledged stays in the broker's
queue for our stable client id; while the store is away the broker's window fills and it stops sending. A repeat is
harmless at every step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.history.store import Store, open_store
from gateway.ingest.batch import Batch, collect
from gateway.ingest.dead_letters import DeadLetters
from gateway.ingest.inbox import Delivery, Inbox
from gateway.ingest.keep import Patience, keep
from gateway.ingest.ledger_file import LedgerFile
from gateway.ingest.repair import ALIVE_S, GRACE_S, Repair
from gateway.model.corridor import IngestSpec
from gateway.model.ranges import RangeSet, to_text
from gateway.wire import topics
from gateway.wire.client import Client, Message, MqttError, Rejected, keep_connected
from gateway.wire.ledger import count
from gateway.wire.strict_json import dumps

log = logging.getLogger(__name__)

SESSION_EXPIRY_S: Final = 86_400  # so long a removed worker is still handed its share; the ledger names what that loses
RECEIVE_MAXIMUM: Final = 256  # unacknowledged messages: two batches of the smallest, some 64 MB of the largest
ANNOUNCE_S: Final = 5.0  # at most so often the ledger is published
MEND_S: Final = 0.5  # how often it is looked whether nothing waits
WRITERS: Final = 2  # one checks its batch while the store is at work on that of the other
SAVE_S: Final = 0.5  # what gateways say of their spools changes every second; an older word on disk does little harm
REFUSED: Final = 0x80  # SUBACK codes from here on are failures


async def run(spec: IngestSpec, state: Path, *, stop: asyncio.Event, ready: Callable[[], None] | None = None) -> None:
    """Ingest until `stop` is set; `ready` is called when the data are subscribed for the first time.

    A broker or store that is away is waited for. Raises OSError or sqlite3.OperationalError if `state` cannot be used.
    """
    file = LedgerFile(state)
    ingest = Ingest(spec, open_store(spec.store), file, DeadLetters(state), ready)
    jobs = {
        "receive": ingest.connect(),
        **{f"write-{k}": ingest.write() for k in range(WRITERS)},
        "save": ingest.save(),
        "announce": ingest.announce(),
        "repair": ingest.mend(),
    }
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(job, name=f"ingest:{name}") for name, job in jobs.items()]
            await stop.wait()
            for task in running:
                task.cancel()
    finally:
        with contextlib.suppress(OSError, sqlite3.Error):
            await file.save(ingest.ledger)
        await ingest.store.close()
        await file.close()


class Ingest:
    """The state that the tasks of one ingest share."""

    def __init__(
        self,
        spec: IngestSpec,
        store: Store,
        file: LedgerFile,
        letters: DeadLetters,
        ready: Callable[[], None] | None = None,
    ) -> None:
        self.spec = spec
        self.store = store
        self.file = file
        self.letters = letters
        self.ready = ready
        self.ledger = file.load()
        self.inbox = Inbox()
        self.client: Client | None = None
        self.messages_total = 0
        self.lines_total = 0
        self.patience = Patience("store")
        self.disk = Patience("state folder")
        self.repair = Repair(spec.id)
        self.writing = 0
        self.kept_s = time.monotonic()  # when a batch was last stored

    async def connect(self) -> None:
        """Stay connected under our stable id, so that the broker keeps our queue."""
        await keep_connected(
            self.spec.mqtt,
            self.spec.id,
            self.receive,
            clean_start=False,
            session_expiry_s=SESSION_EXPIRY_S,
            manual_ack=True,
            receive_maximum=RECEIVE_MAXIMUM,
        )

    async def receive(self, client: Client) -> None:
        """One connection: subscribe and take in what comes; raises MqttError when it ends."""
        corridor = self.spec.corridor
        self.inbox.clear()
        self.client = client
        try:
            data = topics.all_data(corridor)
            await _subscribe(client, f"$share/{self.spec.share}/{data}" if client.is_v5 else data, 1)
            for spoken in (
                topics.all_of(corridor, "status"),
                topics.ledger(corridor),
                topics.all_of(corridor, "reply"),
            ):
                await _subscribe(client, spoken, 0)  # told again: retained, or asked for again
            if self.ready:
                self.ready()
                self.ready = None
            async for message in client.messages:
                self.take_in(client, message)
        finally:
            self.client = None

    def take_in(self, client: Client, message: Message) -> None:
        """Sort a message: data into the inbox, what gateways and other workers say into the ledger."""
        topic, payload = message.topic.value, bytes(message.payload)
        if topic.endswith("/data"):
            self.inbox.put(Delivery(client, message, topic, payload))
            if self.inbox.is_full:
                raise MqttError("the broker sends more than its window allows")
            return
        try:
            ours, now_s = topics.parse(topic), time.monotonic()
            if ours and ours.leaf == "status":
                replaced = self.ledger.note(ours.address.gateway, payload, is_retained=message.retain)
                if replaced:
                    log.warning(
                        "%s has another spool, which begins anew: forgets boots %s of the old one, of which %d frames"
                        " never came",
                        ours.address.gateway,
                        to_text(RangeSet((row["boot"], row["boot"]) for row in replaced)),
                        sum(count(row["missing"]) + count(row["gone"]) for row in replaced),
                    )
                self.repair.meet(ours.address)
            elif ours and ours.leaf == "reply":
                self.repair.answer(ours.address.gateway, payload, self.ledger, now_s)
            elif (peer := self.ledger.absorb(self.spec.id, self.spec.share, payload)) and not message.retain:
                self.repair.heard(peer, now_s)
        except ValueError as error:
            log.warning("%s: ignored: %s", topic, error)

    async def write(self) -> None:
        """Keep one batch after the other, for ever."""
        while True:
            deliveries = await self.inbox.take()
            if not deliveries:
                continue
            self.writing += 1
            batch = collect(deliveries, time.time_ns())
            batch.refuse(await keep(self.store, batch.lines, self.patience), time.time_ns())
            await self.park(batch)
            self.ledger.add(batch.entries())
            await self.disk.until_done(lambda: self.file.save(self.ledger))
            self.acknowledge(deliveries)
            self.writing -= 1
            self.kept_s = time.monotonic()
            self.messages_total += len(deliveries)
            self.lines_total += len(batch.lines)

    async def park(self, batch: Batch) -> None:
        """Write the batch's dead letters, if any, before anything of it is acknowledged."""
        if not batch.letters:
            return
        await self.disk.until_done(lambda: asyncio.to_thread(self.letters.park, batch.letters))
        first = batch.letters[0]
        log.warning(
            "%d dead letters, %d in all; the first from %s: %s",
            len(batch.letters), self.letters.parked_total, first.topic, first.reason,
        )  # fmt: skip

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Acknowledge what came on the present connection; the rest will come again."""
        for delivery in deliveries:
            if delivery.client is self.client:
                delivery.client.ack(delivery.message)

    async def save(self) -> None:
        """Save what gateways and other workers said soon after they said it; the writer saves frames."""
        while True:
            await asyncio.sleep(SAVE_S)
            await self.disk.until_done(lambda: self.file.save(self.ledger))

    async def announce(self) -> None:
        """Publish the ledger, retained, when it has changed, and as a sign of life."""
        topic, published, refused = topics.ledger(self.spec.corridor, self.spec.id), 0, False
        told_s = 0.0
        while True:
            await asyncio.sleep(ANNOUNCE_S)
            version, now_s = self.ledger.version, time.monotonic()
            if self.client is None or (version == published and now_s - told_s < ALIVE_S / 2):
                continue
            try:
                payload = self.ledger.encode(self.spec.id, self.spec.share, time.time_ns(), self.repair.lost)
                await self.client.publish(topic, payload, 1, True)
                published, refused, told_s = version, False, now_s
            except Rejected as error:
                if not refused:
                    log.warning("the ledger cannot be published on %s: %s", topic, error)
                refused = True
            except MqttError:
                pass  # the connection is gone; keep_connected says so

    async def mend(self) -> None:
        """Ask for what was lost on the way, while nothing waits here that might be it, or hardly ever stops waiting.

        While the store takes nothing, everything waits, here and in the broker, and nothing is known to be lost.
        """
        refused, idle_s = False, time.monotonic()
        while True:
            await asyncio.sleep(MEND_S)
            client, now_s = self.client, time.monotonic()
            is_busy = self.writing > 0 or self.inbox.statistics()["messages"] > 0
            is_stuck = is_busy and now_s - self.kept_s > GRACE_S
            if is_stuck or not is_busy:
                idle_s = now_s
            if client is None or is_stuck or GRACE_S > now_s - idle_s > 0:
                continue
            for ask in self.repair.look(self.ledger, now_s, is_queue_in=not is_busy):
                log.info("asks %s for %d frames of boot %d again", ask.to.gateway, ask.ranges.total, ask.boot)
                try:
                    await client.publish(ask.to.command("resend"), dumps(ask.command(self.spec.id, time.time_ns())), 1)
                except Rejected as error:
                    if not refused:
                        log.warning("what is missing cannot be asked for on %s: %s", ask.to.command("resend"), error)
                    refused = True
                except MqttError:
                    break  # the connection is gone; keep_connected says so


async def _subscribe(client: Client, topic_filter: str, qos: int) -> None:
    granted = await client.subscribe(topic_filter, qos=qos)
    codes = [code if isinstance(code, int) else code.value for code in granted]
    if any(code >= REFUSED for code in codes):
        raise MqttError(f"the broker refuses the subscription to {topic_filter}")
