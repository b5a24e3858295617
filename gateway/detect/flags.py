"""What a detector can say of a tag: one bit each in the flags column."""

from __future__ import annotations

from typing import Final

LOW_LOW: Final = 1
LOW: Final = 2
HIGH: Final = 4
HIGH_HIGH: Final = 8
RATE: Final = 16
FROZEN: Final = 32
SPIKE: Final = 64
SHIFT: Final = 128
NOVELTY: Final = 256
CHATTER: Final = 512
HEALTH: Final = 1024
NOISE: Final = 2048
DRIFT: Final = 4096

NAMES: Final[dict[int, str]] = {
    LOW_LOW: "low_low",
    LOW: "low",
    HIGH: "high",
    HIGH_HIGH: "high_high",
    RATE: "rate",
    FROZEN: "frozen",
    SPIKE: "spike",
    SHIFT: "shift",
    NOVELTY: "novelty",
    CHATTER: "chatter",
    HEALTH: "health",
    NOISE: "noise",
    DRIFT: "drift",
}
MEANING: Final[dict[int, str]] = {
    RATE: "changes faster than the process can",
    FROZEN: "stopped moving where it usually moves",
    SPIKE: "jumped far out of its own noise, alone",
    SHIFT: "moved as it never moved from there",
    NOVELTY: "was never here before, or never at this hour",
    CHATTER: "changes back and forth",
    NOISE: "is noisier than it ever was",
    DRIFT: "has left all that was known of it, and goes on",
    HEALTH: "does not fit the other meters of its asset any more",
}
LIMITS: Final = LOW_LOW | LOW | HIGH | HIGH_HIGH


def names(flags: int) -> list[str]:
    """Return the names of the bits that are set."""
    return [name for bit, name in NAMES.items() if flags & bit]
