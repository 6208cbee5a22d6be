"""The stored key block: a restart goes on from it, and nothing but a sealed and confirmed record is used."""

from __future__ import annotations

import base64
import json
import logging
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from cocoon_ton.chain import AnchorStore, LiteChain, TrustMode
from cocoon_ton.devnet import tl
from cocoon_ton.devnet.adnl import AdnlServer
from cocoon_ton.errors import ChainProofError
from cocoon_ton.lite.anchors import KEY_FILE
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof.answers import block_id, block_id_query
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.values import BlockId

from .conftest import GLOBAL_ID, Forged, Smith, Validator, sign, validators

NOW = 1_790_002_000.0
SERVER = SigningKey(b"\x55" * 32)


class KeyBlocks:
    """A liteserver of a hand-made chain on which validators change again and again."""

    def __init__(self, smith: Smith, signers: dict[int, list[Validator]]) -> None:
        self.smith = smith
        self.signers = signers
        """Who signs after the key block with this number."""
        self.walked: list[tuple[int, int]] = []
        """Known block and target of every proof that was asked for."""
        self.server = AdnlServer(SERVER, self.answer)
        self.network: NetworkConfig

    async def answer(self, data: bytes) -> bytes:
        query = tl.read(data)
        method = query["@type"].removeprefix("liteServer.")
        if method == "getMasterchainInfo":
            zero = {"workchain": -1, "root_hash": "00" * 32, "file_hash": "00" * 32}
            fields = {
                "last": block_id_query(self.smith.head.id),
                "state_root_hash": "00" * 32,
                "init": zero,
            }
            return tl.write("liteServer.masterchainInfo", fields)
        if method == "getBlockHeader":
            block = self._find(block_id(query["id"]))
            proof = write_boc([block.proof])
            header = {"id": block_id_query(block.id), "mode": 0, "header_proof": proof}
            return tl.write("liteServer.blockHeader", header)
        return self._walk(block_id(query["known_block"]), block_id(query["target_block"]))

    def _walk(self, known: BlockId, target: BlockId) -> bytes:
        self.walked.append((known.seqno, target.seqno))
        try:
            start, end = self._find(known), self._find(target)
        except KeyError:
            return tl.write_error(651, "block not found")
        steps: list[dict[str, Any]] = []
        if known.seqno > target.seqno:
            steps.append(self._back(start, end))
        for block in self.smith.blocks:
            inside = known.seqno < block.id.seqno <= target.seqno
            if inside and (block.is_key or block.id == target):
                steps.append(self._forward(start, block))
                start = block
        fields = {
            "complete": True,
            "from": block_id_query(known),
            "to": block_id_query(target),
            "steps": steps,
        }
        return tl.write("liteServer.partialBlockProof", fields)

    def _forward(self, start: Forged, to: Forged) -> dict[str, Any]:
        signed = sign(to.id, self.signers[start.id.seqno])
        return {
            "@type": "liteServer.blockLinkForward",
            "to_key_block": to.is_key,
            "from": block_id_query(start.id),
            "to": block_id_query(to.id),
            "dest_proof": write_boc([to.proof]),
            "config_proof": write_boc([start.proof]),
            "signatures": {
                "@type": "liteServer.signatureSet.ordinary",
                "validator_set_hash": 0,
                "catchain_seqno": 0,
                "signatures": [{"node_id_short": id.hex(), "signature": s} for id, s in signed.signatures],
            },
        }

    def _back(self, start: Forged, to: Forged) -> dict[str, Any]:
        return {
            "@type": "liteServer.blockLinkBack",
            "to_key_block": to.is_key,
            "from": block_id_query(start.id),
            "to": block_id_query(to.id),
            "dest_proof": write_boc([to.proof]),
            "proof": write_boc([start.proof]),
            "state_proof": write_boc([start.state_proof]),
        }

    def _find(self, id: BlockId) -> Forged:
        for block in self.smith.blocks:
            if block.id == id:
                return block
        raise KeyError(id.seqno)


def grow(smith: Smith, signers: dict[int, list[Validator]], keys: int) -> None:
    """`keys` times: two blocks, and a key block with other validators; then two more blocks."""
    signers.setdefault(smith.init.id.seqno, smith.members)
    for number in range(keys):
        smith.add()
        smith.add()
        made = smith.add(members=validators(3, 4, first=20 + len(signers) * 2 + number))
        signers[made.id.seqno] = smith.members
    smith.add()
    smith.add()


@pytest.fixture
async def served(smith: Smith) -> AsyncIterator[KeyBlocks]:
    signers: dict[int, list[Validator]] = {}
    grow(smith, signers, 3)
    server = KeyBlocks(smith, signers)
    port = await server.server.start()
    server.network = _network(smith, port)
    yield server
    await server.server.stop()


def _network(smith: Smith, port: int, name: str = "keys") -> NetworkConfig:
    def text(raw: bytes) -> str:
        return base64.b64encode(raw).decode()

    init = smith.init.id
    block: dict[str, Any] = {"workchain": -1, "shard": -(1 << 63), "seqno": init.seqno}
    block |= {"root_hash": text(init.root_hash), "file_hash": text(init.file_hash)}
    server = {"ip": 0x7F000001, "port": port, "id": {"key": text(bytes(SERVER.verify_key))}}
    config = {"liteservers": [server], "validator": {"init_block": block}}
    return NetworkConfig(name=name, global_id=GLOBAL_ID, registry="", global_config=config)


async def head(server: KeyBlocks, store: AnchorStore | None, **options: Any) -> int:
    """One run of a client, from nothing to a proved head; its number."""
    server.walked.clear()
    network: NetworkConfig = server.network
    async with LiteChain(
        network, clock=lambda: NOW, max_head_age=10**6, head_ttl=0, anchors=store, **options
    ) as chain:
        return (await chain.head()).seqno


def last_key(server: KeyBlocks) -> int:
    return max(server.signers)


class TestRestart:
    async def test_goes_on_from_the_newest_key_block(self, served: KeyBlocks, tmp_path: Path) -> None:
        store, init = AnchorStore(tmp_path / "anchors"), served.smith.init.id.seqno
        newest = served.smith.head.id.seqno
        assert await head(served, store) == newest
        assert served.walked == [(init, newest)]
        assert await head(served, store) == newest
        # one link from the stored block, and the init block in the past of the head
        assert served.walked == [(last_key(served), newest), (newest, init)]

    async def test_follows_further_key_blocks(self, served: KeyBlocks, tmp_path: Path) -> None:
        store = AnchorStore(tmp_path)
        await head(served, store)
        before = last_key(served)
        grow(served.smith, served.signers, 2)
        newest = served.smith.head.id.seqno
        assert await head(served, store) == newest
        assert served.walked[0] == (before, newest)
        assert await head(served, store) == newest
        assert served.walked[0] == (last_key(served), newest)

    async def test_without_a_store_every_start_walks(self, served: KeyBlocks) -> None:
        for _ in range(2):
            await head(served, None)
            assert served.walked[0][0] == served.smith.init.id.seqno

    async def test_only_verify_mode_reads_or_writes(self, served: KeyBlocks, tmp_path: Path) -> None:
        await head(served, AnchorStore(tmp_path), trust=TrustMode.OBSERVE)
        assert os.listdir(tmp_path) == []

    async def test_a_store_that_cannot_be_written_harms_nobody(
        self, served: KeyBlocks, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("not a folder")
        with caplog.at_level(logging.WARNING):
            assert await head(served, AnchorStore(tmp_path / "file")) == served.smith.head.id.seqno
        assert "could not be stored" in caplog.text or "cannot be read" in caplog.text


class TestRefusal:
    @pytest.fixture
    async def store(self, served: KeyBlocks, tmp_path: Path) -> AnchorStore:
        store = AnchorStore(tmp_path)
        await head(served, store)
        return store

    def record(self, tmp_path: Path) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((tmp_path / "keys.json").read_text())
        return document

    async def check_refused(
        self, served: KeyBlocks, store: AnchorStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The file is not used, and the client walks from the init block."""
        with pytest.raises(ChainProofError):
            store.read(served.network)
        with caplog.at_level(logging.WARNING):
            assert await head(served, store) == served.smith.head.id.seqno
        assert "init block" in caplog.text
        assert served.walked[0][0] == served.smith.init.id.seqno

    async def test_any_changed_byte(self, served: KeyBlocks, store: AnchorStore, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        good = path.read_bytes()
        network: NetworkConfig = served.network
        wanted = store.read(network)
        assert wanted is not None
        refused = 0
        for at in range(0, len(good), 3):
            for mask in (1, 0x20):
                path.write_bytes(good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :])
                try:
                    found = store.read(network)
                except ChainProofError:
                    refused += 1
                else:
                    assert found == wanted  # upper case in a hash, another kind of white space
        assert refused > len(good) // 3

    async def test_cut_short(
        self, served: KeyBlocks, store: AnchorStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "keys.json"
        path.write_bytes(path.read_bytes()[:100])
        await self.check_refused(served, store, caplog)
        assert store.read(served.network) is not None  # written anew

    async def test_another_block_in_it(
        self, served: KeyBlocks, store: AnchorStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        forger = Smith(validators(9, first=90), first_seqno=5000)
        record = self.record(tmp_path)
        record["block"] |= {
            "seqno": forger.init.id.seqno,
            "root_hash": forger.init.id.root_hash.hex(),
            "file_hash": forger.init.id.file_hash.hex(),
        }
        (tmp_path / "keys.json").write_text(json.dumps(record))
        await self.check_refused(served, store, caplog)

    async def test_from_another_machine(
        self, served: KeyBlocks, store: AnchorStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / KEY_FILE).write_bytes(bytes(32))
        await self.check_refused(served, store, caplog)

    async def test_without_its_key(
        self, served: KeyBlocks, store: AnchorStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / KEY_FILE).unlink()
        await self.check_refused(served, store, caplog)

    @pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
    @pytest.mark.parametrize("name", ["keys.json", KEY_FILE])
    async def test_writable_by_others(
        self,
        served: KeyBlocks,
        store: AnchorStore,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        name: str,
    ) -> None:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        (tmp_path / name).chmod(0o666)
        await self.check_refused(served, store, caplog)

    @pytest.mark.skipif(os.name != "posix", reason="symbolic links")
    async def test_a_link_to_elsewhere(
        self, served: KeyBlocks, store: AnchorStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "keys.json").rename(tmp_path / "elsewhere")
        (tmp_path / "keys.json").symlink_to(tmp_path / "elsewhere")
        await self.check_refused(served, store, caplog)

    async def test_of_another_network(self, served: KeyBlocks, store: AnchorStore, tmp_path: Path) -> None:
        """Same name, other init block: as after a network was made anew."""
        other = Smith(validators(1, 2), first_seqno=900)
        with pytest.raises(ChainProofError, match="another network"):
            store.read(_network(other, 1))

    async def test_a_sealed_record_that_the_chain_does_not_have(
        self, served: KeyBlocks, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The seal is good and the block is not on the chain: the walk decides."""
        forger = Smith(validators(9, first=90), first_seqno=5000)
        store = AnchorStore(tmp_path)
        store.save(served.network, forger.init.id)
        with caplog.at_level(logging.WARNING):
            assert await head(served, store) == served.smith.head.id.seqno
        assert "dropped" in caplog.text
        network: NetworkConfig = served.network
        found = store.read(network)
        assert found is not None
        assert found.seqno == last_key(served)

    async def test_a_chain_without_our_init_block_in_its_past(
        self, served: KeyBlocks, tmp_path: Path
    ) -> None:
        """A sealed record and a liteserver of the same forger: the init block is missing, and is not walked to."""
        forger = Smith(validators(9, first=90), first_seqno=5000)
        signers: dict[int, list[Validator]] = {}
        grow(forger, signers, 1)
        store = AnchorStore(tmp_path)
        store.save(served.network, forger.init.id)
        served.smith, served.signers = forger, signers
        with pytest.raises(Exception, match=r"error 651|chain|block"):
            await head(served, store)

    async def test_a_liar_does_not_cost_us_the_record(self, served: KeyBlocks, store: AnchorStore) -> None:
        network: NetworkConfig = served.network
        wanted = store.read(network)
        true, served.signers = served.signers, {key: validators(1, first=99) for key in served.signers}
        with pytest.raises(ChainProofError):
            await head(served, store)
        assert store.read(network) == wanted
        served.signers = true
        await head(served, store)
        assert served.walked[0][0] == last_key(served)


class TestFile:
    def test_older_blocks_do_not_replace_newer_ones(self, smith: Smith, tmp_path: Path) -> None:
        network, store = _network(smith, 1), AnchorStore(tmp_path)
        first, second = smith.add(key=True), smith.add(key=True)
        for block in (second, first):
            store.save(network, block.id)
        assert store.read(network) == second.id

    def test_not_newer_than_the_init_block(self, smith: Smith, tmp_path: Path) -> None:
        network, store = _network(smith, 1), AnchorStore(tmp_path)
        store.save(network, smith.init.id)
        assert store.read(network) is None

    def test_nothing_there(self, smith: Smith, tmp_path: Path) -> None:
        store = AnchorStore(tmp_path / "none")
        assert store.load(_network(smith, 1)) is None
        store.forget(_network(smith, 1))

    def test_a_crash_while_writing_leaves_the_old_record(
        self, smith: Smith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network, store = _network(smith, 1), AnchorStore(tmp_path)
        first, second = smith.add(key=True), smith.add(key=True)
        store.save(network, first.id)

        def crash(*_: object) -> None:
            raise OSError("no power")

        for step in ("os.fsync", "os.replace"):
            with monkeypatch.context() as patch:
                patch.setattr(step, crash)
                with pytest.raises(OSError, match="power"):
                    store.save(network, second.id)
            assert store.read(network) == first.id

    def test_networks_have_records_of_their_own(self, smith: Smith, tmp_path: Path) -> None:
        store, block = AnchorStore(tmp_path), smith.add(key=True)
        store.save(_network(smith, 1, "one"), block.id)
        assert store.read(_network(smith, 1, "two")) is None
        assert store.read(_network(smith, 1, "one")) == block.id
