"""Documents that a test keeps true: commands exist, keys are real, files that are named are there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drivers import profile
from drivers.toml import models_in
from gateway.commands import words
from gateway.model import config, tables
from gateway.model.frame import DETECT_BITS
from tests import certificates

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAP = (ROOT / "ARCHITECTURE.md").read_text()


def commands():
    """Return the names of all commands of the command line."""
    parser = words.parser()
    (sub,) = [
        action for action in parser._actions if hasattr(action, "choices") and action.choices and action.dest != "kind"
    ]
    return sorted(sub.choices)


def test_every_command_is_in_the_readme_and_the_readme_names_no_other():
    named = set(re.findall(r"`corridor ([a-z]+)", README)) | set(re.findall(r"^ +corridor ([a-z]+)", README, re.M))
    table = re.search(r"## Commands\n(.*?)\nExit codes", README, re.S).group(1)
    for row in table.splitlines():
        named |= set(re.findall(r"`([a-z]+)`", row.split("|")[1])) if row.startswith("| `corridor") else set()
    actions = {"list", "show", "lint", "import", "export", "verify"}
    assert set(commands()) <= named
    assert named - actions <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_help_of_every_command_teaches(command):
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", command, "--help"], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) >= 5
    assert "usage: corridor" in done.stdout


def test_the_configuration_of_the_readme_is_right(tmp_path, monkeypatch):
    blocks = re.findall(r"```toml\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    shutil.copy(certificates.authority(tmp_path / "ca").ca, tmp_path / "ca.pem")
    (tmp_path / "token").write_text("t0k")
    (tmp_path / "token").chmod(0o600)
    for i, block in enumerate(blocks):
        path = tmp_path / f"{i}.toml"
        path.write_text(block)
        assert config.check(path) == []


def test_the_two_commands_of_the_readme_and_ci_agree():
    lines = [line.strip() for line in README.splitlines() if line.startswith("    python3 -m venv")]
    assert len(lines) == 2
    assert lines[0].endswith("corridor demo")
    assert lines[1].endswith("pytest")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
    for line in lines:
        assert shlex.split(line)[0] == "python3"


def test_files_that_documents_name_are_there():
    for text in (README, MAP, (ROOT / "CONTRIBUTING.md").read_text()):
        for link in re.findall(r"\]\(([A-Za-z0-9_./-]+)\)", text):
            assert (ROOT / link).exists(), link
        for path in re.findall(r"`((?:gateway|drivers|tests|hil_tests)/[a-z_0-9./]+[a-z])`", text):
            assert (ROOT / path).exists(), path


def test_files_on_the_path_of_a_reading_are_there():
    path = re.search(r"## The path of one reading\n(.*?)\n## ", MAP, re.S).group(1)
    named = re.findall(r"^ +([a-z_/]+\.py)", path, re.M)
    assert len(named) >= 10
    for name in named:
        assert (ROOT / "gateway" / name).exists() or (ROOT / name).exists(), name


@pytest.mark.parametrize("name", profile.names())
def test_every_profile_has_source_grade_and_description(name):
    found = profile.find(name)
    assert found.source
    assert found.grade in "ABC"
    assert any(point.description for point in found.points)


def models(model, seen=None):
    """Return a configuration model and every model below it."""
    seen = {} if seen is None else seen
    if model.__name__ not in seen:
        seen[model.__name__] = model
        for field in model.model_fields.values():
            for inner in models_in(field.annotation):
                models(inner, seen)
    return seen


def test_every_key_is_documented():
    text = (ROOT / "docs" / "configuration.md").read_text()
    keys = {
        key
        for top in (*tables.SCHEMAS.values(), profile.ProfileModel)
        for model in models(top).values()
        for key in model.model_fields
    }
    headings = {
        "gateway",
        "mqtt",
        "spool",
        "clock",
        "metrics",
        "link",
        "device",
        "tag",
        "point",
        "ingest",
        "store",
        "console",
    }
    assert len(keys) > 50
    for key in keys - headings:
        assert f"`{key}`" in text, key


def test_every_topic_and_field_is_documented():
    from dataclasses import fields

    from gateway.wire import catalog, events, topics

    text = (ROOT / "docs" / "mqtt.md").read_text()
    for leaf in topics.GATEWAY_LEAVES | topics.DEVICE_LEAVES:
        assert re.search(rf"[`/]{leaf}`", text), leaf
    for kind in (events.Event, events.AlarmRecord, catalog.CatalogDevice, catalog.CatalogTag):
        for field in fields(kind):
            assert field.name in text, (kind.__name__, field.name)


def test_every_fault_is_documented_with_the_range_and_default_of_its_keys():
    from drivers.sim.faults import KINDS, TIMES, Number

    text = (ROOT / "docs" / "simulation.md").read_text()
    rows = {cells[1]: cells[2:] for line in text.splitlines() if len(cells := line.split("|")) > 4}
    for key, number in TIMES.items():
        assert f"{number.low:g} to {number.high:g}" in rows[f" `{key}` "][0]
    for name, kind in KINDS.items():
        reach, _, keys, _ = rows[f" `{name}` "]
        assert reach.strip() == kind.reach
        assert re.findall(r"`([a-z_]+)`", keys) == [*kind.choices, *kind.parameters]
        for key, number in kind.parameters.items():
            said = keys.split(f"`{key}`")[1]
            if (number.low, number.high) != (Number().low, Number().high):
                assert f"from {number.low:g} to {number.high:g}" in said, (name, key)
            if number.default is not None:
                assert f"({number.default:g})" in said, (name, key)
            assert not number.is_whole or "whole" in said, (name, key)


def test_every_way_to_go_wrong_is_documented_with_its_wires_and_delay():
    from drivers.sim.hostile import HOWS

    def wires(names):
        return "all" if len(names) == 3 else ", ".join(names)

    text = (ROOT / "docs" / "simulation.md").read_text().split("## Ways to go wrong")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"`{name}`" for name in HOWS]
    for (name, how), (_, where, delay_s, untold, what) in zip(HOWS.items(), rows, strict=True):
        assert (where, untold) == (wires(how.wires), wires(how.untold)), name
        assert delay_s == ("" if how.delay_s is None else f"{how.delay_s:g}"), name
        assert len(what) > 5, name


def test_the_unit_file_is_one_that_systemd_understands():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(ROOT / "deploy" / "corridor-gateway.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = [
        line for line in done.stderr.splitlines() if "corridor-gateway.service" in line and "not executable" not in line
    ]
    assert wrong == []


def test_detectors_of_the_configuration_exist():
    assert tuple(DETECT_BITS) == tables.DETECTORS


def test_every_kernel_is_compiled_by_warm():
    from gateway.warm import KERNELS

    owners = [
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for folder in ("drivers", "gateway")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^@kernel\(", path.read_text(), re.M)
    ]
    assert sorted(owners) == sorted(KERNELS)


def test_no_document_or_code_names_a_machine_or_a_registry():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wrong = re.compile(r'/wor[k]/|/roo[t]/|"resolved":\s*"http|--(extra-)?index-url')
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".json", ".ts", ".css", ".html", ".sh", ""} and path.is_file():
            if path == Path(__file__):
                continue
            assert not wrong.search(path.read_text()), name
