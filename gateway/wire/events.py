"""Event, alarm and status messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final, Literal

from gateway.wire.strict_json import dumps, loads, number, text, whole

MAX_RANGES: Final = 64  # of one boot in a status: it is told every ten seconds

EventKind = Literal["quality", "anomaly", "alarm"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed, published once on <device>/event.

    time     Unix ns of the frame in which it was seen
    boot, seq  that frame
    quality  OPC UA status code
    value    the tag's value then, None while the quality is bad
    raw      the registers as hexadecimal text, for a value that could not be used
    score    0 to 1, of an anomaly
    reason   what spoke: a detector term, an alarm transition, a quality name
    """

    time: int
    boot: int
    seq: int
    kind: EventKind
    device: str
    tag: str
    quality: int
    value: float | None
    reason: str
    text: str
    raw: str | None = None
    score: float | None = None

    def encode(self) -> bytes:
        """Return the JSON message."""
        return dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class AlarmRecord:
    """One standing alarm of the retained `alarms` message.

    alarm   which condition: low_low, low, high, high_high, rate, frozen, anomaly or communication
    state   ISA-18.2: unacked, acked, rtn_unacked, latched, shelved, suppressed, out_of_service
    since, changed  Unix ns of the first raise and of the last transition
    priority  1 highest to 4 diagnostic
    """

    device: str
    tag: str
    alarm: str
    state: str
    priority: int
    since: int
    changed: int
    value: float | None
    limit: float | None
    unit: str
    text: str
    line: str = ""
    kp_m: int | None = None
    asset: str = ""
    by: str = ""

    @property
    def key(self) -> str:
        """The name by which a command means this alarm: device/tag/alarm."""
        return f"{self.device}/{self.tag}/{self.alarm}"


def encode_alarms(time_ns: int, alarms: list[AlarmRecord]) -> bytes:
    """Return the retained message of all standing alarms."""
    return dumps({"time": time_ns, "alarms": [asdict(alarm) for alarm in alarms]})


def decode_alarms(payload: bytes) -> list[AlarmRecord]:
    """Return the alarms of a message; raises ValueError. Keys of a newer gateway are left out."""
    try:
        return [_alarm(alarm) for alarm in loads(payload)["alarms"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an alarms message: {error!r}") from None


def _alarm(raw: dict[str, Any]) -> AlarmRecord:
    value, limit, kp_m = raw["value"], raw["limit"], raw.get("kp_m")
    return AlarmRecord(
        device=text(raw["device"]),
        tag=text(raw["tag"]),
        alarm=text(raw["alarm"]),
        state=text(raw["state"]),
        priority=whole(raw["priority"]),
        since=whole(raw["since"]),
        changed=whole(raw["changed"]),
        value=None if value is None else number(value),
        limit=None if limit is None else number(limit),
        unit=text(raw["unit"]),
        text=text(raw["text"]),
        line=text(raw.get("line", "")),
        kp_m=None if kp_m is None else whole(kp_m),
        asset=text(raw.get("asset", "")),
        by=text(raw.get("by", "")),
    )


def encode_status(
    state: str,
    boot: int,
    version: str,
    time_ns: int,
    boots: Mapping[int, tuple[int, int]],
    delivered: Mapping[int, Iterable[tuple[int, int]]] | None = None,
    absent: Mapping[str, Mapping[str, int]] | None = None,
    committed_ns: int = 0,
) -> bytes:
    """Return the retained status message.

    boots      each boot still in the spool: its committed range
    delivered  of these the frames that the broker has acknowledged; of ranges in tatters the lowest
    absent     samples of this boot that never existed: device -> name of the quality -> how many
    committed_ns  stamp of the last committed frame of this boot, 0 where there is none or it may still be moved
    """
    said: dict[str, Any] = {"state": state, "boot": boot, "version": version, "time": time_ns}
    said["boots"] = {str(number): list(span) for number, span in boots.items()}
    said["delivered"] = {str(number): list(islice(spans, MAX_RANGES)) for number, spans in (delivered or {}).items()}
    said["absent"] = absent or {}
    said["committed"] = committed_ns
    return dumps(said)
