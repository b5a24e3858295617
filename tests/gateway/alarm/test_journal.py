"""Events stay on disk until the broker has them."""

import resource
import signal

import pytest

from gateway.alarm import journal as module
from gateway.alarm.journal import Journal
from gateway.wire.events import Event


def event(n):
    return Event(n, 1, n, "alarm", "d", "t", 0, 1.0, "high:raise", f"event {n}")


def lines(memos):
    return [line for memo in memos for line in memo.splitlines()]


def commit(journal):
    """Do with a journal what a commit does; returns the lines of its memos."""
    memos = journal.memos()
    journal.commit()
    return lines(memos)


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
    commit(first)
    assert waiting(Journal(tmp_path)) == [2, 3, 4]


def test_a_lost_mark_only_sends_again(tmp_path):
    first = Journal(tmp_path)
    first.add(event(1))
    first.sent(first.next())
    commit(first)
    (tmp_path / "journal.sent").unlink()
    assert waiting(Journal(tmp_path)) == [1]


def test_a_damaged_line_costs_itself(tmp_path):
    first = Journal(tmp_path)
    for n in range(3):
        first.add(event(n))
    commit(first)
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
        commit(journal)
    assert len(journal._new) == 10
    assert waiting(journal) == list(range(40, 50))


def test_the_file_is_rotated_and_memory_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 2000)
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    journal = Journal(tmp_path)
    for n in range(50):
        journal.add(event(n))
        commit(journal)
    assert journal.dropped == 40
    assert waiting(journal) == list(range(40, 50))
    assert (tmp_path / "journal.jsonl").stat().st_size < 2500
    assert (tmp_path / "journal.1.jsonl").exists()


def test_a_memo_brings_back_what_a_power_cut_took_from_the_files(tmp_path):
    first, memos = Journal(tmp_path), []
    for n in range(6):
        first.add(event(n))
        first.stand(b'{"alarms":[]}')
        memos.append(b"\n".join(commit(first)))
    first.sent(first.next())
    commit(first)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-300])  # the last line, and a part of the one before
    second = Journal(tmp_path, memos)
    assert second.standing() == []
    assert (tmp_path / "alarms.json").read_bytes() == b'{"alarms":[]}'
    assert waiting(second) == [1, 2, 3, 4, 5]
    assert waiting(Journal(tmp_path, memos)) == [1, 2, 3, 4, 5]  # each once, however often
    assert lines(second.memos()) == [b"="]


def test_what_is_safe_in_the_files_is_not_taken_from_memos(tmp_path):
    journal, memos = Journal(tmp_path), []
    for n in range(4):
        journal.add(event(n))
        memos += journal.memos()
        if n == 2:
            journal.sync()
    assert [line == b"=" for line in lines(memos)] == [False, False, False, True, False]
    again = Journal(tmp_path / "elsewhere", memos)
    assert waiting(again) == [3]


def test_an_event_that_came_during_a_sync_is_not_told_to_be_safe(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.add(event(1))
    journal.memos()
    real = module.sync_folder

    def sync_folder(path):
        journal.add(event(2))
        assert len(lines(journal.memos())) == 1
        real(path)

    monkeypatch.setattr(module, "sync_folder", sync_folder)
    journal.sync()
    assert journal.memos() == []
    commit(journal)
    monkeypatch.setattr(module, "sync_folder", real)
    journal.sync()
    assert journal.memos() == [b"="]


def test_a_write_that_the_disk_breaks_off_leaves_no_half_line(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.add(event(1))
    commit(journal)
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, limit[1]))
    try:
        journal.add(event(2))
        with pytest.raises(OSError, match="journal"):
            commit(journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == whole
    commit(journal)
    assert waiting(Journal(tmp_path)) == [1, 2]


def test_a_mark_of_the_file_before_hides_no_event(tmp_path):
    journal = Journal(tmp_path)
    journal.add(event(1))
    commit(journal)
    (tmp_path / "journal.sent").write_text("15000")
    assert waiting(Journal(tmp_path)) == [1]


def test_what_is_in_no_memo_yet_is_not_in_the_file_either(tmp_path):
    journal = Journal(tmp_path)
    journal.add(event(1))
    memos = lines(journal.memos())
    journal.add(event(2))  # while the first is being committed
    journal.commit()
    memos += commit(journal)
    (tmp_path / "journal.jsonl").unlink()
    assert waiting(Journal(tmp_path, memos)) == [1, 2]


def test_the_end_keeps_what_was_in_no_memo(tmp_path):
    journal = Journal(tmp_path)
    journal.add(event(1))
    journal.close()
    assert waiting(Journal(tmp_path)) == [1]
