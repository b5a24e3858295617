"""The one way in which a kernel is compiled, and when: not on import, so that meters are read before it is loaded."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, Final, cast

COMPILER: Final = "libllvmlite"
MADV_DONTNEED: Final = 4  # madvise(2)


def cache_dir() -> Path:
    """Return the folder of compiled kernels: $CACHE_DIRECTORY, $XDG_CACHE_HOME/corridor or ~/.cache/corridor."""
    if own := os.environ.get("CACHE_DIRECTORY"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "corridor"
    return Path.home() / ".cache" / "corridor"


os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_dir()))  # numba reads this once, when it is imported

_OF_MODULE: dict[str, list[Kernel]] = {}


class Kernel:
    """A function that runs as machine code; `py_func` is the same function as Python interprets it.

    It is loaded from the disk, or compiled, by `load` or at its first call. Raises TypeError for other types than those
    of its signature.
    """

    def __init__(self, py_func: Callable[..., Any], signature: str, nogil: bool) -> None:
        self.py_func = py_func
        functools.update_wrapper(self, py_func)
        self._signature = signature
        self._nogil = nogil
        self._run: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        return (self._run or self.load())(*arguments)

    def load(self) -> Callable[..., Any]:
        """Return the compiled function, loaded or compiled now if it was not yet; kernels that it calls go first."""
        if self._run is None:
            import numba  # 0.3 s and 80 MB: not before somebody needs it

            plain = cast("FunctionType", self.py_func)
            names = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
            called = {name: found.load() for name, found in names.items() if isinstance(found, Kernel)}
            if called:
                plain = _with_globals(plain, called)
            self._run = cast(
                "Callable[..., Any]",
                numba.njit(self._signature, cache=True, error_model="numpy", fastmath=False, nogil=self._nogil)(plain),
            )
            world = cast("FunctionType", self.py_func).__globals__
            if world.get(self.py_func.__name__) is self:
                world[self.py_func.__name__] = self._run  # its own module calls it without the way through here
        return self._run


def _with_globals(plain: FunctionType, more: dict[str, Any]) -> FunctionType:
    """Return the same function in a world where some global names mean something else."""
    out = FunctionType(
        plain.__code__, {**plain.__globals__, **more}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    out.__module__, out.__qualname__, out.__doc__ = plain.__module__, plain.__qualname__, plain.__doc__
    return out


def kernel(signature: str, *, nogil: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a kernel: compiled ahead of its first call, for exactly these types, and kept on disk.

    The explicit signature makes a wrong dtype or a strided slice a TypeError instead of a recompile in the middle of a
    poll. No fastmath: it makes `isnan` false. error_model numpy: a division by zero gives inf, as in an array.
    """

    def make(py_func: Callable[..., Any]) -> Kernel:
        made = Kernel(py_func, signature, nogil)
        _OF_MODULE.setdefault(py_func.__module__, []).append(made)
        return made

    return make


def load(module: str) -> None:
    """Load every kernel of a module that has been imported."""
    for each in _OF_MODULE.get(module, ()):
        each.load()


def release() -> int:
    """Hand the compiler's pages that can be read from its file again back to the system; returns how many bytes.

    Once the kernels run nobody needs 70 MB of compiler in memory; a later compile reads back what it needs. Only
    mappings that nobody can write and that have no page of their own are touched.
    """
    try:
        maps = Path("/proc/self/smaps").read_text().split("\nVmFlags:")
    except OSError:
        return 0
    freed = 0
    for each in maps:
        head, _, rest = each.lstrip("\n").partition("\n")
        if head.startswith(" "):  # the flags of the mapping before
            head, _, rest = rest.partition("\n")
        words = head.split()
        if len(words) < 6 or COMPILER not in words[5] or "w" in words[1] or "\nAnonymous:             0 kB" not in rest:
            continue
        first, last = (int(end, 16) for end in words[0].split("-"))
        if ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), MADV_DONTNEED) == 0:
            freed += last - first
    return freed


@contextlib.contextmanager
def on_compile(tell: Callable[[], object]) -> Iterator[None]:
    """Call `tell` once when the first kernel is compiled meanwhile; one that comes from the disk is not compiled."""
    from numba.core import event

    class Once(event.Listener):
        told = False

        def on_start(self, event: Any) -> None:
            if not self.told:
                self.told = True
                tell()

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Once()):
        yield
