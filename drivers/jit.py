"""The one way in which a kernel is compiled, and when: not on import, so that meters are read before it is loaded."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
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
_OF_RUN: dict[int, Kernel] = {}  # by the identity of what runs, which stands for it in its own module once it is loaded


class Kernel:
    """A function that runs as machine code; `py_func` is the same function as Python interprets it.

    It is loaded from the disk, or compiled, by `load` or at its first call. Raises TypeError for other types than those
    of its signature.
    """

    def __init__(self, py_func: Callable[..., Any], signature: str, *, nogil: bool, noalias: bool, inner: bool) -> None:
        self.py_func = py_func
        functools.update_wrapper(self, py_func)
        self._signature = signature
        self.is_inner = inner
        self.is_noalias = noalias
        self._how: dict[str, Any] = {"error_model": "numpy", "fastmath": False, "_nrt": False, "nogil": nogil}
        if noalias:
            self._how["noalias"] = True
        if inner:
            self._how["forceinline"] = True
        self._fingerprint = ""
        self._run: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        return (self._run or self.load())(*arguments)

    def fingerprint(self) -> str:
        """Return a digest of all that is compiled: its code, the constants and kernels that it takes from its world.

        numba looks at the time and size of one file only: not at what a kernel calls or takes from others.
        """
        if not self._fingerprint:
            plain = cast("FunctionType", self.py_func)
            parts = [self._signature, str(self._how), _bytecode(plain.__code__)]
            for name in plain.__code__.co_names:
                value = plain.__globals__.get(name)
                value = _OF_RUN.get(id(value), value)
                if isinstance(value, Kernel):
                    parts.append(value.fingerprint())
                elif not callable(value) and not isinstance(value, ModuleType):
                    parts.append(f"{name}={value!r}")
            self._fingerprint = hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
        return self._fingerprint

    def load(self) -> Callable[..., Any]:
        """Return the compiled function, loaded or compiled now if it was not yet; kernels that it calls go first."""
        if self._run is None:
            import numba  # 0.3 s and 80 MB: not before somebody needs it

            plain = cast("FunctionType", self.py_func)
            kept = _Kept(plain, self.fingerprint())
            how: Any = {"cache": kept.is_sound(), **self._how}
            if self.is_noalias:
                _let_noalias_be_said()
            if kept.is_sealed:  # what it calls is in its machine code, and is loaded when somebody else wants it
                with contextlib.suppress(numba.core.errors.TypingError):  # for another processor: compiled after all
                    self._run = cast("Callable[..., Any]", numba.njit(self._signature, **how)(plain))
            if self._run is None:
                names = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
                called = {name: found.load() for name, found in names.items() if isinstance(found, Kernel)}
                plain = _with_globals(plain, called) if called else plain
                self._run = cast("Callable[..., Any]", numba.njit(self._signature, **how)(plain))
            _OF_RUN[id(self._run)] = self
            if how["cache"]:
                kept.seal()
            world = cast("FunctionType", self.py_func).__globals__
            if world.get(self.py_func.__name__) is self:
                world[self.py_func.__name__] = self._run  # its own module calls it without the way through here
        return self._run


class _Kept:
    """The files in which numba keeps one function, and a seal beside them: what was compiled, names and digests.

    numba believes its files. A power cut leaves empty ones, a worn card others, an update stale ones, and what they
    hold is run: an exception at best, else a dead process or wrong numbers. What is not as it was written, or for what
    is now to be compiled, is compiled anew.
    """

    def __init__(self, plain: FunctionType, fingerprint: str) -> None:
        from numba.core.caching import FunctionCache

        try:
            cache: Any = FunctionCache(plain)  # type: ignore[no-untyped-call]
        except RuntimeError:  # no folder at all that could be written
            self._folder, self.is_sealed = None, False
            return
        self._folder, self._stem = Path(cache.cache_path), str(cache._impl.filename_base)
        self._seal = self._folder / f"{self._stem}.seal"
        self._fingerprint = fingerprint
        self.is_sealed = False

    def is_sound(self) -> bool:
        """Return whether numba may use its files, having removed what is not sound."""
        if self._folder is None:
            return False
        try:
            written = self._seal.read_text()
            names = [line.split(" ")[0] for line in written.splitlines()[1:]]
            self.is_sealed = bool(names) and written == self._text([self._folder / name for name in names])
            if not self.is_sealed:
                raise ValueError
        except (OSError, ValueError):
            try:
                for path in self._files():
                    path.unlink()
            except OSError:
                return False
        return True

    def seal(self) -> None:
        """Note how the files are now that they have been written."""
        if not self.is_sealed:
            with contextlib.suppress(OSError):  # without a seal they are compiled again, that is all
                fresh = self._seal.with_name(f"{self._seal.name}.{os.getpid()}")
                fresh.write_text(self._text(self._files()))
                fresh.replace(self._seal)

    def _files(self) -> list[Path]:
        assert self._folder is not None
        names = (f"{self._stem}.nbi", f"{self._stem}.*.nbc")
        return sorted(path for name in names for path in self._folder.glob(name))

    def _text(self, files: list[Path]) -> str:
        """Return the seal of these files; raises OSError."""
        digests = [f"{path.name} {hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}\n" for path in files]
        return f"{self._fingerprint}\n{''.join(digests)}"


def _with_globals(plain: FunctionType, more: dict[str, Any]) -> FunctionType:
    """Return the same function in a world where some global names mean something else."""
    out = FunctionType(
        plain.__code__, {**plain.__globals__, **more}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    out.__module__, out.__qualname__, out.__doc__ = plain.__module__, plain.__qualname__, plain.__doc__
    return out


def _constants(code: CodeType) -> list[str]:
    return [_bytecode(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]


def _bytecode(code: CodeType) -> str:
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {_constants(code)}"


def _let_noalias_be_said() -> None:
    """Make `noalias` an option of njit: numba has the flag, and sets it only for its own ufuncs."""
    from numba.core import cpu, options

    cpu.CPUTargetOptions.noalias = options.TargetOptions.Mapping("noalias")  # type: ignore[no-untyped-call]


def kernel(
    signature: str, *, nogil: bool = False, noalias: bool = False, inner: bool = False
) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a kernel: compiled ahead of its first call, for exactly these types, and kept on disk.

    noalias  no two of its arrays share memory: C's `restrict`. Over more than some ten arrays the compiler does not
             vectorise without, since it would have to compare each with each before every loop
    inner    only other kernels call it: it is written out in their machine code, where an array costs nothing to hand
             on, and nobody has to load it for itself

    The explicit signature makes a wrong dtype or a strided slice a TypeError instead of a recompile in the middle of a
    poll. No fastmath: it makes `isnan` false. error_model numpy: a division by zero gives inf, as in an array.
    No allocation: without numba's runtime (`_nrt`) a kernel that wants memory does not compile, and a row of an array
    is not counted as one more reference.
    """

    def make(py_func: Callable[..., Any]) -> Kernel:
        made = Kernel(py_func, signature, nogil=nogil, noalias=noalias, inner=inner)
        _OF_MODULE.setdefault(py_func.__module__, []).append(made)
        return made

    return make


def load(module: str) -> None:
    """Load every kernel of a module that has been imported, but for those that only others call."""
    for each in _OF_MODULE.get(module, ()):
        if not each.is_inner:
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
