"""What stands between pymodbus and a value: lean answers, and the proof that an answer belongs to its request."""

from __future__ import annotations

from typing import Any, Final

from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from drivers.blocks import Block
from drivers.errors import WrongAnswer, device_exception

REQUESTS: Final[dict[int, type[ModbusPDU]]] = {
    1: ReadCoilsRequest,
    2: ReadDiscreteInputsRequest,
    3: ReadHoldingRegistersRequest,
    4: ReadInputRegistersRequest,
}


class _Lean(ModbusPDU):
    """An answer kept as the bytes that came; pymodbus would make a Python list of every register."""

    rtu_byte_count_pos = 2
    body: bytes = b""

    def decode(self, data: bytes) -> None:
        """Keep byte count and payload as they are."""
        self.body = bytes(data)

    def encode(self) -> bytes:
        """Return the body as it came."""
        return self.body

    def __str__(self) -> str:
        """Return a constant: pymodbus builds this text for every answer, logging or not."""
        return "answer"


class LeanCoils(_Lean):
    """Answer of function 1."""

    function_code = 1


class LeanDiscrete(_Lean):
    """Answer of function 2."""

    function_code = 2


class LeanHolding(_Lean):
    """Answer of function 3."""

    function_code = 3


class LeanInput(_Lean):
    """Answer of function 4."""

    function_code = 4


LEAN: Final = (LeanCoils, LeanDiscrete, LeanHolding, LeanInput)


def request(unit: int, block: Block) -> ModbusPDU:
    """Return the request PDU of a block; only read functions exist here, so nothing else can leave."""
    return REQUESTS[block.function](address=block.start, count=block.count, dev_id=unit)


def prove(answer: Any, unit: int, block: Block) -> bytes:
    """Return the payload of an answer that provably belongs to the request.

    Raises DeviceException for a Modbus exception of this unit and function, WrongAnswer for everything else.
    """
    if answer.dev_id != unit:
        raise WrongAnswer(f"asked unit {unit}, unit {answer.dev_id} answered")
    if answer.isError():
        if answer.function_code != block.function | 0x80:
            raise WrongAnswer(f"asked function {block.function}, got an exception to {answer.function_code & 0x7F}")
        raise device_exception(answer.exception_code)
    if answer.function_code != block.function or not isinstance(answer, _Lean):
        raise WrongAnswer(f"asked function {block.function}, got {answer.function_code}")
    body = answer.body
    if not body or body[0] != block.n_bytes or len(body) != block.n_bytes + 1:
        got = body[0] if body else 0
        raise WrongAnswer(f"asked {block.n_bytes} bytes, got a count of {got} and {max(len(body) - 1, 0)} bytes")
    return body[1:]
