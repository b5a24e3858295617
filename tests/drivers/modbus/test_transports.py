"""Every transport against the simulated meters: TCP, TLS, RTU over TCP, RTU on a pty."""

import pytest

from drivers import quality
from drivers.blocks import Block
from drivers.decode import decode_text
from drivers.errors import IllegalAddress, LinkDown, NoAnswer
from drivers.link import LinkSpec, SerialLine
from drivers.modbus import open_link
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import Fleet
from drivers.sim.server import ServerTls
from tests import certificates

POINTS = (
    Point("a", "holding", 0, "float32", unit="bar"),
    Point("b", "holding", 2, "uint16", scale=0.1, unit="V"),
    Point("serial", "holding", 100, "string8"),
)


def meter(name, link, unit):
    return MeterSpec(name=name, link=link, unit=unit, profile="", points=POINTS)


def over(link, fleet):
    """Return the link with the port that the simulator got."""
    from dataclasses import replace

    return replace(link, port=fleet.ports[link.name]) if link.name in fleet.ports else link


@pytest.fixture(params=["tcp", "tls", "rtu+tcp", "rtu"])
def world(request, tmp_path):
    """Return (link specification, server's TLS) of one transport."""
    if request.param == "rtu":
        return LinkSpec("bus0", "rtu", path=str(tmp_path / "tty"), serial=SerialLine(115200), timeout_s=0.5), None
    if request.param == "tls":
        authority = certificates.authority(tmp_path / "ca")
        cert, key = authority.issue("meter")
        own_cert, own_key = authority.issue("gw1")
        link = LinkSpec(
            "skid", "tls", "127.0.0.1", 0, timeout_s=2.0, ca_file=authority.ca, cert_file=own_cert, key_file=own_key
        )
        return link, ServerTls(cert, key, authority.ca)
    return LinkSpec("skid", request.param, "127.0.0.1", 0, timeout_s=0.5), None


async def test_two_units_of_one_link_answer_for_themselves(world):
    link, tls = world
    async with Fleet([meter("m1", link, 1), meter("m2", link, 2)], seed=1, tls=tls) as fleet:
        for name, value in (("m1", 100.1), ("m2", 200.2)):
            fleet.set_value(name, "b", value)
        one = open_link(over(link, fleet))
        try:
            for _ in range(5):
                assert await one.read(1, Block(3, 2, 1)) == (1001).to_bytes(2, "big")
                assert await one.read(2, Block(3, 2, 1)) == (2002).to_bytes(2, "big")
            assert decode_text(POINTS[2], await one.read(1, Block(3, 100, 4)))
            with pytest.raises(IllegalAddress):
                await one.read(1, Block(3, 50, 2))
            assert one.counters.timeouts == 0
        finally:
            await one.close()


async def test_silence_then_speech_never_mixes_answers(world):
    link, tls = world
    async with Fleet([meter("m1", link, 1), meter("m2", link, 2)], seed=1, tls=tls) as fleet:
        fleet.set_value("m1", "b", 11.1)
        fleet.set_value("m2", "b", 22.2)
        one = open_link(over(link, fleet))
        try:
            assert await one.read(1, Block(3, 2, 1)) == (111).to_bytes(2, "big")
            fleet.silence("m1")
            with pytest.raises(NoAnswer) as caught:
                await one.read(1, Block(3, 2, 1))
            assert caught.value.quality == quality.BAD_TIMEOUT
            assert await one.read(2, Block(3, 2, 1)) == (222).to_bytes(2, "big")
            fleet.wake("m1")
            assert await one.read(1, Block(3, 2, 1)) == (111).to_bytes(2, "big")
        finally:
            await one.close()


async def test_a_tls_meter_of_another_authority_is_not_read(tmp_path):
    authority, other = certificates.authority(tmp_path / "ca"), certificates.authority(tmp_path / "other")
    cert, key = other.issue("meter")
    link = LinkSpec("skid", "tls", "127.0.0.1", 0, timeout_s=1.0, ca_file=authority.ca)
    async with Fleet([meter("m1", link, 1)], seed=1, tls=ServerTls(cert, key)) as fleet:
        one = open_link(over(link, fleet))
        with pytest.raises(LinkDown):
            await one.read(1, Block(3, 2, 1))
        await one.close()


async def test_parity_of_a_real_line_does_not_keep_a_pty_from_opening(tmp_path):
    line = SerialLine(19200, 8, "E", 1)
    link = LinkSpec("bus0", "rtu", path=str(tmp_path / "tty"), serial=line, timeout_s=0.5)
    async with Fleet([meter("m1", link, 1)], seed=1) as fleet:
        fleet.set_value("m1", "b", 33.3)
        one = open_link(link)
        for _ in range(3):
            assert await one.read(1, Block(3, 2, 1)) == (333).to_bytes(2, "big")
            await one.close()
            one._next_dial_s = 0.0  # dialling again at once is what shows it
        await one.close()
