"""The lines of a capture behind its header: one piece of traffic each, written and read by its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from drivers.blocks import MAX_BITS, Block
from drivers.errors import DeviceException, DriverError, LinkDown, NoAnswer, WrongAnswer, device_exception
from drivers.link import Traffic, TrafficKind
from drivers.modbus.framing import READ_FUNCTIONS, SEED
from drivers.toml import escape, shown
from gateway.capture.header import MAX_TEXT
from gateway.model.clock import NS
from gateway.wire.strict_json import dumps, text, whole

MAX_NS: Final = 3600 * NS  # a capture is some seconds of traffic
MAX_PAYLOAD: Final = 250  # 125 registers
MAX_LIST: Final = 1024  # shapes of answers: 4 functions and 250 lengths, there are no more
ITEM_BYTES: Final = (0, 2, 4)
ERRORS: Final[Mapping[str, type[DriverError]]] = {kind.__name__: kind for kind in (LinkDown, NoAnswer, WrongAnswer)}


def write(time_ns: int, kind: TrafficKind, what: Any) -> bytes:
    """Return the line of a piece of traffic."""
    return dumps([time_ns, kind, _WRITERS[kind](what)])


def plain(reason: str) -> str:
    """Return a text as a capture has it: one line, and short."""
    return escape(reason).strip()[:MAX_TEXT].strip()


def _block_list(block: Block) -> list[int | bool]:
    return [block.function, block.start, block.count, block.item_bytes, block.is_once]


def _end(what: bytes | DriverError) -> Any:
    if isinstance(what, bytes):
        return what.hex()
    return [type(what).__name__, what.code if isinstance(what, DeviceException) else None, plain(str(what))]


_WRITERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "ask": lambda what: [what[0], *_block_list(what[1])],
    "tx": bytes.hex,
    "rx": bytes.hex,
    "up": bytes.hex,
    "down": plain,
    "end": _end,
    "doubt": lambda what: [what[0], round(what[1] * NS), [_block_list(block) for block in what[2]]],
}
OPENS: Final = "ask"
CLOSES: Final = "end"
INSIDE: Final = frozenset({"doubt", "up", "tx", "rx", "down", CLOSES})
OUTSIDE: Final = frozenset({"rx", "down", OPENS})


class Lines:
    """Takes line by line; `take` raises ValueError or TypeError for what cannot be."""

    def __init__(self, units: set[int]) -> None:
        self.pieces: list[Traffic] = []
        self.is_open = False
        self._units = units
        self._has_begun = False
        self._last_ns = 0
        self._block = Block(3, 0, 1)

    def take(self, line: Any) -> None:
        """Take one line."""
        time_ns, kind, said = _items(line, 3, "[ns, kind, what]")
        if not self._last_ns <= whole(time_ns) <= MAX_NS:
            raise ValueError(f"time {time_ns}, wanted {self._last_ns} to {MAX_NS}")
        self._last_ns = time_ns
        if not isinstance(kind, str) or kind not in _WRITERS:
            raise ValueError(f"unknown kind {shown(kind)}, wanted {', '.join(_WRITERS)}")
        if (self._has_begun or kind == OPENS) and kind not in (INSIDE if self.is_open else OUTSIDE):
            raise ValueError(f"'{kind}' {'while a read goes on' if self.is_open else 'outside a read'}")
        what = self._read(kind, said)
        if kind == OPENS:
            self.is_open = self._has_begun = True
        elif kind == CLOSES:
            self.is_open = False
        self.pieces.append((time_ns / NS, cast("TrafficKind", kind), what))

    def _read(self, kind: str, said: Any) -> Any:
        match kind:
            case "ask":
                unit, *block = _items(said, 6, "[unit, function, start, count, item_bytes, is_once]")
                if whole(unit) not in self._units:
                    raise ValueError(f"unit {unit} belongs to no device of the header")
                self._block = _block(block)
                return unit, self._block
            case "end":
                return self._ended(said)
            case "up":
                seed = _bytes(said)
                if len(seed) not in (0, SEED.size):
                    raise ValueError(f"a seed of {len(seed)} bytes, wanted {SEED.size} or none")
                return seed
            case "doubt":
                shapes, age_ns, blocks = _items(said, 3, "[shapes, age, blocks]")
                pairs = [_items(each, 2, "[function, bytes]") for each in _list(shapes, MAX_LIST)]
                age_s = _within(age_ns, 0, MAX_NS, "age") / NS
                return (
                    tuple((_function(f), _within(n, 1, MAX_PAYLOAD, "bytes")) for f, n in pairs),
                    age_s,
                    tuple(_block(each) for each in _list(blocks, MAX_LIST)),
                )
            case "down":
                return _text(said)
        return _bytes(said)

    def _ended(self, said: Any) -> bytes | DriverError:
        """Return how a read ended: an answer as long as was asked for, or an error that there is."""
        if isinstance(said, str):
            payload = _bytes(said)
            if self.is_open and len(payload) != self._block.n_bytes:
                raise ValueError(f"an answer of {len(payload)} bytes, wanted {self._block.n_bytes}")
            return payload
        name, code, reason = _items(said, 3, "[error, exception code, text]")
        if code is None:
            if not isinstance(name, str) or name not in ERRORS:
                raise ValueError(f"unknown error {shown(name)}, wanted {', '.join(ERRORS)} or one with a code")
            return ERRORS[name](_text(reason))
        error = device_exception(_within(code, 0, 255, "exception code"))
        if name != type(error).__name__:
            raise ValueError(f"exception {code} is {type(error).__name__}, got {shown(name)}")
        return error


def _items(found: Any, n: int, wanted: str) -> list[Any]:
    if not isinstance(found, list) or len(found) != n:
        raise ValueError(f"wanted {wanted}")
    return found


def _list(found: Any, most: int) -> list[Any]:
    if not isinstance(found, list) or len(found) > most:
        raise ValueError(f"wanted a list of at most {most}")
    return found


def _within(found: Any, low: int, high: int, name: str) -> int:
    if not low <= whole(found) <= high:
        raise ValueError(f"{name} {found}, wanted {low} to {high}")
    return int(found)


def _function(found: Any) -> int:
    if whole(found) not in READ_FUNCTIONS:
        raise ValueError(f"function {found}, wanted one that reads: 1 to 4")
    return int(found)


def _block(found: Any) -> Block:
    function, start, count, item_bytes, is_once = _items(found, 5, "[function, start, count, item_bytes, is_once]")
    if whole(item_bytes) not in ITEM_BYTES or not isinstance(is_once, bool):
        raise ValueError("wanted item_bytes 0, 2 or 4 and is_once true or false")
    block = Block(
        _function(function),
        _within(start, 0, 0xFFFF, "start"),
        _within(count, 1, MAX_BITS, "count"),
        item_bytes,
        is_once,
    )
    if block.n_bytes > MAX_PAYLOAD:
        raise ValueError(f"a read of {block.n_bytes} bytes, wanted at most {MAX_PAYLOAD}")
    return block


def _bytes(found: Any) -> bytes:
    digits = text(found)
    if len(digits) % 2 or not all(c in "0123456789abcdef" for c in digits):
        raise ValueError("wanted bytes as pairs of hexadecimal digits")
    return bytes.fromhex(digits)


def _text(found: Any) -> str:
    if not text(found).isprintable():
        raise ValueError("wanted a text without control characters")
    return str(found)
