"""Values of the development chain and the small TL-B pieces that states and blocks share."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

from pytoniq_core import Address, Builder, Cell, begin_cell

from cocoon_ton.devnet.cells import Stub, read_boc
from cocoon_ton.emulator import McBlockId

BASECHAIN: Final = 0
MASTERCHAIN: Final = -1
FULL_SHARD: Final = 1 << 63
"""The shard that covers a whole workchain, as the unsigned number of TL-B."""
FULL_SHARD_SIGNED: Final = -(1 << 63)
"""The same shard as the signed number of TL."""
CONFIG_ADDRESS: Final = b"\x55" * 32
"""Id of the masterchain account that holds the configuration (configuration parameter 0)."""
ELECTOR_ADDRESS: Final = b"\x33" * 32
"""Id of the elector's masterchain account (configuration parameter 1)."""
_MASTER_MARK: Final = b"\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockId:
    """``tonNode.blockIdExt`` of a block of the one shard of its workchain. Hashes are 32 bytes."""

    workchain: int
    seqno: int
    root_hash: bytes
    file_hash: bytes

    def to_tl(self) -> dict[str, object]:
        """The fields as the TL code of pytoniq-core takes them."""
        return {
            "workchain": self.workchain,
            "shard": FULL_SHARD_SIGNED,
            "seqno": self.seqno,
            "root_hash": self.root_hash.hex(),
            "file_hash": self.file_hash.hex(),
        }

    def to_config(self) -> dict[str, object]:
        """The form of a global configuration: hashes in base64."""
        return self.to_tl() | {
            "root_hash": base64.b64encode(self.root_hash).decode(),
            "file_hash": base64.b64encode(self.file_hash).decode(),
        }

    @classmethod
    def from_config(cls, document: Mapping[str, Any]) -> BlockId:
        """A block as a global configuration names it. Raises ValueError, KeyError or TypeError."""
        root, file = (base64.b64decode(document[name]) for name in ("root_hash", "file_hash"))
        if len(root) != 32 or len(file) != 32:
            raise ValueError("a hash has 32 bytes")
        seqno, workchain = int(document["seqno"]), int(document["workchain"])
        return cls(workchain=workchain, seqno=seqno, root_hash=root, file_hash=file)

    def to_vm(self) -> McBlockId:
        """The form that contracts see."""
        return McBlockId(seqno=self.seqno, root_hash=self.root_hash, file_hash=self.file_hash)


@dataclass(frozen=True)
class Block:
    """A finished block (a zerostate has seqno 0 and the state's BoC). Times are Unix and logical.

    `state` names the state after the block.
    """

    id: BlockId
    start_lt: int
    end_lt: int
    utime: int
    state: Stub
    boc: bytes

    @property
    def seqno(self) -> int:
        """Sequence number."""
        return self.id.seqno

    @cached_property
    def cell(self) -> Cell:
        """The block's root cell."""
        return read_boc(self.boc)

    @property
    def is_key(self) -> bool:
        """Whether this is the key block: masterchain block 1, the only one with a configuration."""
        return self.id.workchain == MASTERCHAIN and self.id.seqno == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEntry:
    """An account in the dictionary of the state.

    `account` is the ``Account`` cell (in the zerostate) or its stub, `balance` nanoton; `last_hash` and
    `last_lt` name its last transaction (zeros for none).
    """

    account: Cell | Stub
    balance: int
    last_hash: bytes
    last_lt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionRecord:
    """A transaction in the block `seqno` of its account's workchain."""

    account: bytes
    lt: int
    hash: bytes
    seqno: int
    boc: bytes


def account_name(workchain: int, id: bytes) -> bytes:
    """How this package names an account: its id of 32 bytes, after a byte ff in the masterchain."""
    return id if workchain == BASECHAIN else _MASTER_MARK + id


def name_of(address: Address) -> bytes:
    """The name of an account by its address."""
    return account_name(int(address.wc), bytes(address.hash_part))


def workchain_of(account: bytes) -> int:
    """The workchain of an account's name."""
    return BASECHAIN if len(account) == 32 else MASTERCHAIN


def account_key(account: bytes) -> str:
    """Dictionary key of an account's name: its id in bits."""
    return format(int.from_bytes(account[-32:], "big"), "0256b")


def store_currency(builder: Builder, amount: int) -> Builder:
    """``CurrencyCollection`` without extra currencies."""
    return cast(Builder, builder.store_coins(amount).store_bit(0))


def store_block_ref(builder: Builder, block: Block) -> Builder:
    """``ExtBlkRef``."""
    builder.store_uint(block.end_lt, 64).store_uint(block.seqno, 32)
    return cast(Builder, builder.store_bytes(block.id.root_hash).store_bytes(block.id.file_hash))


def block_ref(block: Block) -> Cell:
    """``ExtBlkRef`` in a cell of its own."""
    return store_block_ref(begin_cell(), block).end_cell()


def store_shard_ident(builder: Builder, workchain: int) -> Builder:
    """``ShardIdent`` of the whole workchain."""
    return cast(
        Builder, builder.store_uint(0, 2).store_uint(0, 6).store_int(workchain, 32).store_uint(0, 64)
    )
