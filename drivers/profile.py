"""A meter model as a TOML file: loading, checking, and importing from a spreadsheet."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from drivers.blocks import MAX_BITS, MAX_REGISTERS
from drivers.encode import codec
from drivers.points import REGISTERS, Expected, Function, Hole, Kind, Order, Point, ScanList, raw_range, registers_of
from drivers.toml import WRONG, FileError, Flag, Int, Name, Number, Table, judge, near, shown
from drivers.toml import read_toml as read_toml

SHIPPED: Final = Path(__file__).with_name("profiles")
MAX_ADDRESS: Final = 0xFFFF
MAX_PERIOD_S: Final = 86_400.0  # a day: nobody watches what is read less often, so it is a slip of the pen
RESERVED: Final = ("time", "corridor", "site", "gateway", "device", "asset")  # what a line says beside its fields
Grade = Literal["A", "B", "C"]
ProfileError = FileError


def _known_type(value: str) -> str:
    try:
        registers_of(value)
    except KeyError:
        hint = near(value, [*REGISTERS, "string16"])
        raise ValueError(
            f"unknown type {shown(value)}, wanted {', '.join(REGISTERS)} or string<N bytes>{hint}"
        ) from None
    return value


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"got {shown(name)}, wanted another name: the series keeps it for itself")
    return name


def _ascii(unit: str) -> str:
    if not (unit.isascii() and unit.isprintable()):
        raise ValueError(f"got {shown(unit)}, wanted ASCII, as in degC or m3/h")
    return unit


Unit = Annotated[str, Field(max_length=32), AfterValidator(_ascii)]
Period = Annotated[Number, Field(ge=0, le=MAX_PERIOD_S)]


class PointModel(Table):
    """The keys of one point, in a profile or in place under a device."""

    name: Annotated[Name, AfterValidator(_not_reserved)]
    function: Function
    address: Int = Field(ge=0, le=MAX_ADDRESS, description="as on the wire, counted from 0")
    type: Annotated[str, AfterValidator(_known_type)]
    word_order: Order = "big"
    byte_order: Order = "big"
    bit: Int | None = Field(None, ge=0, le=15, description="for bool inside a register")
    scale: Number = Field(1.0, description="value = raw * scale + offset")
    offset: Number = 0.0
    unit: Unit = ""
    kind: Kind = "gauge"
    sentinels: tuple[Int, ...] = ()
    range: tuple[Number, Number] | None = None
    width: Int | None = Field(None, ge=1, le=64, description="bits of a counter")
    max_rate: Number | None = Field(None, gt=0, description="units per second a counter can rise at most")
    rate: Name | None = Field(None, description="the point that says how fast a float32 counter rises")
    rate_s: Number | None = Field(None, gt=0, description="that point's unit is the counter's per so many seconds")
    period_s: Period | None = Field(None, description="poll class: this point's own period")
    description: str = ""

    def faults(self) -> Iterator[str]:
        """Yield combinations that no device can mean."""
        if self.has("scale") and self.scale == 0:
            yield "scale 0 makes every value 0"
        if self.has("range") and self.range and self.range[0] >= self.range[1]:
            yield f"range {list(self.range)}: the first number must be below the second"
        if self.has("kind", "width", "max_rate") and self.kind != "counter" and (self.width or self.max_rate):
            yield "'width' and 'max_rate' go with kind = \"counter\""
        if self.has("rate", "rate_s") and (self.rate is None) != (self.rate_s is None):
            yield "rate and rate_s go together"
        if self.has("rate", "kind", "type") and self.rate and (self.kind, self.type) != ("counter", "float32"):
            yield 'rate goes with kind = "counter" and type = "float32"'
        if self.has("function"):
            yield from self._faults_of_a_bit() if self.function in ("coil", "discrete") else self._faults_of_registers()

    def _faults_of_a_bit(self) -> Iterator[str]:
        if self.has("type") and self.type != "bool":
            yield f"a {self.function} is one bit: type must be bool, got {self.type}"
        for key in ("bit", "sentinels"):
            if getattr(self, key) not in (None, ()) and self.has(key):
                yield f"a {self.function} is one bit: '{key}' has no meaning"

    def _faults_of_registers(self) -> Iterator[str]:
        if not self.has("type"):
            return
        if self.has("bit") and (self.type == "bool") != (self.bit is not None):
            if self.bit is None:
                yield "a bool inside a register needs 'bit' (0 to 15)"
            else:
                yield f"'bit' goes with type bool, got {self.type}"
        if self.type.startswith("string"):
            if self.sentinels:
                yield "'sentinels' has no meaning for a text"
            return
        low, high = raw_range(self.type)
        for value in self.sentinels:
            if not low <= value <= high:
                yield f"sentinels: {shown(value)} is no raw {self.type}, wanted {low} to {high}"

    def point(self) -> Point:
        """Return the value object that the rest of the program sees."""
        return Point(**dict(self))


def point_faults(points: Sequence[PointModel], *, enron: bool = False) -> Iterator[str]:
    """Yield what is wrong between points of one device: names given twice, values beyond the address space, rates."""
    seen: dict[str, int] = {}
    for i, point in enumerate(points):
        if point.has("name") and seen.setdefault(point.name, i) != i:
            yield f"point '{point.name}': given twice (points {seen[point.name] + 1} and {i + 1})"
        if point.has("name", "type", "address"):
            span = 1 if enron and point.type in ENRON_TYPES else registers_of(point.type)
            if point.address + span - 1 > MAX_ADDRESS:
                yield f"point '{point.name}': address {point.address} + {span} registers ends beyond {MAX_ADDRESS}"
    if all(point.has("name", "kind", "type") for point in points):
        yield from _rate_faults(points)


def _rate_faults(points: Sequence[PointModel]) -> Iterator[str]:
    """Yield what is wrong with the points that others name as their rate."""
    whats = {point.name: _what(point) for point in points}
    usable = [name for name, what in whats.items() if not what]
    for point in points:
        if not (point.has("rate") and point.rate):
            continue
        if point.rate not in whats:
            yield f"point '{point.name}': rate: no point {shown(point.rate)}{near(point.rate, usable)}"
        elif what := whats[point.rate]:
            yield f"point '{point.name}': rate: {shown(point.rate)} is a {what}, wanted a number that is no counter"


def _what(point: PointModel) -> str:
    """Return what a point is that cannot be a rate; "" for one that can."""
    if point.type.startswith(("bool", "bitfield", "string")):
        return point.type
    return "counter" if point.kind == "counter" else ""


class HoleModel(Table):
    """The keys of one hole."""

    function: Function
    start: Int = Field(ge=0, le=MAX_ADDRESS, description="as on the wire, counted from 0")
    count: Int = Field(ge=1, le=MAX_ADDRESS + 1)

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with its end."""
        if self.has("start", "count") and self.start + self.count - 1 > MAX_ADDRESS:
            yield f"start {self.start} + {self.count} ends beyond {MAX_ADDRESS}"

    def hole(self) -> Hole:
        """Return the value object that the rest of the program sees."""
        return Hole(**dict(self))


class ScanListModel(Table):
    """The keys of a scan list."""

    function: Literal["holding", "input"]
    start: Int = Field(ge=0, le=MAX_ADDRESS, description="of the list, as on the wire, counted from 0")
    count: Int = Field(ge=1, le=MAX_REGISTERS, description="entries of the list, a register each")
    values: Int = Field(ge=0, le=MAX_ADDRESS, description="where the registers of the first entry are shown")
    step: Int = Field(ge=1, le=MAX_REGISTERS, description="registers that are shown of each entry")
    base: Int = Field(0, ge=0, le=MAX_ADDRESS, description="what an entry holds above the wire address")

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between the list and what it shows."""
        if not self.has("start", "count", "values", "step"):
            return
        end, shown_end = self.start + self.count, self.values + self.count * self.step
        if max(end, shown_end) - 1 > MAX_ADDRESS:
            yield f"ends at {max(end, shown_end) - 1}, beyond {MAX_ADDRESS}"
        if self.start < shown_end and self.values < end:
            yield f"the list ({self.start} to {end - 1}) and its values ({self.values} to {shown_end - 1}) overlap"


WILD: Final = set("*?[")  # of a shell pattern


class ExpectedModel(Table):
    """The keys of one expected point."""

    point: Name
    values: tuple[Number, ...] = Field((), description="in the point's unit")
    texts: tuple[str, ...] = Field((), description="shell patterns, as in PM51*")

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between the keys."""
        if self.has("values", "texts") and bool(self.values) == bool(self.texts):
            yield "wants either 'values' or 'texts'"

    def faults_at(self, point: Point) -> Iterator[str]:
        """Yield what the point that it is about can never say."""
        if not self.has("values", "texts") or any(self.faults()):
            return
        if point.is_text and self.values:
            yield "is a text, wanted 'texts', got 'values'"
        elif self.texts and not point.is_text:
            yield "is a number, wanted 'values', got 'texts'"
        else:
            for text in self.texts:
                if fnmatchcase("", text):
                    yield f"texts: got {shown(text)}, which a meter without a text meets too"
                elif not WILD & set(text) and (nearest := codec(point).served_value(codec(point).encode(text))) != text:
                    yield f"texts: got {shown(text)}, wanted what it can show; the nearest is {shown(nearest)}"
            for value in self.values:
                nearest = codec(point).served_value(codec(point).encode(value))
                if nearest != value and isinstance(nearest, float):
                    yield f"values: got {value:.12g}, wanted what it can show; the nearest is {nearest:.12g}"

    def expected(self) -> Expected:
        """Return the value object that the rest of the program sees."""
        return Expected(**dict(self))


ENRON_TYPES: Final = ("int32", "uint32", "float32", "bitfield32")


class ProfileModel(Table):
    """The keys of a profile file."""

    vendor: str
    model: str
    measurement: Name = "meter"
    source: str = Field(description="where the map comes from")
    grade: Grade = Field(description="A, B or C: how sure it is")
    max_registers: Int = Field(MAX_REGISTERS, ge=1, le=MAX_REGISTERS)
    max_bits: Int = Field(MAX_BITS, ge=1, le=MAX_BITS)
    max_gap: Int = Field(0, ge=0, le=MAX_REGISTERS, description="undefined registers that one read may cross")
    enron: Flag = Field(False, description="one address carries one 32-bit item")
    side_effects: tuple[str, ...] = Field((), description="points that change the device when they are read")
    holes: list[HoleModel] = Field([], description="registers never to be read: the device refuses them")
    expect: list[ExpectedModel] = Field([], description="what tells this model from others, read before anything else")
    scan_list: ScanListModel | None = Field(None, description="registers that an installer can have shown side by side")
    quirks: tuple[str, ...] = Field((), description="what an installer must know")
    points: list[PointModel] = Field(min_length=1)

    def faults(self) -> Iterator[str]:
        """Yield what points say against each other."""
        yield from point_faults(self.points, enron=self.enron or not self.has("enron"))
        if self.has("side_effects", "points") and all(point.has("name") for point in self.points):
            names = {point.name for point in self.points}
            for name in self.side_effects:
                if name not in names:
                    yield f"side_effects: no point {shown(name)}{near(name, names)}"
        if self.has("expect", "points") and all(point.has("name") for point in self.points):
            yield from self._faults_of_expected({point.name: point for point in self.points})

    def _faults_of_expected(self, points: Mapping[str, PointModel]) -> Iterator[str]:
        holes = [hole.hole() for hole in self.holes if hole.has(*HoleModel.model_fields)] if self.has("holes") else []
        seen: set[str] = set()
        for model in self.expect:
            if not model.has("point"):
                continue
            name, place = model.point, f"expect: point {shown(model.point)}"
            if name in seen:
                yield f"{place} is given twice, wanted all its values in one"
            seen.add(name)
            if name not in points:
                yield f"expect: no point {shown(name)}{near(name, points)}"
            elif points[name].has(*PointModel.model_fields) and not any(points[name].faults()):
                point = points[name].point()
                yield from (f"{place}: {fault}" for fault in model.faults_at(point))
                if self.has("side_effects") and name in self.side_effects:
                    yield f"{place} changes the device when it is read, wanted another"
                if self.has("enron") and is_in_hole(point, holes, enron=self.enron):
                    yield f"{place} lies in a hole and is never read, wanted another"


@dataclass(frozen=True, slots=True)
class Profile:
    """A meter model and its values."""

    name: str
    vendor: str
    model: str
    measurement: str
    source: str
    grade: Grade
    points: tuple[Point, ...]
    max_registers: int = MAX_REGISTERS
    max_bits: int = MAX_BITS
    max_gap: int = 0
    enron: bool = False
    side_effects: tuple[str, ...] = ()
    holes: tuple[Hole, ...] = ()
    expect: tuple[Expected, ...] = ()
    scan_list: ScanList | None = None
    quirks: tuple[str, ...] = ()


def load(path: Path) -> Profile:
    """Return the profile in a TOML file; raises ProfileError with every error at once."""
    model, faults = judge(ProfileModel, read_toml(path))
    if faults:
        raise ProfileError(f"{path}: {fault.text}" for fault in faults)
    points = tuple(point.point() for point in model.points)
    holes = tuple(hole.hole() for hole in model.holes)
    expect = tuple(expected.expected() for expected in model.expect)
    scan_list = ScanList(**dict(model.scan_list)) if model.scan_list else None
    parts = {"points": points, "holes": holes, "expect": expect, "scan_list": scan_list}
    return Profile(**{**dict(model), "name": path.stem, **parts})


def find(name: str, folders: Iterable[Path] = ()) -> Profile:
    """Return a profile by name from the user's folders, then from the shipped ones; raises ProfileError."""
    for folder in folders:
        path = folder / f"{name}.toml"
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ProfileError([f"{path}: cannot be read: {error.strerror}"]) from None
        return load(path)
    path = SHIPPED / f"{name}.toml"
    if path.is_file():
        return _shipped(path)
    hint = near(name, names(folders), ", ") or " (`corridor profile list` shows all)"
    raise ProfileError([f"no profile {shown(name)}{hint}"])


@cache
def _shipped(path: Path) -> Profile:
    return load(path)


def names(folders: Iterable[Path] = ()) -> list[str]:
    """Return the names of all profiles that `find` would find, sorted."""
    return sorted({path.stem for folder in (*folders, SHIPPED) for path in folder.glob("*.toml")})


def lint(profile: Profile) -> list[str]:
    """Return what a careful reader would question in a profile that loads: overlaps, missing units, missing ranges."""
    notes = []
    taken: dict[tuple[str, int], str] = {}
    for point in profile.points:
        if point.is_bit or point.type == "bool":
            continue
        span = 1 if profile.enron and point.type in ENRON_TYPES else point.n_registers
        for address in range(point.address, point.address + span):
            other = taken.setdefault((point.function, address), point.name)
            if other != point.name and "8_" not in point.type:
                notes.append(f"point '{point.name}': shares {point.function} register {address} with '{other}'")
                break
    for point in profile.points:
        if point.kind == "counter" and point.type == "float32" and not point.rate:
            notes.append(
                f"point '{point.name}': a float32 total stops resolving 1 {point.unit or 'unit'} at 16 777 216; "
                "rate and rate_s name the point that fills its steps"
            )
        if is_in_hole(point, profile.holes, enron=profile.enron):
            notes.append(f"point '{point.name}': lies in a hole and is never read")
        if point.unit == "device":
            notes.append(f"point '{point.name}': its unit is a setting of the device; set it in a profile of your own")
    return notes


def is_in_hole(point: Point, holes: Iterable[Hole], *, enron: bool) -> bool:
    """Return whether a point has a register that is never to be read."""
    span = 1 if enron and point.type in ENRON_TYPES else point.n_registers
    return any(hole.touches(point.function, point.address, point.address + span) for hole in holes)


COLUMNS: Final = ("name", "function", "address", "type", "word_order", "scale", "offset", "unit", "description")
_FUNCTIONS: Final[dict[str, Function]] = {
    "1": "coil", "2": "discrete", "3": "holding", "4": "input",
    "coil": "coil", "discrete": "discrete", "holding": "holding", "input": "input",
}  # fmt: skip
_COUNTER_UNITS: Final = frozenset({"Wh", "kWh", "MWh", "varh", "kvarh", "VAh", "kVAh", "counts"})

# column -> cell, which is None where its line is too short; under None what the line has beyond the columns
Row = Mapping[str | None, Any]


def import_csv(path: Path, about: Mapping[str, Any]) -> str:
    """Return the TOML text of a profile made from a spreadsheet with the columns of COLUMNS.

    about  vendor, model, measurement, source, grade and any other profile key; raises ProfileError with every error.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            wrong = [f"line 1: {text}" for text in _column_faults(reader.fieldnames or ())]
            rows: list[tuple[int, Row]] = [(reader.line_num, row) for row in reader] if not wrong else []
    except OSError as error:
        raise ProfileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ProfileError([f"{path}: is not a CSV text: {error}"]) from None
    points = []
    for line, row in rows:
        point, faults = _point_of(row)
        wrong += [f"line {line}: {fault}" for fault in faults]
        points.append(point)
    if rows or not wrong:
        head = {"vendor": "", "model": path.stem, "source": path.name, "grade": "C", **about}
        model, found = judge(ProfileModel, {**head, "points": points})
        wrong += [fault.text for fault in found if len(fault.loc) < 2]  # those of a point are told with its line
    if wrong:
        raise ProfileError(f"{path}: {text}" for text in wrong)
    return dump(model)


def _column_faults(given: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with the first line; a column without a name may stand there, if it is empty."""
    columns = Counter(column for column in given if column)
    if missing := [column for column in COLUMNS[:4] if column not in columns]:
        yield f"no column {', '.join(missing)}; wanted {','.join(COLUMNS)}"
    for column, n in columns.items():
        if column not in COLUMNS:
            yield f"unknown column {shown(column)}, wanted {','.join(COLUMNS)}{near(column, COLUMNS)}"
        elif n > 1:
            yield f"column {shown(column)} is given {n} times, wanted one"


def _point_of(row: Row) -> tuple[dict[str, Any], list[str]]:
    """Return the table of the point in one line, and what is wrong with it."""
    text = {column: (row.get(column) or "").strip() for column in COLUMNS}
    wrong = []
    if any(cell.strip() for cell in (*(row.get(None) or ()), row.get("") or "")):
        wrong.append("has more cells than the first line has columns, wanted a decimal point, or quotes around a comma")
    unit = "" if text["unit"] == "1" else text["unit"]
    table = {
        "name": text["name"],
        "type": text["type"],
        "word_order": text["word_order"] or "big",
        "unit": unit,
        "kind": _kind_of(text["name"], text["type"], unit),
        "description": text["description"],
    }
    for key, read, wanted in _CELLS:
        if text[key] or key in COLUMNS[:4]:
            try:
                table[key] = read(text[key])
            except (KeyError, ValueError):
                table[key] = WRONG
                wrong.append(f"{key}: got {shown(text[key])}, wanted {wanted}")
    _, faults = judge(PointModel, table)
    return table, [*wrong, *(fault.text for fault in faults)]


_CELLS: Final[tuple[tuple[str, Callable[[str], Any], str], ...]] = (
    ("function", lambda cell: _FUNCTIONS[cell.lower()], "1, 2, 3, 4, coil, discrete, holding or input"),
    ("address", lambda cell: int(cell, 0), f"a number from 0 to {MAX_ADDRESS}"),
    ("scale", float, "a number"),
    ("offset", float, "a number"),
)


def _kind_of(name: str, type_name: str, unit: str) -> Kind:
    if type_name.startswith(("bitfield", "bool")) or name.endswith(("status", "_code", "_state")):
        return "state"
    may_fall = name.startswith("consumed") or "net" in name.split("_")
    return "counter" if unit in _COUNTER_UNITS and not may_fall else "gauge"


def export(profile: Profile, holes: Iterable[Hole], max_registers: int, max_bits: int) -> str:
    """Return the TOML text of a profile with more holes and smaller largest reads than it had."""
    table = asdict(profile)
    del table["name"]
    table["holes"] = [asdict(hole) for hole in sorted({*profile.holes, *holes})]
    table["max_registers"] = min(profile.max_registers, max_registers)
    table["max_bits"] = min(profile.max_bits, max_bits)
    return dump(ProfileModel(**table))


def dump(model: ProfileModel) -> str:
    """Return a profile as the TOML text that `load` reads back to the same profile."""
    head = model.model_dump(exclude={"points"}, exclude_defaults=True)
    lines = [f"{key} = {_toml(value)}" for key, value in head.items()]
    lines.append("points = [")
    for point in model.points:
        lines.append(f"  {_toml(point.model_dump(exclude_defaults=True))},")
    return "\n".join([*lines, "]", ""])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return f"{value:.1f}"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    text = str(value).encode(errors="replace").decode()  # a file's name may hold bytes that are no text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + '"'
