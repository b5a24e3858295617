"""The RS-485 bus on a pseudo terminal: other people's clients, real line times, and paths that are not ours."""

import asyncio
import contextlib
import errno
import os
import shutil
import struct
import subprocess
import sys
import time

import pytest
from pymodbus.client import AsyncModbusSerialClient

from drivers.link import LinkSpec, SerialLine
from drivers.sim.fleet import Fleet
from drivers.sim.frames import line_time_s, rtu
from drivers.sim.server import SimError
from tests.drivers.sim.build import gauge, meter
from tests.drivers.sim.test_server import mbpoll, start
from tests.servers import until

POINTS = [gauge(f"x{i}", i, "uint16", function="input") for i in range(10)]
EVEN = SerialLine(19200, 8, "E", 1)


def bus(path, **more):
    return LinkSpec("bus0", "rtu", path=str(path), serial=EVEN, **more)


@pytest.fixture
async def stack():
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def client_of(stack, path):
    # Linux gives a pseudo terminal no parity bit, and glibc calls it an error to ask for one and nothing else.
    client = AsyncModbusSerialClient(str(path), baudrate=19200, parity="N", timeout=2, retries=0)
    stack.callback(client.close)
    assert await client.connect()
    return client


async def test_pymodbus_reads_two_units_of_one_bus(stack, tmp_path):
    link = bus(tmp_path / "tty0")
    await start(stack, meter("a", link, 1, POINTS), meter("b", link, 2, POINTS))
    client = await client_of(stack, link.path)
    for unit in (1, 2, 1):
        answer = await client.read_input_registers(0, count=10, device_id=unit)
        assert answer.registers == [100 * unit + i for i in range(10)]


@pytest.mark.skipif(not shutil.which("mbpoll"), reason="mbpoll is not installed")
async def test_mbpoll_reads_the_bus(stack, tmp_path):
    link = bus(tmp_path / "tty0")
    await start(stack, meter("a", link, 1, POINTS), meter("b", link, 2, POINTS))
    out = await mbpoll(
        "-m", "rtu", "-b", "19200", "-P", "even", "-a", "2", "-t", "3", "-0", "-r", "4", "-c", "3", link.path
    )
    assert [line.split() for line in out.splitlines() if line.startswith("[")] == [
        [f"[{i}]:", str(200 + i)] for i in (4, 5, 6)
    ]


async def test_an_absent_unit_a_broadcast_and_a_silent_device_are_silence(stack, tmp_path):
    link = bus(tmp_path / "tty0")
    fleet = await start(stack, meter("a", link, 1, POINTS), meter("b", link, 2, POINTS))
    fleet.silence("b")
    fd = os.open(link.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    stack.callback(os.close, fd)
    for unit in (0, 9, 2):
        os.write(fd, rtu(unit, struct.pack(">BHH", 4, 0, 1)))
        await asyncio.sleep(0.05)  # a bus tells its requests apart by silence
        with pytest.raises(BlockingIOError):
            os.read(fd, 100)
    os.write(fd, rtu(1, struct.pack(">BHH", 4, 0, 1)))
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, arrived.set)
    async with asyncio.timeout(2):
        await arrived.wait()
    asyncio.get_running_loop().remove_reader(fd)
    assert os.read(fd, 100) == rtu(1, b"\x04\x02\x00\x64")


async def test_a_paced_bus_takes_the_time_of_its_line(stack, tmp_path):
    link = bus(tmp_path / "tty0", turnaround_s=0.03)
    await start(stack, meter("a", link, 1, POINTS), is_paced=True)
    client = await client_of(stack, link.path)
    began = time.monotonic()
    for _ in range(5):
        assert not (await client.read_input_registers(0, count=10, device_id=1)).isError()
    took_s = (time.monotonic() - began) / 5
    wanted_s = 0.03 + line_time_s(EVEN, 8, 25)
    assert took_s >= wanted_s
    assert took_s < wanted_s + 0.1


async def test_the_link_is_there_while_it_serves_and_gone_after(tmp_path):
    path = tmp_path / "tty0"
    async with Fleet([meter("a", bus(path), 1, POINTS)]):
        assert path.is_symlink()
        assert str(path.readlink()).startswith("/dev/pts/")
    assert not path.is_symlink()


async def test_a_link_left_by_a_killed_simulation_is_replaced(tmp_path):
    path = tmp_path / "tty0"
    path.symlink_to("/dev/pts/9999")
    async with Fleet([meter("a", bus(path), 1, POINTS)]):
        assert str(path.readlink()) != "/dev/pts/9999"


async def test_a_second_simulation_on_one_path_refuses_and_leaves_the_first_alone(stack, tmp_path):
    link = bus(tmp_path / "tty0")
    await start(stack, meter("a", link, 1, POINTS))
    (tmp_path / "alias").symlink_to(tmp_path)
    for path in (tmp_path / "tty0", tmp_path / "alias" / "tty0"):
        with pytest.raises(SimError, match=rf"link 'bus0': {path} is served by another simulation, wanted a free path"):
            async with Fleet([meter("b", bus(path), 1, POINTS)]):
                pytest.fail("opened")
    client = await client_of(stack, link.path)
    assert (await client.read_input_registers(3, count=1, device_id=1)).registers == [103]
    await stack.aclose()
    async with Fleet([meter("b", link, 1, POINTS)]):
        assert list(tmp_path.glob("tty0*")) == [tmp_path / "tty0"]


async def test_after_a_kill_the_next_simulation_starts(tmp_path):
    path = tmp_path / "tty0"
    code = (
        "import asyncio, sys\n"
        "from tests.drivers.sim.test_bus import POINTS, bus, meter\n"
        "from drivers.sim.fleet import serve\n"
        "asyncio.run(serve([meter('a', bus(sys.argv[1]), 1, POINTS)], ready=lambda _: print('ready', flush=True)))"
    )
    first = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(path), stdout=subprocess.PIPE)
    assert await first.stdout.readline() == b"ready\n"
    with pytest.raises(SimError, match="is served by another simulation"):
        async with Fleet([meter("a", bus(path), 1, POINTS)]):
            pytest.fail("opened")
    first.kill()
    await first.wait()
    assert path.is_symlink()
    async with Fleet([meter("a", bus(path), 1, POINTS)]) as fleet, contextlib.AsyncExitStack() as stack:
        fleet.set_value("a", "x3", 7.0)
        client = await client_of(stack, path)
        assert (await client.read_input_registers(3, count=1, device_id=1)).registers == [7]


async def test_a_machine_without_free_terminals_is_told(tmp_path, monkeypatch):
    def none_left():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "openpty", none_left)
    with pytest.raises(SimError, match=r"link 'bus0': cannot link .*tty0: No space left on device"):
        async with Fleet([meter("a", bus(tmp_path / "tty0"), 1, POINTS)]):
            pytest.fail("opened")


async def test_a_link_that_another_simulation_took_over_is_left_to_it(tmp_path):
    path = tmp_path / "tty0"
    async with Fleet([meter("a", bus(path), 1, POINTS)]):
        path.unlink()
        path.symlink_to("/dev/pts/9999")
    assert str(path.readlink()) == "/dev/pts/9999"


def _file(path):
    path.write_text("precious")


def _folder(path):
    path.mkdir()


def _udev(path):
    path.symlink_to("/dev/null")  # as /dev/serial/by-id/... -> ../../ttyUSB0


def _relative(path):
    path.symlink_to("../../ttyUSB0")


@pytest.mark.parametrize("make", [_file, _folder, _udev, _relative])
async def test_what_is_not_ours_is_refused_and_not_touched(tmp_path, make):
    path = tmp_path / "tty0"
    make(path)
    before = path.lstat()
    with pytest.raises(SimError, match=r"link 'bus0': .*is not touched"):
        async with Fleet([meter("a", bus(path), 1, POINTS)]):
            pytest.fail("opened")
    after = path.lstat()
    assert (before.st_ino, before.st_mode, before.st_mtime_ns) == (after.st_ino, after.st_mode, after.st_mtime_ns)


async def test_a_real_device_is_refused():
    with pytest.raises(SimError, match="/dev/null is a real device"):
        async with Fleet([meter("a", bus("/dev/null"), 1, POINTS)]):
            pytest.fail("opened")


async def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(SimError, match=r"folder .* does not exist"):
        async with Fleet([meter("a", bus(tmp_path / "no" / "tty0"), 1, POINTS)]):
            pytest.fail("opened")


async def test_unplugged_and_plugged_in_again(stack, tmp_path):
    link = bus(tmp_path / "tty0")
    fleet = await start(stack, meter("a", link, 1, POINTS))
    await fleet.cut("bus0")
    assert not (tmp_path / "tty0").is_symlink()
    await fleet.restore("bus0")
    client = await client_of(stack, link.path)
    assert (await client.read_input_registers(3, count=1, device_id=1)).registers == [103]


async def test_nobody_reads_the_line_and_the_bus_lives_on(stack, tmp_path):
    link = bus(tmp_path / "tty0")
    fleet = await start(stack, meter("a", link, 1, POINTS))
    fd = os.open(link.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    stack.callback(os.close, fd)
    request = rtu(1, struct.pack(">BHH", 4, 0, 10))
    for n in range(1, 1001):
        os.write(fd, request)
        await until(lambda n=n: fleet.statistics()["requests"]["a"] >= n, every_s=0)
    got = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            got += os.read(fd, 65536)
    assert 0 < len(got) < 25 * 1000
