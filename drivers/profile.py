"""A meter model as a TOML file: loading, checking, and importing from a spreadsheet."""

from __future__ import annotations

import csv
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from drivers.blocks import MAX_BITS, MAX_REGISTERS
from drivers.points import REGISTERS, Function, Kind, Order, Point, registers_of

SHIPPED: Final = Path(__file__).with_name("profiles")
MAX_ADDRESS: Final = 0xFFFF
NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"  # safe as a topic level, a file name and a field key
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Grade = Literal["A", "B", "C"]


def _known_type(value: object) -> object:
    try:
        registers_of(str(value))
    except KeyError:
        near = difflib.get_close_matches(str(value), [*REGISTERS, "string16"], 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"unknown type '{value}', wanted {', '.join(REGISTERS)} or string<N bytes>{hint}") from None
    return value


class PointModel(BaseModel):
    """The keys of one point, in a profile or in place under a device."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)

    name: Name
    function: Function
    address: int = Field(ge=0, le=MAX_ADDRESS, description="as on the wire, counted from 0")
    type: Annotated[str, BeforeValidator(_known_type)]
    word_order: Order = "big"
    byte_order: Order = "big"
    bit: int | None = Field(None, ge=0, le=15, description="for bool inside a register")
    scale: float = Field(1.0, allow_inf_nan=False, description="value = raw * scale + offset")
    offset: float = Field(0.0, allow_inf_nan=False)
    unit: str = Field("", max_length=32)
    kind: Kind = "gauge"
    sentinels: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    width: int | None = Field(None, ge=1, le=64, description="bits of a counter")
    max_rate: float | None = Field(None, gt=0, description="units per second a counter can rise at most")
    period_s: float | None = Field(None, ge=0, description="poll class: this point's own period")
    description: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> PointModel:
        """Refuse combinations that no device can mean."""
        if self.scale == 0:
            raise ValueError("scale 0 makes every value 0")
        if self.range and self.range[0] >= self.range[1]:
            raise ValueError(f"range {list(self.range)}: the first number must be below the second")
        if self.function in ("coil", "discrete"):
            if self.type != "bool":
                raise ValueError(f"a {self.function} is one bit: type must be bool, got {self.type}")
            if self.bit is not None:
                raise ValueError(f"a {self.function} is one bit: 'bit' has no meaning")
        elif self.type == "bool" and self.bit is None:
            raise ValueError("a bool inside a register needs 'bit' (0 to 15)")
        if self.bit is not None and self.type != "bool":
            raise ValueError(f"'bit' goes with type bool, got {self.type}")
        if self.kind != "counter" and (self.width or self.max_rate):
            raise ValueError("'width' and 'max_rate' go with kind = \"counter\"")
        return self

    def point(self) -> Point:
        """Return the value object that the rest of the program sees."""
        return Point(**self.model_dump())


def check_points(points: Iterable[PointModel], *, enron: bool = False) -> list[str]:
    """Return what is wrong between points of one device: names given twice, values beyond the address space."""
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for i, point in enumerate(points):
        if point.name in seen:
            wrong.append(f"point '{point.name}': given twice (points {seen[point.name] + 1} and {i + 1})")
        seen.setdefault(point.name, i)
        span = 1 if enron and point.type in ENRON_TYPES else point.point().n_registers
        if point.address + span - 1 > MAX_ADDRESS:
            wrong.append(f"point '{point.name}': address {point.address} + {span} registers ends beyond {MAX_ADDRESS}")
    return wrong


ENRON_TYPES: Final = ("int32", "uint32", "float32", "bitfield32")


class ProfileModel(BaseModel):
    """The keys of a profile file."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)

    vendor: str
    model: str
    measurement: Name = "meter"
    source: str = Field(description="where the map comes from")
    grade: Grade = Field(description="A, B or C: how sure it is")
    max_registers: int = Field(MAX_REGISTERS, ge=1, le=MAX_REGISTERS)
    max_bits: int = Field(MAX_BITS, ge=1, le=MAX_BITS)
    max_gap: int = Field(0, ge=0, le=MAX_REGISTERS, description="undefined registers that one read may cross")
    enron: bool = Field(False, description="one address carries one 32-bit item")
    side_effects: tuple[str, ...] = Field((), description="points that change the device when they are read")
    quirks: tuple[str, ...] = Field((), description="what an installer must know")
    points: list[PointModel] = Field(min_length=1)

    @model_validator(mode="after")
    def _points_fit(self) -> ProfileModel:
        """Refuse points that contradict each other."""
        wrong = check_points(self.points, enron=self.enron)
        names = {point.name for point in self.points}
        wrong += [f"side_effects: no point '{name}'" for name in self.side_effects if name not in names]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


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
    quirks: tuple[str, ...] = ()


class ProfileError(Exception):
    """A profile file that cannot be used; one line per thing that is wrong in `lines`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def read_toml(path: Path) -> dict[str, Any]:
    """Return the file's table; raises ProfileError with one clear line for an absent, empty, binary or broken file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ProfileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    if not raw.strip():
        raise ProfileError([f"{path}: is empty, wanted TOML"])
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise ProfileError([f"{path}: is not text (byte {error.start}), wanted TOML in UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ProfileError([f"{path}: is not TOML: {str(error).splitlines()[0]}"]) from None


def load(path: Path) -> Profile:
    """Return the profile in a TOML file; raises ProfileError with every error at once."""
    table = read_toml(path)
    try:
        model = ProfileModel.model_validate(table)
    except ValidationError as error:
        raise ProfileError(describe(path, error, table)) from None
    fields = {name: getattr(model, name) for name in ProfileModel.model_fields if name != "points"}
    return Profile(name=path.stem, points=tuple(point.point() for point in model.points), **fields)


def describe(path: Path, error: ValidationError, table: Mapping[str, Any]) -> list[str]:
    """Return one line per error of a profile: file, point, what was found, what is wanted."""
    lines = []
    for item in error.errors(include_url=False):
        where = _place(item["loc"], table)
        lines.append(f"{path}: {where + ': ' if where else ''}{explain(item, _keys_at(item['loc']))}")
    return lines


def _place(loc: tuple[int | str, ...], table: Mapping[str, Any]) -> str:
    if len(loc) >= 2 and loc[0] == "points" and isinstance(loc[1], int):
        point = table["points"][loc[1]]
        name = point.get("name", f"#{loc[1] + 1}") if isinstance(point, dict) else f"#{loc[1] + 1}"
        rest = ".".join(str(part) for part in loc[2:])
        return f"point '{name}'" + (f": {rest}" if rest else "")
    return ".".join(str(part) for part in loc)


def _keys_at(loc: tuple[int | str, ...]) -> Iterable[str]:
    return PointModel.model_fields if loc[:1] == ("points",) else ProfileModel.model_fields


def explain(item: Mapping[str, Any], known: Iterable[str]) -> str:
    """Return what pydantic found wrong in the words of an installer, with the nearest valid name for a typo."""
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][-1]), list(known), 1)
        return "unknown key" + (f", did you mean '{near[0]}'?" if near else "")
    if kind == "missing":
        return "is missing"
    if kind == "too_short":
        return "is empty, wanted at least one"
    message = str(item["msg"])
    for prefix in ("Value error, ", "Input should be ", "String should "):
        message = message.removeprefix(prefix)
    if kind == "literal_error":
        wanted = item["ctx"]["expected"]
        near = difflib.get_close_matches(str(given), re.findall(r"'([^']+)'", wanted), 1)
        return f"got {given!r}, wanted {wanted}" + (f"; did you mean '{near[0]}'?" if near else "")
    if kind == "value_error":
        return message
    if kind == "string_pattern_mismatch":
        return f"got {given!r}, wanted letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'"
    return f"got {given!r}, wanted {message}" if not isinstance(given, dict | list) else f"wanted {message}"


def find(name: str, folders: Iterable[Path] = ()) -> Profile:
    """Return a profile by name from the user's folders, then from the shipped ones; raises ProfileError."""
    for folder in (*folders, SHIPPED):
        path = folder / f"{name}.toml"
        if path.is_file():
            return load(path) if folder != SHIPPED else _shipped(path)
    near = difflib.get_close_matches(name, names(folders), 1)
    hint = f", did you mean '{near[0]}'?" if near else " (`corridor profile list` shows all)"
    raise ProfileError([f"no profile '{name}'{hint}"])


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
        if point.kind == "counter" and point.type == "float32":
            notes.append(
                f"point '{point.name}': a float32 total stops resolving 1 {point.unit or 'unit'} at 16 777 216"
            )
        if point.unit == "device":
            notes.append(f"point '{point.name}': its unit is a setting of the device; set it in a profile of your own")
    return notes


COLUMNS: Final = ("name", "function", "address", "type", "word_order", "scale", "offset", "unit", "description")
_FUNCTIONS: Final[dict[str, Function]] = {
    "1": "coil", "2": "discrete", "3": "holding", "4": "input",
    "coil": "coil", "discrete": "discrete", "holding": "holding", "input": "input",
}  # fmt: skip
_COUNTER_UNITS: Final = frozenset({"Wh", "kWh", "MWh", "varh", "kvarh", "VAh", "kVAh", "counts"})


def import_csv(path: Path, about: Mapping[str, Any]) -> str:
    """Return the TOML text of a profile made from a spreadsheet with the columns of COLUMNS.

    about  vendor, model, measurement, source, grade and any other profile key; raises ProfileError with every error.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if missing := [column for column in COLUMNS[:4] if column not in (reader.fieldnames or ())]:
                raise ProfileError([f"{path}: line 1: no column {', '.join(missing)}; wanted {','.join(COLUMNS)}"])
            rows = list(reader)
    except OSError as error:
        raise ProfileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ProfileError([f"{path}: is not a CSV text: {error}"]) from None
    points, wrong = [], []
    for line, row in enumerate(rows, 2):
        try:
            points.append(_point_of(row))
        except ValidationError as error:
            for item in error.errors(include_url=False):
                where = ".".join(str(part) for part in item["loc"])
                wrong.append(f"{path}: line {line}: {where + ': ' if where else ''}{explain(item, COLUMNS)}")
        except ValueError as error:
            wrong.append(f"{path}: line {line}: {error}")
    if wrong:
        raise ProfileError(wrong)
    table = {"vendor": "", "model": path.stem, "measurement": "meter", "source": str(path.name), "grade": "C", **about}
    try:
        model = ProfileModel.model_validate({**table, "points": points})
    except ValidationError as error:
        raise ProfileError(describe(path, error, {"points": [p.model_dump() for p in points]})) from None
    return dump(model)


def _point_of(row: Mapping[str, str | None]) -> PointModel:
    text = {key: (value or "").strip() for key, value in row.items() if isinstance(value, str | None)}
    function = _FUNCTIONS.get(text["function"].lower())
    if function is None:
        raise ValueError(f"function: got {text['function']!r}, wanted 1, 2, 3, 4 or {', '.join(_FUNCTIONS)}")
    try:
        address = int(text["address"], 0)
    except ValueError:
        raise ValueError(f"address: got {text['address']!r}, wanted a number from 0 to {MAX_ADDRESS}") from None
    unit = text.get("unit", "")
    return PointModel.model_validate(
        {
            "name": text["name"],
            "function": function,
            "address": address,
            "type": text["type"],
            "word_order": text.get("word_order") or "big",
            "scale": text.get("scale") or 1.0,
            "offset": text.get("offset") or 0.0,
            "unit": "" if unit == "1" else unit,
            "kind": _kind_of(text["name"], text["type"], unit),
            "description": text.get("description", ""),
        }
    )


def _kind_of(name: str, type_name: str, unit: str) -> Kind:
    if type_name.startswith(("bitfield", "bool")) or name.endswith(("status", "_code", "_state")):
        return "state"
    return "counter" if unit in _COUNTER_UNITS and not name.startswith("consumed") else "gauge"


def dump(model: ProfileModel) -> str:
    """Return a profile as the TOML text that `load` reads back to the same profile."""
    head = model.model_dump(exclude={"points"}, exclude_defaults=True)
    lines = [f"{key} = {_toml(value)}" for key, value in head.items()]
    lines.append("points = [")
    for point in model.points:
        given = point.model_dump(exclude_defaults=True)
        lines.append("  {" + ", ".join(f"{key} = {_toml(value)}" for key, value in given.items()) + "},")
    return "\n".join([*lines, "]", ""])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return f"{value:.1f}"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in text) + '"'
