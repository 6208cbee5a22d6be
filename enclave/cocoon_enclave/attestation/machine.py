"""The machine that the configuration names: its TEE, its GPUs, and which root its evidence leads to."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.reference import SnpRelease
from cocoon_attestation.rtmr3 import NO_GPU
from cocoon_enclave.attestation.attester import Attester, measure
from cocoon_enclave.attestation.gpu_endorsements import FileManifests, HttpOcsp, LiveEndorser
from cocoon_enclave.attestation.nvidia import NvidiaGpus
from cocoon_enclave.attestation.nvml import NvmlLibrary
from cocoon_enclave.attestation.simulated import DevPlatform, SimulatedAttester
from cocoon_enclave.attestation.simulated_driver import SimulatedDriver, SimulatedEndorser
from cocoon_enclave.attestation.simulated_node import SimulatedSnpAttester, simulated_snp_release
from cocoon_enclave.attestation.simulated_vendors import DevVendors, mode_of, simulated_devices
from cocoon_enclave.attestation.snp import SnpAttester
from cocoon_enclave.attestation.snp_table import read_endorsements
from cocoon_enclave.attestation.tdx import TdxAttester, file_collateral
from cocoon_enclave.config import EnclaveConfig
from cocoon_enclave.gpu_config import GpuConfig

Clock = Callable[[], float]
"""Unix time in seconds."""


class Gpus(Protocol):
    """The GPUs and switches of this node; see `NvidiaGpus`."""

    def summary(self, boot_nonce: bytes) -> bytes:
        """Appraise all devices, let them take work, and say what was found."""
        ...

    def evidence(self, nonce: bytes, *, complete: bool = True) -> Sequence[evidence_pb2.DeviceEvidence]:
        """Evidence of every device for a nonce of 32 bytes; `complete`: with all endorsements, or none at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What vouches for this enclave."""

    attester: Attester
    gpus: Gpus | None
    """None on a node without GPUs."""
    dev_root: bytes | None
    """DER of the development root that the evidence leads to; None on hardware."""

    @property
    def simulated(self) -> bool:
        """True if no hardware stands behind the evidence."""
        return self.attester.simulated

    def pass_gate(self) -> bytes:
        """Appraise the GPUs and let them take work; the payload of the event ``cocoon.gpu``. Blocks.

        Raises:
            UnsupportedError: the GPUs are not protected.
            EvidenceRejectedError: a device does not pass this node's own appraisal.
            UnavailableError: driver, manifests or revocation answers cannot be had.
        """
        return NO_GPU if self.gpus is None else self.gpus.summary(secrets.token_bytes(32))

    def measure(self, config: EnclaveConfig, gpu: bytes) -> None:
        """Measure configuration, models and what `pass_gate` gave. Call once, before serving.

        Raises:
            UnsupportedError: the TEE cannot measure.
        """
        models: list[bytes] = [model.digest for model in config.models]
        measure(self.attester, config_hash=config.config_hash, models=models, gpu=gpu)


def make_machine(config: EnclaveConfig, clock: Clock) -> Machine:
    """The machine that `config` names; asks the hardware whether it is there.

    Raises:
        ConfigError: a setting is missing, or contradicts the release.
        UnsupportedError: there is no such TEE, or no such GPU driver, here.
        UnavailableError: the platform did not answer.
    """
    if config.simulated:
        return _simulated(config, clock)
    attester: Attester
    if config.tee == "tdx":
        attester = TdxAttester(collateral=file_collateral(_set(config.collateral, "tee.collateral")))
    else:
        file = config.endorsements
        attester = SnpAttester(
            config_hash=config.config_hash,
            endorsements=None if file is None else lambda: read_endorsements(file),
        )
    gpus = None if config.gpu is None else _nvidia(config.gpu, clock)
    return Machine(attester=attester, gpus=gpus, dev_root=None)


def _nvidia(gpu: GpuConfig, clock: Clock) -> NvidiaGpus:
    return NvidiaGpus(
        NvmlLibrary(),
        policy=gpu.rules,
        endorser=LiveEndorser(FileManifests(_set(gpu.manifests, "gpu.manifests")), HttpOcsp(gpu.ocsp)),
        clock=clock,
    )


def _simulated(config: EnclaveConfig, clock: Clock) -> Machine:
    platform = DevPlatform.load(_set(config.platform, "tee.platform"))
    attester: Attester
    if config.tee == "simulated":
        attester = SimulatedAttester(platform, clock=clock)
    else:
        attester = _simulated_snp(config, _vendors(platform), clock)
    gpus = None if config.gpu is None else _simulated_gpus(config.gpu, _vendors(platform), clock)
    return Machine(attester=attester, gpus=gpus, dev_root=platform.root_der)


def _simulated_snp(config: EnclaveConfig, vendors: DevVendors, clock: Clock) -> SimulatedSnpAttester:
    # As on hardware, what was launched decides, not what the configuration claims to be.
    launched: SnpRelease = simulated_snp_release(
        [model.digest for model in config.models], gpus=0 if config.gpu is None else config.gpu.count
    )
    return SimulatedSnpAttester(
        vendors.amd(int(clock()), secrets.token_bytes),
        launched,
        config_hash=config.config_hash,
        chip=vendors.chip,
        clock=clock,
    )


def _simulated_gpus(gpu: GpuConfig, vendors: DevVendors, clock: Clock) -> NvidiaGpus:
    """The real gate over a simulated driver."""
    vendor, mode = vendors.nvidia(int(clock())), mode_of(gpu.mode, gpu.count)
    devices = simulated_devices(vendor, count=gpu.count, mode=mode)
    driver = SimulatedDriver(devices, mode)
    rules: GpuPolicy = gpu.simulated_rules(vendors.roots)
    return NvidiaGpus(
        driver,
        policy=rules,
        endorser=SimulatedEndorser(vendor, devices, clock=clock),
        clock=clock,
        switches=driver,
    )


def _vendors(platform: DevPlatform) -> DevVendors:
    if platform.vendors is None:
        raise ConfigError(
            "this simulated platform knows neither AMD nor NVIDIA",
            hint="it was made by an older version: start a new development network",
        )
    return platform.vendors


def _set(path: Path | None, name: str) -> Path:
    if path is None:
        raise ConfigError(f"{name}: missing")
    return path
