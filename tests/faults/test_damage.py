"""Damaged files: a spool opens all the same, loses no more than was hit, says so, and goes on."""

import asyncio
import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.spool.spool import START
from gateway.spool.verify import verify
from tests.contract.test_spools import everything
from tests.faults.goals import Goal
from tests.faults.promises import TEXTS as TEXTS_OF_FULL
from tests.faults.promises import Key, frame, hurry, is_same, opened
from tests.gateway import frames

ROWS = 20  # small frames: many batches in few bytes
TEXTS = frames.texts(3, ROWS)
COMMITS, FRAMES = 12, 5
EVERY = 37  # bytes between two damages of the default suite
PAGE = HEADER_BYTES = 4096  # a segment begins with a page of its own


@dataclasses.dataclass(frozen=True)
class Written:
    """A sound spool: its files, and what each commit brought.

    ends  bytes of the last segment that are in use after each commit
    """

    files: dict[str, bytes]
    last: str
    commits: list[set[Key]]
    ends: list[int]

    @property
    def held(self) -> set[Key]:
        """Every frame."""
        return set().union(*self.commits)

    def lay_out(self, folder: Path, **changed: bytes | None) -> None:
        """Write the files, some of them changed or (None) left out."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in {**self.files, **changed}.items():
            if content is not None:
                (folder / name).write_bytes(content)


def last_segment(folder):
    return sorted(folder.glob("*.spool"))[-1]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One segment of small batches, by two boots."""
    return asyncio.run(write(tmp_path_factory.mktemp("sound")))


async def write(folder):
    """Write a spool and return it."""
    commits, ends = [], []
    for _ in range(2):
        spool = opened(folder, TEXTS)
        for _ in range(COMMITS // 2):
            first = spool.next_seq
            for seq in range(first, first + FRAMES):
                spool.append(frame(spool.boot, seq, ROWS))
            await spool.commit()
            commits.append({(spool.boot, seq) for seq in range(first, first + FRAMES)})
            ends.append(len(last_segment(folder).read_bytes().rstrip(b"\0")))
        spool.ack(spool.boot, 1, 3)
        await spool.close()
    (folder / "cursor").unlink()  # so that everything is sent again, and is seen
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Written(files, last_segment(folder).name, commits, ends)


async def survivors(folder, texts=TEXTS):
    """Open a damaged spool and return (what it still has, whether it said that something is damaged)."""
    looked_at = verify(folder)
    spool = opened(folder, texts)
    found, is_right = [], True
    position = START
    while batch := await spool.unsent(position, everything):
        position = batch.position
        found += [(batch.boot, sent.seq) for sent in batch.frames]
        is_right &= all(is_same(sent, batch.boot) for sent in batch.frames)
    assert is_right
    assert len(found) == len(set(found))
    assert spool.statistics().state == "ok"
    assert looked_at["frames"] == len(found)
    is_told = spool.statistics().damaged > 0
    assert is_told == (not looked_at["ok"])
    return set(found), is_told


async def works_on(folder, written, kept, texts=TEXTS):
    """See that a spool takes and keeps three more commits, and that nothing of before is lost by that."""
    spool = opened(folder, texts)
    for seq in range(1, 4):
        spool.append(frame(spool.boot, seq, len(texts[0].names)))
        await spool.commit()
    again, _ = await survivors(folder, texts)
    fresh = {(spool.boot, seq) for seq in range(1, 4)}
    assert kept | fresh <= again <= written.held | fresh


def hit(written, kept):
    """Return the numbers of the commits that lost something."""
    return [k for k, keys in enumerate(written.commits) if not keys <= kept]


def before(written, end):
    """Return the frames of all commits that end before this byte."""
    return set().union(*(keys for keys, until in zip(written.commits, written.ends, strict=True) if until <= end))


def flipped(written, at):
    """Return the last segment with one byte wrong."""
    raw = bytearray(written.files[written.last])
    raw[at] ^= 0xFF
    return bytes(raw)


@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_one_wrong_byte_costs_at_most_its_batch_and_is_told(tmp_path, written, every):
    wrong = []
    for at in range(0, written.ends[-1], every):
        written.lay_out(tmp_path / "spool", **{written.last: flipped(written, at)})
        kept, is_told = await survivors(tmp_path / "spool")
        lost = hit(written, kept)
        is_schema = HEADER_BYTES <= at < written.ends[0]  # costs the segment: see below
        is_newest = lost == [len(written.commits) - 1]  # may pass for free space: see below
        if not kept <= written.held or (len(lost) > 1 and not is_schema) or (lost and not is_told and not is_newest):
            wrong.append((at, lost, is_told))
        if at % 5 == 0:
            await works_on(tmp_path / "spool", written, kept)
    assert wrong == []


@pytest.mark.parametrize("every", [3 * EVERY, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_a_segment_that_ends_early_has_everything_before_its_end(tmp_path, written, every):
    sound = written.files[written.last]
    wrong = []
    for end in range(0, written.ends[-1], every):
        written.lay_out(tmp_path / "spool", **{written.last: sound[:end]})
        kept, _is_told = await survivors(tmp_path / "spool")
        if not before(written, end) <= kept <= written.held:
            wrong.append((end, hit(written, kept)))
        if end % 5 == 0:
            await works_on(tmp_path / "spool", written, kept)
    assert wrong == []


async def test_one_wrong_byte_in_a_schema_costs_at_most_one_batch(tmp_path, written):
    written.lay_out(tmp_path / "spool", **{written.last: flipped(written, HEADER_BYTES + 60)})
    kept, _ = await survivors(tmp_path / "spool")
    assert len(hit(written, kept)) <= 1


async def test_a_wrong_byte_at_the_beginning_of_the_newest_batch_is_told(tmp_path, written):
    begin = -(-written.ends[-2] // 8) * 8
    written.lay_out(tmp_path / "spool", **{written.last: flipped(written, begin)})
    kept, is_told = await survivors(tmp_path / "spool")
    assert hit(written, kept) == [len(written.commits) - 1]
    assert is_told


async def test_a_segment_that_ends_between_two_batches_is_told(tmp_path, written):
    end = -(-written.ends[3] // 8) * 8
    written.lay_out(tmp_path / "spool", **{written.last: written.files[written.last][:end]})
    kept, is_told = await survivors(tmp_path / "spool")
    assert kept == before(written, end)
    assert is_told


def test_verify_of_a_damaged_spool_ends_well_and_tells(tmp_path, written, capsys):
    middle = (written.ends[3] + written.ends[4]) // 2
    written.lay_out(tmp_path / "spool", **{written.last: flipped(written, middle)})
    assert main(["spool", "verify", str(tmp_path / "spool"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = told[0] if isinstance(told, list) else told
    assert (found["ok"], found["damaged"], found["frames"]) == (False, 1, (COMMITS - 1) * FRAMES)


# Many segments, and more than one kind of damage.


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Six segments of large frames, by three boots."""
    return asyncio.run(write_full(tmp_path_factory.mktemp("full")))


async def write_full(folder):
    """Write a spool up to its cap and return (its files, name -> frames whose commit changed this segment)."""
    owners = {}
    state = {}
    for _ in range(3):
        spool = opened(folder, TEXTS_OF_FULL)
        for _ in range(7):
            first = spool.next_seq
            for seq in range(first, first + 8):
                spool.append(frame(spool.boot, seq))
            await spool.commit()
            before, state = state, {path.name: path.read_bytes() for path in folder.glob("*.spool")}
            for name in state:
                if state[name] != before.get(name):
                    owners.setdefault(name, set()).update((spool.boot, seq) for seq in range(first, first + 8))
    assert spool.statistics().dropped == 0
    return {path.name: path.read_bytes() for path in folder.iterdir()}, owners


def flips(rng, raw):
    """Return content with some wrong bytes, most of them in what is used."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 3, 100))):
        out[rng.randrange(len(out.rstrip(b"\0")) or len(out))] ^= rng.randint(1, 255)
    return bytes(out)


def without_page(rng, raw):
    """Return content with one page of zeros."""
    at = rng.randrange(max(1, len(raw) // PAGE)) * PAGE
    return raw[:at] + bytes(len(raw[at : at + PAGE])) + raw[at + PAGE :]


def swapped(rng, raw):
    """Return content with two pages in each other's place."""
    a, b = sorted(rng.randrange(max(1, len(raw) // PAGE)) * PAGE for _ in range(2))
    return raw[:a] + raw[b : b + PAGE] + raw[a + PAGE : b] + raw[a : a + PAGE] + raw[b + PAGE :] if a < b else raw


DAMAGES = {
    "flips": flips,
    "no page": without_page,
    "swap": swapped,
    "cut": lambda rng, raw: raw[: rng.randrange(len(raw))],
    "longer": lambda rng, raw: raw + rng.randbytes(rng.randrange(1, 3 * PAGE)),
    "noise": lambda rng, raw: rng.randbytes(len(raw)),
    "empty": lambda rng, raw: b"",
    "gone": lambda rng, raw: None,
}


@pytest.mark.parametrize("times", [20, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_damage_of_any_kind_stays_in_its_file(tmp_path, full, times, show):
    files, owners = full
    rng = random.Random(times)
    everything = set().union(*owners.values())
    whole = Written(files, max(owners), [everything], [0])
    sound = lost = 0  # frames in files that nobody touched, and what of them was not found
    for _ in range(times):
        names = rng.sample(sorted(files), rng.choice((1, 1, 2)))
        how = {name: rng.choice(sorted(DAMAGES)) for name in names}
        whole.lay_out(tmp_path / "spool", **{name: DAMAGES[how[name]](rng, files[name]) for name in names})
        kept, is_told = await survivors(tmp_path / "spool", TEXTS_OF_FULL)
        touched = set().union(*(owners.get(name, set()) for name in names))
        sound, lost = sound + len(everything - touched), lost + len(everything - touched - kept)
        assert everything - touched <= kept <= everything, how
        assert is_told or kept == everything or not set(how.values()) <= {"flips", "noise"}, how
        await works_on(tmp_path / "spool", whole, kept, TEXTS_OF_FULL)
    show(Goal("spool: damaged files, frames of the others", times, sound, lost))
