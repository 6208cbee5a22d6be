"""The parts of a policy for AMD and NVIDIA: their canonical form, and what a policy for sessions must have."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Mapping
from typing import Final

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.roots.nvidia import nvidia_device_root, nvidia_rim_root
from cocoon_attestation.snp.policy import SnpPolicy, SnpRoot, amd_roots
from cocoon_attestation.snp.report import TcbVersion

SNP_FILLED_IN: Final = frozenset({"snp.measurement", "snp.report_data", "snp.host_data"})
"""Checks whose expected values appraisal knows better than any policy."""
GPU_FILLED_IN: Final = frozenset({"gpu.count"})


def open_snp_policy(**changes: object) -> SnpPolicy:
    """The default rules for SEV-SNP as a part of a policy: what appraisal fills in is left open."""
    rules = SnpPolicy(measurements=None, report_data=None, host_data=None)
    return dataclasses.replace(rules, **changes)  # type: ignore[arg-type]  # names and types are SnpPolicy's


def require_strict(snp: SnpPolicy | None, gpu: GpuPolicy | None) -> None:
    """Refuse parts under which a check would be skipped: such a policy could never accept.

    Raises:
        ConfigError: a check is waived, or a value that appraisal fills in is set.
    """
    if snp is not None:
        if SNP_FILLED_IN - snp.waived:
            raise ConfigError(
                "policy: measurement, report data and host data of snp follow from the releases"
            )
        if waived := sorted(snp.waived - SNP_FILLED_IN):
            raise ConfigError(f"policy: snp waives {waived[0]}, so it could never accept")
    if gpu is not None and (waived := sorted(gpu.waived - GPU_FILLED_IN)):
        raise ConfigError(f"policy: gpu waives {waived[0]}, so it could never accept")


def check_vendor_roots(snp: SnpPolicy | None, gpu: GpuPolicy | None, *, simulated: bool) -> None:
    """A policy is simulated as a whole or not at all: roots of vendors and of development never mix.

    Raises:
        ConfigError: they do.
    """
    amd = frozenset(root.der for root in amd_roots())
    if snp is not None:
        for root in snp.roots:
            if root.simulated is not simulated or (root.der in amd) is simulated:
                raise ConfigError("policy: roots of AMD and of a development network do not mix")
    if gpu is not None:
        genuine = frozenset({nvidia_device_root(), nvidia_rim_root()})
        named = gpu.device_roots | gpu.rim_roots
        if (named & genuine) if simulated else (named - genuine):
            raise ConfigError("policy: roots of NVIDIA and of a development network do not mix")


def snp_to_dict(rules: SnpPolicy) -> dict[str, object]:
    """The rules as a JSON-ready object: every field by its name, roots by product and SHA-256."""
    return {field.name: _plain(getattr(rules, field.name)) for field in dataclasses.fields(rules)}


def gpu_to_dict(rules: GpuPolicy) -> dict[str, object]:
    """The rules as a JSON-ready object: every field by its name, roots by SHA-256."""
    document = {field.name: _plain(getattr(rules, field.name)) for field in dataclasses.fields(rules)}
    for name in ("device_roots", "rim_roots"):
        document[name] = sorted(hashlib.sha256(der).hexdigest() for der in getattr(rules, name))
    return document


def _plain(value: object) -> object:
    """JSON form: bytes as hex, enumerations by value, sets sorted, mappings with text keys."""
    if isinstance(value, SnpRoot):
        return f"{value.product.value}:{hashlib.sha256(value.der).hexdigest()}"
    if isinstance(value, TcbVersion):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
