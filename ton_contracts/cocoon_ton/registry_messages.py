"""Initial data of the Registry contract, changes of it, and bodies of messages to it. Pure.

Layouts: ``ton_contracts/cocoon.tlb``. Who may send what: ``docs/spec/contracts.md``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytoniq_core import Address, Builder, Cell, StateInit

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.reference import AnyRelease
from cocoon_attestation.roots import intel_root
from cocoon_attestation.types import digest32, nanoton, sint, uint
from cocoon_ton import opcodes
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import begin, finish, record_to_ton, write_dict, write_text
from cocoon_ton.code import channel_code, contract_address, node_code, registry_code
from cocoon_ton.network import MAINNET_GLOBAL_ID
from cocoon_ton.node import CODE_VERSION, RegistryParameters
from cocoon_ton.quote_hints import anchor_of
from cocoon_ton.registry import NO_ROOT, STATUS_BITS, EntryState, RegistryPolicy

DAY: Final = 86_400
REGISTRY_MESSAGE_VALUE: Final = 100_000_000
"""Value that pays for any message to the registry at the prices of the reference configuration, in
nanoton; what is not used comes back."""


class Removal(enum.IntEnum):
    """What an emergency removal takes away."""

    RELEASE = 1
    MODEL = 2
    NODE = 3
    PLATFORM = 4
    CODES = 5
    """A version of the contracts: `code_version_id` makes the id."""
    RULE = 6
    """An attestation rule, by its hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryGenesis:
    """Initial data of a registry.

    Raises `ConfigError` at construction for values that the contract would refuse later.
    """

    global_id: int
    """TON network."""
    governance: Address
    parameters: RegistryParameters
    policy: RegistryPolicy
    releases: tuple[AnyRelease, ...] = ()
    """Active from the start."""
    models: Mapping[bytes, str] = field(default_factory=dict)
    """Active from the start: digest -> name."""
    rules: tuple[AttestationRule, ...] = ()
    """What quotes must meet that Pck verifies, from the start."""
    since: int = 0
    """Unix time that entries carry as the time of their state."""

    def __post_init__(self) -> None:
        """Check what `Parameters.areSane` and `checkChange` of the contract check."""
        sint(self.global_id, 32, "registry global_id")
        check_parameters(self.parameters)
        check_policy(self.policy)
        if self.global_id == MAINNET_GLOBAL_ID and self.policy.dev_root_hash != NO_ROOT:
            raise ConfigError("a development root is refused on mainnet")
        for rule in self.rules:
            check_rule(rule, self.global_id)

    @property
    def initial_data(self) -> Cell:
        """Data cell of the StateInit."""
        return _initial_data(self)

    @property
    def address(self) -> Address:
        """Address of the registry with the code of this package."""
        return contract_address(registry_code().cell, self.initial_data)

    @property
    def state_init(self) -> StateInit:
        """StateInit for the wallet message that deploys the registry; the body is `top_up_body`."""
        return StateInit(code=registry_code().cell, data=self.initial_data)


def check_parameters(parameters: RegistryParameters) -> None:
    """Refuse what the contract refuses.

    Raises:
        ConfigError: a value is outside the bounds of the contract.
    """
    p = parameters
    bounds = {
        "timelock": (p.timelock, 1, 90 * DAY),
        "anchor_within": (p.anchor_within, 1, 7 * DAY),
        "challenge_window": (p.challenge_window, 0, 30 * DAY),
        "response_window": (p.response_window, 60, 30 * DAY),
        "close_delay": (p.close_delay, 1, 30 * DAY),
        "price_delay": (p.price_delay, 0, 30 * DAY),
        "max_nodes": (p.max_nodes, 1, 65_535),
        "min_stake": (p.min_stake, 0, 2**120 - 1),
        "penalty": (p.penalty, 0, 2**120 - 1),
        "bounty_permille": (p.bounty_permille, 0, 500),
    }
    for name, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise ConfigError(f"registry parameter {name}: {low} to {high} expected, not {value}")
    if p.treasury.wc != 0:
        raise ConfigError("registry parameter treasury: an address in the basechain is expected")


def check_policy(policy: RegistryPolicy) -> None:
    """Refuse what the contract refuses.

    Raises:
        ConfigError: no TEE kind, no minimum, an unknown status, a hash of another length, or a stake for a kind
            that is not accepted.
    """
    if not policy.tee_kinds or not 1 <= policy.min_tcb_evaluation < 1 << 32:
        raise ConfigError("registry policy: a TEE kind and a minimum evaluation number are needed")
    if not set(policy.recorded) <= policy.tee_kinds:
        raise ConfigError(
            "registry policy: a kind that may join on a recorded digest must be accepted at all"
        )
    if not policy.statuses <= set(STATUS_BITS) or len(policy.dev_root_hash) != 32:
        raise ConfigError("registry policy: unknown TCB status, or a root hash that is not 32 bytes")


def check_rule(rule: AttestationRule, global_id: int) -> None:
    """Refuse rules that start from anything but the vendor's root on mainnet.

    Raises:
        ConfigError: such a rule.
    """
    if global_id == MAINNET_GLOBAL_ID and rule.anchor != anchor_of(intel_root()):
        raise ConfigError("an attestation rule on mainnet must start from Intel's root")


def _initial_data(genesis: RegistryGenesis) -> Cell:
    codes = codes_cell(node_code().cell, channel_code().cell)
    config = (
        Builder()
        .store_ref(genesis.parameters.cell)
        .store_ref(policy_cell(genesis.policy))
        .store_dict(write_dict({CODE_VERSION: codes}, 16, lambda cell: cell))
        .store_dict(_rules(genesis))
        .end_cell()
    )
    releases = {
        int.from_bytes(release.release_id): _entry(genesis.since, record_to_ton(release.to_cell()))
        for release in genesis.releases
    }
    models = {
        int.from_bytes(digest32(digest, "model digest")): _entry(genesis.since, write_text(name))
        for digest, name in genesis.models.items()
    }
    lists = (
        Builder()
        .store_dict(write_dict(releases, 256, lambda cell: cell))
        .store_dict(write_dict(models, 256, lambda cell: cell))
        .store_bits("00")  # denied nodes, denied platforms
        .end_cell()
    )
    return finish(
        Builder()
        .store_uint(opcodes.REGISTRY_STORAGE, 32)
        .store_int(genesis.global_id, 32)
        .store_uint(0, 32)  # version
        .store_address(genesis.governance)
        .store_address(None)
        .store_uint(0, 16)  # nodes
        .store_uint(0, 8)  # pending changes
        .store_ref(config)
        .store_ref(lists)
        .store_bits("00")
    )


def _rules(genesis: RegistryGenesis) -> Cell | None:
    entries = {int.from_bytes(rule.cell.hash): rule.cell for rule in genesis.rules}

    def entry(cell: Cell) -> Cell:
        return finish(Builder().store_uint(genesis.since, 32).store_ref(cell))

    return write_dict(entries, 256, entry)


def _entry(since: int, content: Cell) -> Cell:
    builder = Builder().store_uint(EntryState.ACTIVE, 8).store_uint(uint(since, 32, "since"), 32)
    return finish(builder.store_ref(content))


def policy_cell(policy: RegistryPolicy) -> Cell:
    """The policy as the registry stores it."""
    kinds = sum(1 << kind.value for kind in policy.tee_kinds)
    statuses = sum(1 << bit for bit, name in enumerate(STATUS_BITS) if name in policy.statuses)
    return finish(
        Builder()
        .store_uint(kinds, 8)
        .store_uint(statuses, 8)
        .store_uint(policy.min_tcb_evaluation, 32)
        .store_bytes(digest32(policy.dev_root_hash, "dev_root_hash"))
        .store_dict(
            write_dict(
                {kind.value: nanoton(stake, "stake") for kind, stake in policy.recorded.items()},
                8,
                lambda stake: finish(Builder().store_coins(stake)),
            )
        )
    )


def codes_cell(node: Cell, channel: Cell) -> Cell:
    """Node and channel code that belong together."""
    return finish(Builder().store_ref(node).store_ref(channel))


def code_version_id(version: int) -> bytes:
    """Id of a code version for `remove_body`."""
    return uint(version, 16, "version").to_bytes(32)


# ---- changes; each goes into `announce_body`, its hash into `execute_body`


def set_release(release: AnyRelease, state: EntryState = EntryState.ACTIVE) -> Cell:
    """Change: add a release or set its state."""
    builder = begin(opcodes.SET_RELEASE).store_bytes(release.release_id)
    return finish(builder.store_uint(state, 8).store_ref(record_to_ton(release.to_cell())))


def set_model(digest: bytes, name: str, state: EntryState = EntryState.ACTIVE) -> Cell:
    """Change: add a model or set its state."""
    builder = begin(opcodes.SET_MODEL).store_bytes(digest32(digest, "model digest"))
    return finish(builder.store_uint(state, 8).store_ref(write_text(name)))


def set_policy(policy: RegistryPolicy) -> Cell:
    """Change: replace the policy. Raises `ConfigError` for what the contract refuses."""
    check_policy(policy)
    return finish(begin(opcodes.SET_POLICY).store_ref(policy_cell(policy)))


def set_parameters(parameters: RegistryParameters) -> Cell:
    """Change: replace the parameters. Raises `ConfigError` for what the contract refuses."""
    check_parameters(parameters)
    return finish(begin(opcodes.SET_PARAMETERS).store_ref(parameters.cell))


def set_codes(version: int, node: Cell, channel: Cell) -> Cell:
    """Change: accept another version of the contracts."""
    builder = begin(opcodes.SET_CODES).store_uint(uint(version, 16, "version"), 16)
    return finish(builder.store_ref(codes_cell(node, channel)))


def allow(kind: Removal, id: bytes) -> Cell:
    """Change: let a removed node or platform back in."""
    builder = begin(opcodes.ALLOW).store_uint(kind, 8)
    return finish(builder.store_bytes(digest32(id, "id")))


def set_rule(rule: AttestationRule) -> Cell:
    """Change: ask this of quotes of a platform family. It ends by its own date or by `Removal.RULE`."""
    return finish(begin(opcodes.SET_RULE).store_ref(rule.cell))


def set_governance(governance: Address) -> Cell:
    """Change: name the next governance, which then sends `accept_governance_body`."""
    return finish(begin(opcodes.SET_GOVERNANCE).store_address(governance))


def upgrade(code: Cell) -> Cell:
    """Change: replace the registry's own code."""
    return finish(begin(opcodes.UPGRADE).store_ref(code))


# ---- messages


def announce_body(change: Cell, query_id: int = 0) -> Cell:
    """Body, from governance: start the timelock of a change."""
    return finish(_body(opcodes.REGISTRY_ANNOUNCE, query_id).store_ref(change))


def execute_body(change_hash: bytes, query_id: int = 0) -> Cell:
    """Body, from anybody: carry out an announced change after its timelock."""
    return _with_id(opcodes.REGISTRY_EXECUTE, change_hash, query_id)


def cancel_body(change_hash: bytes, query_id: int = 0) -> Cell:
    """Body, from governance: withdraw an announced change."""
    return _with_id(opcodes.REGISTRY_CANCEL, change_hash, query_id)


def remove_body(kind: Removal, id: bytes, query_id: int = 0) -> Cell:
    """Body, from governance: take trust away at once."""
    body = _body(opcodes.REGISTRY_REMOVE, query_id).store_uint(kind, 8)
    return finish(body.store_bytes(digest32(id, "id")))


def accept_governance_body(query_id: int = 0) -> Cell:
    """Body, from the next governance: take over."""
    return finish(_body(opcodes.REGISTRY_ACCEPT_GOVERNANCE, query_id))


def top_up_body(query_id: int = 0) -> Cell:
    """Body, from anybody: pay for the registry's storage; deploys with the StateInit."""
    return finish(_body(opcodes.REGISTRY_TOP_UP, query_id))


def _with_id(opcode: int, id: bytes, query_id: int) -> Cell:
    return finish(_body(opcode, query_id).store_bytes(digest32(id, "change hash")))


def _body(opcode: int, query_id: int) -> Builder:
    builder: Builder = begin(opcode).store_uint(uint(query_id, 64, "query id"), 64)
    return builder
