"""The Registry contract: trust is added slowly and taken away at once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import pytest
from pytoniq_core import Address, Builder, Cell, Slice

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.reference import Release, SnpRelease, TeeKind
from cocoon_attestation.roots import intel_root
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_vendors import DevVendors
from cocoon_ton import node_messages, opcodes, registry_messages
from cocoon_ton.cells import Reader, begin, finish, record_to_ton
from cocoon_ton.code import channel_code, node_code, registry_code, state_init
from cocoon_ton.emulator import Emulator, SendResult, TestChain
from cocoon_ton.node import RegistryParameters
from cocoon_ton.quote_hints import anchor_of
from cocoon_ton.registry import EntryState, RegistryPolicy, parse_registry, policy_from_registry
from cocoon_ton.registry_messages import RegistryGenesis, Removal

from .conftest import (
    GLOBAL_ID,
    MODEL,
    PARAMETERS,
    POLICY,
    PRICES,
    RELEASE,
    RULE,
    TON,
    World,
    is_bounce,
    network_config,
)
from .pck_kit import seeded

SECOND = dataclasses.replace(RELEASE, name="test-2", mrtd=b"\x0e" * 48)
OTHER_MODEL = b"\xbb" * 32


@pytest.fixture
def registry(world: World) -> World:
    """A deployed registry without nodes."""
    assert world.deploy_registry().success
    return world


def announce(world: World, change: Cell) -> SendResult:
    return world.to_registry(world.governance, registry_messages.announce_body(change))


def execute(world: World, change: Cell) -> SendResult:
    return world.to_registry(world.stranger, registry_messages.execute_body(change.hash))


def events(result: SendResult) -> list[int]:
    return [Reader(body).uint(32) for body in result.events]


def test_genesis_is_what_stands_on_chain(registry: World) -> None:
    state = registry.registry_state()
    assert (state.global_id, state.version) == (GLOBAL_ID, 0)
    assert (state.governance, state.next_governance) == (registry.governance, None)
    assert (state.parameters, state.policy) == (PARAMETERS, POLICY)
    assert state.codes[1].node.hash == node_code().code_hash
    assert state.codes[1].channel.hash == channel_code().code_hash
    entry = state.releases[RELEASE.release_id]
    assert (entry.release, entry.state, entry.since) == (RELEASE, EntryState.ACTIVE, registry.chain.now)
    assert state.models[MODEL].name == "tiny@test"
    assert not state.nodes
    assert not state.pending
    assert not state.unreadable


def test_a_change_waits_for_its_timelock(registry: World) -> None:
    change = registry_messages.set_release(SECOND)
    result = announce(registry, change)
    assert events(result) == [opcodes.CHANGE_ANNOUNCED]
    state = registry.registry_state()
    assert SECOND.release_id not in state.releases
    pending = state.pending[change.hash]
    assert (pending.ready_at, pending.change.hash) == (registry.chain.now + 120, change.hash)
    registry.chain.warp(119)
    assert execute(registry, change).first.exit_code == 206
    registry.chain.warp(1)
    result = execute(registry, change)
    assert result.success
    assert events(result) == [opcodes.CHANGE_EXECUTED]
    state = registry.registry_state()
    assert state.releases[SECOND.release_id].release == SECOND
    assert state.releases[SECOND.release_id].since == registry.chain.now
    assert state.version == 1
    assert not state.pending
    assert execute(registry, change).first.exit_code == 205


def test_a_change_goes_stale(registry: World) -> None:
    change = registry_messages.set_release(SECOND)
    announce(registry, change)
    registry.chain.warp(120 + 30 * 86_400 + 1)
    assert execute(registry, change).first.exit_code == 207
    assert registry.to_registry(registry.governance, registry_messages.cancel_body(change.hash)).success
    assert announce(registry, change).success, "and can be announced again"


def test_an_announced_change_can_be_withdrawn(registry: World) -> None:
    change = registry_messages.set_release(SECOND)
    announce(registry, change)
    assert announce(registry, change).first.exit_code == 203
    cancel = registry_messages.cancel_body(change.hash)
    assert registry.to_registry(registry.stranger, cancel).first.exit_code == 200
    assert events(registry.to_registry(registry.governance, cancel)) == [opcodes.CHANGE_CANCELLED]
    registry.chain.warp(120)
    assert execute(registry, change).first.exit_code == 205
    assert registry.to_registry(registry.governance, cancel).first.exit_code == 205


def test_only_governance_announces(registry: World) -> None:
    body = registry_messages.announce_body(registry_messages.set_release(SECOND))
    assert registry.to_registry(registry.stranger, body).first.exit_code == 200
    assert registry.to_registry(registry.owner, body).first.exit_code == 200
    assert not registry.registry_state().pending


def test_announcements_are_bounded(registry: World) -> None:
    for number in range(32):
        assert announce(registry, registry_messages.set_model(bytes([number]) * 32, "m")).success
    assert announce(registry, registry_messages.set_model(b"\xfe" * 32, "m")).first.exit_code == 204
    assert len(registry.registry_state().pending) == 32


PARAMETER_FAULTS: list[dict[str, object]] = [
    {"timelock": 0},
    {"timelock": 90 * 86_400 + 1},
    {"anchor_within": 0},
    {"anchor_within": 7 * 86_400 + 1},
    {"challenge_window": 30 * 86_400 + 1},
    {"response_window": 30 * 86_400 + 1},
    {"close_delay": 0},
    {"close_delay": 30 * 86_400 + 1},
    {"price_delay": 30 * 86_400 + 1},
    {"max_nodes": 0},
    {"response_window": 59},
    {"bounty_permille": 501},
    {"treasury": Address((-1, b"\x01" * 32))},
]


@pytest.mark.parametrize("fault", PARAMETER_FAULTS)
def test_parameters_out_of_bounds_are_refused(registry: World, fault: dict[str, object]) -> None:
    bad = dataclasses.replace(PARAMETERS, **fault)  # type: ignore[arg-type]
    change = finish(begin(opcodes.SET_PARAMETERS).store_ref(bad.cell))
    assert announce(registry, change).first.exit_code == 202
    with pytest.raises(ConfigError):
        registry_messages.set_parameters(bad)
    with pytest.raises(ConfigError):
        dataclasses.replace(registry.genesis, parameters=bad)


def policy_bits(kinds: int, statuses: int, minimum: int) -> Cell:
    builder = Builder().store_uint(kinds, 8).store_uint(statuses, 8).store_uint(minimum, 32)
    return finish(builder.store_uint(0, 256).store_bit(0))


BAD_CHANGES: list[tuple[str, Callable[[], Cell], int]] = [
    ("unknown kind", lambda: finish(begin(0xC0C11FFF).store_uint(0, 64)), 202),
    ("empty", lambda: finish(Builder()), 202),
    ("id of another release", lambda: _release_change(SECOND.release_id, RELEASE, 1), 202),
    ("unknown state", lambda: _release_change(RELEASE.release_id, RELEASE, 4), 202),
    ("state zero", lambda: _release_change(RELEASE.release_id, RELEASE, 0), 202),
    ("model state", lambda: registry_messages.set_model(MODEL, "x", 9), 202),  # type: ignore[arg-type]
    ("no TEE", lambda: finish(begin(opcodes.SET_POLICY).store_ref(policy_bits(0, 0, 1))), 202),
    ("no minimum", lambda: finish(begin(opcodes.SET_POLICY).store_ref(policy_bits(2, 0, 0))), 202),
    ("allow a release", lambda: registry_messages.allow(Removal.RELEASE, MODEL), 202),
    ("same code twice", lambda: registry_messages.set_codes(2, node_code().cell, node_code().cell), 202),
    (
        "rule that is over",
        lambda: registry_messages.set_rule(dataclasses.replace(RULE, valid_until=1)),
        202,
    ),
    ("another record as a rule", lambda: finish(begin(opcodes.SET_RULE).store_ref(PARAMETERS.cell)), 202),
    ("trailing bits", lambda: _trailing(registry_messages.set_model(MODEL, "x")), 9),
]


def _release_change(id: bytes, release: Release, state: int) -> Cell:
    builder = begin(opcodes.SET_RELEASE).store_bytes(id).store_uint(state, 8)
    return finish(builder.store_ref(record_to_ton(release.to_cell())))


def _trailing(change: Cell) -> Cell:
    builder = Builder().store_bits(change.bits).store_uint(0, 1)
    for ref in change.refs:
        builder.store_ref(ref)
    return finish(builder)


@pytest.mark.parametrize(("make", "code"), [pytest.param(m, c, id=n) for n, m, c in BAD_CHANGES])
def test_bad_changes_are_never_announced(registry: World, make: Callable[[], Cell], code: int) -> None:
    assert announce(registry, make()).first.exit_code == code
    assert not registry.registry_state().pending


def test_every_kind_of_change(registry: World) -> None:
    assert registry.change(
        registry_messages.set_model(OTHER_MODEL, "big@test", EntryState.DEPRECATED)
    ).success
    assert registry.change(registry_messages.set_release(RELEASE, EntryState.DEPRECATED)).success
    policy = RegistryPolicy(
        tee_kinds=frozenset({TeeKind.TDX, TeeKind.SEV_SNP}),
        statuses=frozenset({"SWHardeningNeeded", "ConfigurationAndSWHardeningNeeded"}),
        min_tcb_evaluation=20,
        dev_root_hash=b"\x0f" * 32,
    )
    assert registry.change(registry_messages.set_policy(policy)).success
    parameters = dataclasses.replace(PARAMETERS, min_stake=1, timelock=300)
    assert registry.change(registry_messages.set_parameters(parameters)).success
    assert announce(registry, registry_messages.set_codes(2, channel_code().cell, node_code().cell)).success
    registry.chain.warp(300)
    assert execute(registry, registry_messages.set_codes(2, channel_code().cell, node_code().cell)).success
    state = registry.registry_state()
    assert state.models[OTHER_MODEL].name == "big@test"
    assert state.models[OTHER_MODEL].state is EntryState.DEPRECATED
    assert state.models[MODEL].state is EntryState.ACTIVE
    assert state.releases[RELEASE.release_id].state is EntryState.DEPRECATED
    assert (state.policy, state.parameters) == (policy, parameters)
    assert sorted(state.codes) == [1, 2]
    assert state.version == 5


def test_the_timelock_itself_changes_through_the_timelock(registry: World) -> None:
    shorter = registry_messages.set_parameters(dataclasses.replace(PARAMETERS, timelock=1))
    announce(registry, shorter)
    registry.chain.warp(119)
    assert execute(registry, shorter).first.exit_code == 206


def test_governance_moves_in_two_steps(registry: World) -> None:
    accept = registry_messages.accept_governance_body()
    assert registry.to_registry(registry.owner, accept).first.exit_code == 201
    assert registry.change(registry_messages.set_governance(registry.owner)).success
    state = registry.registry_state()
    assert (state.governance, state.next_governance) == (registry.governance, registry.owner)
    assert registry.to_registry(registry.stranger, accept).first.exit_code == 201
    result = registry.to_registry(registry.owner, accept)
    assert events(result) == [opcodes.GOVERNANCE_ACCEPTED]
    state = registry.registry_state()
    assert (state.governance, state.next_governance) == (registry.owner, None)
    assert announce(registry, registry_messages.set_release(SECOND)).first.exit_code == 200


def test_the_code_changes_through_the_timelock_only(registry: World) -> None:
    code = channel_code().cell
    assert registry.change(registry_messages.upgrade(code)).success
    account = registry.chain.account(registry.registry)
    assert account.code is not None
    assert account.code.hash == code.hash


# ---- removal


def test_releases_and_models_are_revoked_at_once(registry: World) -> None:
    for kind, id in ((Removal.RELEASE, RELEASE.release_id), (Removal.MODEL, MODEL)):
        result = registry.to_registry(registry.governance, registry_messages.remove_body(kind, id))
        assert events(result) == [opcodes.REMOVED]
    state = registry.registry_state()
    assert state.releases[RELEASE.release_id].state is EntryState.REVOKED
    assert state.releases[RELEASE.release_id].release == RELEASE
    assert state.models[MODEL].state is EntryState.REVOKED
    with pytest.raises(ConfigError):
        policy_from_registry(state)


def test_platforms_are_denied_at_once_and_let_in_slowly(registry: World) -> None:
    platform = b"\x0d" * 32
    registry.to_registry(registry.governance, registry_messages.remove_body(Removal.PLATFORM, platform))
    state = registry.registry_state()
    assert state.denied_platforms == {platform: registry.chain.now}
    assert policy_from_registry(state).denied_platforms == {platform}
    assert registry.change(registry_messages.allow(Removal.PLATFORM, platform)).success
    assert not registry.registry_state().denied_platforms


@pytest.mark.parametrize(
    ("kind", "id"), [(Removal.RELEASE, b"\x01" * 32), (Removal.MODEL, b"\x01" * 32), (6, MODEL), (0, MODEL)]
)
def test_only_what_is_there_can_be_removed(registry: World, kind: int, id: bytes) -> None:
    body = registry_messages.remove_body(kind, id)  # type: ignore[arg-type]
    assert registry.to_registry(registry.governance, body).first.exit_code == 208


def test_a_code_version_never_gets_other_code(registry: World) -> None:
    change = registry_messages.set_codes(1, channel_code().cell, node_code().cell)
    assert registry.change(change).first.exit_code == 218
    assert registry.registry_state().codes[1].node.hash == node_code().code_hash


def test_a_code_version_is_removed_at_once(active: World) -> None:
    assert len(active.registry_state().usable_nodes(active.chain.now)) == 1
    body = registry_messages.remove_body(Removal.CODES, registry_messages.code_version_id(1))
    assert active.to_registry(active.governance, body).success
    state = active.registry_state()
    assert not state.codes
    assert state.usable_nodes(active.chain.now) == ()
    assert active.attest()[1].exit_code == 212
    assert active.to_registry(active.governance, body).first.exit_code == 208
    wide = registry_messages.remove_body(Removal.CODES, b"\x01" * 32)
    assert active.to_registry(active.governance, wide).first.exit_code == 208


def test_usable_nodes_have_evidence_and_stake(active: World) -> None:
    state = active.registry_state()
    entry = next(iter(state.nodes.values()))
    assert state.usable_nodes(active.chain.now) == (entry,)
    assert entry.key is not None
    assert state.usable_nodes(entry.key.attested_until) == ()
    poor = dataclasses.replace(state, parameters=dataclasses.replace(PARAMETERS, min_stake=11 * TON))
    assert poor.usable_nodes(active.chain.now) == ()


def test_only_governance_removes(active: World) -> None:
    for sender in (active.stranger, active.owner, active.node):
        body = registry_messages.remove_body(Removal.NODE, bytes(active.node.hash_part))
        assert active.chain.send_internal(active.registry, TON, body, sender=sender).first.exit_code == 200


def test_a_node_can_be_denied_before_it_comes(registry: World) -> None:
    body = registry_messages.remove_body(Removal.NODE, bytes(registry.node.hash_part))
    assert registry.to_registry(registry.governance, body).success
    assert registry.join()[1].exit_code == 213
    assert registry.registry_state().denied_nodes == {bytes(registry.node.hash_part): registry.chain.now}


# ---- nodes


def entry_body(world: World) -> Cell:
    """The update that the world's node would send, made by somebody else."""
    terms = node_messages.offered_terms_cell(
        endpoint="evil:1", models=[MODEL], prices=PRICES, simulated=False
    )
    entry = Builder().store_ref(world.node_identity.cell).store_coins(10**15).store_ref(terms)
    return finish(update_head().store_ref(finish(entry)).store_bit(0))


def update_head() -> Builder:
    """RegistryNodeUpdate without a claim, up to the entry."""
    builder: Builder = begin(opcodes.REGISTRY_NODE_UPDATE).store_uint(0, 64 + 256).store_uint(0, 256)
    return builder


def test_only_a_node_contract_speaks_for_a_node(active: World) -> None:
    before = active.registry_state().nodes
    leave = finish(
        begin(opcodes.REGISTRY_NODE_LEAVE).store_uint(0, 64).store_ref(active.node_identity.cell)
    )
    for body in (entry_body(active), leave):
        for sender in (active.stranger, active.owner, active.governance, active.registry):
            assert (
                active.chain.send_internal(active.registry, TON, body, sender=sender).first.exit_code == 209
            )
    assert active.registry_state().nodes == before


@pytest.mark.parametrize(
    ("change", "code"),
    [({"global_id": -239}, 210), ({"code_version": 2}, 212), ({"registry": "stranger"}, 211)],
)
def test_nodes_of_others_are_refused(registry: World, change: dict[str, object], code: int) -> None:
    if change.get("registry") == "stranger":
        change = {"registry": registry.stranger}
    identity = dataclasses.replace(registry.node_identity, **change)  # type: ignore[arg-type]
    terms = node_messages.offered_terms_cell(endpoint="a:1", models=[MODEL], prices=PRICES, simulated=False)
    entry = Builder().store_ref(identity.cell).store_coins(10**12).store_ref(terms)
    body = finish(update_head().store_ref(finish(entry)).store_bit(0))
    result = registry.chain.send_internal(registry.registry, TON, body, sender=identity.address)
    assert result.first.exit_code == code


def test_the_list_is_bounded_and_counts(registry: World) -> None:
    terms = {"endpoint": "a:1", "models": [MODEL], "prices": PRICES, "simulated": True}
    body = node_messages.join_body(stake=10 * TON, **terms)  # type: ignore[arg-type]
    codes = []
    for salt in range(4):
        identity = dataclasses.replace(registry.node_identity, salt=salt)
        init = state_init(node_code().cell, identity.initial_data)
        result = registry.chain.send_from(registry.owner, identity.address, 11 * TON, body, init=init)
        codes.append(result[1].exit_code)
    assert codes == [0, 0, 0, 215]
    assert len(registry.registry_state().nodes) == 3
    identity = dataclasses.replace(registry.node_identity, salt=0)
    leave = registry.chain.send_from(registry.owner, identity.address, TON, node_messages.unbond_body())
    assert opcodes.NODE_LEFT in events(leave)
    assert len(registry.registry_state().nodes) == 2


def test_an_update_keeps_the_date_of_entry(active: World) -> None:
    listed = active.registry_state().nodes[bytes(active.node.hash_part)].listed_at
    active.chain.warp(50)
    assert active.attest().success
    entry = active.registry_state().nodes[bytes(active.node.hash_part)]
    assert (entry.listed_at, entry.updated_at) == (listed, active.chain.now)


def test_a_raised_minimum_stake_counts_at_the_next_update(active: World) -> None:
    raised = dataclasses.replace(PARAMETERS, min_stake=12 * TON)
    assert active.change(registry_messages.set_parameters(raised)).success
    assert active.attest()[1].exit_code == 214
    assert active.to_node(active.owner, node_messages.add_stake_body(2 * TON), 3 * TON).success
    assert active.attest().success
    assert active.node_state().parameters == raised


def test_a_node_with_an_unreadable_entry_hides_nobody_else(active: World) -> None:
    """The contract does not read text, so a hostile owner may put any bytes into the endpoint."""
    identity = dataclasses.replace(active.node_identity, salt=99)
    good = node_messages.offered_terms_cell(endpoint="a:1", models=[MODEL], prices=PRICES, simulated=False)
    terms = Builder().store_bits(good.bits[:200])
    terms.store_ref(finish(Builder().store_bytes(b"\xff\xfe"))).store_ref(good.refs[1])
    body = begin(opcodes.NODE_JOIN).store_uint(0, 64).store_coins(10 * TON).store_ref(finish(terms))
    init = state_init(node_code().cell, identity.initial_data)
    assert active.chain.send_from(active.owner, identity.address, 11 * TON, finish(body), init=init).success
    state = active.registry_state()
    assert state.unreadable == {bytes(identity.address.hash_part)}
    assert list(state.nodes) == [bytes(active.node.hash_part)]


# ---- money


def test_senders_get_back_what_is_left_and_the_registry_keeps_its_reserve(registry: World) -> None:
    before = registry.chain.balance(registry.registry)
    governance = registry.chain.balance(registry.governance)
    announce(registry, registry_messages.set_release(SECOND))
    assert registry.chain.balance(registry.registry) >= before - 1000
    assert governance - registry.chain.balance(registry.governance) < TON // 20


def test_an_empty_registry_is_refilled_by_its_users_and_stays_usable(active: World) -> None:
    account = active.chain.account(active.registry)
    active.chain.add_account(active.registry, 0, code=account.code, data=account.data)
    active.chain.warp(10)
    assert active.attest().success
    assert active.chain.balance(active.registry) > 0
    assert active.chain.send_from(active.stranger, active.registry, TON).success
    body = registry_messages.top_up_body()
    assert active.to_registry(active.stranger, body).success
    assert active.chain.balance(active.registry) > 2 * TON - TON // 50


def test_messages_that_cannot_pay_for_themselves_are_refused(registry: World) -> None:
    body = registry_messages.announce_body(registry_messages.set_release(SECOND))
    assert registry.to_registry(registry.governance, body, TON // 100).first.exit_code == 216
    assert not registry.registry_state().pending


def test_unknown_messages_bounce(registry: World) -> None:
    for opcode in (0, 0xC0C1FFFF, opcodes.NODE_JOIN):
        result = registry.to_registry(registry.stranger, finish(begin(opcode).store_uint(0, 64)))
        assert result.first.exit_code == 0xFFFF
        assert is_bounce(result[1])


def test_a_registry_without_a_timelock_accepts_no_change(emulator: Emulator, world: World) -> None:
    """The builder refuses it; whoever deploys it by hand gets a registry that cannot change."""
    good = world.genesis.initial_data
    no_lock = dataclasses.replace(PARAMETERS, timelock=0)
    config = good.refs[0]
    broken = Builder().store_bits(config.bits).store_ref(no_lock.cell)
    broken.store_ref(config.refs[1]).store_ref(config.refs[2])
    data = finish(Builder().store_bits(good.bits).store_ref(finish(broken)).store_ref(good.refs[1]))
    body = registry_messages.announce_body(registry_messages.set_release(SECOND))
    _, result = world.chain.deploy(registry_code().cell, data, TON, body, sender=world.governance)
    assert result.first.exit_code == 217


def test_a_registry_of_another_network_lists_nobody(active: World) -> None:
    mainnet = TestChain(emulator=Emulator(network_config(-239)), now=active.chain.now)
    account = active.chain.account(active.registry)
    mainnet.add_account(active.registry, TON, code=account.code, data=account.data)
    result = mainnet.send_internal(active.registry, TON, entry_body(active), sender=active.node)
    assert result.first.exit_code == 210


def test_the_getters_agree_with_the_data(active: World) -> None:
    assert active.chain.get(active.registry, "registryState") == [0, 1, 0]
    found = active.chain.get(active.registry, "nodeAddressOf", active.node_identity.cell)
    assert isinstance(found[0], Slice)
    assert found[0].load_address() == active.node


# ---- policy


def with_policy(world: World, **changes: object) -> World:
    genesis: RegistryGenesis = dataclasses.replace(world.genesis, **changes)  # type: ignore[arg-type]
    world.genesis = genesis
    assert world.deploy_registry().success
    return world


def test_policy_from_registry(world: World) -> None:
    snp = dataclasses.replace(RELEASE, name="snp-1", tee=TeeKind.SEV_SNP)
    world = with_policy(world, releases=(RELEASE, SECOND, snp))
    world.change(registry_messages.set_release(SECOND, EntryState.DEPRECATED))
    policy = policy_from_registry(world.registry_state())
    assert {r.name for r in policy.releases} == {"test-1", "test-2"}, (
        "the SNP release's kind is not accepted"
    )
    assert (policy.global_id, policy.min_tcb_evaluation) == (GLOBAL_ID, 17)
    assert policy.models == {MODEL}
    assert policy.tee_kinds == {TeeKind.TDX}
    assert policy.statuses == {"UpToDate"}
    assert not policy.simulated
    strict = policy_from_registry(world.registry_state(), allow_deprecated=False)
    assert {r.name for r in strict.releases} == {"test-1"}


def test_the_development_root_must_be_the_named_one(world: World, lab: object) -> None:
    root: bytes = lab.platform.root_der  # type: ignore[attr-defined]
    named = dataclasses.replace(POLICY, dev_root_hash=hashlib.sha256(root).digest())
    state = with_policy(world, policy=named).registry_state()
    assert policy_from_registry(state, root).dev_root == root
    for wrong in (None, root + b"\x00"):
        with pytest.raises(ConfigError):
            policy_from_registry(state, wrong)
    with pytest.raises(ConfigError):
        policy_from_registry(dataclasses.replace(state, global_id=-239), root)


def test_a_development_root_that_the_registry_does_not_name_counts_for_nothing(
    world: World, lab: object
) -> None:
    state = with_policy(world).registry_state()
    assert policy_from_registry(state, lab.platform.root_der).dev_root is None  # type: ignore[attr-defined]


def test_a_network_accepts_gpus_under_the_default_rules(world: World) -> None:
    policy = policy_from_registry(with_policy(world).registry_state())
    assert policy.gpu == GpuPolicy(gpu_count=None)
    assert policy.snp is None  # the defaults


def test_snp_releases_name_their_models_on_chain(world: World) -> None:
    first = SnpRelease(name="snp-1", measurement=b"\x01" * 48, models=(MODEL,), gpus=8)
    second = SnpRelease(name="snp-2", measurement=b"\x02" * 48, models=(MODEL, bytes(32)))
    kinds = dataclasses.replace(POLICY, tee_kinds=frozenset(TeeKind))
    world = with_policy(world, releases=(RELEASE, first), policy=kinds)
    world.change(registry_messages.set_release(second))
    state = world.registry_state()
    assert not state.unreadable
    assert state.releases[second.release_id].release == second
    policy = policy_from_registry(state)
    assert set(policy.snp_releases) == {first, second}
    assert policy.tdx_releases == (RELEASE,)


def test_the_development_root_brings_the_other_vendors(world: World) -> None:
    vendors = DevVendors.create(1_800_000_000, seeded("vendors"))
    root = DevPlatform.create(1_800_000_000, seeded("platform"), vendors).root_der
    named = dataclasses.replace(POLICY, dev_root_hash=hashlib.sha256(root).digest())
    policy = policy_from_registry(with_policy(world, policy=named).registry_state(), root)
    assert policy.snp == vendors.roots.snp
    assert policy.gpu == vendors.roots.gpu
    assert policy.gpu is not None


def test_mainnet_refuses_a_development_root_at_genesis(world: World) -> None:
    named = dataclasses.replace(POLICY, dev_root_hash=b"\x01" * 32)
    with pytest.raises(ConfigError):
        dataclasses.replace(world.genesis, global_id=-239, policy=named)


def test_mainnet_takes_rules_for_intels_root_only(world: World) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(world.genesis, global_id=-239, rules=(RULE,))
    intel = dataclasses.replace(RULE, anchor=anchor_of(intel_root()))
    made = dataclasses.replace(world.genesis, global_id=-239, rules=(intel,))
    assert list(parse_registry(made.initial_data).rules) == [bytes(intel.cell.hash)]


def test_a_list_of_kinds_that_does_not_parse_lets_nobody_in(active: World) -> None:
    """Governance chooses these bits; they must not hide the registry from its readers."""
    good = registry_messages.policy_cell(POLICY)
    cut = Builder().store_bits(good.bits[:-1]).store_bit(1).store_ref(finish(Builder().store_uint(0, 1)))
    change = finish(begin(opcodes.SET_POLICY).store_ref(finish(cut)))
    assert active.change(change).success
    state = active.registry_state()
    assert state.policy == dataclasses.replace(POLICY, recorded={})
    assert state.usable_nodes(active.chain.now) == ()
    assert active.attest()[1].exit_code not in (0, None)


@pytest.mark.parametrize(
    "policy",
    [
        dataclasses.replace(POLICY, recorded={TeeKind.SEV_SNP: 1}),
        dataclasses.replace(POLICY, tee_kinds=frozenset()),
        dataclasses.replace(POLICY, min_tcb_evaluation=0),
        dataclasses.replace(POLICY, statuses=frozenset({"OutOfDate"})),
        dataclasses.replace(POLICY, dev_root_hash=b"\x01"),
    ],
)
def test_policies_out_of_form_are_refused(world: World, policy: RegistryPolicy) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(world.genesis, policy=policy)


def test_parameters_have_a_cell() -> None:
    assert isinstance(PARAMETERS, RegistryParameters)
    assert len(PARAMETERS.cell.refs) == 0
