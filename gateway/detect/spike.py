"""Spike: one meter jumps far out of its own noise, alone, and farther than it ever stayed before.

What returns at once is the meter, what stays is the process; and what moves several meters in the same moments is an
operation, not a fault of one of them. So a verdict waits until the value is back, or for some seconds, and looks at
the neighbours: a pump that starts is no alarm of twelve tags. A jump that stays is told only of a tag that has shown a
week of what its operators do to it.
What has happened before, alone and as large, is usual: a load may come in pulses. And a jump that stays is usual if it
leads to where another one has led before, or from where: a pump stops as high as it ran.
Source of the z-score: Roberts, "Control chart tests based on geometric moving averages", Technometrics 1 (1959).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from drivers.jit import kernel
from gateway.detect.flags import SPIKE

ALPHA: Final = 1 / 100  # memory of about 100 polls
WARM_UP: Final = 20.0  # polls before the first verdict; a variance from fewer is mostly luck
Z_ALARM: Final = 8.0  # a Gaussian tag passes this once in 10^15; heavy tails still leave it rare
FLOOR_RELATIVE: Final = 1e-3  # of the mean: meters are not better than 0.1 %, so less is never news
SLOWEST_S: Final = 150.0  # between polls; a tag that is read less often is judged poll by poll by `novelty` itself
CONFIRM_NS: Final = 6_000_000_000  # a verdict waits so long for what stays: ramps take 5 to 20 s (DOMAIN section 4)
TOGETHER_NS: Final = 10_000_000_000  # a pump or valve moves everything that it moves within 10 s or so
MOVERS: Final = 3  # tags that jump together: two may be one meter's value and its sum
KNOWN_NS: Final = 604_800_000_000_000  # a week
USUAL: Final = 1.25  # times the largest jump so far that stayed, or returned: what is not more has been seen before

BACK: Final = 0.25  # of the jump is left where it has returned; a motor's inrush falls to half, and the motor runs
STEPS: Final = 7.0  # mean steps of its roughest time are usual: of noise, whose step is 1.13 sd, that is Z_ALARM

HALF_LIFE_NS: Final = 4 * 604_800_000_000_000  # of what is usual: once a week is, once in a fortnight is news

CALM: Final = 0  # states of `away_ns`: no jump; above 0 since when one waits for its verdict
SETTLED: Final = -1  # judged: usual, or not to be told yet
TOLD: Final = -2  # judged: a spike
OPERATED: Final = -3  # judged: an operation, which says nothing of what a meter does alone
STANDS_NS: Final = 300_000_000_000  # of the flag: who is still away then has a new level, whether it moves there or not


@kernel(
    "void(i8, i8, f8, f8, f8, b1, b1, i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[:, ::1], i8[::1], i8[::1], "
    "i8[::1], u2[::1])",
    inner=True,
)
def judge_spike(
    i, now, value, mean, roughest, is_away, is_known, away_ns, home, size_away, jump, blip, levels, counted_ns, told_ns,
    group, standing,
):  # fmt: skip
    """Advance tag i by one good value, farther from its mean than the alarm if is_away.

    A jump that stays is told if the tag is_known. roughest: its mean step from poll to poll when that was largest.
    away_ns int64[n] state, see CALM; home, size_away float64[n], where the jump began and how far it went
    jump, blip float64[n] state, the largest that stayed, and that returned, of those that the tag made alone
    levels float64[n, 2] state, the span of the levels that jumps led from and to
    counted_ns int64[n] state, of which group a tag was last; group int64[4] state: when the last group of jumps began,
            how many tags it has, and both of the group before;  told_ns int64[n] state, when the verdict was
    standing uint16[n] state, of which SPIKE is ours
    """
    if away_ns[i] == CALM:
        if is_away:
            away_ns[i] = max(now, 1)
            home[i] = mean
            size_away[i] = abs(value - mean)
            if now - group[0] > TOGETHER_NS:
                group[2], group[3] = group[0], group[1]
                group[0], group[1] = now, 0
            if counted_ns[i] != group[0]:  # a meter that flickers is one
                counted_ns[i] = group[0]
                group[1] += 1
        return
    if is_away:
        size_away[i] = max(size_away[i], abs(value - home[i]))  # a ramp shows its height only at its end
    if away_ns[i] > CALM and (now - away_ns[i] >= CONFIRM_NS or not is_away):
        # what is no longer far from its mean may be so because the mean has followed it
        has_stayed = is_away or abs(value - home[i]) > BACK * size_away[i]
        of_last, of_one_before = counted_ns[i] == group[0], counted_ns[i] == group[2]
        is_operation = (of_last and group[1] >= MOVERS) or (of_one_before and group[3] >= MOVERS)
        left = 0.5 ** (max(now - told_ns[i], 0) / HALF_LIFE_NS)
        jump[i] *= left
        blip[i] *= left
        is_usual = size_away[i] <= max(USUAL * (jump[i] if has_stayed else blip[i]), STEPS * roughest)
        if has_stayed:
            if levels[i, 1] > levels[i, 0]:
                fade = 0.5 * (1.0 - left) * (levels[i, 1] - levels[i, 0])
                levels[i, 0] += fade
                levels[i, 1] -= fade
            slack = (USUAL - 1.0) * size_away[i]
            is_usual = is_usual or levels[i, 0] - slack <= value <= levels[i, 1] + slack
            levels[i, 0] = min(levels[i, 0], min(value, home[i]))
            levels[i, 1] = max(levels[i, 1], max(value, home[i]))
        if is_operation:
            away_ns[i] = OPERATED
        else:
            if has_stayed:
                jump[i] = max(jump[i], size_away[i])
            else:
                blip[i] = max(blip[i], size_away[i])
            away_ns[i] = SETTLED if is_usual or (has_stayed and not is_known) else TOLD
        told_ns[i] = now
    if (away_ns[i] == SETTLED or away_ns[i] == TOLD) and is_away:
        jump[i] = max(jump[i], size_away[i])
    if away_ns[i] < CALM and is_away:
        levels[i, 0], levels[i, 1] = min(levels[i, 0], value), max(levels[i, 1], value)
    if away_ns[i] == TOLD and now - told_ns[i] > STANDS_NS:
        away_ns[i] = SETTLED
    if away_ns[i] == TOLD:
        standing[i] |= np.uint16(SPIKE)
    if not is_away:
        away_ns[i] = CALM
