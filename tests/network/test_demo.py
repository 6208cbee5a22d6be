"""`cocoon demo --json`: the whole story in one process tree, and exactly the document that it promises."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_attestation.rules import RULES

if TYPE_CHECKING:
    from tests.network.netkit import DemoRun, processes_of
else:
    from netkit import processes_of

pytestmark = [pytest.mark.network, pytest.mark.model]

MAX_SECONDS = 60
STEPS = [
    "chain", "registry", "enclave", "node", "gateway", "registry_read", "evidence", "channel", "sealed",
    "first_token", "answer", "receipt", "anchor", "settle", "inclusion", "audit",
    "attack_flipped_measurement", "attack_swapped_seal_key", "attack_altered_answer",
]  # fmt: skip
HEX32 = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def document(demo: DemoRun) -> dict[str, Any]:
    assert demo.outcome.code == 0, demo.outcome.out + demo.outcome.err
    return demo.outcome.json


def test_succeeds_in_time_and_says_nothing_else(demo: DemoRun) -> None:
    assert demo.outcome.code == 0, demo.outcome.out + demo.outcome.err
    assert demo.seconds < MAX_SECONDS
    assert "Traceback" not in demo.outcome.err


def test_document_has_exactly_the_promised_members(document: dict[str, Any]) -> None:
    assert document.keys() == {
        "network", "steps", "model", "prompt_tokens", "completion_tokens", "tokens_per_second", "evidence",
        "receipt", "anchor", "payment", "attacks", "bundle", "ok",
    }  # fmt: skip
    assert all(step.keys() == {"id", "ok", "ms", "detail"} for step in document["steps"])
    assert document["model"].keys() == {"name", "digest"}
    assert document["evidence"].keys() == {"tee", "simulated", "checks"}
    assert all(check.keys() == {"id", "verdict"} for check in document["evidence"]["checks"])
    assert document["receipt"].keys() == {"id", "verified"}
    assert document["anchor"].keys() == {"tx_hash", "tree_size", "fee_nanoton", "inclusion_verified"}
    assert document["payment"].keys() == {
        "channel", "client_paid_nanoton", "host_received_nanoton", "settled"
    }  # fmt: skip
    assert all(attack.keys() == {"id", "refused", "check"} for attack in document["attacks"])


def test_every_step_happened_once_and_in_order(document: dict[str, Any]) -> None:
    assert document["ok"] is True
    assert [step["id"] for step in document["steps"]] == STEPS
    for step in document["steps"]:
        assert step["ok"] is True, step
        assert type(step["ms"]) is int
        assert 0 <= step["ms"] < MAX_SECONDS * 1000
        assert step["detail"]


def test_answer_and_model(document: dict[str, Any]) -> None:
    assert document["model"]["name"]
    assert HEX32.fullmatch(document["model"]["digest"])
    assert document["prompt_tokens"] > 10
    assert 1 < document["completion_tokens"] <= 64
    assert document["tokens_per_second"] > 0


def test_evidence_is_complete_and_marked_as_simulated(document: dict[str, Any]) -> None:
    evidence = document["evidence"]
    assert evidence["tee"] == "tdx"
    assert evidence["simulated"] is True
    assert document["network"]["simulated"] is True
    ids = [check["id"] for check in evidence["checks"]]
    assert len(ids) == len(set(ids)) > 25
    assert {"challenge", "binding.report_data", "tdx.sig", "tdx.tcb", "rtmr3.replay", "tls.spki"} <= {*ids}
    assert {check["verdict"] for check in evidence["checks"]} == {"pass"}
    # the connection and the client's memory of endorsements are not the appraisal's
    assert {id for id in ids if not id.startswith(("tls.", "endorsements."))} <= RULES.keys()


def test_receipt_anchor_and_payment(document: dict[str, Any]) -> None:
    assert HEX32.fullmatch(document["receipt"]["id"])
    assert document["receipt"]["verified"] is True
    anchor, payment = document["anchor"], document["payment"]
    assert HEX32.fullmatch(anchor["tx_hash"])
    assert anchor["tree_size"] >= 1
    assert 0 < anchor["fee_nanoton"] < 50_000_000
    assert anchor["inclusion_verified"] is True
    assert HEX32.fullmatch(payment["channel"])
    assert payment["settled"] is True
    # Development prices: 1000 nanoton for a prompt token, 4000 for a generated one.
    cost = 1000 * document["prompt_tokens"] + 4000 * document["completion_tokens"]
    assert payment["client_paid_nanoton"] == payment["host_received_nanoton"] == cost


def test_attacks_are_refused_by_the_right_checks(document: dict[str, Any]) -> None:
    assert document["attacks"] == [
        {"id": "flipped_measurement", "refused": True, "check": "tdx.measurement"},
        {"id": "swapped_seal_key", "refused": True, "check": "binding.seal_key"},
        {"id": "altered_answer", "refused": True, "check": "bundle.response_commitment"},
    ]


def test_nothing_is_left_running(demo: DemoRun) -> None:
    assert processes_of(demo.home) == []


def test_only_the_bundle_and_the_trust_anchors_stay(demo: DemoRun) -> None:
    files = {str(path.relative_to(demo.home)) for path in demo.home.rglob("*") if path.is_file()}
    assert files == {"demo/bundle.json", "networks/demo.json"}
