"""Loads a certificate shipped as package data and checks it against a digest written in code."""

import hashlib
import hmac
from importlib import resources

from cocoon_attestation.errors import ConfigError


def load_pinned(folder: str, file: str, sha256: str) -> bytes:
    """Return the DER bytes of ``roots/<folder>/<file>``.

    Raises:
        ConfigError: the file is missing, or its SHA-256 is not `sha256` (64 hex digits).
    """
    try:
        der = resources.files(__package__).joinpath(folder, file).read_bytes()
    except OSError as error:
        raise ConfigError(f"the pinned certificate {folder}/{file} cannot be read") from error
    if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), sha256):
        raise ConfigError(
            f"the shipped certificate {folder}/{file} is not the pinned one",
            hint="reinstall the package from a trusted source",
        )
    return der
