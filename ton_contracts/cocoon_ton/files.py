"""Files that hold secrets: complete or not there, whatever crashes, and for their owner only. And locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def create_private(path: Path, data: bytes) -> None:
    """Write a new file, mode 0600; it appears under its name only when it is complete and on disk.

    Missing directories are made. Raises `FileExistsError` if `path` exists (a file is never replaced) and
    other `OSError`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(work, path)
    finally:
        work.unlink(missing_ok=True)


def publish(work: Path, path: Path) -> None:
    """Give a finished file its name, durably. Raises `FileExistsError` if the name is taken."""
    os.link(work, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. Raises `BlockingIOError` while another process holds it; ends with a process."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
