"""The rules of every sample, in one pass over the columns: limits, rate, frozen, spike.

All of them look at every value of every tag, so memory is what they cost: each column is loaded once, for all of them,
in a loop without branches that the compiler turns into vectors. That pass only finds whom to ask; what has a memory of
alarms is judged for those few in `limits` and `spike`.

    rate    faster than the process can: |dx/dt| above the limit of the site
    frozen  a good frame that carries a dead number, as meters that "hold the last valid value" send: not moving for
            longer than the share of polls in which the tag moves lets expect, and than twice its longest rest, while
            it stands where it usually moves. A pump at rest stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from drivers.jit import kernel
from drivers.quality import BAD
from gateway.detect.detector import Axis, Turn
from gateway.detect.flags import FROZEN, LIMITS, RATE, SPIKE
from gateway.detect.limits import N_LIMITS, judge_limits
from gateway.detect.spike import (
    ALPHA,
    CALM,
    FLOOR_RELATIVE,
    HALF_LIFE_NS,
    KNOWN_NS,
    SLOWEST_S,
    WARM_UP,
    Z_ALARM,
    judge_spike,
)
from gateway.detect.tags import KINDS, Tags
from gateway.model.frame import DETECT_BITS

S_PER_NS: Final = 1e-9
RULE_SCORE: Final = 0.5  # of a tag at the frame with which a rule begins to speak of it, at least
MAX_SEEN: Final = 1e6  # polls; more would not change a weight
MAX_SIZE: Final = 1e30  # from the mean: what is farther away is no measurement, and its square might never be forgotten

MEMORY: Final = 200.0  # polls over which the share of those in which the value moves is learnt
MIN_STILL: Final = 30.0  # polls; below that no stillness is evidence
MIN_STILL_S: Final = 20.0  # and 20 s, however fast the polls
MIN_MOVES: Final = 10.0  # a tag that has not yet moved this often has shown no noise to miss
EVIDENCE: Final = 18.0  # nats: a tag that moves as before stays still this long once in 66 million times
LONGER: Final = 2.0  # times the longest rest that it has shown
FORGET: Final = 0.999999  # of that rest, at each move: half of it in eight days of a tag that moves every second
AT_REST: Final = 3.0  # nats: from then on stillness teaches nothing of the level and the noise of what moves
FADE: Final = np.log(2.0) / (HALF_LIFE_NS * S_PER_NS)  # a second, of what was the roughest
TWICE: Final = 2.0  # Z_ALARM: from one side of what is usual to the other is the longest step that a tag makes as ever
AT_HOME: Final = 4.0  # sd from its mean at most: one that stopped farther away did not freeze, it went there to rest

BEYOND: Final = 1  # what the pass says of a row: outside the quiet interval of its limits
FAST: Final = 2  # above its rate
STILL: Final = 4  # frozen
AWAY: Final = 8  # farther from its mean than Z_ALARM

_COLUMNS: Final = ", ".join(["f8[::1]"] * 19)


@kernel(f"i8(i8, i8, f8, f8[::1], u4[::1], {_COLUMNS}, u1[::1])", noalias=True, inner=True)
def look(
    start, stop, dt, value, quality,
    quiet_low, quiet_high, rate, still_from, z_alarm, resolution,
    mean, variance, seen, last, idle, still, rest, share, polls, moves, longest, rough, roughest, hint,
):  # fmt: skip
    """Advance rows start to stop by one frame that comes dt seconds after their last; return all hints together.

    quiet_low, quiet_high, rate float64[n]; still_from float64[n] polls; z_alarm float64[n] sd; resolution float64[n]
                    what is looked for; infinite where it is not
    mean, variance, seen float64[n]  state: of the values, exponentially weighted, from how many; what lies beyond
                    z_alarm teaches as if it lay there, and a tag at rest teaches nothing
    last, idle float64[n]  state: the last good value (NaN: none), and the seconds since then
    still, rest float64[n]  state: for how many polls and seconds it has not moved
    share, polls, moves, longest float64[n]  state: of how many polls it moves in what share, and how often it did; its
                    longest rest, polls
    rough, roughest float64[n]  state: mean step from poll to poll, of those within z_alarm to both sides; the largest
                    that it has been, of which half is forgotten in four weeks
    hint     uint8[n], set: BEYOND, FAST, STILL, AWAY; 0 for a bad value
    """
    found = 0
    left = max(1.0 - FADE * dt, 0.0)
    for row in range(start, stop):
        i = np.uintp(row)  # an index that cannot be negative: else no vectors
        v = value[i]
        good = (quality[i] & BAD) == 0
        m, r, s, n, p, top = mean[i], variance[i], seen[i], still[i], polls[i], longest[i]
        w, x, seconds, k = share[i], last[i], rest[i], moves[i]
        gap = idle[i] + dt
        idle[i] = 0.0 if good else gap
        is_beyond = (v < quiet_low[i]) | (v > quiet_high[i])
        d = abs(v - x)
        is_fast = (d > rate[i] * gap) & (gap > 0.0)
        last[i] = v if good else x

        is_same = d == 0.0
        length = n + 1.0
        has_moved = good & (d > 0.0)
        p2 = min(p + length, max(MEMORY, length))
        w2 = w + (1.0 - w * length) / p2
        share[i] = w2 if has_moved else w
        polls[i] = p2 if has_moved else p
        k2 = min(k + 1.0, MAX_SEEN)
        moves[i] = k2 if has_moved else k
        top2 = max(FORGET * top, n)
        longest[i] = top2 if has_moved else top
        n2 = length if is_same else 0.0
        n2 = n2 if good else n
        still[i] = n2
        seconds2 = seconds + gap
        seconds2 = seconds2 if is_same else 0.0
        rest[i] = seconds2 if good else seconds
        evidence = n2 * w

        e = v - m
        sd = max(np.sqrt(r), max(resolution[i], FLOOR_RELATIVE * abs(m)))
        far = z_alarm[i] * sd
        far = far if (s >= WARM_UP) & (sd > 0.0) else np.inf
        size = abs(e)
        is_away = size > far
        is_still = (evidence >= EVIDENCE) & (n2 >= max(still_from[i], LONGER * top))
        is_still = is_still & (k >= MIN_MOVES) & (seconds2 >= MIN_STILL_S) & (size <= AT_HOME * sd)
        teaches = good & (evidence < AT_REST) & (size < MAX_SIZE)
        step, most = rough[i], left * roughest[i]
        is_usual = teaches & (far < np.inf) & (d <= TWICE * far)
        step2 = step + ALPHA * (d - step)
        rough[i] = step2 if is_usual else step
        most2 = max(most, step2)
        roughest[i] = most2 if is_usual else most
        e = min(max(e, -far), far)
        s2 = min(s + 1.0, MAX_SEEN)
        a = max(ALPHA, 1.0 / s2)
        m2 = m + a * e
        r2 = (1.0 - a) * (r + a * e * e)
        mean[i] = m2 if teaches else m
        variance[i] = r2 if teaches else r
        seen[i] = s2 if teaches else s

        h = (BEYOND if is_beyond else 0) | (FAST if is_fast else 0) | (STILL if is_still else 0)
        h |= AWAY if is_away else 0
        h = h if good else 0
        hint[i] = np.uint8(h)
        found |= h
    return found


_LIMIT_COLUMNS: Final = "f8[:, ::1], f8[::1], i8[::1], i8[::1], i8[:, ::1]"
_SPIKE_COLUMNS: Final = "i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[:, ::1], i8[::1], i8[::1], i8[::1]"


@kernel(
    f"void(i4[::1], i4[::1], i4[::1], i8[:, ::1], f8[:, ::1], u4[:, ::1], {_COLUMNS}, u1[::1], "
    f"i8[::1], i8[::1], u1[::1], {_LIMIT_COLUMNS}, {_SPIKE_COLUMNS}, u2[::1], f8[:, ::1], u2[:, ::1])"
)
def step(
    ready, start, stop, time_ns, value, quality,
    quiet_low, quiet_high, rate, still_from, z_alarm, resolution,
    mean, variance, seen, last, idle, still, rest, share, polls, moves, longest, rough, roughest, hint,
    first_ns, before_ns, busy,
    limit, deadband, on_delay_ns, off_delay_ns, since_ns,
    away_ns, home, size_away, jump, blip, levels, counted_ns, told_ns, group,
    standing, score, flags,
):  # fmt: skip
    """Advance every tag of the ready scans by each frame in turn; see `look`, `judge_limits`, `judge_spike`.

    first_ns, before_ns int64[scans] state: when its first and its last frame was, 0: never
    busy      uint8[scans] state: whether a flag of its tags stands, or a verdict is awaited
    standing  uint16[n] state: the flags that stand;  score float64[frames, n] raised, flags uint16[frames, n] set
    """
    for k in range(time_ns.shape[0]):
        for number in ready:
            a, b = start[number], stop[number]
            now = time_ns[k, number]
            dt = max(now - before_ns[number], 0) * S_PER_NS if before_ns[number] != 0 else 0.0
            before_ns[number] = max(now, before_ns[number])
            if first_ns[number] == 0:
                first_ns[number] = now
            found = look(
                a, b, dt, value[k], quality[k],
                quiet_low, quiet_high, rate, still_from, z_alarm, resolution,
                mean, variance, seen, last, idle, still, rest, share, polls, moves, longest, rough, roughest, hint,
            )  # fmt: skip
            if found == 0 and not busy[number]:
                continue
            is_busy = False
            for i in range(a, b):
                is_bad = (quality[k, i] & BAD) != 0
                if is_bad:
                    standing[i] &= np.uint16(LIMITS)  # a bad reading proves nothing either way
                elif hint[i] != 0 or standing[i] != 0 or away_ns[i] != CALM:
                    h, was = hint[i], standing[i]
                    standing[i] &= np.uint16(LIMITS)
                    if h & BEYOND:
                        judge_limits(
                            i, now, value[k, i], limit, deadband, on_delay_ns, off_delay_ns, since_ns,
                            standing, quiet_low, quiet_high,
                        )  # fmt: skip
                    if h & FAST:
                        standing[i] |= np.uint16(RATE)
                    if h & STILL:
                        standing[i] |= np.uint16(FROZEN)
                    size = abs(value[k, i] - mean[i])
                    if h & AWAY or away_ns[i] != CALM:
                        is_away = (h & AWAY) != 0 and dt < SLOWEST_S
                        is_known = now - first_ns[number] >= KNOWN_NS
                        judge_spike(
                            i, now, value[k, i], mean[i], roughest[i], is_away, is_known,
                            away_ns, home, size_away, jump, blip, levels, counted_ns, told_ns, group, standing,
                        )  # fmt: skip
                    rose = standing[i] & ~was
                    if rose & (RATE | FROZEN | SPIKE):
                        score[k, i] = max(score[k, i], RULE_SCORE)
                    if rose & FROZEN:
                        score[k, i] = max(score[k, i], 1.0 - 0.5 * EVIDENCE / (still[i] * share[i]))
                    if rose & SPIKE:
                        sd = max(np.sqrt(variance[i]), max(resolution[i], FLOOR_RELATIVE * abs(mean[i])))
                        z = max(size_away[i], size) / sd
                        score[k, i] = max(score[k, i], z / (z + z_alarm[i]))
                flags[k, i] |= standing[i]
                is_busy = is_busy or standing[i] != 0 or away_ns[i] != CALM
            busy[number] = is_busy


class Rules:
    """Limits, rate, frozen and spike of all tags."""

    name: Final = "rules"
    axes: Final[Mapping[str, Axis | None]] = MappingProxyType(
        {
            **dict.fromkeys(("first_ns", "before_ns", "busy"), "scan"),
            **dict.fromkeys(("group", "away_ns", "standing")),
            **dict.fromkeys(("quiet_low", "quiet_high")),  # they follow from the limits, which may be others by then
        }
    )

    def __init__(self, tags: Tags) -> None:
        self._tags = tags
        n = tags.n
        is_gauge = tags.kind == KINDS.index("gauge")
        watches = {name: (tags.detect & bit) != 0 for name, bit in DETECT_BITS.items()}
        has_limits = watches["limits"] & ~np.isnan(tags.limit).all(axis=1)
        self._rate = np.where(watches["rate"] & ~np.isnan(tags.rate), tags.rate, np.inf)
        self._still_from = np.where(watches["frozen"] & is_gauge, MIN_STILL, np.inf)
        self._z_alarm = np.where(watches["spike"] & is_gauge, Z_ALARM, np.inf)
        self._hint = np.zeros(n, np.uint8)
        self._state: dict[str, NDArray[Any]] = {
            "quiet_low": np.where(has_limits, np.inf, -np.inf),
            "quiet_high": np.where(has_limits, -np.inf, np.inf),
            **{name: np.zeros(n) for name in ("mean", "variance", "seen")},
            "last": np.full(n, np.nan),
            **{name: np.zeros(n) for name in ("idle", "still", "rest", "share", "polls", "moves", "longest")},
            **{name: np.zeros(n) for name in ("rough", "roughest")},
            "since_ns": np.zeros((n, N_LIMITS), np.int64),
            "away_ns": np.zeros(n, np.int64),
            "home": np.zeros(n),
            "size_away": np.zeros(n),
            "jump": np.zeros(n),
            "blip": np.zeros(n),
            "levels": np.tile([np.inf, -np.inf], (n, 1)),
            "counted_ns": np.zeros(n, np.int64),
            "told_ns": np.zeros(n, np.int64),
            "standing": np.zeros(n, np.uint16),
            "first_ns": np.zeros(tags.n_scans, np.int64),
            "before_ns": np.zeros(tags.n_scans, np.int64),
            "busy": np.zeros(tags.n_scans, np.uint8),
            "group": np.zeros(4, np.int64),
        }

    def update(self, turn: Turn) -> None:
        """Advance by the frames of a turn; see `step`."""
        t, s = self._tags, self._state
        step(
            turn.ready, t.scan_start, t.scan_stop, turn.time_ns, turn.value, turn.quality,
            s["quiet_low"], s["quiet_high"], self._rate, self._still_from, self._z_alarm, t.resolution,
            s["mean"], s["variance"], s["seen"], s["last"], s["idle"], s["still"], s["rest"], s["share"], s["polls"],
            s["moves"], s["longest"], s["rough"], s["roughest"], self._hint, s["first_ns"], s["before_ns"], s["busy"],
            t.limit, t.deadband, t.on_delay_ns, t.off_delay_ns, s["since_ns"],
            s["away_ns"], s["home"], s["size_away"], s["jump"], s["blip"], s["levels"],
            s["counted_ns"], s["told_ns"], s["group"],
            s["standing"], turn.score, turn.flags,
        )  # fmt: skip

    def stand(self, row: int, bit: int) -> None:
        """Let a flag of a limit stand before the first frame."""
        if np.isnan(self._tags.limit[row, bit.bit_length() - 1]):
            return  # a limit that is gone
        self._state["standing"][row] |= bit
        self._state["busy"][np.searchsorted(self._tags.scan_stop, row, side="right")] = 1

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the columns that a restart may carry over."""
        return self._state
