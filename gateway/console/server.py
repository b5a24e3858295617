"""The console's HTTP side: the page, the picture, the stream, trends, acknowledge.

    GET  /api/state        the whole picture
    GET  /api/stream       WebSocket; the client asks, the server answers with what changed since its last answer
    GET  /api/trend        ?gateway&device&tag[&from&to][&points], times in Unix ms
    POST /api/acknowledge  {"by": name, "alarms": [{"gateway": key, "key": "device/tag/alarm"}]} -> {"answers": [...]}

The client sets the pace of the stream, so one that is slow or in the background costs nothing and loses nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web
from numpy.typing import NDArray

from gateway.console import guard, trend
from gateway.console.feed import Feed
from gateway.console.picture import NS_PER_MS, Picture
from gateway.history.store import Series, Store
from gateway.wire.strict_json import dumps, loads, text

STATIC: Final = Path(__file__).parent / "static"
STEP_S: Final = 0.25  # at most four steps a second to a client
IDLE_S: Final = 1.0  # a step without news says: connected, and this is the time
SEND_DEADLINE_S: Final = 20.0  # a client that does not take its step by then is dropped and comes back for a snapshot
COMPRESSED_BYTES: Final = 4096  # below that an answer fits a few packets as it is
MAX_ACKNOWLEDGE: Final = 500
MAX_NAME: Final = 64  # characters of an operator's name; a gateway takes twice as many
MAX_POINTS: Final = 5000
NOT_BUILT: Final = "The console's web part has not been built: run `python hatch_build.py` in the source tree.\n"

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The routes over one picture, one feed and perhaps a store."""

    def __init__(self, picture: Picture, feed: Feed, store: Store | None) -> None:
        self._picture = picture
        self._feed = feed
        self._store = store
        self._streams: set[web.WebSocketResponse] = set()

    def application(self, listen: str) -> web.Application:
        """Return the aiohttp application; `listen` is the name it is bound to."""
        app = web.Application(middlewares=[guard.middleware(listen)], client_max_size=256 * 1024)
        app.router.add_get("/", self._page)
        app.router.add_get("/api/state", self._state)
        app.router.add_get("/api/stream", self._stream)
        app.router.add_get("/api/trend", self._trend)
        app.router.add_post("/api/acknowledge", self._acknowledge)
        app.router.add_get("/{name:(?:assets/)?[A-Za-z0-9_.-]+}", self._file)
        app.on_shutdown.append(self._close_streams)
        return app

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return _static("index.html", "no-cache")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        return _static(name, "public, max-age=31536000, immutable" if name.startswith("assets/") else "no-cache")

    async def _state(self, request: web.Request) -> web.StreamResponse:
        return _json(self._picture.changes(0))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.WebSocketResponse(heartbeat=15.0, max_msg_size=1024, compress=False)
        await stream.prepare(request)
        self._streams.add(stream)
        told, sent_s = 0, 0.0
        try:
            async for message in stream:
                if message.type is not WSMsgType.TEXT:
                    break
                asked_s = time.monotonic()
                if told:
                    await asyncio.sleep(max(0.0, sent_s + STEP_S - asked_s))
                    await self._picture.wait(told, IDLE_S)
                step = self._picture.changes(told)
                told = step["tick"]
                sent_s = time.monotonic()
                step["held"] = round((sent_s - asked_s) * 1000)
                async with asyncio.timeout(SEND_DEADLINE_S):
                    await stream.send_str(dumps(step).decode())
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._streams.discard(stream)
        return stream

    async def _close_streams(self, app: web.Application) -> None:
        for stream in tuple(self._streams):
            await stream.close(code=WSCloseCode.GOING_AWAY, message=b"the console stops")

    async def _trend(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        now_ms = self._picture.now_ns() // NS_PER_MS
        try:
            stop_ms = int(query.get("to", now_ms))
            start_ms = int(query.get("from", stop_ms - 3_600_000))
            points = int(query.get("points", 1000))
        except ValueError:
            return _json({"code": "bad_request"}, status=400)
        if not (0 <= start_ms < stop_ms < 2**42) or not 1 <= points <= MAX_POINTS:
            return _json({"code": "bad_request"}, status=400)
        gateway = self._picture.find(query.get("gateway", ""))
        row = gateway.rows.get(query.get("device", ""), {}).get(query.get("tag", "")) if gateway else None
        if gateway is None or row is None:
            return _json({"code": "tag_unknown"}, status=404)
        device, tag = gateway.tags[row]
        address = gateway.address
        joined = await trend.read(
            self._store,
            Series(device.measurement, address.corridor, address.site, address.gateway, device.name, tag.name),
            gateway.ring.read(row),
            (start_ms * NS_PER_MS, stop_ms * NS_PER_MS),
            points,
            tag.period_s,
            self._picture.connected_ns,
        )
        self._picture.say("store", joined.store, joined.text)
        return _json(
            {
                "now": now_ms,
                "from": start_ms,
                "to": stop_ms,
                "unit": tag.unit,
                "store": {"state": joined.store, "text": joined.text},
                "live_from": None if joined.live_from_ns is None else joined.live_from_ns // NS_PER_MS,
                "time": (joined.trend.time_ns // NS_PER_MS).tolist(),
                "low": _numbers(joined.trend.low),
                "mean": _numbers(joined.trend.mean),
                "high": _numbers(joined.trend.high),
            }
        )

    async def _acknowledge(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            return _json({"code": "bad_request"}, status=415)
        try:
            body = loads(await request.read())
            by = " ".join(text(body.get("by", "")).split())[:MAX_NAME]
            wanted = [(text(alarm["gateway"]), text(alarm["key"])) for alarm in body["alarms"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            return _json({"code": "bad_request"}, status=400)
        if not 0 < len(wanted) <= MAX_ACKNOWLEDGE:
            return _json({"code": "bad_request"}, status=400)
        if not by:
            return _json({"code": "no_name"}, status=400)  # ISA-18.2: a transition has an actor
        answers = await asyncio.gather(*(self._feed.acknowledge(gateway, key, by) for gateway, key in wanted))
        return _json({"answers": [asdict(answer) for answer in answers]})


def _static(name: str, cache: str) -> web.StreamResponse:
    path = STATIC / name
    if not path.is_file():
        if name == "index.html":
            return web.Response(text=NOT_BUILT, status=503)
        return web.Response(text="not found\n", status=404)
    return web.FileResponse(path, headers={"Cache-Control": cache})


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    whole = dumps(body)
    headers = {"Cache-Control": "no-store", "Content-Type": "application/json; charset=utf-8"}
    response = web.Response(body=whole, status=status, headers=headers)
    if len(whole) > COMPRESSED_BYTES:
        response.enable_compression()
    return response


def _numbers(column: NDArray[np.float64]) -> list[float | None]:
    return [value if value == value else None for value in column.tolist()]
