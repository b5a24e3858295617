"""What commands share: exit codes, Ctrl-C, the standard streams, and saying things to the one who typed them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Final

DONE: Final = 0
WRONG_INPUT: Final = 1
USAGE: Final = 2
PEER_AWAY: Final = 3
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell counts
READER_GONE: Final = 141  # 128 + SIGPIPE: what other Unix tools end with when nobody reads their pipe any more


def leave_on_interrupt(code: int) -> None:
    """Let Ctrl-C end the process at once with this exit code, until a service listens for it or a command cleans up.

    A KeyboardInterrupt may end as a traceback of whoever runs just then: of an import, of a library in C.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _Leave(code))


class _Leave:
    """The handler of a Ctrl-C that ends the process at once."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __call__(self, number: int, frame: object) -> None:
        os._exit(self._code)


def hear_interrupts() -> None:
    """Have a thread run that handler too: of a signal just before a read that waits for ever the main one never hears.

    An event loop that takes signals over takes this over. It opens files: not before the standard streams stand.
    """
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    threading.Thread(target=_hear, args=(awake,), name="interrupts", daemon=True).start()


def _hear(awake: int) -> None:
    while numbers := os.read(awake, 64):  # a byte for each signal
        handler = signal.getsignal(signal.SIGINT)
        if signal.SIGINT in numbers and isinstance(handler, _Leave):
            handler(signal.SIGINT, None)


def say(line: str) -> None:
    """Say a line that is not a result: progress, or what is wrong. Where nobody can hear it the exit code remains."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def refuse(lines: Iterable[str]) -> int:
    """Say what is wrong with the input, a line each; returns the exit code."""
    for line in lines:
        say(line)
    return WRONG_INPUT


class OutputError(Exception):
    """Standard output does not take what was printed."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"standard output cannot be written: {cause.strerror}")
        self.is_reader_gone = isinstance(cause, BrokenPipeError)


class _Output(io.TextIOWrapper):
    """Standard output whose failures cannot be taken for those of another file."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputError(error) from None


def take_streams() -> None:
    """Make every failure of standard output an OutputError, and put something in the place of closed streams.

    Without a stand-in the next file that is opened gets the number of the closed stream, and what is printed.
    """
    _stand_in("stdin", 0, os.O_RDONLY, "r")
    _stand_in("stdout", 1, os.O_RDONLY, "w")  # refuses what is printed: nobody will see it
    _stand_in("stderr", 2, os.O_WRONLY, "w")
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        encoding, errors, by_line, at_once = out.encoding, out.errors, out.line_buffering, out.write_through
        sys.stdout = _Output(out.detach(), encoding, errors, line_buffering=by_line, write_through=at_once)


def _stand_in(name: str, number: int, flags: int, mode: str) -> None:
    if getattr(sys, name) is None:
        fd = os.open(os.devnull, flags)
        if fd != number:
            os.dup2(fd, number)
            os.close(fd)
        setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the life of the process
