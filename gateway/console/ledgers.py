"""What the ingests say: per share (a database) the newest ledger message, taken apart by gateway.

(corridor, ingest) -> the last message of it        newest `time` of a share -> what is shown of that share
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from gateway.console import intake
from gateway.wire.completeness import Completeness, summarise
from gateway.wire.ledger import decode_ledger

MAX_INGESTS: Final = 64  # ten times those of the largest corridor; whoever may publish more shall not fill the memory
NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Said:
    """One message: of which share, when by the ingest's clock and by ours, and what of each gateway."""

    share: str
    ingest: str
    time_ns: int
    heard_ns: int
    gateways: dict[str, Completeness]


class Ledgers:
    """The last message of every ingest."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], _Said] = {}

    def take(self, corridor: str, ingest: str, payload: bytes, retained: bool, now_ns: int) -> None:
        """Take a message, an empty one as the end of that ingest; raises ValueError for one that cannot be used."""
        if not payload:
            self._said.pop((corridor, ingest), None)
            return
        message = decode_ledger(payload)
        if message.ingest != ingest or not intake.is_time(message.time_ns, now_ns):
            raise ValueError(f"a ledger of {message.ingest!r} at {message.time_ns}")
        if len(self._said) >= MAX_INGESTS and (corridor, ingest) not in self._said:
            raise ValueError(f"more than {MAX_INGESTS} ingests")
        heard_ns = min(message.time_ns, now_ns) if retained else now_ns
        gateways = {one.gateway: one for one in summarise(message.gateways)}
        self._said[corridor, ingest] = _Said(message.share, ingest, message.time_ns, heard_ns, gateways)

    def of(self, corridor: str, gateway: str) -> list[dict[str, Any]]:
        """Return what each share that knows a gateway says of it, by share, as JSON types; times are Unix ms."""
        newest: dict[str, _Said] = {}
        for (where, _), said in sorted(self._said.items()):
            if where == corridor and (said.share not in newest or newest[said.share].time_ns < said.time_ns):
                newest[said.share] = said
        return [_told(said, said.gateways[gateway]) for _, said in sorted(newest.items()) if gateway in said.gateways]


def _told(said: _Said, one: Completeness) -> dict[str, Any]:
    told = asdict(one)
    complete_ns = told.pop("complete_ns")
    told["complete"] = None if complete_ns is None else complete_ns // NS_PER_MS
    return {**told, "share": said.share, "ingest": said.ingest, "heard": said.heard_ns // NS_PER_MS}
