"""Other people's software reads the running network: the registry account through unmodified clients."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytoniq import LiteClient

from cocoon_ton.devnet import send_command
from cocoon_ton.registry import parse_registry

if TYPE_CHECKING:
    from tests.network.netkit import Running

pytestmark = [pytest.mark.network, pytest.mark.model]
FOREIGN = Path(__file__).parents[1] / "ton_contracts" / "foreign"
PACKAGES = Path(__file__).parents[2] / "ton_contracts"
ORACLE = Path(__file__).parents[1] / "ton_contracts" / "tonlib_oracle.py"
logging.getLogger("LiteClient").setLevel(logging.CRITICAL)


def _check(net: Running, data: Any) -> None:
    """The registry lists this network's node, attested, with the endpoint that clients dial."""
    state = parse_registry(data)
    assert state.global_id == net.network.global_id
    assert [node.hex() for node in state.nodes] == [net.node_id]
    (entry,) = state.nodes.values()
    assert net.public is not None
    assert entry.terms.endpoint == f"127.0.0.1:{net.public.port}"
    assert entry.is_attested(int(time.time()))


@pytest.mark.parametrize("trust", [2, 1, 0])
async def test_pytoniq_reads_the_registry(
    net: Running, trust: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # pytoniq writes .blockstore where it stands
    config = json.loads((net.dev.root / "chain" / "global.config.json").read_text())
    client = LiteClient.from_config(config, 0, trust_level=trust)
    async with asyncio.timeout(60):
        await client.connect()
        try:
            account = await client.get_account_state(net.network.registry_address)
        finally:
            await client.close()
    assert account.state.type_ == "active"
    assert account.balance > 0
    _check(net, account.state.state_init.data)


def test_the_official_library_reads_the_registry(net: Running) -> None:
    from pytoniq_core import Cell

    library = _library()
    address = net.network.registry_address.to_str()
    queries = {
        "registry": {"@type": "raw.getAccountState", "account_address": {"account_address": address}},
    }
    job = {"config": net.network.global_config, "library": library, "queries": queries}
    found = subprocess.run(
        [sys.executable, str(ORACLE)],
        input=json.dumps(job).encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    if b"cannot open shared object" in found.stderr:
        pytest.skip("libtonlibjson cannot be loaded here")
    assert found.returncode == 0, found.stderr.decode()
    answer = json.loads(found.stdout)["registry"]
    assert answer["@type"] == "raw.fullAccountState", answer
    assert int(answer["balance"]) > 0

    _check(net, Cell.one_from_boc(base64.b64decode(answer["data"])))


@pytest.mark.parametrize("tool", ["tonutils", "npm"])
def test_other_tools_read_the_registry_and_pay(net: Running, tool: str) -> None:
    """A lite client and a wallet of somebody else, told nothing but the global configuration."""
    from pytoniq_core import Cell

    if tool == "tonutils":
        pytest.importorskip("tonutils", reason="tonutils is not installed")
        command = [sys.executable, str(FOREIGN / "tonutils_client.py")]
    else:
        node = shutil.which("node")
        if node is None or not (PACKAGES / "node_modules/ton-lite-client").is_dir():
            pytest.skip("needs Node.js and `npm ci` in ton_contracts, as `make test` does it")
        command = [node, str(FOREIGN / "npm_client.mjs")]
    job = {
        "config": net.network.global_config,
        "registry": net.network.registry,
        "getter": "registryState",
        "seed": secrets.token_hex(32),
        "to": f"0:{secrets.token_hex(32)}",
        "amount": "123456789",
        "packages": str(PACKAGES / "package.json"),
    }
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            wallet = json.loads(process.stdout.readline())["wallet"]
            asyncio.run(send_command(net.dev.root / "chain", "fund", address=wallet, amount=10**9))
            report = json.loads(process.stdout.readline())
        finally:
            timer.cancel()
    assert process.returncode == 0
    _check(net, Cell.one_from_boc(base64.b64decode(report["data"])))
    assert report["seqno"] == 1
    assert report["head"] < report["later"]


def _library() -> str:
    tonlibjson = pytest.importorskip("pytonlib.tonlibjson", reason="pytonlib is not installed")
    try:
        path = Path(tonlibjson.get_tonlib_path())
    except RuntimeError as error:
        pytest.skip(str(error))
    if not path.is_file():
        pytest.skip(f"pytonlib has no library for this platform: {path.name}")
    return str(path)
