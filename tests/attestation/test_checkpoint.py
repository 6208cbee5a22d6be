"""Checkpoints: encoding and signature."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.boc.builder import Builder as OracleBuilder

from cocoon.v1 import record_pb2
from cocoon_attestation.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from cocoon_attestation.errors import LogProofError, MalformedError

KEY = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x12" * 32).public_key().public_bytes_raw()

digests = st.binary(min_size=32, max_size=32)
checkpoints = st.builds(
    Checkpoint,
    global_id=st.integers(-(2**31), 2**31 - 1),
    node=digests,
    tree_size=st.integers(0, 2**64 - 1),
    root=digests,
    issued_at=st.integers(0, 2**32 - 1),
)


@given(checkpoints)
def test_round_trip(checkpoint: Checkpoint) -> None:
    assert parse_checkpoint(checkpoint.to_boc()) == checkpoint


@given(checkpoints)
def test_layout_agrees_with_oracle(checkpoint: Checkpoint) -> None:
    cell = (
        OracleBuilder()
        .store_uint(0xC0C00003, 32)
        .store_int(checkpoint.global_id, 32)
        .store_bytes(checkpoint.node)
        .store_uint(checkpoint.tree_size, 64)
        .store_bytes(checkpoint.root)
        .store_uint(checkpoint.issued_at, 32)
        .end_cell()
    )
    assert checkpoint.hash == cell.hash


@given(checkpoints)
def test_signature(checkpoint: Checkpoint) -> None:
    signed = sign_checkpoint(checkpoint, KEY)
    assert verify_checkpoint(signed, PUBLIC) == checkpoint
    with pytest.raises(LogProofError):
        verify_checkpoint(signed, OTHER)


@given(checkpoints, st.data())
def test_every_changed_byte_is_refused(checkpoint: Checkpoint, data: st.DataObject) -> None:
    signed = sign_checkpoint(checkpoint, KEY)
    part = data.draw(st.sampled_from(["checkpoint", "signature"]))
    changed = bytearray(getattr(signed, part))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    setattr(signed, part, bytes(changed))
    with pytest.raises((MalformedError, LogProofError)):
        verify_checkpoint(signed, PUBLIC)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(data)


def test_network_is_signed() -> None:
    """A checkpoint of one network is of no use on another: `global_id` is inside the signed cell."""
    here = Checkpoint(global_id=-3, node=b"\x01" * 32, tree_size=1, root=bytes(32), issued_at=0)
    there = dataclasses.replace(here, global_id=-239)
    moved = record_pb2.SignedCheckpoint(
        checkpoint=there.to_boc(), signature=sign_checkpoint(here, KEY).signature
    )
    with pytest.raises(LogProofError):
        verify_checkpoint(moved, PUBLIC)


@pytest.mark.parametrize(
    ("field", "value"),
    [("global_id", 2**31), ("node", b""), ("tree_size", -1), ("root", bytes(31)), ("issued_at", 2**32)],
)
def test_construction_checks_fields(field: str, value: object) -> None:
    good = Checkpoint(global_id=-3, node=b"\x01" * 32, tree_size=1, root=bytes(32), issued_at=0)
    with pytest.raises(MalformedError, match=field):
        dataclasses.replace(good, **{field: value})  # type: ignore[arg-type]
