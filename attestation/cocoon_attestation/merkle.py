"""The append-only Merkle tree of RFC 9162 (section 2.1) over receipt cell hashes.

Leaf hash = SHA-256(0x00 ‖ leaf), node hash = SHA-256(0x01 ‖ left ‖ right), root of the empty tree =
SHA-256 of nothing. `MerkleTree` keeps every complete subtree, so proofs cost a logarithmic number of
hashes. The verifiers raise; they never return a verdict that a caller could forget to read.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final

from cocoon_attestation.errors import LogProofError
from cocoon_attestation.types import Digest32, digest32

EMPTY_ROOT: Final = Digest32(hashlib.sha256(b"").digest())
"""Root of a tree without leaves."""
MAX_PROOF: Final = 128
"""More hashes than any honest proof has: twice the depth of the largest tree (2^64 leaves)."""


def leaf_hash(leaf: bytes) -> Digest32:
    """Hash of a leaf; `leaf` is the 32-byte representation hash of a receipt cell.

    Raises:
        MalformedError: `leaf` is not 32 bytes.
    """
    return Digest32(hashlib.sha256(b"\x00" + digest32(leaf, "log leaf")).digest())


def node_hash(left: bytes, right: bytes) -> Digest32:
    """Hash of an inner node; both arguments are 32 bytes."""
    return Digest32(hashlib.sha256(b"\x01" + left + right).digest())


class MerkleTree:
    """An append-only tree in memory, 64 bytes per leaf. Not safe for use by several threads at once."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0]) // 32

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self)

    def append(self, leaf: bytes) -> int:
        """Add a leaf (32-byte receipt cell hash) and return its index.

        Raises:
            MalformedError: `leaf` is not 32 bytes.
        """
        index = position = len(self)
        carry = leaf_hash(leaf)
        level = 0
        self._levels[0] += carry
        while position % 2:
            carry = node_hash(self._stored(level, position - 1), carry)
            level, position = level + 1, position // 2
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += carry
        return index

    def root(self, size: int | None = None) -> Digest32:
        """Root of the first `size` leaves, or of all.

        Raises:
            LogProofError: the tree is smaller than `size`.
        """
        size = self._checked(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[Digest32, ...]:
        """Audit path of leaf `index` in the tree of the first `size` leaves, leaf level first.

        Raises:
            LogProofError: no such leaf, or the tree is smaller than `size`.
        """
        size = self._checked(size)
        if not 0 <= index < size:
            raise LogProofError(f"no leaf {index} in a tree of {size}")
        path: list[Digest32] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        path.reverse()
        return tuple(path)

    def consistency_proof(self, first: int, second: int | None = None) -> tuple[Digest32, ...]:
        """Proof that the first `first` of `second` leaves are the older tree; empty from 0 or to itself.

        Raises:
            LogProofError: `first` exceeds `second`, or the tree is smaller than `second`.
        """
        second = self._checked(second)
        if not 0 <= first <= second:
            raise LogProofError(f"no consistency proof from {first} to {second}")
        if first in (0, second):
            return ()
        proof: list[Digest32] = []
        start, end = 0, second
        while first != end:
            middle = start + _split(end - start)
            if first <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        if start:
            proof.append(self._range(start, end))
        proof.reverse()
        return tuple(proof)

    def _checked(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise LogProofError(f"the tree has {len(self)} leaves, not {size}")
        return size

    def _stored(self, level: int, position: int) -> Digest32:
        return Digest32(bytes(self._levels[level][32 * position : 32 * position + 32]))

    def _range(self, start: int, end: int) -> Digest32:
        """Hash of the leaves `start` to `end`, where `start` is a multiple of the next power of two."""
        width = end - start
        if width & (width - 1) == 0:
            return self._stored(width.bit_length() - 1, start // width)
        middle = start + _split(width)
        return node_hash(self._range(start, middle), self._range(middle, end))


def _split(width: int) -> int:
    """Largest power of two below `width`, which is at least 2."""
    return 1 << (width - 1).bit_length() - 1


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is at `index` in the tree of `size` leaves with `root` (RFC 9162, 2.1.3.2).

    Raises:
        LogProofError: it is not, or the proof is malformed in any way.
    """
    _check_proof(proof)
    if not 0 <= index < size:
        raise LogProofError("inclusion proof: the index is outside the tree")
    position, last = index, size - 1
    value: bytes = leaf_hash(leaf)
    for sibling in proof:
        if last == 0:
            raise LogProofError("inclusion proof: too long")
        if position % 2 or position == last:
            value = node_hash(sibling, value)
            while position and position % 2 == 0:
                position, last = position // 2, last // 2
        else:
            value = node_hash(value, sibling)
        position, last = position // 2, last // 2
    if last:
        raise LogProofError("inclusion proof: too short")
    if not hmac.compare_digest(value, root):
        raise LogProofError("inclusion proof: it does not lead to the root")


def verify_consistency(
    *, first_size: int, first_root: bytes, second_size: int, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the first tree is a prefix of the second (RFC 9162, 2.1.4.2).

    Every tree extends the empty one: with `first_size` 0 the proof must be empty and `first_root` is
    not looked at (contracts keep zeros there).

    Raises:
        LogProofError: it is not, or the proof is malformed in any way.
    """
    _check_proof(proof)
    if not 0 <= first_size <= second_size:
        raise LogProofError("consistency proof: the log shrank")
    if first_size in (0, second_size):
        if proof:
            raise LogProofError("consistency proof: too long")
        if first_size and not hmac.compare_digest(first_root, second_root):
            raise LogProofError("consistency proof: two roots of one size")
        return
    path = list(proof)
    if first_size & (first_size - 1) == 0:
        path.insert(0, first_root)
    old, new = _walk_consistency(first_size - 1, second_size - 1, path)
    if not (hmac.compare_digest(old, first_root) and hmac.compare_digest(new, second_root)):
        raise LogProofError("consistency proof: it does not lead to the roots")


def _walk_consistency(position: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots that `path` leads to; `position` and `last` are the last leaves of both trees."""
    if not path:
        raise LogProofError("consistency proof: too short")
    while position % 2:
        position, last = position // 2, last // 2
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise LogProofError("consistency proof: too long")
        if position % 2 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while position and position % 2 == 0:
                position, last = position // 2, last // 2
        else:
            new = node_hash(new, sibling)
        position, last = position // 2, last // 2
    if last:
        raise LogProofError("consistency proof: too short")
    return old, new


def _check_proof(proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF or any(len(item) != 32 for item in proof):
        raise LogProofError("log proof: at most 128 hashes of 32 bytes expected")
