"""What a verifier asks of GPU evidence beyond its being genuine."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.roots.nvidia import nvidia_device_root, nvidia_rim_root

DEFAULT_MINIMUM_DRIVER: Final[Mapping[str, str]] = MappingProxyType(
    {"GH100": "570.172.08", "GB100": "575.32"}
)
"""Oldest driver by chip."""
DEFAULT_MINIMUM_VBIOS: Final[Mapping[str, str]] = MappingProxyType(
    {"1010": "96.00.9F.00.01", "G520": "96.00.A5.00.01", "G525": "97.00.88.00.0F"}
)
"""Oldest VBIOS by board project. A project that is not named is refused."""
DEFAULT_MINIMUM_SWITCH: Final = "96.10.73.00.01"

RIM_CHECKS: Final = frozenset(
    {"gpu.rim_chain", "gpu.rim_sig", "gpu.rim_ocsp", "gpu.rim_version", "gpu.rim_conflict", "gpu.rim_match"}
)
"""Checks that need manifests."""


class DeviceKind(enum.StrEnum):
    """What a device claims to be; its certificate decides."""

    GPU = "gpu"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPolicy:
    """Rules for GPU and switch evidence. The defaults are what a client session asks for.

    Loosening a ``require_`` field, or leaving `gpu_count` open, makes the checks named by `waived`
    skipped ones, so a list of checks made under it is never `accepted`.
    """

    gpu_count: int | None
    """Exact number of GPUs."""
    device_roots: frozenset[bytes] = field(default_factory=lambda: frozenset({nvidia_device_root()}))
    """DER roots of device chains."""
    rim_roots: frozenset[bytes] = field(default_factory=lambda: frozenset({nvidia_rim_root()}))
    """DER roots of manifest signers."""
    chips: frozenset[str] = frozenset({"GH100", "GB100", "LS_10"})
    minimum_driver: Mapping[str, str] = field(default_factory=lambda: DEFAULT_MINIMUM_DRIVER)
    """By chip. A GPU chip that is not named is refused; an empty mapping sets no minimum."""
    minimum_vbios: Mapping[str, str] = field(default_factory=lambda: DEFAULT_MINIMUM_VBIOS)
    """By board project, like `minimum_driver`."""
    minimum_switch: str = DEFAULT_MINIMUM_SWITCH
    """Oldest switch BIOS; the empty text sets no minimum."""
    modes: frozenset[FeatureFlag] = frozenset(FeatureFlag)
    """Allowed feature flags. All GPUs must have the same one."""
    opaque_versions: frozenset[int] = frozenset({0, 1})
    require_ocsp: bool = True
    ocsp_nonce: bytes | None = None
    """32-byte nonce of the OCSP requests; None: the GPU nonce is used for them too."""
    require_rims: bool = True
    require_switches: bool = True
    """GPUs in protected PCIe mode must come with the evidence of their four switches."""
    allow_missing_fwid: bool = False
    """Accept GPU firmware that reports no FWID (early Hopper)."""
    serials: frozenset[str] = frozenset()
    """Allow-list of device serial numbers (hex, lower case); empty allows all."""
    denied_serials: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.gpu_count is not None and self.gpu_count < 1:
            raise ConfigError("a GPU policy with fewer than one GPU could never accept")
        if not self.device_roots or not self.rim_roots:
            raise ConfigError("a GPU policy needs a device root and a manifest root")
        if not self.chips or not self.modes or not self.opaque_versions:
            raise ConfigError(
                "no chip, mode or version of reports is allowed: the policy could never accept"
            )
        if self.ocsp_nonce is not None and len(self.ocsp_nonce) != 32:
            raise ConfigError("an OCSP nonce has 32 bytes")
        for name in ("minimum_driver", "minimum_vbios"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def waived(self) -> frozenset[str]:
        """Ids of the checks that this policy may leave out; they are then recorded as skipped."""
        waived: set[str] = set()
        if self.gpu_count is None:
            waived.add("gpu.count")
        if not self.require_ocsp:
            waived |= {"gpu.ocsp", "gpu.rim_ocsp"}
        if not self.require_rims:
            waived |= RIM_CHECKS
        if not self.require_switches:
            waived.add("gpu.topology")
        if not self.minimum_driver:
            waived.add("gpu.driver")
        if not self.minimum_vbios or not self.minimum_switch:
            waived.add("gpu.vbios")
        return frozenset(waived)

    @classmethod
    def dangerous_genuine_only(cls) -> GpuPolicy:
        """Ask only whether reports are genuine, fresh and of distinct devices.

        For inspection and conformance runs: no revocation, no manifests unless they are given, any
        driver and firmware version, any number of GPUs.
        """
        return cls(
            gpu_count=None,
            minimum_driver=MappingProxyType({}),
            minimum_vbios=MappingProxyType({}),
            minimum_switch="",
            require_ocsp=False,
            require_rims=False,
            require_switches=False,
            allow_missing_fwid=True,
        )
