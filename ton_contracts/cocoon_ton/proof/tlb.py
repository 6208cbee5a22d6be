"""The few TL-B structures that proofs need, read field by field from a `ProofTree`.

Schemes: ``crypto/block/block.tlb`` of the TON node. Only what a check uses is read, so a proof may prune
the rest; what is read is never pruned, because `ProofTree.open` refuses.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Address, Cell, Slice

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.tree import ProofTree
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, BlockId

_BLOCK, _BLOCK_INFO, _BLOCK_EXTRA, _MC_BLOCK_EXTRA = 0x11EF55AA, 0x9BC7A987, 0x4A33F6FD, 0xCCA5
_SHARD_STATE, _MC_STATE_EXTRA = 0x9023AFE2, 0xCC26


def lookup(tree: ProofTree, root: Cell, key: str) -> Slice | None:
    """The leaf of `key` (a string of 0 and 1) in a ``Hashmap``, or None if it is proved absent.

    For a ``HashmapAug`` the slice starts with the leaf's augmentation.
    """
    cell, rest = root, key
    while True:
        part = tree.open(cell)
        label = _label(part, len(rest))
        if not rest.startswith(label):
            return None
        rest = rest[len(label) :]
        if not rest:
            return part
        cell = part.refs[int(rest[0])]
        rest = rest[1:]


def _label(part: Slice, limit: int) -> str:
    width = limit.bit_length()
    if not part.load_bit():
        length = 0
        while part.load_bit():
            length += 1
        label = str(part.load_bits(length).to01())
    elif not part.load_bit():
        length = part.load_uint(width) if width else 0
        label = str(part.load_bits(length).to01())
    else:
        bit = str(part.load_bit())
        length = part.load_uint(width) if width else 0
        label = bit * length
    if length > limit or len(label) != length:
        raise ChainProofError("dictionary label is too long")
    return label


def bits_of(data: bytes) -> str:
    """`data` as a dictionary key."""
    return format(int.from_bytes(data, "big"), f"0{len(data) * 8}b")


def _expect(part: Slice, tag: int, width: int, what: str) -> None:
    if part.load_uint(width) != tag:
        raise ChainProofError(f"{what} has a wrong tag")


def skip_currencies(part: Slice) -> None:
    """Skip one ``CurrencyCollection``."""
    part.load_coins()
    if part.load_bit():
        part.load_ref()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a block says about itself (``BlockInfo``), with the hash of the state after it."""

    global_id: int
    workchain: int
    shard_prefix: str
    """The shard's bits, empty for an unsplit workchain."""
    seqno: int
    key_block: bool
    utime: int
    prev_key_seqno: int
    state_hash: bytes

    def contains(self, address: Address) -> bool:
        """Whether the account belongs to this block's shard."""
        return address.wc == self.workchain and bits_of(address.hash_part).startswith(self.shard_prefix)


def read_header(tree: ProofTree) -> Header:
    """``Block`` and ``BlockInfo``."""
    block = tree.open(tree.root)
    _expect(block, _BLOCK, 32, "block")
    global_id = block.load_int(32)
    info = tree.open(block.refs[0])
    _expect(info, _BLOCK_INFO, 32, "block info")
    info.skip_bits(32)
    not_master = info.load_bool()
    info.skip_bits(5)
    key_block = info.load_bool()
    info.skip_bits(1 + 8)
    seqno = info.load_uint(32)
    info.skip_bits(32)
    workchain, prefix = _shard_ident(info)
    utime = info.load_uint(32)
    info.skip_bits(64 + 64 + 32 + 32 + 32)
    prev_key_seqno = info.load_uint(32)
    if not_master != (workchain != MASTERCHAIN) or (key_block and not_master):
        raise ChainProofError("block info contradicts itself")
    return Header(
        global_id=global_id,
        workchain=workchain,
        shard_prefix=prefix,
        seqno=seqno,
        key_block=key_block,
        utime=utime,
        prev_key_seqno=prev_key_seqno,
        state_hash=tree.update_target(block.refs[2]),
    )


def _shard_ident(part: Slice) -> tuple[int, str]:
    _expect(part, 0, 2, "shard")
    length = part.load_uint(6)
    workchain = part.load_int(32)
    prefix = part.load_uint(64)
    if length > 60 or prefix & ((1 << (64 - length)) - 1):
        raise ChainProofError("shard prefix is malformed")
    return workchain, format(prefix, "064b")[:length]


def read_config(tree: ProofTree) -> Cell:
    """The root of the configuration dictionary in a key block."""
    extra = tree.open(tree.open(tree.root).refs[3])
    _expect(extra, _BLOCK_EXTRA, 32, "block extra")
    if len(extra.refs) != 4:
        raise ChainProofError("block has no masterchain extra")
    custom = tree.open(extra.refs[3])
    _expect(custom, _MC_BLOCK_EXTRA, 16, "masterchain extra")
    if not custom.load_bool():
        raise ChainProofError("forward link from a block that is not a key block")
    for _ in range(2):  # shard_hashes, shard_fees
        if custom.load_bit():
            custom.load_ref()
    skip_currencies(custom)  # the augmentation of shard_fees: fees and create
    skip_currencies(custom)
    custom.load_ref()
    custom.skip_bits(256)
    return custom.load_ref()


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterState:
    """Parts of a masterchain state that proofs lead through; cells may still be pruned."""

    shard_hashes: Cell | None
    info: Cell


def read_master_state(tree: ProofTree) -> MasterState:
    """``McStateExtra`` of a masterchain state."""
    state = _open_state(tree, MASTERCHAIN, "")
    if not state.load_bool():
        raise ChainProofError("state has no masterchain part")
    extra = tree.open(state.load_ref())
    _expect(extra, _MC_STATE_EXTRA, 16, "masterchain state")
    shard_hashes = extra.load_ref() if extra.load_bit() else None
    extra.skip_bits(256)
    extra.load_ref()
    return MasterState(shard_hashes=shard_hashes, info=extra.load_ref())


def _open_state(tree: ProofTree, workchain: int, prefix: str) -> Slice:
    """``ShardStateUnsplit`` up to `custom`; its refs 1 and 2 are accounts and libraries."""
    state = tree.open(tree.root)
    _expect(state, _SHARD_STATE, 32, "state")
    state.skip_bits(32)
    if _shard_ident(state) != (workchain, prefix):
        raise ChainProofError("state is of another shard")
    state.skip_bits(32 + 32 + 32 + 64 + 32 + 1)
    for _ in range(3):
        state.load_ref()
    return state


def read_accounts(tree: ProofTree, workchain: int, prefix: str) -> Cell | None:
    """The root of ``ShardAccounts``, or None if the shard has no account at all."""
    _open_state(tree, workchain, prefix)
    accounts = tree.open(tree.root.refs[1])
    return accounts.load_ref() if accounts.load_bit() else None


def find_old_block(tree: ProofTree, info: Cell, seqno: int) -> BlockId | None:
    """The masterchain block `seqno` in a masterchain state: its last key block, or in ``prev_blocks``."""
    part = tree.open(info)
    part.skip_bits(16 + 32 + 32 + 1)
    root = part.load_ref() if part.load_bit() else None
    part.skip_bits(1 + 64 + 1)  # KeyMaxLt, after_key_block
    if part.load_bit():
        key_block = _ext_block_ref(part)
        if key_block.seqno == seqno:
            return key_block
    leaf = None if root is None else lookup(tree, root, format(seqno, "032b"))
    if leaf is None:
        return None
    leaf.skip_bits(1 + 64 + 1)  # KeyMaxLt, key flag
    return _ext_block_ref(leaf)


def _ext_block_ref(part: Slice) -> BlockId:
    part.skip_bits(64)  # end_lt
    return BlockId(
        workchain=MASTERCHAIN,
        shard=FULL_SHARD,
        seqno=part.load_uint(32),
        root_hash=part.load_bytes(32),
        file_hash=part.load_bytes(32),
    )


def find_shard(tree: ProofTree, shard_hashes: Cell | None, address: Address) -> BlockId:
    """The newest block of the shard that holds `address`, as the masterchain state lists it."""
    if shard_hashes is None:
        raise ChainProofError("masterchain state lists no shards")
    leaf = lookup(tree, shard_hashes, format(address.wc & 0xFFFFFFFF, "032b"))
    if leaf is None:
        raise ChainProofError("masterchain state does not list the workchain")
    node = tree.open(leaf.load_ref())
    path = bits_of(address.hash_part)
    depth = 0
    while node.load_bit():
        if depth >= 60:
            raise ChainProofError("shard tree is too deep")
        node = tree.open(node.refs[int(path[depth])])
        depth += 1
    if node.load_uint(4) not in (0xA, 0xB):
        raise ChainProofError("shard description has a wrong tag")
    seqno = node.load_uint(32)
    node.skip_bits(32 + 64 + 64)
    shard = int(path[:depth] + "1" + "0" * (63 - depth), 2)
    return BlockId(
        workchain=address.wc,
        shard=shard - (1 << 64) if shard >> 63 else shard,
        seqno=seqno,
        root_hash=node.load_bytes(32),
        file_hash=node.load_bytes(32),
    )
