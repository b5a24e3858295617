"""Who may ask: no other site through the operator's browser, no name that was rebound to this address."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def is_our_name(host: str, listen: str) -> bool:
    """Return whether a Host header can only mean this server.

    A web page can make its own name point to our address, but it cannot make its name an address or `localhost`.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in LOOPBACK_NAMES or name == listen.strip("[]").lower():
        return True
    if _is_loopback(listen):
        return False
    if _is_address(name):
        return True
    own = socket.gethostname().lower()
    return name in (own, f"{own}.local")


def is_same_origin(request: web.Request, need_proof: bool) -> bool:
    """Return whether the browser says that the request comes from a page of this server.

    need_proof  refuse when it says nothing; browsers always say it of a POST and of a WebSocket
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin" or (site == "none" and not need_proof)
    origin = request.headers.get("Origin")
    if origin is None:
        return not need_proof
    return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()


def middleware(listen: str) -> Middleware:
    """Return the middleware that refuses foreign requests and sets the headers of every answer."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        is_command = request.method not in ("GET", "HEAD")
        is_stream = request.headers.get("Upgrade", "").lower() == "websocket"
        if not is_our_name(request.headers.get("Host", ""), listen):
            response = web.json_response({"code": "host_refused"}, status=421)
        elif request.path.startswith("/api/") and not is_same_origin(request, need_proof=is_command or is_stream):
            response = web.json_response({"code": "origin_refused"}, status=403)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                error.headers.update(HEADERS)
                raise
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    return guard


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(listen: str) -> bool:
    name = listen.strip("[]").lower()
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)
