"""The front-end's half of the engine process, against stand-ins for the other half."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import engine_children  # type: ignore[import-not-found]
import pytest

from cocoon_attestation.errors import EngineError
from cocoon_enclave.engine import child, wire
from cocoon_enclave.engine.process import EngineProcess, engine_threads
from cocoon_enclave.engine.protocol import FinishReason, GenerationRequest, Sampling
from cocoon_enclave.errors import ContextLengthError, EngineCrashedError, NodeBusyError

SPEC = wire.EngineSpec(directory=Path(), digest=bytes(32), context_length=64, slots=2)
REQUEST = GenerationRequest(prompt=(5, 6, 7), max_tokens=20)


@asynccontextmanager
async def _engine(entry: Any, **options: Any) -> AsyncIterator[EngineProcess]:
    engine = EngineProcess(SPEC, entry=entry, **options)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def test_tokens_arrive_in_order_and_abort_ends() -> None:
    async with _engine(engine_children.counting) as engine:
        assert dict(engine.info.detail) == {"kind": "counting"}
        generation = engine.submit(REQUEST)
        tokens: list[int] = []
        started = 0
        async for delta in generation:
            tokens += delta.tokens
            started += delta.started
            if len(tokens) > 5:
                generation.abort()
        assert delta.finish is FinishReason.ABORT
        assert tokens == list(range(1, len(tokens) + 1))
        assert started == 1
        assert engine.active == 0
        with pytest.raises(StopAsyncIteration):
            await anext(generation)


async def test_a_slow_reader_gets_merged_deltas() -> None:
    async with _engine(engine_children.counting) as engine:
        generation = engine.submit(REQUEST)
        await anext(generation)
        await asyncio.sleep(0.2)
        delta = await anext(generation)
        assert len(delta.tokens) > 3
        generation.abort()


async def test_limits() -> None:
    async with _engine(engine_children.counting, queue_limit=1) as engine:
        for _ in range(3):
            engine.submit(REQUEST)
        with pytest.raises(NodeBusyError):
            engine.submit(REQUEST)
        with pytest.raises(ContextLengthError):
            engine.submit(GenerationRequest(prompt=(1,) * 60, max_tokens=20))
        for bad in (
            GenerationRequest(prompt=(), max_tokens=1),
            GenerationRequest(prompt=(1,), max_tokens=0),
        ):
            with pytest.raises(ContextLengthError):
                engine.submit(bad)


async def test_death_reaches_everybody_and_the_engine_comes_back() -> None:
    async with _engine(engine_children.dying) as engine:
        generation = engine.submit(REQUEST)
        with pytest.raises(EngineCrashedError):
            await anext(generation)
        assert not engine.ready
        with pytest.raises(EngineCrashedError):
            engine.submit(REQUEST)
        for _ in range(200):
            if engine.ready:
                break
            await asyncio.sleep(0.05)
        assert engine.restarts == 1


async def test_a_hanging_engine_is_killed() -> None:
    async with _engine(engine_children.hanging, stall_s=0.5) as engine:
        with pytest.raises(EngineCrashedError):
            await anext(engine.submit(REQUEST))


async def test_an_engine_that_cannot_load() -> None:
    with pytest.raises(EngineError):
        async with _engine(engine_children.failing):
            raise AssertionError("it started")


async def test_closing_fails_what_is_in_flight() -> None:
    async with _engine(engine_children.counting) as engine:
        generation = engine.submit(REQUEST)
        await anext(generation)
        waiting = asyncio.ensure_future(_drain(generation))
        await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(EngineCrashedError):
            await waiting


async def _drain(generation: Any) -> None:
    async for _ in generation:
        pass


def test_wire_round_trip() -> None:
    request = GenerationRequest(
        prompt=(1, 70_000),
        max_tokens=9,
        sampling=Sampling(temperature=0.5, top_p=0.9, top_k=7, seed=-(2**40)),
        stop_tokens=frozenset({3, 9}),
    )
    assert wire.unpack_add(wire.unpack(wire.pack_add(4, request))) == (4, request)


def test_nothing_shows_tokens() -> None:
    assert "70000" not in repr(GenerationRequest(prompt=(70_000,), max_tokens=1))
    assert engine_threads() >= 1


def test_one_message_per_pass() -> None:
    """However many requests run together, a decode pass costs one message."""
    passes, count = 5, 30

    class Engine:
        has_work = True
        left = passes

        def prefill(self) -> list[Any]:
            return []

        def decode(self) -> list[Any]:
            self.left -= 1
            self.has_work = self.left > 0
            return [SimpleNamespace(id=n, tokens=(n,), finish=None, started=False) for n in range(count)]

    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        # The loop asks for commands between passes: let it see none until the passes are over.
        quit = threading.Timer(0.5, lambda: ours.send_bytes(wire.pack([wire.QUIT])))
        quit.start()
        engine: Any = Engine()
        child.serve(theirs, engine)
        messages = []
        while ours.poll():
            messages.append(wire.unpack(ours.recv_bytes()))
        quit.join()
    assert [(kind, len(events)) for kind, events in messages] == [(wire.STEP, count)] * passes
