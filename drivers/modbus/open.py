"""From a LinkSpec to the Link that reaches it."""

from __future__ import annotations

import os
import ssl
from dataclasses import replace
from typing import Any

from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, AsyncModbusTlsClient
from pymodbus.client.base import ModbusBaseClient

from drivers.link import Link, LinkSpec, SerialLine
from drivers.modbus.link import ModbusLink


def open_link(spec: LinkSpec) -> Link:
    """Return the Link of a specification; it dials at its first read."""
    return ModbusLink(spec, lambda **hooks: _client(spec, hooks), has_ids=spec.transport in ("tcp", "tls"))


def _client(spec: LinkSpec, hooks: dict[str, Any]) -> ModbusBaseClient:
    """Return an unconnected client: no retries and no reconnecting of its own, those policies are ours."""
    common: dict[str, Any] = {"timeout": spec.timeout_s, "retries": 0, "reconnect_delay": 0, **hooks}
    if spec.transport == "rtu":
        line = _without_parity(spec)
        return AsyncModbusSerialClient(
            spec.path,
            framer=FramerType.RTU,
            baudrate=line.baudrate,
            bytesize=line.bytesize,
            parity=line.parity,
            stopbits=line.stopbits,
            **common,
        )
    if spec.transport == "tls":
        return AsyncModbusTlsClient(spec.host, port=spec.port, sslctx=_tls(spec), **common)
    framer = FramerType.SOCKET if spec.transport == "tcp" else FramerType.RTU
    return AsyncModbusTcpClient(spec.host, port=spec.port, framer=framer, **common)


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
