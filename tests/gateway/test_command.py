"""A command is carried out once, in time, for somebody; everything else is refused with the reason."""

import json
import math

import pytest

from gateway.command import MAX_BYTES, Commands

NOW = 1_764_000_000_000_000_000


@pytest.fixture
def done():
    return []


@pytest.fixture
def commands(done):
    return Commands({"acknowledge": lambda found: done.append(found["key"]) or (None if found["key"] else "no key")})


def payload(**fields):
    return json.dumps({"id": "c1", "expires": NOW + 1, "by": "anna", "key": "a/b/high", **fields}).encode()


def take(commands, body, name="acknowledge", *, retained=False, now_ns=NOW):
    return commands.take(name, body, retained=retained, now_ns=now_ns)


def test_a_good_command_is_done_and_answered(commands, done):
    assert take(commands, payload()) == {"id": "c1", "ok": True, "text": "done"}
    assert done == ["a/b/high"]


def test_why_an_action_cannot_be_done_is_the_answer(commands):
    assert take(commands, payload(key="")) == {"id": "c1", "ok": False, "text": "no key"}


@pytest.mark.parametrize(
    ("body", "name", "retained", "text"),
    [
        (payload(), "open_valve", False, "unknown command 'open_valve', wanted one of acknowledge"),
        (payload(expires=-(10**400)), "acknowledge", False, "without an expiry"),
        (payload(by=" "), "acknowledge", False, "without a sender"),
        (payload(expires=math.nan), "acknowledge", False, "not JSON"),
        (payload(expires=2**63), "acknowledge", False, "without an expiry"),
        (payload(), "acknowledge", True, "retained commands are not carried out"),
        (payload(expires=NOW - 2_500_000_000), "acknowledge", False, "command expired 2.5 s ago"),
        (payload(expires="soon"), "acknowledge", False, "command without an expiry"),
        (payload(expires=True), "acknowledge", False, "command without an expiry"),
        (payload(by=""), "acknowledge", False, "command without a sender"),
        (payload(by=7), "acknowledge", False, "command without a sender"),
        (payload(id=""), "acknowledge", False, "command without an id"),
        (payload(id="x" * 500), "acknowledge", False, "command without an id"),
        (b"{", "acknowledge", False, "command is not JSON"),
        (b"\xff\x00", "acknowledge", False, "command is not JSON"),
        (b"[" * 5000, "acknowledge", False, "command is not JSON"),
        (b"[]", "acknowledge", False, "command is not a JSON object"),
        (payload(key="x" * MAX_BYTES), "acknowledge", False, f"at most {MAX_BYTES} are taken"),
    ],
)
def test_what_must_not_be_done_is_refused_with_the_reason(commands, done, body, name, retained, text):
    reply = take(commands, body, name, retained=retained)
    assert reply["ok"] is False
    assert text in reply["text"]
    assert done == []


def test_a_repeated_command_is_done_once(commands, done):
    take(commands, payload())
    assert take(commands, payload())["text"] == "command 'c1' came before"
    assert len(done) == 1
