"""Five-minute buckets, five envelopes and two sums as a textbook would have them: one scan, one tag, plain numbers."""

import math
import struct

SECOND = 1_000_000_000
GAUGE, COUNTER, STATE = "gauge", "counter", "state"
LEVEL, DAY, WEEK, STEP, TREND = "level", "day", "week", "step", "trend"


def single(x):
    """Return the float32 next to x: envelopes are kept so."""
    return struct.unpack("f", struct.pack("f", x))[0]


class Clock:
    """When the buckets of a scan end: with the last frame that fits into five minutes, or unseen, in a gap."""

    def __init__(self):
        self.first, self.began, self.before, self.frames, self.usual = None, None, None, 0, 0.0

    def step(self, now):
        """Take a frame; returns how the bucket before it ended, (when, whether it was long enough), None if it did not
        end before; and whether the one that this frame is in ends with it.
        """
        if self.first is None:
            self.first = self.before = now
        passed, usual_before, last = (now - self.before) / SECOND, self.usual, self.before
        expected = min(passed, 4.0 * self.usual) if self.usual > 0.0 else passed
        self.usual += (0.1 if self.usual > 0.0 else 1.0) * (expected - self.usual)
        self.before = now
        ended = None
        if self.frames and now - self.began >= 300 * SECOND:
            ended = last, (last - self.began) / SECOND + usual_before >= 150.0
            self.frames_of_ended, self.frames = self.frames, 0
        if not self.frames:
            self.began = now
        self.frames += 1
        ends = expected > 0.0 and (now - self.began) / SECOND + expected >= 300.0
        self.frames_at_end = self.frames
        if ends:
            self.frames = 0
        return ended, ends


class Bucket:
    """What five minutes of a tag come to."""

    def __init__(self, kind):
        self.kind, self.values, self.changes, self.way = kind, [], 0, 0.0
        self.last, self.before = None, None

    def add(self, value):
        if value is None:
            return
        if self.last is not None:
            self.changes += value != self.last
            self.way += abs(value - self.last)
        self.values.append(value)
        self.last = value

    def noise(self):
        """Return the way from value to value, and how many steps it took."""
        way, self.way = self.way, 0.0
        return way, len(self.values) - 1

    def close(self, end, frames):
        """Return its value at `end` seconds, None if less than half of the frames were good."""
        values, changes, self.values, self.changes = self.values, self.changes, [], 0
        if 2 * len(values) < frames:
            return None
        if self.kind == GAUGE:
            return sum(values) / len(values)
        if self.kind == STATE:
            return float(changes)
        before, self.before = self.before, (end, self.last)
        if before is None or end <= before[0] or self.last < before[1]:
            return None
        return (self.last - before[1]) / (end - before[0])


class Span:
    """Lowest and highest value so far; `size` is 0 while there is none."""

    def __init__(self):
        self.low, self.high = math.inf, -math.inf

    @property
    def size(self):
        return max(self.high - self.low, 0.0)

    def hold(self, x):
        self.low, self.high = min(self.low, x), max(self.high, x)

    def outside(self, x):
        return max(0.0, x - self.high, self.low - x)

    def copy(self):
        other = type(self)()
        other.low, other.high = self.low, self.high
        return other

    def shrink(self):
        if self.high > self.low:
            half = 0.5 * 0.001 * (self.high - self.low)
            self.low, self.high = self.low + half, self.high - half


class Envelope(Span):
    """A span of float32."""

    def hold(self, x):
        super().hold(single(x))

    def shrink(self):
        if self.high > self.low:
            half = single(single(0.5 * 0.001) * single(self.high - self.low))
            self.low, self.high = single(self.low + half), single(self.high - half)


def union(spans):
    """Return the span of several."""
    found = Span()
    for each in spans:
        found.low, found.high = min(found.low, each.low), max(found.high, each.high)
    return found


class OfDay:
    """An envelope an hour, and the copies that the neighbours read, renewed when the clock is twelve hours away."""

    def __init__(self):
        self.now = [Envelope() for _ in range(24)]
        self.copies = [Envelope() for _ in range(24)]

    def renew(self, hour):
        self.now[hour].shrink()
        self.copies[hour] = self.now[hour].copy()

    def outside(self, hour, x):
        seen = union([self.now[hour], self.copies[(hour - 1) % 24], self.copies[(hour + 1) % 24]])
        return seen.outside(x) if seen.high >= seen.low else 0.0


class OfCells:
    """An envelope for each of 16 cells of what came before."""

    def __init__(self):
        self.cells = [Envelope() for _ in range(16)]

    def outside(self, cell, x, ever):
        seen = union(self.cells[max(0, cell - 2) : cell + 3])
        return seen.outside(x) if seen.high >= seen.low else ever.outside(x)


class OfWeek:
    """An envelope for each half of a day of the week, which learns of it when it is over."""

    def __init__(self):
        self.halves = [Envelope() for _ in range(14)]
        self.now, self.seen = None, Envelope()

    def outside(self, half, x):
        known = self.halves[half]
        beyond = known.outside(x) if known.high >= known.low else 0.0
        know = [each for each in self.halves if each.low <= single(x) <= each.high]
        return beyond if beyond > 2.0 * known.size and len(know) >= 7 else 0.0

    def hold(self, half, x):
        if half != self.now:
            if self.now is not None:
                self.halves[self.now].hold(self.seen.low)
                self.halves[self.now].hold(self.seen.high)
            self.now, self.seen = half, Envelope()
        self.seen.hold(x)


def cell_of(z):
    """Return the cell of a value z cell widths from the mean."""
    return min(15, max(0, math.floor(z + 0.5) + 8))


class Novelty:
    """One tag, one tick at a time."""

    def __init__(self, resolution=0.0, told=("novelty", "shift")):
        self.resolution, self.told_of = resolution, told
        self.n, self.origin, self.time, self.age, self.aged, self.hour = 0, 0.0, 0.0, 0.0, 0.0, None
        self.last = self.of_half_hour = self.of_three_hours = self.of_day = self.mean = self.variance = 0.0
        self.noise = self.smallest = 0.0
        self.x, self.p, self.f = Envelope(), Envelope(), Envelope()
        self.known, self.known_next = Envelope(), Envelope()  # that of x a day or two ago
        self.level, self.day, self.after_step, self.after_trend = OfDay(), OfDay(), OfCells(), OfCells()
        self.week = OfWeek()
        self.told, self.peak, self.since = 0.0, 0.0, math.inf
        self.burst, self.drift = Burst(), Drift()

    def step(self, t, hour, half, raw, waits):
        """Take a value at t seconds; returns (units, which of the five has most of them, which alarms or None, whether
        it drifts).
        """
        if raw is None or not abs(raw) < 1e30:
            return 0.0, None, None, False
        self.n += 1
        if self.n == 1:
            self.origin, self.time = raw, t
        x, seconds, self.time = raw - self.origin, t - self.time, t
        observed = min(max(seconds, 0.0), 7200.0)
        self.age += observed
        self._pass_time(hour)
        is_warm = self.age >= 86400.0
        has_before = self.n > 1 and abs(seconds) <= 21600.0
        y = x  # what it teaches: no more than one span beyond what was
        if is_warm and self.x.size > 0.0:
            y = min(max(x, self.x.low - self.x.size), self.x.high + self.x.size)
        f = self._follow("of_half_hour", y, 6.0)
        cells = self._cell(self.last), self._cell(self.of_three_hours)
        units, term, counts, about, away = 0.0, None, 0.0, None, 0.0
        if is_warm:
            units, term, counts, about, away = self._score(raw, x, f, hour, half, cells, has_before)
        self._learn(y, f, hour, half, cells, has_before)
        due = self.burst.step(counts, about, x, observed / 3600.0, self.age, waits)
        drifts = self.drift.step(away, observed / 3600.0, self.age)
        if due:
            self.drift.has_told = True
        return *self._govern(units, term), due, drifts

    def _pass_time(self, hour):
        if hour != self.hour:
            for envelopes in (self.level, self.day):
                envelopes.renew((hour + 12) % 24)
            self.hour = hour
        if self.age - self.aged >= 86400.0:
            self.aged = self.age
            self.known, self.known_next = self.known_next, self.x.copy()
            self.burst.forget()
            self.drift.forget()
            for each in (*self.after_step.cells, *self.after_trend.cells, *self.week.halves, self.x, self.p, self.f):
                each.shrink()

    def _follow(self, name, y, memory):
        before = getattr(self, name)
        after = before + max(1.0 / memory, 1.0 / self.n) * (y - before)
        setattr(self, name, after)
        return after

    def _cell(self, value):
        width = 0.45 * math.sqrt(self.variance)
        return cell_of((value - self.mean) * (1.0 / width if width > 0.0 else 0.0))

    def _score(self, raw, x, f, hour, half, cells, has_before):
        digit = 0.5 * max(self.smallest, self.resolution) + 1e-9 * abs(raw)
        noise = 2.4 * self.noise + digit
        p = x - self.of_day
        found = [
            (self.level.outside(hour, x), 0.05, self.x, noise, LEVEL),
            (self.day.outside(hour, p), 0.05, self.p, noise, DAY),
        ]
        if self.age >= 28 * 86400.0:
            found.append((self.week.outside(half, x), 0.05, self.x, noise, WEEK))
        if has_before:
            found.append((self.after_step.outside(cells[0], x, self.x), 0.05, self.x, digit, STEP))
            found.append((self.after_trend.outside(cells[1], f, self.f), 0.10, self.f, digit, TREND))
        opinions = [
            (units_of(beyond, share, span.size, allowance), name) for beyond, share, span, allowance, name in found
        ]
        was_there = self.known.low <= single(x) <= self.known.high
        counts = [
            (units, name)
            for units, name in opinions
            if (name in (STEP, TREND) and "shift" in self.told_of)
            or (name in (LEVEL, DAY) and "novelty" in self.told_of and not was_there)
        ]
        away = 0.0
        if self.known.high >= self.known.low:
            away = units_of(self.known.outside(x), 0.05, self.known.size, noise)
        return *total_of(opinions), *total_of(counts), away

    def _learn(self, y, f, hour, half, cells, has_before):
        p = y - self.of_day
        self.level.now[hour].hold(y)
        self.day.now[hour].hold(p)
        self.week.hold(half, y)
        span = self.x.size
        self.x.hold(y)
        self.p.hold(p)
        self.f.hold(f)
        if has_before:
            self.after_step.cells[cells[0]].hold(y)
            self.after_trend.cells[cells[1]].hold(f)
            d = abs(y - self.last)
            self._follow("noise", d, 288.0)
            if d > 1e-6 * span:
                self.smallest = min(d, 1.001 * self.smallest) if self.smallest > 0.0 else d
        self.last = y
        self._follow("of_three_hours", y, 36.0)
        self._follow("of_day", y, 288.0)
        weight, error = max(1 / 2016.0, 1 / self.n), y - self.mean
        self.mean += weight * error
        self.variance += weight * (error * (y - self.mean) - self.variance)

    def _govern(self, units, term):
        self.told *= 1.0 - 1.0 / 10_000.0
        self.since += 1.0
        units /= 1.0 + 0.04 * self.told
        if self.since > 96.0:
            self.peak = 0.0
        if not units > self.peak:
            return 0.0, None
        self.told, self.peak, self.since = self.told + units, 1.4 * units, 0.0
        return units, term


def units_of(beyond, share, size, allowance):
    """Return the units of a value that far outside of what has this size."""
    return min(4.0, beyond / (share * (size + beyond) + allowance)) if beyond > 0.0 else 0.0


def total_of(opinions):
    """Return the sum of all units, and what has most of them."""
    most, term = max(opinions, key=lambda each: each[0], default=(0.0, None))
    return sum(units for units, _ in opinions), term if most > 0.0 else None


class Burst:
    """Units of novelty that add up faster than they wear off: (sum, largest so far, who waits)."""

    def __init__(self):
        self.sum, self.peak, self.largest, self.has_told = 0.0, 0.0, 0.0, False
        self.home, self.waiting = 0.0, None

    def forget(self):
        """A day is over: of the largest half is left after four weeks."""
        self.largest = single(self.largest * (1.0 - 0.0245))

    def step(self, units, term, x, hours, age, waits):
        """Return what an alarm is about, None if there is none."""
        self.sum = single(min(max(self.sum + units - 1.0, 0.0), 24.0))
        due = self._wait(x, hours)
        if self.sum == 0.0:
            self.largest, self.peak = max(self.largest, self.peak), 0.0
            self.has_told, self.home = False, single(x)
            return due
        self.peak = max(self.peak, self.sum)
        enough = max(8.0 * max(1.0, 7 * 86400.0 / age) ** 3, 0.7 * self.largest)
        if self.sum >= enough and not self.has_told:
            self.has_told = True
            if not waits:
                return term
            self.waiting = [3, term, x > self.home, single((x + self.home) / 2)]
        return due

    def _wait(self, x, hours):
        """Return what an alarm is about that has waited for three more ticks on its side of the edge."""
        if self.waiting is None:
            return None
        _, term, is_up, edge = self.waiting
        if hours > 0.5 or not (x > edge if is_up else x < edge):
            self.waiting, self.sum = None, 0.0
            return None
        self.waiting[0] -= 1
        if self.waiting[0]:
            return None
        self.waiting = None
        return term


class Drift:
    """Units beyond what was known, times hours."""

    def __init__(self):
        self.sum, self.peak, self.largest, self.has_told = 0.0, 0.0, 0.0, False

    def forget(self):
        self.largest = single(self.largest * (1.0 - 0.0245))

    def step(self, units, hours, age):
        """Return whether an alarm is due."""
        before, self.sum = self.sum, single(min(max(self.sum + (units - 1.0) * min(hours, 0.5), 0.0), 48.0))
        if self.sum == 0.0:
            self.largest, self.peak, self.has_told = max(self.largest, self.peak), 0.0, False
            return False
        self.has_told = self.has_told or (before == 0.0 and age < 7 * 86400.0)
        self.peak = max(self.peak, self.sum)
        if self.sum < max(3.0, self.largest) or self.has_told:
            return False
        self.has_told = True
        return True


class Noise:
    """The mean step of a bucket, of which the least of three in a row counts."""

    def __init__(self):
        self.means, self.loudest, self.n = [], 0.0, 0

    def step(self, way, steps):
        """Return whether it is 2.5 times louder than ever in a week and more."""
        if steps < 20:
            return False
        least = min(way / steps, *self.means) if len(self.means) == 2 else 0.0
        self.means = [*self.means[-1:], single(way / steps)]
        is_louder = self.n >= 2016 and self.loudest > 0.0 and least > 2.5 * self.loudest
        self.loudest = single(max((1.0 - 0.005 / 288.0) * self.loudest, least))
        self.n += 1
        return is_louder


class Scan:
    """The tags of one scan: what is told of each frame."""

    def __init__(self, kinds, resolution=0.0):
        self.clock, self.buckets = Clock(), [Bucket(kind) for kind in kinds]
        self.tags = [Novelty(resolution) for _ in kinds]
        self.noises = [Noise() for _ in kinds]
        self.standing = [None] * len(kinds)

    def step(self, now, stamp, values):
        """Take a frame; returns of each tag ("shift", "novelty", "drift", "noise" or None, score)."""
        score = [0.0] * len(values)
        ended, ends = self.clock.step(now)
        if ended is not None:
            end, is_judged = ended
            self._close(end, stamp - (now - end), is_judged, values, self.clock.frames_of_ended, score)
        for bucket, value in zip(self.buckets, values, strict=True):
            bucket.add(value)
        if ends:
            self._close(now, stamp, True, values, self.clock.frames_at_end, score)
        standing = [None if v is None else s for v, s in zip(values, self.standing, strict=True)]
        return list(zip(standing, score, strict=True))

    def _close(self, end, stamp, is_judged, values, frames, score):
        """End the bucket of every tag that has a value now; that of another one goes on."""
        t, hours = (end - self.clock.first) * 1e-9, stamp // (3600 * SECOND)
        hour, day_of_week = hours % 24, (hours // 24 + 3) % 7
        half, is_fast = 2 * day_of_week + hour // 12, self.clock.usual < 150.0
        for i, value in enumerate(values):
            self.standing[i] = None
            if value is None:
                continue
            waits = is_fast or self.buckets[i].kind != GAUGE
            noise = self.buckets[i].noise()
            x = self.buckets[i].close(t, frames)
            units, about, drifts = 0.0, None, False
            if is_judged:
                units, _, about, drifts = self.tags[i].step(t, hour, half, x, waits)
            is_noisy = is_judged and self.buckets[i].kind == GAUGE and self.noises[i].step(*noise)
            score[i] = max(score[i], units / (units + 5.0), 0.5 if about or drifts or is_noisy else 0.0)
            self.standing[i] = "drift" if drifts else "noise" if is_noisy else None
            if about:
                self.standing[i] = "shift" if about in (STEP, TREND) else "novelty"
