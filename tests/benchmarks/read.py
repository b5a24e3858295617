"""read: requests over one loopback connection, beside pymodbus as shipped."""

from __future__ import annotations

import asyncio
import time

from pymodbus.client import AsyncModbusTcpClient

from drivers.blocks import Block
from drivers.link import LinkSpec
from drivers.modbus import open_link
from tests.benchmarks import rig

REGISTERS = 100
ROUNDS = 5


def measure(*, seconds: float = 1.0) -> dict[str, float]:
    """Return requests per second and processor time per request of 100 registers, ours and as shipped."""
    return asyncio.run(_measure(seconds))


async def _measure(seconds: float) -> dict[str, float]:
    block = Block(3, 0, REGISTERS)
    with rig.meters(2) as ports:
        link = open_link(LinkSpec("l0", "tcp", "127.0.0.1", ports[0]))
        shipped = AsyncModbusTcpClient("127.0.0.1", port=ports[1])
        await shipped.connect()

        async def ours() -> dict[str, float]:
            n, began, cpu = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - began < seconds:
                await link.read(1, block)
                n += 1
            return _rates(n, began, cpu)

        async def peer() -> dict[str, float]:
            n, began, cpu = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - began < seconds:
                await shipped.read_holding_registers(0, count=REGISTERS, device_id=1)
                n += 1
            return _rates(n, began, cpu)

        found = await rig.async_medians({"ours": ours, "peer": peer}, ROUNDS)
        await link.close()
        shipped.close()
    a, b = found["ours"], found["peer"]
    return {
        "requests_per_s": a["requests_per_s"],
        "cpu_us_per_request": a["cpu_us_per_request"],
        "pymodbus_requests_per_s": b["requests_per_s"],
        "pymodbus_cpu_us_per_request": b["cpu_us_per_request"],
        "ratio_requests_per_s": a["requests_per_s"] / b["requests_per_s"],
        "ratio_cpu": a["cpu_us_per_request"] / b["cpu_us_per_request"],
    }


def _rates(n: int, began: float, cpu: float) -> dict[str, float]:
    return {
        "requests_per_s": n / (time.perf_counter() - began),
        "cpu_us_per_request": 1e6 * (time.process_time() - cpu) / n,
    }
