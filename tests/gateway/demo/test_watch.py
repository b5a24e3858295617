"""The demo's own ear on the broker."""

import pytest

from gateway.demo.watch import Watch
from gateway.model.corridor import MqttSpec

BASE = "corridor/v1/link43/ps1/gw1"


@pytest.mark.parametrize(
    ("leaf", "payload"),
    [
        ("status", b"[" * 100_000), ("status", b""), ("status", b"3"), ("alarms", b'{"alarms":3}'),
        ("d/event", b'{"time":NaN,"kind":"alarm"}'), ("d/event", b"[]"), ("d/data", b"garbage"),
        ("d/event", b'{"time":"1","kind":"alarm","device":"d","tag":"t","reason":"low","text":"x"}'),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_cannot_be_read_is_nothing_to_count(leaf, payload):
    watch = Watch(MqttSpec(("mqtt://127.0.0.1:1",), None, None), 1, say=lambda line: None)
    watch.take(f"{BASE}/{leaf}", payload)
    assert (watch.frames, watch.events, watch.online, watch.standing) == (0, [], set(), {})
