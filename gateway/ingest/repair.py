"""Frames that were lost between a gateway and the store, asked for again: a broker that forgot, an overflow, a kill.

Lost is what a gateway says that the broker has had, and the ledger misses. It is asked for when it was missing at two
looks GRACE_S apart, so that what is on its way has arrived; of the workers that share a load one asks, the first by
name of those that are heard. A gateway is asked one thing at a time, and more rarely the longer that brings nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.ingest.ledger import GONE, Key, Ledger
from gateway.model.clock import NS
from gateway.model.ranges import RangeSet
from gateway.wire.lines import bounded
from gateway.wire.strict_json import loads, whole
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
    """

    ident: str
    asked: int = 0
    recovered: int = 0
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

    def look(self, ledger: Ledger, now_s: float) -> list[Ask]:
        """Return what to ask for now; at most one thing of each gateway."""
        if now_s - self._looked_s < GRACE_S:
            return []
        self._looked_s = now_s
        before, self._before = self._before, _lost(ledger)
        if not self.is_first(now_s):
            return []
        asks: dict[str, Ask] = {}
        for (name, boot), lost in sorted(self._before.items()):
            gateway = self._gateways.get(name)
            ripe = lost.common(before.get((name, boot), RangeSet()))
            if gateway is None or name in asks or not ripe or now_s < gateway.until_s:
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
            sent = _ranges(raw.get("sent", []))
            gone = {why: list(_ranges(ranges)) for why, ranges in raw.get("gone", {}).items() if why in GONE}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a reply: {error!r}") from None
        boot, known.asked = known.asked.boot, None
        if raw.get("ok"):
            known.until_s, known.patience_s = now_s, PATIENCE_S
            self.recovered += sent.total
            if gone:
                ledger.lose(gateway, boot, gone)


def _lost(ledger: Ledger) -> dict[Key, RangeSet]:
    """Return what the broker has had of gateways that are there, and the ledger misses."""
    out = {}
    for row in ledger.report()["gateways"]:
        status = ledger.statuses.get(row["gateway"])
        if status is None or not status.is_online:
            continue
        lost = RangeSet(row["waiting"]).missing_from(RangeSet(row["missing"]))
        if lost:
            out[row["gateway"], row["boot"]] = lost
    return out


def _first_of(ranges: RangeSet) -> RangeSet:
    """Return as many of the first frames as one command names."""
    out, room = RangeSet(), MAX_FRAMES
    for first, last in list(ranges)[:MAX_RANGES]:
        if room:
            out.add(first, min(last, first + room - 1))
            room -= min(room, last - first + 1)
    return out


def _ranges(raw: Any) -> RangeSet:
    return RangeSet(bounded(sorted((whole(first), whole(last)) for first, last in raw)))
