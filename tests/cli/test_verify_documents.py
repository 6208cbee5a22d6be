"""`cocoon verify policy` and `verify release`: documents that say what evidence must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.status import Status

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.policy_language_toml import rules_from_toml
from cocoon_attestation.policy_toml import policy_from_toml
from cocoon_attestation.release_document import Artifact, ReleaseDocument, sign_release_document
from cocoon_cli.__main__ import cli
from cocoon_cli.output import working

NOW = 1_800_000_000
MODEL = "05" * 32
POLICY = f"""
version = 1
global_id = -3
min_tcb_evaluation = 18
models = ["{MODEL}"]
tee_kinds = ["sev-snp"]
releases = [
  {{ name = "one", tee = "sev-snp", measurement = "{"01" * 48}", models = ["{MODEL}"] }},
]
"""
RULES = 'version = 1\nrules = [{ tee_is = ["tdx"] }]\n'
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32) for number in (1, 2, 3)]
PUBLIC = [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex() for key in KEYS]


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)])


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(name: str, data: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return make


def test_digest_of_a_policy(write: Any) -> None:
    found = verify("policy", write("policy.toml", POLICY), "--json")
    document = json.loads(found.stdout)
    made = policy_from_toml(POLICY)
    assert (document["kind"], document["digest"]) == ("policy", made.digest.hex())
    assert document["policy"]["releases"] == [{"id": made.releases[0].release_id.hex(), "name": "one"}]
    assert document["warnings"] == []
    assert made.digest.hex() in verify("policy", write("policy.toml", POLICY)).stdout
    assert policy_from_toml(POLICY.replace("version = 1\n", "")).digest == made.digest


def test_what_a_policy_allows_is_said(write: Any) -> None:
    text = POLICY.replace("version = 1", 'statuses = ["UpToDate", "ConfigurationNeeded"]\ngrace_s = 864000')
    text = text.replace("releases = [", "not_after = 1\nreleases = [")
    notes = json.loads(
        verify("policy", write("policy.toml", text + '[snp]\nproducts = ["milan"]\n'), "--json").stdout
    )["warnings"]
    assert [
        word in " ".join(notes) for word in ("ConfigurationNeeded", "10 days", "Milan", "past its own end")
    ] == [True] * 4


def test_digest_of_client_rules(write: Any) -> None:
    document = json.loads(verify("policy", write("rules.toml", RULES), "--json").stdout)
    assert (document["kind"], document["digest"]) == ("client-rules", rules_from_toml(RULES).digest.hex())
    unsafe = verify("policy", write("rules.toml", 'version = 1\nrules = [{ unsafe_no_op = "a try" }]\n'))
    assert "UNSAFE" in unsafe.stdout
    assert "a try" in unsafe.stdout


@pytest.mark.parametrize(
    "text",
    [
        "= ?",
        POLICY.replace("version = 1", "version = 2"),
        POLICY.replace("version = 1", 'version = "1"'),
        POLICY.replace("version = 1", "surprise = 1"),
        POLICY.replace(f'models = ["{MODEL}"]\ntee', "models = []\ntee"),
        RULES.replace("tee_is", "tee_was"),
        RULES.replace("version = 1", "version = 2"),
    ],
)
def test_wrong_documents(write: Any, text: str) -> None:
    assert isinstance(verify("policy", write("policy.toml", text)).exception, ConfigError)


def test_progress_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with working("a while"):
        pass
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(working("a while"), Status)


# --- releases ------------------------------------------------------------------------------------------


@pytest.fixture
def signed(write: Any) -> tuple[Path, Path]:
    """An envelope that two reviewers signed, and a policy that names the release."""
    release = policy_from_toml(POLICY).releases[0]
    document = ReleaseDocument(
        release=release,
        issued_at=NOW - 60,
        expires_at=NOW + 60,
        artifacts=(Artifact(name="k", sha256=bytes(32)),),
    )
    return write("release.json", sign_release_document(document, KEYS[:2])), write("policy.toml", POLICY)


def check(signed: tuple[Path, Path], *more: object, keys: int = 3, threshold: int = 2) -> Result:
    reviewers = [part for key in PUBLIC[:keys] for part in ("--reviewer", key)]
    limit = ("--threshold", threshold, "--json")
    at = () if "--at" in more else ("--at", NOW)
    return verify("release", signed[0], *reviewers, *limit, "--policy", signed[1], *at, *more)


def failed(found: Result) -> list[str]:
    assert found.exit_code == 10
    return [one["id"] for one in json.loads(found.stdout)["checks"] if one["verdict"] == "fail"]


def test_release_that_enough_reviewers_signed(signed: tuple[Path, Path]) -> None:
    found = check(signed)
    assert found.exit_code == 0
    claims = json.loads(found.stdout)["claims"]
    assert claims["signers"] == sorted(PUBLIC[:2])
    assert claims["release"]["name"] == "one"
    assert claims["artifacts"] == {"k": "00" * 32}


def test_refused_releases(signed: tuple[Path, Path], write: Any) -> None:
    assert failed(check(signed, threshold=3)) == ["release.signatures"]
    assert failed(check(signed, "--at", NOW + 60)) == ["release.validity"]
    other = write("other.toml", POLICY.replace("01" * 48, "02" * 48))
    assert failed(check((signed[0], other))) == ["release.registry"]


def test_wrong_input(signed: tuple[Path, Path], write: Any) -> None:
    assert isinstance(check((write("bad.json", "{}"), signed[1])).exception, MalformedError)
    assert isinstance(check(signed, keys=1, threshold=2).exception, ConfigError)
    assert check(signed, "--network", "dev").exit_code == 2
    assert (
        verify("release", signed[0], "--reviewer", "00", "--threshold", 1, "--policy", signed[1]).exit_code
        == 2
    )
