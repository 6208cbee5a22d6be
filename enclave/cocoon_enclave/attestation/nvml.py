"""The seam to NVIDIA's driver library (NVML): what the driver says, and reports of the GPUs.

`Nvml` is what the attester needs; `NvmlLibrary` is the real thing through ``nvidia-ml-py``. NVML knows no
NVLink switches: those are read by another library, behind `SwitchReader`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cocoon_attestation.errors import UnavailableError, UnsupportedError
from cocoon_attestation.gpu_summary import Joined

NO_GPU_HINT: Final = "load NVIDIA's driver in a guest whose GPUs are in confidential-computing mode"
MAX_GPUS: Final = 16
_PRODUCTION: Final = 2
_CAPABLE_CPUS: Final = frozenset({2, 3, 4})
"""NVML_CC_SYSTEM_CPU_CAPS: Intel TDX, AMD SEV-SNP, SNP with vTOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverState:
    """What the driver says about the system. True only as far as the driver in the guest is measured."""

    capable: bool
    """CPU and GPUs can do confidential computing."""
    production: bool
    """The environment is production, not a simulation."""
    confidential: bool
    """Confidential-computing mode is on."""
    devtools: bool
    """Developer tools mode is on: the host can look inside."""
    joined: Joined
    """How several GPUs are joined (NVML's ``multiGpuMode``, same numbers)."""

    @property
    def protected(self) -> bool:
        """True if GPU memory and transfers are protected: the mode, or one that joins several GPUs, is on."""
        return self.confidential or self.joined is not Joined.ALONE


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDevice:
    """One device's answer."""

    report: bytes
    """SPDM request and response."""
    certificate_chain: bytes
    """PEM, leaf first."""


class Nvml(Protocol):
    """The driver. Every method raises `UnsupportedError` (cannot be had here) or `UnavailableError`."""

    def state(self) -> DriverState:
        """What the driver says now."""
        ...

    def gpus(self, nonce: bytes) -> Sequence[RawDevice]:
        """Reports of all GPUs over a nonce of 32 bytes, in the driver's order."""
        ...

    def set_ready(self, ready: bool) -> None:
        """Let the GPUs take work, or not."""
        ...

    def is_ready(self) -> bool:
        """True if the GPUs take work."""
        ...


class SwitchReader(Protocol):
    """Reads NVLink switches, which NVML does not know."""

    def switches(self, nonce: bytes) -> Sequence[RawDevice]:
        """Reports of all switches over a nonce of 32 bytes. Raises like `Nvml`."""
        ...


class NvmlLibrary:
    """`Nvml` on this machine."""

    def __init__(self, library: Any = None) -> None:
        """Load and start the library; `library` stands in for ``pynvml`` in tests.

        Raises:
            UnsupportedError: the library or the driver is not there.
        """
        if library is None:
            try:
                library = importlib.import_module("pynvml")
            except ImportError as error:
                raise UnsupportedError(
                    "nvidia-ml-py is not installed", hint="pip install 'cocoon-network[enclave]'"
                ) from error
        self._lib = library
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            raise UnsupportedError(f"no NVIDIA driver here: {error}", hint=NO_GPU_HINT) from error

    def state(self) -> DriverState:
        """What the driver says now.

        Raises:
            UnsupportedError: the driver does not know confidential computing.
            UnavailableError: it did not answer.
        """
        lib = self._lib
        with self._errors("the state of confidential computing"):
            system = lib.nvmlSystemGetConfComputeState()
            capabilities = lib.nvmlSystemGetConfComputeCapabilities()
            settings = lib.c_nvmlSystemConfComputeSettings_v1_t()
            code = lib.nvmlSystemGetConfComputeSettings(ctypes.byref(settings))
            if code != lib.NVML_SUCCESS:  # unlike the others, this function returns its error
                raise lib.NVMLError(code)
        mode = int(settings.multiGpuMode)
        if mode not in {one.value for one in Joined}:
            raise UnsupportedError(f"the driver joins GPUs in the unknown mode {mode}")
        return DriverState(
            capable=int(capabilities.cpuCaps) in _CAPABLE_CPUS and bool(capabilities.gpusCaps),
            production=int(system.environment) == _PRODUCTION,
            confidential=bool(system.ccFeature),
            devtools=bool(system.devToolsMode) or bool(settings.devToolsMode),
            joined=Joined(mode),
        )

    def gpus(self, nonce: bytes) -> list[RawDevice]:
        """Reports of all GPUs over a nonce of 32 bytes, in the driver's order.

        Raises:
            UnsupportedError: there is no GPU, or one that cannot attest.
            UnavailableError: a GPU did not answer.
        """
        lib = self._lib
        with self._errors("a report of a GPU"):
            count = int(lib.nvmlDeviceGetCount())
            if not 1 <= count <= MAX_GPUS:
                raise UnsupportedError(f"{count} GPUs; 1 to {MAX_GPUS} can be attested", hint=NO_GPU_HINT)
            return [self._device(lib.nvmlDeviceGetHandleByIndex(index), nonce) for index in range(count)]

    def set_ready(self, ready: bool) -> None:
        """Let the GPUs take work, or not.

        Raises:
            UnsupportedError: this process may not (it needs to be root), or the driver cannot.
            UnavailableError: the driver did not answer.
        """
        with self._errors("the ready state"):
            self._lib.nvmlSystemSetConfComputeGpusReadyState(int(ready))

    def is_ready(self) -> bool:
        """True if the GPUs take work.

        Raises:
            UnsupportedError: the driver cannot say.
            UnavailableError: the driver did not answer.
        """
        with self._errors("the ready state"):
            return bool(self._lib.nvmlSystemGetConfComputeGpusReadyState())

    def _device(self, handle: Any, nonce: bytes) -> RawDevice:
        lib = self._lib
        certificate = lib.nvmlDeviceGetConfComputeGpuCertificate(handle)
        report = lib.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
        return RawDevice(
            report=_prefix(report.attestationReport, report.attestationReportSize),
            certificate_chain=_prefix(
                certificate.attestationCertChain, certificate.attestationCertChainSize
            ).rstrip(b"\0"),
        )

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn the library's errors into ours."""
        lib = self._lib
        try:
            yield
        except lib.NVMLError as error:
            lasting = {
                lib.NVML_ERROR_NOT_SUPPORTED,
                lib.NVML_ERROR_FUNCTION_NOT_FOUND,
                lib.NVML_ERROR_NO_PERMISSION,
            }
            if getattr(error, "value", None) in lasting:
                raise UnsupportedError(
                    f"the driver cannot give {what}: {error}", hint=NO_GPU_HINT
                ) from error
            raise UnavailableError(f"the driver did not give {what}: {error}", hint="try again") from error


def _prefix(array: Any, size: int) -> bytes:
    """The first `size` bytes of a C array; a size beyond it is the library's fault, not a crash."""
    data = bytes(array)
    if not 0 < size <= len(data):
        raise UnavailableError("the driver gave an answer of an impossible length", hint="try again")
    return data[:size]
