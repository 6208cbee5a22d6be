"""Bundles with simulated evidence and the real appraisal, from the file to the verdict."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import KeyBinding, beacon_challenge
from cocoon_attestation.bundle import AttestedBinding, Bundle, ChainFacts, parse_bundle, verify_bundle
from cocoon_attestation.checks import CheckList
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.receipt import Receipt, commit_request, commit_response, sign_receipt

KEY = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
SALT = b"\x51" * 32
BLOCK = b"\x77" * 32
REGISTRY = "-1:" + "ab" * 32
Lab = Any  # the class lives in conftest.py, which cannot be imported


@dataclass(frozen=True)
class Proof:
    """A bundle and the facts that it fits."""

    bundle: Bundle
    facts: ChainFacts

    def __repr__(self) -> str:
        return "Proof()"

    def verify(self) -> CheckList:
        return verify_bundle(parse_bundle(self.bundle.to_json()), self.facts)


def beacon(message: evidence_pb2.Evidence) -> None:
    message.beacon.CopyFrom(evidence_pb2.Beacon(seqno=7, root_hash=BLOCK))


def evidence_for(lab: Lab, binding: KeyBinding, **faults: Any) -> bytes:
    made: bytes = lab.evidence(binding=binding, challenge=beacon_challenge(7, BLOCK), edit=beacon, **faults)
    return made


def make_proof(lab: Lab, binding: KeyBinding | None = None, **faults: Any) -> Proof:
    """Everything honest but the evidence, whose digest the host recorded as it is."""
    binding = binding or lab.binding(receipt_key=KEY.public_key().public_bytes_raw())
    evidence = evidence_for(lab, binding, **faults)
    receipt = Receipt(
        node=binding.node,
        binding_hash=binding.hash,
        request_commitment=commit_request(SALT, b"question"),
        response_commitment=commit_response(SALT, b"answer"),
        model=lab.model,
        prompt_tokens=9,
        cached_tokens=4,
        completion_tokens=2,
        status=200,
        channel=b"\x06" * 32,
        amount=10,
        cumulative=100,
        index=0,
        issued_at=lab.now + 5,
        anchor_by=lab.now + 3600,
    )
    tree = MerkleTree([receipt.hash, bytes(32)])
    signed = sign_receipt(receipt, KEY)
    bundle = Bundle(
        network="test",
        global_id=lab.global_id,
        registry=REGISTRY,
        receipt=signed.receipt,
        receipt_signature=signed.signature,
        leaf_index=0,
        tree_size=2,
        hashes=tree.inclusion_proof(0),
        evidence=evidence,
        chain={},
        salt=SALT,
        request=b"question",
        response=b"answer",
    )
    digest = hashlib.sha256(evidence).digest()
    facts = ChainFacts(
        global_id=lab.global_id,
        registry=REGISTRY,
        node=binding.node,
        policy=lab.policy(),
        bindings=(AttestedBinding(binding_hash=binding.hash, evidence_digest=digest),),
        tree_size=2,
        root=tree.root(),
        anchored_at=lab.now + 60,
        block_time=lab.now + 90,
    )
    return Proof(bundle, facts)


@pytest.fixture(scope="module")
def proof(lab: Lab) -> Proof:
    return make_proof(lab)


def failed(checks: CheckList) -> set[str]:
    assert not checks.accepted
    return {check.id for check in checks.failed}


def test_an_honest_bundle_is_accepted_with_all_checks_of_the_appraisal(proof: Proof) -> None:
    checks = proof.verify()
    assert checks.accepted, failed(checks)
    families = {check.id.partition(".")[0] for check in checks}
    assert {"bundle", "tdx", "rtmr3", "binding", "challenge"} <= families


def test_the_appraisal_is_made_for_the_time_of_the_receipt(lab: Lab, proof: Proof) -> None:
    """Years later the same file still proves the same answer: no clock is read."""
    much_later = replace(proof.facts, block_time=lab.now + 10 * 365 * 86_400)
    assert verify_bundle(proof.bundle, much_later).accepted


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_changed_byte_of_the_evidence_is_rejected(proof: Proof, data: st.DataObject) -> None:
    evidence = bytearray(proof.bundle.evidence)
    evidence[data.draw(st.integers(0, len(evidence) - 1))] ^= data.draw(st.integers(1, 255))
    changed = replace(proof.bundle, evidence=bytes(evidence))
    names = failed(verify_bundle(changed, proof.facts))
    assert names & {"bundle.evidence", "bundle.evidence_digest", "bundle.binding"}


def test_a_host_that_records_a_debug_guest_is_rejected(lab: Lab) -> None:
    """The digest on chain is the host's word; the appraisal is what counts."""
    checks = make_proof(lab, report={"td_attributes": b"\x01" + bytes(7)}).verify()
    names = failed(checks)
    assert "bundle.appraisal" in names
    assert any(name.startswith("tdx.") for name in names)
    assert "bundle.evidence_digest" not in names


def test_a_host_that_records_another_model_is_rejected(lab: Lab) -> None:
    names = failed(make_proof(lab, events=lab.events(model=b"\x99" * 32)).verify())
    assert "bundle.appraisal" in names


def test_evidence_for_another_network_is_rejected(lab: Lab) -> None:
    binding = lab.binding(receipt_key=KEY.public_key().public_bytes_raw(), global_id=-239)
    names = failed(make_proof(lab, binding).verify())
    assert {"bundle.binding", "bundle.appraisal"} <= names


def test_evidence_for_a_private_challenge_is_rejected(lab: Lab, proof: Proof) -> None:
    """Evidence that answered a client's nonce cannot be dressed up as published evidence."""
    binding = lab.binding(receipt_key=KEY.public_key().public_bytes_raw())
    private = lab.evidence(binding=binding, edit=beacon)
    digest = hashlib.sha256(private).digest()
    facts = replace(
        proof.facts, bindings=(AttestedBinding(binding_hash=binding.hash, evidence_digest=digest),)
    )
    names = failed(verify_bundle(replace(proof.bundle, evidence=private), facts))
    assert {"bundle.appraisal", "challenge"} <= names


def test_expired_keys_are_rejected(lab: Lab) -> None:
    binding = lab.binding(
        receipt_key=KEY.public_key().public_bytes_raw(), not_before=lab.now - 7200, not_after=lab.now
    )
    names = failed(make_proof(lab, binding).verify())
    assert {"bundle.time", "bundle.appraisal"} <= names
