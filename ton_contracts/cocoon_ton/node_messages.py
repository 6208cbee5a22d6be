"""Bodies of messages to the Node contract. Pure.

Layouts: ``ton_contracts/cocoon.tlb``. Who may send what: ``docs/spec/contracts.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytoniq_core import Address, Builder, Cell

from cocoon.v1 import payment_pb2, record_pb2
from cocoon_attestation.anchor import proof_cell
from cocoon_attestation.cell import parse_boc
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.payment import PriceList
from cocoon_attestation.types import digest32, exact_bytes, nanoton, uint
from cocoon_ton import opcodes
from cocoon_ton.cells import begin, finish, record_to_ton
from cocoon_ton.channel import signed_authorization_cell
from cocoon_ton.node import FLAG_SIMULATED, MAX_ENDPOINT, MAX_MODELS
from cocoon_ton.proof.boc import write_boc

NODE_MESSAGE_VALUE: Final = 150_000_000
"""Value that pays for any message of the owner, stake apart, at the prices of the reference
configuration, in nanoton; what is not used comes back."""

CHALLENGE_DEPOSIT_VALUE: Final = 50_000_000
"""More than the deposit of a first challenge at the prices of the reference configuration, in nanoton."""


def offered_terms_cell(
    *, endpoint: str, models: Sequence[bytes], prices: PriceList, simulated: bool
) -> Cell:
    """What `join_body` and `update_terms_body` carry.

    Raises:
        MalformedError: an endpoint that is not 1 to 127 printable ASCII characters, or not 1 to 3 digests.
    """
    if not endpoint.isascii() or not endpoint.isprintable() or not 0 < len(endpoint) <= MAX_ENDPOINT:
        raise MalformedError("node terms: endpoint must be 1 to 127 printable ASCII characters")
    if not 0 < len(models) <= MAX_MODELS:
        raise MalformedError("node terms: 1 to 3 model digests expected")
    builder = Builder().store_uint(FLAG_SIMULATED if simulated else 0, 8)
    builder.store_uint(prices.prompt, 64).store_uint(prices.cached, 64).store_uint(prices.completion, 64)
    builder.store_ref(Builder().store_bytes(endpoint.encode("ascii")).end_cell())
    digests = b"".join(digest32(model, "model digest") for model in models)
    return finish(builder.store_ref(finish(Builder().store_bytes(digests))))


def join_body(
    *,
    stake: int,
    endpoint: str,
    models: Sequence[bytes],
    prices: PriceList,
    simulated: bool,
    query_id: int = 0,
) -> Cell:
    """Body, from the owner: put up `stake` nanoton and enter the registry.

    The message's value must be at least `stake` and `NODE_MESSAGE_VALUE`. Deploys with the StateInit.
    """
    terms = offered_terms_cell(endpoint=endpoint, models=models, prices=prices, simulated=simulated)
    return finish(_body(opcodes.NODE_JOIN, query_id).store_coins(nanoton(stake, "stake")).store_ref(terms))


def update_terms_body(
    *, endpoint: str, models: Sequence[bytes], prices: PriceList, simulated: bool, query_id: int = 0
) -> Cell:
    """Body, from the owner: change endpoint and models at once, prices after the registry's delay."""
    terms = offered_terms_cell(endpoint=endpoint, models=models, prices=prices, simulated=simulated)
    return finish(_body(opcodes.NODE_UPDATE_TERMS, query_id).store_ref(terms))


def attest_body(
    *, key_binding: bytes, evidence_digest: bytes, attested_until: int, query_id: int = 0
) -> Cell:
    """Body, from the owner: propose the binding (bag of cells) with the digest of its evidence only.

    For kinds of TEE that the registry lets join so (`RegistryPolicy.recorded`). For the others, a Pck contract
    verifies the quote: `cocoon_ton.pck.attest_body`.

    Raises:
        MalformedError: the binding is not a bag of cells in canonical form.
    """
    return finish(
        _body(opcodes.NODE_ATTEST, query_id)
        .store_ref(record_to_ton(parse_boc(key_binding)))
        .store_bytes(digest32(evidence_digest, "evidence digest"))
        .store_uint(uint(attested_until, 32, "attested_until"), 32)
    )


def settle_body(
    *,
    claim: payment_pb2.SignedClaim,
    authorization: payment_pb2.SignedAuthorization,
    final: bool = False,
    query_id: int = 0,
) -> Cell:
    """Body, from the owner: collect from the channel that the claim names; `final` also closes it.

    Raises:
        MalformedError: a cell does not parse or a signature is not 64 bytes.
    """
    return finish(
        _body(opcodes.NODE_SETTLE, query_id)
        .store_bool(final)
        .store_bytes(exact_bytes(claim.signature, 64, "signature"))
        .store_ref(record_to_ton(parse_boc(claim.claim)))
        .store_ref(signed_authorization_cell(authorization))
    )


def unbond_body(query_id: int = 0) -> Cell:
    """Body, from the owner: leave the registry and start the wait for the stake."""
    return finish(_body(opcodes.NODE_UNBOND, query_id))


def withdraw_body(query_id: int = 0) -> Cell:
    """Body, from the owner: take the stake out after its wait, or empty an idle node."""
    return finish(_body(opcodes.NODE_WITHDRAW, query_id))


def add_stake_body(amount: int, query_id: int = 0) -> Cell:
    """Body, from the owner: raise the stake by `amount` nanoton out of the message's value."""
    return finish(_body(opcodes.NODE_ADD_STAKE, query_id).store_coins(nanoton(amount, "amount")))


def top_up_body(query_id: int = 0) -> Cell:
    """Body, from anybody: add to the working balance that pays for anchors."""
    return finish(_body(opcodes.NODE_TOP_UP, query_id))


def anchor_body(
    *, checkpoint: record_pb2.SignedCheckpoint, proof: Sequence[bytes], query_id: int = 0
) -> Cell:
    """Body, from anybody who pays for it: anchor a checkpoint; `proof` leads from what is anchored now.

    Raises:
        MalformedError: a part does not parse.
    """
    return finish(
        _body(opcodes.NODE_ANCHOR, query_id)
        .store_bytes(exact_bytes(checkpoint.signature, 64, "signature"))
        .store_ref(record_to_ton(parse_boc(checkpoint.checkpoint)))
        .store_ref(record_to_ton(proof_cell(proof)))
    )


def challenge_body(receipt: record_pb2.SignedReceipt, query_id: int = 0) -> Cell:
    """Body, from anybody: demand that the receipt is shown in the node's log.

    The value must cover the deposit (`challenge_value`); what is not used comes back.

    Raises:
        MalformedError: the cell does not parse or the signature is not 64 bytes.
    """
    return finish(
        _body(opcodes.NODE_CHALLENGE, query_id)
        .store_bytes(exact_bytes(receipt.signature, 64, "signature"))
        .store_ref(record_to_ton(parse_boc(receipt.receipt)))
    )


def respond_body(*, receipt_hash: bytes, proof: Sequence[bytes], query_id: int = 0) -> Cell:
    """Body, from anybody: answer a challenge with an inclusion proof in the tree of the challenge.

    Raises:
        MalformedError: a hash has not 32 bytes.
    """
    return finish(
        _body(opcodes.NODE_RESPOND, query_id)
        .store_bytes(digest32(receipt_hash, "receipt hash"))
        .store_ref(record_to_ton(proof_cell(proof)))
    )


def slash_body(receipt_hash: bytes, query_id: int = 0) -> Cell:
    """Body, from anybody: slash for a challenge that was not answered in time."""
    return finish(_body(opcodes.NODE_SLASH, query_id).store_bytes(digest32(receipt_hash, "receipt hash")))


def conflict_body(
    *,
    first: record_pb2.SignedCheckpoint,
    first_binding: bytes,
    second: record_pb2.SignedCheckpoint,
    second_binding: bytes,
    query_id: int = 0,
) -> Cell:
    """Body, from anybody: slash for two checkpoints of one size with different roots.

    The bindings are the hashes of the key bindings whose receipt keys signed, 32 bytes each.

    Raises:
        MalformedError: a part does not parse.
    """
    return finish(
        _body(opcodes.NODE_CONFLICT, query_id)
        .store_ref(_signed_checkpoint(first, first_binding))
        .store_ref(_signed_checkpoint(second, second_binding))
    )


def challenge_value(open_challenges: int) -> int:
    """Value that covers the deposit of the next challenge when this many are open, in nanoton.

    The deposit doubles with every 16 open challenges; fees are those of the reference configuration.
    """
    return CHALLENGE_DEPOSIT_VALUE * (1 << (open_challenges >> 4)) + NODE_MESSAGE_VALUE


def _signed_checkpoint(signed: record_pb2.SignedCheckpoint, binding_hash: bytes) -> Cell:
    return finish(
        Builder()
        .store_bytes(digest32(binding_hash, "binding hash"))
        .store_bytes(exact_bytes(signed.signature, 64, "signature"))
        .store_ref(record_to_ton(parse_boc(signed.checkpoint)))
    )


def anchor_external_body(*, anchor: bytes, signature: bytes) -> Cell:
    """Body of the external message that anchors at the node's expense.

    `anchor` is the Anchor cell (bag of cells) from `cocoon_attestation.anchor`, `signature` the receipt
    key's signature on its hash.

    Raises:
        MalformedError: a part does not parse.
    """
    return finish(
        Builder()
        .store_bytes(exact_bytes(signature, 64, "signature"))
        .store_ref(record_to_ton(parse_boc(anchor)))
    )


def external_message(address: Address, body: Cell) -> bytes:
    """Bag of cells of the external message with this body, for `ChainWriter.send`."""
    message = finish(
        Builder()
        .store_bits("1000")  # ext_in_msg_info$10, src:addr_none$00
        .store_address(address)
        .store_coins(0)  # import_fee
        .store_bits("01")  # no init, body in a reference
        .store_ref(body)
    )
    return write_boc([message])


def _body(opcode: int, query_id: int) -> Builder:
    builder: Builder = begin(opcode).store_uint(uint(query_id, 64, "query id"), 64)
    return builder
