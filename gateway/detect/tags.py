"""What detectors know of the tags that they watch: constant columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.model.frame import TagTable

KINDS: Final = ("gauge", "counter", "state")


@dataclass(frozen=True, slots=True)
class Tags:
    """The settings of n tags; each scan is one contiguous slice of rows.

    scan_start, scan_stop  int32[scans]
    detect     uint8[n], DETECT_BITS
    kind       uint8[n], index in KINDS
    asset      int32[n], number of the asset that a tag belongs to, below n_assets
    limit      float64[n, 4], low_low, low, high, high_high, NaN where there is none
    deadband   float64[n], tag unit;  on_delay_ns, off_delay_ns  int64[n]
    rate       float64[n], units per second, NaN where there is none
    resolution float64[n], the smallest step the wire can carry, 0 if unknown
    """

    scan_start: NDArray[np.int32]
    scan_stop: NDArray[np.int32]
    detect: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    asset: NDArray[np.int32]
    n_assets: int
    limit: NDArray[np.float64]
    deadband: NDArray[np.float64]
    on_delay_ns: NDArray[np.int64]
    off_delay_ns: NDArray[np.int64]
    rate: NDArray[np.float64]
    resolution: NDArray[np.float64]

    @property
    def n(self) -> int:
        """How many tags there are."""
        return self.detect.size

    @property
    def n_scans(self) -> int:
        """How many scans there are."""
        return self.scan_start.size


def tags_of(table: TagTable) -> Tags:
    """Return what detectors need of a gateway's table; a device without an asset is one of its own."""
    names: dict[tuple[str, str], int] = {}
    asset = np.zeros(table.n, np.int32)
    for row in range(table.n):
        number = int(table.device_of[row])
        device = table.devices[number]
        key = ("asset", device.asset) if device.asset else ("device", device.name)
        if number in table.gone:
            key = ("gone", str(number))  # who is not there any more is compared with nobody
        asset[row] = names.setdefault(key, len(names))
    return Tags(
        scan_start=table.scan_start,
        scan_stop=table.scan_stop,
        detect=table.detect,
        kind=np.array([KINDS.index(tag.point.kind) for tag in table.tags], np.uint8),
        asset=asset,
        n_assets=len(names),
        limit=table.limit,
        deadband=table.deadband,
        on_delay_ns=table.on_delay_ns,
        off_delay_ns=table.off_delay_ns,
        rate=table.rate,
        resolution=table.resolution,
    )
