"""The broker's access list: a gateway writes only below its own tree, and never its own commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from drivers.profile import read_toml
from gateway.model.config import kind_of, load_console, load_gateway, load_ingest
from gateway.wire.topics import GatewayAddress, all_data, all_of, everything, ledger


def mosquitto(files: Iterable[Path]) -> str:
    """Return mosquitto's acl_file for these configuration files; raises ConfigError.

    The user is `[mqtt] username`; with a client certificate and use_identity_as_username it is the certificate's CN,
    which must then be the same name.
    """
    parts = []
    for path in files:
        kind = kind_of(read_toml(path))
        if kind == "gateway":
            spec = load_gateway(path)
            base = GatewayAddress(spec.corridor, spec.site, spec.id).base
            rules = [f"topic write {base}/{leaf}" for leaf in ("status", "catalog", "health", "alarms", "reply")]
            rules += [f"topic write {base}/{d.name}/{leaf}" for d in spec.devices for leaf in ("data", "event")]
            rules.append(f"topic read {base}/command/+")
            user = spec.mqtt.username
        elif kind == "ingest":
            ingest = load_ingest(path)
            rules = [
                f"topic read {all_data(ingest.corridor)}",
                f"topic read {all_of(ingest.corridor, 'status')}",
                f"topic read {ledger(ingest.corridor)}",
                f"topic write {ledger(ingest.corridor, ingest.id)}",
            ]
            user = ingest.mqtt.username
        else:
            console = load_console(path)
            rules = [f"topic read {everything()}", "topic write corridor/v1/+/+/+/command/+"]
            user = console.mqtt.username
        parts.append("\n".join([f"# {path.name}", f"user {user}", *rules, ""]))
    return "\n".join(parts)
