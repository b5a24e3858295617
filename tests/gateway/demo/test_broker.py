"""The demo's broker: which one is taken, and what is said of one that is none."""

from pathlib import Path

import pytest

from gateway.demo.broker import NoBroker, broker


async def test_amqtt_is_the_library_also_where_its_script_is_on_the_path(tmp_path, monkeypatch):
    pytest.importorskip("amqtt")
    script = tmp_path / "amqtt"
    script.write_text("#!/bin/sh\nexit 2\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CORRIDOR_DEMO_BROKER", "amqtt")
    async with broker(tmp_path) as (_, what):
        assert what.startswith("amqtt (")


async def test_a_program_that_is_no_broker_is_said(tmp_path, monkeypatch):
    script = tmp_path / "none"
    script.write_text("#!/bin/sh\nexit 2\n")
    script.chmod(0o755)
    monkeypatch.setenv("CORRIDOR_DEMO_BROKER", str(script))
    with pytest.raises(NoBroker, match="none ended with exit code 2"):
        async with broker(Path(tmp_path)):
            pass
