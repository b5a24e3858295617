"""What an answer says: the product's own decode on one block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from drivers.blocks import Block
from drivers.decode import Placed, Scratch, build_table, decode, spread
from drivers.errors import DriverError
from drivers.quality import GOOD
from gateway.acquire.space import spot_of, width_of
from gateway.model.corridor import Device

ONE: Final = np.zeros(1, np.int32)  # the number of the only scan, and its first row


@dataclass(frozen=True, slots=True)
class Value:
    """A tag after a read; `value` is NaN where the quality is bad."""

    tag: str
    value: float
    quality: int


def values_of(device: Device, block: Block, outcome: bytes | DriverError) -> list[Value]:
    """Return the tags of a device that stand whole in a block, as its answer or error makes them."""
    space = block.function, block.item_bytes
    end = block.start + block.count
    spots = [(tag.point, spot_of(device, tag.point)) for tag in device.tags]
    rows = [
        Placed(point, (spot.start - block.start) * width_of(space))
        for point, spot in spots
        if spot.space == space and block.start <= spot.start and spot.end <= end
    ]
    value, quality = _decode(rows, block, outcome)
    return [Value(row.point.name, v, q) for row, v, q in zip(rows, value, quality, strict=True)]


def _decode(rows: Sequence[Placed], block: Block, outcome: bytes | DriverError) -> tuple[list[float], list[int]]:
    """Return value and quality of each row: the one place that knows the kernel's arguments."""
    payload, why = (outcome, GOOD) if isinstance(outcome, bytes) else (bytes(block.n_bytes), outcome.quality)
    image = np.frombuffer(payload if block.item_bytes else spread(payload, block.count), np.uint8).copy()
    columns = build_table(rows)
    n = len(rows)
    value, quality = np.zeros(n), np.zeros(n, np.uint32)
    s = Scratch()
    decode(
        ONE, ONE, np.array([n], np.int32), image, np.full(n, why, np.uint32),
        columns.at, columns.code, columns.size, columns.order, columns.bit,
        columns.scale, columns.divisor, columns.offset, columns.low, columns.high, columns.sentinel, columns.first,
        s.u8, s.i8, s.f8, s.u4, s.f4, value, quality,
    )  # fmt: skip
    return value.tolist(), quality.tolist()
