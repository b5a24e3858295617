"""Modbus frames as a server sees them: TCP headers, RTU checksums, and where one RTU request ends."""

from __future__ import annotations

import struct
from typing import Final

from drivers.link import SerialLine

MBAP: Final = struct.Struct(">HHHB")  # transaction, protocol 0, bytes that follow (unit included), unit
MAX_PDU: Final = 253
MAX_RTU: Final = 256

# Function -> length of its request on RTU, unit and CRC included; 15 and 16 carry their byte count at 6.
_LENGTH: Final = {1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 7: 4, 22: 10, 24: 6}
_COUNTED: Final = {15: 6, 16: 6, 23: 10}
SILENCE_CHARACTERS: Final = 3.5


def _table() -> tuple[int, ...]:
    out = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        out.append(crc)
    return tuple(out)


_CRC: Final = _table()


def crc16(frame: bytes) -> int:
    """Return the CRC of an RTU frame. Source: Modbus over Serial Line V1.02, section 6.2.2 and appendix B."""
    crc = 0xFFFF
    for byte in frame:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


def rtu(unit: int, pdu: bytes) -> bytes:
    """Return a whole RTU frame."""
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


def mbap(transaction: int, unit: int, pdu: bytes) -> bytes:
    """Return a whole Modbus TCP frame."""
    return MBAP.pack(transaction, 0, len(pdu) + 1, unit) + pdu


def line_time_s(line: SerialLine, n_request: int, n_response: int) -> float:
    """Return how long a request, the silence that ends it and its response take on the wire.

    The silence behind the response is kept by whoever asks next.
    """
    characters = n_request + n_response + SILENCE_CHARACTERS
    return characters * line.bits_per_character / line.baudrate


class RtuRequests:
    """Cuts a stream of bytes into RTU requests: by length where the function tells it, else by silence."""

    __slots__ = ("_bytes", "crc_errors")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.crc_errors = 0

    @property
    def has_part(self) -> bool:
        """Whether bytes wait for the rest of their frame, or for silence."""
        return bool(self._bytes)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the requests (unit, PDU) that these bytes complete."""
        self._bytes += data
        out = []
        while (length := self._length()) and len(self._bytes) >= length:
            frame = bytes(self._bytes[:length])
            if crc16(frame) != 0:
                break  # silence will tell
            del self._bytes[:length]
            out.append((frame[0], frame[1:-2]))
        if len(self._bytes) > 2 * MAX_RTU:
            self._bytes.clear()
        return out

    def silence(self) -> list[tuple[int, bytes]]:
        """Return the request that stands before a silence, if it is one; what is left is thrown away."""
        frame = bytes(self._bytes)
        self._bytes.clear()
        if 4 <= len(frame) <= MAX_RTU and crc16(frame) == 0:
            return [(frame[0], frame[1:-2])]
        self.crc_errors += 1
        return []

    def _length(self) -> int:
        """Return how long the frame at hand is, 0 while that cannot be told."""
        if len(self._bytes) < 2:
            return 0
        function = self._bytes[1]
        at = _COUNTED.get(function)
        if at is None:
            return _LENGTH.get(function, 0)
        return at + 3 + self._bytes[at] if len(self._bytes) > at else 0
