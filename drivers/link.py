"""How a device is reached: the seam behind which Modbus, and later others, stand."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

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


# What happened on a link, oldest first: (seconds on the loop's clock, kind, what). Kinds:
#   ask   a read was asked for: (unit, block)          end   how it ended: payload or the DriverError
#   tx rx bytes sent and received                      up    connected: bytes that seed the transaction ids
#   down  the connection is gone: why, as text
#   doubt answers to older requests may still come from the unit that is asked: (their shapes, seconds since the last of
#         them was asked for or seen, the blocks that can be its fence), see drivers/modbus/link.py
TrafficKind = Literal["ask", "tx", "rx", "end", "up", "down", "doubt"]
Traffic = tuple[float, TrafficKind, Any]


class Latency:
    """A histogram of answer times: `counts[i]` answers took up to BOUNDS_S[i] seconds, the last one longer."""

    # 1-2-5 steps from a fast meter on a switch to a satellite hop with a slow converter behind it
    BOUNDS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS_S) + 1)
        self.total_s = 0.0

    def note(self, seconds: float) -> None:
        """Count one answer."""
        self.counts[bisect_left(self.BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    @property
    def n(self) -> int:
        """How many answers there were."""
        return sum(self.counts)

    def within(self, share: float) -> float | None:
        """Return a time in which this share of the answers came, seconds: a bound, so never too short.

        None while there was no answer; infinity beyond the last bound.
        """
        n, seen = self.n, 0
        for count, bound in zip(self.counts, (*self.BOUNDS_S, math.inf), strict=True):
            seen += count
            if n and seen >= share * n:
                return bound
        return None


@dataclass(slots=True)
class UnitCounters:
    """What was seen of one device since the process started; every number only rises.

    crc_errors      answers whose checksum was wrong
    foreign_frames  whole frames that answer nothing that was asked: of others, repeated, or of another shape
    late_frames     answers to requests that were given up before
    exceptions      Modbus exception code -> answers
    """

    requests: int = 0
    answers: int = 0
    timeouts: int = 0
    crc_errors: int = 0
    foreign_frames: int = 0
    late_frames: int = 0
    exceptions: Counter[int] = field(default_factory=Counter)
    latency: Latency = field(default_factory=Latency)


@dataclass(slots=True)
class LinkCounters(UnitCounters):
    """The same of a whole link.

    dials        connections that were tried
    noise_bytes  bytes that were part of no frame
    fences       reads whose only use was to prove that no old answer can still come
    busy_s       time in which the link was taken by a request or its answer
    units        unit -> what was seen of it
    """

    dials: int = 0
    noise_bytes: int = 0
    fences: int = 0
    busy_s: float = 0.0
    units: dict[int, UnitCounters] = field(default_factory=dict)

    def unit(self, unit: int) -> UnitCounters:
        """Return the counters of a unit."""
        found = self.units.get(unit)
        if found is None:
            found = self.units[unit] = UnitCounters()
        return found


class Reader(Protocol):
    """What answers reads: a link, or what stands before one."""

    async def read(self, unit: int, block: Block) -> bytes:
        """Return exactly `block.n_bytes` payload bytes of `unit`; raises a DriverError leaf."""
        ...


class Link(Reader, Protocol):
    """One connection or bus; one request outstanding at a time. `ring` holds the latest traffic."""

    state: LinkState
    counters: LinkCounters
    ring: deque[Traffic]

    def turnaround_s(self, unit: int) -> float | None:
        """Return how long a device takes to answer, without the characters on the wire; None while unknown."""
        ...

    async def close(self) -> None:
        """Give the endpoint back; a later read opens it again."""
        ...
