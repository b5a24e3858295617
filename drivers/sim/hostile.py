"""Ways in which a meter, a converter, a bus or a network misbehaves, as bytes and pauses on the wire.

Invariants: a way is a pure function of one exchange; it sends nothing by itself, `play.py` does. Steps of one way
follow one another; those of different requests run side by side, so that a late answer meets what is asked meanwhile:

    request 1 ---- (late, after_s) --------------------> answer 1
    request 2 ------------> answer 2        a step that `waits` comes when the next request does, before its answer
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from drivers.link import Transport
from drivers.sim.frames import MAX_PDU, MBAP, crc16, mbap, rtu

Wire = Literal["tcp", "rtu+tcp", "rtu"]  # MBAP on a socket (in TLS too), RTU on a socket, RTU on a serial line

NOISE_BYTES: Final = 12  # about one short answer
STREAM_BYTES: Final = 64  # one gulp of an endless stream
SHORTEST_PAUSE_S: Final = 0.001  # an endless stream leaves the machine time for other things
BREAK_BYTES: Final = 300  # more than the longest RTU frame
FOREIGN: Final = 0x55  # what turns registers into others of the same shape
TELNET: Final = bytes.fromhex("fffd03fffb03fffb01")  # DO and WILL of a device server whose port is in Telnet mode
TLS_ALERT: Final = bytes.fromhex("15030300020228")  # fatal, handshake failure
HTTP: Final = b"HTTP/1.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
SSH: Final = b"SSH-2.0-dropbear_2022.83\r\n"


@dataclass(frozen=True, slots=True)
class Door:
    """How the next connection is received: with these steps; so long, 0: only the next one."""

    steps: tuple[Step, ...]
    for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens on the wire.

    after_s  after the step before, or after what it waited for
    waits    until the next request is there; comes before its answer
    end      how the connection then goes: orderly, or with a reset; a serial adapter is unplugged and back at once
    door     how connections are received from now on
    """

    data: bytes = b""
    after_s: float = 0.0
    waits: bool = False
    end: Literal["", "close", "reset"] = ""
    door: Door | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its right answer, and what the way may need to know besides.

    request, answer  PDUs;  transaction  0 on RTU
    delay_s, left_s  of the fault, and until it ends
    n                how many requests the fault has met before this one
    before           the exchange before on this connection or bus; its own `before` is None
    """

    wire: Wire
    transaction: int
    unit: int
    request: bytes
    answer: bytes
    delay_s: float = 0.0
    left_s: float = 0.0
    n: int = 0
    before: Exchange | None = None
    random: random.Random = field(default_factory=lambda: random.Random(0), compare=False)

    @property
    def is_rtu(self) -> bool:
        """Whether frames carry a CRC instead of a header."""
        return self.wire != "tcp"

    @property
    def right(self) -> bytes:
        """The right answer as a frame."""
        return self.frame(self.answer)

    @property
    def other(self) -> bytes:
        """An answer PDU of the same shape with other registers in it."""
        keep = 1 if self.answer[0] & 0x80 else 2
        return self.answer[:keep] + bytes(byte ^ FOREIGN for byte in self.answer[keep:])

    def frame(self, pdu: bytes, *, unit: int | None = None, transaction: int | None = None) -> bytes:
        """Return a well-formed frame of this wire; what is not said is that of the exchange."""
        unit = self.unit if unit is None else unit & 0xFF
        if self.is_rtu:
            return rtu(unit, pdu)
        return mbap(self.transaction if transaction is None else transaction & 0xFFFF, unit, pdu)

    def unasked(self, pdu: bytes) -> bytes:
        """Return a frame that no request asked for: transaction 0 where there is one."""
        return self.frame(pdu, transaction=0)

    def headed(self, *, protocol: int = 0, length: int | None = None) -> bytes:
        """Return other registers behind an MBAP header that says this."""
        length = len(self.answer) + 1 if length is None else length
        return MBAP.pack(self.transaction, protocol, length & 0xFFFF, self.unit) + self.other

    def counted(self, count: int) -> bytes:
        """Return other registers behind another byte count."""
        return self.frame(self.answer[:1] + bytes((count & 0xFF,)) + self.other[2:])

    def noise(self, n: int = NOISE_BYTES) -> bytes:
        """Return random bytes."""
        return self.random.randbytes(n)

    def flipped(self, first: int, last: int) -> bytes:
        """Return the right frame with one bit wrong between two of its bytes (negative: from its end).

        A frame too short for that, an exception, has it in its last such byte.
        """
        frame = bytearray(self.right)
        low, high = sorted(min(i % len(frame) if i < 0 else i, len(frame) - 1) for i in (first, last))
        frame[self.random.randint(low, high)] ^= 1 << self.random.randrange(8)
        return bytes(frame)

    def at(self, field_name: Literal["unit", "function", "count", "data"]) -> int:
        """Return where in a frame a field begins."""
        return {"unit": 0, "function": 1, "count": 2, "data": 3}[field_name] + (0 if self.is_rtu else MBAP.size - 1)


Way = Callable[[Exchange], Iterable[Step]]

_ALL: Final[tuple[Wire, ...]] = ("tcp", "rtu+tcp", "rtu")
_TCP: Final[tuple[Wire, ...]] = ("tcp",)
_RTU: Final[tuple[Wire, ...]] = ("rtu+tcp", "rtu")
_SOCKETS: Final[tuple[Wire, ...]] = ("tcp", "rtu+tcp")


@dataclass(frozen=True, slots=True)
class How:
    """One way to misbehave.

    wires    where it exists
    delay_s  what its delay is unless the script says it; None: it has none
    untold   where no reader can tell it from a right answer, because every proof that the wire offers is in it
    """

    way: Way
    wires: tuple[Wire, ...] = _ALL
    delay_s: float | None = None
    untold: tuple[Wire, ...] = ()


def wire_of(transport: Transport) -> Wire:
    """Return the wire that a transport is, as far as its bytes go."""
    return "tcp" if transport == "tls" else transport


def steps(how: str, exchange: Exchange) -> Iterator[Step]:
    """Return what happens on the wire when an exchange goes wrong in this way; endless ways end with `left_s`."""
    return iter(HOWS[how].way(exchange))


def _bytes(make: Callable[[Exchange], bytes]) -> Way:
    """Return a way that sends one run of bytes at once."""
    return lambda x: (Step(make(x)),)


def _pair(make: Callable[[Exchange], tuple[bytes, bytes]]) -> Way:
    """Return a way that sends the second run of bytes `delay_s` after the first."""

    def way(x: Exchange) -> Iterable[Step]:
        first, second = make(x)
        return Step(first), Step(second, x.delay_s)

    return way


def _with_next(make: Callable[[Exchange], tuple[bytes, bytes]]) -> Way:
    """Return a way that sends the first run of bytes at once, and the second when the next request is there."""

    def way(x: Exchange) -> Iterable[Step]:
        first, second = make(x)
        return Step(first), Step(second, waits=True)

    return way


def _behind_next(make: Callable[[Exchange], tuple[bytes, bytes]]) -> Way:
    """Return a way that sends the first run of bytes at once, and the second `delay_s` after the next request."""

    def way(x: Exchange) -> Iterable[Step]:
        first, second = make(x)
        return Step(first), Step(second, x.delay_s, waits=True)

    return way


def _ending(end: Literal["close", "reset"], make: Callable[[Exchange], bytes]) -> Way:
    """Return a way that sends bytes and then ends the connection."""
    return lambda x: (Step(make(x), end=end),)


def _repeated(make: Callable[[Exchange], bytes]) -> Way:
    """Return a way that sends bytes every `delay_s`, until the fault ends."""

    def way(x: Exchange) -> Iterator[Step]:
        pause_s = max(x.delay_s, SHORTEST_PAUSE_S)
        for _ in range(int(x.left_s / pause_s) + 1):
            yield Step(make(x), pause_s)

    return way


def _drip(x: Exchange) -> Iterator[Step]:
    for i, byte in enumerate(x.right):
        yield Step(bytes((byte,)), x.delay_s if i else 0.0)


def _byte_by_byte(x: Exchange) -> Iterator[Step]:
    """Spread the whole frame over `delay_s`."""
    for i, byte in enumerate(x.right):
        yield Step(bytes((byte,)), x.delay_s / len(x.right) if i else 0.0)


def _shifted(x: Exchange) -> Iterable[Step]:
    """Answer nothing first, then every request with the answer to the one before."""
    return () if x.before is None or x.n == 0 else (Step(_again(x)),)


def _exception_then_shifted(x: Exchange) -> Iterable[Step]:
    """Answer with exception 11 first, then every request with the answer to the one before."""
    return (Step(x.frame(_exception(x, 11)) if x.before is None or x.n == 0 else _again(x)),)


def _again(x: Exchange) -> bytes:
    """Return the frame that answered the request before, with its own transaction."""
    return x.before.right if x.before else b""


def _by_two(x: Exchange, make: Callable[[bytes, bytes], Iterable[Step]]) -> Iterable[Step]:
    """Answer nothing to every other request, and two requests at the next."""
    return () if x.before is None or x.n % 2 == 0 else make(_again(x), x.right)


def _at_door(x: Exchange, *greeting: Step, for_s: float = 0.0) -> Iterable[Step]:
    """End the connection, and receive the next one with a greeting."""
    return (Step(end="close", door=Door(greeting, for_s)),)


def _resized(x: Exchange, n_more: int) -> bytes:
    """Return a well-formed answer with more or fewer bytes of other registers than asked."""
    payload = x.other[2:]
    payload = payload[:n_more] if n_more < 0 else payload + payload[:n_more]
    return x.frame(bytes((x.answer[0], len(payload) & 0xFF)) + payload)


def _exception(x: Exchange, code: int, *, function: int | None = None) -> bytes:
    return bytes(((x.request[0] if function is None else function) | 0x80, code))


def _neighbour(function: int) -> int:
    """Return the function that reads the other table of the same width: coils and discretes, holding and input."""
    return {1: 2, 2: 1, 3: 4, 4: 3}.get(function, 3)


def _foreign_request(x: Exchange, unit: int) -> bytes:
    """Return what another client asks: as many registers, elsewhere."""
    return x.frame(x.request[:1] + bytes((x.request[1] ^ 0x01,)) + x.request[2:], unit=unit)


def _collision(x: Exchange) -> bytes:
    """Return what is on the line when two units answer at once: a 0 of either wins."""
    return bytes(ours & theirs for ours, theirs in zip(x.right, x.frame(x.other, unit=x.unit + 1), strict=True))


def _with_crc(x: Exchange, make: Callable[[bytes], bytes]) -> bytes:
    """Return other registers with what is made of the bytes before the CRC in its place."""
    body = x.frame(x.other)[:-2]
    return body + make(body)


def _ascii(x: Exchange) -> bytes:
    """Return the answer in ASCII mode. Source: Modbus over Serial Line V1.02, section 2.5.2."""
    body = bytes((x.unit,)) + x.answer
    return b":" + (body + bytes((-sum(body) & 0xFF,))).hex().upper().encode() + b"\r\n"


def _other_framing(x: Exchange) -> bytes:
    return mbap(1, x.unit, x.answer) if x.is_rtu else rtu(x.unit, x.answer)


def _oversized(x: Exchange) -> bytes:
    return x.frame(x.answer[:1] + b"\xff" + bytes(2 * MAX_PDU))


def _halves(x: Exchange) -> tuple[bytes, bytes]:
    middle = len(x.right) // 2
    return x.right[:middle], x.right[middle:]


def _without(frame: bytes, i: int) -> bytes:
    return frame[:i] + frame[i + 1 :]


HOWS: Final[dict[str, How]] = {
    # in time, and out of it
    "late": How(lambda x: (Step(x.right, x.delay_s),), delay_s=0.5),
    "late_with_next": How(_with_next(lambda x: (b"", x.right))),
    "late_behind_next": How(_behind_next(lambda x: (b"", x.right)), delay_s=0.02),
    "late_at_next_connection": How(lambda x: _at_door(x, Step(x.right, x.delay_s)), _SOCKETS, 0.0),
    "late_with_first_request": How(lambda x: _at_door(x, Step(x.right, waits=True)), _SOCKETS),
    "never": How(lambda x: ()),
    "shifted": How(_shifted),
    "merged": How(lambda x: _by_two(x, lambda old, own: (Step(old + own),))),
    "merged_reversed": How(lambda x: _by_two(x, lambda old, own: (Step(own + old),))),
    "out_of_order": How(
        lambda x: _by_two(x, lambda old, own: (Step(own), Step(old, x.delay_s))), delay_s=0.01, untold=_RTU
    ),
    "split": How(_pair(_halves), delay_s=0.02),
    "split_in_header": How(_pair(lambda x: (x.right[:2], x.right[2:])), delay_s=0.02),
    "byte_by_byte": How(_byte_by_byte, delay_s=0.02),
    "drip": How(_drip, delay_s=0.05),
    "drip_forever": How(_repeated(lambda x: x.noise(1)), delay_s=0.05),
    "garbage_forever": How(_repeated(lambda x: x.noise(STREAM_BYTES)), delay_s=0.005),
    "answer_then_garbage_forever": How(
        lambda x: (Step(x.right), *_repeated(lambda y: y.noise(STREAM_BYTES))(x)), delay_s=0.005
    ),
    # twice
    "duplicated": How(_bytes(lambda x: x.right + x.right)),
    "duplicated_later": How(_pair(lambda x: (x.right, x.right)), delay_s=0.02, untold=_RTU),
    "duplicated_with_next": How(_with_next(lambda x: (x.right, x.right))),
    "duplicated_behind_next": How(_behind_next(lambda x: (x.right, x.right)), delay_s=0.02),
    "half_then_whole": How(_bytes(lambda x: _halves(x)[0] + x.right)),
    "half_then_whole_later": How(_pair(lambda x: (_halves(x)[0], x.right)), delay_s=0.02),
    "previous_again": How(_bytes(_again), untold=_RTU),
    # what nobody asked for
    "unasked_before": How(_bytes(lambda x: x.unasked(x.other) + x.right)),
    "unasked_behind": How(_bytes(lambda x: x.right + x.unasked(x.other))),
    "unasked_idle": How(_pair(lambda x: (x.right, x.unasked(x.other))), delay_s=0.02, untold=_RTU),
    "unasked_with_next": How(_with_next(lambda x: (x.right, x.unasked(x.other)))),
    "exception_before": How(_bytes(lambda x: x.unasked(_exception(x, 4)) + x.right)),
    "exception_behind": How(_bytes(lambda x: x.right + x.frame(_exception(x, 4)))),
    "exception_idle": How(_pair(lambda x: (x.right, x.unasked(_exception(x, 4)))), delay_s=0.02),
    "exception_then_late": How(_pair(lambda x: (x.frame(_exception(x, 11)), x.right)), delay_s=0.02),
    "exception_then_with_next": How(_with_next(lambda x: (x.frame(_exception(x, 11)), x.right))),
    "exception_then_shifted": How(_exception_then_shifted),
    "contradiction": How(_bytes(lambda x: x.frame(x.other) + x.right)),
    "crosstalk": How(_bytes(lambda x: x.frame(x.other)), untold=_ALL),
    # from somebody else
    "foreign_unit": How(_bytes(lambda x: x.frame(x.other, unit=x.unit + 1))),
    "foreign_unit_before": How(_bytes(lambda x: x.frame(x.other, unit=x.unit + 1) + x.right)),
    "foreign_unit_behind": How(_bytes(lambda x: x.right + x.frame(x.other, unit=x.unit + 1))),
    "foreign_unit_with_next": How(_with_next(lambda x: (x.right, x.frame(x.other, unit=x.unit + 1)))),
    "unit_0": How(_bytes(lambda x: x.frame(x.other, unit=0))),
    "unit_255": How(_bytes(lambda x: x.frame(x.other, unit=255))),
    "other_client": How(_bytes(lambda x: _foreign_request(x, x.unit))),
    "other_client_before": How(_bytes(lambda x: _foreign_request(x, x.unit + 1) + x.right), _RTU),
    "other_client_idle": How(_pair(lambda x: (x.right, _foreign_request(x, x.unit))), _RTU, 0.02),
    "other_client_is_answered": How(_bytes(lambda x: _foreign_request(x, x.unit) + x.frame(x.other) + x.right), _RTU),
    "other_client_of_other_unit": How(
        _bytes(lambda x: _foreign_request(x, x.unit + 1) + x.frame(x.other, unit=x.unit + 1) + x.right), _RTU
    ),
    "collision": How(_bytes(_collision), _RTU),
    # transaction, protocol, length
    "id_next": How(_bytes(lambda x: x.frame(x.other, transaction=x.transaction + 1)), _TCP),
    "id_previous": How(_bytes(lambda x: x.frame(x.other, transaction=x.transaction - 1)), _TCP),
    "id_zero": How(_bytes(lambda x: x.frame(x.other, transaction=0)), _TCP),
    "id_inverted": How(_bytes(lambda x: x.frame(x.other, transaction=~x.transaction)), _TCP),
    "id_next_before": How(_bytes(lambda x: x.frame(x.other, transaction=x.transaction + 1) + x.right), _TCP),
    "id_next_behind": How(_bytes(lambda x: x.right + x.frame(x.other, transaction=x.transaction + 1)), _TCP),
    "protocol_1": How(_bytes(lambda x: x.headed(protocol=1)), _TCP),
    "protocol_256": How(_bytes(lambda x: x.headed(protocol=256)), _TCP),
    "length_short": How(_bytes(lambda x: x.headed(length=len(x.answer))), _TCP),
    "length_long": How(_bytes(lambda x: x.headed(length=len(x.answer) + 2)), _TCP),
    "length_0": How(_bytes(lambda x: x.headed(length=0)), _TCP),
    "length_1": How(_bytes(lambda x: x.headed(length=1)), _TCP),
    "length_double": How(_bytes(lambda x: x.headed(length=2 * len(x.answer) + MBAP.size)), _TCP),
    "length_65535": How(_bytes(lambda x: x.headed(length=65535)), _TCP),
    # byte count and size
    "count_short": How(_bytes(lambda x: x.counted(x.answer[1] - 2))),
    "count_long": How(_bytes(lambda x: x.counted(x.answer[1] + 2))),
    "count_odd": How(_bytes(lambda x: x.counted(x.answer[1] + 1))),
    "count_0": How(_bytes(lambda x: x.counted(0))),
    "count_255": How(_bytes(lambda x: x.counted(255))),
    "more_registers": How(_bytes(lambda x: _resized(x, 2))),
    "fewer_registers": How(_bytes(lambda x: _resized(x, -2))),
    "padded_inside": How(_bytes(lambda x: x.frame(x.other + b"\0\0"))),
    "padded_behind": How(_bytes(lambda x: x.right + b"\0\0")),
    "oversized": How(_bytes(_oversized)),
    # cut, or bytes lost and doubled
    "header_only": How(_bytes(lambda x: x.right[: x.at("function")])),
    "cut_in_payload": How(_bytes(lambda x: x.right[: x.at("data") + 1])),
    "cut_last_byte": How(_bytes(lambda x: x.right[:-1])),
    "first_byte_lost": How(_bytes(lambda x: x.right[1:])),
    "middle_byte_lost": How(_bytes(lambda x: _without(x.right, len(x.right) // 2))),
    "byte_doubled": How(_bytes(lambda x: x.right[: x.at("data")] + x.right[x.at("data") - 1 :])),
    # function and exception
    "function_of_neighbour": How(_bytes(lambda x: x.frame(bytes((_neighbour(x.answer[0]),)) + x.other[1:]))),
    "function_of_write": How(_bytes(lambda x: x.frame(b"\x10" + x.request[1:5]))),
    "function_0": How(_bytes(lambda x: x.frame(b"\0" + x.other[1:]))),
    "exception_without_code": How(_bytes(lambda x: x.frame(_exception(x, 0)[:1]))),
    "exception_code_0": How(_bytes(lambda x: x.frame(_exception(x, 0)))),
    "exception_code_12": How(_bytes(lambda x: x.frame(_exception(x, 12)))),
    "exception_code_255": How(_bytes(lambda x: x.frame(_exception(x, 255)))),
    "exception_of_neighbour": How(
        _bytes(lambda x: x.frame(_exception(x, 2, function=_neighbour(x.request[0] & 0x7F))))
    ),
    "exception_padded": How(_bytes(lambda x: x.frame(_exception(x, 2) + b"\0"))),
    "exception_with_payload": How(_bytes(lambda x: x.frame(bytes((x.answer[0] | 0x80,)) + x.other[1:]))),
    # echo and noise
    "echo_alone": How(_bytes(lambda x: x.frame(x.request))),
    "echo_before": How(_bytes(lambda x: x.frame(x.request) + x.right)),
    "echo_then_answer": How(_pair(lambda x: (x.frame(x.request), x.right)), delay_s=0.01),
    "echo_behind": How(_bytes(lambda x: x.right + x.frame(x.request))),
    "noise_alone": How(_bytes(lambda x: x.noise())),
    "noise_before": How(_bytes(lambda x: x.noise() + x.right)),
    "noise_behind": How(_bytes(lambda x: x.right + x.noise())),
    "noise_within": How(_bytes(lambda x: _halves(x)[0] + x.noise(2) + _halves(x)[1])),
    "noise_idle": How(_pair(lambda x: (x.right, x.noise())), delay_s=0.02),
    "stray_00_before": How(_bytes(lambda x: b"\x00" + x.right)),
    "stray_ff_before": How(_bytes(lambda x: b"\xff" + x.right)),
    "stray_00_behind": How(_bytes(lambda x: x.right + b"\x00")),
    "stray_ff_behind": How(_bytes(lambda x: x.right + b"\xff")),
    "stray_with_next": How(_with_next(lambda x: (x.right, b"\xff"))),
    "zeros": How(_bytes(lambda x: bytes(len(x.right)))),
    "ones": How(_bytes(lambda x: b"\xff" * len(x.right))),
    "long_break": How(_bytes(lambda x: bytes(BREAK_BYTES) + x.right)),
    # bits
    "crc_wrong": How(_bytes(lambda x: _with_crc(x, lambda body: (crc16(body) ^ 0x5A5A).to_bytes(2, "little"))), _RTU),
    "crc_swapped": How(_bytes(lambda x: _with_crc(x, lambda body: crc16(body).to_bytes(2, "big"))), _RTU),
    "crc_zero": How(_bytes(lambda x: _with_crc(x, lambda body: bytes(2))), _RTU),
    "crc_of_request": How(_bytes(lambda x: _with_crc(x, lambda body: rtu(x.unit, x.request)[-2:])), _RTU),
    "crc_missing": How(_bytes(lambda x: _with_crc(x, lambda body: b"")), _RTU),
    "flip_id": How(_bytes(lambda x: x.flipped(0, 1)), _TCP),
    "flip_protocol": How(_bytes(lambda x: x.flipped(2, 3)), _TCP),
    "flip_length": How(_bytes(lambda x: x.flipped(4, 5)), _TCP),
    "flip_unit": How(_bytes(lambda x: x.flipped(x.at("unit"), x.at("unit")))),
    "flip_function": How(_bytes(lambda x: x.flipped(x.at("function"), x.at("function")))),
    "flip_count": How(_bytes(lambda x: x.flipped(x.at("count"), x.at("count")))),
    "flip_payload": How(_bytes(lambda x: x.flipped(x.at("data"), -3 if x.is_rtu else -1)), untold=_TCP),
    "flip_crc": How(_bytes(lambda x: x.flipped(-2, -1)), _RTU),
    # a converter with wrong settings
    "seven_bits": How(_bytes(lambda x: bytes(byte & 0x7F for byte in x.right)), _RTU),
    "inverted": How(_bytes(lambda x: bytes(byte ^ 0xFF for byte in x.right))),
    "reversed": How(_bytes(lambda x: x.right[::-1])),
    "xon_xoff_eaten": How(_bytes(lambda x: x.right.replace(b"\x11", b"").replace(b"\x13", b""))),
    "newline_expanded": How(_bytes(lambda x: x.right.replace(b"\n", b"\r\n"))),
    "telnet_escaped": How(_bytes(lambda x: TELNET + x.right.replace(b"\xff", b"\xff\xff")), _SOCKETS),
    # another protocol
    "ascii_mode": How(_bytes(_ascii)),
    "other_framing": How(_bytes(_other_framing)),
    "frame_in_frame": How(_bytes(lambda x: x.frame(x.right))),
    "rtu_in_mbap": How(_bytes(lambda x: x.frame(rtu(x.unit, x.answer)[1:])), _TCP),
    "http": How(_bytes(lambda x: HTTP)),
    "tls_alert": How(_bytes(lambda x: TLS_ALERT), _SOCKETS),
    "banner": How(lambda x: _at_door(x, Step(SSH), for_s=x.left_s), _SOCKETS),
    # the connection
    "close": How(_ending("close", lambda x: b"")),
    "close_in_frame": How(_ending("close", lambda x: _halves(x)[0])),
    "close_behind_answer": How(_ending("close", lambda x: x.right)),
    "close_at_accept": How(lambda x: _at_door(x, Step(end="close"), for_s=x.left_s), _SOCKETS),
    "reset": How(_ending("reset", lambda x: b""), _SOCKETS),
    "reset_behind_answer": How(_ending("reset", lambda x: x.right), _SOCKETS),
}
