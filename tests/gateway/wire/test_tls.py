"""TLS and mutual TLS to the broker, with a broker that insists on it."""

import asyncio
from dataclasses import replace

import pytest

from gateway.model.corridor import MqttSpec
from gateway.wire.client import keep_connected
from tests import certificates, servers


@pytest.fixture
def trusted(tmp_path):
    return certificates.authority(tmp_path / "ca")


@pytest.fixture
def broker(tmp_path, trusted):
    cert, key = trusted.issue("server")
    lines = (
        f"cafile {trusted.ca}", f"certfile {cert}", f"keyfile {key}",
        "require_certificate true", "use_identity_as_username true", "tls_version tlsv1.2",
    )  # fmt: skip
    with servers.mosquitto(tmp_path / "broker", *lines) as server:
        yield server


async def outcome(spec, seconds=15.0):
    """Return True once connected and published, or what stands in the way."""
    told = []

    async def session(client):
        await client.publish("a", b"x", qos=1)

    async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
        refused = asyncio.Event()

        def on_state(up, what):
            told.append(what)
            if not up:
                refused.set()

        connecting = tasks.create_task(keep_connected(spec, "gw1", session, on_state=on_state))
        waiting = tasks.create_task(refused.wait())
        await asyncio.wait({connecting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        done = connecting.done()
        connecting.cancel()
        waiting.cancel()
    return True if done else told[0]


def spec_for(broker, trusted, name="gw1"):
    cert, key = trusted.issue(name)
    return MqttSpec((f"mqtts://127.0.0.1:{broker.port}",), None, None, trusted.ca, cert, key)


async def test_both_sides_show_certificates_and_data_flow(broker, trusted):
    assert await outcome(spec_for(broker, trusted)) is True


async def test_without_our_certificate_the_broker_refuses(broker, trusted):
    spec = replace(spec_for(broker, trusted), cert_file=None, key_file=None)
    assert await outcome(spec) is not True


async def test_a_broker_of_another_authority_is_not_trusted(broker, trusted, tmp_path):
    other = certificates.authority(tmp_path / "other")
    said = await outcome(replace(spec_for(broker, trusted), ca_file=other.ca))
    assert "certificate verify failed" in said


async def test_a_certificate_of_another_authority_is_refused_by_the_broker(broker, trusted, tmp_path):
    other = certificates.authority(tmp_path / "other")
    cert, key = other.issue("gw1")
    assert await outcome(replace(spec_for(broker, trusted), cert_file=cert, key_file=key)) is not True
