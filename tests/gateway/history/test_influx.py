"""What an answer of InfluxDB means: wait, split, or repair the configuration."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.history.http import fault, retry_after_s
from gateway.history.influxql import quoted, text_literal
from gateway.history.store import Series, StoreAway, StoreRejected, open_store
from gateway.model.corridor import StoreSpec
from tests import servers

LINE = b"m,corridor=c,site=s,gateway=g,device=d v=1 1764000000123456789"
SERIES = Series("m", "c", "s", "g", "d", "v")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_lines_are_at_fault(status: int) -> None:
    assert isinstance(fault("here", status, "no", {}), StoreRejected)


@pytest.mark.parametrize(
    ("status", "cause"),
    [(401, "token is missing"), (403, "may not"), (404, "does not exist"), (503, "503"), (302, "302")],
)
def test_the_server_is_at_fault(status: int, cause: str) -> None:
    found = fault("here", status, '{"message": "why"}', {"Retry-After": "7"})
    assert isinstance(found, StoreAway)
    assert found.retry_s == 7.0
    assert cause in str(found)
    assert str(found).endswith("why")


def test_retry_after_is_seconds_or_a_date_or_nothing() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after_s("1.5") == 1.5
    assert retry_after_s(soon) == pytest.approx(30, abs=2)
    assert retry_after_s("Sun, 01 Jan 2001 00:00:00 GMT") == 0.0
    assert retry_after_s("later") is None
    assert retry_after_s(None) is None


async def test_each_fault_of_the_server_is_told_apart(influx2: servers.Front, influx_database: str) -> None:
    store = open_store(StoreSpec(f"{influx2.url}&bucket={influx_database}", servers.TOKEN))
    influx2.fault, influx2.retry_after = 429, "3"
    with pytest.raises(StoreAway) as busy:
        await store.write(LINE)
    assert busy.value.retry_s == 3.0
    for influx2.fault in (500, 503, 200, 302, "cut"):
        with pytest.raises(StoreAway):
            await store.write(LINE)
    influx2.fault = 413
    with pytest.raises(StoreRejected):
        await store.write(LINE)
    influx2.fault = None
    await store.write(LINE)
    assert (await store.read(SERIES, 0, 2**62, 10)).mean.tolist() == [1.0]
    await store.close()


async def test_a_server_that_hangs_is_away(
    influx2: servers.Front, influx_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aiohttp

    monkeypatch.setattr("gateway.history.influx2.TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    store = open_store(StoreSpec(f"{influx2.url}&bucket={influx_database}", servers.TOKEN))
    influx2.fault = "hang"
    with pytest.raises(StoreAway, match="no answer in time"):
        await store.write(LINE)
    await store.close()


async def test_a_wrong_token_or_bucket_is_named(influx2: servers.Front, influx_database: str) -> None:
    wrong = open_store(StoreSpec(f"{influx2.url}&bucket={influx_database}", "other"))
    absent = open_store(StoreSpec(f"{influx2.url}&bucket=nowhere", servers.TOKEN))
    for call in (wrong.write(LINE), wrong.read(SERIES, 0, 1, 1)):
        with pytest.raises(StoreAway, match="token is missing or wrong"):
            await call
    for call in (absent.write(LINE), absent.read(SERIES, 0, 1, 1)):
        with pytest.raises(StoreAway, match=re.compile("nowhere.*(does not exist|not found)", re.DOTALL)):
            await call
    await wrong.close()
    await absent.close()


async def test_influx1_sends_user_and_password(tmp_path: Path) -> None:
    with servers.influxd(tmp_path, "auth-enabled = true") as server:
        await servers.influx_query(server.port, "CREATE USER root WITH PASSWORD 'pa:ss' WITH ALL PRIVILEGES")
        url = f"influx1://127.0.0.1:{server.port}/x"
        for token, cause in ((None, "401"), ("root:wrong", "401"), ("root:pa:ss", "404")):
            store = open_store(StoreSpec(url, token))
            with pytest.raises(StoreAway, match=cause):
                await store.write(LINE)
            await store.close()


def test_names_cannot_leave_their_quotes() -> None:
    assert quoted('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
    assert text_literal("o'hara\\") == "'o\\'hara\\\\'"


def test_the_client_library_is_loaded_by_need_only() -> None:
    program = (
        "import sys; from gateway.history.store import open_store; from gateway.model.corridor import StoreSpec;"
        "open_store(StoreSpec('sqlite:///tmp/x', None)); open_store(StoreSpec('influx1://h/x', None));"
        "import gateway.ingest.app;"
        "assert 'influxdb_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 100_000,
        b"\xff",
        b"[]",
        b'{"results":[{"series":[{"columns":["time","v"],"values":[[1,NaN]]}]}]}',
        b'{"results":[{"series":[{"columns":["time","v"],"values":[[%d,1]]}]}]}' % 10**30,
        b'{"results":[{"series":[{"columns":["time","v"],"values":[[1]]}]}]}',
        b'{"results":[{"series":[{"columns":["time","v"],"values":[[1,{}]]}]}]}',
    ],
    ids=lambda answer: answer[-30:].decode(errors="replace"),
)
async def test_an_answer_that_is_none_means_the_store_is_away(answer: bytes) -> None:
    async def say(request: web.Request) -> web.Response:
        return web.Response(body=answer, headers={"Content-Type": "application/json; charset=zzz"})

    app = web.Application()
    app.router.add_get("/query", say)
    async with TestServer(app) as server:
        store = open_store(StoreSpec(f"influx1://127.0.0.1:{server.port}/x", None))
        with pytest.raises(StoreAway):
            await store.read(SERIES, 0, 10, 100)
        await store.close()
