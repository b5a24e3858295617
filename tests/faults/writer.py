"""A process that writes a spool, tells every step (see promises.py), and can be cut off at any moment.

    python -m tests.faults.writer FOLDER SEED BOOTS COMMITS [BREAK]
    python -m tests.faults.writer SCRATCH

BREAK takes away what a spool cannot do without, to see that it is missed: a name of BREAKS. With a scratch folder only,
it waits for lines `FOLDER SEED`, and for each lets a fork of itself write until that is killed: `PID n`, what the
writer tells, `END`. So a writer is there within milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.model.ranges import RangeSet
from gateway.spool.disk import DiskSpool
from gateway.spool.spool import START
from gateway.wire.lines import as_ranges
from tests.contract.test_spools import everything
from tests.faults.promises import frame, held_text, known, opened

Say = Callable[[str], None]
LARGEST_COMMIT: Final = 14  # frames, 56 KB: less than half of a segment
TIDY_SHARE: Final = 0.5  # of the commits after which a full segment is sealed
ACK_SHARE: Final = 0.2  # of the commits after which a batch is acknowledged: so most of what goes is unsent


def tell(spool: DiskSpool, say: Say) -> None:
    """Say what a spool says of itself."""
    say(f"HELD {held_text((boot, RangeSet([span])) for boot, span in spool.boots().items())}")
    told = spool.statistics()
    say(f"DROPPED {told.dropped} {told.dropped_values}")


async def write(folder: Path, rng: random.Random, commits: int, say: Say) -> DiskSpool:
    """Open a spool, fill it with so many commits of random size, and acknowledge some of it here and there."""
    spool = opened(folder)
    say(f"BOOT {spool.boot}")
    tell(spool, say)
    say(f"KNOWN {known(spool)}")
    position, memo = START, 0
    spool.at_turn = lambda: say("KEPT")
    for _ in range(commits):
        for _ in range(rng.randint(1, rng.choice((2, LARGEST_COMMIT)))):
            spool.append(frame(spool.boot, spool.next_seq))
        say(f"APPENDED {spool.boot} {spool.next_seq - 1}")
        for _ in range(rng.choice((0, 1, 3))):
            memo += 1
            say(f"ATTACHED {spool.boot}:{memo}")
            spool.attach(f"{spool.boot}:{memo}".encode())
        await spool.commit()
        if rng.random() < TIDY_SHARE:
            await spool.tidy()
        tell(spool, say)
        if rng.random() < ACK_SHARE and (batch := await spool.unsent(position, everything)):
            position = batch.position if rng.random() < 0.8 else START
            taken = batch.frames[: rng.choice((len(batch.frames), len(batch.frames) // 2 + 1))]
            for first, last in as_ranges(sent.seq for sent in taken):
                say(f"ACK {batch.boot} {first} {last}")
                spool.ack(batch.boot, first, last)
    return spool


async def run(folder: Path, seed: int, boots: int, commits: int, say: Say) -> None:
    """Write a spool over several boots; between them the process ends well."""
    rng = random.Random(seed)
    for _ in range(boots):
        await (await write(folder, rng, commits, say)).close()


def _no_fdatasync() -> None:
    os.fdatasync = lambda fd: None  # type: ignore[assignment]


def _fsync_only(kind: Callable[[int], bool]) -> Callable[[], None]:
    """Return what leaves out every fsync but those of one kind of file."""

    def take() -> None:
        real = os.fsync
        os.fsync = lambda fd: real(fd) if kind(os.fstat(fd).st_mode) else None  # type: ignore[assignment,arg-type]

    return take


BREAKS: Final[dict[str, Callable[[], None]]] = {
    "fdatasync": _no_fdatasync,
    "fsync of folders": _fsync_only(stat.S_ISREG),
    "fsync of files": _fsync_only(stat.S_ISDIR),
}


def print_line(line: str) -> None:
    """Say a line with one write, which a trace shows among the others."""
    os.write(1, f"{line}\n".encode())


def serve(scratch: Path) -> None:
    """Fork a writer without an end for each line of standard input, once all kernels are loaded."""
    asyncio.run(run(scratch, 0, 1, 2, lambda line: None))
    os.environ["CORRIDOR_PRINT_COMMITS"] = "1"
    for line in sys.stdin:
        folder, seed = line.split()
        pid = os.fork()
        if pid == 0:
            asyncio.run(run(Path(folder), int(seed), 1, sys.maxsize, print_line))
        print_line(f"PID {pid}")
        os.waitpid(pid, 0)
        print_line("END")


def main(arguments: list[str]) -> None:
    """Write one spool to its end, or serve."""
    if len(arguments) == 1:
        serve(Path(arguments[0]))
        return
    folder, seed, boots, commits, *without = arguments
    for name in without:
        BREAKS[name]()
    asyncio.run(run(Path(folder), int(seed), int(boots), int(commits), print_line))


if __name__ == "__main__":
    main(sys.argv[1:])
