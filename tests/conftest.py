"""Fixtures of real servers; what is not installed skips its tests with the reason."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import servers
from tests.faults.goals import pytest_addoption, pytest_runtest_logreport, pytest_terminal_summary, show

__all__ = ["pytest_addoption", "pytest_runtest_logreport", "pytest_terminal_summary", "show"]

# Every worker and every gateway that a test starts would compile all sources, as none in the field does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The first call of a kernel loads it, and these machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[servers.Server]:
    """A broker of this test's own: .port, .stop(), .kill(), .start(), .freeze(), .thaw()."""
    with servers.mosquitto(tmp_path / "mosquitto") as server:
        yield server


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A shared InfluxDB 1.x; every test makes its own database."""
    with servers.influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture
async def influx_database(influxd: servers.Server) -> str:
    """A fresh database in the shared InfluxDB."""
    return await servers.create_database(influxd.port)


@pytest.fixture
async def influx2(influxd: servers.Server) -> AsyncIterator[servers.Front]:
    """InfluxDB 2 with faults on demand, in front of the shared engine."""
    async with servers.influx2_front(influxd.port) as front:
        yield front


@pytest.fixture(scope="session")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A shared VictoriaMetrics; tests keep apart by gateway names."""
    with servers.victoria_metrics(tmp_path_factory.mktemp("victoria")) as server:
        yield server
