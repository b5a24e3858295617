"""When a broker is given up: it was asked and nothing comes back, though nothing is still on its way between us.

Kernels acknowledge for a frozen broker, and a thin link takes a minute for one large message, during which no answer
can come. So the watchdog looks at both: what the broker said, and what our kernel knows of the bytes.

    heard    ....|                       |................|             given up, SILENCE keepalives after the last sign
    leaving      |.....................  |                |       |
    asked        |                       |                |       PINGREQ, ASK keepalives after the last sign
                 a large message begins  its PUBACK       it freezes

Bytes of ours are a sign of life only if some of those that waited at one look have left at the next, and some have not:
of a small message that is acknowledged once in a round trip nothing waits so long. A look that comes late counts as one
in time, because what we did not listen to was not silence.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from dataclasses import dataclass
from typing import Final

ASK: Final = 0.5  # keepalives after the last sign of life: an answer has 7 s then, the longest satellite takes 2 s
SILENCE: Final = 1.3  # keepalives; with one look more 1.4, so a frozen broker is found within 1.5 also by a busy loop
LOOK: Final = 0.1  # keepalives between two looks: 1 s, longer than the round trip by satellite
TCP_INFO_BYTES: Final = 136
BYTES_ACKED: Final = 120  # offset of tcpi_bytes_acked in struct tcp_info of linux/tcp.h; tcpi_bytes_received follows


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the kernel knows of a TCP connection, in bytes on the wire, so with TLS those of its records.

    acked     that the other side's kernel has of us
    waiting   that it has not
    received  that ours has of it; 0 where they need not be the broker's
    """

    acked: int
    waiting: int
    received: int

    @property
    def written(self) -> int:
        """Return how many we ever wrote."""
        return self.acked + self.waiting


def traffic_of(tcp: socket.socket, *, is_broker: bool) -> Traffic:
    """Return what the kernel knows of a connection, with the broker or with what stands before it; raises OSError."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(tcp, termios.TIOCOUTQ, bytes(4)))
    known = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    acked, received = struct.unpack_from("QQ", known, BYTES_ACKED)
    return Traffic(acked, waiting, received if is_broker else 0)


class Watchdog:
    """What is known of one connection; all times are those of one monotonic clock, in seconds.

    busy_s    when the link was last seen at work on something, theirs or ours, that takes longer than a look
    silent_s  how long there was no sign of life, at the last look
    """

    def __init__(self, keepalive_s: float, now_s: float, traffic: Traffic) -> None:
        self.look_s = LOOK * keepalive_s
        self.busy_s = now_s
        self.silent_s = 0.0
        self._silence_s = SILENCE * keepalive_s
        self._ask_s = ASK * keepalive_s
        self._alive_s = self._heard_s = self._wrote_s = self._asked_s = self._looked_s = now_s
        self._traffic = traffic

    def look(self, now_s: float, heard_s: float, traffic: Traffic, *, is_reading: bool) -> None:
        """Take in what is known now: when part of a packet was read last, and whether the rest of it is to come."""
        before = self._traffic
        self._alive_s = max(self._alive_s + max(0.0, now_s - self._looked_s - 2 * self.look_s), heard_s)
        if before.acked < traffic.acked < before.written:
            self._alive_s = self.busy_s = now_s
        if traffic.received != before.received:
            self._alive_s = now_s
            is_reading |= heard_s == self._heard_s  # nothing could be read of it: part of a TLS record, up to 16 kB
        if is_reading:
            self.busy_s = now_s
        if traffic.written != before.written:
            self._wrote_s = now_s
        self._looked_s, self._heard_s, self._traffic = now_s, heard_s, traffic
        self.silent_s = now_s - self._alive_s

    @property
    def is_silent(self) -> bool:
        """Return whether the broker is to be given up."""
        return self.silent_s >= self._silence_s

    def asks(self, keepalive_s: float) -> bool:
        """Return whether to send a PINGREQ now; the broker wants to hear from us once in `keepalive_s`."""
        ask_s, now_s = min(self._ask_s, ASK * keepalive_s), self._looked_s
        if now_s - self._asked_s < ask_s or now_s - min(self._alive_s, self._wrote_s) < ask_s:
            return False
        self._asked_s = now_s
        return True
