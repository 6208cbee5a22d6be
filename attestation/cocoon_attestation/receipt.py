"""Receipts: what an enclave signs about one answer, and the commitments inside.

A receipt names the question, the answer, the model, the tokens and the money, without showing content:
the commitments are salted, and only the client knows the salt. A refused or failed request gets a
receipt as well, with amount 0 and its status. See docs/spec/records.md, section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cocoon.v1 import record_pb2
from cocoon_attestation.cell import Cell, CellBuilder, parse_boc
from cocoon_attestation.errors import ReceiptRejectedError
from cocoon_attestation.signing import sign_cell, signed_by
from cocoon_attestation.types import Digest32, digest32, nanoton, uint

RECEIPT_TAG: Final = 0xC0C00002


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One receipt. Digests are 32 bytes, amounts nanoton, times Unix seconds.

    Raises `MalformedError` at construction if a field has the wrong length or range.
    """

    node: bytes
    """Account id of the node contract that is paid."""
    binding_hash: bytes
    """Hash of the key binding whose receipt key signs."""
    request_commitment: bytes
    """`commit_request` of the request body."""
    response_commitment: bytes
    """`commit_response` of the response body."""
    model: bytes
    """Digest of the model that answered; zero if none was reached."""
    prompt_tokens: int
    """Prompt tokens, cached ones included."""
    cached_tokens: int
    """Prompt tokens found in the client's own cache."""
    completion_tokens: int
    """Generated tokens."""
    status: int
    """HTTP-like status of the answer."""
    channel: bytes
    """Account id of the payment channel."""
    amount: int
    """Price of this answer."""
    cumulative: int
    """Use of the channel so far, this answer included."""
    index: int
    """Position in the node's log, from 0."""
    issued_at: int
    """When the enclave issued it, by its own clock."""
    anchor_by: int
    """Latest time at which a checkpoint that covers it must be on chain."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        for name in (
            "node",
            "binding_hash",
            "request_commitment",
            "response_commitment",
            "model",
            "channel",
        ):
            digest32(getattr(self, name), f"receipt {name}")
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "issued_at", "anchor_by"):
            uint(getattr(self, name), 32, f"receipt {name}")
        uint(self.status, 16, "receipt status")
        uint(self.index, 64, "receipt index")
        nanoton(self.amount, "receipt amount")
        nanoton(self.cumulative, "receipt cumulative")

    @property
    def cell(self) -> Cell:
        """The receipt as a cell; all that a contract needs stands in the root."""
        answer = (
            CellBuilder()
            .raw(self.response_commitment, 32)
            .raw(self.model, 32)
            .uint(self.prompt_tokens, 32)
            .uint(self.cached_tokens, 32)
            .uint(self.completion_tokens, 32)
            .uint(self.status, 16)
            .build()
        )
        payment = CellBuilder().raw(self.channel, 32).coins(self.amount).coins(self.cumulative).build()
        return (
            CellBuilder()
            .uint(RECEIPT_TAG, 32)
            .raw(self.node, 32)
            .raw(self.binding_hash, 32)
            .raw(self.request_commitment, 32)
            .ref(answer)
            .ref(payment)
            .uint(self.index, 64)
            .uint(self.issued_at, 32)
            .uint(self.anchor_by, 32)
            .build()
        )

    @property
    def hash(self) -> Digest32:
        """Representation hash: the leaf input of the log, and what the signature covers."""
        return Digest32(self.cell.hash)

    @property
    def id(self) -> str:
        """`hash` in hex: the receipt's name for people and files."""
        return self.hash.hex()

    def to_boc(self) -> bytes:
        """The receipt as a bag of cells."""
        return self.cell.to_boc()


def parse_receipt(boc: bytes | memoryview) -> Receipt:
    """Read a receipt from its bag of cells, without looking at any signature.

    Raises:
        MalformedError: anything but one canonical Receipt cell.
    """
    root = parse_boc(boc).read()
    root.tag(RECEIPT_TAG)
    node, binding_hash, request_commitment = root.raw(32), root.raw(32), root.raw(32)
    answer, payment = root.ref(), root.ref()
    index, issued_at, anchor_by = root.uint(64), root.uint(32), root.uint(32)
    root.end()
    response_commitment, model = answer.raw(32), answer.raw(32)
    prompt_tokens, cached_tokens, completion_tokens = answer.uint(32), answer.uint(32), answer.uint(32)
    status = answer.uint(16)
    answer.end()
    channel, amount, cumulative = payment.raw(32), payment.coins(), payment.coins()
    payment.end()
    return Receipt(
        node=node,
        binding_hash=binding_hash,
        request_commitment=request_commitment,
        response_commitment=response_commitment,
        model=model,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        status=status,
        channel=channel,
        amount=amount,
        cumulative=cumulative,
        index=index,
        issued_at=issued_at,
        anchor_by=anchor_by,
    )


def sign_receipt(receipt: Receipt, receipt_key: Ed25519PrivateKey) -> record_pb2.SignedReceipt:
    """Sign a receipt; the result carries the exact bytes that were hashed."""
    cell = receipt.cell
    return record_pb2.SignedReceipt(receipt=cell.to_boc(), signature=sign_cell(cell, receipt_key))


def verify_receipt(signed: record_pb2.SignedReceipt, receipt_key: bytes) -> Receipt:
    """Return the receipt if `receipt_key` (32 bytes, from a verified key binding) signed it.

    Says nothing about commitments, node, channel or amounts: the caller compares those.

    Raises:
        MalformedError: the cell does not parse.
        ReceiptRejectedError: the signature is not by `receipt_key`.
    """
    receipt = parse_receipt(signed.receipt)
    if not signed_by(receipt.cell, signed.signature, receipt_key):
        raise ReceiptRejectedError("the receipt is not signed by the receipt key of the verified enclave")
    return receipt


def commit_request(salt: bytes, body: bytes) -> Digest32:
    """H("cocoon/v1/commit-request" ‖ salt ‖ body); `salt` is 32 bytes, `body` the exact request body.

    Raises:
        MalformedError: `salt` is not 32 bytes.
    """
    return _commit(b"cocoon/v1/commit-request", salt, (body,))


def commit_response(salt: bytes, body: bytes) -> Digest32:
    """H("cocoon/v1/commit-response" ‖ salt ‖ body); `body` is all data chunks, then the tail.

    Raises:
        MalformedError: `salt` is not 32 bytes.
    """
    return commit_response_pieces(salt, (body,))


def commit_response_pieces(salt: bytes, pieces: Iterable[bytes]) -> Digest32:
    """`commit_response` of the concatenation of `pieces`, without joining them.

    Raises:
        MalformedError: `salt` is not 32 bytes.
    """
    return _commit(b"cocoon/v1/commit-response", salt, pieces)


def _commit(tag: bytes, salt: bytes, pieces: Iterable[bytes]) -> Digest32:
    state = hashlib.sha256(tag + digest32(salt, "receipt salt"))
    for piece in pieces:
        state.update(piece)
    return Digest32(state.digest())
