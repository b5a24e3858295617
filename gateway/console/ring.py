"""The last live samples of every tag, so that a trend continues to the present without asking the database."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

CAPACITY: Final = 900  # 15 min at one sample a second; 14 kB a tag, touched only as samples arrive
NEVER: Final = np.iinfo(np.int64).min

Samples = tuple[NDArray[np.int64], NDArray[np.float64]]


class Ring:
    """Samples of n tags, each tag ascending in time and without repeats.

    A NaN says that the value was bad from then on. What is older than a tag's oldest sample is the database's to
    know: it is not taken.
    """

    def __init__(self, n: int, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._time = np.empty((n, capacity), np.int64)
        self._value = np.empty((n, capacity), np.float64)
        self._head = np.zeros(n, np.int32)
        self._count = np.zeros(n, np.int32)
        self._last = np.full(n, NEVER, np.int64)

    def push(self, rows: NDArray[np.intp], time_ns: int, value: NDArray[np.float64]) -> None:
        """Add one sample to each of these tags; a late or repeated one goes where it belongs."""
        if bool((self._last[rows] < time_ns).all()):
            slot = self._head[rows]
            self._time[rows, slot] = time_ns
            self._value[rows, slot] = value
            self._head[rows] = (slot + 1) % self.capacity
            self._count[rows] = np.minimum(self._count[rows] + 1, self.capacity)
            self._last[rows] = time_ns
            return
        for row, sample in zip(rows.tolist(), value.tolist(), strict=True):
            self._insert(row, time_ns, sample)

    def read(self, row: int) -> Samples:
        """Return times and values of a tag, oldest first."""
        n = int(self._count[row])
        slots = (np.arange(n) + int(self._head[row]) - n) % self.capacity
        return self._time[row, slots], self._value[row, slots]

    def take_over(self, row: int, samples: Samples) -> None:
        """Begin a tag with the samples that another ring held."""
        self._write(row, *samples)

    def _insert(self, row: int, time_ns: int, sample: float) -> None:
        times, values = self.read(row)
        i = int(np.searchsorted(times, time_ns))
        if i < times.size and times[i] == time_ns:
            if not np.isnan(sample):
                values[i] = sample
        elif i == 0 and times.size:
            return
        else:
            times, values = np.insert(times, i, time_ns), np.insert(values, i, sample)
        self._write(row, times, values)

    def _write(self, row: int, times: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        times, values = times[-self.capacity :], values[-self.capacity :]
        n = times.size
        self._time[row, :n], self._value[row, :n] = times, values
        self._count[row], self._head[row] = n, n % self.capacity
        self._last[row] = times[-1] if n else NEVER
