"""InfluxDB 2.x and 3.x (and 1.8) through influxdb-client: its only importer."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import aiohttp
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.client.write_api_async import WriteApiAsync
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException

from gateway.history import influxql
from gateway.history.http import TIMEOUT, UNREACHABLE, fault, unreachable
from gateway.history.store import Series, StoreAway, Trend
from gateway.model.corridor import StoreSpec


class Influx2:
    """influx2://host:8086?org=o&bucket=b; influx2s for TLS."""

    def __init__(self, spec: StoreSpec) -> None:
        url = urlsplit(spec.url)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        self._base = f"{'https' if url.scheme == 'influx2s' else 'http'}://{url.netloc}{url.path.rstrip('/')}"
        self._org, self._bucket = query.get("org", ""), query.get("bucket", "")
        if not url.hostname or not self._bucket:
            raise ValueError(f"store: got {spec.url!r}, wanted influx2://host:8086?org=o&bucket=b")
        self._token = spec.token
        self._place = f"{self._base} bucket {self._bucket!r}"
        self._client: InfluxDBClientAsync | None = None
        self._writes: WriteApiAsync | None = None
        self._reads: aiohttp.ClientSession | None = None

    async def write(self, lines: bytes) -> None:
        """Keep these lines in one POST; raises StoreAway or StoreRejected."""
        if self._writes is None:
            # one POST of joined lines: the batching API loses what it holds, gzip halves the rate (FACTS 4.2)
            self._client = InfluxDBClientAsync(
                self._base, self._token or "", self._org, timeout=TIMEOUT, enable_gzip=False, allow_redirects=False
            )
            self._writes = self._client.write_api()
        try:
            kept = await self._writes.write(self._bucket, record=lines, write_precision=WritePrecision.NS)  # type: ignore[arg-type]
        except ApiException as error:
            body = error.body or b""
            text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
            raise fault(self._place, error.status or 0, text, error.headers or {}) from None
        except InfluxDBError as error:
            raise StoreAway(f"{self._place}: {error}") from None
        except UNREACHABLE as error:
            raise unreachable(self._place, error) from None
        if not kept:  # a 200 comes from a proxy or a login page, not from a database
            raise StoreAway(f"{self._place}: the answer was not the 204 of a database")

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        """Return the tag's samples in [start_ns, stop_ns), thinned to max_points; raises StoreAway."""
        if self._reads is None:
            headers = {"Authorization": f"Token {self._token}"} if self._token else {}
            self._reads = aiohttp.ClientSession(headers=headers, timeout=TIMEOUT)
        session = self._reads
        database, _, policy = self._bucket.partition("/")  # 1.8 calls a bucket database/retention-policy
        params = {"db": database, **({"rp": policy} if policy else {})}

        async def ask(query: str) -> list[list[object]]:
            return await influxql.ask(session, f"{self._base}/query", {**params, "q": query}, self._place)

        return await influxql.read(ask, series, start_ns, stop_ns, max_points)

    async def close(self) -> None:
        """Close the connections."""
        if self._client:
            await self._client.close()  # type: ignore[no-untyped-call]
        if self._reads:
            await self._reads.close()
