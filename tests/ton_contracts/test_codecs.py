"""Python codecs against ``cocoon.tlb``, which is generated from the contracts' own sources."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Builder, Cell, HashMap, MessageAny, Slice, StateInit

from cocoon_attestation.anchor import Anchor, proof_cell
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.checkpoint import Checkpoint, sign_checkpoint
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.payment import Authorization, Claim, PriceList
from cocoon_ton import channel, node, node_messages, opcodes, registry
from cocoon_ton import registry_messages as messages
from cocoon_ton.cells import (
    Reader,
    finish,
    read_dict,
    read_text,
    record_to_ton,
    ton_to_record,
    write_dict,
    write_text,
)
from cocoon_ton.channel import ChannelIdentity
from cocoon_ton.code import contract_address, state_init
from cocoon_ton.node import NodeIdentity, RegistryParameters
from cocoon_ton.proof.boc import write_boc

from .conftest import MODEL, PARAMETERS, POLICY, PRICES, RELEASE, RULE, World, key

PARAMETERS_BOC = write_boc([PARAMETERS.cell])
TLB = (Path(__file__).resolve().parents[2] / "ton_contracts" / "cocoon.tlb").read_text(encoding="utf-8")


def _load() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Type name -> (tag, fields)."""
    found = {}
    text = re.sub(r"//.*", "", TLB)
    for declaration in text.split(";"):
        if not declaration.strip():
            continue
        left, _, name = declaration.strip().rpartition("=")
        constructor, _, fields = left.strip().partition(" " if " " in left.split("\n")[0] else "\n")
        tag = constructor.partition("#")[2].strip()
        pairs = re.findall(r"(\w+):(\([^)]*\)|\S+)", fields)
        found[name.strip()] = (tag, pairs)
    return found


DECLARED = _load()


def encode(kind: str, values: dict[str, Any]) -> Cell:
    """A cell of TL-B type `kind`; nested cells are given as cells."""
    builder = Builder()
    _store_type(builder, kind, values)
    return finish(builder)


def _store_type(builder: Builder, kind: str, values: dict[str, Any]) -> None:
    tag, fields = DECLARED[kind]
    if tag:
        builder.store_uint(int(tag, 16), 32)
    assert values.keys() == {name for name, _ in fields}, kind
    for name, field in fields:
        _store(builder, field, values[name])


def _store(builder: Builder, field: str, value: Any) -> None:
    if match := re.fullmatch(r"(u?)int(\d+)", field):
        store = builder.store_uint if match[1] else builder.store_int
        store(int.from_bytes(value) if isinstance(value, bytes) else value, int(match[2]))
    elif match := re.fullmatch(r"bits(\d+)", field):
        assert len(value) * 8 == int(match[1])
        builder.store_bytes(value)
    elif field == "Coins":
        builder.store_coins(value)
    elif field == "Bool":
        builder.store_bool(value)
    elif field in ("MsgAddressInt", "MsgAddress"):
        builder.store_address(value)
    elif field.startswith("^"):
        builder.store_ref(value)
    elif field.startswith(("(Maybe", "(HashmapE")):
        builder.store_maybe_ref(value)
    else:
        _store_type(builder, field, value)


BYTES32 = st.binary(min_size=32, max_size=32)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I32 = st.integers(-(2**31), 2**31 - 1)
COINS = st.one_of(st.just(0), st.integers(0, 2**120 - 1), st.integers(0, 10**12))
ADDRESS = BYTES32.map(lambda raw: Address((0, raw)))
PRICE_LISTS = st.builds(PriceList, prompt=U64, cached=U64, completion=U64)
few = settings(max_examples=40, deadline=None)


# ---- records that are signed: the same bytes in the contracts and in cocoon_attestation


@few
@given(st.tuples(*[BYTES32] * 6), U32, U32, I32)
def test_key_binding(digests: tuple[bytes, ...], not_before: int, not_after: int, global_id: int) -> None:
    names = ("node", "seal_key_hash", "receipt_key", "tls_spki_hash", "config_hash", "release_id")
    values: dict[str, Any] = dict(zip(names, digests, strict=True))
    binding = KeyBinding(**values, not_before=not_before, not_after=not_after, global_id=global_id)
    rest = {k: values[k] for k in names[3:]}
    inner = encode(
        "KeyBindingRest", rest | {"not_before": not_before, "not_after": not_after, "global_id": global_id}
    )
    assert encode("KeyBinding", {k: values[k] for k in names[:3]} | {"rest": inner}).hash == binding.hash


@few
@given(I32, BYTES32, U64, BYTES32, U32)
def test_checkpoint(global_id: int, account: bytes, size: int, root: bytes, issued_at: int) -> None:
    values = {
        "global_id": global_id,
        "node": account,
        "tree_size": size,
        "root": root,
        "issued_at": issued_at,
    }
    assert encode("Checkpoint", values).hash == Checkpoint(**values).hash  # type: ignore[arg-type]


@few
@given(I32, BYTES32, COINS, U32)
def test_authorization(global_id: int, account: bytes, cap: int, valid_until: int) -> None:
    values = {"global_id": global_id, "channel": account, "cap": cap, "valid_until": valid_until}
    assert encode("Authorization", values).hash == Authorization(**values).hash  # type: ignore[arg-type]


@few
@given(I32, BYTES32, COINS, U64)
def test_claim(global_id: int, account: bytes, used: int, index: int) -> None:
    values = {"global_id": global_id, "channel": account, "used": used, "index": index}
    assert encode("Claim", values).hash == Claim(**values).hash  # type: ignore[arg-type]


@few
@given(U64, BYTES32, st.lists(BYTES32, max_size=20))
def test_anchor(size: int, root: bytes, hashes: list[bytes]) -> None:
    checkpoint = Checkpoint(global_id=-3, node=root, tree_size=size, root=root, issued_at=1)
    anchor = Anchor(first_size=size, first_root=root, checkpoint=checkpoint, proof=tuple(hashes))
    proof: Cell | None = None
    for at in reversed(range(0, len(hashes), 3)):
        builder = Builder().store_bytes(b"".join(hashes[at : at + 3]))
        proof = finish(builder if proof is None else builder.store_ref(proof))
    values = {"first_size": size, "first_root": root, "checkpoint": record_to_ton(checkpoint.cell)}
    assert encode("Anchor", values | {"proof": proof or finish(Builder())}).hash == anchor.cell.hash


def test_tags_agree() -> None:
    for kind, tag in (
        ("KeyBinding", opcodes.KEY_BINDING),
        ("Checkpoint", opcodes.CHECKPOINT),
        ("Authorization", opcodes.AUTHORIZATION),
        ("Claim", opcodes.CLAIM),
        ("Anchor", opcodes.ANCHOR),
        ("ChannelStorage", channel.CHANNEL_DATA_TAG),
        ("NodeJoin", opcodes.NODE_JOIN),
    ):
        assert int(DECLARED[kind][0], 16) == tag


# ---- storage


@few
@given(I32, ADDRESS, ADDRESS, BYTES32, U64, U32, COINS, U32)
def test_channel_data(
    global_id: int,
    client: Address,
    to: Address,
    key: bytes,
    salt: int,
    delay: int,
    paid: int,
    close_at: int,
) -> None:
    identity = ChannelIdentity(
        global_id=global_id, client=client, client_key=key, node=to, salt=salt, close_delay=delay
    )
    constants = encode("ChannelConstants", {"salt": salt, "close_delay": delay})
    values = {
        "global_id": global_id,
        "client": client,
        "client_key": key,
        "node": to,
        "constants": constants,
    }
    data = encode("ChannelStorage", values | {"paid": paid, "close_at": close_at})
    state = channel.parse_channel(data)
    assert (state.identity, state.paid, state.close_at) == (identity, paid, close_at)
    assert identity.initial_data.hash == encode("ChannelStorage", values | {"paid": 0, "close_at": 0}).hash
    assert ChannelIdentity.from_proto(identity.to_proto()) == identity


IDENTITIES = st.builds(
    NodeIdentity,
    global_id=I32,
    registry=ADDRESS,
    owner=ADDRESS,
    salt=U64,
    code_version=st.integers(0, 65_535),
)


@few
@given(IDENTITIES)
def test_node_initial_data(identity: NodeIdentity) -> None:
    fields = ("global_id", "code_version", "registry", "owner", "salt")
    cell = encode("NodeIdentity", {name: getattr(identity, name) for name in fields})
    assert identity.cell.hash == cell.hash
    zero = dict.fromkeys(
        ("bond", "unlock_at", "stake", "deposits", "open_challenges", "tree_size", "root", "anchored_at"), 0
    )
    data = encode("NodeStorage", zero | {"identity": cell, "key": None, "history": None, "rest": None})
    assert identity.initial_data.hash == data.hash
    state = node.parse_node(data)
    assert state.identity == identity
    assert (state.terms, state.key, state.parameters, state.stake) == (None, None, None, 0)


def prices(value: PriceList) -> dict[str, int]:
    return {"prompt": value.prompt, "cached": value.cached, "completion": value.completion}


@few
@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=127),
    st.lists(BYTES32, min_size=1, max_size=3),
    PRICE_LISTS,
    PRICE_LISTS,
    st.booleans(),
    U32,
)
def test_terms(
    endpoint: str, models: list[bytes], now: PriceList, then: PriceList, simulated: bool, at: int
) -> None:
    refs = {
        "endpoint": finish(Builder().store_bytes(endpoint.encode())),
        "models": finish(Builder().store_bytes(b"".join(models))),
    }
    flags = {"flags": int(simulated)}
    offered = encode("OfferedTerms", refs | flags | {"prices": prices(now)})
    assert (
        offered.hash
        == node_messages.offered_terms_cell(
            endpoint=endpoint, models=models, prices=now, simulated=simulated
        ).hash
    )
    stored = {"prices": prices(now), "next_prices": prices(then), "prices_effective_at": at}
    terms = node.parse_terms(encode("NodeTerms", refs | flags | stored))
    assert (terms.endpoint, terms.models, terms.simulated) == (endpoint, tuple(models), simulated)
    assert (terms.prices, terms.next_prices, terms.prices_effective_at) == (now, then, at)
    assert terms.prices_at(at) == then
    if at:
        assert terms.prices_at(at - 1) == now


def test_parameters() -> None:
    fields = [name for name, _ in DECLARED["Parameters"][1]]
    cell = encode("Parameters", {name: getattr(PARAMETERS, name) for name in fields})
    assert cell.hash == PARAMETERS.cell.hash
    assert node.parse_parameters(cell) == PARAMETERS
    assert isinstance(PARAMETERS, RegistryParameters)


# ---- messages: Python builders against TL-B


def test_bodies(paying: World) -> None:
    claim, authorization = paying.claim(5), paying.authorization(6)
    signed = encode(
        "SignedAuthorization",
        {
            "signature": authorization.signature,
            "authorization": Cell.one_from_boc(authorization.authorization),
        },
    )
    assert channel.signed_authorization_cell(authorization).hash == signed.hash
    offer = node_messages.offered_terms_cell(endpoint="h:1", models=[MODEL], prices=PRICES, simulated=True)
    terms: dict[str, Any] = {"endpoint": "h:1", "models": [MODEL], "prices": PRICES, "simulated": True}
    binding, order = paying.binding(), paying.checkpoint()
    pairs: list[tuple[Cell, str, dict[str, Any]]] = [
        (channel.top_up_body(1), "ChannelTopUp", {"query_id": 1}),
        (channel.start_close_body(2), "ChannelStartClose", {"query_id": 2}),
        (channel.finish_close_body(3), "ChannelFinishClose", {"query_id": 3}),
        (
            channel.settle_body(used=9, final=True, payout=paying.owner, authorization=signed, query_id=4),
            "ChannelSettle",
            {"query_id": 4, "used": 9, "final": True, "payout": paying.owner, "authorization": signed},
        ),
        (
            node_messages.join_body(stake=8, query_id=5, **terms),
            "NodeJoin",
            {"query_id": 5, "stake": 8, "terms": offer},
        ),
        (
            node_messages.update_terms_body(query_id=6, **terms),
            "NodeUpdateTerms",
            {"query_id": 6, "terms": offer},
        ),
        (
            node_messages.attest_body(
                key_binding=binding.to_boc(), evidence_digest=MODEL, attested_until=77, query_id=7
            ),
            "NodeAttest",
            {
                "query_id": 7,
                "binding": record_to_ton(binding.cell),
                "evidence_digest": MODEL,
                "attested_until": 77,
            },
        ),
        (
            node_messages.settle_body(claim=claim, authorization=authorization, final=True, query_id=8),
            "NodeSettle",
            {
                "query_id": 8,
                "final": True,
                "claim_signature": claim.signature,
                "claim": Cell.one_from_boc(claim.claim),
                "authorization": signed,
            },
        ),
        (node_messages.unbond_body(9), "NodeUnbond", {"query_id": 9}),
        (node_messages.withdraw_body(10), "NodeWithdraw", {"query_id": 10}),
        (node_messages.top_up_body(11), "NodeTopUp", {"query_id": 11}),
        (node_messages.add_stake_body(12, 13), "NodeAddStake", {"query_id": 13, "amount": 12}),
        (
            node_messages.anchor_external_body(anchor=order.to_boc(), signature=b"\x01" * 64),
            "SignedAnchor",
            {"signature": b"\x01" * 64, "anchor": record_to_ton(order.cell)},
        ),
    ]
    for body, kind, values in (*pairs, *dispute_bodies(paying)):
        assert body.hash == encode(kind, values).hash, kind


def dispute_bodies(world: World) -> list[tuple[Cell, str, dict[str, Any]]]:
    """Messages of challenges and conflicts."""
    receipt, proof = world.signed(world.receipt()), (b"\x05" * 32,) * 4
    first = sign_checkpoint(world.checkpoint(), world.receipt_key)
    second = sign_checkpoint(world.checkpoint(tree_size=3), world.receipt_key)
    cells = [
        encode(
            "SignedCheckpoint",
            {
                "binding_hash": hash,
                "signature": signed.signature,
                "checkpoint": Cell.one_from_boc(signed.checkpoint),
            },
        )
        for hash, signed in ((MODEL, first), (b"\x06" * 32, second))
    ]
    return [
        (
            node_messages.challenge_body(receipt, 1),
            "NodeChallenge",
            {"query_id": 1, "signature": receipt.signature, "receipt": Cell.one_from_boc(receipt.receipt)},
        ),
        (
            node_messages.respond_body(receipt_hash=MODEL, proof=proof, query_id=2),
            "NodeRespond",
            {"query_id": 2, "receipt_hash": MODEL, "proof": record_to_ton(proof_cell(proof))},
        ),
        (node_messages.slash_body(MODEL, 3), "NodeSlash", {"query_id": 3, "receipt_hash": MODEL}),
        (
            node_messages.conflict_body(
                first=first, first_binding=MODEL, second=second, second_binding=b"\x06" * 32, query_id=4
            ),
            "NodeConflict",
            {"query_id": 4, "first": cells[0], "second": cells[1]},
        ),
    ]


def test_registry_bodies(world: World) -> None:
    release = record_to_ton(RELEASE.to_cell())
    codes = encode("ContractCodes", {"node": release, "channel": write_text("x")})
    recorded = write_dict({1: 10**10}, 8, lambda stake: finish(Builder().store_coins(stake)))
    policy = encode(
        "RegistryPolicy",
        {
            "tee_kinds": 0b10,
            "statuses": 0,
            "min_tcb_evaluation": 17,
            "dev_root_hash": 0,
            "recorded": recorded,
        },
    )
    pairs: list[tuple[Cell, str, dict[str, Any]]] = [
        (messages.announce_body(release, 1), "RegistryAnnounce", {"query_id": 1, "change": release}),
        (messages.execute_body(MODEL, 2), "RegistryExecute", {"query_id": 2, "change_hash": MODEL}),
        (messages.cancel_body(MODEL, 3), "RegistryCancel", {"query_id": 3, "change_hash": MODEL}),
        (
            messages.remove_body(messages.Removal.PLATFORM, MODEL, 4),
            "RegistryRemove",
            {"query_id": 4, "kind": 4, "id": MODEL},
        ),
        (messages.accept_governance_body(5), "RegistryAcceptGovernance", {"query_id": 5}),
        (messages.top_up_body(6), "RegistryTopUp", {"query_id": 6}),
        (
            messages.set_release(RELEASE),
            "SetRelease",
            {"id": RELEASE.release_id, "state": 1, "release": release},
        ),
        (
            messages.set_model(MODEL, "m"),
            "SetModel",
            {"digest": MODEL, "state": 1, "name": write_text("m")},
        ),
        (messages.set_policy(POLICY), "SetPolicy", {"policy": policy}),
        (messages.set_parameters(PARAMETERS), "SetParameters", {"parameters": PARAMETERS.cell}),
        (messages.set_codes(2, release, write_text("x")), "SetCodes", {"version": 2, "codes": codes}),
        (messages.allow(messages.Removal.NODE, MODEL), "Allow", {"kind": 3, "id": MODEL}),
        (messages.set_governance(world.owner), "SetGovernance", {"governance": world.owner}),
        (messages.upgrade(release), "Upgrade", {"code": release}),
        (messages.set_rule(RULE), "SetRule", {"rule": RULE.cell}),
    ]
    for body, kind, values in pairs:
        assert body.hash == encode(kind, values).hash, kind


def test_external_message_is_what_libraries_read() -> None:
    to = Address((0, b"\x05" * 32))
    body = finish(Builder().store_uint(7, 32))
    boc = node_messages.external_message(to, body)
    message = MessageAny.deserialize(Slice.one_from_boc(boc))
    assert message.is_external
    assert message.info.dest == to
    assert message.info.src is None
    assert message.body.hash == body.hash


@pytest.mark.parametrize(
    "build",
    [
        lambda: node_messages.anchor_external_body(anchor=b"", signature=bytes(64)),
        lambda: node_messages.anchor_external_body(anchor=PARAMETERS_BOC, signature=bytes(63)),
        lambda: node_messages.top_up_body(-1),
        lambda: node_messages.top_up_body(2**64),
        lambda: node_messages.add_stake_body(-1),
        lambda: node_messages.offered_terms_cell(
            endpoint="", models=[MODEL], prices=PRICES, simulated=False
        ),
        lambda: node_messages.offered_terms_cell(
            endpoint="ü:1", models=[MODEL], prices=PRICES, simulated=False
        ),
        lambda: node_messages.offered_terms_cell(
            endpoint="a" * 128, models=[MODEL], prices=PRICES, simulated=False
        ),
        lambda: node_messages.offered_terms_cell(endpoint="a:1", models=[], prices=PRICES, simulated=False),
        lambda: node_messages.offered_terms_cell(
            endpoint="a:1", models=[MODEL] * 4, prices=PRICES, simulated=False
        ),
        lambda: node_messages.offered_terms_cell(
            endpoint="a:1", models=[b"x"], prices=PRICES, simulated=False
        ),
        lambda: ChannelIdentity(
            global_id=0,
            client=Address((-1, bytes(32))),
            client_key=bytes(32),
            node=Address((0, bytes(32))),
            salt=0,
            close_delay=0,
        ),
        lambda: NodeIdentity(
            global_id=2**31, registry=Address((0, bytes(32))), owner=Address((0, bytes(32))), salt=0
        ),
        lambda: NodeIdentity(
            global_id=0, registry=Address((-1, bytes(32))), owner=Address((0, bytes(32))), salt=0
        ),
    ],
)
def test_values_out_of_range_are_malformed(build: Callable[[], object]) -> None:
    with pytest.raises(MalformedError):
        build()


def test_a_channel_identity_must_be_initial_data(paying: World) -> None:
    message = paying.channel_identity.to_proto()
    paying.settle(10**9)
    message.initial_data = ton_to_record(paying.data(paying.channel)).to_boc()
    with pytest.raises(MalformedError):
        ChannelIdentity.from_proto(message)
    message.initial_data = b"\x00"
    with pytest.raises(MalformedError):
        ChannelIdentity.from_proto(message)


# ---- addresses


def test_addresses_are_those_of_tons_state_init(paying: World) -> None:
    for data, address in (
        (paying.channel_identity.initial_data, paying.channel),
        (paying.node_identity.initial_data, paying.node),
    ):
        account = paying.chain.account(address)
        assert account.code is not None
        init = StateInit(code=account.code, data=data).serialize()
        assert init.hash == state_init(account.code, data).hash == address.hash_part
        assert contract_address(account.code, data) == address
    identity = paying.node_identity
    assert node.node_address(identity.registry, identity.owner, identity.salt, global_id=-3) == paying.node
    assert channel.channel_address(paying.channel_identity) == paying.channel
    assert identity.account_id == paying.node.hash_part


# ---- hostile cells


def mutations(data: Cell) -> st.SearchStrategy[Cell]:
    """The cell with one bit changed, bits cut, or a reference dropped, doubled or emptied, at any depth."""

    def apply(path: list[int], kind: int, position: int) -> Cell:
        def rebuild(cell: Cell, rest: list[int]) -> Cell:
            bits, refs = cell.bits.copy(), list(cell.refs)
            if rest and refs:
                index = rest[0] % len(refs)
                refs[index] = rebuild(refs[index], rest[1:])
            elif kind == 0 and len(bits):
                bits[position % len(bits)] ^= 1
            elif kind == 1 and len(bits):
                bits = bits[: position % len(bits)]
            elif kind == 2 and refs:
                del refs[position % len(refs)]
            elif kind == 3 and 0 < len(refs) < 4:
                refs.append(refs[position % len(refs)])
            elif kind == 4 and refs:
                refs[position % len(refs)] = finish(Builder())
            builder = Builder().store_bits(bits)
            for ref in refs:
                builder.store_ref(ref)
            return finish(builder)

        return rebuild(data, path)

    return st.builds(
        apply, st.lists(st.integers(0, 3), max_size=6), st.integers(0, 4), st.integers(0, 1022)
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parsers_raise_malformed_only(data: st.DataObject, states: tuple[Cell, Cell, Cell]) -> None:
    which = data.draw(st.integers(0, 2))
    parse: Callable[[Cell], object] = (registry.parse_registry, node.parse_node, channel.parse_channel)[
        which
    ]
    cell = data.draw(mutations(states[which]))
    with contextlib.suppress(MalformedError):
        parse(cell)
    for other in (registry.parse_registry, node.parse_node, channel.parse_channel):
        if other is not parse and cell.bits[:32] == states[which].bits[:32]:
            with pytest.raises(MalformedError):
                other(cell)


@pytest.fixture
def states(paying: World) -> tuple[Cell, Cell, Cell]:
    """Data of a registry with a node, of that node with all that it can keep, and of its channel."""
    paying.to_node(paying.stranger, node_messages.top_up_body())
    for number in (3, 4, 5):
        paying.chain.warp(60)
        paying.receipt_key = key(number)
        paying.attest()
    receipts = [paying.issue(), paying.issue()]
    for _ in range(12):
        assert paying.anchor().success
        paying.grow(1)
        paying.chain.warp(300)
    paying.chain.warp(PARAMETERS.anchor_within)
    assert all(paying.challenge(receipt).success for receipt in receipts)
    return paying.data(paying.registry), paying.data(paying.node), paying.data(paying.channel)


def test_exotic_cells_are_refused() -> None:
    pruned = Builder(type_=1).store_uint(0x0101, 16).store_bytes(bytes(32)).store_uint(0, 16).end_cell()
    with pytest.raises(MalformedError):
        Reader(pruned)
    with pytest.raises(MalformedError):
        ton_to_record(pruned)


@few
@given(st.dictionaries(st.integers(0, 2**16 - 1), U32, max_size=60))
def test_dictionaries(entries: dict[int, int]) -> None:
    root = write_dict(entries, 16, lambda value: finish(Builder().store_uint(value, 32)))
    assert read_dict(root, 16, lambda r: r.uint(32)) == entries
    oracle = HashMap(16).with_uint_values(32)
    for name, value in entries.items():
        oracle.set_int_key(name, value)
    expected = oracle.serialize()
    assert (root is None) == (expected is None)
    assert root is None or root.hash == expected.hash


@pytest.mark.parametrize(
    "bits",
    [
        "0" + "1" * 17 + "0",  # short label longer than the key
        "10" + "10001" + "0" * 17,  # long label longer than the key
        "110" + "10001",  # same-bit label longer than the key
        "00",  # a fork without branches
        "",
    ],
)
def test_broken_dictionaries_are_malformed(bits: str) -> None:
    with pytest.raises(MalformedError):
        read_dict(finish(Builder().store_bits(bits)), 16, lambda r: r.uint(32))


@few
@given(st.text(max_size=400))
def test_text(text: str) -> None:
    cell = write_text(text)
    if len(text.encode()) <= 4096:
        assert read_text(cell) == text


def test_text_out_of_form() -> None:
    endless = write_text("a" * 5000)
    empty = finish(Builder().store_ref(finish(Builder().store_bytes(b"x"))))
    for cell in (endless, empty, finish(Builder().store_bytes(b"\xff")), finish(Builder().store_bits("1"))):
        with pytest.raises(MalformedError):
            read_text(cell)


@few
@given(st.binary(max_size=100), st.integers(0, 7))
def test_cells_convert_both_ways(raw: bytes, extra: int) -> None:
    inner = finish(Builder().store_bytes(raw))
    cell = finish(Builder().store_bits("1" * extra).store_ref(inner).store_ref(inner))
    record = ton_to_record(cell)
    assert record.hash == cell.hash
    assert record_to_ton(record).hash == cell.hash


def test_policy_bits_round_trip(paying: World) -> None:
    assert paying.registry_state().policy == POLICY
