"""InfluxDB 1.x, and whatever else takes its /write: plain HTTP."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit

import aiohttp

from gateway.history import influxql
from gateway.history.http import TIMEOUT, UNREACHABLE, fault, unreachable
from gateway.history.store import Series, Trend
from gateway.model.corridor import StoreSpec


class Influx1:
    """influx1://host:8086/database; influx1s for TLS. A token `user:password` is sent as HTTP Basic."""

    def __init__(self, spec: StoreSpec) -> None:
        url = urlsplit(spec.url)
        self._base = f"{'https' if url.scheme == 'influx1s' else 'http'}://{url.netloc}"
        self._database = unquote(url.path.strip("/"))
        if not url.hostname or not self._database:
            raise ValueError(f"store: got {spec.url!r}, wanted influx1://host:8086/database")
        self._headers = _authorization(spec.token)
        self._place = f"{self._base}/{self._database}"
        self._session: aiohttp.ClientSession | None = None

    async def write(self, lines: bytes) -> None:
        """Keep these lines; raises StoreAway or StoreRejected (of a partial write too, whose good lines are in)."""
        params = {"db": self._database, "precision": "ns"}
        try:
            async with self._connection().post(
                f"{self._base}/write", params=params, data=lines, allow_redirects=False
            ) as answer:
                if answer.status == 204:
                    return
                raise fault(self._place, answer.status, await answer.text(errors="replace"), answer.headers)
        except UNREACHABLE as error:
            raise unreachable(self._place, error) from None

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        """Return the tag's samples in [start_ns, stop_ns), thinned to max_points; raises StoreAway."""

        async def ask(query: str) -> list[list[object]]:
            params = {"db": self._database, "q": query}
            return await influxql.ask(self._connection(), f"{self._base}/query", params, self._place)

        return await influxql.read(ask, series, start_ns, stop_ns, max_points)

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    def _connection(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=TIMEOUT)
        return self._session


def _authorization(token: str | None) -> dict[str, str]:
    if not token:
        return {}
    if ":" not in token:
        return {"Authorization": f"Token {token}"}
    # not `Token user:password`: only 1.8 knows that, and every 1.x knows Basic
    return {"Authorization": f"Basic {b64encode(token.encode()).decode()}"}
