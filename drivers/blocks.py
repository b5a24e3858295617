"""One Modbus read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_REGISTERS: Final = 125  # Modbus application protocol V1.1b3, functions 3 and 4: quantity 1 to 125
MAX_BITS: Final = 2000  # functions 1 and 2: quantity 1 to 2000
BITS_PER_BYTE: Final = 8


def payload_bytes(count: int, item_bytes: int) -> int:
    """Return the payload bytes of an answer of so many addresses; item_bytes as of Block."""
    return count * item_bytes if item_bytes else (count + BITS_PER_BYTE - 1) // BITS_PER_BYTE


@dataclass(frozen=True, slots=True)
class Block:
    """A contiguous read: function code, start address, quantity.

    item_bytes  bytes that one address answers with: 2, or 4 for Enron items; 0 for bits
    is_once  reading it changes the device: nothing but the schedule may send it
    """

    function: int
    start: int
    count: int
    item_bytes: int = 2
    is_once: bool = False

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.count

    @property
    def n_bytes(self) -> int:
        """Payload bytes that the only right answer has."""
        return payload_bytes(self.count, self.item_bytes)
