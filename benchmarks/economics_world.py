"""A network of contracts on an emulated chain in which people play honestly or not, for `economics.py`.

All money moves by real transactions of the real contracts in TON's TVM, in virtual time. What happens off the chain
(answers, receipts, who checks them) follows `Assumptions`. A wallet's own fees are not in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Address, Cell

from cocoon_attestation.anchor import Anchor
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.payment import Authorization, Claim, PriceList, sign_authorization, sign_claim
from cocoon_attestation.receipt import Receipt, sign_receipt
from cocoon_attestation.reference import Release, TeeKind
from cocoon_ton import channel, node_messages, registry_messages
from cocoon_ton.cells import Reader, read_dict
from cocoon_ton.channel import ChannelIdentity
from cocoon_ton.code import channel_code, node_code, registry_code, state_init
from cocoon_ton.emulator import Emulator, SendResult, TestChain
from cocoon_ton.node import NodeIdentity, NodeState, RegistryParameters, parse_node
from cocoon_ton.registry import RegistryPolicy
from cocoon_ton.registry_messages import RegistryGenesis

TON: Final = 10**9
DAY: Final = 86_400
MODEL: Final = b"\xaa" * 32
PRICES: Final = PriceList(prompt=1_000_000_000, cached=500_000_000, completion=4_000_000_000)
_RELEASE: Final = Release(
    name="economics",
    mrtd=b"\x01" * 48,
    rtmr0=b"\x02" * 48,
    rtmr1=b"\x03" * 48,
    rtmr2=b"\x04" * 48,
    td_attributes=b"\x00" * 8,
    xfam=b"\x00" * 8,
)
_VALUE: Final = TON // 2
"""More than any message needs; the rest comes back."""
_WORKING: Final = 10 * TON
"""What the owner leaves on the node for anchors; the rest comes back at the end."""

NOBODY: Final = Address((0, bytes(32)))
DEVELOPMENT: Final = RegistryParameters(
    min_stake=10 * TON,
    anchor_within=3600,
    challenge_window=DAY,
    response_window=3600,
    close_delay=60,
    price_delay=60,
    max_nodes=100,
    timelock=5,
    penalty=2 * TON,
    bounty_permille=500,
    treasury=NOBODY,
)
"""What `cocoon dev up` puts into its registry."""
RECOMMENDED: Final = RegistryParameters(
    min_stake=200 * TON,
    anchor_within=3600,
    challenge_window=7 * DAY,
    response_window=DAY,
    close_delay=DAY,
    price_delay=DAY,
    max_nodes=1000,
    timelock=7 * DAY,
    penalty=20 * TON,
    bounty_permille=500,
    treasury=NOBODY,
)
"""For a public network; `docs/economics.md` gives the reasons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What happens off the chain."""

    answers_per_day: int = 1000
    answer_price: int = 1_700_000
    """Nanoton: 500 tokens in, 300 out at `PRICES`."""
    clients: int = 10
    unused_cap: int = 10_000_000
    """Nanoton that the last authorization of each client leaves beyond what was used: the worst case of an answer
    (2 500 tokens) that was shorter."""
    audit_rate: float = 0.01
    """Part of the receipts whose holder looks for them in the anchored log, and challenges if they are not there."""
    anchor_every: int = 3000
    """Seconds; must be less than the registry's `anchor_within`."""
    days: int = 10
    turn: int = 5
    """Day after which a cheat stops being honest."""

    @property
    def rounds(self) -> int:
        """Anchors in the whole time."""
        return self.days * DAY // self.anchor_every

    @property
    def turn_round(self) -> int:
        """Anchors before the cheat turns."""
        return self.turn * DAY // self.anchor_every

    @property
    def answers_per_round(self) -> int:
        """Answers between two anchors."""
        return self.answers_per_day * self.anchor_every // DAY

    @property
    def daily_income(self) -> int:
        """Nanoton."""
        return self.answers_per_day * self.answer_price


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"economics {name}".encode()).digest())


class PlayError(RuntimeError):
    """A message that the play needs was refused: the result would mean nothing."""


@dataclass(slots=True)
class EconomyWorld:
    """One node, its clients and everybody else. `play` functions are in `economics_play.py`."""

    emulator: Emulator
    parameters: RegistryParameters
    assumptions: Assumptions
    chain: TestChain = field(init=False)
    genesis: RegistryGenesis = field(init=False)
    people: dict[str, Address] = field(init=False, default_factory=dict)
    start: dict[str, int] = field(init=False, default_factory=dict)
    identity: NodeIdentity = field(init=False)
    receipt_key: Ed25519PrivateKey = field(init=False)
    tree: MerkleTree = field(init=False, default_factory=MerkleTree)
    used: list[int] = field(init=False)
    bound_until: int = field(init=False, default=0)
    binding_hash: bytes = field(init=False, default=bytes(32))

    def __post_init__(self) -> None:
        """Deploy the registry and open the clients' channels."""
        self.chain = TestChain(emulator=self.emulator)
        names = ["owner", "attacker", "governance", "treasury", "auditor"]
        names += [f"client {number}" for number in range(self.assumptions.clients)]
        self.people = {name: self.chain.treasury(name) for name in names}
        self.start = {name: self.chain.balance(address) for name, address in self.people.items()}
        self.parameters = dataclasses.replace(self.parameters, treasury=self.people["treasury"])
        parameters = read_dict(self.emulator.config, 32, lambda reader: reader.ref())
        self.genesis = RegistryGenesis(
            global_id=Reader(parameters[19]).sint(32),
            governance=self.people["governance"],
            parameters=self.parameters,
            policy=RegistryPolicy(
                tee_kinds=frozenset({TeeKind.TDX}),
                min_tcb_evaluation=17,
                recorded={TeeKind.TDX: self.parameters.min_stake},  # the contracts of money need no quotes
            ),
            releases=(_RELEASE,),
            models={MODEL: "tiny@economics"},
            since=self.chain.now,
        )
        self.identity = NodeIdentity(
            global_id=self.genesis.global_id,
            registry=self.genesis.address,
            owner=self.people["owner"],
            salt=1,
        )
        self.receipt_key = _key("receipts")
        self.used = [0] * self.assumptions.clients
        init = state_init(registry_code().cell, self.genesis.initial_data)
        self.send("governance", self.genesis.address, registry_messages.top_up_body(), 2 * TON, init=init)
        for number in range(self.assumptions.clients):
            identity = self.channel(number)
            init = state_init(channel_code().cell, identity.initial_data)
            self.send(f"client {number}", identity.address, channel.top_up_body(), self.deposit, init=init)

    # ---- reading

    @property
    def node(self) -> Address:
        """Address of the node contract."""
        return self.identity.address

    @property
    def state(self) -> NodeState:
        """The node contract's data."""
        data = self.chain.account(self.node).data
        if data is None:
            raise PlayError("the node is not there")
        return parse_node(data)

    @property
    def deposit(self) -> int:
        """What each client puts into a channel: enough for the whole time."""
        a = self.assumptions
        return a.daily_income * (a.days + 2) // a.clients + TON

    def gain(self, name: str) -> int:
        """What a person has more than at the start, nanoton."""
        return self.chain.balance(self.people[name]) - self.start[name]

    def gains(self) -> dict[str, int]:
        """Gain of everybody, the clients together."""
        found = {name: self.gain(name) for name in self.people if not name.startswith("client")}
        return found | {"clients": sum(self.gain(n) for n in self.people if n.startswith("client"))}

    def conserved(self) -> bool:
        """Whether no nanoton appeared or disappeared."""
        return self.chain.total_balance() + self.chain.collected_fees == self.chain.minted

    # ---- messages

    def try_send(
        self, who: str, to: Address, body: Cell, value: int = _VALUE, *, init: Cell | None = None
    ) -> SendResult:
        """A message that may be refused."""
        return self.chain.send_from(self.people[who], to, value, body, init=init)

    def send(
        self, who: str, to: Address, body: Cell, value: int = _VALUE, *, init: Cell | None = None
    ) -> SendResult:
        """A message that must succeed. Raises `PlayError`."""
        result = self.try_send(who, to, body, value, init=init)
        if not result.success:
            raise PlayError(f"{who}: refused with {result.exit_codes}")
        return result

    def channel(self, number: int) -> ChannelIdentity:
        """Channel of a client."""
        return ChannelIdentity(
            global_id=self.genesis.global_id,
            client=self.people[f"client {number}"],
            client_key=_key(f"client {number}").public_key().public_bytes_raw(),
            node=self.node,
            salt=number,
            close_delay=self.parameters.close_delay,
        )

    # ---- what a host does

    def join(self) -> None:
        """Put up the stake and what anchors cost."""
        body = node_messages.join_body(
            stake=self.parameters.min_stake,
            endpoint="host.example.org:8443",
            models=[MODEL],
            prices=PRICES,
            simulated=True,
        )
        init = state_init(node_code().cell, self.identity.initial_data)
        self.send("owner", self.node, body, self.parameters.min_stake + TON, init=init)
        self.send("owner", self.node, node_messages.top_up_body(), _WORKING)
        self.attest()

    def attest(self) -> None:
        """Record a binding of the present receipt key for a day."""
        binding = KeyBinding(
            node=bytes(self.node.hash_part),
            seal_key_hash=b"\x05" * 32,
            receipt_key=self.receipt_key.public_key().public_bytes_raw(),
            tls_spki_hash=b"\x06" * 32,
            config_hash=b"\x07" * 32,
            release_id=_RELEASE.release_id,
            not_before=self.chain.now,
            not_after=self.chain.now + DAY,
            global_id=self.genesis.global_id,
        )
        body = node_messages.attest_body(
            key_binding=binding.to_boc(), evidence_digest=b"\x08" * 32, attested_until=binding.not_after
        )
        self.send("owner", self.node, body)
        self.bound_until, self.binding_hash = binding.not_after, binding.hash

    def answer(self, count: int) -> None:
        """`count` answers: their receipts enter the log, and clients owe for them."""
        a = self.assumptions
        for _ in range(count):
            self.tree.append(hashlib.sha256(b"receipt %d" % self.tree.size).digest())
            self.used[self.tree.size % a.clients] += a.answer_price

    def receipt(self) -> Receipt:
        """One answer whose receipt somebody will hold against the node."""
        a, number = self.assumptions, self.tree.size % self.assumptions.clients
        receipt = Receipt(
            node=bytes(self.node.hash_part),
            binding_hash=self.binding_hash,
            request_commitment=hashlib.sha256(b"request %d" % self.tree.size).digest(),
            response_commitment=b"\x22" * 32,
            model=MODEL,
            prompt_tokens=500,
            cached_tokens=0,
            completion_tokens=300,
            status=200,
            channel=bytes(self.channel(number).address.hash_part),
            amount=a.answer_price,
            cumulative=self.used[number] + a.answer_price,
            index=self.tree.size,
            issued_at=self.chain.now,
            anchor_by=self.chain.now + self.parameters.anchor_within,
        )
        self.tree.append(receipt.hash)
        self.used[number] += a.answer_price
        return receipt

    def anchor(self) -> None:
        """Anchor the log at the node's expense."""
        log = self.state.log
        order = Anchor(
            first_size=log.tree_size,
            first_root=log.root,
            checkpoint=Checkpoint(
                global_id=self.genesis.global_id,
                node=bytes(self.node.hash_part),
                tree_size=self.tree.size,
                root=bytes(self.tree.root()),
                issued_at=self.chain.now,
            ),
            proof=self.tree.consistency_proof(log.tree_size, self.tree.size),
        )
        body = node_messages.anchor_external_body(
            anchor=order.cell.to_boc(), signature=order.sign(self.receipt_key)
        )
        if not self.chain.send_external(self.node, body).success:
            raise PlayError("the anchor was refused")

    def work(self, rounds: int) -> None:
        """Be an honest host: renew the binding, answer, anchor; settle once a day."""
        a = self.assumptions
        for _ in range(rounds):
            if self.chain.now + a.anchor_every >= self.bound_until:
                self.attest()
                self.settle()
            self.chain.warp(a.anchor_every // 2)
            self.answer(a.answers_per_round)
            self.chain.warp(a.anchor_every - a.anchor_every // 2)
            self.anchor()

    def settle(self, *, final: bool = False, extra: int = 0) -> None:
        """Collect from all clients what they owe, and `extra` nanoton more from each as far as they signed for it."""
        for number, used in enumerate(self.used):
            if not used and not final:
                continue
            identity = self.channel(number)
            account = bytes(identity.address.hash_part)
            claim = Claim(global_id=self.genesis.global_id, channel=account, used=used + extra, index=0)
            authorization = Authorization(
                global_id=self.genesis.global_id,
                channel=account,
                cap=used + self.assumptions.unused_cap,
                valid_until=self.chain.now + DAY,
            )
            body = node_messages.settle_body(
                claim=sign_claim(claim, self.receipt_key),
                authorization=sign_authorization(authorization, _key(f"client {number}")),
                final=final,
            )
            self.send("owner", self.node, body)

    def unbond(self) -> None:
        """Leave the registry."""
        self.send("owner", self.node, node_messages.unbond_body())

    def withdraw(self) -> None:
        """Wait as long as the contract demands, and take everything out."""
        self.chain.warp(max(0, self.state.unlock_at - self.chain.now))
        self.send("owner", self.node, node_messages.withdraw_body())
        self.send("owner", self.node, node_messages.withdraw_body())

    # ---- what others do

    def close_channels(self) -> None:
        """Clients take back what is left; needs no host."""
        for number in range(self.assumptions.clients):
            self.send(f"client {number}", self.channel(number).address, channel.start_close_body())
        self.chain.warp(self.parameters.close_delay + 1)
        for number in range(self.assumptions.clients):
            self.send(f"client {number}", self.channel(number).address, channel.finish_close_body())

    def challenge(self, who: str, receipt: Receipt) -> SendResult:
        """Demand that the node shows a receipt."""
        body = node_messages.challenge_body(sign_receipt(receipt, self.receipt_key))
        value = node_messages.challenge_value(self.state.open_challenges)
        return self.try_send(who, self.node, body, value)

    def respond(self) -> int:
        """The host answers all challenges that it can; how many."""
        done = 0
        for asked in self.state.challenges:
            if asked.awaits_answer(self.chain.now):
                proof = self.tree.inclusion_proof(asked.index, asked.tree_size)
                body = node_messages.respond_body(receipt_hash=asked.receipt_hash, proof=proof)
                self.send("owner", self.node, body)
                done += 1
        return done

    def slash(self, who: str) -> int:
        """Somebody carries out all penalties that are due; how many."""
        done = 0
        for asked in self.state.challenges:
            if not asked.slashed and self.chain.now > asked.deadline:
                self.send(who, self.node, node_messages.slash_body(asked.receipt_hash))
                done += 1
        return done
