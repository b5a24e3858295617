"""Line protocol with our ledger comment: reading a data message, and writing its header."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.model.ranges import from_text, to_text

MAX_NUMBER: Final = 2**63 - 1  # of boots, frames and times: what a 64-bit column can hold
MAX_REASON: Final = 120  # characters of a foreign message that are shown
MAX_FRAMES: Final = 10_000  # in one message; ours hold 128, and one line more must not account for a year of frames


class PayloadError(ValueError):
    """A data message that is not ours or not line protocol."""


@dataclass(frozen=True, slots=True)
class Header:
    """The ledger comment of a data message.

    seq    frames of this message in line order, as inclusive ranges
    empty  frames without a good value, hence without a line
    """

    boot: int
    seq: list[tuple[int, int]]
    empty: list[tuple[int, int]]
    catalog: str

    def encode(self) -> bytes:
        """Return the comment line with its line feed."""
        parts = [f"# boot={self.boot}"]
        if self.seq:
            parts.append(f"seq={to_text(self.seq)}")
        if self.empty:
            parts.append(f"empty={to_text(self.empty)}")
        return (" ".join([*parts, f"catalog={self.catalog}"]) + "\n").encode()


def as_ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges, keeping their order: runs of successors become one range."""
    out: list[tuple[int, int]] = []
    for number in numbers:
        if out and out[-1][1] + 1 == number:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return out


def parse_header(payload: bytes) -> Header:
    """Return the ledger comment of a data message; raises PayloadError, for numbers that cannot be true too."""
    first = payload.split(b"\n", 1)[0]
    if not first.startswith(b"#"):
        raise PayloadError("the message does not begin with its ledger comment")
    try:
        words = dict(word.split("=", 1) for word in first[1:].decode().split())
        seq, empty = from_text(words.get("seq", "")), from_text(words.get("empty", ""))
        boot, catalog = int(words["boot"]), words["catalog"]
        bounded([(boot, boot), *seq, *empty])
    except (UnicodeDecodeError, ValueError, KeyError) as error:
        raise PayloadError(f"broken ledger comment: {str(error)[:MAX_REASON]}") from None
    n = sum(last - first + 1 for first, last in (*seq, *empty))
    if n > MAX_FRAMES:
        raise PayloadError(f"the ledger comment names {n} frames, wanted at most {MAX_FRAMES} in a message")
    return Header(boot, seq, empty, catalog)


def bounded(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of frame or boot numbers as they are; raises ValueError for one outside 1 to MAX_NUMBER."""
    for first, last in ranges:
        if not 1 <= first <= last <= MAX_NUMBER:
            raise ValueError(f"the numbers {first}-{last} are not within 1-{MAX_NUMBER}")
    return ranges


def body(payload: bytes) -> bytes:
    """Return the lines of a data message without its comment."""
    if not payload.startswith(b"#"):
        return payload
    return payload.partition(b"\n")[2]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a frame's good values."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, float]
    time_ns: int


def parse_lines(text: bytes) -> Iterator[Line]:
    """Yield the lines of a message or body, comments and blanks left out; raises PayloadError."""
    for raw in text.decode().split("\n"):
        if raw and not raw.startswith("#"):
            yield parse_line(raw)


def parse_line(raw: str) -> Line:
    """Return one line taken apart; raises PayloadError.

    Fields must be finite numbers (floats, always), the time of 64 bits.
    """
    try:
        series, fields, time_ns = _split(raw, " ") if "\\" in raw else raw.split(" ")
        names = _split(series, ",") if "\\" in series else series.split(",")
        pairs = [_pair(word) for word in names[1:]]
        values = [_pair(word) for word in (_split(fields, ",") if "\\" in fields else fields.split(","))]
        line = Line(_plain(names[0]), dict(pairs), {name: float(value) for name, value in values}, int(time_ns))
    except ValueError as error:
        raise PayloadError(f"not a line of ours: {raw[:MAX_REASON]!r}: {str(error)[:MAX_REASON]}") from None
    if abs(line.time_ns) > MAX_NUMBER or not all(map(math.isfinite, line.fields.values())):
        raise PayloadError(f"not a line of ours: {raw[:MAX_REASON]!r}: a time or value that cannot be kept")
    return line


def _pair(word: str) -> tuple[str, str]:
    name, value = _split(word, "=") if "\\" in word else word.split("=")
    return _plain(name), _plain(value)


def _plain(text: str) -> str:
    return text.replace("\\ ", " ").replace("\\,", ",").replace("\\=", "=") if "\\" in text else text


def _split(text: str, mark: str) -> list[str]:
    parts, part, escaped = [], "", False
    for c in text:
        if c == mark and not escaped:
            parts.append(part)
            part = ""
        else:
            part += c
        escaped = c == "\\" and not escaped
    return [*parts, part]
