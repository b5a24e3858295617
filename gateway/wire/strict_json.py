"""JSON between processes: what comes in is strict and of the type that is wanted, what goes out never is invalid.

A peer's message must not end a process. So every fault of a text is a ValueError, whichever way Python's parser would
tell it; a reader takes it apart with `text`, `number` and `whole`.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any, Final, NoReturn

MAX_NUMBER: Final = sys.float_info.max
MAX_WHOLE: Final = 2**63 - 1  # what a 64-bit column, in numpy and in SQLite, can hold
SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")  # half a character: valid JSON, and no UTF-8


def loads(payload: bytes | str) -> Any:
    """Return what a JSON text says; raises ValueError for anything that is not strict JSON in UTF-8.

    NaN, infinities (1e999 too), halves of characters and nesting that Python cannot follow are refused.
    """
    read = payload.decode() if isinstance(payload, bytes) else payload
    try:
        found = json.loads(read, parse_constant=_refuse, parse_float=_finite_float)
        if SURROGATE.search(read):
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    return found


def dumps(value: Any) -> bytes:
    """Return compact JSON in UTF-8; a number that is not finite becomes null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        return json.dumps(_without_infinities(value), separators=(",", ":"), allow_nan=False).encode()


def text(value: Any) -> str:
    """Return a text; raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"wanted text, got {type(value).__name__}")
    return value


def number(value: Any) -> float:
    """Return a finite number as it is; raises TypeError or ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"wanted a number, got {type(value).__name__}")
    if not abs(value) <= MAX_NUMBER:
        raise ValueError("wanted a number that a float can hold")
    return value


def whole(value: Any) -> int:
    """Return a whole number of 64 bits; raises TypeError or ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"wanted a whole number, got {type(value).__name__}")
    if not -MAX_WHOLE <= value <= MAX_WHOLE:
        raise ValueError("wanted a whole number of 64 bits")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:24]} is beyond what a float can hold")
    return value


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(each) for each in value]
    return value
