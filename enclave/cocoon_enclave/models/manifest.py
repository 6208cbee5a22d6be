"""What a model is: a digest over every file of its directory, checked before a byte of it is used.

Canonical manifest: one line ``sha256hex  size  relative/path`` and a newline per file, lines sorted as
bytes; model digest = SHA-256 of it. A directory holds exactly the files of its manifest: anything else in
it, or a link, is refused. See docs/spec/models.md.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cocoon_attestation.types import Digest32
from cocoon_enclave.errors import ModelRejectedError

MAX_FILES: Final = 4096
_BLOCK: Final = 1 << 22
_SUFFIXES: Final = (".json", ".safetensors", ".jinja", ".txt", ".model")
"""What an engine reads. Code (``.py``) and pickles (``.bin``, ``.pt``) can never be part of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """One file of a model."""

    path: str
    """Relative, with ``/``; printable ASCII without spaces."""
    size: int
    """Bytes."""
    sha256: Digest32

    @property
    def line(self) -> str:
        """The manifest line, with its newline."""
        return f"{self.sha256.hex()}  {self.size}  {self.path}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The files of a model, in the order of their lines."""

    files: tuple[ManifestFile, ...]

    @property
    def canonical(self) -> bytes:
        """The bytes that are hashed."""
        return "".join(sorted(file.line for file in self.files)).encode("ascii")

    @property
    def digest(self) -> Digest32:
        """The model digest."""
        return Digest32(hashlib.sha256(self.canonical).digest())


def measure(directory: Path) -> Manifest:
    """Hash every file below `directory`.

    Raises:
        ModelRejectedError: no such directory, or something in it that no model has.
    """
    files = []
    for relative, path in _walk(directory):
        digest, size = _hash_into(path, None)
        files.append(ManifestFile(path=relative, size=size, sha256=digest))
    return Manifest(files=tuple(sorted(files, key=lambda file: file.line)))


def verify(directory: Path, digest: bytes) -> Manifest:
    """Measure `directory` and compare with `digest`.

    Raises:
        ModelRejectedError: the files are not those of the digest.
    """
    return _expect(measure(directory), digest)


def read_verified(directory: Path, digest: bytes, names: Collection[str]) -> dict[str, bytes]:
    """Contents of those of the files `names` that exist, hashed in the same pass as all others.

    Raises:
        ModelRejectedError: the files are not those of the digest.
    """
    files, contents = [], {}
    for relative, path in _walk(directory):
        if relative in names:
            data = path.read_bytes()
            contents[relative] = data
            sha256, size = Digest32(hashlib.sha256(data).digest()), len(data)
        else:
            sha256, size = _hash_into(path, None)
        files.append(ManifestFile(path=relative, size=size, sha256=sha256))
    _expect(Manifest(files=tuple(files)), digest)
    return contents


@contextmanager
def verified_copy(directory: Path, digest: bytes) -> Iterator[Path]:
    """A private copy of the model, in memory where possible, that was hashed while it was made.

    The host owns the disk and can change a file between its hashing and its loading; it cannot change the
    copy, which lives in the guest's own memory. The copy is deleted on exit.

    Raises:
        ModelRejectedError: the files are not those of the digest.
    """
    sources = list(_walk(directory))
    with tempfile.TemporaryDirectory(prefix="cocoon-model-", dir=_memory_dir(sources)) as name:
        copy = Path(name)
        files = []
        for relative, path in sources:
            target = copy / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            sha256, size = _hash_into(path, target)
            files.append(ManifestFile(path=relative, size=size, sha256=sha256))
        _expect(Manifest(files=tuple(sorted(files, key=lambda file: file.line))), digest)
        yield copy


def _expect(manifest: Manifest, digest: bytes) -> Manifest:
    if not hmac.compare_digest(manifest.digest, digest):
        raise ModelRejectedError(
            "the model's files are not those that its digest names",
            hint="fetch or import the model again",
            details={"expected": bytes(digest).hex(), "found": manifest.digest.hex()},
        )
    return manifest


def _memory_dir(sources: list[tuple[str, Path]]) -> str | None:
    shared = Path("/dev/shm")  # noqa: S108 - the name inside is random and only ours
    need = sum(path.stat().st_size for _, path in sources) * 5 // 4
    try:
        return str(shared) if shutil.disk_usage(shared).free > need and os.access(shared, os.W_OK) else None
    except OSError:
        return None


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    if not directory.is_dir():
        raise ModelRejectedError("the model's directory does not exist", details={"path": str(directory)})
    count = 0
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        relative = path.relative_to(directory).as_posix()
        count += 1
        if (
            not stat.S_ISREG(mode)
            or count > MAX_FILES
            or path.suffix not in _SUFFIXES
            or not relative.isascii()
            or not relative.isprintable()
            or " " in relative
        ):
            raise ModelRejectedError(
                "the model's directory holds something that is no model file", details={"path": relative}
            )
        yield relative, path
    if not count:
        raise ModelRejectedError("the model's directory is empty", details={"path": str(directory)})


def _hash_into(source: Path, target: Path | None) -> tuple[Digest32, int]:
    """Hash a file, and write exactly the bytes that were hashed to `target`."""
    state, size = hashlib.sha256(), 0
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(source, flags), "rb") as reader:
        writer = target.open("xb") if target is not None else None
        try:
            while block := reader.read(_BLOCK):
                state.update(block)
                size += len(block)
                if writer is not None:
                    writer.write(block)
        finally:
            if writer is not None:
                writer.close()
    return Digest32(state.digest()), size
