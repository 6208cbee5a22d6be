"""A stand-in for the model: every request gets one token per step, steps come at a fixed pace.

It takes the engine process's place (same pipe, same messages) and computes nothing, so what remains is the
cost of everything around the model. ``python benchmarks/paced.py CONFIG`` runs a whole enclave on it.
"""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

STEP_MS = "COCOON_BENCH_STEP_MS"
"""Environment variable: milliseconds per step."""
TEXT = "Rain forms when water from the sea rises as vapour, cools, and gathers around dust in the clouds. "


def paced(connection: Connection[Any, Any], spec: Any) -> None:
    """The engine process's main function: serves the pipe until it ends."""
    from tokenizers import Tokenizer

    from cocoon_enclave.engine import wire

    step_s = float(os.environ.get(STEP_MS, "12")) / 1000
    words = Tokenizer.from_file(str(spec.directory / "tokenizer.json")).encode(TEXT).ids
    connection.send_bytes(wire.pack([wire.READY, {"kind": "paced"}, spec.context_length, spec.slots]))
    running: dict[int, tuple[int, int]] = {}  # tokens so far and wanted, by request
    due = 0.0
    try:
        while True:
            while not running or connection.poll():
                message = wire.unpack(connection.recv_bytes())
                if message[0] == wire.QUIT:
                    return
                if message[0] == wire.ADD:
                    running[message[1]] = (0, message[3])
                elif running.pop(message[1], None) is not None:
                    connection.send_bytes(wire.pack([wire.STEP, [[message[1], [], "abort", False]]]))
            now = time.monotonic()
            due = max(due + step_s, now)
            time.sleep(due - now)
            events = []
            for id, (done, wanted) in list(running.items()):
                finish = "length" if done + 1 >= wanted else None
                events.append([id, [words[done % len(words)]], finish, done == 0])
                if finish:
                    del running[id]
                else:
                    running[id] = (done + 1, wanted)
            connection.send_bytes(wire.pack([wire.STEP, events]))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def main() -> int:
    """Run an enclave whose engine is the stand-in; its configuration is the only argument."""
    from cocoon_enclave.__main__ import run
    from cocoon_enclave.config import EnclaveConfig, ModelConfig
    from cocoon_enclave.engine.process import EngineProcess
    from cocoon_enclave.runtime import engine_spec

    def factory(config: EnclaveConfig, model: ModelConfig) -> EngineProcess:
        return EngineProcess(engine_spec(config, model), queue_limit=config.engine.queue, entry=paced)

    return run(Path(sys.argv[1]), engine_factory=factory)


if __name__ == "__main__":
    sys.exit(main())
