"""Does one chain carry a whole network? Many nodes and channels on one development chain; discovery in one read.

Every wallet, node and channel gets where it is by transactions in blocks (see `scale_world.py`). A client in a process
of its own then discovers the network as every client does: head proved from the init block by validator signatures,
one proved read of the registry, local parsing. Bytes are counted on its TCP connection. At the end a channel is
settled by its node, and blocks are timed on chains with few and with many accounts.

    python benchmarks/scale.py [--nodes 1000] [--channels 5000] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytoniq_core import Address
from scale_world import TON, ScaleWorld, empty_world, seed  # type: ignore[import-not-found]

from cocoon_ton.channel import parse_channel
from cocoon_ton.messages import Transfer
from cocoon_ton.proof.boc import write_boc

QUESTION: Final = "does one chain carry a whole network, and how long does a client need to discover it?"
GOAL_S: Final = 2.0
ACCOUNTS: Final = (10, 1_000, 10_000, 50_000)
_METHODS: Final = (
    "getMasterchainInfo",
    "getBlockProof",
    "getAccountState",
    "getBlockHeader",
    "lookupBlock",
)


@dataclass(slots=True)
class Relay:
    """Passes a connection on and counts its bytes."""

    port: int = 0
    up: int = 0
    down: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        """Copy until the source ends."""
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                count(len(data))
                target.write(data)
                await target.drain()
        target.close()

    def sent(self, size: int) -> None:
        """Count bytes of the client."""
        self.up += size

    def received(self, size: int) -> None:
        """Count bytes of the liteserver."""
        self.down += size


@asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    """A relay to a port of this machine."""
    relay = Relay()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            relay.pump(reader, back, relay.sent), relay.pump(there, writer, relay.received)
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        await server.wait_closed()


async def discovery(world: ScaleWorld, rounds: int) -> dict[str, Any]:
    """What a client in its own process sees, and its traffic per discovery."""
    queries: Counter[str] = Counter()

    def counted(method: str) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
        def pass_on(_query: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
            queries[method] += 1
            return answer

        return pass_on

    world.net.tick()
    world.net.faults.rewrite.update({method: counted(method) for method in _METHODS})
    async with relay_to(world.net.port) as relay:
        with tempfile.TemporaryDirectory() as folder:
            file = world.network(relay.port).save(Path(folder) / "network.json")
            client = Path(__file__).with_name("scale_client.py")
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(client), str(file), "--rounds", str(rounds),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            blocks = asyncio.create_task(_blocks(world))
            output, _ = await process.communicate()
            blocks.cancel()
    world.net.faults.rewrite.clear()
    if process.returncode:
        raise RuntimeError("the client failed")
    found: dict[str, Any] = json.loads(output)
    reads = 2 * rounds
    return found | {
        "bytes_read_per_discovery": relay.down // reads,
        "bytes_sent_per_discovery": relay.up // reads,
        "queries_per_discovery": {method: count / reads for method, count in sorted(queries.items())},
        "registry_bytes": len(write_boc([world.data(world.registry)])),
        "goal_s": GOAL_S,
        "reached": found["cold_median_s"] < GOAL_S,
    }


async def _blocks(world: ScaleWorld) -> None:
    """A block every half second, as a running chain makes them."""
    while True:
        await asyncio.sleep(0.5)
        world.net.tick()


def settle_one(world: ScaleWorld, number: int) -> dict[str, Any]:
    """Settle one channel; what it paid."""
    used = TON // 10
    world.settle(number, used)
    state = parse_channel(world.data(world.channels[number].address))
    return {"channel": number, "used": used, "paid": state.paid, "works": state.paid == used}


def block_times(world: ScaleWorld, rounds: int) -> dict[str, float]:
    """Median milliseconds of an empty pair of blocks and of one with a transfer."""

    def timed(prepare: Callable[[int], None]) -> float:
        times = []
        for number in range(rounds):
            prepare(number)
            started = time.perf_counter()
            world.net.tick()
            times.append(1000 * (time.perf_counter() - started))
        return round(statistics.median(times), 2)

    def transfer(number: int) -> None:
        world.faucet.send(
            [Transfer(destination=Address((0, seed("friend", number))), amount=TON, bounce=False)]
        )

    return {"empty_ms": timed(lambda _: None), "one_transfer_ms": timed(transfer)}


async def accounts_and_blocks(counts: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Block times of chains with different numbers of accounts, side by side."""
    rows = []
    for count in counts:
        async with empty_world(max_nodes=1, bystanders=count) as world:
            rows.append({"accounts": world.accounts} | block_times(world, rounds))
    return rows


async def run(nodes: int, channels: int, rounds: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole benchmark."""
    set_up: list[dict[str, Any]] = []

    def size(folder: str) -> int:
        return sum(file.stat().st_size for file in Path(folder).rglob("*.sqlite*"))

    with tempfile.TemporaryDirectory() as folder:
        async with empty_world(max_nodes=max(nodes, 1), directory=Path(folder) / "chain") as world:
            stages: list[tuple[str, int, Callable[[], None]]] = [
                ("nodes", nodes, lambda: world.add_nodes(nodes)),
                ("channels", channels, lambda: world.add_channels(channels)),
            ]
            for name, count, build in stages:
                say(f"{count} {name} …")
                started, before = time.perf_counter(), world.net.chain.master.seqno
                build()
                set_up.append(
                    {
                        "stage": name,
                        "count": count,
                        "seconds": round(time.perf_counter() - started, 1),
                        "blocks": world.net.chain.master.seqno - before,
                    }
                )
            say("discovery …")
            result: dict[str, Any] = {
                "question": QUESTION,
                "simulated": True,
                "machine": {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]},
                "nodes": len(world.registry_state().nodes),
                "channels": sum(
                    world.net.chain.account(c.address.hash_part) is not None for c in world.channels
                ),
                "accounts": world.accounts,
                "set_up": set_up,
                "chain_bytes": size(folder),
                "discovery": await discovery(world, rounds),
                "settle": settle_one(world, channels // 2),
                "blocks_on_this_chain": {"accounts": world.accounts} | block_times(world, 4 * rounds),
            }
    say("blocks …")
    return result | {"blocks": await accounts_and_blocks(ACCOUNTS, 4 * rounds)}


def show(result: dict[str, Any]) -> None:
    """Print the result as tables."""
    found = result["discovery"]
    print(f"{QUESTION}\n\n{result['nodes']} nodes, {result['channels']} channels, ", end="")
    print(f"{result['accounts']} accounts, {result['chain_bytes'] >> 20} MiB on disk (SIMULATED enclaves)")
    for stage in result["set_up"]:
        print(f"  set-up: {stage['count']:>6} {stage['stage']:<9}{stage['seconds']:>8} s", end="")
        print(f"{stage['blocks']:>6} blocks")
    print("\ndiscovery: proof from the init block, one read of the registry, client in its own process")
    print(f"  median, new connection   {found['cold_median_s']:>9} s   goal {GOAL_S} s: ", end="")
    print("reached" if found["reached"] else "NOT reached")
    print(f"  median, open connection  {found['warm_median_s']:>9} s")
    print(f"  client CPU               {found['client_cpu_median_s']:>9} s")
    print(f"  nodes to choose from     {found['candidates']:>9}")
    print(f"  bytes read               {found['bytes_read_per_discovery']:>9}")
    print(f"  queries                  {found['queries_per_discovery']}")
    settle = result["settle"]
    print(f"\nsettle of channel {settle['channel']}: paid {settle['paid']} of {settle['used']} nanoton")
    print(f"\n{'accounts':>10}{'empty block, ms':>18}{'one transfer, ms':>18}")
    for row in (*result["blocks"], result["blocks_on_this_chain"]):
        print(f"{row['accounts']:>10}{row['empty_ms']:>18}{row['one_transfer_ms']:>18}")
    print("(the last line: this chain, on disk; the others in memory)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--channels", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    say = (lambda _: None) if arguments.json else print
    result = asyncio.run(run(arguments.nodes, arguments.channels, arguments.rounds, say=say))
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        show(result)


if __name__ == "__main__":
    main()
