"""The servers, spoken to in raw bytes and by other people's clients."""

import asyncio
import contextlib
import shutil
import ssl
import struct
import subprocess

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType

from drivers.link import LinkSpec
from drivers.sim.fleet import Fleet
from drivers.sim.frames import crc16, rtu
from drivers.sim.server import ServerTls, SimError
from tests.drivers.sim.build import connect, gauge, meter, tcp

POINTS = [gauge(f"x{i}", 2 * i) for i in range(8)]


def read(start, count, function=3):
    return struct.pack(">BHH", function, start, count)


async def start(stack, *specs, **settings):
    fleet = await stack.enter_async_context(Fleet(specs, **settings))
    for spec in specs:
        for i, point in enumerate(spec.points):
            if not point.is_text:
                fleet.set_value(spec.name, point.name, 100.0 * spec.unit + i)
    return fleet


@pytest.fixture
async def stack():
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def test_requests_in_one_segment_are_answered_in_order(stack):
    link = tcp()
    fleet = await start(stack, meter("a", link, 1, POINTS), meter("b", link, 2, POINTS))
    client = await stack.enter_async_context(connect(fleet.ports[link.name]))
    asked = [(1, 0), (2, 4), (1, 2), (9, 0), (2, 0)]
    client.writer.write(b"".join(client.request(unit, read(at, 2)) for unit, at in asked))
    answers = [await client.answer() for _ in asked]
    assert [transaction for transaction, _, _ in answers] == [1, 2, 3, 4, 5]
    assert [unit for _, unit, _ in answers] == [1, 2, 1, 9, 2]
    numbers = [struct.unpack(">f", pdu[2:])[0] if pdu[0] == 3 else pdu for _, _, pdu in answers]
    assert numbers == [100.0, 202.0, 101.0, b"\x83\x0b", 200.0]


async def test_a_request_may_come_byte_by_byte(stack):
    spec = meter(points=POINTS)
    fleet = await start(stack, spec)
    client = await stack.enter_async_context(connect(fleet.ports[spec.link.name]))
    for byte in client.request(1, read(0, 2)):
        client.writer.write(bytes((byte,)))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.answer())[2] == b"\x03\x04" + struct.pack(">f", 100.0)


async def test_exceptions_on_the_wire(stack):
    spec = meter(points=POINTS, max_registers=10)
    fleet = await start(stack, spec)
    client = await stack.enter_async_context(connect(fleet.ports[spec.link.name]))
    assert await client.ask(1, read(15, 2)) == b"\x83\x02"
    assert await client.ask(1, read(0, 12)) == b"\x83\x03"
    assert await client.ask(1, b"\x06\x00\x00\x00\x01") == b"\x86\x01"
    assert await client.ask(7, read(0, 2)) == b"\x83\x0b"
    assert fleet.statistics()["requests"] == {"m1": 3}
    assert fleet.statistics()["exceptions"] == {"m1": 3}


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">HHHB", 1, 0, 1, 1), struct.pack(">HHHB", 1, 0, 300, 1)]
)
async def test_what_is_not_modbus_is_hung_up_on_and_others_go_on(stack, junk):
    spec = meter(points=POINTS)
    fleet = await start(stack, spec)
    bad = await stack.enter_async_context(connect(fleet.ports[spec.link.name]))
    good = await stack.enter_async_context(connect(fleet.ports[spec.link.name]))
    bad.writer.write(junk)
    async with asyncio.timeout(2):
        assert await bad.reader.read() == b""
    assert await good.ask(1, read(0, 2)) == b"\x03\x04" + struct.pack(">f", 100.0)


async def test_several_clients_are_served_side_by_side(stack):
    spec = meter(points=POINTS)
    fleet = await start(stack, spec)
    clients = [await stack.enter_async_context(connect(fleet.ports[spec.link.name])) for _ in range(10)]
    answers = await asyncio.gather(*(client.ask(1, read(2 * i % 16, 2)) for i, client in enumerate(clients)))
    assert [struct.unpack(">f", pdu[2:])[0] for pdu in answers] == [100.0 + i % 8 for i in range(10)]


async def test_rtu_over_tcp_pipelined_split_and_with_an_absent_unit(stack):
    link = tcp(transport="rtu+tcp")
    fleet = await start(stack, meter("a", link, 1, POINTS), meter("b", link, 2, POINTS))
    client = await stack.enter_async_context(connect(fleet.ports[link.name]))
    stream = rtu(1, read(0, 2)) + rtu(5, read(0, 2)) + rtu(0, read(0, 2)) + rtu(2, read(2, 2))
    client.writer.write(stream[:5])
    await client.writer.drain()
    client.writer.write(stream[5:])
    async with asyncio.timeout(2):
        got = await client.reader.readexactly(18)
    assert got == rtu(1, b"\x03\x04" + struct.pack(">f", 100.0)) + rtu(2, b"\x03\x04" + struct.pack(">f", 201.0))


async def test_rtu_over_tcp_knows_an_unknown_function_by_the_silence(stack):
    spec = meter("a", tcp(transport="rtu+tcp"), 1, POINTS)
    fleet = await start(stack, spec)
    client = await stack.enter_async_context(connect(fleet.ports[spec.link.name]))
    client.writer.write(rtu(1, b"\x2b\x0e\x01\x00"))
    async with asyncio.timeout(2):
        assert await client.reader.readexactly(5) == rtu(1, b"\xab\x01")


async def test_a_broken_checksum_is_not_answered(stack):
    spec = meter("a", tcp(transport="rtu+tcp"), 1, POINTS)
    fleet = await start(stack, spec)
    client = await stack.enter_async_context(connect(fleet.ports[spec.link.name]))
    frame = rtu(1, read(0, 2))
    client.writer.write(frame[:-1] + bytes((frame[-1] ^ 1,)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.reader.read(1)
    client.writer.write(frame)
    async with asyncio.timeout(2):
        assert crc16(await client.reader.readexactly(9)) == 0
    assert fleet.statistics()["requests"] == {"a": 1}


@pytest.mark.parametrize(("transport", "framer"), [("tcp", FramerType.SOCKET), ("rtu+tcp", FramerType.RTU)])
async def test_pymodbus_reads_what_was_pinned(stack, transport, framer):
    spec = meter("a", tcp(transport=transport), 4, POINTS)
    fleet = await start(stack, spec)
    client = AsyncModbusTcpClient("127.0.0.1", port=fleet.ports[spec.link.name], framer=framer, timeout=2, retries=0)
    stack.callback(client.close)
    assert await client.connect()
    answer = await client.read_holding_registers(0, count=16, device_id=4)
    numbers = client.convert_from_registers(answer.registers, client.DATATYPE.FLOAT32)
    assert numbers == [400.0 + i for i in range(8)]


@pytest.mark.skipif(not shutil.which("mbpoll"), reason="mbpoll is not installed")
async def test_mbpoll_reads_what_was_pinned(stack):
    spec = meter("a", unit=3, points=[gauge(f"x{i}", 10 + i, "uint16", function="input") for i in range(5)])
    fleet = await start(stack, spec)
    port = str(fleet.ports[spec.link.name])
    out = await mbpoll("-m", "tcp", "-p", port, "-a", "3", "-t", "3", "-0", "-r", "10", "-c", "5", "127.0.0.1")
    assert [line.split() for line in out.splitlines() if line.startswith("[")] == [
        [f"[{10 + i}]:", str(300 + i)] for i in range(5)
    ]


async def mbpoll(*arguments):
    process = await asyncio.create_subprocess_exec(
        "mbpoll", "-1", "-q", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(10):
        return (await process.communicate())[0].decode()


async def test_a_port_that_is_taken_is_told_with_all_other_errors(stack):
    other = await stack.enter_async_context(Fleet([meter("a", points=POINTS)]))
    port = next(iter(other.ports.values()))
    taken = [
        meter("b", LinkSpec("b", "tcp", "127.0.0.1", port), 1, POINTS),
        meter("c", tcp("sec", transport="tls"), 1, POINTS),
        meter("d", tcp("fine"), 1, POINTS),
    ]
    fleet = Fleet(taken)
    with pytest.raises(SimError) as caught:
        await stack.enter_async_context(fleet)
    assert caught.value.lines == [
        f"link 'b': cannot listen on 127.0.0.1:{port}: Address already in use",
        "link 'sec': tls wants a server certificate (cert_file and key_file), got none",
    ]
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        async with connect(fleet.ports["fine"]):
            pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


async def test_modbus_over_tls_with_a_client_certificate(stack, certificates):
    tls = ServerTls(certificates / "server.crt", certificates / "server.key", certificates / "client.crt")
    spec = meter("a", tcp(transport="tls"), 1, POINTS)
    fleet = await start(stack, spec, tls=tls)
    context = ssl.create_default_context(cafile=certificates / "server.crt")
    context.load_cert_chain(certificates / "client.crt", certificates / "client.key")
    client = await stack.enter_async_context(connect(fleet.ports[spec.link.name], ssl=context))
    assert await client.ask(1, read(0, 2)) == b"\x03\x04" + struct.pack(">f", 100.0)
    stranger = ssl.create_default_context(cafile=certificates / "server.crt")
    with pytest.raises((OSError, asyncio.IncompleteReadError, AssertionError)):
        async with connect(fleet.ports[spec.link.name], ssl=stranger) as other:
            await other.ask(1, read(0, 2))


async def test_an_unusable_certificate_is_told(tmp_path):
    (tmp_path / "x").write_text("no certificate")
    spec = meter("c", tcp("sec", transport="tls"), 1, POINTS)
    with pytest.raises(SimError, match=r"link 'sec': server certificate: "):
        async with Fleet([spec], tls=ServerTls(tmp_path / "x", tmp_path / "x")):
            pytest.fail("opened")
