"""Keysets: made at boot and at rotation, inside the TEE, and never written anywhere.

A keyset has a seal key (HPKE), a receipt key (Ed25519) and a TLS key with a self-signed certificate. The
key binding names all three; hardware evidence speaks for the binding. A new keyset replaces the old one
before its end, and the old one still opens requests until then.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from cocoon_attestation.binding import MAX_LIFETIME_S, KeyBinding
from cocoon_attestation.sealing import SealKeyPair, generate_seal_keypair
from cocoon_attestation.types import Digest32
from cocoon_enclave.config import EnclaveConfig

SKEW_S: Final = 60
"""A keyset is valid from this long before it was made: clients' clocks differ."""
TLS_NAME: Final = "cocoon-enclave"
"""Name in the certificate. Nobody trusts it: clients compare the key with the binding."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Keyset:
    """The private half of a key binding. No repr of secrets; never stored, sent or logged."""

    seal: SealKeyPair
    receipt: Ed25519PrivateKey
    tls_key_pem: bytes
    tls_certificate_pem: bytes
    binding: KeyBinding
    binding_boc: bytes
    binding_hash: Digest32

    def __repr__(self) -> str:
        return f"Keyset(binding_hash={self.binding_hash.hex()})"

    def __reduce__(self) -> str:
        """Refuse pickling and copying."""
        raise TypeError("Keyset cannot be pickled or copied")


def generate_keyset(config: EnclaveConfig, now: float) -> Keyset:
    """Make a keyset that is valid from now on for the configured lifetime."""
    not_before = int(now) - SKEW_S
    not_after = min(int(now) + config.key_lifetime_s, not_before + MAX_LIFETIME_S)
    seal, receipt = generate_seal_keypair(), Ed25519PrivateKey.generate()
    tls_key = ec.generate_private_key(ec.SECP256R1())
    spki = tls_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    binding = KeyBinding(
        node=config.node,
        seal_key_hash=seal.key_id,
        receipt_key=receipt.public_key().public_bytes_raw(),
        tls_spki_hash=hashlib.sha256(spki).digest(),
        config_hash=config.config_hash,
        release_id=config.release.release_id,
        not_before=not_before,
        not_after=not_after,
        global_id=config.global_id,
    )
    return Keyset(
        seal=seal,
        receipt=receipt,
        tls_key_pem=tls_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        tls_certificate_pem=_certificate(tls_key, not_before, not_after),
        binding=binding,
        binding_boc=binding.to_boc(),
        binding_hash=binding.hash,
    )


def _certificate(key: ec.EllipticCurvePrivateKey, not_before: int, not_after: int) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, TLS_NAME)])
    utc = datetime.UTC
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(not_before, utc))
        .not_valid_after(datetime.datetime.fromtimestamp(not_after, utc))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(slots=True, kw_only=True)
class Keyring:
    """The current keyset and those before it that are not at their end."""

    current: Keyset
    older: list[Keyset] = field(default_factory=list)

    def rotate(self, keyset: Keyset) -> None:
        """Make `keyset` the current one."""
        self.older.insert(0, self.current)
        self.current = keyset

    def expire(self, now: float) -> None:
        """Forget keysets that are past their end."""
        self.older = [keyset for keyset in self.older if now <= keyset.binding.not_after]

    def open_keys(self, now: float) -> tuple[SealKeyPair, ...]:
        """Seal keys that may open a request now, newest first."""
        return tuple(k.seal for k in (self.current, *self.older) if now <= k.binding.not_after)

    def by_key_id(self, key_id: bytes) -> Keyset:
        """The keyset of a seal key from `open_keys`."""
        return next(k for k in (self.current, *self.older) if k.seal.key_id == key_id)

    def due(self, now: float, overlap_s: float) -> bool:
        """True when the current keyset must be replaced."""
        return now >= self.current.binding.not_after - overlap_s
