"""Random sequences of all messages by all parties, with time passing in between, over all three contracts.

Whatever happens: no nanoton appears or disappears, nobody gets more than was signed for, only the guilty are
slashed, and at the end everybody gets his money out of everything.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Builder, Cell

from cocoon.v1 import payment_pb2
from cocoon_attestation.payment import parse_authorization, parse_claim
from cocoon_attestation.receipt import Receipt
from cocoon_ton import channel, node_messages, opcodes, registry_messages
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import Reader, finish
from cocoon_ton.channel import CLOSED
from cocoon_ton.code import node_code, pck_code, state_init
from cocoon_ton.emulator import Emulator, MessageNotAcceptedError, SendResult, TestChain
from cocoon_ton.node import BondState, NodeState
from cocoon_ton.registry import KeyClaim
from cocoon_ton.registry_messages import Removal

from .attest_kit import EVIDENCE, Quoted, fixed_rule, platform
from .conftest import GLOBAL_ID, MODEL, PARAMETERS, PRICES, RELEASE, TON, TREASURY, World, key
from .pck_kit import PckWorld

CHANGES = (
    dataclasses.replace(PARAMETERS, penalty=3 * TON),
    dataclasses.replace(PARAMETERS, challenge_window=3600, response_window=600),
    dataclasses.replace(PARAMETERS, min_stake=11 * TON, bounty_permille=100),
)
FEE = TON // 2
"""More than all fees of one message and what it causes."""


@dataclass
class Issued:
    """A receipt that the enclave signed."""

    receipt: Receipt
    signer: Ed25519PrivateKey


@dataclass
class Play:
    """The world, what its people signed, and what they are guilty of."""

    world: World
    honest: bool
    """The host answers challenges, the enclave logs its receipts and signs one history."""
    rng: random.Random
    receipts: list[Issued] = field(default_factory=list)
    vouchers: list[tuple[payment_pb2.SignedClaim, payment_pb2.SignedAuthorization]] = field(
        default_factory=list
    )
    signed_for: int = 0
    """Highest min(used, cap) for which claim and authorization exist."""
    anchors: list[tuple[int, int]] = field(default_factory=list)
    conflicting: bool = False
    keys: int = 0
    gifts: int = 0
    """What others than its owner sent to the node; part of it came back."""
    from_others: Counter[Address] = field(default_factory=Counter)
    """What they were left with less, each."""
    into_channel: Counter[Address] = field(default_factory=Counter)
    """What anybody put into the client's channel."""
    messages: int = 0
    slashed: list[bytes] = field(default_factory=list)
    missed: set[bytes] = field(default_factory=set)
    """Receipts whose challenge nobody answered."""
    leaves: list[bytes] = field(default_factory=list)

    @property
    def people(self) -> tuple[Address, ...]:
        w = self.world
        return (w.owner, w.client, w.stranger, w.governance)

    @property
    def node(self) -> NodeState | None:
        return self.world.node_state() if self.world.chain.account(self.world.node).data else None

    # ---- one message

    def done(self, result: SendResult) -> None:
        """Look at what a message did: whom it slashed."""
        self.messages += 1
        for transaction in result:
            for body in transaction.events:
                reader = Reader(body)
                if reader.uint(32) == opcodes.NODE_SLASHED:
                    self.check_guilt(reader.raw(32))

    def check_guilt(self, subject: bytes) -> None:
        assert subject not in self.slashed, "nobody is slashed for the same thing twice"
        self.slashed.append(subject)
        known: dict[bytes, Receipt] = {issued.receipt.hash: issued.receipt for issued in self.receipts}
        if subject not in known:
            assert self.conflicting, "only two histories are slashed without a receipt"
            return
        receipt = known[subject]
        covered = any(at <= receipt.anchor_by and size > receipt.index for at, size in self.anchors)
        logged = receipt.index < self.world.tree.size and self.leaves[receipt.index] == receipt.hash
        assert not covered or not logged or subject in self.missed, "innocent"

    def append(self, leaf: bytes) -> None:
        self.leaves.append(leaf)
        self.world.tree.append(leaf)

    def to_node(self, sender: Address, body: Cell, value: int) -> SendResult:
        before = self.world.chain.balance(sender)
        result = self.world.to_node(sender, body, value)
        if sender != self.world.owner:
            self.gifts += value
            self.from_others[sender] += max(0, before - self.world.chain.balance(sender))
        self.done(result)
        return result

    # ---- what can happen

    def join(self, who: Address, size: int) -> None:
        body = node_messages.join_body(
            stake=size * TON, endpoint="h:1", models=[MODEL], prices=PRICES, simulated=True
        )
        init = self.world.node_identity
        self.done(
            self.world.chain.send_from(
                who,
                self.world.node,
                size * TON + TON,
                body,
                init=state_init(node_code().cell, init.initial_data),
            )
        )
        if who != self.world.owner:
            self.gifts += size * TON + TON

    def attest(self, who: Address, size: int) -> None:
        if self.node is None:
            return
        if size % 2:
            self.keys += 1
            self.world.receipt_key = key(100 + self.keys % 100)
        self.done(self.world.attest(sender=who))

    def quote(self, who: Address, size: int) -> None:
        """A genuine quote of the platform for this node, asked for by anybody; every third is about another node."""
        if self.node is None:
            return
        w = self.world
        if size % 2:
            self.keys += 1
            w.receipt_key = key(100 + self.keys % 100)
        changes: dict[str, object] = {"node": b"\x01" * 32} if size % 3 == 0 else {}
        asked = on_platform(w, who, changes)
        listed, state = self.claim(), self.node
        before = w.chain.balance(who)
        self.done(asked.send(asked.attest_body(certify=size % 5 == 0), TON if size % 4 else TON // 20))
        self.from_others[who] += max(0, before - w.chain.balance(who)) if who != w.owner else 0
        if who != w.owner or changes:
            assert (self.claim(), self.node) == (listed, state), "only its owner attests a node, for itself"

    def claim(self) -> KeyClaim | None:
        """What the registry lists."""
        entry = self.world.registry_state().nodes.get(bytes(self.world.node.hash_part))
        return None if entry is None else entry.claim

    def owner_message(self, who: Address, size: int) -> None:
        if self.node is None:
            return
        body = (
            node_messages.unbond_body(),
            node_messages.withdraw_body(),
            node_messages.add_stake_body(size * TON),
            node_messages.update_terms_body(endpoint="x:1", models=[MODEL], prices=PRICES, simulated=True),
        )[size % 4]
        self.to_node(who, body, 5 * TON)

    def gift(self, who: Address, size: int) -> None:
        if self.node is not None:
            self.to_node(who, node_messages.top_up_body(), TON)

    def issue(self, who: Address, size: int) -> None:
        """The enclave answers somebody. A dishonest one keeps the receipt out, or logs something else."""
        state = self.node
        if state is None or state.key is None:
            return
        receipt = self.world.receipt(prompt_tokens=len(self.receipts), binding_hash=state.key.binding_hash)
        signer = self.world.receipt_key
        if self.world.binding_hash != state.key.binding_hash or not self.signs_with(signer, state):
            return
        self.receipts.append(Issued(receipt, signer))
        if self.honest or size % 3 == 0:
            self.append(receipt.hash)
        elif size % 3 == 1:
            self.append(bytes([7]) * 32)

    @staticmethod
    def signs_with(signer: Ed25519PrivateKey, state: NodeState) -> bool:
        assert state.key is not None
        return signer.public_key().public_bytes_raw() == state.key.receipt_key

    def anchor(self, who: Address, size: int) -> None:
        state = self.node
        if state is None or self.world.tree.size <= state.log.tree_size:
            return
        try:
            if size % 2:
                self.done(self.world.anchor())
            else:
                self.done(self.world.anchor_by_message())
                self.gifts += TON
        except MessageNotAcceptedError:
            return
        if self.world.node_state().log.tree_size > state.log.tree_size:
            self.anchors.append((self.world.chain.now, self.world.node_state().log.tree_size))

    def challenge(self, who: Address, size: int) -> None:
        if not self.receipts or self.node is None:
            return
        issued = self.receipts[size % len(self.receipts)]
        if size > 6:  # often enough at a time at which it counts
            self.world.chain.warp(max(0, issued.receipt.anchor_by + 1 - self.world.chain.now))
        body = node_messages.challenge_body(self.world.signed(issued.receipt, issued.signer))
        self.to_node(who, body, TON)
        self.host()

    def forge(self, who: Address, size: int) -> None:
        """A receipt that no enclave signed."""
        if self.receipts and self.node is not None:
            receipt = dataclasses.replace(self.receipts[-1].receipt, index=10**6)
            before = self.world.node_state()
            self.to_node(who, node_messages.challenge_body(self.world.signed(receipt, key(9))), TON)
            assert self.world.node_state() == before

    def respond(self, who: Address, size: int) -> None:
        state = self.node
        if state is None or not state.challenges:
            return
        asked = state.challenges[size % len(state.challenges)]
        proof = (bytes(32),) * (size % 4)
        if size % 2 and asked.tree_size > asked.index:
            proof = tuple(self.world.tree.inclusion_proof(asked.index, asked.tree_size))
        self.to_node(who, node_messages.respond_body(receipt_hash=asked.receipt_hash, proof=proof), TON)

    def slash(self, who: Address, size: int) -> None:
        state = self.node
        if state is None or not state.challenges:
            return
        asked = state.challenges[size % len(state.challenges)]
        if size > 6:
            self.world.chain.warp(max(0, asked.deadline + 1 - self.world.chain.now))
        if not asked.slashed and self.world.chain.now > asked.deadline:
            self.missed.add(asked.receipt_hash)
        self.to_node(who, node_messages.slash_body(asked.receipt_hash), TON)

    def conflict(self, who: Address, size: int) -> None:
        """Two checkpoints; an honest enclave only ever signs one root for a size."""
        state = self.node
        if state is None or state.key is None or not self.signs_with(self.world.receipt_key, state):
            return
        first = self.world.checkpoint(issued_at=size)
        second = self.world.checkpoint()
        if not self.honest and size % 2:
            second = self.world.checkpoint(root=bytes([size]) * 32)
            self.conflicting = True
        self.done(self.world.conflict(first, second))
        self.gifts += TON

    def open(self, who: Address, size: int) -> None:
        before = self.world.chain.balance(who)
        self.done(self.world.open_channel(size * TON + TON, sender=who))
        self.into_channel[who] += before - self.world.chain.balance(who)

    def channel_message(self, who: Address, size: int) -> None:
        if self.world.chain.account(self.world.channel).data is None:
            return
        body = (channel.top_up_body, channel.start_close_body, channel.finish_close_body)[size % 3]()
        before = self.world.chain.balance(who)
        self.done(self.world.to_channel(who, body))
        if who != self.world.client:
            self.into_channel[who] += before - self.world.chain.balance(who)

    def sign(self, who: Address, size: int) -> None:
        """The client authorizes, the enclave claims."""
        used, cap = self.rng.randrange(size * TON + 1), self.rng.randrange(size * TON + 1)
        claim = self.world.claim(used)
        authorization = self.world.authorization(cap, valid_until=self.world.chain.now + 50_000)
        self.vouchers.append((claim, authorization))
        # whoever holds claims and authorizations may combine them as he likes
        uses = [node_amount(c) for c, _ in self.vouchers]
        caps = [cap_amount(a) for _, a in self.vouchers]
        self.signed_for = min(max(uses), max(caps))

    def settle(self, who: Address, size: int) -> None:
        if self.node is None or not self.vouchers:
            return
        claim = self.rng.choice(self.vouchers)[0]
        authorization = self.rng.choice(self.vouchers)[1]
        body = node_messages.settle_body(claim=claim, authorization=authorization, final=size == 7)
        self.to_node(who, body, TON)

    def govern(self, who: Address, size: int) -> None:
        w, id = self.world, bytes(self.world.node.hash_part)
        change = registry_messages.set_parameters(CHANGES[(size // 8) % len(CHANGES)])
        body = (
            registry_messages.announce_body(change),
            registry_messages.execute_body(change.hash),
            registry_messages.cancel_body(change.hash),
            registry_messages.remove_body(Removal.NODE, id),
            registry_messages.announce_body(registry_messages.allow(Removal.NODE, id)),
            registry_messages.execute_body(registry_messages.allow(Removal.NODE, id).hash),
            registry_messages.top_up_body(),
            registry_messages.accept_governance_body(),
            registry_messages.remove_body(Removal.RULE, bytes(rule().cell.hash)),
            registry_messages.announce_body(registry_messages.set_rule(rule())),
            registry_messages.execute_body(registry_messages.set_rule(rule()).hash),
        )[size % 11]
        self.done(w.to_registry(w.governance if size > 12 else who, body))
        if size % 11 in (0, 4, 9):
            w.chain.warp(PARAMETERS.timelock)

    def nonsense(self, who: Address, size: int) -> None:
        """Messages between the contracts, from people."""
        w = self.world
        update = registry_messages._body(opcodes.REGISTRY_NODE_LEAVE, 0).store_ref(w.node_identity.cell)
        self.done(w.to_registry(who, update.end_cell()))
        if self.node is not None:
            acknowledge = registry_messages._body(opcodes.REGISTRY_ACKNOWLEDGE, 0)
            acknowledge.store_uint(size, 256).store_ref(PARAMETERS.cell)
            self.to_node(who, acknowledge.end_cell(), TON)
        if self.vouchers and w.chain.account(w.channel).data is not None:
            body = channel.settle_body(
                used=TON,
                final=size % 2 == 0,
                payout=who,
                authorization=channel.signed_authorization_cell(self.vouchers[0][1]),
            )
            self.done(w.to_channel(who, body))

    def wait(self, who: Address, size: int) -> None:
        self.world.chain.warp((1, 60, 601, 1801, 3700, 7300, 30_000, 90_000)[size % 8])
        self.host()

    # ---- an honest host

    def host(self) -> None:
        """Answers what can be answered, at once; anchors what must be anchored."""
        state = self.node
        if not self.honest or state is None:
            return
        for asked in state.challenges:
            if asked.awaits_answer(self.world.chain.now):
                proof = tuple(self.world.tree.inclusion_proof(asked.index, asked.tree_size))
                body = node_messages.respond_body(receipt_hash=asked.receipt_hash, proof=proof)
                assert self.to_node(self.world.owner, body, TON).success

    # ---- what must always hold

    def check(self) -> None:
        w, chain = self.world, self.world.chain
        assert chain.total_balance() + chain.collected_fees == chain.minted
        if chain.account(w.channel).data is not None:
            assert w.channel_state().paid <= self.signed_for, "nobody gets more than was signed for"
        state = self.node
        if state is None:
            return
        assert chain.balance(w.node) >= state.held, "stake and deposits are there"
        still = [c for c in state.challenges if not c.slashed]
        assert state.open_challenges == len(still)
        assert state.deposits == sum(c.deposit for c in still)
        assert state.bond is not BondState.JOINING, "every join is answered"
        assert state.stake == 0 or state.bond is not BondState.IDLE
        listed = bytes(w.node.hash_part) in w.registry_state().nodes
        assert not listed or state.bond is BondState.ACTIVE
        assert state.proposal is None, "every proposal is answered"
        claim = self.claim()
        assert claim is None or claim.record == state.key, "the listed key is the one that counts"
        if self.honest and not self.late():
            assert not self.slashed

    def late(self) -> bool:
        """A receipt of an honest enclave that its host did not anchor in time."""
        return any(
            self.world.chain.now > issued.receipt.anchor_by
            and not any(
                at <= issued.receipt.anchor_by and size > issued.receipt.index for at, size in self.anchors
            )
            for issued in self.receipts
        )

    # ---- the end

    def everybody_out(self) -> None:
        """With the rights that they have, owner and client take out all that is theirs."""
        w, chain = self.world, self.world.chain
        if chain.account(w.channel).data is not None:
            w.to_channel(w.client, channel.start_close_body())
            chain.warp(w.channel_identity.close_delay)
            if w.channel_state().close_at != CLOSED:
                assert w.to_channel(w.client, channel.finish_close_body()).success
            elif chain.balance(w.channel):
                w.to_channel(w.client, channel.finish_close_body())
            assert chain.balance(w.channel) == 0
        if self.node is None:
            return
        self.host()
        w.to_node(w.owner, node_messages.unbond_body())
        chain.warp(20 * 86_400)
        for asked in w.node_state().challenges:
            if not asked.slashed:
                self.missed.add(asked.receipt_hash)
                self.done(w.slash_hash(asked.receipt_hash))
        assert w.node_state().open_challenges == 0
        w.to_node(w.owner, node_messages.withdraw_body())
        w.to_node(w.owner, node_messages.withdraw_body())
        state = w.node_state()
        assert (state.bond, state.stake, state.deposits) == (BondState.IDLE, 0, 0)
        assert chain.balance(w.node) == 0, "nothing stays behind"


def node_amount(claim: payment_pb2.SignedClaim) -> int:
    return parse_claim(claim.claim).used


def cap_amount(authorization: payment_pb2.SignedAuthorization) -> int:
    return parse_authorization(authorization.authorization).cap


ACTIONS = (
    "join", "attest", "quote", "quote", "owner_message", "gift", "issue", "issue", "anchor", "challenge",
    "challenge", "forge", "respond", "slash", "conflict", "open", "channel_message", "sign", "settle", "govern",
    "nonsense", "wait", "wait",
)  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from([0, 0, 0, 1, 1, 2, 3]), st.integers(1, 24)),
    min_size=5,
    max_size=40,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a shorter example is not worth minutes
)
@given(steps=STEPS, honest=st.booleans(), prologue=st.booleans(), seed=st.integers(0, 2**32))
def test_any_sequence_of_messages(
    emulator: Emulator,
    world: World,
    steps: list[tuple[str, int, int]],
    honest: bool,
    prologue: bool,
    seed: int,
) -> None:
    play = Play(world=fresh(emulator, world), honest=honest, rng=random.Random(seed))
    start = [(name, 0, 13) for name in ("join", "quote", "gift", "open", "sign", "issue", "anchor")]
    before = {who: play.world.chain.balance(who) for who in play.people}
    for name, who, size in (*(start if prologue else ()), *steps):
        getattr(play, name)(play.people[who], size)
        play.check()
    play.everybody_out()
    play.check()
    chain, fees = play.world.chain, (play.messages + 10) * FEE
    gained = {who: chain.balance(who) - before[who] for who in play.people}
    paid = play.world.channel_state().paid if chain.account(play.world.channel).data else 0
    assert paid <= play.signed_for
    assert gained[play.world.owner] <= paid + play.gifts
    if not play.slashed:
        # apart from fees, gifts and the payments, everybody has what he had
        for who in (play.world.owner, play.world.stranger, play.world.governance):
            earned = paid if who == play.world.owner else 0
            assert gained[who] >= earned - fees - play.into_channel[who] - play.from_others[who]
        assert chain.balance(TREASURY) == 10**15


def on_platform(world: World, who: Address, changes: dict[str, object]) -> Quoted:
    """The platform's quotes for the world's node, in messages of `who`."""
    return Quoted(
        chain=world.chain,
        platform=platform(),
        owner=who,
        node=world.node,
        payload=finish(Builder().store_bytes(EVIDENCE)),
        world=world,
        changes=changes,
    )


@cache
def rule() -> AttestationRule:
    """What the registry asks of the platform's quotes."""
    return fixed_rule(platform())


@cache
def pck_data(emulator: Emulator) -> Cell:
    """The platform's Pck contract once it saw chain and certification."""
    made = PckWorld.create(TestChain(emulator=emulator), platform())
    assert made.verify().success
    data = made.chain.account(made.address).data
    assert data is not None
    return data


def fresh(emulator: Emulator, template: World) -> World:
    """A chain of its own with a registry."""
    chain = TestChain(emulator=emulator)
    for name in ("treasury", "governance"):
        chain.treasury(name, 10**15)
    world = World(
        chain=chain,
        genesis=dataclasses.replace(
            template.genesis, releases=(RELEASE, platform().release()), rules=(rule(),)
        ),
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
    assert world.genesis.global_id == GLOBAL_ID
    assert world.deploy_registry().success
    pck = on_platform(world, world.owner, {}).address
    chain.add_account(pck, TON, code=pck_code().cell, data=pck_data(emulator))
    return world
