"""`cocoon demo`: options, and the two ways of showing the result."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from cocoon_attestation.errors import CocoonError
from cocoon_cli.demo.recorder import Recorder
from cocoon_cli.options import common_options
from cocoon_cli.output import SIMULATED, print_error, print_json, ton
from cocoon_ton.paths import home_dir

DEFAULT_PROMPT = "Why is the sky blue? Answer in two sentences."


@click.command()
@click.option("--prompt", default=DEFAULT_PROMPT, show_default=True, help="What to ask.")
@click.option("--max-tokens", type=click.IntRange(1, 512), default=64, show_default=True)
@click.option("--keep", is_flag=True, help="Keep the network's files (chain, logs, wallets) afterwards.")
@common_options
def demo(prompt: str, max_tokens: int, keep: bool, as_json: bool) -> None:
    """Run the whole network on this machine: one prompt verified, sealed, answered, receipted, anchored, paid,
    audited; then three attacks. The hardware is simulated and says so; everything else is real.
    """
    from cocoon_cli.demo.story import Story

    root = home_dir() / "demo"
    work = root / "network"
    if work.exists():
        shutil.rmtree(work)
    recorder = Recorder(Console(highlight=False, soft_wrap=True), quiet=as_json)
    recorder.say(
        f"[bold]Cocoon demo[/]   [bold yellow]{SIMULATED}[/]: real formats, code and model; no hardware.\n"
    )
    error: CocoonError | None = None
    with Story(recorder, work=work, bundle=root / "bundle.json") as story:
        try:
            story.run(prompt, max_tokens)
        except CocoonError as raised:
            error = raised
    if not keep and error is None:
        shutil.rmtree(work, ignore_errors=True)
    _finish(recorder, error, as_json=as_json, work=work)


def _finish(recorder: Recorder, error: CocoonError | None, *, as_json: bool, work: Path) -> None:
    document = recorder.document
    document["steps"] = [step.to_dict() for step in recorder.steps]
    attacks = document.get("attacks", [])
    ok = (
        error is None
        and all(step.ok for step in recorder.steps)
        and len(attacks) == 3
        and all(attack["refused"] for attack in attacks)
    )
    document["ok"] = ok
    if error is not None:
        document["error"] = error.to_dict()
        document["logs"] = str(work / "logs")
    if as_json:
        print_json(document)
    elif error is not None:
        print_error(error.to_dict(), as_json=False, checks=getattr(error, "checks", None))
        recorder.say(f"[dim]logs: {work / 'logs'}[/]")
    elif ok:
        paid = document["payment"]["client_paid_nanoton"]
        recorder.say(
            f"\n[bold green]Everything held.[/] The answer cost {ton(paid)}.   [yellow]{SIMULATED}[/]"
        )
        recorder.say(
            f"[dim]Check the proof yourself: cocoon verify bundle {document['bundle']} --offline --explain[/]"
        )
    if not ok:
        sys.exit(error.exit_code if error is not None and error.exit_code else 1)
