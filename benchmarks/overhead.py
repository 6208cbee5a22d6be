"""What does confidentiality cost? The same model and prompt, bare engine against the whole verified path.

One run, both sides interleaved round by round, so that noisy neighbours hit both. *Bare* is the engine
process driven directly with token ids. *Confidential* is everything a user gets: registry and evidence
verified, prompt sealed, gRPC session over TLS, engine, chunks sealed, receipt signed and on disk, receipt
verified. Set-up (appraisal, channel) happens before the clock starts, as in a session.

    python benchmarks/overhead.py [--streams 1,4,16] [--rounds 3] [--max-tokens 48] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

QUESTION = "what does confidentiality cost, beside the bare engine?"
PROMPT = "Explain in a few sentences how rain forms, from the sea to the cloud and back to the ground."


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


async def _gather(streams: int, one: Callable[[int], Awaitable[tuple[int, float]]]) -> Round:
    started = time.perf_counter()
    results = await asyncio.gather(*(one(i) for i in range(streams)))
    elapsed = time.perf_counter() - started
    return Round(sum(t for t, _ in results), elapsed, statistics.median(first for _, first in results))


class Bare:
    """The engine process alone."""

    def __init__(self, engine: object, prompt: tuple[int, ...], max_tokens: int) -> None:
        from cocoon_enclave.engine.process import EngineProcess

        if not isinstance(engine, EngineProcess):
            raise TypeError("an EngineProcess is needed")
        self._engine, self._prompt, self._max = engine, prompt, max_tokens

    async def run(self, streams: int) -> Round:
        """Run `streams` generations at once."""
        from cocoon_enclave.engine.protocol import GenerationRequest, Sampling

        async def one(_: int) -> tuple[int, float]:
            started, first, tokens = time.perf_counter(), 0.0, 0
            request = GenerationRequest(
                prompt=self._prompt, max_tokens=self._max, sampling=Sampling(temperature=0.0)
            )
            async for delta in self._engine.submit(request):
                tokens += len(delta.tokens)
                if delta.tokens and not first:
                    first = time.perf_counter() - started
            return tokens, first

        return await _gather(streams, one)


class Confidential:
    """The client library against the running network."""

    def __init__(self, client: object, model: str, max_tokens: int) -> None:
        from cocoon_proxy.client import AsyncClient

        if not isinstance(client, AsyncClient):
            raise TypeError("an AsyncClient is needed")
        self._client = client
        self._body = json.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": PROMPT}],
                "max_tokens": max_tokens,
                "temperature": 0,
                "stream": True,
            }
        ).encode()

    async def run(self, streams: int) -> Round:
        """Run `streams` requests at once."""
        from cocoon_proxy.events import Completed, Data

        async def one(_: int) -> tuple[int, float]:
            started, first, tokens = time.perf_counter(), 0.0, 0
            async for event in self._client.stream("/v1/chat/completions", self._body):
                if isinstance(event, Data) and b'"content":"' in event.data and not first:
                    first = time.perf_counter() - started
                elif isinstance(event, Completed):
                    tokens = event.usage.completion
            return tokens, first

        return await _gather(streams, one)


def _micro() -> list[dict[str, object]]:
    """Cost of the single parts, in microseconds: where the time goes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cocoon_attestation.sealing.keys import generate_seal_keypair, wrap
    from cocoon_attestation.sealing.response import ResponseSealer

    sample = b'data: {"choices":[{"delta":{"content":" token"},"index":0}]}\n\n' * 3
    sealer = ResponseSealer(dek=bytes(32), key_id=bytes(32), sealed_hash=bytes(32))
    sealer.head(b"head")
    pair, key = generate_seal_keypair(), Ed25519PrivateKey.generate()
    public, signature = key.public_key(), key.sign(bytes(32))
    rows = [
        _part("seal one chunk", "chunk", lambda: sealer.data(sample), 200),
        _part(
            "HPKE wrap (ML-KEM-768 + X25519)", "request", lambda: wrap(pair.public_key, b"i", bytes(32)), 20
        ),
        _part("sign a receipt", "request", lambda: key.sign(bytes(32)), 200),
        _part("verify a receipt", "request", lambda: public.verify(signature, bytes(32)), 200),
    ]
    with tempfile.TemporaryDirectory() as name:
        database = sqlite3.connect(Path(name) / "x.sqlite3", isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (x BLOB)"):
            database.execute(statement)
        insert = "INSERT INTO t VALUES (?)"
        rows.append(_part("durable commit", "request", lambda: database.execute(insert, (bytes(600),)), 5))
        database.close()
    return rows


def _part(part: str, per: str, work: Callable[[], object], number: int) -> dict[str, object]:
    best = min(_timed(work, number) for _ in range(5))
    return {"part": part, "per": per, "microseconds": round(best * 1e6, 1)}


def _timed(work: Callable[[], object], number: int) -> float:
    started = time.perf_counter()
    for _ in range(number):
        work()
    return (time.perf_counter() - started) / number


async def _compare(
    arguments: argparse.Namespace, network: object, model: object
) -> list[dict[str, object]]:
    from cocoon_enclave.engine.process import EngineProcess, engine_threads
    from cocoon_enclave.engine.wire import EngineSpec
    from cocoon_enclave.models.demo import FetchedModel
    from cocoon_enclave.text import TextModel
    from cocoon_proxy.client import AsyncClient
    from cocoon_proxy.config import ClientConfig, PaymentConfig
    from cocoon_ton.network import NetworkConfig

    if not isinstance(model, FetchedModel) or not isinstance(network, NetworkConfig):
        raise TypeError("a model and a network are needed")
    files = {p.name: p.read_bytes() for p in model.path.iterdir() if p.suffix in {".json", ".jinja"}}
    prompt = tuple(TextModel.from_files(files).encode_chat([{"role": "user", "content": PROMPT}]))
    spec = EngineSpec(
        directory=model.path, digest=model.digest, context_length=2048, threads=engine_threads()
    )
    engine = EngineProcess(spec)
    await engine.start()
    payment = PaymentConfig(deposit=50 * 10**9, request_cap=10**9, daily_cap=1000 * 10**9)
    rows = []
    try:
        async with AsyncClient(network, config=ClientConfig(payment=payment)) as client:
            bare = Bare(engine, prompt, arguments.max_tokens)
            confidential = Confidential(client, model.name, arguments.max_tokens)
            await bare.run(1)
            await confidential.run(1)  # appraisal and channel happen here, not in the measurement
            for streams in arguments.streams:
                rows.append(await _row(streams, bare, confidential, arguments.rounds))
    finally:
        await engine.close()
    return rows


async def _row(streams: int, bare: Bare, confidential: Confidential, rounds: int) -> dict[str, object]:
    pairs = []
    for number in range(rounds):
        # Alternate who goes first, so that a drift of the machine cancels out.
        if number % 2:
            c, b = await confidential.run(streams), await bare.run(streams)
        else:
            b, c = await bare.run(streams), await confidential.run(streams)
        pairs.append((b, c))
    ratios = [c.rate / b.rate for b, c in pairs]
    return {
        "streams": streams,
        "throughput_ratio": round(statistics.median(ratios), 4),
        "throughput_ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
        "ttft_overhead_ms": round(statistics.median((c.ttft - b.ttft) * 1000 for b, c in pairs), 1),
        "bare_tokens_per_second": round(statistics.median(b.rate for b, _ in pairs), 1),
        "confidential_tokens_per_second": round(statistics.median(c.rate for _, c in pairs), 1),
        "bare_ttft_ms": round(statistics.median(b.ttft * 1000 for b, _ in pairs), 1),
        "rounds": rounds,
    }


def main() -> None:
    """Run the comparison and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=lambda t: [int(x) for x in t.split(",")], default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cocoon-overhead-") as name:
        os.environ["COCOON_HOME"] = name
        from cocoon_cli.devnetwork import DevNetwork, DevSettings

        def say(what: str, detail: str) -> None:
            sys.stderr.write(f"{what}: {detail}\n")

        running = DevNetwork(DevSettings(name="overhead", root=Path(name) / "net", anchor_every_s=600), say)
        try:
            network = running.start()
            rows = asyncio.run(_compare(arguments, network, running.model))
        finally:
            running.stop()
    parts = _micro()
    document = {
        "question": QUESTION,
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "arch": platform.machine(),
        },
        "rows": rows,
        "parts": parts,
    }
    if arguments.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    print(f"{QUESTION}\n")
    print(f"{'streams':>8}{'ratio':>9}{'range':>18}{'bare tok/s':>12}{'conf. tok/s':>13}{'TTFT +ms':>10}")
    for row in rows:
        span = row["throughput_ratio_range"]
        print(
            f"{row['streams']:>8}{row['throughput_ratio']:>9}{span!s:>18}{row['bare_tokens_per_second']:>12}"
            f"{row['confidential_tokens_per_second']:>13}{row['ttft_overhead_ms']:>10}"
        )
    print("\nwhere the time goes")
    for part in parts:
        print(f"  {part['part']:<34}{part['microseconds']:>10} us per {part['per']}")


if __name__ == "__main__":
    main()
