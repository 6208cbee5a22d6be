"""`cocoon wallet new`, `restore`, `backup`: the 24 words."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_cli.clients import client_home
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import console, out, print_json
from cocoon_ton.network import NetworkConfig, load_network

if TYPE_CHECKING:
    from cocoon_ton.keystore import KeyFile
    from cocoon_ton.wallet import Wallet

PASSPHRASE_VARIABLE = "COCOON_WALLET_PASSPHRASE"  # noqa: S105  # the name of a variable


def wallet_file(network: NetworkConfig) -> Path:
    """The client's key file on a network."""
    return client_home(network) / "wallet.json"


def open_wallet(network: NetworkConfig) -> Wallet:
    """The client's wallet. Raises `KeystoreError` with a hint."""
    from cocoon_ton.errors import KeystoreError
    from cocoon_ton.keystore import load_keystore

    path = wallet_file(network)
    if not path.exists():
        raise KeystoreError(
            f"no wallet on network {network.name}",
            hint="make one: cocoon wallet new, or cocoon wallet restore",
        )
    return load_keystore(path, os.environ.get(PASSPHRASE_VARIABLE)).wallet(network.global_id)


_PLAIN = click.option("--plain", is_flag=True, help="Do not encrypt the key file (mode 0600 either way).")


@click.command()
@_PLAIN
@network_option
@common_options
def new(plain: bool, network: str, as_json: bool) -> None:
    """Make a wallet of 24 words. The words are shown once: whoever has them has the money."""
    from cocoon_ton.keystore import KeyFile
    from cocoon_ton.wallet import WalletVersion, new_mnemonic

    chosen = load_network(network)
    key = KeyFile(mnemonic=new_mnemonic(), version=WalletVersion.V5R1)
    _store(chosen, key, plain=plain, as_json=as_json)
    if as_json:
        print_json({**_made(chosen, key), "mnemonic": " ".join(key.mnemonic)})
        return
    console().print("[bold yellow]Write these words down. They are shown only now.[/]")
    _print_words(key)
    _say_where(chosen, key)


@click.command()
@_PLAIN
@click.option(
    "--version",
    "version",
    type=click.Choice(["v5r1", "v4r2"]),
    default="v5r1",
    show_default=True,
    help="Wallet contract: the same words have one address for each.",
)
@network_option
@common_options
def restore(plain: bool, version: str, network: str, as_json: bool) -> None:
    """Make the key file from 24 words that you have: typed without echo, or on standard input."""
    from cocoon_ton.keystore import KeyFile
    from cocoon_ton.wallet import WalletVersion, parse_mnemonic

    chosen = load_network(network)
    _must_not_exist(chosen)
    try:
        words = parse_mnemonic(_typed_words())
    except MalformedError as error:
        raise ConfigError(str(error), hint="24 words of the TON word list, with spaces between") from error
    key = KeyFile(mnemonic=words, version=WalletVersion(version))
    _store(chosen, key, plain=plain, as_json=as_json)
    if as_json:
        print_json(_made(chosen, key))
    else:
        _say_where(chosen, key)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@network_option
@common_options
def backup(yes: bool, network: str, as_json: bool) -> None:
    """Show the 24 words of the wallet once more."""
    from cocoon_ton.keystore import load_keystore

    chosen = load_network(network)
    open_wallet(chosen)  # says what is wrong before anything is asked
    if not yes and not as_json:
        click.confirm(
            "Show the words on this screen? Whoever sees them has the money.", abort=True, err=True
        )
    key = load_keystore(wallet_file(chosen), os.environ.get(PASSPHRASE_VARIABLE))
    if as_json:
        print_json({**_made(chosen, key), "mnemonic": " ".join(key.mnemonic)})
    else:
        _print_words(key)


def _typed_words() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.read(4096)
    return str(click.prompt("24 words", hide_input=True, err=True))


def _print_words(key: KeyFile) -> None:
    words = key.mnemonic
    for start in range(0, len(words), 6):
        out().print(
            "  ".join(f"{start + n + 1:>2} {word:<9}" for n, word in enumerate(words[start : start + 6]))
        )


def _must_not_exist(network: NetworkConfig) -> None:
    from cocoon_ton.errors import KeystoreError

    if wallet_file(network).exists():
        raise KeystoreError(
            f"there is a wallet on network {network.name} already",
            hint=f"keys are never replaced: move {wallet_file(network)} away first, and keep it",
        )


def _store(network: NetworkConfig, key: KeyFile, *, plain: bool, as_json: bool) -> None:
    from cocoon_ton.keystore import create_keystore

    _must_not_exist(network)
    passphrase = None if plain else os.environ.get(PASSPHRASE_VARIABLE)
    if passphrase is None and not plain:
        if as_json or not sys.stdin.isatty():
            raise ConfigError("no passphrase", hint=f"set {PASSPHRASE_VARIABLE}, or give --plain")
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    create_keystore(wallet_file(network), key, passphrase)


def _made(network: NetworkConfig, key: KeyFile) -> dict[str, object]:
    return {
        "ok": True,
        "address": key.wallet(network.global_id).friendly,
        "file": str(wallet_file(network)),
    }


def _say_where(network: NetworkConfig, key: KeyFile) -> None:
    out().print(f"address  {key.wallet(network.global_id).friendly}\nfile     {wallet_file(network)}")
