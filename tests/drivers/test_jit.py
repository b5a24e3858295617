"""The compiler's memory goes back to the system, and the compiler still works."""

import subprocess
import sys

import numba
import numpy as np
import pytest

from drivers.jit import kernel

SCRIPT = """
from pathlib import Path
import numpy as np
from drivers import jit
from drivers.jit import kernel

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

@kernel("f8(f8)")
def half(x):
    return x / 2

@kernel("f8(f8)")
def quarter(x):
    return half(x) / 2

assert half(3.0) == 1.5
before = resident()
freed = jit.release()
after = resident()
assert quarter(3.0) == 0.75  # compiled after its pages were handed back
print(freed, before - after)
"""


def test_the_compilers_pages_are_handed_back_and_it_still_compiles(tmp_path):
    script = tmp_path / "compile.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    freed, less_kib = map(int, done.stdout.split())
    assert freed > 10_000_000
    assert less_kib > 10_000


def test_a_kernel_that_allocates_does_not_compile():
    @kernel("f8(i8)")
    def of_its_own(n):
        return np.zeros(n)[0]

    @kernel("f8[::1](f8[::1])")
    def as_a_result(x):
        return x + 1.0

    for wasteful in (of_its_own, as_a_result):
        with pytest.raises(numba.core.errors.TypingError):
            wasteful.load()


KEPT = """
import sys

import pytest
sys.path.insert(0, {folder!r})
from drivers import jit
from kernels import nothing, one, twice
compiled = []
with jit.on_compile(lambda: compiled.append(1)):
    result = twice(3.0) + nothing(7.0) * one(2.0)
print(result, len(compiled))
"""
KERNELS = """
from drivers.jit import kernel
from other import FACTOR, add
@kernel("f8(f8)")
def twice(x):
    return FACTOR * add(x, 0.0)
@kernel("f8(f8)")
def nothing(x):
    return x - x
@kernel("f8(f8)")
def one(x):
    return x / x
"""
OTHER = """
from drivers.jit import kernel
FACTOR = 2.0
@kernel("f8(f8, f8)")
def add(x, y):
    return x + y
"""


@pytest.fixture
def kept(tmp_path):
    """Return a function that runs the kernel in a process of its own: what it gave, and whether it was compiled."""
    (tmp_path / "kernels.py").write_text(KERNELS)
    (tmp_path / "other.py").write_text(OTHER)

    def run():
        done = subprocess.run(
            [sys.executable, "-B", "-c", KEPT.format(folder=str(tmp_path))],  # bytecode knows no edit within a second
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path), "XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        result, compiled = done.stdout.split()
        return float(result), bool(int(compiled))

    run.folder = tmp_path
    assert run() == (6.0, True)
    return run


def wreck(path, how):
    data = path.read_bytes()
    if how == "empty":  # what a power cut leaves of a file that was renamed and not synced
        path.write_bytes(b"")
    elif how == "torn":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        path.write_bytes(bytes(b ^ (0x10 if i > 400 and i % 97 == 0 else 0) for i, b in enumerate(data)))
    else:
        path.unlink()


def test_a_broken_cache_is_rebuilt_and_never_believed(kept):
    assert kept() == (6.0, False)
    for how in ("empty", "torn", "flipped", "gone"):
        for each, suffix in (("twice", "nbi"), ("nothing", "nbc"), ("one", "seal")):
            [path] = (kept.folder / "corridor").rglob(f"kernels.{each}-*.{suffix}")
            wreck(path, how)
        assert kept() == (6.0, True), how
    assert kept() == (6.0, False)


def test_what_a_kernel_takes_from_other_files_is_part_of_what_was_compiled(kept):
    """numba looks at the file of a kernel only, and would go on with the old constant or the old function."""
    (kept.folder / "other.py").write_text(OTHER.replace("FACTOR = 2.0", "FACTOR = 5.0"))
    assert kept() == (15.0, True)
    (kept.folder / "other.py").write_text(OTHER.replace("x + y", "x - y + 1.0"))
    assert kept() == (8.0, True)
    assert kept() == (8.0, False)


def test_a_cache_that_nobody_may_write_is_no_reason_not_to_run(kept):
    seals = list((kept.folder / "corridor").rglob("*.seal"))
    for seal in seals:
        seal.write_text("of another time\n")
        seal.parent.chmod(0o500)
    try:
        assert kept()[0] == 6.0
    finally:
        for seal in seals:
            seal.parent.chmod(0o700)
