"""Offline bundles: the document, every check, and what damage to any part leads to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import beacon_challenge
from cocoon_attestation.bundle import (
    MAX_BUNDLE,
    MEDIA_TYPE,
    AttestedBinding,
    Bundle,
    ChainFacts,
    parse_bundle,
    verify_bundle,
)
from cocoon_attestation.checkpoint import Checkpoint, sign_checkpoint
from cocoon_attestation.checks import CheckList, Verdict
from cocoon_attestation.errors import EvidenceRejectedError, MalformedError
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.policy import Policy
from cocoon_attestation.receipt import Receipt, commit_request, commit_response, sign_receipt
from cocoon_attestation.sealing import SealKeyPair
from cocoon_attestation.verified import VerifiedEnclave

NOW = 1_800_000_000
MODEL = b"\x07" * 32
REGISTRY = "-1:" + "ab" * 32
SALT = b"\x51" * 32
REQUEST = b'{"messages":[]}'
RESPONSE = b'{"choices":[]}'
SEAL_KEY = SealKeyPair(b"\x01" * 32)
KEY = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"\x12" * 32)
IssueEnclave = Callable[..., VerifiedEnclave]


@dataclass(frozen=True)
class World:
    """An honest node's log, its chain facts, and a bundle of receipt 3 of 6."""

    bundle: Bundle
    facts: ChainFacts
    receipt: Receipt
    enclave: VerifiedEnclave
    evidence: bytes

    def __repr__(self) -> str:
        return "World()"

    def appraise(self, evidence: bytes, *, policy: Policy, challenge: bytes, now: int) -> VerifiedEnclave:
        """Accept the node's evidence, at any time, for the right challenge."""
        if challenge != beacon_challenge(7, b"\x77" * 32):
            raise EvidenceRejectedError("another challenge", checks=CheckList())
        return self.enclave

    def verify(
        self, bundle: Bundle | None = None, facts: ChainFacts | None = None, **options: Any
    ) -> CheckList:
        options.setdefault("appraise", self.appraise)
        return verify_bundle(bundle or self.bundle, facts or self.facts, **options)

    def failed(self, bundle: Bundle | None = None, facts: ChainFacts | None = None) -> set[str]:
        """Ids of the failed checks; the bundle must not be accepted."""
        checks = self.verify(bundle, facts)
        assert not checks.accepted
        return {check.id.removeprefix("bundle.") for check in checks.failed}

    def reissued(self, changes: dict[str, object]) -> Bundle:
        """A bundle whose receipt says something else, signed, but logged as before."""
        receipt = replace(self.receipt, **changes)  # type: ignore[arg-type]
        signed = sign_receipt(receipt, KEY)
        return replace(self.bundle, receipt=signed.receipt, receipt_signature=signed.signature)


def make_world(issue: IssueEnclave, **changes: object) -> World:
    enclave = issue(SEAL_KEY, receipt_key=KEY.public_key().public_bytes_raw(), now=NOW, models=(MODEL,))
    base: dict[str, Any] = {
        "node": enclave.binding.node,
        "binding_hash": enclave.binding_hash,
        "request_commitment": commit_request(SALT, REQUEST),
        "response_commitment": commit_response(SALT, RESPONSE),
        "model": MODEL,
        "prompt_tokens": 9,
        "cached_tokens": 4,
        "completion_tokens": 2,
        "status": 200,
        "channel": b"\x06" * 32,
        "amount": 10,
        "cumulative": 100,
        "index": 3,
        "issued_at": NOW + 5,
        "anchor_by": NOW + 3600,
    }
    receipts = [Receipt(**base | {"index": index}) for index in range(6)]
    receipts[3] = Receipt(**base | changes)
    tree = MerkleTree(receipt.hash for receipt in receipts)
    checkpoint = Checkpoint(
        global_id=-3, node=enclave.binding.node, tree_size=6, root=tree.root(), issued_at=NOW + 50
    )
    signed_checkpoint = sign_checkpoint(checkpoint, KEY)
    evidence = evidence_pb2.Evidence(
        key_binding=enclave.binding.to_boc(),
        seal_public_key=enclave.seal_public_key,
        challenge=beacon_challenge(7, b"\x77" * 32),
        beacon=evidence_pb2.Beacon(seqno=7, root_hash=b"\x77" * 32),
        tdx=evidence_pb2.TdxEvidence(quote=b"quote"),
    ).SerializeToString()
    signed = sign_receipt(receipts[3], KEY)
    bundle = Bundle(
        network="testnet",
        global_id=-3,
        registry=REGISTRY,
        receipt=signed.receipt,
        receipt_signature=signed.signature,
        leaf_index=3,
        tree_size=6,
        hashes=tree.inclusion_proof(3),
        evidence=evidence,
        chain={"blocks": ["opaque"], "depth": 3},
        salt=SALT,
        request=REQUEST,
        response=RESPONSE,
        checkpoint=signed_checkpoint.checkpoint,
        checkpoint_signature=signed_checkpoint.signature,
    )
    policy = Policy(
        global_id=-3, releases=(enclave.release,), models=frozenset({MODEL}), min_tcb_evaluation=1
    )
    facts = ChainFacts(
        global_id=-3,
        registry=REGISTRY,
        node=enclave.binding.node,
        policy=policy,
        bindings=(
            AttestedBinding(binding_hash=b"\x0c" * 32, evidence_digest=b"\x0d" * 32),
            AttestedBinding(
                binding_hash=enclave.binding_hash, evidence_digest=hashlib.sha256(evidence).digest()
            ),
        ),
        tree_size=6,
        root=tree.root(),
        anchored_at=NOW + 60,
        block_time=NOW + 90,
    )
    return World(bundle, facts, receipts[3], enclave, evidence)


@pytest.fixture(scope="module")
def world(issue_enclave: IssueEnclave) -> World:
    return make_world(issue_enclave)


# The document.


def test_document_round_trip(world: World) -> None:
    text = world.bundle.to_json()
    assert parse_bundle(text) == world.bundle
    assert parse_bundle(text).to_json() == text
    assert json.loads(text)["media_type"] == MEDIA_TYPE


def test_optional_parts(world: World) -> None:
    small = replace(world.bundle.without_content(), checkpoint=None, checkpoint_signature=None)
    document = json.loads(small.to_json())
    assert not {"request", "response", "salt", "checkpoint"} & document.keys()
    assert parse_bundle(small.to_json()) == small


def document(world: World) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(world.bundle.to_json())
    return parsed


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"media_type": NaN}',
        b'{"media_type": 1.5}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"media_type": ' + b"9" * 5000 + b"}",
        b"{} {}",
        b'{"a": 1, "a": 1}',
        b" " * (MAX_BUNDLE + 1),
    ],
)
def test_what_is_no_json_document_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_bundle(text)


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_bundle(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(value=json_values, data=st.data())
def test_values_of_any_json_type_are_malformed_or_not_accepted(
    world: World, value: Any, data: st.DataObject
) -> None:
    changed = document(world)
    key = data.draw(st.sampled_from(sorted(changed)))
    target = changed
    if isinstance(changed[key], dict) and key != "chain" and data.draw(st.booleans()):
        target = changed[key]
        key = data.draw(st.sampled_from(sorted(target)))
    before, target[key] = target[key], value
    try:
        bundle = parse_bundle(json.dumps(changed).encode())
    except MalformedError:
        return
    informative = key in ("chain", "name") or before == value
    assert informative or not world.verify(bundle).accepted


@pytest.mark.parametrize(
    "key",
    ["media_type", "network", "receipt", "receipt_signature", "inclusion", "evidence", "chain", "salt"],
)
def test_missing_keys_are_malformed(world: World, key: str) -> None:
    changed = document(world)
    del changed[key]
    with pytest.raises(MalformedError):
        parse_bundle(json.dumps(changed).encode())


@pytest.mark.parametrize("place", ["", "network", "inclusion", "checkpoint"])
def test_unknown_and_duplicate_keys_are_malformed(world: World, place: str) -> None:
    changed = document(world)
    target = changed[place] if place else changed
    target["extra"] = "x"
    with pytest.raises(MalformedError):
        parse_bundle(json.dumps(changed).encode())
    text = world.bundle.to_json().decode()
    key = sorted(document(world)[place] if place else document(world))[0]
    doubled = text.replace(f'"{key}":', f'"{key}": "x", "{key}":', 1)
    assert doubled != text
    with pytest.raises(MalformedError):
        parse_bundle(doubled.encode())


@pytest.mark.parametrize(
    "media_type", ["", "application/json", MEDIA_TYPE + " ", MEDIA_TYPE.upper(), None, 1]
)
def test_another_media_type_is_malformed(world: World, media_type: object) -> None:
    changed = document(world) | {"media_type": media_type}
    with pytest.raises(MalformedError):
        parse_bundle(json.dumps(changed).encode())


def test_content_does_not_show_in_repr(world: World) -> None:
    assert "messages" not in repr(world.bundle)
    assert "choices" not in repr(world.bundle)


# The checks.


def test_an_honest_bundle_is_accepted(world: World) -> None:
    checks = world.verify(parse_bundle(world.bundle.to_json()))
    assert checks.accepted, [check.id for check in checks.failed]
    ids = [check.id for check in checks]
    assert len(ids) == len(set(ids))
    expected = {
        "encoding",
        "network",
        "receipt",
        "evidence",
        "binding",
        "evidence_digest",
        "appraisal",
        "model",
        "receipt_signature",
        "terms",
        "time",
        "checkpoint",
        "inclusion",
        "request_commitment",
        "response_commitment",
    }
    assert {f"bundle.{name}" for name in expected} <= set(ids)
    assert all(check.spec.startswith("docs/spec/") for check in checks)


def test_missing_content_counts_only_if_the_caller_says_so(world: World) -> None:
    bare = world.bundle.without_content()
    strict = world.verify(bare)
    assert not strict.accepted
    assert {check.id for check in strict.skipped} == {
        "bundle.request_commitment",
        "bundle.response_commitment",
    }
    assert not strict.failed
    assert world.verify(bare, content_required=False).accepted
    wrong = replace(world.bundle, response=b"another answer")
    assert not world.verify(wrong, content_required=False).accepted


def test_checkpoint_cell_is_optional(world: World) -> None:
    without = replace(world.bundle, checkpoint=None, checkpoint_signature=None)
    assert world.verify(without).accepted


PARTS = [
    "receipt",
    "receipt_signature",
    "salt",
    "request",
    "response",
    "evidence",
    "checkpoint",
    "checkpoint_signature",
]


def with_part(world: World, part: str, value: bytes) -> Bundle:
    """The bundle with another part, through its file."""
    changed = dataclasses.replace(world.bundle, **{part: value})  # type: ignore[arg-type]
    return parse_bundle(changed.to_json())


@settings(max_examples=300)
@given(part=st.sampled_from(PARTS), data=st.data())
def test_every_changed_byte_is_rejected(world: World, part: str, data: st.DataObject) -> None:
    changed = bytearray(getattr(world.bundle, part))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    assert world.failed(with_part(world, part, bytes(changed)))


@pytest.mark.parametrize("part", PARTS)
def test_every_cut_or_extended_part_is_rejected(world: World, part: str) -> None:
    value = getattr(world.bundle, part)
    for changed in (b"", value[:-1], value[1:], value + b"\x00", value + value):
        assert world.failed(with_part(world, part, changed))


@settings(max_examples=100)
@given(data=st.data())
def test_every_changed_byte_of_the_proof_is_rejected(world: World, data: st.DataObject) -> None:
    hashes = list(world.bundle.hashes)
    at = data.draw(st.integers(0, len(hashes) - 1))
    item = bytearray(hashes[at])
    item[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    hashes[at] = bytes(item)
    assert "inclusion" in world.failed(replace(world.bundle, hashes=tuple(hashes)))


def test_other_faults_of_the_proof_are_rejected(world: World) -> None:
    bundle = world.bundle
    assert "inclusion" in world.failed(replace(bundle, leaf_index=2))
    assert "inclusion" in world.failed(replace(bundle, hashes=bundle.hashes[:-1]))
    assert "inclusion" in world.failed(replace(bundle, hashes=(*bundle.hashes, bytes(32))))
    assert "inclusion" in world.failed(replace(bundle, hashes=()))
    assert "inclusion" in world.failed(replace(bundle, tree_size=4))
    assert world.failed(replace(bundle, tree_size=5)) == {"checkpoint"}  # this path is the same in both


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_character_of_the_file_is_malformed_or_rejected(
    world: World, data: st.DataObject
) -> None:
    """Unless it changes nothing (a blank) or only what is not this module's to check (name, chain)."""
    text = bytearray(world.bundle.to_json())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0x20, 0x7E))
    try:
        bundle = parse_bundle(bytes(text))
    except MalformedError:
        return
    same = replace(bundle, network=world.bundle.network, chain=world.bundle.chain) == world.bundle
    assert same or not world.verify(bundle).accepted


@pytest.mark.parametrize("spelling", ["not base64!", "YQ", "YQ=", "YR==", "YQ==\n", "Y Q==", "é", "\ud800"])
@pytest.mark.parametrize("part", ["receipt", "response", "evidence", "inclusion", "checkpoint"])
def test_parts_that_do_not_decode_are_rejected_not_malformed(
    world: World, part: str, spelling: str
) -> None:
    changed = document(world)
    if part == "inclusion":
        changed["inclusion"]["hashes"][0] = spelling
    elif part == "checkpoint":
        changed["checkpoint"]["signature"] = spelling
    else:
        changed[part] = spelling
    bundle = parse_bundle(json.dumps(changed).encode())
    assert bundle.undecodable
    assert "encoding" in world.failed(bundle)


def test_an_undecodable_empty_body_is_rejected(issue_enclave: IssueEnclave) -> None:
    """The value of an undecodable part is empty; that must not pass for a genuinely empty answer."""
    world = make_world(issue_enclave, response_commitment=commit_response(SALT, b""))
    assert world.verify(replace(world.bundle, response=b"")).accepted
    changed = document(world) | {"response": "%"}
    assert world.failed(parse_bundle(json.dumps(changed).encode())) == {"encoding"}


def test_receipt_by_another_key(world: World) -> None:
    forged = sign_receipt(world.receipt, OTHER_KEY)
    assert world.failed(replace(world.bundle, receipt_signature=forged.signature)) == {"receipt_signature"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"node": b"\x99" * 32}, {"binding", "inclusion"}),
        ({"binding_hash": b"\x99" * 32}, {"binding", "inclusion"}),
        ({"model": b"\x99" * 32}, {"model", "inclusion"}),
        ({"index": 4}, {"inclusion"}),
        ({"cached_tokens": 10}, {"terms", "inclusion"}),
        ({"amount": 101}, {"terms", "inclusion"}),
        ({"issued_at": NOW + 7200}, {"time", "inclusion"}),
        ({"issued_at": NOW - 7200}, {"time", "inclusion"}),
        ({"response_commitment": bytes(32)}, {"response_commitment", "inclusion"}),
        ({"request_commitment": bytes(32)}, {"request_commitment", "inclusion"}),
    ],
)
def test_a_signed_receipt_that_says_something_else(
    world: World, changes: dict[str, object], expected: set[str]
) -> None:
    assert world.failed(world.reissued(changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": b"\x99" * 32}, {"model"}),
        ({"model": bytes(32)}, {"model"}),
        ({"model": bytes(32), "status": 503}, {"model"}),
        ({"model": bytes(32), "status": 200, "amount": 0}, {"model"}),
        ({"index": 4}, {"inclusion"}),
        ({"cached_tokens": 10}, {"terms"}),
        ({"issued_at": NOW + 361}, {"time"}),
        ({"issued_at": NOW - 3601}, {"time"}),
    ],
)
def test_a_logged_receipt_that_says_something_wrong(
    issue_enclave: IssueEnclave, changes: dict[str, object], expected: set[str]
) -> None:
    world = make_world(issue_enclave, **changes)
    assert world.failed() == expected


def test_a_refusal_needs_no_model(issue_enclave: IssueEnclave) -> None:
    assert make_world(issue_enclave, model=bytes(32), status=503, amount=0).verify().accepted


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"global_id": -239}, {"network", "binding", "checkpoint"}),
        ({"registry": "-1:" + "cd" * 32}, {"network"}),
        ({"node": b"\x99" * 32}, {"binding", "checkpoint"}),
        ({"bindings": ()}, {"binding", "evidence_digest"}),
        ({"tree_size": 7}, {"checkpoint"}),
        ({"root": b"\x99" * 32}, {"checkpoint", "inclusion"}),
        ({"anchored_at": NOW + 91}, {"time"}),
        ({"anchored_at": NOW - 296}, {"time"}),
    ],
)
def test_facts_of_the_chain_that_disagree(
    world: World, changes: dict[str, object], expected: set[str]
) -> None:
    facts = dataclasses.replace(world.facts, **changes)  # type: ignore[arg-type]
    assert world.failed(facts=facts) == expected


def test_a_model_that_the_registry_does_not_allow(world: World) -> None:
    policy = replace(world.facts.policy, models=frozenset({b"\x99" * 32}))
    assert world.failed(facts=replace(world.facts, policy=policy)) == {"model"}


def test_a_release_that_the_registry_does_not_allow(world: World) -> None:
    release = replace(world.facts.policy.releases[0], name="another")
    policy = replace(world.facts.policy, releases=(release,))
    assert world.failed(facts=replace(world.facts, policy=policy)) == {"appraisal"}


def test_rejected_evidence_shows_its_own_checks(world: World) -> None:
    def refuse(evidence: bytes, *, policy: Policy, challenge: bytes, now: int) -> VerifiedEnclave:
        checks = CheckList()
        checks.record("tdx.sig", False, "the quote is forged")
        assert now == world.receipt.issued_at
        raise EvidenceRejectedError("evidence rejected: tdx.sig", checks=checks)

    checks = world.verify(appraise=refuse)
    assert not checks.accepted
    assert {check.id for check in checks.failed} == {"tdx.sig", "bundle.appraisal"}
    assert {check.id for check in checks.skipped} == {"bundle.model"}


def test_evidence_that_does_not_parse_inside_is_rejected(world: World) -> None:
    def refuse(evidence: bytes, *, policy: Policy, challenge: bytes, now: int) -> VerifiedEnclave:
        raise MalformedError("quote: too short")

    checks = world.verify(appraise=refuse)
    assert {check.id for check in checks.failed} == {"bundle.appraisal"}


def test_the_real_appraisal_is_the_default(world: World) -> None:
    """The evidence of this test holds no quote, so appraisal must refuse it."""
    checks = verify_bundle(world.bundle, world.facts)
    assert {check.id for check in checks.failed} >= {"bundle.appraisal"}


def test_evidence_of_another_enclave(world: World, issue_enclave: IssueEnclave) -> None:
    other = issue_enclave(SEAL_KEY, receipt_key=OTHER_KEY.public_key().public_bytes_raw(), now=NOW)
    message = evidence_pb2.Evidence.FromString(world.evidence)
    message.key_binding = other.binding.to_boc()
    changed = replace(world.bundle, evidence=message.SerializeToString())
    assert world.failed(changed) == {
        "binding",
        "evidence_digest",
        "appraisal",
        "receipt_signature",
        "checkpoint",
    }


def test_evidence_without_beacon_was_never_published(world: World) -> None:
    message = evidence_pb2.Evidence.FromString(world.evidence)
    message.ClearField("beacon")
    checks = world.verify(replace(world.bundle, evidence=message.SerializeToString()))
    assert {check.id for check in checks.failed} == {"bundle.evidence", "bundle.checkpoint"}
    assert not checks.accepted


def test_the_challenge_comes_from_the_beacon(world: World) -> None:
    message = evidence_pb2.Evidence.FromString(world.evidence)
    message.beacon.seqno = 8
    failed = world.failed(replace(world.bundle, evidence=message.SerializeToString()))
    assert failed == {"evidence_digest", "appraisal"}


@pytest.mark.parametrize(
    "changes", [{"global_id": -239}, {"node": b"\x99" * 32}, {"tree_size": 7}, {"root": b"\x99" * 32}]
)
def test_signed_checkpoint_must_agree_with_the_chain(world: World, changes: dict[str, object]) -> None:
    good = Checkpoint(
        global_id=-3, node=world.facts.node, tree_size=6, root=world.facts.root, issued_at=NOW
    )
    assert world.verify(with_checkpoint(world, good)).accepted
    wrong = dataclasses.replace(good, **changes)  # type: ignore[arg-type]
    assert world.failed(with_checkpoint(world, wrong)) == {"checkpoint"}


def with_checkpoint(world: World, checkpoint: Checkpoint) -> Bundle:
    signed = sign_checkpoint(checkpoint, KEY)
    return replace(world.bundle, checkpoint=signed.checkpoint, checkpoint_signature=signed.signature)


def test_skips_are_visible_and_do_not_pass(world: World) -> None:
    checks = world.verify(replace(world.bundle, receipt=b"", evidence=b""))
    assert not checks.accepted
    skipped = {check.id for check in checks if check.verdict is Verdict.SKIP}
    assert "bundle.appraisal" in skipped
    assert "bundle.receipt_signature" in skipped


def test_facts_check_their_lengths(world: World) -> None:
    with pytest.raises(MalformedError):
        replace(world.facts, root=b"")
    with pytest.raises(MalformedError):
        replace(world.facts, bindings=(AttestedBinding(binding_hash=b"", evidence_digest=bytes(32)),))


def test_every_check_is_in_the_specification(world: World) -> None:
    text = (Path(__file__).parents[2] / "docs" / "spec" / "bundle.md").read_text()
    for check in world.verify():
        if check.id.startswith("bundle."):
            assert f'<a id="{check.id}"></a>' in text
            assert check.spec == f"docs/spec/bundle.md#{check.id}"
