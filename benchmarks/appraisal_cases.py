"""Simulated evidence for the appraisal benchmark, and the signatures that it contains."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import ocsp

from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.evidence import DeviceEvidence, TdxEvidence, parse_evidence
from cocoon_attestation.gpu.rim import parse_rim
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release, SnpRelease, TeeKind
from cocoon_attestation.sealing.keys import generate_seal_keypair
from cocoon_attestation.tdx.dcap import dcap_verify
from cocoon_enclave.attestation.attester import Attester, DeviceSource, make_evidence, measure
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform, SimulatedAttester
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_node import (
    SimulatedGpus,
    SimulatedSnpAttester,
    simulated_snp_rules,
)
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

NOW: Final = 1_800_000_000
TDX_SIGNATURES: Final = 9
"""Quote, QE report, PCK certificate, its CA, TCB signing certificate, TCB info, QE identity, two CRLs."""
SNP_RSA_SIGNATURES: Final = 3
"""Chip certificate, its issuer, revocation list; the report itself is P-384."""
P256, P384, ED25519 = "P-256", "P-384", "Ed25519"

Check = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Evidence to appraise, and what is in it."""

    name: str
    evidence: bytes
    policy: Policy
    challenge: bytes
    now: int
    signatures: Mapping[str, int]
    """Number of different signatures by kind."""
    checks: Mapping[str, Check]
    """One signature check of each kind."""
    library: Check | None = None
    """dcap-qvl alone on the same quote."""


class _World:
    """One simulated machine with its vendors."""

    def __init__(self) -> None:
        self.intel = DevPlatform.create(NOW - 86_400, os.urandom)
        self.amd = SimulatedAmd(now=NOW, rng=os.urandom)
        self.nvidia = SimulatedNvidia(now=NOW, rng=os.urandom)
        self.board = SimulatedGpus(self.nvidia, self.nvidia.board(), clock=lambda: NOW)
        self.seal_key = generate_seal_keypair()
        self.model, self.config_hash, self.challenge = os.urandom(32), os.urandom(32), os.urandom(32)
        self.snp_release = SnpRelease(
            name="SIMULATED snp", measurement=hashlib.sha384(b"x").digest(), models=(self.model,)
        )

    def policy(self) -> Policy:
        """Accepts every case."""
        return Policy(
            global_id=-3,
            releases=(self.intel.release(), self.snp_release),
            models=frozenset({self.model}),
            min_tcb_evaluation=EVALUATION_NUMBER,
            tee_kinds=frozenset({TeeKind.TDX, TeeKind.SEV_SNP}),
            dev_root=self.intel.root_der,
            snp=simulated_snp_rules(self.amd),
            gpu=dataclasses.replace(self.nvidia.policy(gpu_count=8), gpu_count=None),
        )

    def evidence(
        self, attester: Attester, release: Release | SnpRelease, devices: DeviceSource | None = None
    ) -> bytes:
        """Evidence of an enclave of `release`."""
        binding = KeyBinding(
            node=b"\x01" * 32,
            seal_key_hash=self.seal_key.key_id,
            receipt_key=b"\x02" * 32,
            tls_spki_hash=b"\x03" * 32,
            config_hash=self.config_hash,
            release_id=release.release_id,
            not_before=NOW - 60,
            not_after=NOW + 3600,
            global_id=-3,
        )
        return make_evidence(
            attester,
            binding=binding,
            seal_public_key=self.seal_key.public_key,
            challenge=self.challenge,
            devices=devices,
        )


def tdx_case() -> Case:
    """TDX without GPUs."""
    return _tdx(_World(), gpus=False)


def board_case() -> Case:
    """TDX with eight GPUs and four switches in protected PCIe mode."""
    return _tdx(_World(), gpus=True)


def snp_case() -> Case:
    """SEV-SNP without GPUs."""
    world = _World()
    attester = SimulatedSnpAttester(world.amd, world.snp_release, config_hash=world.config_hash)
    ask, ark = x509.load_pem_x509_certificates(world.amd.chain_pem.encode())
    public: Any = ark.public_key()
    rsa = f"RSA-{public.key_size}"  # simulated vendors have shorter keys than AMD's 4096 bits
    return Case(
        name="SEV-SNP",
        evidence=world.evidence(attester, world.snp_release),
        policy=world.policy(),
        challenge=world.challenge,
        now=NOW,
        signatures={P384: 1, rsa: SNP_RSA_SIGNATURES},
        checks={P384: _ecdsa(ec.SECP384R1(), hashes.SHA384()), rsa: _pss(ask, ark)},
    )


def _tdx(world: _World, *, gpus: bool) -> Case:
    attester = SimulatedAttester(world.intel, clock=lambda: NOW)
    payload = {"gpu": world.board.summary(os.urandom(32))} if gpus else {}
    measure(attester, config_hash=world.config_hash, models=[world.model], **payload)
    devices = world.board.evidence if gpus else None
    evidence = world.evidence(attester, world.intel.release(), devices)
    parsed = parse_evidence(evidence)
    cpu = parsed.cpu
    if not isinstance(cpu, TdxEvidence) or cpu.collateral is None:
        raise RuntimeError("no TDX evidence was made")
    collateral, quote = cpu.collateral, cpu.quote
    signatures = {P256: TDX_SIGNATURES}
    checks: dict[str, Check] = {P256: _ecdsa(ec.SECP256R1(), hashes.SHA256()), ED25519: _ed25519()}
    if gpus:
        signatures[P384] = count_device_signatures(parsed.devices)
        checks[P384] = _ecdsa(ec.SECP384R1(), hashes.SHA384())
    return Case(
        name="TDX, 8 GPUs, 4 switches" if gpus else "TDX",
        evidence=evidence,
        policy=world.policy(),
        challenge=world.challenge,
        now=NOW,
        signatures=signatures,
        checks=checks,
        library=lambda: dcap_verify(quote, collateral, root=world.intel.root_der, now=NOW),
    )


def count_device_signatures(devices: Sequence[DeviceEvidence]) -> int:
    """Different signatures of devices: reports, certificates below the roots, OCSP answers, manifests."""
    found: set[bytes] = set()
    for device in devices:
        found.add(device.report)
        found |= _certificates(x509.load_pem_x509_certificates(device.certificate_chain.encode()))
        for der in device.ocsp_responses:
            response = ocsp.load_der_ocsp_response(der)
            found.add(response.tbs_response_bytes)
            found |= _certificates(response.certificates)
        for rim in device.rims:
            found.add(rim)
            found |= _certificates(parse_rim(rim).chain)
    return len(found)


def _certificates(chain: Iterable[x509.Certificate]) -> set[bytes]:
    """What issuers signed; a pinned root needs no check."""
    return {one.tbs_certificate_bytes for one in chain if one.issuer != one.subject}


def _ecdsa(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> Check:
    key, message = ec.generate_private_key(curve), bytes(1024)
    signature, public = key.sign(message, ec.ECDSA(digest)), key.public_key()
    return lambda: public.verify(signature, message, ec.ECDSA(digest))


def _ed25519() -> Check:
    key, message = Ed25519PrivateKey.generate(), bytes(32)
    signature, public = key.sign(message), key.public_key()
    return lambda: public.verify(signature, message)


def _pss(child: x509.Certificate, issuer: x509.Certificate) -> Check:
    public: Any = issuer.public_key()
    rule = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
    return lambda: public.verify(child.signature, child.tbs_certificate_bytes, rule, hashes.SHA384())
