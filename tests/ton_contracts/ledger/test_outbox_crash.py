"""The process dies between any two steps: nothing is paid twice, nothing is lost."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address

from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import Emulator
from cocoon_ton.outbox import OperationState, sender
from cocoon_ton.outbox.store import OutboxStore

from .conftest import network_of
from .emulated import EmulatedChain
from .test_outbox import CAROL, make_chain, open_outbox, order, pay, received

STEPS = [
    (OutboxStore, "add"),
    (OutboxStore, "start_batch"),
    (OutboxStore, "finish_batch"),
    (OutboxStore, "void_batch"),
    (OutboxStore, "settle"),
    (OutboxStore, "external_sent"),
    (EmulatedChain, "account"),
    (EmulatedChain, "transactions"),
    (EmulatedChain, "send"),
]


class Killed(BaseException):
    """What a kill -9 would do here."""


class Killer:
    """Kills at the n-th of the points before and after every step."""

    def __init__(self, at: int) -> None:
        self.at, self.points = at, 0

    def point(self) -> None:
        self.points += 1
        if self.points == self.at:
            raise Killed

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def slowly(*args: Any, **kwargs: Any) -> Any:
                self.point()
                result = await function(*args, **kwargs)
                self.point()
                return result

            return slowly

        @functools.wraps(function)
        def quickly(*args: Any, **kwargs: Any) -> Any:
            self.point()
            result = function(*args, **kwargs)
            self.point()
            return result

        return quickly


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Killer]:
    def arm(at: int) -> Killer:
        monkeypatch.undo()
        killer = Killer(at)
        for owner, name in STEPS:
            monkeypatch.setattr(owner, name, killer.wrap(getattr(owner, name)))
        return killer

    return arm


def operations(chain: EmulatedChain) -> dict[str, Any]:
    return {f"{n}": pay(n) for n in range(1, 7)} | {"order": order(chain, 50, valid_for=10_000)}


async def life(directory: Path, chain: EmulatedChain, wanted: dict[str, Any], rounds: int) -> None:
    """One life of a process: it asks for everything again, as its caller would after a crash."""
    async with open_outbox(directory, chain) as outbox:
        assert outbox._store is not None
        outbox._store._db.execute("PRAGMA synchronous = OFF")  # the machine stays up here
        for key, operation in wanted.items():
            outbox.enqueue(key, operation)
        for _ in range(rounds):
            await outbox.step()
            chain.block()


def story(chain: EmulatedChain) -> Iterator[None]:
    """What the network does meanwhile: loses the first message, lets one expire, replays all."""
    chain.take = False
    yield
    chain.block(seconds=sender.TIME_TO_LIVE)
    chain.take = True
    yield
    chain.replay()
    while True:
        yield


async def test_killed_at_every_point(
    emulator: Emulator, tmp_path: Path, armed: Callable[[int], Killer]
) -> None:
    at, deaths = 1, 0
    while True:
        chain = make_chain(emulator)
        wanted = operations(chain)
        directory = tmp_path / f"{at}"
        killer, acts = armed(at), story(chain)
        for _ in range(4):
            next(acts)
            try:
                await life(directory, chain, wanted, 2)
            except Killed:
                deaths += 1
        armed(0)
        await life(directory, chain, wanted, 8)
        chain.replay()
        chain.block()
        assert sorted(received(chain)) == [1, 2, 3, 4, 5, 6], f"killed at point {at}"
        assert received(chain, CAROL) == [50]
        async with open_outbox(directory, chain) as outbox:
            assert all(outbox.status(key).state is OperationState.SEEN for key in wanted)
        if killer.points < at:
            break
        at += 1
    assert deaths == at - 1
    assert deaths > 60


async def test_killed_again_and_again(
    emulator: Emulator, tmp_path: Path, armed: Callable[[int], Killer]
) -> None:
    """Deaths at random points, many in a row."""
    dice = random.Random(7)
    for number in range(10):
        chain = make_chain(emulator)
        wanted = operations(chain)
        for _ in range(12):
            armed(dice.randint(1, 40))
            chain.take = dice.random() < 0.7
            chain.lag = dice.choice([0, 0, 2])
            try:
                await life(tmp_path / f"{number}", chain, wanted, 3)
            except Killed:
                chain.block(seconds=dice.choice([1, 5, sender.TIME_TO_LIVE]))
        armed(0)
        chain.take, chain.lag = True, 0
        await life(tmp_path / f"{number}", chain, wanted, 8)
        chain.replay()
        chain.block()
        assert sorted(received(chain)) == [1, 2, 3, 4, 5, 6]
        assert received(chain, CAROL) == [50]


PAYMENTS = 24
CHILD = """
import asyncio, json, sys
from pathlib import Path
from pytoniq_core import Address, Cell
from cocoon_ton import treasury as module
from cocoon_ton.chain import LiteChain
from cocoon_ton.network import load_network
from cocoon_ton.treasury import Payment, WalletTreasury
from cocoon_ton.wallet import faucet_wallet

module._STEP_S = 0.05

async def main(directory, count):
    network = load_network(directory / "network.json")
    async with LiteChain(network, head_ttl=0.1) as chain:
        treasury = WalletTreasury(faucet_wallet(network), outbox=directory / "outbox.sqlite", chain=chain)
        payments = [
            Payment(key=f"payment {n}", to=Address((0, b"\\xb0" * 32)), value=n, body=Cell.empty(), bounce=False)
            for n in range(1, count + 1)
        ]
        print("ready", flush=True)
        for at in range(0, count, 6):
            for number, found in enumerate(await treasury.pay_all(payments[at : at + 6]), start=at + 1):
                assert not isinstance(found, Exception), found
                print("seen", number, flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_real_process_killed(sandbox: None, tmp_path: Path) -> None:
    """kill -9, over and over, against a running chain; then the money is counted."""
    dice = random.Random(3)
    bob = Address((0, b"\xb0" * 32))
    async with Devnet.start(block_interval=0.1) as devnet:
        faucet = {"seed": devnet.faucet_seed.hex(), "wallet": "v4r2"}
        document = json.loads(network_of(devnet).to_json()) | {"faucet": faucet}
        (tmp_path / "network.json").write_text(json.dumps(document))
        deaths = 0
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CHILD, str(tmp_path), str(PAYMENTS), stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            try:
                await process.stdout.readline()
                if deaths < 6:
                    async with asyncio.timeout(dice.uniform(0.0, 0.2)):
                        await process.wait()
                else:
                    await process.wait()
            except TimeoutError:
                os.kill(process.pid, signal.SIGKILL)
                deaths += 1
            output = await process.stdout.read()
            if await process.wait() == 0:
                assert output.count(b"seen") == PAYMENTS
                break
        async with LiteChain(network_of(devnet), head_ttl=0) as chain:
            history = await chain.transactions(bob, limit=1000)
    assert deaths >= 3
    amounts = sorted(transaction.in_msg.value for transaction in history if transaction.in_msg)
    assert amounts == list(range(1, PAYMENTS + 1))
