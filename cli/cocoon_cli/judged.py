"""How the commands on raw vendor evidence end: verdict, JSON, exit code. docs/spec/verify-vendor.md."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cocoon_attestation.errors import MalformedError, UnsupportedError
from cocoon_cli.inputs import parse_time
from cocoon_cli.options import common_options
from cocoon_cli.output import check_line, console, explained_json, out, print_json

if TYPE_CHECKING:
    from cocoon_attestation.ear import Result
    from cocoon_attestation.vendor.outcome import Outcome

_MALFORMED, _UNSUPPORTED = 30, 20

EXPLAIN = click.option("--explain", is_flag=True, help="Show the exact inputs of every check.")
EAR = click.option(
    "--ear", is_flag=True, help="With --json: claim names of an EAT Attestation Result, unsigned."
)
AT = click.option(
    "--at", "at", default=None, metavar="TIME", help="Time to verify at (ISO 8601 or Unix) [default: now]."
)


def judged(kind: str) -> Callable[[Callable[..., Outcome]], Callable[..., None]]:
    """Show the outcome that a command returns, and leave with its exit code.

    A command with the option `AT` gets `now` in Unix seconds instead; one with `EAR` needs `AT` too.
    """

    def decorate(command: Callable[..., Outcome]) -> Callable[..., None]:
        @EXPLAIN
        @common_options
        @functools.wraps(command)
        def wrapper(**options: Any) -> None:
            as_json, explain = bool(options.pop("as_json")), bool(options.pop("explain"))
            ear = bool(options.pop("ear", False))
            require_json(ear, as_json)
            if "at" in options:
                options["now"] = parse_time(options.pop("at"))
            try:
                outcome = command(**options)
            except MalformedError as error:
                _show_undecidable(kind, "malformed", error, as_json=as_json)
                sys.exit(_MALFORMED)
            except UnsupportedError as error:
                _show_undecidable(kind, "undecided", error, as_json=as_json)
                sys.exit(_UNSUPPORTED)
            _show_unsafe(outcome)
            if ear:
                print_ear(outcome.to_result(options["now"]))
            else:
                _show(outcome, as_json=as_json, explain=explain)
            sys.exit(outcome.verdict.exit_code)

        return wrapper

    return decorate


def require_json(ear: bool, as_json: bool) -> None:
    """Refuse `--ear` without `--json`; raises `click.UsageError`."""
    if ear and not as_json:
        raise click.UsageError("--ear is a form of --json: give both")


def print_ear(result: Result) -> None:
    """Print a result as the claims set of an EAR."""
    from cocoon_attestation.ear import ear_claims

    version = importlib.metadata.version("cocoon-network")
    print_json(ear_claims(result, build=f"cocoon-network {version}"))


def _show_unsafe(outcome: Outcome) -> None:
    for warning in outcome.warnings:
        if warning.startswith("UNSAFE"):  # on stderr as well: a pipe must not hide it
            click.secho(warning, fg="red", bold=True, err=True)


def _show(outcome: Outcome, *, as_json: bool, explain: bool) -> None:
    if as_json:
        document = outcome.to_dict()
        if explain:
            document["checks"] = explained_json(outcome.checks)
        print_json(document)
        return
    from rich.markup import escape

    show = out().print
    for check in outcome.checks:
        show(check_line(check))
        for name, value in check.inputs if explain else ():
            show(f"      [dim]{name} = {escape(value)}[/]")
    color = "green" if outcome.verdict == "accepted" else "red"
    status = f", TCB {outcome.tcb_status}" if outcome.tcb_status else ""
    show(
        f"[bold {color}]{outcome.verdict}[/] {outcome.kind} ({outcome.scope}{status}): {escape(outcome.reason)}"
    )
    for warning in outcome.warnings:
        show(f"[bold yellow]{escape(warning)}[/]")


def _show_undecidable(
    kind: str, verdict: str, error: MalformedError | UnsupportedError, *, as_json: bool
) -> None:
    if not as_json:
        console().print(f"[bold red]{verdict}[/] {kind}: {error}", markup=True)
        return
    print_json(
        {
            "ok": False,
            "kind": kind,
            "verdict": verdict,
            "reason": str(error),
            "scope": "none",
            "tcb_status": None,
            "advisories": [],
            "claims": {},
            "checks": [],
            "not_checked": [],
            "warnings": [],
            "error": error.to_dict(),
        }
    )
