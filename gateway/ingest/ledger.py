"""Which frames of which gateway are in the store, which are missing, and which nobody can send any more.

    accounted = stored or parked, empty frames included
    whole     = from frame 1 to the last that was accounted or that the gateway says it has committed
    missing   = whole - accounted, as far as the gateway's spool has it (or may have it in a moment)
    waiting   = what of the missing the broker has not had yet: the gateway is going to send it
    lost      = what of the missing the broker has had: asked for with `resend`
    gone      = whole - accounted, and no longer in the spool, or never committed, or the gateway has said so

The gateway says what its spool has in its retained `status`: {boot: [first, last]}, and which samples never existed. A
frame is recorded after the store took it and before the broker hears of it: a crash between the two causes a repeat,
and a repeat changes nothing.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.model.ranges import RangeSet
from gateway.wire.ledger import (
    Entry,
    GatewayReport,
    Ranges,
    Report,
    absent_of,
    count,
    decode_accounts,
    encode_ledger,
    ranges_of,
)
from gateway.wire.lines import bounded
from gateway.wire.strict_json import loads, whole

MAX_MARKS: Final = 4_096  # frames behind a gap whose time is known; of more every other is forgotten
KEPT_BOOTS: Final = 64  # per gateway; older ones are forgotten once the spool has none of their frames

Key = tuple[str, int]  # gateway, boot


@dataclass(slots=True)
class Account:
    """One boot of one gateway: the frames that are in the store, and those that were parked instead.

    gone      why the gateway cannot send them -> frames
    complete  the last frame up to which nothing was missing whose time is known, and that time, Unix ns
    marks     the same of frames behind it, in order
    absent    samples that never existed: device -> quality -> how many
    """

    stored: RangeSet = field(default_factory=RangeSet)
    parked: RangeSet = field(default_factory=RangeSet)
    gone: dict[str, RangeSet] = field(default_factory=dict)
    complete: tuple[int, int] = (0, 0)
    marks: list[tuple[int, int]] = field(default_factory=list)
    absent: dict[str, dict[str, int]] = field(default_factory=dict)

    def mark(self, seq: int, time_ns: int) -> None:
        """Take note of a frame's time."""
        insort(self.marks, (seq, time_ns))
        if len(self.marks) > MAX_MARKS:
            del self.marks[::2]

    def completed(self, complete_to: int) -> int | None:
        """Return the time up to which nothing is missing, None where it is not known."""
        while self.marks and self.marks[0][0] <= complete_to:
            self.complete = self.marks.pop(0)
        return self.complete[1] if 0 < self.complete[0] <= complete_to else None


@dataclass(frozen=True, slots=True)
class Status:
    """What a gateway said last: its running boot, the committed range of every boot, what of it the broker has had."""

    boot: int
    boots: dict[int, tuple[int, int]]
    delivered: dict[int, Ranges] = field(default_factory=dict)
    is_online: bool = False


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
            if entry.mark:
                account.mark(*entry.mark)
                account.completed(next(iter(account.stored))[1])
            self._touch(key)

    def lose(self, gateway: str, boot: int, gone: Mapping[str, Ranges]) -> None:
        """Take a gateway's word for frames that it cannot send again."""
        account = self.accounts.setdefault((gateway, boot), Account())
        for why, ranges in gone.items():
            for first, last in ranges:
                account.gone.setdefault(why, RangeSet()).add(first, last)
        self._touch((gateway, boot))

    def note(self, gateway: str, payload: bytes, *, is_retained: bool = False) -> list[GatewayReport]:
        """Take a gateway's status; raises ValueError for anything else.

        A Last Will was written when the gateway connected, so it is old news unless it names later frames. One that is
        online and not retained is the gateway's present word: what it says of later boots, or of more frames of this
        one, than it has given is of another spool, which was replaced. Returns what those accounts said at last; they
        are forgotten, since the new spool gives their numbers again.
        """
        try:
            raw = loads(payload)
            boots = {int(boot): (whole(first), whole(last)) for boot, (first, last) in raw["boots"].items()}
            delivered = {int(boot): ranges_of(ranges) for boot, ranges in raw.get("delivered", {}).items()}
            status = Status(whole(raw["boot"]), boots, delivered, raw.get("state") == "online")
            bounded([(status.boot, status.boot), *((boot, boot) for boot in boots), *boots.values()])
            absent = absent_of(raw.get("absent", {}))
            committed_ns = whole(raw.get("committed", 0))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a status: {error!r}") from None
        known = self.statuses.get(gateway)
        replaced: list[GatewayReport] = []
        if status.is_online and not is_retained and (replaced := self._replaced(gateway, status, known)):
            for row in replaced:
                del self.accounts[gateway, row["boot"]]
                self._touch((gateway, row["boot"]))
            known = None
        if known and not status.is_online and _committed(status) <= _committed(known):
            status = replace(known, is_online=False)
        elif absent or committed_ns > 0:
            account = self.accounts.setdefault((gateway, status.boot), Account())
            if committed_ns > 0 and (known is None or _committed(status) > _committed(known)):
                account.mark(_committed(status)[1], committed_ns)  # it may be empty, and tell its time nowhere else
            if account.absent != absent:
                account.absent = absent
                self._touch((gateway, status.boot))
        if status != known:
            self.statuses[gateway] = status
            self._touch(gateway)
            self._forget_old(gateway)
        return replaced

    def _replaced(self, gateway: str, status: Status, known: Status | None) -> list[GatewayReport]:
        """Return the accounts that cannot be of the spool of which this status speaks."""
        (boot, last), (boot_before, last_before) = _committed(status), _committed(known) if known else (0, 0)
        is_anew = boot < boot_before or (boot == boot_before and 0 < last < last_before)
        first = boot if is_anew else boot + 1
        boots = sorted(boot for who, boot in self.accounts if who == gateway and boot >= first)
        return [compare(gateway, boot, self.accounts[gateway, boot], known) for boot in boots]

    def report(self) -> Report:
        """Return what is missing and what is gone."""
        keys = set(self.accounts) | {(gateway, boot) for gateway, each in self.statuses.items() for boot in each.boots}
        rows = [
            compare(gateway, boot, self.accounts.get((gateway, boot), Account()), self.statuses.get(gateway))
            for gateway, boot in sorted(keys)
        ]
        return {
            "missing": sum(count(row["missing"]) for row in rows),
            "waiting": sum(count(row["waiting"]) for row in rows),
            "gone": sum(count(row["gone"]) for row in rows),
            "parked": sum(count(row["parked"]) for row in rows),
            "absent": sum(n for row in rows for counts in row["absent"].values() for n in counts.values()),
            "gateways": rows,
        }

    def encode(self, ingest: str, share: str, now_ns: int, lost: Mapping[Key, RangeSet] | None = None) -> bytes:
        """Return the ledger message; `lost` is what is asked for again."""
        report = self.report()
        for row in report["gateways"]:
            asked = (lost or {}).get((row["gateway"], row["boot"]), RangeSet())
            row["lost"] = list(asked.common(RangeSet(row["missing"])))
        accounts = (
            Entry(gateway, boot, list(account.stored), list(account.parked), account.complete)
            for (gateway, boot), account in sorted(self.accounts.items())
        )
        return encode_ledger(ingest, share, now_ns, report, accounts)

    def absorb(self, ingest: str, share: str, payload: bytes) -> str | None:
        """Take over what another ingest of the same share has stored; returns its id.

        Without this, each of two workers would miss what the other one was handed. Raises ValueError if it is not a
        ledger message.
        """
        if (said := decode_accounts(payload, ingest, share)) is None:
            return None
        other, entries = said
        self.add(entry for entry in entries if self._is_news(entry))
        return other

    def _is_news(self, entry: Entry) -> bool:
        account = self.accounts.get((entry.gateway, entry.boot), Account())
        return bool(
            (entry.mark and entry.mark > account.complete)
            or account.stored.missing_from(RangeSet(entry.stored))
            or account.parked.missing_from(RangeSet(entry.parked))
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
    told = RangeSet(span for ranges in account.gone.values() for span in ranges)
    spool = status.boots.get(boot) if status else None
    ends = [number for span in (*accounted, *([spool] if spool else [])) for number in span]
    open_ = accounted.missing_from(RangeSet([(min(1, *ends), max(ends))])) if ends else RangeSet()
    missing, why = RangeSet(), {reason: ranges.common(open_) for reason, ranges in account.gone.items()}
    for first, last in told.missing_from(open_):
        for (a, b), reason in _split(first, last, boot, spool, status):
            (why.setdefault(reason, RangeSet()) if reason else missing).add(a, b)
    complete_to = next(iter(missing))[0] - 1 if missing else max(ends, default=0)
    delivered = RangeSet(status.delivered.get(boot, ()) if status else ())
    return {
        "gateway": gateway,
        "boot": boot,
        "complete_to": complete_to,
        "complete_time": account.completed(complete_to),
        "missing": list(missing),
        "waiting": list(delivered.missing_from(missing)),
        "gone": list(RangeSet(span for ranges in why.values() for span in ranges)),
        "why": {reason: list(ranges) for reason, ranges in sorted(why.items()) if ranges},
        "parked": list(account.parked),
        "absent": account.absent,
    }


def _split(
    first: int, last: int, boot: int, spool: tuple[int, int] | None, status: Status | None
) -> list[tuple[tuple[int, int], str]]:
    """Return first..last in parts, each with why the gateway cannot send it; empty where it can."""
    if status is None:
        return [((first, last), "")]
    runs_now = boot >= status.boot  # what it has not committed yet, it may commit in a moment
    low, high = spool or (first, first - 1)
    parts = [((first, min(last, low - 1)), "dropped"), ((max(first, low), min(last, high)), "")]
    parts.append(((max(first, high + 1), last), "" if runs_now else "uncommitted"))
    return [part for part in parts if part[0][0] <= part[0][1]]


def _committed(status: Status) -> tuple[int, int]:
    return status.boot, status.boots.get(status.boot, (0, 0))[1]
