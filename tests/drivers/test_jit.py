"""The compiler's memory goes back to the system, and the compiler still works."""

import subprocess
import sys

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
