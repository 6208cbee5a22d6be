"""`cocoon dev status|fund|warp|tick|faults|snapshot`: on a chain that runs as a process, and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.emulator import find_sandbox

if TYPE_CHECKING:
    from tests.network.netkit import InProcess
else:
    from netkit import InProcess

SOMEBODY = "0:" + "61" * 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directory of a network of which only the chain runs."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("devcommands")
    command = [
        sys.executable,
        "-m",
        "cocoon_ton.devnet",
        "--dir",
        str(root / "chain"),
        "--liteservers",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert len(ready["ports"]) == 2
            yield root
        finally:
            process.terminate()


def good(cocoon: InProcess, *arguments: Any) -> Any:
    done = cocoon(*arguments, "--json")
    assert done.code == 0, done.out
    return done.json


def test_status_tick_warp_fund(cocoon: InProcess, root: Path) -> None:
    before = good(cocoon, "dev", "status", "--dir", root)
    assert [server["faults"] for server in before["liteservers"]] == [[], []]
    assert good(cocoon, "dev", "tick", "3", "--dir", root)["seqno"] >= before["seqno"] + 3
    assert good(cocoon, "dev", "warp", "5000", "--dir", root)["now"] >= before["now"] + 5000
    paid = good(cocoon, "dev", "fund", SOMEBODY, "1.5", "--dir", root)
    assert (paid["amount"], paid["address"]) == ("1500000000", SOMEBODY)
    text = cocoon("dev", "status", "--dir", root)
    assert "honest" in text.out
    assert "1.5 TON" in cocoon("dev", "fund", SOMEBODY, "1.5", "--dir", root).out


def test_faults(cocoon: InProcess, root: Path) -> None:
    switches = (
        "delay=0.1",
        'drop=["getTime"]',
        f'hide=["{SOMEBODY}"]',
        f'forge={{"{SOMEBODY}": 5}}',
        "fork",
    )
    state = good(cocoon, "dev", "faults", *switches, "--server", 1, "--dir", root)
    assert state["faults"] == ["delay", "drop", "hidden_accounts", "forged_accounts", "fork"]
    assert "lies: delay" in cocoon("dev", "status", "--dir", root).out
    assert good(cocoon, "dev", "faults", "--clear", "--server", 1, "--dir", root)["faults"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("fund", "nobody", "1"),
        ("fund", SOMEBODY, "much"),
        ("fund", SOMEBODY, "-1"),
        ("warp", "-5"),
        ("warp", "soon"),
        ("tick", "0"),
        ("faults", "delay=x"),
        ("faults", "delay=-1"),
        ("faults", "unknown=1"),
        ("faults", "--server", "7"),
    ],
)
def test_wrong_arguments(cocoon: InProcess, root: Path, arguments: tuple[str, ...]) -> None:
    done = cocoon("dev", *arguments, "--dir", root)
    assert done.code not in (0, 1)
    assert "Traceback" not in done.out


@pytest.mark.parametrize("command", [("status",), ("tick",), ("faults",), ("fund", SOMEBODY, "1")])
def test_nothing_runs(cocoon: InProcess, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = cocoon("dev", *command, "--dir", tmp_path, "--json")
    assert done.code == 40
    assert "no development chain runs" in done.json["error"]["message"]


class TestSnapshots:
    def test_not_while_it_runs(self, cocoon: InProcess, root: Path) -> None:
        done = cocoon("dev", "snapshot", "save", "x", "--dir", root, "--json")
        assert done.code == 2
        assert "runs" in done.json["error"]["message"]
        assert good(cocoon, "dev", "snapshot", "list", "--dir", root)["snapshots"] == []

    def test_everything_comes_back(self, cocoon: InProcess, tmp_path: Path) -> None:
        root = tmp_path / "net"
        _network(root)
        good(cocoon, "dev", "snapshot", "save", "first", "--dir", root)
        before = _content(root)
        (root / "host/ledger").write_text("later")
        (root / "host/more").write_text("more")
        (root / "ports.json").unlink()
        good(cocoon, "dev", "snapshot", "save", "second", "--dir", root)
        assert good(cocoon, "dev", "snapshot", "list", "--dir", root)["snapshots"] == ["first", "second"]
        good(cocoon, "dev", "snapshot", "restore", "first", "--dir", root)
        assert _content(root) == before
        assert (root / "logs/devnet.log").read_text() == "kept"
        assert (root / "host").stat().st_mode & 0o77 == 0
        good(cocoon, "dev", "snapshot", "restore", "second", "--dir", root)
        assert (root / "host/ledger").read_text() == "later"
        assert not (root / "ports.json").exists()
        assert good(cocoon, "dev", "snapshot", "remove", "second", "--dir", root)["snapshots"] == ["first"]

    def test_a_restore_that_was_interrupted_is_repeated(self, cocoon: InProcess, tmp_path: Path) -> None:
        root = tmp_path / "net"
        _network(root)
        good(cocoon, "dev", "snapshot", "save", "first", "--dir", root)
        before = _content(root)
        (root / "chain/chain.sqlite").unlink()
        (root / "snapshots/.restore.part").mkdir()
        good(cocoon, "dev", "snapshot", "restore", "first", "--dir", root)
        assert _content(root) == before

    @pytest.mark.parametrize("command", ["save", "restore", "remove"])
    @pytest.mark.parametrize("name", ["../x", ".x", "nothing"])
    def test_bad_names(self, cocoon: InProcess, tmp_path: Path, command: str, name: str) -> None:
        _network(tmp_path / "net")
        done = cocoon("dev", "snapshot", command, name, "--dir", tmp_path / "net", "--json")
        assert done.code == (0 if (command, name) == ("save", "nothing") else 2)

    def test_no_network(self, cocoon: InProcess, tmp_path: Path) -> None:
        done = cocoon("dev", "snapshot", "save", "x", "--dir", tmp_path, "--json")
        assert done.code == 2
        assert "dev up" in done.json["error"]["hint"]


def _network(root: Path) -> None:
    """The files of a network, with a real chain file."""
    from cocoon_ton.devnet.store import Store

    for name in ("chain", "host", "logs"):
        (root / name).mkdir(mode=0o700, parents=True)
    Store(root / "chain/chain.sqlite").close()
    (root / "host/ledger").write_text("first")
    (root / "ports.json").write_text("{}")
    (root / "logs/devnet.log").write_text("kept")


def _content(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and "snapshots" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in found if "-wal" not in path.name}
