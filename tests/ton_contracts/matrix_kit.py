"""The negative matrix: every operation of a contract against every fault, as a table.

A contract has one `Row` for each message of its union (`operations` reads the union from the Tolk source, so a
message without a row fails a test). A row says what an honest message is, and for each fault which exit code
follows, or in words why the fault does not exist there. `check` runs one cell of the table:

* the honest message is accepted (else a refusal would prove nothing);
* the faulty one ends with the expected code, changes no byte of the contract's data, and its value goes back.

Faults: wrong ``sender``; wrong ``signature``; ``replay`` of a message that was accepted; ``expiry`` (too early or
too late); too little ``value``; ``bounce`` (the body arrives in a bounced message); another ``network``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.merkle import MerkleTree
from cocoon_ton.emulator import EmulatedTransaction, Emulator, SendResult, TestChain
from cocoon_ton.emulator.accounts import internal_message
from cocoon_ton.registry_messages import RegistryGenesis

from .conftest import GLOBAL_ID, MODEL, PARAMETERS, POLICY, RELEASE, TON, World, network_config

FAULTS: Final = ("sender", "signature", "replay", "expiry", "value", "bounce", "network")
OUT_OF_GAS: Final = -14
NO_GAS: Final = None
"""The compute phase is skipped: the value does not buy any gas."""
CONTRACTS = Path(__file__).parents[2] / "ton_contracts" / "contracts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An internal message to the contract under test."""

    sender: Address
    body: Cell
    value: int = TON


Make = Callable[[World], Message]
Prepare = Callable[[World], object]


@dataclass(frozen=True, slots=True)
class Refused:
    """The contract must end with `code`. `make`: the faulty message (None: the row's honest one)."""

    code: int | None
    make: Make | None = None
    prepare: Prepare | None = None
    """What happens before, beyond the row's own preparation."""
    abroad: bool = False
    """The message is delivered to the same account on another network."""


@dataclass(frozen=True, slots=True)
class Harmless:
    """The message is accepted and changes no byte of the contract's data."""

    prepare: Prepare | None = None


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """The fault does not exist for this operation."""

    why: str


Outcome = Refused | Harmless | NotApplicable | tuple[Refused | Harmless, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation. `bounce` needs no entry where a contract takes every bounced message without effect."""

    honest: Make
    prepare: Prepare = lambda world: None
    sender: Outcome
    signature: Outcome
    replay: Outcome
    expiry: Outcome
    value: Outcome
    network: Outcome
    bounce: Outcome = Harmless()

    def outcomes(self, fault: str) -> tuple[Refused | Harmless | NotApplicable, ...]:
        """What is expected for a fault."""
        found: Outcome = getattr(self, fault)
        return found if isinstance(found, tuple) else (found,)


def operations(contract: str, union: str, file: str = "messages.tolk") -> list[str]:
    """The messages of a Tolk union type, in the order of the source."""
    source = (CONTRACTS / contract / file).read_text()
    found = re.search(rf"^type {union} =((?:\s*\|?\s*\w+)(?:\s*\|\s*\w+)*)", source, re.MULTILINE)
    assert found is not None, union
    return re.findall(r"\w+", found[1])


def cells(matrix: dict[str, Row]) -> list[tuple[str, str]]:
    """Operation and fault of every cell."""
    return [(operation, fault) for operation in matrix for fault in FAULTS]


def check(world: World, contract: Address, row: Row, fault: str) -> None:
    """Run one cell of the table. Raises AssertionError."""
    row.prepare(world)
    for outcome in row.outcomes(fault):
        if isinstance(outcome, NotApplicable):
            assert len(outcome.why) > 15, "say why"
            continue
        if outcome.prepare is not None:
            outcome.prepare(world)
        chain = world.chain
        if isinstance(outcome, Harmless):
            _harmless(chain, contract, row.honest(world), bounced=fault == "bounce")
            continue
        message = (outcome.make or row.honest)(world)
        if outcome.abroad:
            chain = abroad(world)
        _refused(chain, contract, message, outcome.code, bounced=fault == "bounce")


def accepted(world: World, contract: Address, row: Row) -> None:
    """The honest message is accepted: what the refusals are compared with."""
    row.prepare(world)
    found = deliver(world.chain, contract, row.honest(world))
    assert found.success, (found.exit_code, found.action_code)


def deliver(
    chain: TestChain, contract: Address, message: Message, *, bounced: bool = False
) -> EmulatedTransaction:
    """Deliver a message and return the contract's transaction."""
    body = message.body
    if bounced:
        builder = Builder().store_uint(0xFFFFFFFF, 32).store_bits(body.bits[:256])
        body = builder.end_cell()
    chain.minted += message.value
    result = chain.send_message(
        internal_message(
            source=message.sender,
            destination=contract,
            value=message.value,
            body=body,
            bounce=not bounced,
            bounced=bounced,
            created_lt=chain.lt,
            created_at=chain.now,
        )
    )
    return result.first


def _data(chain: TestChain, contract: Address) -> bytes:
    data = chain.account(contract).data
    assert data is not None
    return bytes(data.hash)


def _refused(
    chain: TestChain, contract: Address, message: Message, code: int | None, *, bounced: bool
) -> None:
    before = _data(chain, contract)
    found = deliver(chain, contract, message, bounced=bounced)
    assert found.exit_code == code
    assert not found.success
    assert _data(chain, contract) == before, "a refused message left something behind"
    if code not in (NO_GAS, OUT_OF_GAS):
        assert found.bounced != bounced, "the value of a refused message goes back, and bounces once"


def _harmless(chain: TestChain, contract: Address, message: Message, *, bounced: bool) -> None:
    before = _data(chain, contract)
    found = deliver(chain, contract, message, bounced=bounced)
    assert found.exit_code == 0
    assert _data(chain, contract) == before


@functools.cache
def _mainnet() -> Emulator:
    return Emulator(network_config(-239))


def abroad(world: World) -> TestChain:
    """All accounts of the world on mainnet, where the same code has the same addresses."""
    return _copied(world.chain, _mainnet())


def copied(world: World) -> World:
    """The same world once more, so that a test may change it."""
    chain = _copied(world.chain, world.chain.emulator)
    return dataclasses.replace(world, chain=chain, tree=MerkleTree())


def _copied(source: TestChain, emulator: Emulator) -> TestChain:
    chain = TestChain(emulator=emulator, now=source.now)
    for address in source.addresses():
        view = source.account(address)
        chain.add_account(address, view.balance, code=view.code, data=view.data)
    return chain


def built(emulator: Emulator, *steps: Callable[[World], SendResult]) -> World:
    """A world after `steps`, each of which must succeed."""
    chain = TestChain(emulator=emulator)
    chain.treasury("treasury")
    genesis = RegistryGenesis(
        global_id=GLOBAL_ID,
        governance=chain.treasury("governance"),
        parameters=PARAMETERS,
        policy=POLICY,
        releases=(RELEASE,),
        models={MODEL: "tiny@test"},
        since=chain.now,
    )
    world = World(
        chain=chain,
        genesis=genesis,
        owner=chain.treasury("owner"),
        client=chain.treasury("client"),
        stranger=chain.treasury("stranger"),
    )
    for step in steps:
        assert step(world).success
    return world


# ---- faults that many rows share


def by(sender: Callable[[World], Address]) -> Callable[[Make], Make]:
    """The honest message from somebody else."""

    def change(honest: Make) -> Make:
        def make(world: World) -> Message:
            message = honest(world)
            return Message(sender=sender(world), body=message.body, value=message.value)

        return make

    return change


def stranger(honest: Make) -> Make:
    """The honest message from a stranger."""
    return by(lambda world: world.stranger)(honest)


def worth(honest: Make, value: int) -> Make:
    """The honest message with another value."""

    def make(world: World) -> Message:
        message = honest(world)
        return Message(sender=message.sender, body=message.body, value=value)

    return make


def after(contract: Callable[[World], Address], honest: Make) -> Prepare:
    """The honest message was accepted before."""

    def prepare(world: World) -> None:
        found = deliver(world.chain, contract(world), honest(world))
        assert found.success, found.exit_code

    return prepare
