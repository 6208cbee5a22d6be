"""The front-end's half of the engine process: submits, aborts, delivers, restarts it when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from cocoon_attestation.errors import EngineError
from cocoon_enclave.engine import child, wire
from cocoon_enclave.engine.protocol import Delta, EngineInfo, FinishReason, GenerationRequest
from cocoon_enclave.errors import ContextLengthError, EngineCrashedError, ModelRejectedError, NodeBusyError

BACKOFF_S: Final = (0.2, 1.0, 5.0, 30.0)
"""Pauses before the first, second, ... start after a crash; the last repeats."""
Entry = Callable[[Any, wire.EngineSpec], None]


def engine_threads() -> int:
    """Threads for the engine: all cores this process may use but one, at least one."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class ProcessGeneration:
    """One request's deltas. Deltas that nobody has read yet are merged, so a slow reader gets fewer."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self._abort = abort
        self._tokens: list[int] = []
        self._finish: FinishReason | None = None
        self._started = False
        self._error: EngineError | None = None
        self._news = False
        self._reader: asyncio.Future[None] | None = None
        """Set while the reader waits. A bare future: this is the path of every token."""
        self._done = False

    def abort(self) -> None:
        """Stop within one engine step. Idempotent."""
        if self._finish is None and self._error is None:
            self._abort()

    def put(self, tokens: list[int], finish: FinishReason | None, started: bool) -> None:
        """Deliver from the engine."""
        self._tokens += tokens
        self._finish = finish
        self._started |= started
        self._wake()

    def fail(self, error: EngineError) -> None:
        """End with an error."""
        if self._finish is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        self._news = True
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    def __aiter__(self) -> AsyncIterator[Delta]:
        """Itself: there is one reader."""
        return self

    async def __anext__(self) -> Delta:
        """Everything new since the last call, as one delta.

        Raises:
            EngineError: the engine failed or died.
        """
        if self._done:
            raise StopAsyncIteration
        if not self._news:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self._news = False
        if self._error is not None:
            self._done = True
            raise self._error
        delta = Delta(tokens=tuple(self._tokens), finish=self._finish, started=self._started)
        self._tokens, self._started = [], False
        self._done = delta.finish is not None
        return delta


class EngineProcess:
    """An `Engine` in a process of its own. Also the bare engine that benchmarks drive."""

    def __init__(
        self,
        spec: wire.EngineSpec,
        *,
        queue_limit: int = 64,
        stall_s: float = 120.0,
        entry: Entry = child.run,
    ) -> None:
        self._spec = spec
        self._limit = spec.slots + queue_limit
        self._stall_s = stall_s
        self._entry = entry
        self._info = EngineInfo(name="transformers", context_length=spec.context_length, slots=spec.slots)
        self._process: SpawnProcess | None = None
        self._connection: Connection[Any, Any] | None = None
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._generations: dict[int, ProcessGeneration] = {}
        self._next_id = 0
        self._heard = 0.0
        self._ready: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.restarts = 0
        """Times the process was started again."""

    @property
    def info(self) -> EngineInfo:
        """What it is; known once started."""
        return self._info

    @property
    def ready(self) -> bool:
        """True while requests are accepted."""
        return self._ready is not None and self._ready.done() and not self._ready.exception()

    @property
    def active(self) -> int:
        """Requests that are waiting or running."""
        return len(self._generations)

    @property
    def pid(self) -> int | None:
        """Process id of the engine, if it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Spawn the process and wait until the model is loaded.

        Raises:
            ModelRejectedError: the model's files are not those of its digest.
            EngineError: it cannot be loaded.
        """
        await self._spawn()
        self._keep(asyncio.create_task(self._watch_stall()))

    async def close(self) -> None:
        """Fail what is in flight and end the process. Idempotent."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        process = self._process
        if process is None:
            return
        self._outbox.put(wire.pack([wire.QUIT]))
        await asyncio.to_thread(process.join, 2.0)
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join)
        self._disconnect(EngineCrashedError("the engine was closed"))

    def submit(self, request: GenerationRequest) -> ProcessGeneration:
        """Queue a request; see `Engine.submit`."""
        if not self.ready:
            raise EngineCrashedError("the engine is not running")
        if not request.prompt or request.max_tokens < 1:
            raise ContextLengthError("a prompt and max_tokens of at least one token are needed")
        if len(request.prompt) + request.max_tokens > self._info.context_length:
            raise ContextLengthError(
                f"prompt ({len(request.prompt)}) plus max_tokens ({request.max_tokens}) is more than the "
                f"context of {self._info.context_length} tokens"
            )
        if len(self._generations) >= self._limit:
            raise NodeBusyError("too many requests wait for the model")
        self._next_id = id = self._next_id + 1
        generation = ProcessGeneration(lambda: self._outbox.put(wire.pack([wire.ABORT, id])))
        self._generations[id] = generation
        if len(self._generations) == 1:
            self._heard = asyncio.get_running_loop().time()
        self._outbox.put(wire.pack_add(id, request))
        return generation

    async def _spawn(self) -> None:
        loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=True)
        process = context.Process(target=self._entry, args=(theirs, self._spec), daemon=True, name="engine")
        await asyncio.to_thread(process.start)
        theirs.close()
        self._process, self._connection = process, ours
        self._outbox = queue.SimpleQueue()
        threading.Thread(
            target=_send_all, args=(ours, self._outbox), daemon=True, name="engine-out"
        ).start()
        self._ready = loop.create_future()
        loop.add_reader(ours.fileno(), self._receive)
        await self._ready

    def _receive(self) -> None:
        """Read what the engine sent. Called by the event loop."""
        connection = self._connection
        if connection is None:
            return
        try:
            # The loop calls again while there is more: asking first would cost more than the reading.
            self._dispatch(wire.unpack(connection.recv_bytes()))
        except (EOFError, OSError):
            self._died()

    def _dispatch(self, message: list[Any]) -> None:
        self._heard = asyncio.get_running_loop().time()
        if message[0] == wire.STEP:
            for id, tokens, finish, started in message[1]:
                generation = self._generations.get(id)
                if generation is None:
                    continue
                reason = FinishReason(finish) if finish is not None else None
                generation.put(tokens, reason, started)
                if reason is not None:
                    del self._generations[id]
        elif self._ready is not None and not self._ready.done():
            if message[0] == wire.READY:
                _, detail, context_length, slots = message
                self._info = EngineInfo(
                    name="transformers",
                    context_length=context_length,
                    slots=slots,
                    detail=tuple(sorted(detail.items())),
                )
                self._ready.set_result(None)
            else:
                _, code, text = message
                kind = ModelRejectedError if code == ModelRejectedError.code else EngineError
                self._ready.set_exception(kind(text))

    def _died(self) -> None:
        """The pipe ended: tell everybody and start again."""
        was_ready = self.ready
        self._disconnect(EngineCrashedError("the engine process ended"))
        if was_ready and not self._closing:
            self._keep(asyncio.create_task(self._restart()))

    def _disconnect(self, error: EngineError) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            asyncio.get_running_loop().remove_reader(connection.fileno())
            self._outbox.put(None)
            connection.close()
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        elif self._ready is not None:
            self._ready = None
        generations, self._generations = self._generations, {}
        for generation in generations.values():
            generation.fail(error)

    async def _restart(self) -> None:
        for attempt in range(1000):
            if (dead := self._process) is not None:
                dead.kill()
                await asyncio.to_thread(dead.join)
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            self.restarts += 1
            with contextlib.suppress(EngineError, ModelRejectedError):
                await self._spawn()
                return

    async def _watch_stall(self) -> None:
        """Kill an engine that has work and gives no sign of life; its death does the rest."""
        while True:
            await asyncio.sleep(min(1.0, self._stall_s / 4))
            silent = asyncio.get_running_loop().time() - self._heard
            if self._generations and silent > self._stall_s and self._process is not None:
                self._process.kill()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _send_all(connection: Connection[Any, Any], outbox: queue.SimpleQueue[bytes | None]) -> None:
    """Write to the engine from a thread: a full pipe must not stop the event loop."""
    with contextlib.suppress(OSError, ValueError):
        while (data := outbox.get()) is not None:
            connection.send_bytes(data)
