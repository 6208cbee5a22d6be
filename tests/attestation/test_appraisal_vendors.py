"""Simulated nodes with eight GPUs and on SEV-SNP, appraised end to end; one fault fails one check."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.errors import EvidenceRejectedError, UnsupportedError
from cocoon_attestation.gpu_summary import parse_gpu_summary
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.rtmr3 import NO_GPU
from cocoon_enclave.attestation.simulated_gpu import SimulatedDevice, SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_node import (
    SimulatedGpus,
    SimulatedSnpAttester,
    simulated_snp_rules,
)
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.kit_node import BOOT_NONCE, MEASUREMENT, Node, snp_node, tdx_node
else:
    from kit_node import BOOT_NONCE, MEASUREMENT, Node, snp_node, tdx_node


@pytest.fixture(scope="session")
def board(nvidia: SimulatedNvidia) -> tuple[SimulatedDevice, ...]:
    """Eight GPUs and four switches."""
    return nvidia.board()


def failures(node: Node, policy: Policy, *, evidence: bytes | None = None) -> tuple[str, ...]:
    challenge = node.lab.challenge
    with pytest.raises(EvidenceRejectedError) as caught:
        appraise(evidence or node.evidence(challenge), policy=policy, challenge=challenge, now=node.lab.now)
    assert caught.value.checks is not None
    return tuple(sorted({check.id for check in caught.value.checks.failed}))


def edited(evidence: bytes, change: Callable[[Any], object]) -> bytes:
    message = evidence_pb2.Evidence.FromString(evidence)
    change(message)
    return message.SerializeToString(deterministic=True)


@pytest.fixture(scope="session")
def gpus(lab: Any, nvidia: SimulatedNvidia, board: tuple[SimulatedDevice, ...]) -> SimulatedGpus:
    return SimulatedGpus(nvidia, board, clock=lambda: lab.now)


@pytest.fixture(scope="session")
def gpu_policy(lab: Any, nvidia: SimulatedNvidia) -> Policy:
    rules = dataclasses.replace(nvidia.policy(gpu_count=8), gpu_count=None)
    policy: Policy = lab.policy(gpu=rules)
    return policy


# --- TDX with GPUs ------------------------------------------------------------------------------------


def test_eight_gpu_node_is_accepted(lab: Any, gpus: SimulatedGpus, gpu_policy: Policy) -> None:
    enclave = appraise(
        tdx_node(lab, gpus).evidence(lab.challenge), policy=gpu_policy, challenge=lab.challenge, now=lab.now
    )
    assert enclave.simulated
    assert enclave.claims["gpu_count"] == 8
    assert enclave.claims["nvlink_encrypted"] is False
    devices: Any = enclave.claims["devices"]
    assert [device["kind"] for device in devices] == ["gpu"] * 8 + ["switch"] * 4
    assert len({device["serial"] for device in devices}) == 12
    ids = {check.id for check in enclave.checks}
    assert {"gpu.allowed", "gpu.count", "gpu.topology", "rtmr3.gpu", "rtmr3.gpu_mode"} <= ids
    assert enclave.to_dict()["claims"]


def test_single_gpu_node_is_accepted(lab: Any, nvidia: SimulatedNvidia, gpu_policy: Policy) -> None:
    gpus = SimulatedGpus(nvidia, [nvidia.gpu()], clock=lambda: lab.now)
    node = tdx_node(lab, gpus)
    enclave = appraise(
        node.evidence(lab.challenge), policy=gpu_policy, challenge=lab.challenge, now=lab.now
    )
    assert enclave.claims["gpu_count"] == 1
    assert enclave.claims["nvlink_encrypted"] is None


def test_node_without_gpu_is_accepted_unless_a_number_is_demanded(
    lab: Any, gpu_policy: Policy, nvidia: SimulatedNvidia
) -> None:
    node = tdx_node(lab, None)
    evidence = node.evidence(lab.challenge)
    assert appraise(evidence, policy=gpu_policy, challenge=lab.challenge, now=lab.now)
    assert failures(node, lab.policy(gpu=nvidia.policy(gpu_count=8))) == ("gpu.count",)


def test_devices_are_refused_where_the_policy_allows_none(lab: Any, gpus: SimulatedGpus) -> None:
    assert "gpu.allowed" in failures(tdx_node(lab, gpus), lab.policy())


def test_denied_device(lab: Any, gpus: SimulatedGpus, gpu_policy: Policy) -> None:
    node = tdx_node(lab, gpus)
    claims = appraise(
        node.evidence(lab.challenge), policy=gpu_policy, challenge=lab.challenge, now=lab.now
    ).claims
    devices: Any = claims["devices"]
    for device in (devices[0], devices[-1]):  # a GPU and a switch
        serial = device["serial"]
        identity = hashlib.sha256(b"cocoon/v1/platform\x10" + serial.encode()).digest()
        assert device["platform_id"] == identity.hex()
        denied = dataclasses.replace(gpu_policy, denied_platforms=frozenset({identity}))
        assert failures(node, denied) == ("policy.device",)


def test_wrong_number_of_gpus(lab: Any, gpus: SimulatedGpus, nvidia: SimulatedNvidia) -> None:
    assert failures(tdx_node(lab, gpus), lab.policy(gpu=nvidia.policy(gpu_count=4))) == ("gpu.count",)


def test_gpu_missing_from_the_evidence(
    lab: Any, gpus: SimulatedGpus, nvidia: SimulatedNvidia, gpu_policy: Policy
) -> None:
    """The measured guest saw two GPUs, the node shows one."""
    two = [nvidia.gpu(), nvidia.gpu()]
    both = SimulatedGpus(nvidia, two, clock=lambda: lab.now)
    one = SimulatedGpus(nvidia, two[:1], clock=lambda: lab.now)
    node = tdx_node(lab, both, shown=one.evidence)
    assert failures(node, gpu_policy) == ("gpu.count", "rtmr3.gpu")


def test_gpu_that_the_guest_never_measured(lab: Any, nvidia: SimulatedNvidia, gpu_policy: Policy) -> None:
    """Genuine and fresh, but another machine's GPU."""
    own = SimulatedGpus(nvidia, [nvidia.gpu()], clock=lambda: lab.now)
    foreign = SimulatedGpus(nvidia, [nvidia.gpu()], clock=lambda: lab.now)
    assert failures(tdx_node(lab, own, shown=foreign.evidence), gpu_policy) == ("rtmr3.gpu",)


def test_guest_measured_no_gpu_but_shows_one(lab: Any, nvidia: SimulatedNvidia, gpu_policy: Policy) -> None:
    gpus = SimulatedGpus(nvidia, [nvidia.gpu()], clock=lambda: lab.now)
    assert failures(tdx_node(lab, gpus, payload=NO_GPU), gpu_policy) == ("rtmr3.gpu",)


def test_guest_measured_gpus_but_shows_none(lab: Any, gpus: SimulatedGpus, gpu_policy: Policy) -> None:
    node = tdx_node(lab, gpus)
    node.devices = None
    assert failures(node, gpu_policy) == ("rtmr3.gpu",)


@pytest.mark.parametrize("fault", [{"confidential": False}, {"devtools": True}])
def test_guest_found_a_mode_that_protects_nothing(
    lab: Any, gpus: SimulatedGpus, gpu_policy: Policy, fault: dict[str, bool]
) -> None:
    node = tdx_node(lab, gpus, payload=gpus.summary(BOOT_NONCE, **fault))
    assert failures(node, gpu_policy) == ("rtmr3.gpu_mode",)


def test_device_evidence_is_bound_to_the_report_data(
    lab: Any, nvidia: SimulatedNvidia, gpu_policy: Policy
) -> None:
    """Device evidence swapped behind the quote: even a fresh genuine report of the same GPU."""
    gpus = SimulatedGpus(nvidia, [nvidia.gpu()], clock=lambda: lab.now)
    node = tdx_node(lab, gpus)
    one, two = (evidence_pb2.Evidence.FromString(node.evidence(lab.challenge)) for _ in range(2))
    mixed = edited(one.SerializeToString(), lambda m: m.devices[0].CopyFrom(two.devices[0]))
    assert failures(node, gpu_policy, evidence=mixed) == ("binding.report_data",)


def test_device_evidence_for_another_nonce(lab: Any, nvidia: SimulatedNvidia, gpu_policy: Policy) -> None:
    gpus = SimulatedGpus(nvidia, [nvidia.gpu()], clock=lambda: lab.now)
    node = tdx_node(lab, gpus, shown=lambda nonce: gpus.evidence(b"\x01" * 32))
    assert failures(node, gpu_policy) == ("gpu.nonce", "gpu.ocsp", "gpu.rim_ocsp")


def test_gpus_of_another_vendor_root(lab: Any, gpu_policy: Policy) -> None:
    other = SimulatedNvidia(now=lab.now, rng=seeded_random(b"look-alike"))
    gpus = SimulatedGpus(other, [other.gpu()], clock=lambda: lab.now)
    assert failures(tdx_node(lab, gpus), gpu_policy) == ("gpu.chain", "gpu.rim_chain")


def test_guest_does_not_serve_with_devices_that_fail_its_own_check(
    lab: Any, nvidia: SimulatedNvidia
) -> None:
    old = dataclasses.replace(nvidia.gpu(), measurements=tuple(bytes(48) for _ in range(64)))
    with pytest.raises(UnsupportedError):
        SimulatedGpus(nvidia, [old], clock=lambda: lab.now).summary(BOOT_NONCE)


def test_summary_is_what_the_event_carries(gpus: SimulatedGpus) -> None:
    payload = gpus.summary(BOOT_NONCE)
    summary = parse_gpu_summary(payload)
    assert summary.encode() == payload
    assert summary.gpus == 8
    assert len(payload) <= 709


# --- SEV-SNP --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def snp_release(lab: Any) -> SnpRelease:
    return SnpRelease(name="SIMULATED snp", measurement=MEASUREMENT, models=(lab.model,))


@pytest.fixture(scope="session")
def snp_policy(lab: Any, amd: SimulatedAmd, snp_release: SnpRelease) -> Policy:
    policy: Policy = lab.policy(
        releases=(lab.release, snp_release),
        tee_kinds=frozenset({TeeKind.TDX, TeeKind.SEV_SNP}),
        snp=simulated_snp_rules(amd),
    )
    return policy


class Tampered:
    """A simulated guest whose report has one other field, signed by the genuine chip."""

    kind = TeeKind.SEV_SNP
    simulated = True

    def __init__(self, inner: SimulatedSnpAttester, **changes: Any) -> None:
        self._inner, self._changes = inner, changes

    def extend(self, name: str, payload: bytes) -> None:
        self._inner.extend(name, payload)

    def attest(self, report_data: bytes) -> evidence_pb2.SnpEvidence:
        fields: ReportFields = dataclasses.replace(self._inner.fields(report_data), **self._changes)
        return self._inner.sign(fields)


def test_snp_node_is_accepted(
    lab: Any, amd: SimulatedAmd, snp_release: SnpRelease, snp_policy: Policy
) -> None:
    node = snp_node(lab, amd, snp_release)
    enclave = appraise(
        node.evidence(lab.challenge), policy=snp_policy, challenge=lab.challenge, now=lab.now
    )
    assert enclave.tee is TeeKind.SEV_SNP
    assert enclave.models == (lab.model,)
    assert enclave.release == snp_release
    assert enclave.claims["measurement"] == MEASUREMENT.hex()
    assert enclave.expires_at <= lab.now + snp_policy.session_limit_s
    ids = [check.id for check in enclave.checks]
    assert {"snp.measurement", "snp.host_data", "snp.report_data", "release.models", "release.gpu"} <= set(
        ids
    )
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"policy": 0x30000 | 1 << 19}, "snp.debug"),
        ({"policy": 0x30000 | 1 << 18}, "snp.migration"),
        ({"vmpl": 1}, "snp.vmpl"),
        ({"host_data": b"\x01" * 32}, "snp.host_data"),
        ({"report_data": b"\x01" * 64}, "snp.report_data"),
        ({"platform_info": 0}, "snp.platform"),
    ],
)
def test_one_wrong_field_of_an_snp_report(
    lab: Any,
    amd: SimulatedAmd,
    snp_release: SnpRelease,
    snp_policy: Policy,
    changes: dict[str, Any],
    check: str,
) -> None:
    node = snp_node(lab, amd, snp_release)
    inner = SimulatedSnpAttester(amd, snp_release, config_hash=lab.config_hash)
    node.attester = Tampered(inner, **changes)
    assert failures(node, snp_policy) == (check,)


def test_snp_measurement_of_no_release(
    lab: Any, amd: SimulatedAmd, snp_release: SnpRelease, snp_policy: Policy
) -> None:
    other = dataclasses.replace(snp_release, measurement=b"\x01" * 48)
    node = snp_node(lab, amd, other)
    node.binding = dataclasses.replace(node.binding, release_id=snp_release.release_id)
    assert failures(node, snp_policy) == ("snp.measurement",)
    with pytest.raises(EvidenceRejectedError) as caught:
        appraise(node.evidence(lab.challenge), policy=snp_policy, challenge=lab.challenge, now=lab.now)
    assert caught.value.checks is not None
    assert {check.id for check in caught.value.checks.skipped} == {"release.models", "release.gpu"}


def test_snp_binding_names_another_release_than_was_measured(
    lab: Any, amd: SimulatedAmd, snp_release: SnpRelease, snp_policy: Policy
) -> None:
    node = snp_node(lab, amd, snp_release)
    node.binding = dataclasses.replace(node.binding, release_id=lab.release.release_id)
    assert failures(node, snp_policy) == ("binding.release",)


def test_snp_release_with_a_foreign_model(
    lab: Any, amd: SimulatedAmd, snp_release: SnpRelease, snp_policy: Policy
) -> None:
    release = dataclasses.replace(snp_release, models=(lab.model, b"\x01" * 32))
    policy = dataclasses.replace(snp_policy, releases=(release,))
    assert failures(snp_node(lab, amd, release), policy) == ("release.models",)


def test_snp_platform_lists(
    lab: Any, amd: SimulatedAmd, snp_release: SnpRelease, snp_policy: Policy
) -> None:
    node = snp_node(lab, amd, snp_release)
    enclave = appraise(
        node.evidence(lab.challenge), policy=snp_policy, challenge=lab.challenge, now=lab.now
    )
    denied = dataclasses.replace(snp_policy, denied_platforms=frozenset({enclave.platform_id}))
    assert failures(node, denied) == ("policy.platform",)
    listed = dataclasses.replace(snp_policy, allowed_platforms=frozenset({enclave.platform_id}))
    assert appraise(node.evidence(lab.challenge), policy=listed, challenge=lab.challenge, now=lab.now)
    others = dataclasses.replace(snp_policy, allowed_platforms=frozenset({bytes(32)}))
    assert failures(node, others) == ("policy.platform",)


def test_snp_is_refused_without_release_root_or_permission(
    lab: Any, amd: SimulatedAmd, snp_release: SnpRelease, snp_policy: Policy
) -> None:
    node = snp_node(lab, amd, snp_release)
    tdx_only = dataclasses.replace(snp_policy, tee_kinds=frozenset({TeeKind.TDX}))
    assert failures(node, tdx_only) == ("tee.kind",)
    assert failures(node, dataclasses.replace(snp_policy, snp=None)) == ("snp.chain",)
    no_release = dataclasses.replace(snp_policy, releases=(lab.release,))
    assert failures(node, no_release) == ("binding.release", "snp.measurement")
    real = dataclasses.replace(snp_policy, snp=None, dev_root=None)
    assert "snp.chain" in failures(node, real)


def test_snp_evidence_under_a_root_for_tdx_alone_is_judged_as_snp(
    lab: Any, amd: SimulatedAmd, snp_release: SnpRelease, snp_policy: Policy
) -> None:
    policy = dataclasses.replace(snp_policy, snp=None)
    evidence = snp_node(lab, amd, snp_release).evidence(lab.challenge)
    with pytest.raises(EvidenceRejectedError) as caught:
        appraise(evidence, policy=policy, challenge=lab.challenge, now=lab.now)
    assert caught.value.checks is not None
    assert [check.id for check in caught.value.checks.skipped] == ["release.gpu"]


def test_snp_node_with_gpus(
    lab: Any,
    amd: SimulatedAmd,
    snp_release: SnpRelease,
    snp_policy: Policy,
    gpus: SimulatedGpus,
    gpu_policy: Policy,
) -> None:
    """The launch digest stands for an image that demands eight GPUs and checks them itself."""
    release = dataclasses.replace(snp_release, gpus=8)
    policy = dataclasses.replace(snp_policy, releases=(release,), gpu=gpu_policy.gpu)
    node = snp_node(lab, amd, release, devices=gpus.evidence)
    enclave = appraise(node.evidence(lab.challenge), policy=policy, challenge=lab.challenge, now=lab.now)
    assert enclave.claims["gpu_count"] == 8
    alone = snp_node(lab, amd, release)
    assert failures(alone, policy) == ("release.gpu",)
    without = dataclasses.replace(policy, releases=(snp_release,))
    assert failures(snp_node(lab, amd, snp_release, devices=gpus.evidence), without) == ("release.gpu",)


def test_open_snp_rules_are_strict() -> None:
    assert open_snp_policy().waived == {"snp.measurement", "snp.report_data", "snp.host_data"}
