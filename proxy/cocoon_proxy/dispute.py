"""Holds a node to its signed receipts: was this one shown in the anchored log in time, and if not, what to do.

`assess` decides from proved chain state and, where the anchored log may hold the receipt, from the node's
inclusion proof. `challenge_message` makes the message to the node contract. Nothing that the node says is
believed. Rules: ``docs/spec/contracts.md``, section 3.4.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from pytoniq_core import Address, Cell

from cocoon.v1 import record_pb2
from cocoon_attestation.errors import (
    LogProofError,
    MalformedError,
    ReceiptRejectedError,
    RejectedError,
    UnavailableError,
)
from cocoon_attestation.merkle import verify_inclusion
from cocoon_attestation.receipt import Receipt, parse_receipt, verify_receipt
from cocoon_proxy.audit import NodeConnection
from cocoon_proxy.ledger import ReceiptRow
from cocoon_ton.chain import ChainReader
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import BondState, NodeState, parse_node
from cocoon_ton.node_messages import NODE_MESSAGE_VALUE, challenge_body, challenge_value, slash_body
from cocoon_ton.registry import parse_registry


class Finding(enum.StrEnum):
    """What is known about one receipt."""

    NOT_DUE = "not_due"
    """The node still has time to anchor it."""
    ANCHORED = "anchored"
    """It is in the log, and the log was anchored in time."""
    WITHHELD = "withheld"
    """No log that was anchored in time reaches so far: the challenge costs the node its penalty at once."""
    NOT_SHOWN = "not_shown"
    """The log reaches so far, and the node does not prove that the receipt is in it: challenge it."""
    CHALLENGED = "challenged"
    """A challenge is open; after its deadline anybody may slash."""
    PUNISHED = "punished"
    """The node was slashed for this receipt."""
    TOO_LATE = "too_late"
    """The time in which it could be challenged is over, or the contract no longer keeps the key."""
    NOTHING_AT_STAKE = "nothing_at_stake"
    """The node holds no stake."""


ACTIONABLE: Final = frozenset({Finding.WITHHELD, Finding.NOT_SHOWN})
"""Findings that a challenge answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The finding with what it rests on. Times are Unix seconds."""

    finding: Finding
    receipt: Receipt
    anchored_in_time: int
    """Size of the log as it was anchored at the receipt's `anchor_by`."""
    challenge_until: int
    """End of the time in which the receipt may be challenged."""
    answer_until: int
    """Deadline of an open challenge; 0 if there is none."""

    @property
    def actionable(self) -> bool:
        """Whether a challenge makes sense now."""
        return self.finding in ACTIONABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeMessage:
    """What a wallet must send."""

    kind: Literal["challenge", "slash"]
    to: Address
    value: int
    """Nanoton: covers deposit and fees; what is not used comes back."""
    body: Cell


def assess(
    signed: record_pb2.SignedReceipt, node: NodeState, *, now: int, proof: tuple[bytes, ...] | None = None
) -> Assessment:
    """Judge one receipt by the node contract's proved state.

    proof: inclusion proof in the log as it is anchored now; None if the node gave none.

    Raises:
        MalformedError: the receipt does not parse.
        ReceiptRejectedError: it is for another node, or not signed by the key that the contract keeps.
    """
    receipt = _authentic(signed, node)
    window = node.parameters.challenge_window if node.parameters is not None else 0
    known = node.receipt_key(receipt.binding_hash) is not None
    anchored = node.history.size_by(receipt.anchor_by)
    open_until = next((c.deadline for c in node.challenges if c.receipt_hash == receipt.hash), 0)

    def found(finding: Finding) -> Assessment:
        return Assessment(
            finding=finding,
            receipt=receipt,
            anchored_in_time=anchored or 0,
            challenge_until=receipt.anchor_by + window,
            answer_until=open_until if finding is Finding.CHALLENGED else 0,
        )

    for challenge in node.challenges:
        if challenge.receipt_hash == receipt.hash:
            return found(Finding.PUNISHED if challenge.slashed else Finding.CHALLENGED)
    if anchored is not None and receipt.index < anchored and _shown(receipt, node, proof):
        return found(Finding.ANCHORED)
    if now <= receipt.anchor_by:
        return found(Finding.NOT_DUE)
    if not known or anchored is None or now > receipt.anchor_by + window:
        return found(Finding.TOO_LATE)
    if node.stake == 0 or node.bond not in (BondState.ACTIVE, BondState.UNBONDING):
        return found(Finding.NOTHING_AT_STAKE)
    return found(Finding.WITHHELD if receipt.index >= anchored else Finding.NOT_SHOWN)


def challenge_message(signed: record_pb2.SignedReceipt, node: NodeState) -> DisputeMessage:
    """The message that challenges this receipt, for the deposit that is asked for now.

    Raises:
        MalformedError: the receipt does not parse.
    """
    return DisputeMessage(
        kind="challenge",
        to=node.identity.address,
        value=challenge_value(node.open_challenges),
        body=challenge_body(signed),
    )


def slash_message(receipt_hash: bytes, node: NodeState) -> DisputeMessage:
    """The message that ends a challenge which was not answered in time."""
    return DisputeMessage(
        kind="slash", to=node.identity.address, value=NODE_MESSAGE_VALUE, body=slash_body(receipt_hash)
    )


async def dispute(
    row: ReceiptRow, *, network: NetworkConfig, chain: ChainReader, connect_s: float
) -> tuple[Assessment, DisputeMessage | None]:
    """Look at chain and node, and judge a receipt of the ledger; with a message if there is one to send now.

    Raises:
        UnavailableError: the chain cannot be read.
        RejectedError: the node contract does not exist, or the receipt is not what it claims.
    """
    head = await chain.head()
    address = Address((0, row.node))
    account = await chain.account(address, head)
    if account.data is None:
        raise RejectedError("the node contract of this receipt does not exist on this chain")
    node = parse_node(account.data)
    signed = record_pb2.SignedReceipt(receipt=row.boc, signature=row.signature)
    proof = None
    if row.log_index < node.log.tree_size:
        registry = await chain.account(network.registry_address, head)
        listed = None if registry.data is None else parse_registry(registry.data).nodes.get(row.node)
        if listed is not None:
            proof = await _ask(listed.terms.endpoint, row.id, node.log.tree_size, connect_s)
    # The chain's clock decides, not ours.
    assessment = assess(signed, node, now=head.utime, proof=proof)
    if assessment.actionable:
        return assessment, challenge_message(signed, node)
    if assessment.finding is Finding.CHALLENGED and head.utime > assessment.answer_until:
        return assessment, slash_message(row.id, node)
    return assessment, None


async def _ask(endpoint: str, receipt_hash: bytes, size: int, connect_s: float) -> tuple[bytes, ...] | None:
    """The node's inclusion proof; None if it gives none, for whatever reason."""
    try:
        async with NodeConnection(endpoint, connect_s) as records:
            return tuple((await records.inclusion(receipt_hash, size)).proof.hashes)
    except (UnavailableError, RejectedError, MalformedError):
        return None


def _authentic(signed: record_pb2.SignedReceipt, node: NodeState) -> Receipt:
    receipt = parse_receipt(signed.receipt)
    if receipt.node != node.identity.account_id:
        raise ReceiptRejectedError("the receipt names another node")
    key = node.receipt_key(receipt.binding_hash)
    return receipt if key is None else verify_receipt(signed, key)


def _shown(receipt: Receipt, node: NodeState, proof: tuple[bytes, ...] | None) -> bool:
    if proof is None or receipt.index >= node.log.tree_size:
        return False
    try:
        verify_inclusion(
            leaf=receipt.hash,
            index=receipt.index,
            size=node.log.tree_size,
            proof=proof,
            root=node.log.root,
        )
    except LogProofError:
        return False
    return True
