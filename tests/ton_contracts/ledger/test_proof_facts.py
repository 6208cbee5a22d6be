"""Proof documents: complete, offline, and without a free byte."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Address

from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet
from cocoon_ton.errors import ChainProofError
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof import verify_chain_facts
from cocoon_ton.proof.document import encode_cell

from .conftest import ALICE, ALICE_BALANCE, NOBODY, network_of

_ALPHABET = string.ascii_letters + string.digits + "+/"


def raw(address: Address) -> str:
    return f"{address.wc}:{address.hash_part.hex()}"


@pytest.fixture(params=["ordinary", "simplex"])
async def proved(request: pytest.FixtureRequest, sandbox: None) -> Any:
    """(document, network): Alice with a transaction, the faucet with code, and nobody."""
    mode = request.param
    async with Devnet.start(
        block_interval=None, accounts={ALICE: ALICE_BALANCE}, signature_mode=mode
    ) as devnet:
        devnet.fund(ALICE, 5)
        network = network_of(devnet)
        async with LiteChain(network) as chain:
            document = await chain.export_proof([NOBODY, ALICE, devnet.faucet_address])
        return json.loads(json.dumps(document)), network


async def test_facts(proved: tuple[dict[str, Any], NetworkConfig]) -> None:
    document, network = proved
    facts = verify_chain_facts(document, network)
    alice, nobody = facts.accounts[raw(ALICE)], facts.accounts[raw(NOBODY)]
    assert alice.balance == ALICE_BALANCE + 5
    assert alice.status == "uninit"
    assert alice.last_tx_lt > 0
    assert not nobody.exists
    assert nobody.balance == 0
    assert sum(account.active for account in facts.accounts.values()) == 1
    assert all(account.block == facts.block for account in facts.accounts.values())
    assert facts.block.utime > 1_700_000_000


async def test_the_order_of_addresses_does_not_matter(devnet: Devnet, network: NetworkConfig) -> None:
    async with LiteChain(network) as chain:
        head = await chain.head()
        first = await chain.export_proof([ALICE, NOBODY], head)
        second = await chain.export_proof([NOBODY, ALICE, ALICE], head)
    assert first == second


async def test_proof_of_an_older_block(devnet: Devnet, network: NetworkConfig) -> None:
    async with LiteChain(network, head_ttl=0) as chain:
        before = await chain.head()
        devnet.fund(ALICE, 5)
        await chain.head()
        document = await chain.export_proof([ALICE], before)
    facts = verify_chain_facts(document, network)
    assert facts.block == before
    assert facts.accounts[raw(ALICE)].balance == ALICE_BALANCE


async def test_document_without_accounts_proves_the_time(devnet: Devnet, network: NetworkConfig) -> None:
    async with LiteChain(network) as chain:
        document = await chain.export_proof([])
        assert verify_chain_facts(document, network).block == await chain.head()


async def test_another_networks_anchor(proved: tuple[dict[str, Any], NetworkConfig]) -> None:
    document, _ = proved
    async with Devnet.start(block_interval=None) as other:
        with pytest.raises(ChainProofError):
            verify_chain_facts(document, network_of(other))


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every scalar of a document with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, (*path, index))
    else:
        yield path, node


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def refused(document: Any, network: NetworkConfig) -> None:
    with pytest.raises(ChainProofError):
        verify_chain_facts(document, network)


async def test_no_character_is_free(proved: tuple[dict[str, Any], NetworkConfig]) -> None:
    """The one exception is no lie: the path that shows one address absent shows its neighbours absent."""
    document, network = proved
    absent = next(i for i, part in enumerate(document["accounts"]) if part["state"] is None)
    tried = 0
    for path, value in leaves(document):
        if path == ("accounts", absent, "address"):
            continue
        if not isinstance(value, str):
            refused(replaced(document, path, 7 if value is None else value + 1), network)
            continue
        step = max(1, len(value) // 40)
        for position in {*range(0, len(value), step), len(value) - 1}:
            old = value[position]
            new = next(c for c in _ALPHABET[position % 7 :] if c != old)
            refused(replaced(document, path, value[:position] + new + value[position + 1 :]), network)
            tried += 1
    assert tried > 300


async def test_an_absence_proof_never_shows_a_present_account_absent(
    proved: tuple[dict[str, Any], NetworkConfig],
) -> None:
    document, network = proved
    absent = next(i for i, part in enumerate(document["accounts"]) if part["state"] is None)
    for part in document["accounts"]:
        if part["state"] is not None:
            lie = replaced(document, ("accounts", absent, "address"), part["address"])
            refused(lie, network)
            refused(replaced(lie, ("accounts",), [lie["accounts"][absent]]), network)


async def test_every_part_is_needed(proved: tuple[dict[str, Any], NetworkConfig]) -> None:
    document, network = proved
    for path, _ in leaves(document):
        for end in range(1, len(path) + 1):
            without = copy.deepcopy(document)
            node = without
            for key in path[: end - 1]:
                node = node[key]
            if path[:end] != ("accounts",) and not (end == 2 and path[0] == "accounts"):
                del node[path[end - 1]]
                refused(without, network)


async def test_nothing_may_be_added(proved: tuple[dict[str, Any], NetworkConfig]) -> None:
    document, network = proved
    refused(document | {"note": ""}, network)
    refused(replaced(document, ("accounts",), [*document["accounts"], document["accounts"][0]]), network)
    refused(replaced(document, ("links",), [*document["links"], document["links"][-1]]), network)
    refused(replaced(document, ("accounts",), document["accounts"][::-1]), network)
    refused(replaced(document, ("accounts", 0, "note"), ""), network)


async def test_accounts_cannot_be_swapped(proved: tuple[dict[str, Any], NetworkConfig]) -> None:
    document, network = proved
    first, second, third = document["accounts"]
    swapped = [first | {"address": second["address"]}, second | {"address": first["address"]}, third]
    refused(replaced(document, ("accounts",), swapped), network)


async def test_parts_are_not_padded_with_unread_cells(devnet: Devnet, network: NetworkConfig) -> None:
    """A proof that shows more than is needed is true, and refused: one form only."""
    async with LiteChain(network) as chain:
        document = await chain.export_proof([ALICE])
    from cocoon_ton.devnet.cells import merkle_proof

    whole = encode_cell(merkle_proof(devnet.chain.master.cell))
    with pytest.raises(ChainProofError, match="canonical"):
        verify_chain_facts(document | {"header": whole}, network)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(junk=json_values, data=st.data())
async def test_impossible_documents(
    proved: tuple[dict[str, Any], NetworkConfig], junk: Any, data: st.DataObject
) -> None:
    document, network = proved
    refused(junk, network)
    path = data.draw(st.sampled_from([path for path, _ in leaves(document)]))
    cut = path[: data.draw(st.integers(1, len(path)))]
    changed = replaced(document, cut, junk)
    if changed != document and not (cut == ("accounts",) and junk == []):
        refused(changed, network)


async def test_deeply_nested_junk(proved: tuple[dict[str, Any], NetworkConfig]) -> None:
    _, network = proved
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    refused(nested, network)
    refused({"format": nested, "links": nested, "header": nested, "accounts": nested}, network)
    while nested:  # free it without recursion
        nested = nested[0]
