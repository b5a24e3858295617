"""A file that a replay writes: it appears whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from gateway.replay.source import SourceError

PART: Final = ".part"  # behind the name until the file is whole


class Output:
    """A file to be written, inside `with`; what ends in an exception takes it away again. Raises SourceError.

    What is there already stays until the new one is whole. A device or a pipe is written as it goes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        is_device = (path.exists() and not path.is_file()) or path.is_relative_to("/dev")
        self._final = path if is_device else Path(os.path.realpath(path))
        self._part = None if is_device else self._final.with_name(self._final.name + PART)
        try:
            self._stream: BinaryIO = (self._part or self._final).open("wb")
        except OSError as error:
            raise self._failed(error) from None

    def write(self, text: bytes | memoryview) -> None:
        """Write more."""
        try:
            self._stream.write(text)
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._drop()
            return
        try:
            self._stream.close()
            if self._part:
                self._part.replace(self._final)
        except OSError as wrong:
            self._drop()
            raise self._failed(wrong) from None

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._part:
            with contextlib.suppress(OSError):
                self._part.unlink()

    def _failed(self, error: OSError) -> SourceError:
        return SourceError(f"{self._path}: cannot be written: {error.strerror or error}")
