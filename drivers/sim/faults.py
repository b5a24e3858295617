"""What goes wrong in a simulation, and when: a script of faults and anomalies, and its effect on values and answers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from drivers.encode import can_be_absent, codec
from drivers.points import Point
from drivers.profile import ProfileError, read_toml
from drivers.sim.device import MeterSpec
from drivers.sim.hostile import HOWS, wire_of
from drivers.sim.signals import gauss, key_of, ramp

Reach = Literal["tag", "device", "link"]


LONGEST_S: Final = 1e9  # some thirty years
SHORTEST_S: Final = 1e-3  # nothing on a bus is faster, and the simulation wakes up for every begin and end
LARGEST: Final = 1e15  # more than any meter shows, and far from overflow when faults come together


@dataclass(frozen=True, slots=True)
class Number:
    """What a key of a fault may be: from low to high, both included.

    default  when it is not given; None: it must be given, or the point says it, or another key stands for it
    """

    low: float = -LARGEST
    high: float = LARGEST
    default: float | None = None
    is_whole: bool = False

    def admits(self, value: object) -> bool:
        """Return whether a key may have this value; NaN is between nothing."""
        is_number = isinstance(value, int if self.is_whole else int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        return f"a {'whole ' if self.is_whole else ''}number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a key of a fault must be: one of these words, `where` they are explained."""

    words: Mapping[str, object]
    where: str

    def admits(self, value: object) -> bool:
        """Return whether a key may have this value."""
        return isinstance(value, str) and value in self.words

    def __str__(self) -> str:
        return f"one of the {len(self.words)} in {self.where}"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault reaches, and its parameters.

    one_of    parameters of which only one can be given; is_needed: and one must be
    choices   keys that must be given, each a word of its own list
    """

    reach: Reach
    parameters: Mapping[str, Number] = field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    is_needed: bool = False
    choices: Mapping[str, Choice] = field(default_factory=dict)


_SHIFT: Final = {"size": Number(), "factor": Number()}
KINDS: Final[dict[str, Kind]] = {
    "freeze": Kind("tag"),  # holds its last value
    "spike": Kind(  # the first reads of the window
        "tag", {**_SHIFT, "samples": Number(1, 1e6, 1.0, is_whole=True)}, one_of=("size", "factor"), is_needed=True
    ),
    "step": Kind("tag", _SHIFT, one_of=("size", "factor"), is_needed=True),  # a bias
    "drift": Kind("tag", {"per_s": Number()}, one_of=("per_s",), is_needed=True),  # a ramp, unit per second
    "noise": Kind("tag", {"factor": Number(0, default=5.0), "sd": Number(0)}, one_of=("factor", "sd")),  # noise up
    "stuck_high": Kind("tag", {"value": Number()}),  # at the end of its range
    "stuck_low": Kind("tag", {"value": Number()}),
    "limit": Kind(  # beyond a limit, whichever side it is on
        "tag", {"value": Number(), "ramp_s": Number(0, LONGEST_S, 2.0)}, one_of=("value",), is_needed=True
    ),
    "nan": Kind("device"),  # not available: NaN or sentinel; with `tag` only that one
    "silent": Kind("device"),  # no answer
    "slow": Kind("device", {"delay_s": Number(0, LONGEST_S, 0.5), "jitter_s": Number(0, LONGEST_S, 0.0)}),
    "exception": Kind("device", {"code": Number(1, 255, 4.0, is_whole=True)}),
    "garbage": Kind("device", {"share": Number(0, 1, 1.0)}),  # random bytes; on RTU also a wrong CRC
    "hostile": Kind(  # answers that go wrong on the wire
        "device",
        {"share": Number(0, 1, 1.0), "delay_s": Number(0, LONGEST_S)},
        choices={"how": Choice(HOWS, "docs/simulation.md")},
    ),
    "refuse": Kind("link"),  # nothing listens; a serial adapter is unplugged
    "cut": Kind("link"),  # the connection drops at every request, and can be dialled again
}
_NAMES: Final = ("kind", "name", "device", "tag")
TIMES: Final = {
    "start_s": Number(0, LONGEST_S),
    "duration_s": Number(SHORTEST_S, LONGEST_S),
    "every_s": Number(SHORTEST_S, LONGEST_S),
}
_KEYS: Final = (*_NAMES, *TIMES)


class FaultsError(Exception):
    """A script that cannot be used; `lines` has one line per error."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault or anomaly of a script.

    device   of a link fault: any device on that link;  tag  "" for the whole device
    start_s  after the start of the simulation;  every_s  None: once
    """

    kind: str
    name: str
    device: str
    tag: str = ""
    start_s: float = 0.0
    duration_s: float = 10.0
    every_s: float | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)

    @property
    def reach(self) -> Reach:
        """What it acts on."""
        return "tag" if self.tag else KINDS[self.kind].reach

    def parameter(self, name: str) -> float | None:
        """Return a parameter or its default."""
        return self.parameters.get(name, KINDS[self.kind].parameters[name].default)

    @property
    def how(self) -> str:
        """In which way an answer goes wrong; KeyError for kinds that have no ways."""
        return self.choices["how"]

    def occurrence(self, t: float) -> int | None:
        """Return which of its occurrences is going on at t, None when none is."""
        since = t - self.start_s
        n = 0 if self.every_s is None else math.floor(since / self.every_s)
        return n if n >= 0 and 0 <= since - n * (self.every_s or 0.0) < self.duration_s else None

    def begins(self, n: int) -> float:
        """Return when occurrence n begins, seconds after the start of the simulation."""
        return self.start_s + n * (self.every_s or 0.0)

    def next_edge(self, t: float) -> float:
        """Return when it next begins or ends after t; infinity when it never does again."""
        first = 0 if self.every_s is None else max(0, math.floor((t - self.start_s) / self.every_s))
        for n in (first, first + 1) if self.every_s else (first,):
            for edge in (self.begins(n), self.begins(n) + self.duration_s):
                if edge > t:
                    return edge
        return math.inf


@dataclass(frozen=True, slots=True)
class FaultScript:
    """All faults of one run; `source` is the file they are from, for what is said about them."""

    faults: tuple[Fault, ...] = ()
    source: str = "faults"

    def check(self, meters: Iterable[MeterSpec]) -> list[str]:
        """Return one line per fault that does not fit these meters."""
        known = {meter.name: meter for meter in meters}
        lines = []
        for fault in self.faults:
            place = f"{self.source}: fault '{fault.name}'"
            meter = known.get(fault.device)
            if meter is None:
                lines.append(f"{place}: device: no device '{fault.device}'{_near(fault.device, known)}")
                continue
            points = {point.name: point for point in meter.points if not point.is_text}
            if fault.tag and fault.tag not in points:
                lines.append(
                    f"{place}: tag: device '{fault.device}' has no tag '{fault.tag}'{_near(fault.tag, points)}"
                )
            elif fault.tag and (wrong := _misfit(fault, points[fault.tag])):
                lines.append(f"{place}: {wrong}")
            elif fault.kind == "nan" and not fault.tag and not any(can_be_absent(point) for point in points.values()):
                lines.append(f"{place}: device: no point of '{fault.device}' can say that it is not available")
            elif fault.kind == "hostile" and (wire := wire_of(meter.link.transport)) not in HOWS[fault.how].wires:
                lines.append(
                    f"{place}: how: '{fault.how}' does not exist on {wire}, link '{meter.link.name}'; wanted a "
                    f"device on {' or '.join(HOWS[fault.how].wires)}"
                )
        return lines


def _misfit(fault: Fault, point: Point) -> str:
    """Return why a fault cannot happen to a point, "" when it can."""
    if fault.kind == "nan" and not can_be_absent(point):
        return f"tag: '{point.name}' is {point.type} without a sentinel, it cannot say that it is not available"
    if fault.kind.startswith("stuck") and fault.parameter("value") is None and _end(fault.kind, point) is None:
        return f"value: is missing, and point '{point.name}' has no range whose end it could be stuck at"
    return ""


def load(path: Path) -> FaultScript:
    """Return the script in a TOML file of [[fault]] tables; raises FaultsError with every error at once."""
    try:
        table = read_toml(path)
    except ProfileError as error:
        raise FaultsError(error.lines) from None
    return parse(table, str(path))


def parse(table: Mapping[str, Any], source: str = "faults") -> FaultScript:
    """Return the script that a table says; raises FaultsError with every error at once."""
    lines = [f"{source}: unknown key {key!r}{_near(key, ('fault',))}" for key in table if key != "fault"]
    entries = table.get("fault", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FaultsError([*lines, f"{source}: fault: got {type(entries).__name__}, wanted [[fault]] tables"])
    faults = []
    for i, entry in enumerate(entries):
        name = entry.get("name")
        place = f"{source}: fault '{name if _is_name(name) else f'#{i + 1}'}'"
        wrong = [f"{place}: {what}" for what in _wrong(entry)]
        lines += wrong
        if not wrong:
            faults.append(_fault(entry, i))
    if lines:
        raise FaultsError(lines)
    return FaultScript(tuple(faults), source)


def _fault(entry: Mapping[str, Any], i: int) -> Fault:
    given = {key: entry[key] for key in _KEYS if key in entry}
    kind = KINDS[entry["kind"]]
    parameters = {key: float(entry[key]) for key in kind.parameters if key in entry}
    choices = {key: entry[key] for key in kind.choices}
    return Fault(**{"name": f"{entry['kind']}-{i + 1}", **given}, parameters=parameters, choices=choices)


def _wrong(entry: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong with one [[fault]] table."""
    name = entry.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        found = "is missing" if name is None else f"got {name!r}"
        return [f"kind: {found}, wanted one of {', '.join(KINDS)}{_near(str(name), KINDS)}"]
    kind, lines = KINDS[name], []
    numbers = {**TIMES, **kind.parameters}
    allowed = (*_NAMES, *numbers, *kind.choices)
    for key, value in entry.items():
        if key not in allowed:
            lines.append(f"unknown key {key!r}{_near(key, allowed)}")
        elif key in _NAMES:
            if not _is_name(value):
                lines.append(f"{key}: got {value!r}, wanted a name")
        elif key in kind.choices:
            if not (choice := kind.choices[key]).admits(value):
                lines.append(f"{key}: got {value!r}, wanted {choice}{_near(str(value), choice.words)}")
        elif not numbers[key].admits(value):
            lines.append(f"{key}: got {value!r}, wanted {numbers[key]}")
    lines += [f"{key}: is missing" for key in ("device", "start_s", "duration_s", *kind.choices) if key not in entry]
    how = entry.get("how")
    if (
        "how" in kind.choices
        and isinstance(how, str)
        and how in HOWS
        and HOWS[how].delay_s is None
        and "delay_s" in entry
    ):
        lines.append(f"delay_s: '{how}' has no delay, wanted none")
    if kind.reach == "tag" and "tag" not in entry:
        lines.append(f"tag: is missing, {name} happens to one tag")
    if "tag" in entry and kind.reach != "tag" and name != "nan":
        lines.append(f"tag: {name} happens to a whole {kind.reach}, wanted no tag")
    n_given = sum(key in entry for key in kind.one_of)
    if n_given > 1 or n_given < kind.is_needed:
        how = "" if len(kind.one_of) == 1 else "exactly one of " if kind.is_needed else "at most one of "
        lines.append(f"wants {how}{', '.join(kind.one_of)}")
    every_s, duration_s = entry.get("every_s"), entry.get("duration_s")
    if isinstance(every_s, int | float) and isinstance(duration_s, int | float) and 0 < every_s <= duration_s:
        lines.append(f"every_s: got {every_s}, wanted more than duration_s = {duration_s}")
    return lines


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _near(word: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(names), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


@dataclass(slots=True)
class Running:
    """One occurrence of a fault that is going on. t, begins_s: seconds after the start of the simulation.

    held  what a freeze holds, or the healthy value when a limit began;  reads  so far
    """

    fault: Fault
    n: int
    begins_s: float
    held: float | None = None
    reads: int = 0


def distort(running: Running, point: Point, value: float, sigma: float, t: float, last: float | None) -> float | None:
    """Return what a tag shows while a fault happens to it; None: not available.

    value, sigma  what it would show, and its noise;  last  what it showed last
    """
    fault, since = running.fault, t - running.begins_s
    running.reads += 1
    if running.held is None:
        running.held = value if last is None else last
    match fault.kind:
        case "freeze":
            return running.held
        case "nan":
            return None
        case "step":
            return _pushed(fault, value)
        case "spike":
            return _pushed(fault, value) if running.reads <= (fault.parameter("samples") or 1) else value
        case "drift":
            return value + (fault.parameter("per_s") or 0.0) * since
        case "noise":
            sd = fault.parameter("sd")
            sd = (fault.parameter("factor") or 0.0) * (sigma or 0.002 * abs(value)) if sd is None else sd
            return value + sd * gauss(key_of(running.n, fault.name, fault.tag), int(t * 1000.0))
        case "stuck_high" | "stuck_low":
            end = fault.parameter("value")
            return _end(fault.kind, point) if end is None else end
        case "limit":
            return _beyond(running, value, max(sigma, abs(point.scale) if point.type[0] != "f" else 0.0), since)
    return value


def _pushed(fault: Fault, value: float) -> float:
    size, factor = fault.parameter("size"), fault.parameter("factor")
    return value + size if size is not None else value * (1.0 if factor is None else factor)


def _beyond(running: Running, value: float, sigma: float, since: float) -> float:
    """Return the value on the other side of the limit than where it was healthy, with its own noise kept."""
    limit, ramp_s = running.fault.parameter("value") or 0.0, running.fault.parameter("ramp_s") or 0.0
    healthy = value if running.held is None else running.held
    side = 1.0 if healthy <= limit else -1.0
    margin = max(0.01 * abs(limit), 6.0 * sigma)
    part = ramp(since, ramp_s) if ramp_s > 0 else 1.0
    target = limit + side * margin + min(max(value - healthy, -0.5 * margin), 0.5 * margin)
    return value + part * (target - value)


def _end(kind: str, point: Point) -> float | None:
    """Return the end of its range where a point gets stuck: of its plausible range, else of its registers."""
    high = kind == "stuck_high"
    if point.range:
        return point.range[1] if high else point.range[0]
    if point.type.startswith("float"):
        return None
    return codec(point).bounds[1 if high else 0]
