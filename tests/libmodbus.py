"""A Modbus TCP server made with libmodbus, so that our gateway meets another project's server.

As a program: `python tests/libmodbus.py REGISTER...` serves these holding registers from address 0 as unit 1, and
prints its port.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def library() -> str | None:
    """Return the name of the shared library, None if it is not installed."""
    return ctypes.util.find_library("modbus")


@contextmanager
def served(registers: list[int]) -> Iterator[int]:
    """Serve holding registers in a process of their own; yields the port."""
    command = [sys.executable, __file__, *map(str, registers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline())
        finally:
            child.kill()


class _Mapping(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("nb_bits", "start_bits", "nb_input_bits", "start_input_bits")),
        *(
            (name, ctypes.c_int)
            for name in ("nb_input_registers", "start_input_registers", "nb_registers", "start_registers")
        ),
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("tab_registers", ctypes.POINTER(ctypes.c_uint16)),
    ]


def serve(registers: list[int]) -> None:
    """Answer for ever; never returns."""
    modbus = ctypes.CDLL(library())
    modbus.modbus_new_tcp.restype = ctypes.c_void_p
    modbus.modbus_mapping_new.restype = ctypes.POINTER(_Mapping)
    context = ctypes.c_void_p(modbus.modbus_new_tcp(b"127.0.0.1", 0))
    mapping = modbus.modbus_mapping_new(0, 0, len(registers), 0)
    for i, word in enumerate(registers):
        mapping.contents.tab_registers[i] = word
    listener = modbus.modbus_tcp_listen(context, 8)
    bound = socket.socket(fileno=listener)  # kept: closing it would close the listener
    print(bound.getsockname()[1], flush=True)
    query = (ctypes.c_uint8 * 260)()
    while True:
        modbus.modbus_tcp_accept(context, ctypes.byref(ctypes.c_int(listener)))
        while (n := modbus.modbus_receive(context, query)) >= 0:
            if n > 0:
                modbus.modbus_reply(context, query, n, mapping)


if __name__ == "__main__":
    serve([int(word) for word in sys.argv[1:]])
