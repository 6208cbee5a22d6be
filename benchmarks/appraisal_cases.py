"""Simulated evidence for the appraisal benchmark, and the signatures that it contains."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appraisal_floor import (  # type: ignore[import-not-found]
    P256,
    P384,
    TDX_DIFFERENT,
    TDX_PRESENTED,
    TDX_TWICE,
    Call,
    Library,
    count_device_signatures,
    dcap_library,
    decoding_library,
    ecdsa_check,
    evidence_hash,
    manifest_library,
    pss_check,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.evidence import TdxEvidence, parse_evidence
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release, SnpRelease, TeeKind
from cocoon_attestation.sealing.keys import generate_seal_keypair
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
SNP_RSA_SIGNATURES: Final = 3
"""Chip certificate, its issuer, revocation list; the report itself is P-384."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Evidence to appraise, and what is in it."""

    name: str
    policy: Policy
    now: int
    evidence: bytes
    challenge: bytes
    next_evidence: bytes
    """Of the same machine, for another challenge."""
    next_challenge: bytes
    signatures: Mapping[str, int]
    """Number of different signatures by kind."""
    presented: int
    """Number of signatures with all repetitions."""
    checks: Mapping[str, Call]
    """One signature check of each kind."""
    repeated: Mapping[str, int] = field(default_factory=dict)
    """Signatures that two implementations check, by kind."""
    libraries: Mapping[str, Library] = field(default_factory=dict)
    """Library calls that the appraisal cannot do without, by name."""


class _World:
    """One simulated machine with its vendors."""

    def __init__(self) -> None:
        self.intel = DevPlatform.create(NOW - 86_400, os.urandom)
        self.amd = SimulatedAmd(now=NOW, rng=os.urandom)
        self.nvidia = SimulatedNvidia(now=NOW, rng=os.urandom)
        self.board = SimulatedGpus(self.nvidia, self.nvidia.board(), clock=lambda: NOW)
        self.seal_key = generate_seal_keypair()
        self.model, self.config_hash = os.urandom(32), os.urandom(32)
        self.challenge, self.next_challenge = os.urandom(32), os.urandom(32)
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

    def case(
        self,
        name: str,
        attester: Attester,
        release: Release | SnpRelease,
        devices: DeviceSource | None = None,
        **counted: Any,
    ) -> Case:
        """Evidence of one machine for two challenges."""
        first, second = (
            self._evidence(attester, release, challenge, devices)
            for challenge in (self.challenge, self.next_challenge)
        )
        return Case(
            name=name,
            policy=self.policy(),
            now=NOW,
            evidence=first,
            challenge=self.challenge,
            next_evidence=second,
            next_challenge=self.next_challenge,
            **counted,
        )

    def _evidence(
        self,
        attester: Attester,
        release: Release | SnpRelease,
        challenge: bytes,
        devices: DeviceSource | None,
    ) -> bytes:
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
            challenge=challenge,
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
    return world.case(
        "SEV-SNP",
        attester,
        world.snp_release,
        signatures={P384: 1, rsa: SNP_RSA_SIGNATURES},
        presented=1 + SNP_RSA_SIGNATURES,
        checks={P384: ecdsa_check(ec.SECP384R1(), hashes.SHA384()), rsa: pss_check(ask, ark)},
    )


def _tdx(world: _World, *, gpus: bool) -> Case:
    attester = SimulatedAttester(world.intel, clock=lambda: NOW)
    payload = {"gpu": world.board.summary(os.urandom(32))} if gpus else {}
    measure(attester, config_hash=world.config_hash, models=[world.model], **payload)
    made = world.case(
        "TDX, 8 GPUs, 4 switches" if gpus else "TDX",
        attester,
        world.intel.release(),
        world.board.evidence if gpus else None,
        signatures={P256: TDX_DIFFERENT},
        presented=TDX_PRESENTED,
        checks={P256: ecdsa_check(ec.SECP256R1(), hashes.SHA256())},
        repeated={P256: TDX_TWICE},
    )
    return _with_parts(made, world.intel.root_der)


def _with_parts(made: Case, root: bytes) -> Case:
    """Count the signatures of devices, and name the library calls."""
    parsed = parse_evidence(made.evidence)
    cpu, devices = parsed.cpu, parsed.devices
    if not isinstance(cpu, TdxEvidence) or cpu.collateral is None:
        raise RuntimeError("no TDX evidence was made")
    libraries = {"dcap-qvl": dcap_library(cpu.quote, cpu.collateral, root=root, now=NOW)}
    if not devices:
        return dataclasses.replace(made, libraries=libraries)
    different, presented = count_device_signatures(devices)
    libraries |= {
        "signxml and lxml, manifests": manifest_library(devices),
        "cryptography, decoding": decoding_library(devices),
        "SHA-256 of the evidence": evidence_hash(made.evidence),
    }
    return dataclasses.replace(
        made,
        signatures={**made.signatures, P384: different},
        presented=made.presented + presented,
        checks={**made.checks, P384: ecdsa_check(ec.SECP384R1(), hashes.SHA384())},
        libraries=libraries,
    )
