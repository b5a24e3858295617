"""gateway.toml, ingest.toml and console.toml: read once, every error at once, then frozen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from drivers import profile as profiles
from drivers.profile import ProfileError, explain
from gateway.model.build import Builder
from gateway.model.build import ConfigError as ConfigError
from gateway.model.corridor import ConsoleSpec, GatewaySpec, IngestSpec
from gateway.model.tables import ConsoleToml, GatewayToml, IngestToml, Toml


def kind_of(table: Mapping[str, Any]) -> str:
    """Return which of the three files a table is meant to be."""
    if "ingest" in table:
        return "ingest"
    return "console" if "console" in table and "gateway" not in table else "gateway"


def load_gateway(path: Path) -> GatewaySpec:
    """Return what gateway.toml says; opens no socket; raises ConfigError with every error at once."""
    table = _read(path)
    model, errors = _validate(GatewayToml, path, table)
    builder = Builder(path, table)
    if model is None:
        errors += builder.salvage()
        raise ConfigError(list(dict.fromkeys(errors)))
    spec = builder.gateway(model)
    builder.finish()
    return spec


def load_ingest(path: Path) -> IngestSpec:
    """Return what ingest.toml says; raises ConfigError with every error at once."""
    model, builder = _load(IngestToml, path)
    own = model.ingest
    mqtt, store = builder.mqtt(model.mqtt, own.id), builder.store(model.store)
    builder.finish()
    return IngestSpec(own.id, own.corridor, own.share, mqtt, store)


def load_console(path: Path) -> ConsoleSpec:
    """Return what console.toml says; raises ConfigError with every error at once."""
    model, builder = _load(ConsoleToml, path)
    listen = builder.listen("console: listen", model.console.listen)
    mqtt = builder.mqtt(model.mqtt, None)
    store = builder.store(model.store) if model.store else None
    builder.finish()
    return ConsoleSpec(listen, mqtt, store)


def _load(kind: type[Toml], path: Path) -> tuple[Toml, Builder]:
    table = _read(path)
    model, errors = _validate(kind, path, table)
    if model is None:
        raise ConfigError(errors)
    return model, Builder(path, table)


def check(path: Path) -> list[str]:
    """Return every error of a configuration file, whichever of the three it is; an empty list means: it can run."""
    try:
        table = _read(path)
        {"gateway": load_gateway, "ingest": load_ingest, "console": load_console}[kind_of(table)](path)
    except ConfigError as error:
        return error.lines
    return []


def _read(path: Path) -> dict[str, Any]:
    try:
        return profiles.read_toml(path)
    except ProfileError as error:
        raise ConfigError(error.lines) from None


def _validate(kind: type[Toml], path: Path, table: dict[str, Any]) -> tuple[Toml | None, list[str]]:
    try:
        return kind.model_validate(table), []
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            place, model = _place(kind, item["loc"], table)
            lines.append(f"{path}: {place}: {explain(item, model.model_fields)}")
        return None, lines


def _place(kind: type[BaseModel], loc: tuple[int | str, ...], table: object) -> tuple[str, type[BaseModel]]:
    """Return where an error is, as an installer would say it, and the model whose keys are valid there."""
    words: list[str] = []
    model = kind
    for part in loc:
        below = table.get(part) if isinstance(table, dict) else None
        if isinstance(table, list | tuple) and isinstance(part, int) and part < len(table):
            below = table[part]
        if isinstance(part, int):
            name = below.get("name") if isinstance(below, dict) else None
            if words:
                words[-1] += f" '{name}'" if isinstance(name, str) else f" #{part + 1}"
        elif words and words[-1] == "tag":
            words[-1] = f"tag '{part}'"
        else:
            words.append(str(part))
            model = _model_of(model, str(part)) or model
        table = below
    return ": ".join(words) or "file", model


def _model_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    found = model.model_fields.get(key)
    return next((t for t in models_in(found.annotation)), None) if found else None


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from models_in(inner)


def state_dir(given: Path | None, gateway_id: str) -> Path:
    """Return the folder of everything that outlives the process."""
    if given:
        return given
    if own := os.environ.get("STATE_DIRECTORY"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "corridor" / gateway_id
