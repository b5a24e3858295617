from __future__ import annotations

import numpy as np

from gateway.console.ring import Ring

ROW = np.array([0], np.intp)


def push(ring: Ring, *samples: tuple[int, float]) -> None:
    for time_ns, value in samples:
        ring.push(ROW, time_ns, np.array([value]))


def content(ring: Ring) -> list[tuple[int, float]]:
    times, values = ring.read(0)
    return list(zip(times.tolist(), values.tolist(), strict=True))


def test_keeps_the_newest_in_order_when_it_is_full() -> None:
    ring = Ring(1, capacity=3)
    push(ring, *[(t, float(t)) for t in range(10, 17)])
    assert content(ring) == [(14, 14.0), (15, 15.0), (16, 16.0)]


def test_a_late_sample_goes_where_it_belongs_and_a_repeat_changes_nothing() -> None:
    ring = Ring(1, capacity=4)
    push(ring, (10, 1.0), (30, 3.0), (20, 2.0), (30, 3.0))
    assert content(ring) == [(10, 1.0), (20, 2.0), (30, 3.0)]
    push(ring, (40, 4.0), (50, 5.0), (45, 4.5))
    assert content(ring) == [(30, 3.0), (40, 4.0), (45, 4.5), (50, 5.0)]


def test_a_backlog_older_than_the_ring_does_not_push_out_live_samples() -> None:
    ring = Ring(1, capacity=3)
    push(ring, (100, 1.0), (101, 2.0), *[(t, 0.0) for t in range(10, 50)])
    assert content(ring) == [(100, 1.0), (101, 2.0)]


def test_equals_a_sorted_list_for_any_order_of_arrival() -> None:
    rng = np.random.default_rng(7)
    ring, plain = Ring(1, capacity=8), {}
    for time_ns in rng.integers(0, 200, 500).tolist():
        push(ring, (time_ns, float(time_ns)))
        if not plain or time_ns >= min(plain):
            plain[time_ns] = float(time_ns)
            plain = dict(sorted(plain.items())[-8:])
    assert content(ring) == sorted(plain.items())
