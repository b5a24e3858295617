"""A command is carried out once, in time, for somebody; everything else is refused with the reason."""

import json
import math

import pytest

from gateway.command import MAX_BYTES, Commands, wanted_frames
from gateway.model.ranges import RangeSet

NOW = 1_764_000_000_000_000_000


@pytest.fixture
def done():
    return []


@pytest.fixture
def commands(done, tmp_path):
    return made(done, tmp_path)


def made(done, folder):
    """Return the commands of a gateway with its state in a folder."""
    actions = {"acknowledge": lambda found: done.append(found["key"]) or (None if found["key"] else "no key")}
    return Commands(actions, folder / "commands.json")


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


def test_a_command_that_comes_again_after_a_restart_is_refused(commands, done, tmp_path):
    take(commands, payload())
    commands.commit()
    again = made(done, tmp_path)
    assert take(again, payload())["text"] == "command 'c1' came before"
    assert take(again, payload(id="c2"))["ok"]
    assert done == ["a/b/high"] * 2


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"c1": "soon"}', b"\xff"])
def test_a_damaged_memory_of_commands_keeps_nobody_from_the_next(done, tmp_path, content):
    (tmp_path / "commands.json").write_bytes(content)
    assert take(made(done, tmp_path), payload())["ok"]


def test_of_many_commands_those_that_have_expired_are_forgotten_first(commands, done):
    take(commands, payload(id="long", expires=NOW + 10**12))
    for k in range(2000):
        take(commands, payload(id=f"x{k}", expires=NOW + k), now_ns=NOW + k)
    assert take(commands, payload(id="long", expires=NOW + 10**12), now_ns=NOW + 3000)["text"].endswith("came before")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"boot": 0},
        {"boot": 7, "ranges": [[3, 1]]},
        {"boot": 7, "ranges": [[0, 1]]},
        {"boot": 7, "ranges": [1, 2]},
        {"boot": True, "ranges": []},
        {"boot": 7, "ranges": 5},
    ],
)
def test_a_resend_says_what_it_wants(wrong):
    assert wanted_frames(wrong) == "resend wants 'boot' and 'ranges': [[first, last], ...]"
    assert wanted_frames({"boot": 7, "ranges": [[5, 9], [1, 2]]}) == (7, RangeSet([(1, 2), (5, 9)]))
