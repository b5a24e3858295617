"""What commands share: exit codes, Ctrl-C, the standard streams, and saying things to the one who typed them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
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
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(code))


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
