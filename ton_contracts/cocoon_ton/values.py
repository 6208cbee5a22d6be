"""Values that were proved, or are claimed, about the chain. Hashes are 32 bytes, amounts nanoton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytoniq_core import Address, Cell

MASTERCHAIN = -1
FULL_SHARD = -(1 << 63)
"""Shard identifier of an unsplit workchain, as the signed 64-bit number that TL uses."""

AccountStatus = Literal["nonexist", "uninit", "active", "frozen"]
MessageKind = Literal["internal", "external_in", "external_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockId:
    """Full name of a block (``tonNode.blockIdExt``)."""

    workchain: int
    shard: int
    """Signed 64-bit; `FULL_SHARD` in the masterchain."""
    seqno: int
    root_hash: bytes
    file_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """A masterchain block with the time of its header."""

    seqno: int
    root_hash: bytes
    file_hash: bytes
    utime: int
    """Unix seconds, from the block's own header."""

    @property
    def id(self) -> BlockId:
        """The same block as a `BlockId`."""
        return BlockId(
            workchain=MASTERCHAIN,
            shard=FULL_SHARD,
            seqno=self.seqno,
            root_hash=self.root_hash,
            file_hash=self.file_hash,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """One account in the state after `block`. Absence is a proved fact as well (`exists` False)."""

    address: Address
    status: AccountStatus
    balance: int
    """Nanoton; 0 for an account that does not exist."""
    code: Cell | None
    data: Cell | None
    last_tx_lt: int
    """Logical time of the last transaction; 0 if there was none."""
    last_tx_hash: bytes
    """Hash of the last transaction; zeros if there was none."""
    block: BlockRef
    """The masterchain block that the state is proved against."""
    shard_utime: int
    """Unix time of the shard block; later blocks of the shard are never older."""

    @property
    def exists(self) -> bool:
        """True unless the account is proved to be absent."""
        return self.status != "nonexist"

    @property
    def active(self) -> bool:
        """True if the account has code and data."""
        return self.status == "active"

    @property
    def code_hash(self) -> bytes | None:
        """Representation hash of the code cell of an active account."""
        return None if self.code is None else bytes(self.code.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageInfo:
    """A message of a transaction."""

    kind: MessageKind
    hash: bytes
    """Representation hash of the message cell."""
    source: Address | None
    destination: Address | None
    value: int
    """Nanoton; 0 for external messages."""
    bounce: bool
    bounced: bool
    created_lt: int
    body: Cell
    has_state_init: bool

    @property
    def opcode(self) -> int | None:
        """First 32 bits of the body, or None if it is shorter."""
        bits = self.body.bits
        return int(bits[:32].to01(), 2) if len(bits) >= 32 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionInfo:
    """One transaction, proved by the hash chain that ends in the account's state."""

    address: Address
    lt: int
    hash: bytes
    utime: int
    success: bool
    """True if the computation ran and neither it nor the action phase failed."""
    aborted: bool
    exit_code: int | None
    """Exit code of the computation; None if it was skipped."""
    action_code: int | None
    """Result code of the action phase; None if there was none."""
    total_fees: int
    """Nanoton."""
    in_msg: MessageInfo | None
    out_msgs: tuple[MessageInfo, ...]
    prev_lt: int
    """Logical time of the transaction before; 0 if this is the first."""
    prev_hash: bytes
