"""The byte stream under a link: what asyncio calls when bytes come or the connection goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

# asyncio's own buffer of 256 KiB costs 15 us per answer; the longest answer has 260 bytes.
RECEIVE_BYTES: Final = 2048


class Transport(Protocol):
    """What a stream writes to: an asyncio transport, or pymodbus' serial one."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Stream(asyncio.BufferedProtocol):
    """One connection of a link.

    received  is given every piece that comes;  lost  is called once when the connection goes, with what is known of why
    """

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        self.transport: Transport | None = None
        self.is_made = asyncio.Event()
        self._received = received
        self._lost = lost
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport
        self.is_made.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand bytes on from a socket."""
        self._received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Hand bytes on from a serial line."""
        self._received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell that the connection is gone, if it was not we who closed it."""
        if self.transport is not None:
            self.transport = None
            self._lost(str(exc) if exc else "closed by the other side")

    def close(self) -> None:
        """Close the connection at once, without telling."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()
