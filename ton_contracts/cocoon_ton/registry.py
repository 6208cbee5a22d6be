"""The Registry contract: its state, and the appraisal policy that it stands for. Pure.

Messages and initial data are in `cocoon_ton.registry_messages`. Layouts: ``ton_contracts/cocoon.tlb``.
Rules: ``docs/spec/contracts.md``.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pytoniq_core import Address, Cell

from cocoon_attestation.dev_roots import DevRoots, read_dev_roots
from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.policy import UP_TO_DATE, Policy
from cocoon_attestation.reference import AnyRelease, TeeKind, release_from_cell
from cocoon_ton import opcodes
from cocoon_ton.admission import NO_ROOT as NO_ROOT
from cocoon_ton.admission import STATUS_BITS as STATUS_BITS
from cocoon_ton.admission import KeyClaim as KeyClaim
from cocoon_ton.admission import RegistryPolicy as RegistryPolicy
from cocoon_ton.admission import RuleEntry as RuleEntry
from cocoon_ton.admission import parse_claim as parse_claim
from cocoon_ton.admission import parse_policy as parse_policy
from cocoon_ton.attestation_rules import parse_rule
from cocoon_ton.cells import Reader, read_dict, read_text, ton_to_record
from cocoon_ton.network import MAINNET_GLOBAL_ID
from cocoon_ton.node import (
    KeyRecord,
    NodeIdentity,
    NodeTerms,
    RegistryParameters,
    parse_identity,
    parse_parameters,
    parse_terms,
)

_T = TypeVar("_T")
_R = TypeVar("_R")


class EntryState(enum.IntEnum):
    """State of a release or a model."""

    ACTIVE = 1
    DEPRECATED = 2
    """Still accepted; on its way out."""
    REVOKED = 3


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
    release: AnyRelease


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
    claim: KeyClaim | None
    """The last key binding that the registry accepted; None until the first."""
    listed_at: int
    updated_at: int

    @property
    def address(self) -> Address:
        """Address of the node contract."""
        return Address((0, self.account_id))

    @property
    def key(self) -> KeyRecord | None:
        """Current key binding; None until the first attest."""
        return None if self.claim is None else self.claim.record

    def is_attested(self, now: int) -> bool:
        """True if a binding is listed whose evidence still holds at Unix time `now`."""
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
    rules: Mapping[bytes, RuleEntry]
    """What quotes must meet that Pck verifies, by the rule's hash."""
    releases: Mapping[bytes, ReleaseEntry]
    models: Mapping[bytes, ModelEntry]
    nodes: Mapping[bytes, NodeEntry]
    denied_nodes: Mapping[bytes, int]
    """Account id -> Unix time of the removal."""
    denied_platforms: Mapping[bytes, int]
    """Platform id -> Unix time of the removal."""
    pending: Mapping[bytes, PendingChange]
    unreadable: frozenset[bytes] = frozenset()
    """Ids of nodes, releases, models and rules whose entries do not parse."""

    def usable_nodes(self, now: int) -> tuple[NodeEntry, ...]:
        """Nodes with accepted contract code, enough stake and a key binding that counts at `now`.

        What they are is still to be appraised by whoever sends them a prompt.
        """
        return tuple(
            entry
            for entry in self.nodes.values()
            if entry.identity.code_version in self.codes
            and entry.stake >= self.parameters.min_stake
            and entry.is_attested(now)
            and entry.claim is not None
            and self.accepts(entry.claim, entry.stake)
        )

    def accepts(self, claim: KeyClaim, stake: int) -> bool:
        """Whether what stood behind a key binding is still accepted: a removal counts at once.

        The same conditions as `RegistryStorage.checkClaim` of the contract.
        """
        entry = self.releases.get(claim.release_id)
        if entry is None or entry.state is EntryState.REVOKED:
            return False
        if entry.release.tee not in self.policy.tee_kinds:
            return False
        if not claim.verified:
            least = self.policy.recorded.get(entry.release.tee)
            return least is not None and stake >= least
        rule = self.rules.get(claim.rule)
        return (
            entry.release.tee is TeeKind.TDX
            and rule is not None
            and rule.rule.evaluation >= self.policy.min_tcb_evaluation
            and claim.platform_id not in self.denied_platforms
        )


def parse_registry(data: Cell) -> RegistryState:
    """Read the registry's data cell.

    A node or release that does not parse is left out and named in `unreadable`: one entry must not hide
    the others, and what cannot be read cannot be trusted either.

    Raises:
        MalformedError: not the data of a registry.
    """
    root = Reader(data)
    root.tag(opcodes.REGISTRY_STORAGE)
    global_id, version = root.sint(32), root.uint(32)
    governance, next_governance = root.address(), root.maybe_address()
    node_count, pending_count = root.uint(16), root.uint(8)
    config, lists = root.sub(), root.sub()
    listings = read_dict(root.maybe_ref(), 256, lambda r: (r.uint(32), r.uint(32), r.ref(), r.maybe_ref()))
    pending = read_dict(root.maybe_ref(), 256, lambda r: (r.uint(32), r.ref()))
    root.end()
    if node_count != len(listings) or pending_count != len(pending):
        raise MalformedError("registry: a counter differs from its list")
    parameters, policy = parse_parameters(config.ref()), parse_policy(config.ref())
    codes = read_dict(config.maybe_ref(), 16, lambda r: ContractCodes(node=r.ref(), channel=r.ref()))
    raw_rules = read_dict(config.maybe_ref(), 256, lambda r: (r.uint(32), r.ref()))
    config.end()
    raw_releases = read_dict(lists.maybe_ref(), 256, lambda r: (_state(r), r.uint(32), r.ref()))
    raw_models = read_dict(lists.maybe_ref(), 256, lambda r: (_state(r), r.uint(32), r.ref()))
    denied_nodes = read_dict(lists.maybe_ref(), 256, lambda r: r.uint(32))
    denied_platforms = read_dict(lists.maybe_ref(), 256, lambda r: r.uint(32))
    lists.end()
    nodes, bad_nodes = _readable(listings, _node)
    releases, bad_releases = _readable(raw_releases, _release)
    models, bad_models = _readable(raw_models, _model)
    rules, bad_rules = _readable(raw_rules, _rule)
    return RegistryState(
        global_id=global_id,
        version=version,
        governance=governance,
        next_governance=next_governance,
        parameters=parameters,
        policy=policy,
        codes=codes,
        rules=rules,
        releases=releases,
        models=models,
        nodes=nodes,
        denied_nodes={key.to_bytes(32): since for key, since in denied_nodes.items()},
        denied_platforms={key.to_bytes(32): since for key, since in denied_platforms.items()},
        pending={
            key.to_bytes(32): PendingChange(change_hash=key.to_bytes(32), ready_at=ready_at, change=change)
            for key, (ready_at, change) in pending.items()
        },
        unreadable=bad_nodes | bad_releases | bad_models | bad_rules,
    )


def _readable(
    raw: Mapping[int, _R], read: Callable[[bytes, _R], _T]
) -> tuple[dict[bytes, _T], frozenset[bytes]]:
    """Entries that `read` understands, and the keys of the others."""
    entries: dict[bytes, _T] = {}
    unreadable: set[bytes] = set()
    for number, value in raw.items():
        key = number.to_bytes(32)
        try:
            entries[key] = read(key, value)
        except MalformedError:
            unreadable.add(key)
    return entries, frozenset(unreadable)


def _state(reader: Reader) -> EntryState:
    value = reader.uint(8)
    # a state from the future is not one that may be trusted
    return EntryState(value) if value in set(EntryState) else EntryState.REVOKED


def _release(key: bytes, raw: tuple[EntryState, int, Cell]) -> ReleaseEntry:
    state, since, cell = raw
    release = release_from_cell(ton_to_record(cell))
    if release.release_id != key:
        raise MalformedError("registry: a release is listed under another id")
    return ReleaseEntry(release_id=key, state=state, since=since, release=release)


def _model(key: bytes, raw: tuple[EntryState, int, Cell]) -> ModelEntry:
    state, since, cell = raw
    return ModelEntry(digest=key, state=state, since=since, name=read_text(cell))


def _rule(key: bytes, raw: tuple[int, Cell]) -> RuleEntry:
    since, cell = raw
    if bytes(cell.hash) != key:
        raise MalformedError("registry: a rule is listed under another hash")
    return RuleEntry(rule=parse_rule(cell), since=since)


def _node(key: bytes, raw: tuple[int, int, Cell, Cell | None]) -> NodeEntry:
    listed_at, updated_at, cell, claim = raw
    return parse_node_entry(key, cell, claim, listed_at=listed_at, updated_at=updated_at)


def parse_node_entry(
    account_id: bytes, cell: Cell, claim: Cell | None, *, listed_at: int, updated_at: int
) -> NodeEntry:
    """Read what a node says about itself, and its key binding if it has one.

    Raises:
        MalformedError: not an entry, or terms out of form.
    """
    entry = Reader(cell)
    identity, stake, terms = parse_identity(entry.ref()), entry.coins(), parse_terms(entry.ref())
    entry.end()
    return NodeEntry(
        account_id=account_id,
        identity=identity,
        stake=stake,
        terms=terms,
        claim=None if claim is None else parse_claim(claim),
        listed_at=listed_at,
        updated_at=updated_at,
    )


def policy_from_registry(
    state: RegistryState, dev_root_der: bytes | None = None, *, allow_deprecated: bool = True
) -> Policy:
    """The appraisal policy that the registry stands for. A client may tighten it, never loosen it.

    `dev_root_der` is the development root that the network file names; it counts only if the registry
    names its hash, and then it must be given. It brings the roots of simulated vendors with it; else the
    vendors' own roots and the default rules for SEV-SNP and GPUs count.

    Raises:
        ConfigError: the registry allows nothing, or names a development root that was not given, differs
            from the one given, or is named on mainnet.
    """
    states = {EntryState.ACTIVE, EntryState.DEPRECATED} if allow_deprecated else {EntryState.ACTIVE}
    dev_root = _dev_root(state, dev_root_der)
    vendors = _vendors(dev_root)
    return Policy(
        global_id=state.global_id,
        releases=tuple(
            entry.release
            for entry in state.releases.values()
            if entry.state in states and entry.release.tee in state.policy.tee_kinds
        ),
        models=frozenset(entry.digest for entry in state.models.values() if entry.state in states),
        min_tcb_evaluation=state.policy.min_tcb_evaluation,
        tee_kinds=state.policy.tee_kinds,
        dev_root=dev_root,
        statuses=frozenset({UP_TO_DATE}) | state.policy.statuses,
        denied_platforms=frozenset(state.denied_platforms),
        snp=None if vendors is None else vendors.snp,
        gpu=GpuPolicy(gpu_count=None) if vendors is None else vendors.gpu,
    )


def _vendors(dev_root: bytes | None) -> DevRoots | None:
    """Roots of simulated AMD and NVIDIA that the development root names; None where the vendors' own count."""
    if dev_root is None:
        return None
    try:
        return read_dev_roots(dev_root)
    except MalformedError as error:
        raise ConfigError(f"the development root cannot be used: {error}") from error


def _dev_root(state: RegistryState, der: bytes | None) -> bytes | None:
    expected = state.policy.dev_root_hash
    if expected == NO_ROOT:
        return None
    if state.global_id == MAINNET_GLOBAL_ID:
        raise ConfigError("the registry names a development root on mainnet")
    if der is None:
        raise ConfigError(
            "the registry accepts simulated TEEs only, and the network file has no development root"
        )
    if not hmac.compare_digest(hashlib.sha256(der).digest(), expected):
        raise ConfigError("the development root of the network file is not the one that the registry names")
    return der
