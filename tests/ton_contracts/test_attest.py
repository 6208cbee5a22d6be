"""A node becomes attested by a quote that Pck verified, or not at all: the whole path on TVM."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import pytest
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.reference import TeeKind
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton import node_messages, opcodes, pck, registry_messages
from cocoon_ton.cells import Reader, begin, finish
from cocoon_ton.code import channel_code, node_code, state_init
from cocoon_ton.emulator import Emulator, SendResult, TestChain
from cocoon_ton.emulator.accounts import internal_message
from cocoon_ton.node import BondState, parse_node
from cocoon_ton.pck import Attested, PckIdentity, parse_attested
from cocoon_ton.registry import EntryState, KeyClaim
from cocoon_ton.registry_messages import Removal

from .attest_kit import EVIDENCE, STRICT, Quoted, platform_cell, quoted, told
from .conftest import MODEL, PARAMETERS, RELEASE, TON, key
from .pck_kit import GPU, seeded

OWNER, NOT_PCK, WRONG_RELEASE, PROPOSAL_OPEN = 300, 331, 332, 333


@pytest.fixture(scope="module")
def templates(emulator: Emulator) -> tuple[Quoted, Quoted]:
    """A node that joined a registry which wants verified quotes, and the same one attested."""
    joined = quoted(TestChain(emulator=emulator))
    attested = copied(joined)
    assert attested.full().success
    return joined, attested


@pytest.fixture
def joined(templates: tuple[Quoted, Quoted]) -> Iterator[Quoted]:
    """A node that joined, on a chain of its own."""
    yield from conserved(copied(templates[0]))


@pytest.fixture
def attested(templates: tuple[Quoted, Quoted]) -> Iterator[Quoted]:
    """The same, attested."""
    yield from conserved(copied(templates[1]))


def conserved(q: Quoted) -> Iterator[Quoted]:
    """After every test, balances and collected fees together must be what was put in."""
    yield q
    assert q.chain.total_balance() + q.chain.collected_fees == q.chain.minted


def claim_of(q: Quoted) -> KeyClaim | None:
    """What the registry lists."""
    return q.w.registry_state().nodes[bytes(q.w.node.hash_part)].claim


def on_node(q: Quoted, result: SendResult) -> int | None:
    """Exit code of the node's first transaction."""
    return result.on(q.w.node)[0].exit_code


def unchanged(q: Quoted, act: Callable[[], SendResult], *, payer: Address | None = None) -> SendResult:
    """Act; nothing changes but balances, and whoever pays loses fees only."""
    who = payer or q.w.owner
    state, listed = q.w.node_state(), q.w.registry_state().nodes
    paid, node = q.chain.balance(who), q.chain.balance(q.w.node)
    result = act()
    assert q.w.node_state() == state
    assert q.w.registry_state().nodes == listed
    assert paid - q.chain.balance(who) < TON // 5, "the value comes back"
    assert q.chain.balance(q.w.node) >= node - TON // 1000, "and is not the node's"
    return result


# ---- what a verified quote does


def test_one_message_leads_from_the_root_into_the_list(joined: Quoted) -> None:
    w, owner = joined.w, joined.chain.balance(joined.w.owner)
    assert claim_of(joined) is None
    assert w.registry_state().usable_nodes(w.chain.now) == ()
    result = joined.full()
    assert result.success
    assert [t.address for t in result] == [joined.address, w.node, w.registry, w.node, w.owner]
    state, binding = w.node_state(), joined.binding
    assert state.key is not None
    assert (state.key.binding_hash, state.key.evidence_digest) == (binding.hash, EVIDENCE)
    assert state.key.attested_until == binding.not_after
    assert state.proposal is None
    claim = claim_of(joined)
    assert claim is not None
    assert (claim.record, claim.verified) == (state.key, True)
    assert claim.release_id == binding.release_id == joined.platform.release().release_id
    assert (claim.rule, claim.platform_id) == (bytes(joined.rule.cell.hash), joined.state.platform_id)
    assert [e.account_id for e in w.registry_state().usable_nodes(w.chain.now)] == [w.node.hash_part]
    assert [Reader(body).uint(32) for body in result.events] == [opcodes.NODE_LISTED, opcodes.NODE_ATTESTED]
    assert owner - joined.chain.balance(w.owner) < TON // 4


def test_the_known_key_renews_and_a_new_binding_rotates(attested: Quoted) -> None:
    w = attested.w
    first = w.node_state().key
    assert first is not None
    attested.chain.warp(100)
    renewed = attested.changed(not_before=first.not_before, not_after=first.not_after)
    assert renewed.attest().success
    assert w.node_state().key == first, "the same binding stays the current one"
    attested.chain.warp(100)
    w.receipt_key = key(3)
    assert attested.attest().success
    second = w.node_state().key
    assert second is not None
    assert second.previous == first
    claim = claim_of(attested)
    assert claim is not None
    assert claim.record == second


def test_a_genuine_key_anchors_and_settles(attested: Quoted) -> None:
    w = attested.w
    w.to_node(w.stranger, node_messages.top_up_body())
    w.grow(1)
    assert w.anchor().success
    assert w.open_channel().success
    assert w.settle(TON).success


@pytest.mark.parametrize("which", ["rule", "platform"])
def test_the_result_counts_no_longer_than_what_it_rests_on(joined: Quoted, which: str) -> None:
    """Section 6, number 6: min(platform.notAfter, rule.validUntil), and the binding's own end."""
    soon = joined.chain.now + 3000
    if which == "rule":
        rule = dataclasses.replace(joined.rule, valid_until=soon)
        assert joined.w.change(registry_messages.set_rule(rule)).success
        assert joined.full(statement=joined.statement(rule=rule)).success
    else:
        assert joined.full().success
        told = dataclasses.replace(joined.state, not_after=soon)
        assert said(joined, platform_cell(told)).success
    state = joined.w.node_state()
    assert state.key is not None
    assert state.key.attested_until == soon


# ---- what others say: six checks of docs/spec/onchain-attestation.md, section 6


def said(q: Quoted, platform: Cell | None = None, *, sender: Address | None = None) -> SendResult:
    """`told`, from the Pck contract unless another sender is given."""
    return q.chain.send_internal(q.w.node, TON, told(q, platform), sender=sender or q.address)


def test_the_sender_is_the_genuine_pck(attested: Quoted) -> None:
    w = attested.w
    for sender in (w.owner, w.stranger, w.registry, w.node, Address((-1, attested.address.hash_part))):
        result = unchanged(attested, functools.partial(said, attested, sender=sender), payer=w.client)
        assert on_node(attested, result) == NOT_PCK


def test_other_code_at_an_address_of_its_own_is_not_pck(attested: Quoted) -> None:
    """A contract that says what it wants, deployed with the identity of the genuine one."""
    data = attested.identity().initial_data
    for code in (channel_code().cell, node_code().cell):
        other = Address((0, state_init(code, data).hash))
        result = unchanged(
            attested, functools.partial(said, attested, sender=other), payer=attested.w.client
        )
        assert on_node(attested, result) == NOT_PCK


def test_a_chain_from_another_anchor_than_the_rules(attested: Quoted) -> None:
    """The contract for the same certificate that starts from the issuing key: genuine, but not what the rule asks."""
    of = attested.identity(attested.issuer)
    proof = attested.proof()
    chain = proof.chain_cell(attested.issuer)
    assert attested.send(pck.verify_body(chain, proof.certification_cell), identity=of, deploy=True).success
    result = unchanged(attested, lambda: attested.send(attested.attest_body(proof), identity=of))
    assert on_node(attested, result) == NOT_PCK


def test_a_look_alike_root(attested: Quoted) -> None:
    """Another root, in all else the same machine: its rule is one that the registry does not have."""
    false = dataclasses.replace(attested, platform=DevPlatform.create(attested.chain.now, seeded("false")))
    result = unchanged(attested, false.full)
    assert on_node(attested, result) == 0
    assert result.on(attested.w.registry)[0].exit_code == 222


def test_nobody_else_puts_keys_into_this_node(attested: Quoted) -> None:
    """A genuine quote of an enclave that names this node, asked for by somebody else: A3."""
    w = attested.w
    result = unchanged(attested, lambda: attested.full(sender=w.stranger), payer=w.stranger)
    assert on_node(attested, result) == OWNER


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node": b"\x01" * 32}, 303),
        ({"global_id": -239}, 302),
        ({"release_id": RELEASE.release_id}, WRONG_RELEASE),
        ({"not_before": -1, "not_after": -1}, 306),
        ({"not_before": 301, "not_after": 3600}, 306),
        ({"not_before": 0, "not_after": 86_401}, 306),
        ({"not_before": -500, "not_after": 3600}, 308),
    ],
)
def test_the_binding_is_for_this_node_network_and_release(
    attested: Quoted, changes: dict[str, object], code: int
) -> None:
    attested.chain.warp(10)
    now = attested.chain.now
    shifted = {
        name: value if name not in ("not_before", "not_after") else now + int(str(value))
        for name, value in changes.items()
    }
    other = attested.changed(**shifted, seal_key_hash=b"\x55" * 32)
    assert on_node(attested, unchanged(attested, other.attest)) == code


def revoke(kind: Removal, id: Callable[[Quoted], bytes]) -> Callable[[Quoted], None]:
    def act(q: Quoted) -> None:
        assert q.w.to_registry(q.w.governance, registry_messages.remove_body(kind, id(q))).success

    return act


def change(make: Callable[[Quoted], Cell]) -> Callable[[Quoted], None]:
    def act(q: Quoted) -> None:
        assert q.w.change(make(q)).success

    return act


REFUSALS = [
    ("rule removed", revoke(Removal.RULE, lambda q: bytes(q.rule.cell.hash)), 222),
    ("release revoked", revoke(Removal.RELEASE, lambda q: q.platform.release().release_id), 219),
    ("platform denied", revoke(Removal.PLATFORM, lambda q: q.state.platform_id or b""), 213),
    ("node denied", revoke(Removal.NODE, lambda q: bytes(q.w.node.hash_part)), 213),
    (
        "evaluation too low",
        change(lambda q: registry_messages.set_policy(dataclasses.replace(STRICT, min_tcb_evaluation=20))),
        222,
    ),
    (
        "kind not accepted",
        change(
            lambda q: registry_messages.set_policy(
                dataclasses.replace(STRICT, tee_kinds=frozenset({TeeKind.SEV_SNP}))
            )
        ),
        220,
    ),
    (
        "other Pck code",
        change(
            lambda q: registry_messages.set_parameters(
                dataclasses.replace(PARAMETERS, pck_code=b"\x01" * 32)
            )
        ),
        212,
    ),
    (
        "stake too low",
        change(
            lambda q: registry_messages.set_parameters(dataclasses.replace(PARAMETERS, min_stake=11 * TON))
        ),
        214,
    ),
]


@pytest.mark.parametrize(("refuse", "code"), [pytest.param(r, c, id=n) for n, r, c in REFUSALS])
def test_the_registry_has_the_last_word(
    attested: Quoted, refuse: Callable[[Quoted], None], code: int
) -> None:
    """What it refuses, the node forgets: the key of the new binding never counts."""
    refuse(attested)
    attested.chain.warp(10)
    attested.w.receipt_key = key(3)
    result = unchanged(attested, attested.full)
    assert on_node(attested, result) == 0
    assert result.on(attested.w.registry)[0].exit_code == code
    assert attested.w.node_state().proposal is None


@pytest.mark.parametrize("case", ["rule", "release", "platform", "evaluation", "kind"])
def test_what_is_taken_away_counts_at_once_for_readers(attested: Quoted, case: str) -> None:
    """A node that was attested under it is not usable any more, whatever its binding says."""
    w = attested.w
    assert w.registry_state().usable_nodes(w.chain.now)
    at = {"rule": 0, "release": 1, "platform": 2, "evaluation": 4, "kind": 5}[case]
    REFUSALS[at][1](attested)
    assert not w.registry_state().usable_nodes(w.chain.now)
    assert bytes(w.node.hash_part) in w.registry_state().nodes


def test_a_deprecated_release_is_on_its_way_out_and_still_accepted(attested: Quoted) -> None:
    deprecated = registry_messages.set_release(attested.platform.release(), EntryState.DEPRECATED)
    assert attested.w.change(deprecated).success
    attested.w.receipt_key = key(3)
    assert attested.full().success
    assert attested.w.registry_state().usable_nodes(attested.chain.now)


def test_a_release_of_another_kind_is_no_tdx_release(attested: Quoted) -> None:
    """The quote's release is listed, but as a record that is no release: no kind of TEE."""
    blob = finish(Builder().store_uint(7, 32))
    odd = begin(opcodes.SET_RELEASE).store_bytes(blob.hash).store_uint(EntryState.ACTIVE, 8)
    assert attested.w.change(finish(odd.store_ref(blob))).success
    body = node_messages.attest_body(
        key_binding=attested.w.binding(release_id=bytes(blob.hash), seal_key_hash=MODEL).to_boc(),
        evidence_digest=EVIDENCE,
        attested_until=attested.chain.now + 3600,
    )
    result = unchanged(attested, lambda: attested.w.to_node(attested.w.owner, body))
    assert result[1].exit_code == 220


# ---- recorded digests


def test_a_key_without_a_quote_is_refused(joined: Quoted) -> None:
    """A3: the owner records a key of its own, for a release that needs a quote."""
    result = unchanged(joined, joined.w.attest)
    assert on_node(joined, result) == 0
    assert result.on(joined.w.registry)[0].exit_code == 221
    assert joined.w.node_state().key is None
    own = joined.w.attest(joined.binding)
    assert own.on(joined.w.registry)[0].exit_code == 221
    joined.w.grow(1)
    assert joined.w.registry_state().usable_nodes(joined.chain.now) == ()
    assert joined.w.anchor_by_message().first.exit_code == 309, "and its signatures count for nothing"
    assert joined.w.settle(TON).first.exit_code == 309


def recorded(q: Quoted, stake: int) -> Cell:
    return registry_messages.set_policy(dataclasses.replace(STRICT, recorded={TeeKind.TDX: stake}))


def test_a_kind_that_may_join_on_a_digest_has_its_own_stake(joined: Quoted) -> None:
    assert joined.w.change(recorded(joined, 12 * TON)).success
    assert unchanged(joined, joined.w.attest).on(joined.w.registry)[0].exit_code == 214
    assert joined.w.to_node(joined.w.owner, node_messages.add_stake_body(2 * TON), 3 * TON).success
    assert joined.w.attest().success
    claim, state = claim_of(joined), joined.w.registry_state()
    assert claim is not None
    assert (claim.verified, claim.platform_id, claim.release_id) == (False, bytes(32), RELEASE.release_id)
    assert len(state.usable_nodes(joined.chain.now)) == 1
    assert joined.w.change(recorded(joined, 13 * TON)).success
    assert joined.w.registry_state().usable_nodes(joined.chain.now) == ()
    assert joined.w.change(registry_messages.set_policy(STRICT)).success
    assert joined.w.registry_state().usable_nodes(joined.chain.now) == ()


# ---- freshness and replay


def test_a_quote_counts_for_minutes(attested: Quoted) -> None:
    attest, full = attested.attest_body(), attested.attest_body(certify=True)
    attested.chain.warp(1600)
    for body in (attest, full):
        result = unchanged(attested, functools.partial(attested.send, body))
        assert result.first.exit_code == 516
        assert not result.on(attested.w.node)


def test_the_same_quote_again_changes_nothing(attested: Quoted) -> None:
    body = attested.attest_body()
    assert attested.send(body).success
    state = attested.w.node_state()
    assert attested.send(body).success
    assert attested.w.node_state() == state


def test_an_older_binding_does_not_come_back(attested: Quoted) -> None:
    old = attested.attest_body()
    attested.chain.warp(50)
    attested.w.receipt_key = key(3)
    assert attested.attest().success
    assert on_node(attested, unchanged(attested, lambda: attested.send(old))) == 308


# ---- one proposal at a time


def deaf(q: Quoted) -> None:
    """Put a registry there that takes messages and answers nothing."""
    treasury = q.chain.account(q.w.stranger)
    q.chain.add_account(q.w.registry, TON, code=treasury.code, data=treasury.data)


def answer(q: Quoted, record: bytes) -> SendResult:
    """The acknowledgement of a registry."""
    body = begin(opcodes.REGISTRY_ACKNOWLEDGE).store_uint(0, 64).store_bytes(record)
    return q.chain.send_internal(
        q.w.node, TON // 2, finish(body.store_ref(PARAMETERS.cell)), sender=q.w.registry
    )


def record_hash(q: Quoted) -> bytes:
    """Hash of the record that is proposed."""
    rest = q.w.data(q.w.node).refs[-1]
    proposal = rest.refs[2].refs[-1]  # behind terms and parameters; behind retired keys, if there are any
    return bytes(proposal.refs[0].hash)


def test_a_proposal_counts_only_with_the_registrys_answer(attested: Quoted) -> None:
    w = attested.w
    before = w.node_state().key
    deaf(attested)
    attested.chain.warp(5)
    w.receipt_key = key(3)
    assert attested.attest().success
    state = w.node_state()
    assert state.key == before
    assert state.proposal is not None
    assert w.anchor_by_message(w.checkpoint(tree_size=5)).first.exit_code == 310, (
        "not signed by a key that counts"
    )
    assert answer(attested, b"\x01" * 32).success
    assert w.node_state().proposal == state.proposal, "an answer to something else"
    assert answer(attested, record_hash(attested)).success
    after = w.node_state()
    assert (after.key, after.proposal) == (state.proposal.record, None)


def test_one_proposal_waits_for_its_answer(attested: Quoted) -> None:
    deaf(attested)
    attested.chain.warp(5)
    assert attested.changed(seal_key_hash=MODEL).attest().success
    other = attested.changed(seal_key_hash=b"\x77" * 32)
    state = attested.w.node_state()
    assert on_node(attested, other.attest()) == PROPOSAL_OPEN
    assert attested.w.node_state() == state
    attested.chain.warp(601)
    assert other.attest().success
    assert attested.w.node_state().proposal != state.proposal, (
        "a registry that never answered blocks nothing"
    )


def test_who_left_meanwhile_gets_no_new_key(attested: Quoted) -> None:
    """The wait for the stake does not cover receipts of a key that came after it began."""
    w = attested.w
    before = w.node_state().key
    deaf(attested)
    attested.chain.warp(5)
    w.receipt_key = key(3)
    assert attested.attest().success
    record = record_hash(attested)
    assert w.to_node(w.owner, node_messages.unbond_body()).first.success
    assert answer(attested, record).success
    state = w.node_state()
    assert (state.bond, state.key, state.proposal) == (BondState.UNBONDING, before, None)


def test_only_the_registry_refuses(attested: Quoted) -> None:
    """A bounce from elsewhere forgets nothing."""
    deaf(attested)
    attested.chain.warp(5)
    assert attested.changed(seal_key_hash=MODEL).attest().success
    record = record_hash(attested)
    body = begin(0xFFFFFFFF).store_uint(opcodes.REGISTRY_NODE_UPDATE, 32).store_uint(0, 64)
    bounce = finish(body.store_bytes(record[:20]))
    state = attested.w.node_state()
    for sender, kept in ((attested.w.stranger, True), (attested.w.registry, False)):
        result = bounced(attested, sender, bounce)
        assert result.first.success
        assert (attested.w.node_state() == state) is kept
    assert attested.w.node_state().proposal is None


def bounced(q: Quoted, sender: Address, body: Cell) -> SendResult:
    """A bounced message from `sender` to the node."""
    q.chain.minted += TON // 2
    message = internal_message(
        source=sender,
        destination=q.w.node,
        value=TON // 2,
        body=body,
        init=None,
        bounce=False,
        created_lt=q.chain.lt,
        created_at=q.chain.now,
    )
    bits = message.bits.copy()
    bits[3] = 1  # bounced
    builder = Builder().store_bits(bits)
    for ref in message.refs:
        builder.store_ref(ref)
    return q.chain.send_message(finish(builder))


# ---- bond, value


def test_only_an_active_node_is_attested(attested: Quoted) -> None:
    w = attested.w
    assert w.to_node(w.owner, node_messages.unbond_body()).success
    state, owner = w.node_state(), attested.chain.balance(w.owner)
    assert on_node(attested, attested.attest()) == 304
    assert w.node_state() == state
    assert owner - attested.chain.balance(w.owner) < TON // 20


def test_who_comes_back_shows_its_keys_again(attested: Quoted) -> None:
    w = attested.w
    assert w.to_node(w.owner, node_messages.unbond_body()).success
    attested.chain.now = w.node_state().unlock_at
    assert w.to_node(w.owner, node_messages.withdraw_body()).success
    assert w.join().success
    state = w.node_state()
    assert claim_of(attested) is None
    assert state.key is not None
    assert state.key.attested_until == 0
    assert attested.attest().success
    assert w.registry_state().usable_nodes(attested.chain.now)


@pytest.mark.parametrize("how", ["full", "cached", "recorded", "poor registry"])
def test_the_least_value_goes_all_the_way(joined: Quoted, how: str) -> None:
    """Whatever the node accepts pays for registry and answer too, at the sender's expense."""
    w = joined.w
    if how in ("recorded", "poor registry"):
        assert w.change(recorded(joined, 0)).success
    if how == "poor registry":  # it keeps a part of what passes through
        account = joined.chain.account(w.registry)
        joined.chain.add_account(w.registry, TON // 1000, code=account.code, data=account.data)
    if how == "cached":
        assert joined.verify().success

    def send(q: Quoted, value: int) -> SendResult:
        if how == "full":
            return q.full(value=value)
        if how == "cached":
            return q.send(q.attest_body(), value)
        body = node_messages.attest_body(
            key_binding=q.w.binding().to_boc(),
            evidence_digest=EVIDENCE,
            attested_until=q.chain.now + 3600,
        )
        return q.w.to_node(q.w.owner, body, value)

    low, high = 0, TON // 4
    while high - low > TON // 250:
        middle = (low + high) // 2
        result = send(copied(joined), middle)
        done = bool(result.on(w.node)) and result.on(w.node)[0].success
        low, high = (low, middle) if done else (middle, high)
    q = copied(joined)
    node, registry = q.chain.balance(w.node), q.chain.balance(w.registry)
    result = send(q, high)
    assert result.success, result.exit_codes
    assert q.w.registry_state().usable_nodes(q.chain.now)
    assert q.chain.balance(w.node) >= node - TON // 2000
    assert q.chain.balance(w.registry) >= registry
    assert high < TON // 5
    for value in (low, low // 2):
        q = copied(joined)
        refused = send(q, value)
        assert not refused.success
        assert parse_node(q.w.data(w.node)).proposal is None


def copied(q: Quoted) -> Quoted:
    """The same world on a chain of its own."""
    chain = TestChain(emulator=q.chain.emulator, now=q.chain.now)
    chain.add_blocks(len(q.chain.mc_blocks) - len(chain.mc_blocks))
    for name in ("treasury", "governance", "owner", "client", "stranger"):
        chain.treasury(name)
    for address in (q.w.registry, q.w.node, q.address):
        account = q.chain.account(address)
        if account.data is not None:
            chain.add_account(address, account.balance, code=account.code, data=account.data)
    world = dataclasses.replace(q.w, chain=chain)
    return dataclasses.replace(q, chain=chain, world=world)


def test_what_pck_says_is_what_the_node_reads(attested: Quoted) -> None:
    """The Python codec and the contract read the same message."""
    result = attested.attest()
    message = result[1].incoming
    assert message is not None
    parsed: Attested = parse_attested(message.body)
    assert parsed.requester == attested.w.owner
    assert parsed.statement.gpu_digest == GPU
    assert parsed.platform.identity == PckIdentity(
        anchor=attested.root, leaf_hash=attested.identity().leaf_hash
    )
