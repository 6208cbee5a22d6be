"""One Merkle proof being read: refuses pruned cells, remembers what was read, shrinks to that."""

from __future__ import annotations

from pytoniq_core import Cell, Slice
from pytoniq_core.boc.tvm_bitarray import TvmBitarray

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.boc import MERKLE_PROOF, MERKLE_UPDATE, ORDINARY, PRUNED


class ProofTree:
    """The cells under a Merkle proof whose root hash was checked."""

    def __init__(self, proof: Cell, root_hash: bytes) -> None:
        """Raises `ChainProofError` if `proof` is not a Merkle proof for `root_hash`.

        The parser already checked that the proof cell states its child's hash; the child's hash is
        computed from the cells themselves.
        """
        if proof.type_ != MERKLE_PROOF or proof.refs[0].get_hash(0) != root_hash:
            raise ChainProofError("Merkle proof is for something else")
        self.root: Cell = proof.refs[0]
        self._read: set[bytes] = set()

    def open(self, cell: Cell) -> Slice:
        """Start reading an ordinary cell of the tree. A pruned or other exotic cell is refused."""
        if cell.type_ != ORDINARY:
            raise ChainProofError("proof does not show a cell that it must show")
        self._read.add(cell.hash)
        part: Slice = cell.begin_parse()
        return part

    def update_target(self, cell: Cell) -> bytes:
        """The hash of the new state in a Merkle update cell of the tree."""
        if cell.type_ != MERKLE_UPDATE:
            raise ChainProofError("proof does not show the state update")
        self._read.add(cell.hash)
        return bytes(cell.refs[1].get_hash(0))

    def minimal(self) -> Cell:
        """The Merkle proof that shows exactly the cells that were read."""
        memo: dict[bytes, Cell] = {}
        return merkle_proof(self._shrink(self.root, memo))

    def _shrink(self, cell: Cell, memo: dict[bytes, Cell]) -> Cell:
        if cell.hash not in memo:
            memo[cell.hash] = self._shrink_new(cell, memo)
        return memo[cell.hash]

    def _shrink_new(self, cell: Cell, memo: dict[bytes, Cell]) -> Cell:
        if cell.hash not in self._read:
            return cell if cell.type_ == PRUNED else pruned_branch(cell)
        if cell.type_ == MERKLE_UPDATE:
            return Cell(cell.bits, [_prune_deeper(ref) for ref in cell.refs], cell.type_)
        return Cell(cell.bits, [self._shrink(ref, memo) for ref in cell.refs], cell.type_)


def merkle_proof(root: Cell) -> Cell:
    """Merkle proof cell over `root`, which may contain pruned branches of level 1."""
    return Cell(_bits(b"\x03" + _identity(root)), [root], MERKLE_PROOF)


def pruned_branch(cell: Cell) -> Cell:
    """Pruned branch of level 1 in place of `cell`."""
    return Cell(_bits(b"\x01\x01" + _identity(cell)), [], PRUNED)


def _prune_deeper(cell: Cell) -> Cell:
    """Prune a child of a Merkle update: it is one Merkle level deeper, so the branch is of level 2.

    If the child has pruned parts of its own (level 1), the branch keeps both of its hashes.
    """
    if cell.type_ == PRUNED:
        return cell
    levels = [0, 1] if cell.level_mask.mask & 1 else [0]
    hashes = b"".join(bytes(cell.get_hash(level)) for level in levels)
    depths = b"".join(int(cell.get_depth(level)).to_bytes(2, "big") for level in levels)
    mask = 2 | (cell.level_mask.mask & 1)
    return Cell(_bits(bytes([PRUNED, mask]) + hashes + depths), [], PRUNED)


def _identity(cell: Cell) -> bytes:
    return bytes(cell.get_hash(0)) + int(cell.get_depth(0)).to_bytes(2, "big")


def _bits(data: bytes) -> TvmBitarray:
    bits = TvmBitarray(1023)
    bits.frombytes(data)
    return bits
