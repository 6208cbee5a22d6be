"""Client keys of payment channels: one key per channel, all derived from one secret file."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path
from typing import Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cocoon_attestation.errors import ConfigError
from cocoon_ton.files import create_private

_SIZE: Final = 32
_INFO: Final = b"cocoon/v1/channel-key"


class ChannelKeys:
    """Derives the Ed25519 key of a channel: HKDF-SHA256(secret, info = tag ‖ node ‖ salt u64)."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SIZE:
            raise ConfigError("the channel secret is not 32 bytes")
        self._secret = secret

    def __repr__(self) -> str:
        return "ChannelKeys()"

    def __reduce__(self) -> NoReturn:
        """Refuse pickling and copying."""
        raise TypeError("ChannelKeys cannot be pickled or copied")

    def key(self, node: bytes, salt: int) -> Ed25519PrivateKey:
        """The client key of the channel with this node (32 bytes) and salt (u64)."""
        info = _INFO + node + salt.to_bytes(8)
        seed = HKDF(algorithm=SHA256(), length=_SIZE, salt=None, info=info).derive(self._secret)
        return Ed25519PrivateKey.from_private_bytes(seed)

    def public_key(self, node: bytes, salt: int) -> bytes:
        """Its public half, 32 bytes."""
        return self.key(node, salt).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def load_channel_keys(path: Path) -> ChannelKeys:
    """Read the secret file, or make it (mode 0600) if it does not exist.

    Raises:
        ConfigError: the file cannot be read or written, or other users may read it.
    """
    try:
        if path.exists():
            return ChannelKeys(_read(path))
        secret = secrets.token_bytes(_SIZE)
        try:
            create_private(path, secret)
        except FileExistsError:  # another process was faster
            return ChannelKeys(_read(path))
    except OSError as error:
        raise ConfigError(f"cannot use the key file {path.name}: {error.strerror}") from error
    return ChannelKeys(secret)


def _read(path: Path) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path.name} can be read by other users", hint=f"chmod 600 {path.name}")
    return path.read_bytes()
