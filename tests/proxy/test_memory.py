"""The memory of the newest statements: it only grows, survives restarts and neighbours, and fails closed."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import UnavailableError
from cocoon_attestation.rollback import Mark
from cocoon_proxy.memory import FILE, SeenStatements

NOW = 1_800_000_000


def mark(*parts: int, subject: str = "a", slack: tuple[int, ...] | None = None) -> Mark:
    return Mark(subject=subject, parts=parts, slack=slack or (0,) * len(parts))


@pytest.fixture
def seen(tmp_path: Path) -> SeenStatements:
    return SeenStatements(tmp_path)


def test_the_highest_of_every_part_counts(seen: SeenStatements) -> None:
    assert seen.seen("a") is None
    assert seen.observe([mark(3, 7)], NOW) == ()
    assert seen.observe([mark(4, 7)], NOW) == ()
    assert seen.observe([mark(3, 9)], NOW) == ("a",)  # newer in one part does not make up for the other
    assert seen.seen("a") == (4, 7)
    assert seen.observe([mark(4, 9)], NOW) == ()
    assert seen.seen("a") == (4, 9)


def test_slack_does_not_add_up(seen: SeenStatements) -> None:
    assert seen.observe([mark(100, slack=(10,))], NOW) == ()
    for _ in range(3):
        assert seen.observe([mark(90, slack=(10,))], NOW) == ()
    assert seen.observe([mark(89, slack=(10,))], NOW) == ("a",)
    assert seen.seen("a") == (100,)


def test_nothing_is_remembered_if_one_is_older(seen: SeenStatements) -> None:
    assert seen.observe([mark(5), mark(5, subject="b")], NOW) == ()
    assert seen.observe([mark(9), mark(4, subject="b"), mark(1, subject="c")], NOW) == ("b",)
    assert (seen.seen("a"), seen.seen("b"), seen.seen("c")) == ((5,), (5,), None)


def test_another_number_of_parts_is_older(seen: SeenStatements) -> None:
    assert seen.observe([mark(5, 5)], NOW) == ()
    assert seen.observe([mark(9)], NOW) == ("a",)


def test_restart_and_neighbour(seen: SeenStatements, tmp_path: Path) -> None:
    other = SeenStatements(tmp_path)
    assert other.observe([mark(5)], NOW) == ()
    assert seen.observe([mark(4)], NOW) == ("a",)
    seen.close()
    other.close()
    again = SeenStatements(tmp_path)
    assert again.seen("a") == (5,)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_many_writers_never_lower_it(tmp_path: Path) -> None:
    accepted: list[int] = []

    def work(start: int) -> None:
        own = SeenStatements(tmp_path)
        for value in range(start, 60, 4):
            if not own.observe([mark(value)], NOW):
                accepted.append(value)
        own.close()

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert SeenStatements(tmp_path).seen("a") == (59,)
    assert max(accepted) == 59


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.tuples(st.integers(0, 9), st.integers(0, 9))), max_size=12)
)
def test_against_a_model(tmp_path: Path, steps: list[tuple[str, tuple[int, int]]]) -> None:
    (tmp_path / FILE).unlink(missing_ok=True)
    for more in ("-wal", "-shm"):
        (tmp_path / (FILE + more)).unlink(missing_ok=True)
    seen, model = SeenStatements(tmp_path), dict[str, tuple[int, int]]()
    for subject, parts in steps:
        best = model.get(subject, (0, 0))
        older = parts[0] < best[0] or parts[1] < best[1] - 2
        got = seen.observe([Mark(subject=subject, parts=parts, slack=(0, 2))], NOW)
        assert got == ((subject,) if older else ())
        if not older:
            model[subject] = (max(best[0], parts[0]), max(best[1], parts[1]))
    assert {subject: seen.seen(subject) for subject in model} == model
    seen.close()


def test_a_damaged_file_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database, and long enough to be read as one" * 100)
    with pytest.raises(UnavailableError, match="cannot open"):
        SeenStatements(tmp_path)


@pytest.mark.parametrize("parts", ["", "5", '["x"]', "[1.5]", "[true]"])
def test_damaged_rows_are_errors(seen: SeenStatements, tmp_path: Path, parts: str) -> None:
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("INSERT INTO seen VALUES ('a', ?, 0)", (parts,))
    db.close()
    for use in (lambda: seen.seen("a"), lambda: seen.observe([mark(9)], NOW)):
        with pytest.raises(UnavailableError, match="cannot use"):
            use()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError):
        SeenStatements(tmp_path / "file" / "below")
