"""The health of an asset as a textbook would have it: plain Python numbers, one row after the other."""

import math

WEEK_S = 7 * 86400.0
SKIP, COMMISSION = 50, 400
NOTHING = NOBODY = -1
NOT_TOLD = -2
OPERATED = -3
WAITING = -4


def solve(a, b):
    """Return x of a x = b by elimination with pivots."""
    n = len(b)
    rows = [[*line, right] for line, right in zip(a, b, strict=True)]
    for i in range(n):
        top = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[top] = rows[top], rows[i]
        for r in range(i + 1, n):
            factor = rows[r][i] / rows[i][i]
            rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
    x = [0.0] * n
    for i in reversed(range(n)):
        x[i] = (rows[i][n] - sum(rows[i][k] * x[k] for k in range(i + 1, n))) / rows[i][i]
    return x


class Mean:
    """The mean of everything so far, or of the last so many rows."""

    def __init__(self, value=0.0):
        self.value = value

    def learn(self, x, n):
        self.value += (x - self.value) / n


class Meter:
    """One meter against itself: its smoothed value, level and spread; and its changes."""

    def __init__(self):
        self.smooth = self.slower = None
        self.low = self.high = None
        self.inside = 0
        self.level, self.spread, self.rows = 0.0, 0.0, 0.0
        self.moved = 0.0
        self.noise_now = Mean()
        self.noise, self.change, self.change_rows = 0.0, 0.0, 0.0
        self.unexplained = 0.0
        self.departure, self.r, self.evidence, self.is_change = None, None, None, False
        self.shown = 0

    def step(self, y, asset, limit, change_limit, is_learning):
        """Take a value: sets departure, r and evidence (None: no verdict), is_change."""
        self.departure = self.r = self.evidence = None
        self.is_change = False
        if y is None or not abs(y) < 1e100:
            return
        self._live(y)
        moved = self._follow(y)
        if self.inside < 8:
            self.departure = 0.0
            return
        self.departure = d = self.smooth - self.level
        rows, r = self.rows + 1, 0.0
        if rows > SKIP:
            r = d * d / (self.spread + 1e-24 * self.level * self.level + 1e-200)
            if rows > 2 * SKIP:
                self.r = r
                self.evidence = r - 9.0 - (0.0 if rows > COMMISSION else 36.0)
        self.shown = rows
        if rows <= COMMISSION or r < 9.0 + (0.0 if asset.in_alarm else limit):
            self.rows = rows = rows if is_learning else min(rows, asset.week_rows + COMMISSION)
            self.level += (self.smooth - self.level) / rows
            if rows > SKIP:
                self.spread += (d * d * (1.0 - 1.0 / rows) - self.spread) / (rows - SKIP)
        self._watch_changes(moved, asset, change_limit, is_learning)

    def _live(self, y):
        if self.smooth is None:
            self.smooth = self.slower = self.low = self.high = y
        if self.inside < 8:
            between = self.low < y < self.high
            record_after_another = self.high > self.low and not self.low <= y <= self.high
            self.inside += between or record_after_another
            self.low, self.high = min(self.low, y), max(self.high, y)

    def _follow(self, y):
        w = y - self.smooth
        if self.change_rows > 2 * SKIP:
            most = 6.0 * math.sqrt(self.noise + 1e-24 * self.smooth**2) + 2.0 * abs(self.moved)
            w = max(-most, min(most, w))
        self.moved = w
        self.smooth += 0.1 * w
        self.slower += 0.04 * (self.smooth - self.slower)
        return w

    def _watch_changes(self, w, asset, change_limit, is_learning):
        h, rows = (self.smooth - self.slower) ** 2, self.change_rows + 1
        self.noise_now.learn(w * w, min(20.0, rows))
        now = self.noise_now.value
        if rows > COMMISSION and h * h * self.noise > (change_limit * self.change) ** 2 * max(now, self.noise):
            self.is_change = True
        if rows <= COMMISSION or h < 9.0 * self.change:
            self.change_rows = rows = rows if is_learning else min(rows, asset.week_rows + COMMISSION)
            if rows > SKIP:
                self.change += (h - self.change) / (rows - SKIP)
                self.noise += (now - self.noise) / (rows - SKIP)

    def accept(self):
        """Take the present departure for a part of its spread."""
        if self.smooth is not None:
            d = self.smooth - self.level
            if self.rows >= COMMISSION and d * d > 9.0 * self.spread:
                self.spread += d * d


class Alarm:
    """Three rows above the limit raise; 40 rows below it and below a quarter of the alarm's height clear."""

    def __init__(self):
        self.is_on, self.above, self.below = False, 0, 0
        self.height = self.highest = self.lasted = 0.0
        self.factor = 1.0

    def step(self, evidence, limit, seconds, is_learning):
        """Return whether an alarm ends with this row."""
        if self.is_on:
            self.height += 0.05 * (evidence - self.height)
            self.highest = max(self.highest, self.height)
            limit = max(limit, self.highest / 4.0)
        is_above = evidence > limit
        self.above, self.below = (self.above + 1, 0) if is_above else (0, self.below + 1)
        if self.is_on:
            self.lasted += seconds
            is_over = self.below >= 40
            if not is_over and not self.lasted > (3600.0 if is_learning else 86400.0):
                return False
            self.is_on, self.above = False, 0
            if not is_over or not is_learning:
                self.lasted = 0.0
            return True
        if self.above >= 3:
            self.is_on, self.height, self.highest = True, evidence, evidence
            self.factor = min(1.25 * self.factor, 4.0)
        return False


class Asset:
    """Some meters that belong together; each value is None when it is bad."""

    def __init__(self, n):
        self.meters, self.alarm = [Meter() for _ in range(n)], Alarm()
        self.began = self.time = None
        self.most_rows, self.week_rows, self.healthy, self.resting = 0, 0.0, 0, 0
        self.covariance = [[Mean() for _ in range(n)] for _ in range(n)]
        self.slopes = None
        self.cause, self.was_ending = NOTHING, False
        self.blamed, self.usual, self.raised = NOBODY, 0.0, 0.0

    @property
    def in_alarm(self):
        return self.alarm.is_on

    def step(self, t, values):
        """Take a row at t seconds; returns (evidence in limits, whether it is a change point)."""
        if all(value is None or not abs(value) < 1e100 for value in values):
            return 0.0, False
        if self.began is None:
            self.began = self.time = t
        seconds, self.time = min(max(t - self.time, 0.0), 3600.0), t
        is_learning = t - self.began < WEEK_S
        record, limit = self._record(), self._limit()
        was_in_alarm = self.in_alarm
        for meter, value in zip(self.meters, values, strict=True):
            meter.step(value, self, limit, 11.0 + record, is_learning)
        self.alarm.factor = max(1.0, self.alarm.factor * (1.0 - seconds * 0.25 / (5 * WEEK_S)))
        found = [(m.evidence, m.r, i) for i, m in enumerate(self.meters) if m.r is not None]
        worst = max((e for e, _, _ in found), default=0.0)
        if self.slopes is not None:
            found += self._against_the_others(limit, was_in_alarm)
        elif is_learning:
            if self._is_whole() and not was_in_alarm and worst < limit:
                self._learn_together()
        elif self.healthy >= 2000:
            self._learn_slopes()
        evidence = self._evidence(found)
        self.cause = max(found, key=lambda each: (each[1], -each[2]))[2] if found else NOTHING
        was_on = self.alarm.is_on
        is_ending = self.was_ending = self.alarm.step(evidence, limit, seconds, is_learning)
        if self.alarm.is_on and not was_on:
            self.raised = t
        if is_ending:
            for meter in self.meters:
                meter.accept()
        return evidence / limit, self._rest(is_learning)

    def _record(self):
        if self.most_rows <= COMMISSION:
            return 0.0
        return 2.5 * math.log(self.most_rows / COMMISSION * max(len(self.meters), 8) / 8)

    def _limit(self):
        return (4.0 + self._record()) * self.alarm.factor

    def blame(self, t):
        """Find out who is to be blamed for a standing alarm: a minute after it began, once."""
        height = self.alarm.highest
        if not self.in_alarm:
            if self.blamed == WAITING:
                self.usual = max(self.usual, height)
            self.blamed = NOBODY
            return  # and a new alarm is judged anew
        if self.blamed in (NOBODY, WAITING) and t - self.raised >= 60.0:
            weeks = max(t - self.began, 1.0) / WEEK_S
            early = (2.0 / weeks) ** 3 if weeks < 2.0 else 1.0
            is_news = height > 1.5 * early * self.usual and (early == 1.0 or height > early * self._limit())
            if self.blamed == NOBODY:
                self.usual *= 0.98
            if self._was_operated():
                self.blamed = OPERATED
            elif weeks < 1.0:
                self.blamed = NOT_TOLD
            else:
                self.blamed = self.cause if is_news else WAITING
        if self.blamed not in (NOBODY, OPERATED, WAITING):
            self.usual = max(self.usual, height)

    def _was_operated(self):
        live = [m for m in self.meters if m.inside >= 8 and m.departure is not None]
        away = [m for m in live if m.departure**2 > 9.0 * m.spread]
        return len(away) >= 3 and len(away) >= len(live) / 3

    def _evidence(self, found):
        """Return the largest evidence of all and half of the one after it; none is below 0."""
        worst, second = 0.0, 0.0
        for each, _, _ in found:
            if each > worst:
                worst, second = each, worst
            elif each > second:
                second = each
        return worst + 0.5 * second

    def _rest(self, is_learning):
        is_told = self.resting <= 0 and any(m.is_change for m in self.meters)
        self.resting = 20 if is_told else max(self.resting - 1, 0)
        shown = [m.shown for m in self.meters if m.departure is not None and m.inside >= 8 and m.shown > SKIP]
        self.most_rows = max(shown, default=self.most_rows)
        if is_learning:
            self.week_rows += 4.0
        return is_told

    def _is_whole(self):
        return all(m.departure is not None and (m.inside < 8 or m.shown > COMMISSION) for m in self.meters)

    def _learn_together(self):
        self.healthy += 1
        for i, line in enumerate(self.covariance):
            for k, mean in enumerate(line):
                mean.learn(self.meters[i].departure * self.meters[k].departure, self.healthy)

    def _learn_slopes(self):
        """Regress each meter on the others, in units of sd, and find what variance that leaves of it."""
        n = len(self.meters)
        self.sd = [math.sqrt(max(self.covariance[i][i].value, 0.0)) for i in range(n)]
        r = [[1.0] * n for _ in range(n)]
        for i in range(n):
            for k in range(n):
                if i != k:
                    product = math.sqrt(self.covariance[i][i].value * self.covariance[k][k].value)
                    r[i][k] = self.covariance[i][k].value / product if product > 0.0 else 0.0
        self.slopes = []
        for j in range(n):
            others = [k for k in range(n) if k != j]
            ridged = [[r[i][k] + (1e-3 if i == k else 0.0) for k in others] for i in others]
            slopes = solve(ridged, [r[k][j] for k in others])
            self.slopes.append([1.0 if k == j else -slopes[others.index(k)] for k in range(n)])
            w = self.slopes[j]
            left = sum(w[i] * r[i][k] * w[k] for i in range(n) for k in range(n))
            self.meters[j].unexplained = max(left, 1e-4)

    def _residual(self, j, z):
        """Return what the others do not explain of meter j."""
        return sum(w * x for w, x in zip(self.slopes[j], z, strict=True))

    def _against_the_others(self, limit, was_in_alarm):
        n = len(self.meters)
        gone = [m.departure is None for m in self.meters]
        if 2 * sum(gone) >= n:
            return []
        z = [0.0 if g or s == 0.0 else m.departure / s for m, g, s in zip(self.meters, gone, self.sd, strict=True)]
        if any(gone):
            for _ in range(1 if sum(gone) == 1 else 3):  # those without a value stand where the others expect them
                for j in range(n):
                    if gone[j] and self.sd[j] > 0.0:
                        z[j] -= self._residual(j, z)
        self.healthy = max(self.healthy, min(self.healthy + 1, self.week_rows))
        found = []
        for j, meter in enumerate(self.meters):
            if gone[j]:
                continue
            h = self._residual(j, z) ** 2
            r = h / meter.unexplained
            if r < 9.0 + (0.0 if was_in_alarm else limit):
                meter.unexplained = max(meter.unexplained + (h - meter.unexplained) / self.healthy, 1e-4)
            elif self.was_ending:
                meter.unexplained += h
            found.append((r - 9.0, r, j))
        return found


class Rows:
    """An asset read by several scans: a row is complete when each brought a frame, or one comes again."""

    def __init__(self, columns):
        """Take the columns of each scan, in the order of the meters."""
        self.columns = columns
        self.asset = Asset(sum(map(len, columns)))
        self.values, self.came, self.first = {}, set(), None

    def step(self, now, scan, values):
        """Take a frame of a scan, at ns; returns (score of the row or 0, is in alarm, change point, blamed meter)."""
        score, is_change = 0.0, False
        self.first = now if self.first is None else self.first
        t = (now - self.first) * 1e-9  # as sums of such seconds come to 60 or not quite
        for is_next in (False, True):
            if not is_next and scan not in self.came:
                continue
            if is_next:
                self.values.update(zip(self.columns[scan], values, strict=True))
                self.came.add(scan)
                if len(self.came) < len(self.columns):
                    continue
            row = [self.values.get(k) for k in range(len(self.asset.meters))]
            limits, changed = self.asset.step(t, row)
            score, is_change = max(score, limits / (limits + 1.0)), is_change or changed
            self.asset.blame(t)
            self.came.clear()
        return score, self.asset.in_alarm, is_change, self.asset.blamed
