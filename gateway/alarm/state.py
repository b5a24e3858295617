"""The life of an alarm as a table (ISA-18.2 / IEC 62682).

    normal --raise--> unacked --ack--> acked --clear--> normal
                         |                      ^
                       clear                  (ack)
                         v                      |
                    rtn_unacked ----ack------> normal
                         |
                       raise --> unacked

Acknowledge never hides an active alarm and never changes a value. What is not in the table changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where an alarm stands."""

    NORMAL = "normal"
    UNACKED = "unacked"
    ACKED = "acked"
    RTN_UNACKED = "rtn_unacked"


class Step(StrEnum):
    """What can happen to an alarm."""

    RAISE = "raise"
    CLEAR = "clear"
    ACK = "ack"


TRANSITIONS: Final[dict[tuple[State, Step], State]] = {
    (State.NORMAL, Step.RAISE): State.UNACKED,
    (State.UNACKED, Step.ACK): State.ACKED,
    (State.UNACKED, Step.CLEAR): State.RTN_UNACKED,  # went away before anyone looked: still to be seen
    (State.ACKED, Step.CLEAR): State.NORMAL,
    (State.RTN_UNACKED, Step.RAISE): State.UNACKED,
    (State.RTN_UNACKED, Step.ACK): State.NORMAL,
}


def after(state: State, step: Step) -> State:
    """Return the state after a step; a step that the table does not know leaves it as it is."""
    return TRANSITIONS.get((state, step), state)
