"""The one way in which a kernel is compiled."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast


def cache_dir() -> Path:
    """Return the folder of compiled kernels: $CACHE_DIRECTORY, $XDG_CACHE_HOME/corridor or ~/.cache/corridor."""
    if own := os.environ.get("CACHE_DIRECTORY"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "corridor"
    return Path.home() / ".cache" / "corridor"


# numba reads this once, when it is imported
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_dir()))

import numba  # noqa: E402
from numba.core import event  # noqa: E402


class Kernel(Protocol):
    """A compiled function; `py_func` is the same function as Python interprets it."""

    py_func: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """Run it; raises TypeError for other types than those of its signature."""
        ...


def kernel(signature: str, *, nogil: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Compile a function ahead of its first call, for exactly these types, and keep the machine code on disk.

    The explicit signature makes a wrong dtype or a strided slice a TypeError instead of a recompile in the middle of a
    poll. No fastmath: it makes `isnan` false. error_model numpy: a division by zero gives inf, as in an array.
    """
    compiled = numba.njit(signature, cache=True, error_model="numpy", fastmath=False, nogil=nogil)
    return cast("Callable[[Callable[..., Any]], Kernel]", compiled)


@contextlib.contextmanager
def on_compile(tell: Callable[[], object]) -> Iterator[None]:
    """Call `tell` once when the first kernel is compiled meanwhile; one that comes from the disk is not compiled."""
    with event.install_listener("numba:compile", _Once(tell)):
        yield


class _Once(event.Listener):
    """Calls back when the first event begins."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell: Callable[[], object] | None = tell

    def on_start(self, event: Any) -> None:
        tell, self._tell = self._tell, None
        if tell:
            tell()

    def on_end(self, event: Any) -> None:
        pass
