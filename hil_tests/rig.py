"""What can be done to a bench from outside the gateway: the seam between simulated meters and wired ones."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

COMMAND_S: Final = 20.0  # a relay clicks at once, a broker on another machine takes its time


class CannotDo(Exception):
    """This bench has no way to do that: the test that needs it skips with this reason."""


class Rig(Protocol):
    """The hands of a bench. Every call returns when it is done, or raises CannotDo."""

    def cut(self, link: str) -> None:
        """Take a link away: nobody can be reached over it until `restore`."""
        ...

    def restore(self, link: str) -> None:
        """Give a link back."""
        ...

    def silence(self, device: str) -> None:
        """Let a device answer nothing until `wake`."""
        ...

    def wake(self, device: str) -> None:
        """Let a device answer again."""
        ...

    def pin(self, device: str, tag: str, value: float | None) -> None:
        """Make a meter show this value, None: not available."""
        ...

    def faulty(self) -> set[str]:
        """Return the devices that misbehave by themselves."""
        ...


class Wired:
    """A rig of real meters: commands from the bench file, one for each thing that can be done.

    commands  {"link": {name: {"cut": [...], "restore": [...]}}, "device": {name: {"silence": [...], "wake": [...]}}}
    """

    def __init__(self, name: str, folder: Path, commands: Mapping[str, Any]) -> None:
        self._name = name
        self._folder = folder
        self._commands = commands

    def cut(self, link: str) -> None:
        """Run the link's `cut`; a bench that could not restore it afterwards does not cut either."""
        self._command("link", link, "restore")
        run(self._command("link", link, "cut"), self._folder)

    def restore(self, link: str) -> None:
        """Run the link's `restore`."""
        run(self._command("link", link, "restore"), self._folder)

    def silence(self, device: str) -> None:
        """Run the device's `silence`."""
        self._command("device", device, "wake")
        run(self._command("device", device, "silence"), self._folder)

    def wake(self, device: str) -> None:
        """Run the device's `wake`."""
        run(self._command("device", device, "wake"), self._folder)

    def pin(self, device: str, tag: str, value: float | None) -> None:
        """Real meters show what they measure."""
        raise CannotDo(f"bench {self._name}: no test can make {device} show {tag} = {value}")

    def faulty(self) -> set[str]:
        """Nobody here is known to misbehave."""
        return set()

    def _command(self, kind: str, name: str, action: str) -> Sequence[str]:
        found = self._commands.get(kind, {}).get(name, {}).get(action)
        if not found:
            raise CannotDo(f"bench {self._name}: no command '{action}' for {kind} '{name}'")
        return list(map(str, found))


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command of a bench file; one that fails is an error of the bench, not of the gateway."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
