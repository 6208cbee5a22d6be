"""The history of a registry from its transactions: complete, in order, and no hostile entry hides the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_ton import node_messages, opcodes, registry_messages
from cocoon_ton.address import raw_address
from cocoon_ton.cells import begin, finish
from cocoon_ton.code import channel_code, node_code, registry_code, state_init
from cocoon_ton.emulator import SendResult
from cocoon_ton.errors import ChainProofError, ChainUnavailableError
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.proof.transactions import verify_transactions
from cocoon_ton.registry import EntryState
from cocoon_ton.registry_history import (
    RegistryHistory,
    describe_change,
    events_of,
    read_history,
)
from cocoon_ton.registry_messages import Removal
from cocoon_ton.values import AccountState, BlockRef, TransactionInfo

from .conftest import MODEL, PARAMETERS, POLICY, PRICES, RELEASE, RULE, TON, World

NEW = b"\xbb" * 32


class Recorder:
    """A `ChainReader` of the emulated registry that remembers its transactions."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found: list[TransactionInfo] = []
        send = world.chain.send_message

        def recording(message: Cell) -> SendResult:
            result = send(message)
            for done in result:
                if done.address == world.registry:
                    (info,) = verify_transactions(write_boc([done.cell]), done.address, done.lt, done.hash)
                    self.found.insert(0, info)
            return result

        world.chain.send_message = recording  # type: ignore[method-assign]

    async def head(self) -> BlockRef:
        return BlockRef(seqno=77, root_hash=bytes(32), file_hash=bytes(32), utime=self.world.chain.now)

    async def account(self, addr: Any, at: BlockRef | None = None) -> AccountState:
        view = self.world.chain.account(addr)
        status: Any = view.status
        return AccountState(
            address=addr,
            status=status,
            balance=view.balance,
            code=view.code,
            data=view.data,
            last_tx_lt=0,
            last_tx_hash=bytes(32),
            block=await self.head(),
            shard_utime=0,
        )

    async def transactions(self, addr: Any, *, limit: int, at: Any = None) -> list[TransactionInfo]:
        assert addr == self.world.registry
        return self.found[:limit]

    async def read(self) -> RegistryHistory:
        reader: Any = self
        return await read_history(reader, self.world.registry)


@pytest.fixture
def recorder(world: World) -> Recorder:
    """A registry whose transactions are seen from the first one on."""
    recorder = Recorder(world)
    assert world.deploy_registry().success
    return recorder


async def test_every_step_of_governance_is_in_the_history(recorder: Recorder) -> None:
    world = recorder.world
    model = registry_messages.set_model(NEW, "new@test")
    world.change(model)
    withdrawn = registry_messages.set_parameters(dataclasses.replace(PARAMETERS, max_nodes=9))
    world.to_registry(world.governance, registry_messages.announce_body(withdrawn))
    world.to_registry(world.governance, registry_messages.cancel_body(withdrawn.hash))
    world.to_registry(world.governance, registry_messages.remove_body(Removal.MODEL, MODEL))
    world.join()
    world.attest()
    world.to_node(world.owner, node_messages.unbond_body())
    world.change(registry_messages.set_rule(RULE))
    world.to_registry(world.governance, registry_messages.remove_body(Removal.RULE, bytes(RULE.cell.hash)))
    heir = world.chain.treasury("heir")
    world.change(registry_messages.set_governance(heir))
    world.to_registry(heir, registry_messages.accept_governance_body())
    history = await recorder.read()
    assert (history.registry, history.seqno) == (world.registry, 77)
    assert [(e.kind, e.change, e.version) for e in history.events] == [
        ("deployed", "", None),
        ("announced", "set_model", None),
        ("executed", "set_model", 1),
        ("announced", "set_parameters", None),
        ("cancelled", "", None),
        ("removed", "", 2),
        ("node_listed", "", None),
        ("node_listed", "", None),
        ("node_left", "", None),
        ("announced", "set_rule", None),
        ("executed", "set_rule", 3),
        ("removed", "", 4),
        ("announced", "set_governance", None),
        ("executed", "set_governance", 5),
        ("governance", "", 6),
    ]
    assert history.version == world.registry_state().version == 6
    announced, executed = history.events[1:3]
    content = {"model": NEW.hex(), "state": "active", "name": "new@test", "change_hash": model.hash.hex()}
    assert announced.details == content | {"ready_at": announced.time + PARAMETERS.timelock}
    assert executed.details == content
    assert executed.time >= announced.time + PARAMETERS.timelock
    assert history.events[4].details == {"change_hash": withdrawn.hash.hex()}
    assert history.events[5].details == {"what": "model", "id": MODEL.hex()}
    listed = history.events[7].details
    assert listed["node"] == bytes(world.node.hash_part).hex()
    assert listed["endpoint"] == "host:1"
    assert listed["stake"] == 10 * TON
    assert listed["binding_hash"] is not None
    assert (listed["release"], listed["rule"]) == (RELEASE.release_id.hex(), None)
    assert history.events[11].details == {"what": "rule", "id": bytes(RULE.cell.hash).hex()}
    assert history.events[-1].details == {"governance": raw_address(heir)}
    assert [e.lt for e in history.events] == sorted(e.lt for e in history.events)
    assert {e.transaction for e in history.events} <= {t.hash for t in recorder.found}


async def test_refused_messages_leave_no_trace(recorder: Recorder) -> None:
    world = recorder.world
    world.to_registry(world.stranger, registry_messages.remove_body(Removal.MODEL, MODEL))
    world.to_registry(world.stranger, registry_messages.execute_body(bytes(32)))
    assert [e.kind for e in (await recorder.read()).events] == ["deployed"]


async def test_a_gap_is_noticed(recorder: Recorder) -> None:
    world = recorder.world
    for digest in (b"\x01" * 32, b"\x02" * 32):
        world.change(registry_messages.set_model(digest, "m"))
    whole = list(recorder.found)
    assert len((await recorder.read()).events) == 5
    recorder.found = whole[:-1]
    with pytest.raises(ChainUnavailableError):
        await recorder.read()
    # the chain of hashes makes this impossible in proved transactions; the count would show it all the same
    recorder.found = whole[1:]
    with pytest.raises(ChainProofError):
        await recorder.read()
    recorder.found = []
    with pytest.raises(ChainUnavailableError):
        await recorder.read()


async def test_no_registry(world: World) -> None:
    with pytest.raises(MalformedError):
        await Recorder(world).read()


async def test_hostile_entries_do_not_hide_the_rest(recorder: Recorder) -> None:
    """Owners choose the bytes of their endpoint, governance those of names: both may be no text."""
    world = recorder.world
    good = node_messages.offered_terms_cell(endpoint="h:1", models=[MODEL], prices=PRICES, simulated=False)
    terms = Builder().store_bits(good.bits).store_ref(finish(Builder().store_bytes(b"\xff\x00")))
    terms.store_ref(good.refs[1])
    body = begin(opcodes.NODE_JOIN).store_uint(0, 64).store_coins(10 * TON).store_ref(finish(terms))
    init = state_init(node_code().cell, world.node_identity.initial_data)
    assert world.chain.send_from(world.owner, world.node, 11 * TON, finish(body), init=init).success
    name = finish(Builder().store_bytes(b"\xff"))
    bad = begin(opcodes.SET_MODEL).store_bytes(NEW).store_uint(EntryState.ACTIVE, 8).store_ref(name)
    world.change(finish(bad))
    blob = finish(Builder().store_uint(5, 8))
    odd = begin(opcodes.SET_RELEASE).store_bytes(blob.hash).store_uint(EntryState.ACTIVE, 8)
    world.change(finish(odd.store_ref(blob)))
    events = (await recorder.read()).events
    assert [e.details.get("readable") for e in events[1:]] == [False] * 5
    assert events[1].details["node"] == bytes(world.node.hash_part).hex()


CHANGES: list[tuple[Cell, str, dict[str, object]]] = [
    (
        registry_messages.set_release(RELEASE, EntryState.DEPRECATED),
        "set_release",
        {"release": RELEASE.release_id.hex(), "state": "deprecated", "name": "test-1", "tee": "tdx"},
    ),
    (
        registry_messages.set_policy(POLICY),
        "set_policy",
        {
            "tee_kinds": ["tdx"],
            "statuses": [],
            "min_tcb_evaluation": 17,
            "dev_root_hash": "00" * 32,
            "recorded": {"tdx": 10**10},
        },
    ),
    (
        registry_messages.set_codes(2, node_code().cell, channel_code().cell),
        "set_codes",
        {
            "code_version": 2,
            "node_code": node_code().code_hash.hex(),
            "channel_code": channel_code().code_hash.hex(),
        },
    ),
    (registry_messages.allow(Removal.NODE, NEW), "allow", {"what": "node", "id": NEW.hex()}),
    (
        registry_messages.upgrade(registry_code().cell),
        "upgrade",
        {"registry_code": registry_code().code_hash.hex()},
    ),
    (
        registry_messages.set_rule(RULE),
        "set_rule",
        {
            "rule": bytes(RULE.cell.hash).hex(),
            "fmspc": "0d" * 6,
            "evaluation": 19,
            "valid_until": 1_800_000_000,
            "anchor": "0b" * 32,
        },
    ),
    (registry_messages.allow(Removal.PLATFORM, NEW), "allow", {"what": "platform", "id": NEW.hex()}),
    (
        registry_messages.set_parameters(PARAMETERS),
        "set_parameters",
        {
            **{
                f.name: getattr(PARAMETERS, f.name)
                for f in dataclasses.fields(PARAMETERS)
                if f.name != "pck_code_depth"
            },
            "treasury": raw_address(PARAMETERS.treasury),
            "pck_code": PARAMETERS.pck_code.hex(),
        },
    ),
]


@pytest.mark.parametrize(("change", "name", "details"), CHANGES, ids=[name for _, name, _ in CHANGES])
def test_changes_are_described(change: Cell, name: str, details: dict[str, object]) -> None:
    assert describe_change(change) == (name, details)


@pytest.mark.parametrize(
    "change",
    [
        Cell.empty(),
        finish(Builder().store_uint(5, 32)),
        finish(begin(opcodes.SET_GOVERNANCE)),
        finish(begin(opcodes.ALLOW).store_uint(9, 8).store_bytes(NEW)),
        finish(begin(opcodes.SET_MODEL).store_bytes(NEW).store_uint(9, 8).store_ref(Cell.empty())),
        finish(begin(opcodes.ALLOW).store_uint(3, 8).store_bytes(NEW).store_uint(0, 1)),
    ],
)
def test_what_is_no_change_is_malformed(change: Cell) -> None:
    with pytest.raises(MalformedError):
        describe_change(change)


async def test_events_of_newer_code_are_shown(recorder: Recorder) -> None:
    world = recorder.world
    world.change(registry_messages.set_model(NEW, "m"))
    executed = recorder.found[0]
    (message,) = [m for m in executed.out_msgs if m.kind == "external_out"]
    strange = dataclasses.replace(message, body=finish(begin(0xC0CE1FFF).store_uint(1, 9)))
    odd = dataclasses.replace(executed, out_msgs=(strange,))
    assert [(e.kind, e.details) for e in events_of([odd])] == [("unknown", {"opcode": "c0ce1fff"})]
