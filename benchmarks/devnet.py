"""Does a development chain slow down as accounts are added? Times of its parts, at several sizes.

The chains of all sizes do each step in turn, so a busy machine slows all of them alike; the last column compares the
largest with the smallest. Times are medians in milliseconds. A block "with 20 payments" runs 20 transactions, TVM
and SQLite commit included; "proved head, account" is what `LiteChain` does over ADNL, with all checks.

    python benchmarks/devnet.py [--sizes 100 1000 10000] [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from pytoniq_core import Address

from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import internal_message
from cocoon_ton.network import NetworkConfig

QUESTION: Final = "does a development chain slow down as accounts are added?"
PAYMENTS: Final = 20


def owner(number: int) -> Address:
    """Address of an account of the zerostate."""
    return Address((0, hashlib.sha256(b"account %d" % number).digest()))


class Subject:
    """One chain on disk and a client of it."""

    def __init__(self, size: int, started: float, net: Devnet, chain: LiteChain) -> None:
        self.size = size
        self.net = net
        self.chain = chain
        self.times: dict[str, list[float]] = {"start": [started]}
        self._next = 0

    def addresses(self, count: int) -> list[Address]:
        """The next `count` accounts, round and round."""
        found = [owner((self._next + number) % self.size) for number in range(count)]
        self._next += count
        return found

    async def empty_block(self) -> None:
        """A block without transactions."""
        self.net.tick()

    async def block(self) -> None:
        """A block in which 20 different accounts get money."""
        for address in self.addresses(PAYMENTS):
            gift = internal_message(source=address, destination=address, value=1, bounce=False)
            self.net.chain._queue.append(gift)
        self.net.tick()

    async def read(self) -> None:
        """One account of the newest block, proved."""
        (address,) = self.addresses(1)
        if not (await self.chain.account(address)).exists:
            raise RuntimeError("an account is missing")

    async def old_state(self) -> None:
        """The state after a block that is no longer in memory, from blocks and the history of accounts."""
        self.net.chain._states.clear()
        block = self.net.chain.block(0, max(1, self.net.chain.master.seqno - 20))
        if block is None:
            raise RuntimeError("a block is missing")
        self.net.chain.state(block)

    async def snapshot(self) -> None:
        """A named copy on disk."""
        self.net.save("benchmark")

    async def measure(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step and note its time."""
        begin = time.perf_counter()
        await step()
        self.times.setdefault(name, []).append((time.perf_counter() - begin) * 1000)


async def begin(stack: AsyncExitStack, size: int, directory: Path) -> Subject:
    """A new chain with `size` accounts."""
    accounts = {owner(number): 10**9 for number in range(size)}
    started = time.perf_counter()
    net = await stack.enter_async_context(Devnet.start(directory, block_interval=None, accounts=accounts))
    spent = (time.perf_counter() - started) * 1000
    network = NetworkConfig(
        name="benchmark", global_id=net.global_id, registry="", global_config=net.config
    )
    return Subject(size, spent, net, await stack.enter_async_context(LiteChain(network, head_ttl=0)))


async def measure(sizes: Sequence[int], rounds: int) -> list[Subject]:
    """All chains, with their times."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subjects = [await begin(stack, size, folder / str(size)) for size in sizes]
        for _ in range(rounds):
            for subject in subjects:
                await subject.measure("empty block", subject.empty_block)
                await subject.measure(f"block with {PAYMENTS} payments", subject.block)
                await subject.measure("proved head, account", subject.read)
                await subject.measure("state of 20 blocks ago", subject.old_state)
        for subject in subjects:
            for _ in range(3):
                await subject.measure("snapshot", subject.snapshot)
        return subjects


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    subjects = asyncio.run(measure(sorted(options.sizes), options.rounds))
    medians = {
        step: [round(statistics.median(subject.times[step]), 2) for subject in subjects]
        for step in subjects[0].times
    }
    if options.json:
        sizes = [subject.size for subject in subjects]
        rows = [{"step": step, "ms": values} for step, values in medians.items()]
        print(json.dumps({"question": QUESTION, "accounts": sizes, "rows": rows}, indent=2))
        return 0
    print(f"{QUESTION} (median ms)\n")
    print(f"{'accounts':<24}" + "".join(f"{s.size:>10}" for s in subjects) + f"{'last/first':>12}")
    for step, values in medians.items():
        ratio = values[-1] / values[0] if values[0] else 0.0
        print(f"{step:<24}" + "".join(f"{value:>10.2f}" for value in values) + f"{ratio:>12.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
