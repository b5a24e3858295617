"""A data message taken apart and checked, because stores cannot be trusted with that.

VictoriaMetrics answers 204 to garbage and drops it; it stores a string as 0, a bool as 1, and forgets without a word
what is stamped two days ahead. InfluxDB binds a field to the type of its first value. So a line passes only if it
belongs to the device of its topic, has names that a configuration can have, float fields only, all finite, and a time
in nanoseconds that can be true. InfluxDB 1 writes any byte of a name to disk, and one that is not UTF-8 keeps it from
opening the whole shard again; a field or tag called `time` it drops without a word.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.wire import topics
from gateway.wire.lines import Header, PayloadError, body, parse_header

NUMBER: Final = (
    rb"-?\d{1,40}+(?:\.\d{1,40}+)?+"  # possessive, as all else: nothing is ever tried twice, 0.6 of the time
)
NAME: Final = rb"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}+"  # as drivers.toml has it; nothing in it needs an escape
KEY: Final = rb"(?!time=)%b=" % NAME
TIME: Final = rb"([1-9]\d{18})"  # 19 digits: nanoseconds since 2001, before the first gateway and after a clock's zero
SERIES: Final = re.compile(rb"%b((?:,%b%b)+)" % (NAME, KEY, NAME))
PLAIN: Final = re.compile(rb"([^ ]++) %b%b(?:,%b%b)*+ %b" % (KEY, NUMBER, KEY, NUMBER, TIME))
EXACT: Final = rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
WHOLE: Final = re.compile(rb"([^ ]+) (%b%b(?:,%b%b)*) %b" % (KEY, EXACT, KEY, EXACT, TIME))
AHEAD_NS: Final = 86_400_000_000_000  # a day: no time zone error is larger, and VictoriaMetrics drops from two on
SHOWN: Final = 24  # bytes of a foreign name or value that a reason quotes


@dataclass(frozen=True, slots=True)
class Checked:
    """What a message holds.

    lines   those a store may have, and `seqs`, their frames
    refused (frame, line, reason) of the others
    """

    header: Header
    lines: list[bytes]
    seqs: list[int]
    refused: list[tuple[int, bytes, str]]


def check(address: topics.Topic, payload: bytes, now_ns: int) -> Checked:
    """Return the checked lines of a data message; raises PayloadError if it cannot be told which frame is which."""
    header = parse_header(payload)
    found = [line for line in body(payload).split(b"\n") if line and not line.startswith(b"#")]
    n = sum(last - first + 1 for first, last in header.seq)
    if n != len(found):
        raise PayloadError(f"the ledger comment names {n} frames, the message has {len(found)} lines")
    seqs = [seq for first, last in header.seq for seq in range(first, last + 1)]
    where = address.address
    owner = (where.corridor, where.site, where.gateway, address.device or "")
    reasons = [fault(line, owner, now_ns) for line in found]
    if not any(reasons):
        return Checked(header, found, seqs, [])
    whole = list(zip(seqs, found, reasons, strict=True))
    good = [(seq, line) for seq, line, reason in whole if not reason]
    return Checked(header, [line for _, line in good], [seq for seq, _ in good], [each for each in whole if each[2]])


def fault(line: bytes, owner: tuple[str, str, str, str], now_ns: int) -> str:
    """Return what is wrong with a line of this corridor, site, gateway and device; empty if nothing is."""
    if match := PLAIN.fullmatch(line):
        series, time = match.groups()
    elif match := WHOLE.fullmatch(line):
        series, fields, time = match.groups()
        if not all(math.isfinite(float(field.partition(b"=")[2])) for field in fields.split(b",")):
            return "a field is beyond what a float can hold"
    else:
        return _diagnose(line)
    if int(time) > now_ns + AHEAD_NS:
        return f"its time {int(time)} is more than a day ahead"
    return _foreign(series, owner)


@lru_cache(maxsize=65_536)  # one entry per device: a corridor of thousands of gateways fits
def _foreign(series: bytes, owner: tuple[str, str, str, str]) -> str:
    """Return why this series cannot come from that device, or nothing."""
    found = SERIES.fullmatch(series)
    if not found:
        return f"its series {series[: 4 * SHOWN].decode(errors='replace')!r} has names that no gateway gives"
    pairs = [pair.partition("=")[::2] for pair in found[1].decode().split(",")[1:]]
    tags = dict(pairs)
    if len(tags) < len(pairs):
        return "a tag stands twice in its series"
    for name, wanted in zip(("corridor", "site", "gateway", "device"), owner, strict=True):
        if tags.get(name) != wanted:
            return f"its tag {name} is {tags.get(name)!r}, its topic says {wanted!r}"
    return ""


def _diagnose(line: bytes) -> str:
    words = line.split(b" ")
    if len(words) != 3:
        return "not line protocol: wanted series, fields and time, one blank between"
    if not re.fullmatch(TIME, words[2]):
        return f"its time is {_shown(words[2])}, wanted nanoseconds after 2001"
    for field in words[1].split(b","):
        name, _, value = field.partition(b"=")
        if not re.fullmatch(EXACT, value):
            return f"field {_shown(name)} is {_shown(value)}, wanted a finite float"
        if not re.fullmatch(KEY, name + b"="):
            return f"field {_shown(name)} has a name that no gateway gives"
    return "not line protocol"


def _shown(text: bytes) -> str:
    return repr(text[:SHOWN].decode(errors="replace"))
