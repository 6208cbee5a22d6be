"""Anchor orders: the snake of proof hashes, the signed cell, and its limits."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.anchor import ANCHOR_TAG, HASHES_PER_CELL, MAX_PROOF, Anchor, proof_cell
from cocoon_attestation.cell import Cell
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.errors import MalformedError

KEY = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
CHECKPOINT = Checkpoint(
    global_id=-3, node=b"\x01" * 32, tree_size=9, root=b"\x02" * 32, issued_at=1_800_000_000
)


def anchor(**changes: Any) -> Anchor:
    values: dict[str, Any] = {
        "first_size": 4,
        "first_root": b"\x03" * 32,
        "checkpoint": CHECKPOINT,
        "proof": (b"\x04" * 32, b"\x05" * 32),
    }
    return Anchor(**(values | changes))


def hashes_of(cell: Cell) -> list[bytes]:
    """What a contract reads from the snake."""
    found: list[bytes] = []
    while True:
        reader = cell.read()
        found += [reader.raw(32) for _ in range(cell.bit_length // 256)]
        if not cell.refs:
            reader.end()
            return found
        assert cell.bit_length == HASHES_PER_CELL * 256
        (cell,) = cell.refs


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_proof_is_a_snake_of_full_cells(hashes: list[bytes]) -> None:
    assert hashes_of(proof_cell(hashes)) == hashes


def test_empty_proof_is_one_empty_cell() -> None:
    cell = proof_cell(())
    assert (cell.bit_length, cell.refs) == (0, ())


def test_proof_has_limits() -> None:
    assert len(hashes_of(proof_cell([bytes(32)] * MAX_PROOF))) == MAX_PROOF
    with pytest.raises(MalformedError):
        proof_cell([bytes(32)] * (MAX_PROOF + 1))
    with pytest.raises(MalformedError):
        proof_cell([bytes(31)])


def test_order_covers_everything_that_decides() -> None:
    reader = anchor().cell.read()
    reader.tag(ANCHOR_TAG)
    assert (reader.uint(64), reader.raw(32)) == (4, b"\x03" * 32)
    assert reader.ref_cell() == CHECKPOINT.cell
    assert reader.ref_cell() == proof_cell((b"\x04" * 32, b"\x05" * 32))
    reader.end()


def test_signature_is_over_the_hash_of_the_order() -> None:
    order = anchor()
    KEY.public_key().verify(order.sign(KEY), order.cell.hash)
    others = [
        anchor(first_size=5),
        anchor(first_root=bytes(32)),
        anchor(proof=()),
        anchor(checkpoint=Checkpoint(**_fields(CHECKPOINT, tree_size=10))),
    ]
    assert len({order.cell.hash, *(one.cell.hash for one in others)}) == 5


def _fields(checkpoint: Checkpoint, **changes: Any) -> dict[str, Any]:
    names = ("global_id", "node", "tree_size", "root", "issued_at")
    return {name: getattr(checkpoint, name) for name in names} | changes


@pytest.mark.parametrize(
    "changes",
    [{"first_size": -1}, {"first_size": 1 << 64}, {"first_root": bytes(31)}, {"first_root": bytes(33)}],
)
def test_wrong_fields_are_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        anchor(**changes)
