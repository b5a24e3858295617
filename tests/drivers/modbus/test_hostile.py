"""The catalogue of hostile answers: on every wire, in every way, no wrong value, no hang, no surprise, and then on.

Every row is read through twice: once with every answer wrong for a while, once with only one. The rows of a batch run
at the same time.
"""

import asyncio
import fcntl
import functools
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivers.errors import LinkDown, NoAnswer
from drivers.sim.frames import mbap, rtu
from drivers.sim.hostile import HOWS, wire_of
from tests.drivers.modbus.bench import TIMEOUT_S, Fault, certificate, request_of, stage, through

N_BATCHES = 4  # of rows that are read at the same time: their waits overlap, their work does not
LATE = (1.5, 2.5, 4.0)


@dataclass(frozen=True)
class Row:
    """A way on a transport; delay in time-outs, None: that of the way, but for a late answer half a time-out."""

    how: str
    transport: str
    delay: float | None = None

    def __str__(self):
        return f"{self.how}{'' if self.delay is None else f' x{self.delay:g}'}-{self.transport}"

    @property
    def delay_s(self):
        if self.delay is not None:
            return self.delay * TIMEOUT_S
        return 0.5 * TIMEOUT_S if self.how == "late" else HOWS[self.how].delay_s or 0.0


DELAYED = {
    "late": LATE,
    "split": (0.5, 1.5),
    "split_in_header": (1.5,),
    "byte_by_byte": (1.5,),
    "late_behind_next": (0.5, 1.5),
    "late_at_next_connection": (0.5,),
    "duplicated_later": (0.5, 1.5),
    "unasked_idle": (0.5,),
    "exception_then_late": (0.5, 1.5),
    "echo_then_answer": (1.5,),
}
# Untold only where they come in the moment in which their like is awaited, and only the first: the true answer behind
# it betrays it, and from then on the device is heard out. So at most one wrong value in a play.
ONLY_THE_FIRST = ("duplicated_later", "unasked_idle")
OVER_TLS = (
    "late", "late_with_next", "never", "merged", "split", "duplicated", "unasked_before", "id_next", "length_65535",
    "garbage_forever", "other_framing", "close_in_frame", "reset",
)  # fmt: skip
ROWS = [
    *(Row(how, wire) for how, about in HOWS.items() for wire in about.wires),
    *(Row(how, wire, delay) for how, delays in DELAYED.items() for wire in HOWS[how].wires for delay in delays),
    *(Row(how, "tls") for how in OVER_TLS),
]
SIZE = -(-len(ROWS) // N_BATCHES)
# What a stream may do to an answer, and a line that takes its time: no reason to refuse it.
FINE = {Row("split", "tcp"), Row("split_in_header", "tcp"), Row("split", "tls")}
FINE |= {Row("late", wire) for wire in ("tcp", "rtu+tcp", "rtu", "tls")}
# Made of several exchanges: of one alone only a missing answer would be left.
ALWAYS = {"shifted", "exception_then_shifted", "merged", "merged_reversed", "out_of_order"}


def scenes(rows, folder, **more):
    """Return the scenes of rows: with every answer wrong, and with one."""
    return {
        f"{row} {'once' if is_once else 'always'}": functools.partial(
            through,
            Fault(row.how, row.delay_s, is_once),
            row.transport,
            folder / f"{i}{is_once:d}",
            is_fine=row in FINE,
            **more,
        )
        for i, row in enumerate(rows)
        for is_once in ((False,) if row.how in ALWAYS else (False, True))
    }


def run(rows, **more):
    """Return scene -> complaints."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if any(row.transport == "tls" for row in rows):
            more["certificate"] = certificate(folder)
        return asyncio.run(stage(scenes(rows, folder, **more)))


@pytest.fixture(scope="session")
def batch(tmp_path_factory):
    """Return what plays a batch of rows once, whichever worker asks first, and tells its complaints to all."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent  # that of all workers of this session

    @functools.cache
    def played(n):
        with (folder / f"hostile-{n}.json").open("a+") as kept:
            fcntl.flock(kept, fcntl.LOCK_EX)
            kept.seek(0)
            if not (text := kept.read()):
                text = json.dumps(run(ROWS[n * SIZE : (n + 1) * SIZE]))
                kept.write(text)
        return json.loads(text)

    return played


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_wrong_value_no_hang_and_then_on(row, batch):
    found = batch(ROWS.index(row) // SIZE)
    complaints = [f"{name}: {what}" for name in found if name.rsplit(" ", 1)[0] == str(row) for what in found[name]]
    if wire_of(row.transport) in HOWS[row.how].untold:
        wrong = [what for what in complaints if "wrong value" in what]
        assert row.how not in ONLY_THE_FIRST or len({what.split(":")[0] for what in wrong}) == len(wrong), wrong
        complaints = [what for what in complaints if what not in wrong]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("n", range(N_BATCHES))
def test_nothing_is_left_behind(n, batch):
    assert batch(n)["left behind"] == []


def test_the_catalogue_is_large():
    assert len(set(map(str, ROWS))) == len(ROWS) >= 300
    assert {row.transport for row in ROWS} == {"tcp", "tls", "rtu+tcp", "rtu"}


class Naive:
    """A link that takes whatever comes for the answer."""

    def __init__(self, spec):
        self._spec = spec
        self._streams = None

    async def read(self, unit, block):
        """Return the bytes where registers should be."""
        pdu = request_of(block)
        is_rtu = self._spec.transport == "rtu+tcp"
        try:
            async with asyncio.timeout(self._spec.timeout_s):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._spec.host, self._spec.port)
                reader, writer = self._streams
                writer.write(rtu(unit, pdu) if is_rtu else mbap(1, unit, pdu))
                if not (got := await reader.read(512)):
                    raise ConnectionResetError
        except TimeoutError:
            raise NoAnswer from None
        except OSError:
            await self.close()
            raise LinkDown from None
        at = 3 if is_rtu else 9
        return got[at : at + block.n_bytes]

    async def close(self):
        """Hang up."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


def test_the_catalogue_convicts_a_reader_that_takes_whatever_comes():
    rows = [row for row in ROWS if row.transport in ("tcp", "rtu+tcp") and row not in FINE and row.delay is None][::8]
    found = run(rows, opens=Naive)
    wrong = {name for name, complaints in found.items() if any("wrong value" in what for what in complaints)}
    convicted = [row for row in rows if wrong & {f"{row} once", f"{row} always"}]
    assert len(convicted) > 0.7 * len(rows)
    assert {row.transport for row in convicted} == {"tcp", "rtu+tcp"}
    assert found["left behind"] == []
