"""Honest simulated nodes for tests: TDX with and without GPUs, and SEV-SNP."""

from __future__ import annotations

import hashlib
from typing import Any

from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.reference import SnpRelease
from cocoon_attestation.rtmr3 import NO_GPU
from cocoon_enclave.attestation.attester import Attester, DeviceSource, make_evidence, measure
from cocoon_enclave.attestation.simulated import SimulatedAttester
from cocoon_enclave.attestation.simulated_node import SimulatedGpus, SimulatedSnpAttester
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

BOOT_NONCE = b"\x0b" * 32
MEASUREMENT = hashlib.sha384(b"launch").digest()


class Node:
    """An honest simulated node: TEE, devices, keys."""

    def __init__(
        self, lab: Any, attester: Attester, *, release_id: bytes, devices: DeviceSource | None = None
    ) -> None:
        self.lab = lab
        self.attester = attester
        self.devices = devices
        self.binding: KeyBinding = lab.binding(release_id=release_id)

    def evidence(self, challenge: bytes) -> bytes:
        return make_evidence(
            self.attester,
            binding=self.binding,
            seal_public_key=self.lab.seal_public_key,
            challenge=challenge,
            devices=self.devices,
        )


def tdx_node(
    lab: Any, gpus: SimulatedGpus | None, *, payload: bytes | None = None, shown: DeviceSource | None = None
) -> Node:
    """A TDX node with devices; `payload` replaces the measured summary, `shown` the evidence."""
    attester = SimulatedAttester(lab.platform, clock=lambda: lab.now)
    summary = NO_GPU if gpus is None else gpus.summary(BOOT_NONCE)
    measured = summary if payload is None else payload
    measure(attester, config_hash=lab.config_hash, models=[lab.model], gpu=measured)
    source = shown or (gpus.evidence if gpus else None)
    return Node(lab, attester, release_id=lab.release.release_id, devices=source)


def snp_node(lab: Any, amd: SimulatedAmd, release: SnpRelease, **arguments: Any) -> Node:
    attester = SimulatedSnpAttester(amd, release, config_hash=lab.config_hash)
    return Node(lab, attester, release_id=release.release_id, **arguments)
