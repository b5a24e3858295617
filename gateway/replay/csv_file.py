"""A CSV file as source and as scores: `time` and one column for each tag, a chunk of lines at a time."""

from __future__ import annotations

import csv
import io
import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from drivers.toml import near, shown
from gateway.detect.flags import NAMES
from gateway.replay import sheet
from gateway.replay.judge import Verdicts
from gateway.replay.output import Output
from gateway.replay.source import SourceError

TIME: Final = "time"
CHUNK_BYTES: Final = 1 << 21  # of text at a time; a longer line makes it grow
BLOCK_VALUES: Final = 1 << 16  # at a time through the detectors: half a megabyte a column array, which the cache holds
MAX_LINE_BYTES: Final = 1 << 26  # a longer line is no line of a table
ROW_BYTES: Final = 2 * sheet.SCORE_BYTES  # of the row's own cells, and more
MAX_COLUMNS: Final = 100_000  # of tags: each has 2 kB of memory in the detectors
MAX_NAMED: Final = 8  # columns that a message lists
ABSENT: Final = frozenset({"", "nan", "null", "none", "na", "n/a", "-", "inf", "-inf", "+inf", "infinity", "-infinity"})
NOTHING: Final = np.zeros(0, np.uint8)
BOOLEANS: Final = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, slots=True)
class Block:
    """r lines of a file: their times, values float64[r, n], where there are none, and the text that they came from."""

    time_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    bad: NDArray[np.bool_]
    text: NDArray[np.uint8]
    stamp: NDArray[np.int64]
    n_bytes: int


class CsvFile:
    """A CSV file to be replayed; opening it reads its header. Raises SourceError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream: BinaryIO = path.open("rb")
            self.size = path.stat().st_size
            header = self._stream.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
        self._line = 1  # that were read
        self._is_reading = False
        names = self._names(header)
        self._time_cell = names.index(TIME)
        self.columns = tuple(name for i, name in enumerate(names) if i != self._time_cell)

    def _names(self, header: bytes) -> list[str]:
        try:
            text = header.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.path}: line 1: byte {error.start} is no UTF-8, wanted a CSV file") from None
        try:
            names = [name.strip() for name in next(csv.reader(io.StringIO(text), strict=True), [])]
        except csv.Error as error:
            raise SourceError(f"{self.path}: line 1: {error}, wanted a header as CSV") from None
        wanted = "wanted a header with 'time' and a column for each tag"
        if not any(names):
            raise SourceError(f"{self.path}: line 1: nothing, {wanted}")
        if TIME not in names:
            found = ", ".join(shown(name) for name in names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
            raise SourceError(f"{self.path}: line 1: no column 'time' among {found}{near(TIME, names)}; {wanted}")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise SourceError(f"{self.path}: line 1: column {shown(twice[0])} is there twice, wanted each name once")
        if len(names) == 1:
            raise SourceError(f"{self.path}: line 1: no column beside 'time', {wanted}")
        if len(names) - 1 > MAX_COLUMNS:
            raise SourceError(f"{self.path}: line 1: {len(names) - 1} columns of tags, wanted at most {MAX_COLUMNS}")
        return names

    def blocks(self) -> Iterator[Block]:
        """Yield the lines of the file, some at a time; a block is good until the next. Raises SourceError.

        While one is judged the next is read, in a thread of its own; nobody waits for it when no more is wanted: it may
        hang on a pipe.
        """
        wanted: SimpleQueue[bool] = SimpleQueue()
        found: SimpleQueue[Block | SourceError | None] = SimpleQueue()
        threading.Thread(target=self._read_ahead, args=(wanted, found), name="read-csv", daemon=True).start()
        try:
            self._is_reading = True
            wanted.put(True)
            while (block := found.get()) is not None:
                if isinstance(block, SourceError):
                    raise block
                self._is_reading = True
                wanted.put(True)
                yield block
        finally:
            wanted.put(False)

    def _read_ahead(self, wanted: SimpleQueue[bool], found: SimpleQueue[Block | SourceError | None]) -> None:
        blocks = self._blocks()
        while wanted.get():
            block: Block | SourceError | None = SourceError(f"{self.path}: the reader failed, see above")
            try:
                block = next(blocks, None)
            except SourceError as error:
                block = error
            finally:
                self._is_reading = False
                found.put(block)

    def _blocks(self) -> Iterator[Block]:
        """Yield the lines of the file; a block is not written over before the one behind the next is asked for."""
        n = len(self.columns)
        rows = max(BLOCK_VALUES // n, 1)
        columns = itertools.cycle(
            [
                (
                    np.zeros(rows, np.int64),
                    np.zeros((rows, 2), np.int64),
                    np.zeros((rows, n), np.uint64),
                    np.zeros((rows, n), np.uint8),
                )
                for _ in range(2)
            ]
        )
        other = np.zeros((max(BLOCK_VALUES, 2 * n), 4), np.int64)
        time_ns, stamp, bits, empty = next(columns)
        text, filled, is_end = np.zeros(CHUNK_BYTES, np.uint8), 0, False
        text_before, is_shown = np.zeros_like(text), False  # whether a block that was yielded points into the text
        while not is_end:
            if filled >= text.size - 1:
                if text.size >= MAX_LINE_BYTES:
                    raise self._error(NOTHING, f"longer than {MAX_LINE_BYTES} bytes, wanted a line of a table")
                text = np.concatenate([text, np.zeros_like(text)])
            more = self._read(memoryview(text)[filled : text.size - 1])  # type: ignore[arg-type]
            is_end = not more
            filled += more
            if is_end and filled and text[filled - 1] != sheet.NEWLINE:
                text[filled] = sheet.NEWLINE
                filled += 1
            end = sheet.last_line_end(text, filled)
            at = 0
            while at < end:
                r, behind, lines, m, wrong, cell = sheet.read_lines(
                    text, at, end, n + 1, self._time_cell, sheet.POWERS, time_ns, stamp, bits, empty, other
                )
                value = bits[:r].view(np.float64)
                bad = empty[:r] != 0
                for k, column, first, last in other[:m].tolist():
                    if k < r:
                        value[k, column] = self._other(text[first:last].tobytes(), column, text[at:first])
                        bad[k, column] = math.isnan(value[k, column])
                if r:
                    is_shown = True
                    yield Block(time_ns[:r], value, bad, text, stamp[:r], behind - at)
                self._line += lines
                if wrong:
                    raise self._fault(wrong, cell, text[slice(*stamp[r])] if wrong == sheet.NO_TIME else NOTHING)
                if r:
                    time_ns, stamp, bits, empty = next(columns)
                at = behind
            if is_shown:
                if text_before.size < text.size:
                    text_before = np.zeros_like(text)
                text_before[: filled - end] = text[end:filled]
                text, text_before, is_shown = text_before, text, False
            else:
                text[: filled - end] = text[end:filled].copy()
            filled -= end

    def _read(self, room: memoryview) -> int:
        try:
            return int(self._stream.readinto(room))  # type: ignore[attr-defined]
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror or error}") from None

    def _other(self, cell: bytes, column: int, before: NDArray[np.uint8]) -> float:
        """Return the number of a cell that is no plain one; NaN where it says that there is none."""
        word = cell.decode("utf-8", "replace").strip().lower()
        if word in ABSENT:
            return math.nan
        if word in BOOLEANS:
            return BOOLEANS[word]
        try:
            if "_" in word:
                raise ValueError
            found = float(word)
        except ValueError:
            text = cell.decode("utf-8", "replace")
            raise self._error(before, f"column {shown(self.columns[column])}: {shown(text)}, wanted a number") from None
        return found if math.isfinite(found) else math.nan

    def _fault(self, wrong: int, cell: int, time: NDArray[np.uint8]) -> SourceError:
        """Return what is wrong in the first line that is not counted."""
        n = len(self.columns) + 1
        if wrong == sheet.MANY_CELLS:
            what = f"more than {n} cells, wanted {n} as in the header"
        elif wrong == sheet.FEW_CELLS:
            what = f"{cell} cell{'s' if cell > 1 else ''}, wanted {n} as in the header"
        else:
            what = f"column 'time': {shown(time.tobytes().decode('utf-8', 'replace'))}, wanted {sheet.TIMES}"
        return SourceError(f"{self.path}: line {self._line + 1}: {what}")

    def _error(self, before: NDArray[np.uint8], text: str) -> SourceError:
        """Return an error in the line that begins, or goes on, behind this text."""
        line = self._line + int(np.count_nonzero(before == sheet.NEWLINE)) + 1
        return SourceError(f"{self.path}: line {line}: {text}")

    def close(self) -> None:
        """Close the file, unless it is being read: that may take for ever, of a pipe, and ends with the process."""
        if not self._is_reading:
            self._stream.close()


class ScoreFile:
    """The scores of a source as CSV, a line for each of its lines or frames; raises SourceError."""

    def __init__(self, output: Output, columns: Sequence[str]) -> None:
        self._output = output
        names = [f"{name}.{what}" for name in columns for what in ("score", "flags")]
        head = io.StringIO()
        csv.writer(head, lineterminator="\n").writerow([TIME, *names, "score", "anomaly", "changepoint"])
        self._names = np.zeros((16, sheet.MAX_FLAGS_BYTES), np.uint8)
        self._lengths = np.zeros(16, np.int64)
        for bit, name in NAMES.items():
            at = bit.bit_length() - 1
            self._lengths[at] = len(name)
            self._names[at, : len(name)] = np.frombuffer(name.encode(), np.uint8)
        self._longest = int(self._lengths.sum()) + len(NAMES)
        self._out = np.zeros(0, np.uint8)
        output.write(head.getvalue().encode())

    def write(self, text: NDArray[np.uint8], stamp: NDArray[np.int64], found: Verdicts) -> None:
        """Write verdicts; the time of line k is text[stamp[k, 0]:stamp[k, 1]], as it came."""
        r, n = found.score.shape
        per_line = int((stamp[:, 1] - stamp[:, 0]).max()) + n * (sheet.SCORE_BYTES + self._longest + 2) + ROW_BYTES
        lines = max(min(r, sheet.OUT_BYTES // per_line), 1)
        if self._out.size < lines * per_line:
            self._out = np.zeros(lines * per_line, np.uint8)
        for first in range(0, r, lines):
            size = sheet.write_lines(
                first, min(first + lines, r), *found.columns, text, stamp, found.score, found.flags,
                found.row_score, found.alarm, found.changepoint, self._names, self._lengths, self._out,
            )  # fmt: skip
            self._output.write(memoryview(self._out)[:size])  # type: ignore[arg-type]
