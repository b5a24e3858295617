"""A replay as one page that needs nothing else: what would have alarmed, how often, and the plots beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

import numpy as np

from gateway.detect.flags import NAMES
from gateway.replay.plot import LIMIT_NAMES, Axis, Field, day_of, moment, number
from gateway.replay.summary import DAY_NS, Summary

MAX_BYTES: Final = 2_500_000  # of a page that a browser opens at once; tags with fewer alarms go without a plot then
MAX_ROWS: Final = 500  # of the table by tag and reason
MAX_LISTED: Final = 1_000  # alarms
MAX_PEAKS: Final = 20  # most unusual moments
MAX_BARS: Final = 120
PER_DAY: Final = 144.0  # alarms that one operator can take in a day (EEMUA 191: one in ten minutes)
VALUE_H, SCORE_H, LANE_H, DAYS_H = 140, 44, 16, 110  # pixels

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d1f21;--soft:#5a5f64;--line:#d4d6d8;--band:#7d8f9c;--page:#f4f4f2;--card:#fff;
--alarm:#b3261e;--mark:#7a4f00}
@media (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--soft:#a9adb1;--line:#43474a;--band:#8797a3;--page:#17191a;
--card:#222425;--alarm:#ff8a80;--mark:#e0b050}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:1080px;
padding:24px}
h1{font-size:22px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:18px;margin:32px 0 8px}h3{font-size:15px;
margin:0 0 6px;overflow-wrap:anywhere}
p{margin:4px 0;color:var(--soft)}h3 span{font-weight:400;color:var(--soft)}a{color:inherit}
section{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:12px 16px;margin:12px 0;
overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:4px 12px 4px 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}
th{color:var(--soft);font-weight:500}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.t{white-space:nowrap}
dl{display:flex;gap:12px 36px;flex-wrap:wrap;margin:12px 0}dt{color:var(--soft)}dd{margin:0;font-size:24px}
svg{width:100%;min-width:640px;height:auto;display:block}text{font:12px system-ui,sans-serif;fill:var(--soft)}
.e{text-anchor:end}.m{text-anchor:middle}.grid{stroke:var(--line)}.band{fill:var(--band);stroke:var(--band);
stroke-linejoin:round}
.score{fill:none;stroke:var(--ink)}.edge{stroke:var(--mark);stroke-dasharray:6 4}
.name{fill:var(--mark);paint-order:stroke;stroke:var(--card);stroke-width:3px}
.flag{fill:none;stroke:var(--alarm);stroke-width:9}.bar{fill:var(--band)}.over{fill:var(--alarm)}
"""


def page_of(title: str, notes: Sequence[str], found: Summary) -> str:
    """Return the page as HTML: everything is in it, nothing is fetched."""
    head = [
        f"<h1>Replay of {escape(title)}</h1>",
        f"<p>{_span(found)}, {found.rows:,} rows, {found.values:,} values</p>",
        *(f"<p>{escape(note)}</p>" for note in notes),
        _headline(found),
        "<h2>Alarms a day</h2>",
        _days(found),
    ]
    tail = ["<h2>Alarms, the first ones</h2>", _list(found), "<h2>Most unusual</h2>", _unusual(found)]
    room = MAX_BYTES - sum(map(len, tail))
    shown: set[int] = set()
    plots = list(_plots(found, room, shown))
    body = [*head, "<h2>What would have alarmed</h2>", _table(found, shown), *plots, *tail]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Replay of {escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><main>'
        + "\n".join(body)
        + "</main></body></html>\n"
    )


def _span(found: Summary) -> str:
    return f"{moment(found.first_ns)} to {moment(found.last_ns)} UTC" if found.rows else "nothing"


def _headline(found: Summary) -> str:
    total = sum(found.counts.values())
    per_day = total / found.days
    tags = len({column for column, _ in found.counts})
    rows = (
        ("alarms", f"{total:,}"),
        ("a day", f"{per_day:,.2f}"),
        ("of what an operator can take", f"{100.0 * per_day / PER_DAY:,.1f} %"),
        ("tags with alarms", f"{tags:,} of {len(found.names):,}"),
        ("change points", f"{found.changepoints:,}"),
    )
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in rows)}</dl>"


def _days(found: Summary) -> str:
    """Return the bars: a day each; of a long replay as many days a bar as there is room for."""
    first, last = found.first_ns // DAY_NS, found.last_ns // DAY_NS
    per = -(-(last - first + 1) // MAX_BARS)
    counts = [0] * ((last - first) // per + 1)
    for day, count in found.by_day.items():
        counts[(day - first) // per] += count
    rates = [count / per for count in counts]
    field = Field(Axis(first * DAY_NS, (first + len(counts) * per) * DAY_NS), DAYS_H, 0.0, max([*rates, 1.0]))
    width = min((field.x(first + per, DAY_NS) - field.x(first, DAY_NS)), 60.0)
    parts = [field.grid()]
    for k, rate in enumerate(rates):
        if rate:
            day, y = first + k * per, field.y(rate)
            parts.append(
                f'<rect class="{"over" if rate > PER_DAY else "bar"}" x="{field.x(day, DAY_NS) + 1:.1f}" y="{y:.1f}" '
                f'width="{max(width - 2, 1):.1f}" height="{max(field.bottom - y, 1):.1f}">'
                f"<title>{day_of(day)}: {number(rate)} a day</title></rect>"
            )
    if max(rates) > PER_DAY:
        parts.append(field.level(PER_DAY, "144 a day: what an operator can take", is_above=True))
    busiest = max(range(len(rates)), key=rates.__getitem__)
    label = f"Alarms a day, {day_of(first)} to {day_of(last)}: at most {number(rates[busiest])}"
    label += f", on {day_of(first + busiest * per)}" if rates[busiest] else ""
    note = f"<p>{per} days a bar</p>" if per > 1 else ""
    return f"<section>{note}{field.svg(parts, label, 0)}</section>"


def _table(found: Summary, shown: set[int]) -> str:
    if not found.counts:
        return "<section><p>Nothing.</p></section>"

    def name(column: int) -> str:
        text = escape(found.names[column])
        return f'<a href="#t{column}">{text}</a>' if column in shown else text

    rows = [
        f'<tr><td>{name(column)}</td><td>{escape(reason)}</td><td class="n">{count:,}</td>'
        f'<td class="n">{count / found.days:,.2f}</td></tr>'
        for (column, reason), count in found.counts.most_common(MAX_ROWS)
    ]
    head = '<tr><th scope="col">tag</th><th scope="col">reason</th><th scope="col" class="n">alarms</th>'
    more = f"<p>The first {len(rows):,} of {len(found.counts):,}.</p>" if len(found.counts) > len(rows) else ""
    return f'<section>{more}<table>{head}<th scope="col" class="n">a day</th></tr>{"".join(rows)}</table></section>'


def _list(found: Summary) -> str:
    total = sum(found.counts.values())
    if not total:
        return "<section><p>None.</p></section>"
    rows = [
        f'<tr><td class="t">{moment(one.time_ns)}</td><td>{escape(found.names[one.column])}</td>'
        f"<td>{escape(one.reason)}</td></tr>"
        for one in found.alarms[:MAX_LISTED]
    ]
    more = f"<p>The first {len(rows):,} of {total:,}.</p>" if total > len(rows) else ""
    head = '<tr><th scope="col">time, UTC</th><th scope="col">tag</th><th scope="col">reason</th></tr>'
    return f"<section>{more}<table>{head}{''.join(rows)}</table></section>"


def _unusual(found: Summary) -> str:
    """Return the moments with the highest scores, alarms or not: where to look when there is no alarm."""
    rows = [
        f'<tr><td class="t">{moment(peak.time_ns)}</td><td>{escape(found.names[peak.column])}</td>'
        f'<td class="n">{peak.score:.2f}</td><td>{escape(", ".join(peak.reasons)) or "no alarm"}</td></tr>'
        for peak in found.peaks(MAX_PEAKS)
    ]
    if not rows:
        return "<section><p>Nothing: no value scored.</p></section>"
    note = "<p>Scores are told of what is unusual; an alarm asks for more: that it lasts, or adds up.</p>"
    head = '<tr><th scope="col">from about, UTC</th><th scope="col">tag</th><th scope="col" class="n">score</th>'
    return f'<section>{note}<table>{head}<th scope="col">alarms near it</th></tr>{"".join(rows)}</table></section>'


def _plots(found: Summary, room: int, shown: set[int]) -> Iterator[str]:
    """Yield the plots of all tags, most alarms first, as long as there is room; `shown` gets their columns."""
    if not found.rows:
        return
    axis = Axis(found.first_ns, found.last_ns)
    if len(found.plots) == 1 and len(found.names) > 1:
        text = _whole(found, axis)
        room -= len(text)
        yield f"<h2>All tags as one asset</h2>{text}"
    weight = [0] * len(found.names)
    for (column, _), count in found.counts.items():
        weight[column] += count
    yield "<h2>Tags</h2>"
    for column in sorted(range(len(weight)), key=lambda column: (-weight[column], column)):
        text = _tag(found, axis, column)
        room -= len(text)
        if room < 0:
            yield f"<p>The {len(shown):,} tags with most alarms of {len(weight):,}.</p>"
            return
        shown.add(column)
        yield text


def _whole(found: Summary, axis: Axis) -> str:
    plot = found.plots[0]
    n = plot.width
    times, whole = plot.times[:n], plot.whole[:n]
    axis = axis if axis.takes(times) else Axis.of_rows(times)
    field = Field(axis, 2 * SCORE_H, 0.0, 1.0)
    parts = [field.grid(), field.level(0.5, "alarm", is_above=True), field.curve(times, whole[:, 0])]
    below = field.bottom + 6
    alarm = whole[:, 1] > 0
    if alarm.any():
        parts.append(field.lane("in alarm", times, alarm, below))
    label = f"Health score of all tags as one asset: up to {whole[:, 0].max():.2f}, {found.anomalies} times in alarm"
    return f"<section><h3>health score</h3>{field.svg(parts, label, LANE_H + 6 if alarm.any() else 0)}</section>"


def _tag(found: Summary, axis: Axis, column: int) -> str:
    tags = found.tags
    plot = found.plots[int(np.searchsorted(tags.scan_stop, column, side="right"))]
    n = plot.width
    reasons = {reason: found.counts[column, reason] for reason in NAMES.values() if (column, reason) in found.counts}
    said = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items()) or "no alarms"
    head = f'<section id="t{column}"><h3>{escape(found.names[column])} <span>{escape(said)}</span></h3>'
    low, high = found.low[:n, column].astype(np.float64), found.high[:n, column].astype(np.float64)
    good = high >= low
    if not good.any():
        return f"{head}<p>No good value.</p></section>"
    times = plot.times[:n]
    axis = axis if axis.takes(times) else Axis.of_rows(times)
    limits = [(name, float(edge)) for name, edge in zip(LIMIT_NAMES, tags.limit[column], strict=True) if edge == edge]
    bottom, top, outside = _range(float(low[good].min()), float(high[good].max()), limits)
    field = Field(axis, VALUE_H, bottom, top)
    parts = [field.grid(), field.band(times, low, high, good)]
    parts += [field.level(edge, f"{name} {number(edge)}", is_above="high" in name) for name, edge in limits]
    below = Field(axis, SCORE_H, 0.0, 1.0, field.bottom + 24)
    parts += [below.grid(), below.level(0.5, "score", is_above=True), below.curve(times, found.top[:n, column])]
    at = below.bottom + 6
    seen = found.seen[:n, column]
    for bit, reason in NAMES.items():
        if (seen & bit).any():
            parts.append(field.lane(reason, times, (seen & bit) != 0, at))
            at += LANE_H
    label = f"{found.names[column]}: {number(low[good].min())} to {number(high[good].max())}; {said}"
    note = f"<p>Far outside: {escape(outside)}</p>" if outside else ""
    return f"{head}{field.svg(parts, label, at - field.bottom)}{note}</section>"


def _range(bottom: float, top: float, limits: list[tuple[str, float]]) -> tuple[float, float, str]:
    """Return the range of a plot, and the limits so far outside that it leaves them out; takes those from the list."""
    reach = max(top - bottom, 1e-3 * max(abs(top), abs(bottom)))
    far = [(name, edge) for name, edge in limits if not bottom - 3 * reach <= edge <= top + 3 * reach]
    limits[:] = [one for one in limits if one not in far]
    bottom, top = min([bottom, *(edge for _, edge in limits)]), max([top, *(edge for _, edge in limits)])
    return bottom, top, ", ".join(f"{name} {number(edge)}" for name, edge in far)
