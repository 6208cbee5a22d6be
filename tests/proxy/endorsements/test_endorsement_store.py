"""The offline store: whole files, private modes, damage noticed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from cocoon_proxy.endorsements import store as module
from cocoon_proxy.endorsements.store import EndorsementStore, StoredEndorsement, write_atomically
from cocoon_proxy.errors import EndorsementStoreError

KEY = "intel/tdx/tcb/90c06f000000"


def endorsement(key: str = KEY, **changes: object) -> StoredEndorsement:
    values: dict[str, object] = {
        "parts": {"body": b"statement", "chain": b"chain"},
        "fetched_at": 1_800_000_000,
        "rank": (19, 1_799_000_000),
    }
    return StoredEndorsement(key=key, **(values | changes))  # type: ignore[arg-type]  # test values


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    store = EndorsementStore(tmp_path / "deep" / "store")
    assert store.get(KEY) is None
    store.put(endorsement())
    assert store.get(KEY) == endorsement()
    assert EndorsementStore(tmp_path / "deep" / "store").get(KEY) == endorsement()
    assert store.get("intel/tdx/tcb/other") is None


def test_objects_are_named_by_content_and_private(tmp_path: Path) -> None:
    store = EndorsementStore(tmp_path / "store")
    store.put(endorsement())
    store.put(endorsement("another", parts={"body": b"statement"}))
    names = {path.name for path in files(tmp_path / "store" / "objects")}
    assert names == {hashlib.sha256(data).hexdigest() for data in (b"statement", b"chain")}
    for path in files(tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in [tmp_path / "store", *(one for one in (tmp_path / "store").rglob("*") if one.is_dir())]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_newer_replaces_older(tmp_path: Path) -> None:
    store = EndorsementStore(tmp_path)
    store.put(endorsement())
    newer = endorsement(parts={"body": b"newer"}, fetched_at=1_800_000_001, rank=(20, 0))
    store.put(newer)
    assert store.get(KEY) == newer


@pytest.mark.parametrize("damage", [b"", b"statemenT", b"statement "])
def test_damaged_object_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    store = EndorsementStore(tmp_path)
    store.put(endorsement())
    digest = hashlib.sha256(b"statement").hexdigest()
    (tmp_path / "objects" / digest[:2] / digest).write_bytes(damage)
    assert store.get(KEY) is None
    store.put(endorsement())  # and it is mended
    assert store.get(KEY) == endorsement()


def test_missing_object_is_as_good_as_none(tmp_path: Path) -> None:
    store = EndorsementStore(tmp_path)
    store.put(endorsement())
    files(tmp_path / "objects")[0].unlink()
    assert store.get(KEY) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"key": "another"},
        {"fetched_at": -1},
        {"fetched_at": "now"},
        {"rank": [1]},
        {"rank": [1, 2, 3]},
        {"rank": ["1", "2"]},
        {"parts": {}},
        {"parts": []},
        {"parts": {"body": "00"}},
        {"parts": {"body": "../../../etc/passwd"}},
        {"parts": {f"part{number}": "00" * 32 for number in range(129)}},
        {"extra": 1},
    ],
)
def test_damaged_entry_is_as_good_as_none(tmp_path: Path, change: dict[str, object]) -> None:
    store = EndorsementStore(tmp_path)
    store.put(endorsement())
    (entry,) = files(tmp_path / "entries")
    entry.write_text(json.dumps(json.loads(entry.read_text()) | change))
    assert store.get(KEY) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b" " * 70_000])
def test_entry_that_is_no_json_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    store = EndorsementStore(tmp_path)
    store.put(endorsement())
    files(tmp_path / "entries")[0].write_bytes(content)
    assert store.get(KEY) is None
    store.prune(1e12)


def test_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EndorsementStore(tmp_path)
    store.put(endorsement())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EndorsementStoreError, match="No space left"):
        store.put(endorsement(parts={"body": b"newer"}))
    monkeypatch.undo()
    assert store.get(KEY) == endorsement()
    assert not [path for path in files(tmp_path) if path.name.startswith(".")]


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EndorsementStoreError) as caught:
        EndorsementStore(tmp_path / "file").put(endorsement())
    assert caught.value.exit_code == 40


def test_prune_removes_what_nobody_names(tmp_path: Path) -> None:
    store = EndorsementStore(tmp_path)
    store.put(endorsement())
    store.put(endorsement(parts={"body": b"newer"}))
    now = os.stat(tmp_path).st_mtime
    assert store.prune(now) == 0  # too young: somebody may be about to name them
    assert store.prune(now + module.PRUNE_AGE_S + 10) == 2
    assert len(files(tmp_path / "objects")) == 1
    found = store.get(KEY)
    assert found is not None
    assert found.parts == {"body": b"newer"}
    assert EndorsementStore(tmp_path / "nothing").prune(now) == 0


def test_atomic_write_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "public.json"
    write_atomically(path, b"one", mode=0o644)
    write_atomically(path, b"two", mode=0o644)
    assert path.read_bytes() == b"two"
    assert files(tmp_path) == [path]
