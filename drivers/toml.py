"""TOML files as tables of known keys: read whole, every fault at once, one line each.

A table with faults is made all the same, with WRONG where a value was refused; a rule that needs such a value is left
out. So no fault hides another one, and no default in place of a wrong value makes a false one.
"""

from __future__ import annotations

import datetime
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

MAX_NAME: Final = 64  # characters: a topic has several names in it
NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"  # safe as a topic level, a file name and a field key
MAX_SHOWN: Final = 120  # characters of a value in a message: more than any that was meant, and one line on a screen
SHOWN_BITS: Final = 64  # a larger whole number is no value of any key, and may have more digits than Python prints

Loc = tuple[int | str, ...]


class FileError(Exception):
    """A file that cannot be used; `lines` has one line per thing that is wrong."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = [escape(line) for line in dict.fromkeys(lines)]
        super().__init__("\n".join(self.lines))


def escape(line: str) -> str:
    """Return a text as one line that a terminal can show: control characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def hide(text: str) -> str:
    """Return a text without what may be secret in a URL: what stands before an @, and the values of a query."""
    text = re.sub(r"^([a-z0-9+.-]*://)?.*@", r"\1***@", text, flags=re.DOTALL | re.IGNORECASE)
    return re.sub(r"([?&][^=&]*=)[^&]*", r"\1***", text)


def shown(value: object) -> str:
    """Return a value of a file as a message shows it: as TOML writes it, short, and without secrets."""
    match value:
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > SHOWN_BITS:
            return f"a number of {value.bit_length()} bits"
        case dict():
            return "a table"
        case list():
            return "a list"
        case datetime.date() | datetime.time():
            return value.isoformat()
    text = repr(hide(value) if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def near(word: object, names: Iterable[str], before: str = "; ") -> str:
    """Return the nearest of some names as the end of a message; "" when none is near."""
    found = difflib.get_close_matches(word[:MAX_SHOWN], list(names), 1) if isinstance(word, str) else []
    return f"{before}did you mean {shown(found[0])}?" if found else ""


class _Wrong:
    """Stands where a value was refused: false, empty, and everything about it is wrong too."""

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __call__(self, *args: object) -> _Wrong:
        return self

    def __getattr__(self, name: str) -> _Wrong:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


WRONG: Final[Any] = _Wrong()


class Table(BaseModel):
    """A table of a file; a key that nobody reads is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _wrong_stays_wrong(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        return value if value is WRONG else check(value)

    def has(self, *keys: str) -> bool:
        """Return whether the values of these keys can be used: none of them was refused."""
        return all(getattr(self, key) is not WRONG for key in keys)

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between the keys; each rule asks with `has` for the keys that it needs."""
        return iter(())


def _one_line(value: Any) -> Any:
    if not str(value).isprintable() or str(value) != str(value).strip():
        raise ValueError(f"got {shown(str(value))}, wanted no control characters, and no blanks around it")
    return value


T = TypeVar("T", bound=Table)
Int = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, AfterValidator(_one_line)]
FilePath = Annotated[Path, AfterValidator(_one_line)]
Name = Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where in the table, and a text that begins with that place in an installer's words."""

    loc: Loc
    text: str


def read_toml(path: Path) -> dict[str, Any]:
    """Return the file's table; raises FileError with one clear line for an absent, empty, binary or broken file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    try:
        text = raw.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise FileError([f"{path}: is not text (byte {error.start}), wanted TOML in UTF-8"]) from None
    if not text.strip():
        raise FileError([f"{path}: is empty, wanted TOML"])
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError([f"{path}: is not TOML: {error}"]) from None
    except RecursionError:
        raise FileError([f"{path}: brackets stand too deep in each other, wanted tables and lists"]) from None
    except ValueError:  # of int(), which tomllib hands on
        raise FileError([f"{path}: holds a number with too many digits"]) from None


def judge(kind: type[T], table: dict[str, Any]) -> tuple[T, list[Fault]]:
    """Return a table as its model, and all its faults; refused values become WRONG, in `table` too."""
    faults: list[Fault] = []
    while True:
        try:
            model = kind.model_validate(table)
            break
        except ValidationError as error:
            found = error.errors(include_url=False)
        for item in found:
            if item["input"] is not WRONG:
                place, known = _place(kind, item["loc"], table)
                faults.append(Fault(item["loc"], f"{place}: {explain(item, known)}"))
        for item in found:
            _refuse(table, item["loc"], is_known=item["type"] != "extra_forbidden")
    for loc, inner in _tables(model, ()):
        for text in inner.faults():
            place, _ = _place(kind, loc, table)
            faults.append(Fault(loc, f"{place}: {text}" if place else text))
    return model, faults


def _refuse(table: dict[str, Any], loc: Loc, *, is_known: bool) -> None:
    """Put WRONG at a place, or take an unknown key out; what is WRONG and still refused takes what holds it along."""
    holders: list[tuple[Any, int | str, object]] = []
    inner: Any = table
    for part in loc:
        if isinstance(inner, dict):
            found = inner.get(part)
        elif isinstance(inner, list) and isinstance(part, int) and part < len(inner):
            found = inner[part]
        else:
            break
        holders.append((inner, part, found))
        inner = found
    while len(holders) > 1 and holders[-1][2] is WRONG:
        holders.pop()
    holder, part, _ = holders[-1]
    if is_known:
        holder[part] = WRONG
    else:
        del holder[part]


def _tables(value: Any, loc: Loc) -> Iterator[tuple[Loc, Table]]:
    """Yield every table in a table, list or dict, the outer ones first, with its place."""
    if isinstance(value, Table):
        yield loc, value
    for key, inner in enumerate(value) if isinstance(value, list | tuple) else dict(value).items():
        if isinstance(inner, Table | list | tuple | dict):
            yield from _tables(inner, (*loc, key))


def _place(kind: type[Table], loc: Loc, table: object) -> tuple[str, Iterable[str]]:
    """Return where a place is, as an installer would say it, and the keys that are valid there."""
    words: list[str] = []
    model: type[BaseModel] = kind
    is_named = False  # the next part is the name of a table, as in [device.tag.NAME]
    for part in loc:
        try:
            table = table[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            table = None
        if isinstance(part, int):
            name = table.get("name") if isinstance(table, dict) else None
            words[-1] = titled(words[-1].removesuffix("s"), name, part)
        elif is_named:
            words[-1] = titled(words[-1], part)
            is_named = False
        else:
            words.append(hide(part))
            if (field := model.model_fields.get(part)) and (inner := next(models_in(field.annotation), None)):
                model, is_named = inner, get_origin(field.annotation) is dict
    return ": ".join(words), model.model_fields


def titled(what: str, name: object, number: int = 0) -> str:
    """Return how messages call a table of a list: `device 'ft-101'`, or `device #3` when its name says nothing."""
    return f"{what} {shown(name)}" if isinstance(name, str) else f"{what} #{number + 1}"


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the tables that a key may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from models_in(inner)


_WANTED: Final = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "path_type": "a path in quotes",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "string_pattern_mismatch": "letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'",
}


def explain(item: Mapping[str, Any], known: Iterable[str]) -> str:
    """Return what pydantic found wrong in the words of an installer, with the nearest valid name for a typo."""
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + near(item["loc"][-1], known, ", ")
    if kind == "missing":
        return "is missing"
    if kind == "too_short":
        return "is empty, wanted at least one"
    if kind == "too_long":
        return f"got {context['actual_length']} items, wanted at most {context['max_length']}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_too_long":
        return f"got {shown(given)}, wanted at most {context['max_length']} characters"
    if kind == "literal_error":
        wanted = context["expected"]
        names = re.findall(r"'([^']+)'", wanted)
        return f"got {shown(given)}, wanted {wanted}{near(given, names)}"
    return f"got {shown(given)}, wanted {_WANTED.get(kind) or str(item['msg']).removeprefix('Input should be ')}"
