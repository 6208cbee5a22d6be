"""Key files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cocoon_ton import keystore
from cocoon_ton.errors import KeystoreError
from cocoon_ton.keystore import KeyFile, create_keystore, is_encrypted, load_keystore
from cocoon_ton.wallet import WalletVersion, new_mnemonic

PASSPHRASE = "correct horse"


@pytest.fixture(scope="module")
def key() -> KeyFile:
    return KeyFile(mnemonic=new_mnemonic(), version=WalletVersion.V5R1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest scrypt parameters that are accepted."""
    monkeypatch.setattr(keystore, "_SCRYPT_N", 1 << 14)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "wallet.json"


@pytest.fixture
def encrypted(path: Path, key: KeyFile) -> Path:
    create_keystore(path, key, PASSPHRASE)
    return path


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_cipher(path: Path, **changes: Any) -> None:
    edit(path, cipher=json.loads(path.read_text())["cipher"] | changes)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE, ""])
def test_round_trip(path: Path, key: KeyFile, passphrase: str | None) -> None:
    create_keystore(path, key, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_encrypted(path) is (passphrase is not None)
    assert load_keystore(path, passphrase) == key
    assert load_keystore(path, passphrase).wallet(-3).address == key.wallet(-3).address


def test_words_are_not_in_an_encrypted_file(encrypted: Path, key: KeyFile) -> None:
    text = encrypted.read_text()
    assert sum(f" {word} " in text for word in key.mnemonic) == 0
    assert key.mnemonic[0] + " " + key.mnemonic[1] not in text


def test_words_are_not_printed(key: KeyFile) -> None:
    assert repr(key) == "<KeyFile v5r1>"


def test_never_overwritten(encrypted: Path, key: KeyFile) -> None:
    before = encrypted.read_bytes()
    with pytest.raises(KeystoreError, match="cannot create"):
        create_keystore(encrypted, key)
    assert encrypted.read_bytes() == before


def test_passphrase(encrypted: Path) -> None:
    with pytest.raises(KeystoreError, match="encrypted"):
        load_keystore(encrypted)
    with pytest.raises(KeystoreError, match="wrong passphrase"):
        load_keystore(encrypted, "incorrect horse")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_open_to_others(encrypted: Path, mode: int) -> None:
    encrypted.chmod(mode)
    with pytest.raises(KeystoreError, match="open to others"):
        load_keystore(encrypted, PASSPHRASE)


def test_symbolic_links_are_not_followed(encrypted: Path, tmp_path: Path, key: KeyFile) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(encrypted)
    with pytest.raises(KeystoreError, match="cannot read"):
        load_keystore(link, PASSPHRASE)
    dangling = tmp_path / "dangling.json"
    dangling.symlink_to(tmp_path / "target.json")
    with pytest.raises(KeystoreError, match="cannot create"):
        create_keystore(dangling, key)


def test_missing_and_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="cannot read"):
        load_keystore(tmp_path / "nothing.json")
    os.mkfifo(tmp_path / "pipe", 0o600)
    handle = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        with pytest.raises(KeystoreError, match="open to others"):
            load_keystore(tmp_path / "pipe")
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1 << 10},
        {"n": 1 << 30},
        {"n": True},
        {"n": "16384"},
        {"r": 1},
        {"p": 1000},
        {"kdf": "pbkdf2"},
        {"aead": "none"},
        {"nonce": ""},
        {"nonce": "AAAAAAAAAAAAAAAA"},
        {"salt": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"salt": 5},
    ],
    ids=str,
)
def test_edited_cipher(encrypted: Path, change: dict[str, Any]) -> None:
    edit_cipher(encrypted, **change)
    with pytest.raises(KeystoreError):
        load_keystore(encrypted, PASSPHRASE)


@pytest.mark.parametrize(
    "change",
    [{"wallet": "v4r2"}, {"ciphertext": "AAAA"}, {"ciphertext": None}, {"cipher": []}, {"format": "other"}],
    ids=str,
)
def test_edited_header(encrypted: Path, change: dict[str, Any]) -> None:
    edit(encrypted, **change)
    with pytest.raises(KeystoreError):
        load_keystore(encrypted, PASSPHRASE)


@pytest.mark.parametrize(
    "change", [{"mnemonic": "one two"}, {"mnemonic": None}, {"wallet": "v9"}, {"wallet": None}], ids=str
)
def test_edited_plain_file(path: Path, key: KeyFile, change: dict[str, Any]) -> None:
    create_keystore(path, key)
    edit(path, **change)
    with pytest.raises(KeystoreError, match="damaged"):
        load_keystore(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 5000, b" " * 20_000, b"\xff"])
def test_not_a_key_file(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(KeystoreError):
        load_keystore(path)
