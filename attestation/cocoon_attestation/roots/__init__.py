"""Pinned vendor roots, shipped as package data. See the PROVENANCE.md in each folder."""

from __future__ import annotations

import functools
from typing import Final

from cocoon_attestation.roots.pinned import load_pinned

INTEL_SGX_ROOT_SHA256: Final = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER form of Intel's production SGX root certificate."""


@functools.cache
def intel_root() -> bytes:
    """DER form of the Intel SGX Root CA certificate, the root of every production TDX quote.

    Raises:
        ConfigError: the shipped file is missing or is not the pinned certificate.
    """
    return load_pinned("intel", "sgx_root_ca.der", INTEL_SGX_ROOT_SHA256)
