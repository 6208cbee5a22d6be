"""`cocoon explain`: every code that anything can show has words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cocoon_attestation.policy_language_toml import _COMBINATORS, _LEAVES
from cocoon_attestation.rules import RULES
from cocoon_cli.check_words import CHECK_WORDS
from cocoon_cli.explain import error_classes

if TYPE_CHECKING:
    from tests.network.netkit import InProcess

ROOT = Path(__file__).parents[2]


def test_the_list_is_complete(cocoon: InProcess) -> None:
    found = cocoon("explain", "--json")
    assert found.code == 0
    codes = found.json["codes"]
    assert len(codes) == len(set(codes))
    assert set(codes) == error_classes().keys() | RULES.keys() | CHECK_WORDS.keys()
    assert not RULES.keys() & CHECK_WORDS.keys()
    assert {"evidence_rejected", "outcome_unknown", "model_not_found", "tdx.tcb", "rtmr3.replay"} <= set(
        codes
    )
    people = cocoon("explain")
    assert people.code == 0
    assert all(code in people.out for code in codes)


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_errors(cocoon: InProcess, code: str) -> None:
    document = cocoon("explain", code, "--json").json
    assert document.keys() == {
        "code", "kind", "meaning", "hint", "exit_code", "http_status", "grpc_status"
    }  # fmt: skip
    assert document["code"] == code
    assert document["kind"] == "error"
    assert len(document["meaning"]) > 10
    assert document["exit_code"] in (1, 2, 10, 20, 30, 40, 50)
    assert 400 <= document["http_status"] < 600
    assert re.fullmatch(r"[A-Z_]+", document["grpc_status"])


@pytest.mark.parametrize("code", sorted(RULES.keys() | CHECK_WORDS.keys()))
def test_checks(cocoon: InProcess, code: str) -> None:
    document = cocoon("explain", code, "--json").json
    assert document.keys() == {"code", "kind", "meaning", "source", "spec"}
    assert document["kind"] == "check"
    assert document["meaning"]
    assert document["source"]
    page, _, anchor = document["spec"].partition("#")
    assert (ROOT / page).is_file(), page
    assert anchor
    if code in CHECK_WORDS:  # of the others, tests/attestation/test_rules.py says the same
        assert f'id="{anchor}"' in (ROOT / page).read_text(), document["spec"]


def test_client_rules_are_explained() -> None:
    page = (ROOT / "docs" / "spec" / "policy-language.md").read_text()
    anchors = set(re.findall(r'id="(client\.[a-z_]+)"', page))
    rules = {f"client.{name}" for name in _LEAVES.keys() | _COMBINATORS.keys()}
    assert anchors == rules
    # `all_of` is never a check: each rule in it is one.
    assert {id for id in CHECK_WORDS if id.startswith("client.")} == rules - {"client.all_of"}


def test_for_people(cocoon: InProcess) -> None:
    found = cocoon("explain", "tdx.tcb")
    assert found.code == 0
    assert "tdx.tcb" in found.out
    assert RULES["tdx.tcb"].rule.split()[0] in found.out


def test_every_check_that_code_records_is_explained() -> None:
    """Ids as they stand in the client, the bundle verifier and the command line."""
    found = set()
    for path in (
        *(ROOT / "proxy").rglob("*.py"),
        *(ROOT / "cli" / "cocoon_cli").glob("auditing.py"),
    ):
        found |= set(re.findall(r'"((?:receipt|tls|chain|bundle)\.[a-z_]+)"', path.read_text()))
    bundle = (ROOT / "attestation" / "cocoon_attestation" / "bundle" / "verify.py").read_text()
    names = re.findall(r'self\.(?:record|skip)\(\s*"([a-z_]+)"', bundle)
    found |= {f"bundle.{name}" for name in names}
    assert len(found) > 28
    assert found <= CHECK_WORDS.keys()
