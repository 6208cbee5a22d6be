"""The newest proved key block of each network, kept so that the next start does not walk to it again.

A record is written only for a block that validators' signatures led to, and is used only as the place where
the next proof begins. It is sealed with a key of this machine, so that a file that was damaged, edited or
brought from elsewhere is refused; the client then walks from the init block, as without a record. The files
have the standing of the network file: whoever can write those of another user has that user's trust anyway.

Format: ``docs/spec/ledger-client.md#stored-key-block``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

from cocoon_attestation.errors import ConfigError
from cocoon_ton.errors import ChainProofError
from cocoon_ton.network import NetworkConfig
from cocoon_ton.paths import home_dir
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, BlockId

FORMAT: Final = "cocoon.anchor.v1"
KEY_FILE: Final = "seal.key"
_KEY_BYTES: Final = 32
_MAX_FILE: Final = 4096
_log = logging.getLogger(__name__)


class AnchorStore:
    """Records in `directory`, one file for each network name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, network: NetworkConfig) -> BlockId | None:
        """The recorded key block of this network, if there is one and it is newer than the init block.

        A record that is refused counts as none, with a warning in the log.
        """
        try:
            return self.read(network)
        except ChainProofError as error:
            _log.warning("%s; starting from the init block", error)
            return None

    def read(self, network: NetworkConfig) -> BlockId | None:
        """As `load`, but raises `ChainProofError` for a record that is refused."""
        path = self._path(network)
        raw = _read_private(path)
        if raw is None:
            return None
        try:
            document = json.loads(raw)
            seal = bytes.fromhex(document.pop("seal"))
            body = _body(document)
            block = _block(document["block"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChainProofError(f"stored key block in {path.name} is malformed") from error
        if not hmac.compare_digest(seal, self._seal(body, create=False)):
            raise ChainProofError(f"stored key block in {path.name} has a wrong seal")
        if document != _document(network, block):
            raise ChainProofError(f"stored key block in {path.name} is of another network")
        return block if block.seqno > network.init_block.seqno else None

    def save(self, network: NetworkConfig, block: BlockId) -> None:
        """Record a proved key block, atomically and durably; an older one never replaces a newer one."""
        try:
            known = self.read(network)
        except ChainProofError:
            known = None
        if known is not None and known.seqno >= block.seqno:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = _document(network, block)
        seal = self._seal(_body(document), create=True)
        text = json.dumps(document | {"seal": seal.hex()}, indent=1)
        _write_private(self._path(network), text.encode())

    def forget(self, network: NetworkConfig) -> None:
        """Drop the record."""
        self._path(network).unlink(missing_ok=True)

    def _path(self, network: NetworkConfig) -> Path:
        return self._directory / f"{network.name}.json"

    def _seal(self, body: bytes, *, create: bool) -> bytes:
        key = _read_private(self._directory / KEY_FILE)
        if key is None and create:
            key = secrets.token_bytes(_KEY_BYTES)
            _write_private(self._directory / KEY_FILE, key)
        if key is None or len(key) != _KEY_BYTES:
            raise ChainProofError("the key that seals stored key blocks is missing")
        return hmac.digest(key, body, hashlib.sha256)


def default_anchors() -> AnchorStore:
    """The records of this user, in ``anchors`` of ``COCOON_HOME``."""
    return AnchorStore(home_dir() / "anchors")


def _document(network: NetworkConfig, block: BlockId) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "global_id": network.global_id,
        "init_block": _entry(network.init_block),
        "block": _entry(block),
    }


def _entry(block: BlockId) -> dict[str, Any]:
    return {
        "seqno": block.seqno,
        "root_hash": block.root_hash.hex(),
        "file_hash": block.file_hash.hex(),
    }


def _block(entry: Any) -> BlockId:
    root, file = bytes.fromhex(entry["root_hash"]), bytes.fromhex(entry["file_hash"])
    if type(entry["seqno"]) is not int or len(root) != 32 or len(file) != 32:
        raise ValueError("not a block")
    return BlockId(
        workchain=MASTERCHAIN, shard=FULL_SHARD, seqno=entry["seqno"], root_hash=root, file_hash=file
    )


def _body(document: dict[str, Any]) -> bytes:
    """What the seal covers: all of it, in one form."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _read_private(path: Path) -> bytes | None:
    """A small file that nobody else may write; None if there is none. Raises `ChainProofError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ChainProofError(f"{path.name} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        mine = not hasattr(os, "getuid") or about.st_uid == os.getuid()
        if not mine or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ChainProofError(f"{path.name} can be written by others")
        raw = file.read(_MAX_FILE + 1)
    if len(raw) > _MAX_FILE:
        raise ChainProofError(f"{path.name} is too long")
    return raw


def _write_private(path: Path, data: bytes) -> None:
    """Mode 0600; after a crash the old content or the new."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"cannot write to {path.parent}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
