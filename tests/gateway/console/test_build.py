"""hatch_build.py: builds when the sources are newer, and only then."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path, hook: ModuleType) -> Path:
    for name, age in (
        ("web/package.json", 100),
        ("web/src/main.ts", 100),
        ("web/node_modules/x.js", 0),
        ("static/index.html", 50),
    ):
        path = tmp_path / "gateway/console" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (1e9 - age, 1e9 - age))
    return tmp_path


def test_a_page_newer_than_its_sources_is_current_and_installed_packages_do_not_count(
    hook: ModuleType, tree: Path
) -> None:
    assert hook.is_current(tree)


def test_a_changed_or_new_source_makes_it_stale(hook: ModuleType, tree: Path) -> None:
    (tree / "gateway/console/web/src/new.ts").write_text("x")
    assert not hook.is_current(tree)


def test_without_the_page_it_is_built_and_without_the_sources_it_is_taken(hook: ModuleType, tree: Path) -> None:
    web = tree / "gateway/console/web"
    for path in sorted(web.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    web.rmdir()
    assert hook.is_current(tree)
    (tree / "gateway/console/static/index.html").unlink()
    assert not hook.is_current(tree)


def test_the_page_stays_within_its_budget() -> None:
    static = ROOT / "gateway/console/static"
    if not (static / "index.html").exists():
        pytest.skip("the web part is not built: python hatch_build.py")
    assert sum(path.stat().st_size for path in static.rglob("*.gz")) < 150_000
