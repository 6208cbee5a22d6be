"""Three attacks, mounted live against the running network. Each must be refused, and by the right check."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, replace

from cocoon.v1 import attestation_service_pb2, attestation_service_pb2_grpc, evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.bundle import parse_bundle
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.sealing import generate_seal_keypair
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_cli.auditing import audit_bundle
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton.network import NetworkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one attack."""

    id: str
    story: str
    refused: bool
    check: str
    """Id of the check that caught it."""
    detail: str

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form."""
        return {"id": self.id, "refused": self.refused, "check": self.check}


async def live_evidence(network: NetworkConfig) -> tuple[Policy, bytes, bytes]:
    """Policy from the registry, and the running enclave's evidence for a fresh nonce of ours, with the nonce."""
    from cocoon_proxy.transport import fetch_certificate, parse_endpoint, pinned_channel
    from cocoon_ton.chain import LiteChain
    from cocoon_ton.registry import parse_registry, policy_from_registry

    async with LiteChain(network) as chain:
        account = await chain.account(network.registry_address)
    if account.data is None:
        raise ConfigError("the registry is not deployed")
    state = parse_registry(account.data)
    endpoint = parse_endpoint(next(iter(state.nodes.values())).terms.endpoint)
    nonce = secrets.token_bytes(32)
    async with pinned_channel(endpoint, await fetch_certificate(endpoint, timeout_s=10)) as channel:
        stub: attestation_service_pb2_grpc.AttestationServiceAsyncStub = (
            attestation_service_pb2_grpc.AttestationServiceStub(channel)
        )
        request = attestation_service_pb2.GetEvidenceRequest(challenge=nonce)
        answer = await stub.GetEvidence(request, timeout=30)
    return policy_from_registry(state, network.dev_root), answer.evidence, nonce


def flipped_measurement(platform: DevPlatform, policy: Policy, evidence: bytes, nonce: bytes) -> Outcome:
    """The host boots a changed image: a genuinely signed quote, one bit of MRTD differs."""
    message = evidence_pb2.Evidence.FromString(evidence)
    report = parse_quote(message.tdx.quote).report
    changed = replace(report, mrtd=bytes([report.mrtd[0] ^ 1]) + report.mrtd[1:])
    message.tdx.quote = platform.quote(changed)
    return _appraised(
        "flipped_measurement",
        "the host boots a changed image (genuine signature, one bit of MRTD flipped)",
        "tdx.measurement",
        policy,
        message.SerializeToString(),
        nonce,
    )


def swapped_seal_key(policy: Policy, evidence: bytes, nonce: bytes) -> Outcome:
    """A relay puts its own key in place of the enclave's, to read the prompt."""
    message = evidence_pb2.Evidence.FromString(evidence)
    message.seal_public_key = generate_seal_keypair().public_key
    return _appraised(
        "swapped_seal_key",
        "a relay offers its own key in place of the enclave's",
        "binding.seal_key",
        policy,
        message.SerializeToString(),
        nonce,
    )


def altered_answer(bundle: bytes, network: NetworkConfig) -> Outcome:
    """Somebody edits the answer after the fact and shows the old proof for it."""
    document = json.loads(bundle)
    response = bytearray(base64.b64decode(document["response"]))
    response[len(response) // 2] ^= 1
    document["response"] = base64.b64encode(bytes(response)).decode()
    report = audit_bundle(parse_bundle(json.dumps(document).encode()), network)
    return _outcome(
        "altered_answer",
        "the answer is edited after the fact (one bit)",
        "bundle.response_commitment",
        report.checks,
        accepted=report.accepted,
    )


def _appraised(
    id: str, story: str, expected: str, policy: Policy, evidence: bytes, nonce: bytes
) -> Outcome:
    try:
        enclave = appraise(evidence, policy=policy, challenge=nonce, now=int(time.time()))
    except EvidenceRejectedError as error:
        return _outcome(id, story, expected, error.checks or CheckList(), accepted=False)
    return _outcome(id, story, expected, enclave.checks, accepted=True)


def _outcome(id: str, story: str, expected: str, checks: CheckList, *, accepted: bool) -> Outcome:
    failed = [check for check in checks.failed if check.id == expected]
    shown = failed[0] if failed else next(iter(checks.failed), None)
    return Outcome(
        id=id,
        story=story,
        refused=not accepted and bool(failed),
        check=shown.id if shown else "",
        detail=shown.detail if shown else "nothing refused it",
    )
