"""What the outbox carries out: transfers from the wallet and external messages, each under a key."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

from pytoniq_core import Address

from cocoon_attestation.errors import ConfigError
from cocoon_ton.address import raw_address
from cocoon_ton.amounts import MAX_COINS
from cocoon_ton.messages import ExternalMessage, Transfer

MAX_KEY = 200
MAX_AMOUNT = (1 << 63) - 1
"""Largest amount of one transfer in nanoton: what SQLite stores, more TON than exist."""


class OperationState(enum.StrEnum):
    """Where an operation stands. `SEEN` and `FAILED` are final."""

    QUEUED = "queued"
    """Stored; no message for it can be executed."""
    SENT = "sent"
    """A message for it may have been executed."""
    SEEN = "seen"
    """A proved transaction carried it out."""
    FAILED = "failed"
    """It was not carried out and the outbox will not try again."""

    @property
    def final(self) -> bool:
        """Whether the state never changes again."""
        return self in (OperationState.SEEN, OperationState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOperation:
    """One transfer from the wallet.

    `not_after` (Unix seconds of chain time): do not start it later; None for no limit.
    """

    transfer: Transfer
    not_after: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.transfer.amount <= min(MAX_AMOUNT, MAX_COINS):
            raise ConfigError("transfer amount is out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalOperation:
    """One finished external message to a contract, which itself must make sure to act on it only once.

    `not_after` (Unix seconds of chain time): give up later; None to try for ever. The message should
    carry the same limit, because giving up does not take back what was sent.
    """

    destination: Address
    message: ExternalMessage
    not_after: int | None = None


Operation = TransferOperation | ExternalOperation


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStatus:
    """What is known about an operation."""

    key: str
    state: OperationState
    tx_lt: int | None
    """Logical time of the transaction that carried it out (or tried to)."""
    tx_hash: bytes | None
    message_hash: bytes | None
    """Transfer: hash of the message as the wallet emitted it. External: hash of the message sent."""
    error: str
    """Why it failed, or what holds it up; empty if nothing does."""


def operation_digest(operation: Operation) -> bytes:
    """SHA-256 over the content, to tell a repeated operation from a conflicting one."""
    digest = hashlib.sha256()
    if isinstance(operation, TransferOperation):
        transfer = operation.transfer
        init = b"" if transfer.state_init is None else bytes(transfer.state_init.hash)
        parts = [
            b"transfer",
            raw_address(transfer.destination).encode(),
            str(transfer.amount).encode(),
            bytes(transfer.body.hash),
            init,
            b"bounce" if transfer.bounce else b"",
        ]
    else:
        parts = [b"external", raw_address(operation.destination).encode(), operation.message.body_hash]
    parts.append(str(operation.not_after).encode())
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
