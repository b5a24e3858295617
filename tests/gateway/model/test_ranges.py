"""RangeSet against a plain set of numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.ranges import RangeSet, from_text, to_text

small = st.integers(0, 60)
spans = st.tuples(small, small).map(lambda pair: (min(pair), max(pair)))
many = st.lists(spans, max_size=20)


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in ranges for n in range(first, last + 1)}


def check(found: RangeSet, wanted: set[int]) -> None:
    ranges = list(found)
    assert numbers(ranges) == wanted
    assert found.total == len(wanted)
    assert bool(found) == bool(wanted)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges)), "sorted, disjoint, none adjacent"
    assert [n for n in range(-1, 62) if n in found] == sorted(wanted)


@given(many)
def test_adding_is_a_union(ranges: list[tuple[int, int]]) -> None:
    check(RangeSet(ranges), numbers(ranges))


@given(many, many)
def test_adding_again_or_in_another_order_changes_nothing(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    assert RangeSet([*a, *b]) == RangeSet([*reversed(b), *a, *b, *a])


@given(many, small)
def test_discard_below(ranges: list[tuple[int, int]], number: int) -> None:
    found = RangeSet(ranges)
    found.discard_below(number)
    check(found, {n for n in numbers(ranges) if n >= number})


@given(many, many)
def test_missing_is_the_difference(have: list[tuple[int, int]], whole: list[tuple[int, int]]) -> None:
    check(RangeSet(have).missing_from(RangeSet(whole)), numbers(whole) - numbers(have))


@given(many, spans)
def test_count_of_a_span(ranges: list[tuple[int, int]], span: tuple[int, int]) -> None:
    assert RangeSet(ranges).count(*span) == len(numbers(ranges) & numbers([span]))


@given(many)
def test_a_copy_goes_its_own_way(ranges: list[tuple[int, int]]) -> None:
    found = RangeSet(ranges)
    RangeSet(found).add(100)
    check(found, numbers(ranges))


@given(many)
def test_text_and_back(ranges: list[tuple[int, int]]) -> None:
    assert RangeSet(from_text(to_text(RangeSet(ranges)))) == RangeSet(ranges)
    assert from_text(to_text(ranges)) == ranges


@pytest.mark.parametrize("text", ["3-1", "a", "1,,2", "-", "1-", "-4", "1-2-3"])
def test_text_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(text)


def test_a_set_of_billions_is_copied_like_one_of_two() -> None:
    whole = RangeSet([(1, 2**62), (2**62 + 2, 2**63 - 1)])
    assert [*whole] == list(whole) == [(1, 2**62), (2**62 + 2, 2**63 - 1)]
    assert whole.total == 2**63 - 2
    assert not hasattr(whole, "__len__"), "list() would reserve eight bytes for each number"


def test_a_range_that_ends_before_it_begins() -> None:
    with pytest.raises(ValueError, match="5-4"):
        RangeSet().add(5, 4)
