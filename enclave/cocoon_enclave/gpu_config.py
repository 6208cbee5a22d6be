"""The table ``[gpu]`` of the enclave's configuration: which GPUs the node must have, and what vouches for them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cocoon_attestation.dev_roots import DevRoots
from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.policy_toml_vendor import gpu_from_table
from cocoon_attestation.policy_vendor import gpu_to_dict, require_strict
from cocoon_attestation.reference import MAX_GPUS
from cocoon_enclave.toml_table import Table

MODES: Final = ("single", "multi", "ppcie")
DEFAULT_OCSP: Final = "https://ocsp.ndis.nvidia.com"
_FORBIDDEN: Final = frozenset({"gpu_count", "dev_device_roots", "dev_rim_roots", "ocsp_nonce"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConfig:
    """GPUs of a node."""

    count: int
    """Number of GPUs, without switches, 1 to 16; the node does not start with another number. Measured."""
    policy: Path | None = None
    """TOML file with keys of a policy's table ``[gpu]``: rules of the node's own check. Measured, as `rules`."""
    rules: GpuPolicy
    """The rules, with the number of GPUs; the defaults of client sessions without a file."""
    manifests: Path | None = None
    """Hardware: directory with NVIDIA's manifests, refreshed by the host."""
    ocsp: str = DEFAULT_OCSP
    """Hardware: address of the OCSP responder."""
    mode: str = ""
    """Simulated TEE: how the GPUs are joined, ``single``, ``multi`` or ``ppcie``; empty: usual for `count`."""

    @property
    def measured(self) -> dict[str, object]:
        """The measured part, JSON-ready."""
        return {"count": self.count, "rules": gpu_to_dict(self.rules)}

    @property
    def table(self) -> dict[str, object]:
        """Keys and values for the file."""
        defaults = {"ocsp": DEFAULT_OCSP, "mode": ""}
        values: dict[str, object] = {
            "count": self.count,
            "policy": self.policy,
            "manifests": self.manifests,
            "ocsp": self.ocsp,
            "mode": self.mode,
        }
        return {key: value for key, value in values.items() if defaults.get(key) != value}

    def simulated_rules(self, roots: DevRoots) -> GpuPolicy:
        """The rules under the roots of a development network.

        Raises:
            ConfigError: the network has no such roots.
        """
        development = roots.gpu
        if development is None:
            raise ConfigError("gpu: this development network has no simulated GPU vendor")
        return replace(self.rules, device_roots=development.device_roots, rim_roots=development.rim_roots)


def gpu_config(count: int, *, mode: str = "") -> GpuConfig:
    """Settings with the default rules, for simulated nodes."""
    return GpuConfig(count=count, rules=GpuPolicy(gpu_count=count), mode=mode)


def read_gpu(table: Table, *, simulated: bool) -> GpuConfig:
    """Read the table and the policy file that it names.

    Raises:
        ConfigError: an unknown or missing key, one of the other kind of machine, or a bad policy file.
    """
    count = table.integer("count", low=1, high=MAX_GPUS)
    file = table.path_or_none("policy")
    rules = GpuPolicy(gpu_count=count) if file is None else replace(_rules(file), gpu_count=count)
    own: dict[str, object] = {}
    if simulated:
        if table.has("mode"):
            own["mode"] = table.choice("mode", MODES)
    else:
        own["manifests"] = table.path("manifests")
        own["ocsp"] = table.text("ocsp", DEFAULT_OCSP)
    table.end()
    return GpuConfig(count=count, policy=file, rules=rules, **own)  # type: ignore[arg-type]  # read above


def _rules(path: Path) -> GpuPolicy:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if forbidden := sorted(_FORBIDDEN & table.keys()):
            raise ConfigError(f"{forbidden[0]} cannot be set for a node's own check")
        rules = gpu_from_table(table)
        require_strict(None, rules)
    except OSError as error:
        raise ConfigError(f"gpu.policy: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError, MalformedError, ConfigError) as error:
        raise ConfigError(f"gpu.policy {path}: {error}") from error
    return rules
