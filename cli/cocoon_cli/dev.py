"""`cocoon dev up`: the whole network on this machine, kept running."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from cocoon_cli.devnetwork import DevNetwork, DevSettings, default_root
from cocoon_cli.options import common_options
from cocoon_cli.output import SIMULATED, console, out, print_json
from cocoon_ton.network import network_path


@click.group()
def dev() -> None:
    """Development networks: real chain format, real model, SIMULATED TEE."""


@dev.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=None, help="Where to keep it.")
@click.option("--name", default="dev", show_default=True, help="Name for --network.")
@click.option(
    "--tee", type=click.Choice(["tdx", "snp"]), default="tdx", show_default=True, help="Simulated TEE."
)
@click.option("--gpus", type=click.IntRange(0, 16), default=0, show_default=True, help="Simulated GPUs.")
@click.option(
    "--gpu-mode",
    type=click.Choice(["single", "multi", "ppcie"]),
    default=None,
    help="How they are joined; ppcie: 8 GPUs behind 4 switches. Default: usual for their number.",
)
@common_options
def up(directory: Path | None, name: str, tee: str, gpus: int, gpu_mode: str | None, as_json: bool) -> None:
    """Start chain, registry, enclave and host agent; stop them with Ctrl-C.

    State is kept: a second run goes on where the first one stopped.
    """
    talk = console()

    def say(what: str, detail: str) -> None:
        if not as_json:
            talk.print(f"[green]✓[/] {what:<10} [dim]{detail}[/]")

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = DevSettings(
        name=name, root=directory or default_root(), tee=tee, gpus=gpus, gpu_mode=gpu_mode or ""
    )
    running = DevNetwork(settings, say)
    try:
        network = running.start()
        document = {
            "ok": True,
            "network": name,
            "simulated": True,
            "network_file": str(network_path(name)),
            "global_config": str(running.root / "chain" / "global.config.json"),
            "registry": network.registry,
            "global_id": network.global_id,
            "logs": str(running.root / "logs"),
        }
        if as_json:
            print_json(document)
        else:
            _explain(document)
        while not stop.wait(0.5):
            running.check_alive()
    finally:
        running.stop()


def _explain(document: dict[str, object]) -> None:
    show = out().print
    show(f"\n[bold yellow]{SIMULATED}[/]: all is real but the hardware; nothing is confidential.")
    show(f"network file    {document['network_file']}")
    show(f"global config   {document['global_config']}  [dim](for any TON tool)[/]")
    show(f"registry        {document['registry']}")
    show("\nIn another terminal:\n  cocoon chat 'Why is the sky blue?'\n  cocoon serve\n")
