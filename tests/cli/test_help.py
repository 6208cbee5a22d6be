"""The shape of the command line: help everywhere, `--json` everywhere, quick to start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from cocoon_cli.__main__ import COMMANDS, cli

if TYPE_CHECKING:
    from tests.network.netkit import InProcess, cocoon_process
else:
    from netkit import cocoon_process


def commands(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands and groups with the words that call them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}
EXPECTED = {
    "demo", "dev up", "serve", "chat", "models", "explain", "completion", "log checkpoint",
    "receipts list", "receipts show", "receipts export", "wallet new", "wallet show", "wallet top-up",
    "wallet close", "host run", "host status", "verify bundle", "verify receipt", "verify node",
    "verify evidence",
}  # fmt: skip


def test_the_commands_are_there() -> None:
    assert {" ".join(path) for path in LEAVES} >= EXPECTED


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help(cocoon: InProcess, path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    assert command.help.strip().endswith((".", "`", '"'))
    found = cocoon(*path, "--help")
    assert found.code == 0
    assert found.out.startswith(f"Usage: cocoon {' '.join(path)}")
    assert command.help.split()[0] in found.out
    assert found.err == ""


def test_the_short_flag_works_as_well(tmp_path: Path) -> None:
    for path in ((), ("verify",), ("verify", "bundle")):
        found = cocoon_process(*path, "-h", home=tmp_path)
        assert found.code == 0
        assert found.out.startswith("Usage: cocoon")


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_has_help_and_every_command_speaks_json(path: tuple[str, ...]) -> None:
    options = [parameter for parameter in LEAVES[path].params if isinstance(parameter, click.Option)]
    if path != ("completion",):  # its output is shell code
        assert "--json" in {name for option in options for name in option.opts}
    for option in options:
        assert option.help or option.show_default, option.opts


def test_the_list_of_commands_has_their_own_words(cocoon: InProcess) -> None:
    found = cocoon("--help")
    assert found.code == 0
    for name, (_, _, text) in COMMANDS.items():
        assert name in found.out
        assert text.split(".")[0][:40] in found.out


def test_version(cocoon: InProcess) -> None:
    found = cocoon("--version")
    assert found.code == 0
    assert found.out == f"cocoon, version {version('cocoon-network')}\n"


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("nosuch",),
        ("verify", "nosuch"),
        ("verify", "bundle"),
        ("verify", "bundle", "a", "b"),
        ("models", "--nosuch"),
        ("chat", "--max-tokens", "0", "x"),
        ("chat", "--max-tokens", "many", "x"),
        ("chat", "--temperature", "3", "x"),
        ("receipts", "list", "--limit", "0"),
        ("completion", "tcsh"),
        ("demo", "--max-tokens", "100000"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(cocoon: InProcess, line: tuple[str, ...]) -> None:
    found = cocoon(*line)
    assert found.code == 2
    assert found.out == "" or not line
    if line:
        as_json = cocoon(*line, "--json")
        assert as_json.code == 2
        assert as_json.json["ok"] is False
        assert as_json.json["error"]["code"] == "usage"
        assert as_json.json["error"]["message"]


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from cocoon_cli.__main__ import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'transformers', 'grpc', 'pytoniq', 'wasmtime', 'starlette', 'cryptography', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert found.stderr.decode().strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_code_names_the_program(cocoon: InProcess, shell: str) -> None:
    found = cocoon("completion", shell)
    assert found.code == 0
    assert "_COCOON_COMPLETE" in found.out


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`cocoon explain | head -1` ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cocoon_cli", "explain", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    assert process.wait(60) in (0, 1)
    assert said == b""


def test_as_a_program(tmp_path: Path) -> None:
    found = cocoon_process("models", "--network", "nosuch", "--json", home=tmp_path)
    assert found.code == 2
    assert found.json["error"]["code"] == "config"
    assert found.err == ""
    people = cocoon_process("models", "--network", "nosuch", home=tmp_path)
    assert people.code == 2
    assert people.out == ""
    assert "cannot read network 'nosuch'" in people.err
    assert "Traceback" not in people.err
