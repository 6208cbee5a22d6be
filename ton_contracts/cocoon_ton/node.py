"""The Node contract: identity, address and state. Pure; no chain access.

Messages are in `cocoon_ton.node_messages`. Layouts: ``ton_contracts/cocoon.tlb``.
Rules: ``docs/spec/contracts.md``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from pytoniq_core import Address, Builder, Cell, StateInit

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.payment import PriceList
from cocoon_attestation.types import sint, uint
from cocoon_ton import opcodes
from cocoon_ton.cells import Reader, finish
from cocoon_ton.code import contract_address, node_code
from cocoon_ton.enforcement import (
    AnchorHistory,
    Challenge,
    RetiredKeys,
    parse_challenges,
    parse_history,
    parse_retired,
)
from cocoon_ton.parameters import RegistryParameters as RegistryParameters
from cocoon_ton.parameters import parse_parameters as parse_parameters

CODE_VERSION: Final = 1
"""Version of the node code in this package, as registries list it."""
FLAG_SIMULATED: Final = 1
PROPOSAL_TIMEOUT_S: Final = 600
"""After so many seconds a proposal without an answer may be replaced."""
MAX_ENDPOINT: Final = 127
MAX_MODELS: Final = 3


class BondState(enum.IntEnum):
    """Where a node's stake is."""

    IDLE = 0
    """No stake is held."""
    JOINING = 1
    """The entry was sent to the registry; no answer yet."""
    ACTIVE = 2
    UNBONDING = 3
    """Left the registry; the stake may leave at `unlock_at`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """What a node's address is made of. Raises `MalformedError` for a value out of range."""

    global_id: int
    """TON network."""
    registry: Address
    owner: Address
    """Stakes, attests, settles, is paid."""
    salt: int
    """Unsigned 64-bit: one owner may run several nodes."""
    code_version: int = CODE_VERSION
    """Key of the registry's table of contract codes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        sint(self.global_id, 32, "node global_id")
        uint(self.salt, 64, "node salt")
        uint(self.code_version, 16, "node code_version")
        for name in ("registry", "owner"):
            if getattr(self, name).wc != 0:
                raise MalformedError(f"node {name}: an address in the basechain is expected")

    @property
    def cell(self) -> Cell:
        """The identity as a cell."""
        return finish(
            Builder()
            .store_int(self.global_id, 32)
            .store_uint(self.code_version, 16)
            .store_address(self.registry)
            .store_address(self.owner)
            .store_uint(self.salt, 64)
        )

    @property
    def initial_data(self) -> Cell:
        """Data cell of the StateInit."""
        return finish(
            Builder()
            .store_uint(opcodes.NODE_STORAGE, 32)
            .store_ref(self.cell)
            .store_uint(BondState.IDLE, 8)
            .store_uint(0, 32)  # unlock_at
            .store_coins(0)  # stake
            .store_coins(0)  # deposits
            .store_uint(0, 8)  # open challenges
            .store_uint(0, 64)  # tree size
            .store_uint(0, 256)  # root
            .store_uint(0, 32)  # anchored_at
            .store_bits("000")  # key, history, rest
        )

    @property
    def address(self) -> Address:
        """Address of the node, computed with the node code of this package."""
        return contract_address(node_code().cell, self.initial_data)

    @property
    def account_id(self) -> bytes:
        """Account id of the node, 32 bytes: `node` of key bindings, receipts and checkpoints."""
        return bytes(self.address.hash_part)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTerms:
    """What a node offers, as it stands on chain."""

    endpoint: str
    """``host:port`` of the enclave, ASCII."""
    models: tuple[bytes, ...]
    """Model digests, 1 to 3, 32 bytes each."""
    simulated: bool
    """The owner says that the TEE is simulated."""
    prices: PriceList
    next_prices: PriceList
    """Count from `prices_effective_at`; equal to `prices` if no change is under way."""
    prices_effective_at: int
    """Unix time in seconds."""

    def prices_at(self, now: int) -> PriceList:
        """The prices that count at Unix time `now`."""
        return self.next_prices if now >= self.prices_effective_at else self.prices


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key binding that the registry listed, with its evidence. Digests: 32 bytes. Times: Unix seconds."""

    binding_hash: bytes
    receipt_key: bytes
    """Ed25519 public key."""
    evidence_digest: bytes
    """SHA-256 of the published evidence."""
    not_before: int
    not_after: int
    attested_until: int
    """How long the evidence counts; 0 after the node joined again."""
    previous: KeyRecord | None = None
    """The binding before; has no previous itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProposal:
    """A key binding that the registry was asked to list."""

    made_at: int
    """Unix time of the transaction that proposed it."""
    record: KeyRecord
    """What the current key will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredLog:
    """The last anchored checkpoint."""

    tree_size: int
    """0 if nothing was anchored."""
    root: bytes
    """32 bytes; zeros at size 0."""
    anchored_at: int
    """Unix time of the anchoring transaction; 0 if nothing was anchored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """Data of a node contract."""

    identity: NodeIdentity
    bond: BondState
    unlock_at: int
    """Unix time from which the stake may be withdrawn; 0 if no wait is running."""
    stake: int
    """Part of the balance that is held, in nanoton."""
    log: AnchoredLog
    terms: NodeTerms | None
    """None until the node joined for the first time."""
    key: KeyRecord | None
    """Current key binding; None until the first attest."""
    parameters: RegistryParameters | None
    """The registry's parameters as of its last answer."""
    deposits: int = 0
    """Of open challenges, in nanoton; part of the balance that is held beside the stake."""
    open_challenges: int = 0
    history: AnchorHistory = field(default_factory=AnchorHistory)
    retired: RetiredKeys = field(default_factory=RetiredKeys)
    challenges: tuple[Challenge, ...] = ()
    """Open ones, and receipts that the node was slashed for."""
    proposal: KeyProposal | None = None
    """A key binding that the registry has not answered to yet."""

    @property
    def held(self) -> int:
        """Part of the balance that is not the node's to spend, in nanoton."""
        return self.stake + self.deposits

    def receipt_key(self, binding_hash: bytes) -> bytes | None:
        """Receipt key of the binding with this hash, None if the contract does not keep it."""
        if self.key is not None and self.key.binding_hash == binding_hash:
            return self.key.receipt_key
        if self.key is not None and self.key.previous and self.key.previous.binding_hash == binding_hash:
            return self.key.previous.receipt_key
        return self.retired.keys.get(binding_hash)


def node_initial_data(identity: NodeIdentity) -> Cell:
    """Data cell of the StateInit of a node."""
    return identity.initial_data


def node_address(
    registry: Address,
    owner: Address,
    salt: int,
    *,
    global_id: int,
    code_version: int = CODE_VERSION,
    code: Cell | None = None,
) -> Address:
    """Address of a node; `code` defaults to the node code of this package."""
    identity = NodeIdentity(
        global_id=global_id, registry=registry, owner=owner, salt=salt, code_version=code_version
    )
    return contract_address(code or node_code().cell, identity.initial_data)


def node_state_init(identity: NodeIdentity) -> StateInit:
    """StateInit that deploys a node, for a wallet message with `join_body`."""
    return StateInit(code=node_code().cell, data=identity.initial_data)


def parse_node(data: Cell) -> NodeState:
    """Read a node's data cell.

    Raises:
        MalformedError: not the data of a node.
    """
    root = Reader(data)
    root.tag(opcodes.NODE_STORAGE)
    identity = parse_identity(root.ref())
    bond = root.uint(8)
    if bond not in set(BondState):
        raise MalformedError("node: unknown bond state")
    unlock_at, stake = root.uint(32), root.coins()
    deposits, open_challenges = root.coins(), root.uint(8)
    log = AnchoredLog(tree_size=root.uint(64), root=root.raw(32), anchored_at=root.uint(32))
    key, history, rest = root.maybe_ref(), root.maybe_ref(), root.maybe_ref()
    root.end()
    terms, parameters, others, challenges = (None,) * 4 if rest is None else _read_rest(rest)
    retired, proposal = (None, None) if others is None else _read_others(others)
    return NodeState(
        identity=identity,
        bond=BondState(bond),
        unlock_at=unlock_at,
        stake=stake,
        log=log,
        terms=None if terms is None else parse_terms(terms),
        key=None if key is None else parse_key_record(key),
        parameters=None if parameters is None else parse_parameters(parameters),
        deposits=deposits,
        open_challenges=open_challenges,
        history=parse_history(history),
        retired=parse_retired(retired),
        challenges=parse_challenges(challenges),
        proposal=None if proposal is None else _read_proposal(proposal),
    )


def _read_rest(cell: Cell) -> tuple[Cell | None, ...]:
    """Terms, parameters, other keys, challenges."""
    reader = Reader(cell)
    parts = tuple(reader.maybe_ref() for _ in range(4))
    reader.end()
    return parts


def _read_others(cell: Cell) -> tuple[Cell | None, Cell | None]:
    """Retired keys, proposal."""
    reader = Reader(cell)
    retired, proposal = reader.maybe_ref(), reader.maybe_ref()
    reader.end()
    return retired, proposal


def _read_proposal(cell: Cell) -> KeyProposal:
    reader = Reader(cell)
    made_at, record = reader.uint(32), parse_key_record(reader.ref())
    reader.maybe_ref()  # retired keys, once it counts
    reader.end()
    return KeyProposal(made_at=made_at, record=record)


def parse_identity(cell: Cell) -> NodeIdentity:
    """Read a node's identity cell.

    Raises:
        MalformedError: not an identity.
    """
    reader = Reader(cell)
    global_id, code_version = reader.sint(32), reader.uint(16)
    registry, owner, salt = reader.address(), reader.address(), reader.uint(64)
    reader.end()
    return NodeIdentity(
        global_id=global_id, registry=registry, owner=owner, salt=salt, code_version=code_version
    )


def parse_terms(cell: Cell) -> NodeTerms:
    """Read a terms cell.

    Raises:
        MalformedError: not terms, or an endpoint or models out of form.
    """
    reader = Reader(cell)
    flags = reader.uint(8)
    prices, next_prices = _read_prices(reader), _read_prices(reader)
    effective_at = reader.uint(32)
    endpoint, models = reader.sub(), reader.sub()
    reader.end()
    text, digests = endpoint.rest(), models.rest()
    endpoint.end()
    models.end()
    if not text.isascii() or not text.decode("ascii").isprintable() or not 0 < len(text) <= MAX_ENDPOINT:
        raise MalformedError("node terms: endpoint must be printable ASCII")
    if not digests or len(digests) % 32:
        raise MalformedError("node terms: model digests of 32 bytes expected")
    return NodeTerms(
        endpoint=text.decode("ascii"),
        models=tuple(digests[at : at + 32] for at in range(0, len(digests), 32)),
        simulated=bool(flags & FLAG_SIMULATED),
        prices=prices,
        next_prices=next_prices,
        prices_effective_at=effective_at,
    )


def parse_key_record(cell: Cell, *, nested: bool = False) -> KeyRecord:
    """Read a key record with the one before it.

    Raises:
        MalformedError: not a key record, or a chain of more than two.
    """
    reader = Reader(cell)
    binding_hash, receipt_key, evidence_digest = reader.raw(32), reader.raw(32), reader.raw(32)
    not_before, not_after, attested_until = reader.uint(32), reader.uint(32), reader.uint(32)
    previous = reader.maybe_ref()
    reader.end()
    if previous is not None and nested:
        raise MalformedError("key record: more than one previous binding")
    return KeyRecord(
        binding_hash=binding_hash,
        receipt_key=receipt_key,
        evidence_digest=evidence_digest,
        not_before=not_before,
        not_after=not_after,
        attested_until=attested_until,
        previous=None if previous is None else parse_key_record(previous, nested=True),
    )


def _read_prices(reader: Reader) -> PriceList:
    return PriceList(prompt=reader.uint(64), cached=reader.uint(64), completion=reader.uint(64))
