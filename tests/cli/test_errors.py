"""What can go wrong ends as one typed error with its exit code, never as a traceback."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import cocoon_cli.__main__ as program
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import (
    CocoonError,
    ConfigError,
    EngineError,
    EvidenceRejectedError,
    MalformedError,
    PaymentError,
    RejectedError,
    SealingError,
    UnavailableError,
    UnsupportedError,
)
from cocoon_cli.options import common_options

if TYPE_CHECKING:
    from tests.network.netkit import InProcess, Outcome, cocoon_process
else:
    from netkit import cocoon_process

GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "text": b"hello\n",
    "object": b"{}",
    "list": b"[1, 2]",
    "number": b"1e999",
    "deep": b"[" * 50_000,
    "deep_toml": b"a = " + b"[" * 5_000,
    "latin": "\u00e9".encode("latin-1"),
    "toml": b'[section]\nkey = "value"\n',
    "null": b"\0" * 100,
}
ZEROS = "00" * 32
NONCE = "07" * 32


def _clean(found: Outcome, *codes: int) -> None:
    assert found.code in codes, (found.code, found.out, found.err)
    assert "Traceback" not in found.out + found.err
    document = found.json
    assert document["ok"] is False
    assert document.keys() >= {"ok", "error"} or document["verdict"] in (
        "rejected",
        "malformed",
        "undecided",
    )
    if "error" in document:
        assert re.fullmatch(r"[a-z_]+", document["error"]["code"])
        assert document["error"]["message"]


# ---- the table


def _raising(error: BaseException) -> click.Command:
    @click.command()
    @common_options
    def command(as_json: bool) -> None:
        """Fail."""
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CocoonError("x"), 1),
        (EngineError("x"), 1),
        (ConfigError("x"), 2),
        (RejectedError("x"), 10),
        (EvidenceRejectedError("x"), 10),
        (SealingError(), 10),
        (UnsupportedError("x"), 20),
        (MalformedError("x"), 30),
        (UnavailableError("x", hint="wait"), 40),
        (PaymentError("x", details={"missing": 5}), 50),
        (click.UsageError("x"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (OSError(28, "No space left on device", "/full/disk"), 1),
        (RuntimeError("never expected"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_kind_of_error_has_its_exit_code(
    cocoon: InProcess, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(program.LazyGroup, "get_command", lambda *_: _raising(error))
    found = cocoon("models")
    assert found.code == code
    assert found.out == ""
    assert found.err != ""
    assert "Traceback" not in found.err
    as_json = cocoon("models", "--json")
    assert as_json.code == code
    if code != 130:
        document = as_json.json
        assert document["ok"] is False
        assert document["error"].keys() >= {"code", "message"}
        if isinstance(error, CocoonError):
            assert document["error"] == error.to_dict()


def test_a_rejection_shows_its_failed_checks(cocoon: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = CheckList()
    checks.record("tdx.tcb", False, "TCB OutOfDate [bold]")
    checks.record("challenge", True, "fresh")
    error = EvidenceRejectedError("refused [red]", checks=checks)
    monkeypatch.setattr(program.LazyGroup, "get_command", lambda *_: _raising(error))
    found = cocoon("models")
    assert "TCB OutOfDate [bold]" in found.err
    assert "refused [red]" in found.err  # no markup from outside
    assert "challenge" not in found.err
    document = cocoon("models", "--json").json
    assert [check["id"] for check in document["checks"]] == ["tdx.tcb", "challenge"]


# ---- files that are not what they should be


@pytest.fixture(params=sorted(GARBAGE))
def garbage(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that is nothing, under a name that says it is something."""
    path = tmp_path / "garbage.json"
    path.write_bytes(GARBAGE[request.param])
    return path


def test_garbage_as_a_bundle(cocoon: InProcess, garbage: Path) -> None:
    found = cocoon("verify", "bundle", garbage, "--offline", "--json")
    _clean(found, 30)
    assert found.json["error"]["code"] == "malformed"


@pytest.mark.parametrize(
    "line",
    [
        ("models", "--network"),
        ("chat", "hello", "--network"),
        ("serve", "--port", "0", "--grpc-port", "0", "--network"),
        ("receipts", "list", "--network"),
        ("receipts", "export", ZEROS, "--network"),
        ("wallet", "show", "--network"),
        ("wallet", "new", "--plain", "--network"),
        ("log", "checkpoint", "--network"),
        ("verify", "node", "--network"),
        ("verify", "receipt", ZEROS, "--network"),
    ],
    ids=" ".join,
)
def test_garbage_as_a_network(cocoon: InProcess, garbage: Path, line: tuple[str, ...]) -> None:
    found = cocoon(*line, garbage, "--json")
    _clean(found, 2)
    assert found.json["error"]["code"] == "config"


@pytest.mark.parametrize(
    "line", [("host", "status", "--config"), ("host", "run", "--config")], ids=" ".join
)
def test_garbage_as_host_settings(cocoon: InProcess, garbage: Path, line: tuple[str, ...]) -> None:
    _clean(cocoon(*line, garbage, "--json"), 2)


def test_garbage_as_client_settings(cocoon: InProcess, garbage: Path, network_file: Path) -> None:
    found = cocoon("models", "--config", garbage, "--network", network_file, "--json")
    if garbage.read_bytes():  # an empty file is a valid one: all defaults
        _clean(found, 2)
    else:
        _clean(found, 40)


def test_garbage_as_a_policy_or_evidence(cocoon: InProcess, garbage: Path, tmp_path: Path) -> None:
    _clean(cocoon("verify", "evidence", garbage, "--policy", garbage, "--challenge", NONCE, "--json"), 2)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'global_id = -217\nmodels = ["' + ZEROS + '"]\nmin_tcb_evaluation = 1\n'
        '[[releases]]\nname = "x"\ntee = "tdx"\n'
        + "".join(f'{name} = "{"00" * 48}"\n' for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2"))
        + f'td_attributes = "{"00" * 8}"\nxfam = "{"00" * 8}"\n'
    )
    found = cocoon("verify", "evidence", garbage, "--policy", policy, "--challenge", NONCE, "--json")
    _clean(found, 30)


def test_garbage_as_a_wallet(cocoon: InProcess, garbage: Path, network_file: Path) -> None:
    wallet = cocoon.home / "client" / "far" / "wallet.json"
    wallet.parent.mkdir(parents=True)
    wallet.write_bytes(garbage.read_bytes())
    _clean(cocoon("wallet", "show", "--network", network_file, "--json"), 2)


def test_garbage_as_a_ledger(cocoon: InProcess, garbage: Path, network_file: Path) -> None:
    ledger = cocoon.home / "client" / "far" / "ledger.sqlite3"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(garbage.read_bytes())
    found = cocoon("receipts", "list", "--network", network_file, "--json")
    if len(garbage.read_bytes()) > 1:
        _clean(found, 40)
    else:  # SQLite takes it for an empty database
        assert found.json == {"receipts": []}


# ---- files that are not there, or cannot be written


@pytest.mark.parametrize("where", ["missing", "directory", "forbidden"])
@pytest.mark.parametrize(
    "line",
    [
        ("verify", "bundle", "{}", "--offline"),
        ("verify", "evidence", "{}", "--network", "nosuch"),
        ("models", "--network", "{}"),
        ("models", "--config", "{}"),
        ("host", "status", "--config", "{}"),
        ("verify", "evidence", __file__, "--policy", "{}", "--challenge", NONCE),
        ("receipts", "export", ZEROS, "--request", "{}"),
    ],
    ids=lambda line: " ".join(line[:2]),
)
def test_unreadable_files(cocoon: InProcess, tmp_path: Path, where: str, line: tuple[str, ...]) -> None:
    path = tmp_path / "x.json"
    if where == "directory":
        path.mkdir()
    elif where == "forbidden":
        if os.getuid() == 0:
            pytest.skip("nothing is forbidden to root")
        path.touch(mode=0)
    _clean(cocoon(*(part.format(path) for part in line), "--json"), 2)


def test_a_home_that_cannot_be_made(cocoon: InProcess, tmp_path: Path, network_file: Path) -> None:
    cocoon.home = tmp_path / "file"
    cocoon.home.touch()
    for line in (
        ("receipts", "list", "--network", network_file),
        ("wallet", "new", "--plain", "--network", network_file),
        ("models", "--network", network_file),
    ):
        found = cocoon(*line, "--json")
        _clean(found, 1, 2, 40)


# ---- no decision


@pytest.mark.parametrize(
    "line",
    [("models",), ("chat", "hello"), ("log", "checkpoint"), ("verify", "node")],
    ids=" ".join,
)
def test_an_unreachable_chain_is_undecided(
    cocoon: InProcess, network_file: Path, line: tuple[str, ...]
) -> None:
    found = cocoon(*line, "--network", network_file, "--json")
    _clean(found, 40)
    assert found.json["error"]["code"] in ("chain_unavailable", "unavailable")


@pytest.mark.parametrize(
    "line",
    [
        ("models",), ("chat", "hello"), ("receipts", "list"), ("receipts", "show", ZEROS), ("wallet", "show"),
        ("log", "checkpoint"), ("verify", "node"), ("verify", "receipt", ZEROS), ("serve",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_unknown_network_is_a_setting_to_fix(cocoon: InProcess, line: tuple[str, ...]) -> None:
    found = cocoon(*line, "--network", "nosuch", "--json")
    _clean(found, 2)
    assert "nosuch" in found.json["error"]["message"]


def test_without_any_network_the_default_is_missing(cocoon: InProcess) -> None:
    found = cocoon("models", "--json")
    _clean(found, 2)
    assert "dev" in found.json["error"]["message"]


# ---- words that are not what they should be


@pytest.mark.parametrize(
    "line",
    [
        ("verify", "evidence", __file__),
        ("verify", "evidence", __file__, "--network", "a", "--policy", __file__),
        ("verify", "evidence", __file__, "--network", "a", "--challenge", "xyz"),
        ("verify", "evidence", __file__, "--network", "a", "--challenge", "00"),
        ("verify", "evidence", __file__, "--network", "a", "--at", "yesterday"),
        ("verify", "evidence", __file__, "--network", "a", "--at", "2026-01-01T00:00:00"),
        ("verify", "evidence", __file__, "--network", "a", "--at", "9" * 30),
        ("verify", "evidence", __file__, "--network", "a", "--at", "0001-01-01T00:00:00+23:59"),
        ("explain", "no.such.check"),
        ("explain", "[bold]"),
        ("serve", "--host", "0.0.0.0", "--network", "{network}"),
        ("serve", "--token", "short", "--network", "{network}"),
        ("wallet", "top-up", "ff", "1", "--network", "{network}"),
        ("wallet", "top-up", "ff", "-1", "--network", "{network}"),
        ("wallet", "top-up", "ff", "one", "--network", "{network}"),
        ("wallet", "top-up", "ff", "0.0000000001", "--network", "{network}"),
        ("wallet", "top-up", "ff", "1e400", "--network", "{network}"),
        ("wallet", "close", "ff", "--network", "{network}"),
        ("wallet", "show", "--network", "{network}"),
        ("receipts", "show", "zz", "--network", "{network}"),
        ("receipts", "show", "\u00e9" * 64, "--network", "{network}"),
        ("receipts", "show", ZEROS, "--network", "{network}"),
        ("receipts", "export", ZEROS, "--network", "{network}"),
        ("models", "--network", "../../etc/passwd"),
    ],
    ids=lambda line: " ".join(line)[-50:],
)
def test_wrong_words_are_2(cocoon: InProcess, network_file: Path, line: tuple[str, ...]) -> None:
    _clean(cocoon(*(part.replace("{network}", str(network_file)) for part in line), "--json"), 2)


@pytest.mark.parametrize(
    "name", ["COCOON_PAYMENT_DEPOSIT", "COCOON_SESSION_LIMIT_SECONDS", "COCOON_GATEWAY_PORT"]
)
def test_a_wrong_variable_is_named(
    cocoon: InProcess, network_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "much")
    found = cocoon("models", "--network", network_file, "--json")
    _clean(found, 2)
    section, _, key = name.removeprefix("COCOON_").lower().partition("_")
    assert f"{section}.{key}" in found.json["error"]["message"]


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"{", b'{"media_type": 1}'])
def test_as_a_process_there_is_no_traceback(tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(broken)
    found = cocoon_process("verify", "bundle", file, "--offline", home=tmp_path)
    assert found.code == 30
    assert found.out == ""
    assert "Traceback" not in found.err
    assert "malformed" in found.err
