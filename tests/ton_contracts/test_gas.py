"""Gas of every operation against ``ton_contracts/gas.json``, and the constants in ``fees.tolk``.

To change the snapshot, copy the numbers that the failure prints: a change of cost is to be seen in review.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pytoniq_core import Builder, Cell

from cocoon_ton import channel, node_messages, registry_messages
from cocoon_ton.cells import finish, read_dict, write_dict
from cocoon_ton.emulator import EmulatedTransaction, SendResult, TestChain

from .attest_kit import Quoted, quoted
from .conftest import MODEL, PRICES, RELEASE, TON, World, clone, deep_log, key
from .pck_kit import measure_pck

ROOT = Path(__file__).resolve().parents[2] / "ton_contracts"
TOLERANCE = 0.02


def gas(result: SendResult, *names: str) -> dict[str, int]:
    """Gas of the transactions on contracts, in order, under these names."""
    spent = [t for t in result if t.gas_used > 100]
    assert len(spent) == len(names), [(t.address, t.gas_used) for t in result]
    assert all(t.success for t in spent), result.exit_codes
    return {name: t.gas_used for name, t in zip(names, spent, strict=True)}


def measure(world: World) -> dict[str, int]:
    """One of every operation, in the order of a node's life."""
    numbers: dict[str, int] = {}
    world.deploy_registry()
    numbers |= gas(world.join(), "Node.join", "Registry.node_update new", "Node.acknowledge join")
    numbers |= gas(world.attest(), "Node.attest first", "Registry.node_update", "Node.acknowledge")
    numbers |= measure_disputes(clone(world))
    world.chain.warp(60)
    world.receipt_key = key(3)
    numbers |= gas(
        world.attest(), "Node.attest rotate", "Registry.node_update rotate", "Node.acknowledge rotate"
    )
    terms = node_messages.update_terms_body(
        endpoint="host:2", models=[MODEL], prices=dataclasses.replace(PRICES, prompt=1), simulated=False
    )
    numbers |= gas(
        world.to_node(world.owner, terms),
        "Node.update_terms",
        "Registry.node_update terms",
        "Node.acknowledge terms",
    )
    numbers |= gas(world.to_node(world.stranger, node_messages.top_up_body()), "Node.top_up")
    world.grow(1)
    numbers |= gas(world.anchor(), "Node.anchor external first")
    for size in (100, 1000, 1001, 1025):
        world.grow(size - world.tree.size)
        numbers |= gas(world.anchor(), f"Node.anchor external to {size}")
    world.grow(100)
    numbers |= gas(world.anchor_by_message(), "Node.anchor internal to 1125")
    numbers |= gas(world.open_channel(), "Channel.open")
    numbers |= gas(world.to_channel(world.client, channel.top_up_body()), "Channel.top_up")
    numbers |= gas(world.settle(TON), "Node.settle", "Channel.settle")
    numbers |= gas(
        world.settle(2 * TON, claim=world.claim(2 * TON, signer=key(1))),
        "Node.settle previous key",
        "Channel.settle again",
    )
    numbers |= gas(world.to_channel(world.client, channel.start_close_body()), "Channel.start_close")
    numbers |= gas(world.settle(3 * TON, final=True), "Node.settle final", "Channel.settle final")
    numbers |= gas(world.to_channel(world.client, channel.finish_close_body()), "Channel.finish_close")
    numbers |= gas(
        world.to_node(world.owner, node_messages.add_stake_body(TON), 2 * TON),
        "Node.add_stake",
        "Registry.node_update stake",
        "Node.acknowledge stake",
    )
    numbers |= gas(
        world.to_node(world.owner, node_messages.unbond_body()),
        "Node.unbond",
        "Registry.node_leave",
        "Node.excesses",
    )
    world.chain.warp(300_000)
    numbers |= gas(world.to_node(world.owner, node_messages.withdraw_body()), "Node.withdraw")
    change = registry_messages.set_release(dataclasses.replace(RELEASE, name="other"))
    announce = world.to_registry(world.governance, registry_messages.announce_body(change))
    numbers |= gas(announce, "Registry.announce")
    world.chain.warp(120)
    execute = world.to_registry(world.stranger, registry_messages.execute_body(change.hash))
    numbers |= gas(execute, "Registry.execute")
    remove = registry_messages.remove_body(registry_messages.Removal.RELEASE, RELEASE.release_id)
    numbers |= gas(world.to_registry(world.governance, remove), "Registry.remove")
    for name, result in measure_pck(world.chain).items():
        numbers |= gas(SendResult(transactions=result.transactions[:1]), name)
    return numbers | measure_quotes(quoted(TestChain(emulator=world.chain.emulator)))


def measure_quotes(q: Quoted) -> dict[str, int]:
    """A chain from the root, and a renewal by the known key, each into the list."""
    numbers: dict[str, int] = {}
    for case, send in (("full", q.full), ("rotate", q.attest)):
        if case == "rotate":
            q.chain.warp(60)
            q.w.receipt_key = key(3)
        names = ("Node.attested", "Registry.node_update attested", "Node.acknowledge attested")
        result = send()
        numbers |= gas(SendResult(transactions=result.transactions[1:]), *(f"{n} {case}" for n in names))
    return numbers


def measure_disputes(world: World) -> dict[str, int]:
    """Receipts that are shown, and receipts that are not."""
    numbers: dict[str, int] = {}
    world.to_node(world.stranger, node_messages.top_up_body())
    receipt = world.receipt(index=777_777)
    proof = deep_log(world, receipt, 20)
    late = world.receipt(index=1 << 20)
    world.chain.warp(3601)
    numbers |= gas(world.challenge(receipt), "Node.challenge")
    numbers |= gas(world.respond(receipt, proof), "Node.respond 20 levels")
    numbers |= gas(
        world.challenge(late),
        "Node.challenge unanchored",
        "Registry.node_leave slashed",
        "Node.excesses slashed",
    )
    world.challenge(receipt)
    world.chain.warp(1801)
    numbers |= gas(world.slash(receipt), "Node.slash")
    pair = (world.checkpoint(tree_size=9), world.checkpoint(tree_size=9, root=b"\x01" * 32))
    numbers |= gas(world.conflict(*pair), "Node.conflict")
    return numbers


def test_gas_is_what_the_snapshot_says(world: World) -> None:
    snapshot: dict[str, int] = json.loads((ROOT / "gas.json").read_text(encoding="utf-8"))
    measured = measure(world)
    far = {
        name: (snapshot.get(name), value)
        for name, value in measured.items()
        if name not in snapshot or abs(value - snapshot[name]) > TOLERANCE * snapshot[name]
    }
    assert not far, f"gas changed (snapshot, now): {far}; all: {json.dumps(measured, indent=2)}"
    assert measured.keys() == snapshot.keys()


def test_a_settlement_is_cheap(paying: World) -> None:
    result = paying.settle(TON)
    assert result[1].gas_used <= 6000


def test_an_anchor_depends_on_the_proof_and_not_on_the_batch(active: World) -> None:
    """The number of receipts in between costs nothing itself; a proof grows with its logarithm."""
    active.to_node(active.stranger, node_messages.top_up_body())
    costs: dict[int, int] = {}
    for size in (1, 2, 1024, 2048, 2049, 4095):
        active.grow(size - active.tree.size)
        hashes = len(active.anchor_order().proof)
        costs[hashes] = active.anchor().first.gas_used
    del costs[0]  # the first anchor has nothing to prove
    assert len(costs) > 2
    cheapest, dearest = min(costs), max(costs)
    assert costs[dearest] - costs[cheapest] <= 750 * (dearest - cheapest), costs


def test_checks_before_accepting_an_anchor_fit_into_the_credit(active: World) -> None:
    """10 000 gas are lent; with the previous key the checks take longest.

    A proof where none is needed is refused right after accepting, so little more is counted.
    """
    active.to_node(active.stranger, node_messages.top_up_body())
    active.chain.warp(5)
    old, active.receipt_key = active.receipt_key, key(3)
    active.attest()
    active.grow(1)
    order = dataclasses.replace(active.anchor_order(), proof=(bytes(32),))
    result = active.anchor(order, signer=old)
    assert result.first.exit_code == 313
    assert result.first.gas_used < 7500


# ---- the constants that contracts demand fees by


def constants(path: str) -> dict[str, int]:
    text = (ROOT / "contracts" / path).read_text(encoding="utf-8")
    return {name: int(value) for name, value in re.findall(r"^const (\w+) = (\d+)\b", text, re.MULTILINE)}


def size(*roots: Cell | None) -> tuple[int, int]:
    """Distinct cells and their bits, as storage is charged."""
    seen: dict[bytes, int] = {}
    stack = [root for root in roots if root is not None]
    while stack:
        cell = stack.pop()
        if cell.hash not in seen:
            seen[cell.hash] = len(cell.bits)
            stack.extend(cell.refs)
    return len(seen), sum(seen.values())


def out_size(transaction: EmulatedTransaction) -> tuple[int, int]:
    """Largest out-message: cells and bits beside the root, as forwarding is charged."""
    sizes = [size(*message.refs) for message in transaction.out_messages]
    return max((s[0] for s in sizes), default=0), max((s[1] for s in sizes), default=0)


def test_gas_constants_cover_what_was_measured() -> None:
    snapshot: dict[str, int] = json.loads((ROOT / "gas.json").read_text(encoding="utf-8"))
    limits = {
        "Channel": constants("channel/fees.tolk")["CHANNEL_GAS"],
        "Node": constants("node/fees.tolk")["NODE_GAS"],
        "Pck": constants("pck/fees.tolk")["PCK_GAS"],
        "Registry": constants("registry/fees.tolk")["REGISTRY_GAS"],
    }
    answer = constants("node/fees.tolk")["NODE_ANSWER_GAS"]
    assert all(value <= answer for name, value in snapshot.items() if name.startswith("Node.acknowledge"))
    for name, value in snapshot.items():
        if name in ("Node.slash", "Node.conflict"):
            assert value <= constants("node/fees.tolk")["SLASH_GAS"], name
        elif not re.search("anchor|challenge|respond", name):
            assert value <= limits[name.partition(".")[0]], name


def test_attesting_is_paid_for_with_as_many_keys_as_are_kept(active: World) -> None:
    dearest = 0
    for number in range(129):
        active.chain.warp(1)
        active.receipt_key = key(2 + number)
        result = active.attest()
        if not result.success:
            break
        dearest = max(dearest, result.first.gas_used)
    assert len(active.node_state().retired.keys) >= 64
    snapshot: dict[str, int] = json.loads((ROOT / "gas.json").read_text(encoding="utf-8"))
    verified = snapshot["Node.attested rotate"] - snapshot["Node.attest rotate"]
    assert dearest + verified <= constants("node/fees.tolk")["NODE_GAS"], (dearest, verified)


@pytest.mark.parametrize("levels", [0, 1, 2, 3, 4, 7, 20, 21, 40, 63])
def test_the_price_of_an_answer_covers_its_gas(active: World, levels: int) -> None:
    fees = constants("node/fees.tolk")
    active.to_node(active.stranger, node_messages.top_up_body())
    receipt = active.receipt(index=(1 << levels) // 3)
    proof = deep_log(active, receipt, levels)
    active.chain.warp(3601)
    assert active.challenge(receipt).success
    result = active.respond(receipt, proof)
    assert result.success
    limit = fees["RESPOND_GAS"] + 3 * (max(0, levels - 1) // 3 + 1) * fees["INCLUSION_HASH_GAS"]
    assert result.first.gas_used <= limit
    if levels <= 20:
        assert result.first.gas_used <= 20_000


def test_a_deposit_pays_for_an_answer(active: World) -> None:
    """Half of it covers everything that a wallet spends on an answer of 20 levels, and 5 000 gas of its own."""
    active.to_node(active.stranger, node_messages.top_up_body())
    receipt = active.receipt(index=777_777)
    proof = deep_log(active, receipt, 20)
    active.chain.warp(3601)
    active.challenge(receipt)
    (challenge,) = active.node_state().challenges
    owner = active.chain.balance(active.owner)
    assert active.respond(receipt, proof).success
    gain = active.chain.balance(active.owner) - owner
    body = node_messages.respond_body(receipt_hash=receipt.hash, proof=proof)
    cells, bits = size(body)
    forward = 400_000 + 400 * bits + 40_000 * cells  # prices of the test configuration
    assert gain >= forward + 5_000 * 400
    assert gain < challenge.deposit // 2


@pytest.mark.parametrize("anchors", [1, 15, 130])
def test_a_challenge_costs_a_little_more_for_every_ten_anchors_since(active: World, anchors: int) -> None:
    active.to_node(active.stranger, node_messages.top_up_body(), 20 * TON)
    receipt = active.issue(anchor_by=active.chain.now + 1)
    for _ in range(anchors):
        active.anchor()
        active.grow(1)
        active.chain.warp(30)
    result = active.challenge(receipt)
    assert result.success
    assert result.first.gas_used <= 15_200 + 480 * (anchors // 10)


def least(world: World, send: Callable[[World, int], SendResult]) -> int:
    """Least value (to 0.0001 TON) that the node accepts a message with."""
    low, high = 0, 2 * TON
    while high - low > TON // 10_000:
        middle = (low + high) // 2
        if send(fork(world), middle).first.success:
            high = middle
        else:
            low = middle
    return high


def fork(world: World) -> World:
    """The same node and registry, log included, on a chain of their own."""
    other = clone(world)
    other.tree = world.tree
    return other


@pytest.mark.parametrize("case", ["challenge", "unanchored", "respond", "slash", "conflict"])
def test_whoever_disputes_pays_for_it_and_not_the_node(active: World, case: str) -> None:
    """At the least value that is accepted, the working balance loses nothing but storage fees."""
    active.to_node(active.stranger, node_messages.top_up_body())
    receipt = active.receipt(index=777_777)
    proof = deep_log(active, receipt, 20)
    late = active.receipt(index=1 << 20)
    active.chain.warp(3601)
    if case in ("respond", "slash"):
        active.challenge(receipt)
    if case == "slash":
        active.chain.warp(1801)
    pair = (active.checkpoint(tree_size=9), active.checkpoint(tree_size=9, root=b"\x01" * 32))
    sends: dict[str, Callable[[World, int], SendResult]] = {
        "challenge": lambda w, v: w.challenge(receipt, value=v),
        "unanchored": lambda w, v: w.challenge(late, value=v),
        "respond": lambda w, v: w.respond(receipt, proof, value=v),
        "slash": lambda w, v: w.slash(receipt, value=v),
        "conflict": lambda w, v: w.conflict(*pair, value=v),
    }
    world = fork(active)
    before = world.chain.balance(world.node) - world.node_state().held
    result = sends[case](world, least(active, sends[case]))
    assert result.success, result.exit_codes
    after = world.chain.balance(world.node) - world.node_state().held
    assert after >= before - TON // 2000


@pytest.mark.parametrize("leaves", [1, 7, 63, 64, 65, 511, 512, 2047])
def test_the_price_of_an_anchor_covers_its_gas(active: World, leaves: int) -> None:
    fees = constants("node/fees.tolk")
    active.to_node(active.stranger, node_messages.top_up_body())
    active.grow(leaves)
    active.anchor()
    active.grow(max(1, leaves - 3))
    order = active.anchor_order()
    used = active.anchor(order).first.gas_used
    depth = max(0, (len(order.proof) - 1) // 3)
    assert used <= fees["ANCHOR_GAS"] + 3 * (depth + 1) * fees["ANCHOR_HASH_GAS"]


def test_storage_constants_cover_the_accounts(paying: World) -> None:
    paying.to_node(paying.stranger, node_messages.top_up_body(), 20 * TON)
    for number in range(12):
        paying.chain.warp(5)
        paying.receipt_key = key(3 + number)
        paying.attest()
    for _ in range(300):
        paying.chain.warp(20)
        paying.grow(1)
        assert paying.anchor().success
    for address, path, prefix in (
        (paying.channel, "channel/fees.tolk", "CHANNEL"),
        (paying.node, "node/fees.tolk", "NODE"),
        (paying.registry, "registry/fees.tolk", "REGISTRY"),
    ):
        account = paying.chain.account(address)
        cells, bits = size(account.code, account.data)
        limits = constants(path)
        assert cells <= limits[f"{prefix}_CELLS"], f"{prefix}: {cells} cells"
        assert bits <= limits[f"{prefix}_BITS"], f"{prefix}: {bits} bits"


def test_message_constants_cover_the_messages(paying: World) -> None:
    paying.chain.warp(5)
    paying.receipt_key = key(3)
    results = (
        paying.attest(),
        paying.settle(TON),
        paying.to_node(paying.owner, node_messages.unbond_body()),
    )
    node, registry = constants("node/fees.tolk"), constants("registry/fees.tolk")
    for result in results:
        for transaction in result:
            cells, bits = out_size(transaction)
            if transaction.address == paying.node:
                assert cells <= node["NODE_MESSAGE_CELLS"], (cells, bits)
                assert bits <= node["NODE_MESSAGE_BITS"], (cells, bits)
            if transaction.address == paying.registry:
                assert cells <= registry["REGISTRY_EVENT_CELLS"], (cells, bits)
                assert bits <= registry["REGISTRY_EVENT_BITS"], (cells, bits)


def test_a_thousand_nodes(active: World) -> None:
    """An update in a list of 1 000 stays within the constants, and so does the room that it takes."""
    limits = constants("registry/fees.tolk")
    account = active.chain.account(active.registry)
    assert account.data is not None
    before = size(account.code, account.data)
    full = crowded(account.data, 1000)
    cells, bits = size(account.code, full)
    assert cells - before[0] <= 1000 * limits["LISTING_CELLS"], (cells - before[0]) / 1000
    assert bits - before[1] <= 1000 * limits["LISTING_BITS"], (bits - before[1]) / 1000
    active.chain.add_account(active.registry, 100 * TON, code=account.code, data=full)
    active.chain.warp(5)
    result = active.attest()
    assert result.success
    assert result[1].gas_used <= limits["REGISTRY_GAS"]
    state = active.registry_state()
    assert len(state.nodes) == 1001
    assert state.nodes[bytes(active.node.hash_part)].updated_at == active.chain.now


def crowded(data: Cell, count: int) -> Cell:
    """Registry data with `count` copies of its node's entry under other ids, none sharing a cell."""
    nodes = read_dict(
        data.refs[2], 256, lambda r: (r.uint(32), r.uint(32), r.ref(), _present(r.maybe_ref()))
    )
    (own,) = nodes
    listed, updated, entry, claim = nodes[own]
    for number in range(count):
        id = own ^ (number + 1) << 240 | number
        nodes[id] = (listed, updated, _copied(entry, number), _copied(claim, number))

    def listing(value: tuple[int, int, Cell, Cell]) -> Cell:
        builder = Builder().store_uint(value[0], 32).store_uint(value[1], 32).store_ref(value[2])
        return finish(builder.store_maybe_ref(value[3]))

    root = write_dict(nodes, 256, listing)
    assert root is not None
    # tag, global_id and version, governance, no next governance: the counter stands behind 32+32+32+267+2 bits
    bits = data.bits.copy()
    at = 32 + 32 + 32 + 267 + 2
    counted = Builder().store_bits(bits[:at]).store_uint(count + 1, 16).store_bits(bits[at + 16 :])
    return finish(counted.store_ref(data.refs[0]).store_ref(data.refs[1]).store_ref(root))


def _present(cell: Cell | None) -> Cell:
    assert cell is not None
    return cell


def _copied(cell: Cell, number: int) -> Cell:
    """The same bits over other cells."""
    builder = Builder().store_bits(cell.bits)
    for ref in cell.refs:
        builder.store_ref(_marked(ref, number))
    return finish(builder)


def _marked(cell: Cell, number: int) -> Cell:
    """The same cells, all the way down, with other first bytes: no two nodes share one."""
    builder = Builder().store_bytes(b"%03d" % number).store_bits(cell.bits[24:])
    for ref in cell.refs:
        builder.store_ref(_marked(ref, number))
    return finish(builder)
