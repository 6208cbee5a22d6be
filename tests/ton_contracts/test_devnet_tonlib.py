"""TON's official C++ client library accepts the development chain: all its proof checks are on."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.devnet import Devnet
from cocoon_ton.devnet.signatures import SignatureMode
from cocoon_ton.emulator import find_sandbox

TON = 10**9
FUNDED = Address((0, b"\x05" * 32))
ABSENT = Address((0, b"\x07" * 32))
ELECTOR = Address((-1, b"\x33" * 32))


@pytest.fixture(scope="module")
def library() -> str:
    """Path of libtonlibjson, which the PyPI package pytonlib carries for some platforms."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    tonlibjson = pytest.importorskip("pytonlib.tonlibjson", reason="pytonlib is not installed")
    try:
        path = Path(tonlibjson.get_tonlib_path())
    except RuntimeError as error:
        pytest.skip(str(error))
    if not path.is_file():
        pytest.skip(f"pytonlib has no library for this platform: {path.name}")
    return str(path)


def account(address: Address) -> dict[str, Any]:
    """`accountAddress`."""
    return {"account_address": address.to_str()}


def block(workchain: int, seqno: int) -> dict[str, Any]:
    """`ton.blockId` of a block by number."""
    return {"@type": "ton.blockId", "workchain": workchain, "shard": str(-(1 << 63)), "seqno": seqno}


READ: dict[str, dict[str, Any]] = {
    "account": {"@type": "raw.getAccountState", "account_address": account(FUNDED)},
    "absent": {"@type": "raw.getAccountState", "account_address": account(ABSENT)},
    "shards": {"@type": "blocks.getShards", "id": "{last}"},
    "config": {"@type": "getConfigParam", "mode": 0, "param": 19},
    "everything": {"@type": "getConfigAll", "mode": 0},
    "contract": {"@type": "smc.load", "account_address": account(FUNDED)},
    "header": {"@type": "blocks.getBlockHeader", "id": "{last}"},
    "elector": {"@type": "smc.load", "account_address": account(ELECTOR)},
    "getter": {
        "@type": "smc.runGetMethod",
        "id": "{elector.id}",
        "method": {"@type": "smc.methodIdName", "name": "active_election_id"},
        "stack": [],
    },
    "queues": {"@type": "blocks.getOutMsgQueueSizes", "mode": 0, "wc": 0, "shard": 0},
    "signatures": {"@type": "blocks.getMasterchainBlockSignatures", "seqno": 3},
    "old_master": {"@type": "blocks.lookupBlock", "mode": 1, "id": block(-1, 2), "lt": 0, "utime": 0},
    "old_shard": {"@type": "blocks.lookupBlock", "mode": 1, "id": block(0, 2), "lt": 0, "utime": 0},
    "server": {"@type": "liteServer.getInfo"},
}


async def ask(library: str, config: dict[str, Any], queries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run the oracle process."""
    job = json.dumps({"config": config, "library": library, "queries": queries}).encode()
    script = str(Path(__file__).with_name("tonlib_oracle.py"))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(job), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 and b"cannot open shared object" in errors:
        pytest.skip("libtonlibjson cannot be loaded here")
    assert process.returncode == 0, errors.decode()
    answers: dict[str, Any] = json.loads(output)
    return answers


def errors_in(answers: dict[str, Any]) -> dict[str, Any]:
    """The answers that are none."""
    return {name: answer for name, answer in answers.items() if answer.get("@type") in ("error", "timeout")}


@pytest.mark.parametrize("mode", ["ordinary", "simplex"])
async def test_tonlib_accepts_the_chain(library: str, mode: SignatureMode) -> None:
    async with Devnet.start(signature_mode=mode) as net:
        net.fund(FUNDED, 3 * TON)
        net.tick(3)
        answers = await ask(library, net.config, READ)
        assert not errors_in(answers)
        assert answers["head"]["last"]["seqno"] >= 3
        assert int(answers["account"]["balance"]) == net.chain.account(FUNDED.hash_part).balance  # type: ignore[union-attr]
        assert int(answers["absent"]["balance"]) == -1
        assert answers["shards"]["shards"][0]["workchain"] == 0
        assert answers["header"]["global_id"] == net.global_id
        assert answers["getter"]["stack"][0]["number"]["number"] == "0"
        assert [shard["size"] for shard in answers["queues"]["shards"]] == [0, 0]
        assert answers["signatures"]["@type"].endswith("simplex") is (mode == "simplex")
        for workchain, name in ((-1, "old_master"), (0, "old_shard")):
            old = net.chain.block(workchain, 2)
            assert old is not None
            assert base64.b64decode(answers[name]["root_hash"]) == old.id.root_hash


async def test_tonlib_finds_old_blocks_of_a_long_chain(library: str) -> None:
    """Blocks of which the state keeps only hashes of hashes are proved from the newest one."""
    async with Devnet.start(block_interval=3) as net:
        net.tick(600)
        queries = {
            f"{workchain}:{seqno}": {
                "@type": "blocks.lookupBlock", "mode": 1, "id": block(workchain, seqno), "lt": 0, "utime": 0
            }
            for workchain in (0, -1)
            for seqno in (1, 255, 256, 511, 512, 600)
        }  # fmt: skip
        answers = await ask(library, net.config, queries)
        assert not errors_in(answers)
        for name in queries:
            found = net.chain.block(*map(int, name.split(":")))
            assert found is not None
            assert base64.b64decode(answers[name]["root_hash"]) == found.id.root_hash


async def test_tonlib_pays_with_its_own_wallet(library: str) -> None:
    """A key of the library, its v3 wallet, its message; confirmed by its own proved read."""
    wallet: dict[str, Any] = {
        "@type": "wallet.v3.initialAccountState", "public_key": "{key.public_key}", "wallet_id": "698983191"
    }  # fmt: skip
    secret = base64.b64encode(b"\x61" * 32).decode()
    own: dict[str, dict[str, Any]] = {
        "key": {
            "@type": "importUnencryptedKey",
            "local_password": "",
            "exported_unencrypted_key": {"@type": "exportedUnencryptedKey", "data": secret},
        },
        "address": {
            "@type": "getAccountAddress",
            "initial_account_state": wallet,
            "revision": 2,
            "workchain_id": 0,
        },
    }
    message: dict[str, Any] = {
        "@type": "msg.message",
        "destination": account(FUNDED),
        "public_key": "",
        "amount": str(TON),
    }
    message |= {"data": {"@type": "msg.dataText", "text": ""}, "send_mode": 3}
    pay: dict[str, dict[str, Any]] = {
        "query": {
            "@type": "createQuery",
            "private_key": {
                "@type": "inputKeyRegular",
                "key": {"@type": "key", "public_key": "{key.public_key}", "secret": "{key.secret}"},
                "local_password": "",
            },
            "address": "{address}",
            "timeout": 60,
            "action": {"@type": "actionMsg", "messages": [message], "allow_send_to_uninited": True},
            "initial_account_state": wallet,
        },
        "send": {"@type": "query.send", "id": "{query.id}"},
        "seen": {
            "@type": "raw.getAccountState", "account_address": account(FUNDED), "until": {"balance": str(TON)}
        },
        "wallet": {"@type": "getAccountState", "account_address": "{address}"},
    }  # fmt: skip
    async with Devnet.start(block_interval=0.1) as net:
        before = await ask(library, net.config, own)
        assert not errors_in(before)
        net.fund(Address(before["address"]["account_address"]), 3 * TON)
        answers = await ask(library, net.config, own | pay)
        assert not errors_in(answers)
        assert answers["seen"]["balance"] == str(TON)
        assert int(answers["wallet"]["account_state"]["seqno"]) == 1


async def test_tonlib_refuses_a_forged_chain(library: str) -> None:
    """The oracle does check: a chain that only claims to descend from the trusted block fails."""
    async with Devnet.start() as honest, Devnet.start() as evil:
        evil.faults.claimed_key_block = honest.init_block
        answers = await ask(library, evil.config_claiming(honest), READ)
        assert answers["account"]["@type"] in ("error", "timeout")
