"""The key binding: which keys an enclave holds, for which node, on which TON network.

The binding is a cell; its representation hash goes into the report data of the hardware quote, so the
quote speaks for exactly these keys. See docs/spec/records.md, sections 2 and 3.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.cell import Cell, CellBuilder, parse_boc
from cocoon_attestation.types import ZERO_DIGEST, Digest32, digest32, sint, uint

KEY_BINDING_TAG: Final = 0xC0C00001
MAX_LIFETIME_S: Final = 24 * 3600
"""Longest allowed time from `not_before` to `not_after`; appraisal checks it."""
REPORT_DATA_SIZE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBinding:
    """The public half of an enclave's keyset. All digests are 32 bytes.

    Raises `MalformedError` at construction if a field has the wrong length or range.
    """

    node: bytes
    """Account id of the node contract that is paid."""
    seal_key_hash: bytes
    """SHA-256 of the HPKE public key; also the `key_id` of sealed requests."""
    receipt_key: bytes
    """Ed25519 public key that signs receipts, checkpoints and claims."""
    tls_spki_hash: bytes
    """SHA-256 of the DER SubjectPublicKeyInfo of the TLS certificate."""
    config_hash: bytes
    """SHA-256 of the measured configuration."""
    release_id: bytes
    """Representation hash of the release cell."""
    not_before: int
    """Unix time in seconds from which the keys are used."""
    not_after: int
    """Unix time in seconds after which nothing may be sealed to them."""
    global_id: int
    """TON network: -239 mainnet, -3 testnet; any other value is a private network."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        for name in ("node", "seal_key_hash", "receipt_key", "tls_spki_hash", "config_hash", "release_id"):
            digest32(getattr(self, name), f"key binding {name}")
        uint(self.not_before, 32, "key binding not_before")
        uint(self.not_after, 32, "key binding not_after")
        sint(self.global_id, 32, "key binding global_id")

    @property
    def cell(self) -> Cell:
        """The binding as a cell."""
        rest = (
            CellBuilder()
            .raw(self.tls_spki_hash, 32)
            .raw(self.config_hash, 32)
            .raw(self.release_id, 32)
            .uint(self.not_before, 32)
            .uint(self.not_after, 32)
            .sint(self.global_id, 32)
            .build()
        )
        return (
            CellBuilder()
            .uint(KEY_BINDING_TAG, 32)
            .raw(self.node, 32)
            .raw(self.seal_key_hash, 32)
            .raw(self.receipt_key, 32)
            .ref(rest)
            .build()
        )

    @property
    def hash(self) -> Digest32:
        """`binding_hash`: the representation hash of the cell."""
        return _binding_hash(self)

    def to_boc(self) -> bytes:
        """The binding as a bag of cells."""
        return self.cell.to_boc()


@functools.lru_cache(maxsize=64)
def _binding_hash(binding: KeyBinding) -> Digest32:
    """An appraisal asks for the hash of its binding several times."""
    return Digest32(binding.cell.hash)


def parse_key_binding(boc: bytes | memoryview) -> KeyBinding:
    """Read a key binding from its bag of cells.

    Raises:
        MalformedError: anything but one canonical KeyBinding cell.
    """
    return key_binding_from_cell(parse_boc(boc))


def key_binding_from_cell(cell: Cell) -> KeyBinding:
    """Read a key binding from its root cell.

    Raises:
        MalformedError: another record, or bits or references left over.
    """
    root = cell.read()
    root.tag(KEY_BINDING_TAG)
    node, seal_key_hash, receipt_key = root.raw(32), root.raw(32), root.raw(32)
    rest = root.ref()
    root.end()
    tls_spki_hash, config_hash, release_id = rest.raw(32), rest.raw(32), rest.raw(32)
    not_before, not_after, global_id = rest.uint(32), rest.uint(32), rest.sint(32)
    rest.end()
    return KeyBinding(
        node=node,
        seal_key_hash=seal_key_hash,
        receipt_key=receipt_key,
        tls_spki_hash=tls_spki_hash,
        config_hash=config_hash,
        release_id=release_id,
        not_before=not_before,
        not_after=not_after,
        global_id=global_id,
    )


def report_data(binding_hash: bytes, gpu_digest: bytes, challenge: bytes) -> bytes:
    """The 64 bytes that the hardware signs: H(tag ‖ binding_hash ‖ gpu_digest) ‖ challenge.

    Raises:
        MalformedError: an argument is not 32 bytes.
    """
    head = hashlib.sha256(report_data_preimage(binding_hash, gpu_digest)).digest()
    return head + digest32(challenge, "challenge")


def report_data_preimage(binding_hash: bytes, gpu_digest: bytes) -> bytes:
    """The bytes whose SHA-256 is the first half of the report data.

    Raises:
        MalformedError: an argument is not 32 bytes.
    """
    binding_hash = digest32(binding_hash, "binding hash")
    return b"cocoon/v1/report-data" + binding_hash + digest32(gpu_digest, "gpu digest")


def gpu_nonce(binding_hash: bytes, challenge: bytes) -> Digest32:
    """The nonce that every GPU must sign: H(tag ‖ binding_hash ‖ challenge).

    Raises:
        MalformedError: an argument is not 32 bytes.
    """
    return Digest32(hashlib.sha256(gpu_nonce_preimage(binding_hash, challenge)).digest())


def gpu_nonce_preimage(binding_hash: bytes, challenge: bytes) -> bytes:
    """The bytes whose SHA-256 is the nonce of every GPU; raises as `gpu_nonce`."""
    message = digest32(binding_hash, "binding hash") + digest32(challenge, "challenge")
    return b"cocoon/v1/gpu-nonce" + message


def gpu_digest(evidence: Sequence[bytes]) -> Digest32:
    """Digest over the evidence of every device, in device order; 32 zero bytes without devices.

    Each element is prefixed with its length as u32, so no two lists have the same digest.
    """
    return Digest32(hashlib.sha256(gpu_preimage(evidence)).digest()) if evidence else ZERO_DIGEST


def gpu_preimage(evidence: Sequence[bytes]) -> bytes:
    """The bytes whose SHA-256 is `gpu_digest` of one or more devices."""
    lengths = [uint(len(item), 32, "gpu evidence length").to_bytes(4) for item in evidence]
    return b"cocoon/v1/gpu" + b"".join(
        length + item for length, item in zip(lengths, evidence, strict=True)
    )


def beacon_challenge(seqno: int, root_hash: bytes) -> Digest32:
    """The challenge made from a masterchain block: H(tag ‖ seqno u32 ‖ root_hash).

    Raises:
        MalformedError: `seqno` is no u32, or `root_hash` is not 32 bytes.
    """
    return Digest32(hashlib.sha256(beacon_preimage(seqno, root_hash)).digest())


def beacon_preimage(seqno: int, root_hash: bytes) -> bytes:
    """The bytes whose SHA-256 is the challenge of a block; raises as `beacon_challenge`."""
    message = uint(seqno, 32, "seqno").to_bytes(4) + digest32(root_hash, "root hash")
    return b"cocoon/v1/beacon" + message
