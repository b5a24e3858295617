"""What detectors have learnt goes on after a restart, tag by tag, whatever the configuration became."""

import numpy as np
import pytest

from drivers.points import Point
from gateway.acquire.plan import plan
from gateway.acquire.replan import replan
from gateway.detect.detector import Turn
from gateway.detect.flags import FROZEN, HIGH
from gateway.detect.keep import SEPARATOR, Learnt, keys_of
from tests.gateway import build

SECOND = 1_000_000_000


def table(names="abc", devices=("d1", "d2"), **settings):
    points = [Point(name, "holding", 2 * i, "float32") for i, name in enumerate(names)]
    made = [build.device(d, [build.tag(p, **settings) for p in points], unit=k + 1) for k, d in enumerate(devices)]
    return plan(build.gateway(made)).table


def feed(bank, values, *, start=0):
    """Feed frames of every scan, a second apart."""
    n_scans = bank.tags.n_scans
    flags = []
    for k, row in enumerate(values, start):
        times = np.full((1, n_scans), (1_000_000 + k) * SECOND)
        turn = Turn(
            np.arange(n_scans, dtype=np.int32), times, times, row[None].copy(), np.zeros((1, row.size), np.uint32),
            np.zeros((1, row.size)), np.zeros((1, row.size), np.uint16),
        )  # fmt: skip
        bank.update(turn)
        flags.append((turn.flags[0].copy(), turn.score[0].copy()))
    return flags


def wild(frames, n, seed=1):
    values = np.random.default_rng(seed).normal(50.0, 1.0, (frames, n))
    values[frames // 2 :: 97, 0] += 60.0
    return values


def same_state(one, other):
    for a, b in zip(one.bank.detectors, other.bank.detectors, strict=True):
        for name, column in a.state().items():
            if a.axes.get(name, "tag") is not None:
                assert np.array_equal(column, b.state()[name], equal_nan=True), f"{a.name}.{name}"


def test_a_reload_goes_on_with_what_is_known_of_the_tags_that_stay():
    a, b, c = (build.device(d, [build.tag(p) for p in build.registers(2, kind="float32", step=2)], unit=i + 1)
               for i, d in enumerate(("d1", "d2", "d3")))  # fmt: skip
    old = plan(build.gateway([a, b]))
    grown = build.gateway([c, b], links=old.spec.links)
    new = replan(old, grown, old.memory.preview(grown))
    values = wild(900, old.table.n)
    values[650:, 2] = values[649, 2]  # stands still, which only who has seen it move can miss
    first, twin = Learnt(old.table, None), Learnt(old.table, None)
    for each in (first, twin):
        feed(each.bank, values[:600])
    second = Learnt.after(first, new.table)
    feed(first.bank, values[600:610], start=600)  # while it is made
    feed(twin.bank, values[600:610], start=600)
    second.take_over(first)
    assert new.table.gone == {0}
    wide = np.hstack([values, wild(900, 2, seed=2)])
    went_on, anew = feed(twin.bank, values[610:], start=610), feed(second.bank, wide[610:], start=610)
    assert any(flags[2] & FROZEN for flags, _ in went_on)
    for (flags, score), (flags_then, score_then) in zip(went_on, anew, strict=True):
        assert np.array_equal(flags[2:4], flags_then[2:4])
        assert np.array_equal(score[2:4], score_then[2:4])
    again = Learnt(plan(grown).table, second.packed().encode())
    assert (again.found, again.wrong) == (4, "")


def test_who_is_gone_belongs_to_no_asset_and_is_not_taken_for_who_has_his_name():
    devices = [build.device(d, [build.tag(p) for p in build.registers(2)], unit=i, asset="pump")
               for i, d in enumerate(("d1", "d2", "d3"))]  # fmt: skip
    made = plan(build.gateway(devices))
    for present in (devices[1:], devices):
        spec = build.gateway(present, links=made.spec.links)
        made = replan(made, spec, made.memory.preview(spec))
    assert made.table.gone == {0}
    keys, fresh = (keys_of(each.table, Learnt(each.table, None).bank) for each in (made, plan(spec)))
    for axis in ("tag", "scan", "asset"):
        assert len(set(keys.of(axis))) == len(keys.of(axis))
    assert set(fresh.tag) < set(keys.tag)
    members = {tuple(sorted(zip(*[iter(key.split(SEPARATOR))] * 4, strict=True))) for key in fresh.asset}
    assert members <= {tuple(sorted(zip(*[iter(key.split(SEPARATOR))] * 4, strict=False))) for key in keys.asset}


def test_a_limit_that_is_tightened_over_a_restart_holds_from_the_first_frame():
    made, tighter = (table("a", ("d1",), limits=(build.NAN, build.NAN, high, build.NAN)) for high in (100.0, 80.0))
    first = Learnt(made, None)
    feed(first.bank, np.full((5, 1), 90.0))
    second = Learnt(tighter, first.packed().encode())
    assert second.found == 1
    ((flags, _),) = feed(second.bank, np.full((1, 1), 90.0), start=5)
    assert flags[0] == HIGH


def test_a_restart_goes_on_where_the_last_run_ended():
    made = table()
    values = wild(900, made.n)
    first = Learnt(made, None)
    feed(first.bank, values[:600])
    second = Learnt(made, first.packed().encode())
    assert (second.found, second.wrong) == (made.n, "")
    same_state(first, second)
    went_on, anew = feed(first.bank, values[600:], start=600), feed(second.bank, values[600:], start=600)
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(went_on, anew, strict=True))


def test_what_the_configuration_moved_is_found_again_and_what_is_new_begins_anew():
    old = table("abc", ("d1", "d2"))
    first = Learnt(old, None)
    feed(first.bank, wild(300, old.n))
    new = table("abcx", ("d0", "d1"))
    second = Learnt(new, first.packed().encode())
    assert second.found == 3  # a, b, c of d1
    rules_old, rules_new = first.bank.rules.state(), second.bank.rules.state()
    place = {(new.spec.devices[new.device_of[i]].name, tag.name): i for i, tag in enumerate(new.tags)}
    was = {(old.spec.devices[old.device_of[i]].name, tag.name): i for i, tag in enumerate(old.tags)}
    for name in "abc":
        assert rules_new["mean"][place["d1", name]] == rules_old["mean"][was["d1", name]] != 0.0
    assert rules_new["seen"][place["d1", "x"]] == rules_new["seen"][place["d0", "a"]] == 0.0


def test_a_tag_with_other_detectors_begins_anew():
    first = Learnt(table(), None)
    feed(first.bank, wild(300, first.bank.tags.n))
    assert Learnt(table(detect=("limits", "novelty")), first.packed().encode()).found == 0


@pytest.mark.parametrize("damage", ["empty", "torn", "noise", "no zip member", "other shape", "wider"])
def test_a_file_that_cannot_be_used_is_told_and_changes_nothing(damage, tmp_path):
    made = table()
    first = Learnt(made, None)
    feed(first.bank, wild(300, made.n))
    packed = first.packed()
    data = packed.encode()
    if damage == "empty":
        data = b""
    elif damage == "torn":
        data = data[: len(data) // 2]
    elif damage == "noise":
        data = np.random.default_rng(3).bytes(5000)
    elif damage == "no zip member":
        data = type(packed)({k: v for k, v in packed.columns.items() if k != "rules.mean"}).encode()
    elif damage == "other shape":
        data = type(packed)({**packed.columns, "rules.mean": np.zeros((1, 3))}).encode()
    elif damage == "wider":
        wider = np.repeat(packed.columns["novelty.numbers"], 2, axis=1)
        data = type(packed)({**packed.columns, "novelty.numbers": wider}).encode()
    second = Learnt(made, data)
    assert second.wrong
    assert second.found == 0
    same_state(second, Learnt(made, None))
    feed(second.bank, wild(50, made.n))


def test_every_flipped_byte_is_survived():
    made = table("a", ("d1",))
    first = Learnt(made, None)
    feed(first.bank, wild(60, made.n))
    data = bytearray(first.packed().encode())
    rng = np.random.default_rng(7)
    for at in rng.integers(0, len(data), 150):
        data[at] ^= int(rng.integers(1, 256))
        feed(Learnt(made, bytes(data)).bank, wild(3, made.n))
        data[at] = data[at]
