"""The goals of delivery as one table: what each fault did, how often, and what became of what had been promised.

A fault test shows what it has found; the row fails the test where a promise is broken, and stands in the table at the
end of the run. `pytest -m slow tests/faults --goals goals.md` runs all campaigns and writes the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pytest

HEADINGS: Final = (
    "fault",
    "times",
    "committed",
    "lost",
    "second stamps",
    "dropped: told",
    "found",
    "at risk",
    "first data",
)
Show = Callable[["Goal"], None]
_shown: list[Goal] = []


@dataclass(frozen=True, slots=True)
class Goal:
    """What one test found: frames, counted by a checker that shares no code with what it checks.

    committed      promised as safe, over all repetitions
    lost           of these, neither there at the end nor counted as dropped
    second_stamps  that came under another time stamp too, or share theirs with another frame of their tag
    told, found    dropped unsent: as the product counts them, and as the checker does
    at_risk_s      how old the oldest frame was that a cut took before it was committed; None: nothing was cut
    first_data_s   how long after the peer was back the first data came, at worst; None: nobody was away
    """

    fault: str
    times: int
    committed: int
    lost: int = 0
    second_stamps: int = 0
    told: int = 0
    found: int = 0
    at_risk_s: float | None = None
    first_data_s: float | None = None

    def is_kept(self) -> bool:
        """Return whether every promise is."""
        return self.lost == 0 and self.second_stamps == 0 and self.told == self.found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --goals."""
    parser.addoption("--goals", default=None, metavar="FILE", help="write the table of the fault tests into this file")


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Show:
    """show(Goal(...)): a row of the table; a promise that is not kept fails the test."""

    def take(goal: Goal) -> None:
        request.node.user_properties.append(("goal", asdict(goal)))
        assert goal.committed > 0, "nothing was at stake"
        assert goal.is_kept(), goal

    return take


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather the rows of a finished test, from whichever worker."""
    if report.when == "teardown":
        _shown.extend(Goal(**value) for name, value in report.user_properties if name == "goal")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it where --goals says."""
    if path := config.getoption("--goals"):
        Path(path).write_text(table(_shown))
    if _shown:
        terminalreporter.section("goals")
        terminalreporter.write(table(_shown))


def table(goals: list[Goal]) -> str:
    """Return the rows as a Markdown table."""
    rows = [
        (
            goal.fault,
            *(f"{n:,}" for n in (goal.times, goal.committed, goal.lost, goal.second_stamps, goal.told, goal.found)),
            *("" if s is None else f"{s:.2f} s" for s in (goal.at_risk_s, goal.first_data_s)),
        )
        for goal in sorted(goals, key=lambda goal: goal.fault)
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in (HEADINGS, ("---",) * len(HEADINGS), *rows))
