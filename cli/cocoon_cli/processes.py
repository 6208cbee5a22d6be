"""Child processes of a development network: start, wait for the ready line, stop by pid."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from cocoon_attestation.errors import UnavailableError

STOP_GRACE_S = 8.0
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    # Runs in the child between fork and exec: a killed `cocoon dev up` must not leave servers behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ManagedProcess:
    """A child that prints one JSON line on stdout when it is ready; its stderr goes to a log file."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self.env = dict(os.environ if env is None else env)
        self.ready: dict[str, object] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 if not started."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the child without waiting."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.env,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def wait_ready(self, timeout: float) -> dict[str, object]:
        """Read stdout up to the ready line and return it; `UnavailableError` if it does not come."""
        process = self._require()
        stdout = process.stdout
        if stdout is None:
            raise UnavailableError(f"{self.name} has no output")
        deadline = time.monotonic() + timeout
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise self.failure(f"{self.name} was not ready after {timeout:.0f} s")
                piece = os.read(stdout.fileno(), 65536)
                if not piece:
                    raise self.failure(f"{self.name} stopped before it was ready")
                buffer += piece
        try:
            document = json.loads(buffer.split(b"\n", 1)[0])
        except ValueError as error:
            raise self.failure(f"{self.name} printed no JSON ready line") from error
        self.ready = dict(document)
        return self.ready

    def stdout_fd(self) -> int:
        """Descriptor of the child's stdout, for reading what follows the ready line."""
        stdout = self._require().stdout
        if stdout is None:
            raise UnavailableError(f"{self.name} has no output")
        return stdout.fileno()

    def running(self) -> bool:
        """True while the child lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the child ended: its status, or the negative number of a signal; None while it lives."""
        return self._process.poll() if self._process is not None else None

    def kill(self) -> None:
        """SIGKILL: for crash tests."""
        process = self._require()
        process.kill()
        process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help in time."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout:
            process.stdout.close()

    def _require(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise UnavailableError(f"{self.name} was not started")
        return self._process

    def failure(self, message: str) -> UnavailableError:
        """An error about this process, with the end of its log in the details."""
        tail = ""
        if self.log.exists():
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
        return UnavailableError(message, hint=f"see {self.log}", details={"log_tail": tail})


class ProcessGroup:
    """Stops its processes in reverse order when left."""

    def __init__(self) -> None:
        self.processes: list[ManagedProcess] = []

    def add(self, process: ManagedProcess, *, timeout: float) -> dict[str, object]:
        """Start a process, wait until it is ready, and return its ready document."""
        self.processes.append(process)
        process.start()
        return process.wait_ready(timeout)

    def first_dead(self) -> ManagedProcess | None:
        """A process that ended by itself, if any."""
        return next((p for p in self.processes if not p.running()), None)

    def stop(self) -> None:
        """Stop everything, last started first."""
        while self.processes:
            self.processes.pop().stop()

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
