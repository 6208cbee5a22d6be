"""Which process made an unfinished request, and whether it still runs.

Every process that uses a ledger holds a lock on a file of its own. The lock goes when the process ends,
however it ends, so a later process can tell an unfinished request of a dead process (its outcome is
unknown) from one of a living neighbour. Process ids are not used: they are reused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"[0-9a-f]{16}")


class Run:
    """This process's lock in a directory of locks."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self.id = secrets.token_hex(8)
        self._descriptor = os.open(
            self._path(self.id), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_dead(self, run: str) -> bool:
        """True if the process that made `run` has ended."""
        if run == self.id:
            return False
        if not _NAME.fullmatch(run):
            return True
        try:
            descriptor = os.open(self._path(run), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def forget(self, run: str) -> None:
        """Remove the lock file of a dead run."""
        if _NAME.fullmatch(run):
            self._path(run).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the lock up."""
        with contextlib.suppress(OSError):
            self._path(self.id).unlink(missing_ok=True)
        os.close(self._descriptor)

    def _path(self, run: str) -> Path:
        return self._directory / f"{run}.lock"
