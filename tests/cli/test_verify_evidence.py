"""`cocoon verify evidence` with evidence of a running enclave: by registry, by policy file, at other times."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon.v1 import attestation_service_pb2, attestation_service_pb2_grpc
from cocoon_attestation.reference import parse_release
from cocoon_proxy.transport import Endpoint, fetch_certificate, pinned_channel

if TYPE_CHECKING:
    from tests.network.netkit import InProcess, Running

pytestmark = [pytest.mark.network, pytest.mark.model]


@pytest.fixture(scope="module")
def live(net: Running) -> tuple[bytes, bytes, bytes]:
    """Evidence for a nonce of ours, that nonce, and the evidence that stands on chain."""
    nonce = secrets.token_bytes(32)

    async def main() -> tuple[bytes, bytes]:
        endpoint = Endpoint(host="127.0.0.1", port=int(str(net.part("enclave").ready["public_port"])))
        async with pinned_channel(endpoint, await fetch_certificate(endpoint, timeout_s=10)) as channel:
            stub: Any = attestation_service_pb2_grpc.AttestationServiceStub(channel)
            fresh = await stub.GetEvidence(
                attestation_service_pb2.GetEvidenceRequest(challenge=nonce), timeout=20
            )
            published = await stub.GetPublishedEvidence(
                attestation_service_pb2.GetPublishedEvidenceRequest(), timeout=20
            )
        return fresh.evidence, published.evidence

    fresh, published = asyncio.run(main())
    return fresh, nonce, published


@pytest.fixture
def policy(net: Running, tmp_path: Path) -> Path:
    """The registry's rules, written down by hand as a policy file."""
    assert net.dev.platform is not None
    assert net.dev.model is not None
    release = parse_release(net.dev.platform.release().to_boc())
    fields = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "td_attributes", "xfam")
    lines = [
        f"global_id = {net.network.global_id}",
        f'models = ["{net.dev.model.digest.hex()}"]',
        "min_tcb_evaluation = 19",
        f'dev_root = "{base64.b64encode(net.dev.platform.root_der).decode()}"',
        "[[releases]]",
        f'name = "{release.name}"',
        'tee = "tdx"',
        *(f'{name} = "{getattr(release, name).hex()}"' for name in fields),
    ]
    path = tmp_path / "policy.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_verify_published_evidence(
    at_home: InProcess, live: tuple[bytes, bytes, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "evidence.bin"
    file.write_bytes(live[2])
    found = at_home("verify", "evidence", file, "--network", "dev", "--json")
    assert found.code == 0, found.out
    document = found.json
    assert document.keys() == {
        "ok", "subject", "verdict", "simulated", "network", "claims", "checks", "tcb_status", "advisories"
    }  # fmt: skip
    assert document["subject"] == "evidence"
    assert document["simulated"] is True
    assert document["claims"]
    # Fresh evidence is not on chain: it needs the nonce that it answers.
    file.write_bytes(live[0])
    found = at_home("verify", "evidence", file, "--network", "dev", "--json")
    assert found.code == 2
    assert "--challenge" in found.json["error"]["hint"]


@pytest.mark.parametrize("source", ["network", "policy"])
def test_verify_fresh_evidence(
    at_home: InProcess, live: tuple[bytes, bytes, bytes], policy: Path, tmp_path: Path, source: str
) -> None:
    evidence, nonce, _ = live
    rules = ("--network", "dev") if source == "network" else ("--policy", str(policy))
    file = tmp_path / "evidence.bin"

    def verify(data: bytes, challenge: bytes, *more: str) -> Any:
        file.write_bytes(data)
        return at_home("verify", "evidence", file, *rules, "--challenge", challenge.hex(), "--json", *more)

    found = verify(evidence, nonce)
    assert found.code == 0, found.out
    assert len(found.json["checks"]) > 25
    assert found.json["simulated"] is True
    assert verify(evidence, nonce, "--at", str(int(time.time()))).code == 0
    late = verify(evidence, nonce, "--at", str(int(time.time()) + 400 * 86_400))
    assert late.code == 10
    assert "binding.validity" in late.failed_checks()
    early = verify(evidence, nonce, "--at", "2020-01-01T00:00:00Z")
    assert early.code == 10
    other = verify(evidence, secrets.token_bytes(32))
    assert other.code == 10
    assert "challenge" in other.failed_checks()
    assert verify(evidence[: len(evidence) // 2], nonce).code == 30
    explained = {
        check["id"]: check["inputs"] for check in verify(evidence, nonce, "--explain").json["checks"]
    }
    assert explained["binding.report_data"]["preimage"]


def test_verify_evidence_under_stricter_rules(
    at_home: InProcess, live: tuple[bytes, bytes, bytes], policy: Path, tmp_path: Path
) -> None:
    evidence, nonce, _ = live
    file = tmp_path / "evidence.bin"
    file.write_bytes(evidence)
    text = policy.read_text()
    for pattern, replacement, check in (
        (r"min_tcb_evaluation = 19", "min_tcb_evaluation = 20", "tdx.evaluation"),
        (r"global_id = -217", "global_id = -3", "binding.network"),
        (r'mrtd = "[0-9a-f]{8}', 'mrtd = "01234567', "tdx.measurement"),
    ):
        changed, count = re.subn(pattern, replacement, text)
        assert count == 1
        policy.write_text(changed)
        found = at_home(
            "verify", "evidence", file, "--policy", policy, "--challenge", nonce.hex(), "--json"
        )
        assert found.code == 10, found.out
        assert check in found.failed_checks()
    policy.write_text("\n".join(line for line in text.split("\n") if not line.startswith("dev_root")))
    found = at_home("verify", "evidence", file, "--policy", policy, "--challenge", nonce.hex(), "--json")
    assert found.code == 10  # a simulated TEE is nothing without the development root
    assert found.json["simulated"] is False
