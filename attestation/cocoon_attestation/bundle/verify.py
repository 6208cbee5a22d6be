"""Verification of a bundle against proved chain facts: every step is one named check.

The result is a `CheckList`; the bundle proves its receipt only if the list is `accepted`. A step whose
input is missing because an earlier step failed is recorded as skipped, and a skip never counts as a pass.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import KeyBinding, beacon_challenge, parse_key_binding
from cocoon_attestation.bundle.document import Bundle
from cocoon_attestation.bundle.facts import ChainFacts
from cocoon_attestation.checkpoint import Checkpoint, parse_checkpoint
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import EvidenceRejectedError, LogProofError, MalformedError
from cocoon_attestation.merkle import verify_inclusion
from cocoon_attestation.policy import Policy
from cocoon_attestation.receipt import Receipt, commit_request, commit_response, parse_receipt
from cocoon_attestation.signing import signed_by
from cocoon_attestation.types import ZERO_DIGEST
from cocoon_attestation.verified import VerifiedEnclave

MAX_CLOCK_SKEW_S: Final = 300
"""How far the enclave's clock may run ahead of the chain's, in seconds."""

_SPEC: Final = "docs/spec/bundle.md"


class AppraiseEvidence(Protocol):
    """The signature of `cocoon_attestation.appraisal.appraise`."""

    def __call__(self, evidence: bytes, *, policy: Policy, challenge: bytes, now: int) -> VerifiedEnclave:
        """Appraise evidence or raise `EvidenceRejectedError` or `MalformedError`."""
        ...


def verify_bundle(
    bundle: Bundle,
    facts: ChainFacts,
    *,
    appraise: AppraiseEvidence | None = None,
    content_required: bool = True,
) -> CheckList:
    """Check everything a bundle says, as of the receipt's own time.

    Args:
        bundle: the parsed document.
        facts: proved from `bundle.chain` and the caller's own trust anchor, never from the bundle's word.
        appraise: replaces `cocoon_attestation.appraisal.appraise`.
        content_required: if false, a bundle without request or response can be accepted; what is there is
            checked either way.

    Returns:
        All checks. The bundle proves its receipt only if `accepted` is true.
    """
    run = _Run(bundle=bundle, facts=facts, checks=CheckList())
    run.document()
    run.parse_receipt()
    run.parse_evidence()
    run.binding()
    run.appraisal(appraise or _default_appraise())
    run.receipt_signature()
    run.terms()
    run.time()
    run.checkpoint()
    run.inclusion()
    run.commitment("request", bundle.request, content_required)
    run.commitment("response", bundle.response, content_required)
    return run.checks


def _default_appraise() -> AppraiseEvidence:
    from cocoon_attestation.appraisal import appraise

    return appraise


@dataclass(slots=True, kw_only=True)
class _Run:
    """One verification: the inputs, what was parsed so far, and the checks."""

    bundle: Bundle
    facts: ChainFacts
    checks: CheckList
    receipt: Receipt | None = field(default=None)
    binding_cell: KeyBinding | None = field(default=None)
    challenge: bytes | None = field(default=None)

    def record(self, name: str, ok: bool, detail: str, **inputs: bytes | str | int) -> bool:
        shown = tuple(
            (key, value.hex() if isinstance(value, bytes) else str(value)) for key, value in inputs.items()
        )
        return self.checks.record(f"bundle.{name}", ok, detail, spec=f"{_SPEC}#bundle.{name}", inputs=shown)

    def skip(self, name: str, detail: str) -> None:
        self.checks.skip(f"bundle.{name}", detail, spec=f"{_SPEC}#bundle.{name}")

    def document(self) -> None:
        bundle, facts = self.bundle, self.facts
        undecodable = ", ".join(sorted(set(bundle.undecodable)))
        self.record(
            "encoding",
            not bundle.undecodable,
            f"not base64: {undecodable}" if undecodable else "every part decodes",
        )
        self.record(
            "network",
            bundle.global_id == facts.global_id and bundle.registry == facts.registry,
            "the bundle names the network and registry that were proved",
            bundle=f"{bundle.global_id} {bundle.registry}",
            proved=f"{facts.global_id} {facts.registry}",
        )

    def parse_receipt(self) -> None:
        try:
            self.receipt = parse_receipt(self.bundle.receipt)
        except MalformedError as error:
            self.record("receipt", False, f"the receipt does not parse: {error}")
        else:
            self.record("receipt", True, "the receipt parses", receipt_id=self.receipt.hash)

    def parse_evidence(self) -> None:
        try:
            message = evidence_pb2.Evidence.FromString(self.bundle.evidence)
            binding = parse_key_binding(message.key_binding)
            if not message.HasField("beacon"):
                raise MalformedError("it names no beacon block, so it was never published")
            challenge = beacon_challenge(message.beacon.seqno, message.beacon.root_hash)
        except (DecodeError, MalformedError) as error:
            self.record("evidence", False, f"the evidence does not parse: {error}")
        else:
            self.record("evidence", True, "the evidence parses", binding_hash=binding.hash)
            self.binding_cell, self.challenge = binding, challenge

    def binding(self) -> None:
        receipt, binding, facts = self.receipt, self.binding_cell, self.facts
        if receipt is None or binding is None:
            self.skip("binding", "not made: receipt or evidence does not parse")
            self.skip("evidence_digest", "not made: receipt or evidence does not parse")
            return
        attested = next((b for b in facts.bindings if b.binding_hash == binding.hash), None)
        same_node = receipt.node == binding.node == facts.node
        self.record(
            "binding",
            receipt.binding_hash == binding.hash
            and attested is not None
            and same_node
            and binding.global_id == facts.global_id,
            "receipt, evidence and node contract name one key binding of one node on this network",
            receipt=receipt.binding_hash,
            evidence=binding.hash,
            node=facts.node,
        )
        digest = hashlib.sha256(self.bundle.evidence).digest()
        self.record(
            "evidence_digest",
            attested is not None and hmac.compare_digest(attested.evidence_digest, digest),
            "the evidence is the one that the node contract recorded",
            evidence=digest,
        )

    def appraisal(self, appraise: AppraiseEvidence) -> None:
        receipt, binding, challenge = self.receipt, self.binding_cell, self.challenge
        if receipt is None or binding is None or challenge is None:
            self.skip("appraisal", "not made: receipt or evidence does not parse")
            self.skip("model", "not made: the evidence was not appraised")
            return
        try:
            enclave = appraise(
                self.bundle.evidence,
                policy=self.facts.policy,
                challenge=challenge,
                now=receipt.issued_at,
            )
        except (EvidenceRejectedError, MalformedError) as error:
            if isinstance(error, EvidenceRejectedError) and error.checks is not None:
                self.checks.extend(error.checks)
            self.record("appraisal", False, f"the evidence is not accepted: {error}")
            self.skip("model", "not made: the evidence was not accepted")
            return
        self.checks.extend(enclave.checks)
        self.record(
            "appraisal",
            enclave.binding == binding and self.facts.policy.release(enclave.release_id) is not None,
            "the evidence is accepted for the receipt's time and its release is allowed",
            release=enclave.release_id,
            now=receipt.issued_at,
        )
        refused = receipt.model == ZERO_DIGEST and receipt.status >= 400 and receipt.amount == 0
        allowed = receipt.model in enclave.models and receipt.model in self.facts.policy.models
        self.record(
            "model",
            allowed or refused,
            "the answering model was measured and is allowed (or no model was reached)",
            model=receipt.model,
        )

    def receipt_signature(self) -> None:
        receipt, binding = self.receipt, self.binding_cell
        if receipt is None or binding is None:
            self.skip("receipt_signature", "not made: receipt or evidence does not parse")
            return
        self.record(
            "receipt_signature",
            signed_by(receipt.cell, self.bundle.receipt_signature, binding.receipt_key),
            "the receipt is signed by the receipt key of the binding",
            receipt_key=binding.receipt_key,
            receipt_id=receipt.hash,
        )

    def terms(self) -> None:
        receipt = self.receipt
        if receipt is None:
            self.skip("terms", "not made: the receipt does not parse")
            return
        self.record(
            "terms",
            receipt.cached_tokens <= receipt.prompt_tokens and receipt.amount <= receipt.cumulative,
            "token counts and amounts of the receipt do not contradict each other",
            amount=receipt.amount,
            cumulative=receipt.cumulative,
        )

    def time(self) -> None:
        receipt, binding, facts = self.receipt, self.binding_cell, self.facts
        if receipt is None or binding is None:
            self.skip("time", "not made: receipt or evidence does not parse")
            return
        self.record(
            "time",
            binding.not_before <= receipt.issued_at <= binding.not_after
            and receipt.issued_at <= facts.anchored_at + MAX_CLOCK_SKEW_S
            and facts.anchored_at <= facts.block_time,
            "the receipt was issued while its keys were valid and before it was anchored",
            issued_at=receipt.issued_at,
            anchored_at=facts.anchored_at,
            block_time=facts.block_time,
        )

    def checkpoint(self) -> None:
        bundle, facts = self.bundle, self.facts
        ok = bundle.tree_size == facts.tree_size
        if bundle.checkpoint is not None:
            ok = ok and self._signed_checkpoint_agrees(bundle.checkpoint)
        self.record(
            "checkpoint",
            ok,
            "the proof is for the checkpoint that is anchored on chain",
            tree_size=facts.tree_size,
            root=facts.root,
        )

    def _signed_checkpoint_agrees(self, boc: bytes) -> bool:
        facts, binding = self.facts, self.binding_cell
        try:
            checkpoint = parse_checkpoint(boc)
        except MalformedError:
            return False
        anchored = Checkpoint(
            global_id=facts.global_id,
            node=facts.node,
            tree_size=facts.tree_size,
            root=facts.root,
            issued_at=checkpoint.issued_at,
        )
        signature = self.bundle.checkpoint_signature or b""
        return (
            checkpoint == anchored
            and binding is not None
            and signed_by(checkpoint.cell, signature, binding.receipt_key)
        )

    def inclusion(self) -> None:
        receipt, bundle = self.receipt, self.bundle
        if receipt is None:
            self.skip("inclusion", "not made: the receipt does not parse")
            return
        try:
            verify_inclusion(
                leaf=receipt.hash,
                index=bundle.leaf_index,
                size=bundle.tree_size,
                proof=bundle.hashes,
                root=self.facts.root,
            )
        except LogProofError as error:
            detail, ok = str(error), False
        else:
            detail, ok = "the receipt is in the anchored log at its own index", True
            if receipt.index != bundle.leaf_index:
                detail, ok = "the receipt names another index than its place in the log", False
        self.record("inclusion", ok, detail, index=bundle.leaf_index, size=bundle.tree_size)

    def commitment(self, what: str, body: bytes | None, required: bool) -> None:
        name, receipt, salt = f"{what}_commitment", self.receipt, self.bundle.salt
        if body is None:
            if required:
                self.skip(name, f"not made: the bundle does not contain the {what}")
            return
        if receipt is None:
            self.skip(name, "not made: the receipt does not parse")
            return
        ok = False
        if salt is not None and len(salt) == 32:
            committed = receipt.request_commitment if what == "request" else receipt.response_commitment
            commit = commit_request if what == "request" else commit_response
            ok = hmac.compare_digest(commit(salt, body), committed)
        self.record(name, ok, f"the receipt commits to exactly this {what}", length=len(body))
