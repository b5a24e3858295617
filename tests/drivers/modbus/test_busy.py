"""A bus is taken for as long as the plan says that its reads take."""

import asyncio

import pytest

from drivers.blocks import Block
from drivers.link import LinkSpec, SerialLine
from drivers.modbus.link import ModbusLink
from drivers.modbus.serial import crc
from drivers.sim.frames import line_time_s, rtu
from gateway.acquire.cost import cost_of
from gateway.replay import virtual


class Line:
    """A device and its line: answers as late as a real one."""

    def __init__(self, spec, stream):
        self.spec, self.stream = spec, stream

    def write(self, data):
        n_bytes = 2 * data[5]
        answer = rtu(data[0], bytes((data[1], n_bytes)) + bytes(n_bytes))
        pace_s = self.spec.turnaround_s + line_time_s(self.spec.serial, len(data), len(answer))
        asyncio.get_running_loop().call_later(pace_s, self.stream.data_received, answer)

    def abort(self):
        pass


@pytest.mark.parametrize("baudrate", [1200, 9600])
@pytest.mark.parametrize("count", [1, 40])
def test_a_read_takes_the_bus_for_what_it_costs_in_the_plan(baudrate, count):
    spec = LinkSpec("bus0", "rtu", path="/dev/none", serial=SerialLine(baudrate, parity="E"))

    async def busy_s():
        async def dial(make):
            stream = make()
            stream.connection_made(Line(spec, stream))
            return stream

        link = ModbusLink(spec, dial, crc)
        for unit in range(1, 11):
            await link.read(unit, Block(3, 0, count))
        await link.close()
        return link.counters.busy_s / 10

    assert virtual.run(busy_s()) == pytest.approx(cost_of(spec).read_s(Block(3, 0, count)), rel=1e-6)
