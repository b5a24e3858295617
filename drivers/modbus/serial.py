"""Serial lines and the checksum of RTU, from pymodbus: its transport over pyserial, opened for us alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pymodbus.framer import FramerRTU
from pymodbus.transport.serialtransport import SerialTransport

from drivers.link import LinkSpec, SerialLine
from drivers.modbus.stream import Stream


def crc(frame: bytes) -> bytes:
    """Return the two checksum bytes behind a frame. Source: Modbus over Serial Line V1.02, section 6.2.2."""
    return FramerRTU.compute_CRC(frame).to_bytes(2, "big")


async def open_serial(spec: LinkSpec, line: SerialLine, make: Callable[[], Stream]) -> Stream:
    """Return a stream over the serial device of a link; raises OSError (SerialException is one)."""
    stream = make()
    transport = SerialTransport(
        asyncio.get_running_loop(),
        stream,
        spec.path,
        line.baudrate,
        line.bytesize,
        line.parity,
        line.stopbits,
        None,
    )
    try:
        transport.setup()
        await stream.is_made.wait()
    except BaseException:
        transport.close()
        raise
    return stream
