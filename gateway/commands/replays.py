"""The command replay: what was recorded, through the product again."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.commands.terminal import DONE, PEER_AWAY, refuse, say
from gateway.model.clock import NS

if TYPE_CHECKING:
    from gateway.detect.tags import Tags
    from gateway.model.corridor import GatewaySpec
    from gateway.replay.csv_file import ScoreFile
    from gateway.replay.output import Output
    from gateway.replay.source import FrameSource, Span
    from gateway.replay.summary import Summary

CAPTURE_BEGINS: Final = b"{"  # a capture is JSON lines
BAR: Final = 30  # characters of the progress bar
TOLD_EVERY_S: Final = 0.2  # on a terminal
LOGGED_EVERY_S: Final = 10.0  # elsewhere
MAX_PRINTED: Final = 40  # lines of tags and reasons
MAX_UNUSUAL: Final = 5  # moments with the highest scores


def replay(options: argparse.Namespace) -> int:
    """Replay a source: a capture through link and decode; CSV, spool or database through the detectors."""
    from gateway.model.config import ConfigError
    from gateway.replay.source import SourceAway, SourceError

    try:
        _check_names(options)
        if "://" in options.source:
            return _database(options)
        path = Path(options.source)
        if path.is_dir():
            return _spool(options, path)
        if _is_capture(path):
            from gateway.commands.captures import replay_capture_file

            return replay_capture_file(options, path)
        return _csv(options, path)
    except (SourceError, ConfigError) as error:
        refused = refuse(error.lines)
        return PEER_AWAY if isinstance(error, SourceAway) else refused


def _check_names(options: argparse.Namespace) -> None:
    """Raise SourceError where one file would be written over another, or over what is read."""
    from gateway.replay.source import SourceError

    named = [("--out", options.out), ("--report", options.report)]
    others = [("the source", Path(options.source)), ("--config", options.config), named[0]]
    for what, path in named:
        for role, other in others:
            if path and other and what != role and path.resolve() == other.resolve() and not path.is_char_device():
                raise SourceError(f"{path}: is {role} as well as {what}, wanted another file")


def _is_capture(path: Path) -> bool:
    if path.is_fifo():
        return False  # what is looked at is gone
    try:
        with path.open("rb") as stream:
            return stream.read(1) == CAPTURE_BEGINS
    except OSError:
        return False


def _csv(options: argparse.Namespace, path: Path) -> int:
    from gateway.replay.csv_file import CsvFile
    from gateway.replay.source import SourceError
    from gateway.warm import REPLAY, compile_missing

    if options.since is not None or options.until is not None:
        raise SourceError(f"{path}: --from and --to are for spools and databases, a CSV file is replayed whole")
    source = CsvFile(path)
    n = len(source.columns)
    known, rows = _settings(_spec(options), [tuple(name.partition(".")[::2]) for name in source.columns])
    if options.config and not any(row is not None for row in rows):
        say(
            f"{path}: no column is a tag of {options.config}, wanted names as <device>.<tag>: default detectors for all"
        )
    compile_missing(say, REPLAY)
    from gateway.replay.judge import Judge, recorded
    from gateway.replay.summary import Summary

    judge = Judge(recorded([(0, n)], [""] * n, known, rows), is_whole=True)
    summary = Summary(source.columns, judge.tags)
    progress = _Progress(str(path))
    n_done = 0
    with _outputs(options, source.columns) as (out, page), contextlib.closing(source):
        for block in source.blocks():
            found = judge.rows(block.time_ns, block.value, block.bad)
            if out:
                out.write(block.text, block.stamp, found)
            summary.add(0, block.time_ns, block.value, block.bad, found)
            n_done += block.n_bytes
            progress.tell(n_done / max(source.size, 1), summary.values)
        progress.end()
        _report(options, page, str(path), summary)
    return _end(options, str(path), progress, summary)


def _spool(options: argparse.Namespace, path: Path) -> int:
    from gateway.replay.spool_folder import SpoolFolder

    return _frames(options, str(path), SpoolFolder(path, _span(options), say), _spec(options))


def _database(options: argparse.Namespace) -> int:
    from gateway.acquire.plan import plan
    from gateway.model.corridor import StoreSpec
    from gateway.replay.database import Database
    from gateway.replay.source import SourceError

    url = options.source
    spec = _spec(options)
    if spec is None:
        raise SourceError(f"{url}: wanted --config gateway.toml: it says which tags to replay, and their settings")
    return _frames(options, url, Database(StoreSpec(url, _token(options)), plan(spec).table, _span(options)), spec)


def _frames(options: argparse.Namespace, title: str, source: FrameSource, spec: GatewaySpec | None) -> int:
    import numpy as np

    from gateway.warm import REPLAY, compile_missing

    names = [(scan.device, tag) for scan in source.scans for tag in scan.tags]
    columns = tuple(f"{device}.{tag}" for device, tag in names)
    known, rows = _settings(spec, names)
    compile_missing(say, REPLAY)
    from drivers.quality import BAD
    from gateway.replay.judge import Judge, recorded
    from gateway.replay.summary import Summary

    ends = np.cumsum([len(scan.tags) for scan in source.scans]).tolist()
    scans = list(zip([0, *ends[:-1]], ends, strict=True))
    judge = Judge(recorded(scans, [device for device, _ in names], known, rows), is_whole=False)
    summary = Summary(columns, judge.tags)
    progress = _Progress(title)
    stamp = np.zeros((1, 2), np.int64)
    value, bad = np.zeros((1, len(columns))), np.zeros((1, len(columns)), np.bool_)
    time_ns = np.zeros(1, np.int64)
    with _outputs(options, columns) as (out, page):
        for frame in source.frames():
            found = judge.frame(frame)
            begin, end = scans[frame.scan]
            value[0, begin:end] = frame.value
            bad[0, begin:end] = (frame.quality & BAD) != 0
            time_ns[0] = frame.time_ns
            if out:
                text = np.frombuffer(bytearray(str(frame.time_ns).encode()), np.uint8)
                stamp[0, 1] = text.size
                out.write(text, stamp, found)
            summary.add(frame.scan, time_ns, value, bad, found)
            progress.tell(source.progress, summary.values)
        progress.end()
        _report(options, page, title, summary)
    return _end(options, title, progress, summary)


@contextlib.contextmanager
def _outputs(options: argparse.Namespace, columns: Sequence[str]) -> Iterator[tuple[ScoreFile | None, Output | None]]:
    """Open what is to be written, scores and page; both are there when all is done, or neither."""
    from gateway.replay.csv_file import ScoreFile
    from gateway.replay.output import Output

    with contextlib.ExitStack() as stack:
        out = ScoreFile(stack.enter_context(Output(options.out)), columns) if options.out else None
        page = stack.enter_context(Output(options.report)) if options.report else None
        yield out, page


def _report(options: argparse.Namespace, page: Output | None, title: str, summary: Summary) -> None:
    if page:
        from gateway.replay.report import page_of

        notes = [f"settings of {options.config}"] if options.config else ["default detectors, no limits set"]
        page.write(page_of(title, notes, summary).encode())


def _settings(spec: GatewaySpec | None, names: list[Any]) -> tuple[Tags | None, list[int | None]]:
    """Return the settings of a gateway's tags, and the row there of each (device, tag)."""
    if spec is None:
        return None, [None] * len(names)
    from gateway.acquire.plan import plan
    from gateway.detect.tags import tags_of

    table = plan(spec).table
    row_of = {(spec.devices[table.device_of[i]].name, tag.name): i for i, tag in enumerate(table.tags)}
    return tags_of(table), [row_of.get(tuple(name)) for name in names]


def _spec(options: argparse.Namespace) -> GatewaySpec | None:
    from gateway.model.config import load_gateway

    return load_gateway(options.config) if options.config else None


def _span(options: argparse.Namespace) -> Span:
    from gateway.replay.source import Span

    every = Span()
    return Span(
        every.start_ns if options.since is None else options.since,
        every.stop_ns if options.until is None else options.until,
    )


def _token(options: argparse.Namespace) -> str | None:
    from gateway.replay.source import SourceError

    if options.token_file is None:
        return None
    try:
        return str(options.token_file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise SourceError(f"{options.token_file}: cannot be read: {why}") from None


def _end(options: argparse.Namespace, title: str, progress: _Progress, summary: Summary) -> int:
    found = _told(title, summary, progress.seconds)
    if options.json:
        print(json.dumps(found))
        return DONE
    if not summary.rows:
        print(f"{title}: no rows")
        return DONE
    span = f"{_when(summary.first_ns)} to {_when(summary.last_ns)}"
    print(f"{title}: {summary.rows:,} rows, {summary.values:,} values, {span}")
    for one in found["alarms"][:MAX_PRINTED]:
        print(f"  {one['tag']:<40} {one['reason']:<12} {one['count']:>8,}  {one['per_day']:.2f} a day")
    if len(found["alarms"]) > MAX_PRINTED:
        print(f"  and {len(found['alarms']) - MAX_PRINTED:,} more, see --json")
    for one in found["unusual"] if not found["alarms"] else ():
        print(f"  {one['tag']:<40} score {one['score']:.2f} at {_when(one['time_ns'])}, no alarm")
    total, per_day = found["alarms_total"], found["alarms_per_day"]
    print(f"  {total:,} alarms, {per_day:.2f} a day; {summary.changepoints:,} change points")
    return DONE


def _told(title: str, summary: Summary, seconds: float) -> dict[str, Any]:
    return {
        "source": title,
        "rows": summary.rows,
        "values": summary.values,
        "first_ns": summary.first_ns if summary.rows else None,
        "last_ns": summary.last_ns if summary.rows else None,
        "alarms_total": sum(summary.counts.values()),
        "alarms_per_day": round(sum(summary.counts.values()) / summary.days, 3),
        "anomalies": summary.anomalies,
        "changepoints": summary.changepoints,
        "alarms": [
            {
                "tag": summary.names[column],
                "reason": reason,
                "count": count,
                "per_day": round(count / summary.days, 3),
            }
            for (column, reason), count in summary.counts.most_common()
        ],
        "unusual": [
            {
                "time_ns": peak.time_ns,
                "tag": summary.names[peak.column],
                "score": round(peak.score, 3),
                "alarms": list(peak.reasons),
            }
            for peak in summary.peaks(MAX_UNUSUAL)
        ],
        "values_per_s": round(summary.values / max(seconds, 1e-9)),
    }


def _when(time_ns: int) -> str:
    try:
        return datetime.fromtimestamp(time_ns // NS, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"


class _Progress:
    """How far a replay is: a bar on a terminal, else a line now and then; all of it on stderr."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = self._told_s = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = False

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._began

    def tell(self, share: float, values: int) -> None:
        """Say how much is done, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self._told_s < (TOLD_EVERY_S if self._is_terminal else LOGGED_EVERY_S):
            return
        self._told_s = now
        rate = values / max(now - self._began, 1e-9) / 1e6
        text = f"{100 * share:3.0f} %  {values:,} values, {rate:.1f} million a second"
        if not self._is_terminal:
            say(f"{self._title}: {text}")
            return
        full = min(round(BAR * share), BAR)
        print(f"\r[{'#' * full}{'.' * (BAR - full)}] {text}\033[K", end="", file=sys.stderr, flush=True)
        self._is_shown = True

    def end(self) -> None:
        """Leave the terminal's line as it was."""
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
