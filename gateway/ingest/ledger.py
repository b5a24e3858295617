"""Which frames of which gateway are in the store, which are missing, and which nobody can send any more.

    accounted = stored or parked, empty frames included
    whole     = from frame 1 to the last that was accounted or that the gateway says it has committed
    missing   = whole - accounted, as far as the gateway's spool has it (or may have it in a moment)
    gone      = whole - accounted, and no longer in the spool, or never committed

The gateway says what its spool has in its retained `status`: {boot: [first, last]}. A frame is recorded after the
store took it and before the broker hears of it: a crash between the two causes a repeat, and a repeat changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

from gateway.model.ranges import RangeSet, from_text, to_text
from gateway.wire.lines import bounded
from gateway.wire.strict_json import dumps, loads, text, whole

KEPT_BOOTS: Final = 64  # per gateway; older ones are forgotten once the spool has none of their frames

Ranges = list[tuple[int, int]]
Key = tuple[str, int]  # gateway, boot


@dataclass(slots=True)
class Account:
    """One boot of one gateway: the frames that are in the store, and those that were parked instead."""

    stored: RangeSet = field(default_factory=RangeSet)
    parked: RangeSet = field(default_factory=RangeSet)


@dataclass(frozen=True, slots=True)
class Status:
    """What a gateway said last: its running boot, and the committed range of every boot in its spool."""

    boot: int
    boots: dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Entry:
    """Frames of one message that are accounted for now."""

    gateway: str
    boot: int
    stored: Ranges
    parked: Ranges


class GatewayReport(TypedDict):
    """One boot of one gateway. Up to frame `complete_to` nothing is missing, though some may be gone."""

    gateway: str
    boot: int
    complete_to: int
    missing: Ranges
    gone: Ranges
    parked: Ranges


class Report(TypedDict):
    """The ledger for people and programs; the totals are numbers of frames."""

    missing: int
    gone: int
    parked: int
    gateways: list[GatewayReport]


class Ledger:
    """All accounts and the last status of every gateway, in memory; `unsaved` names what is not on disk yet."""

    def __init__(self) -> None:
        self.accounts: dict[Key, Account] = {}
        self.statuses: dict[str, Status] = {}
        self.unsaved: set[Key | str] = set()
        self.version = 0  # rises with every change

    def add(self, entries: Iterable[Entry]) -> None:
        """Account for frames. Adding them again changes nothing."""
        for entry in entries:
            key = (entry.gateway, entry.boot)
            account = self.accounts.setdefault(key, Account())
            for first, last in entry.stored:
                account.stored.add(first, last)
            for first, last in entry.parked:
                account.parked.add(first, last)
            self._touch(key)

    def note(self, gateway: str, payload: bytes) -> None:
        """Take a gateway's status; raises ValueError for anything else.

        A Last Will was written when the gateway connected, so it is old news unless it names later frames.
        """
        try:
            raw = loads(payload)
            boots = {int(boot): (whole(first), whole(last)) for boot, (first, last) in raw["boots"].items()}
            status = Status(whole(raw["boot"]), boots)
            bounded([(status.boot, status.boot), *((boot, boot) for boot in boots), *boots.values()])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a status: {error!r}") from None
        known = self.statuses.get(gateway)
        if known and raw.get("state") == "offline" and _committed(status) <= _committed(known):
            return
        if status != known:
            self.statuses[gateway] = status
            self._touch(gateway)
            self._forget_old(gateway)

    def report(self) -> Report:
        """Return what is missing and what is gone."""
        keys = set(self.accounts) | {(gateway, boot) for gateway, each in self.statuses.items() for boot in each.boots}
        rows = [
            compare(gateway, boot, self.accounts.get((gateway, boot), Account()), self.statuses.get(gateway))
            for gateway, boot in sorted(keys)
        ]
        return {
            "missing": sum(_count(row["missing"]) for row in rows),
            "gone": sum(_count(row["gone"]) for row in rows),
            "parked": sum(_count(row["parked"]) for row in rows),
            "gateways": rows,
        }

    def encode(self, ingest: str, share: str) -> bytes:
        """Return the ledger message: the report, and `stored` and `parked` of every account for peers that share."""
        said: dict[str, Any] = {"ingest": ingest, "share": share, **self.report()}
        said["accounts"] = [
            [gateway, boot, to_text(account.stored), to_text(account.parked)]
            for (gateway, boot), account in sorted(self.accounts.items())
        ]
        return dumps(said)

    def absorb(self, ingest: str, share: str, payload: bytes) -> None:
        """Take over what another ingest of the same share has stored; raises ValueError if it is not a ledger message.

        Without this, each of two workers would miss what the other one was handed.
        """
        try:
            raw = loads(payload)
            if raw["ingest"] == ingest or raw["share"] != share:
                return
            entries = [
                Entry(text(who), _number(boot), _ranges(stored), _ranges(parked))
                for who, boot, stored, parked in raw["accounts"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a ledger: {error!r}") from None
        self.add(entry for entry in entries if self._is_news(entry))

    def _is_news(self, entry: Entry) -> bool:
        account = self.accounts.get((entry.gateway, entry.boot), Account())
        return bool(
            account.stored.missing_from(RangeSet(entry.stored)) or account.parked.missing_from(RangeSet(entry.parked))
        )

    def _forget_old(self, gateway: str) -> None:
        boots = sorted(boot for who, boot in self.accounts if who == gateway)
        for boot in boots[:-KEPT_BOOTS]:
            if boot not in self.statuses[gateway].boots:
                del self.accounts[gateway, boot]
                self._touch((gateway, boot))

    def _touch(self, what: Key | str) -> None:
        self.unsaved.add(what)
        self.version += 1


def compare(gateway: str, boot: int, account: Account, status: Status | None) -> GatewayReport:
    """Return what one boot lacks."""
    accounted = RangeSet([*account.stored, *account.parked])
    spool = status.boots.get(boot) if status else None
    ends = [number for span in (*accounted, *([spool] if spool else [])) for number in span]
    open_ = accounted.missing_from(RangeSet([(min(1, *ends), max(ends))])) if ends else RangeSet()
    missing: Ranges = []
    gone: Ranges = []
    for first, last in open_:
        for (a, b), can_come in _split(first, last, boot, spool, status):
            (missing if can_come else gone).append((a, b))
    return {
        "gateway": gateway,
        "boot": boot,
        "complete_to": missing[0][0] - 1 if missing else max(ends, default=0),
        "missing": missing,
        "gone": gone,
        "parked": list(account.parked),
    }


def _split(
    first: int, last: int, boot: int, spool: tuple[int, int] | None, status: Status | None
) -> list[tuple[tuple[int, int], bool]]:
    """Return first..last in parts, each with whether the gateway can still send it."""
    if status is None:
        return [((first, last), True)]
    runs_now = boot >= status.boot  # what it has not committed yet, it may commit in a moment
    low, high = spool or (first, first - 1)
    parts = [((first, min(last, low - 1)), False), ((max(first, low), min(last, high)), True)]
    parts.append(((max(first, high + 1), last), runs_now))
    return [part for part in parts if part[0][0] <= part[0][1]]


def _number(raw: Any) -> int:
    [(number, _)] = bounded([(whole(raw), whole(raw))])
    return number


def _ranges(raw: Any) -> Ranges:
    """Return the ranges of a text in order, because adding them in any other would take the square of their number."""
    return bounded(sorted(from_text(text(raw))))


def _committed(status: Status) -> tuple[int, int]:
    return status.boot, status.boots.get(status.boot, (0, 0))[1]


def _count(ranges: Ranges) -> int:
    return sum(last - first + 1 for first, last in ranges)
