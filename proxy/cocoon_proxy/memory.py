"""The newest statements that this client has seen, on disk: what is older is refused from then on.

One SQLite file for each network, beside the ledger; several processes may share it. Rules:
docs/spec/endorsements.md, section 10.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cocoon_attestation.errors import UnavailableError
from cocoon_attestation.rollback import Mark

FILE: Final = "seen.sqlite3"
_HINT: Final = "if the file is damaged, remove it: the client then starts to remember anew"
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS seen (subject TEXT PRIMARY KEY, parts TEXT, at INTEGER)"


class SeenStatements:
    """Opens or creates the memory below `directory`. Thread-safe; blocking."""

    def __init__(self, directory: Path) -> None:
        """Open the file.

        Raises:
            UnavailableError: it cannot be opened.
        """
        self.path = directory / FILE
        self._lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=30.0
            )
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _SCHEMA):
                self._db.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(f"cannot open {self.path.name}: {error}", hint=_HINT) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def seen(self, subject: str) -> tuple[int, ...] | None:
        """The highest parts seen of a subject, or None.

        Raises:
            UnavailableError: the file cannot be read.
        """
        with self._lock:
            try:
                return self._seen(subject)
            except (sqlite3.Error, ValueError, TypeError) as error:
                raise self._unreadable(error) from error

    def observe(self, marks: Sequence[Mark], now: int) -> tuple[str, ...]:
        """Compare marks with what was seen; if none is older, remember them.

        Returns:
            Subjects that are older than seen before; empty if all are new enough, and then, durably, seen.

        Raises:
            UnavailableError: the file cannot be read or written.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    older = self._observe(marks, now)
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except (sqlite3.Error, ValueError, TypeError) as error:
                raise self._unreadable(error) from error
        return older

    def _observe(self, marks: Sequence[Mark], now: int) -> tuple[str, ...]:
        known = [(mark, self._seen(mark.subject)) for mark in marks]
        older = tuple(mark.subject for mark, seen in known if seen is not None and mark.older_than(seen))
        if older:
            return older
        for mark, seen in known:
            best = mark.joined(seen)
            if best != seen:
                row = (mark.subject, json.dumps(best), now)
                self._db.execute("INSERT OR REPLACE INTO seen VALUES (?,?,?)", row)
        return ()

    def _seen(self, subject: str) -> tuple[int, ...] | None:
        row = self._db.execute("SELECT parts FROM seen WHERE subject=?", (subject,)).fetchone()
        if row is None:
            return None
        parts = json.loads(row[0])
        if not isinstance(parts, list) or not all(type(part) is int for part in parts):
            raise ValueError("not a list of numbers")
        return tuple(parts)

    def _unreadable(self, error: Exception) -> UnavailableError:
        return UnavailableError(f"cannot use {self.path.name}: {error}", hint=_HINT)
