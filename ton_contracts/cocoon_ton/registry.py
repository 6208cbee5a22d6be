"""The Registry contract: state, changes, messages, and the appraisal policy it stands for. Pure.

Layouts: ``ton_contracts/cocoon.tlb``. Rules: ``docs/spec/contracts.md``.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytoniq_core import Address, Builder, Cell, StateInit

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release, TeeKind, release_from_cell
from cocoon_attestation.types import digest32, sint, uint
from cocoon_ton import opcodes
from cocoon_ton.cells import Reader, read_dict, read_text, record_to_ton, ton_to_record, write_dict, write_text
from cocoon_ton.code import channel_code, contract_address, node_code, registry_code
from cocoon_ton.node import (
    CODE_VERSION,
    KeyRecord,
    NodeIdentity,
    NodeTerms,
    RegistryParameters,
    parse_identity,
    parse_key_record,
    parse_parameters,
    parse_terms,
)

_STATUS_BITS: Final = ("SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
_NO_ROOT: Final = bytes(32)


class EntryState(enum.IntEnum):
    """State of a release or a model."""

    ACTIVE = 1
    DEPRECATED = 2
    """Still accepted; on its way out."""
    REVOKED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPolicy:
    """What evidence must say, apart from releases, models and denied platforms."""

    tee_kinds: frozenset[TeeKind]
    min_tcb_evaluation: int
    statuses: frozenset[str] = frozenset()
    """TCB statuses accepted besides ``UpToDate``."""
    dev_root_hash: bytes = _NO_ROOT
    """SHA-256 of the DER development root, or zeros: the vendor's root counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractCodes:
    """Code of the contracts that belong together."""

    node: Cell
    channel: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEntry:
    """A release."""

    release_id: bytes
    state: EntryState
    since: int
    """Unix time of the state."""
    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model."""

    digest: bytes
    state: EntryState
    since: int
    """Unix time of the state."""
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """A node as the registry lists it: all that a client needs to choose one."""

    account_id: bytes
    """32 bytes; the address is `account_id` in the basechain."""
    identity: NodeIdentity
    stake: int
    """Nanoton."""
    terms: NodeTerms
    key: KeyRecord | None
    """Current key binding; None until the first attest."""
    listed_at: int
    updated_at: int

    @property
    def address(self) -> Address:
        """Address of the node contract."""
        return Address((0, self.account_id))

    def is_attested(self, now: int) -> bool:
        """True if a binding is recorded whose evidence still holds at Unix time `now`."""
        return self.key is not None and now < self.key.attested_until


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingChange:
    """An announced change."""

    change_hash: bytes
    ready_at: int
    """Unix time from which anybody may execute it."""
    change: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryState:
    """Data of the registry contract. Mappings are keyed by 32-byte ids."""

    global_id: int
    version: int
    """Changes and removals so far."""
    governance: Address
    next_governance: Address | None
    parameters: RegistryParameters
    policy: RegistryPolicy
    codes: Mapping[int, ContractCodes]
    """By code version."""
    releases: Mapping[bytes, ReleaseEntry]
    models: Mapping[bytes, ModelEntry]
    nodes: Mapping[bytes, NodeEntry]
    denied_nodes: Mapping[bytes, int]
    """Account id -> Unix time of the removal."""
    denied_platforms: Mapping[bytes, int]
    """Platform id -> Unix time of the removal."""
    pending: Mapping[bytes, PendingChange]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryGenesis:
    """Initial data of a registry."""

    global_id: int
    governance: Address
    parameters: RegistryParameters
    policy: RegistryPolicy
    releases: tuple[Release, ...] = ()
    models: Mapping[bytes, str] = field(default_factory=dict)
    """Model digest -> name."""


# ---- reading


def parse_registry(data: Cell) -> RegistryState:
    """Read the registry's data cell.

    Raises:
        MalformedError: not the data of a registry.
    """
    root = Reader(data)
    root.tag(opcodes.REGISTRY_STORAGE)
    global_id, version = root.sint(32), root.uint(32)
    governance, next_governance = root.address(), root.maybe_address()
    node_count, pending_count = root.uint(16), root.uint(8)
    config, lists = root.sub(), root.sub()
    nodes = _by_id(read_dict(root.maybe_ref(), 256, _read_listing))
    pending = _by_id(read_dict(root.maybe_ref(), 256, lambda r: (r.uint(32), r.ref())))
    root.end()
    if node_count != len(nodes) or pending_count != len(pending):
        raise MalformedError("registry: a counter differs from its list")
    parameters, policy = parse_parameters(config.ref()), _read_policy(config.sub())
    codes = read_dict(config.maybe_ref(), 16, lambda r: ContractCodes(node=r.ref(), channel=r.ref()))
    config.end()
    releases = _by_id(read_dict(lists.maybe_ref(), 256, _read_release))
    models = _by_id(read_dict(lists.maybe_ref(), 256, lambda r: (_state(r), r.uint(32), read_text(r.ref()))))
    denied_nodes = _by_id(read_dict(lists.maybe_ref(), 256, lambda r: r.uint(32)))
    denied_platforms = _by_id(read_dict(lists.maybe_ref(), 256, lambda r: r.uint(32)))
    lists.end()
    return RegistryState(
        global_id=global_id,
        version=version,
        governance=governance,
        next_governance=next_governance,
        parameters=parameters,
        policy=policy,
        codes=codes,
        releases={key: _named_release(key, *value) for key, value in releases.items()},
        models={
            key: ModelEntry(digest=key, state=state, since=since, name=name)
            for key, (state, since, name) in models.items()
        },
        nodes={key: _named_node(key, *value) for key, value in nodes.items()},
        denied_nodes=denied_nodes,
        denied_platforms=denied_platforms,
        pending={
            key: PendingChange(change_hash=key, ready_at=ready_at, change=change)
            for key, (ready_at, change) in pending.items()
        },
    )


def _by_id(entries: dict[int, _T]) -> dict[bytes, _T]:
    return {key.to_bytes(32): value for key, value in entries.items()}


def _state(reader: Reader) -> EntryState:
    value = reader.uint(8)
    if value not in set(EntryState):
        raise MalformedError("registry: unknown state of an entry")
    return EntryState(value)


def _read_release(reader: Reader) -> tuple[EntryState, int, Release]:
    return _state(reader), reader.uint(32), release_from_cell(ton_to_record(reader.ref()))


def _named_release(key: bytes, state: EntryState, since: int, release: Release) -> ReleaseEntry:
    if release.release_id != key:
        raise MalformedError("registry: a release is listed under another id")
    return ReleaseEntry(release_id=key, state=state, since=since, release=release)


def _read_policy(reader: Reader) -> RegistryPolicy:
    kinds, statuses = reader.uint(8), reader.uint(8)
    minimum, dev_root_hash = reader.uint(32), reader.raw(32)
    reader.end()
    return RegistryPolicy(
        tee_kinds=frozenset(kind for kind in TeeKind if kinds >> kind.value & 1),
        statuses=frozenset(name for bit, name in enumerate(_STATUS_BITS) if statuses >> bit & 1),
        min_tcb_evaluation=minimum,
        dev_root_hash=dev_root_hash,
    )


def _read_listing(reader: Reader) -> tuple[int, int, Cell]:
    return reader.uint(32), reader.uint(32), reader.ref()


def _named_node(key: bytes, listed_at: int, updated_at: int, cell: Cell) -> NodeEntry:
    entry = Reader(cell)
    identity, stake = parse_identity(entry.ref()), entry.coins()
    terms, key_record = parse_terms(entry.ref()), entry.maybe_ref()
    entry.end()
    return NodeEntry(
        account_id=key,
        identity=identity,
        stake=stake,
        terms=terms,
        key=None if key_record is None else parse_key_record(key_record),
        listed_at=listed_at,
        updated_at=updated_at,
    )
