"""A limit is reached: the alarm stands, an operator acknowledges it by command, and it goes when the value is back."""

from __future__ import annotations

import time
from typing import Any

from hil_tests.bench import Bench
from hil_tests.conftest import Record
from tests.processes import until

DEVICE, TAG, KEY = "ft-101", "mass_flow", "ft-101/mass_flow/high"  # high = 250.0, deadband = 2.5


def ask(bench: Bench, ident: str, **more: Any) -> dict[str, Any]:
    """Send an acknowledge command and return its reply."""
    body = {"id": ident, "by": "bench", "expires": time.time_ns() + 60_000_000_000, "key": KEY, **more}
    n = len(bench.watch.replies)
    bench.watch.command("acknowledge", body)
    return until(lambda: bench.watch.replies[n:], f"the reply to {ident}")[0]


def test_a_limit_alarm_is_raised_acknowledged_by_command_and_cleared(bench: Bench, record: Record) -> None:
    watch = bench.watch
    bench.value(DEVICE, TAG, 249.5)
    bench.gateway.start()
    until(lambda: watch.values(DEVICE, TAG), "a first value")
    assert KEY not in watch.standing()

    began_ns = time.time_ns()
    bench.value(DEVICE, TAG, 262.5)
    raised = until(lambda: watch.alarm_events(DEVICE, "high:raise"), "the alarm")[0]
    limit_ms = 1000 * bench.device(DEVICE).period_s + 100
    record("value_to_alarm_ms", (raised["arrived_ns"] - began_ns) / 1e6, unit="ms", limit=limit_ms)
    assert (raised["tag"], raised["value"]) == (TAG, 262.5)
    alarm = until(lambda: watch.standing().get(KEY), "the standing alarm")
    assert (alarm["state"], alarm["priority"], alarm["limit"], alarm["unit"]) == ("unacked", 2, 250.0, "kg/s")

    assert not ask(bench, "late", expires=time.time_ns() - 1)["ok"]
    assert not ask(bench, "wrong", key="ft-101/mass_flow/low")["ok"]
    assert watch.standing()[KEY]["state"] == "unacked"
    began_ns = time.time_ns()
    reply = ask(bench, "one")
    record("command_to_reply_ms", (time.time_ns() - began_ns) / 1e6, unit="ms", limit=500.0)
    assert reply == {"id": "one", "ok": True, "text": "done"}
    until(lambda: watch.standing().get(KEY, {}).get("state") == "acked", "the acknowledged alarm")
    assert watch.standing()[KEY]["by"] == "bench"
    again = ask(bench, "one")
    assert (again["ok"], "before" in again["text"]) == (False, True)

    mark = len(watch.samples)
    bench.value(DEVICE, TAG, 248.5)  # below the limit, within its deadband
    until(lambda: 248.5 in watch.values(DEVICE, TAG, mark), "the value within the deadband")
    assert watch.standing()[KEY]["state"] == "acked"
    bench.value(DEVICE, TAG, 240.5)
    until(lambda: watch.alarm_events(DEVICE, "high:clear"), "the end of the alarm")
    until(lambda: KEY not in watch.standing(), "no alarm")
    assert set(watch.values(DEVICE, TAG)) <= {249.5, 262.5, 248.5, 240.5}
    assert not watch.alarm_events(DEVICE, "high_high:raise")
