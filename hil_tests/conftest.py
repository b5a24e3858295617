"""Options, the bench of each test, and measurements with unit and limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hil_tests.bench import Bench, BenchError, BenchFile, load, opened
from hil_tests.rig import CannotDo

HERE = Path(__file__).parent
Record = Callable[..., None]
_measured: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --bench and --report."""
    group = parser.getgroup("hil_tests")
    group.addoption("--bench", default=str(HERE / "benches" / "simulated.toml"), metavar="FILE", help="bench file")
    group.addoption("--report", default=None, metavar="DIR", help="write measurements.jsonl into this folder")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with an argument `link_name` once for every link of the bench whose devices behave."""
    if "link_name" in metafunc.fixturenames:
        metafunc.parametrize("link_name", _file(metafunc.config).sound_links)


def _file(config: pytest.Config) -> BenchFile:
    try:
        return load(Path(config.getoption("--bench")))
    except BenchError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip, with the reason, a test that wants what its bench cannot do."""
    try:
        return (yield)
    except CannotDo as error:
        pytest.skip(str(error))


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The bench, all of it running but the gateway: start that with bench.gateway.start()."""
    file = _file(request.config)
    if absent := file.absent():
        pytest.skip(f"bench {file.name} is not here: no {', '.join(absent)}")
    with opened(file, tmp_path) as made:
        yield made


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """record(name, value, unit=..., limit=...): a measurement; on a strict bench its limit is asserted."""
    file = _file(request.config)

    def measure(name: str, value: float, *, unit: str, limit: float | None = None) -> None:
        is_within = limit is None or value <= limit
        told = {"name": name, "value": round(value, 4), "unit": unit, "limit": limit, "within": is_within}
        test = request.node.nodeid.rpartition("/")[2]
        request.node.user_properties.append(("measurement", {"bench": file.name, "test": test, **told}))
        assert is_within or not file.strict, f"{name}: {value:g} {unit}, limit {limit:g} {unit}"

    return measure


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather the measurements of a finished test, from whichever worker."""
    if report.when == "teardown":
        _measured.extend(value for name, value in report.user_properties if name == "measurement")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print all measurements, and write them where --report says."""
    if folder := config.getoption("--report"):
        path = Path(folder) / "measurements.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(one) + "\n" for one in _measured))
    if not _measured:
        return
    terminalreporter.section("measurements")
    for one in _measured:
        limit = "" if one["limit"] is None else f"  limit {one['limit']:g}{'' if one['within'] else '  BEYOND'}"
        terminalreporter.write_line(f"{one['test']}  {one['name']} {one['value']:g} {one['unit']}{limit}")
