"""Commands from the console: each has an id, an expiry and a sender, and is refused with the reason when it must be."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.wire.strict_json import loads

MAX_BYTES: Final = 16_384  # a command is a name and a few words
MAX_TEXT: Final = 128  # characters of id and sender
MAX_TIME_NS: Final = 2**63  # what Unix ns are counted in everywhere else
REMEMBERED: Final = 1_024  # ids that would be noticed when they come again

Action = Callable[[Mapping[str, Any]], str | None]  # returns why not, or None when it is done


class Commands:
    """The commands that a gateway knows."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._actions = actions
        self._seen: OrderedDict[str, None] = OrderedDict()

    def take(self, name: str, payload: bytes, *, retained: bool, now_ns: int) -> dict[str, Any]:
        """Carry a command out, or refuse it; returns the reply {id, ok, text}."""
        found = self._read(payload)
        if isinstance(found, str):
            return {"id": None, "ok": False, "text": found}
        ident = found["id"]
        why = self._refusal(name, found, retained=retained, now_ns=now_ns)
        if why is None:
            self._seen[ident] = None
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            why = self._actions[name](found)
        return {"id": ident, "ok": why is None, "text": why or "done"}

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
