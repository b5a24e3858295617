"""Kernels ahead of time: what is said while they are compiled, and where they cannot be kept."""

import asyncio
import errno
import importlib
import itertools
import os
import signal
import sys
import threading
from dataclasses import replace

import numba
import pytest

from drivers.link import LinkSpec
from drivers.points import Point
from drivers.sim.device import MeterSpec
from drivers.sim.fleet import Fleet
from gateway import cli, warm
from gateway.acquire.plan import plan
from gateway.detect.keep import Learnt
from gateway.model.config import load_gateway
from gateway.spool.verify import verify
from tests.gateway import build

POINTS = (Point("a", "holding", 0, "uint16"), Point("b", "holding", 1, "uint16"))
CONFIG = """
[gateway]
id = "gw1"
corridor = "c"
site = "s"
[mqtt]
url = "mqtt://127.0.0.1:1"
[[link]]
name = "l1"
url = "tcp://127.0.0.1:{port}"
[[device]]
name = "d1"
link = "l1"
unit = 1
period_s = 0.05
point = [
  {{name = "a", function = "holding", address = 0, type = "uint16"}},
  {{name = "b", function = "holding", address = 1, type = "uint16"}},
]
"""

MODULE = """
from drivers.jit import kernel

@kernel("f8(f8)")
def half(x):
    return x / 2

@kernel("f8(f8)")
def twice(x):
    return x * 2
"""


@pytest.fixture
def cold(tmp_path, monkeypatch):
    """Return a function that starts anew with a module of kernels, which nothing has compiled before."""
    warm.compile_missing(str, warm.KERNELS)  # ours are not what is cold
    (tmp_path / "cold_kernels.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))  # numba reads it again when it likes
    numba.config.reload_config()
    monkeypatch.setattr(warm, "KERNELS", ("colorsys", "cold_kernels"))

    def start():
        monkeypatch.delitem(sys.modules, "cold_kernels", raising=False)

    start()
    yield start
    monkeypatch.undo()
    numba.config.reload_config()


def test_a_cold_cache_is_told_module_by_module_and_a_warm_one_is_not(cold):
    said = []
    warm.compile_missing(said.append, warm.KERNELS)
    assert said == ["compiling kernels, for this and later starts: 2/2: cold_kernels"]
    cold()
    warm.compile_missing(said.append, warm.KERNELS)
    assert len(said) == 1
    assert sys.modules["cold_kernels"].twice(2.0) == 4.0


async def test_a_gateway_reads_its_meters_while_kernels_are_compiled(cold, tmp_path, monkeypatch):
    """What was read before the pipeline stands is in the spool, from the first poll on."""
    from gateway import app

    said, compiled = [], threading.Event()

    def slow(say, modules):
        warm.compile_missing(say, modules)
        assert compiled.wait(20)

    monkeypatch.setattr(app, "compile_missing", slow)
    meter = MeterSpec("d1", LinkSpec("l1", "tcp", "127.0.0.1", 0), 1, "", POINTS)
    async with Fleet([meter], seed=1) as fleet:
        config = tmp_path / "gateway.toml"
        config.write_text(CONFIG.format(port=fleet.ports["l1"]))
        running = asyncio.ensure_future(app.main(plan(load_gateway(config)), tmp_path / "state", said.append))
        await eventually(lambda: fleet.statistics()["requests"]["d1"] >= 5)
        assert not (tmp_path / "state" / "spool" / "meta").exists()
        compiled.set()
        await eventually(lambda: verify(tmp_path / "state" / "spool")["frames"] >= 5)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
        asked = fleet.statistics()["requests"]["d1"]
    assert said == ["compiling kernels, for this and later starts: 2/2: cold_kernels"]
    found = verify(tmp_path / "state" / "spool")
    assert asked - 1 <= found["frames"] <= asked  # the last one may have been cut off


async def test_a_gateway_that_still_compiles_ends_at_once(tmp_path, monkeypatch):
    from gateway import app

    end = threading.Event()
    monkeypatch.setattr(app, "compile_missing", lambda *_: end.wait(60))
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG.format(port=1))
    running = asyncio.ensure_future(app.main(plan(load_gateway(config)), tmp_path / "state", str))
    try:
        await asyncio.sleep(0)  # until it takes signals
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(2):
            assert await running == 0
    finally:
        end.set()


@pytest.mark.parametrize("ends_early", [False, True])
async def test_while_the_detectors_are_loaded_frames_are_spooled_and_health_says_so(
    tmp_path, monkeypatch, caplog, ends_early
):
    from gateway import app

    loaded, heard = threading.Event(), []

    def slow(say, modules):
        warm.compile_missing(say, modules)
        assert "gateway.detect.rules" not in modules or loaded.wait(20)

    monkeypatch.setattr(app, "compile_missing", slow)
    monkeypatch.setattr(app.Gateway, "_deliver", lambda self: listen(self, heard))
    meter = MeterSpec("d1", LinkSpec("l1", "tcp", "127.0.0.1", 0), 1, "", POINTS)
    async with Fleet([meter], seed=1) as fleet:
        config = tmp_path / "gateway.toml"
        config.write_text(CONFIG.format(port=fleet.ports["l1"]))
        running = asyncio.ensure_future(app.main(plan(load_gateway(config)), tmp_path / "state", str))
        await eventually(lambda: (tmp_path / "state" / "spool").exists())
        await eventually(lambda: verify(tmp_path / "state" / "spool")["frames"] >= 5)
        assert heard[-1]["state"] == "loading"
        assert heard[-1]["waiting"] >= 5
        if ends_early:
            os.kill(os.getpid(), signal.SIGTERM)
            assert await running == 0
            loaded.set()
            assert "frames were not judged: told to end before the detectors were loaded" in caplog.text
            return
        loaded.set()
        await eventually(lambda: heard[-1] == {"state": "ready", "waiting": 0})
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0


async def listen(gateway, heard):
    """Stand in for the broker: hear what health would say."""
    while True:
        heard.append(gateway.health()["detectors"])
        await asyncio.sleep(0.01)


async def test_what_the_detectors_have_learnt_outlives_a_restart_and_a_broken_file(tmp_path, caplog):
    from gateway import app

    numbers = itertools.count()  # a spool is held until the process ends
    meter = MeterSpec("d1", LinkSpec("l1", "tcp", "127.0.0.1", 0), 1, "", POINTS)
    async with Fleet([meter], seed=1) as fleet:
        config = tmp_path / "gateway.toml"
        config.write_text(CONFIG.format(port=fleet.ports["l1"]))
        warm.compile_missing(str, warm.detectors(plan(load_gateway(config)).table))  # else they come too late

        async def run(learnt=None):
            found, state = plan(load_gateway(config)), tmp_path / f"state{next(numbers)}"
            if learnt is not None:
                state.mkdir()
                (state / app.LEARNT).write_bytes(learnt)
            running = asyncio.ensure_future(app.main(found, state, str))
            before = fleet.statistics()["requests"]["d1"]
            await eventually(lambda: fleet.statistics()["requests"]["d1"] >= before + 5)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await running == 0
            data = (state / app.LEARNT).read_bytes()
            kept = Learnt(found.table, data)
            assert kept.wrong == ""
            return data, kept.bank.rules.state()["seen"].max()

        learnt, first = await run()
        _, second = await run(learnt)
        assert second >= first + 4
        assert (await run(b"torn"))[1] < second
    assert caplog.text.count("begin anew") == 1


async def eventually(holds):
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_warm_tells_its_progress_and_where_kernels_are_kept(cold, tmp_path, capsys):
    assert cli.main(["warm"]) == 0
    first, second, last = capsys.readouterr().err.splitlines()
    assert (first, second) == ("kernels 1/2: colorsys", "kernels 2/2: cold_kernels")
    assert last.endswith(f"kept in {tmp_path / 'cache'}")
    assert list((tmp_path / "cache").glob("*/cold_kernels.half*.nbi"))


def test_warm_where_nothing_can_be_kept_is_a_line_and_1(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert cli.main(["warm"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'file' / 'cache'}: kernels cannot be kept: Not a directory; wanted a folder")


def test_warm_on_a_disk_that_fills_up_is_a_line_and_1(tmp_path, monkeypatch, capsys):
    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(importlib, "import_module", full)
    assert cli.main(["warm"]) == 1
    assert "kernels cannot be kept: No space left on device" in capsys.readouterr().err.splitlines()[-1]


def test_kernels_that_nobody_will_call_are_not_loaded():
    def modules(*points):
        return set(warm.needed(plan(build.gateway([build.device("d", [build.tag(p) for p in points])])).table))

    power = Point("power", "holding", 0, "float32")
    energy = Point("energy", "holding", 2, "float32", kind="counter")
    door = Point("door", "holding", 4, "uint16", kind="state")
    ours = set(warm.KERNELS) - set(warm.OF_REPLAY)
    assert ours - modules(power) == {"gateway.totals", "gateway.estimate", "gateway.detect.chatter"}
    assert ours - modules(power, energy) == {"gateway.estimate", "gateway.detect.chatter"}
    assert modules(power, replace(energy, rate="power", rate_s=3600.0), door) == ours
