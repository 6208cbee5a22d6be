"""Receipts: encoding, signature, commitments."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.boc.builder import Builder as OracleBuilder

from cocoon.v1 import record_pb2
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.errors import MalformedError, ReceiptRejectedError
from cocoon_attestation.receipt import (
    Receipt,
    commit_request,
    commit_response,
    commit_response_pieces,
    parse_receipt,
    sign_receipt,
    verify_receipt,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x12" * 32).public_key().public_bytes_raw()

digests = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)
coins = st.integers(0, 2**120 - 1)
receipts = st.builds(
    Receipt,
    node=digests,
    binding_hash=digests,
    request_commitment=digests,
    response_commitment=digests,
    model=digests,
    prompt_tokens=u32,
    cached_tokens=u32,
    completion_tokens=u32,
    status=st.integers(0, 2**16 - 1),
    channel=digests,
    amount=coins,
    cumulative=coins,
    index=st.integers(0, 2**64 - 1),
    issued_at=u32,
    anchor_by=u32,
)


@given(receipts)
def test_round_trip(receipt: Receipt) -> None:
    assert parse_receipt(receipt.to_boc()) == receipt
    assert receipt.id == receipt.hash.hex()


@given(receipts)
def test_layout_agrees_with_oracle(receipt: Receipt) -> None:
    answer = OracleBuilder().store_bytes(receipt.response_commitment).store_bytes(receipt.model)
    for count in (receipt.prompt_tokens, receipt.cached_tokens, receipt.completion_tokens):
        answer.store_uint(count, 32)
    answer.store_uint(receipt.status, 16)
    payment = OracleBuilder().store_bytes(receipt.channel)
    payment.store_coins(receipt.amount).store_coins(receipt.cumulative)
    root = OracleBuilder().store_uint(0xC0C00002, 32)
    for field in (receipt.node, receipt.binding_hash, receipt.request_commitment):
        root.store_bytes(field)
    root.store_ref(answer.end_cell()).store_ref(payment.end_cell())
    root.store_uint(receipt.index, 64).store_uint(receipt.issued_at, 32).store_uint(receipt.anchor_by, 32)
    assert receipt.hash == root.end_cell().hash


@given(receipts)
def test_signature(receipt: Receipt) -> None:
    signed = sign_receipt(receipt, KEY)
    assert verify_receipt(signed, PUBLIC) == receipt
    with pytest.raises(ReceiptRejectedError):
        verify_receipt(signed, OTHER)


@given(receipts, st.data())
def test_every_changed_byte_is_refused(receipt: Receipt, data: st.DataObject) -> None:
    signed = sign_receipt(receipt, KEY)
    part = data.draw(st.sampled_from(["receipt", "signature"]))
    changed = bytearray(getattr(signed, part))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    setattr(signed, part, bytes(changed))
    with pytest.raises((MalformedError, ReceiptRejectedError)):
        verify_receipt(signed, PUBLIC)


@given(st.binary(max_size=500))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_receipt(data)


def sample() -> Receipt:
    return Receipt(
        node=b"\x01" * 32,
        binding_hash=b"\x02" * 32,
        request_commitment=b"\x03" * 32,
        response_commitment=b"\x04" * 32,
        model=b"\x05" * 32,
        prompt_tokens=10,
        cached_tokens=5,
        completion_tokens=7,
        status=200,
        channel=b"\x06" * 32,
        amount=100,
        cumulative=1000,
        index=3,
        issued_at=1_800_000_000,
        anchor_by=1_800_003_600,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node", b""),
        ("model", b"\x05" * 33),
        ("prompt_tokens", -1),
        ("completion_tokens", 2**32),
        ("status", 65536),
        ("amount", 2**120),
        ("cumulative", -1),
        ("index", 2**64),
        ("issued_at", True),
    ],
)
def test_construction_checks_fields(field: str, value: object) -> None:
    with pytest.raises(MalformedError, match=field):
        dataclasses.replace(sample(), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("signature", [b"", b"\x00" * 63, b"\x00" * 64, b"\xff" * 65])
def test_odd_signatures_are_rejected(signature: bytes) -> None:
    signed = record_pb2.SignedReceipt(receipt=sample().to_boc(), signature=signature)
    with pytest.raises(ReceiptRejectedError):
        verify_receipt(signed, PUBLIC)


@pytest.mark.parametrize("key", [b"", b"\x00" * 31, b"\xff" * 32])
def test_odd_keys_are_rejected(key: bytes) -> None:
    with pytest.raises(ReceiptRejectedError):
        verify_receipt(sign_receipt(sample(), KEY), key)


def test_signature_on_another_record_is_rejected() -> None:
    """The tag in the cell separates the domains: a checkpoint's signature is of no use here."""
    checkpoint = Checkpoint(global_id=-3, node=b"\x01" * 32, tree_size=1, root=bytes(32), issued_at=0)
    foreign = KEY.sign(checkpoint.hash)
    signed = record_pb2.SignedReceipt(receipt=sample().to_boc(), signature=foreign)
    with pytest.raises(ReceiptRejectedError):
        verify_receipt(signed, PUBLIC)
    with pytest.raises(MalformedError):
        parse_receipt(checkpoint.to_boc())


def test_commitments() -> None:
    salt = b"\x21" * 32
    assert (
        commit_request(salt, b"body")
        == hashlib.sha256(b"cocoon/v1/commit-request" + salt + b"body").digest()
    )
    expected = hashlib.sha256(b"cocoon/v1/commit-response" + salt + b"body").digest()
    assert commit_response(salt, b"body") == expected
    assert commit_request(salt, b"body") != commit_response(salt, b"body")
    assert commit_request(salt, b"body") != commit_request(b"\x22" * 32, b"body")


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_pieces_commit_to_their_concatenation(pieces: list[bytes]) -> None:
    salt = b"\x21" * 32
    assert commit_response_pieces(salt, pieces) == commit_response(salt, b"".join(pieces))


@pytest.mark.parametrize("salt", [b"", b"\x00" * 31, b"\x00" * 33])
def test_salt_length_is_checked(salt: bytes) -> None:
    with pytest.raises(MalformedError):
        commit_request(salt, b"")
    with pytest.raises(MalformedError):
        commit_response(salt, b"")
