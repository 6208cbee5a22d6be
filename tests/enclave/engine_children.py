"""Stand-ins for the engine process, for tests of the half that talks to it. Spawned, so importable by name."""

from __future__ import annotations

import os
import time
from typing import Any

from cocoon_enclave.engine import wire


def counting(connection: Any, spec: wire.EngineSpec) -> None:
    """Counts up from 1 for every request, one token a step, until told to stop."""
    connection.send_bytes(wire.pack([wire.READY, {"kind": "counting"}, spec.context_length, spec.slots]))
    running: dict[int, int] = {}
    try:
        while True:
            while not running or connection.poll():
                message = wire.unpack(connection.recv_bytes())
                if message[0] == wire.QUIT:
                    return
                if message[0] == wire.ABORT:
                    if running.pop(message[1], None) is not None:
                        connection.send_bytes(wire.pack([wire.STEP, [[message[1], [], "abort", False]]]))
                else:
                    running[wire.unpack_add(message)[0]] = 0
            time.sleep(0.005)
            for id in running:
                running[id] += 1
            events = [[id, [count], None, count == 1] for id, count in running.items()]
            connection.send_bytes(wire.pack([wire.STEP, events]))
    except EOFError:
        return


def dying(connection: Any, spec: wire.EngineSpec) -> None:
    """Accepts one request and dies."""
    connection.send_bytes(wire.pack([wire.READY, {}, spec.context_length, spec.slots]))
    connection.recv_bytes()
    os._exit(7)


def hanging(connection: Any, spec: wire.EngineSpec) -> None:
    """Accepts one request and never speaks again."""
    connection.send_bytes(wire.pack([wire.READY, {}, spec.context_length, spec.slots]))
    connection.recv_bytes()
    time.sleep(600)


def failing(connection: Any, spec: wire.EngineSpec) -> None:
    """Cannot load its model."""
    connection.send_bytes(wire.pack([wire.FAILED, "engine", "no"]))
