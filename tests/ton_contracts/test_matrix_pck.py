"""Negative matrix of Pck: operation x fault."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from pytoniq_core import Address, Cell, MessageAny

from cocoon_attestation.binding import beacon_challenge, report_data
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton import opcodes, pck
from cocoon_ton.emulator import Emulator, SendResult
from cocoon_ton.pck import parse_attested
from cocoon_ton.quote_hints import QuoteProof, prove_quote

from .conftest import TON, World
from .matrix_kit import (
    OUT_OF_GAS,
    Harmless,
    Make,
    Message,
    NotApplicable,
    Prepare,
    Refused,
    Row,
    accepted,
    after,
    built,
    cells,
    check,
    copied,
    deliver,
    operations,
    stranger,
    worth,
)
from .pck_kit import GPU, PckWorld, seeded, swapped

CODES = {entry.name: number for number, entry in opcodes.EXIT_CODES.items() if entry.contract == "Pck"}
UNREADABLE = 63
"""Tolk's code for a wrong prefix: the contract only sends messages whose bounce has the rich form."""
LITTLE = TON // 12
"""Less than a certificate chain costs, and more than its gas."""
TINY = TON // 10_000
"""Buys some gas, and not enough."""
NO_MESSAGE = TON // 70
"""Buys the gas, and not the message to the node: the action phase fails."""
ANYBODY = NotApplicable("anybody may show what is signed; the result names the sender, and nodes judge it")
NO_NETWORK = NotApplicable("certificates and certifications are the same facts on every network")
NEVER_SENT = Refused(UNREADABLE)


@functools.cache
def machine(name: str, now: int) -> DevPlatform:
    """The simulated machine that the contract is for; itself with another attestation key; its sibling."""
    if name == "sibling":
        return machine("", now).sibling(now, seeded("sibling"))
    if name == "other key":
        return replace(machine("", now), attestation_key=pki.new_key(seeded("other key")))
    return DevPlatform.create(now, seeded("platform"))


@functools.cache
def quoted(name: str, now: int, data: bytes) -> QuoteProof:
    """A machine's quote over these report data: made once, since it is slow."""
    platform = machine(name, now)
    return prove_quote(platform.quote(platform.td_report(data, b"\x07" * 48)))


def at(world: World) -> PckWorld:
    """The world as `PckWorld` sees it; the node is an account that takes every message."""
    return PckWorld(
        chain=world.chain,
        platform=machine("", made(world)),
        owner=world.owner,
        node=world.client,
    )


def made(world: World) -> int:
    """When the machines were made."""
    return world.genesis.since


def contract(world: World) -> Address:
    return at(world).address


again = functools.partial(after, contract)
with_ = functools.partial

# ---- what is signed: honest, and forged

Prove = Callable[[World], QuoteProof]
Show = Callable[[World], Cell | None]


def proof(world: World, *, of: str = "", data: bytes | None = None) -> QuoteProof:
    return quoted(of, made(world), data or at(world).report_data())


others_proof = functools.partial(proof, of="sibling")


def forged_quote(world: World) -> QuoteProof:
    """The signature is one on other report data."""
    return replace(proof(world), signature=proof(world, data=bytes(64)).signature)


def other_key(world: World) -> QuoteProof:
    """A quote by a key that is not certified, beside the certification of the right one."""
    fresh = proof(world, of="other key")
    return replace(fresh, certification_cell=proof(world).certification_cell)


def forged_certification(world: World) -> QuoteProof:
    """The platform's signature is one on another attestation key."""
    honest = proof(world).certification_cell
    other = proof(world, of="other key").certification_cell
    changed = swapped(honest, honest.refs[1], other.refs[1])
    return replace(proof(world), certification_cell=changed)


def of_other_network(world: World) -> QuoteProof:
    """Right but for the hash of the block, which is another network's."""
    here = at(world)
    challenge = beacon_challenge(here.beacon, hashlib.sha256(b"a block of mainnet").digest())
    return proof(world, data=report_data(here.binding.hash, GPU, challenge))


def chain(world: World) -> Cell:
    return proof(world).chain_cell(at(world).root)


def others_chain(world: World) -> Cell:
    return others_proof(world).chain_cell(at(world).root)


def forged_chain(world: World) -> Cell:
    """The issuer's signature is one on another machine's certificate."""
    honest, other = chain(world).refs[0], others_chain(world).refs[0]
    return swapped(chain(world), honest, swapped(honest, honest.refs[1], other.refs[1]))


# ---- messages


def verify(world: World, *, show: Show = chain, prove: Prove = proof) -> Message:
    body = pck.verify_body(show(world), prove(world).certification_cell)
    return Message(sender=world.owner, body=body)


def attest(world: World, *, prove: Prove = proof, certify: bool = True, **changes: object) -> Message:
    here = at(world)
    body = here.attest_body(prove(world), here.statement(**changes), certify=certify)
    return Message(sender=world.owner, body=body)


def both(world: World, *, show: Show = chain, prove: Prove = proof, **changes: object) -> Message:
    here = at(world)
    body = here.attest_body(prove(world), here.statement(**changes), certify=True)
    return Message(sender=world.owner, body=pck.verify_and_attest_body(show(world), body))


def top_up(world: World) -> Message:
    return Message(sender=world.owner, body=pck.top_up_body())


# ---- times


def expired_rule(honest: Callable[..., Message]) -> Make:
    def make(world: World) -> Message:
        return honest(world, rule=replace(at(world).rule, valid_until=world.chain.now))

    return make


def old_beacon(honest: Callable[..., Message]) -> Make:
    """The quote and the statement name a block that was a beacon until just now."""

    def make(world: World) -> Message:
        here = at(world)
        seqno = here.beacon - pck.BEACON_BLOCKS * pck.BEACON_STEP
        return honest(world, prove=with_(proof, data=here.report_data(seqno=seqno)), beacon_seqno=seqno)

    return make


def blocks_pass(world: World) -> None:
    world.chain.add_blocks(pck.BEACON_BLOCKS * pck.BEACON_STEP)


def before_certificates(world: World) -> None:
    start = at(world).platform.pck.certificate.not_valid_before_utc
    world.chain.now = int(start.timestamp()) - 1
    for address in world.chain.addresses():  # no account's time goes back: put it there anew
        view = world.chain.account(address)
        world.chain.add_account(address, view.balance, code=view.code, data=view.data)


def after_certificates(world: World) -> None:
    end = at(world).platform.platform_ca.certificate.not_valid_after_utc
    world.chain.now = int(end.timestamp()) + 1


def out_of_time(honest: Callable[..., Message]) -> tuple[Refused, ...]:
    """Of everything that ends, except the chain, which is read once."""
    return (
        refused("RuleExpired", expired_rule(honest)),
        refused("OldBeacon", old_beacon(honest), blocks_pass),
    )


def refused(name: str, make: Make | None = None, prepare: Prepare | None = None) -> Refused:
    return Refused(CODES[name], make, prepare)


CHAIN_TIMES = (
    refused("CertificateTime", prepare=before_certificates),
    refused("CertificateTime", prepare=after_certificates),
)


def long_rule(world: World) -> Message:
    """The rule has no end, the certificates have."""
    return attest(world, rule=replace(at(world).rule, valid_until=2**32 - 1))


# A replay tells the node the same again, which the node judges. An older certification makes an older key the
# known one again: test_pck.py, test_a_new_attestation_key.
MATRIX = {
    "PckAttest": Row(
        honest=attest,
        prepare=again(verify),
        sender=ANYBODY,
        signature=(
            refused("BadRelation", with_(attest, prove=forged_quote)),
            refused("BadRelation", with_(attest, prove=forged_quote, certify=False)),
            refused("WrongKey", with_(attest, prove=other_key)),
            refused("WrongKey", with_(attest, prove=other_key, certify=False)),
            refused("WrongKey", with_(attest, prove=others_proof)),
            refused("BadRelation", with_(attest, prove=forged_certification)),
        ),
        replay=Harmless(prepare=again(attest)),
        expiry=(*out_of_time(attest), refused("RuleExpired", long_rule, after_certificates)),
        value=(
            Refused(OUT_OF_GAS, worth(attest, TINY)),
            Refused(0, worth(attest, NO_MESSAGE)),
        ),
        network=refused("WrongReportData", with_(attest, prove=of_other_network)),
        bounce=NEVER_SENT,
    ),
    "PckVerify": Row(
        honest=verify,
        sender=ANYBODY,
        signature=(
            refused("BadRelation", with_(verify, show=forged_chain)),
            refused("WrongCertificate", with_(verify, show=others_chain)),
            refused("WrongKey", with_(verify, prove=others_proof)),
            refused("BadRelation", with_(verify, prove=forged_certification)),
        ),
        replay=Harmless(prepare=again(verify)),
        expiry=CHAIN_TIMES,
        value=refused("TooLittleValue", worth(verify, LITTLE)),
        network=NO_NETWORK,
        bounce=NEVER_SENT,
    ),
    "PckVerifyAndAttest": Row(
        honest=both,
        sender=ANYBODY,
        signature=(
            refused("BadRelation", with_(both, show=forged_chain)),
            refused("WrongCertificate", with_(both, show=others_chain)),
            refused("WrongKey", with_(both, prove=others_proof)),
            refused("WrongKey", with_(both, prove=other_key)),
            refused("BadRelation", with_(both, prove=forged_certification)),
            refused("BadRelation", with_(both, prove=forged_quote)),
        ),
        replay=Harmless(prepare=again(both)),
        expiry=(*out_of_time(both), *CHAIN_TIMES),
        value=refused("TooLittleValue", worth(both, LITTLE)),
        network=refused("WrongReportData", with_(both, prove=of_other_network)),
        bounce=NEVER_SENT,
    ),
    "PckTopUp": Row(
        honest=top_up,
        sender=NotApplicable("anybody may pay for the contract's storage"),
        signature=NotApplicable("carries nothing signed"),
        replay=Harmless(prepare=again(top_up)),
        expiry=NotApplicable("storage may be paid for at any time"),
        value=Refused(OUT_OF_GAS, worth(top_up, TINY)),
        network=NotApplicable("carries nothing of any network"),
        bounce=NEVER_SENT,
    ),
}


def deploy(world: World) -> SendResult:
    """The contract with the storage of ten years, and no chain shown."""
    return at(world).send(pck.top_up_body(), 2 * TON, deploy=True)


@pytest.fixture(scope="module")
def template(emulator: Emulator) -> World:
    """A deployed contract that knows nothing."""
    return built(emulator, deploy)


@pytest.fixture
def fresh(template: World) -> World:
    """A copy for each test."""
    return copied(template)


@pytest.mark.parametrize(("operation", "fault"), cells(MATRIX))
def test_matrix(fresh: World, operation: str, fault: str) -> None:
    check(fresh, contract(fresh), MATRIX[operation], fault)


@pytest.mark.parametrize("operation", MATRIX)
def test_the_honest_message_is_accepted(fresh: World, operation: str) -> None:
    accepted(fresh, contract(fresh), MATRIX[operation])


def test_every_operation_has_its_row() -> None:
    assert list(MATRIX) == operations("pck", "PckMessage", "Pck.tolk")


@pytest.mark.parametrize("honest", [attest, both])
def test_the_result_names_whoever_sent_the_message(fresh: World, honest: Make) -> None:
    """Why anybody may ask: the node learns who it was."""
    again(verify)(fresh)
    for make, requester in ((honest, fresh.owner), (stranger(honest), fresh.stranger)):
        (result,) = deliver(fresh.chain, contract(fresh), make(fresh)).out_messages
        assert parse_attested(MessageAny.deserialize(result.begin_parse()).body).requester == requester


@pytest.mark.parametrize("operation", ["PckAttest", "PckVerifyAndAttest"])
def test_only_a_chain_that_was_shown_counts(fresh: World, operation: str) -> None:
    """The one refusal that is none of the faults: right quotes, and no chain."""
    message = attest(fresh) if operation == "PckAttest" else both(fresh, show=lambda w: None)
    found = deliver(fresh.chain, contract(fresh), message)
    assert found.exit_code == CODES["NotVerified"]
    assert found.bounced
