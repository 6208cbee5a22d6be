"""An account, or its absence, proved from a masterchain block.

The way down: masterchain header → masterchain state → shard block → shard state → path in ``ShardAccounts``
→ account cell. Every step is a hash that the step before names; an account is absent only if the path to
it is shown and ends elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Account, Address, Cell

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.blocks import open_header
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.proof.tlb import (
    Header,
    bits_of,
    find_shard,
    lookup,
    read_accounts,
    read_master_state,
    skip_currencies,
)
from cocoon_ton.proof.tree import ProofTree
from cocoon_ton.values import MASTERCHAIN, AccountState, AccountStatus, BlockId, BlockRef

_STATUS: dict[str, AccountStatus] = {
    "account_uninit": "uninit",
    "account_active": "active",
    "account_frozen": "frozen",
}
_NO_TRANSACTION = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProof:
    """Cells that prove one account. Masterchain accounts need no `shards`."""

    shards: Cell | None
    """Merkle proof in the masterchain state: which shard block is current."""
    header: Cell
    """Merkle proof: header of the shard block."""
    path: Cell
    """Merkle proof in the shard state: the way to the account."""
    state: Cell | None
    """The account itself; None if it does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedAccount:
    """Result of `verify_account`."""

    state: AccountState
    shard_block: BlockId
    proof: AccountProof
    """The same proof with each part cut down to what was read."""


def verify_account(
    block: BlockRef, header: Header, global_id: int, address: Address, proof: AccountProof
) -> ProvedAccount:
    """Prove `address` under the trusted masterchain `block` with `header`. Raises `ChainProofError`."""
    with proof_seam("account proof"):
        shard_block, shards = _shard_block(block, header, address, proof.shards)
        shard_header, header_tree = open_header(proof.header, shard_block, global_id)
        if not shard_header.contains(address):
            raise ChainProofError("shard block does not hold the account")
        tree = ProofTree(proof.path, shard_header.state_hash)
        root = read_accounts(tree, shard_header.workchain, shard_header.shard_prefix)
        leaf = None if root is None else lookup(tree, root, bits_of(address.hash_part))
        if leaf is None:
            if proof.state is not None:
                raise ChainProofError("liteserver shows an account that the chain does not have")
            state = _absent(address, block, shard_header.utime)
        else:
            leaf.skip_bits(5)  # DepthBalanceInfo
            skip_currencies(leaf)
            account = leaf.load_ref()
            last_hash, last_lt = leaf.load_bytes(32), leaf.load_uint(64)
            if proof.state is None:
                raise ChainProofError("liteserver hides an account that the chain has")
            if proof.state.hash != account.get_hash(0):
                raise ChainProofError("account state is not the one that the chain has")
            state = _present(address, block, shard_header.utime, proof.state, last_lt, last_hash)
    return ProvedAccount(
        state=state,
        shard_block=shard_block,
        proof=AccountProof(
            shards=shards, header=header_tree.minimal(), path=tree.minimal(), state=proof.state
        ),
    )


def _shard_block(
    block: BlockRef, header: Header, address: Address, shards: Cell | None
) -> tuple[BlockId, Cell | None]:
    if address.wc == MASTERCHAIN:
        if shards is not None:
            raise ChainProofError("a masterchain account needs no shard proof")
        return block.id, None
    if shards is None:
        raise ChainProofError("account proof does not lead from the masterchain to the shard")
    tree = ProofTree(shards, header.state_hash)
    found = find_shard(tree, read_master_state(tree).shard_hashes, address)
    return found, tree.minimal()


def _absent(address: Address, block: BlockRef, utime: int) -> AccountState:
    return AccountState(
        address=address,
        status="nonexist",
        balance=0,
        code=None,
        data=None,
        last_tx_lt=0,
        last_tx_hash=_NO_TRANSACTION,
        block=block,
        shard_utime=utime,
    )


def _present(
    address: Address, block: BlockRef, utime: int, cell: Cell, last_lt: int, last_hash: bytes
) -> AccountState:
    account = Account.deserialize(cell.begin_parse())
    status: AccountStatus = "nonexist"
    balance, code, data = 0, None, None
    if account is not None:
        if account.addr != address:
            raise ChainProofError("account state is of another address")
        state = account.storage.state
        status, balance = _STATUS[state.type_], account.storage.balance.grams
        if status == "active":
            code, data = state.state_init.code, state.state_init.data
    return AccountState(
        address=address,
        status=status,
        balance=balance,
        code=code,
        data=data,
        last_tx_lt=last_lt,
        last_tx_hash=last_hash,
        block=block,
        shard_utime=utime,
    )
