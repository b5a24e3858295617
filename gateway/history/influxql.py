"""Reading trends in InfluxQL, which InfluxDB 1.x, 2.x (DBRP) and 3.x all answer at /query."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import numpy as np

from gateway.history.http import UNREACHABLE, fault, unreachable
from gateway.history.store import Series, StoreAway, Trend
from gateway.wire.strict_json import loads

MAX_NS: Final = 2**63 - 2  # the latest time that InfluxQL can say

Ask = Callable[[str], Awaitable[list[list[Any]]]]


async def read(ask: Ask, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
    """Return the tag's samples in [start_ns, stop_ns), thinned to max_points."""
    start_ns, stop_ns = max(start_ns, 0), min(stop_ns, MAX_NS)
    where = _where(series, start_ns, stop_ns)
    tag = quoted(series.tag)
    rows = await ask(f"SELECT {tag} {where} ORDER BY time LIMIT {max_points + 1}")
    if len(rows) <= max_points:
        return _trend(rows, (1, 1, 1))
    bucket_ns = -(-(stop_ns - start_ns) // max_points)
    rows = await ask(
        f'SELECT min({tag}) AS "low", mean({tag}) AS "mean", max({tag}) AS "high" {where} '
        f"GROUP BY time({bucket_ns}ns, {start_ns % bucket_ns}ns) fill(none)"
    )
    return _trend(rows, (1, 2, 3))


async def ask(session: aiohttp.ClientSession, url: str, params: dict[str, str], place: str) -> list[list[Any]]:
    """Return the rows of one query, none if the series is unknown; raises StoreAway."""
    try:
        async with session.get(url, params={**params, "epoch": "ns"}, allow_redirects=False) as answer:
            text = await answer.text(errors="replace")
            if answer.status != 200:
                raise StoreAway(str(fault(place, answer.status, text, answer.headers)))
    except UNREACHABLE as error:
        raise unreachable(place, error) from None
    try:
        result = loads(text)["results"][0]
        if "error" in result:
            raise StoreAway(f"{place}: {result['error']}")
        found = result.get("series", [])
        if not found:
            return []
        if found[0]["columns"][0] != "time":  # VictoriaMetrics answers with its databases, whatever is asked
            raise StoreAway(f"{place}: takes InfluxDB writes but answers no InfluxQL")
        return list(found[0]["values"])
    except (ValueError, LookupError, TypeError):
        raise StoreAway(f"{place}: not an answer to InfluxQL: {text[:120]!r}") from None


def quoted(name: str) -> str:
    """Return an identifier in double quotes."""
    return '"' + _escaped(name).replace('"', '\\"') + '"'


def text_literal(value: str) -> str:
    """Return a string in single quotes."""
    return "'" + _escaped(value).replace("'", "\\'") + "'"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _where(series: Series, start_ns: int, stop_ns: int) -> str:
    names = {
        "corridor": series.corridor,
        "site": series.site,
        "gateway": series.gateway,
        "device": series.device,
    }
    tags = " AND ".join(f"{quoted(name)} = {text_literal(value)}" for name, value in names.items())
    return f"FROM {quoted(series.measurement)} WHERE {tags} AND time >= {start_ns} AND time < {stop_ns}"


def _trend(rows: list[list[Any]], columns: tuple[int, int, int]) -> Trend:
    """Return rows of time and values, low, mean and high in these columns; raises StoreAway if they are none."""
    try:
        time_ns = np.array([row[0] for row in rows], dtype=np.int64)
        low, mean, high = (np.array([row[k] for row in rows], dtype=np.float64) for k in columns)
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise StoreAway(f"rows that are no time and value: {error}") from None
    return Trend(time_ns, low, mean, high)
