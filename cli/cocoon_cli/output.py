"""Output of the command line: data on stdout, talk on stderr, text or JSON from one object."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from cocoon_attestation.checks import Check, CheckList, Verdict

if TYPE_CHECKING:
    from rich.console import Console

MARKS = {Verdict.PASS: "[green]✓[/]", Verdict.FAIL: "[bold red]✗[/]", Verdict.SKIP: "[yellow]–[/]"}
SIMULATED = "SIMULATED TEE"


def wants_json(arguments: Sequence[str]) -> bool:
    """True if `--json` is among the arguments: used before they could be parsed."""
    return "--json" in arguments


def console() -> Console:
    """Console for talk and progress: stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def out() -> Console:
    """Console for results that people read: stdout."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 160  # what reads a pipe wants whole lines
    return Console(highlight=False, soft_wrap=True, width=wide)


def working(what: str) -> AbstractContextManager[object]:
    """Show on a terminal that something takes its time; nothing where stderr is piped."""
    return console().status(what) if sys.stderr.isatty() else nullcontext()


def print_json(document: Mapping[str, object]) -> None:
    """Write one JSON document to stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False))


def print_error(error: Mapping[str, object], *, as_json: bool, checks: CheckList | None = None) -> None:
    """Show an error with its hint; with `--json` as a document on stdout."""
    if as_json:
        document: dict[str, object] = {"ok": False, "error": dict(error)}
        if error.get("code") == "malformed":
            document["verdict"] = "malformed"
        if checks is not None:
            document["checks"] = checks_json(checks)
        print_json(document)
        return
    from rich.markup import escape

    talk = console()
    talk.print(f"[bold red]error[/] {escape(str(error.get('message', '')))} [dim]({error.get('code')})[/]")
    if checks is not None:
        for check in checks.failed:
            talk.print(check_line(check))
    details = error.get("details")
    if isinstance(details, Mapping) and details.get("log_tail"):
        for line in str(details["log_tail"]).splitlines():
            talk.print(f"[dim]  | {escape(line)}[/]")
    if error.get("hint"):
        talk.print(f"[dim]hint:[/] {escape(str(error['hint']))}")


def check_line(check: Check) -> str:
    """One check as a marked-up line."""
    from rich.markup import escape

    return f"  {MARKS[check.verdict]} {check.id:<26} [dim]{escape(check.detail)}[/]"


def checks_json(checks: Iterable[Check]) -> list[dict[str, object]]:
    """Checks as JSON: id, verdict, detail."""
    return [check.to_dict() for check in checks]


def explained_json(checks: Iterable[Check]) -> list[dict[str, object]]:
    """Checks as JSON with the section of the specification and the exact inputs."""
    return [{**check.to_dict(), "spec": check.spec, "inputs": dict(check.inputs)} for check in checks]


def ton(nanoton: int) -> str:
    """An amount for people: TON with up to nine decimals."""
    sign = "-" if nanoton < 0 else ""
    whole, part = divmod(abs(nanoton), 10**9)
    digits = f"{part:09d}".rstrip("0")
    return f"{sign}{whole}.{digits} TON" if digits else f"{sign}{whole} TON"


def moment(when: int) -> str:
    """A Unix time for people: local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout."""
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    out().print(grid)
