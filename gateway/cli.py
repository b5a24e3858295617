"""The way into `corridor COMMAND`, and out: streams, Ctrl-C and exit codes; gateway/commands has the commands.

It imports next to nothing before Ctrl-C is quiet, and every command only what it needs.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from gateway.commands.terminal import (
    DONE,
    INTERRUPTED,
    READER_GONE,
    WRONG_INPUT,
    OutputError,
    hear_interrupts,
    leave_on_interrupt,
    say,
    take_streams,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 the input is wrong, 2 usage, 3 a needed peer is away.

    Ctrl-C ends a service with 0, as SIGTERM does, and a command that has not finished its work with 130.
    """
    from gateway.commands.words import parser

    return _run(parser().parse_args(arguments))


def entry() -> None:
    """Run one command as `main` does and leave at once with its exit code.

    A pipe that nobody reads any more ends a command without a word and with 141, as if SIGPIPE had ended it; standard
    output that fails in another way is a line and 1.
    A dial or a name look-up may hang in a thread that nothing can cancel; waiting for it would break the promise that
    every command ends within two seconds.
    """
    leave_on_interrupt(INTERRUPTED)
    try:
        take_streams()
        hear_interrupts()
        code = _code()
        sys.stdout.flush()
    except OutputError as error:
        code = READER_GONE if error.is_reader_gone else WRONG_INPUT
        if not error.is_reader_gone:
            say(str(error))
    os._exit(code)


def _code() -> int:
    from gateway.commands.words import parser

    try:
        options = parser().parse_args()
    except SystemExit as end:  # help, version, usage
        return int(end.code or DONE)
    leave_on_interrupt(options.interrupted)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    import logging

    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s" if options.verbose else "%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return int(options.interrupted)


if __name__ == "__main__":
    entry()
