"""The engine process: a loop of commands in, passes, events out.

It is spawned, so it shares no memory with the front-end, holds no key and speaks to nobody but its parent.
It ends when the pipe does.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from cocoon_attestation.errors import CocoonError
from cocoon_enclave.engine import wire

if TYPE_CHECKING:
    from cocoon_enclave.engine.batch import BatchEngine, Event

SIGN_OF_LIFE_S: Final = 1.0


def run(connection: Connection[Any, Any], spec: wire.EngineSpec) -> None:
    """Load the model and serve the pipe until it ends. The target of the spawned process."""
    _prepare(spec.threads)
    try:
        engine = _load(spec)
    except CocoonError as error:
        connection.send_bytes(wire.pack([wire.FAILED, error.code, str(error)]))
        return
    try:
        connection.send_bytes(wire.pack([wire.READY, engine.detail, engine.context_length, engine.slots]))
        serve(connection, engine)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _prepare(threads: int) -> None:
    """Settings that must stand before torch is imported. Waiting threads must not spin."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold prompts


def _load(spec: wire.EngineSpec) -> BatchEngine:
    import torch

    from cocoon_enclave.engine.batch import load
    from cocoon_enclave.models.manifest import verified_copy

    torch.set_num_threads(spec.threads)
    with verified_copy(spec.directory, spec.digest) as directory:
        return load(
            directory,
            dtype=spec.dtype,
            slots=spec.slots,
            context_length=spec.context_length,
            prefill_chunk=spec.prefill_chunk,
        )


def serve(connection: Connection[Any, Any], engine: BatchEngine) -> None:
    """Run passes while there is work; wait for commands while there is none."""
    told = time.monotonic()
    while True:
        while not engine.has_work or connection.poll():
            message = wire.unpack(connection.recv_bytes())
            if message[0] == wire.QUIT:
                return
            _send(connection, _command(engine, message))
        # A first token is sent at once, not after the others' next step.
        sent = _send(connection, engine.prefill())
        if not connection.poll():
            sent |= _send(connection, engine.decode())
        now = time.monotonic()
        if not sent and now - told > SIGN_OF_LIFE_S:
            connection.send_bytes(wire.pack([wire.STEP, []]))
            sent = True
        if sent:
            told = now


def _command(engine: BatchEngine, message: list[Any]) -> list[Event]:
    if message[0] == wire.ABORT:
        return engine.abort(message[1])
    from cocoon_enclave.engine.batch import Sequence

    id, request = wire.unpack_add(message)
    engine.add(
        Sequence(
            id=id,
            prompt=list(request.prompt),
            max_tokens=request.max_tokens,
            sampling=request.sampling,
            stop=request.stop_tokens,
        )
    )
    return []


def _send(connection: Connection[Any, Any], events: list[Event]) -> bool:
    if events:
        connection.send_bytes(wire.pack_step((e.id, e.tokens, e.finish, e.started) for e in events))
    return bool(events)
