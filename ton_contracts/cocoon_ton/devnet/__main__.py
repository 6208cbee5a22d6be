"""``python -m cocoon_ton.devnet --dir DIR``: run a development chain until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from cocoon_attestation.errors import CocoonError
from cocoon_ton.devnet.genesis import DEFAULT_GLOBAL_ID
from cocoon_ton.devnet.network import CONFIG_FILE, FAUCET_FILE, Devnet


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="cocoon_ton.devnet", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="directory of the chain")
    parser.add_argument("--port", type=int, default=0, help="first liteserver port on 127.0.0.1 (0: any)")
    parser.add_argument("--liteservers", type=int, default=1, help="how many, on ports one after the other")
    parser.add_argument("--block-ms", type=int, default=500, help="least time between two blocks")
    parser.add_argument("--global-id", type=int, default=DEFAULT_GLOBAL_ID, help="for a new chain only")
    parser.add_argument("--signatures", choices=("ordinary", "simplex"), default="ordinary")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        return asyncio.run(_run(options))
    except CocoonError as error:
        sys.stderr.write(json.dumps(error.to_dict()) + "\n")
        return error.exit_code


async def _run(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    directory: Path = options.dir.absolute()
    async with Devnet.start(
        directory,
        port=options.port,
        liteservers=options.liteservers,
        block_interval=options.block_ms / 1000,
        signature_mode=options.signatures,
        global_id=options.global_id,
    ) as net:
        ready = {
            "ready": True,
            "port": net.port,
            "ports": [server.port for server in net.liteservers],
            "config": str(directory / CONFIG_FILE),
            "faucet": str(directory / FAUCET_FILE),
            "global_id": net.global_id,
            "seqno": net.chain.master.seqno,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        stopped = asyncio.create_task(stop.wait())
        running = {stopped} if net.ticker is None else {stopped, net.ticker}
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in done:
            task.result()  # raises if the ticker failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
