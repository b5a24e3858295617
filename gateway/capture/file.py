"""One capture: the raw traffic of a link around a fault or event, in a file that needs no other to be understood.

Invariants
    A file is complete: its header says how many lines follow. Times never go back. What is read has been checked: every
    number is one that the wire and the configuration allow, every answer as long as was asked for. The header names no
    host, no password and no key.

    {"capture": 1, "gateway": .., "version": .., "time": Unix ns of time 0, "why": [..], "lines": .., "link": {..},
     "devices": [{"name": .., "unit": .., "points": [{..}, ..]}, ..]}
    [ns, "ask", [unit, function, start, count, item_bytes, is_once]]     a read was asked for
    [ns, "up", "seed of the transaction ids"]                            connected
    [ns, "doubt", [[[function, bytes], ..], age ns, [block, ..]]]        what may still come, see drivers/link.py
    [ns, "tx", "hex"]  [ns, "rx", "hex"]                                 bytes sent, bytes received
    [ns, "end", "hex"]  [ns, "end", [error, exception code, text]]       how the read ended
    [ns, "down", "why"]                                                  the connection is gone

Between an ask and its end nothing else is asked; doubt, tx and up stand only there. What comes before the first ask is
the tail of an exchange that began earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drivers.link import LinkSpec, Traffic
from drivers.toml import FileError, judge, shown
from gateway.capture.header import FORMAT, HeaderModel, device_table
from gateway.capture.traffic import Lines, plain, write
from gateway.model.clock import NS
from gateway.model.corridor import Device, GatewaySpec
from gateway.wire.strict_json import dumps, loads

MAX_FILE_BYTES: Final = 8_000_000  # ten times what a bus of 30 devices with 80 points each makes

CaptureError = FileError


@dataclass(frozen=True, slots=True)
class Capture:
    """What a file holds.

    gateway, version  whose, and what it ran
    time_ns  Unix time of the first piece of traffic, whose own time is 0
    why      the faults and events that it was made for
    link     without host, path and files
    devices  those on the link; of their tags only point and period
    """

    gateway: str
    version: str
    time_ns: int
    why: tuple[str, ...]
    link: LinkSpec
    devices: tuple[Device, ...]
    traffic: tuple[Traffic, ...]


def capture_of(
    spec: GatewaySpec, link: LinkSpec, version: str, time_ns: int, why: Iterable[str], traffic: Sequence[Traffic]
) -> Capture:
    """Return the capture of a link's traffic; a read that has not ended is left out, and what came during it."""
    n = len(traffic)
    for i in range(n - 1, -1, -1):
        if traffic[i][1] == "end":
            break
        if traffic[i][1] == "ask":
            n = i
            break
    began_s = traffic[0][0] if traffic else 0.0
    pieces = tuple((when - began_s, kind, what) for when, kind, what in traffic[:n])
    devices = tuple(device for device in spec.devices if device.link == link.name)
    plain = LinkSpec(
        link.name, link.transport, serial=link.serial, timeout_s=link.timeout_s, turnaround_s=link.turnaround_s
    )
    return Capture(spec.id, version, time_ns, tuple(why), plain, devices, pieces)


def encode(capture: Capture) -> bytes:
    """Return the file of a capture."""
    link, line = capture.link, capture.link.serial
    header = {
        "capture": FORMAT,
        "gateway": capture.gateway,
        "version": capture.version,
        "time": capture.time_ns,
        "why": [plain(reason) for reason in capture.why],
        "lines": len(capture.traffic),
        "link": {
            "name": link.name,
            "transport": link.transport,
            "timeout_s": link.timeout_s,
            "turnaround_s": link.turnaround_s,
            "serial": {"baudrate": line.baudrate, "parity": line.parity, "stopbits": line.stopbits},
        },
        "devices": [device_table(device) for device in capture.devices],
    }
    lines = [dumps(header)]
    last_ns = 0
    for when, kind, what in capture.traffic:
        last_ns = max(last_ns, round(when * NS))  # an answer's end carries the time of its last byte
        lines.append(write(last_ns, kind, what))
    return b"\n".join([*lines, b""])


def read(path: Path) -> Capture:
    """Return the capture in a file; raises CaptureError with file, line, what was found and what is wanted."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CaptureError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    if len(raw) > MAX_FILE_BYTES:
        raise CaptureError([f"{path}: is no capture: larger than {MAX_FILE_BYTES} bytes"])
    lines = raw.split(b"\n")
    header = _header(path, lines[0])
    if lines.pop() or len(lines) != header.lines + 1:
        raise CaptureError([f"{path}: line {len(lines)}: the file ends here, wanted {header.lines + 1} whole lines"])
    devices = tuple(device.device(header.link.name) for device in header.devices)
    traffic = Lines({device.unit for device in devices})
    for number, line in enumerate(lines[1:], 2):
        try:
            traffic.take(loads(line))
        except (ValueError, TypeError) as error:
            raise CaptureError([f"{path}: line {number}: {error}"]) from None
    if traffic.is_open:
        raise CaptureError([f"{path}: line {len(lines)}: the last read has no end"])
    spec = header.link.spec()
    return Capture(header.gateway, header.version, header.time, tuple(header.why), spec, devices, tuple(traffic.pieces))


def _header(path: Path, line: bytes) -> HeaderModel:
    try:
        found = loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "capture" not in found:
        raise CaptureError([f"{path}: is no capture: its first line is no JSON object with the key 'capture'"])
    if found["capture"] != FORMAT or isinstance(found["capture"], bool):
        raise CaptureError([f"{path}: line 1: capture: format {shown(found['capture'])}, wanted {FORMAT}"])
    model, faults = judge(HeaderModel, found)
    if faults:
        raise CaptureError(f"{path}: line 1: {fault.text}" for fault in faults)
    return model
