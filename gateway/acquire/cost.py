"""What a read costs on its link: characters, silences and the turnaround of the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from drivers.blocks import Block, payload_bytes
from drivers.link import LinkSpec

RTU_REQUEST_CHARACTERS: Final = 8  # unit, function, address, quantity, CRC
RTU_ANSWER_CHARACTERS: Final = 5  # unit, function, byte count, CRC; plus the payload
RTU_SILENCE_CHARACTERS: Final = 7  # 3.5 before the request and 3.5 before the answer
RTU_CHARACTERS: Final = RTU_REQUEST_CHARACTERS + RTU_ANSWER_CHARACTERS + RTU_SILENCE_CHARACTERS
TCP_BYTES_PER_S: Final = 1_000_000.0  # a thin uplink's worth; only breaks ties between equally many requests


@dataclass(frozen=True, slots=True)
class Cost:
    """Bus time of a read in seconds: `fixed_s`, and `byte_s` for each byte of its payload."""

    fixed_s: float
    byte_s: float

    def of(self, count: int, item_bytes: int) -> float:
        """Return the bus time of a read of so many addresses, seconds."""
        return self.fixed_s + self.byte_s * payload_bytes(count, item_bytes)

    def read_s(self, block: Block) -> float:
        """Return the bus time of one read, seconds."""
        return self.of(block.count, block.item_bytes)


def cost_of(link: LinkSpec, turnaround_s: float | None = None) -> Cost:
    """Return the cost on a link; `turnaround_s` is what its device was seen to need, else the link's expectation."""
    wait_s = link.turnaround_s if turnaround_s is None else turnaround_s
    if link.transport == "rtu":
        character_s = link.serial.bits_per_character / link.serial.baudrate
        return Cost(RTU_CHARACTERS * character_s + wait_s, character_s)
    return Cost(wait_s, 1 / TCP_BYTES_PER_S)
