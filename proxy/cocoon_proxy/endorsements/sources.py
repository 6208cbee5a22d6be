"""Where endorsements come from: the vendors' public services by default, or a cache in between.

These are the only addresses of vendors in the code base.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cocoon_attestation.errors import ConfigError

UPDATES: Final = ("early", "standard")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementSources:
    """Base addresses: https, or http on this machine. Raises `ConfigError` at construction."""

    intel_pcs: str = "https://api.trustedservices.intel.com"
    """Intel PCS, or a PCCS, API version 4."""
    intel_root_crl: str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
    """Revocation list of the Intel SGX root; a PCCS has it at ``/sgx/certification/v4/rootcacrl``."""
    intel_update: str = "early"
    """``early`` gives the newest TCB evaluation number first, ``standard`` some weeks later."""
    amd_kds: str = "https://kdsintf.amd.com"
    """AMD Key Distribution Service."""
    nvidia_rim: str = "https://rim.attestation.nvidia.com"
    """NVIDIA reference manifest service."""
    nvidia_ocsp: str = "https://ocsp.ndis.nvidia.com"
    """NVIDIA OCSP responder."""
    nvidia_token: str = field(default="", repr=False)
    """Bearer token for the manifest service; empty: none is sent."""
    ca_file: Path | None = None
    """Further certificate authority for TLS (PEM), for example that of a PCCS; None: the system's."""

    def __post_init__(self) -> None:
        """Check every address."""
        for name in ("intel_pcs", "intel_root_crl", "amd_kds", "nvidia_rim", "nvidia_ocsp"):
            check_address(getattr(self, name), name)
        if self.intel_update not in UPDATES:
            raise ConfigError(f"intel_update: one of {', '.join(UPDATES)} expected")
        if not self.nvidia_token.isprintable() or not self.nvidia_token.isascii():
            raise ConfigError("nvidia_token: printable ASCII expected")

    def with_pccs(self, address: str) -> EndorsementSources:
        """The same with all of Intel's statements from the PCCS at `address`.

        Raises:
            ConfigError: not such an address.
        """
        base = address.rstrip("/")
        return replace(self, intel_pcs=base, intel_root_crl=f"{base}/sgx/certification/v4/rootcacrl")

    def to_dict(self) -> dict[str, object]:
        """The addresses without the token, JSON-ready."""
        return {
            item.name: str(getattr(self, item.name))
            for item in fields(self)
            if item.name != "nvidia_token" and getattr(self, item.name) is not None
        }


def check_address(address: str, name: str) -> None:
    """Demand https, or http to this machine; no user, query or fragment.

    Raises:
        ConfigError: anything else.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{name}: not an address") from error
    if not host or parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"{name}: an address such as https://host/path expected")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(host)):
        raise ConfigError(f"{name}: https expected; http is for services on this machine")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
