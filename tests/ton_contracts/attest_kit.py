"""A node on a simulated platform: quotes for its own binding, through Pck, into the node and the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.reference import TeeKind
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton import opcodes, pck
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import begin, finish
from cocoon_ton.code import pck_code
from cocoon_ton.emulator import SendResult, TestChain
from cocoon_ton.emulator.testchain import DEFAULT_NOW
from cocoon_ton.pck import AttestationStatement, PckState
from cocoon_ton.quote_hints import QuoteProof, anchor_of
from cocoon_ton.registry import RegistryPolicy
from cocoon_ton.registry_messages import RegistryGenesis

from .conftest import GLOBAL_ID, MODEL, PARAMETERS, RELEASE, TON, World
from .pck_kit import PckWorld, seeded

EVIDENCE = b"\x0e" * 32
"""Digest of the published evidence."""
STRICT = RegistryPolicy(tee_kinds=frozenset({TeeKind.TDX}), min_tcb_evaluation=19)
"""TDX only, and with a verified quote."""


@cache
def platform() -> DevPlatform:
    """The simulated machine of all these tests."""
    return DevPlatform.create(DEFAULT_NOW, seeded("attest"))


def fixed_rule(machine: DevPlatform) -> AttestationRule:
    """What the machine has, with an end that does not move with the chain's time."""
    tcb = machine.tcb
    return AttestationRule(
        anchor=anchor_of(machine.root_der),
        qe_mrsigner=machine.qe_mrsigner,
        min_qe_svn=machine.quoting_enclave.isv_svn,
        fmspc=tcb.fmspc,
        min_components=bytes(tcb.sgx_components),
        min_pce_svn=tcb.pce_svn,
        min_tee_tcb_svn=bytes(tcb.tee_tcb_svn),
        evaluation=19,
        valid_until=DEFAULT_NOW + 30 * 86_400,
    )


@dataclass
class Quoted(PckWorld):
    """A `PckWorld` whose quotes speak for the node of a `World`."""

    world: World | None = None
    changes: Mapping[str, object] = field(default_factory=dict)
    """Of the binding, for what is wrong with it."""

    @property
    def w(self) -> World:
        """The registry and the node."""
        assert self.world is not None
        return self.world

    @property
    def binding(self) -> KeyBinding:
        """Of the node, for the platform's release."""
        return self.w.binding(**({"release_id": self.platform.release().release_id} | dict(self.changes)))

    @property
    def rule(self) -> AttestationRule:
        """The same at any time."""
        return fixed_rule(self.platform)

    def changed(self, **changes: object) -> Quoted:
        """The same with another binding."""
        return replace(self, changes=changes)

    def full(
        self,
        *,
        value: int = TON,
        sender: Address | None = None,
        statement: AttestationStatement | None = None,
        proof: QuoteProof | None = None,
    ) -> SendResult:
        """Chain, certification and quote in one message; deploys Pck."""
        proof = proof or self.proof()
        attest = self.attest_body(proof, statement, certify=True)
        body = pck.verify_and_attest_body(proof.chain_cell(self.root), attest, query_id=6)
        asking = self if sender is None else replace(self, owner=sender)
        return asking.send(body, value, deploy=True)


def genesis(chain: TestChain, machine: DevPlatform, *, policy: RegistryPolicy = STRICT) -> RegistryGenesis:
    """A registry that names the platform's release and one rule for it."""
    return RegistryGenesis(
        global_id=GLOBAL_ID,
        governance=chain.treasury("governance"),
        parameters=PARAMETERS,
        policy=policy,
        releases=(machine.release(), RELEASE),
        models={MODEL: "tiny@test"},
        rules=(fixed_rule(machine),),
        since=DEFAULT_NOW,
    )


def quoted(chain: TestChain, *, policy: RegistryPolicy = STRICT) -> Quoted:
    """A registry and a node that joined; nothing is attested yet."""
    for name in ("treasury", "governance"):
        chain.treasury(name)
    world = World(
        chain=chain,
        genesis=genesis(chain, platform(), policy=policy),
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
    made = quoted_node(world)
    assert world.genesis.rules == (made.rule,)
    assert world.genesis.parameters.pck_code == pck_code().code_hash
    assert world.deploy_registry().success
    assert world.join().success
    return made


def quoted_node(world: World, **changes: object) -> Quoted:
    """What speaks for the node of a world that `quoted` made; `changes` are of the binding."""
    return Quoted(
        chain=world.chain,
        platform=platform(),
        owner=world.owner,
        node=world.node,
        payload=finish(Builder().store_bytes(EVIDENCE)),
        world=world,
        changes=changes,
    )


# ---- what a Pck contract tells a node


def platform_cell(state: PckState) -> Cell:
    """The data of a Pck contract in this state."""
    assert state.key_x is not None
    assert state.platform_id is not None
    head = begin(opcodes.PCK_STORAGE).store_uint(state.not_after, 32).store_bytes(state.fmspc)
    head.store_uint(state.pce_svn, 16).store_bytes(state.components).store_bytes(state.attestation_x)
    head.store_bytes(state.qe_mrsigner).store_uint(state.qe_svn, 16).store_ref(state.identity.cell)
    return finish(
        head.store_maybe_ref(finish(Builder().store_bytes(state.key_x).store_bytes(state.platform_id)))
    )


def told(
    q: Quoted,
    platform: Cell | None = None,
    *,
    requester: Address | None = None,
    release_id: bytes | None = None,
    statement: AttestationStatement | None = None,
) -> Cell:
    """What Pck would tell the node: `PckAttested`. Without changes, that the owner's quote was verified."""
    data = platform or q.chain.account(q.address).data
    assert data is not None
    body = begin(opcodes.PCK_ATTESTED).store_uint(6, 64).store_address(requester or q.w.owner)
    body.store_bytes(release_id or q.platform.release().release_id)
    return finish(body.store_ref(data).store_ref((statement or q.statement()).cell))
