"""Public libraries of the development chain: contracts find them, liteservers show and prove them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytoniq_core import Cell

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.devnet import Devnet, genesis, tl
from cocoon_ton.emulator.boc import read_boc
from cocoon_ton.emulator.multisig import order_code
from cocoon_ton.multisig import ORDER_CODE_HASH
from cocoon_ton.proof.boc import parse_boc


@pytest.fixture
def code() -> Iterator[Cell]:
    """The library; skipped where its package is not installed."""
    try:
        yield order_code()
    except UnsupportedError as error:
        pytest.skip(str(error))


async def _ask(net: Devnet, method: str, **fields: object) -> tl.Fields:
    return tl.read(await net.liteservers[0].server.query(tl.write(f"liteServer.{method}", fields)))


async def test_libraries_are_shown_and_proved(code: Cell, tmp_path: Path) -> None:
    wanted = [ORDER_CODE_HASH.hex(), "11" * 32]
    for _ in range(2):  # a new chain, then the same one again
        async with Devnet.start(tmp_path / "chain", block_interval=None) as net:
            master = net.tick()
            plain = await _ask(net, "getLibraries", library_list=wanted)
            (entry,) = plain["result"]
            assert entry["hash"] == ORDER_CODE_HASH.hex()
            assert read_boc(entry["data"]) == code

            proved = await _ask(
                net, "getLibrariesWithProof", id=master.id.to_tl(), mode=0, library_list=wanted
            )
            assert [found["hash"] for found in proved["result"]] == [ORDER_CODE_HASH.hex()]
            (proof,) = parse_boc(proved["data_proof"])
            state = proof.refs[0]
            assert state.get_hash(0) == master.state.hash
            assert state.refs[2].refs[-1].refs[0] == code  # balances, dictionary, description
            # other proofs name the dictionary and do not show it
            shards = await _ask(
                net, "getShardInfo", id=master.id.to_tl(), workchain=0, shard=-(1 << 63), exact=True
            )
            assert bytes(code.data) not in shards["shard_proof"]


async def test_a_chain_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Cell:
        raise UnsupportedError("not here")

    monkeypatch.setattr(genesis, "order_code", absent)
    async with Devnet.start(block_interval=None) as net:
        assert net.chain.libraries is None
        assert (await _ask(net, "getLibraries", library_list=[ORDER_CODE_HASH.hex()]))["result"] == []
