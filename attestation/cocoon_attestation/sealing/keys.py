"""Seal keys: HPKE key pairs of the hybrid KEM MLKEM768-X25519.

Public key = ML-KEM-768 key (1184 bytes) ‖ X25519 key (32 bytes). The private key is a 32-byte seed that
SHAKE-256 expands to the ML-KEM seed (64 bytes) and the X25519 key (32 bytes), as X-Wing does
(draft-connolly-cfrg-xwing-kem).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from cocoon_attestation.errors import MalformedError, SealingError
from cocoon_attestation.types import Digest32, exact_bytes

SEAL_PUBLIC_KEY_SIZE: Final = 1216
WRAPPED_KEY_SIZE: Final = 1168
"""KEM ciphertext (1088 + 32) ‖ the 32-byte data encryption key ‖ AES-GCM tag (16)."""

RandomBytes = Callable[[int], bytes]
"""Source of randomness: called with a length, returns as many bytes."""

_MLKEM_PUBLIC_KEY_SIZE: Final = 1184
_MLKEM_SEED_SIZE: Final = 64
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class SealKeyPair:
    """A seal key with its private half. Lives in the enclave's memory only: no repr, no pickling."""

    __slots__ = ("_private", "key_id", "public_key")

    key_id: Digest32
    """SHA-256 of `public_key`: `seal_key_hash` of the key binding."""
    public_key: bytes
    """1216 bytes."""

    def __init__(self, seed: bytes) -> None:
        """Derive the pair from a secret 32-byte seed.

        Raises:
            MalformedError: `seed` is not 32 bytes.
        """
        expanded = hashlib.shake_256(exact_bytes(seed, 32, "seal key seed")).digest(96)
        mlkem_key = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_SIZE])
        x25519_key = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_SIZE:])
        self._private = hpke.MLKEM768X25519PrivateKey(mlkem_key, x25519_key)
        self.public_key = (
            mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()
        )
        self.key_id = Digest32(hashlib.sha256(self.public_key).digest())

    def __repr__(self) -> str:
        return f"SealKeyPair(key_id={self.key_id.hex()})"

    def __reduce__(self) -> NoReturn:
        """Refuse pickling and copying."""
        raise TypeError("SealKeyPair cannot be pickled or copied")

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """Open an HPKE message (base mode, single shot).

        Raises:
            SealingError: not sealed to this key with this `info`.
        """
        try:
            return _SUITE.decrypt(wrapped, self._private, info)
        except (InvalidTag, ValueError):
            raise SealingError from None


def generate_seal_keypair(random: RandomBytes = secrets.token_bytes) -> SealKeyPair:
    """Make a fresh seal key."""
    return SealKeyPair(random(32))


def check_seal_public_key(public_key: bytes) -> None:
    """Check that `public_key` is one that can be sealed to.

    Raises:
        MalformedError: wrong length, or no valid key of the KEM.
    """
    wrap(public_key, b"", b"")


def wrap(public_key: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Seal `plaintext` to `public_key` with HPKE (base mode, single shot).

    Raises:
        MalformedError: `public_key` is not a valid key of the KEM.
    """
    data = exact_bytes(public_key, SEAL_PUBLIC_KEY_SIZE, "seal public key")
    try:
        key = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC_KEY_SIZE]),
            X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC_KEY_SIZE:]),
        )
        return _SUITE.encrypt(plaintext, key, info)
    except ValueError as error:
        raise MalformedError("seal public key: not a key of MLKEM768-X25519") from error
