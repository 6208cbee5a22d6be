"""One registry, one node and one channel on an emulated chain, with the keys that sign for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Address, Builder, Cell, InternalMsgInfo

from cocoon.v1 import payment_pb2, record_pb2
from cocoon_attestation.anchor import Anchor
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.checkpoint import Checkpoint, sign_checkpoint
from cocoon_attestation.errors import UnsupportedError
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.payment import (
    Authorization,
    Claim,
    PriceList,
    sign_authorization,
    sign_claim,
)
from cocoon_attestation.receipt import Receipt, sign_receipt
from cocoon_attestation.reference import Release, TeeKind
from cocoon_ton import channel, node_messages, registry_messages
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import finish, read_dict, write_dict
from cocoon_ton.channel import ChannelIdentity, ChannelState, parse_channel
from cocoon_ton.code import channel_code, contract_address, node_code, pck_code, registry_code, state_init
from cocoon_ton.emulator import (
    EmulatedTransaction,
    Emulator,
    SendResult,
    TestChain,
    find_sandbox,
    load_sandbox,
)
from cocoon_ton.node import NodeIdentity, NodeState, RegistryParameters, parse_node
from cocoon_ton.registry import RegistryPolicy, RegistryState, parse_registry
from cocoon_ton.registry_messages import RegistryGenesis

TON = 10**9
GLOBAL_ID = -3
MODEL = bytes.fromhex("aa" * 32)
RELEASE = Release(
    name="test-1",
    mrtd=b"\x01" * 48,
    rtmr0=b"\x02" * 48,
    rtmr1=b"\x03" * 48,
    rtmr2=b"\x04" * 48,
    td_attributes=b"\x00" * 8,
    xfam=b"\x00" * 8,
)
TREASURY = contract_address(
    Builder().end_cell(), finish(Builder().store_bytes(hashlib.sha256(b"treasury").digest()))
)
"""Address of `TestChain.treasury("treasury")`."""
PARAMETERS = RegistryParameters(
    min_stake=10 * TON,
    anchor_within=3600,
    challenge_window=7200,
    response_window=1800,
    close_delay=600,
    price_delay=300,
    max_nodes=3,
    timelock=120,
    penalty=2 * TON,
    bounty_permille=500,
    treasury=TREASURY,
    pck_code=pck_code().code_hash,
    pck_code_depth=pck_code().depth,
)
POLICY = RegistryPolicy(
    tee_kinds=frozenset({TeeKind.TDX}), min_tcb_evaluation=17, recorded={TeeKind.TDX: 10 * TON}
)
"""Nodes may join on a recorded digest, so that most tests need no quote; `test_attest.py` is about quotes."""
PRICES = PriceList(prompt=100, cached=10, completion=400)
RULE = AttestationRule(
    anchor=b"\x0b" * 32,
    qe_mrsigner=b"\x0c" * 32,
    min_qe_svn=6,
    fmspc=b"\x0d" * 6,
    min_components=b"\x01" * 16,
    min_pce_svn=13,
    min_tee_tcb_svn=b"\x02" * 16,
    evaluation=19,
    valid_until=1_800_000_000,
)


def key(number: int) -> Ed25519PrivateKey:
    """A fixed key."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(private: Ed25519PrivateKey) -> bytes:
    """Its public half."""
    return private.public_key().public_bytes_raw()


def is_bounce(transaction: EmulatedTransaction) -> bool:
    """True if the message that caused the transaction had bounced."""
    message = transaction.parsed.in_msg
    assert message is not None
    assert isinstance(message.info, InternalMsgInfo)
    return bool(message.info.bounced)


def network_config(global_id: int) -> Cell:
    """The sandbox's mainnet configuration with another network id (parameter 19)."""
    root = Cell.one_from_boc(load_sandbox().config("slim"))
    parameters = read_dict(root, 32, lambda reader: reader.ref())
    parameters[19] = finish(Builder().store_int(global_id, 32))
    config = write_dict(parameters, 32, lambda cell: finish(Builder().store_ref(cell)))
    assert config is not None
    return config


@dataclass
class World:
    """A chain with the three contracts; every method sends one message or reads one account."""

    chain: TestChain
    genesis: RegistryGenesis
    owner: Address
    client: Address
    stranger: Address
    receipt_key: Ed25519PrivateKey = field(default_factory=lambda: key(1))
    client_key: Ed25519PrivateKey = field(default_factory=lambda: key(2))
    tree: MerkleTree = field(default_factory=MerkleTree)

    @property
    def registry(self) -> Address:
        return self.genesis.address

    @property
    def governance(self) -> Address:
        return self.genesis.governance

    @property
    def node_identity(self) -> NodeIdentity:
        return NodeIdentity(
            global_id=self.genesis.global_id, registry=self.registry, owner=self.owner, salt=7
        )

    @property
    def node(self) -> Address:
        return self.node_identity.address

    @property
    def channel_identity(self) -> ChannelIdentity:
        return ChannelIdentity(
            global_id=self.genesis.global_id,
            client=self.client,
            client_key=public(self.client_key),
            node=self.node,
            salt=11,
            close_delay=600,
        )

    @property
    def channel(self) -> Address:
        return self.channel_identity.address

    # ---- state

    def data(self, address: Address) -> Cell:
        data = self.chain.account(address).data
        assert data is not None
        return data

    def registry_state(self) -> RegistryState:
        return parse_registry(self.data(self.registry))

    def node_state(self) -> NodeState:
        return parse_node(self.data(self.node))

    def channel_state(self) -> ChannelState:
        return parse_channel(self.data(self.channel))

    # ---- registry

    def deploy_registry(self, value: int = TON) -> SendResult:
        init = state_init(registry_code().cell, self.genesis.initial_data)
        return self.chain.send_from(
            self.governance, self.registry, value, registry_messages.top_up_body(), init=init
        )

    def to_registry(self, sender: Address, body: Cell, value: int = TON) -> SendResult:
        return self.chain.send_from(sender, self.registry, value, body)

    def change(self, change: Cell) -> SendResult:
        """Announce, wait and execute."""
        announced = self.to_registry(self.governance, registry_messages.announce_body(change))
        assert announced.success
        self.chain.warp(self.genesis.parameters.timelock)
        return self.to_registry(self.stranger, registry_messages.execute_body(change.hash))

    # ---- node

    def to_node(self, sender: Address, body: Cell, value: int = TON) -> SendResult:
        return self.chain.send_from(sender, self.node, value, body)

    def join(
        self, *, stake: int = 10 * TON, value: int | None = None, endpoint: str = "host:1"
    ) -> SendResult:
        body = node_messages.join_body(
            stake=stake, endpoint=endpoint, models=[MODEL], prices=PRICES, simulated=True, query_id=5
        )
        init = state_init(node_code().cell, self.node_identity.initial_data)
        return self.chain.send_from(
            self.owner, self.node, stake + TON if value is None else value, body, init=init
        )

    def binding(self, **changes: object) -> KeyBinding:
        values: dict[str, object] = {
            "node": bytes(self.node.hash_part),
            "seal_key_hash": b"\x05" * 32,
            "receipt_key": public(self.receipt_key),
            "tls_spki_hash": b"\x06" * 32,
            "config_hash": b"\x07" * 32,
            "release_id": RELEASE.release_id,
            "not_before": self.chain.now,
            "not_after": self.chain.now + 86_400,
            "global_id": self.genesis.global_id,
        }
        return KeyBinding(**(values | changes))  # type: ignore[arg-type]

    def attest(
        self, binding: KeyBinding | None = None, *, until: int | None = None, sender: Address | None = None
    ) -> SendResult:
        body = node_messages.attest_body(
            key_binding=(binding or self.binding()).to_boc(),
            evidence_digest=b"\x08" * 32,
            attested_until=self.chain.now + 3600 if until is None else until,
        )
        return self.to_node(sender or self.owner, body)

    def checkpoint(self, **changes: object) -> Checkpoint:
        values: dict[str, object] = {
            "global_id": self.genesis.global_id,
            "node": bytes(self.node.hash_part),
            "tree_size": self.tree.size,
            "root": bytes(self.tree.root()),
            "issued_at": self.chain.now,
        }
        return Checkpoint(**(values | changes))  # type: ignore[arg-type]

    def grow(self, leaves: int) -> None:
        for _ in range(leaves):
            self.tree.append(self.tree.size.to_bytes(32))

    def anchor_order(self, checkpoint: Checkpoint | None = None) -> Anchor:
        log = self.node_state().log
        point = checkpoint or self.checkpoint()
        proof = self.tree.consistency_proof(log.tree_size, min(point.tree_size, self.tree.size))
        return Anchor(first_size=log.tree_size, first_root=log.root, checkpoint=point, proof=proof)

    def anchor(self, order: Anchor | None = None, *, signer: Ed25519PrivateKey | None = None) -> SendResult:
        order = order or self.anchor_order()
        body = node_messages.anchor_external_body(
            anchor=order.cell.to_boc(), signature=order.sign(signer or self.receipt_key)
        )
        return self.chain.send_external(self.node, body)

    def anchor_by_message(
        self,
        checkpoint: Checkpoint | None = None,
        *,
        proof: tuple[bytes, ...] | None = None,
        value: int = TON,
        signed: record_pb2.SignedCheckpoint | None = None,
    ) -> SendResult:
        order = self.anchor_order(checkpoint)
        body = node_messages.anchor_body(
            checkpoint=signed or sign_checkpoint(order.checkpoint, self.receipt_key),
            proof=order.proof if proof is None else proof,
        )
        return self.to_node(self.stranger, body, value)

    # ---- disputes

    def receipt(self, **changes: object) -> Receipt:
        """A receipt at the end of the log, due in an hour."""
        values: dict[str, object] = {
            "node": bytes(self.node.hash_part),
            "binding_hash": changes.get("binding_hash") or self.binding_hash,
            "request_commitment": b"\x21" * 32,
            "response_commitment": b"\x22" * 32,
            "model": MODEL,
            "prompt_tokens": 10,
            "cached_tokens": 0,
            "completion_tokens": 5,
            "status": 200,
            "channel": bytes(self.channel.hash_part),
            "amount": 3000,
            "cumulative": 3000,
            "index": self.tree.size,
            "issued_at": self.chain.now,
            "anchor_by": self.chain.now + PARAMETERS.anchor_within,
        }
        return Receipt(**(values | changes))  # type: ignore[arg-type]

    @property
    def binding_hash(self) -> bytes:
        """Of the binding that the contract has as the current one."""
        record = self.node_state().key
        assert record is not None
        return record.binding_hash

    def issue(self, **changes: object) -> Receipt:
        """A receipt that the enclave puts into its log."""
        receipt = self.receipt(**changes)
        self.tree.append(receipt.hash)
        return receipt

    def signed(self, receipt: Receipt, signer: Ed25519PrivateKey | None = None) -> record_pb2.SignedReceipt:
        return sign_receipt(receipt, signer or self.receipt_key)

    def challenge(
        self,
        receipt: Receipt,
        *,
        signer: Ed25519PrivateKey | None = None,
        sender: Address | None = None,
        value: int = TON,
    ) -> SendResult:
        body = node_messages.challenge_body(self.signed(receipt, signer), query_id=12)
        return self.to_node(sender or self.client, body, value)

    def proof(self, receipt: Receipt) -> tuple[bytes, ...]:
        """The answer to an open challenge."""
        for challenge in self.node_state().challenges:
            if challenge.receipt_hash == receipt.hash:
                return tuple(self.tree.inclusion_proof(challenge.index, challenge.tree_size))
        raise AssertionError("no such challenge")

    def respond(
        self,
        receipt: Receipt,
        proof: tuple[bytes, ...] | None = None,
        *,
        sender: Address | None = None,
        value: int = TON,
    ) -> SendResult:
        body = node_messages.respond_body(
            receipt_hash=receipt.hash, proof=self.proof(receipt) if proof is None else proof, query_id=13
        )
        return self.to_node(sender or self.owner, body, value)

    def slash(self, receipt: Receipt, *, sender: Address | None = None, value: int = TON) -> SendResult:
        return self.slash_hash(receipt.hash, sender=sender, value=value)

    def slash_hash(
        self, receipt_hash: bytes, *, sender: Address | None = None, value: int = TON
    ) -> SendResult:
        body = node_messages.slash_body(receipt_hash, query_id=14)
        return self.to_node(sender or self.stranger, body, value)

    def conflict(
        self,
        first: Checkpoint,
        second: Checkpoint,
        *,
        signers: tuple[Ed25519PrivateKey, Ed25519PrivateKey] | None = None,
        bindings: tuple[bytes, bytes] | None = None,
        value: int = TON,
    ) -> SendResult:
        keys = signers or (self.receipt_key, self.receipt_key)
        hashes = bindings or (self.binding_hash, self.binding_hash)
        body = node_messages.conflict_body(
            first=sign_checkpoint(first, keys[0]),
            first_binding=hashes[0],
            second=sign_checkpoint(second, keys[1]),
            second_binding=hashes[1],
            query_id=15,
        )
        return self.to_node(self.stranger, body, value)

    # ---- channel

    def open_channel(self, value: int = 5 * TON, sender: Address | None = None) -> SendResult:
        init = state_init(channel_code().cell, self.channel_identity.initial_data)
        return self.chain.send_from(
            sender or self.client, self.channel, value, channel.top_up_body(), init=init
        )

    def to_channel(self, sender: Address, body: Cell, value: int = TON) -> SendResult:
        return self.chain.send_from(sender, self.channel, value, body)

    def authorization(self, cap: int, **changes: object) -> payment_pb2.SignedAuthorization:
        values: dict[str, object] = {
            "global_id": self.genesis.global_id,
            "channel": bytes(self.channel.hash_part),
            "cap": cap,
            "valid_until": self.chain.now + 3600,
        }
        record = Authorization(**(values | changes))  # type: ignore[arg-type]
        return sign_authorization(record, self.client_key)

    def claim(
        self, used: int, signer: Ed25519PrivateKey | None = None, **changes: object
    ) -> payment_pb2.SignedClaim:
        values: dict[str, object] = {
            "global_id": self.genesis.global_id,
            "channel": bytes(self.channel.hash_part),
            "used": used,
            "index": 0,
        }
        return sign_claim(Claim(**(values | changes)), signer or self.receipt_key)  # type: ignore[arg-type]

    def settle(
        self,
        used: int,
        cap: int | None = None,
        *,
        final: bool = False,
        claim: payment_pb2.SignedClaim | None = None,
        authorization: payment_pb2.SignedAuthorization | None = None,
        sender: Address | None = None,
        value: int = TON,
    ) -> SendResult:
        body = node_messages.settle_body(
            claim=claim or self.claim(used),
            authorization=authorization or self.authorization(used if cap is None else cap),
            final=final,
            query_id=9,
        )
        return self.to_node(sender or self.owner, body, value)

    def settle_direct(
        self,
        used: int,
        cap: int | None = None,
        *,
        final: bool = False,
        authorization: payment_pb2.SignedAuthorization | None = None,
        sender: Address | None = None,
        value: int = TON // 10,
    ) -> SendResult:
        """What the node contract sends, without the node contract."""
        signed = authorization or self.authorization(used if cap is None else cap)
        body = channel.settle_body(
            used=used,
            final=final,
            payout=self.owner,
            authorization=channel.signed_authorization_cell(signed),
        )
        return self.chain.send_internal(self.channel, value, body, sender=sender or self.node)


def clone(world: World) -> World:
    """The same registry and node, before its first anchor, on a chain of their own."""
    chain = TestChain(emulator=world.chain.emulator, now=world.chain.now)
    chain.treasury("treasury")
    for address in (world.registry, world.node):
        account = world.chain.account(address)
        chain.add_account(address, account.balance, code=account.code, data=account.data)
    return World(
        chain=chain,
        genesis=world.genesis,
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
        receipt_key=world.receipt_key,
    )


def deep_log(world: World, receipt: Receipt, levels: int) -> tuple[bytes, ...]:
    """Anchor a full tree of 2^levels leaves in which only the receipt is known; returns its inclusion proof."""
    proof = tuple(hashlib.sha256(b"sibling %d" % level).digest() for level in range(levels))
    node = hashlib.sha256(b"\x00" + receipt.hash).digest()
    for level, sibling in enumerate(proof):
        left, right = (sibling, node) if receipt.index >> level & 1 else (node, sibling)
        node = hashlib.sha256(b"\x01" + left + right).digest()
    order = Anchor(
        first_size=0,
        first_root=bytes(32),
        checkpoint=world.checkpoint(tree_size=1 << levels, root=node),
        proof=(),
    )
    assert world.anchor(order).success
    return proof


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    """An emulator of the test network; skipped where the npm packages are not installed."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    return Emulator(network_config(GLOBAL_ID))


@pytest.fixture
def world(emulator: Emulator) -> Iterator[World]:
    """A chain with funded people and nothing deployed.

    After every test, balances and collected fees together must be what was put in.
    """
    chain = TestChain(emulator=emulator)
    assert chain.treasury("treasury") == TREASURY
    genesis = RegistryGenesis(
        global_id=GLOBAL_ID,
        governance=chain.treasury("governance"),
        parameters=PARAMETERS,
        policy=POLICY,
        releases=(RELEASE,),
        models={MODEL: "tiny@test"},
        since=chain.now,
    )
    yield World(
        chain=chain,
        genesis=genesis,
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
    assert chain.total_balance() + chain.collected_fees == chain.minted


@pytest.fixture
def active(world: World) -> World:
    """A registry, and a node that joined and attested."""
    assert world.deploy_registry().success
    assert world.join().success
    assert world.attest().success
    return world


@pytest.fixture
def paying(active: World) -> World:
    """The same with an open channel."""
    assert active.open_channel().success
    return active
