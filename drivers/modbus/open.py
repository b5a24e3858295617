"""From a LinkSpec to the Link that reaches it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import replace

from drivers.link import Link, LinkSpec, SerialLine
from drivers.modbus.link import ModbusLink
from drivers.modbus.stream import Stream


def open_link(spec: LinkSpec) -> Link:
    """Return the Link of a specification; it dials at its first read. To be called inside a running loop."""
    if spec.transport == "rtu":
        from drivers.modbus.serial import crc, open_serial  # pymodbus takes 0.1 s to load: only those with a bus wait

        return ModbusLink(spec, lambda make: open_serial(spec, _without_parity(spec), make), crc)
    if spec.transport == "rtu+tcp":
        from drivers.modbus.serial import crc

        return ModbusLink(spec, lambda make: _connect(spec, make), crc)
    return ModbusLink(spec, lambda make: _connect(spec, make), None)


def load_transport(spec: LinkSpec) -> None:
    """Load what `open_link` needs for a specification, so that it takes no time; may be called in any thread."""
    if spec.transport in ("rtu", "rtu+tcp"):
        import drivers.modbus.serial  # noqa: F401


async def _connect(spec: LinkSpec, make: Callable[[], Stream]) -> Stream:
    context = _tls(spec) if spec.transport == "tls" else None
    _, stream = await asyncio.get_running_loop().create_connection(make, spec.host, spec.port, ssl=context)
    return stream


def _without_parity(spec: LinkSpec) -> SerialLine:
    """Return the line's settings, without parity on a pty: Linux has none there, and opening one with it fails."""
    if not os.path.realpath(spec.path).startswith("/dev/pts/"):
        return spec.serial
    return replace(spec.serial, parity="N", bytesize=8)


def _tls(spec: LinkSpec) -> ssl.SSLContext:
    """Return a context that verifies the meter, and shows our certificate where one is set."""
    context = ssl.create_default_context(cafile=str(spec.ca_file) if spec.ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if spec.cert_file:
        context.load_cert_chain(spec.cert_file, spec.key_file)
    return context
