"""What gateways say, checked for what the screens rely on: one message must not blank a page for everybody.

Whatever cannot be used raises ValueError, KeyError, TypeError or AttributeError, before anything of it is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from drivers.quality import name_of
from gateway.wire.strict_json import MAX_WHOLE, loads, text, whole

AHEAD_NS: Final = 86_400_000_000_000  # a day, as in ingest: a later time would keep every true one from being shown
MAX_QUALITY: Final = 0xFFFF_FFFF  # an OPC UA status code has 32 bits
PARTS: Final = ("polls", "spool", "clock")  # of health, beside the links: one level of words and numbers each


@dataclass(frozen=True, slots=True)
class QualityChange:
    """A quality event: the tag's OPC UA status code from `time_ns` on, and why it is not good."""

    tag: str
    time_ns: int
    quality: int
    why: str


def is_time(time_ns: int, now_ns: int) -> bool:
    """Return whether a sample or change can be of this time."""
    return 0 < time_ns <= min(now_ns + AHEAD_NS, MAX_WHOLE)


def status(payload: bytes) -> dict[str, Any]:
    """Return state, boot, version and time of a status, those that it has."""
    raw = _object(loads(payload))
    readers = {"state": text, "boot": whole, "version": text, "time": whole}
    return {name: read(raw[name]) for name, read in readers.items() if name in raw}


def health(payload: bytes) -> dict[str, Any]:
    """Return links, polls, spool and clock of a health message, those that it has, without what is nested deeper."""
    raw = _object(loads(payload))
    out: dict[str, Any] = {name: _flat(raw[name]) for name in PARTS if name in raw}
    if "links" in raw:
        out["links"] = {name: _flat(link) for name, link in _object(raw["links"]).items()}
    return out


def quality_change(payload: bytes, now_ns: int) -> QualityChange | None:
    """Return a change of quality, or None for an event of another kind."""
    raw = _object(loads(payload))
    if raw["kind"] != "quality":
        return None
    time_ns, quality = whole(raw["time"]), whole(raw["quality"])
    if not is_time(time_ns, now_ns) or not 0 <= quality <= MAX_QUALITY:
        raise ValueError(f"a quality {quality} at {time_ns}")
    why = raw.get("reason") or raw.get("text") or name_of(quality)
    return QualityChange(text(raw["tag"]), time_ns, quality, text(why))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _flat(value: Any) -> dict[str, Any]:
    return {name: leaf for name, leaf in _object(value).items() if isinstance(leaf, str | int | float)}
