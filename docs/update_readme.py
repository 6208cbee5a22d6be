"""Writes the generated parts of README.md: ``python docs/update_readme.py`` (``--check`` only compares).

The part between the markers is made from the command line's own help texts; `tests/docs` compares it too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

README: Final = Path(__file__).resolve().parents[1] / "README.md"
BEGIN: Final = "<!-- cli:begin (python docs/update_readme.py) -->"
END: Final = "<!-- cli:end -->"
WIDTH: Final = 100


def cli_block() -> str:
    """Help of `cocoon`, and one line for every command below it, as a fenced block."""
    from cocoon_cli.__main__ import cli

    context = click.Context(
        cli, info_name="cocoon", terminal_width=WIDTH, max_content_width=WIDTH, **cli.context_settings
    )
    rows = [(usage, text) for usage, text in _leaves(cli, context) if len(usage.split()) > 1]
    column = max(len(usage) for usage, _ in rows) + 2
    lines = ["$ cocoon --help", cli.get_help(context), ""]
    lines += [f"{usage:<{column}}{text}".rstrip() for usage, text in rows]
    return "\n".join(["```text", *lines, "```"])


def _leaves(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    if not isinstance(command, click.Group):
        arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
        yield " ".join([context.command_path, *arguments]), command.get_short_help_str(limit=100)
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None:
            yield from _leaves(child, click.Context(child, info_name=name, parent=context))


def updated(text: str) -> str:
    """`text` of the README with its generated part made anew.

    Raises:
        ValueError: the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README.name} has no markers {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{cli_block()}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Update or check; returns the exit code."""
    text = README.read_text(encoding="utf-8")
    wanted = updated(text)
    if arguments == ["--check"]:
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
