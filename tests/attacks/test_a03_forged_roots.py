"""A3: a forged attestation key with a genuine QE report, look-alike and pre-production roots, a
development root on mainnet.

Genuine Intel material comes from sample vectors outside of the repository; where they are absent, the
same attacks run against the simulated platform only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import secrets
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import KeyBinding, report_data
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release
from cocoon_attestation.roots import intel_root
from cocoon_attestation.rtmr3 import replay
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_attestation.tdx.report import TdReport
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_quote import encode_quote

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the sample vectors are not on this machine"
)
GENUINE_NOW = 1_780_536_131  # 2026-06-04: inside every window of the collateral used below


def certification_of(quote: bytes) -> bytes:
    """The certification data of a quote: QE report, its signature and the genuine certificate chain."""
    parsed = parse_quote(quote)
    section = len(parsed.signed) + 4
    return parsed.raw[section + 128 + 6 :]


def good_report(lab: Any) -> TdReport:
    data = report_data(lab.binding().hash, bytes(32), lab.challenge)
    report: TdReport = lab.platform.td_report(data, replay(lab.events()))
    return report


# --- a forged attestation key ----------------------------------------------------------


def test_own_attestation_key_behind_a_genuine_qe_report(lab: Any) -> None:
    """Everything is genuine apart from the last key: the one-step forgery that some verifiers accept."""
    genuine = lab.platform.quote(good_report(lab))
    forged = encode_quote(
        good_report(lab),
        attestation_key=pki.new_key(secrets.token_bytes),
        certification=certification_of(genuine),
    )
    assert lab.failures(lab.evidence(quote=lambda _: forged)) == ("tdx.attestation_key",)


def test_genuine_attestation_key_shown_with_a_forged_signature(lab: Any) -> None:
    """The attacker keeps the certified key in the quote but cannot sign with it."""
    genuine = lab.platform.quote(good_report(lab))
    own = encode_quote(
        good_report(lab),
        attestation_key=pki.new_key(secrets.token_bytes),
        certification=certification_of(genuine),
    )
    at = 48 + 584 + 4
    spliced = own[: at + 64] + genuine[at + 64 : at + 128] + own[at + 128 :]
    assert lab.failures(lab.evidence(quote=lambda _: spliced)) == ("tdx.sig",)


def test_signature_of_another_quote(lab: Any) -> None:
    """A genuine signature by the genuine key, over another TD report."""
    wanted = lab.platform.quote(good_report(lab))
    signed = lab.platform.quote(dataclasses.replace(good_report(lab), report_data=bytes(64)))
    spliced = wanted[: 48 + 584] + signed[48 + 584 :]
    assert lab.failures(lab.evidence(quote=lambda _: spliced)) == ("tdx.sig",)


@needs_vectors
def test_own_key_behind_intels_own_qe_report(lab: Any) -> None:
    """The same with Intel's certificates: our evidence, signed by us, with a QE report of real hardware."""
    genuine = (VECTORS / "tdx/cocoon_test.quote.bin").read_bytes()
    binding = _binding_at_genuine_now(lab, lab.release)
    data = report_data(binding.hash, bytes(32), lab.challenge)
    forged = encode_quote(
        dataclasses.replace(good_report(lab), report_data=data),
        attestation_key=pki.new_key(secrets.token_bytes),
        certification=certification_of(genuine),
    )
    evidence, policy = _intel_evidence(lab, forged)
    assert lab.failures(evidence, policy=policy, now=GENUINE_NOW) == ("tdx.attestation_key",)


@needs_vectors
def test_published_forgery(lab: Any) -> None:
    """A sample made the same way by somebody else."""
    forged = (VECTORS / "tdx/neg_forged_attkey.quote.bin").read_bytes()
    evidence, policy = _intel_evidence(lab, forged)
    assert "tdx.attestation_key" in lab.failures(evidence, policy=policy, now=GENUINE_NOW)


# --- look-alike roots ------------------------------------------------------------------


def intel_named_platform(now: int) -> DevPlatform:
    """A whole hierarchy whose names are copied from Intel's, down to the quoting enclave's signer."""

    def name(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
                x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
                x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
                x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            ]
        )

    base = DevPlatform.create(now, secrets.token_bytes)

    def renamed(issuer: pki.Issuer, own: x509.Name, parent: x509.Name, signer: pki.Issuer) -> pki.Issuer:
        old = issuer.certificate
        builder = (
            x509.CertificateBuilder()
            .subject_name(own)
            .issuer_name(parent)
            .public_key(old.public_key())
            .serial_number(old.serial_number)
            .not_valid_before(old.not_valid_before_utc)
            .not_valid_after(old.not_valid_after_utc)
        )
        for extension in old.extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        return pki.Issuer(certificate=builder.sign(signer.key, hashes.SHA256()), key=issuer.key)

    root, ca = name("Intel SGX Root CA"), name("Intel SGX PCK Platform CA")
    return dataclasses.replace(
        base,
        root=renamed(base.root, root, root, base.root),
        platform_ca=renamed(base.platform_ca, ca, root, base.root),
        pck=renamed(base.pck, name("Intel SGX PCK Certificate"), ca, base.platform_ca),
        tcb_signer=renamed(base.tcb_signer, name("Intel SGX TCB Signing"), root, base.root),
    )


def test_root_with_intels_name(lab: Any) -> None:
    fake = intel_named_platform(lab.now - 86_400)
    subject = x509.load_der_x509_certificate(intel_root()).subject
    assert fake.root.certificate.subject == subject
    evidence = lab.evidence(platform=fake, collateral=fake.collateral(lab.now))
    assert lab.failures(evidence, policy=lab.policy(dev_root=None)) == ("tdx.root",)
    # The attack is real: who trusts that root is convinced of everything else.
    assert lab.appraise(evidence, policy=lab.policy(dev_root=fake.root_der)).simulated


def test_intels_genuine_root_pasted_behind_a_forged_chain(lab: Any) -> None:
    """The chains end in the pinned certificate, but it signed none of what stands before it."""
    fake = intel_named_platform(lab.now - 86_400)
    genuine = pki.Issuer(certificate=x509.load_der_x509_certificate(intel_root()), key=fake.root.key)
    pasted = dataclasses.replace(fake, root=genuine)
    collateral = fake.collateral(lab.now)
    for field in ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain"):
        leaf = getattr(collateral, field).replace(fake.root.pem, genuine.pem)
        setattr(collateral, field, leaf)
    evidence = lab.evidence(platform=pasted, collateral=collateral)
    assert lab.failures(evidence, policy=lab.policy(dev_root=None)) == ("tdx.collateral",)
    # Without our own look at the chain of the list, the library refuses the path of every other one.
    with mock.patch("cocoon_attestation.tdx.verify._issued", return_value=True):
        assert lab.failures(evidence, policy=lab.policy(dev_root=None)) == ("tdx.chain",)


def test_forged_collateral_for_a_genuine_quote(lab: Any) -> None:
    """The quote is honest but outdated; the attacker brings his own statement that it is fine."""
    fake = DevPlatform.create(lab.now - 86_400, secrets.token_bytes)
    evidence = lab.evidence(collateral=fake.collateral(lab.now))
    assert lab.failures(evidence) == ("tdx.root",)


@needs_vectors
def test_look_alike_root_of_the_samples(lab: Any) -> None:
    quote = (VECTORS / "tdx/synthetic/ok_v4.quote.bin").read_bytes()
    collateral = _collateral(VECTORS / "tdx/synthetic/ok_v4.collateral.json")
    evidence, policy = _intel_evidence(lab, quote, collateral=collateral)
    assert "tdx.root" in lab.failures(evidence, policy=policy, now=1_780_272_000)


@needs_vectors
def test_pre_production_root(lab: Any) -> None:
    """Intel's own root for early machines: same name, not the production key."""
    quote = (VECTORS / "tdx/preprod_root_v4.quote.bin").read_bytes()
    root = parse_quote(quote).pck_chain.split(b"-----END CERTIFICATE-----")[-2]
    certificate = x509.load_pem_x509_certificate(root + b"-----END CERTIFICATE-----\n")
    assert "Intel SGX Root CA" in certificate.subject.rfc4514_string()
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    assert digest.startswith("e3f49e85")
    evidence, policy = _intel_evidence(lab, quote)
    assert "tdx.root" in lab.failures(evidence, policy=policy, now=GENUINE_NOW)


# --- development root on mainnet --------------------------------------------------------


def test_development_evidence_on_mainnet(lab: Any) -> None:
    """Perfect simulated evidence, for mainnet's id, against a policy without a development root."""
    evidence = lab.evidence(binding=lab.binding(global_id=-239))
    mainnet = lab.policy(dev_root=None, global_id=-239)
    assert not mainnet.simulated
    assert lab.failures(evidence, policy=mainnet) == ("tdx.root",)


def test_registry_of_mainnet_that_names_a_development_root(lab: Any) -> None:
    """Even governance cannot make mainnet clients accept simulated hardware: they refuse to start."""
    with pytest.raises(ConfigError):
        lab.policy(global_id=-239)


def test_client_cannot_add_a_development_root(lab: Any) -> None:
    """Tightening is the only change a client can make to the registry's policy."""
    parameters = inspect.signature(Policy.tightened).parameters
    assert not {"dev_root", "roots", "root", "tee_kinds"} & parameters.keys()
    wider = lab.policy().tightened(statuses={"UpToDate", "OutOfDate"}, max_grace_s=10**9)
    assert wider.statuses == {"UpToDate"}
    assert wider.grace_s == lab.policy().grace_s


def test_root_of_another_development_network(lab: Any) -> None:
    other = DevPlatform.create(lab.now - 86_400, secrets.token_bytes)
    evidence = lab.evidence(platform=other, collateral=other.collateral(lab.now))
    assert lab.failures(evidence) == ("tdx.root",)


@needs_vectors
def test_genuine_evidence_on_a_development_network(lab: Any) -> None:
    """One root at a time: a development network does not accept Intel's either."""
    quote = (VECTORS / "tdx/cocoon_test.quote.bin").read_bytes()
    evidence, policy = _intel_evidence(lab, quote)
    development = dataclasses.replace(policy, dev_root=lab.platform.root_der)
    assert "tdx.root" in lab.failures(evidence, policy=development, now=GENUINE_NOW)


@needs_vectors
def test_genuine_hardware_passes_every_hardware_check(lab: Any) -> None:
    """The same construction with an untouched quote fails only where the software is not ours."""
    quote = (VECTORS / "tdx/cocoon_test.quote.bin").read_bytes()
    evidence, policy = _intel_evidence(lab, quote)
    failed = lab.failures(evidence, policy=policy, now=GENUINE_NOW)
    assert set(failed) == {"binding.report_data", "rtmr3.replay"}


def _intel_evidence(
    lab: Any, quote: bytes, *, collateral: evidence_pb2.TdxCollateral | None = None
) -> tuple[bytes, Policy]:
    """Evidence around `quote` with genuine collateral, and a policy that allows what it measured."""
    report = parse_quote(quote).report
    release = Release(
        name=lab.release.name,
        mrtd=report.mrtd,
        rtmr0=report.rtmr0,
        rtmr1=report.rtmr1,
        rtmr2=report.rtmr2,
        td_attributes=report.td_attributes,
        xfam=report.xfam,
    )
    policy = lab.policy(
        dev_root=None, releases=(release,), min_tcb_evaluation=1, max_collateral_age_s=365 * 86_400
    )
    binding = _binding_at_genuine_now(lab, release)
    genuine = collateral or _collateral(VECTORS / "tdx/collateral/90c06f000000_tdx_2026-05_ev19.json")
    evidence = lab.evidence(binding=binding, quote=lambda _: quote, collateral=genuine)
    return evidence, policy


def _binding_at_genuine_now(lab: Any, release: Release) -> KeyBinding:
    binding: KeyBinding = lab.binding(
        release_id=release.release_id, not_before=GENUINE_NOW - 600, not_after=GENUINE_NOW + 600
    )
    return binding


def _collateral(path: Path) -> evidence_pb2.TdxCollateral:
    fields = json.loads(path.read_text("utf-8"))
    for name in ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"):
        fields[name] = bytes.fromhex(fields[name])
    return evidence_pb2.TdxCollateral(**fields)
