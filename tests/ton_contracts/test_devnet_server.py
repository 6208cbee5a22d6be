"""The ADNL server against hostile and clumsy clients, and the fault switches."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from pytoniq import LiteClient
from pytoniq.liteclient.client import LiteServerError
from pytoniq_core import Address, Cell
from pytoniq_core.crypto.ciphers import Client, Server, create_aes_ctr_cipher, get_shared_key
from pytoniq_core.proof.check_proof import ProofError

from cocoon_attestation.errors import MalformedError, UnsupportedError
from cocoon_ton.devnet import Devnet, Faults, tl
from cocoon_ton.devnet.adnl import MAX_PACKET_BYTES, HandshakeError, Session
from cocoon_ton.devnet.cells import write_boc
from cocoon_ton.emulator import find_sandbox, internal_message, make_account

TON = 10**9
RICH = Address((0, b"\x05" * 32))
SERVER_KEY = SigningKey(b"\x09" * 32)

logging.getLogger("LiteClient").setLevel(logging.CRITICAL)


@pytest.fixture
async def net() -> AsyncIterator[Devnet]:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    async with Devnet.start(block_interval=None, accounts={RICH: 5 * TON}) as net:
        yield net


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def handshake(server_public: bytes) -> tuple[bytes, Any, Any]:
    """A client's 256 bytes, and its ciphers (encrypt, decrypt)."""
    client, server = Client(Client.generate_ed25519_private_key()), Server("", 0, server_public)
    seed = os.urandom(160)
    checksum = hashlib.sha256(seed).digest()
    shared = get_shared_key(client.x25519_private.encode(), server.x25519_public.encode())
    cipher = create_aes_ctr_cipher(shared[:16] + checksum[16:32], checksum[:4] + shared[20:32])
    data = server.get_key_id() + client.ed25519_public.encode() + checksum + cipher.encrypt(seed)
    decrypt = create_aes_ctr_cipher(seed[:32], seed[64:80])
    return data, create_aes_ctr_cipher(seed[32:64], seed[80:96]), decrypt


class RawClient:
    """Speaks ADNL by hand, so that it can misbehave."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ciphers: Any) -> None:
        self.reader, self.writer = reader, writer
        self.encrypt, self.decrypt = ciphers

    def send(self, payload: bytes, *, length: int | None = None, checksum: bytes | None = None) -> None:
        packet = os.urandom(32) + payload
        packet += hashlib.sha256(packet).digest() if checksum is None else checksum
        size = len(packet) if length is None else length
        self.writer.write(self.encrypt.encrypt(size.to_bytes(4, "little") + packet))

    async def receive(self) -> bytes:
        size = int.from_bytes(self.decrypt.decrypt(await self.reader.readexactly(4)), "little")
        packet: bytes = self.decrypt.decrypt(await self.reader.readexactly(size))
        assert hashlib.sha256(packet[:-32]).digest() == packet[-32:]
        return packet[32:-32]

    async def ended(self) -> bool:
        async with asyncio.timeout(5):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    def query(self, data: bytes, id: bytes = bytes(32)) -> None:
        inner = tl.write("liteServer.query", {"data": data})
        self.send(tl.write("adnl.message.query", {"query_id": id.hex(), "query": inner}))

    async def answer(self) -> tl.Fields:
        message = tl.read(await self.receive())
        return tl.read(message["answer"]) | {"query_id": message["query_id"]}


@asynccontextmanager
async def raw(net: Devnet) -> AsyncIterator[RawClient]:
    key = base64.b64decode(net.config["liteservers"][0]["id"]["key"])
    data, encrypt, decrypt = handshake(key)
    reader, writer = await asyncio.open_connection("127.0.0.1", net.port)
    writer.write(data)
    client = RawClient(reader, writer, (encrypt, decrypt))
    try:
        assert await client.receive() == b""
        yield client
    finally:
        writer.close()


@asynccontextmanager
async def lite(config: dict[str, Any], trust: int = 1) -> AsyncIterator[Any]:
    client = LiteClient.from_config(config, 0, trust_level=trust, timeout=3)
    try:
        await client.connect()
        yield client
    finally:
        await client.close()


class TestSession:
    @given(st.binary(max_size=300))
    def test_garbage_handshakes_are_refused(self, data: bytes) -> None:
        with pytest.raises(HandshakeError):
            Session(SERVER_KEY, data)

    @pytest.mark.parametrize("at", [0, 31, 40, 70, 100, 255])
    def test_a_changed_byte_is_noticed(self, at: int) -> None:
        data, _, _ = handshake(bytes(SERVER_KEY.verify_key))
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        Session(SERVER_KEY, data)
        with pytest.raises(HandshakeError):
            Session(SERVER_KEY, changed)

    @pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
    def test_unusable_client_keys(self, point: bytes) -> None:
        data, _, _ = handshake(bytes(SERVER_KEY.verify_key))
        with pytest.raises(HandshakeError):
            Session(SERVER_KEY, data[:32] + point + data[64:])

    def test_packets(self) -> None:
        data, encrypt, decrypt = handshake(bytes(SERVER_KEY.verify_key))
        session = Session(SERVER_KEY, data)
        sealed = decrypt.decrypt(session.seal(b"hello"))
        assert sealed[36:-32] == b"hello"
        packet = bytes(32) + b"there"
        packet += hashlib.sha256(packet).digest()
        wire = encrypt.encrypt(len(packet).to_bytes(4, "little") + packet)
        assert session.open_length(wire[:4]) == len(packet)
        assert session.open(wire[4:]) == b"there"
        with pytest.raises(MalformedError):
            session.open(bytes(100))

    @pytest.mark.parametrize("length", [0, 63, MAX_PACKET_BYTES + 1, 0xFFFFFFFF])
    def test_lengths(self, length: int) -> None:
        data, encrypt, _ = handshake(bytes(SERVER_KEY.verify_key))
        session = Session(SERVER_KEY, data)
        with pytest.raises(MalformedError):
            session.open_length(encrypt.encrypt(length.to_bytes(4, "little")))


class TestConnections:
    async def test_ping(self, net: Devnet) -> None:
        async with raw(net) as client:
            client.send(tl.tag("tcp.ping") + b"12345678")
            assert await client.receive() == tl.tag("tcp.pong") + b"12345678"

    async def test_many_queries_at_once_answer_by_id(self, net: Devnet) -> None:
        async with raw(net) as client:
            for number in range(100):
                client.query(tl.write("liteServer.getTime", {}), number.to_bytes(32, "big"))
            found = {(await client.answer())["query_id"] for _ in range(100)}
            assert len(found) == 100

    @pytest.mark.parametrize("payload", [b"", b"\0" * 8, b"\xff" * 40, tl.tag("adnl.message.query")])
    async def test_nonsense_is_not_answered_and_does_no_harm(self, net: Devnet, payload: bytes) -> None:
        async with raw(net) as client:
            client.send(payload)
            client.query(tl.write("liteServer.getTime", {}))
            assert (await client.answer())["@type"] == "liteServer.currentTime"

    @pytest.mark.parametrize("fault", ["checksum", "short", "long"])
    async def test_bad_packets_end_the_connection(self, net: Devnet, fault: str) -> None:
        async with raw(net) as client:
            faults: dict[str, dict[str, Any]] = {
                "checksum": {"checksum": bytes(32)},
                "short": {"length": 10},
                "long": {"length": 1 << 30},
            }
            client.send(b"x", **faults[fault])
            assert await client.ended()

    @pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n" * 20, bytes(256)])
    async def test_no_handshake(self, net: Devnet, data: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", net.port)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()

    async def test_clients_that_leave_early_leave_no_errors(
        self, net: Devnet, caplog: pytest.LogCaptureFixture
    ) -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        net.faults.delay = 0.05
        query = tl.write("liteServer.getConfigAll", {"mode": 0, "id": net.chain.master.id.to_tl()})
        for abort in (True, False):
            async with raw(net) as client:
                for _ in range(20):
                    client.query(query)
                await client.writer.drain()
                if abort:
                    client.writer.transport.abort()
            await asyncio.sleep(0.15)
        async with lite(net.config) as honest:
            await honest.get_masterchain_info()
        assert problems == []
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_stopping_with_open_connections(self) -> None:
        try:
            find_sandbox()
        except UnsupportedError as error:
            pytest.skip(str(error))
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with Devnet.start(block_interval=None) as net, raw(net) as client:
            waiting = tl.tag("liteServer.waitMasterchainSeqno") + struct.pack("<ii", 10**6, 60_000)
            client.query(waiting + tl.write("liteServer.getTime", {}))
            await asyncio.sleep(0.05)
            await net.liteservers[0].stop()
            assert await client.ended()
        assert problems == []


class TestQueries:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x01\x02",
            bytes(4),
            tl.tag("liteServer.getBlock"),
            tl.tag("liteServer.getAccountState") + bytes(7),
            tl.tag("liteServer.waitMasterchainSeqno"),
            tl.tag("liteServer.lookupBlock") + b"\xff" * 80,
            tl.write("liteServer.nonfinal.getPendingShardBlocks", {"mode": 0}),
            tl.tag("tcp.ping") + bytes(8),
        ],
    )
    async def test_unanswerable_queries_get_an_error(self, net: Devnet, data: bytes) -> None:
        async with raw(net) as client:
            client.query(data)
            answer = await client.answer()
            assert answer["@type"] == "liteServer.error"
            assert answer["code"] in (-400, 651)

    async def test_unknown_block(self, net: Devnet) -> None:
        for change in ({"seqno": 999}, {"root_hash": "00" * 32}, {"workchain": 5}, {"shard": 1}):
            id = net.chain.master.id.to_tl() | change
            async with raw(net) as client:
                client.query(tl.write("liteServer.getBlock", {"id": id}))
                assert (await client.answer())["code"] == 651

    async def test_zerostate(self, net: Devnet) -> None:
        id = net.chain.zero.id.to_tl()
        async with raw(net) as client:
            client.query(tl.write("liteServer.getState", {"id": id}))
            answer = await client.answer()
            assert hashlib.sha256(answer["data"]).hexdigest() == id["file_hash"]
            assert Cell.one_from_boc(answer["data"]).hash.hex() == id["root_hash"]
            client.query(tl.write("liteServer.getState", {"id": net.chain.master.id.to_tl()}))
            assert (await client.answer())["@type"] == "liteServer.error"
            client.query(tl.write("liteServer.getBlockHeader", {"id": id, "mode": 0}))
            assert (await client.answer())["code"] == 651

    async def test_waiting_for_a_block(self, net: Devnet) -> None:
        seqno = net.chain.master.seqno
        prefix = tl.tag("liteServer.waitMasterchainSeqno")
        info = tl.write("liteServer.getMasterchainInfo", {})
        async with raw(net) as client:
            client.query(prefix + struct.pack("<ii", seqno + 1, 5000) + info)
            await asyncio.sleep(0.05)
            net.tick()
            assert (await client.answer())["last"]["seqno"] == seqno + 1
            client.query(prefix + struct.pack("<ii", seqno + 99, 50) + info)
            assert (await client.answer())["code"] == 652

    async def test_history_needs_the_right_hash(self, net: Devnet) -> None:
        account = {"workchain": 0, "id": net.faucet_address.hash_part.hex()}
        query = {"count": 5, "account": account, "lt": 5, "hash": "00" * 32}
        async with raw(net) as client:
            client.query(tl.write("liteServer.getTransactions", query))
            assert (await client.answer())["@type"] == "liteServer.error"

    async def test_pages_forwards_and_backwards(self, net: Devnet) -> None:
        for number in range(4):
            net.chain._queue.append(_gift(number))
        net.tick()
        id = net.chain.shard.id.to_tl()

        async def pages(reverse: int) -> list[tuple[str, int]]:
            found: list[tuple[str, int]] = []
            after: dict[str, Any] = {}
            async with raw(net) as client:
                while True:
                    mode = 7 | reverse | (128 if after else 0)
                    query = {"id": id, "mode": mode, "count": 3} | after
                    query |= {"reverse_order": b""} if reverse else {}
                    client.query(tl.write("liteServer.listBlockTransactions", query))
                    answer = await client.answer()
                    found += [(item["account"], item["lt"]) for item in answer["ids"]]
                    if not answer["incomplete"]:
                        return found
                    after = {"after": {"account": found[-1][0], "lt": found[-1][1]}}

        forwards = await pages(0)
        assert len(forwards) == 4
        assert forwards == sorted(forwards)
        assert await pages(64) == forwards[::-1]


def _gift(number: int) -> Cell:
    target = Address((0, bytes([200 + number]) * 32))
    return internal_message(source=RICH, destination=target, value=TON, bounce=False)


class TestFaults:
    async def test_drop_and_delay(self, net: Devnet) -> None:
        async with lite(net.config) as client:
            net.faults.drop.add("getTime")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.get_time(), 0.2)
            net.faults.clear()
            net.faults.delay = 0.2
            start = asyncio.get_running_loop().time()
            await client.get_time()
            assert asyncio.get_running_loop().time() - start >= 0.19

    async def test_refuse(self, net: Devnet) -> None:
        net.faults.refuse.add("getTime")
        async with lite(net.config) as client:
            with pytest.raises(LiteServerError, match="not supported"):
                await client.get_time()

    async def test_stale_head(self, net: Devnet) -> None:
        net.faults.stale_head = 2
        net.tick(5)
        async with lite(net.config) as client:
            assert client.last_mc_block.seqno == 2
            net.faults.stale_head = None
            assert (await client.get_masterchain_info())["last"]["seqno"] == net.chain.master.seqno

    async def test_hidden_account(self, net: Devnet) -> None:
        """pytoniq believes it, at every trust level; clients that care must check absence proofs."""
        net.faults.hidden_accounts.add(RICH.hash_part)
        async with lite(net.config) as client:
            assert (await client.get_account_state(RICH)).balance == 0

    async def test_forged_account_fails_the_proof(self, net: Devnet) -> None:
        forged = make_account(RICH, 10**6 * TON, 0).refs[0]
        net.faults.forged_accounts[RICH.hash_part] = write_boc([forged])
        async with lite(net.config) as client:
            with pytest.raises(ProofError):
                await client.get_account_state(RICH)

    async def test_rewrite(self, net: Devnet) -> None:
        net.faults.rewrite["getTime"] = lambda query, answer: answer | {"now": 7}
        async with lite(net.config) as client:
            assert (await client.get_time())["now"] == 7
            net.faults.clear()
            assert (await client.get_time())["now"] > 7

    async def test_duplicate_signatures(self, net: Devnet) -> None:
        net.faults.duplicate_signatures = 3
        query = {
            "mode": 1,
            "known_block": net.init_block.to_tl(),
            "target_block": net.chain.master.id.to_tl(),
        }
        async with raw(net) as client:
            client.query(tl.write("liteServer.getBlockProof", query))
            (step,) = (await client.answer())["steps"]
            assert len(step["signatures"]["signatures"]) == 3

    def test_clear_covers_every_switch(self) -> None:
        faults = Faults(
            delay=1,
            drop={"a"},
            refuse={"b"},
            stale_head=1,
            hidden_accounts={b""},
            forged_accounts={b"": b""},
            duplicate_signatures=2,
            rewrite={"a": lambda query, answer: answer},
        )
        faults.clear()
        assert faults == Faults()


class TestBlockProofs:
    async def test_from_any_block_to_any_block(self, net: Devnet) -> None:
        net.tick(4)
        blocks = [net.chain.block(-1, seqno) for seqno in (1, 2, 4, 7)]
        ids = [block.id for block in blocks if block is not None]
        assert len(ids) == 4
        for known in ids:
            for target in ids:
                query = {"mode": 1, "known_block": known.to_tl(), "target_block": target.to_tl()}
                async with raw(net) as client:
                    client.query(tl.write("liteServer.getBlockProof", query))
                    answer = await client.answer()
                at = known.to_tl()
                for step in answer["steps"]:
                    assert {key: step["from"][key] for key in at} == at
                    at = {key: step["to"][key] for key in at}
                assert at == target.to_tl()

    async def test_a_fork_has_the_same_past(self, tmp_path: Path) -> None:
        async with Devnet.start(tmp_path / "a", block_interval=None) as first:
            first.fund(RICH, TON)
            first.copy_to(tmp_path / "b")
            async with Devnet.start(tmp_path / "b", block_interval=None) as second:
                first.fund(RICH, TON)
                second.fund(RICH, 2 * TON)
                assert first.init_block == second.init_block
                common, fork = first.chain.block(-1, 4), second.chain.block(-1, 4)
                assert common == fork
                assert first.chain.block(-1, 5) != second.chain.block(-1, 5)
                async with lite(second.config, trust=0) as client:  # its signatures are good
                    assert (await client.get_account_state(RICH)).balance > 0
