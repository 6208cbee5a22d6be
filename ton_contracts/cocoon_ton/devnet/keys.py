"""The secrets of a development chain, in one file of mode 0600."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from cocoon_attestation.errors import ConfigError

KEYS_FILE: Final = "keys.json"
_SEEDS: Final = ("validator", "liteserver", "faucet")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ChainKeys:
    """Ed25519 keys: `validator` signs blocks, `liteserver` is the ADNL identity, `faucet` owns the faucet.

    `control` is the token of the control port (32 hex digits).
    """

    validator: SigningKey
    liteserver: SigningKey
    faucet: SigningKey
    control: str

    @classmethod
    def generate(cls) -> ChainKeys:
        """New random keys."""
        return cls(
            validator=SigningKey.generate(),
            liteserver=SigningKey.generate(),
            faucet=SigningKey.generate(),
            control=secrets.token_hex(16),
        )


def load_keys(directory: Path) -> ChainKeys:
    """The keys of the chain in `directory`; made there the first time."""
    path = directory / KEYS_FILE
    if not path.exists():
        keys = ChainKeys.generate()
        document = {name: bytes(getattr(keys, name)).hex() for name in _SEEDS}
        write_private(path, json.dumps(document | {"control": keys.control}))
        return keys
    try:
        document = json.loads(path.read_text("utf-8"))
        seeds = {name: SigningKey(bytes.fromhex(document[name])) for name in _SEEDS}
        return ChainKeys(**seeds, control=str(document["control"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} does not hold the keys of a development chain") from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, atomically and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
