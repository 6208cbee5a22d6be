"""Commands of app developers: `serve`, `chat`, `models`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_attestation.errors import EngineError
from cocoon_cli.clients import client_config, event_json, open_client, run
from cocoon_cli.events import describe
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import SIMULATED, console, out, print_json, table
from cocoon_ton.network import load_network

if TYPE_CHECKING:
    from cocoon_proxy.events import ClientEvent

_CONFIG = click.option(
    "--config", "config_path", type=click.Path(path_type=Path, exists=True), help="Settings (client.toml)."
)


@click.command()
@network_option
@_CONFIG
@click.option("--host", default=None, help="Address to bind; anything but loopback needs --token.")
@click.option("--port", type=int, default=None, help="HTTP port [default: 8480]; 0 picks a free one.")
@click.option("--grpc-port", type=int, default=None, help="gRPC port [default: 8481]; 0 picks a free one.")
@click.option(
    "--token", default=None, envvar="COCOON_GATEWAY_TOKEN", help="Bearer token callers must show."
)
@click.option("--print-env", is_flag=True, help="Print the variables that OpenAI clients read, and stop.")
@click.option("--events", is_flag=True, help="Print progress events as JSON lines on stdout.")
@common_options
def serve(
    network: str,
    config_path: Path | None,
    host: str | None,
    port: int | None,
    grpc_port: int | None,
    token: str | None,
    print_env: bool,
    events: bool,
    as_json: bool,
) -> None:
    """Serve an OpenAI-compatible gateway (HTTP and gRPC) on 127.0.0.1.

    Every prompt is sealed to an enclave that was verified first; every answer has a receipt.
    """
    flags = {
        "gateway.host": host,
        "gateway.port": port,
        "gateway.grpc_port": grpc_port,
        "gateway.token": token,
    }
    overrides: dict[str, object] = {key: value for key, value in flags.items() if value is not None}
    if print_env:
        gateway = client_config(config_path, overrides).gateway
        click.echo(f"export OPENAI_BASE_URL=http://{gateway.host}:{gateway.port}/v1")
        click.echo(f"export OPENAI_API_KEY={'YOUR-GATEWAY-TOKEN' if gateway.token else 'cocoon'}")
        return
    run(lambda: _serve(network, config_path, overrides, events=events, as_json=as_json))


async def _serve(
    network: str, config_path: Path | None, overrides: dict[str, object], *, events: bool, as_json: bool
) -> None:
    from cocoon_proxy.gateway.server import Gateway

    talk = console()

    early: list[dict[str, object]] = []
    started = False  # whoever reads our output expects the ready line first

    def show(event: ClientEvent) -> None:
        if events and not started:
            early.append(event_json(event))
        elif events:
            _print_line(event_json(event))
        elif line := describe(event):
            talk.print(line)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    config = client_config(config_path, overrides)
    client = open_client(network, config_path=config_path, overrides=overrides, on_event=show)
    async with client, Gateway(client, config.gateway) as gateway:
        ready: dict[str, object] = {
            "base_url": gateway.base_url,
            "http_port": gateway.http_port,
            "grpc_port": gateway.grpc_port,
            "network": network,
        }
        if as_json or events:
            for line in (ready, *early):
                _print_line(line)
            started = True
        else:
            out().print(
                f"OpenAI-compatible: [bold]{gateway.base_url}[/]   gRPC: 127.0.0.1:{gateway.grpc_port}"
            )
            out().print(f"[dim]export OPENAI_BASE_URL={gateway.base_url} OPENAI_API_KEY=cocoon[/]")
            if load_network(network).simulated:
                out().print(
                    f"[bold yellow]{SIMULATED}[/]: a development network; nothing here is confidential."
                )
        served = asyncio.ensure_future(gateway.wait())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({served, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (served, stopped):
            task.cancel()


def _print_line(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


@click.command()
@click.argument("prompt", required=False)
@click.option("--model", default=None, help="Model name [default: the first that is served].")
@click.option(
    "--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest answer."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=None,
    help="0 always says the likeliest. [default: 1]",
)
@network_option
@_CONFIG
@common_options
def chat(
    prompt: str | None,
    model: str | None,
    max_tokens: int,
    temperature: float | None,
    network: str,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Ask PROMPT and stream the answer; without PROMPT: talk until end of input."""
    options: dict[str, object] = {"max_tokens": max_tokens}
    if temperature is not None:
        options["temperature"] = temperature
    run(lambda: _chat(prompt, model, options, network, config_path, as_json=as_json))


async def _chat(
    prompt: str | None,
    model: str | None,
    options: dict[str, object],
    network: str,
    config_path: Path | None,
    *,
    as_json: bool,
) -> None:
    talk = console()

    def show(event: ClientEvent) -> None:
        if not as_json and (line := describe(event)):
            talk.print(line)

    messages: list[dict[str, object]] = []
    async with open_client(network, config_path=config_path, on_event=show) as client:
        chosen = model or (await client.models())[0].name
        while True:
            text = prompt if prompt is not None else await asyncio.to_thread(_read_line)
            if not text:
                return
            messages.append({"role": "user", "content": text})
            answer = await client.chat(messages, model=chosen, **options) if as_json else None
            if answer is not None:
                document = json.loads(answer.body)
                ok = answer.status < 400
                print_json({"ok": ok, "answer": document, "receipt": answer.completed.receipt_id})
                if not ok:
                    sys.exit(EngineError.exit_code)
                return
            reply = await _stream(
                client, {"model": chosen, "messages": messages, "stream": True, **options}
            )
            messages.append({"role": "assistant", "content": reply})
            if prompt is not None:
                return


async def _stream(client: object, request: dict[str, object]) -> str:
    from cocoon_cli.sse import content_pieces
    from cocoon_proxy.client import AsyncClient

    if not isinstance(client, AsyncClient):
        raise TypeError("an AsyncClient is needed")
    pieces: list[str] = []
    async for piece in content_pieces(client.stream("/v1/chat/completions", json.dumps(request).encode())):
        sys.stdout.write(piece)
        sys.stdout.flush()
        pieces.append(piece)
    sys.stdout.write("\n")
    return "".join(pieces)


def _read_line() -> str:
    if sys.stdin.isatty():
        sys.stderr.write("> ")
        sys.stderr.flush()
    return sys.stdin.readline().strip()


@click.command()
@network_option
@_CONFIG
@common_options
def models(network: str, config_path: Path | None, as_json: bool) -> None:
    """List the models that verified nodes serve."""

    async def main() -> None:
        async with open_client(network, config_path=config_path) as client:
            found = await client.models()
        if as_json:
            print_json(
                {
                    "models": [
                        {
                            "name": m.name,
                            "digest": m.digest.hex(),
                            "context_length": m.context_length,
                            "nodes": list(m.nodes),
                        }
                        for m in found
                    ]
                }
            )
        else:
            rows = [(m.name, m.digest.hex()[:16] + "…", m.context_length, len(m.nodes)) for m in found]
            table("Models on verified nodes", ["model", "digest", "context", "nodes"], rows)

    run(main)


__all__ = ["chat", "models", "serve"]
