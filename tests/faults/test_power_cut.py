"""Power cuts at every step of a spool's life: what it promised is there. See power_cut.py and promises.py."""

import random
import sys

import pytest

from gateway.spool.verify import verify
from tests.faults import power_cut, promises, strace
from tests.faults.power_cut import FATES, MODELS, cuts, lay_out
from tests.faults.promises import Promises, broken, goal, hurry
from tests.faults.strace import Cut, Made, Removed, Renamed, Said, StrangeCall, Synced, Written
from tests.faults.writer import BREAKS

BOOTS, COMMITS = 2, 60  # so many segments that the oldest are dropped, sealed or not, and their files used again
ALL_COMMITS = 85  # with any seed


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    hurry(monkeypatch)


def recorded(root, seed=1, boots=BOOTS, commits=COMMITS, without=()):
    """Return the operations of a writer on the folder spool below root, which is there before."""
    (root / "spool").mkdir(parents=True, exist_ok=True)
    arguments = [str(root / "spool"), str(seed), str(boots), str(commits), *without]
    return strace.record([sys.executable, "-m", "tests.faults.writer", *arguments], root)


def all_said(operations):
    """Return every line that was said."""
    return "".join(operation.text for operation in operations if isinstance(operation, Said)).splitlines()


def moments(operations, begin=1):
    """Return after how many operations a cut differs from all others: not before something that is only said."""
    n = len(operations)
    return [i for i in range(begin, n + 1) if i == n or not isinstance(operations[i], Said)]


async def findings(operations, model, n, folder, seed=1, told=None, begin=1):
    """Return ({(after, fate): what is broken}, what each was judged by) of n images, or of all with n = 0.

    `told` is what was promised before operation number `begin`. Half of the n are of cuts while a segment changes:
    there stand most of the steps that may be done in a wrong order.
    """
    rng = random.Random(seed)
    wanted = [(after, fate) for after in moments(operations, begin) for fate in FATES]
    if n:
        changing = [
            cut for cut in wanted if any(isinstance(o, Renamed) for o in operations[max(0, cut[0] - 8) : cut[0] + 8])
        ]
        wanted = {*rng.sample(changing, n // 2), *rng.sample(wanted, n - n // 2)}
    told, out, judged = told or Promises(), {}, []
    for k, cut in enumerate(cuts(operations, model, wanted, rng)):
        for line in cut.said:
            told.hear(line)
        root = folder / f"{model}-{k}"
        lay_out(cut.image, root)
        if (root / "spool").is_dir() and k % 4 == 0:
            verify(root / "spool")  # a cut folder may be looked at before it is opened
        judged.append(told.copy())
        if found := await broken(root / "spool", judged[-1]):
            out[cut.after, cut.fate] = found
        power_cut.clear(root)
        judged[-1].forget()
    assert told.held
    return out, judged


@pytest.mark.parametrize("model", MODELS)
async def test_a_power_cut_breaks_no_promise(tmp_path, model, show):
    operations = recorded(tmp_path / "state")
    assert Promises(all_said(operations)).dropped > 0  # not all of what went was acknowledged
    found, judged = await findings(operations, model, 40, tmp_path)
    assert found == {}
    show(goal(f"spool: power cut, {model}", judged))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("model", MODELS)
async def test_a_power_cut_at_any_step_breaks_no_promise(tmp_path, model, seed, show):
    operations = recorded(tmp_path / "state", seed, commits=ALL_COMMITS)
    assert Promises(all_said(operations)).dropped > 0
    assert len(moments(operations)) * len(FATES) > 1000
    found, judged = await findings(operations, model, 0, tmp_path, seed)
    assert found == {}
    show(goal(f"spool: power cut at every step, {model}, run {seed}", judged))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", MODELS)
async def test_a_power_cut_after_a_power_cut_breaks_no_promise(tmp_path, model):
    operations = recorded(tmp_path / "state")
    rng = random.Random(5)
    for k in range(12):
        (cut,) = cuts(operations, model, [(rng.choice(moments(operations)), "random")], rng)
        told = Promises(cut.said)
        root = tmp_path / f"second-{k}"
        lay_out(cut.image, root)
        begin = len(strace.as_found(root))
        second = recorded(root, k, boots=1, commits=20)
        found, _ = await findings(second, model, 40, tmp_path, k, told, begin)
        assert found == {}, (cut.after, k)


async def test_a_spool_that_does_not_wait_for_the_disk_is_found_out(tmp_path):
    operations = recorded(tmp_path / "state", boots=1, commits=20, without=["fdatasync"])
    for model in MODELS:
        found, _ = await findings(operations, model, 8, tmp_path)
        assert len(found) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("without", BREAKS)
async def test_every_sync_is_needed(tmp_path, without):
    operations = recorded(tmp_path / "state", without=[without])
    for model in MODELS:
        found, _ = await findings(operations, model, 60, tmp_path)
        assert found


async def test_a_new_spool_is_still_there_after_a_power_cut(tmp_path):
    root = tmp_path / "state"
    root.mkdir()
    arguments = [str(root / "spool"), "1", "1", "2"]
    operations = strace.record([sys.executable, "-m", "tests.faults.writer", *arguments], root)
    wanted = [(len(operations), "all lost")]
    (cut,) = cuts(operations, "posix", wanted, random.Random(1))
    lay_out(cut.image, tmp_path / "after")
    assert await broken(tmp_path / "after" / "spool", Promises(cut.said)) == []


# The recorder and the models themselves.

SCRIPT = """
import os, sys
os.chdir("/")
fd = os.open(sys.argv[1] + "/a", os.O_WRONLY | os.O_CREAT)
os.write(fd, b"one")
os.write(fd, b"two")
os.pwrite(fd, b"\\0\\xff", 1)
os.fdatasync(fd)
print("said", flush=True)
os.rename(sys.argv[1] + "/a", sys.argv[1] + "/b")
os.open(sys.argv[1] + "/b", os.O_WRONLY | os.O_TRUNC)
os.ftruncate(fd, 5)
os.mkdir(sys.argv[1] + "/c")
os.fsync(os.open(sys.argv[1], os.O_RDONLY))
os.unlink(sys.argv[1] + "/b")
os.write(os.open("/dev/null", os.O_WRONLY), b"elsewhere")
"""


def test_the_recorder_sees_what_is_done_below_its_root_and_said(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    found = strace.record([sys.executable, "-S", "-c", SCRIPT, str(root)], root)
    assert all_said(found) == ["said"]
    assert [operation for operation in found if not isinstance(operation, Said)] == [
        Made("a"), Written("a", 0, b"one"), Written("a", 3, b"two"), Written("a", 1, b"\0\xff"),
        Synced("a", data_only=True), Renamed("a", "b"), Cut("b", 0), Cut("b", 5), Made("c", is_folder=True),
        Synced(".", data_only=False), Removed("b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "strange",
    [
        "import mmap; f = open(p, 'wb+'); f.truncate(4096); mmap.mmap(f.fileno(), 4096)",
        "os.link('/etc/hostname', p)",
        "os.writev(os.open(p, os.O_WRONLY | os.O_CREAT), [b'x'])",
        "os.open(p, os.O_WRONLY | os.O_CREAT | os.O_APPEND)",
    ],
    ids=["mmap", "link", "writev", "append"],
)
def test_what_the_models_do_not_know_is_refused(tmp_path, strange):
    root = tmp_path / "root"
    root.mkdir()
    if "link" in strange:
        (tmp_path / "far").write_text("x")
        strange = strange.replace("/etc/hostname", str(tmp_path / "far"))
    with pytest.raises(StrangeCall):
        strace.record([sys.executable, "-S", "-c", f"import os; p = {str(root / 'a')!r}; {strange}"], root)


def images(model, operations, fates=tuple(FATES), tries=40):
    """Return the different images of a cut behind these operations."""
    found = []
    for seed in range(tries):
        for cut in cuts(operations, model, [(len(operations), fate) for fate in fates], random.Random(seed)):
            if cut.image not in found:
                found.append(cut.image)
    return found


OLD, NEW = b"o" * 1024, b"n" * 1024
FILE = [Made("a"), Written("a", 0, OLD), Synced("a", data_only=False), Synced(".", data_only=False)]


@pytest.mark.parametrize("model", MODELS)
def test_an_overwrite_is_there_sector_by_sector_until_it_is_synced(model):
    before = [*FILE, Written("a", 0, NEW)]
    halves = [first * 512 + second * 512 for first in (b"o", b"n") for second in (b"o", b"n")]
    assert sorted(image["a"] for image in images(model, before)) == sorted(halves)
    assert images(model, [*before, Synced("a", data_only=True)]) == [{"a": NEW}]


@pytest.mark.parametrize("model", MODELS)
def test_a_name_is_certain_with_its_folder_and_not_with_its_file(model):
    before = [*FILE, Renamed("a", "b"), Written("b", 0, NEW), Synced("b", data_only=True)]
    assert {tuple(image) for image in images(model, before)} == {("a",), ("b",)}
    assert images(model, [*before, Synced(".", data_only=False)]) == [{"b": NEW}]


def test_ext4_never_shows_a_later_name_without_an_earlier_one_and_posix_does():
    names = [Made("a"), Made("b")]
    assert {"b": b""} in images("posix", names)
    assert sorted(map(sorted, images("ext4", names))) == [[], ["a"], ["a", "b"]]


def test_a_file_that_takes_the_place_of_another_has_its_data_on_ext4_only():
    replaced = [*FILE, Made("a.new"), Written("a.new", 0, NEW), Renamed("a.new", "a")]
    assert {image["a"] for image in images("ext4", replaced)} == {OLD, NEW}
    assert b"" in {image["a"] for image in images("posix", replaced)}


def test_ext4_shows_no_zeros_behind_the_old_end_and_posix_does():
    grown = [*FILE, Written("a", 1024, NEW)]
    assert {image["a"] for image in images("ext4", grown)} == {OLD, OLD + NEW}
    assert OLD + bytes(1024) in {image["a"] for image in images("posix", grown)}


def test_nothing_is_left_below_a_folder_that_was_lost():
    made = [Made("d", is_folder=True), Made("d/a"), Written("d/a", 0, NEW), Synced("d/a", data_only=False)]
    assert images("posix", made, ["all lost"]) == [{}]
    assert images("posix", [*made, Synced("d", data_only=False)], ["all lost"]) == [{}]
    assert images("ext4", made, ["all lost"]) == [{"d": None, "d/a": NEW}]


def test_a_broken_promise_is_named():
    told = ["BOOT 1", "APPENDED 1 4", "COMMIT boot=1 seq=4", "ACK 1 1 1", "HELD 1:2-4", "DROPPED 0 0"]
    assert Promises(told).broken == []
    assert Promises([*told, "HELD 1:3-4", f"DROPPED 1 {promises.n_good(1, 2)}"]).broken == []
    for line, word in {
        "BOOT 1": "given after",
        "HELD 1:3-4": "counted",
        "HELD 1:2-3": "not the oldest",
        "HELD 1:2-5": "never appended",
        "HELD": "not the oldest",
        "KNOWN 1:2-2": "never were",
        "DROPPED 1 4": "counted",
    }.items():
        (what, *_) = Promises([*told, line, "DROPPED 0 0"]).broken
        assert word in what, line
