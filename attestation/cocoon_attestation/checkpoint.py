"""Checkpoints: a node's signed statement of its log's size and root. See docs/spec/log.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cocoon.v1 import record_pb2
from cocoon_attestation.cell import Cell, CellBuilder, parse_boc
from cocoon_attestation.errors import LogProofError
from cocoon_attestation.signing import sign_cell, signed_by
from cocoon_attestation.types import Digest32, digest32, sint, uint

CHECKPOINT_TAG: Final = 0xC0C00003


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Size and root of one node's log at one time.

    Raises `MalformedError` at construction if a field has the wrong length or range.
    """

    global_id: int
    """TON network."""
    node: bytes
    """Account id of the node contract, 32 bytes."""
    tree_size: int
    """Receipts in the log."""
    root: bytes
    """RFC 9162 root of the first `tree_size` receipts, 32 bytes."""
    issued_at: int
    """Unix time in seconds."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        sint(self.global_id, 32, "checkpoint global_id")
        digest32(self.node, "checkpoint node")
        uint(self.tree_size, 64, "checkpoint tree_size")
        digest32(self.root, "checkpoint root")
        uint(self.issued_at, 32, "checkpoint issued_at")

    @property
    def cell(self) -> Cell:
        """The checkpoint as a cell."""
        return (
            CellBuilder()
            .uint(CHECKPOINT_TAG, 32)
            .sint(self.global_id, 32)
            .raw(self.node, 32)
            .uint(self.tree_size, 64)
            .raw(self.root, 32)
            .uint(self.issued_at, 32)
            .build()
        )

    @property
    def hash(self) -> Digest32:
        """Representation hash."""
        return Digest32(self.cell.hash)

    def to_boc(self) -> bytes:
        """The checkpoint as a bag of cells."""
        return self.cell.to_boc()


def parse_checkpoint(boc: bytes | memoryview) -> Checkpoint:
    """Read a checkpoint from its bag of cells, without looking at any signature.

    Raises:
        MalformedError: anything but one canonical Checkpoint cell.
    """
    root = parse_boc(boc).read()
    root.tag(CHECKPOINT_TAG)
    checkpoint = Checkpoint(
        global_id=root.sint(32),
        node=root.raw(32),
        tree_size=root.uint(64),
        root=root.raw(32),
        issued_at=root.uint(32),
    )
    root.end()
    return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, receipt_key: Ed25519PrivateKey) -> record_pb2.SignedCheckpoint:
    """Sign a checkpoint; the result carries the exact bytes that were hashed."""
    cell = checkpoint.cell
    return record_pb2.SignedCheckpoint(checkpoint=cell.to_boc(), signature=sign_cell(cell, receipt_key))


def verify_checkpoint(signed: record_pb2.SignedCheckpoint, receipt_key: bytes) -> Checkpoint:
    """Return the checkpoint if `receipt_key` (32 bytes, from a verified key binding) signed it.

    The caller compares `global_id` and `node`.

    Raises:
        MalformedError: the cell does not parse.
        LogProofError: the signature is not by `receipt_key`.
    """
    checkpoint = parse_checkpoint(signed.checkpoint)
    if not signed_by(checkpoint.cell, signed.signature, receipt_key):
        raise LogProofError("the checkpoint is not signed by the receipt key of the verified enclave")
    return checkpoint
