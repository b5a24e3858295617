"""Replaying a capture: raw traffic of a link, through link and decode again."""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.commands.terminal import DONE, WRONG_INPUT, refuse, say

if TYPE_CHECKING:
    from gateway.capture.file import Capture
    from gateway.replay.capture import Reading

COLUMNS: Final = ("time", "device", "tag", "value", "quality")


def replay_capture_file(options: argparse.Namespace, path: Path) -> int:
    """Replay a capture, and say whether it comes out as it did."""
    from gateway.capture.file import CaptureError, read
    from gateway.warm import compile_missing

    try:
        capture = read(path)
    except CaptureError as error:
        return refuse(error.lines)
    compile_missing(say, ("drivers.decode",))
    from gateway.replay.capture import first_difference, replay_capture

    readings = replay_capture(capture)
    difference = first_difference(readings)
    if options.out and (wrong := _write(options.out, readings)):
        return refuse([wrong])
    if options.json:
        print(json.dumps(_report(path, capture, readings, difference)))
    else:
        _tell(capture, readings)
    if difference:
        say(f"{path}: differs {difference}")
        return WRONG_INPUT
    return DONE


def _tell(capture: Capture, readings: Sequence[Reading]) -> None:
    from drivers.modbus.replay import told
    from drivers.quality import name_of
    from drivers.toml import escape

    began = datetime.fromtimestamp(capture.time_ns // 1_000_000 / 1000, UTC)
    print(f"{capture.gateway}, link '{capture.link.name}' ({capture.link.transport}), {began.isoformat()}")
    for reason in capture.why:
        print(f"  {reason}")
    for reading in readings:
        read = reading.read
        print(f"{read.asked_s:9.3f} s  {reading.device}: {escape(told(read.now))}")
        for value in reading.values:
            shown = "-" if math.isnan(value.value) else f"{value.value:.9g}"
            print(f"{'':14}{value.tag:<28} {shown:>16}  {name_of(value.quality)}")
        if read.difference:
            print(f"{'':14}differs: {escape(read.difference)}")
    n_same = sum(not reading.read.difference for reading in readings)
    print(f"{len(readings)} reads, {n_same} as they were")


def _report(source: Path, capture: Capture, readings: Iterable[Reading], difference: str) -> dict[str, Any]:
    from drivers.modbus.replay import told
    from drivers.quality import name_of

    return {
        "source": str(source),
        "gateway": capture.gateway,
        "link": capture.link.name,
        "time": capture.time_ns,
        "why": capture.why,
        "reads": [
            {
                "time": reading.time_ns,
                "device": reading.device,
                "unit": reading.read.unit,
                "function": reading.read.block.function,
                "start": reading.read.block.start,
                "count": reading.read.block.count,
                "outcome": told(reading.read.now),
                "difference": reading.read.difference or None,
                "tags": {
                    value.tag: {
                        "value": None if math.isnan(value.value) else value.value,
                        "quality": name_of(value.quality),
                    }
                    for value in reading.values
                },
            }
            for reading in readings
        ],
        "difference": difference or None,
    }


def _write(path: Path, readings: Iterable[Reading]) -> str:
    """Write the values as CSV; returns what is wrong, "" when nothing is."""
    from drivers.quality import name_of

    try:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for reading in readings:
                for value in reading.values:
                    text = "" if math.isnan(value.value) else repr(value.value)
                    writer.writerow((reading.time_ns, reading.device, value.tag, text, name_of(value.quality)))
    except OSError as error:
        return f"{path}: cannot be written: {error.strerror or error}"
    return ""
