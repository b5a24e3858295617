"""Health says what the contract names, and Prometheus can read it."""

import itertools
import re
from pathlib import Path

from drivers.link import LinkCounters
from gateway import health
from gateway.acquire.plan import plan
from gateway.acquire.poll import PollCounters
from gateway.capture.recorder import CaptureCounters
from gateway.deliver.publish import DeliveryCounters
from gateway.model.clock import clock_state
from gateway.spool.memory import MemorySpool
from tests.gateway import build


class Link:
    """A link that has seen something."""

    state = "up"

    def __init__(self, late_frames):
        self.counters = LinkCounters(requests=10, answers=7, timeouts=2)
        self.counters.exceptions[2] = 1
        self.counters.latency.note(0.004)
        self.counters.unit(1).requests = 4
        self.counters.unit(1).late_frames = late_frames


def found(unexpected=None, late_frames=1):
    made = plan(build.gateway([build.device("d", [build.tag(p) for p in build.registers(3)])]))
    polls = {"a": PollCounters(10, 8, 1, 2), "b": PollCounters(5, 5, 0, 0)}
    spool = MemorySpool(1000, "c", ())
    links = {link.name: Link(late_frames) for link in made.spec.links}
    return health.report(
        made,
        links,
        polls,
        spool,
        DeliveryCounters(9, 8, 1),
        CaptureCounters(3, 1),
        used={"bus0": 0.25},
        clock={"state": "synced", "offset_s": 0.0},
        unjudged=None,
        unexpected=unexpected or {},
        events_dropped=0,
        tasks=12,
        up_s=100.0,
        now_ns=17,
    )


def test_every_counter_of_the_contract_is_there():
    said = found()
    assert said["polls"] == {"due": 15, "done": 13, "late": 1, "skipped": 2}
    link = said["links"]["bus0"]
    assert {"state", "load", "requests", "timeouts", "crc_errors", "foreign_frames", "exceptions"} <= link.keys()
    assert link["exceptions"] == {"2": 1}
    assert {"late_frames", "noise_bytes", "fences", "dials"} <= link.keys()
    assert link["utilisation"] == 0.25
    assert link["latency"]["p99_s"] == 0.005
    assert said["devices"] == {"d": {"requests": 4, "late_frames": 1, "p99_s": None}}
    assert {"state", "bytes", "oldest_s", "unsent", "dropped", "dropped_values"} <= said["spool"].keys()
    assert {"published", "acknowledged", "refused"} <= said["delivery"].keys()
    assert said["captures"] == {"written": 3, "failed": 1}
    assert said["detectors"] == {"state": "ready", "waiting": 0}
    assert {"state", "offset_s"} <= said["clock"].keys()
    assert said["memory_bytes"] > 1_000_000
    assert said["tasks"] == 12


def test_descriptors_are_those_that_are_open():
    before = found()["descriptors"]
    with Path("/dev/null").open() as one, Path("/dev/null").open() as other:
        assert one.fileno() != other.fileno()
        assert found()["descriptors"] == before + 2
    assert found()["descriptors"] == before


def test_a_device_of_another_model_says_so_as_long_as_it_is_there():
    assert found(late_frames=0)["devices"] == {}
    said = found({"d": "d: code holds 71"}, late_frames=0)["devices"]
    assert said == {"d": {"requests": 4, "unexpected": "d: code holds 71", "p99_s": None}}


def test_prometheus_text_is_well_formed():
    text = health.prometheus("gw1", found())
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    labels = r'(?:,(?:link|device)="[^"]+")?(?:,(?:code|le)="[^"]+")?'
    samples = re.findall(rf'^(\w+)\{{gateway="gw1"{labels}\}} (\S+)$', text, re.M)
    assert len(samples) + len(kinds) == len(text.splitlines())
    assert {re.sub("_(bucket|sum|count)$", "", name) for name, _ in samples} == kinds.keys()
    assert all(name.endswith("_total") == (kinds[name] == "counter") for name in kinds)
    assert 'corridor_link_answer_seconds_bucket{gateway="gw1",link="bus0",le="+Inf"} 1' in text
    assert {"corridor_polls_due_total", "corridor_link_exceptions_total", "corridor_clock_synced"} <= kinds.keys()


def test_prometheus_samples_of_one_name_stand_together():
    said = found()
    said["links"]["bus1"] = said["links"]["bus0"]
    names = [line.split("{")[0].split()[-1] for line in health.prometheus("gw1", said).splitlines() if "{" in line]
    names = [re.sub("_(bucket|sum|count)$", "", name) for name in names]
    assert [name for name, _ in itertools.groupby(names)] == list(dict.fromkeys(names))


def test_the_clock_says_whether_it_is_trusted():
    assert clock_state() in ("synced", "unsynced", "unknown")
