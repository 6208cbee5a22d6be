"""TON's official C++ client library accepts the development chain: all its proof checks are on."""

from __future__ import annotations

import asyncio
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


async def ask(library: str, config: dict[str, Any]) -> dict[str, Any]:
    """Run the oracle process."""

    def account(address: Address) -> dict[str, Any]:
        return {"account_address": address.to_str()}

    queries = {
        "account": {"@type": "raw.getAccountState", "account_address": account(FUNDED)},
        "absent": {"@type": "raw.getAccountState", "account_address": account(ABSENT)},
        "shards": {"@type": "blocks.getShards", "id": "{last}"},
        "config": {"@type": "getConfigParam", "mode": 0, "param": 19},
        "contract": {"@type": "smc.load", "account_address": account(FUNDED)},
        "header": {"@type": "blocks.getBlockHeader", "id": "{last}"},
    }
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


@pytest.mark.parametrize("mode", ["ordinary", "simplex"])
async def test_tonlib_accepts_the_chain(library: str, mode: SignatureMode) -> None:
    async with Devnet.start(signature_mode=mode) as net:
        net.fund(FUNDED, 3 * TON)
        net.tick(3)
        answers = await ask(library, net.config)
        errors = {
            name: answer for name, answer in answers.items() if answer["@type"] in ("error", "timeout")
        }
        assert not errors
        assert answers["head"]["last"]["seqno"] >= 3
        assert int(answers["account"]["balance"]) == net.chain.account(FUNDED.hash_part).balance  # type: ignore[union-attr]
        assert int(answers["absent"]["balance"]) == -1
        assert answers["shards"]["shards"][0]["workchain"] == 0
        assert answers["header"]["global_id"] == net.global_id


async def test_tonlib_refuses_a_forged_chain(library: str) -> None:
    """The oracle does check: a chain that only claims to descend from the trusted block fails."""
    async with Devnet.start() as honest, Devnet.start() as evil:
        evil.faults.claimed_key_block = honest.init_block
        answers = await ask(library, evil.config_claiming(honest))
        assert answers["account"]["@type"] in ("error", "timeout")
