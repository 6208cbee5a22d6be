"""Other people's tools on a development chain: read the registry, run its getter, pay with their own wallets.

Each tool runs unmodified in a process of its own and knows nothing but the global configuration. TON's
official library, which checks every proof on the way, is in ``test_devnet_tonlib.py``; these believe more.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address, Cell

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.devnet import Devnet, GenesisAccount
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.registry import parse_registry
from cocoon_ton.registry_messages import RegistryGenesis

from .conftest import MODEL, PARAMETERS, POLICY, RELEASE, TREASURY

TON = 10**9
FOREIGN = Path(__file__).with_name("foreign")
PACKAGES = Path(__file__).parents[2] / "ton_contracts"
GENESIS = RegistryGenesis(
    global_id=-217,
    governance=TREASURY,
    parameters=PARAMETERS,
    policy=POLICY,
    releases=(RELEASE,),
    models={MODEL: "demo"},
    since=1_790_000_000,
)
AMOUNT = 123_456_789


@pytest.fixture
async def net() -> AsyncIterator[Devnet]:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    init = GENESIS.state_init
    registry = GenesisAccount(balance=5 * TON, code=init.code, data=init.data)
    async with Devnet.start(block_interval=0.1, accounts={GENESIS.address: registry}) as net:
        yield net


def _npm() -> list[str]:
    node = shutil.which("node")
    if node is None or not (PACKAGES / "node_modules/ton-lite-client").is_dir():
        pytest.skip("needs Node.js and `npm ci` in ton_contracts, as `make test` does it")
    return [node, str(FOREIGN / "npm_client.mjs")]


def _tonutils() -> list[str]:
    pytest.importorskip("tonutils", reason="tonutils is not installed")
    return [sys.executable, str(FOREIGN / "tonutils_client.py")]


async def use(net: Devnet, command: list[str], job: dict[str, Any]) -> dict[str, Any]:
    """Run a tool: fund the wallet that it names first, and return its report."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 20
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(90):
            process.stdin.write(json.dumps(job).encode())
            process.stdin.write_eof()
            line = await process.stdout.readline()
            assert line, (await process.stderr.read()).decode()
            net.fund(Address(json.loads(line)["wallet"]), TON)
            line = await process.stdout.readline()
            assert line, (await process.stderr.read()).decode()
            report: dict[str, Any] = json.loads(line)
            assert await process.wait() == 0
            return report
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("tool", [_tonutils, _npm], ids=["tonutils", "npm"])
async def test_read_the_registry_and_pay(net: Devnet, tool: Any) -> None:
    target = Address((0, tool.__name__.encode().ljust(32, b"\0")))
    job = {
        "config": net.config,
        "registry": GENESIS.address.to_str(is_user_friendly=False),
        "getter": "registryState",
        "seed": "37" * 32,
        "to": target.to_str(is_user_friendly=False),
        "amount": str(AMOUNT),
        "packages": str(PACKAGES / "package.json"),
    }
    report = await use(net, tool(), job)
    assert 0 < report["head"] < report["later"] <= net.chain.master.seqno
    assert int(report["balance"]) == 5 * TON
    state = parse_registry(Cell.one_from_boc(base64.b64decode(report["data"])))
    assert state.models[MODEL].name == "demo"
    assert report["getter"] == state.version
    assert report["seqno"] == 1  # the payment was the wallet's first message
    assert len(report["history"]) == 2  # the gift and the payment
    entry = net.chain.account(target.hash_part)
    assert entry is not None
    assert entry.balance == AMOUNT
    assert report["version"] == 0x101
    assert report["shards"] >= 1
    if "elections" in report:
        assert (report["elections"], report["past_elections"]) == (None, 0)
        assert report["config_address"] == "55" * 32
        hidden = net.chain.shard_account(GENESIS.address.hash_part).refs[0]
        assert report["pruned"] == hidden.hash.hex()
    else:
        assert {0, 1, 8, 19, 34} <= set(report["config_params"])
        assert report["balanced"] == report["balance"]
