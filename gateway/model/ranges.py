"""A set of sequence numbers kept as ranges: what was committed, acknowledged, stored."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """Whole numbers as sorted, disjoint, inclusive ranges; adding in order costs O(1)."""

    __slots__ = ("_first", "_last")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        if isinstance(ranges, RangeSet):
            self._first[:], self._last[:] = ranges._first, ranges._last
            return
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int | None = None) -> None:
        """Add first..last, both included."""
        last = first if last is None else last
        if last < first:
            raise ValueError(f"range {first}-{last} ends before it begins")
        if self._last and first == self._last[-1] + 1:
            self._last[-1] = last
            return
        i = bisect_left(self._last, first - 1)
        j = bisect_right(self._first, last + 1)
        if i < j:
            first, last = min(first, self._first[i]), max(last, self._last[j - 1])
        self._first[i:j] = [first]
        self._last[i:j] = [last]

    def discard(self, first: int, last: int) -> None:
        """Forget every number of first..last."""
        i = bisect_left(self._last, first)
        j = bisect_right(self._first, last)
        if i >= j:
            return
        low, high = self._first[i], self._last[j - 1]
        self._first[i:j] = [a for a, keep in ((low, low < first), (last + 1, high > last)) if keep]
        self._last[i:j] = [b for b, keep in ((first - 1, low < first), (high, high > last)) if keep]

    def discard_below(self, number: int) -> None:
        """Forget every number below `number`."""
        i = bisect_left(self._last, number)
        del self._first[:i], self._last[:i]
        if self._first and self._first[0] < number:
            self._first[0] = number

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._first, number) - 1
        return i >= 0 and number <= self._last[i]

    def covers(self, first: int, last: int) -> bool:
        """Return whether every number of first..last is in the set."""
        i = bisect_right(self._first, first) - 1
        return i >= 0 and last <= self._last[i]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._first, self._last, strict=True)

    @property
    def total(self) -> int:
        """How many numbers the set holds; not __len__, which list() would reserve memory for."""
        return sum(self._last) - sum(self._first) + len(self._first)

    def count(self, first: int, last: int) -> int:
        """Return how many of first..last are in the set; quick also for a set in tatters."""
        i, j = bisect_left(self._last, first), bisect_right(self._first, last)
        if i >= j:
            return 0
        inside = sum(self._last[i:j]) - sum(self._first[i:j]) + j - i
        return inside - max(0, first - self._first[i]) - max(0, self._last[j - 1] - last)

    def __bool__(self) -> bool:
        return bool(self._first)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._first == other._first and self._last == other._last

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RangeSet({to_text(self)!r})"

    def common(self, other: RangeSet) -> RangeSet:
        """Return the numbers that both sets have."""
        return other.missing_from(self).missing_from(self)

    def missing_from(self, whole: RangeSet) -> RangeSet:
        """Return the numbers of `whole` that are not in this set."""
        out = RangeSet()
        for first, last in whole:
            at = first
            i = bisect_left(self._last, first)
            while i < len(self._first) and self._first[i] <= last:
                if at < self._first[i]:
                    out.add(at, self._first[i] - 1)
                at = self._last[i] + 1
                i += 1
            if at <= last:
                out.add(at, last)
        return out


def to_text(ranges: Iterable[tuple[int, int]]) -> str:
    """Return ranges as `1201,1207-1208`."""
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def from_text(text: str) -> list[tuple[int, int]]:
    """Return the ranges of `1201,1207-1208`, in the order given; raises ValueError."""
    out = []
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        pair = (int(first), int(last) if dash else int(first))
        if pair[1] < pair[0]:
            raise ValueError(f"range {part} ends before it begins")
        out.append(pair)
    return out
