"""Endorsements of the verifier's own in an appraisal, what they leave as it was, and marks of what was used."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.v1 import evidence_pb2
from cocoon_attestation.endorsements import DeviceEndorsements, OwnEndorsements, SnpEndorsements
from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.evidence import TdxCollateralBytes, evidence_digest, parse_evidence
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.rollback import Mark, _version, marks
from cocoon_attestation.snp.report import TcbVersion
from cocoon_enclave.attestation.attester import make_evidence, measure
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, SimulatedAttester
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_node import (
    SimulatedGpus,
    SimulatedSnpAttester,
    simulated_snp_rules,
)
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd

NONCE = b"\x0c" * 32


def collateral_bytes(message: evidence_pb2.TdxCollateral) -> TdxCollateralBytes:
    names = [field.name for field in dataclasses.fields(TdxCollateralBytes)]
    return TdxCollateralBytes(**{name: getattr(message, name) for name in names})


# ---- TDX


def appraise(lab: Any, evidence: bytes, own: OwnEndorsements | None) -> Any:
    from cocoon_attestation.appraisal import appraise as real

    return real(evidence, policy=lab.policy(), challenge=lab.challenge, now=lab.now, endorsements=own)


def test_own_collateral_takes_the_place_of_none_and_of_bad(lab: Any) -> None:
    own = OwnEndorsements(collateral=collateral_bytes(lab.platform.collateral(lab.now)))
    stripped = lab.evidence(edit=lambda message: message.tdx.ClearField("collateral"))
    expired = lab.evidence(collateral=lab.platform.collateral(lab.now - 60 * 86_400))
    for evidence in (stripped, expired):
        assert lab.failures(evidence)
        verified = appraise(lab, evidence, own)
        assert verified.evidence_digest == evidence_digest(evidence)
        assert verified.claims["endorsements_sha256"] == own.digest.hex()
    assert "endorsements_sha256" not in lab.appraise().claims


def test_own_collateral_is_judged_like_stapled(lab: Any) -> None:
    good = lab.evidence()
    for bad in (
        lab.platform.collateral(lab.now, evaluation=EVALUATION_NUMBER - 1),
        lab.platform.collateral(lab.now - 60 * 86_400),
        lab.platform.collateral(lab.now, status="OutOfDate"),
    ):
        own = OwnEndorsements(collateral=collateral_bytes(bad))
        with pytest.raises(Exception, match="rejected"):
            appraise(lab, good, own)


def test_endorsements_for_other_evidence_are_a_mistake(lab: Any) -> None:
    snp = SnpEndorsements(certificate=b"x", issuer_chain="x", crl=b"x")
    device = DeviceEndorsements(rims=(), ocsp_responses=())
    for own in (OwnEndorsements(snp=snp), OwnEndorsements(devices=(device,), ocsp_nonce=NONCE)):
        with pytest.raises(ConfigError):
            appraise(lab, lab.evidence(), own)
    with pytest.raises(ConfigError):
        OwnEndorsements(devices=(device,))
    with pytest.raises(ConfigError):
        OwnEndorsements(ocsp_nonce=NONCE)


parts = st.builds(
    OwnEndorsements,
    snp=st.none()
    | st.builds(
        SnpEndorsements,
        certificate=st.binary(max_size=3),
        issuer_chain=st.text("ab", max_size=3),
        crl=st.binary(max_size=3),
    ),
) | st.builds(
    OwnEndorsements,
    devices=st.lists(
        st.builds(
            DeviceEndorsements,
            rims=st.lists(st.binary(max_size=2), max_size=2).map(tuple),
            ocsp_responses=st.lists(st.binary(max_size=2), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    ocsp_nonce=st.binary(min_size=1, max_size=2),
)


@given(parts, parts)
def test_the_digest_names_the_bytes(first: OwnEndorsements, second: OwnEndorsements) -> None:
    assert (first == second) == (first.digest == second.digest)


# ---- SEV-SNP and GPUs


@pytest.fixture(scope="module")
def amd(lab: Any) -> SimulatedAmd:
    return SimulatedAmd(now=lab.now - 86_400, rng=lab.random)


@pytest.fixture(scope="module")
def nvidia(lab: Any) -> SimulatedNvidia:
    return SimulatedNvidia(now=lab.now - 86_400, rng=seeded_random(b"own"))


class SnpNode:
    """A simulated SEV-SNP guest and the policy that accepts it."""

    def __init__(self, lab: Any, amd: SimulatedAmd) -> None:
        self.lab, self.amd = lab, amd
        self.release = SnpRelease(name="snp", measurement=b"\x01" * 48, models=(lab.model,))
        self.chip = amd.chip()
        self.policy = lab.policy(
            releases=(self.release,), tee_kinds=frozenset({TeeKind.SEV_SNP}), snp=simulated_snp_rules(amd)
        )

    def evidence(self, edit: Any = lambda message: None, chip: Any = None, **fields: Any) -> bytes:
        attester = SimulatedSnpAttester(
            self.amd, self.release, config_hash=self.lab.config_hash, chip=chip or self.chip
        )
        sign = attester.sign

        def signed(made: ReportFields) -> evidence_pb2.SnpEvidence:
            return sign(dataclasses.replace(made, **fields))

        attester.sign = signed  # type: ignore[method-assign,assignment]
        data = make_evidence(
            attester,
            binding=self.lab.binding(release_id=self.release.release_id),
            seal_public_key=self.lab.seal_public_key,
            challenge=self.lab.challenge,
        )
        message = evidence_pb2.Evidence.FromString(data)
        edit(message.snp)
        return message.SerializeToString(deterministic=True)

    def appraise(self, evidence: bytes, own: OwnEndorsements | None = None) -> Any:
        from cocoon_attestation.appraisal import appraise as real

        return real(
            evidence, policy=self.policy, challenge=self.lab.challenge, now=self.lab.now, endorsements=own
        )

    def marks(self, evidence: bytes) -> dict[str, Mark]:
        found = marks(parse_evidence(evidence), self.appraise(evidence), self.policy.root_sha256)
        return {mark.subject.split("/", 2)[2]: mark for mark in found}


@pytest.fixture
def snp(lab: Any, amd: SimulatedAmd) -> SnpNode:
    return SnpNode(lab, amd)


def test_own_certificate_and_list_of_amd(snp: SnpNode, amd: SimulatedAmd) -> None:
    own = OwnEndorsements(
        snp=SnpEndorsements(certificate=snp.chip.certificate, issuer_chain=amd.chain_pem, crl=amd.crl())
    )
    for names in (("certificate", "issuer_chain", "crl"), ("certificate",), ("crl",)):
        stripped = snp.evidence(lambda message, names=names: [message.ClearField(n) for n in names])
        with pytest.raises(Exception, match="rejected") as caught:
            snp.appraise(stripped)
        failed = {check.id for check in caught.value.checks.failed}  # type: ignore[attr-defined]
        assert failed == ({"snp.chain"} if "certificate" in names else {"snp.crl"})
        assert snp.appraise(stripped, own).claims["endorsements_sha256"] == own.digest.hex()


def test_marks_of_a_chip(snp: SnpNode, amd: SimulatedAmd) -> None:
    found = snp.marks(snp.evidence())
    chip = snp.chip.chip_id.hex()
    assert set(found) == {"crl/genoa", f"tcb/reported/{chip}", f"tcb/committed/{chip}"}
    assert found[f"tcb/reported/{chip}"].parts == (0, 10, 0, 23, 84)
    # The host sets the reported version back, with the certificate that AMD gives for it.
    higher = TcbVersion(boot_loader=10, tee=0, snp=23, microcode=90)
    updated = amd.chip(hwid=snp.chip.chip_id, tcb=higher)
    fields = dict.fromkeys(("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb"), higher)
    newer = snp.marks(snp.evidence(chip=updated, **fields))
    reported = f"tcb/reported/{chip}"
    assert found[reported].older_than(newer[reported].parts)
    assert not newer[reported].older_than(found[reported].parts)


def test_marks_of_devices(lab: Any, nvidia: SimulatedNvidia) -> None:
    gpus = SimulatedGpus(nvidia, nvidia.board(), clock=lambda: lab.now)
    attester = SimulatedAttester(lab.platform, clock=lambda: lab.now)
    summary = gpus.summary(NONCE)
    measure(attester, config_hash=lab.config_hash, models=[lab.model], gpu=summary)
    evidence = make_evidence(
        attester,
        binding=lab.binding(),
        seal_public_key=lab.seal_public_key,
        challenge=lab.challenge,
        devices=gpus.evidence,
    )
    policy = lab.policy(gpu=dataclasses.replace(nvidia.policy(gpu_count=8), gpu_count=None))
    verified = lab.appraise(evidence, policy=policy)
    found = [m for m in marks(parse_evidence(evidence), verified, b"\x01" * 32) if m.subject[:2] == "nv"]
    assert len({mark.subject for mark in found}) == 12
    assert {mark.subject.split("/")[2] for mark in found} == {"gpu", "switch"}
    assert {mark.parts for mark in found} == {(_version("96.00.A5.00.01"),), (_version("96.10.73.00.01"),)}


def test_marks_of_tdx(lab: Any) -> None:
    found = marks(parse_evidence(lab.evidence()), lab.appraise(), lab.policy().root_sha256)
    by_kind = {mark.subject.split("/")[2]: mark for mark in found}
    assert set(by_kind) == {"tcb", "qe", "crl"}
    assert len(found) == 4
    assert by_kind["tcb"].parts == (EVALUATION_NUMBER, lab.now - 300)
    assert len({mark.subject.split("/")[1] for mark in found}) == 1
    other = marks(parse_evidence(lab.evidence()), lab.appraise(), bytes(32))
    assert not {mark.subject for mark in other} & {mark.subject for mark in found}


def test_versions_in_order() -> None:
    texts = ["96.00.9F.00.01", "96.00.A5.00.01", "96.10.73.00.01", "97.00.88.00.0F"]
    assert sorted(texts, key=_version) == texts
    for text in ("", "x", "96..1", "100.00.00.00.00"):
        with pytest.raises(MalformedError):
            _version(text)
