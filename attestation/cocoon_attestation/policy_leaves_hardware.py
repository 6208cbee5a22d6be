"""Leaf checks of the policy language on what vendors say about hardware: TCB, advisories, GPUs.

Facts come from the claims of the `VerifiedEnclave`. Every rule fails if the enclave does not have the
fact, except those that say so. See docs/spec/policy-language.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.policy_language import Finding
from cocoon_attestation.policy_leaves import require_set
from cocoon_attestation.verified import VerifiedEnclave


@dataclass(frozen=True, slots=True)
class _SerialSet:
    """A rule whose value is a set of serial numbers."""

    name: ClassVar[str] = ""
    values: frozenset[str]
    """Lower-case hex without leading zeros."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for an empty set or a serial number of another form."""
        require_set(self.name, self.values)
        for value in self.values:
            if not 1 <= len(value) <= 64 or value.strip("0123456789abcdef") or value.startswith("0"):
                raise ConfigError(
                    f"policy language: {self.name} needs lower-case hex without leading zeros"
                )

    def to_plain(self) -> object:
        """Sorted."""
        return sorted(self.values)


@dataclass(frozen=True, slots=True)
class TcbEvaluationAtLeast:
    """TDX: tcbEvaluationDataNumber of TCB info and of QE identity is at least this. Others fail."""

    name: ClassVar[str] = "tcb_evaluation_at_least"
    value: int

    def __post_init__(self) -> None:
        """Raises `ConfigError` below 1."""
        _require_positive(self.name, self.value)

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        claim = enclave.claims.get("tcb_evaluation")
        numbers = [one for one in claim if type(one) is int] if isinstance(claim, list) else []
        shown = ", ".join(map(str, numbers)) or "not known"
        return Finding(
            id=f"client.{self.name}",
            ok=bool(numbers) and min(numbers) >= self.value,
            detail=f"TCB evaluation numbers {shown}; at least {self.value}",
        )

    def to_plain(self) -> object:
        """The number."""
        return self.value


@dataclass(frozen=True, slots=True)
class TcbStatusIn:
    """TDX: the converged TCB status is one of these. Others fail."""

    name: ClassVar[str] = "tcb_status_in"
    values: frozenset[str]

    def __post_init__(self) -> None:
        """Raises `ConfigError` for an empty set."""
        require_set(self.name, self.values)

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        status = enclave.claims.get("tcb_status")
        return Finding(
            id="client.tcb_status_in",
            ok=isinstance(status, str) and status in self.values,
            detail=f"TCB status {status if isinstance(status, str) else 'not known'}",
        )

    def to_plain(self) -> object:
        """Sorted."""
        return sorted(self.values)


@dataclass(frozen=True, slots=True)
class AdvisoryNotIn:
    """TDX: none of these advisories concerns the platform's TCB level. Others fail: nothing is known."""

    name: ClassVar[str] = "advisory_not_in"
    values: frozenset[str]

    def __post_init__(self) -> None:
        """Raises `ConfigError` for an empty set."""
        require_set(self.name, self.values)

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        claim = enclave.claims.get("advisories")
        found = sorted(self.values.intersection(claim)) if isinstance(claim, list) else []
        detail = f"advisory {found[0]}" if found else "no listed advisory"
        known = isinstance(claim, list)
        return Finding(
            id=f"client.{self.name}",
            ok=known and not found,
            detail=detail if known else "advisories are not known",
        )

    def to_plain(self) -> object:
        """Sorted."""
        return sorted(self.values)


@dataclass(frozen=True, slots=True)
class TcbNotTolerated:
    """TDX: the platform is up to date; neither grace nor an allow-list was needed. Others fail."""

    name: ClassVar[str] = "tcb_not_tolerated"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        claims = enclave.claims
        current = claims.get("tcb_status") == "UpToDate" and claims.get("tcb_tolerated") is None
        return Finding(
            id=f"client.{self.name}",
            ok=current,
            detail="up to date" if current else f"TCB status {claims.get('tcb_status', 'not known')}",
        )

    def to_plain(self) -> object:
        """Always true: there is no rule that demands an outdated platform."""
        return True


@dataclass(frozen=True, slots=True)
class GpuSerialNotIn(_SerialSet):
    """No attested device, GPU or switch, is one of these (serial numbers of device certificates)."""

    name: ClassVar[str] = "gpu_serial_not_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        found = [serial for serial in _device_serials(enclave) if serial in self.values]
        detail = f"device {found[0]} is listed" if found else "no device is listed"
        return Finding(id=f"client.{self.name}", ok=not found, detail=detail)


@dataclass(frozen=True, slots=True)
class GpuSerialIn(_SerialSet):
    """There is a GPU, and every GPU is one of these (serial numbers of device certificates)."""

    name: ClassVar[str] = "gpu_serial_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        serials = _gpu_serials(enclave)
        foreign = [serial for serial in serials if serial not in self.values]
        detail = (
            "the enclave shows no GPU"
            if not serials
            else f"GPU {foreign[0]} is not listed"
            if foreign
            else f"all {len(serials)} GPUs are listed"
        )
        return Finding(id="client.gpu_serial_in", ok=bool(serials) and not foreign, detail=detail)


@dataclass(frozen=True, slots=True)
class GpuCountAtLeast:
    """The enclave has at least this many attested GPUs, switches not counted."""

    name: ClassVar[str] = "gpu_count_at_least"
    value: int

    def __post_init__(self) -> None:
        """Raises `ConfigError` below 1."""
        _require_positive(self.name, self.value)

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        count = len(_gpu_serials(enclave))
        return Finding(
            id="client.gpu_count_at_least",
            ok=count >= self.value,
            detail=f"{count} GPUs; at least {self.value}",
        )

    def to_plain(self) -> object:
        """The number."""
        return self.value


@dataclass(frozen=True, slots=True)
class NvlinkEncrypted:
    """Several GPUs talk over encrypted NVLink. A single GPU, or none, holds: nothing leaves the package.

    Protected PCIe (Hopper) fails: whoever can touch its baseboard can read NVLink.
    """

    name: ClassVar[str] = "nvlink_encrypted"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        several = len(_gpu_serials(enclave)) > 1
        ok = not several or enclave.claims.get("nvlink_encrypted") is True
        detail = "NVLink is not encrypted" if not ok else "no plain NVLink between GPUs"
        return Finding(id="client.nvlink_encrypted", ok=ok, detail=detail)

    def to_plain(self) -> object:
        """Always true: there is no rule that demands plain NVLink."""
        return True


def _gpu_serials(enclave: VerifiedEnclave) -> list[str]:
    return _device_serials(enclave, "gpu")


def _device_serials(enclave: VerifiedEnclave, kind: str | None = None) -> list[str]:
    devices = enclave.claims.get("devices")
    found = []
    for device in devices if isinstance(devices, (list, tuple)) else ():
        if isinstance(device, Mapping) and kind in (None, device.get("kind")):
            found.append(str(device.get("serial", "")))
    return found


def _require_positive(name: str, value: int) -> None:
    if type(value) is not int or not 1 <= value < 2**31:
        raise ConfigError(f"policy language: {name} needs a number from 1")
