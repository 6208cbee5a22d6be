"""Key files: the 24 words of a wallet on disk, mode 0600, encrypted if there is a passphrase.

Format in ``docs/spec/wallet.md#key-file``. The key is derived with scrypt (RFC 7914) and the words are
encrypted with AES-256-GCM; the public header is authenticated. A file is created once and never replaced.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cocoon_attestation.errors import MalformedError
from cocoon_ton.errors import KeystoreError
from cocoon_ton.files import create_private
from cocoon_ton.wallet import Wallet, WalletVersion, parse_mnemonic

FORMAT = "cocoon.keystore.v1"
_MAX_FILE = 16 << 10
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 17, 8, 1
_MAX_SCRYPT_N = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """An opened key file."""

    mnemonic: tuple[str, ...]
    version: WalletVersion

    def __repr__(self) -> str:
        return f"<KeyFile {self.version}>"

    def wallet(self, global_id: int) -> Wallet:
        """The wallet of this key on a network."""
        return Wallet.from_mnemonic(self.mnemonic, global_id=global_id, version=self.version)


def create_keystore(path: Path, key: KeyFile, passphrase: str | None = None) -> None:
    """Write a new key file. Raises `KeystoreError` if `path` exists; keys are never overwritten."""
    text = json.dumps(_encode(key, passphrase), indent=2) + "\n"
    try:
        create_private(path, text.encode())
    except OSError as error:
        raise KeystoreError(f"cannot create key file {path}: {error.strerror}") from error


def load_keystore(path: Path, passphrase: str | None = None) -> KeyFile:
    """Open a key file.

    Raises `KeystoreError` if it is missing, readable by others, damaged, or encrypted under another
    passphrase.
    """
    document = _read(path)
    cipher = document.get("cipher")
    if cipher is None:
        words = document.get("mnemonic")
    elif passphrase is None:
        raise KeystoreError("the key file is encrypted", hint="give the passphrase")
    else:
        words = _decrypt(document, passphrase)
    try:
        return KeyFile(
            mnemonic=parse_mnemonic(_text(words)), version=WalletVersion(_text(document.get("wallet")))
        )
    except (MalformedError, ValueError) as error:
        raise KeystoreError("the key file is damaged") from error


def is_encrypted(path: Path) -> bool:
    """Whether `load_keystore` needs a passphrase."""
    return _read(path).get("cipher") is not None


def _read(path: Path) -> dict[str, Any]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise KeystoreError(f"cannot read key file {path}: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise KeystoreError(f"key file {path} is open to others", hint=f"chmod 600 {path}")
        raw = file.read(_MAX_FILE + 1)
    try:
        document = json.loads(raw) if len(raw) <= _MAX_FILE else None
    except (ValueError, RecursionError) as error:
        raise KeystoreError("the key file is damaged") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise KeystoreError("not a Cocoon key file")
    return document


def _encode(key: KeyFile, passphrase: str | None) -> dict[str, Any]:
    header: dict[str, Any] = {"format": FORMAT, "wallet": str(key.version)}
    words = " ".join(key.mnemonic)
    if passphrase is None:
        return {**header, "mnemonic": words}
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    header["cipher"] = {
        "kdf": "scrypt",
        "n": _SCRYPT_N,
        "r": _SCRYPT_R,
        "p": _SCRYPT_P,
        "salt": _base64(salt),
        "aead": "aes-256-gcm",
        "nonce": _base64(nonce),
    }
    sealed = _aead(header["cipher"], salt, passphrase).encrypt(nonce, words.encode(), _aad(header))
    return {**header, "ciphertext": _base64(sealed)}


def _decrypt(document: dict[str, Any], passphrase: str) -> str:
    header = {name: document.get(name) for name in ("format", "wallet", "cipher")}
    try:
        cipher = document["cipher"]
        salt, nonce = _bytes(cipher["salt"]), _bytes(cipher["nonce"])
        sealed = _bytes(document["ciphertext"])
        if cipher["kdf"] != "scrypt" or cipher["aead"] != "aes-256-gcm" or len(nonce) != 12:
            raise ValueError("unknown cipher")
        return _aead(cipher, salt, passphrase).decrypt(nonce, sealed, _aad(header)).decode()
    except InvalidTag as error:
        raise KeystoreError("wrong passphrase, or the key file is damaged") from error
    except (KeyError, TypeError, ValueError) as error:
        raise KeystoreError("the key file is damaged") from error


def _aead(cipher: dict[str, Any], salt: bytes, passphrase: str) -> AESGCM:
    n, r, p = cipher["n"], cipher["r"], cipher["p"]
    if type(n) is not int or not 1 << 14 <= n <= _MAX_SCRYPT_N or (r, p) != (_SCRYPT_R, _SCRYPT_P):
        raise ValueError("unreasonable scrypt parameters")
    return AESGCM(Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(passphrase.encode()))


def _aad(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedError("not text")
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not text")
    return base64.b64decode(text, validate=True)
