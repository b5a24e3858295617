"""Events stay on disk until the broker has them."""

import pytest

from gateway.alarm import journal as module
from gateway.alarm.journal import Journal
from gateway.wire.events import Event


def event(n):
    return Event(n, 1, n, "alarm", "d", "t", 0, 1.0, "high:raise", f"event {n}")


def waiting(journal):
    out = []
    while found := journal.next():
        out.append(found.time)
        journal.sent(found)
    return out


def test_what_the_broker_had_not_is_sent_after_a_restart(tmp_path):
    first = Journal(tmp_path)
    for n in range(5):
        first.add(event(n))
    for _ in range(2):
        first.sent(first.next())
    first.commit()
    assert waiting(Journal(tmp_path)) == [2, 3, 4]


def test_a_lost_mark_only_sends_again(tmp_path):
    first = Journal(tmp_path)
    first.add(event(1))
    first.sent(first.next())
    first.commit()
    (tmp_path / "journal.sent").unlink()
    assert waiting(Journal(tmp_path)) == [1]


def test_a_damaged_line_costs_itself(tmp_path):
    first = Journal(tmp_path)
    for n in range(3):
        first.add(event(n))
    first.commit()
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], lines[1][:20], lines[2]]) + b"\n")
    assert waiting(Journal(tmp_path)) == [0, 2]


def test_a_folder_that_cannot_be_is_told_at_the_commit_and_memory_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "state")
    for n in range(50):
        journal.add(event(n))
    with pytest.raises(OSError, match="Not a directory"):
        journal.commit()
    assert len(journal._new) == 10
    assert waiting(journal) == list(range(40, 50))


def test_the_file_is_rotated_and_memory_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 2000)
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    journal = Journal(tmp_path)
    for n in range(50):
        journal.add(event(n))
        journal.commit()
    assert journal.dropped == 40
    assert waiting(journal) == list(range(40, 50))
    assert (tmp_path / "journal.jsonl").stat().st_size < 2500
    assert (tmp_path / "journal.1.jsonl").exists()
