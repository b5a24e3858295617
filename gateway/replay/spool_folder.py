"""A gateway's spool as source: what the detectors were given, frame by frame. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.replay.source import RecordedFrame, RecordedScan, SourceError, Span
from gateway.spool.segment import UNREADABLE, Segment, scan, segments_in
from gateway.wire.frame_lines import ScanText

Say = Callable[[str], None]


class SpoolFolder:
    """The frames of a spool folder, or of the state folder around it; what cannot be read is told and left out.

    A scan is known by its device and tags: where the configuration changed on the way, new ones begin.
    """

    def __init__(self, folder: Path, span: Span, say: Say) -> None:
        inner = folder / "spool"
        self._folder = inner if not any(segments_in(folder)) and inner.is_dir() else folder
        self._span = span
        self._say = say
        self.progress = 0.0
        try:
            self._files = segments_in(self._folder)
            self._numbers: dict[RecordedScan, int] = {}
            self._offsets: dict[int, tuple[int, int | None]] = {}
            for number, path in self._files:
                segment = scan(path, number)
                self._offsets.update(segment.offsets)
                for texts in segment.schemas.values():
                    for text in texts:
                        self._numbers.setdefault(_scan_of(text), len(self._numbers))
        except OSError as error:
            raise SourceError(f"{self._folder}: cannot be read: {error.strerror or error}") from None
        if not self._numbers:
            raise SourceError(f"{folder}: holds no frames, wanted a spool folder, or the state folder of a gateway")
        self.scans = tuple(self._numbers)

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the frames in the order in which they were read; of a batch that is damaged none."""
        n_damaged = 0
        for k, (number, path) in enumerate(self._files):
            try:
                segment = scan(path, number)
            except OSError as error:
                self._say(f"{path}: left out: {error.strerror or error}")
                continue
            n_damaged += segment.damaged
            for i in range(len(segment)):
                try:
                    block, catalog = segment.block(i, self._offsets)
                except UNREADABLE:
                    n_damaged += 1
                    continue
                yield from self._renumbered(segment, catalog, block.frames())
                self.progress = (k + (i + 1) / len(segment)) / len(self._files)
        if n_damaged:
            self._say(f"{self._folder}: {n_damaged} damaged batches left out")

    def _renumbered(self, segment: Segment, catalog: str, frames) -> Iterator[RecordedFrame]:  # type: ignore[no-untyped-def]
        numbers = [self._numbers[_scan_of(text)] for text in segment.schemas[catalog]]
        for frame in frames:
            if self._span.start_ns <= frame.time_ns < self._span.stop_ns:
                yield RecordedFrame(numbers[frame.scan], frame.time_ns, frame.value, frame.quality)


def _scan_of(text: ScanText) -> RecordedScan:
    return RecordedScan(text.device, text.names)
