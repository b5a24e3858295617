"""decode: registers to values, batched over devices, beside one struct per block and pymodbus' own conversion."""

from __future__ import annotations

import math
import random
import struct

import numpy as np
from pymodbus.client.mixin import ModbusClientMixin

from drivers.decode import Scratch, decode
from drivers.quality import BAD
from tests.benchmarks import rig


def measure(*, n_devices: int = 100, n_values: int = 62, seconds: float = 0.4, n_rounds: int = 5) -> dict[str, float]:
    """Return the time per float32 value, scaled by 0.1, with quality; the peers know no quality."""
    table = rig.table(n_devices, n_values, "float32", scale=0.1)
    rng = random.Random(43)
    blocks = [struct.pack(f">{n_values}f", *(rng.uniform(0, 1e4) for _ in range(n_values))) for _ in range(n_devices)]
    image = np.frombuffer(b"".join(blocks), np.uint8).copy()
    good = np.zeros(table.n, np.uint32)
    value, quality = np.full(table.n, math.nan), np.zeros(table.n, np.uint32)
    c, s = table.decode, Scratch()
    everything, one = np.arange(n_devices, dtype=np.int32), np.zeros(1, np.int32)

    def kernel(ready: np.ndarray) -> None:
        decode(
            ready, table.scan_start, table.scan_stop, image, good,
            c.at, c.code, c.size, c.order, c.bit,
            c.scale, c.divisor, c.offset, c.low, c.high, c.sentinel, c.first,
            s.u8, s.i8, s.f8, s.u4, s.f4, value, quality,
        )  # fmt: skip

    layout = struct.Struct(f">{n_values}f")
    registers = [list(struct.unpack(f">{2 * n_values}H", block)) for block in blocks]
    convert, kind = ModbusClientMixin.convert_from_registers, ModbusClientMixin.DATATYPE.FLOAT32

    def by_struct() -> list[float]:
        return [raw / 10.0 for raw in layout.unpack(blocks[0])]

    def by_pymodbus() -> list[float]:
        return [raw / 10.0 for raw in convert(registers[0], kind)]  # type: ignore[union-attr]

    kernel(everything)
    assert not (quality & BAD).any()
    assert value[:n_values].tolist() == by_struct() == by_pymodbus()
    found = rig.medians(
        {
            "batched": lambda: rig.ns_per_call(lambda: kernel(everything), seconds) / table.n,
            "single": lambda: rig.ns_per_call(lambda: kernel(one), seconds) / n_values,
            "struct": lambda: rig.ns_per_call(by_struct, seconds) / n_values,
            "pymodbus": lambda: rig.ns_per_call(by_pymodbus, seconds) / n_values,
        },
        n_rounds,
    )
    return {
        "ns_per_value": found["batched"],
        "one_frame_per_call_ns_per_value": found["single"],
        "struct_ns_per_value": found["struct"],
        "pymodbus_ns_per_value": found["pymodbus"],
        "ratio_struct": found["batched"] / found["struct"],
        "ratio_pymodbus": found["batched"] / found["pymodbus"],
    }
