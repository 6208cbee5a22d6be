"""``python -m cocoon_ton.devnet`` as a process: files, signals, crashes, control port."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from pytoniq import LiteClient
from pytoniq_core import Address

from cocoon_attestation.errors import ConfigError, MalformedError, UnavailableError, UnsupportedError
from cocoon_ton.devnet import Devnet, send_command
from cocoon_ton.devnet.__main__ import main
from cocoon_ton.devnet.control import ControlServer
from cocoon_ton.emulator import find_sandbox

TON = 10**9
TARGET = Address((0, b"\x05" * 32))
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)


def document(path: str) -> Any:
    """A JSON file."""
    return json.loads(Path(path).read_text())


@asynccontextmanager
async def running(directory: Path, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    """The process and what it said when it was ready."""
    command = [sys.executable, "-m", "cocoon_ton.devnet", "--dir", str(directory), *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield process, json.loads(line) if line else None
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def lite(config: dict[str, Any]) -> AsyncIterator[Any]:
    client = LiteClient.from_config(config, 0, trust_level=0, timeout=5)
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


async def test_ready_line_files_and_sigterm(tmp_path: Path) -> None:
    directory = tmp_path / "chain"
    async with running(directory, "--block-ms", "100") as (process, ready):
        assert ready["ready"] is True
        config = document(ready["config"])
        assert config["liteservers"][0]["port"] == ready["port"]
        for name in ("faucet.json", "keys.json", "control.json"):
            assert (directory / name).stat().st_mode & 0o77 == 0
        assert directory.stat().st_mode & 0o77 == 0
        faucet = json.loads((directory / "faucet.json").read_text())
        key = SigningKey(bytes.fromhex(faucet["seed"]))
        assert bytes(key.verify_key).hex() == faucet["public_key"]
        async with lite(config) as client:
            state = await client.get_account_state(Address(faucet["address"]))
            assert state.balance == 10**9 * TON
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert not (directory / "control.json").exists()


async def test_kill_and_restart_continue_the_same_chain(tmp_path: Path) -> None:
    directory = tmp_path / "chain"
    async with running(directory, "--block-ms", "50") as (process, ready):
        config = document(ready["config"])
        await send_command(directory, "fund", address=TARGET.to_str(), amount=3 * TON)
        async with lite(config) as client:
            before = client.last_mc_block
            money = (await client.get_account_state(TARGET)).balance
            history = [t.lt for t in await client.get_transactions(TARGET, 5)]
            process.send_signal(signal.SIGKILL)
            await process.wait()
    assert money > 0
    async with running(directory) as (process, ready):
        again = document(ready["config"])
        assert again["validator"] == config["validator"]
        assert again["liteservers"][0]["id"] == config["liteservers"][0]["id"]
        async with lite(again) as client:
            assert client.last_mc_block.seqno > before.seqno
            assert (
                await client.raw_get_block(before)
            ).info.seqno == before.seqno  # proved from the key block
            assert (await client.get_account_state(TARGET)).balance == money
            assert [t.lt for t in await client.get_transactions(TARGET, 5)] == history


async def test_second_process_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "chain"
    async with Devnet.start(directory), running(directory) as (process, ready):
        assert ready is None
        assert await process.wait() == ConfigError.exit_code


async def test_port_in_use(tmp_path: Path) -> None:
    async with Devnet.start(tmp_path / "a") as net:
        with pytest.raises(ConfigError, match="port"):
            async with Devnet.start(tmp_path / "b", port=net.port):
                pass


def test_wrong_arguments() -> None:
    with pytest.raises(SystemExit):
        main([])


async def test_keys_of_another_chain(tmp_path: Path) -> None:
    for name in "ab":
        async with Devnet.start(tmp_path / name):
            pass
    (tmp_path / "a/keys.json").write_text((tmp_path / "b/keys.json").read_text())
    with pytest.raises(ConfigError, match="do not belong"):
        async with Devnet.start(tmp_path / "a"):
            pass


async def test_identity_is_kept(tmp_path: Path) -> None:
    async with Devnet.start(tmp_path / "a", global_id=-9) as net:
        init = net.init_block
    async with Devnet.start(tmp_path / "a", global_id=-10) as net:
        assert net.global_id == -9
        assert net.init_block == init


class TestControl:
    async def test_commands(self, tmp_path: Path) -> None:
        directory = tmp_path / "chain"
        async with Devnet.start(directory, block_interval=None) as net:
            status = await send_command(directory, "status")
            assert status["seqno"] == net.chain.master.seqno
            assert (await send_command(directory, "tick", count=3))["seqno"] == status["seqno"] + 3
            warped = await send_command(directory, "warp", seconds=600)
            assert warped["now"] >= status["now"] + 600
            assert net.chain.master.utime >= status["now"] + 600
            await send_command(directory, "fund", address=TARGET.to_str(), amount=TON)
            entry = net.chain.account(TARGET.hash_part)
            assert entry is not None
            assert entry.balance > 0

    @pytest.mark.parametrize(
        ("command", "arguments"),
        [
            ("warp", {"seconds": -1}),
            ("warp", {}),
            ("warp", {"seconds": "x"}),
            ("fund", {"address": "nobody", "amount": 1}),
            ("fund", {"address": TARGET.to_str(), "amount": -1}),
            ("fund", {"address": TARGET.to_str(), "amount": 1 << 200}),
            ("launch", {}),
        ],
    )
    async def test_bad_commands(self, tmp_path: Path, command: str, arguments: dict[str, object]) -> None:
        async with Devnet.start(tmp_path / "chain", block_interval=None) as net:
            seqno = net.chain.master.seqno
            with pytest.raises(MalformedError):
                await send_command(tmp_path / "chain", command, **arguments)
            assert net.chain.master.seqno == seqno

    async def test_token_is_needed(self) -> None:
        async def command(_: dict[str, Any]) -> dict[str, object]:
            return {"done": True}

        server = ControlServer("secret", {"do": command})
        port = await server.start()
        try:
            for line, accepted in (
                (b'{"token": "secret", "command": "do"}\n', True),
                (b'{"token": "guess", "command": "do"}\n', False),
                (b'{"command": "do"}\n', False),
                (b"[]\n", False),
                (b"nonsense\n", False),
                (b"\n", False),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(line)
                answer = json.loads(await reader.readline())
                writer.close()
                assert (answer.get("ok") is True) is accepted
                assert ("done" in answer) is accepted
        finally:
            await server.stop()

    async def test_too_long_a_line(self) -> None:
        server = ControlServer("secret", {})
        port = await server.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 100_000)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        finally:
            await server.stop()

    async def test_nothing_runs(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError):
            await send_command(tmp_path, "status")
