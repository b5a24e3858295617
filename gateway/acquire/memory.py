"""What the devices have taught: one small file in the state folder, so that no restart asks again what was refused.

learnt.json   {"devices": {NAME: {"meter": FINGERPRINT, "refused": [{"function", "start", "count"}],
              "max_registers", "max_bits", "turnaround_s"}}}; what is not known is left out

Written whole beside the old one and put in its place, after a change only, off the event loop. It is a convenience and
never a condition: whatever cannot be read starts anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from drivers.blocks import MAX_BITS, MAX_REGISTERS
from drivers.link import LinkSpec
from drivers.points import READ_CODES, Hole
from gateway.model.corridor import Device, GatewaySpec
from gateway.model.durable import make_way, replace_file
from gateway.wire.strict_json import dumps, loads, number, text, whole

log = logging.getLogger(__name__)

FILE: Final = "learnt.json"
MAX_FILE_BYTES: Final = 4_000_000  # 10,000 devices of some refused registers each; more was not written by us
MAX_REFUSED: Final = 4096  # facts of one device; more than any has tags
MAX_TURNAROUND_S: Final = 60.0  # the longest time-out that a link can have
NEWS_S: Final = 0.002  # and how much at least: a fast network's jitter is no reason to write to a card
NEWS: Final = 0.25  # share by which a turnaround has to differ to be worth a new plan and a write
N_ADDRESSES: Final = 0x1_0000


@dataclass(frozen=True, slots=True)
class Learnt:
    """What one device has taught.

    refused       a read that contains one of these is refused: the registers of a tag, or what lies between two tags
    max_registers, max_bits  largest reads, below those of the profile; None: as the profile says
    turnaround_s  how long it takes to answer; None: not known yet
    """

    refused: tuple[Hole, ...] = ()
    max_registers: int | None = None
    max_bits: int | None = None
    turnaround_s: float | None = None


NOTHING: Final = Learnt()


class Memory:
    """What every device has taught; without a folder it lasts as long as the process."""

    def __init__(self, spec: GatewaySpec, folder: Path | None = None) -> None:
        self._meters = _meters(spec)
        self._path = folder / FILE if folder else None
        self._changed: dict[str, Callable[[], None]] = {}
        self._latest = (0, b"")  # how often it changed, and the file since then: one object, for two threads see it
        self._written = 0
        self._learnt = self._read()

    def of(self, device: str) -> Learnt:
        """Return what a device has taught."""
        return self._learnt.get(device, NOTHING)

    def on_change(self, device: str, call: Callable[[], None]) -> None:
        """Have somebody called whenever more or other is known of a device."""
        self._changed[device] = call

    def preview(self, spec: GatewaySpec) -> Memory:
        """Return what of this is known of the meters of a changed specification, without a file."""
        found = Memory(spec)
        same = [name for name, meter in found._meters.items() if self._meters.get(name) == meter]
        found._learnt = {name: self.of(name) for name in same}
        return found

    def turn_to(self, preview: Memory) -> None:
        """Be the memory of the specification of a preview: of a meter that is another one now nothing is known."""
        before, self._meters = self._meters, preview._meters
        self._learnt = {
            name: learnt for name, learnt in self._learnt.items() if self._meters.get(name) == before.get(name)
        }
        self._changed = {name: call for name, call in self._changed.items() if name in self._meters}
        self._latest = (self._latest[0] + 1, self._encode())

    def keep(self, device: str, learnt: Learnt) -> None:
        """Take what a device has taught; it is on disk after the next commit."""
        if learnt == self.of(device):
            return
        self._learnt[device] = learnt
        self._latest = (self._latest[0] + 1, self._encode())
        if call := self._changed.get(device):
            call()

    def note_turnaround(self, device: str, seconds: float) -> None:
        """Take how long a device needs to answer; what hardly differs from what is known changes nothing."""
        known = self.of(device).turnaround_s
        is_news = known is None or abs(seconds - known) > max(NEWS * known, NEWS_S)
        if 0 < seconds <= MAX_TURNAROUND_S and is_news:
            self.keep(device, replace(self.of(device), turnaround_s=seconds))

    def commit(self) -> None:
        """Write what changed, synced; raises OSError. May run in a thread of its own."""
        revision, content = self._latest
        if revision == self._written or self._path is None:
            return
        replace_file(self._path, content)
        self._written = revision

    def _encode(self) -> bytes:
        devices = {
            name: {"meter": self._meters[name], **_table(learnt)}
            for name, learnt in sorted(self._learnt.items())
            if learnt != NOTHING
        }
        return dumps({"devices": devices}) + b"\n"

    def _read(self) -> dict[str, Learnt]:
        """Return what the last run knew of the same meters."""
        if self._path is None:
            return {}
        make_way(self._path, MAX_FILE_BYTES)
        try:
            devices = loads(self._path.read_bytes())["devices"]
            ours = {name: devices[name] for name, meter in self._meters.items() if _is_of(devices.get(name), meter)}
            return {name: _learnt(found) for name, found in ours.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s: cannot be used (%s): what the devices refuse is learnt anew", self._path, error)
            return {}


def _meters(spec: GatewaySpec) -> dict[str, str]:
    links = {link.name: link for link in spec.links}
    return {device.name: fingerprint(device, links[device.link]) for device in spec.devices}


def fingerprint(device: Device, link: LinkSpec) -> str:
    """Return what tells one meter from another under the same name: its map, its link and its unit."""
    points = sorted((p.function, p.address, p.type) for p in device.points)
    where = (link.transport, link.host, link.port, link.path, device.unit)
    return hashlib.sha256(repr((points, where)).encode()).hexdigest()[:32]


def _is_of(found: Any, meter: str) -> bool:
    return found is not None and text(found["meter"]) == meter


def _table(learnt: Learnt) -> dict[str, Any]:
    table: dict[str, Any] = {"refused": [_hole_table(hole) for hole in learnt.refused]}
    for key in ("max_registers", "max_bits", "turnaround_s"):
        if (value := getattr(learnt, key)) is not None:
            table[key] = value
    return table


def _hole_table(hole: Hole) -> dict[str, Any]:
    return {"function": hole.function, "start": hole.start, "count": hole.count}


def _learnt(found: Mapping[str, Any]) -> Learnt:
    """Return what a table says; raises ValueError, TypeError or KeyError where it is none of ours."""
    refused = found["refused"]
    if not isinstance(refused, list) or len(refused) > MAX_REFUSED:
        raise ValueError(f"wanted a list of at most {MAX_REFUSED} refused registers")
    turnaround_s = found.get("turnaround_s")
    if turnaround_s is not None and not 0 < number(turnaround_s) <= MAX_TURNAROUND_S:
        raise ValueError(f"turnaround_s: wanted above 0, at most {MAX_TURNAROUND_S:g}")
    return Learnt(
        in_order(_hole(table) for table in refused),
        _whole_in(found, "max_registers", MAX_REGISTERS),
        _whole_in(found, "max_bits", MAX_BITS),
        turnaround_s,
    )


def in_order(holes: Iterable[Hole]) -> tuple[Hole, ...]:
    """Return refused registers as Learnt keeps them: each once, sorted."""
    return tuple(sorted(set(holes)))


def _hole(table: Mapping[str, Any]) -> Hole:
    function, start, count = table["function"], whole(table["start"]), whole(table["count"])
    if function not in READ_CODES or start < 0 or not 1 <= count <= MAX_BITS or start + count > N_ADDRESSES:
        raise ValueError("refused: wanted function, start and count of one read")
    return Hole(function, start, count)


def _whole_in(found: Mapping[str, Any], key: str, most: int) -> int | None:
    if (value := found.get(key)) is None:
        return None
    if not 1 <= whole(value) <= most:
        raise ValueError(f"{key}: wanted 1 to {most}")
    return int(value)
