"""A client that discovers a network, as its own process, for `scale.py`.

The code path is that of `cocoon_proxy.client.AsyncClient`: `Directory` over `LiteChain` in its default trust mode
(validator signatures from the pinned init block, account proof, local parsing).

    python benchmarks/scale_client.py NETWORK_FILE [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cocoon_proxy.config import ClientConfig
from cocoon_proxy.discovery import Directory
from cocoon_ton.chain import LiteChain
from cocoon_ton.network import NetworkConfig, load_network

HEAD_LIFE_S: Final = 1.1
"""A little longer than `LiteChain` keeps a head."""


@dataclass(slots=True)
class Discovery:
    """What the client saw, and how long it took."""

    candidates: int = 0
    """Nodes that may be tried."""
    skipped: int = 0
    cold_s: list[float] = field(default_factory=list)
    """Connecting, head from the init block, registry."""
    warm_s: list[float] = field(default_factory=list)
    """The same on an open connection, for a newer head."""
    cpu_s: list[float] = field(default_factory=list)
    """CPU time of this process for the cold ones."""

    def document(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "candidates": self.candidates,
            "skipped": self.skipped,
            "cold_s": [round(value, 4) for value in self.cold_s],
            "cold_median_s": round(statistics.median(self.cold_s), 4),
            "warm_median_s": round(statistics.median(self.warm_s), 4),
            "client_cpu_median_s": round(statistics.median(self.cpu_s), 4),
            "client_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }


async def discover(network: NetworkConfig, rounds: int) -> Discovery:
    """Discover the network `rounds` times, cold and warm."""
    config, found = ClientConfig(), Discovery()
    for _ in range(rounds):
        async with LiteChain(network) as chain:
            for times in (found.cold_s, found.warm_s):
                await asyncio.sleep(HEAD_LIFE_S if times is found.warm_s else 0.0)
                directory = Directory(
                    network=network,
                    chain=chain,
                    config=config.session,
                    overrides=config.policy,
                    clock=time.time,
                    emit=lambda _: None,
                )
                started, cpu = time.perf_counter(), time.process_time()
                view = await directory.view()
                times.append(time.perf_counter() - started)
                if times is found.cold_s:
                    found.cpu_s.append(time.process_time() - cpu)
                found.candidates, found.skipped = len(view.candidates), len(view.skipped)
    return found


def main() -> None:
    """Discover and print one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = asyncio.run(discover(load_network(str(arguments.network)), arguments.rounds))
    sys.stdout.write(json.dumps(found.document()) + "\n")


if __name__ == "__main__":
    main()
