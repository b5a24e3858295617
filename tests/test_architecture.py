"""The import rules of ARCHITECTURE.md, executed."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("drivers/**/*.py"), *ROOT.glob("gateway/**/*.py")])

# In the order in which a reading passes through them: a stage imports itself and what stands before it.
# `capture` stands behind acquire: it keeps what a read left on the wire, and knows nothing of what becomes of it.
STAGES = [
    "model",
    "wire",
    "acquire",
    "capture",
    "totals",
    "estimate",
    "detect",
    "alarm",
    "spool",
    "pipeline",
    "deliver",
    "health",
    "supervise",
    "command",
    "warm",
    "reload",
    "control",
    "app",
]

# Processes of their own: they know the gateway only through model, wire and each other's stores; replay through the
# files of capture, which it hands to the device side.
OUTSIDE = {
    "history": {"model", "wire", "history"},
    "ingest": {"model", "wire", "history", "ingest"},
    "console": {"model", "wire", "history", "console"},
    "replay": {"model", "wire", "acquire", "capture", "detect", "spool", "history", "replay"},
}
HOMES = {
    "pymodbus": ["drivers/modbus/"],
    "aiomqtt": ["gateway/wire/client.py"],
    "paho": ["gateway/wire/client.py"],
    "influxdb_client": ["gateway/history/influx2.py"],
    "numba": ["drivers/jit.py"],
    "amqtt": ["gateway/demo/broker.py"],
}


@functools.cache
def nodes(path):
    """Return all nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path):
    """Return every module that a file imports, wherever the import stands."""
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def name(path):
    return str(path.relative_to(ROOT))


def part(module):
    """Return the part of gateway that a module belongs to, None for gateway itself and everything else."""
    words = module.split(".")
    return words[1] if words[0] == "gateway" and len(words) > 1 else None


def rooms():
    return {p.stem if p.is_file() else p.name for p in (ROOT / "gateway").iterdir() if p.suffix in ("", ".py")}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_drivers_never_import_gateway(path):
    if name(path).startswith("drivers/"):
        assert not [m for m in imports(path) if m.split(".")[0] in ("gateway", "tests", "hil_tests")]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_stage_imports_only_what_stands_before_it(path):
    here = path.relative_to(ROOT).with_suffix("").parts
    if here[0] != "gateway":
        return
    room = here[1]
    found = {p for m in imports(path) if (p := part(m)) in rooms()}
    if room in STAGES:
        allowed = set(STAGES[: STAGES.index(room) + 1])
        if room == "model":
            allowed = {"model"}
        assert found <= allowed, f"{name(path)} imports {found - allowed}"
    elif room in OUTSIDE:
        assert found <= OUTSIDE[room], f"{name(path)} imports {found - OUTSIDE[room]}"


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_home(library):
    users = [name(p) for p in FILES if any(m.split(".")[0] == library for m in imports(p))]
    homes = HOMES[library]
    assert users
    assert all(any(user.startswith(home) for home in homes) for user in users), users


@pytest.mark.parametrize("path", sorted((ROOT / "gateway" / "detect").glob("*.py")), ids=name)
def test_detectors_know_no_clock_no_log_and_no_loop(path):
    assert not {m.split(".")[0] for m in imports(path)} & {"asyncio", "logging", "time", "datetime"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_tasks_are_made_in_groups_and_nobody_sleeps_in_a_thread(path):
    for node in nodes(path):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in ("asyncio.create_task", "asyncio.ensure_future", "time.sleep") or (
                name(path) == "gateway/wire/client.py" and call == "asyncio.ensure_future"
            ), f"{name(path)}:{node.lineno}: {call}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_caught_wholesale(path):
    for node in nodes(path):
        if isinstance(node, ast.ExceptHandler):
            caught = "everything" if node.type is None else ast.unparse(node.type)
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert caught not in ("everything", "Exception", "BaseException") or reraises, f"{name(path)}:{node.lineno}"


def test_the_gateway_process_loads_neither_database_client_nor_console():
    code = (
        "import sys, gateway.cli, gateway.app\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('influxdb_client', 'aiohttp', 'amqtt')"
        " or m.startswith(('gateway.console', 'gateway.history', 'gateway.ingest', 'gateway.demo', 'drivers.sim'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_folder_is_on_the_map():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in FILES:
        folder = path.parent.relative_to(ROOT)
        if path.name == "__init__.py" and folder.parts not in (("gateway",), ("drivers",)):
            assert f"{folder.name}/" in text, f"ARCHITECTURE.md does not name {folder}/"
