"""The door of a running gateway for those on the same machine: a socket in its state folder, open to its own user.

A question is one line of JSON, the answer another; then the connection ends. What is asked: {"ask": "reload"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.wire.strict_json import dumps, loads

log = logging.getLogger(__name__)

NAME: Final = "control"
ASKED_S: Final = 5.0  # for the question, once somebody is connected
MAX_ANSWER: Final = 16_000_000  # a line for every device that there can be

Answer = Callable[[], Awaitable[Mapping[str, Any]]]


class NobodyThere(Exception):
    """No gateway runs on this state folder, or it ended before it answered."""


@contextlib.contextmanager
def _reached(folder: Path) -> Iterator[str]:
    """Yield a short path of the socket: a folder's own may be longer than an address can be (108 bytes)."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


def _open(folder: Path) -> socket.socket:
    """Return a socket that listens, in the place of one that the last run may have left; raises OSError."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _reached(folder) as path:
            Path(path).unlink(missing_ok=True)
            found.bind(path)
            Path(path).chmod(0o600)
        found.listen()
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


async def serve(folder: Path, answers: Mapping[str, Answer]) -> None:
    """Answer questions until cancelled; a state folder that will not have the socket is told, and no reason to end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASKED_S):
                asked = loads(await reader.readline())
            wanted = asked.get("ask") if isinstance(asked, dict) else None
            if not isinstance(wanted, str) or wanted not in answers:
                raise ValueError("nothing that we know")
            writer.write(dumps(await answers[wanted]()) + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:
            log.debug("control: %s", error)
        finally:
            writer.close()

    try:
        door = await asyncio.to_thread(_open, folder)
    except OSError as error:
        log.warning("%s: `corridor reload` cannot reach this gateway (%s); SIGHUP can", folder / NAME, error)
        return
    server = await asyncio.start_unix_server(answer, sock=door)
    try:
        await server.serve_forever()
    finally:
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()


def ask(folder: Path, question: str, within_s: float) -> dict[str, Any]:
    """Return what the gateway on a state folder answers; raises NobodyThere, and OSError if we may not ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(within_s)
        try:
            with _reached(folder) as path:
                door.connect(path)
            door.sendall(dumps({"ask": question}) + b"\n")
            with door.makefile("rb") as stream:
                found = loads(stream.readline(MAX_ANSWER))
        except (FileNotFoundError, NotADirectoryError, ConnectionError):
            raise NobodyThere(f"{folder}: no gateway runs here") from None
        except (TimeoutError, ValueError):
            raise NobodyThere(f"{folder}: the gateway did not answer") from None
    if not isinstance(found, dict):
        raise NobodyThere(f"{folder}: the gateway did not answer")
    return found
