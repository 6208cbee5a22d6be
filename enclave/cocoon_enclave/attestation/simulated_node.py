"""Simulated nodes with GPUs, and on SEV-SNP: evidence in the real forms under development roots.

There is no hardware behind them and they protect nothing. See docs/spec/simulated-tee.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisers.gpu import joined, measured_devices
from cocoon_attestation.binding import gpu_digest
from cocoon_attestation.errors import UnsupportedError
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.gpu.verify import verify_gpu
from cocoon_attestation.gpu_summary import GpuSummary, Joined
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.types import exact_bytes
from cocoon_enclave.attestation.simulated_gpu import SimulatedDevice, SimulatedNvidia
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd, SimulatedChip

_KINDS: Final = {
    DeviceKind.GPU: evidence_pb2.DEVICE_KIND_GPU,
    DeviceKind.SWITCH: evidence_pb2.DEVICE_KIND_SWITCH,
}


class SimulatedGpus:
    """The GPUs and switches of a simulated node; `evidence` is a `DeviceSource`."""

    def __init__(
        self, vendor: SimulatedNvidia, devices: Sequence[SimulatedDevice], *, clock: Callable[[], float]
    ) -> None:
        """`devices` of `vendor`; `clock` gives Unix time in seconds for the revocation answers."""
        self._vendor = vendor
        self._devices = tuple(devices)
        self._clock = clock

    def evidence(self, nonce: bytes) -> list[evidence_pb2.DeviceEvidence]:
        """Evidence of every device for a nonce of 32 bytes."""
        shown = self._vendor.evidence(self._devices, nonce, now=int(self._clock()))
        return [
            evidence_pb2.DeviceEvidence(
                kind=_KINDS[device.kind],
                report=device.report,
                certificate_chain=device.certificate_chain.decode("ascii"),
                rims=device.rims,
                ocsp_responses=device.ocsp_responses,
            )
            for device in shown
        ]

    def summary(self, boot_nonce: bytes, *, confidential: bool = True, devtools: bool = False) -> bytes:
        """The payload of ``cocoon.gpu`` after the guest attested its own devices at boot.

        Args:
            boot_nonce: 32 bytes chosen by the guest for its own check.
            confidential: what the driver says about confidential computing.
            devtools: what it says about developer tools.

        Raises:
            UnsupportedError: the devices do not pass the guest's own check.
        """
        now = int(self._clock())
        shown = self._vendor.evidence(self._devices, boot_nonce, now=now)
        count = sum(device.kind is DeviceKind.GPU for device in shown)
        rules = self._vendor.policy(gpu_count=count)
        claims, checks = verify_gpu(shown, rules, boot_nonce, datetime.fromtimestamp(now, UTC))
        if not checks.accepted:
            raise UnsupportedError(f"the GPUs do not pass their own check: {checks.failed[0].id}")
        made = GpuSummary(
            confidential=confidential,
            devtools=devtools,
            joined=joined(claims) or Joined.ALONE,
            evidence=gpu_digest([device.report for device in shown]),
            devices=measured_devices(claims),
        )
        return made.encode()


class SimulatedSnpAttester:
    """An `Attester` on a simulated SEV-SNP machine. Everything is measured at launch."""

    def __init__(
        self,
        vendor: SimulatedAmd,
        release: SnpRelease,
        *,
        config_hash: bytes,
        chip: SimulatedChip | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """A guest of `release`; `config_hash` (32 bytes) is put into HOST_DATA at launch.

        Revocation lists are made for the time of `clock` (Unix time), by default that of `vendor`.
        """
        self._vendor = vendor
        self._clock = clock
        self._release = release
        self._host_data = exact_bytes(config_hash, 32, "config hash")
        self._chip = chip or vendor.chip()

    @property
    def kind(self) -> TeeKind:
        """SEV-SNP."""
        return TeeKind.SEV_SNP

    @property
    def simulated(self) -> bool:
        """Always true."""
        return True

    def extend(self, name: str, payload: bytes) -> None:
        """Refused: SEV-SNP has no run-time register.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"SEV-SNP cannot measure {name} at run time", hint="models stand in the measured command line"
        )

    def attest(self, report_data: bytes) -> evidence_pb2.SnpEvidence:
        """Evidence over 64 bytes of report data.

        Raises:
            MalformedError: not 64 bytes.
        """
        return self.sign(self.fields(exact_bytes(report_data, 64, "report data")))

    def fields(self, report_data: bytes) -> ReportFields:
        """The report of a well-behaved guest, before it is signed."""
        return ReportFields(
            product=self._vendor.product,
            measurement=self._release.measurement,
            host_data=self._host_data,
            report_data=report_data,
        )

    def sign(self, fields: ReportFields) -> evidence_pb2.SnpEvidence:
        """Any report of this chip, signed, with its endorsements."""
        return evidence_pb2.SnpEvidence(
            report=self._chip.report(fields),
            certificate=self._chip.certificate,
            issuer_chain=self._vendor.chain_pem,
            crl=self._vendor.crl(now=None if self._clock is None else int(self._clock())),
        )


def simulated_snp_release(
    models: Sequence[bytes], *, gpus: int = 0, version: str | None = None
) -> SnpRelease:
    """Reference values of the simulated SEV-SNP guest.

    They follow from the version of the code and from what a real guest's command line would name.

    Args:
        models: digests of the models, 32 bytes each, in order.
        gpus: number of GPUs.
        version: version string; None for the installed one.
    """
    text = metadata.version("cocoon-network") if version is None else version
    named = "".join(f" model={model.hex()}" for model in models) + f" gpus={gpus}"
    return SnpRelease(
        name=f"SIMULATED {text}"[:127],
        measurement=hashlib.sha384(f"cocoon/v1/simulated/snp/{text}{named}".encode()).digest(),
        models=tuple(models),
        gpus=gpus,
    )


def simulated_snp_rules(vendor: SimulatedAmd) -> SnpPolicy:
    """Rules that name the vendor's development root and are the defaults otherwise."""
    return open_snp_policy(roots=(vendor.root,))
