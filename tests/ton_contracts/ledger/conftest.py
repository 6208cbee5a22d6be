"""Two sources of truth for the ledger client: a running development chain, and hand-made masterchain blocks.

`Smith` makes masterchain blocks with any validators, key blocks and shard trees, which one development
chain with one validator cannot show. Its cells are never checked by the code that makes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Address, Builder, Cell, begin_cell

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.devnet import Devnet
from cocoon_ton.devnet.cells import merkle_proof, merkle_update
from cocoon_ton.devnet.dictionary import AugDict, plain_dict
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof.blocks import BackLink, ForwardLink
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.proof.signatures import SignatureSet, node_id, tl_block_id
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, BlockId

GLOBAL_ID = -217
ALICE = Address((0, b"\xa1" * 32))
NOBODY = Address((0, b"\x99" * 32))
ALICE_BALANCE = 1000 * 10**9


@pytest.fixture(scope="session")
def sandbox() -> None:
    """Skip where the npm packages of the emulator are not installed."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
async def devnet(sandbox: None) -> AsyncIterator[Devnet]:
    """A chain that makes blocks only on `tick`, with one funded account without code."""
    async with Devnet.start(block_interval=None, accounts={ALICE: ALICE_BALANCE}) as net:
        yield net


def network_of(devnet: Devnet, *others: Devnet, config: dict[str, Any] | None = None) -> NetworkConfig:
    """The network file of `devnet`, with the liteservers of `others` beside its own."""
    chosen = dict(config or devnet.config)
    chosen["liteservers"] = [
        *devnet.config["liteservers"],
        *(server for other in others for server in other.config["liteservers"]),
    ]
    if config is not None and not others:
        chosen["liteservers"] = config["liteservers"]
    return NetworkConfig(name="test", global_id=devnet.global_id, registry="", global_config=chosen)


@pytest.fixture
def network(devnet: Devnet) -> NetworkConfig:
    """The network file of `devnet`."""
    return network_of(devnet)


@dataclass(frozen=True)
class Validator:
    """A key with a weight."""

    key: Ed25519PrivateKey
    weight: int

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def id(self) -> bytes:
        return node_id(self.public)


def validators(*weights: int, first: int = 1) -> list[Validator]:
    """Validators with these weights and fixed keys."""
    return [
        Validator(Ed25519PrivateKey.from_private_bytes(bytes([first + i]) * 32), weight)
        for i, weight in enumerate(weights)
    ]


class _OldBlocks:
    """Augmentation of ``OldMcBlocksInfo``: any key block, newest logical time."""

    def extra_of(self, value: Forged) -> tuple[bool, int]:
        return value.is_key, value.id.seqno

    def merge(self, left: tuple[bool, int], right: tuple[bool, int]) -> tuple[bool, int]:
        return left[0] or right[0], max(left[1], right[1])

    def store_extra(self, builder: Builder, extra: tuple[bool, int]) -> None:
        builder.store_bit(int(extra[0])).store_uint(extra[1], 64)

    def store_value(self, builder: Builder, value: Forged) -> None:
        builder.store_bit(int(value.is_key)).store_uint(value.id.seqno, 64)
        builder.store_uint(value.id.seqno, 32)
        builder.store_bytes(value.id.root_hash).store_bytes(value.id.file_hash)


@dataclass(frozen=True)
class Forged:
    """A block made by `Smith`, with the state after it."""

    id: BlockId
    cell: Cell
    state: Cell
    is_key: bool

    @property
    def proof(self) -> Cell:
        """Merkle proof that shows the whole block."""
        return merkle_proof(self.cell)

    @property
    def state_proof(self) -> Cell:
        """Merkle proof that shows the whole state."""
        return merkle_proof(self.state)


@dataclass
class Smith:
    """Makes a masterchain. The first block is a key block with the given validators."""

    members: list[Validator]
    global_id: int = GLOBAL_ID
    first_seqno: int = 1000
    utime: int = 1_790_000_000
    config_extra: dict[int, Cell] = field(default_factory=dict)
    blocks: list[Forged] = field(default_factory=list)
    last_key: int = 0
    without_validators: bool = False

    def __post_init__(self) -> None:
        self.add(key=True)

    @property
    def init(self) -> Forged:
        return self.blocks[0]

    @property
    def head(self) -> Forged:
        return self.blocks[-1]

    def add(
        self,
        *,
        key: bool = False,
        members: list[Validator] | None = None,
        shards: Cell | None = None,
        seqno: int | None = None,
        workchain: int = MASTERCHAIN,
        prefix: str = "",
        admits_key: bool = True,
    ) -> Forged:
        """The next block; with `members` a key block that hands over to them.

        `admits_key` False: a key block whose header does not say so.
        """
        is_key = key or members is not None
        self.members = members or self.members
        number = seqno or (self.blocks[-1].id.seqno + 1 if self.blocks else self.first_seqno)
        state = self._state(number, shards)
        cell = self._block(number, is_key, state, workchain, prefix, admits_key)
        made = Forged(
            id=BlockId(
                workchain=MASTERCHAIN,
                shard=FULL_SHARD,
                seqno=number,
                root_hash=bytes(cell.hash),
                file_hash=hashlib.sha256(write_boc([cell])).digest(),
            ),
            cell=cell,
            state=state,
            is_key=is_key,
        )
        self.blocks.append(made)
        if is_key:
            self.last_key = number
        return made

    # ---- links

    def forward(self, start: Forged, to: Forged, signers: Sequence[Validator] | None = None) -> ForwardLink:
        return ForwardLink(to=to.id, config=start.proof, signatures=sign(to.id, signers or self.members))

    def back(self, start: Forged, to: Forged) -> BackLink:
        return BackLink(to=to.id, header=start.proof, state=start.state_proof)

    # ---- cells

    def _block(
        self, seqno: int, is_key: bool, state: Cell, workchain: int, prefix: str, admits_key: bool
    ) -> Cell:
        info = begin_cell().store_uint(0x9BC7A987, 32).store_uint(0, 32)
        info.store_bit(int(workchain != MASTERCHAIN)).store_uint(0, 5)
        info.store_bit(int(is_key and admits_key)).store_bit(0)
        info.store_uint(0, 8).store_uint(seqno, 32).store_uint(0, 32)
        info.store_uint(len(prefix), 8).store_int(workchain, 32).store_bits(prefix.ljust(64, "0"))
        info.store_uint(self.utime + seqno, 32).store_uint(seqno, 64).store_uint(seqno, 64)
        info.store_uint(0, 96).store_uint(self.last_key, 32).store_ref(Cell.empty())
        custom = begin_cell().store_uint(0xCCA5, 16).store_bit(int(is_key)).store_bit(0)
        custom.store_bit(1).store_ref(Cell.empty())  # shard fees with an extra of two amounts
        custom.store_coins(5).store_bit(0).store_coins(7).store_bit(0).store_ref(Cell.empty())
        if is_key:
            custom.store_bytes(b"\x55" * 32).store_ref(self._config())
        extra = begin_cell().store_uint(0x4A33F6FD, 32)
        for _ in range(3):
            extra.store_ref(Cell.empty())
        extra.store_bytes(bytes(64)).store_bit(1).store_ref(custom.end_cell())
        block = begin_cell().store_uint(0x11EF55AA, 32).store_int(self.global_id, 32)
        block.store_ref(info.end_cell()).store_ref(Cell.empty())
        block.store_ref(merkle_update(Cell.empty(), state)).store_ref(extra.end_cell())
        cell: Cell = block.end_cell()
        return cell

    def _config(self) -> Cell:
        params = {0: Cell.empty(), 34: validator_set(self.members)} | self.config_extra
        if self.without_validators:
            del params[34]
        return plain_dict(params.items(), 32)

    def _state(self, seqno: int, shards: Cell | None) -> Cell:
        state = begin_cell().store_uint(0x9023AFE2, 32).store_int(self.global_id, 32)
        state.store_uint(0, 8).store_int(MASTERCHAIN, 32).store_uint(0, 64)
        state.store_uint(seqno, 32).store_uint(0, 32).store_uint(0, 32).store_uint(0, 64).store_uint(0, 32)
        state.store_ref(Cell.empty()).store_bit(0).store_ref(Cell.empty()).store_ref(Cell.empty())
        old: AugDict[Forged, tuple[bool, int]] = AugDict(32, _OldBlocks())
        old = old.built((format(b.id.seqno, "032b"), b) for b in self.blocks)
        info = begin_cell().store_uint(0, 16 + 32 + 32 + 1)
        if old.root is None:
            info.store_bit(0)
        else:
            info.store_bit(1).store_ref(old.root.cell)
        info.store_uint(0, 65).store_uint(0, 2)
        custom = begin_cell().store_uint(0xCC26, 16)
        if shards is None:
            custom.store_bit(0)
        else:
            custom.store_bit(1).store_ref(shards)
        custom.store_bytes(bytes(32)).store_ref(Cell.empty()).store_ref(info.end_cell()).store_coins(0)
        cell: Cell = state.store_bit(1).store_ref(custom.store_bit(0).end_cell()).end_cell()
        return cell


def validator_set(
    members: Sequence[Validator], *, main: int | None = None, total: int | None = None
) -> Cell:
    """``validators_ext`` (configuration parameter 34)."""
    entries: AugDict[Validator, None] = AugDict(16, _ValidatorEntry())
    entries = entries.built((format(i, "016b"), member) for i, member in enumerate(members))
    assert entries.root is not None
    part = begin_cell().store_uint(0x12, 8).store_uint(0, 64)
    part.store_uint(total or len(members), 16).store_uint(main or len(members), 16)
    part.store_uint(sum(member.weight for member in members), 64)
    cell: Cell = part.store_bit(1).store_ref(entries.root.cell).end_cell()
    return cell


class _ValidatorEntry:
    """A plain dictionary seen as one with empty extras."""

    def extra_of(self, value: Validator) -> None: ...

    def merge(self, left: None, right: None) -> None: ...

    def store_extra(self, builder: Builder, extra: None) -> None: ...

    def store_value(self, builder: Builder, value: Validator) -> None:
        builder.store_uint(0x53, 8).store_uint(0x8E81278A, 32)
        builder.store_bytes(value.public).store_uint(value.weight, 64)


def sign(block: BlockId, signers: Sequence[Validator]) -> SignatureSet:
    """Ordinary signatures."""
    message = bytes.fromhex("706e0bc5") + block.root_hash + block.file_hash
    return SignatureSet(kind="ordinary", signatures=tuple((v.id, v.key.sign(message)) for v in signers))


def sign_simplex(block: BlockId, signers: Sequence[Validator], *, vote: str = "05e1a740") -> SignatureSet:
    """Simplex signatures over a vote; the default one finalises."""
    session, slot = hashlib.sha256(b"session").digest(), 77
    candidate = bytes.fromhex("dcbcf9e8") + tl_block_id(block) + bytes(32) + bytes(4)
    ballot = bytes.fromhex(vote) + bytes.fromhex("3fcd91b6") + slot.to_bytes(4, "little")
    ballot += hashlib.sha256(candidate).digest()
    data = bytes([len(ballot)]) + ballot
    message = bytes.fromhex("f83de3a8") + session + data + bytes(-len(data) % 4)
    return SignatureSet(
        kind="simplex",
        signatures=tuple((v.id, v.key.sign(message)) for v in signers),
        session_id=session,
        slot=slot,
        candidate=candidate,
    )


@pytest.fixture
def smith() -> Smith:
    """A masterchain of four validators with weights 1 to 4."""
    return Smith(validators(1, 2, 3, 4))
