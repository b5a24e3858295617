"""The console process: a picture fed by MQTT, served to browsers, until told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from gateway.console.feed import Feed
from gateway.console.picture import Picture
from gateway.console.server import Server
from gateway.history.store import Store
from gateway.model.corridor import ConsoleSpec

log = logging.getLogger(__name__)


async def run(
    spec: ConsoleSpec, store: Store | None, *, stop: asyncio.Event, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until `stop` is set; `ready` is called with the address once it listens (port 0: the kernel chooses).

    Raises OSError if the address cannot be listened on.
    """
    picture = Picture()
    if store is not None:
        picture.say("store", "ok", "")
    feed = Feed(spec.mqtt, picture)
    host, port = spec.listen
    runner = web.AppRunner(
        Server(picture, feed, store).application(host), access_log=None, shutdown_timeout=1.0, handle_signals=False
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        url = address_of(host, runner.addresses[0][1])
        async with asyncio.TaskGroup() as tasks:
            connection = tasks.create_task(feed.run(), name="console:mqtt")
            log.info("console at %s", url)
            if ready is not None:
                ready(url)
            await stop.wait()
            connection.cancel()
    finally:
        await runner.cleanup()


def address_of(host: str, port: int) -> str:
    """Return the URL a browser on this machine can open."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name and not name.startswith('[') else name}:{port}/"
