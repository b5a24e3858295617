"""The topic tree: corridor/v1/<corridor>/<site>/<gateway>/..."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ROOT: Final = "corridor/v1"
GATEWAY_LEAVES: Final = frozenset({"status", "catalog", "health", "alarms", "reply"})
OWN: Final = "gateway"  # where a topic, an event or an alarm names a device and the gateway means itself
DEVICE_LEAVES: Final = frozenset({"data", "event"})


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where one gateway stands in the tree."""

    corridor: str
    site: str
    gateway: str

    @property
    def base(self) -> str:
        """The topic below which the gateway owns everything."""
        return f"{ROOT}/{self.corridor}/{self.site}/{self.gateway}"

    def leaf(self, name: str) -> str:
        """Return the topic of status, catalog, health, alarms or reply."""
        return f"{self.base}/{name}"

    def device(self, device: str, leaf: str) -> str:
        """Return the data or event topic of a device."""
        return f"{self.base}/{device}/{leaf}"

    def command(self, name: str = "+") -> str:
        """Return the topic of a command, or the filter for all of them."""
        return f"{self.base}/command/{name}"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of ours, taken apart. `device` is None for the gateway's own leaves; `command` is named for a command."""

    address: GatewayAddress
    leaf: str
    device: str | None = None
    command: str | None = None


def parse(topic: str) -> Topic | None:
    """Return the parts of a topic of ours, or None for any other."""
    parts = topic.split("/")
    if len(parts) not in (6, 7) or "/".join(parts[:2]) != ROOT:
        return None
    address = GatewayAddress(*parts[2:5])
    if len(parts) == 6:
        return Topic(address, parts[5]) if parts[5] in GATEWAY_LEAVES else None
    if parts[5] == "command":
        return Topic(address, "command", command=parts[6])
    return Topic(address, parts[6], device=parts[5]) if parts[6] in DEVICE_LEAVES else None


def everything(corridor: str = "+") -> str:
    """Return the filter for all topics of a corridor."""
    return f"{ROOT}/{corridor}/#"


def all_data(corridor: str) -> str:
    """Return the filter for the data of every device of a corridor."""
    return f"{ROOT}/{corridor}/+/+/+/data"


def ledger(corridor: str, ingest: str = "+") -> str:
    """Return the topic of an ingest's retained ledger, or the filter for all of them."""
    return f"{ROOT}/{corridor}/ledger/{ingest}"


def all_of(corridor: str, leaf: str) -> str:
    """Return the filter for one leaf of every gateway of a corridor."""
    return f"{ROOT}/{corridor}/+/+/{leaf}"
