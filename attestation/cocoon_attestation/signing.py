"""Ed25519 over the representation hash of a cell: the one way this project signs records."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cocoon_attestation.cell import Cell

SIGNATURE_SIZE = 64


def sign_cell(cell: Cell, key: Ed25519PrivateKey) -> bytes:
    """Sign the 32-byte representation hash of `cell`; returns 64 bytes (RFC 8032, pure Ed25519).

    The tag in front of every record, and `global_id` or the account inside it, separate the domains.
    """
    return key.sign(cell.hash)


def signed_by(cell: Cell, signature: bytes, public_key: bytes) -> bool:
    """True if `signature` is the Ed25519 signature of `public_key` (32 bytes) on the hash of `cell`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, cell.hash)
    except (InvalidSignature, ValueError):
        return False
    return True
