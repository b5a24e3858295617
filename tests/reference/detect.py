"""Detectors as a textbook would have them: one tag, plain Python numbers; shares no code with gateway.detect.

Each takes (time_s, value or None for bad) one by one and returns whether the flag is set after it.
"""

import math


class Limit:
    """One limit with deadband and delays; side +1 for high, -1 for low."""

    def __init__(self, edge, side, deadband=0.0, on_delay_s=0.0, off_delay_s=0.0):
        self.edge, self.side, self.deadband = edge, side, deadband
        self.on_delay_s, self.off_delay_s = on_delay_s, off_delay_s
        self.is_on, self.waiting_since = False, None

    def step(self, time_s, value):
        if value is None:
            return self.is_on
        band = self.deadband if self.is_on else 0.0
        beyond = value > self.edge - band if self.side > 0 else value < self.edge + band
        if beyond == self.is_on:
            self.waiting_since = None
            return self.is_on
        if self.waiting_since is None:
            self.waiting_since = time_s
        delay = self.off_delay_s if self.is_on else self.on_delay_s
        if time_s - self.waiting_since >= delay:
            self.is_on, self.waiting_since = not self.is_on, None
        return self.is_on


class Rate:
    """Speed between two good values."""

    def __init__(self, limit):
        self.limit, self.before = limit, None

    def step(self, time_s, value):
        if value is None:
            return False
        fast = self.before is not None and abs(value - self.before[1]) / (time_s - self.before[0]) > self.limit
        self.before = (time_s, value)
        return fast


class Frozen:
    """Stillness that is too unlikely given how often the tag moved before."""

    def __init__(self):
        self.last, self.since, self.still, self.moves, self.polls, self.share = None, None, 0, 0, 0, 0.0

    def step(self, time_s, value):
        if value is None:
            return False
        if self.last is None:
            self.last, self.since = value, time_s
            return False
        if value != self.last:
            episode = self.still + 1
            self.polls = min(self.polls + episode, max(200, episode))
            self.share += (1 / episode - self.share) * episode / self.polls
            self.last, self.since, self.still, self.moves = value, time_s, 0, self.moves + 1
            return False
        self.still += 1
        unlikely = -self.still * math.log(1 - min(self.share, 0.999999)) >= 18.0
        return self.moves >= 10 and self.still >= 30 and time_s - self.since >= 20 and unlikely


class Ewma:
    """Distance from the recent mean in recent standard deviations."""

    def __init__(self, resolution=0.0):
        self.resolution, self.mean, self.variance, self.seen = resolution, 0.0, 0.0, 0

    def step(self, time_s, value):
        if value is None:
            return False
        self.seen += 1
        error = value - self.mean
        sd = max(math.sqrt(self.variance), 0.001 * abs(self.mean), self.resolution)
        flag = self.seen > 20 and sd > 0 and abs(error) / sd > 8
        if flag:
            error = math.copysign(8 * sd, error)
        a = max(0.01, 1 / self.seen)
        self.mean += a * error
        self.variance = (1 - a) * (self.variance + a * error * error)
        return flag
