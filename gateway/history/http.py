"""What an HTTP answer of a store means: keep, wait, or never."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from gateway.history.store import StoreAway, StoreRejected
from gateway.wire.strict_json import loads

TIMEOUT: Final = aiohttp.ClientTimeout(total=20.0, connect=5.0)  # a slow disk answers in seconds, a dead peer never
UNREACHABLE: Final = (aiohttp.ClientError, TimeoutError, OSError)
REJECTED: Final = frozenset({400, 413, 422})  # the lines are at fault; 413 is cured by splitting alone
MESSAGE_CHARS: Final = 300  # a proxy's error page is a book
CAUSES: Final = {
    401: "the token is missing or wrong",
    403: "the token may not do this",
    404: "the database or bucket does not exist",
}


def fault(place: str, status: int, text: str, headers: Mapping[str, str]) -> StoreAway | StoreRejected:
    """Return what to raise for an answer other than success; `place` names server and database."""
    said = " ".join(_message(text).split())[:MESSAGE_CHARS] or "(no text)"
    if status in REJECTED:
        return StoreRejected(f"{place}: {status} {said}")
    cause = f"{CAUSES[status]}: " if status in CAUSES else ""
    return StoreAway(f"{place}: {cause}{status} {said}", retry_after_s(headers.get("Retry-After")))


def _message(text: str) -> str:
    """Return what every version of InfluxDB hides in JSON: 1.x as `error`, 2.x and 3.x as `message`."""
    try:
        whole = loads(text)
        return str(whole.get("error") or whole.get("message") or text)
    except (ValueError, AttributeError):
        return text


def unreachable(place: str, error: BaseException) -> StoreAway:
    """Return what to raise when there was no answer."""
    return StoreAway(f"{place}: {str(error) or 'no answer in time'} ({type(error).__name__})")


def retry_after_s(value: str | None) -> float | None:
    """Return the wait of a Retry-After header, seconds or a date, or None."""
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
