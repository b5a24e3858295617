"""The contract of every store, and the registry that opens one by its URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from gateway.model.corridor import StoreSpec


class StoreAway(Exception):
    """The store cannot be reached or is overloaded: try again later. `retry_s` is its own wish, if it said one."""

    def __init__(self, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class StoreRejected(Exception):
    """The store will never take these lines as they are: bisect, park what is poison."""


@dataclass(frozen=True, slots=True)
class Series:
    """One tag in a store."""

    measurement: str
    corridor: str
    site: str
    gateway: str
    device: str
    tag: str


@dataclass(frozen=True, slots=True)
class Trend:
    """A tag over time, thinned to what a screen can show.

    time_ns int64[n] ascending, Unix ns of the bucket's start (of the sample where nothing was thinned);
    low, mean, high float64[n], tag unit
    """

    time_ns: NDArray[np.int64]
    low: NDArray[np.float64]
    mean: NDArray[np.float64]
    high: NDArray[np.float64]


class Store(Protocol):
    """A database that keeps samples. Equal (series, time) replaces: a repeat is harmless."""

    async def write(self, lines: bytes) -> None:
        """Keep these lines (line protocol, ns, comments allowed) durably; raises StoreAway or StoreRejected."""
        ...

    async def read(self, series: Series, start_ns: int, stop_ns: int, max_points: int) -> Trend:
        """Return the tag's samples in [start_ns, stop_ns), raw if they fit max_points, else low/mean/high a bucket.

        Raises StoreAway.
        """
        ...

    async def close(self) -> None:
        """Give files and connections back."""
        ...


def open_store(spec: StoreSpec) -> Store:
    """Return the store of a URL; nothing is connected or created before the first call. Raises ValueError.

    The driver is imported here, by need: influxdb_client alone costs half a second.
    """
    scheme = urlsplit(spec.url).scheme
    if scheme in ("influx2", "influx2s"):
        from gateway.history.influx2 import Influx2

        return Influx2(spec)
    if scheme in ("influx1", "influx1s"):
        from gateway.history.influx1 import Influx1

        return Influx1(spec)
    if scheme == "sqlite":
        from gateway.history.sqlite import Sqlite

        return Sqlite(spec)
    raise ValueError(f"store: got {scheme!r}, wanted influx2, influx1 or sqlite")
