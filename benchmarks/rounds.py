"""Rounds of concurrent streams on the bare engine and on the confidential path, and their comparison."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cpu import cpu_seconds  # type: ignore[import-not-found]

from cocoon_enclave.engine.process import EngineProcess
from cocoon_enclave.engine.protocol import GenerationRequest, Sampling
from cocoon_proxy.client import AsyncClient
from cocoon_proxy.events import Completed, Data

PROMPT = "Explain in a few sentences how rain forms, from the sea to the cloud and back to the ground."
SHORT = 8
"""Tokens of the short answers that tell the cost per request from the cost per token."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of concurrent streams."""

    tokens: int
    seconds: float
    ttft: float
    """Median time to first token, seconds."""

    @property
    def rate(self) -> float:
        """Tokens per second of all streams."""
        return self.tokens / self.seconds


async def _gather(streams: int, one: Callable[[], Awaitable[tuple[int, float]]]) -> Round:
    started = time.perf_counter()
    results = await asyncio.gather(*(one() for _ in range(streams)))
    elapsed = time.perf_counter() - started
    return Round(sum(t for t, _ in results), elapsed, statistics.median(first for _, first in results))


class Bare:
    """The engine process alone."""

    def __init__(self, engine: EngineProcess, prompt: tuple[int, ...]) -> None:
        self._engine, self._prompt = engine, prompt

    async def run(self, streams: int, max_tokens: int) -> Round:
        """Run `streams` generations at once."""

        async def one() -> tuple[int, float]:
            started, first, tokens = time.perf_counter(), 0.0, 0
            request = GenerationRequest(
                prompt=self._prompt, max_tokens=max_tokens, sampling=Sampling(temperature=0.0)
            )
            async for delta in self._engine.submit(request):
                tokens += len(delta.tokens)
                if delta.tokens and not first:
                    first = time.perf_counter() - started
            return tokens, first

        return await _gather(streams, one)


class Confidential:
    """The client library against the running network."""

    def __init__(self, client: AsyncClient, model: str) -> None:
        self._client, self._model = client, model

    async def run(self, streams: int, max_tokens: int) -> Round:
        """Run `streams` requests at once."""
        request = {
            "model": self._model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        body = json.dumps(request).encode()

        async def one() -> tuple[int, float]:
            started, first, tokens = time.perf_counter(), 0.0, 0
            async for event in self._client.stream("/v1/chat/completions", body):
                if isinstance(event, Data) and not first and b'"content":"' in event.data:
                    first = time.perf_counter() - started
                elif isinstance(event, Completed):
                    tokens = event.usage.completion
            return tokens, first

        return await _gather(streams, one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pids:
    """The processes whose time is taken; the client is this process."""

    bare_engine: int
    engine: int
    front_end: int

    def all(self) -> dict[str, int]:
        """Process ids by name."""
        return {
            "bare_engine": self.bare_engine,
            "engine": self.engine,
            "front_end": self.front_end,
            "client": os.getpid(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A round with the CPU seconds that each process spent in it."""

    round: Round
    cpu: dict[str, float]


async def _measured(work: Callable[[], Awaitable[Round]], pids: Pids) -> Measured:
    before = {name: cpu_seconds(pid) for name, pid in pids.all().items()}
    result = await work()
    cpu = {name: cpu_seconds(pid) - before[name] for name, pid in pids.all().items()}
    return Measured(round=result, cpu=cpu)


async def compare(
    bare: Bare, confidential: Confidential, pids: Pids, streams: int, rounds: int, max_tokens: int
) -> dict[str, object]:
    """Interleave rounds of both and return one row of results, medians over the rounds."""
    bares: list[Measured] = []
    longs: list[Measured] = []
    shorts: list[Measured] = []
    for number in range(rounds):
        steps: list[tuple[list[Measured], Callable[[], Awaitable[Round]]]] = [
            (bares, lambda: bare.run(streams, max_tokens)),
            (longs, lambda: confidential.run(streams, max_tokens)),
            (shorts, lambda: confidential.run(streams, SHORT)),
        ]
        # Alternate who goes first, so that a drift of the machine cancels out.
        for results, work in steps if number % 2 == 0 else reversed(steps):
            results.append(await _measured(work, pids))
    return {
        "streams": streams,
        **_wall(bares, longs),
        **_cpu(bares, longs, shorts, streams),
        "rounds": rounds,
    }


def _wall(bares: Sequence[Measured], longs: Sequence[Measured]) -> dict[str, object]:
    pairs = [(b.round, c.round) for b, c in zip(bares, longs, strict=True)]
    ratios = [c.rate / b.rate for b, c in pairs]
    return {
        "throughput_ratio": round(statistics.median(ratios), 4),
        "throughput_ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
        "ttft_overhead_ms": round(statistics.median((c.ttft - b.ttft) * 1000 for b, c in pairs), 1),
        "bare_tokens_per_second": round(statistics.median(b.rate for b, _ in pairs), 1),
        "confidential_tokens_per_second": round(statistics.median(c.rate for _, c in pairs), 1),
        "bare_ttft_ms": round(statistics.median(b.ttft * 1000 for b, _ in pairs), 1),
    }


def _cpu(
    bares: Sequence[Measured], longs: Sequence[Measured], shorts: Sequence[Measured], streams: int
) -> dict[str, object]:
    """CPU microseconds per token of whole rounds, and for front-end and client split by what causes it."""

    def per_token(rounds: Sequence[Measured], name: str) -> float:
        return round(statistics.median(r.cpu[name] / r.round.tokens for r in rounds) * 1e6, 1)

    bare = {"engine": per_token(bares, "bare_engine"), "driver": per_token(bares, "client")}
    path = {name: per_token(longs, name) for name in ("engine", "front_end", "client")}
    split = {}
    for name in ("front_end", "client"):
        slopes, starts = [], []
        for long, short in zip(longs, shorts, strict=True):
            slope = (long.cpu[name] - short.cpu[name]) / (long.round.tokens - short.round.tokens)
            slopes.append(slope)
            starts.append((short.cpu[name] - slope * short.round.tokens) / streams)
        split[name] = {
            "us_per_token": round(statistics.median(slopes) * 1e6, 1),
            "us_per_request": round(statistics.median(starts) * 1e6),
        }
    return {
        "front_end_share_of_engine_cpu": round(path["front_end"] / path["engine"], 4),
        "engine_cpu_ratio": round(path["engine"] / bare["engine"], 4) if bare["engine"] else 0.0,
        "cpu_us_per_token": {"bare": bare, "confidential": path},
        "marginal_cpu": split,
    }
