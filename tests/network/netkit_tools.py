"""Small tools of the network's tests: running `cocoon`, waiting, looking at ledgers and processes."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cocoon_attestation.errors import UnsupportedError

T = TypeVar("T")


def why_not() -> str:
    """Why no network can be started here; empty if one can."""
    from cocoon_enclave.models.demo import demo_model
    from cocoon_ton.emulator import find_sandbox

    if demo_model() is None:
        return "the demo model was not fetched (make model)"
    try:
        find_sandbox()
    except UnsupportedError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def until(condition: Callable[[], T], *, within: float = 60.0, every: float = 0.2, what: str = "") -> T:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what or condition}")
        time.sleep(every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run of `cocoon` left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one document on stdout."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document

    def failed_checks(self) -> set[str]:
        """Ids of the checks that did not pass."""
        return {check["id"] for check in self.json["checks"] if check["verdict"] != "pass"}


class InProcess:
    """Runs `cocoon` in this process: quick, and any traceback becomes a failed test."""

    def __init__(self, capsys: pytest.CaptureFixture[str], home: Path) -> None:
        self._capsys = capsys
        self.home = home
        """``COCOON_HOME`` of the runs."""

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Run one command line."""
        from cocoon_cli.__main__ import main

        self._capsys.readouterr()
        with environment(COCOON_HOME=str(self.home)), pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        shown = self._capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Outcome(code=stop.value.code, out=shown.out, err=shown.err)


def cocoon_process(*arguments: str | Path, home: Path, timeout: float = 120, **variables: str) -> Outcome:
    """Run `cocoon` as a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "cocoon_cli", *(str(argument) for argument in arguments)],
        env={**os.environ, "COCOON_HOME": str(home), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(code=found.returncode, out=found.stdout.decode(), err=found.stderr.decode())


def ledger_rows(home: Path, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the client's ledger below `home`, read without touching it."""
    path = home / "client" / "dev" / "ledger.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def processes_of(home: Path) -> list[str]:
    """Command lines of the living processes whose environment names `home`."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environ = (directory / "environ").read_bytes()
            command = (directory / "cmdline").read_bytes()
        except OSError:  # gone meanwhile, or another user's
            continue
        if command and str(home).encode() in environ:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def children(pid: int) -> list[int]:
    """Processes that any thread of a process started and that still live."""
    lists = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for found in lists for child in found]
