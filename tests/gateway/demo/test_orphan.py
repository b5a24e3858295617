"""Children of a demo that is killed."""

import asyncio
import socket
import subprocess
import sys
from urllib.parse import urlsplit

from tests.servers import program, until

PARENT = """
import subprocess, sys
from gateway.demo.orphan import end_with_parent
child = "import sys; print('up', flush=True); sys.stdin.read()"
subprocess.Popen([sys.executable, "-c", child], preexec_fn=end_with_parent(), start_new_session=True).wait()
"""


def test_a_child_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    assert parent.stdout.read() == "", "the pipe ends when the last process that holds it has ended"
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()


BROKER = """
import asyncio, pathlib, sys
from gateway.demo.broker import broker
async def main():
    async with broker(pathlib.Path(sys.argv[1])) as (url, what):
        print(what, url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_mosquitto_ends_when_the_demo_is_killed(tmp_path, monkeypatch):
    program("mosquitto", "/usr/sbin/mosquitto")
    monkeypatch.delenv("CORRIDOR_DEMO_BROKER", raising=False)
    arguments = (sys.executable, "-c", BROKER, str(tmp_path))
    demo = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
    assert demo.stdout
    what, url = (await demo.stdout.readline()).decode().split()
    assert what == "mosquitto"
    demo.kill()
    await demo.wait()

    def is_gone():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", urlsplit(url).port)) != 0

    await until(is_gone)
