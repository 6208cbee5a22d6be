"""`cocoon dev`: the whole network on this machine, kept running by `cocoon dev up`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from cocoon_cli import devcontrol, devcouncil, devsnapshots
from cocoon_cli.devconnect import connection, explain
from cocoon_cli.devnetwork import DevNetwork, DevSettings, default_root
from cocoon_cli.options import common_options
from cocoon_cli.output import console, print_json


@click.group()
def dev() -> None:
    """Development networks: real chain format, real model, SIMULATED TEE."""


for command in (devcontrol.status, devcontrol.fund, devcontrol.warp, devcontrol.tick, devcontrol.faults):
    dev.add_command(command)
dev.add_command(devsnapshots.snapshot)
dev.add_command(devcouncil.council)


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
@click.option(
    "--liteservers", type=click.IntRange(1, 16), default=1, show_default=True, help="How many on the chain."
)
@common_options
def up(
    directory: Path | None,
    name: str,
    tee: str,
    gpus: int,
    gpu_mode: str | None,
    liteservers: int,
    as_json: bool,
) -> None:
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
        name=name,
        root=directory or default_root(),
        tee=tee,
        gpus=gpus,
        gpu_mode=gpu_mode or "",
        liteservers=liteservers,
    )
    running = DevNetwork(settings, say)
    try:
        network = running.start()
        document = connection(running.root, network)
        if as_json:
            print_json(document)
        else:
            explain(document)
        while not stop.wait(0.5):
            running.check_alive()
    finally:
        running.stop()
