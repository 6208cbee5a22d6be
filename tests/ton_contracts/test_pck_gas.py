"""Gas goals of the on-chain attestation, and the constants in ``pck/fees.tolk``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton import pck
from cocoon_ton.emulator import Emulator, TestChain

from .pck_kit import PckWorld, measure_pck, platform_with, seeded
from .test_gas import constants, out_size, size

FULL_CHAIN_GOAL = 110_000
CACHED_GOAL = 25_000


@pytest.fixture
def chain(emulator: Emulator) -> TestChain:
    return TestChain(emulator=emulator)


def test_the_goals(chain: TestChain) -> None:
    results = measure_pck(chain)
    assert all(result.first.success for result in results.values())
    assert results["Pck.verify_and_attest"].first.gas_used <= FULL_CHAIN_GOAL
    assert results["Pck.attest"].first.gas_used <= CACHED_GOAL
    assert results["Pck.attest new key"].first.gas_used <= 35_000
    assert results["Pck.bounced"].first.gas_used <= 4_000


def test_the_dearest_message_is_paid_for(chain: TestChain) -> None:
    """Long security versions, version 5, and a chain from the root: the most that can be asked."""
    base = DevPlatform.create(chain.now, seeded("dear"))
    tcb = pki.PlatformTcb(sgx_components=(255,) * 16, pce_svn=65_535)
    world = PckWorld.create(chain, platform_with(base, tcb, chain.now))
    proof = world.proof(tee_tcb_svn_2=bytes(16), mrservicetd=bytes(48))
    body = pck.verify_and_attest_body(proof.chain_cell(world.root), world.attest_body(proof, certify=True))
    result = world.send(body, deploy=True)
    assert result.success
    assert result.first.gas_used <= constants("pck/fees.tolk")["PCK_GAS"]


def test_constants_cover_account_and_messages(chain: TestChain) -> None:
    world = PckWorld.create(chain, DevPlatform.create(chain.now, seeded("gas")))
    assert world.verify().success
    limits = constants("pck/fees.tolk")
    account = chain.account(world.address)
    cells, bits = size(account.code, account.data)
    assert cells <= limits["PCK_CELLS"], cells
    assert bits <= limits["PCK_BITS"], bits
    cells, bits = out_size(world.attest()[0])
    assert cells <= limits["PCK_RESULT_CELLS"], cells
    assert bits <= limits["PCK_RESULT_BITS"], bits


def test_the_result_goes_out_whatever_its_size(chain: TestChain) -> None:
    """The contract puts the body beside the header; the action phase moves it if the value makes it too long."""
    world = PckWorld.create(chain, DevPlatform.create(chain.now, seeded("gas")))
    assert world.verify().success
    body = pck.attest_body(
        world.proof(), world.statement(), node=world.node, certify=False, query_id=2**64 - 1
    )
    owner = chain.account(world.owner)
    chain.add_account(world.owner, 10**18, code=owner.code, data=owner.data)
    result = world.send(body, 9 * 10**17)
    assert result.success
    message = result[1].incoming
    assert message is not None
    said = pck.parse_attested(message.body)
    assert (said.query_id, said.statement) == (2**64 - 1, world.statement())


def test_a_refusal_costs_less_than_a_success(chain: TestChain) -> None:
    """Cheap checks come first: spam with a wrong rule or stale beacon ends before the signatures."""
    world = PckWorld.create(chain, DevPlatform.create(chain.now, seeded("gas")))
    assert world.verify().success
    for statement in (
        world.statement(rule=replace(world.rule, fmspc=bytes(6))),
        world.statement(beacon_seqno=world.beacon - 1),
        world.statement(gpu_digest=bytes(32)),
    ):
        assert world.attest(world.proof(), statement).first.gas_used < 12_000
