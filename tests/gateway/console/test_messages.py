"""The message catalogue: every language says everything, and everything that is said has a use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from drivers import quality
from drivers.link import LinkState
from gateway.alarm.engine import COMMUNICATION, OWN_ALARMS
from gateway.console import server
from gateway.detect import flags
from gateway.model.clock import ClockState
from gateway.spool.spool import SpoolState

WEB = Path(server.__file__).parent / "web"
SOURCES = WEB / "src"
CATALOGUES = {path.stem: json.loads(path.read_text()) for path in sorted((SOURCES / "messages").glob("*.json"))}


@pytest.mark.parametrize("language", CATALOGUES)
def test_every_language_has_every_message_with_its_parameters(language: str) -> None:
    english, other = CATALOGUES["en"], CATALOGUES[language]
    assert list(other) == list(english)
    for code, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", other[code])), code
        assert other[code].strip(), code


def test_every_message_is_used_and_every_code_of_the_server_has_one() -> None:
    text = "\n".join(path.read_text() for path in SOURCES.rglob("*.ts"))
    begun = {*re.findall(r"`([a-z_.]+)\$\{", text), *(f"{name}." for name in re.findall(r"word\(\"(\w+)\"", text))}
    for code in CATALOGUES["en"]:
        assert f'"{code}"' in text or any(code.startswith(one) for one in begun), f"{code} is used nowhere"
    answers = set(
        re.findall(
            r'"((?:mqtt|gateway|no|origin|host|bad)_\w+)"',
            "".join((WEB.parent / name).read_text() for name in ("feed.py", "guard.py", "server.py")),
        )
    )
    for answer in answers:
        assert f"answer.{answer}" in CATALOGUES["en"], answer


def test_every_alarm_quality_and_state_of_a_gateway_has_its_words() -> None:
    codes = {
        *(
            f"{kind}.{name}"
            for kind in ("condition", "alarm")
            for name in (*flags.NAMES.values(), COMMUNICATION, *OWN_ALARMS)
        ),
        *(f"quality.{name}" for name in quality.NAMES.values()),
        *(f"link.{state}" for state in get_args(LinkState)),
        *(f"spool.{state}" for state in get_args(SpoolState)),
        *(f"clock.{state}" for state in get_args(ClockState)),
    }
    assert codes <= set(CATALOGUES["en"])
    words = {one: CATALOGUES["de"][one] for one in codes if one.startswith("quality.")}
    assert not [one for one, text in words.items() if text == CATALOGUES["en"][one]]


def test_the_lock_file_names_no_registry() -> None:
    lock = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "registry" not in lock
    assert all("integrity" in one for name, one in json.loads(lock)["packages"].items() if name)
