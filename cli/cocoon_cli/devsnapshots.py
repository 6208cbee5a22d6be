"""`cocoon dev snapshot`: copies of a whole development network, to return to.

Chain, node, host agent and simulated platform belong together: a node that remembers receipts which the chain
does not know is in trouble. So a snapshot holds all of them, and is taken and put back while they are stopped. A
running chain alone can be saved and restored too: ``cocoon_ton.devnet``, commands ``save`` and ``restore``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from cocoon_attestation.errors import ConfigError
from cocoon_cli.devcontrol import directory_option
from cocoon_cli.devnetwork import chain_directory, default_root
from cocoon_cli.options import common_options
from cocoon_cli.output import out, print_json

FOLDER = "snapshots"
_LEFT_OUT = frozenset({FOLDER, "logs"})


@click.group()
def snapshot() -> None:
    """Copies of a whole development network that is stopped. Wallets and clients are not part of it."""


@snapshot.command()
@click.argument("name")
@directory_option
@common_options
def save(name: str, directory: Path | None, as_json: bool) -> None:
    """Copy the network as it is now; an earlier snapshot of that name is replaced."""
    root = _stopped(directory or default_root())
    folder = root / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    part = folder / f".{_name(name)}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a save that was interrupted
    part.mkdir(mode=0o700)
    for item in _items(root):
        _copy(item, part / item.name)
    _swap(part, folder / name)
    _say({"ok": True, "saved": name, "snapshots": _names(root)}, f"saved {name}", as_json)


@snapshot.command()
@click.argument("name")
@directory_option
@common_options
def restore(name: str, directory: Path | None, as_json: bool) -> None:
    """Put the network back to a snapshot. What happened since is gone."""
    root = directory or default_root()
    source = _existing(root, name)
    _not_running(root)
    part = root / FOLDER / ".restore.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, symlinks=True)
    for item in list(_items(root)):
        shutil.rmtree(item) if item.is_dir() else item.unlink()
    for item in sorted(part.iterdir(), key=lambda item: item.name == "chain"):
        item.rename(root / item.name)  # the chain last: without it the directory is no network
    part.rmdir()
    _say({"ok": True, "restored": name}, f"restored {name}; start it with `cocoon dev up`", as_json)


@snapshot.command()
@click.argument("name")
@directory_option
@common_options
def remove(name: str, directory: Path | None, as_json: bool) -> None:
    """Delete a snapshot."""
    root = directory or default_root()
    shutil.rmtree(_existing(root, name))
    _say({"ok": True, "removed": name, "snapshots": _names(root)}, f"removed {name}", as_json)


@snapshot.command("list")
@directory_option
@common_options
def list_all(directory: Path | None, as_json: bool) -> None:
    """List the snapshots."""
    names = _names(directory or default_root())
    _say({"ok": True, "snapshots": names}, "\n".join(names) or "no snapshots", as_json)


def _stopped(root: Path) -> Path:
    """The directory, if a network is there and does not run."""
    from cocoon_ton.devnet.network import CHAIN_FILE

    if not (chain_directory(root) / CHAIN_FILE).is_file():
        raise ConfigError(f"there is no development network in {root}", hint="start one: cocoon dev up")
    _not_running(root)
    return root


def _not_running(root: Path) -> None:
    """Raises ConfigError while a chain runs in the directory."""
    from cocoon_ton.devnet.network import CHAIN_FILE
    from cocoon_ton.devnet.store import Store

    chain = chain_directory(root) / CHAIN_FILE
    if not chain.is_file():
        return
    try:
        Store(chain).close()
    except ConfigError as error:
        hint = "stop `cocoon dev up` first: a snapshot holds chain, node and host agent of one moment"
        raise ConfigError(f"the network in {root} runs", hint=hint) from error


def _items(root: Path) -> Iterator[Path]:
    return (item for item in root.iterdir() if item.name not in _LEFT_OUT)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def _swap(part: Path, target: Path) -> None:
    """Put a finished copy in the place of an older one."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _name(name: str) -> str:
    from cocoon_ton.devnet.snapshots import check_name

    return check_name(name)


def _names(root: Path) -> list[str]:
    folder = root / FOLDER
    if not folder.is_dir():
        return []
    return sorted(item.name for item in folder.iterdir() if item.is_dir() and item.name[0] != ".")


def _existing(root: Path, name: str) -> Path:
    if _name(name) not in _names(root):
        known = ", ".join(_names(root)) or "none"
        raise ConfigError(f"there is no snapshot {name!r}", hint=f"known: {known}")
    return root / FOLDER / name


def _say(document: dict[str, object], text: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        out().print(text)
