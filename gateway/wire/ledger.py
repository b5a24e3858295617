"""The ledger message of an ingest: what its store has of every gateway, and what is missing or never comes.

    corridor/v1/<corridor>/ledger/<ingest>   retained
    {ingest, share, time, missing, waiting, gone, parked, absent, gateways: [...], accounts: [...]}

`gateways` is for people and programs, one entry per gateway and boot; `accounts` is for the other workers of a share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NotRequired, TypedDict

from gateway.model.ranges import from_text, to_text
from gateway.wire.lines import bounded
from gateway.wire.strict_json import MAX_WHOLE, dumps, loads, text, whole

GONE: Final = ("dropped", "damaged", "uncommitted")  # why a gateway cannot send a frame again
MAX_NAME: Final = 128  # characters of a name; ours have 64

Ranges = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Entry:
    """Frames of one gateway and boot that are accounted for; `mark` is one of them and its time, Unix ns."""

    gateway: str
    boot: int
    stored: Ranges
    parked: Ranges
    mark: tuple[int, int] | None = None


class GatewayReport(TypedDict):
    """One boot of one gateway. Up to frame `complete_to`, of `complete_time`, nothing is missing; some may be gone.

    waiting  those of the missing that the broker has not had yet;  why  those of the gone, by reason
    absent   samples that never existed: device -> name of the quality -> how many
    lost     those of the missing that are asked for again, as a running ingest knows it
    """

    gateway: str
    boot: int
    complete_to: int
    complete_time: int | None
    missing: Ranges
    waiting: Ranges
    gone: Ranges
    why: dict[str, Ranges]
    parked: Ranges
    absent: dict[str, dict[str, int]]
    lost: NotRequired[Ranges]


class Report(TypedDict):
    """The ledger for people and programs; the totals are numbers of frames, `absent` of samples."""

    missing: int
    waiting: int
    gone: int
    parked: int
    absent: int
    gateways: list[GatewayReport]


@dataclass(frozen=True, slots=True)
class LedgerMessage:
    """What an ingest said at `time_ns`; ingests of one share fill one store together."""

    ingest: str
    share: str
    time_ns: int
    gateways: list[GatewayReport]


def count(ranges: Iterable[tuple[int, int]]) -> int:
    """Return how many frames ranges have."""
    return sum(last - first + 1 for first, last in ranges)


def encode_ledger(ingest: str, share: str, now_ns: int, report: Report, accounts: Iterable[Entry]) -> bytes:
    """Return the JSON message."""
    said: dict[str, Any] = {"ingest": ingest, "share": share, "time": now_ns, **report}
    said["accounts"] = [
        [one.gateway, one.boot, to_text(one.stored), to_text(one.parked), one.mark or (0, 0)] for one in accounts
    ]
    return dumps(said)


def decode_ledger(payload: bytes) -> LedgerMessage:
    """Return what a message says to everybody; raises ValueError for anything else."""
    try:
        raw = loads(payload)
        gateways = [_gateway(one) for one in raw["gateways"]]
        return LedgerMessage(_name(raw["ingest"]), _name(raw["share"]), whole(raw["time"]), gateways)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a ledger: {error!r}") from None


def decode_accounts(payload: bytes, ingest: str, share: str) -> tuple[str, list[Entry]] | None:
    """Return who said it and what it has; None for a message of `ingest` itself or of another share.

    Raises ValueError if it is not a ledger message.
    """
    try:
        raw = loads(payload)
        other = text(raw["ingest"])
        if other == ingest or raw["share"] != share:
            return None
        return other, [
            Entry(text(who), _number(boot), _from_text(stored), _from_text(parked), _mark(*rest))
            for who, boot, stored, parked, *rest in raw["accounts"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a ledger: {error!r}") from None


def ranges_of(raw: Any) -> Ranges:
    """Return JSON pairs as ranges in order; raises TypeError or ValueError for anything else."""
    return bounded(sorted((whole(first), whole(last)) for first, last in raw))


def absent_of(raw: Any) -> dict[str, dict[str, int]]:
    """Return {device: {quality: samples}}; raises AttributeError, TypeError or ValueError for anything else."""
    return {
        _name(device): {_name(quality): _amount(n) for quality, n in counts.items()} for device, counts in raw.items()
    }


def _gateway(raw: Any) -> GatewayReport:
    time_ns = raw["complete_time"]
    report: GatewayReport = {
        "gateway": _name(raw["gateway"]),
        "boot": _number(raw["boot"]),
        "complete_to": _amount(raw["complete_to"]),
        "complete_time": None if time_ns is None else _amount(time_ns),
        "missing": ranges_of(raw["missing"]),
        "waiting": ranges_of(raw["waiting"]),
        "gone": ranges_of(raw["gone"]),
        "why": {reason: ranges_of(ranges) for reason, ranges in raw["why"].items() if reason in GONE},
        "parked": ranges_of(raw["parked"]),
        "absent": absent_of(raw["absent"]),
    }
    if "lost" in raw:
        report["lost"] = ranges_of(raw["lost"])
    return report


def _name(raw: Any) -> str:
    name = text(raw)
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"a name of {len(name)} characters")
    return name


def _amount(raw: Any) -> int:
    """Return a number or time that is not negative."""
    n = whole(raw)
    if not 0 <= n <= MAX_WHOLE:
        raise ValueError(f"wanted no number below 0, got {n}")
    return n


def _number(raw: Any) -> int:
    [(number, _)] = bounded([(whole(raw), whole(raw))])
    return number


def _mark(raw: Any = (0, 0)) -> tuple[int, int] | None:
    seq, time_ns = raw
    return (whole(seq), whole(time_ns)) if seq else None


def _from_text(raw: Any) -> Ranges:
    """Return the ranges of a text in order, because adding them in any other would take the square of their number."""
    return bounded(sorted(from_text(text(raw))))
