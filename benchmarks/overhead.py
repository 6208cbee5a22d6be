"""What does confidentiality cost? The same model and prompt, bare engine against the whole verified path.

One run, both sides interleaved round by round, so that noisy neighbours hit both. *Bare* is the engine
process driven directly with token ids. *Confidential* is everything a user gets: registry and evidence
verified, prompt sealed, gRPC session over TLS, engine, chunks sealed, receipt signed and on disk, receipt
verified. Set-up (appraisal, channel) happens before the clock starts, as in a session.

Wall time says what a user of this machine notices, and is the noisier the busier the machine is. CPU time is
taken per process (engine, enclave front-end, client) and hardly depends on neighbours. With --scripted a
stand-in takes the model's place and gives every request a token per step, so that only the rest is left.

    python benchmarks/overhead.py [--scripted] [--streams 1,4,16] [--rounds 3] [--max-tokens 48] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from cpu import engine_of, machine  # type: ignore[import-not-found]
from paced import STEP_MS, paced  # type: ignore[import-not-found]
from parts import measure_parts  # type: ignore[import-not-found]
from rounds import PROMPT, Bare, Confidential, Pids, compare  # type: ignore[import-not-found]
from table import show  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from cocoon_cli.devnetwork import DevNetwork
    from cocoon_enclave.models.demo import FetchedModel
    from cocoon_ton.network import NetworkConfig

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

QUESTION = "what does confidentiality cost, beside the bare engine?"
TON = 10**9
LIMITS = """
[limits]
requests = 512
requests_per_session = 256

[engine]
queue = 512
"""


def _start(running: DevNetwork, *, scripted: bool) -> NetworkConfig:
    """The network; with `scripted`, its enclave is started again on the stand-in."""
    network = running.start()
    config = running.root / "enclave.toml"
    enclave = running.enclave
    if enclave is None:
        raise RuntimeError("the network has no enclave")
    if scripted:
        enclave.argv = [sys.executable, str(Path(__file__).with_name("paced.py")), str(config)]
    # One client may have more requests under way here than one node would take from it.
    config.write_text(config.read_text() + LIMITS)
    running.restart(enclave, timeout=180)
    return network


async def _measure(
    arguments: argparse.Namespace, network: NetworkConfig, model: FetchedModel, enclave: int
) -> list[dict[str, object]]:
    from cocoon_enclave.engine import child
    from cocoon_enclave.engine.process import EngineProcess, engine_threads
    from cocoon_enclave.engine.wire import EngineSpec
    from cocoon_enclave.text import TextModel
    from cocoon_proxy.client import AsyncClient
    from cocoon_proxy.config import ClientConfig, PaymentConfig

    files = {p.name: p.read_bytes() for p in model.path.iterdir() if p.suffix in {".json", ".jinja"}}
    prompt = tuple(TextModel.from_files(files).encode_chat([{"role": "user", "content": PROMPT}]))
    spec = EngineSpec(
        directory=model.path, digest=model.digest, context_length=2048, threads=engine_threads()
    )
    engine = EngineProcess(spec, queue_limit=512, entry=paced if arguments.scripted else child.run)
    await engine.start()
    payment = PaymentConfig(deposit=50 * TON, request_cap=TON, daily_cap=1000 * TON)
    rows = []
    try:
        async with AsyncClient(network, config=ClientConfig(payment=payment)) as client:
            bare, confidential = Bare(engine, prompt), Confidential(client, model.name)
            await bare.run(1, 8)
            await confidential.run(1, 8)  # appraisal and channel happen here, not in the measurement
            pids = Pids(bare_engine=engine.pid or 0, engine=engine_of(enclave), front_end=enclave)
            for streams in arguments.streams:
                rows.append(
                    await compare(bare, confidential, pids, streams, arguments.rounds, arguments.max_tokens)
                )
    finally:
        await engine.close()
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=lambda t: [int(x) for x in t.split(",")], help="1,4,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, help="length of an answer: 48, scripted 128")
    parser.add_argument("--scripted", action="store_true", help="a paced stand-in instead of the model")
    parser.add_argument("--step-ms", type=float, default=12.0, help="pace of the stand-in")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.streams = arguments.streams or ([1, 8, 64] if arguments.scripted else [1, 4, 16])
    arguments.max_tokens = arguments.max_tokens or (128 if arguments.scripted else 48)
    return arguments


def main() -> None:
    """Run the comparison and print a table, or one JSON document."""
    arguments = _arguments()
    os.environ[STEP_MS] = str(arguments.step_ms)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="cocoon-overhead-") as name:
        os.environ["COCOON_HOME"] = name
        from cocoon_cli.devnetwork import DevNetwork, DevSettings

        def say(what: str, detail: str) -> None:
            sys.stderr.write(f"{what}: {detail}\n")

        running = DevNetwork(DevSettings(name="overhead", root=Path(name) / "net", anchor_every_s=600), say)
        try:
            network = _start(running, scripted=arguments.scripted)
            if running.model is None or running.enclave is None:
                raise RuntimeError("the network is incomplete")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                rows = runner.run(_measure(arguments, network, running.model, running.enclave.pid))
        finally:
            running.stop()
    engine = f"stand-in, one token per {arguments.step_ms:g} ms" if arguments.scripted else "the demo model"
    document: dict[str, Any] = {
        "question": QUESTION,
        "engine": engine,
        "max_tokens": arguments.max_tokens,
        "machine": machine(load),
        "rows": rows,
        "parts": measure_parts(),
    }
    if arguments.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        show(document)


if __name__ == "__main__":
    main()
