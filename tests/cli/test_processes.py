"""Child processes of a development network: the ready line, failures that say why, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cocoon_attestation.errors import UnavailableError
from cocoon_cli.output import print_error
from cocoon_cli.processes import ManagedProcess, ProcessGroup

SERVER = """
import json, signal, sys, time
print(json.dumps({"port": 5}), flush=True)
print("later line", flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("{}", flush=True)
time.sleep(600)
"""


def child(tmp_path: Path, program: str, name: str = "server") -> ManagedProcess:
    return ManagedProcess(name, [sys.executable, "-c", program], tmp_path / "logs" / f"{name}.log")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1]
    except FileNotFoundError:
        return False
    return not state.startswith("Z")


def test_ready_and_stop(tmp_path: Path) -> None:
    process = child(tmp_path, SERVER)
    assert process.pid == 0
    assert not process.running()
    with pytest.raises(UnavailableError, match="not started"):
        process.wait_ready(1)
    process.start()
    assert process.wait_ready(20) == {"port": 5} == process.ready
    assert process.running()
    pid = process.pid
    process.stop()
    process.stop()
    assert not process.running()
    assert not alive(pid)


def test_what_follows_the_ready_line_can_be_read(tmp_path: Path) -> None:
    program = (
        "import time\nprint('{}', flush=True)\ntime.sleep(0.3)\nprint('more', flush=True)\ntime.sleep(600)"
    )
    process = child(tmp_path, program)
    process.start()
    try:
        process.wait_ready(20)
        with os.fdopen(os.dup(process.stdout_fd())) as stream:
            assert stream.readline() == "more\n"
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit('no such thing')", "stopped before it was ready"),
        ("print('hello', flush=True); import time; time.sleep(600)", "no JSON ready line"),
        ("import time; time.sleep(600)", "not ready after 1 s"),
        ("print('{', end='', flush=True); import time; time.sleep(600)", "not ready after 1 s"),
    ],
)
def test_a_child_that_does_not_get_ready(tmp_path: Path, program: str, message: str) -> None:
    process = child(tmp_path, program)
    process.start()
    try:
        with pytest.raises(UnavailableError, match=message) as failed:
            process.wait_ready(1 if "1 s" in message else 20)
        assert str(process.log) in failed.value.hint
        if "SystemExit" in program:
            assert "no such thing" in str(failed.value.details["log_tail"])
    finally:
        process.stop()


def test_a_stubborn_child_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cocoon_cli.processes.STOP_GRACE_S", 0.3)
    process = child(tmp_path, STUBBORN)
    process.start()
    process.wait_ready(20)
    started = time.monotonic()
    process.stop()
    assert time.monotonic() - started < 5
    assert not process.running()


def test_a_group_ends_with_its_block_and_sees_who_died(tmp_path: Path) -> None:
    with ProcessGroup() as group:
        first, second = child(tmp_path, SERVER, "first"), child(tmp_path, SERVER, "second")
        group.add(first, timeout=20)
        group.add(second, timeout=20)
        assert group.first_dead() is None
        second.kill()
        assert group.first_dead() is second
    assert not first.running()


def test_a_killed_parent_leaves_no_children(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from cocoon_cli.processes import ManagedProcess\n"
        f"process = ManagedProcess('x', [sys.executable, '-c', {SERVER!r}], Path({str(tmp_path / 'log')!r}))\n"
        "process.start()\n"
        "process.wait_ready(20)\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_people_see_the_end_of_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A child that fails says why in its log; the error shows it, with what looks like markup in it."""
    program = "import sys; sys.stderr.write('first\\nport [49755] is taken\\n'); sys.exit(3)"
    process = child(tmp_path, program)
    process.start()
    with pytest.raises(UnavailableError) as caught:
        process.wait_ready(20)
    process.stop()
    print_error(caught.value.to_dict(), as_json=False)
    shown = capsys.readouterr().err
    assert "stopped before it was ready" in shown
    assert "| port [49755] is taken" in shown
    assert "server.log" in shown
