"""What the simulated meters really said, and what was done to them: JSON lines, written in batches."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault or anomaly that happened; tag and device are "" where it had none; times in Unix ns."""

    kind: str
    name: str
    device: str
    tag: str
    start_ns: int
    end_ns: int


class Truth:
    """The log; without a path only counts and faults are kept."""

    def __init__(self, path: Path | None) -> None:
        self._stream = path.open("w", encoding="utf-8") if path else None
        self._lines: list[str] = []
        self.n_values = 0
        self.injected: list[Injected] = []

    def served(self, t_ns: int, device: str, seq: int, values: Iterable[tuple[str, float | None]]) -> None:
        """Note the values of one answer."""
        values = tuple(values)
        self.n_values += len(values)
        if self._stream is None:
            return
        head, tail = f'{{"t_ns":{t_ns},"device":"{device}","tag":"', f',"seq":{seq}}}\n'
        for tag, value in values:
            self._lines.append(f'{head}{tag}","value":{"null" if value is None else repr(value)}{tail}')

    def happened(self, injected: Injected) -> None:
        """Note a fault or anomaly that is over."""
        self.injected.append(injected)
        if self._stream:
            self._lines.append(json.dumps(asdict(injected), separators=(",", ":")) + "\n")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if self._stream and self._lines:
            self._stream.write("".join(self._lines))
            self._stream.flush()
            self._lines.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._stream:
            self._stream.close()
            self._stream = None
