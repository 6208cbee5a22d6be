"""The offline store: endorsements on disk, by content.

``objects/<aa>/<sha256>`` hold the bytes, ``entries/<sha256 of the key>.json`` say which of them belong to a
key. Files are written whole (temporary file, fsync, rename) with mode 0600 in directories of mode 0700. An
object whose digest is not its name is as good as none. Blocking; callers use a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.strict_json import items, members, number, parse_object, text
from cocoon_attestation.types import parse_hex
from cocoon_proxy.errors import EndorsementStoreError

FORMAT: Final = "cocoon-endorsement/1"
MAX_ENTRY: Final = 64 * 1024
MAX_OBJECT: Final = 4 * 1024 * 1024
MAX_PARTS: Final = 128
PRUNE_AGE_S: Final = 86_400
"""Objects younger than this are kept by `prune`: their entry may be about to be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEndorsement:
    """One endorsement as it was fetched. Nothing about it is verified."""

    key: str
    """What it is, for example ``intel/tdx/tcb/90c06f000000``."""
    parts: Mapping[str, bytes]
    """Its pieces by name, for example ``body`` and ``chain``."""
    fetched_at: int
    """Unix time in seconds."""
    rank: tuple[int, int]
    """Grows with newer statements: evaluation number, issue date."""


class EndorsementStore:
    """A directory of endorsements; several processes may share it."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`; it is made when something is put."""
        self._directory = directory

    def get(self, key: str) -> StoredEndorsement | None:
        """The endorsement called `key`, or None if there is none or its files are damaged."""
        try:
            raw = _read(self._entry(key), MAX_ENTRY)
            return self._load(key, raw) if raw is not None else None
        except MalformedError:
            return None

    def put(self, endorsement: StoredEndorsement) -> None:
        """Keep `endorsement` in place of what was there.

        Raises:
            EndorsementStoreError: the disk does not take it; what was there still is.
        """
        document = {
            "format": FORMAT,
            "key": endorsement.key,
            "fetched_at": endorsement.fetched_at,
            "rank": list(endorsement.rank),
            "parts": {name: hashlib.sha256(data).hexdigest() for name, data in endorsement.parts.items()},
        }
        try:
            for data in endorsement.parts.values():
                path = self._object(hashlib.sha256(data).digest())
                if _read(path, MAX_OBJECT) != data:
                    self._make(path.parent)
                    write_atomically(path, data)
            self._make(self._directory / "entries")
            write_atomically(self._entry(endorsement.key), json.dumps(document).encode("ascii"))
        except OSError as error:
            raise EndorsementStoreError(f"{self._directory}: {error.strerror}") from error

    def prune(self, now: float) -> int:
        """Remove objects that no entry names and that are older than a day; returns how many.

        Raises:
            EndorsementStoreError: the directory cannot be read.
        """
        used: set[str] = set()
        removed = 0
        try:
            for path in sorted((self._directory / "entries").glob("*.json")):
                raw = _read(path, MAX_ENTRY)
                with contextlib.suppress(MalformedError):
                    used |= set(_digests(_fields(raw or b"")).values())
            for path in sorted((self._directory / "objects").glob("??/*")):
                if path.name not in used and now - path.stat().st_mtime > PRUNE_AGE_S:
                    path.unlink()
                    removed += 1
        except OSError as error:
            raise EndorsementStoreError(f"{self._directory}: {error.strerror}") from error
        return removed

    def _make(self, folder: Path) -> None:
        """Make `folder` and what is above it, up to the store, for the owner alone."""
        for one in reversed([folder, *folder.parents]):
            if one.is_relative_to(self._directory):
                one.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _load(self, key: str, raw: bytes) -> StoredEndorsement | None:
        document = _fields(raw)
        if document["key"] != key:
            return None
        parts = {}
        for name, digest in _digests(document).items():
            expected = parse_hex(digest, 32, "part")
            data = _read(self._object(expected), MAX_OBJECT)
            if data is None or not hmac.compare_digest(hashlib.sha256(data).digest(), expected):
                return None
            parts[name] = data
        first, second = items(document["rank"], "rank", limit=2)
        return StoredEndorsement(
            key=key,
            parts=parts,
            fetched_at=number(document["fetched_at"], "fetched_at"),
            rank=(number(first, "rank"), number(second, "rank")),
        )

    def _entry(self, key: str) -> Path:
        return self._directory / "entries" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _object(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._directory / "objects" / name[:2] / name


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` to `path` whole or not at all, through a new file beside it.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _fields(raw: bytes) -> Mapping[str, object]:
    document = members(
        parse_object(raw, limit=MAX_ENTRY, what="stored entry"),
        required=frozenset({"format", "key", "fetched_at", "rank", "parts"}),
        what="stored entry",
    )
    rank = items(document["rank"], "rank", limit=2)
    if document["format"] != FORMAT or len(rank) != 2:
        raise MalformedError("stored entry: another format")
    return document


def _digests(document: Mapping[str, object]) -> dict[str, str]:
    parts = document["parts"]
    if not isinstance(parts, dict) or not 1 <= len(parts) <= MAX_PARTS:
        raise MalformedError("stored entry: parts expected")
    return {text(name, "part name"): text(digest, "part digest") for name, digest in parts.items()}


def _read(path: Path, limit: int) -> bytes | None:
    """The content, or None if there is no such file, it cannot be read, or it is too long."""
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError:
        return None
    return data if len(data) <= limit else None
