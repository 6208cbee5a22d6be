"""One registry, node, channel and platform on an emulated chain, for `ledger.py`.

Every operation is a real transaction on the real contracts; the keys and the platform are made up.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.anchor import Anchor
from cocoon_attestation.binding import KeyBinding, beacon_challenge, report_data
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.payment import Authorization, Claim, PriceList, sign_authorization, sign_claim
from cocoon_attestation.receipt import Receipt, sign_receipt
from cocoon_attestation.reference import TeeKind
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton import channel, node_messages, pck, registry_messages
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import finish, record_to_ton
from cocoon_ton.channel import ChannelIdentity
from cocoon_ton.code import channel_code, node_code, pck_code, registry_code, state_init
from cocoon_ton.emulator import Emulator, SendResult, TestChain
from cocoon_ton.node import NodeIdentity, RegistryParameters, parse_node
from cocoon_ton.pck import AttestationStatement, PckIdentity
from cocoon_ton.quote_hints import QuoteProof, anchor_of, prove_quote
from cocoon_ton.registry import RegistryPolicy
from cocoon_ton.registry_messages import RegistryGenesis

TON: Final = 10**9
GLOBAL_ID: Final = -3
"""Of the emulated network."""
MODEL: Final = b"\xaa" * 32
PRICES: Final = PriceList(prompt=100, cached=10, completion=400)
PARAMETERS: Final = RegistryParameters(
    min_stake=10 * TON,
    anchor_within=3600,
    challenge_window=7200,
    response_window=1800,
    close_delay=600,
    price_delay=300,
    max_nodes=100,
    timelock=120,
    penalty=2 * TON,
    bounty_permille=500,
    treasury=Address((0, bytes(32))),
    pck_code=pck_code().code_hash,
    pck_code_depth=pck_code().depth,
)


def _random() -> Callable[[int], bytes]:
    """Random-looking bytes, the same in every run."""
    numbers = itertools.count()
    return lambda length: hashlib.shake_256(b"ledger %d" % next(numbers)).digest(length)


def _key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message and what it caused."""

    body: Cell
    result: SendResult
    gas: Mapping[str, int]
    """By contract, in the order in which the message reached them."""
    external: bool = False
    proof_hashes: int | None = None
    """Length of the Merkle proof in the message, if it has one."""


class LedgerWorld:
    """A node that joined and attested, on a fresh chain."""

    def __init__(self, emulator: Emulator) -> None:
        """Deploy the registry and the node.

        Raises:
            RuntimeError: one of the messages failed, so nothing here can be measured.
        """
        self.chain = TestChain(emulator=emulator)
        self.owner, self.client = self.chain.treasury("owner"), self.chain.treasury("client")
        self.receipt_key, self.client_key = _key(1), _key(2)
        self.platform = DevPlatform.create(self.chain.now, _random())
        self.rule = self._rule()
        self.tree = MerkleTree()
        genesis = RegistryGenesis(
            global_id=GLOBAL_ID,
            governance=self.owner,
            parameters=replace(PARAMETERS, treasury=self.chain.treasury("treasury")),
            policy=RegistryPolicy(tee_kinds=frozenset({TeeKind.TDX}), min_tcb_evaluation=17),
            releases=(self.platform.release(),),
            models={MODEL: "tiny@benchmark"},
            rules=(self.rule,),
            since=self.chain.now,
        )
        self.node_identity = NodeIdentity(
            global_id=GLOBAL_ID, registry=genesis.address, owner=self.owner, salt=1
        )
        self.node = self.node_identity.address
        self.registry = genesis.address
        self.pck = PckIdentity(
            anchor=anchor_of(self.platform.root_der),
            leaf_hash=hashlib.sha256(self.platform.pck.certificate.tbs_certificate_bytes).digest(),
        ).address
        init = state_init(registry_code().cell, genesis.initial_data)
        self._must(self._send(self.owner, genesis.address, registry_messages.top_up_body(), init=init))
        self._join()

    def _join(self) -> None:
        body = node_messages.join_body(
            stake=20 * TON, endpoint="host:1", models=[MODEL], prices=PRICES, simulated=False
        )
        init = state_init(node_code().cell, self.node_identity.initial_data)
        self._must(self._send(self.owner, self.node, body, 21 * TON, init=init))
        self.binding_hash = self.binding().hash
        self.first_attest = self.attest(full=True)
        self._must(self._send(self.owner, self.node, node_messages.top_up_body()))

    def _send(
        self, sender: Address, to: Address, body: Cell, value: int = TON, *, init: Cell | None = None
    ) -> Sent:
        return self._sent(body, self.chain.send_from(sender, to, value, body, init=init))

    def _sent(self, body: Cell, result: SendResult, *, external: bool = False) -> Sent:
        names = {
            self.registry: "Registry",
            self.node: "Node",
            self.channel.address: "Channel",
            self.pck: "Pck",
        }
        gas: dict[str, int] = {}
        for transaction in result:
            name = names.get(transaction.address)
            if name is not None:
                gas[name] = gas.get(name, 0) + transaction.gas_used
        return Sent(body=body, result=result, gas=gas, external=external)

    @staticmethod
    def _must(sent: Sent) -> Sent:
        if not sent.result.success:
            raise RuntimeError(f"an operation failed: {sent.result.exit_codes}")
        return sent

    def binding(self) -> KeyBinding:
        """The key binding of the node."""
        return KeyBinding(
            node=bytes(self.node.hash_part),
            seal_key_hash=b"\x05" * 32,
            receipt_key=self.receipt_key.public_key().public_bytes_raw(),
            tls_spki_hash=b"\x06" * 32,
            config_hash=b"\x07" * 32,
            release_id=self.platform.release().release_id,
            not_before=self.chain.now,
            not_after=self.chain.now + 86_400,
            global_id=GLOBAL_ID,
        )

    # ---- attestation

    def _quote(self) -> tuple[QuoteProof, AttestationStatement, PckIdentity]:
        beacon = pck.newest_beacon(self.chain.mc_blocks[-1].seqno)
        challenge = beacon_challenge(beacon, self.chain.mc_blocks[beacon - 1].root_hash)
        binding = self.binding()
        report = self.platform.td_report(report_data(binding.hash, bytes(32), challenge), bytes(48))
        proof = prove_quote(self.platform.quote(report))
        statement = AttestationStatement(
            beacon_seqno=beacon,
            gpu_digest=bytes(32),
            release_name_hash=pck.release_name_hash(self.platform.release().name),
            rule=self.rule,
            binding=record_to_ton(binding.cell),
            payload=finish(Builder().store_bytes(b"\x08" * 32)),
        )
        return proof, statement, PckIdentity(anchor=self.rule.anchor, leaf_hash=proof.leaf_hash)

    def _rule(self) -> AttestationRule:
        """What the registry asks of quotes: what the platform has."""
        tcb = self.platform.tcb
        return AttestationRule(
            anchor=anchor_of(self.platform.root_der),
            qe_mrsigner=self.platform.qe_mrsigner,
            min_qe_svn=1,
            fmspc=tcb.fmspc,
            min_components=bytes(tcb.sgx_components),
            min_pce_svn=tcb.pce_svn,
            min_tee_tcb_svn=bytes(tcb.tee_tcb_svn),
            evaluation=19,
            valid_until=self.chain.now + 30 * 86_400,
        )

    def attest(self, *, full: bool = False, certify: bool = False) -> Sent:
        """A quote to the Pck contract, from there to the node and the registry.

        `full`: with the chain from the root, which deploys Pck; `certify`: with a new attestation key.
        """
        proof, statement, identity = self._quote()
        body = pck.attest_body(proof, statement, node=self.node, certify=certify or full)
        if not full:
            return self._must(self._send(self.owner, identity.address, body))
        body = pck.verify_and_attest_body(proof.chain_cell(identity.anchor), body)
        init = state_init(pck_code().cell, identity.initial_data)
        return self._must(self._send(self.owner, identity.address, body, init=init))

    # ---- log

    def anchor(self, receipts: int) -> Sent:
        """`receipts` more receipts, anchored by external message."""
        for _ in range(receipts):
            self.tree.append(self.tree.size.to_bytes(32))
        data = self.chain.account(self.node).data
        if data is None:
            raise RuntimeError("the node is not there")
        log = parse_node(data).log
        order = Anchor(
            first_size=log.tree_size,
            first_root=log.root,
            checkpoint=Checkpoint(
                global_id=GLOBAL_ID,
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
        sent = self._must(self._sent(body, self.chain.send_external(self.node, body), external=True))
        return replace(sent, proof_hashes=len(order.proof))

    # ---- disputes

    def _receipt(self, index: int) -> Receipt:
        """What the enclave signed about one answer, due in an hour."""
        return Receipt(
            node=bytes(self.node.hash_part),
            binding_hash=self.binding_hash,
            request_commitment=b"\x21" * 32,
            response_commitment=b"\x22" * 32,
            model=MODEL,
            prompt_tokens=10,
            cached_tokens=0,
            completion_tokens=5,
            status=200,
            channel=bytes(self.channel.address.hash_part),
            amount=3000,
            cumulative=3000,
            index=index,
            issued_at=self.chain.now,
            anchor_by=self.chain.now + PARAMETERS.anchor_within,
        )

    def _challenge(self, receipt: Receipt) -> Sent:
        body = node_messages.challenge_body(sign_receipt(receipt, self.receipt_key))
        return self._must(self._send(self.client, self.node, body))

    def dispute(self, levels: int) -> tuple[Sent, Sent, Sent]:
        """A log of 2^levels receipts: a challenge, its answer, and the penalty for another without one."""
        shown, missed = (self._receipt(index) for index in (777_777 % (1 << levels), 3))
        leaves = {receipt.index: bytes(receipt.hash) for receipt in (shown, missed)}
        for index in range(1 << levels):
            self.tree.append(leaves.get(index) or index.to_bytes(32))
        self.anchor(0)
        self.chain.warp(PARAMETERS.anchor_within + 1)
        challenge = self._challenge(shown)
        proof = tuple(self.tree.inclusion_proof(shown.index, self.tree.size))
        body = node_messages.respond_body(receipt_hash=shown.hash, proof=proof)
        answer = self._must(self._send(self.owner, self.node, body))
        self._challenge(missed)
        self.chain.warp(PARAMETERS.response_window + 1)
        slash = self._must(self._send(self.client, self.node, node_messages.slash_body(missed.hash)))
        return challenge, replace(answer, proof_hashes=len(proof)), slash

    # ---- channel

    @property
    def channel(self) -> ChannelIdentity:
        """The client's channel."""
        return ChannelIdentity(
            global_id=GLOBAL_ID,
            client=self.client,
            client_key=self.client_key.public_key().public_bytes_raw(),
            node=self.node,
            salt=3,
            close_delay=600,
        )

    def open(self) -> Sent:
        """Deploy the channel with a deposit."""
        init = state_init(channel_code().cell, self.channel.initial_data)
        return self._must(
            self._send(self.client, self.channel.address, channel.top_up_body(), 5 * TON, init=init)
        )

    def to_channel(self, body: Cell) -> Sent:
        """A message of the client to the channel."""
        return self._must(self._send(self.client, self.channel.address, body))

    def settle(self, used: int, *, final: bool = False) -> Sent:
        """Collect `used` nanoton in all; `final` also closes the channel."""
        account = bytes(self.channel.address.hash_part)
        claim = Claim(global_id=GLOBAL_ID, channel=account, used=used, index=0)
        authorization = Authorization(
            global_id=GLOBAL_ID, channel=account, cap=used, valid_until=self.chain.now + 3600
        )
        body = node_messages.settle_body(
            claim=sign_claim(claim, self.receipt_key),
            authorization=sign_authorization(authorization, self.client_key),
            final=final,
        )
        return self._must(self._send(self.owner, self.node, body))
