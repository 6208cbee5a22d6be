"""The log tree against a literal reading of RFC 9162, section 2.1, written down here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import LogProofError, MalformedError
from cocoon_attestation.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def split(count: int) -> int:
    k = 1
    while 2 * k < count:
        k *= 2
    return k


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of 2.1.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0])
    k = split(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], complete: bool) -> list[bytes]:
    """SUBPROOF of 2.1.4.1."""
    if m == len(leaves):
        return [] if complete else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], complete), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def leaf(index: int) -> bytes:
    return sha256(b"leaf %d" % index)


LEAVES = [leaf(index) for index in range(70)]
TREE = MerkleTree(LEAVES)
sizes = st.integers(1, len(LEAVES))


def test_known_values() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(bytes(32)) == sha256(bytes(33))
    assert node_hash(b"\x01" * 32, b"\x02" * 32) == sha256(b"\x01" + b"\x01" * 32 + b"\x02" * 32)
    assert MerkleTree().root() == EMPTY_ROOT


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_roots(size: int) -> None:
    assert TREE.root(size) == mth(LEAVES[:size])
    assert MerkleTree(LEAVES[:size]).root() == mth(LEAVES[:size])


@given(sizes, st.data())
def test_inclusion_proofs(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = TREE.inclusion_proof(index, size)
    assert list(proof) == path(index, LEAVES[:size])
    verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=TREE.root(size))


@given(sizes, st.data())
def test_consistency_proofs(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second))
    proof = TREE.consistency_proof(first, second)
    assert list(proof) == subproof(first, LEAVES[:second], True)
    verify_consistency(
        first_size=first,
        first_root=TREE.root(first),
        second_size=second,
        second_root=TREE.root(second),
        proof=proof,
    )


def test_all_small_trees() -> None:
    for second in range(1, 18):
        for first in range(second + 1):
            verify_consistency(
                first_size=first,
                first_root=TREE.root(first),
                second_size=second,
                second_root=TREE.root(second),
                proof=TREE.consistency_proof(first, second),
            )
        for index in range(second):
            verify_inclusion(
                leaf=LEAVES[index],
                index=index,
                size=second,
                proof=TREE.inclusion_proof(index, second),
                root=TREE.root(second),
            )


mutations = st.sampled_from(["flip", "drop", "duplicate", "append", "swap", "shorten"])


def mutate(proof: Sequence[bytes], kind: str, data: st.DataObject) -> list[bytes]:
    changed = list(proof)
    if kind == "append" or not changed:
        return [*changed, data.draw(st.sampled_from(LEAVES))]
    at = data.draw(st.integers(0, len(changed) - 1))
    if kind == "flip":
        item = bytearray(changed[at])
        item[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
        changed[at] = bytes(item)
    elif kind == "drop":
        del changed[at]
    elif kind == "duplicate":
        changed.insert(at, changed[at])
    elif kind == "swap" and len(changed) > 1:
        changed[at], changed[at - 1] = changed[at - 1], changed[at]
    else:
        changed[at] = changed[at][:-1]
    return changed


@given(sizes, mutations, st.data())
def test_changed_inclusion_proofs_are_refused(size: int, kind: str, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = mutate(TREE.inclusion_proof(index, size), kind, data)
    with pytest.raises(LogProofError):
        verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=TREE.root(size))


@given(sizes, st.data())
def test_inclusion_of_anything_else_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root = TREE.inclusion_proof(index, size), TREE.root(size)
    with pytest.raises(LogProofError):
        verify_inclusion(leaf=leaf(1000), index=index, size=size, proof=proof, root=root)
    other = data.draw(st.integers(-1, size).filter(lambda value: value != index))
    with pytest.raises(LogProofError):
        verify_inclusion(leaf=LEAVES[index], index=other, size=size, proof=proof, root=root)


@settings(max_examples=300)
@given(sizes, mutations, st.data())
def test_changed_consistency_proofs_are_refused(second: int, kind: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second))
    proof = mutate(TREE.consistency_proof(first, second), kind, data)
    with pytest.raises(LogProofError):
        verify_consistency(
            first_size=first,
            first_root=TREE.root(first),
            second_size=second,
            second_root=TREE.root(second),
            proof=proof,
        )


@given(sizes, st.data())
def test_a_rewritten_log_is_refused(second: int, data: st.DataObject) -> None:
    """No proof that the honest algorithm makes leads from the anchored root to a rewritten log."""
    first = data.draw(st.integers(1, second))
    changed = data.draw(st.integers(0, first - 1))
    rewritten = MerkleTree([*LEAVES[:changed], leaf(999), *LEAVES[changed + 1 :]])
    for source in (TREE, rewritten):
        with pytest.raises(LogProofError):
            verify_consistency(
                first_size=first,
                first_root=TREE.root(first),
                second_size=second,
                second_root=rewritten.root(second),
                proof=source.consistency_proof(first, second),
            )


@settings(max_examples=300)
@given(
    st.integers(0, 2**64),
    st.integers(0, 2**64),
    st.lists(st.binary(min_size=31, max_size=33), max_size=70),
)
def test_arbitrary_proofs_raise_only_log_proof_errors(index: int, size: int, proof: list[bytes]) -> None:
    with pytest.raises(LogProofError):
        verify_inclusion(leaf=LEAVES[0], index=index, size=size, proof=proof, root=bytes(32))
    if index in (0, size) and not proof:
        return
    with pytest.raises(LogProofError):
        verify_consistency(
            first_size=index,
            first_root=bytes(32),
            second_size=size,
            second_root=b"\x01" * 32,
            proof=proof,
        )


def test_edges_of_consistency() -> None:
    root = TREE.root(5)
    verify_consistency(first_size=0, first_root=bytes(32), second_size=5, second_root=root, proof=())
    verify_consistency(first_size=5, first_root=root, second_size=5, second_root=root, proof=())
    with pytest.raises(LogProofError, match="two roots"):
        verify_consistency(first_size=5, first_root=root, second_size=5, second_root=leaf(0), proof=())
    with pytest.raises(LogProofError, match="too long"):
        verify_consistency(first_size=0, first_root=root, second_size=5, second_root=root, proof=[root])
    with pytest.raises(LogProofError, match="shrank"):
        verify_consistency(first_size=6, first_root=root, second_size=5, second_root=root, proof=[root])
    with pytest.raises(LogProofError, match="at most"):
        verify_inclusion(leaf=leaf(0), index=0, size=1, proof=[bytes(32)] * 129, root=root)


def test_tree_refuses_what_it_does_not_have() -> None:
    tree = MerkleTree(LEAVES[:5])
    assert len(tree) == tree.size == 5
    with pytest.raises(LogProofError):
        tree.root(6)
    with pytest.raises(LogProofError):
        tree.inclusion_proof(5)
    with pytest.raises(LogProofError):
        tree.inclusion_proof(3, 2)
    with pytest.raises(LogProofError):
        tree.consistency_proof(4, 3)
    with pytest.raises(MalformedError):
        tree.append(b"short")
    assert len(tree) == 5
    assert tree.append(LEAVES[5]) == 5


def test_large_tree() -> None:
    """Proofs cost a logarithmic number of hashes, also far behind the end."""
    tree = MerkleTree(leaf(index) for index in range(20_000))
    proof = tree.inclusion_proof(12_345, 19_999)
    assert len(proof) <= 15
    verify_inclusion(leaf=leaf(12_345), index=12_345, size=19_999, proof=proof, root=tree.root(19_999))
    verify_consistency(
        first_size=12_345,
        first_root=tree.root(12_345),
        second_size=20_000,
        second_root=tree.root(),
        proof=tree.consistency_proof(12_345),
    )
