"""What an ingest says of one boot of a gateway, for tests."""

from __future__ import annotations

from typing import Any

from gateway.wire.ledger import GatewayReport

NOON = 1_795_435_400_000_000_000  # 2026-11-23 12:03:20 UTC


def boot_report(gateway: str, boot: int, **said: Any) -> GatewayReport:
    """Return a boot of which everything is in the store, but for what is said."""
    whole: GatewayReport = {
        "gateway": gateway, "boot": boot, "complete_to": 900, "complete_time": NOON, "missing": [], "waiting": [],
        "gone": [], "why": {}, "parked": [], "absent": {},
    }  # fmt: skip
    return {**whole, **said}  # type: ignore[typeddict-item]
