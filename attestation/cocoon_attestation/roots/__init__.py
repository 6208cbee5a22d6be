"""Pinned vendor roots, shipped as package data. See PROVENANCE.md beside this file."""

from __future__ import annotations

import functools
import hashlib
import hmac
from importlib import resources
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.errors import ConfigError

INTEL_SGX_ROOT_SHA256: Final = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER form of Intel's production SGX root certificate."""


@functools.cache
def intel_root() -> bytes:
    """DER form of the Intel SGX Root CA certificate, the root of every production TDX quote.

    Raises:
        ConfigError: the shipped file is missing or is not the pinned certificate.
    """
    try:
        pem = resources.files(__name__).joinpath("intel_sgx_root_ca.pem").read_bytes()
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except (OSError, ValueError) as error:
        raise ConfigError("the pinned Intel root certificate cannot be read") from error
    if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), INTEL_SGX_ROOT_SHA256):
        raise ConfigError(
            "the shipped Intel root certificate is not the pinned one",
            hint="reinstall the package from a trusted source",
        )
    return der
