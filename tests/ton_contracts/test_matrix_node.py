"""Negative matrix of Node: operation x fault."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
from pytoniq_core import Address

from cocoon_attestation.checkpoint import sign_checkpoint
from cocoon_attestation.receipt import Receipt
from cocoon_ton import node_messages, opcodes
from cocoon_ton.cells import begin, finish
from cocoon_ton.emulator import Emulator, TestChain

from .attest_kit import Quoted, platform_cell, quoted, quoted_node, told
from .conftest import MODEL, PARAMETERS, POLICY, PRICES, RELEASE, TON, World, key
from .matrix_kit import (
    OUT_OF_GAS,
    Harmless,
    Make,
    Message,
    NotApplicable,
    Refused,
    Row,
    accepted,
    after,
    by,
    cells,
    check,
    copied,
    operations,
    stranger,
    worth,
)

LITTLE = TON // 250
"""Buys some gas, and pays for no message."""
DROP = TON // 10_000
NOT_SIGNED = NotApplicable("carries no signed record")
OWNERS_WORD = NotApplicable("nothing signed travels: the owner's contract acts on this chain only")
ANYBODY = NotApplicable("anybody may: what counts is what the message proves")
NO_TIME = NotApplicable("has no time of its own")
again = functools.partial(after, lambda world: world.node)


def owner(body: Make) -> tuple[Refused, ...]:
    return tuple(Refused(300, change(body)) for change in (stranger, by(lambda w: w.registry)))


def simple(world: World, name: str) -> Message:
    bodies = {
        "unbond": node_messages.unbond_body, "withdraw": node_messages.withdraw_body,
        "top_up": node_messages.top_up_body,
    }  # fmt: skip
    return Message(sender=world.owner, body=bodies[name]())


unbond, withdraw, top_up = (functools.partial(simple, name=n) for n in ("unbond", "withdraw", "top_up"))


def join(world: World) -> Message:
    body = node_messages.join_body(
        stake=10 * TON, endpoint="a:1", models=[MODEL], prices=PRICES, simulated=True
    )
    return Message(sender=world.owner, body=body, value=11 * TON)


def left(world: World) -> None:
    again(unbond)(world)
    world.chain.warp(10 * 86_400)


def idle(world: World) -> None:
    left(world)
    again(withdraw)(world)


def attest(world: World, until: int = 3600, **changes: object) -> Message:
    body = node_messages.attest_body(
        key_binding=world.binding(**changes).to_boc(),
        evidence_digest=b"\x09" * 32,
        attested_until=world.chain.now + until,
    )
    return Message(sender=world.owner, body=body)


def verified(world: World, **changes: object) -> Message:
    """A genuine Pck contract says that a quote speaks for this binding."""
    return says(quoted_node(world, **changes))


def says(q: Quoted, sender: Address | None = None, **changes: Any) -> Message:
    return Message(sender=sender or q.address, body=told(q, **changes))


def other_root(world: World) -> Message:
    """The genuine contract for the same certificate, which checked the chain from another certificate on."""
    q = quoted_node(world)
    identity = q.identity(q.issuer)
    platform = platform_cell(dataclasses.replace(q.state, identity=identity))
    return says(q, identity.address, platform=platform)


def other_data(world: World) -> Message:
    """A genuine contract that would speak for a certificate which is not its own."""
    q = quoted_node(world)
    identity = dataclasses.replace(q.identity(), leaf_hash=b"\x01" * 32)
    return says(q, platform=platform_cell(dataclasses.replace(q.state, identity=identity)))


def old_chain(world: World) -> Message:
    """The certificates that Pck checked have ended."""
    q = quoted_node(world)
    return says(q, platform=platform_cell(dataclasses.replace(q.state, not_after=world.chain.now)))


def old_rule(world: World) -> Message:
    q = quoted_node(world)
    rule = dataclasses.replace(q.rule, valid_until=world.chain.now)
    return says(q, statement=q.statement(rule=rule))


def first_binding(world: World) -> Message:
    since = world.genesis.since
    return verified(world, not_before=since, not_after=since + 86_400, seal_key_hash=b"\x55" * 32)


def rotated(world: World) -> None:
    """The first binding was the node's, and a newer one took its place."""
    again(first_binding)(world)
    world.chain.warp(100)
    again(verified)(world)


def terms(world: World) -> Message:
    body = node_messages.update_terms_body(endpoint="b:2", models=[MODEL], prices=PRICES, simulated=True)
    return Message(sender=world.owner, body=body)


def stake(world: World) -> Message:
    return Message(sender=world.owner, body=node_messages.add_stake_body(TON), value=2 * TON)


def anchor(world: World, *, signer: int = 1, **changes: object) -> Message:
    point = world.checkpoint(**changes)
    body = node_messages.anchor_body(checkpoint=sign_checkpoint(point, key(signer)), proof=())
    return Message(sender=world.stranger, body=body)


def settle(world: World, *, signer: int = 1, **changes: object) -> Message:
    body = node_messages.settle_body(
        claim=world.claim(TON, key(signer), **changes), authorization=world.authorization(TON)
    )
    return Message(sender=world.owner, body=body)


def receipt(world: World) -> Receipt:
    """Always the same one: the first of the log."""
    since = world.genesis.since
    return world.receipt(index=0, issued_at=since, anchor_by=since + PARAMETERS.anchor_within)


def anchored(world: World) -> None:
    world.tree.append(receipt(world).hash)
    again(anchor)(world)


def due(world: World) -> None:
    """The receipt is in the log and may be challenged."""
    anchored(world)
    world.chain.warp(PARAMETERS.anchor_within + 60)


def challenge(world: World, signer: int = 1) -> Message:
    body = node_messages.challenge_body(world.signed(receipt(world), key(signer)))
    return Message(sender=world.client, body=body)


def challenged(world: World) -> None:
    due(world)
    again(challenge)(world)


def missed(world: World) -> None:
    challenged(world)
    late(world)


def late(world: World) -> None:
    world.chain.warp(PARAMETERS.response_window + 1)


def respond(world: World) -> Message:
    body = node_messages.respond_body(receipt_hash=receipt(world).hash, proof=())
    return Message(sender=world.stranger, body=body)


def slash(world: World) -> Message:
    return Message(sender=world.stranger, body=node_messages.slash_body(receipt(world).hash))


def conflict(world: World, *, signer: int = 1, **changes: object) -> Message:
    first, second = (world.checkpoint(tree_size=5, root=bytes([n]) * 32, **changes) for n in (1, 2))
    body = node_messages.conflict_body(
        first=sign_checkpoint(first, key(signer)), first_binding=world.binding_hash,
        second=sign_checkpoint(second, key(signer)), second_binding=world.binding_hash,
    )  # fmt: skip
    return Message(sender=world.stranger, body=body)


def acknowledge(world: World) -> Message:
    builder = begin(opcodes.REGISTRY_ACKNOWLEDGE).store_uint(0, 64 + 256)
    return Message(sender=world.registry, body=finish(builder.store_ref(PARAMETERS.cell)))


def excesses(world: World) -> Message:
    return Message(sender=world.registry, body=finish(begin(opcodes.EXCESSES).store_uint(0, 64)))


def earlier(seconds: int) -> Callable[[World], None]:
    def back(world: World) -> None:
        world.chain.now -= seconds

    return back


def row(honest: Make, **changes: Any) -> Row:
    """A row in which every fault but the named ones does not exist, because nothing signed travels."""
    same: dict[str, Any] = {
        "sender": ANYBODY, "signature": NOT_SIGNED, "replay": NO_TIME, "expiry": NO_TIME,
        "value": Refused(317, worth(honest, LITTLE)), "network": OWNERS_WORD,
    }  # fmt: skip
    return Row(honest=honest, **(same | changes))


MATRIX = {
    "NodeTopUp": row(
        top_up,
        replay=NotApplicable("a second gift is another gift, with its own money"),
        value=Refused(OUT_OF_GAS, worth(top_up, DROP)),
    ),
    "NodeJoin": row(
        join,
        prepare=idle,
        sender=owner(join),
        replay=Refused(304, prepare=again(join)),
        value=Refused(316, worth(join, 10 * TON + LITTLE)),
        network=NotApplicable(
            "the registry refuses a foreign node and its stake returns: RegistryNodeUpdate"
        ),
    ),
    "NodeAttest": row(
        attest,
        sender=owner(attest),
        signature=NotApplicable("the owner stands by a recorded digest; quotes are PckAttested"),
        replay=NotApplicable("the same binding again renews its evidence"),
        expiry=(
            Refused(306, lambda w: attest(w, not_before=w.chain.now - 100, not_after=w.chain.now - 1)),
            Refused(307, lambda w: attest(w, until=-1)),
            Refused(
                308, lambda w: attest(w, not_before=w.genesis.since - 10, not_after=w.chain.now + 7200)
            ),
        ),
        network=(
            Refused(302, lambda w: attest(w, global_id=-239)),
            Refused(303, lambda w: attest(w, node=b"\x01" * 32)),
            Refused(302, abroad=True),
        ),
    ),
    "PckAttested": row(
        verified,
        sender=(
            *(
                Refused(331, by(who)(verified))
                for who in (
                    lambda w: w.stranger,
                    lambda w: w.owner,
                    lambda w: w.registry,
                    lambda w: w.node,
                    lambda w: Address((-1, quoted_node(w).address.hash_part)),
                )
            ),
            Refused(300, lambda w: says(quoted_node(w), requester=w.stranger)),
        ),
        signature=(
            Refused(331, other_root),
            Refused(331, other_data),
            Refused(332, lambda w: says(quoted_node(w), release_id=RELEASE.release_id)),
        ),
        replay=(Harmless(prepare=again(verified)), Refused(308, first_binding, prepare=rotated)),
        expiry=(
            Refused(306, lambda w: verified(w, not_before=w.chain.now - 100, not_after=w.chain.now)),
            Refused(306, lambda w: verified(w, not_before=w.chain.now + 301, not_after=w.chain.now + 3600)),
            Refused(306, lambda w: verified(w, not_after=w.chain.now + 86_401)),
            Refused(307, old_chain),
            Refused(307, old_rule),
        ),
        network=(
            Refused(302, lambda w: verified(w, global_id=-239)),
            Refused(303, lambda w: verified(w, node=b"\x01" * 32)),
            Refused(302, abroad=True),
        ),
    ),
    "NodeUpdateTerms": row(
        terms, sender=owner(terms), replay=NotApplicable("the same terms again change nothing that counts")
    ),
    "NodeAnchor": row(
        anchor,
        prepare=lambda w: w.tree.append(receipt(w).hash),
        signature=Refused(310, lambda w: anchor(w, signer=9)),
        replay=Refused(311, prepare=again(anchor)),
        network=(
            Refused(302, lambda w: anchor(w, tree_size=9, root=b"\x01" * 32, global_id=-239)),
            Refused(303, lambda w: anchor(w, tree_size=9, root=b"\x01" * 32, node=b"\x01" * 32)),
        ),
    ),
    "NodeSettle": row(
        settle,
        sender=owner(settle),
        signature=Refused(310, lambda w: settle(w, signer=9)),
        replay=NotApplicable("the node passes it on and the channel refuses: ChannelSettle"),
        expiry=NotApplicable("the authorization expires at the channel: ChannelSettle"),
        network=(Refused(302, lambda w: settle(w, global_id=-239)), Refused(302, abroad=True)),
    ),
    "NodeUnbond": row(unbond, sender=owner(unbond), replay=Refused(304, prepare=again(unbond))),
    "NodeWithdraw": row(
        withdraw,
        prepare=left,
        sender=owner(withdraw),
        replay=NotApplicable("a second withdrawal takes the reserve that the first one left"),
        expiry=Refused(315, prepare=earlier(10 * 86_400)),
        value=Refused(OUT_OF_GAS, worth(withdraw, DROP)),
    ),
    "NodeAddStake": row(
        stake,
        sender=owner(stake),
        replay=NotApplicable("a second stake is another stake, with its own money"),
        value=Refused(316, worth(stake, TON + LITTLE)),
    ),
    "NodeChallenge": row(
        challenge,
        prepare=due,
        signature=Refused(310, lambda w: challenge(w, signer=9)),
        replay=Refused(321, prepare=again(challenge)),
        expiry=(
            Refused(319, prepare=earlier(3600)),
            Refused(320, prepare=lambda w: w.chain.warp(3600 + PARAMETERS.challenge_window + 60)),
        ),
        network=NotApplicable("the receipt names a key binding, and that names network and node"),
    ),
    "NodeRespond": row(
        respond,
        prepare=challenged,
        replay=Refused(323, prepare=again(respond)),
        expiry=Refused(325, prepare=late),
    ),
    "NodeSlash": row(
        slash,
        prepare=missed,
        replay=Refused(323, prepare=again(slash)),
        expiry=Refused(326, prepare=earlier(PARAMETERS.response_window)),
    ),
    "NodeConflict": row(
        conflict,
        signature=Refused(310, lambda w: conflict(w, signer=9)),
        replay=Refused(327, prepare=again(conflict)),
        network=Refused(302, lambda w: conflict(w, global_id=-239)),
    ),
    "RegistryAcknowledge": row(
        acknowledge,
        sender=(Refused(301, stranger(acknowledge)), Refused(301, by(lambda w: w.owner)(acknowledge))),
        replay=Harmless(prepare=again(acknowledge)),
        value=Refused(OUT_OF_GAS, worth(acknowledge, DROP)),
    ),
    "Excesses": row(
        excesses,
        replay=NotApplicable("what comes back adds to the working balance each time"),
        value=Refused(OUT_OF_GAS, worth(excesses, DROP)),
    ),
}


@pytest.fixture(scope="module")
def template(emulator: Emulator) -> World:
    """An active node with a recorded digest; the Pck contract of its platform is there too."""
    made = quoted(TestChain(emulator=emulator), policy=POLICY)
    assert made.w.attest().success
    assert made.verify().success
    return made.w


@pytest.fixture
def active(template: World) -> World:
    """A copy for each test."""
    return copied(template)


@pytest.mark.parametrize(("operation", "fault"), cells(MATRIX))
def test_matrix(active: World, operation: str, fault: str) -> None:
    check(active, active.node, MATRIX[operation], fault)


@pytest.mark.parametrize("operation", MATRIX)
def test_the_honest_message_is_accepted(active: World, operation: str) -> None:
    accepted(active, active.node, MATRIX[operation])


def test_every_operation_has_its_row() -> None:
    assert sorted(MATRIX) == sorted(operations("node", "NodeMessage", "Node.tolk"))
