"""`cocoon completion`: code that a shell evaluates."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print completion code, for example: eval "$(cocoon completion bash)"."""
    from cocoon_cli.__main__ import cli

    completer = get_completion_class(shell)
    if completer is None:  # click knows all three; kept for the type checker
        raise click.UsageError(f"no completion for {shell}")
    click.echo(completer(cli, {}, "cocoon", "_COCOON_COMPLETE").source())
