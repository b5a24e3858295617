"""The slow, obvious twin of the CSV reader: csv, float and datetime."""

import csv
import math
from datetime import UTC, datetime, timedelta

ABSENT = {"", "nan", "null", "none", "na", "n/a", "-", "inf", "-inf", "+inf", "infinity", "-infinity"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_ns(text):
    """Return Unix ns of integer nanoseconds or of ISO 8601, whose fraction may be longer than datetime's."""
    text = text.strip(" ")
    if text.lstrip("-").isdigit():
        return int(text)
    whole, fraction, zone = text, "", ""
    for mark in ".,":
        if mark in text:
            whole, _, rest = text.partition(mark)
            fraction = rest[: len(rest) - len(rest.lstrip("0123456789"))]
            zone = rest[len(fraction) :]
    found = datetime.fromisoformat((whole + zone).upper())
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH
    return since // timedelta(seconds=1) * 1_000_000_000 + int((fraction + "0" * 9)[:9] or 0)


def number(text):
    """Return the value of a cell; NaN where there is none. Raises ValueError."""
    word = text.strip().lower()
    if word in ABSENT:
        return math.nan
    if word in ("true", "false"):
        return float(word == "true")
    if "_" in word:
        raise ValueError(text)
    found = float(word)
    return found if math.isfinite(found) else math.nan


def read(text):
    """Return (names, times, rows of values) of a CSV text."""
    lines = [line for line in csv.reader(text.lstrip("\ufeff").replace("\r\n", "\n").split("\n")) if line]
    names, at = lines[0], lines[0].index("time")
    times, rows = [], []
    for line in lines[1:]:
        if len(line) != len(names):
            raise ValueError(line)
        times.append(time_ns(line[at]))
        rows.append([number(cell) for i, cell in enumerate(line) if i != at])
    return names, times, rows
