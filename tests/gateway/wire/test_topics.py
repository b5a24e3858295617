"""Topics: what is ours comes apart as it was put together, what is not ours is nothing."""

import pytest

from gateway.wire.topics import GatewayAddress, Topic, all_data, everything, ledger, parse, parse_ledger

HERE = GatewayAddress("link43", "ps1", "ps1-gw1")


def test_every_topic_of_ours_comes_apart_again():
    assert parse(HERE.device("ft-101", "data")) == Topic(HERE, "data", device="ft-101")
    assert parse(HERE.leaf("status")) == Topic(HERE, "status")
    assert parse(HERE.command("acknowledge")) == Topic(HERE, "command", command="acknowledge")
    assert HERE.device("ft-101", "data") == "corridor/v1/link43/ps1/ps1-gw1/ft-101/data"
    assert everything("link43") == "corridor/v1/link43/#"
    assert all_data("link43") == "corridor/v1/link43/+/+/+/data"


def test_a_ledger_belongs_to_an_ingest_and_no_gateway():
    assert parse_ledger(ledger("link43", "ingest-1")) == ("link43", "ingest-1")
    assert parse(ledger("link43", "ingest-1")) is None
    for other in ("corridor/v1/link43/ledger", "corridor/v2/link43/ledger/x", HERE.leaf("status"), "x/y/z/ledger/a"):
        assert parse_ledger(other) is None


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "corridor/v1/a/b",
        "corridor/v2/a/b/c/status",
        "corridor/v1/a/b/c/nonsense",
        "corridor/v1/a/b/c/d/e/f",
        "x/y/z",
    ],
)
def test_foreign_topics_are_nothing(topic):
    assert parse(topic) is None
