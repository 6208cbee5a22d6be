"""The liteserver's query function never fails, whatever bytes it gets."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey
from pytoniq_core import Address

from cocoon_attestation.errors import MalformedError, UnsupportedError
from cocoon_ton.devnet import Faults, tl
from cocoon_ton.devnet.blocks import Identity
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.faucet import Faucet
from cocoon_ton.devnet.genesis import make_config, public_key
from cocoon_ton.devnet.liteserver import LiteServer
from cocoon_ton.devnet.store import Store
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.proof.boc import write_boc

FUNCTION = re.compile(r"liteServer\.(nonfinal\.)?(get|list|wait|runSmc|sendMessage|lookupBlock(?!Result))")
VALIDATOR = SigningKey(b"\x01" * 32)
FAUCET = Faucet(SigningKey(b"\x02" * 32))
TARGET = Address((0, b"\x05" * 32))


class Subject:
    """A liteserver without a network, and one valid query of every kind."""

    def __init__(self) -> None:
        self.store = Store(None)
        self.chain = Chain(
            self.store,
            identity=Identity(validator=public_key(VALIDATOR), global_id=-217),
            config=make_config(public_key(VALIDATOR), -217),
            genesis={FAUCET.address.hash_part: FAUCET.genesis_account()},
            clock=lambda: 1_790_000_000.0,
            random=bytes,
        )
        self.chain.tick()
        self.chain.send(FAUCET.transfer(self.chain, TARGET, 10**9))
        self.chain.tick()
        self.loop = asyncio.new_event_loop()
        self.server = LiteServer(self.chain, VALIDATOR, mode="ordinary", faults=Faults())

    def ask(self, data: bytes) -> bytes:
        return self.loop.run_until_complete(asyncio.wait_for(self.server.query(data), 10))

    def queries(self) -> list[bytes]:
        master, shard = self.chain.master.id.to_tl(), self.chain.shard.id.to_tl()
        record = self.store.transactions_in(0, 2)[0]
        account = {"workchain": 0, "id": record.account.hex()}
        message = write_boc([FAUCET.transfer(self.chain, TARGET, 10**9)])
        getter = {"mode": 7, "id": master, "account": account, "method_id": 85143, "params": b""}
        history = {"count": 5, "account": account, "lt": record.lt, "hash": record.hash.hex()}
        place = {"workchain": 0, "shard": shard["shard"], "seqno": 2}
        after = {"account": record.account.hex(), "lt": record.lt}
        many = {"id": shard, "count": 10}
        queries: list[tuple[str, dict[str, Any]]] = [
            ("getMasterchainInfo", {}),
            ("getMasterchainInfoExt", {"mode": 0}),
            ("getTime", {}),
            ("getVersion", {}),
            ("getBlock", {"id": shard}),
            ("getState", {"id": self.chain.zero.id.to_tl()}),
            ("getBlockHeader", {"id": master, "mode": 0}),
            ("sendMessage", {"body": message}),
            ("getAccountState", {"id": master, "account": account}),
            ("getAccountState", {"id": shard, "account": account}),
            ("runSmcMethod", getter),
            ("getShardInfo", {"id": master, "workchain": 0, "shard": shard["shard"], "exact": True}),
            ("getAllShardsInfo", {"id": master}),
            ("getOneTransaction", {"id": shard, "account": account, "lt": record.lt}),
            ("getTransactions", history),
            ("lookupBlock", {"mode": 1, "id": place}),
            ("lookupBlock", {"mode": 2, "id": place, "lt": record.lt}),
            ("lookupBlock", {"mode": 4, "id": place, "utime": 1_790_000_000}),
            ("listBlockTransactions", many | {"mode": 39}),
            ("listBlockTransactionsExt", many | {"mode": 39 + 128, "after": after}),
            ("getBlockProof", {"mode": 1, "known_block": master, "target_block": master}),
            ("getBlockProof", {"mode": 0, "known_block": master}),
            ("getConfigAll", {"mode": 0, "id": master}),
            ("getConfigParams", {"mode": 0, "id": master, "param_list": [8]}),
            ("getLibraries", {"library_list": []}),
            ("getShardBlockProof", {"id": shard}),
            ("getConfigAll", {"mode": 0x80, "id": master}),
            ("lookupBlockWithProof", {"mode": 1, "id": place, "mc_block_id": master}),
            ("lookupBlockWithProof", {"mode": 2, "id": place, "mc_block_id": master, "lt": record.lt}),
            ("getAccountStatePrunned", {"id": master, "account": account}),
            ("getOutMsgQueueSizes", {"mode": 0}),
            ("getOutMsgQueueSizes", {"mode": 1, "wc": 0, "shard": shard["shard"]}),
            ("getBlockOutMsgQueueSize", {"mode": 1, "id": shard, "want_proof": True}),
            ("getDispatchQueueInfo", {"mode": 1, "id": shard, "max_accounts": 5, "want_proof": True}),
            (
                "getDispatchQueueMessages",
                {
                    "mode": 5,
                    "id": shard,
                    "addr": "00" * 32,
                    "after_lt": 0,
                    "max_messages": 5,
                    "want_proof": True,
                    "messages_boc": True,
                },
            ),
            ("getLibrariesWithProof", {"id": master, "mode": 0, "library_list": []}),
        ]
        return [tl.write(f"liteServer.{name}", fields) for name, fields in queries]


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    logging.getLogger("cocoon_ton.devnet.liteserver").setLevel(logging.CRITICAL)
    subject = Subject()
    yield subject
    subject.loop.close()
    subject.store.close()


def test_every_kind_of_query_is_answered(subject: Subject) -> None:
    asked = set()
    for query in subject.queries():
        answer = tl.read(subject.ask(query))
        method = tl.read(query)["@type"]
        asked.add(method.removeprefix("liteServer."))
        assert answer["@type"] != "liteServer.error", (method, answer)
    assert asked == subject.server.methods - {"getValidatorStats"}


def test_every_method_of_the_protocol_gets_an_answer(subject: Subject) -> None:
    """Also those that no development chain can serve: an error, at once, never a hang."""
    functions = [schema for schema in tl.schemas().list if FUNCTION.match(schema.name)]
    names = {schema.name.removeprefix("liteServer.") for schema in functions}
    assert len(names) > 30
    assert subject.server.methods <= names
    master = subject.chain.master.id.to_tl()
    stats = {"mode": 0, "id": master, "limit": 1}
    assert tl.read(subject.ask(tl.write("liteServer.getValidatorStats", stats)))["code"] == 0
    for schema in functions:
        answer = tl.read(subject.ask(bytes(schema.little_id())))
        assert answer["@type"] == "liteServer.error" or not schema.args, schema.name


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_queries_get_an_answer(subject: Subject, data: st.DataObject) -> None:
    query = bytearray(data.draw(st.sampled_from(subject.queries())))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, max(4, len(query) - 1)))
        if at < len(query):
            query[at] = data.draw(st.integers(0, 255))
    query = query[: data.draw(st.integers(4, len(query)))]
    tl.read(subject.ask(bytes(query)))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes(subject: Subject, data: bytes) -> None:
    assert tl.read(subject.ask(data))["@type"] == "liteServer.error"


@given(st.binary(max_size=100))
def test_reader_raises_one_error(data: bytes) -> None:
    try:
        fields = tl.read(data)
    except MalformedError:
        return
    assert "@type" in fields


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "x" * 250, "x" * 1000, "ä" * 400])
def test_errors_are_readable(text: str) -> None:
    raw = tl.write_error(-400, text)
    assert len(raw) % 4 == 0
    found = tl.read(raw)
    assert found["code"] == -400
    assert text.startswith(found["message"])
    assert len(found["message"].encode()) >= min(len(text.encode()), 249)
