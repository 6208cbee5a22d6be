"""`cocoon dev up` as a person runs it: ready line, default network, and a clean end on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.network.netkit import MODEL, InProcess, cocoon_process, processes_of, until, why_not
else:
    from netkit import MODEL, cocoon_process, processes_of, until, why_not

pytestmark = [pytest.mark.network, pytest.mark.model]
READY_S = 120


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A `cocoon dev up --json` and its home."""
    if reason := why_not():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("devup")
    with (home / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cocoon_cli", "dev", "up", "--json"],
            env={**os.environ, "COCOON_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process, home
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def test_up_use_and_down(up: tuple[subprocess.Popen[str], Path], cocoon: InProcess) -> None:
    process, home = up
    ready = _document(process)
    assert ready.keys() == {
        "ok", "network", "simulated", "network_file", "global_config", "registry", "registry_friendly",
        "global_id", "liteservers", "init_block", "faucet", "connect", "logs",
    }  # fmt: skip
    assert ready["ok"] is True
    assert ready["simulated"] is True
    assert Path(ready["network_file"]) == home / "networks" / "dev.json"
    assert Path(ready["global_config"]).is_file()
    cocoon.home = home
    models = cocoon("models", "--json")  # no --network: the development network is the default
    assert models.code == 0, models.out
    assert [model["name"] for model in models.json["models"]] == [MODEL]
    status = cocoon("host", "status", "--json")
    assert status.code == 0, status.out
    assert status.json["bond"] == "active"
    (server,) = ready["liteservers"]
    config = json.loads(Path(ready["global_config"]).read_text())
    assert config["liteservers"][0]["port"] == server["port"]
    assert config["liteservers"][0]["id"]["key"] == server["key"]
    assert ready["connect"].keys() == {"pytoniq", "tonutils", "ton-lite-client", "tonlib"}
    assert json.loads(Path(ready["faucet"]["file"]).read_text())["address"] == ready["faucet"]["address"]
    state = cocoon("dev", "status", "--json")
    assert state.code == 0, state.out
    assert state.json["liteservers"] == [{"port": server["port"], "faults": []}]
    save = cocoon("dev", "snapshot", "save", "x", "--json")
    assert save.code != 0  # it runs
    assert "stop" in save.json["error"]["hint"]
    again = cocoon_process("dev", "up", "--json", home=home, timeout=90)
    assert again.code != 0  # one network per directory
    assert "another development chain" in json.loads(again.out)["error"]["details"]["log_tail"]
    assert "Traceback" not in again.err
    assert cocoon("models", "--json").code == 0  # and the running one is not disturbed
    process.send_signal(signal.SIGINT)
    assert process.wait(40) == 0
    assert "Traceback" not in (home / "stderr").read_text()
    until(lambda: not processes_of(home), within=10, what="no process left")


def _document(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The ready document, which spans several lines."""
    import threading

    assert process.stdout is not None
    timer = threading.Timer(READY_S, process.kill)
    timer.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
    finally:
        timer.cancel()
    document = json.loads("".join(lines))
    assert isinstance(document, dict)
    return document
