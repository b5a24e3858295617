"""The cheapest legal reads that cover points: optimal by dynamic programming, pure and remembered."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from gateway.acquire.cost import Cost
from gateway.acquire.space import Space, Span


@dataclass(frozen=True, slots=True)
class Rules:
    """What one read may be, in one space of one device.

    limit    addresses of the largest read
    max_gap  undefined addresses in a row that a read may cross
    defined  addresses that are known to be there, sorted and apart: to cross them is no gap
    closed   spans that no read may touch
    refused  spans that no read may contain
    """

    limit: int
    max_gap: int
    defined: tuple[Span, ...]
    closed: tuple[Span, ...] = ()
    refused: tuple[Span, ...] = ()

    def may_read(self, start: int, end: int) -> bool:
        """Return whether the addresses of one point may be read at all."""
        return not (
            any(start < b and a < end for a, b in self.closed) or any(start <= a and b <= end for a, b in self.refused)
        )

    def reach(self, start: int) -> int:
        """Return where a read that begins at `start` must end at the latest."""
        before_closed = min((a for a, b in self.closed if start < b), default=start + self.limit)
        before_refused = min((b - 1 for a, b in self.refused if start <= a), default=start + self.limit)
        return min(start + self.limit, before_closed, before_refused)

    def undefined(self, start: int, end: int) -> int:
        """Return the longest run of undefined addresses in [start, end)."""
        longest = 0
        for a, b in self.defined:
            if b > start and a < end:
                longest = max(longest, a - start)
                start = max(start, b)
        return max(longest, end - start)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the addresses of some spans as spans that are sorted and apart."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return tuple(out)


@lru_cache(maxsize=256)  # devices of one profile are planned once
def cover(spans: tuple[Span, ...], space: Space, rules: Rules, cost: Cost) -> tuple[tuple[int, int], ...]:
    """Return the cheapest legal reads as pairs (i, j): one read serves spans[i:j], from their first to their last.

    spans  sorted, each readable by itself. Each stands whole in one read; one that alone exceeds the limit has a read
           of its own, which plan() refuses.
    The partition is optimal among all covers: where one read does not contain another, each span can be given to the
    last read that holds it, and that keeps the order.
    """
    n = len(spans)
    _, item = space
    crossed = _crossed(spans, rules)
    best = [0.0] + [math.inf] * n
    cut = [0] * (n + 1)
    for i in range(n):
        start, end = spans[i]
        reach = rules.reach(start)
        for j in range(i, n):
            end = max(end, spans[j][1])
            if j > i and (crossed[j] > rules.max_gap or end > reach):
                break
            total = best[i] + cost.of(end - start, item)
            if total < best[j + 1]:
                best[j + 1], cut[j + 1] = total, i
    pairs = []
    j = n
    while j:
        pairs.append((cut[j], j))
        j = cut[j]
    return tuple(reversed(pairs))


def _crossed(spans: tuple[Span, ...], rules: Rules) -> list[int]:
    """Return, for each span, the undefined addresses in a row between all spans before it and its start."""
    out = []
    end = spans[0][0]
    for start, stop in spans:
        out.append(rules.undefined(end, start) if start > end else 0)
        end = max(end, stop)
    return out
