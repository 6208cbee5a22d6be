"""``python -m cocoon_enclave --config FILE``: run an enclave until SIGTERM.

One JSON line on stdout when it serves; everything else goes to stderr. Exit codes as everywhere in Cocoon.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cocoon_enclave.runtime import EngineFactory


def main(argv: list[str] | None = None) -> int:
    """Run the enclave; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cocoon_enclave", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configuration file (TOML)")
    arguments = parser.parse_args(argv)
    # Before anything imports a library that reads them. Waiting OpenMP threads must not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold keys and prompts
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return run(arguments.config)


def run(path: Path, *, engine_factory: EngineFactory | None = None) -> int:
    """Boot from the configuration in `path` and serve until SIGTERM or SIGINT; returns the exit code.

    `engine_factory` makes the engine of each model; None for the real one.
    """
    import uvloop

    from cocoon_attestation.errors import CocoonError
    from cocoon_enclave.config import load_config
    from cocoon_enclave.runtime import Enclave, process_engine

    async def serve() -> None:
        enclave = Enclave(load_config(path), engine_factory=engine_factory or process_engine)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        ready = await enclave.start()
        # What start-up left behind lives for ever: the collector need not walk through it in every pass.
        gc.collect()
        gc.freeze()
        sys.stdout.write(json.dumps(ready.to_dict()) + "\n")
        sys.stdout.flush()
        await stop.wait()
        await enclave.close()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except CocoonError as error:
        sys.stderr.write(json.dumps({"error": error.to_dict()}) + "\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
