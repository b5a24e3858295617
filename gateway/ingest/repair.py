"""Frames that were lost between a gateway and the store, asked for again: a broker that forgot, an overflow, a kill.

Lost is what a gateway says that the broker has had, and the ledger misses. It is asked for when it was missing at two
looks GRACE_S apart, so that what is on its way has arrived. While a queue comes in, which lasts as long as the store
was away, only what something else has passed is lost: a queue is in order. Of the workers that share a load one asks,
the first by name of those that are heard. A gateway is asked one thing at a time, and more rarely the longer that
brings nothing.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any, Final

from gateway.ingest.ledger import Key, Ledger
from gateway.model.clock import NS
from gateway.model.ranges import RangeSet
from gateway.wire.ledger import GONE, ranges_of
from gateway.wire.strict_json import loads
from gateway.wire.topics import GatewayAddress

GRACE_S: Final = 10.0  # as often as a gateway tells its status, and twice what workers wait to tell each other theirs
ALIVE_S: Final = 60.0  # a worker that was not heard for so long asks nothing
PATIENCE_S: Final = 60.0  # for an answer, doubling: the frames come by a link that may be thin
PATIENCE_CAP_S: Final = 900.0
MAX_FRAMES: Final = 20_000  # in one command: some minutes of a large gateway
MAX_RANGES: Final = 200  # in one command, which is at most 16 kB


@dataclass(frozen=True, slots=True)
class Ask:
    """A `resend` for one boot of a gateway."""

    ident: str
    to: GatewayAddress
    boot: int
    ranges: RangeSet

    def command(self, by: str, now_ns: int) -> dict[str, Any]:
        """Return its payload."""
        expires = now_ns + round(PATIENCE_S * NS)
        return {"id": self.ident, "expires": expires, "by": by, "boot": self.boot, "ranges": list(self.ranges)}


@dataclass(slots=True)
class _Gateway:
    """What is known of one: where it is, what it was asked and until when an answer is waited for."""

    address: GatewayAddress
    asked: Ask | None = None
    until_s: float = 0.0
    patience_s: float = PATIENCE_S


@dataclass(slots=True)
class Repair:
    """Decides what to ask for; knows no broker and no clock.

    asked, recovered  frames since the start: asked for, and answered as sent
    lost  what was missing at the last two looks
    """

    ident: str
    asked: int = 0
    recovered: int = 0
    lost: dict[Key, RangeSet] = field(default_factory=dict)
    _gateways: dict[str, _Gateway] = field(default_factory=dict)
    _peers: dict[str, float] = field(default_factory=dict)
    _before: dict[Key, RangeSet] = field(default_factory=dict)
    _looked_s: float = float("-inf")

    def meet(self, address: GatewayAddress) -> None:
        """Take note of where a gateway is."""
        known = self._gateways.setdefault(address.gateway, _Gateway(address))
        known.address = address

    def heard(self, peer: str, now_s: float) -> None:
        """Take note that another worker of the share is alive."""
        self._peers[peer] = now_s

    def is_first(self, now_s: float) -> bool:
        """Return whether it is this worker that asks."""
        return all(peer > self.ident for peer, at_s in self._peers.items() if now_s - at_s < ALIVE_S)

    def look(self, ledger: Ledger, now_s: float, *, is_queue_in: bool = True) -> list[Ask]:
        """Return what to ask for now; at most one thing of each gateway.

        is_queue_in  nothing waits here, so whatever the broker had for us has come
        """
        if now_s - self._looked_s < GRACE_S:
            return []
        self._looked_s = now_s
        before, self._before = self._before, _overdue(ledger, is_queue_in=is_queue_in)
        self.lost = {key: late.common(before.get(key, RangeSet())) for key, late in self._before.items()}
        if not self.is_first(now_s):
            return []
        asks: dict[str, Ask] = {}
        for (name, boot), ripe in sorted(self.lost.items()):
            gateway = self._gateways.get(name)
            if gateway is None or name in asks or not ripe or now_s < gateway.until_s:
                continue
            if not ledger.statuses[name].is_online:
                continue
            if gateway.asked is not None:  # it has not answered
                gateway.patience_s = min(2 * gateway.patience_s, PATIENCE_CAP_S)
            asks[name] = gateway.asked = Ask(uuid.uuid4().hex, gateway.address, boot, _first_of(ripe))
            gateway.until_s = now_s + gateway.patience_s
            self.asked += gateway.asked.ranges.total
        return list(asks.values())

    def answer(self, gateway: str, payload: bytes, ledger: Ledger, now_s: float) -> None:
        """Take a gateway's reply, if it is to a question of ours; raises ValueError for one that cannot be read."""
        known = self._gateways.get(gateway)
        try:
            raw = loads(payload)
            if known is None or known.asked is None or raw["id"] != known.asked.ident:
                return
            sent = RangeSet(ranges_of(raw.get("sent", [])))
            gone = {
                why: list(RangeSet(ranges_of(ranges))) for why, ranges in raw.get("gone", {}).items() if why in GONE
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a reply: {error!r}") from None
        boot, known.asked = known.asked.boot, None
        if raw.get("ok"):
            known.until_s, known.patience_s = now_s, PATIENCE_S
            self.recovered += sent.total
            if gone:
                ledger.lose(gateway, boot, gone)


def _overdue(ledger: Ledger, *, is_queue_in: bool) -> dict[Key, RangeSet]:
    """Return what the broker has had and the ledger misses; of a queue that still comes in what others have passed."""
    newest: dict[str, tuple[int, int]] = {}
    for (name, boot), account in ledger.accounts.items():
        last = max((last for ranges in (account.stored, account.parked) for _, last in ranges), default=0)
        newest[name] = max(newest.get(name, (0, 0)), (boot, last))
    out = {}
    for row in ledger.report()["gateways"]:
        late = RangeSet(row["waiting"]).missing_from(RangeSet(row["missing"]))
        boot, last = newest.get(row["gateway"], (0, 0))
        if not is_queue_in and row["boot"] >= boot:
            late = late.common(RangeSet([(1, last)] if row["boot"] == boot and last else []))
        if late and row["gateway"] in ledger.statuses:
            out[row["gateway"], row["boot"]] = late
    return out


def _first_of(ranges: RangeSet) -> RangeSet:
    """Return as many of the first frames as one command names, with what stands between them where they are too many.

    Of two workers one may be gone, and with it every second message: asked for one by one these would never end.
    """
    spans = list(islice(ranges, MAX_FRAMES))
    n = bisect_right(range(1, len(spans) + 1), MAX_FRAMES, key=lambda n: _closed(spans[:n]).total)
    if spans and not n:
        return RangeSet([(spans[0][0], spans[0][0] + MAX_FRAMES - 1)])
    return _closed(spans[:n])


def _closed(spans: Sequence[tuple[int, int]]) -> RangeSet:
    """Return ranges with all gaps closed but the widest, so that there are at most MAX_RANGES."""
    gaps = [(b[0] - a[1], a[1], b[0]) for a, b in pairwise(spans)]
    out, first = RangeSet(), spans[0][0] if spans else 0
    for _, last, after in sorted(nlargest(MAX_RANGES - 1, gaps), key=itemgetter(1)):
        out.add(first, last)
        first = after
    if spans:
        out.add(first, spans[-1][1])
    return out
