"""A3 on the chain, with a running enclave: its host gets its keys attested by a quote, and nothing else gets in."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cocoon.v1 import attestation_service_pb2, attestation_service_pb2_grpc, host_service_pb2
from cocoon_attestation.binding import KeyBinding, parse_key_binding
from cocoon_attestation.errors import EvidenceRejectedError, UnavailableError
from cocoon_enclave.attestation.simulated import DevPlatform, simulated_release
from cocoon_enclave.host.agent import HostAgent
from cocoon_enclave.host.attest import AttestRefusedError
from cocoon_enclave.host.plan import Attest
from cocoon_enclave.host.routes import NoRouteError
from cocoon_ton import node_messages, registry_messages
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.emulator import Emulator
from cocoon_ton.errors import ChainUnavailableError
from cocoon_ton.registry_messages import RegistryGenesis, Removal

from ..ton_contracts.attest_kit import STRICT, fixed_rule
from ..ton_contracts.conftest import (
    GLOBAL_ID,
    PARAMETERS,
    TREASURY,
    World,
    emulator,  # noqa: F401
)
from .host_kit import RecordingChain, Treasury, make_agent

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))

from enclave_testkit import (  # type: ignore[import-not-found]
    config,  # noqa: F401
    platform_dir,  # noqa: F401
    start_node,  # noqa: F401
    tiny_model,  # noqa: F401
)


@dataclasses.dataclass
class Host:
    """An enclave, its node contract and its host agent; the node joined, and nothing is attested."""

    world: World
    node: Any
    agent: HostAgent
    treasury: Treasury
    platform: DevPlatform
    rule: AttestationRule
    binding: KeyBinding

    def attested(self) -> bool:
        """The registry lists the enclave's keys as usable."""
        nodes = self.world.registry_state().usable_nodes(self.world.chain.now)
        return [n.key.binding_hash for n in nodes if n.key] == [self.binding.hash]

    def govern(self, body: Any) -> None:
        assert self.world.to_registry(self.world.governance, body).success

    async def attest(self, treasury: Treasury | None = None) -> None:
        """What the agent does when it is due; with another wallet, what a stranger can do."""
        attestor = self.agent._attestor()
        if treasury is not None:
            attestor._treasury = treasury  # type: ignore[assignment]
        await attestor.attest(self.binding, self.world.node_state())


@pytest.fixture
async def host(
    start_node: Any,  # noqa: F811
    emulator: Emulator,  # noqa: F811
    platform_dir: Path,  # noqa: F811
    config: Any,  # noqa: F811
) -> AsyncIterator[Host]:
    chain = RecordingChain(emulator=emulator, now=int(time.time()))
    assert chain.treasury("treasury") == TREASURY
    platform = DevPlatform.load(platform_dir)
    rule = dataclasses.replace(fixed_rule(platform), valid_until=chain.now + 30 * 86_400)
    root = hashlib.sha256(platform.root_der).digest()
    world = World(
        chain=chain,
        genesis=RegistryGenesis(
            global_id=GLOBAL_ID,
            governance=chain.treasury("governance"),
            parameters=PARAMETERS,
            policy=dataclasses.replace(STRICT, dev_root_hash=root),
            releases=(simulated_release(),),
            models={model.digest: model.name for model in config.models},
            rules=(rule,),
            since=chain.now,
        ),
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
    assert world.deploy_registry().success
    assert world.join().success
    assert world.to_node(world.stranger, node_messages.top_up_body()).success
    async with start_node(node=bytes(world.node.hash_part), global_id=GLOBAL_ID) as (node, _):
        status = await node.host.GetStatus(host_service_pb2.GetStatusRequest())
        treasury = Treasury(world)
        yield Host(
            world=world,
            node=node,
            agent=make_agent(world, treasury, node, dev_root=platform.root_der),
            treasury=treasury,
            platform=platform,
            rule=rule,
            binding=parse_key_binding(status.key_binding),
        )


async def test_the_agent_attests_by_a_quote(host: Host) -> None:
    assert await host.agent.step() == (Attest(),)
    assert host.attested()
    (entry,) = host.world.registry_state().nodes.values()
    assert entry.claim is not None
    assert entry.claim.rule == bytes(host.rule.cell.hash)
    assert host.treasury.sent == ["attest"]
    records = attestation_service_pb2_grpc.AttestationServiceStub(host.node.private)
    request = attestation_service_pb2.GetPublishedEvidenceRequest(binding_hash=host.binding.hash)
    published = (await records.GetPublishedEvidence(request)).evidence
    assert hashlib.sha256(published).digest() == entry.claim.record.evidence_digest
    gas = [t.total_fees for t in host.world.chain.history[host.world.node]]  # type: ignore[attr-defined]
    await host.attest()
    assert host.attested(), "by the known key now"
    assert len(host.world.chain.history[host.world.node]) == len(gas) + 2  # type: ignore[attr-defined]


async def test_a_key_of_the_owners_own_is_refused(host: Host) -> None:
    """No enclave, no quote: the binding says all the right things."""
    own = dataclasses.replace(host.binding, receipt_key=b"\x07" * 32)
    for binding in (own, host.binding):
        result = host.world.attest(binding)
        assert result.on(host.world.registry)[0].exit_code == 221
    assert host.world.node_state().key is None
    assert not host.attested()


async def test_a_strangers_genuine_enclave_is_not_this_node(host: Host) -> None:
    """It names this node in its binding, and its quote holds; whoever pays for it is not the owner."""
    stranger = Treasury(host.world)
    stranger.address = host.world.stranger
    with pytest.raises(AttestRefusedError) as caught:
        await host.attest(stranger)
    assert caught.value.details["exit_code"] == 300
    assert host.world.node_state().key is None


async def test_what_the_registry_would_refuse_is_not_paid_for(host: Host) -> None:
    host.govern(registry_messages.remove_body(Removal.RULE, bytes(host.rule.cell.hash)))
    with pytest.raises(NoRouteError, match="no attestation rule"):
        await host.attest()
    old = dataclasses.replace(host.rule, evaluation=18)
    hard = dataclasses.replace(host.rule, min_tee_tcb_svn=b"\x06\x01" + bytes(14))
    other = dataclasses.replace(host.rule, fmspc=b"\x01" * 6)
    foreign = dataclasses.replace(host.rule, anchor=b"\x01" * 32)
    for rule in (old, hard, other, foreign):
        assert host.world.change(registry_messages.set_rule(rule)).success
        with pytest.raises(NoRouteError, match="no attestation rule"):
            await host.attest()
    assert host.treasury.sent == []


async def test_a_look_alike_root_is_not_even_sent(host: Host) -> None:
    """The registry names another development root: clients would refuse the evidence, so the host does."""
    other = DevPlatform.create(host.world.chain.now, lambda length: b"\x07" * (length - 1) + b"\x01")
    host.agent = make_agent(host.world, host.treasury, host.node, dev_root=other.root_der)
    policy = dataclasses.replace(STRICT, dev_root_hash=hashlib.sha256(other.root_der).digest())
    assert host.world.change(registry_messages.set_policy(policy)).success
    with pytest.raises(EvidenceRejectedError):
        await host.attest()
    assert host.treasury.sent == []


async def test_a_removal_on_the_way_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry has the last word, and the host learns its reason."""
    pay = host.treasury.pay

    async def late(**arguments: Any) -> None:
        host.govern(registry_messages.remove_body(Removal.RULE, bytes(host.rule.cell.hash)))
        await pay(**arguments)

    monkeypatch.setattr(host.treasury, "pay", late)
    with pytest.raises(AttestRefusedError) as caught:
        await host.attest()
    assert caught.value.details["exit_code"] == 222
    assert host.world.node_state().proposal is None
    assert not host.attested()


async def test_nonsense_from_strangers_is_no_refusal(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send the node messages that fail, also while its host waits for an answer."""
    pay, known = host.treasury.pay, host.world.chain.account
    hidden: list[Any] = []

    async def disturbed(**arguments: Any) -> None:
        before = known(host.world.node)
        await pay(**arguments)
        assert not host.world.to_node(host.world.stranger, node_messages.unbond_body()).success
        hidden.extend([before, before])  # the host sees the result a little later

    def late(address: Any) -> Any:
        return hidden.pop() if hidden and address == host.world.node else known(address)

    monkeypatch.setattr(host.treasury, "pay", disturbed)
    monkeypatch.setattr(host.world.chain, "account", late)
    await host.attest()
    assert not hidden
    assert host.attested()


async def test_the_agent_notices_that_its_rule_is_gone(host: Host) -> None:
    await host.agent.step()
    assert host.attested()
    host.govern(registry_messages.remove_body(Removal.RULE, bytes(host.rule.cell.hash)))
    newer = dataclasses.replace(host.rule, evaluation=20)
    assert host.world.change(registry_messages.set_rule(newer)).success
    assert not host.attested()
    host.world.chain.warp(61)
    assert Attest() in await host.agent.step()
    assert host.attested()
    host.world.chain.warp(61)
    assert Attest() not in await host.agent.step()


async def test_other_pck_code_is_asked_for_first(host: Host) -> None:
    """A node knows the code from the registry's last answer; after a change it is told by an update of its entry."""
    changed = dataclasses.replace(PARAMETERS, pck_code=b"\x01" * 32)
    assert host.world.change(registry_messages.set_parameters(changed)).success
    assert host.world.to_node(host.world.owner, node_messages.add_stake_body(1)).first.success
    assert host.world.change(registry_messages.set_parameters(PARAMETERS)).success
    await host.agent.step()
    assert host.treasury.sent == ["terms"]
    await host.agent.step()
    assert host.treasury.sent == ["terms", "attest"]
    assert host.attested()


async def test_a_crash_after_the_message_left(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox delivers; the next life sees the result and does nothing twice."""
    pay = host.treasury.pay

    async def dying(**arguments: Any) -> None:
        await pay(**arguments)
        raise ChainUnavailableError("the process died here")

    monkeypatch.setattr(host.treasury, "pay", dying)
    with pytest.raises(UnavailableError):
        await host.agent.step()
    monkeypatch.undo()
    assert host.attested()
    assert Attest() not in await host.agent.step()
    assert host.treasury.sent.count("attest") == 1
