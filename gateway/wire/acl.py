"""The broker's access list: a gateway writes only below its own tree, and never its own commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from drivers.profile import ProfileError, read_toml
from gateway.model.config import ConfigError, kind_of, load_console, load_gateway, load_ingest
from gateway.model.corridor import ConsoleSpec, GatewaySpec, IngestSpec, MqttSpec
from gateway.wire.certificate import common_name
from gateway.wire.topics import OWN, GatewayAddress, all_data, all_of, everything, ledger

_PLAIN: Final = "printable text without spaces around it"


def mosquitto(files: Iterable[Path]) -> str:
    """Return mosquitto's acl_file for these configuration files; raises ConfigError with every error of all of them.

    The user is `[mqtt] username`, else the common name of the client certificate, which is what a broker with
    use_identity_as_username goes by, else the id of the gateway or ingest.
    """
    parts: list[str] = []
    wrong: list[str] = []
    for path in files:
        try:
            parts.append("\n".join(_lines(path)))
        except (ConfigError, ProfileError) as error:
            wrong += error.lines
    if wrong:
        raise ConfigError(wrong)
    return "\n".join(parts)


def _lines(path: Path) -> list[str]:
    if not _is_plain(path.name):
        raise ConfigError([f"{str(path)!r}: this file name cannot stand in an access list, wanted {_PLAIN}"])
    table = read_toml(path)
    kind = kind_of(table)
    spec: GatewaySpec | IngestSpec | ConsoleSpec
    if kind == "gateway":
        spec = load_gateway(path)
    else:
        spec = load_ingest(path) if kind == "ingest" else load_console(path)
    return [f"# {path.name}", f"user {_user(path, table, spec.mqtt)}", *_rules(spec), ""]


def _user(path: Path, table: Mapping[str, Any], mqtt: MqttSpec) -> str:
    """Return under which name the broker knows the process of a configuration file."""
    user: str | None = table["mqtt"].get("username")
    if not user and mqtt.cert_file:
        try:
            user = common_name(mqtt.cert_file)
        except OSError as error:
            raise ConfigError([f"{path}: mqtt: cert_file: {mqtt.cert_file}: {error.strerror}"]) from None
        except ValueError as error:
            raise ConfigError([f"{path}: mqtt: cert_file: {mqtt.cert_file}: {error}"]) from None
    user = user or mqtt.username
    if not user:
        what = "the broker knows it by no name, wanted username, or cert_file and key_file"
        raise ConfigError([f"{path}: mqtt: {what}"])
    if not _is_plain(user):
        raise ConfigError([f"{path}: mqtt: user {user!r} cannot stand in an access list, wanted {_PLAIN}"])
    return user


def _is_plain(name: str) -> bool:
    """Return whether a name is one in the list: a line break in it would begin a rule."""
    return name.isprintable() and name == name.strip()


def _rules(spec: GatewaySpec | IngestSpec | ConsoleSpec) -> list[str]:
    """Return what a process may read and write."""
    if isinstance(spec, GatewaySpec):
        base = GatewayAddress(spec.corridor, spec.site, spec.id).base
        return [
            *(f"topic write {base}/{leaf}" for leaf in ("status", "catalog", "health", "alarms", "reply")),
            *(f"topic write {base}/{device.name}/{leaf}" for device in spec.devices for leaf in ("data", "event")),
            f"topic write {base}/{OWN}/event",
            f"topic read {base}/command/+",
        ]
    if isinstance(spec, IngestSpec):
        return [
            f"topic read {all_data(spec.corridor)}",
            f"topic read {all_of(spec.corridor, 'status')}",
            f"topic read {ledger(spec.corridor)}",
            f"topic write {ledger(spec.corridor, spec.id)}",
            f"topic read {all_of(spec.corridor, 'reply')}",
            f"topic write {all_of(spec.corridor, 'command')}/resend",
        ]
    return [f"topic read {everything()}", "topic write corridor/v1/+/+/+/command/+"]
