"""What commands share: exit codes, and saying things to the one who typed them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

DONE: Final = 0
WRONG_INPUT: Final = 1
USAGE: Final = 2
PEER_AWAY: Final = 3


def say(line: str) -> None:
    """Say a line that is not a result: progress, or what is wrong."""
    print(line, file=sys.stderr, flush=True)


def refuse(lines: Iterable[str]) -> int:
    """Say what is wrong with the input, a line each; returns the exit code."""
    for line in lines:
        say(line)
    return WRONG_INPUT
