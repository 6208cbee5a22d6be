"""Options that every command shares."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")


def common_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--json` and `-v`; the command receives `as_json`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-v", "--verbose", count=True, help="Say more on stderr (-vv: debug).")
    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        set_verbosity(int(str(kwargs.pop("verbose", 0))))
        return command(*args, **kwargs)

    return wrapper


def network_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--network`; the command receives `network`, a name or a path."""
    return click.option(
        "--network",
        default="dev",
        show_default=True,
        envvar="COCOON_NETWORK",
        metavar="dev|testnet|mainnet|PATH",
        help="Network to use: a known name, or the path of its JSON file.",
    )(command)


def set_verbosity(level: int) -> None:
    """Send the project's log records to stderr from the wanted level on."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    wanted = {0: logging.WARNING, 1: logging.INFO}.get(level, logging.DEBUG)
    for name in ("cocoon_cli", "cocoon_proxy", "cocoon_ton", "cocoon_enclave", "cocoon_attestation"):
        logging.getLogger(name).setLevel(wanted)
