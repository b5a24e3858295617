"""Kernels ahead of time: what is said while they are compiled, and where they cannot be kept."""

import errno
import importlib
import sys

import numba
import pytest

from gateway import cli, warm
from tests.gateway.model.test_config import GOOD

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
    warm.compile_missing(said.append)
    assert said == ["compiling kernels, for this and later starts: 2/2: cold_kernels"]
    cold()
    warm.compile_missing(said.append)
    assert len(said) == 1
    assert sys.modules["cold_kernels"].twice(2.0) == 4.0


def test_run_says_that_it_compiles_and_goes_on(cold, tmp_path, monkeypatch, capsys):
    from gateway import app

    async def main(plan, state):
        print(f"{plan.spec.id} runs", file=sys.stderr)
        return 0

    monkeypatch.setattr(app, "main", main)
    config = tmp_path / "gateway.toml"
    config.write_text(GOOD)
    assert cli.main(["run", str(config)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == ["compiling kernels, for this and later starts: 2/2: cold_kernels", "ps1-gw1 runs"]


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
