"""A simulated NVIDIA driver: the real GPU gate runs on it, with simulated devices behind.

See docs/spec/simulated-tee.md. Nothing here protects anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from cocoon_attestation.errors import UnavailableError
from cocoon_attestation.gpu.certificates import parse_pem_chain
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.gpu_summary import Joined
from cocoon_enclave.attestation.nvml import DriverState, RawDevice
from cocoon_enclave.attestation.simulated_gpu import SimulatedDevice, SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import chain_pem

_JOINED: Final = {
    FeatureFlag.SINGLE: Joined.ALONE,
    FeatureFlag.PPCIE: Joined.PROTECTED_PCIE,
    FeatureFlag.MULTI: Joined.NVLINK,
}


class SimulatedDriver:
    """The driver and the switch library of a simulated node: `Nvml` and `SwitchReader`."""

    def __init__(self, devices: Sequence[SimulatedDevice], mode: FeatureFlag) -> None:
        """`devices` of a node whose GPUs are joined as `mode` says."""
        self._devices = tuple(devices)
        self._ready = False
        self._state = DriverState(
            capable=True, production=True, confidential=True, devtools=False, joined=_JOINED[mode]
        )

    def state(self) -> DriverState:
        """A well-behaved driver: everything is protected."""
        return self._state

    def gpus(self, nonce: bytes) -> list[RawDevice]:
        """Reports of all GPUs."""
        return self._reports(DeviceKind.GPU, nonce)

    def switches(self, nonce: bytes) -> list[RawDevice]:
        """Reports of all switches."""
        return self._reports(DeviceKind.SWITCH, nonce)

    def set_ready(self, ready: bool) -> None:
        """Let the GPUs take work, or not."""
        self._ready = ready

    def is_ready(self) -> bool:
        """True if the GPUs take work."""
        return self._ready

    def _reports(self, kind: DeviceKind, nonce: bytes) -> list[RawDevice]:
        return [
            RawDevice(report=one.report(nonce), certificate_chain=chain_pem(one.chain))
            for one in self._devices
            if one.kind is kind
        ]


class SimulatedEndorser:
    """Manifests and revocation answers of the simulated vendor: a `GpuEndorser`."""

    def __init__(
        self, vendor: SimulatedNvidia, devices: Sequence[SimulatedDevice], *, clock: Callable[[], float]
    ) -> None:
        """For `devices` of `vendor`; `clock` gives Unix time in seconds for the answers."""
        self._vendor = vendor
        self._clock = clock
        self._devices = {device.chain[1].certificate.serial_number: device for device in devices}

    def endorse(self, devices: Sequence[GpuDevice], nonce: bytes) -> tuple[GpuDevice, ...]:
        """The devices with everything that vouches for them; answers carry `nonce` (32 bytes).

        Raises:
            UnavailableError: a device of somebody else.
        """
        at = datetime.fromtimestamp(int(self._clock()), UTC)
        answers: dict[bytes, bytes] = {}
        endorsed = []
        for shown in devices:
            own = self._devices.get(parse_pem_chain(shown.certificate_chain)[1].serial_number)
            if own is None:
                raise UnavailableError("the simulated vendor does not know this device")
            pairs = [*pairwise(own.chain[1:]), *pairwise(own.rim_chain)]
            for child, issuer in pairs:
                if child.der not in answers:
                    answers[child.der] = self._vendor.answer(child.certificate, issuer, nonce, at)
            responses = tuple(answers[child.der] for child, _ in pairs)
            endorsed.append(replace(shown, rims=own.rims, ocsp_responses=responses))
        return tuple(endorsed)
