"""What people do in `economics.py`: honesty, and each way to cheat, on the contracts of `economics_world.py`.

Every function plays one life from the first deposit to the last withdrawal, so that at the end all money is back in
wallets and a gain is a difference of balances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from economics_world import DAY, TON, EconomyWorld, PlayError  # type: ignore[import-not-found]

from cocoon_attestation.receipt import Receipt
from cocoon_ton import opcodes, registry_messages
from cocoon_ton.cells import Reader
from cocoon_ton.emulator import SendResult
from cocoon_ton.node import BondState

GRIEF_CHALLENGES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Who has how much more at the end, nanoton."""

    gains: Mapping[str, int]
    penalties: int = 0
    """Carried out."""
    answered: int = 0
    """Challenges."""
    days: float
    """From the first deposit to the last withdrawal."""


@dataclass(slots=True)
class _Life:
    """Bookkeeping of one play."""

    world: EconomyWorld
    began: int
    penalties: int = 0
    answered: int = 0

    def challenged(self, result: SendResult) -> None:
        """Count the penalties that a message caused."""
        for transaction in result:
            for body in transaction.events:
                self.penalties += Reader(body).uint(32) == opcodes.NODE_SLASHED

    def over(self) -> Outcome:
        """The result. Raises `PlayError` if money appeared or disappeared."""
        if not self.world.conserved():
            raise PlayError("money appeared or disappeared")
        return Outcome(
            gains=self.world.gains(),
            penalties=self.penalties,
            answered=self.answered,
            days=round((self.world.chain.now - self.began) / DAY, 1),
        )


def _begin(world: EconomyWorld, rounds: int | None = None) -> _Life:
    life = _Life(world, world.chain.now)
    world.join()
    world.work(world.assumptions.turn_round if rounds is None else rounds)
    return life


def _leave(life: _Life) -> Outcome:
    """Collect, unbond, wait, take everything; the clients get their rest with the last settlement."""
    life.world.settle(final=True)
    if life.world.state.bond is BondState.ACTIVE:
        life.world.unbond()
    life.world.withdraw()
    return life.over()


def honest(world: EconomyWorld) -> Outcome:
    """Work all the time, then leave."""
    return _leave(_begin(world, world.assumptions.rounds))


def leave_early(world: EconomyWorld) -> Outcome:
    """Work until the turn, then leave properly: what vanishing is compared with."""
    return _leave(_begin(world))


def _round_without_anchor(world: EconomyWorld, audited: int) -> list[Receipt]:
    """Answers whose receipts are not anchored; `audited` of them are held by people who check."""
    a = world.assumptions
    if world.chain.now + a.anchor_every >= world.bound_until:
        world.attest()
    world.chain.warp(a.anchor_every // 2)
    world.answer(a.answers_per_round - audited)
    receipts = [world.receipt() for _ in range(audited)]
    world.chain.warp(a.anchor_every - a.anchor_every // 2)
    return receipts


def withhold(world: EconomyWorld, audited: int | None = None) -> Outcome:
    """For a day after the turn, answer and keep the receipts out of the anchored log; then be honest again.

    A log only grows, so to withhold one receipt is to withhold all after it. `audited` of the day's receipts are
    checked (default: the assumed rate).
    """
    a, life = world.assumptions, _begin(world)
    rounds = DAY // a.anchor_every
    count = round(a.audit_rate * rounds * a.answers_per_round) if audited is None else audited
    held: list[Receipt] = []
    for number in range(rounds):
        share = count * (number + 1) // rounds - count * number // rounds
        held += _round_without_anchor(world, share)
    world.chain.warp(world.parameters.anchor_within + 60)
    for receipt in held:
        life.challenged(world.challenge("auditor", receipt))
    left = a.rounds - a.turn_round - rounds
    if world.state.bond is BondState.ACTIVE and left > 0:
        world.anchor()
        world.work(left)
    return _leave(life)


def overcharge(world: EconomyWorld, rounds: int | None = None) -> Outcome:
    """Record a key of one's own and claim all that clients have signed for; they see it and leave.

    Possible only where the registry lets a kind of TEE join on a recorded digest. `rounds`: when (default: the turn).
    """
    life = _begin(world, rounds)
    world.settle()
    world.attest()  # a key is a key to the contract: what is behind it, clients appraise
    world.settle(extra=world.assumptions.unused_cap)
    world.unbond()
    world.withdraw()
    world.close_channels()
    return life.over()


def overcharge_at_the_end(world: EconomyWorld) -> Outcome:
    """The same as the last thing before leaving anyway."""
    return overcharge(world, world.assumptions.rounds)


def debug_node(world: EconomyWorld) -> Outcome:
    """Join with an enclave that can be looked into. No client's appraisal accepts its evidence: nobody comes."""
    life = _begin(world, 0)
    for _ in range(world.assumptions.days - 1):
        world.chain.warp(DAY - 60)
        world.attest()
    world.unbond()
    world.withdraw()
    world.close_channels()
    return life.over()


def vanish(world: EconomyWorld) -> Outcome:
    """Serve one more round after the turn, collect, and be gone; come back for what is left of the stake."""
    a, life = world.assumptions, _begin(world)
    held = _round_without_anchor(world, max(1, round(a.audit_rate * a.answers_per_round)))
    world.settle()
    world.chain.warp(world.parameters.anchor_within + 60)
    for receipt in held:
        life.challenged(world.challenge("auditor", receipt))
    world.chain.warp(world.parameters.challenge_window)
    if world.state.bond is BondState.ACTIVE:
        world.unbond()
    world.withdraw()
    world.close_channels()
    return life.over()


def grief(world: EconomyWorld) -> Outcome:
    """An attacker challenges an honest node for receipts that it has anchored; the host answers."""
    a, life = world.assumptions, _begin(world)
    world.chain.warp(a.anchor_every // 2)
    receipts = [world.receipt() for _ in range(min(GRIEF_CHALLENGES, a.answers_per_round))]
    world.answer(a.answers_per_round - len(receipts))
    world.chain.warp(a.anchor_every - a.anchor_every // 2)
    world.anchor()
    world.work(2)  # until the receipts are due
    for receipt in receipts:
        life.challenged(world.challenge("attacker", receipt))
    life.answered = world.respond()
    world.work(a.rounds - a.turn_round - 3)
    return _leave(life)


def _captured(world: EconomyWorld, answer: Callable[[EconomyWorld, _Life], None]) -> Outcome:
    """Governance changes the parameters against hosts as far as they go, and challenges everything it can."""
    life = _begin(world)
    own = dataclasses.replace(
        world.parameters,
        penalty=10**6 * TON,
        bounty_permille=500,
        response_window=60,
        challenge_window=30 * DAY,
        treasury=world.people["attacker"],
    )
    change = registry_messages.set_parameters(own)
    world.send("governance", world.genesis.address, registry_messages.announce_body(change))
    rounds = max(world.assumptions.rounds - world.assumptions.turn_round, 4)
    for _ in range(rounds):  # everybody can see it coming for the length of the timelock
        world.work(1)
    world.chain.warp(world.parameters.timelock)
    world.send("governance", world.genesis.address, registry_messages.execute_body(change.hash))
    world.attest()  # the node learns the parameters
    receipts = [world.receipt() for _ in range(4)]
    world.anchor()
    world.chain.warp(world.parameters.anchor_within + 60)
    for receipt in receipts:
        life.challenged(world.challenge("attacker", receipt))
    answer(world, life)
    return _leave(life)


def capture_alert(world: EconomyWorld) -> Outcome:
    """Governance is captured; the host answers within the minute that is left to it."""

    def answer(world: EconomyWorld, life: _Life) -> None:
        world.chain.warp(30)
        life.answered = world.respond()

    return _captured(world, answer)


def capture_asleep(world: EconomyWorld) -> Outcome:
    """Governance is captured; the host does not answer within a minute."""

    def answer(world: EconomyWorld, life: _Life) -> None:
        world.chain.warp(61)
        life.penalties += world.slash("attacker")

    return _captured(world, answer)


def capture_left(world: EconomyWorld) -> Outcome:
    """Governance is captured; the host leaves when the change is announced."""
    life = _begin(world)
    change = registry_messages.set_parameters(
        dataclasses.replace(world.parameters, penalty=10**6 * TON, response_window=60)
    )
    world.send("governance", world.genesis.address, registry_messages.announce_body(change))
    return _leave(life)
