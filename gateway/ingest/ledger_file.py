"""The ledger on disk: `ledger.sqlite`, one row per gateway and boot, one per status.

synchronous is FULL although a lost row would only be asked for again: the sync is one fdatasync a batch.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

from gateway.ingest.ledger import Account, Key, Ledger, Status
from gateway.model.ranges import RangeSet, from_text, to_text
from gateway.wire.ledger import Report

log = logging.getLogger(__name__)

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS accounts (
    gateway TEXT NOT NULL, boot INTEGER NOT NULL, stored TEXT NOT NULL, parked TEXT NOT NULL,
    more TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (gateway, boot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statuses (gateway TEXT PRIMARY KEY, status TEXT NOT NULL) WITHOUT ROWID;
"""
BUSY_S: Final = 5.0  # a reader holds the file for milliseconds

Change = tuple[str, tuple[object, ...]]  # a statement and its values


class LedgerFile:
    """The file of one ingest. Its own thread writes, so the event loop never waits for the disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "ledger.sqlite"
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._connection: sqlite3.Connection | None = None
        self._saving = asyncio.Lock()

    def load(self) -> Ledger:
        """Return the ledger as it was saved; a damaged file is put aside, since frames can be sent again."""
        try:
            with closing(_connect(self._path, "rwc")) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(SCHEMA)
                if "more" not in {row[1] for row in connection.execute("PRAGMA table_info(accounts)")}:
                    connection.execute("ALTER TABLE accounts ADD COLUMN more TEXT NOT NULL DEFAULT '{}'")
                return _load(connection)
        except (sqlite3.DatabaseError, ValueError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # locked, or no room: not damaged
            aside = self._path.with_suffix(".damaged")
            log.error("%s is damaged (%s): put aside as %s, begun anew", self._path, error, aside.name)
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self.load()

    async def save(self, ledger: Ledger) -> None:
        """Bring everything unsaved to disk; raises sqlite3.OperationalError or OSError, then it stays unsaved.

        What somebody else is bringing there is waited for.
        """
        async with self._saving:
            await self._save(ledger)

    async def _save(self, ledger: Ledger) -> None:
        unsaved, ledger.unsaved = ledger.unsaved, set()
        if not unsaved:
            return
        changes = [_change(ledger, what) for what in unsaved]
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, changes)
        except BaseException:
            ledger.unsaved |= unsaved
            raise

    async def close(self) -> None:
        """Finish what is being written and close the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._thread.shutdown()
        if self._connection:
            self._connection.close()

    def _write(self, changes: list[Change]) -> None:
        try:
            if self._connection is None:
                self._connection = _connect(self._path, "rwc")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.executescript(SCHEMA)
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, values in changes:
                self._connection.execute(statement, values)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection:
                self._connection.close()
            self._connection = None
            raise


def read_ledger(state: Path) -> Report:
    """Return the report of the ledger that an ingest keeps, or kept, in `state`; raises OSError if it has none."""
    return _read(state).report()


def read_accounts(state: Path) -> dict[Key, Account]:
    """Return every account of that ledger; raises OSError if it has none."""
    return _read(state).accounts


def _read(state: Path) -> Ledger:
    path = state / "ledger.sqlite"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no ledger here; has this ingest ever run?")
    try:
        with closing(_connect(path, "ro")) as connection:
            return _load(connection)
    except (sqlite3.Error, ValueError) as error:
        raise OSError(f"{path}: {error}") from None


def _change(ledger: Ledger, what: Key | str) -> Change:
    if isinstance(what, str):
        status = ledger.statuses[what]
        said = json.dumps([status.boot, status.boots, status.delivered])
        return "INSERT OR REPLACE INTO statuses VALUES (?, ?)", (what, said)
    if account := ledger.accounts.get(what):
        more = {
            "gone": {why: to_text(ranges) for why, ranges in account.gone.items()},
            "complete": account.complete,
            "absent": account.absent,
        }
        values = (*what, to_text(account.stored), to_text(account.parked), json.dumps(more))
        return "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?)", values
    return "DELETE FROM accounts WHERE gateway = ? AND boot = ?", what


def _load(connection: sqlite3.Connection) -> Ledger:
    ledger = Ledger()
    for gateway, boot, stored, parked, text in connection.execute("SELECT * FROM accounts"):
        more = json.loads(text)
        ledger.accounts[gateway, boot] = Account(
            RangeSet(from_text(stored)),
            RangeSet(from_text(parked)),
            {why: RangeSet(from_text(ranges)) for why, ranges in more.get("gone", {}).items()},
            tuple(more.get("complete", (0, 0))),
            absent=more.get("absent", {}),
        )
    for gateway, text in connection.execute("SELECT gateway, status FROM statuses"):
        boot, boots, *rest = json.loads(text)
        delivered = rest[0] if rest else {}
        ledger.statuses[gateway] = Status(
            boot,
            {int(key): (first, last) for key, (first, last) in boots.items()},
            {int(key): [(first, last) for first, last in ranges] for key, ranges in delivered.items()},
        )
    return ledger


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, timeout=BUSY_S, isolation_level=None, check_same_thread=False, uri=True)
