"""A13 with processes: a chain with four liteservers, of which one, several or all lie, and a forger's chain.

Lies are switched on through the control port, as `cocoon dev faults` does it. The client must go on with the
honest liteservers, or refuse; which of both is the trust mode's business. `test_a13_liteserver.py` has the
same attacks one by one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.chain import LiteChain, TrustMode
from cocoon_ton.devnet import send_command
from cocoon_ton.emulator import LocalGetters, find_sandbox
from cocoon_ton.errors import ChainProofError, ChainUnavailableError, StaleHeadError
from cocoon_ton.network import NetworkConfig

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
MONEY = 5 * 10**9
VICTIM = Address((0, b"\x71" * 32))
RAW = VICTIM.to_str(is_user_friendly=False)


@dataclass
class Chain:
    """A development chain in a process of its own."""

    directory: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(Path(self.ready["config"]).read_text())
        return config

    @property
    def faucet(self) -> Address:
        return Address(json.loads(Path(self.ready["faucet"]).read_text())["address"])

    def network(self, *servers: int, config: dict[str, Any] | None = None) -> NetworkConfig:
        """The network file with some of the liteservers, in this order."""
        chosen = config or self.config
        listed = [chosen["liteservers"][number] for number in servers]
        return NetworkConfig(
            name="victim",
            global_id=self.ready["global_id"],
            registry="",
            global_config=chosen | {"liteservers": listed},
        )

    async def lie(self, *servers: int, **switches: Any) -> None:
        for number in servers:
            await send_command(self.directory, "faults", server=number, set=switches)

    async def honest(self) -> None:
        for number in range(len(self.ready["ports"])):
            await send_command(self.directory, "faults", server=number, clear=True)


@contextmanager
def started(directory: Path, *options: str) -> Iterator[Chain]:
    command = [
        sys.executable,
        "-m",
        "cocoon_ton.devnet",
        "--dir",
        str(directory),
        "--block-ms",
        "50",
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Chain(directory, process, json.loads(process.stdout.readline()))
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The victim's chain: four liteservers."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    with started(tmp_path_factory.mktemp("a13") / "chain", "--liteservers", "4") as chain:
        asyncio.run(send_command(chain.directory, "fund", address=RAW, amount=MONEY))
        yield chain


@pytest.fixture
async def victim(shared: Chain) -> AsyncIterator[Chain]:
    """The victim's chain with all liteservers honest."""
    yield shared
    await shared.honest()


def client(network: NetworkConfig, **options: Any) -> LiteChain:
    return LiteChain(network, **{"head_ttl": 0, "timeout": 1.0} | options)


LIES: dict[str, dict[str, Any]] = {
    "hidden account": {"hide": [RAW]},
    "forged account": {"forge": {RAW: 1}},
    "stale head": {"stale_head": 2},
    "repeated signatures": {"duplicate_signatures": 3},
    "no answers": {"drop": ["getAccountState", "getMasterchainInfo"]},
    "errors": {"refuse": ["getAccountState", "getBlockProof"]},
    "late answers": {"delay": 30},
    "lying getter": {"lying_getter": 999},
}


class TestOneOfThreeLies:
    @pytest.mark.parametrize("lie", LIES)
    async def test_the_client_goes_on_with_the_honest_ones(self, victim: Chain, lie: str) -> None:
        """The liar is asked first."""
        await victim.lie(0, **LIES[lie])
        seqno = (await send_command(victim.directory, "tick"))["seqno"]
        async with client(victim.network(0, 1, 2)) as chain:
            assert (await chain.head()).seqno >= seqno
            state = await chain.account(VICTIM)
            assert state.balance == MONEY
            seqno_of_faucet = (await LocalGetters(chain).run(victim.faucet, "seqno")).unwrap()
            assert seqno_of_faucet == [1]
            assert len(await chain.transactions(VICTIM)) == 1

    async def test_it_is_not_asked_again_for_a_while(self, victim: Chain) -> None:
        await victim.lie(0, hide=[RAW])
        async with client(victim.network(0, 1, 2)) as chain:
            await chain.account(VICTIM)
            assert [server.trusted for server in chain._pool.servers] == [False, True, True]
            await victim.lie(0, hide=[], delay=30)  # would cost a second if it were asked
            started_at = time.monotonic()
            for _ in range(3):
                await chain.account(VICTIM)
            assert time.monotonic() - started_at < 1.0

    async def test_a_signed_fork_is_refused(self, victim: Chain) -> None:
        """Nobody can tell which of two signed blocks is the true one: no answer is better than either."""
        await victim.lie(0, fork=True)
        await send_command(victim.directory, "tick", count=2)

        async def watch(chain: LiteChain) -> None:
            for _ in range(20):  # at some moment both show a block of one number
                await chain.head()

        async with client(victim.network(0, 1, 2)) as chain:
            with pytest.raises(ChainProofError, match="forked"):
                await watch(chain)

    async def test_the_same_client_after_the_liar_is_gone(self, victim: Chain) -> None:
        async with client(victim.network(0, 1, 2)) as chain:
            before = await chain.head()
            await victim.lie(0, stale_head=2)
            await victim.lie(1, drop=["getMasterchainInfo"])
            await send_command(victim.directory, "tick", count=2)
            assert (await chain.head()).seqno > before.seqno
            await victim.honest()
            assert (await chain.account(VICTIM)).balance == MONEY


class TestAllLie:
    @pytest.mark.parametrize("lie", ["hidden account", "forged account", "repeated signatures"])
    async def test_the_client_refuses(self, victim: Chain, lie: str) -> None:
        await victim.lie(0, 1, 2, **LIES[lie])
        async with client(victim.network(0, 1, 2)) as chain:
            with pytest.raises(ChainProofError):
                await chain.account(VICTIM)

    async def test_all_show_an_old_head(self, victim: Chain) -> None:
        await victim.lie(0, 1, 2, stale_head=2)
        later = time.time() + 3600
        async with client(victim.network(0, 1, 2), clock=lambda: later) as chain:
            with pytest.raises(StaleHeadError):
                await chain.account(VICTIM)

    async def test_nobody_answers(self, victim: Chain) -> None:
        await victim.lie(0, 1, 2, drop=["getMasterchainInfo"])
        async with client(victim.network(0, 1, 2), timeout=0.3) as chain:
            with pytest.raises(ChainUnavailableError):
                await chain.account(VICTIM)


class TestQuorum:
    """Mode `prove`: more than two thirds have to name the same block: all of three, three of four."""

    async def test_three_of_four_outvote_a_fork(self, victim: Chain) -> None:
        await victim.lie(0, fork=True)
        await send_command(victim.directory, "tick", count=2)
        async with client(victim.network(0, 1, 2, 3), trust=TrustMode.PROVE) as chain:
            state = await _patiently(chain)
            assert state.balance == MONEY
        async with client(victim.network(1)) as honest:
            seen = await honest.account(VICTIM, state.block)  # the block is on the true chain
            assert seen.balance == MONEY

    async def test_two_of_three_are_not_enough(self, victim: Chain) -> None:
        await victim.lie(0, fork=True)
        await send_command(victim.directory, "tick", count=2)
        async with client(victim.network(0, 1, 2), trust=TrustMode.PROVE) as chain:
            with pytest.raises(ChainUnavailableError, match="do not agree"):
                await chain.head()

    async def test_a_liar_about_accounts_is_passed_over(self, victim: Chain) -> None:
        await victim.lie(0, hide=[RAW])
        async with client(victim.network(0, 1, 2), trust=TrustMode.PROVE) as chain:
            assert (await _patiently(chain)).balance == MONEY


async def _patiently(chain: LiteChain) -> Any:
    """The account; blocks may come between the questions to several liteservers."""
    for _ in range(50):
        try:
            return await chain.account(VICTIM)
        except ChainUnavailableError:
            await asyncio.sleep(0.05)
    raise AssertionError("the liteservers never agreed")


class TestForger:
    """Another chain, run by the attacker, at the addresses of the victim's network file."""

    @pytest.fixture(scope="class")
    @classmethod
    def forger(cls, shared: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
        with started(tmp_path_factory.mktemp("forger") / "chain", "--liteservers", "2") as chain:
            asyncio.run(send_command(chain.directory, "fund", address=RAW, amount=1))
            yield chain

    def mixed(self, victim: Chain, forger: Chain, *servers: int) -> NetworkConfig:
        """The forger's liteservers first, then some of the victim's; the victim's init block."""
        theirs, ours = forger.config["liteservers"], victim.config["liteservers"]
        config = victim.config | {"liteservers": [*theirs, *(ours[number] for number in servers)]}
        return victim.network(*range(2 + len(servers)), config=config)

    @pytest.mark.parametrize("claim", [False, True])
    async def test_alone_it_is_refused(self, victim: Chain, forger: Chain, claim: bool) -> None:
        block = victim.config["validator"]["init_block"] if claim else None
        await forger.lie(0, 1, claimed_key_block=block)
        async with client(self.mixed(victim, forger)) as chain:
            with pytest.raises((ChainProofError, ChainUnavailableError)):
                await chain.account(VICTIM)

    @pytest.mark.parametrize("claim", [False, True])
    async def test_two_forgers_and_one_honest(self, victim: Chain, forger: Chain, claim: bool) -> None:
        """A majority of liars changes nothing where signatures are checked."""
        block = victim.config["validator"]["init_block"] if claim else None
        await forger.lie(0, 1, claimed_key_block=block)
        async with client(self.mixed(victim, forger, 0)) as chain:
            assert (await chain.account(VICTIM)).balance == MONEY


def test_the_command_line_refuses_too(shared: Chain, tmp_path: Path) -> None:
    """`cocoon wallet show` as a process: a balance while a liteserver is honest, an error when all hide the wallet."""
    network = shared.network(0, 1)
    network.save(tmp_path / "networks" / "victim.json")

    def cocoon(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "cocoon_cli", "wallet", *arguments, "--network", "victim", "--json"],
            env=os.environ | {"COCOON_HOME": str(tmp_path)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    code, made = cocoon("new", "--plain")
    assert code == 0
    raw = Address(made["address"]).to_str(is_user_friendly=False)

    async def prepare(*servers: int) -> None:
        for number in servers:
            await send_command(shared.directory, "faults", server=number, set={"hide": [raw]})

    asyncio.run(send_command(shared.directory, "fund", address=raw, amount=MONEY))
    try:
        asyncio.run(prepare(0))
        code, shown = cocoon("show")
        assert (code, shown["balance_nanoton"]) == (0, MONEY)
        asyncio.run(prepare(1))
        code, shown = cocoon("show")
        assert (code, shown["error"]["code"]) == (ChainProofError.exit_code, "chain_proof")
    finally:
        asyncio.run(shared.honest())


def test_the_client_survives_its_liteservers(tmp_path: Path) -> None:
    """kill -9 of the whole chain in the middle, and a new process on the same ports: the client goes on."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
    directory = tmp_path / "chain"

    async def use(chain: LiteChain, within: float) -> int:
        end = time.monotonic() + within
        while True:
            try:
                return (await chain.account(VICTIM)).balance
            except ChainUnavailableError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)

    async def scenario(first: Chain, port: int) -> None:
        async with client(first.network(0, 1), max_head_age=10**6) as chain:
            assert await use(chain, 5) == 0
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            with pytest.raises(ChainUnavailableError):
                await chain.account(VICTIM)
            with started(directory, "--port", str(port), "--liteservers", "2") as second:
                await send_command(second.directory, "fund", address=RAW, amount=MONEY)
                assert await use(chain, 20) in (0, MONEY)
                await asyncio.sleep(0.1)
                assert await use(chain, 5) == MONEY

    port = _free_row()
    with started(directory, "--port", str(port), "--liteservers", "2") as first:
        asyncio.run(scenario(first, port))


def _free_row() -> int:
    """A port such that it and the next one are free."""
    import socket

    for _ in range(50):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        try:
            for number in range(2):
                socket.create_server(("127.0.0.1", port + number)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no free ports in a row")
