"""Leaf checks of the policy language: who and what an enclave is. TCB and GPUs: `policy_leaves_hardware`.

Facts come from the `VerifiedEnclave` that `appraise` issued and from its claims, never from the node's
own words. Every rule fails if the enclave does not have the fact. See docs/spec/policy-language.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Final

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.policy_language import Finding
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.verified import VerifiedEnclave

MAX_VALUES: Final = 4096
"""Most values in one set."""


@dataclass(frozen=True, slots=True)
class _DigestSet:
    """A rule whose value is a set of 32-byte values."""

    name: ClassVar[str] = ""
    values: frozenset[bytes]
    """32 bytes each, at least one."""

    def __post_init__(self) -> None:
        """Check that the set is not empty and the lengths are right; raises `ConfigError`."""
        require_set(self.name, self.values)
        if any(not isinstance(value, bytes) or len(value) != 32 for value in self.values):
            raise ConfigError(f"policy language: {self.name} needs values of 32 bytes")

    def to_plain(self) -> object:
        """Lower-case hex, sorted."""
        return sorted(value.hex() for value in self.values)

    def _found(self, ok: bool, detail: str) -> Finding:
        return Finding(id=f"client.{self.name}", ok=ok, detail=detail)


@dataclass(frozen=True, slots=True)
class PlatformIn(_DigestSet):
    """The machine is one of these (platform ids of docs/spec/appraisal.md)."""

    name: ClassVar[str] = "platform_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        listed = enclave.platform_id in self.values
        return self._found(listed, f"platform {_short(enclave.platform_id)} {_listed(listed)}")


@dataclass(frozen=True, slots=True)
class PlatformNotIn(_DigestSet):
    """The machine is none of these."""

    name: ClassVar[str] = "platform_not_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        listed = enclave.platform_id in self.values
        return self._found(not listed, f"platform {_short(enclave.platform_id)} {_listed(listed)}")


@dataclass(frozen=True, slots=True)
class ReleaseIn(_DigestSet):
    """The release that was measured is one of these."""

    name: ClassVar[str] = "release_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        listed = bytes(enclave.release.release_id) in self.values
        return self._found(listed, f"release {enclave.release.name} {_listed(listed)}")


@dataclass(frozen=True, slots=True)
class ModelIn(_DigestSet):
    """Every model that the enclave loaded is one of these."""

    name: ClassVar[str] = "model_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        foreign = [model for model in enclave.models if model not in self.values]
        detail = f"model {_short(foreign[0])} is not listed" if foreign else "every model is listed"
        return self._found(bool(enclave.models) and not foreign, detail)


@dataclass(frozen=True, slots=True)
class NodeIn(_DigestSet):
    """The node contract that is paid is one of these (account ids)."""

    name: ClassVar[str] = "node_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        listed = enclave.binding.node in self.values
        return self._found(listed, f"node {_short(enclave.binding.node)} {_listed(listed)}")


@dataclass(frozen=True, slots=True)
class ConfigIn(_DigestSet):
    """The measured configuration is one of these (configuration hashes)."""

    name: ClassVar[str] = "config_in"

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        listed = enclave.binding.config_hash in self.values
        return self._found(listed, f"configuration {_short(enclave.binding.config_hash)} {_listed(listed)}")


@dataclass(frozen=True, slots=True)
class TeeIs:
    """The trusted execution environment is of one of these kinds."""

    name: ClassVar[str] = "tee_is"
    values: frozenset[TeeKind]

    def __post_init__(self) -> None:
        """Raises `ConfigError` for an empty set."""
        require_set(self.name, self.values)

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        return Finding(
            id="client.tee_is", ok=enclave.tee in self.values, detail=f"the TEE is {enclave.tee.label}"
        )

    def to_plain(self) -> object:
        """Labels, sorted."""
        return sorted(kind.label for kind in self.values)


@dataclass(frozen=True, slots=True)
class SimulatedIs:
    """The evidence is simulated, or is not. ``False`` demands real hardware."""

    name: ClassVar[str] = "simulated_is"
    value: bool

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        kind = "SIMULATED" if enclave.simulated else "of real hardware"
        return Finding(
            id="client.simulated_is", ok=enclave.simulated is self.value, detail=f"the evidence is {kind}"
        )

    def to_plain(self) -> object:
        """The flag."""
        return self.value


def require_set(name: str, values: Collection[object]) -> None:
    """Demand a set of 1 to `MAX_VALUES` values; raises `ConfigError`."""
    if not isinstance(values, frozenset) or not 1 <= len(values) <= MAX_VALUES:
        raise ConfigError(f"policy language: {name} needs 1 to {MAX_VALUES} values")


def _listed(listed: bool) -> str:
    return "is listed" if listed else "is not listed"


def _short(value: bytes) -> str:
    return f"{value.hex()[:16]}…"
