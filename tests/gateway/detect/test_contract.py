"""One suite for every detector of the bank: a new one is found and tested without being named."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from types import FunctionType

import numpy as np
import pytest

import gateway.detect
from drivers import jit
from gateway.detect import flags
from gateway.detect.bank import Bank
from gateway.detect.chatter import Chatter
from gateway.detect.flags import LIMITS
from gateway.detect.governor import Governor
from gateway.detect.health import KNOWS_OTHERS, MAX_MEMBERS
from gateway.detect.rules import Rules
from gateway.model.frame import DETECT_BITS
from tests.gateway.detect import feed
from tests.gateway.detect.feed import NAN

SPLIT = (1, 7, 64, 1, 1, 500)  # frames of a call, again and again

MODULES = [
    importlib.import_module(f"gateway.detect.{each.name}") for each in pkgutil.iter_modules(gateway.detect.__path__)
]


class Governed(Governor):
    """The governor, with something to govern: flags of good values, as many as six tags of a hundred have."""

    def update(self, turn):
        bits = np.array([flags.SPIKE, flags.SHIFT, flags.NOVELTY, flags.HEALTH, flags.RATE], np.uint16)
        digits = np.floor(np.where(turn.quality == 0, np.abs(turn.value), 0.0) % 1.66 * 50.0).astype(int)
        told = np.where(digits < bits.size, bits[np.minimum(digits, bits.size - 1)], 0).astype(np.uint16)
        for number in turn.ready:
            rows = slice(self._tags.scan_start[number], self._tags.scan_stop[number])
            turn.flags[:, rows] |= np.where(turn.quality[:, rows] == 0, told[:, rows], 0).astype(np.uint16)
        super().update(turn)


KINDS = [{Governor: Governed}.get(type(each), type(each)) for each in Bank(feed.tags()).detectors]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request):
    return request.param


def site(*, is_apart=False):
    """Return 11 tags of two assets in three scans, of every kind; each scan an asset of its own if is_apart."""
    assets = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2] if is_apart else [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    return feed.tags(
        11,
        scans=[4, 3, 4],
        assets=assets,
        kinds=["gauge", "gauge", "gauge", "state", "gauge", "gauge", "counter", "gauge", "gauge", "gauge", "state"],
        limit=(10.0, 20.0, 80.0, 90.0),
        deadband=2.0,
        on_delay_s=100.0,
        off_delay_s=300.0,
        rate=0.4,
        resolution=0.01,
    )


ROWS = 3800


def wild(first=ROWS, *, seed=3, bad=0.004):
    """Return the first frames of the site, 130 s apart, with something for every detector, bad values and gaps.

    Some of them are 5 s apart. Three quarters of them, with pauses of two hours in between, are the week in
    which detectors learn; behind it several days are missing.
    """
    rng, frames = np.random.default_rng(seed), ROWS
    at, end = frames // 3, frames * 3 // 4  # 5 s apart from here; the end of the week
    period = np.full(frames, 130.0)
    period[25:end:70] = 7150.0
    period[at : at + 400] = period[-300:-240] = 5.0
    period[frames // 5], period[end], period[-50] = 4000.0, 4 * 86400.0, 30_000.0
    seconds = np.cumsum(period)
    load = np.sin(seconds / 86400 * 2 * np.pi)
    value = 50 + np.outer(load, rng.uniform(0.5, 2, 11)) + rng.normal(0, 0.5, (frames, 11))
    value = np.round(value, 2)
    value[at + 20 : at + 23, 0] += 30  # one meter
    value[at + 60 : at + 90, [1, 4, 5, 7, 8, 9]] += 45  # the process
    value[at + 120 : at + 220, 1] = np.round(value[:at, 1].mean(), 2)  # frozen
    value[at + 300, 8] = 1e6
    events = [
        (500, 40, 0, 8.0), (1700, 90, 2, -12.0), (end + 130, 90, 5, 12.0),
        (end + 350, 90, 0, -5.0), (frames - 300, 60, 4, -50.0), (frames - 200, 130, 2, 35.0),
    ]  # fmt: skip
    for k, length, i, size in events:
        value[k : k + length, i] += size
    value[end + 350 :, 8:10] += np.outer(np.linspace(0.0, 60.0, frames - end - 350), (0.4, 1.0))  # two that creep
    value[1200:1300, 2] = 5.0
    value[:, 6] = np.cumsum(np.where(seconds % 86400 < 30_000, 5.0, 1.0) * rng.uniform(0.9, 1.1, frames) * period / 100)
    value[1500:, 6] += 800 * (np.arange(frames - 1500) > 100)
    for i in (3, 10):
        value[:, i] = rng.random(frames) < 0.02
        value[at + 30 * i : at + 30 * i + 30, i] = np.arange(30) % 2
        value[2000:2010, i] = np.arange(10) % 2
    fed = feed.columns(value, period_s=period, scans=3)
    fed.bad |= rng.random(fed.bad.shape) < bad
    fed.bad[700:740, 4:7] = True
    fed.value[fed.bad] = 7e77  # of a bad value nothing is known
    fed.time_ns += rng.integers(0, 50_000_000, fed.time_ns.shape)
    return fed[:first]


def sizes(frames, pattern=SPLIT):
    """Return how many frames each call takes."""
    found = []
    while sum(found) < frames:
        found.append(min(pattern[len(found) % len(pattern)], frames - sum(found)))
    return found


def test_the_bank_has_every_detector_of_the_package():
    made = {
        thing
        for module in MODULES
        for thing in vars(module).values()
        if isinstance(thing, type)
        and not getattr(thing, "_is_protocol", False)
        and {"name", "axes"} <= vars(thing).keys()
    }
    found = [type(each) for each in Bank(feed.tags()).detectors]
    assert made == set(found)
    assert len({each.name for each in found}) == len(found)
    assert found[-1] is Governor  # who comes after it is not governed


def test_every_axis_that_is_named_is_that_of_a_column(kind):
    """A column without an axis has a row a tag: that is what a restart finds them by."""
    made = site()
    one = kind(made)
    rows = {"tag": made.n, "scan": made.n_scans, "asset": made.n_assets}
    assert set(one.axes) <= set(one.state())
    for name, column in one.state().items():
        axis = one.axes.get(name, "tag")
        assert axis is None or len(column) == rows[axis], name


def test_the_wild_data_makes_every_detector_speak():
    found, score = feed.run(Bank(site()), wild())
    silent = {name for bit, name in flags.NAMES.items() if not (found & bit).any()}
    assert silent <= {"health", "noise"}  # whose flags take a quiet week before; their scores and alarms are there
    assert np.count_nonzero(score) > 50


@pytest.mark.parametrize("garbage", [NAN, np.inf, -np.inf, 0.0, 1e308, 50.0])
def test_what_stands_in_a_bad_value_does_not_matter(kind, garbage):
    fed, other = wild(bad=0.03), wild(bad=0.03)
    other.value[other.bad] = garbage
    one, two = kind(site()), kind(site())
    feed.assert_same(feed.run(one, fed), feed.run(two, other))
    feed.assert_same(one.state(), two.state())


def test_only_bad_values_flag_nothing_and_leave_it_as_new(kind):
    """Hours without a value, then the wild data: what is said is what a new one says that is first asked then.

    Clocks may run meanwhile, and a bucket that is empty may close; hence whole buckets, after which one begins anew.
    """
    fed = wild(1450)
    hours = feed.columns(np.full((300, 11), NAN), period_s=100.0, scans=3)
    fed.time_ns += 300 * 100 * feed.SECOND
    used, new = kind(site()), kind(site())
    for found in feed.run(used, hours):
        assert not found.any()
    for found, wanted in zip(feed.run(used, fed), feed.run(new, fed), strict=True):
        assert found == pytest.approx(wanted, rel=1e-9, abs=0)  # seconds count from another frame


def test_a_bad_value_raises_no_flag_and_no_score_of_a_rule(kind):
    """A limit or a verdict of five minutes stands as it did; what is judged poll by poll falls silent."""
    fed = wild(bad=0.05)
    found, score = feed.run(kind(site()), fed)
    before = np.vstack([np.zeros_like(found[:1]), found[:-1]])
    held = LIMITS | flags.NOVELTY | flags.SHIFT | flags.HEALTH
    assert not (found[fed.bad] & ~np.uint16(held)).any()
    assert not (found & ~before & ~np.uint16(flags.NOVELTY | flags.SHIFT))[fed.bad].any()
    if kind.name in ("rules", "chatter"):
        assert not score[fed.bad].any()


def test_bad_frames_between_the_good_ones_change_nothing_for_what_is_judged_poll_by_poll():
    fed = wild(1800)[1230:1630]
    fed.bad[:] = False
    dense = feed.Columns(*(np.repeat(each, 2, axis=0) for each in (fed.time_ns, fed.value, fed.bad)))
    dense.bad[1::2] = True
    dense.time_ns[1::2] += feed.SECOND  # one second after each
    for kind in (Rules, Chatter):
        one, two = kind(site()), kind(site())
        alone, between = feed.run(one, fed), feed.run(two, dense)
        assert (alone[0] == between[0][::2]).all()
        assert (alone[0] != 0).any()


def test_a_bad_tag_does_not_disturb_another_asset(kind):
    fed, other = wild(), wild()
    other.bad[:, 7:] |= np.random.default_rng(1).random((len(other), 4)) < 0.3
    alone, beside = feed.run(kind(site()), fed), feed.run(kind(site()), other)
    feed.assert_same([each[:, :7].copy() for each in beside], [each[:, :7].copy() for each in alone])


@pytest.mark.parametrize("at", [1, 50, 1266, 1289, 1434, 2852, 3520, 3799])
def test_state_survives_save_and_restore(kind, at):
    fed = wild()
    whole = feed.run(kind(site()), fed)
    first, second = kind(site()), kind(site())
    feed.run(first, fed[:at])
    feed.run(second, fed[700:1600])  # it was somewhere else
    feed.restore(second, feed.saved(first))
    feed.assert_same(feed.run(second, fed[at:]), [each[at:].copy() for each in whole])


def test_calls_of_any_size_change_nothing(kind):
    fed = wild()
    one, many = kind(site()), kind(site())
    feed.assert_same(feed.run(many, fed, sizes=sizes(len(fed))), feed.run(one, fed))
    feed.assert_same(many.state(), one.state())


def test_a_call_for_each_scan_changes_nothing(kind):
    fed = wild()
    one, many = kind(site()), kind(site())
    feed.assert_same(feed.run(many, fed, sizes=[1] * len(fed), apart=True), feed.run(one, fed))
    feed.assert_same(many.state(), one.state())


@pytest.mark.parametrize("ready", [(2, 1, 0), (1, 2, 0)])
def test_the_order_of_scans_of_different_assets_changes_nothing(kind, ready):
    """But for jumps, which are counted over the whole gateway as they come."""
    fed, tags = wild(), site(is_apart=True)
    tags.detect[:] &= ~np.uint8(DETECT_BITS["spike"])
    one, other = kind(tags), kind(tags)
    feed.assert_same(feed.run(other, fed, ready=ready), feed.run(one, fed))
    feed.assert_same(other.state(), one.state())


def test_what_is_not_ready_is_left_alone(kind):
    fed, tags = wild(), site(is_apart=True)
    all_of, some = kind(tags), kind(tags)
    wanted = feed.run(all_of, fed)
    other = fed[:]
    other.time_ns[:, 1], other.value[:, 4:7] = 99, 1e9
    found = feed.run(some, other, ready=[0, 2])
    rows = [0, 1, 2, 3, 7, 8, 9, 10]
    for each, want in zip(found, wanted, strict=True):
        assert (each[:, rows] == want[:, rows]).all()
        assert not each[:, 4:7].any()


def test_scans_of_another_asset_in_between_change_nothing(kind):
    """Scans come when they come, some twice before another; an asset hears only of its own."""
    tags = feed.tags(8, scans=[2, 2, 2, 2], assets=[0, 0, 1, 1, 0, 0, 1, 1])
    rng = np.random.default_rng(11)
    order = rng.integers(0, 4, 4000)
    values = feed.noise(len(order), 8, seed=12)
    values[2500:2600, 7] += 20.0
    alone, among = kind(tags), kind(tags)
    for k, scan in enumerate(order):
        fed = feed.columns(values[k : k + 1], begin_ns=feed.BEGIN + k * feed.SECOND, scans=4)
        turn, other = feed.turn_of(fed, [scan]), feed.turn_of(fed, [scan])
        among.update(turn)
        if scan % 2:
            alone.update(other)
            feed.assert_same((turn.flags, turn.score), (other.flags, other.score))


@pytest.fixture
def interpreted(monkeypatch):
    """Run every kernel of the package as Python does, those too that others call."""

    def swap():
        swapped = set()
        for module in MODULES:
            for name, thing in list(vars(module).items()):
                if callable(getattr(thing, "py_func", None)):
                    home = importlib.import_module(thing.py_func.__module__)
                    [found] = [k for k in jit._OF_MODULE[home.__name__] if k.py_func.__name__ == thing.__name__]
                    monkeypatch.setattr(module, name, found.py_func)
                    swapped.add((home.__name__, found.py_func.__name__))
        return swapped

    return swap


class Guarded(np.ndarray):
    """An array that refuses an index from its end, which numpy and a compiled kernel take for one from its begin."""

    def __getitem__(self, at):
        assert all(isinstance(each, slice) or each >= 0 for each in (at if isinstance(at, tuple) else (at,))), at
        return super().__getitem__(at)

    def __setitem__(self, at, value):
        assert all(isinstance(each, slice) or each >= 0 for each in (at if isinstance(at, tuple) else (at,))), at
        super().__setitem__(at, value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_compiled_and_interpreted_kernels_agree_bit_for_bit_within_their_arrays(kind, monkeypatch, interpreted):
    """In what is new to it, and, a week wiser, in the last of the wild data."""
    fed = wild()
    parts = [fed[:1450], fed[2800:]]
    compiled, plain = kind(site()), kind(site())
    wanted = [feed.run(compiled, parts[0])]
    learnt = feed.saved(compiled)
    taught = kind(site())
    feed.run(taught, fed[:2800])
    wise = feed.saved(taught)
    wanted.append(feed.run(taught, parts[1]))
    swapped = interpreted()
    module = sys.modules[f"gateway.detect.{kind.name}"]
    assert isinstance(module.step, FunctionType)
    assert {k.py_func.__name__ for m in MODULES for k in jit._OF_MODULE.get(m.__name__, ())} == {n for _, n in swapped}

    def guarded(*arguments, run=module.step):
        run(*[each.view(Guarded) if isinstance(each, np.ndarray) else each for each in arguments])

    monkeypatch.setattr(module, "step", guarded)
    feed.assert_same(feed.run(plain, parts[0]), wanted[0])
    feed.assert_same(plain.state(), learnt)
    feed.restore(plain, wise)
    feed.assert_same(feed.run(plain, parts[1]), wanted[1])
    feed.assert_same(plain.state(), taught.state())
    if kind.name == "health":
        assert taught.state()["asset"][:, KNOWS_OTHERS].all()
        assert not wise["asset"][:, KNOWS_OTHERS].any()
    if kind.name in ("novelty", "health", "governor"):
        assert wanted[1][0].any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_two_arrays_of_a_kernel_that_says_noalias_share_memory(kind, monkeypatch, interpreted):
    """The bounds of the compiler's promise: seen where Python calls Python."""
    interpreted()
    seen = {}
    for module in MODULES:
        for each in jit._OF_MODULE.get(module.__name__, ()):
            if each.is_noalias:

                def recorder(*arguments, run=each.py_func):
                    seen.setdefault(run.__name__, [a for a in arguments if isinstance(a, np.ndarray)])
                    return run(*arguments)

                monkeypatch.setattr(module, each.__name__, recorder)
    feed.run(kind(site()), wild(2600)[:3])
    for name, arrays in seen.items():
        shared = [(i, j) for (i, a), (j, b) in combinations(enumerate(arrays), 2) if np.shares_memory(a, b)]
        assert shared == [], name
    assert len(seen) >= {"rules": 1, "novelty": 5}.get(kind.name, 0)


def takes(kind, name):
    """Return whether a detector hands this column of a turn to its kernel."""
    return f"turn.{name}," in inspect.getsource(sys.modules[f"gateway.detect.{kind.name}"]).replace(")", ",")


TURN_FIELDS = {
    "ready": np.int64,
    "time_ns": np.float64,
    "value": np.float32,
    "quality": np.int64,
    "score": np.float32,
    "flags": np.uint8,
}


@pytest.mark.parametrize("name", TURN_FIELDS)
def test_a_wrong_dtype_is_refused(kind, name):
    if not takes(kind, name):
        pytest.skip("it does not look at that")
    turn = feed.turn_of(wild(100)[:4], [0, 1, 2])
    with pytest.raises(TypeError):
        kind(site()).update(replace(turn, **{name: getattr(turn, name).astype(TURN_FIELDS[name])}))


def test_a_strided_column_is_refused(kind):
    turn = feed.turn_of(wild(100)[:4], [0, 1, 2])
    name = "value" if takes(kind, "value") else "flags"
    strided = np.zeros((4, 22), getattr(turn, name).dtype)[:, ::2]
    with pytest.raises(TypeError):
        kind(site()).update(replace(turn, **{name: strided}))


def test_scores_lie_between_0_and_1(kind):
    fed = wild()
    fed.value[-500:-400] *= 1e100
    fed.value[-300:-250] = -1.7e308
    fed.value[-200:-190] = 1.7e308
    _, score = feed.run(kind(site()), fed)
    assert score.min() >= 0.0  # no NaN either: it would be neither
    assert score.max() <= 1.0


@pytest.mark.parametrize(("per_asset", "n"), [(8, 100), (MAX_MEMBERS, 3 * MAX_MEMBERS)])
def test_the_state_of_a_tag_is_small(per_asset, n):
    made = feed.tags(n, assets=[i // per_asset for i in range(n)])
    found = sum(column.nbytes for one in Bank(made).detectors for column in one.state().values()) / n
    assert found <= 2048
    assert found >= 1024  # or the budget says nothing


BOUNDS = """
from gateway.detect.bank import Bank
from tests.gateway.detect import feed, test_contract
from numba import config
assert config.BOUNDSCHECK == 1
for fed in (test_contract.wild(), test_contract.wild(seed=4, bad=0.1)):
    for order in ([0, 1, 2], [2, 0, 1]):
        feed.run(Bank(test_contract.site()), fed, ready=order, sizes=test_contract.sizes(len(fed)))
print("all within bounds")
"""


def in_a_process(script, cache, **environment):
    """Return what a script prints in a process whose kernels are its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    env |= {"CACHE_DIRECTORY": str(cache), "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_compiler_too_finds_no_index_beyond_an_array():
    found = in_a_process(BOUNDS, jit.cache_dir() / "boundscheck", NUMBA_BOUNDSCHECK="1")
    assert found == "all within bounds\n"
