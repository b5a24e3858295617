"""gateway.toml, ingest.toml and console.toml: read once, every error at once, then frozen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from drivers.toml import judge, read_toml
from gateway.model.build import Builder
from gateway.model.build import ConfigError as ConfigError
from gateway.model.corridor import ConsoleSpec, GatewaySpec, IngestSpec
from gateway.model.tables import ConsoleToml, GatewayToml, IngestToml

Spec = TypeVar("Spec")


def kind_of(table: Mapping[str, Any]) -> str:
    """Return which of the three files a table is meant to be."""
    if "ingest" in table:
        return "ingest"
    return "console" if "console" in table and "gateway" not in table else "gateway"


def load_gateway(path: Path) -> GatewaySpec:
    """Return what gateway.toml says; opens no socket; raises ConfigError with every error at once."""
    return _right(_gateway(path, read_toml(path)))


def load_ingest(path: Path) -> IngestSpec:
    """Return what ingest.toml says; raises ConfigError with every error at once."""
    return _right(_ingest(path, read_toml(path)))


def load_console(path: Path) -> ConsoleSpec:
    """Return what console.toml says; raises ConfigError with every error at once."""
    return _right(_console(path, read_toml(path)))


def check(path: Path, more: Callable[[GatewaySpec], Iterable[str]] = lambda spec: ()) -> list[str]:
    """Return every error of a configuration file, whichever of the three it is; an empty list means: it can run.

    more  adds what only shows when a gateway is planned; it is asked beside other errors too, and then sees the links
          and devices that have none
    """
    try:
        table = read_toml(path)
    except ConfigError as error:
        return error.lines
    spec, errors = _KINDS[kind_of(table)](path, table)
    if isinstance(spec, GatewaySpec):
        errors = [*errors, *(f"{path}: {line}" for line in more(spec))]
    return ConfigError(errors).lines


def _gateway(path: Path, table: dict[str, Any]) -> tuple[GatewaySpec, list[str]]:
    model, faults = judge(GatewayToml, table)
    builder = Builder(path, faults)
    return builder.gateway(model), builder.errors


def _ingest(path: Path, table: dict[str, Any]) -> tuple[IngestSpec, list[str]]:
    model, faults = judge(IngestToml, table)
    builder = Builder(path, faults)
    return builder.ingest(model), builder.errors


def _console(path: Path, table: dict[str, Any]) -> tuple[ConsoleSpec, list[str]]:
    model, faults = judge(ConsoleToml, table)
    builder = Builder(path, faults)
    return builder.console(model), builder.errors


_KINDS: Final[dict[str, Callable[[Path, dict[str, Any]], tuple[Any, list[str]]]]] = {
    "gateway": _gateway,
    "ingest": _ingest,
    "console": _console,
}


def _right(found: tuple[Spec, list[str]]) -> Spec:
    spec, errors = found
    if errors:
        raise ConfigError(errors)
    return spec


def gateway_id(path: Path) -> str:
    """Return the id of the gateway that a file is about, whatever else is wrong in it; raises ConfigError."""
    table = read_toml(path).get("gateway")
    found = table.get("id") if isinstance(table, dict) else None
    if not isinstance(found, str) or not found:
        raise ConfigError([f"{path}: gateway: id: is not there, wanted the name of a gateway"])
    return found


def state_dir(given: Path | None, gateway_id: str) -> Path:
    """Return the folder of everything that outlives the process."""
    if given:
        return given
    if own := os.environ.get("STATE_DIRECTORY"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "corridor" / gateway_id
