"""Secret files: whole or absent, private, never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon_ton import files
from cocoon_ton.files import create_private


def test_a_new_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "below" / "secret"
    create_private(path, b"words")
    assert path.read_bytes() == b"words"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["secret"]


def test_nothing_is_replaced_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    create_private(path, b"first")
    with pytest.raises(FileExistsError):
        create_private(path, b"second")
    assert path.read_bytes() == b"first"
    assert [found.name for found in tmp_path.iterdir()] == ["secret"]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "secret", b"words")
    assert not (tmp_path / "elsewhere").exists()


def test_before_it_is_whole_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A death before the last step leaves no file, or one that nobody reads."""

    def dies(work: Path, path: Path) -> None:
        assert work.read_bytes() == b"words"
        assert work.stat().st_mode & 0o777 == 0o600
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "publish", dies)
    with pytest.raises(KeyboardInterrupt):
        create_private(tmp_path / "secret", b"words")
    assert not (tmp_path / "secret").exists()
