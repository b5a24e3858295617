"""A real broker, a console on it, and a browser; each missing piece skips its tests and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from console_bench import MOSQUITTO, Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if not Path(MOSQUITTO).exists():
        pytest.skip("mosquitto is not installed")
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()
