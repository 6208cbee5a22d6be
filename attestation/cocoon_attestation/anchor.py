"""Anchor orders: what makes a node contract record a checkpoint at the node's own expense.

The contract must accept an external message before it can afford to check a consistency proof, so all
that decides whether the anchor succeeds stands in one signed cell: a changed proof or a replay is refused
before any gas is bought. See docs/spec/log.md and docs/adr/0004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cocoon_attestation.cell import Cell, CellBuilder
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.signing import sign_cell
from cocoon_attestation.types import digest32, uint

ANCHOR_TAG: Final = 0xC0C00008
HASHES_PER_CELL: Final = 3
MAX_PROOF: Final = 128
"""Most hashes in a consistency proof between trees of fewer than 2^64 leaves."""


def proof_cell(hashes: Sequence[bytes]) -> Cell:
    """A consistency proof as a snake of cells, three 32-byte hashes in each; one empty cell for none.

    Raises:
        MalformedError: a hash has not 32 bytes, or there are more than `MAX_PROOF`.
    """
    if len(hashes) > MAX_PROOF:
        raise MalformedError("consistency proof: too many hashes")
    groups = [hashes[i : i + HASHES_PER_CELL] for i in range(0, len(hashes), HASHES_PER_CELL)] or [()]
    tail: Cell | None = None
    for group in reversed(groups):
        builder = CellBuilder()
        for value in group:
            builder.raw(digest32(value, "consistency proof"), 32)
        if tail is not None:
            builder.ref(tail)
        tail = builder.build()
    if tail is None:  # groups is never empty
        raise MalformedError("consistency proof: empty")
    return tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Order to move a node's anchored checkpoint forward. Signed by the receipt key.

    Raises `MalformedError` at construction if a field has the wrong length or range.
    """

    first_size: int
    """Tree size that is anchored now."""
    first_root: bytes
    """Root that is anchored now, 32 bytes; zeros at size 0."""
    checkpoint: Checkpoint
    proof: tuple[bytes, ...]
    """RFC 9162 consistency proof from `first_size` to the checkpoint."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        uint(self.first_size, 64, "anchor first_size")
        digest32(self.first_root, "anchor first_root")

    @property
    def cell(self) -> Cell:
        """The order as a cell (TL-B ``anchor#c0c00008``)."""
        return (
            CellBuilder()
            .uint(ANCHOR_TAG, 32)
            .uint(self.first_size, 64)
            .raw(self.first_root, 32)
            .ref(self.checkpoint.cell)
            .ref(proof_cell(self.proof))
            .build()
        )

    def sign(self, receipt_key: Ed25519PrivateKey) -> bytes:
        """Ed25519 signature on the order, 64 bytes."""
        return sign_cell(self.cell, receipt_key)
