"""Dead letters are on disk, readable, and bounded."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from gateway.ingest.dead_letters import MAX_TEXT_BYTES, DeadLetters, Letter


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_a_letter_says_when_where_and_why(tmp_path: Path) -> None:
    DeadLetters(tmp_path).park([Letter(17, "a/b", "no header", b"text\n"), Letter(18, "a/c", "binary", b"\xff\x00")])
    assert [json.loads(line) for line in (tmp_path / "dead_letters.jsonl").read_text().splitlines()] == [
        {"time": 17, "topic": "a/b", "reason": "no header", "text": "text\n"},
        {"time": 18, "topic": "a/c", "reason": "binary", "base64": base64.b64encode(b"\xff\x00").decode()},
    ]


def test_a_huge_payload_is_cut_and_says_so(tmp_path: Path) -> None:
    DeadLetters(tmp_path).park([Letter(1, "t", "r", b"x" * (MAX_TEXT_BYTES + 1))])
    letter = json.loads((tmp_path / "dead_letters.jsonl").read_text())
    assert (len(letter["text"]), letter["cut"]) == (MAX_TEXT_BYTES, MAX_TEXT_BYTES + 1)


def test_both_files_stay_below_the_bound_and_what_is_discarded_is_counted(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, max_bytes=2000)
    for i in range(100):
        letters.park([Letter(1, "topic", "reason", b"%03d" % i)])
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2000
    kept = texts(letters.older) + texts(letters.path)
    assert kept == [f"{i:03d}" for i in range(100 - len(kept), 100)]
    assert letters.parked_total == 100
    assert letters.discarded_total == 100 - len(kept)


def test_a_torn_letter_does_not_spoil_the_next(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.path.write_bytes(b'{"time":1,"top')
    letters.park([Letter(2, "t", "r", b"whole")])
    lines = letters.path.read_text().splitlines()
    assert json.loads(lines[1])["text"] == "whole"
    assert len(lines) == 2
