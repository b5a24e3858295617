"""Right answers, mutated at random, through a live link: no wrong value, no surprise, and the link goes on."""

import asyncio
import itertools
import random

import pytest

from drivers.modbus import open_link
from drivers.sim.frames import MBAP, rtu
from drivers.sim.hostile import HOWS, How, Step
from drivers.sim.play import Misbehaviour
from tests.drivers.modbus.bench import CALM, POLL_S, TROUBLED, A, Judge, Meters, serving, stage

FEW, MANY = 120, 100_000  # mutated answers, per wire
FEW_LINES, MANY_LINES = 6, 40  # at the same time
PER_LINK = 30  # mutated answers that one link must live through
SHARE = 0.5  # of answers; the others are right, so that links get over it
WIRES = ("tcp", "rtu")


def _flip(r, data):
    data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def _set(r, data):
    data[r.randrange(len(data))] = r.choice((0, 1, 0x7F, 0x80, 0xFF, r.randrange(256)))


def _insert(r, data):
    at = r.randint(0, len(data))
    data[at:at] = r.randbytes(r.randint(1, 3))


def _delete(r, data):
    at = r.randrange(len(data))
    del data[at : at + r.randint(1, 3)]


def _repeat(r, data):
    first, last = sorted(r.randrange(len(data) + 1) for _ in range(2))
    data[last:last] = data[first:last]


def _swap(r, data):
    i, j = (r.randrange(len(data)) for _ in range(2))
    data[i], data[j] = data[j], data[i]


def _cut(r, data):
    del data[r.randrange(len(data)) :]


def _append(r, data):
    data += r.randbytes(r.randint(1, 20))


def _scramble(r, data):
    first, last = sorted(r.randrange(len(data) + 1) for _ in range(2))
    data[first:last] = r.randbytes(last - first)


EDITS = (_flip, _flip, _set, _insert, _delete, _repeat, _swap, _cut, _append, _scramble)


def mutated(x):
    """Return the right answer of an exchange with one to three edits, half of the time with header or CRC to match."""
    r = x.random
    keeps_frame = r.random() < 0.5
    data = bytearray(bytes((x.unit,)) + x.answer if keeps_frame else x.right)
    for edit in r.choices(EDITS, k=r.randint(1, 3)):
        if data:
            edit(r, data)
    if keeps_frame and data:
        whole = rtu(data[0], bytes(data[1:])) if x.is_rtu else MBAP.pack(x.transaction, 0, len(data), data[0])
        data = bytearray(whole if x.is_rtu else whole + data[1:])
    if r.random() < 0.1:
        data += x.right
    if r.random() < 0.1 and x.before:
        data[:0] = x.before.right
    return bytes(data)


def way(meters):
    """Return the way that mutates, and notes in `meters` which well-formed answers it forged."""

    def mutate(x):
        data = mutated(x)
        at, length, n = 3 if x.is_rtu else 9, len(x.right), len(x.answer) - 2
        for begin in range(len(data) - length + 1):
            payload = data[begin + at : begin + at + n]
            if data[begin : begin + length] == x.frame(x.answer[:2] + payload):
                meters.forged.add((x.unit, x.request, payload))
        return (Step(data),)

    return How(mutate)


async def fuzz(name, transport, folder, seed, n, stalls):
    """Read through n mutated answers, with one link after the other; return what is to be complained about."""
    meters, r = Meters(), random.Random(seed)
    HOWS[name] = way(meters)
    folder.mkdir()
    complaints = []
    n_mutated = 0

    def wrong(unit, answer):
        nonlocal n_mutated
        if r.random() >= SHARE:
            return None
        n_mutated += 1
        return Misbehaviour(name, seed=r.getrandbits(32))

    async with serving(transport, meters, folder) as spec:
        while n_mutated < n:
            link, before = open_link(spec), n_mutated
            judge = Judge(link, spec, meters, stalls)
            meters.wrong = wrong
            for target in itertools.cycle(TROUBLED):
                n_before = meters.generation
                await judge.read(*target)
                if meters.generation == n_before:  # down, and to be dialled no sooner than in a second
                    await link.close()
                    link = judge.link = open_link(spec)
                if n_mutated - before >= min(PER_LINK, n - before):
                    break
            meters.wrong = lambda unit, answer: None
            await asyncio.sleep(POLL_S)
            for target in CALM:
                await judge.insist(*target, 2 if target == A else 1, POLL_S, "after")
            await link.close()
            complaints += [f"seed {seed}: {what}" for what in judge.complaints]
            meters.asked.clear()
            meters.forged.clear()
    return complaints


def run(transport, folder, n, n_lines):
    """Return all complaints about n mutated answers on several lines of one transport."""
    names = [f"mutated {transport} {i}" for i in range(n_lines)]

    def scene(i, name):
        return lambda stalls: fuzz(name, transport, folder / str(i), i, n // n_lines, stalls)

    try:
        found = asyncio.run(stage({name: scene(i, name) for i, name in enumerate(names)}))
    finally:
        for name in names:
            HOWS.pop(name, None)
    return [f"{name}: {what}" for name, complaints in found.items() for what in complaints]


@pytest.mark.parametrize("transport", WIRES)
def test_mutated_answers_never_become_wrong_values(transport, tmp_path):
    assert run(transport, tmp_path, FEW, FEW_LINES) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("transport", WIRES)
def test_very_many_mutated_answers_never_become_wrong_values(transport, tmp_path):
    assert run(transport, tmp_path, MANY, MANY_LINES) == []


def test_mutations_are_repeatable_and_of_every_sort():
    from tests.drivers.sim.test_hostile import exchange

    for wire in WIRES:
        sent = [mutated(exchange(wire, random=random.Random(seed))) for seed in range(2000)]
        assert sent == [mutated(exchange(wire, random=random.Random(seed))) for seed in range(2000)]
        right = exchange(wire).right
        sizes = {len(data) - len(right) for data in sent}
        assert min(sizes) <= -len(right) + 1
        assert max(sizes) >= len(right)
        assert len(set(sent)) > 1000
        meters = Meters()
        for seed in range(2000):
            list(way(meters).way(exchange(wire, random=random.Random(seed))))
        assert len(meters.forged) > 20
