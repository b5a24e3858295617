"""The rules as a textbook would have them: one tag, plain Python numbers; shares no code with gateway.detect.

Times are int ns, a value is None when it is bad. `step` takes one poll and returns whether the flag is set after it.
The other twins are in detect_novelty.py and detect_health.py.
"""

import math
from collections import deque

SECOND = 1_000_000_000


class Limit:
    """One limit with deadband and delays; side +1 for high, -1 for low."""

    def __init__(self, edge, side, deadband=0.0, on_delay_ns=0, off_delay_ns=0):
        self.edge, self.side, self.deadband = edge, side, deadband
        self.on_delay_ns, self.off_delay_ns = on_delay_ns, off_delay_ns
        self.is_on, self.waiting_since = False, None

    def step(self, now, value):
        if value is None:
            return self.is_on
        band = self.deadband if self.is_on else 0.0
        beyond = value > self.edge - band if self.side > 0 else value < self.edge + band
        if beyond == self.is_on:
            self.waiting_since = None
            return self.is_on
        if self.waiting_since is None:
            self.waiting_since = now
        delay = self.off_delay_ns if self.is_on else self.on_delay_ns
        if now - self.waiting_since >= delay:
            self.is_on, self.waiting_since = not self.is_on, None
        return self.is_on


class Rate:
    """Farther from the good value before than the limit allows in the time since."""

    def __init__(self, limit):
        self.limit, self.before = limit, None

    def step(self, now, value):
        if value is None:
            return False
        fast = False
        if self.before is not None:
            seconds = (now - self.before[0]) / SECOND
            fast = seconds > 0.0 and abs(value - self.before[1]) > self.limit * seconds
        self.before = (now, value)
        return fast


class Level:
    """Exponentially weighted mean and variance of a tag that has noise, and how far 8 of its sd are."""

    def __init__(self, resolution=0.0):
        self.resolution, self.mean, self.variance, self.n = resolution, 0.0, 0.0, 0

    def sd(self):
        return max(math.sqrt(self.variance), self.resolution, 0.001 * abs(self.mean))

    def far(self):
        """A tag that has shown neither noise nor a level is nowhere far away."""
        return 8.0 * self.sd() if self.n >= 20 and self.sd() > 0.0 else math.inf

    def learn(self, value):
        self.n = min(self.n + 1, 1_000_000)
        error = max(-self.far_before, min(self.far_before, value - self.mean))
        weight = max(1 / 100, 1 / self.n)
        self.mean += weight * error
        self.variance = (1 - weight) * (self.variance + weight * error**2)

    def look(self, value):
        """Return (whether a value is beyond 8 sd, whether within 4)."""
        self.far_before = self.far()
        size = abs(value - self.mean)
        return size > self.far_before, size <= 4.0 * self.sd()


class Steps:
    """How far a tag moves from poll to poll, and did when that was most; half of that is forgotten in four weeks."""

    def __init__(self):
        self.last, self.mean, self.most = None, 0.0, 0.0

    def step(self, seconds, value, far, teaches):
        """Return nothing: a step that leads from one side of what is usual beyond the other is none of its own."""
        self.most *= max(1.0 - seconds * math.log(2) / (28 * 86_400), 0.0)
        if value is None:
            return
        if self.last is not None and teaches and far < math.inf and abs(value - self.last) <= 2.0 * far:
            self.mean += (abs(value - self.last) - self.mean) / 100
            self.most = max(self.most, self.mean)
        self.last = value


class Stillness:
    """For how long a tag has not moved, and how unlikely that is."""

    def __init__(self):
        self.last = None
        self.polls = self.moves = 0
        self.share = self.weight = self.longest = 0.0
        self.began = None

    def step(self, now, value):
        if self.last is None or value != self.last:
            if self.last is not None:
                rest = self.polls + 1  # polls from move to move: in one of them it moved
                self.weight = min(self.weight + rest, max(200, rest))
                self.share += (1 - self.share * rest) / self.weight
                self.longest = max(0.999999 * self.longest, self.polls)
                self.moves = min(self.moves + 1, 1_000_000)
            self.last, self.polls, self.began = value, 0, now
        else:
            self.polls += 1

    def evidence(self):
        """Return how unlikely it is, in nats."""
        return self.polls * self.share

    def is_too_long(self, now):
        if self.moves < 10 or self.polls < 30 or (now - self.began) / SECOND < 20.0:
            return False
        return self.evidence() >= 18.0 and self.polls >= 2.0 * self.longest

    def teaches_level(self):
        """What probably rests shows no noise: one in e^3 of such rests is chance."""
        return self.evidence() < 3.0


class Jumps:
    """Those of all tags of a gateway: who jumps within 10 s of the first is of its group."""

    def __init__(self):
        self.groups = []

    def join(self, now, who):
        """Return the group that a jump belongs to."""
        if not self.groups or now - self.groups[-1][0] > 10 * SECOND:
            self.groups = [*self.groups[-1:], (now, set())]  # an older one has its verdicts by now
        self.groups[-1][1].add(who)
        return self.groups[-1][1]


class Jump:
    """One jump of a tag: from where, when and how far."""

    def __init__(self, now, home):
        self.began, self.home, self.height = now, home, 0.0
        self.judged, self.is_told, self.is_operation = None, False, False

    def climb(self, value):
        self.height = max(self.height, abs(value - self.home))

    def has_stayed(self, value, is_away):
        """The mean may have followed it: then it is no longer away, yet has not come home either."""
        return is_away or abs(value - self.home) > self.height / 4


class Spike:
    """A jump waits for a verdict: until the tag is no longer away, or for six seconds."""

    def __init__(self, jumps):
        self.jumps, self.jump, self.height = jumps, None, 0.0
        self.largest = {"stayed": 0.0, "returned": 0.0}  # of those that it made alone; half is forgotten in four weeks
        self.levels = None  # between which those that stayed led, forgotten as fast
        self.verdict = None

    def step(self, now, value, mean, is_away, is_known, usual):
        """Return whether the flag stands; usual: what is no news however often it was seen."""
        if self.jump is None:
            if is_away:
                self.jump = Jump(now, mean)
                self.jump.climb(value)
                self.height = self.jump.height
                self.jump.group = self.jumps.join(now, self)
            return False
        jump = self.jump
        if is_away:
            jump.climb(value)
            self.height = jump.height
        if jump.judged is None and (not is_away or now - jump.began >= 6 * SECOND):
            self._judge(now, value, is_away, is_known, usual)
        if jump.judged is not None and is_away and not jump.is_operation:
            self.largest["stayed"] = max(self.largest["stayed"], jump.height)
        if jump.judged is not None and is_away:
            self._visit(value)
        if not is_away:
            self.jump = None
        return jump.is_told and now - jump.judged <= 300 * SECOND

    def _judge(self, now, value, is_away, is_known, usual):
        jump = self.jump
        weeks = 0.0 if self.verdict is None else max(now - self.verdict, 0) / (7 * 86_400 * SECOND)
        for what in self.largest:
            self.largest[what] *= 0.5 ** (weeks / 4)
        self.verdict = jump.judged = now
        jump.is_operation = len(jump.group) >= 3
        what = "stayed" if jump.has_stayed(value, is_away) else "returned"
        was_there = what == "stayed" and self._was_at(value, jump.height / 4, 0.5 ** (weeks / 4))
        if what == "stayed":
            self._visit(jump.home)
            self._visit(value)
        if jump.is_operation:
            return
        is_news = jump.height > max(1.25 * self.largest[what], usual) and not was_there
        jump.is_told = is_news and (is_known or what == "returned")
        self.largest[what] = max(self.largest[what], jump.height)

    def _visit(self, level):
        low, high = self.levels or (level, level)
        self.levels = min(low, level), max(high, level)

    def _was_at(self, level, slack, left):
        if self.levels is None:
            return False
        low, high = self.levels
        fade = (1.0 - left) * (high - low) / 2
        self.levels = low + fade, high - fade
        return self.levels[0] - slack <= level <= self.levels[1] + slack


class Gauge:
    """Frozen and spike of one tag: what freezes must not teach the level, so they go together."""

    def __init__(self, jumps, resolution=0.0):
        self.level, self.stillness, self.spike, self.steps = Level(resolution), Stillness(), Spike(jumps), Steps()
        self.first, self.poll, self.was = None, None, (False, False)

    def step(self, now, value):
        """Return (is_frozen, is_spike, score)."""
        seconds = 0.0 if self.poll is None else (now - self.poll) / SECOND
        self.poll = now
        self.first = now if self.first is None else self.first
        if value is None:
            self.steps.step(seconds, None, math.inf, teaches=False)
            self.was = (False, False)
            return False, False, 0.0
        self.stillness.step(now, value)
        self.steps.step(seconds, value, self.level.far(), self.stillness.teaches_level())
        is_away, is_home = self.level.look(value)
        is_frozen = is_home and self.stillness.is_too_long(now)
        if self.stillness.teaches_level():
            self.level.learn(value)
        is_known = now - self.first >= 7 * 86_400 * SECOND
        usual = 7.0 * self.steps.most
        is_spike = self.spike.step(now, value, self.level.mean, is_away and seconds < 150.0, is_known, usual)
        score = 0.0
        if is_frozen and not self.was[0]:
            score = max(score, 1.0 - 9.0 / self.stillness.evidence())
        if is_spike and not self.was[1]:
            z = max(self.spike.height, abs(value - self.level.mean)) / self.level.sd()
            score = max(score, 0.5, z / (z + 8.0))
        self.was = (is_frozen, is_spike)
        return is_frozen, is_spike, score


class Chatter:
    """Six changes within a minute, of a state that was seen to stand still for one: it is no heartbeat."""

    def __init__(self):
        self.seen_since, self.last, self.changes, self.was_calm = None, None, deque(maxlen=6), False

    def step(self, now, value):
        if value is None:
            self.seen_since = now
            return False
        if self.last is None:
            self.seen_since = now
        elif value != self.last:
            self.changes.append(now)
        self.last = value
        is_often = len(self.changes) == 6 and now - self.changes[0] <= 60 * SECOND
        still_since = max(self.seen_since, *list(self.changes)[-1:], 0)
        if now - still_since >= 60 * SECOND:
            self.was_calm = True
        return is_often and self.was_calm


class Governor:
    """Of one asset one flag of statistics is told an hour: who comes later is withheld for as long as it stands."""

    GOVERNED = frozenset({"spike", "shift", "drift", "novelty", "noise", "health"})

    def __init__(self, asset_of):
        self.asset_of = asset_of
        self.told = {}
        self.standing = [set() for _ in asset_of]
        self.withheld = [set() for _ in asset_of]

    def step(self, now, rows, names):
        """Take what detectors say of the tags of a scan, sets of names; returns what is told of each."""
        out = []
        for i, found in zip(rows, names, strict=True):
            governed = found & self.GOVERNED
            begins = governed - self.standing[i]
            self.standing[i] = governed
            self.withheld[i] &= governed
            asset = self.asset_of[i]
            if begins:
                if asset in self.told and 0 <= now - self.told[asset] < 3600 * SECOND:
                    self.withheld[i] |= begins
                else:
                    self.told[asset] = now
            out.append(found - self.withheld[i])
        return out
