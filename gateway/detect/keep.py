"""What the detectors have learnt, across restarts: their state columns by the names of tags, scans and assets.

A file is an npz, deflated: `keys.tag`, `keys.scan`, `keys.asset` as text, and `<detector>.<column>` in their order.
What the configuration has no longer is left out, what is new begins anew; a file that cannot be read is no reason not
to start.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.detect.bank import Bank
from gateway.detect.detector import Detector
from gateway.detect.tags import tags_of
from gateway.model.frame import TagTable

FORMAT: Final = 2  # to be raised with the meaning of any column
AXES: Final = ("tag", "scan", "asset")
AS_WIDE_AS_ASSETS: Final = "health.matrices"  # the one column whose width depends on the configuration
ZLIB_LEVEL: Final = 1  # a gateway that is told to end has 2 s for everything
UNREADABLE: Final = (  # all that numpy, zipfile and zlib raise of a file that is none of ours
    *(OSError, ValueError, KeyError, EOFError, TypeError, OverflowError, NotImplementedError, RuntimeError),
    *(MemoryError, zipfile.BadZipFile, zlib.error),
)
SEPARATOR: Final = "\x1f"  # between the parts of a key: no name has it


class KeptError(Exception):
    """A file of what detectors have learnt that cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Who the rows of state columns are; a tag with other detectors, a scan or asset with other tags is new."""

    tag: tuple[str, ...]
    scan: tuple[str, ...]
    asset: tuple[str, ...]

    def of(self, axis: str) -> tuple[str, ...]:
        """Return the keys of one axis."""
        return {"tag": self.tag, "scan": self.scan, "asset": self.asset}[axis]


@dataclass(frozen=True, slots=True)
class Packed:
    """All that the detectors had learnt at a moment."""

    columns: Mapping[str, NDArray[Any]]

    def encode(self) -> bytes:
        """Return the file; may run in a thread of its own."""
        out = io.BytesIO()
        np.savez(out, allow_pickle=False, **self.columns)
        return zlib.compress(out.getvalue(), ZLIB_LEVEL)


def keys_of(table: TagTable, bank: Bank) -> Keys:
    """Return the keys of a gateway's tags."""
    tags = []
    for row, tag in enumerate(table.tags):
        number = int(table.device_of[row])
        if number in table.gone:
            tags.append(f"{SEPARATOR}{row}")
            continue
        tags.append(SEPARATOR.join((table.devices[number].name, tag.name, tag.point.kind, str(table.detect[row]))))
    scans = tuple(SEPARATOR.join(tags[scan.start : scan.stop]) for scan in table.scans)
    members: list[list[str]] = [[] for _ in range(bank.tags.n_assets)]
    for row, key in enumerate(tags):
        members[bank.tags.asset[row]].append(key)
    return Keys(tuple(tags), scans, tuple(SEPARATOR.join(each) for each in members))


class Learnt:
    """The detectors of a gateway, which go on from a file where there is one; `found` is how many tags it knew.

    wrong  why the file was of no use, "" where it was or there is none
    """

    def __init__(self, table: TagTable, data: bytes | None) -> None:
        self.bank = Bank(tags_of(table))
        self._keys = keys_of(table, self.bank)
        self.found, self.wrong = 0, ""
        self._runs: dict[str, list[tuple[int, int, int]]] = {}
        if data is not None:
            try:
                self.found = restore(self.bank, self._keys, data)
            except KeptError as error:
                self.wrong = str(error)

    @classmethod
    def after(cls, before: Learnt, table: TagTable) -> Learnt:
        """Return the detectors of a changed table, still without what `before` has learnt; may take a thread its time.

        `take_over` brings that, in next to none.
        """
        made = cls(table, None)
        made._runs = {axis: _runs(*_matches(list(before._keys.of(axis)), made._keys.of(axis))) for axis in AXES}
        return made

    def take_over(self, before: Learnt) -> None:
        """Go on where `before` is, which this was made after."""
        for detector, old in zip(self.bank.detectors, before.bank.detectors, strict=True):
            there = old.state()
            for name, axis, column in _kept(detector):
                for at, to, n in self._runs[axis]:
                    _move(column, slice(to, to + n), there[name], slice(at, at + n))

    def packed(self) -> Packed:
        """Return a copy of all that the detectors have learnt."""
        out: dict[str, NDArray[Any]] = {"format": np.array(FORMAT)}
        for axis in AXES:
            out[f"keys.{axis}"] = np.array(self._keys.of(axis), np.str_)
        for detector in self.bank.detectors:
            for name, _, column in _kept(detector):
                out[f"{detector.name}.{name}"] = column.copy()
        return Packed(out)


def _kept(detector: Detector) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Yield (name, axis, column) of the state that outlives a restart."""
    for name, column in detector.state().items():
        axis = detector.axes.get(name, "tag")
        if axis is not None:
            yield name, axis, column


def restore(bank: Bank, keys: Keys, data: bytes) -> int:
    """Let the detectors go on from a file; returns how many tags it has. Raises KeptError, having changed nothing."""
    try:
        with np.load(io.BytesIO(zlib.decompress(data)), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        if int(found["format"]) != FORMAT:
            raise KeptError(f"is of format {found['format']}, wanted {FORMAT}")
        rows = {axis: _matches(found[f"keys.{axis}"].tolist(), keys.of(axis)) for axis in AXES}
        moves = []
        for detector in bank.detectors:
            for name, axis, column in _kept(detector):
                old = found[f"{detector.name}.{name}"]
                there, here = rows[axis]
                is_like = old.dtype == column.dtype and old.ndim == column.ndim
                if f"{detector.name}.{name}" != AS_WIDE_AS_ASSETS:
                    is_like = is_like and old.shape[1:] == column.shape[1:]
                if not is_like or len(old) <= max(there, default=-1):
                    raise KeptError(f"{detector.name}.{name} is {old.dtype}{list(old.shape)}")
                moves.append((column, here, old, there))
    except UNREADABLE as error:
        raise KeptError(f"cannot be read: {error}") from None
    for column, here, old, there in moves:
        _move(column, here, old, there)
    return len(rows["tag"][0])


def _move(column: NDArray[Any], here: Any, old: NDArray[Any], there: Any) -> None:
    """Copy rows of an old column."""
    if column.shape[1:] == old.shape[1:]:
        column[here] = old[there]
    else:  # as wide as the largest asset, which was another one then
        width = min(column.shape[1], old.shape[1])
        column[here, :width] = old[there, :width]


def _runs(there: list[int], here: list[int]) -> list[tuple[int, int, int]]:
    """Return (first old place, first new place, how many) of places that follow each other in both."""
    runs: list[tuple[int, int, int]] = []
    for at, to in zip(there, here, strict=True):
        if runs and runs[-1][0] + runs[-1][2] == at and runs[-1][1] + runs[-1][2] == to:
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((at, to, 1))
    return runs


def _matches(old: list[str], new: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Return the places of the keys that both have: in the old, in the new."""
    place = {key: i for i, key in enumerate(old)}
    pairs = [(place[key], i) for i, key in enumerate(new) if key in place]
    return [there for there, _ in pairs], [here for _, here in pairs]
