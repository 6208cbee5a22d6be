"""Entry point of `cocoon`: lazy command groups, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

import click

# OpenMP threads that spin while waiting starve the other processes; must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# name -> (module, attribute, one-line help). The module is imported only when its command runs.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": (
        "cocoon_cli.demo.command",
        "demo",
        "Run the whole network on this machine and show every step.",
    ),
    "dev": ("cocoon_cli.dev", "dev", "Keep a development network running."),
    "serve": ("cocoon_cli.app", "serve", "Serve an OpenAI-compatible gateway on 127.0.0.1."),
    "chat": ("cocoon_cli.app", "chat", "Ask one question, or talk."),
    "models": ("cocoon_cli.app", "models", "List the models that verified nodes serve."),
    "receipts": ("cocoon_cli.receipts", "receipts", "List, show and export receipts."),
    "wallet": ("cocoon_cli.wallet", "wallet", "Keys, balances and channels."),
    "host": ("cocoon_cli.host", "host", "Run a node and see what it earns."),
    "verify": (
        "cocoon_cli.verify",
        "verify",
        "Check a node, evidence, a receipt, a bundle, or raw vendor evidence.",
    ),
    "endorsements": (
        "cocoon_cli.endorsements",
        "endorsements",
        "Fetch what vendors say about hardware.",
    ),
    "log": ("cocoon_cli.log", "log", "Read the logs that nodes anchor on chain."),
    "governance": (
        "cocoon_cli.governance",
        "governance",
        "Propose, approve and carry out changes of the registry.",
    ),
    "explain": ("cocoon_cli.explain", "explain", "Explain an error code or a check id."),
    "completion": ("cocoon_cli.completion", "completion", "Print shell completion code."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, so that `cocoon --help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the audiences, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cocoon-network", prog_name="cocoon")
def cli() -> None:
    """Confidential AI inference on TON: verified enclaves, sealed prompts, signed receipts, exact payment.

    Every command takes --json: one document on stdout.
    Exit codes: 0 ok, 1 internal, 2 usage, 10 rejected, 20 unsupported, 30 malformed, 40 undecided, 50 payment.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with the exit code of the outcome."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(arguments)
    except BrokenPipeError:
        # The reader of our output went away (`cocoon … | head`): nothing is left to say.
        sys.stderr.close()
        status = 0
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run one command line, show the error that ended it if there was one, and return the exit code."""
    from cocoon_attestation.errors import CocoonError
    from cocoon_cli.output import print_error, wants_json

    as_json = wants_json(arguments)
    try:
        status = cli.main(args=arguments, prog_name="cocoon", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        if as_json:
            print_error({"code": "usage", "message": error.format_message()}, as_json=True)
        else:
            error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except CocoonError as error:
        print_error(error.to_dict(), as_json=as_json, checks=getattr(error, "checks", None))
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:  # the outermost seam: a full disk or a bug ends as one line, not as a trace
        logging.getLogger("cocoon_cli").debug("unexpected", exc_info=error)
        print_error(_unexpected(error), as_json=as_json)
        return CocoonError.exit_code
    return status if isinstance(status, int) else 0


def _unexpected(error: Exception) -> dict[str, object]:
    if isinstance(error, OSError):
        hint = "check that the file or directory exists and that there is room"
    else:
        hint = "this is a defect of cocoon: the same command with -vv shows where; please report it"
    return {"code": "internal", "message": f"{type(error).__name__}: {error}", "hint": hint}


if __name__ == "__main__":
    main()
