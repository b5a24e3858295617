"""What a detector can say of a tag: one bit each in the flags column."""

from __future__ import annotations

from typing import Final

LOW_LOW: Final = 1
LOW: Final = 2
HIGH: Final = 4
HIGH_HIGH: Final = 8
RATE: Final = 16
FROZEN: Final = 32
EWMA: Final = 64

NAMES: Final[dict[int, str]] = {
    LOW_LOW: "low_low",
    LOW: "low",
    HIGH: "high",
    HIGH_HIGH: "high_high",
    RATE: "rate",
    FROZEN: "frozen",
    EWMA: "anomaly",
}
LIMITS: Final = LOW_LOW | LOW | HIGH | HIGH_HIGH


def names(flags: int) -> list[str]:
    """Return the names of the bits that are set."""
    return [name for bit, name in NAMES.items() if flags & bit]
