"""How a device is reached: the seam behind which Modbus, and later others, stand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from drivers.blocks import Block

LinkState = Literal["closed", "up", "down"]
Transport = Literal["tcp", "tls", "rtu+tcp", "rtu"]


@dataclass(frozen=True, slots=True)
class SerialLine:
    """How characters are sent on an RS-485 bus."""

    baudrate: int = 9600
    bytesize: int = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: int = 1

    @property
    def bits_per_character(self) -> int:
        """Start, data, parity and stop bits of one character on the wire."""
        return 1 + self.bytesize + (self.parity != "N") + self.stopbits


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One connection or bus.

    host, port  of tcp, tls and rtu+tcp; path of rtu
    turnaround_s  expected answer time of its devices until it is learnt
    """

    name: str
    transport: Transport
    host: str = ""
    port: int = 0
    path: str = ""
    serial: SerialLine = field(default_factory=SerialLine)
    timeout_s: float = 1.0
    turnaround_s: float = 0.02
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(slots=True)
class LinkCounters:
    """What a link has seen since the process started; every number only rises.

    exceptions  Modbus exception code -> answers
    """

    requests: int = 0
    answers: int = 0
    timeouts: int = 0
    crc_errors: int = 0
    foreign_frames: int = 0
    dials: int = 0
    exceptions: Counter[int] = field(default_factory=Counter)


class Link(Protocol):
    """One connection or bus; one request outstanding at a time."""

    state: LinkState
    counters: LinkCounters

    async def read(self, unit: int, block: Block) -> bytes:
        """Return exactly `block.n_bytes` payload bytes of `unit`; raises a DriverError leaf."""
        ...

    async def close(self) -> None:
        """Give the endpoint back; a later read opens it again."""
        ...
