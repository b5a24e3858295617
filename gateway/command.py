"""Commands to the gateway: each has an id, an expiry and a sender, and is refused with the reason when it must be.

What was carried out is remembered over a restart until it has expired: a command that comes again, from a broker that
repeats it or from somebody who has heard it, does nothing twice.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.model.durable import make_way, replace_file
from gateway.model.ranges import RangeSet
from gateway.wire.lines import bounded
from gateway.wire.strict_json import dumps, loads, text, whole

log = logging.getLogger(__name__)

MAX_BYTES: Final = 16_384  # a command is a name and a few words
MAX_TEXT: Final = 128  # characters of id and sender
MAX_TIME_NS: Final = 2**63  # what Unix ns are counted in everywhere else
REMEMBERED: Final = 1_024  # ids that would be noticed when they come again
MAX_FILE_BYTES: Final = REMEMBERED * (6 * MAX_TEXT + 32)  # of those, every character escaped


class Later:
    """What an action returns that answers by itself, when it is done."""


Action = Callable[[Mapping[str, Any]], str | Later | None]  # returns why not, or None when it is done


class Commands:
    """The commands that a gateway knows; what it has carried out is kept in `path`."""

    def __init__(self, actions: Mapping[str, Action], path: Path) -> None:
        self._actions = actions
        self._path = path
        make_way(path, MAX_FILE_BYTES)
        self._seen = _read_seen(path)
        self._is_changed = False

    def commit(self) -> None:
        """Have what was carried out on the disk; raises OSError."""
        if self._is_changed:
            self._is_changed = False
            try:
                replace_file(self._path, dumps(dict(self._seen)))
            except OSError:
                self._is_changed = True
                raise

    def take(self, name: str, payload: bytes, *, retained: bool, now_ns: int) -> dict[str, Any] | None:
        """Carry a command out, or refuse it; returns the reply {id, ok, text}, None if that comes later."""
        found = self._read(payload)
        if isinstance(found, str):
            return {"id": None, "ok": False, "text": found}
        ident = found["id"]
        why = self._refusal(name, found, retained=retained, now_ns=now_ns)
        if why is None:
            self._remember(ident, found["expires"], now_ns)
            done = self._actions[name](found)
            if isinstance(done, Later):
                return None
            why = done
        return {"id": ident, "ok": why is None, "text": why or "done"}

    def _remember(self, ident: str, expires: int, now_ns: int) -> None:
        self._seen[ident] = expires
        self._is_changed = True
        if len(self._seen) > REMEMBERED:  # those that have expired are refused anyway
            for old in [old for old, until in self._seen.items() if until < now_ns]:
                del self._seen[old]
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _read(self, payload: bytes) -> dict[str, Any] | str:
        if len(payload) > MAX_BYTES:
            return f"command of {len(payload)} bytes, at most {MAX_BYTES} are taken"
        try:
            whole = loads(payload)
        except ValueError:
            return "command is not JSON"
        if not isinstance(whole, dict):
            return "command is not a JSON object"
        ident = whole.get("id")
        if not isinstance(ident, str) or not 0 < len(ident) <= MAX_TEXT:
            return f"command without an id (text of 1 to {MAX_TEXT} characters)"
        return whole

    def _refusal(self, name: str, found: Mapping[str, Any], *, retained: bool, now_ns: int) -> str | None:
        by, expires = found.get("by"), found.get("expires")
        if name not in self._actions:
            return f"unknown command '{name}', wanted one of {', '.join(sorted(self._actions))}"
        if retained:
            return "retained commands are not carried out"
        if found["id"] in self._seen:
            return f"command '{found['id']}' came before"
        if not isinstance(by, str) or not by.strip() or len(by) > MAX_TEXT:
            return f"command without a sender ('by', text of 1 to {MAX_TEXT} characters)"
        if not isinstance(expires, int) or isinstance(expires, bool) or not 0 <= expires < MAX_TIME_NS:
            return "command without an expiry ('expires', Unix ns)"
        return f"command expired {(now_ns - expires) / 1e9:.1f} s ago" if expires < now_ns else None


def wanted_frames(found: Mapping[str, Any]) -> tuple[int, RangeSet] | str:
    """Return boot and frames of a `resend`, or what is wrong with it."""
    try:
        boot = whole(found["boot"])
        spans = [(whole(first), whole(last)) for first, last in found["ranges"]]
        bounded([(boot, boot), *spans])
    except (KeyError, TypeError, ValueError):
        return "resend wants 'boot' and 'ranges': [[first, last], ...]"
    return boot, RangeSet(sorted(spans))


def _read_seen(path: Path) -> OrderedDict[str, int]:
    try:
        return OrderedDict((text(ident), whole(until)) for ident, until in loads(path.read_bytes()).items())
    except FileNotFoundError:
        return OrderedDict()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.error("%s: which commands were carried out cannot be read: %s", path.name, error)
        return OrderedDict()
